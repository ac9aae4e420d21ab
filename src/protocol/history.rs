//! What is known of the past: the current generation, and those that can be gone back to.
//!
//! Invariant: what is told was said by journals and HEAD, each commit by itself; nothing is derived from what happens to lie there now,
//! but for the bytes that are held.

use crate::error::{Error, NothingBefore, Result};
use crate::format::journal::reader::Journal;
use crate::format::journal::record::Operation;
use crate::format::manifest::{Head, Totals};
use crate::fs::compiled::{compiled, same_ref};
use crate::fs::{Fs, Timestamp};
use crate::plan::Change;
use crate::plan::between::between;
use crate::protocol::settle;
use crate::store::Store;
use crate::store::current::Current;
use crate::store::layout::{JOURNALS, name, previous_path, state_path};
use crate::store::retention::Retention;
use crate::store::snapshot::Snapshot;

/// A generation, as [`Store::history`] tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Generation {
    /// Its number.
    pub number: u64,
    /// When it was committed; `None` where what said so is not kept.
    pub committed: Option<Timestamp>,
    /// What the user said about it.
    pub message: Option<String>,
    /// How much it publishes; `None` as above.
    pub totals: Option<Totals>,
    /// What its commit did; `None` as above.
    pub changes: Option<Changes>,
    /// Bytes that are held of what its commit displaced, to go back to the generation before.
    pub held: u64,
}

/// How many entries a commit touched. A directory that moved with all that is in it counts once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Changes {
    /// Those where nothing was.
    pub added: u64,
    /// Those that were replaced, and directories whose mode changed.
    pub modified: u64,
    /// Those that went.
    pub removed: u64,
}

impl Changes {
    fn of(operations: &[Operation]) -> Self {
        let mut changes = Self::default();
        for operation in operations {
            match operation {
                Operation::Add { .. } => changes.added += 1,
                Operation::Replace { .. } | Operation::SetMode { .. } => changes.modified += 1,
                Operation::Remove { .. } | Operation::RemoveDirectory { .. } => changes.removed += 1,
            }
        }
        changes
    }
}

impl Generation {
    fn unknown(number: u64) -> Self {
        Self { number, committed: None, message: None, totals: None, changes: None, held: 0 }
    }

    fn of(head: &Head, journal: Option<&Journal>) -> Self {
        Self {
            number: head.info.generation,
            committed: Some(head.info.committed),
            message: head.info.message.clone(),
            totals: Some(head.totals),
            changes: journal.map(|journal| Changes::of(&journal.operations)),
            held: 0,
        }
    }
}

impl<F: Fs> Store<F> {
    /// The current generation, and those before it that can be gone back to by [`Transaction::copy_generation`](crate::Transaction::copy_generation):
    /// the newest first. Nothing where nothing was published. No lock is taken; a commit meanwhile may free what was told of.
    ///
    /// # Errors
    /// The state directory cannot be read, or is damaged.
    pub fn history(&self) -> Result<Vec<Generation>> {
        compiled!(F, (this: &Store = same_ref(self)) -> Result<Vec<Generation>> { this.history_any() });
        self.history_any()
    }

    fn history_any(&self) -> Result<Vec<Generation>> {
        let Some(head) = self.head()? else { return Ok(Vec::new()) };
        let current = head.info.generation;
        let (retention, mut told) = (self.retention()?, Vec::new());
        let mut displacing = self.journal_of(current)?;
        told.push(Generation::of(&head, displacing.as_ref()));
        let Some(oldest) = self.oldest_kept(current, retention)? else { return Ok(told) };
        while let Some(journal) = displacing {
            let (generation, base) = (journal.begin.head.info.generation, journal.begin.base);
            if generation < oldest || settle::is_freed(self, &journal)? {
                break;
            }
            if let Some(last) = told.last_mut() {
                last.held = self.held_of(generation)?;
            }
            // Before the first there was nothing; and no journal leads anywhere but back.
            if base == 0 || base >= generation {
                break;
            }
            displacing = self.journal_of(base)?;
            told.push(match &displacing {
                Some(before) => Generation::of(&before.begin.head, Some(before)),
                None => Generation::unknown(base),
            });
        }
        Ok(told)
    }

