//! Recovery: what an interrupted commit left is rolled forward, rolled back, or refused; and carrying out a commit, which is
//! the same from the commit point on.
//!
//! | journal | HEAD | action |
//! |---|---|---|
//! | none | any | clean: discard what dead transactions left |
//! | torn | any | discard, if none of its operations was begun; else refuse |
//! | damaged, other version | any | refuse |
//! | `journal`, valid | its base | roll forward; where that fails, roll back |
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
//! 3. The HEAD is replaced after all operations; both are made durable by one barrier before the journal is retired.
//! 4. Undoing starts when `journal.undo` has its name durably, and ends when it is durably gone.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::apply::{Applier, State, modes_of};
use crate::error::{Error, Paths, Result};
use crate::frame::Damage;
use crate::fs::{Fs, Kind};
use crate::journal::reader::{self, Journal, Partial};
use crate::journal::record::{Operation, TransactionId};
use crate::lock::Lock;
use crate::manifest::Head;
use crate::mutant::{Mutant, left_out};
use crate::settle;
use crate::store::{OpenOptions, Store, manifest_path, name, open_trusted, state_path};
use crate::txdir::Life;

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
    /// What failed after the output was as it has to be. The next txfs command tries again.
    pub warnings: Vec<Error>,
}

impl Recovered {
    /// Whether there was nothing to do.
    pub fn is_nothing(&self) -> bool {
        self.commit.is_none() && self.discarded.is_empty() && self.rescued.is_empty()
    }
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

/// The journal that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    None,
    Torn,
    Damaged,
    Forward,
    Undo,
}

/// HEAD, seen from the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Base,
    This,
    Later,
    Other,
}

/// Whether a commit is carried out for the first time, or was begun before a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    First,
    Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Clean,
    Discard,
    RollForward,
    Finish,
    Settle,
    FinishUndo,
    Drop,
    Refuse,
}

/// The decision table of the module's head.
fn decide(found: Found, head: Relation) -> Action {
    match (found, head) {
        (Found::None, _) => Action::Clean,
        (Found::Torn, _) => Action::Discard,
        (Found::Damaged, _) => Action::Refuse,
        (Found::Forward, Relation::Base) => Action::RollForward,
        (Found::Forward, Relation::This) => Action::Finish,
        (Found::Forward, Relation::Later) => Action::Settle,
        (Found::Undo, Relation::Base) => Action::FinishUndo,
        (Found::Undo, Relation::Later) => Action::Drop,
        (Found::Undo, Relation::This) => Action::Refuse,
        (Found::Forward | Found::Undo, Relation::Other) => Action::Refuse,
    }
}

fn relation(journal: &Journal, head: Option<&Head>) -> Relation {
    let current = head.map_or(0, |head| head.info.generation);
    let digest = head.map(|head| head.manifest).unwrap_or_default();
    let begin = &journal.begin;
    let new = begin.head.info.generation;
    match current {
        _ if current > new => Relation::Later,
        _ if current == new && digest == begin.head.manifest => Relation::This,
        _ if current == begin.base && (digest == begin.base_manifest || left_out(Mutant::BaseDigest)) => Relation::Base,
        _ => Relation::Other,
    }
}

impl Store {
    /// Opens the store of the output `out`, makes one where there is none, and recovers it if that is needed.
    ///
    /// `out` need not exist: the first commit makes it. Where it is a symbolic link, the link's target is the output.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process has worked on it for longer than 10 s, [`Error::Untrusted`] and
    /// [`Error::Corrupt`] when its state cannot be used, [`Error::Unsupported`] when its file system lacks what safety needs.
    pub fn open(out: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(&OpenOptions::default(), out)
    }
}

