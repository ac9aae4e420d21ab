//! A barrier before barrier 1: the disk works while files are still written by the library, and while a stage is read, planned and
//! journaled. What comes last waits for less.
//!
//! Invariants:
//! 1. It orders nothing. Barrier 1 does all that it has to do without it, also while it goes on.
//! 2. Its error counts as barrier 1's, for the kernel may tell it only once (A5): no commit is made before it has ended, and what it
//!    may concern is committed by nobody.
//! 3. It has ended when its [`Transaction`](crate::Transaction) is gone.
//!
//! A crash inside leaves what a crash before barrier 1 leaves.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::error::Result;
use crate::fs::Fs;
use crate::fs::tree::Tree;
use crate::path::RelPath;

/// Where so much is known to be new so soon, most of what is still to be read probably is.
const MUCH: usize = 64;

/// The early barriers of a transaction, one at a time.
pub(crate) struct EarlySync<F: Fs> {
    tree: Tree<F>,
    /// What is to be done at once when one fails.
    note_failed: Arc<dyn Fn() + Send + Sync>,
    due_at: usize,
    /// Entries that are known to be other than what is published.
    changed: AtomicUsize,
    begun: AtomicBool,
    syncing: Mutex<Syncing>,
}

#[derive(Default)]
struct Syncing {
    thread: Option<JoinHandle<io::Result<()>>>,
    failed: Option<io::Error>,
}

impl Syncing {
    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            let synced = thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")));
            self.failed = self.failed.take().or(synced.err());
        }
    }

    fn is_under_way(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl<F: Fs> EarlySync<F> {
    /// Of the file system that `tree` is on. Of one that fails `note_failed` learns when that happens: until somebody waits for it there
    /// may be hours of writing, and another process may commit what is open.
    pub(crate) fn of(tree: &Tree<F>, note_failed: impl Fn() + Send + Sync + 'static) -> Self {
        let (changed, begun, syncing) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::default());
        Self { tree: tree.clone(), note_failed: Arc::new(note_failed), due_at: usize::MAX, changed, begun, syncing }
    }

    /// From here on one is due once so many entries have changed.
    pub(crate) fn arm(&mut self, due_at: usize) {
        self.due_at = due_at;
        (self.changed, self.begun) = (AtomicUsize::new(0), AtomicBool::new(false));
    }

    pub(crate) fn note_changed(&self) {
        self.changed.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins the one that is due, if nobody has. Says whether that will take as much of a processor as reading does: then the thread
    /// that began it had better leave the rest of its work to others.
    pub(crate) fn begin_when_due(&self) -> bool {
        let changed = self.changed.load(Ordering::Relaxed);
        if changed < self.due_at || self.begun.swap(true, Ordering::Relaxed) {
            return false;
        }
        self.begin() && changed >= MUCH
    }

    /// Begins one, unless one is under way or has failed.
    pub(crate) fn begin(&self) -> bool {
        let mut syncing = self.syncing();
        if syncing.is_under_way() {
            return false;
        }
        syncing.join();
        if syncing.failed.is_none() {
            let (tree, note_failed) = (self.tree.clone(), self.note_failed.clone());
            let sync = move || tree.fs.sync_fs(tree.root()).inspect_err(|_| note_failed());
            // Where the system has no more threads to give, barrier 1 does all of it.
            syncing.thread = Builder::new().spawn(sync).ok();
        }
        syncing.thread.is_some()
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.syncing().is_under_way()
    }

    /// Waits for the one that was begun.
    ///
    /// # Errors
    /// What the kernel said to any: it is not said again.
    pub(crate) fn wait(&self) -> Result<()> {
        let mut syncing = self.syncing();
        syncing.join();
        syncing.failed.take().map_or(Ok(()), Err).map_err(self.tree.io("make durable", &RelPath::root()))
    }

    fn syncing(&self) -> MutexGuard<'_, Syncing> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Fs> Drop for EarlySync<F> {
    fn drop(&mut self) {
        self.syncing().join();
    }
}
