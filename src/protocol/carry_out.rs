//! Carrying out a commit, P4 and P5: from the commit point to the replaced HEAD, or back to where it began. The process that
//! commits and recovery go the same way.
//!
//! ```text
//! commit point --operations--> HEAD --> carried out, and settled later (settle.rs)
//!      |
//!      +-- one fails, first attempt: barrier, journal.undo, operations in reverse, barrier, journal gone --> rolled back
//!      +-- one fails, another attempt: stop --> the next recovery goes on
//! ```
//!
//! Invariants (journal-spec.md, "Commit" and "Recovery"):
//! 1. HEAD is replaced after all operations.
//! 2. Only the first attempt rolls back by itself: once there was a crash, whoever made the commit may have been told of success.
//! 3. Undoing starts when `journal.undo` has its name durably, and ends when it is durably gone; and no operation is undone
//!    whose displaced entry is lost.
//!
//! A crash inside is recovered by the next recovery, in the direction that the journal's name says.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io::Write;

use crate::error::{Error, Result};
use crate::format::journal::reader::Journal;
use crate::format::journal::record::Operation;
use crate::format::manifest::Head;
use crate::fs::stream::Stream;
use crate::fs::{Fs, Kind};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::progress::{Meter, Phase};
use crate::protocol::apply::{Applier, State};
use crate::protocol::settle;
use crate::store::Store;
use crate::store::layout::{manifest_path, name, open_trusted, previous_path, state_path};
use crate::store::transaction_dir::{self, KEPT, REMOVED, STAGE, part};

/// Whether a commit is carried out for the first time, or was begun before a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    First,
    Again,
    /// Everything was found done, HEAD too: only whether it is durable is not known.
    Finish,
}

/// A journal that was made durable, and how it is carried out or undone.
pub(crate) struct Carrying<'a, F: Fs> {
    pub(crate) journal: &'a Journal,
    pub(crate) applier: &'a Applier<'a, F>,
    /// The operations that are left as they are, by index.
    pub(crate) skip: &'a HashSet<usize>,
    /// Where an operation is noted, and left as it is, too, that cannot be performed for what is around it; `None` where that is an error.
    pub(crate) left: Option<&'a RefCell<Vec<usize>>>,
}

impl<F: Fs> Clone for Carrying<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Fs> Copy for Carrying<'_, F> {}

impl<'a, F: Fs> Carrying<'a, F> {
    /// An operation that could not be performed is left as it is, if it may be.
    fn or_leave(&self, index: usize, performed: Result<()>) -> Result<()> {
        match (performed, self.left) {
            (Err(error), Some(left)) if error.is_of_surroundings() => {
                left.borrow_mut().push(index);
                Ok(())
            }
            (performed, _) => performed,
        }
    }

