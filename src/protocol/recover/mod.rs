//! Recovery: what an interrupted commit left is rolled forward, rolled back, or refused.
//!
//! | journal | HEAD | action |
//! |---|---|---|
//! | none | any | clean: discard what dead transactions left |
//! | `journal.new`, torn or damaged | any | clean: it is no commit |
//! | `journal.new`, valid | its base | roll forward if there is evidence (`evidence.rs`) that barrier 1 was passed; else discard |
//! | `journal.new`, valid | its generation | finish |
//! | `journal.new`, valid | a later generation | clean: its name came back |
//! | another, torn or damaged; any of another version | any | refuse |
//! | `journal`, valid | its base | roll forward |
//! | `journal`, valid | its generation | finish: roll forward what the file system reordered, then settle |
//! | `journal`, valid | a later generation | settle |
//! | `journal.undo`, valid | its base | finish undoing |
//! | `journal.undo`, valid | a later generation | drop |
//! | `journal.undo`, valid | its generation | refuse |
//! | valid | another base | refuse |
//!
//! The table stands here as comment, in [`mod@decide`] as data, and in the tests as expectation.
//!
//! Invariants (journal-spec.md, "Recovery"):
//! 1. It is deterministic and idempotent: every operation is told done from not done by identity, so a crash at any step of
//!    recovery is recovered by the next (G7).
//! 2. Before it changes anything it has recognized everything. Where identities do not fit, it refuses and touches nothing.
//! 3. What a commit did is durable (barrier 2) before its journal is retired. A commit leaves that to whoever takes the store's
//!    lock next: until then its journal stands for it.

mod back;
mod decide;
mod evidence;
mod outcome;

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;
use std::sync::PoisonError;

use self::evidence::Verdict;
use crate::error::{Error, Paths, Result};
use crate::format::frame::Damage;
use crate::format::journal::reader::{Journal, Read};
use crate::format::journal::record::TransactionId;
use crate::format::manifest::Head;
use crate::fs::compiled::{compiled, same_ref};
use crate::fs::{Fs, Kind};
use crate::mutant::{Mutant, left_out};
use crate::protocol::apply::{Applier, State, modes_of};
use crate::protocol::barrier;
use crate::protocol::carry_out::{Attempt, Carrying, Relation, relation};
use crate::protocol::settle;
use crate::store::layout::{JOURNALS, name, state_path};
use crate::store::lock::Lock;
use crate::store::transaction_dir::Life;
use crate::store::{OpenOptions, Store};

use decide::{Action, Found, decide, found_as};
pub(crate) use outcome::Manner;
pub use outcome::{RecoverOptions, Recovered, RecoveredCommit, Swept};

impl Store {
    /// Opens the store of the output `out`, makes one where there is none, and recovers it if that is needed.
    ///
    /// `out` need not exist: the first commit makes it. Where it is a symbolic link, the link's target is the output.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let store = txfs::Store::open(dir.path().join("dist"))?;
    /// assert!(store.head()?.is_none(), "nothing has been published");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Busy`] when another process has worked on it for longer than 10 s, [`Error::Untrusted`] and
    /// [`Error::Corrupt`] when its state cannot be used, [`Error::Unsupported`] when its file system lacks what safety needs; and
    /// those of [`Store::recover`].
    pub fn open(out: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(&OpenOptions::default(), out)
    }
}

