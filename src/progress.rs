//! How far something has come that takes long, for who wants to show it.
//!
//! Invariant: whoever is told decides nothing; that a listener fails is a crash of the process that it is in.
//!
//! Nothing is changed here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A listener is told of every so many steps: it is not to cost what it tells of.
const EVERY: u64 = 64;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Entries are copied into a stage: when a transaction begins with a copy, or is filled with a directory. The output is not changed.
    Copy,
    /// The entries of a stage are listed and digested. The output is not changed. A commit may do so more than once.
    Scan,
    /// The commit waits until the disk has what is staged: one step. At its end the commit is made.
    Barrier,
    /// The operations of the commit are carried out in the output, or those of an interrupted one by recovery.
    Apply,
    /// Entries of the output are read and compared with what was published ([`Store::verify`](crate::Store::verify)).
    Verify,
}

/// How far it has come, as [`OpenOptions::on_progress`](crate::OpenOptions::on_progress) is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// How many steps are done: 0 where it begins, and again where it begins anew.
    pub done: u64,
    /// How many there are, where that is known; at the end it always is, and `done` is as many.
    pub total: Option<u64>,
}

type Told = dyn Fn(&Progress) + Send + Sync;

/// Whom to tell.
#[derive(Clone, Default)]
pub(crate) struct Listener(Option<Arc<Told>>);

impl Listener {
    pub(crate) fn new(told: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(told)))
    }

    /// Tells that something begins.
    pub(crate) fn begin(&self, phase: Phase, total: Option<u64>) -> Meter<'_> {
        let meter = Meter { told: self.0.as_deref(), phase, total, done: AtomicU64::new(0) };
        meter.tell(0);
        meter
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", if self.0.is_some() { "told" } else { "not told" })
    }
}

/// How far one thing has come.
pub(crate) struct Meter<'a> {
    told: Option<&'a Told>,
    phase: Phase,
    total: Option<u64>,
    done: AtomicU64,
}

impl Meter<'_> {
    /// One step more is done.
    pub(crate) fn step(&self) {
        if self.told.is_none() {
            return;
        }
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(EVERY) && Some(done) != self.total {
            self.tell(done);
        }
    }

    /// All of it is done.
    pub(crate) fn end(mut self) {
        let done = self.total.unwrap_or_else(|| self.done.load(Ordering::Relaxed));
        self.total = Some(done);
        self.tell(done);
    }

    fn tell(&self, done: u64) {
        // What a transaction mends that is dropped by a panic, as of the listener itself, is not to meet it again.
        if let Some(told) = self.told.filter(|_| !std::thread::panicking()) {
            told(&Progress { phase: self.phase, done, total: self.total });
        }
    }
}
