//! Locks that die with their process ([`Fs::try_lock`]), on files that are never unlinked while somebody may wait for them.
//!
//! Invariants (G10):
//! 1. The file that is locked is the one that the name leads to: compared after locking, so that a state directory that was
//!    removed and made again does not have two holders.
//! 2. What waits has an end: a lock file that is replaced again and again is waited for like one that is held, and what counts is
//!    the time that goes by, however long a try takes, or the process is stopped.
//! 3. To look whether a lock is held takes none.
//!
//! A crash inside leaves an unlocked file.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result, move_away};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Holder, Kind, found};
use crate::holder::Waiting;
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::store::sharing;

/// How often a lock that somebody holds is tried again.
const INTERVAL: Duration = Duration::from_millis(10);

/// What is waited for less nobody wonders about.
const WORTH_A_WORD: Duration = Duration::from_secs(1);

/// A held lock; dropping it releases it.
#[must_use = "dropping a lock releases it"]
pub(crate) struct Lock<F: Fs> {
    _held: Option<F::Lock>,
}

/// What came of trying to take a lock.
pub(crate) enum Attempt<F: Fs> {
    /// It is held now.
    Held(Lock<F>),
    /// Another process holds it, or another thread.
    Busy,
    /// There is no such file, or not any more.
    Missing,
}

type Told = dyn Fn(&Waiting) + Send + Sync;

/// How long is waited, and who is told of it.
#[derive(Clone)]
pub(crate) struct Patience {
    pub(crate) timeout: Duration,
    pub(crate) told: Option<Arc<Told>>,
}

impl Patience {
    pub(crate) fn of(timeout: Duration) -> Self {
        Self { timeout, told: None }
    }

    pub(crate) fn tell(&self, waiting: impl FnOnce() -> Waiting) {
        if let Some(told) = &self.told {
            told(&waiting());
        }
    }
}

impl fmt::Debug for Patience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.timeout)
    }
}

/// Waiting that has an end.
pub(crate) struct Wait<'a, F: Fs> {
    fs: &'a F,
    begun: Duration,
    limit: Duration,
}

impl<'a, F: Fs> Wait<'a, F> {
    pub(crate) fn begin(fs: &'a F, limit: Duration) -> Self {
        Self { fs, begun: fs.elapsed(), limit }
    }

    /// How long it has lasted. Asked before a try, so that one comes after the end, whatever happened meanwhile.
    pub(crate) fn waited(&self) -> Duration {
        self.fs.elapsed().saturating_sub(self.begun)
    }

    pub(crate) fn is_over(&self, waited: Duration) -> bool {
        waited >= self.limit
    }

    /// Waits before the next try.
    pub(crate) fn pause(&self, interval: Duration) {
        self.fs.pause(interval.min(self.limit.saturating_sub(self.waited())));
    }
}

/// Takes the lock at `path`, which is made where it is missing; `None` when another process holds it.
pub(crate) fn try_acquire<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Result<Option<Lock<F>>> {
    match acquire(tree, path, &Patience::of(Duration::ZERO)) {
        Ok(lock) => Ok(Some(lock)),
        Err(Error::Busy { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Takes the lock at `path` if it is there and nobody holds it.
pub(crate) fn attempt<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Result<Attempt<F>> {
    let locked = tree.parent(path).and_then(|dir| found(tree.fs.try_lock(&dir, path.name())));
    let (held, locked) = match locked.map_err(|error| not_lockable(tree, path, error))? {
        Some(Some(locked)) => locked,
        Some(None) => return Ok(Attempt::Busy),
        None => return Ok(Attempt::Missing),
    };
    match tree.stat(path)? {
        Some(named) if named.is_same_entry(&locked) => Ok(Attempt::Held(Lock { _held: Some(held) })),
        // It went away, or was made again, before it was locked.
        _ => Ok(Attempt::Missing),
    }
}

/// Who holds the lock at `path`; `None` when nobody does, or there is none.
pub(crate) fn holder<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Result<Option<Holder>> {
    let holder = tree.parent(path).and_then(|dir| found(tree.fs.lock_holder(&dir, path.name())));
    Ok(holder.map_err(|error| not_lockable(tree, path, error))?.flatten())
}

fn not_lockable<F: Fs>(tree: &Tree<F>, path: &RelPath, error: io::Error) -> Error {
    match tree.stat(path) {
        Ok(Some(stat)) if stat.kind != Some(Kind::File) => Error::Untrusted {
            path: path.under(tree.at()),
            what: format!("it is not a regular file: {}", move_away(&path.under(tree.at()))),
        },
        _ => tree.io("lock", path)(error),
    }
}

fn make<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Result<()> {
    let made = tree.parent(path).and_then(|dir| {
        let file = tree.fs.create_file(&dir, path.name(), 0o600)?;
        sharing::share_file(tree, &file)
    });
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(tree.io("make the lock", path)(error)),
        _ => Ok(()),
    }
}

/// Takes the lock at `path`, which is made where it is missing, waiting for it.
pub(crate) fn acquire<F: Fs>(tree: &Tree<F>, path: &RelPath, patience: &Patience) -> Result<Lock<F>> {
    wait(tree, path, patience, || match attempt(tree, path)? {
        Attempt::Held(lock) => Ok(Some(lock)),
        Attempt::Busy if left_out(Mutant::StoreLock) => Ok(Some(Lock { _held: None })),
        Attempt::Busy => Ok(None),
        Attempt::Missing => {
            make(tree, path)?;
            match attempt(tree, path)? {
                Attempt::Held(lock) => Ok(Some(lock)),
                // Whoever takes it away before it is locked is waited for, too.
                Attempt::Busy | Attempt::Missing => Ok(None),
            }
        }
    })
}

/// Takes the lock at `path`, waiting for it, or until the caller wants to stop; `None` when there is no such file, or not any more.
pub(crate) fn acquire_existing<F: Fs>(tree: &Tree<F>, path: &RelPath, patience: &Patience) -> Result<Option<Lock<F>>> {
    wait(tree, path, patience, || match attempt(tree, path)? {
        Attempt::Held(lock) => Ok(Some(Some(lock))),
        Attempt::Missing => Ok(Some(None)),
        Attempt::Busy => Ok(None),
    })
}

/// Tries until there is an answer.
fn wait<F: Fs, T>(
    tree: &Tree<F>,
    path: &RelPath,
    patience: &Patience,
    mut attempt: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let (wait, mut told) = (Wait::begin(&tree.fs, patience.timeout), false);
    loop {
        let waited = wait.waited();
        if let Some(answer) = attempt()? {
            return Ok(answer);
        }
        if tree.fs.is_interrupted() {
            return Err(Error::Interrupted { path: path.under(tree.at()) });
        }
        if wait.is_over(waited) {
            return Err(Error::Busy { path: path.under(tree.at()), waited, holder: known_holder(tree, path) });
        }
        if waited >= WORTH_A_WORD && !told {
            patience.tell(|| Waiting::Lock { path: path.under(tree.at()), holder: known_holder(tree, path) });
            told = true;
        }
        wait.pause(INTERVAL);
    }
}

/// Who it is that is waited for, for a message: not to know is no error.
fn known_holder<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Option<Holder> {
    holder(tree, path).ok().flatten()
}
