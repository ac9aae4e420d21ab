//! Going back, and what recovery needs for either way: a transaction's own directories, and errors that say what is known.
//!
//! Invariants (journal-spec.md, "Recovery"):
//! 1. Before anything of the output is changed every operation is classified. What cannot be told stops recovery; what is unknown is
//!    left as it is only where that was asked for.
//! 2. Nothing is lost: what is in the place of a directory of txfs' own is moved aside, and so is what has no place to come back to.
//! 3. An error once a journal was found never says that the output is unchanged.
//!
//! A crash inside leaves directories that were made anew, or an undoing that the next recovery finishes.

use std::cell::RefCell;

use super::{Classified, Manner, Recovered, RecoveredCommit, paths_of};
use crate::error::{Error, Result};
use crate::format::journal::reader::Journal;
use crate::fs::{Fs, Kind};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::protocol::apply::{Applier, State, modes_of};
use crate::protocol::carry_out::Carrying;
use crate::protocol::settle;
use crate::store::Store;
use crate::store::layout::{make_dir, mend_dir, name, previous_path, state_path};
use crate::store::transaction_dir::{self, REMOVED, STAGE, part};

/// Which directories of a transaction were made anew.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mended {
    pub(super) is_any: bool,
    /// A part of what was staged is gone.
    is_staged: bool,
}

impl<F: Fs> Store<F> {
    /// Undoes a commit that is not carried out, or goes on undoing it.
    pub(super) fn go_back(&self, journal: &Journal, manner: Manner) -> Result<Recovered> {
        let looked = self.look(journal, |applier| classify_back(journal, applier));
        let (applier, Classified { pending, mut skip, mut left }) = looked.map_err(|error| self.unless_known(error))?;
        let is_decided = self.has_any(&[name::JOURNAL_UNDO]).map_err(|error| self.unless_known(error))?;
        self.refuse_unknown(journal, &left, manner, true)?;
        let applier = if pending == 0 { Ok(applier) } else { self.make_places(journal, applier) };
        let applier = applier.map_err(|error| self.unless_known(error))?;
        skip.extend(modes_of(&journal.operations, &skip));
        let more = RefCell::new(Vec::new());
        let carrying = Carrying { journal, applier: &applier, skip: &skip, left: manner.skip_unknown.then_some(&more) };
        let undone = if is_decided { self.confirm_undo(carrying) } else { self.begin_undo(carrying) };
        undone.map_err(|error| self.unless_known(error))?;
        left.append(&mut more.borrow_mut());
        let commit = Some(RecoveredCommit::RolledBack { generation: journal.begin.head.info.generation });
        Ok(Recovered { commit, skipped: paths_of(journal, &left), ..Recovered::default() })
    }

    /// What comes out of the output has to have a place in the stage.
    fn make_places<'s>(&'s self, journal: &Journal, applier: Applier<'s, F>) -> Result<Applier<'s, F>> {
        let mended = self.mend(journal)?;
        let applier = if mended.is_any { self.applier(journal)? } else { applier };
        if mended.is_staged {
            applier.note_mended();
        }
        Ok(applier)
    }

    fn begin_undo(&self, carrying: Carrying<'_, F>) -> Result<()> {
        let Carrying { journal, applier, .. } = carrying;
        self.give_name()?;
        settle::unshelve(self, &journal.begin)?;
        applier.open_stage(&journal.operations)?;
        self.roll_back(carrying, journal.operations.len())
    }

    fn confirm_undo(&self, carrying: Carrying<'_, F>) -> Result<()> {
        let Carrying { journal, applier, .. } = carrying;
        // Of two names only the later intention may outlive the undoing: the other would publish what was undone.
        if self.state.stat(&state_path(name::JOURNAL))?.is_some() {
            self.state.remove_entry(&state_path(name::JOURNAL), Kind::File)?;
        }
        // The process that renamed the journal may have been killed before its barrier, without a loss of power.
        if !left_out(Mutant::ConfirmUndo) {
            self.sync_state()?;
        }
        applier.open_stage(&journal.operations)?;
        self.undo(carrying, journal.operations.len())
    }