impl<F: Fs> Store<F> {
    /// As [`Store::open`], with options.
    ///
    /// ```
    /// # fn main() -> txfs::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a temporary directory");
    /// use std::time::Duration;
    ///
    /// let options = txfs::OpenOptions::default().lock_timeout(Duration::from_secs(60));
    /// let store = txfs::Store::open_with(&options, dir.path().join("dist"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(options: &OpenOptions<F>, out: impl AsRef<Path>) -> Result<Self> {
        let out = out.as_ref();
        compiled!(F, (options: &OpenOptions = same_ref(options), out: &Path = out) -> Result<Store> {
            Store::open_any(options, out)
        });
        Self::open_any(options, out)
    }

    fn open_any(options: &OpenOptions<F>, out: &Path) -> Result<Self> {
        let store = Self::find_or_make(options, out)?;
        if options.recovers {
            store.recover(RecoverOptions::default().unless_busy(true))?;
        }
        Ok(store)
    }

    /// Finishes or undoes what a crash interrupted. Where there is nothing to do it costs a few `stat`, a list of the open
    /// transactions, and reading HEAD and the root of its manifest.
    ///
    /// When it returns, the output is exactly the old or exactly the new generation, durably.
    ///
    /// ```
    /// # fn main() -> txfs::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a temporary directory");
    /// use txfs::{OpenOptions, RecoverOptions, Store};
    ///
    /// let store = Store::open_with(&OpenOptions::default().recover(false), dir.path().join("dist"))?;
    /// let recovered = store.recover(RecoverOptions::default())?;
    /// assert!(recovered.is_nothing());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Unrecognized`] and [`Error::Corrupt`] when it would have to guess: then nothing was touched. [`Error::Unfinished`]
    /// and [`Error::OutcomeUnknown`] when it could not be carried to its end: the next recovery goes on. [`Error::Busy`] while
    /// another process commits.
    pub fn recover(&self, options: RecoverOptions) -> Result<Recovered> {
        compiled!(F, (store: &Store = same_ref(self), options: RecoverOptions = options) -> Result<Recovered> {
            store.recover_any(options)
        });
        self.recover_any(options)
    }

    fn recover_any(&self, options: RecoverOptions) -> Result<Recovered> {
        let mut recovered = self.telling(self.recover_what_is_left(options))?;
        recovered.rescued = self.take_rescued();
        Ok(recovered)
    }

    /// Settles the last commit, so that the output is durable as it is; and removes what nobody needs any more: the stage's copies
    /// of what was published already, and what earlier generations displaced. Beginning a transaction does so too; a caller that
    /// has time after a commit frees the space earlier. While another process holds the store's lock nothing is done: that process
    /// settles, or the next transaction.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let dist = dir.path().join("dist");
    /// # for text in ["one", "two"] {
    /// #     let mut transaction = txfs::Store::open(&dist)?.begin(txfs::BeginOptions::default())?;
    /// #     transaction.write("index.html", text)?;
    /// #     transaction.commit(&txfs::CommitOptions::default())?;
    /// # }
    /// let store = txfs::Store::open(&dist)?;
    /// assert!(store.sweep()?.done, "unless another process is at work");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Something cannot be removed. The output and the current generation are not concerned.
    pub fn sweep(&self) -> Result<Swept> {
        compiled!(F, (store: &Store = same_ref(self)) -> Result<Swept> { store.sweep_any() });
        self.sweep_any()
    }

    fn sweep_any(&self) -> Result<Swept> {
        let Some(lock) = self.try_lock()? else { return Ok(Swept::default()) };
        let swept = self.recover_locked(&lock, Manner::PLAIN).and_then(|recovered| {
            settle::sweep(self)?;
            Ok(Swept { done: true, rescued: self.take_rescued(), warnings: recovered.warnings })
        });
        self.telling(swept)
    }

    fn recover_what_is_left(&self, options: RecoverOptions) -> Result<Recovered> {
        let manner = options.manner;
        if self.has_any(&[name::JOURNAL, name::JOURNAL_UNDO])? {
            let lock = self.lock()?;
            return self.recover_locked(&lock, manner);
        }
        // btrfs can lose the transaction and keep what its commit wrote beside it: the directories know no common order.
        let at_rest = self.transaction_ids()?.is_empty() && !self.has_any(&[name::JOURNAL_NEW, name::HEAD_NEW])?;
        // Without the lock the generation may go while it is looked at: what is wrong with it is said under the lock alone.
        if at_rest && self.head()?.is_some_and(|head| self.inventory(&head).is_ok()) {
            return Ok(Recovered::default());
        }
        let lock = if options.unless_busy { self.try_lock()? } else { Some(self.lock()?) };
        match lock {
            Some(lock) => self.recover_locked(&lock, manner),
            None => Ok(Recovered::default()),
        }
    }

    pub(crate) fn has_any(&self, names: &[&str]) -> Result<bool> {
        for name in names {
            if self.state.stat(&state_path(name))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Recovers under the store's lock.
    pub(crate) fn recover_locked(&self, lock: &Lock<F>, manner: Manner) -> Result<Recovered> {
        let mut recovered = self.recover_commits(lock, manner)?;
        match self.discard_dead(lock) {
            Ok(discarded) => recovered.discarded = discarded,
            // The output is as it has to be, and what is dead can wait. An error would hide what was done to the output.
            Err(error) if matches!(error, Error::Io { .. }) || recovered.commit.is_some() => {
                recovered.warnings.push(error)
            }
            Err(error) => return Err(error),
        }
        Ok(recovered)
    }

    /// As [`Store::recover_locked`], but transactions whose process died are left to others.
    pub(crate) fn recover_commits(&self, _lock: &Lock<F>, manner: Manner) -> Result<Recovered> {
        // The journal of the commit before may have come back beside the one that counts; asked before anything is changed.
        let both = self.has_any(&[name::JOURNAL_NEW])? && self.has_any(&[name::JOURNAL, name::JOURNAL_UNDO])?;
        let mut recovered = match self.settle_own()? {
            Some(recovered) => recovered,
            None => self.recover_commit(manner)?,
        };
        if both {
            // It is still in the way.
            if let Some(error) = recovered.warnings.pop() {
                return Err(self.unknown_outcome(error));
            }
            // The first may have changed the output.
            let next = self.recover_commit(manner);
            recovered = recovered.and(next.map_err(|error| self.unless_known(error))?);
        }
        match self.drop_leftovers() {
            Err(error) if recovered.commit.is_some() => recovered.warnings.push(error),
            result => result?,
        }
        Ok(recovered)
    }

    /// Settles what this very store carried out: nobody else has committed since, and that it was done need not be found out.
    fn settle_own(&self) -> Result<Option<Recovered>> {
        let taken = self.carried_out.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(id) = taken else { return Ok(None) };
        let Some(head) = self.head()? else { return Ok(None) };
        let path = state_path(name::JOURNAL);
        let begin = match settle::read_begin(self, &path)? {
            Some(begin) if begin.transaction == id && begin.head == head => begin,
            // What is wrong with it is told by whoever reads all of it.
            _ => return Ok(None),
        };
        if !left_out(Mutant::Barrier2) {
            let journal = || match self.read_journal(name::JOURNAL)? {
                Some(Ok(journal)) => Ok(journal),
                _ => Err(self.state.corrupt(&path, "it has changed")),
            };
            barrier::after_operations(self, journal)?;
        }
        let generation = begin.head.info.generation;
        Ok(Some(settled(RecoveredCommit::Settled { generation }, settle::settle(self, &begin))))
    }

    fn recover_commit(&self, manner: Manner) -> Result<Recovered> {
        let head = self.head()?;
        let (name, read) = self.find_journal()?;
        let (found, relation) = match &read {
            None => (Found::None, Relation::Other),
            Some(Ok(journal)) => (found_as(name), relation(journal, head.as_ref())),
            // Complete it would say so: it was being written.
            Some(Err(Damage::Torn { .. } | Damage::Corrupt { .. })) if name == name::JOURNAL_NEW => {
                (Found::None, Relation::Other)
            }
            // It was durable before it got another name: torn, too, it has been damaged since.
            Some(Err(_)) => (Found::Damaged, Relation::Other),
        };
        match (decide(found, relation), read) {
            (Action::Clean, _) => self.clean(head.as_ref()),
            (Action::Weigh, Some(Ok(journal))) => self.weigh(&journal, manner),
            (Action::RollForward, Some(Ok(journal))) => self.roll_forward(&journal, Relation::Base, manner),
            (Action::Finish, Some(Ok(journal))) => self.roll_forward(&journal, Relation::This, manner),
            (Action::Settle, Some(Ok(journal))) => self.settle_late(&journal),
            (Action::FinishUndo, Some(Ok(journal))) => self.go_back(&journal, manner),
            (Action::Drop, Some(_)) => self.discard_journal(name),
            (_, Some(Err(damage))) => Err(self.state.corrupt(&state_path(name), damage)),
            (_, Some(Ok(journal))) => Err(self.contradiction(name, &journal, head.as_ref())),
            (_, None) => unreachable!("without a journal there is only to clean"),
        }
    }

    /// The journal that counts, and its name. A crash can leave both names of a rename. Then the later one counts: the process
    /// had come that far.
    fn find_journal(&self) -> Result<(&'static str, Option<Read>)> {
        for name in JOURNALS {
            if let Some(read) = self.read_journal(name)? {
                return Ok((name, Some(read)));
            }
        }
        Ok((name::JOURNAL_NEW, None))
    }

    fn read_journal(&self, name: &str) -> Result<Option<Read>> {
        settle::read_journal(self, &state_path(name))
    }

    fn contradiction(&self, name: &str, journal: &Journal, head: Option<&Head>) -> Error {
        let (base, new) = (journal.begin.base, journal.begin.head.info.generation);
        let found = match head.map(|head| head.info.generation) {
            None => "HEAD is missing".to_owned(),
            Some(current) if current == base || current == new => format!("HEAD is a different generation {current}"),
            Some(current) => format!("HEAD is generation {current}"),
        };
        let path = state_path(name).under(self.state.at());
        Error::corrupt(path, format!("it leads from generation {base} to {new}, but {found}"))
    }

    /// No journal: a commit that did not reach its commit point may have left parts of itself.
    fn clean(&self, head: Option<&Head>) -> Result<Recovered> {
        if head.is_none() && !settle::numbers(self, name::PREVIOUS)?.is_empty() {
            let path = state_path(name::HEAD).under(self.state.at());
            return Err(Error::corrupt(path, "it is missing, although generations have been committed"));
        }
        head.map(|head| self.inventory(head)).transpose()?;
        Ok(Recovered::default())
    }

    /// Removes what a commit wrote that did not reach its commit point; also beside the journal of an earlier one that came back.
    fn drop_leftovers(&self) -> Result<()> {
        if !self.has_any(&[name::JOURNAL_NEW, name::HEAD_NEW])? {
            return Ok(());
        }
        self.state.remove_entry(&state_path(name::JOURNAL_NEW), Kind::File)?;
        // Whole it may have been, and a commit that was killed may have taken its name away and not durably: that it is gone
        // has to be durable before anything that it names goes, and before anybody is told of the old generation.
        if !left_out(Mutant::CleanBarrier) {
            self.sync_state()?;
        }
        self.state.remove_entry(&state_path(name::HEAD_NEW), Kind::File)
    }

    fn discard_journal(&self, name: &str) -> Result<Recovered> {
        self.drop_journal(name)?;
        Ok(Recovered { commit: Some(RecoveredCommit::Discarded), ..Recovered::default() })
    }

    fn applier(&self, journal: &Journal) -> Result<Applier<'_, F>> {
        let transaction = settle::find_transaction(self, journal)?;
        let applier = Applier::new(&self.output, transaction, self.capabilities(), &journal.operations)?;
        Ok(applier.of_recovery(journal.begin.last_change))
    }

    /// A journal that has not got its name: a commit, if barrier 1 was passed.
    fn weigh(&self, journal: &Journal, manner: Manner) -> Result<Recovered> {
        let applier = self.applier(journal)?;
        // Where that cannot be told, what is in its directory may be the only copy of what it displaced.
        let has_begun = match evidence::has_begun(self, journal, &applier) {
            Err(_) if manner.undo && left_out(Mutant::CertainlyNotBegun) => false,
            has_begun => has_begun.map_err(|error| self.unless_known(error))?,
        };
        let verdict = match has_begun {
            true => Verdict::Committed { unlisted: Vec::new() },
            false => match evidence::weigh(self, journal) {
                // Only who asks for the generation before may give up a commit that cannot be read, and that was certainly not begun.
                Err(_) if manner.undo => Verdict::Abandoned,
                verdict => verdict.map_err(|error| self.unless_known(error))?,
            },
        };
        if let Verdict::Committed { unlisted } = verdict {
            settle::rescue_staged(self, &journal.begin, &unlisted)?;
            return self.roll_forward(journal, Relation::Base, manner);
        }
        // Nothing was moved, but directories of the output may have been opened; they are closed before nothing says so any more.
        let closed = applier.close_opened(&journal.operations);
        let closed = closed.and_then(|is_any| if is_any { self.sync_all() } else { Ok(()) });
        closed.map_err(|error| self.unless_known(error))?;
        // The medium does not have what memory may have: a stage that is not to be committed again.
        self.end_transaction(journal.begin.transaction)?;
        let discarded = self.discard_journal(name::JOURNAL_NEW)?;
        self.remove_transaction(journal.begin.transaction)?;
        Ok(discarded)
    }

    fn roll_forward(&self, journal: &Journal, head: Relation, manner: Manner) -> Result<Recovered> {
        // It was durable before the journal had its name: a HEAD that names no manifest would be the end of the store.
        self.inventory(&journal.begin.head)?;
        if manner.undo && head == Relation::Base {
            return self.go_back(journal, manner);
        }
        let generation = journal.begin.head.info.generation;
        let looked = self.look(journal, |applier| self.classify(journal, applier, head));
        let (applier, Classified { pending, mut skip, mut left }) =
            looked.map_err(|error| self.unfinished(journal, error))?;
        self.refuse_unknown(journal, &left, manner, false)?;
        let mended =
            self.mend(journal).and_then(|mended| if mended.is_any { self.applier(journal) } else { Ok(applier) });
        let applier = mended.map_err(|error| self.unfinished(journal, error))?;
        skip.extend(modes_of(&journal.operations, &skip));
        self.give_name()?;
        let more = RefCell::new(Vec::new());
        let carrying = Carrying { journal, applier: &applier, skip: &skip, left: manner.skip_unknown.then_some(&more) };
        let attempt = if head == Relation::This && pending == 0 { Attempt::Finish } else { Attempt::Again };
        self.carry_out(carrying, attempt)?;
        left.append(&mut more.borrow_mut());
        // Sweeping takes what is left in a stage for what was published already.
        let rescued = self.rescue_left_over(journal, &applier, &left);
        rescued.map_err(|error| self.unfinished(journal, error))?;
        let commit = match (head, pending) {
            (Relation::This, 0) => RecoveredCommit::Settled { generation },
            (_, operations) => RecoveredCommit::RolledForward { generation, operations },
        };
        let mut recovered = settled(commit, settle::settle(self, &journal.begin));
        recovered.skipped = paths_of(journal, &left);
        Ok(recovered)
    }

    /// Before anything is changed: what is still to be done, and what is left as it is.
    fn classify(&self, journal: &Journal, applier: &Applier<'_, F>, head: Relation) -> Result<Classified> {
        let mut classified = Classified::default();
        for (index, operation) in journal.operations.iter().enumerate() {
            let is_mode = operation.is_mode();
            match applier.state(index, operation)? {
                State::Done | State::Final => {}
                State::NotDone if applier.lacks_place(operation)? => classified.leave(index),
                State::NotDone | State::Half => classified.pending += 1,
                // HEAD was replaced after every operation: what has left its place was moved, and changed since.
                State::Left if head == Relation::This || left_out(Mutant::LeftIsNotDone) => {
                    classified.skip.insert(index);
                }
                State::Unrecognized if head == Relation::This && is_mode => drop(classified.skip.insert(index)),
                State::Left | State::Unrecognized => classified.leave(index),
            }
        }
        Ok(classified)
    }

    /// What is staged at the paths that were left as they are was not published, and is nowhere else.
    fn rescue_left_over(&self, journal: &Journal, applier: &Applier<'_, F>, left: &[usize]) -> Result<()> {
        let mut staged = Vec::new();
        for operation in left.iter().map(|&index| &journal.operations[index]) {
            if applier.is_left_over(operation)? {
                staged.push(operation.path().clone());
            }
        }
        settle::rescue_staged(self, &journal.begin, &staged)
    }

    fn settle_late(&self, journal: &Journal) -> Result<Recovered> {
        let generation = journal.begin.head.info.generation;
        Ok(settled(RecoveredCommit::Settled { generation }, settle::settle_stale(self, journal)))
    }

    /// The transactions of commits that are not settled, because that failed: what was displaced still lies in their directories.
    pub(crate) fn unsettled(&self) -> Result<Vec<TransactionId>> {
        let begun = JOURNALS.iter().map(|name| settle::read_begin(self, &state_path(name)));
        begun.filter_map(|begin| begin.map(|begin| begin.map(|begin| begin.transaction)).transpose()).collect()
    }

    /// Discards every transaction that nobody needs any more.
    fn discard_dead(&self, _lock: &Lock<F>) -> Result<Vec<TransactionId>> {
        let mut discarded = Vec::new();
        let mut failed = None;
        let mut ids = self.transaction_ids()?;
        if !ids.is_empty() {
            let unsettled = self.unsettled()?;
            ids.retain(|id| !unsettled.contains(id));
        }
        for id in ids {
            if let Life::Dead(_lock) = self.life(id)? {
                match self.remove_transaction(id) {
                    Ok(()) => discarded.push(id),
                    // One that cannot be removed does not keep the others from going.
                    Err(error) => drop(failed.get_or_insert(error)),
                }
            }
        }
        failed.map_or(Ok(discarded), Err)
    }
}

/// What the operations of a journal have come to.
#[derive(Debug, Default)]
struct Classified {
    /// How many have still to be done.
    pending: u64,
    /// Those that are left as they are.
    skip: HashSet<usize>,
    /// Of these the ones that somebody has to know of.
    left: Vec<usize>,
}

impl Classified {
    fn leave(&mut self, index: usize) {
        self.skip.insert(index);
        self.left.push(index);
    }
}

fn paths_of(journal: &Journal, indices: &[usize]) -> Paths {
    indices.iter().map(|&index| journal.operations[index].path().clone()).collect()
}

/// A commit that is durable stands, whatever becomes of settling it.
fn settled(commit: RecoveredCommit, result: Result<()>) -> Recovered {
    Recovered { commit: Some(commit), warnings: result.err().into_iter().collect(), ..Recovered::default() }
}
