//! Locks that die with their process: `flock` through fs2 on files that are never unlinked while somebody may wait for them.
//!
//! Invariants (G10):
//! 1. The file that is locked is the one that the name leads to: compared after locking, so that a state directory that was
//!    removed and made again does not have two holders.
//! 2. The descriptor is close-on-exec ([`crate::fs`], invariant 3): a child does not keep its parent's lock alive.
//!
//! A crash inside leaves an unlocked file.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::fs::tree::Tree;
use crate::fs::{Fs, found};
use crate::path::RelPath;

/// How often a lock that somebody holds is tried again.
const INTERVAL: Duration = Duration::from_millis(10);

/// A held lock; dropping it releases it.
#[must_use = "dropping a lock releases it"]
pub(crate) struct Lock<F: Fs> {
    _file: F::File,
}

/// Takes the lock at `path`, or returns `None` when another process holds it.
pub(crate) fn try_acquire<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Result<Option<Lock<F>>> {
    loop {
        let file = open(tree, path)?;
        if !tree.fs.try_lock(&file).map_err(tree.io("lock", path))? {
            return Ok(None);
        }
        let locked = tree.fs.stat_file(&file).map_err(tree.io("read the attributes of", path))?;
        if tree.stat(path)?.is_some_and(|named| (named.dev, named.ino) == (locked.dev, locked.ino)) {
            return Ok(Some(Lock { _file: file }));
        }
    }
}

/// Takes the lock at `path`, waiting for it up to `timeout`.
pub(crate) fn acquire<F: Fs>(tree: &Tree<F>, path: &RelPath, timeout: Duration) -> Result<Lock<F>> {
    let mut waited = Duration::ZERO;
    loop {
        if let Some(lock) = try_acquire(tree, path)? {
            return Ok(lock);
        }
        if waited >= timeout {
            return Err(Error::Busy { path: path.under(tree.at()), waited });
        }
        let pause = INTERVAL.min(timeout - waited);
        tree.fs.pause(pause);
        waited += pause;
    }
}

fn open<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Result<F::File> {
    let result = tree.parent(path).and_then(|dir| {
        Ok(match found(tree.fs.open_write(&dir, path.name()))? {
            Some(file) => file,
            None => match tree.fs.create_file(&dir, path.name(), 0o600) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    tree.fs.open_write(&dir, path.name())?
                }
                result => result?,
            },
        })
    });
    result.map_err(tree.io("open the lock", path))
}