    /// An earlier generation, to be read, as [`Store::snapshot`] is: what was displaced since is read where it is kept. It costs reading the
    /// journals of all commits since, and takes no lock. A commit that is not settled yet has to be recovered before ([`Store::recover`]).
    ///
    /// ```
    /// use txfs::{BeginOptions, CommitOptions, Store};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let dist = dir.path().join("dist");
    /// let store = Store::open(&dist)?;
    /// for text in ["one", "two"] {
    ///     let mut transaction = store.begin(BeginOptions::default())?;
    ///     transaction.write("index.html", text)?;
    ///     transaction.commit(&CommitOptions::default())?;
    /// }
    /// store.recover(Default::default())?; // settles the commit, if nothing has yet
    /// store.sweep()?;
    /// assert_eq!(store.at(1)?.read("index.html")?, b"one");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NothingBefore`] when it is not kept, or never was; those of [`Store::snapshot`].
    pub fn at(&self, generation: u64) -> Result<Snapshot<F>> {
        compiled!(F, (this: &Store = same_ref(self), generation: u64 = generation) -> Result<Snapshot> {
            this.at_any(generation)
        });
        self.at_any(generation)
    }

    fn at_any(&self, generation: u64) -> Result<Snapshot<F>> {
        let now = self.snapshot()?;
        let current = now.generation();
        let refuse = |why| Err(Error::NothingBefore { output: self.output.path.clone(), why });
        if generation == current {
            return Ok(now);
        }
        if generation > current || generation == 0 {
            return refuse(NothingBefore::NotBefore { generation, current });
        }
        let (mut since, mut first) = (Vec::new(), None);
        for displacing in generation + 1..=current {
            match settle::displaced_by(self, displacing)? {
                Some((journal, displaced)) if !settle::is_freed(self, &journal)? => {
                    since.push(displaced);
                    first.get_or_insert(journal);
                }
                _ => return refuse(NothingBefore::NotKept { generation }),
            }
        }
        // The journal of the next generation says where its manifest is, and its own when it was committed, and with which words.
        let (Some(first), Some(own)) = (first, self.journal_of(generation)?) else {
            return refuse(NothingBefore::NotKept { generation });
        };
        let inventory = self.base_inventory(&first.begin)?;
        Ok(now.before(Current::then(own.begin.head, inventory), since))
    }

    /// What the commit of a generation changed for readers, path for path; `None` where that is not known any more. It needs the manifests, which
    /// are kept as long as the generation before can be gone back to, and nothing of the content.
    ///
    /// # Errors
    /// A journal cannot be read.
    pub fn changes_of(&self, generation: u64) -> Result<Option<Vec<Change>>> {
        compiled!(F, (this: &Store = same_ref(self), generation: u64 = generation) -> Result<Option<Vec<Change>>> {
            this.changes_of_any(generation)
        });
        self.changes_of_any(generation)
    }

    fn changes_of_any(&self, generation: u64) -> Result<Option<Vec<Change>>> {
        let Some(journal) = self.journal_of(generation)? else { return Ok(None) };
        let before = self.base_inventory(&journal.begin);
        let now = self.inventory(&journal.begin.head);
        // Commits meanwhile may have removed them.
        Ok(before.and_then(|before| between(&before, &now?)).ok())
    }

    /// What is known of a generation, whether it can be gone back to or not.
    pub(crate) fn told_of(&self, number: u64) -> Result<Generation> {
        let journal = self.journal_of(number)?;
        let head = match &journal {
            Some(journal) => Some(journal.begin.head.clone()),
            None => self.head()?.filter(|head| head.info.generation == number),
        };
        Ok(match head {
            Some(head) => Generation::of(&head, journal.as_ref()),
            None => Generation::unknown(number),
        })
    }

    /// Bytes of what a generation displaced.
    fn held_of(&self, generation: u64) -> Result<u64> {
        let within = |name: &str| state_path(name).within(&previous_path(generation));
        let held = [name::STAGE, name::REMOVED, name::KEPT].map(|name| self.held_at(&within(name)));
        held.into_iter().try_fold(0, |sum, held| Ok(sum + held?.bytes))
    }

    /// The first generation from which on all that was displaced is kept, if any is.
    fn oldest_kept(&self, current: u64, retention: Retention) -> Result<Option<u64>> {
        for generation in settle::numbers(self, name::PREVIOUS)? {
            if settle::is_kept_by(self, retention, generation, current)? {
                return Ok(Some(generation));
            }
        }
        Ok(None)
    }

    /// The journal of a generation's commit, settled or not.
    fn journal_of(&self, generation: u64) -> Result<Option<Journal>> {
        let unsettled = JOURNALS.iter().map(|journal| state_path(journal));
        for path in std::iter::once(settle::settled_path(generation)).chain(unsettled) {
            if let Some(Ok(journal)) = settle::read_journal(self, &path)?
                && journal.begin.head.info.generation == generation
            {
                return Ok(Some(journal));
            }
        }
        Ok(None)
    }
}
