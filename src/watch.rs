//! Waiting for generations: each that is committed is told of once, and none is left out.
//!
//! Invariants:
//! 1. A generation is told of when HEAD names it or a later one: none that is being committed, and none that failed.
//! 2. Nothing rests on what the kernel tells: HEAD is looked at again after a while in any case. So nothing that is told late, or not at
//!    all, is missed.
//! 3. No lock is taken, and nothing is written: no commit waits for whoever watches.
//!
//! A crash inside leaves nothing.

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::fs::Machine;
use crate::fs::linux::notice::Notice;
use crate::protocol::history::Generation;
use crate::store::{OpenOptions, Store};

/// After so long HEAD is looked at again in any case, and whoever waits is asked whether to stop.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The generations of an output, as they are committed ([`Watch::new`]). It is an iterator without an end; [`Watch::next_within`] does not wait
/// for ever.
pub struct Watch {
    options: OpenOptions,
    output: PathBuf,
    store: Option<(Store, Option<Notice>)>,
    last: u64,
    /// The generation that was current when it was looked at last.
    seen: u64,
    told: VecDeque<Generation>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("output", &self.output).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Watch {
    /// Watches an output, which need not have been published yet. Told of is every generation after `after`, the current one too if it is; or
    /// those that are committed from now on.
    ///
    /// Of generations that are not kept only the number is known by the time that they are told of. Where the state of the output is removed and
    /// another is made, that one's generations are told of from the first.
    ///
    /// ```
    /// use std::time::Duration;
    /// use txfs::{BeginOptions, CommitOptions, OpenOptions, Store, Watch};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let dist = dir.path().join("dist");
    /// let mut watch = Watch::new(&OpenOptions::default(), &dist, None)?;
    /// let mut transaction = Store::open(&dist)?.begin(BeginOptions::default())?;
    /// transaction.write("index.html", "<h1>Hello</h1>")?;
    /// transaction.commit(&CommitOptions::default())?;
    /// let told = watch.next_within(Duration::from_secs(5))?;
    /// assert_eq!(told.map(|generation| generation.number), Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NotAnOutput`], [`Error::Untrusted`], [`Error::Corrupt`]; the state directory cannot be read.
    pub fn new(options: &OpenOptions, out: impl AsRef<Path>, after: Option<u64>) -> Result<Self> {
        let output = Store::locate(options, out.as_ref())?;
        let mut watch = Self { options: options.clone(), output, store: None, last: 0, seen: 0, told: VecDeque::new() };
        let current = watch.current()?;
        watch.seen = current;
        watch.last = after.unwrap_or(current);
        Ok(watch)
    }

    /// The output.
    pub fn output(&self) -> &Path {
        &self.output
    }

    /// The generation after which the next is told of.
    pub fn after(&self) -> u64 {
        self.last
    }

    /// The next generation; `None` when none is committed within `limit`.
    ///
    /// # Errors
    /// As [`Watch::new`]; [`Error::Interrupted`].
    pub fn next_within(&mut self, limit: Duration) -> Result<Option<Generation>> {
        let began = Instant::now();
        loop {
            self.look()?;
            if let Some(generation) = self.told.pop_front() {
                self.last = generation.number;
                return Ok(Some(generation));
            }
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            if self.options.fs.is_interrupted() {
                return Err(Error::Interrupted { path: self.output.clone() });
            }
            match &self.store {
                Some((_, Some(notice))) => notice.wait(left.min(LOOK_AGAIN)),
                _ => std::thread::sleep(left.min(LOOK_AGAIN)),
            }
        }
    }

    /// The current generation; 0 where there is none.
    fn current(&mut self) -> Result<u64> {
        for _ in 0..2 {
            if self.store.is_none() {
                // Before HEAD is looked at: what is committed in between is told of twice, and looked at once.
                let found = Store::find(&self.options, &self.output)?;
                self.store = found.map(|store| {
                    let notice = Notice::of(store.state.root());
                    (store, notice)
                });
            }
            let Some((store, _)) = &self.store else { return Ok(0) };
            if let Some(head) = store.head()? {
                return Ok(head.info.generation);
            }
            // Nothing was published yet, or the state was removed, and perhaps another is there.
            self.store = None;
        }
        Ok(0)
    }

    /// Notes what is to be told of.
    fn look(&mut self) -> Result<()> {
        let current = self.current()?;
        if current == 0 {
            return Ok(());
        }
        let last = self.told.back().map_or(self.last, |generation| generation.number);
        // Another store has begun to count anew.
        let from = if current < self.seen { 0 } else { last };
        self.seen = current;
        let Some((store, _)) = &self.store else { return Ok(()) };
        for number in from + 1..=current {
            self.told.push_back(store.told_of(number)?);
        }
        Ok(())
    }
}

impl Iterator for Watch {
    type Item = Result<Generation>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_within(Duration::MAX) {
                Ok(None) => {}
                Ok(Some(generation)) => return Some(Ok(generation)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
