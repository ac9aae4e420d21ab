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
//! The table stands here as comment, in [`decide`] as data, and in the tests as expectation.
//!
//! Invariants (journal-spec.md, "Recovery"):
//! 1. It is deterministic and idempotent: every operation is told done from not done by identity, so a crash at any step of
//!    recovery is recovered by the next (G7).
//! 2. Before it changes anything it has recognized everything. Where identities do not fit, it refuses and touches nothing.
//! 3. What a commit did is durable (barrier 2) before its journal is retired. A commit leaves that to whoever takes the store's
//!    lock next: until then its journal stands for it.

mod decide;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use crate::apply::{Applier, State, modes_of};
use crate::barrier;
use crate::carry_out::{Attempt, Intents, Relation, relation};
use crate::error::{Error, Paths, Result};
use crate::evidence::{self, Verdict};
use crate::frame::Damage;
use crate::fs::{Fs, Kind};
use crate::journal::reader::{Journal, Read};
use crate::journal::record::{Operation, TransactionId};
use crate::layout::{JOURNALS, name, state_path};
use crate::lock::Lock;
use crate::manifest::Head;
use crate::mutant::{Mutant, left_out};
use crate::settle;
use crate::store::{OpenOptions, Store};
use crate::txdir::Life;

use decide::{Action, Found, decide, found_as};

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
    /// What was left as it is, being neither as before the interrupted commit nor as after it ([`Store::recover_skipping_unknown`]).
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
    fn and(mut self, mut next: Recovered) -> Self {
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

/// What [`Store::sweep`] did.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    /// Leave what it does not recognize as it is.
    SkipUnknown,
    /// Undo a commit that may have been reported.
    Undo,
}

impl Store {
    /// Opens the store of the output `out`, makes one where there is none, and recovers it if that is needed.
    ///
    /// `out` need not exist: the first commit makes it. Where it is a symbolic link, the link's target is the output.
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
    /// As [`Store::open`], with options. Who wants to know what recovery did calls [`Store::make`] and [`Store::recover`].
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(options: &OpenOptions<F>, out: impl AsRef<Path>) -> Result<Self> {
        let store = Self::make(options, out)?;
        store.recover()?;
        Ok(store)
    }

    /// Finishes or undoes what a crash interrupted. Where there is nothing to do it costs a few `stat`, a list of the open
    /// transactions, and reading HEAD and the root of its manifest.
    ///
    /// When it returns, the output is exactly the old or exactly the new generation, durably.
    ///
    /// # Errors
    /// [`Error::Unrecognized`] and [`Error::Corrupt`] when it would have to guess: then nothing was touched. [`Error::Unfinished`]
    /// and [`Error::OutcomeUnknown`] when it could not be carried to its end: the next recovery goes on. [`Error::Busy`] while
    /// another process commits.
    pub fn recover(&self) -> Result<Recovered> {
        self.recover_if_needed(Manner::Plain)
    }

    /// As [`Store::recover`], but entries that are neither as before the commit nor as after it are left as they are; the rest
    /// is finished. They are drift afterwards.
    ///
    /// # Errors
    /// As [`Store::recover`].
    pub fn recover_skipping_unknown(&self) -> Result<Recovered> {
        self.recover_if_needed(Manner::SkipUnknown)
    }

    /// As [`Store::recover`], but a commit that is not carried out yet is undone: the way out where it cannot be carried out.
    /// Whoever made it may have been told of success already.
    ///
    /// # Errors
    /// As [`Store::recover`].
    pub fn recover_undoing(&self) -> Result<Recovered> {
        self.recover_if_needed(Manner::Undo)
    }

    /// Settles the last commit, so that the output is durable as it is; and removes what nobody needs any more: the stage's copies
    /// of what was published already, and what earlier generations displaced. Beginning a transaction does so too; a caller that
    /// has time after a commit frees the space earlier. While another process holds the store's lock nothing is done: that process
    /// settles, or the next transaction.
    ///
    /// # Errors
    /// Something cannot be removed. The output and the current generation are not concerned.
    pub fn sweep(&self) -> Result<Swept> {
        let Some(lock) = self.try_lock()? else { return Ok(Swept::default()) };
        let Recovered { mut rescued, warnings, .. } = self.recover_locked(&lock, Manner::Plain)?;
        rescued.extend(settle::sweep(self)?);
        Ok(Swept { done: true, rescued, warnings })
    }

