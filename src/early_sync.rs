//! A first barrier of a commit, begun as soon as it is known that so much in the stage is new: the disk works while the rest is read,
//! planned and written, and what comes last waits for less.
//!
//! Invariants:
//! 1. It orders nothing. Barrier 1 is passed as if it were not there, also while it goes on.
//! 2. Its error counts as barrier 1's, for the kernel may tell it only once (A5): no commit is made before it has ended.
//!
//! A crash inside leaves what a crash before barrier 1 leaves.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use crate::error::Result;
use crate::fs::Fs;
use crate::fs::tree::Tree;
use crate::path::RelPath;

/// Where so much is known to be new so soon, most of what is still to be read probably is.
const MUCH: usize = 64;

/// The first barrier of one attempt to commit.
pub(crate) struct EarlySync<F: Fs> {
    tree: Tree<F>,
    due_at: usize,
    /// Entries that are known to be other than what is published.
    changed: AtomicUsize,
    begun: AtomicBool,
    syncing: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

impl<F: Fs> EarlySync<F> {
    /// Of the file system that `tree` is on; due once so many entries have changed.
    pub(crate) fn of(tree: &Tree<F>, due_at: usize) -> Self {
        let (changed, begun, syncing) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
        Self { tree: tree.clone(), due_at, changed, begun, syncing }
    }

    pub(crate) fn note_changed(&self) {
        self.changed.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins it if it is due and nobody has. Says whether that will take as much of a processor as reading does: then the thread
    /// that began it had better leave the rest of its work to others.
    pub(crate) fn begin_when_due(&self) -> bool {
        let changed = self.changed.load(Ordering::Relaxed);
        if changed < self.due_at || self.begun.swap(true, Ordering::Relaxed) {
            return false;
        }
        let tree = self.tree.clone();
        let syncing = Builder::new().spawn(move || tree.fs.sync_fs(tree.root()));
        // Where the system has no more threads to give, barrier 1 does all of it.
        *self.syncing() = syncing.ok();
        changed >= MUCH && self.is_under_way()
    }

    /// Whether it was begun, and has not been waited for.
    pub(crate) fn is_under_way(&self) -> bool {
        self.syncing().is_some()
    }

    /// Waits for it, if it was begun.
    ///
    /// # Errors
    /// What the kernel said: it is not said again.
    pub(crate) fn wait(&self) -> Result<()> {
        let syncing = self.syncing().take();
        let synced = syncing.map_or(Ok(()), |syncing| syncing.join().expect("a system call does not panic"));
        synced.map_err(self.tree.io("make durable", &RelPath::root()))
    }

    fn syncing(&self) -> MutexGuard<'_, Option<JoinHandle<io::Result<()>>>> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
