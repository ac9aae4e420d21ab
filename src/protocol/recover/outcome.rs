//! What recovery may do, and what it tells of what it did.
//!
//! Nothing is changed here, so a crash inside changes nothing.

use std::path::PathBuf;

use crate::error::{Error, Paths};
use crate::format::journal::record::TransactionId;

/// How a store is recovered ([`Store::recover`](crate::Store::recover)). The default finishes what reached its commit point, waits for
/// another process as long as [`OpenOptions::lock_timeout`](crate::OpenOptions::lock_timeout) says, and refuses where it would have to guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use = "they do nothing until a store is recovered with them"]
pub struct RecoverOptions {
    pub(super) manner: Manner,
    pub(super) unless_busy: bool,
}

impl RecoverOptions {
    /// Whether a commit that is not carried out yet is undone: the way out where it cannot be carried out. Whoever made it may have been
    /// told of success already.
    pub fn undo(mut self, undo: bool) -> Self {
        self.manner.undo = undo;
        self
    }

    /// Whether entries that are neither as before the commit nor as after it are left as they are, and the rest is finished; they are
    /// drift afterwards. With [`RecoverOptions::undo`] the rest is undone, and left are also entries that have no place to come back to:
    /// the way out where another process removed a part of the output or of the stage. What was displaced and cannot come back is
    /// moved to `rescued/` with the stage.
    pub fn skip_unknown(mut self, skip: bool) -> Self {
        self.manner.skip_unknown = skip;
        self
    }

    /// Whether what can wait is left while another process is at work on the store: what dead processes left that changed nothing. That
    /// process recovered first, or the next one does. [`Error::Busy`] is then told only while another process is past its commit point.
    /// [`Store::open`](crate::Store::open) and the command do so.
    pub fn unless_busy(mut self, unless_busy: bool) -> Self {
        self.unless_busy = unless_busy;
        self
    }
}

/// What recovery did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Recovered {
    /// What became of an interrupted commit, if there was one.
    pub commit: Option<RecoveredCommit>,
    /// Transactions whose process had died, and that were discarded.
    pub discarded: Vec<TransactionId>,
    /// Where entries were moved that txfs found among its own and could not prove to be so.
    pub rescued: Vec<PathBuf>,
    /// What was left as it is, being neither as before the interrupted commit nor as after it ([`RecoverOptions::skip_unknown`]).
    pub skipped: Paths,
    /// What failed after the output was as it has to be. The next txfs command tries again.
    pub warnings: Vec<Error>,
}

impl Recovered {
    /// Whether there is nothing to report. Settling a finished commit does not count: every commit leaves that to what comes next.
    pub fn is_nothing(&self) -> bool {
        let was_done = matches!(self.commit, None | Some(RecoveredCommit::Settled { .. }));
        was_done && self.discarded.is_empty() && self.rescued.is_empty()
    }

    /// With what became of the commit after it.
    pub(super) fn and(mut self, mut next: Recovered) -> Self {
        self.commit = next.commit.or(self.commit);
        self.discarded.append(&mut next.discarded);
        self.rescued.append(&mut next.rescued);
        self.warnings.append(&mut next.warnings);
        if self.skipped.is_empty() {
            self.skipped = next.skipped;
        }
        self
    }
}

/// What [`Store::sweep`](crate::Store::sweep) did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Swept {
    /// Whether the last commit is settled and swept; `false` while another process holds the store's lock.
    pub done: bool,
    /// Where entries were moved that txfs found among its own and could not prove to be so.
    pub rescued: Vec<PathBuf>,
    /// What failed after the output was as it has to be. The next txfs command tries again.
    pub warnings: Vec<Error>,
}

/// What became of an interrupted commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveredCommit {
    /// The new generation is published.
    RolledForward {
        /// Its number.
        generation: u64,
        /// How many of its operations had still to be done.
        operations: u64,
    },
    /// The old generation is published.
    RolledBack {
        /// The number that the new one would have had.
        generation: u64,
    },
    /// The commit had not reached its commit point.
    Discarded,
    /// The commit was done; only its journal was still there.
    Settled {
        /// Its number.
        generation: u64,
    },
}

/// What recovery may do that it does not do by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Manner {
    /// Undo a commit that may have been reported.
    pub(crate) undo: bool,
    /// Leave what it does not recognize as it is.
    pub(crate) skip_unknown: bool,
}

impl Manner {
    pub(crate) const PLAIN: Self = Self { undo: false, skip_unknown: false };
}
