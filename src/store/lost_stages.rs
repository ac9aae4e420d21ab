//! What a barrier that failed may have lost: every stage that was open, whoever fills it. The kernel tells of an error once (A5), and
//! who asks next hears of none.
//!
//! Invariants:
//! 1. No transaction that was open is committed any more: not by this store, which counts its failures, and not by another process,
//!    for its `meta` is gone.
//! 2. Where a `meta` could not be removed, this store takes up nothing that it has not begun since.
//!
//! A crash inside leaves some of them as they were. (journal-spec.md, "Barriers")

use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::fs::Fs;
use crate::fs::tree::Tree;
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::store::transaction_dir;
use crate::store::{FailedBarriers, Store};

impl<F: Fs> Store<F> {
    /// The whole barrier: makes everything on the store's file system durable.
    pub(crate) fn sync_all(&self) -> Result<()> {
        let synced = self.fs.sync_fs(self.state.root()).map_err(self.state.io("make durable", &RelPath::root()));
        synced.inspect_err(|_| self.note_failed_barrier())
    }

    /// Notes that a barrier failed. Each does so itself, where it fails, and once: what is begun later is not concerned.
    pub(crate) fn note_failed_barrier(&self) {
        note(&self.failed_barriers, &self.state);
    }

    /// How many barriers have failed since the store was opened.
    pub(crate) fn failed_barriers(&self) -> u64 {
        self.failed_barriers.count.load(Ordering::SeqCst)
    }

    /// How many had when a transaction was begun that can still be taken up, at least.
    pub(crate) fn failed_before_any(&self) -> u64 {
        self.failed_barriers.ended_at.load(Ordering::SeqCst)
    }
}

/// [`Store::note_failed_barrier`], for another thread.
pub(crate) fn noting<F: Fs>(store: &Store<F>) -> impl Fn() + Send + Sync + use<F> + 'static {
    let (failed, state) = (store.failed_barriers.clone(), store.state.clone());
    move || note(&failed, &state)
}

fn note<F: Fs>(failed: &FailedBarriers, state: &Tree<F>) {
    let count = failed.count.fetch_add(1, Ordering::SeqCst) + 1;
    if left_out(Mutant::FailedForAll) || transaction_dir::end_all(state).is_ok() {
        failed.ended_at.fetch_max(count, Ordering::SeqCst);
    }
}