    fn recover_if_needed(&self, manner: Manner) -> Result<Recovered> {
        if self.has_any(&[name::JOURNAL, name::JOURNAL_UNDO])? {
            let lock = self.lock()?;
            return self.recover_locked(&lock, manner);
        }
        // btrfs can lose the transaction and keep what its commit wrote beside it: the directories know no common order.
        let at_rest = self.transaction_ids()?.is_empty() && !self.has_any(&[name::JOURNAL_NEW, name::HEAD_NEW])?;
        // Without the lock the generation may go while it is looked at: what is wrong with it is said under the lock alone.
        if at_rest && self.head()?.is_some_and(|head| self.inventory(Some(&head)).is_ok()) {
            return Ok(Recovered::default());
        }
        // What a dead process left can wait while another one is at work.
        match self.try_lock()? {
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
            // The output is as it has to be, and what is dead can wait.
            Err(error @ Error::Io { .. }) => recovered.warnings.push(error),
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
            recovered = recovered.and(self.recover_commit(manner)?);
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
            (Action::FinishUndo, Some(Ok(journal))) => self.finish_undo(&journal, manner),
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
        self.inventory(head)?;
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
        Applier::new(&self.output, settle::find_transaction(self, journal)?, self.capabilities(), &journal.operations)
    }

    /// A journal that has not got its name: a commit, if barrier 1 was passed.
    fn weigh(&self, journal: &Journal, manner: Manner) -> Result<Recovered> {
        let verdict = match evidence::weigh(self, journal, &self.applier(journal)?) {
            // Only who asks for the generation before may give up a commit that cannot be read.
            Err(_) if manner == Manner::Undo => Verdict::Abandoned,
            verdict => verdict?,
        };
        if let Verdict::Committed { unlisted } = verdict {
            let rescued = settle::rescue_staged(self, &journal.begin, &unlisted)?;
            let mut recovered = self.roll_forward(journal, Relation::Base, manner)?;
            recovered.rescued.splice(0..0, rescued);
            return Ok(recovered);
        }
        // The medium does not have what memory may have: a stage that is not to be committed again.
        self.end_transaction(journal.begin.transaction)?;
        let discarded = self.discard_journal(name::JOURNAL_NEW)?;
        self.remove_transaction(journal.begin.transaction)?;
        Ok(discarded)
    }

    fn roll_forward(&self, journal: &Journal, head: Relation, manner: Manner) -> Result<Recovered> {
        let generation = journal.begin.head.info.generation;
        // It was durable before the journal had its name: a HEAD that names no manifest would be the end of the store.
        self.inventory(Some(&journal.begin.head))?;
        let applier = self.applier(journal)?;
        let mut pending = 0;
        let (mut skip, mut unknown, mut staged) = (HashSet::new(), Paths::default(), Vec::new());
        for (index, operation) in journal.operations.iter().enumerate() {
            match applier.state(index, operation)? {
                State::Done | State::Final => {}
                State::NotDone | State::Half => pending += 1,
                // HEAD was replaced after every operation: what has left its place was moved, and changed since.
                State::Left if head == Relation::This || left_out(Mutant::LeftIsNotDone) => drop(skip.insert(index)),
                State::Unrecognized if head == Relation::This && matches!(operation, Operation::SetMode { .. }) => {
                    skip.insert(index);
                }
                State::Left | State::Unrecognized => {
                    skip.insert(index);
                    unknown.push(operation.path().clone());
                    if matches!(operation, Operation::Add { .. }) && applier.is_staged(operation.path())? {
                        staged.push(operation.path().clone());
                    }
                }
            }
        }
        let skipped = self.refuse_unknown(generation, unknown, manner)?;
        skip.extend(modes_of(&journal.operations, &skip));
        let intents = Intents { journal, applier: &applier, skip: &skip };
        if self.state.stat(&state_path(name::JOURNAL))?.is_none() {
            let named = self.rename(&state_path(name::JOURNAL_NEW), &state_path(name::JOURNAL));
            named.map_err(|source| self.unknown_outcome(source))?;
        }
        if manner == Manner::Undo && head == Relation::Base {
            settle::unshelve(self, &journal.begin)
                .and_then(|()| applier.open_stage(&journal.operations))
                .and_then(|()| self.roll_back(intents, journal.operations.len()))
                .map_err(|source| self.unknown_outcome(source))?;
            let commit = Some(RecoveredCommit::RolledBack { generation });
            return Ok(Recovered { commit, ..Recovered::default() });
        }
        let attempt = if head == Relation::This && pending == 0 { Attempt::Finish } else { Attempt::Again };
        self.carry_out(intents, attempt)?;
        // Sweeping takes what is left in a stage for what was published already.
        let rescued = settle::rescue_staged(self, &journal.begin, &staged)?;
        let commit = match (head, pending) {
            (Relation::This, 0) => RecoveredCommit::Settled { generation },
            (_, operations) => RecoveredCommit::RolledForward { generation, operations },
        };
        let mut recovered = settled(commit, settle::settle(self, &journal.begin));
        recovered.rescued.splice(0..0, rescued);
        recovered.skipped = skipped;
        Ok(recovered)
    }

    fn settle_late(&self, journal: &Journal) -> Result<Recovered> {
        let generation = journal.begin.head.info.generation;
        let result = settle::settle_stale(self, journal).map(|()| Vec::new());
        Ok(settled(RecoveredCommit::Settled { generation }, result))
    }

    fn finish_undo(&self, journal: &Journal, manner: Manner) -> Result<Recovered> {
        let generation = journal.begin.head.info.generation;
        let applier = self.applier(journal)?;
        let (mut skip, mut unknown) = (HashSet::new(), Paths::default());
        for (index, operation) in journal.operations.iter().enumerate() {
            if matches!(applier.state(index, operation)?, State::Final | State::Left | State::Unrecognized) {
                skip.insert(index);
                unknown.push(operation.path().clone());
            }
        }
        let skipped = self.refuse_unknown(generation, unknown, manner)?;
        skip.extend(modes_of(&journal.operations, &skip));
        // Of two names only the later intention may outlive the undoing: the other would publish what was undone.
        if self.state.stat(&state_path(name::JOURNAL))?.is_some() {
            self.state.remove_entry(&state_path(name::JOURNAL), Kind::File)?;
        }
        // The process that renamed the journal may have been killed before its barrier, without a loss of power.
        if !left_out(Mutant::ConfirmUndo) {
            self.sync_state().map_err(|source| self.unknown_outcome(source))?;
        }
        let intents = Intents { journal, applier: &applier, skip: &skip };
        let opened = applier.open_stage(&journal.operations);
        let undone = opened.and_then(|()| self.undo(intents, journal.operations.len()));
        undone.map_err(|source| self.unknown_outcome(source))?;
        let commit = Some(RecoveredCommit::RolledBack { generation });
        Ok(Recovered { commit, skipped, ..Recovered::default() })
    }

    /// Returns what is to be skipped.
    fn refuse_unknown(&self, generation: u64, paths: Paths, manner: Manner) -> Result<Paths> {
        if paths.is_empty() || manner == Manner::SkipUnknown {
            return Ok(paths);
        }
        Err(Error::Unrecognized { output: self.output.path.clone(), generation, paths })
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

/// A commit that is durable stands, whatever becomes of settling it.
fn settled(commit: RecoveredCommit, result: Result<Vec<PathBuf>>) -> Recovered {
    let mut recovered = Recovered { commit: Some(commit), ..Recovered::default() };
    match result {
        Ok(rescued) => recovered.rescued = rescued,
        Err(error) => recovered.warnings.push(error),
    }
    recovered
}
