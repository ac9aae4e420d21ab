//! Locks that die with their process: `flock` through fs2 on files that are never unlinked while somebody may wait for them.
//!
//! Invariants (G10):
//! 1. The file that is locked is the one that the name leads to: compared after locking, so that a state directory that was
//!    removed and made again does not have two holders.
//! 2. The descriptor is close-on-exec ([`crate::fs`], invariant 3): a child does not keep its parent's lock alive.
//!
//! A crash inside leaves an unlocked file.

use std::io;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, found};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;

/// How often a lock that somebody holds is tried again.
const INTERVAL: Duration = Duration::from_millis(10);

/// A held lock; dropping it releases it.
#[must_use = "dropping a lock releases it"]
pub(crate) struct Lock<F: Fs> {
    _file: F::File,
}

/// What came of trying to take a lock.
pub(crate) enum Attempt<F: Fs> {
    /// It is held now.
    Held(Lock<F>),
    /// Another process holds it.
    Busy,
    /// There is no such file.
    Missing,
}

/// Takes the lock at `path`, which is made where it is missing; `None` when another process holds it.
pub(crate) fn try_acquire<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Result<Option<Lock<F>>> {
    loop {
        match attempt(tree, path)? {
            Attempt::Held(lock) => return Ok(Some(lock)),
            Attempt::Busy => return Ok(None),
            Attempt::Missing => make(tree, path)?,
        }
    }
}

/// Takes the lock at `path` if it is there and nobody holds it.
pub(crate) fn attempt<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Result<Attempt<F>> {
    let file = tree.parent(path).and_then(|dir| found(tree.fs.open_lock(&dir, path.name())));
    let Some(file) = file.map_err(|error| not_opened(tree, path, error))? else { return Ok(Attempt::Missing) };
    if !tree.fs.try_lock(&file).map_err(tree.io("lock", path))? {
        return Ok(Attempt::Busy);
    }
    let locked = tree.fs.stat_file(&file).map_err(tree.io("read the attributes of", path))?;
    match tree.stat(path)? {
        Some(named) if (named.dev, named.ino) == (locked.dev, locked.ino) => Ok(Attempt::Held(Lock { _file: file })),
        // It went away, or was made again, before it was locked.
        _ => Ok(Attempt::Missing),
    }
}

fn not_opened<F: Fs>(tree: &Tree<F>, path: &RelPath, error: io::Error) -> Error {
    // EISDIR and ELOOP among others.
    match tree.stat(path) {
        Ok(Some(stat)) if stat.kind != Some(Kind::File) => {
            Error::Untrusted { path: path.under(tree.at()), what: "it is not a regular file: move it away".into() }
        }
        _ => tree.io("open the lock", path)(error),
    }
}

fn make<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Result<()> {
    match tree.parent(path).and_then(|dir| tree.fs.create_file(&dir, path.name(), 0o600)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(tree.io("make the lock", path)(error)),
        _ => Ok(()),
    }
}

/// Takes the lock at `path`, which is made where it is missing, waiting for it up to `timeout`.
pub(crate) fn acquire<F: Fs>(tree: &Tree<F>, path: &RelPath, timeout: Duration) -> Result<Lock<F>> {
    loop {
        if let Some(lock) = acquire_existing(tree, path, timeout)? {
            return Ok(lock);
        }
        make(tree, path)?;
    }
}

/// Takes the lock at `path`, waiting for it up to `timeout`, or until the caller wants to stop; `None` when there is no such file, or not any more.
pub(crate) fn acquire_existing<F: Fs>(tree: &Tree<F>, path: &RelPath, timeout: Duration) -> Result<Option<Lock<F>>> {
    let mut waited = Duration::ZERO;
    loop {
        match attempt(tree, path)? {
            Attempt::Held(lock) => return Ok(Some(lock)),
            Attempt::Missing => return Ok(None),
            Attempt::Busy if left_out(Mutant::StoreLock) => {
                let file = tree.parent(path).and_then(|dir| tree.fs.open_write(&dir, path.name()));
                return file.map(|file| Some(Lock { _file: file })).map_err(tree.io("open the lock", path));
            }
            Attempt::Busy if tree.fs.is_interrupted() => {
                return Err(Error::Interrupted { path: path.under(tree.at()) });
            }
            Attempt::Busy if waited >= timeout => return Err(Error::Busy { path: path.under(tree.at()), waited }),
            Attempt::Busy => {}
        }
        let pause = INTERVAL.min(timeout - waited);
        tree.fs.pause(pause);
        waited += pause;
    }
}
