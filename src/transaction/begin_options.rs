//! How a transaction begins.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::transaction_dir::Basis;

/// How a transaction begins.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BeginOptions {
    /// What the stage stands for.
    pub from: Basis,
    /// Whether the transaction outlives this process: it stays open until it is committed or aborted by its stage's path, or
    /// the machine restarts. Otherwise it is discarded when it is dropped, or its process dies. So is one that takes something from the
    /// current generation without staging it ([`Transaction::copy_differing_from`](crate::Transaction::copy_differing_from), [`Transaction::copy_previous`](crate::Transaction::copy_previous)), unless it is kept.
    pub detached: bool,
    /// Whether a stage that begins as a copy ([`Basis::Copy`]) begins with what lies in the output also where somebody else changed
    /// or removed what was published there.
    pub allow_drift: bool,
    /// Whether to wait for other builds of the output before it begins, and how long: as [`BeginOptions::wait`] says.
    pub wait: Option<Duration>,
    /// The directory of the output that alone is replaced, as [`BeginOptions::at`] says.
    pub at: Option<PathBuf>,
}

impl BeginOptions {
    /// What the stage stands for.
    #[must_use = "this returns the changed options"]
    pub fn from(mut self, from: Basis) -> Self {
        self.from = from;
        self
    }

    /// Whether the transaction outlives this process.
    #[must_use = "this returns the changed options"]
    pub fn detached(mut self, detached: bool) -> Self {
        self.detached = detached;
        self
    }

    /// Whether a stage that begins as a copy begins with what somebody else changed.
    #[must_use = "this returns the changed options"]
    pub fn allow_drift(mut self, allow: bool) -> Self {
        self.allow_drift = allow;
        self
    }

    /// Replaces only what is at `path` in the output, a directory that need not be there, and below it; [`Transaction::stage`](crate::Transaction::stage)
    /// then is what is to lie there, paths are relative to it, and guards count what is published there. A commit that came first is
    /// no conflict, unless it changed something there: so several producers publish into one output, each at a path of its own.
    #[must_use = "this returns the changed options"]
    pub fn at(mut self, path: impl AsRef<Path>) -> Self {
        self.at = Some(path.as_ref().to_path_buf());
        self
    }

    /// Waits before it begins, at most for `limit`, until no other process builds for this output and no transaction that was begun so,
    /// and detached, is open; behind all that wait already. What is built last is then published, where otherwise the first to commit wins.
    /// A transaction of this very process is waited for like any other.
    #[must_use = "this returns the changed options"]
    pub fn wait(mut self, limit: Duration) -> Self {
        self.wait = Some(limit);
        self
    }
}