    /// Whether everything is in the stage again as it was staged.
    fn is_stage_sound(&self) -> Result<bool> {
        if self.applier.is_mended() {
            return Ok(false);
        }
        for (index, operation) in self.journal.operations.iter().enumerate() {
            if !self.applier.is_as_staged(index, operation)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The first `count` operations, without those that are skipped.
    fn first(&self, count: usize) -> impl DoubleEndedIterator<Item = (usize, &'a Operation)> {
        let Self { journal, skip, .. } = *self;
        journal.operations[..count].iter().enumerate().filter(|(index, _)| !skip.contains(index))
    }
}

/// HEAD, seen from the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Base,
    This,
    Later,
    Other,
}

pub(crate) fn relation(journal: &Journal, head: Option<&Head>) -> Relation {
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

impl<F: Fs> Store<F> {
    /// P4 and P5: performs every operation but those that are skipped, and replaces HEAD. At the first attempt the journal stands
    /// for it; at another all of it is made durable.
    ///
    /// # Errors
    /// At the first attempt [`Error::RolledBack`] when an operation failed and everything was undone, [`Error::OutcomeUnknown`]
    /// when that failed too; at another [`Error::Unfinished`], or [`Error::OutcomeUnknown`] when the barrier failed.
    pub(crate) fn carry_out(&self, carrying: Carrying<'_, F>, attempt: Attempt) -> Result<()> {
        let Carrying { journal, applier, .. } = carrying;
        let all = journal.operations.len();
        let failed = |begun: usize, cause: Error| match attempt {
            // Whoever made the commit may have been told of success: it can only go forward.
            Attempt::Again | Attempt::Finish if !left_out(Mutant::OnlyForward) => {
                let (source, output) = (Box::new(cause), self.output.path.clone());
                Error::Unfinished { source, output, generation: journal.begin.head.info.generation }
            }
            _ => match self.roll_back(carrying, begun) {
                Ok(()) => Error::RolledBack { source: Box::new(cause) },
                Err(_) => self.unknown_outcome(cause),
            },
        };
        if left_out(Mutant::HeadAfterOperations) {
            self.install_head(&journal.begin.head, attempt)?;
        }
        if let Err(error) = applier.open_stage(&journal.operations) {
            return Err(failed(0, error));
        }
        // Where all was found done there is nothing to wait for.
        let meter = (attempt != Attempt::Finish).then(|| self.progress.begin(Phase::Apply, Some(all as u64)));
        for (index, operation) in carrying.first(all) {
            meter.iter().for_each(Meter::step);
            if let Err(error) = carrying.or_leave(index, applier.forward(index, operation)) {
                // The commit was done, and somebody made the directory anew and filled it. Not to know is no reason to say that nothing
                // was done.
                let is_done = || self.head().is_ok_and(|head| head.as_ref() == Some(&journal.begin.head));
                if is_filled(operation, &error) && is_done() {
                    continue;
                }
                return Err(failed(index + 1, error));
            }
        }
        if let Err(error) = self.install_head(&journal.begin.head, attempt) {
            return Err(failed(all, error));
        }
        meter.into_iter().for_each(Meter::end);
        if left_out(Mutant::SettleAfterBarrier2) {
            settle::settle(self, &journal.begin)?;
        }
        if attempt == Attempt::First || left_out(Mutant::RecoveryBarrier) {
            return Ok(());
        }
        // Barrier 2 buys that the journal can be retired: every rename and HEAD is durable that it could repeat. What an earlier
        // attempt did is not known to be durable anywhere, so all of it is synced.
        self.sync_all().map_err(|source| match attempt {
            Attempt::Finish => source,
            _ => self.unknown_outcome(source),
        })
    }

    /// The undo intent is durable before anything is undone: a crash from here on finishes undoing. What was done so far is
    /// durable before the intent: without RENAME_EXCHANGE the old entry's second name could be lost, and the new one's not.
    pub(crate) fn roll_back(&self, carrying: Carrying<'_, F>, begun: usize) -> Result<()> {
        self.head()
            .and_then(|head| match relation(carrying.journal, head.as_ref()) {
                Relation::Base => Ok(()),
                _ => Err(self.state.corrupt(&state_path(name::HEAD), "it has changed already")),
            })
            .and_then(|()| if left_out(Mutant::BarrierBeforeUndo) { Ok(()) } else { self.sync_all() })
            .and_then(|()| self.check_undoable(carrying, begun))
            .and_then(|()| self.intend_undo())
            .and_then(|()| self.undo(carrying, begun))
    }

    /// An operation whose displaced entry a crash has lost can only go forward: then the journal keeps its name, and the next
    /// recovery goes forward again.
    fn check_undoable(&self, carrying: Carrying<'_, F>, begun: usize) -> Result<()> {
        if left_out(Mutant::UndoableCheck) {
            return Ok(());
        }
        for (index, operation) in carrying.first(begun) {
            if carrying.applier.state(index, operation)? == State::Final {
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

    /// Undoes the first `begun` operations in reverse, durably, and then drops the undo intent. A stage in which not everything is again
    /// as it was staged is moved aside, with what was displaced and has no place to come back to: nobody is to commit it.
    pub(crate) fn undo(&self, carrying: Carrying<'_, F>, begun: usize) -> Result<()> {
        let Carrying { journal, applier, .. } = carrying;
        for (index, operation) in carrying.first(begun).rev() {
            let undone = applier.back(index, operation);
            // Another process may have removed the directory of the stage that it came from.
            let undone = undone.or_else(|error| {
                match error.is_of_surroundings() && self.make_staged_room(journal, applier, operation)? {
                    true => applier.back(index, operation),
                    false => Err(error),
                }
            });
            carrying.or_leave(index, undone)?;
        }
        let is_sound = left_out(Mutant::SoundStage) || carrying.is_stage_sound()?;
        // The transaction may be committed again, and its stage has to mean what it meant.
        if is_sound {
            match self.inventory(&journal.begin.head) {
                // What is damaged says no modes.
                Err(Error::Corrupt { .. }) => {}
                published => applier.close_stage(&journal.operations, &published?)?,
            }
        }
        // The undone renames are durable before the intent that could repeat them goes.
        if !left_out(Mutant::UndoneBarrier) {
            self.sync_all()?;
        }
        if !is_sound {
            self.set_aside(journal)?;
        }
        if left_out(Mutant::UndoIntent) {
            self.drop_journal(name::JOURNAL)?;
        }
        self.drop_journal(name::JOURNAL_UNDO)?;
        self.drop_new_head(journal.begin.head.info.generation);
        Ok(())
    }

    /// Makes the directories of the stage that an entry of the output is to come back to; what is in the way of one is moved aside.
    fn make_staged_room(&self, journal: &Journal, applier: &Applier<'_, F>, operation: &Operation) -> Result<bool> {
        let Some((path, _)) = operation.moved_in() else { return Ok(false) };
        while let Some(in_the_way) = applier.make_room(path)? {
            let stage = part(STAGE).within(&transaction_dir::path(journal.begin.transaction));
            self.rescue(&in_the_way.within(&stage), &journal.begin.head.info.generation.to_string())?;
        }
        Ok(true)
    }

    /// Moves a transaction aside, durably: what is in its directory is neither what was staged nor what was displaced, but some of both.
    /// Everything that was undone is durable before, for what could still be undone would not be found.
    fn set_aside(&self, journal: &Journal) -> Result<()> {
        let (id, generation) = (journal.begin.transaction, journal.begin.head.info.generation);
        for directory in [transaction_dir::path(id), previous_path(generation)] {
            if self.state.stat(&directory)?.is_some() {
                self.end_transaction(id)?;
                if self.empty_out(&directory) {
                    self.state.remove(&directory)?;
                } else {
                    self.rescue(&directory, &generation.to_string())?;
                }
                return self.sync_all();
            }
        }
        Ok(())
    }

    /// Removes the empty directories of a transaction, and says whether all were empty: then nobody could want anything of it back. What
    /// it removed from the output came back, and a crash took the rest.
    fn empty_out(&self, directory: &RelPath) -> bool {
        let remove = |place| self.state.remove_entry(&part(place).within(directory), Kind::Directory);
        [STAGE, REMOVED, KEPT].into_iter().all(|place| remove(place).is_ok())
    }

    /// Removes a journal that means nothing any more, durably.
    pub(crate) fn drop_journal(&self, name: &str) -> Result<()> {
        self.state.remove_entry(&state_path(name), Kind::File)?;
        self.sync_state()
    }

    pub(crate) fn unknown_outcome(&self, source: Error) -> Error {
        Error::OutcomeUnknown { source: Box::new(source), output: self.output.path.clone() }
    }

    /// Makes `head` the current one. At the first attempt barrier 1 made it durable just now; what an earlier one wrote may be
    /// read now and be gone after a crash.
    fn install_head(&self, head: &Head, attempt: Attempt) -> Result<()> {
        let new = state_path(name::HEAD_NEW);
        if attempt == Attempt::First {
            return self.rename(&new, &state_path(name::HEAD));
        }
        if self.head()?.as_ref() == Some(head) {
            return Ok(());
        }
        let prepared = open_trusted(&self.state, &new)?.and_then(|stream| Head::read(stream).ok());
        let again = !left_out(Mutant::HeadWrittenAnew);
        if prepared.as_ref() != Some(head) || again && !self.is_prepared_on_medium(head)? {
            self.write_head(head, |stream| stream.fs.sync_file(&stream.file))?;
        }
        self.rename(&new, &state_path(name::HEAD))
    }

    /// Whether `HEAD.new` is durable as it is: on a full disk another could not be written.
    fn is_prepared_on_medium(&self, head: &Head) -> Result<bool> {
        let path = state_path(name::HEAD_NEW);
        let Some(stream) = open_trusted(&self.state, &path)? else { return Ok(false) };
        let asked = stream.fs.sync_file(&stream.file).and_then(|()| stream.fs.drop_cached(&stream.file));
        Ok(asked.is_ok() && Head::read(stream).is_ok_and(|found| found == *head))
    }

    /// Writes `HEAD.new`.
    pub(crate) fn write_head(&self, head: &Head, then: impl FnOnce(&Stream<F>) -> std::io::Result<()>) -> Result<()> {
        self.write_new(&state_path(name::HEAD_NEW), |mut stream| {
            stream.write_all(&head.encode()?)?;
            then(&stream)
        })
    }

    /// Removes `HEAD.new` and the manifest of a generation that does not come. Best effort: without a journal they mean nothing,
    /// and the next commit writes them anew.
    pub(crate) fn drop_new_head(&self, generation: u64) {
        for path in [state_path(name::HEAD_NEW), manifest_path(generation)] {
            let _ = self.state.remove_entry(&path, Kind::File);
        }
    }
}

fn is_filled(operation: &Operation, error: &Error) -> bool {
    let removes = matches!(operation, Operation::RemoveDirectory { .. });
    removes && matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::DirectoryNotEmpty)
}
