//! How many generations before the current one are kept, and for how long: what was said last.
//!
//! Invariants (journal-spec.md, "Layout"):
//! 1. What is said is durable before it has its name, and its name before the call returns: a crash never keeps less than was said.
//! 2. A store of which nothing was said has no such file, and keeps one generation, as older programs do.
//! 3. What cannot be read keeps everything.

use std::io::{Read, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::frame::{Damage, Format};
use crate::format::manifest::{encode_one, read_one};
use crate::fs::compiled::{compiled, same_ref};
use crate::fs::{Fs, RenameMode, Timestamp};
use crate::mutant::{Mutant, left_out};
use crate::store::Store;
use crate::store::layout::{name, open_trusted, state_path, write_new};

const FORMAT: Format = Format { magic: *b"txfskeep", version: 1 };
/// Longer than any that is valid.
const SIZE_MAX: u64 = 4096;

/// Which generations before the current one are kept, to go back to: those that either limit keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Retention {
    /// How many; one unless something else was said. With 0 what a commit displaced is freed when the next transaction begins.
    pub generations: u64,
    /// And those that were published within so many seconds, whatever their number.
    pub seconds: Option<u64>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { generations: 1, seconds: None }
    }
}

impl Retention {
    /// The last `generations` before the current one.
    #[must_use]
    pub fn generations(generations: u64) -> Self {
        Self { generations, seconds: None }
    }

    /// Besides, what was published at some time within the last `age`; in whole seconds.
    #[must_use]
    pub fn and_within(mut self, age: Duration) -> Self {
        self.seconds = Some(age.as_secs());
        self
    }

    /// Whether what generation `displaced` displaced, at that time, is kept while `current` is published.
    pub(crate) fn keeps(&self, displaced: u64, at: Option<Timestamp>, current: u64, now: Timestamp) -> bool {
        if current.saturating_sub(displaced) < self.generations {
            return true;
        }
        let Some(seconds) = self.seconds else { return false };
        // What it displaced had been published until then. What has no time keeps nothing, for then its journal is gone.
        at.is_some_and(|at| now.seconds.saturating_sub(at.seconds) < i64::try_from(seconds).unwrap_or(i64::MAX))
    }
}

impl<F: Fs> Store<F> {
    /// What is kept of the past.
    ///
    /// # Errors
    /// [`Error::RetentionUnknown`] where it cannot be made out what was said; then everything is kept.
    pub fn retention(&self) -> Result<Retention> {
        compiled!(F, (this: &Store = same_ref(self)) -> Result<Retention> { this.retention_any() });
        self.retention_any()
    }

    fn retention_any(&self) -> Result<Retention> {
        let path = state_path(name::RETENTION);
        let Some(stream) = open_trusted(&self.state, &path)? else { return Ok(Retention::default()) };
        let mut bytes = Vec::new();
        let read = stream.take(SIZE_MAX).read_to_end(&mut bytes).map_err(Into::into);
        let retention = read.and_then(|_| read_one(&*bytes, FORMAT));
        retention.map_err(|damage| match damage {
            Damage::Io(source) => self.state.io("read", &path)(source),
            damage => Error::RetentionUnknown { path: path.under(self.state.at()), what: damage.to_string() },
        })
    }

    /// Says what is to be kept of the past from now on. It is durable when this returns. What is not kept any more goes when the next
    /// transaction begins, or by [`Store::sweep`] or [`Store::prune`].
    ///
    /// # Errors
    /// [`Error::Busy`] while another process commits; the state directory cannot be written.
    pub fn set_retention(&self, retention: Retention) -> Result<()> {
        compiled!(F, (this: &Store = same_ref(self), retention: Retention = retention) -> Result<()> {
            this.set_retention_any(retention)
        });
        self.set_retention_any(retention)
    }

    fn set_retention_any(&self, retention: Retention) -> Result<()> {
        let _lock = self.lock()?;
        if self.retention().is_ok_and(|said| said == retention) {
            return Ok(());
        }
        let (new, path) = (state_path(name::RETENTION_NEW), state_path(name::RETENTION));
        write_new(&self.state, &new, |mut stream| {
            stream.write_all(&encode_one(&retention, FORMAT)?)?;
            if left_out(Mutant::RetentionBarrier) { Ok(()) } else { stream.fs.sync_file(&stream.file) }
        })?;
        let dir = self.state.root();
        let renamed = self.state.fs.rename(dir, new.name(), dir, path.name(), RenameMode::Replace);
        renamed.map_err(self.state.io("write", &path))?;
        // The barrier is whole: it also makes durable that freed entries are gone, whose proof may go at the next sweep now.
        if left_out(Mutant::RetentionName) { Ok(()) } else { self.sync_all() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn either_limit_keeps() {
        let kept = |retention: Retention, displaced| retention.keeps(displaced, Some(at(1_000)), 10, at(1_060));
        for (retention, kept_from) in [
            (Retention::default(), 10),
            (Retention::generations(0), 11),
            (Retention::generations(3), 8),
            (Retention::generations(99), 0),
            (Retention::generations(0).and_within(Duration::from_secs(60)), 11),
            (Retention::generations(0).and_within(Duration::from_secs(61)), 0),
            (Retention::generations(2).and_within(Duration::from_secs(1)), 9),
        ] {
            for displaced in 1..=10 {
                assert_eq!(kept(retention, displaced), displaced >= kept_from, "{retention:?} {displaced}");
            }
        }
    }
}