impl<F: Fs> Store<F> {
    /// As [`Store::open`], with options.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(options: &OpenOptions<F>, out: impl AsRef<Path>) -> Result<Self> {
        let store = Self::open_or_make(options, out.as_ref())?;
        store.recover()?;
        Ok(store)
    }

    /// Opens the store of `out` without making or recovering it; `None` when there is none.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn find(options: &OpenOptions<F>, out: impl AsRef<Path>) -> Result<Option<Self>> {
        Self::open_existing(options, out.as_ref())
    }

    /// As [`Store::open_with`], without recovering: for callers that want to report what recovery does.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn make(options: &OpenOptions<F>, out: impl AsRef<Path>) -> Result<Self> {
        Self::open_or_make(options, out.as_ref())
    }

    /// Finishes or undoes what a crash interrupted. Costs a few `stat` when there is nothing to do.
    ///
    /// When it returns, the output is exactly the old or exactly the new generation, durably.
    ///
    /// # Errors
    /// [`Error::Unrecognized`] and [`Error::Corrupt`] when it would have to guess: then nothing was touched.
    pub fn recover(&self) -> Result<Recovered> {
        self.recover_if_needed(false)
    }

    /// As [`Store::recover`], but entries that are neither as before the commit nor as after it are left as they are; the rest
    /// is finished. They are drift afterwards.
    ///
    /// # Errors
    /// As [`Store::recover`].
    pub fn recover_skipping_unknown(&self) -> Result<Recovered> {
        self.recover_if_needed(true)
    }

    /// Removes what nobody needs any more: the stage's copies of what was published already, and what earlier generations
    /// displaced. Beginning a transaction does so too; a caller that has time after a commit frees the space earlier. Returns
    /// where entries were moved that txfs could not prove to be its own.
    ///
    /// # Errors
    /// Something cannot be removed. The output and the current generation are not concerned.
    pub fn sweep(&self) -> Result<Vec<PathBuf>> {
        match self.try_lock()? {
            // Whoever holds the lock has just begun a transaction, and swept; or is committing, and the next one sweeps.
            None => Ok(Vec::new()),
            Some(lock) => {
                self.recover_locked(&lock, false)?;
                settle::sweep(self)
            }
        }
    }

    fn recover_if_needed(&self, skip_unknown: bool) -> Result<Recovered> {
        if self.has_any(&[name::JOURNAL, name::JOURNAL_UNDO])? {
            let lock = self.lock()?;
            return self.recover_locked(&lock, skip_unknown);
        }
        // btrfs can lose the transaction and keep what its commit wrote beside it: the directories know no common order.
        if self.transaction_ids()?.is_empty() && !self.has_any(&[name::JOURNAL_NEW, name::HEAD_NEW])? {
            return Ok(Recovered::default());
        }
        // What a dead process left can wait while another one is at work.
        match self.try_lock()? {
            Some(lock) => self.recover_locked(&lock, skip_unknown),
            None => Ok(Recovered::default()),
        }
    }

    fn has_any(&self, names: &[&str]) -> Result<bool> {
        for name in names {
            if self.state.stat(&state_path(name))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Recovers under the store's lock.
    pub(crate) fn recover_locked(&self, lock: &Lock<F>, skip_unknown: bool) -> Result<Recovered> {
        let mut recovered = self.recover_commit(skip_unknown)?;
        match self.drop_leftovers() {
            // What recovery came to is durable, and stands.
            Err(error) if recovered.commit.is_some() => recovered.warnings.push(error),
            result => result?,
        }
        match self.discard_dead(lock) {
            Ok(discarded) => recovered.discarded = discarded,
            // The output is as it has to be, and what is dead can wait.
            Err(error @ Error::Io { .. }) => recovered.warnings.push(error),
            Err(error) => return Err(error),
        }
        Ok(recovered)
    }

    fn recover_commit(&self, skip_unknown: bool) -> Result<Recovered> {
        let head = self.head()?;
        let undo = self.read_journal(name::JOURNAL_UNDO)?;
        // Both names can only be there when the rename from one to the other was caught in between: nothing is undone yet,
        // and both directions are open. The later intention counts.
        let (name, read) = match undo {
            Some(read) => (name::JOURNAL_UNDO, Some(read)),
            None => (name::JOURNAL, self.read_journal(name::JOURNAL)?),
        };
        let (found, relation) = match &read {
            None => (Found::None, Relation::Other),
            Some(Ok(journal)) if name == name::JOURNAL => (Found::Forward, relation(journal, head.as_ref())),
            Some(Ok(journal)) => (Found::Undo, relation(journal, head.as_ref())),
            Some(Err(partial)) if matches!(partial.damage, Damage::Torn { .. }) => (Found::Torn, Relation::Other),
            Some(Err(_)) => (Found::Damaged, Relation::Other),
        };
        match (decide(found, relation), read) {
            (Action::RollForward, Some(Ok(journal))) => self.roll_forward(&journal, Relation::Base, skip_unknown),
            (Action::Finish, Some(Ok(journal))) => self.roll_forward(&journal, Relation::This, skip_unknown),
            (Action::Settle, Some(Ok(journal))) => self.settle_late(&journal),
            (Action::FinishUndo, Some(Ok(journal))) => self.finish_undo(&journal, skip_unknown),
            (Action::Drop, Some(_)) => self.drop_journal(name, RecoveredCommit::Discarded),
            (Action::Discard, Some(Err(partial))) => self.discard_torn(name, &partial),
            (_, Some(Err(partial))) => Err(self.journal_error(name, &partial.damage)),
            (_, Some(Ok(journal))) => Err(self.contradiction(name, &journal, head.as_ref())),
            (_, None) => self.clean(head.as_ref()),
        }
    }

    fn read_journal(&self, name: &str) -> Result<Option<Result<Journal, Box<Partial>>>> {
        let path = state_path(name);
        let Some(stream) = open_trusted(&self.state, &path)? else { return Ok(None) };
        match reader::read(stream) {
            Err(partial) if matches!(partial.damage, Damage::Io(_)) => Err(self.damaged(&path, partial.damage)),
            read => Ok(Some(read)),
        }
    }

    fn journal_error(&self, name: &str, damage: &Damage) -> Error {
        Error::corrupt(state_path(name).under(self.state.at()), damage)
    }

    fn contradiction(&self, name: &str, journal: &Journal, head: Option<&Head>) -> Error {
        let (base, new) = (journal.begin.base, journal.begin.head.info.generation);
        let current = head.map_or(0, |head| head.info.generation);
        let path = state_path(name).under(self.state.at());
        Error::corrupt(
            path,
            format!("it leads from generation {base} to {new}, and HEAD is another generation {current}"),
        )
    }

    /// No journal: a commit that did not reach its commit point may have left parts of itself.
    fn clean(&self, head: Option<&Head>) -> Result<Recovered> {
        if head.is_none() && !settle::numbers(self, name::PREVIOUS)?.is_empty() {
            let path = state_path(name::HEAD).under(self.state.at());
            return Err(Error::corrupt(path, "it is missing, although generations have been committed"));
        }
        Ok(Recovered::default())
    }

    /// Removes what a commit wrote that did not reach its commit point; also beside the journal of an earlier one that came back.
    fn drop_leftovers(&self) -> Result<()> {
        // A commit whose barrier failed, or that was killed, may have taken the name of its journal away and not durably: that it
        // is gone has to be durable before anything that it names goes, and before anybody is told of the old generation.
        if !left_out(Mutant::CleanBarrier) && self.state.stat(&state_path(name::HEAD_NEW))?.is_some() {
            self.sync_state()?;
        }
        for name in [name::JOURNAL_NEW, name::HEAD_NEW] {
            self.state.remove_entry(&state_path(name), Kind::File)?;
        }
        Ok(())
    }

    /// A journal that ends early was never made durable, so nothing of it was begun; unless somebody damaged it afterwards.
    fn discard_torn(&self, name: &str, partial: &Partial) -> Result<Recovered> {
        if let Some(begin) = &partial.begin {
            let journal = Journal { begin: begin.clone(), operations: partial.operations.clone() };
            let applier = self.applier(&journal)?;
            let mut opened = HashSet::new();
            for (index, operation) in journal.operations.iter().enumerate() {
                // A directory is opened before it is closed again: only the first of its modes tells.
                let told = matches!(operation, Operation::SetMode { path, .. } if !opened.insert(path));
                if !told && applier.state(index, operation)? != State::NotDone {
                    return Err(self.journal_error(name, &partial.damage));
                }
            }
        }
        self.drop_journal(name, RecoveredCommit::Discarded)
    }

    fn drop_journal(&self, name: &str, commit: RecoveredCommit) -> Result<Recovered> {
        self.state.remove_entry(&state_path(name), Kind::File)?;
        self.sync_state()?;
        Ok(Recovered { commit: Some(commit), ..Recovered::default() })
    }

    fn applier(&self, journal: &Journal) -> Result<Applier<'_, F>> {
        Applier::new(&self.output, settle::find_transaction(self, journal)?, self.capabilities, &journal.operations)
    }

    fn roll_forward(&self, journal: &Journal, head: Relation, skip_unknown: bool) -> Result<Recovered> {
        let generation = journal.begin.head.info.generation;
        // It was durable before the journal had its name: a HEAD that names no manifest would be the end of the store.
        self.inventory(Some(&journal.begin.head))?;
        let applier = self.applier(journal)?;
        let mut pending = 0;
        let (mut skip, mut unknown) = (HashSet::new(), Paths::default());
        for (index, operation) in journal.operations.iter().enumerate() {
            match applier.state(index, operation)? {
                State::Done | State::Final => {}
                State::NotDone | State::Half => pending += 1,
                // HEAD was replaced after every operation: what has left its place was moved, and changed since.
                State::Left if head == Relation::This || left_out(Mutant::LeftIsNotDone) => drop(skip.insert(index)),
                State::Left | State::Unrecognized => {
                    skip.insert(index);
                    unknown.push(operation.path().clone());
                }
            }
        }
        self.refuse_unknown(generation, unknown, skip_unknown)?;
        skip.extend(modes_of(&journal.operations, &skip));
        self.confirm_journal()?;
        match self.carry_out(journal, &applier, &skip, Attempt::Again) {
            Err(Error::RolledBack { .. }) => {
                let commit = Some(RecoveredCommit::RolledBack { generation });
                return Ok(Recovered { commit, ..Recovered::default() });
            }
            result => result?,
        }
        let commit = match (head, pending) {
            (Relation::This, 0) => RecoveredCommit::Settled { generation },
            (_, operations) => RecoveredCommit::RolledForward { generation, operations },
        };
        Ok(settled(commit, settle::settle(self, journal)))
    }

    /// The process that gave the journal its name may have been killed before its barrier, without a loss of power: the name is
    /// there and not yet durable. Barrier 2 again, for the same reason (G2).
    fn confirm_journal(&self) -> Result<()> {
        if left_out(Mutant::ConfirmJournal) {
            return Ok(());
        }
        self.sync_state().map_err(|source| self.unknown_outcome(source))
    }

    fn settle_late(&self, journal: &Journal) -> Result<Recovered> {
        let generation = journal.begin.head.info.generation;
        let result = settle::settle_stale(self, journal).map(|()| Vec::new());
        Ok(settled(RecoveredCommit::Settled { generation }, result))
    }

    fn finish_undo(&self, journal: &Journal, skip_unknown: bool) -> Result<Recovered> {
        let generation = journal.begin.head.info.generation;
        let applier = self.applier(journal)?;
        let (mut skip, mut unknown) = (HashSet::new(), Paths::default());
        for (index, operation) in journal.operations.iter().enumerate() {
            if matches!(applier.state(index, operation)?, State::Final | State::Left | State::Unrecognized) {
                skip.insert(index);
                unknown.push(operation.path().clone());
            }
        }
        self.refuse_unknown(generation, unknown, skip_unknown)?;
        skip.extend(modes_of(&journal.operations, &skip));
        // Of two names only the later intention may outlive the undoing: the other would publish what was undone.
        if self.state.stat(&state_path(name::JOURNAL))?.is_some() {
            self.state.remove_entry(&state_path(name::JOURNAL), Kind::File)?;
        }
        self.confirm_journal()?;
        let undone = applier
            .open_stage(&journal.operations)
            .and_then(|()| self.undo(journal, journal.operations.len(), &applier, &skip));
        undone.map_err(|source| self.unknown_outcome(source))?;
        let commit = Some(RecoveredCommit::RolledBack { generation });
        Ok(Recovered { commit, ..Recovered::default() })
    }

    fn refuse_unknown(&self, generation: u64, paths: Paths, skip_unknown: bool) -> Result<()> {
        if paths.is_empty() || skip_unknown {
            return Ok(());
        }
        Err(Error::Unrecognized { output: self.output.path.clone(), generation, paths })
    }

    /// P4 and P5: performs every operation but those in `skip`, replaces HEAD, and makes both durable.
    ///
    /// # Errors
    /// [`Error::RolledBack`] when an operation failed and everything was undone; [`Error::OutcomeUnknown`] when a barrier failed.
    pub(crate) fn carry_out(
        &self,
        journal: &Journal,
        applier: &Applier<'_, F>,
        skip: &HashSet<usize>,
        attempt: Attempt,
    ) -> Result<()> {
        // A crash can have kept later operations and lost earlier ones: if it has to be undone, all of it has.
        let begun = match attempt {
            Attempt::Again if !left_out(Mutant::UndoAll) => journal.operations.len(),
            _ => 0,
        };
        if left_out(Mutant::HeadAfterOperations) {
            self.install_head(&journal.begin.head, attempt)?;
        }
        if let Err(error) = applier.open_stage(&journal.operations) {
            return Err(self.roll_back(journal, begun, applier, skip, error));
        }
        for (index, operation) in journal.operations.iter().enumerate() {
            if skip.contains(&index) {
                continue;
            }
            if let Err(error) = applier.forward(index, operation) {
                return Err(self.roll_back(journal, begun.max(index + 1), applier, skip, error));
            }
        }
        if let Err(error) = self.install_head(&journal.begin.head, attempt) {
            return Err(self.roll_back(journal, journal.operations.len(), applier, skip, error));
        }
        if left_out(Mutant::SettleAfterBarrier3) {
            settle::settle(self, journal)?;
        }
        if left_out(Mutant::Barrier3) {
            return Ok(());
        }
        // Barrier 3 buys G1's "a commit that returned success survives power loss": every rename and HEAD before the journal
        // that could repeat them is retired.
        self.sync_all().map_err(|source| self.unknown_outcome(source))
    }

    /// The undo intent is durable before anything is undone: a crash from here on finishes undoing. What was done so far is
    /// durable before the intent: without RENAME_EXCHANGE the old entry's second name could be lost, and the new one's not.
    fn roll_back(
        &self,
        journal: &Journal,
        begun: usize,
        applier: &Applier<'_, F>,
        skip: &HashSet<usize>,
        cause: Error,
    ) -> Error {
        let undone = self
            .head()
            .and_then(|head| match relation(journal, head.as_ref()) {
                Relation::Base => Ok(()),
                _ => Err(Error::corrupt(state_path(name::HEAD).under(self.state.at()), "it has changed already")),
            })
            .and_then(|()| if left_out(Mutant::BarrierBeforeUndo) { Ok(()) } else { self.sync_all() })
            .and_then(|()| self.check_undoable(journal, begun, applier, skip))
            .and_then(|()| self.intend_undo())
            .and_then(|()| self.undo(journal, begun, applier, skip));
        match undone {
            Ok(()) => Error::RolledBack { source: Box::new(cause) },
            Err(_) => self.unknown_outcome(cause),
        }
    }

    /// An operation whose displaced entry a crash has lost can only go forward: then the journal keeps its name, and the next
    /// recovery goes forward again.
    fn check_undoable(
        &self,
        journal: &Journal,
        begun: usize,
        applier: &Applier<'_, F>,
        skip: &HashSet<usize>,
    ) -> Result<()> {
        if left_out(Mutant::UndoableCheck) {
            return Ok(());
        }
        for (index, operation) in journal.operations.iter().enumerate().take(begun) {
            if !skip.contains(&index) && applier.state(index, operation)? == State::Final {
                let path = operation.path().under(&self.output.path);
                return Err(Error::corrupt(path, "what was here before is lost, so the commit can only go forward"));
            }
        }
        Ok(())
    }

    fn intend_undo(&self) -> Result<()> {
        if left_out(Mutant::UndoIntent) {
            return Ok(());
        }
        self.rename(&state_path(name::JOURNAL), &state_path(name::JOURNAL_UNDO))?;
        if left_out(Mutant::UndoIntentBarrier) { Ok(()) } else { self.sync_state() }
    }

    /// Undoes the first `begun` operations in reverse, durably, and then drops the undo intent.
    fn undo(&self, journal: &Journal, begun: usize, applier: &Applier<'_, F>, skip: &HashSet<usize>) -> Result<()> {
        for (index, operation) in journal.operations.iter().enumerate().take(begun).rev() {
            if !skip.contains(&index) {
                applier.back(index, operation)?;
            }
        }
        // The transaction may be committed again, and its stage has to mean what it meant.
        if let Ok(published) = self.inventory(Some(&journal.begin.head)) {
            applier.close_stage(&journal.operations, &published)?;
        }
        // The undone renames are durable before the intent that could repeat them goes.
        if !left_out(Mutant::UndoneBarrier) {
            self.sync_all()?;
        }
        if left_out(Mutant::UndoIntent) {
            self.drop_journal(name::JOURNAL, RecoveredCommit::Discarded)?;
        }
        self.drop_journal(name::JOURNAL_UNDO, RecoveredCommit::Discarded)?;
        // Best effort: without the journal they mean nothing, and the next commit writes them anew.
        for path in [state_path(name::HEAD_NEW), manifest_path(journal.begin.head.info.generation)] {
            let _ = self.state.remove_entry(&path, Kind::File);
        }
        Ok(())
    }

    pub(crate) fn unknown_outcome(&self, source: Error) -> Error {
        Error::OutcomeUnknown { source: Box::new(source), output: self.output.path.clone() }
    }

    /// Makes `head` the current one. What barrier 1 made durable is there already; what an earlier attempt wrote may be read now
    /// and be gone after a crash, so it is written anew.
    fn install_head(&self, head: &Head, attempt: Attempt) -> Result<()> {
        if self.head()?.as_ref() == Some(head) {
            return Ok(());
        }
        let new = state_path(name::HEAD_NEW);
        let prepared = open_trusted(&self.state, &new)?.and_then(|stream| Head::read(stream).ok());
        let again = attempt == Attempt::Again && !left_out(Mutant::HeadWrittenAnew);
        if again || prepared.as_ref() != Some(head) {
            self.write_head(head, |stream| stream.fs.sync_file(&stream.file))?;
        }
        self.rename(&new, &state_path(name::HEAD))
    }

    /// Writes `HEAD.new`.
    pub(crate) fn write_head(
        &self,
        head: &Head,
        then: impl FnOnce(&crate::fs::stream::Stream<F>) -> std::io::Result<()>,
    ) -> Result<()> {
        self.write_new(&state_path(name::HEAD_NEW), |mut stream| {
            stream.write_all(&head.encode()?)?;
            then(&stream)
        })
    }

    /// Discards every transaction that nobody needs any more.
    fn discard_dead(&self, _lock: &Lock<F>) -> Result<Vec<TransactionId>> {
        let mut discarded = Vec::new();
        for id in self.transaction_ids()? {
            if let Life::Dead(_lock) = self.life(id)? {
                self.remove_transaction(id)?;
                discarded.push(id);
            }
        }
        Ok(discarded)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decision_table_is_the_one_of_the_specification() {
        use Action as A;
        use Relation::{Base, Later, Other, This};
        let expected = [
            (Found::None, [A::Clean, A::Clean, A::Clean, A::Clean]),
            (Found::Torn, [A::Discard, A::Discard, A::Discard, A::Discard]),
            (Found::Damaged, [A::Refuse, A::Refuse, A::Refuse, A::Refuse]),
            (Found::Forward, [A::RollForward, A::Finish, A::Settle, A::Refuse]),
            (Found::Undo, [A::FinishUndo, A::Refuse, A::Drop, A::Refuse]),
        ];
        for (found, actions) in expected {
            for (head, action) in [Base, This, Later, Other].into_iter().zip(actions) {
                assert_eq!(decide(found, head), action, "{found:?} with HEAD at {head:?}");
            }
        }
    }
}