    /// Gives the journal of a commit its name, if it has not got it.
    pub(super) fn give_name(&self) -> Result<()> {
        if self.state.stat(&state_path(name::JOURNAL)).map_err(|error| self.unless_known(error))?.is_none() {
            let named = self.rename(&state_path(name::JOURNAL_NEW), &state_path(name::JOURNAL));
            named.map_err(|error| self.unless_known(error))?;
        }
        Ok(())
    }

    /// Makes the directories of a transaction anew that another process removed: a commit goes on without what was in them, and can
    /// be undone without. What is in the place of one is not txfs', and is moved aside.
    pub(super) fn mend(&self, journal: &Journal) -> Result<Mended> {
        let mut mended = Mended::default();
        if left_out(Mutant::MendTransaction) {
            return Ok(mended);
        }
        let generation = journal.begin.head.info.generation;
        let as_name = generation.to_string();
        let is_dir = |path: &RelPath| Ok::<_, Error>(self.state.stat(path)?.is_some_and(|stat| stat.is_dir()));
        let (open, shelved) = (transaction_dir::path(journal.begin.transaction), previous_path(generation));
        let at = if !is_dir(&open)? && is_dir(&shelved)? { shelved } else { open };
        // The stage itself may have become the output, and come back.
        let moves_stage =
            journal.operations.iter().any(|operation| operation.path().is_root() && operation.moved_in().is_some());
        let parts = [Some(REMOVED), (!moves_stage).then_some(STAGE)];
        for directory in
            std::iter::once(at.clone()).chain(parts.into_iter().flatten().map(|name| part(name).within(&at)))
        {
            match self.state.stat(&directory)? {
                Some(stat) if stat.is_dir() && !mend_dir(&self.state, &directory)? => continue,
                Some(stat) if stat.is_dir() => {}
                Some(_) => self.rescue(&directory, &as_name)?,
                None => {}
            }
            self.state.forget();
            make_dir(&self.state, &directory)?;
            mended.is_any = true;
            mended.is_staged |= !directory.as_bytes().ends_with(REMOVED.as_bytes());
        }
        Ok(mended)
    }

    /// Looks at what a journal is about. A directory of the transaction's own that its owner cannot search is opened.
    pub(super) fn look<T>(
        &self,
        journal: &Journal,
        look: impl Fn(&Applier<'_, F>) -> Result<T>,
    ) -> Result<(Applier<'_, F>, T)> {
        let applier = self.applier(journal)?;
        match look(&applier) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                applier.open_ways(&journal.operations)?;
                let applier = self.applier(journal)?;
                let found = look(&applier)?;
                Ok((applier, found))
            }
            found => found.map(|found| (applier, found)),
        }
    }

    /// Only where it was asked for is what is unknown left as it is.
    pub(super) fn refuse_unknown(
        &self,
        journal: &Journal,
        unknown: &[usize],
        manner: Manner,
        undoing: bool,
    ) -> Result<()> {
        if unknown.is_empty() || manner.skip_unknown {
            return Ok(());
        }
        let (output, generation) = (self.output.path.clone(), journal.begin.head.info.generation);
        Err(Error::Unrecognized { output, generation, undoing, paths: paths_of(journal, unknown) })
    }

    /// The output may be between two generations, whatever a call says that failed. What the state directory lacks is told as it is.
    pub(super) fn unless_known(&self, error: Error) -> Error {
        match error {
            error @ Error::Io { .. } => self.unknown_outcome(error),
            error => error,
        }
    }

    /// The same of a commit that was made, and that only goes forward.
    pub(super) fn unfinished(&self, journal: &Journal, error: Error) -> Error {
        let (output, generation) = (self.output.path.clone(), journal.begin.head.info.generation);
        match error {
            error @ Error::Io { .. } => Error::Unfinished { source: Box::new(error), output, generation },
            error => error,
        }
    }
}

fn classify_back<F: Fs>(journal: &Journal, applier: &Applier<'_, F>) -> Result<Classified> {
    let mut classified = Classified::default();
    for (index, operation) in journal.operations.iter().enumerate() {
        match applier.state_back(index, operation)? {
            State::Final | State::Left | State::Unrecognized => classified.leave(index),
            State::Done | State::Half => classified.pending += 1,
            State::NotDone => {}
        }
    }
    Ok(classified)
}
