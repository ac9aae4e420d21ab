//! How far an operation has come, told by what lies at its ends (journal-spec.md, "Apply"). Nothing is changed here.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Applier;
use super::end::{Doubt, End, stat};
use crate::error::Result;
use crate::format::identity::Object;
use crate::format::journal::record::Operation;
use crate::fs::{Fs, Stat};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;

/// How far an operation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Everything is as before it.
    NotDone,
    /// Everything is as after it.
    Done,
    /// Both names lead to the entry that moves.
    Half,
    /// Done, and what it displaced is gone: it cannot be undone any more.
    Final,
    /// The entry that was to leave its place has left it, and is not where it was to go: done, and changed since.
    Left,
    /// Something else is there.
    Unrecognized,
}

/// What a journal does to a path whose mode it changes: a directory that is opened may be closed with another mode, move away,
/// or have come from the stage, so that one operation alone cannot tell how far it has come.
#[derive(Debug, Default)]
pub(super) struct Modes {
    /// Every change of it, from and to, in order.
    pub(super) changes: Vec<(u32, u32)>,
    /// The operation that makes the directory come or go.
    moved_by: Option<usize>,
}

impl Modes {
    /// Whether the directory has this mode at some time.
    pub(super) fn know(&self, mode: u32) -> bool {
        self.changes.iter().any(|&(from, to)| from == mode || to == mode)
    }
}

pub(super) fn modes(operations: &[Operation]) -> HashMap<RelPath, Modes> {
    let mut modes: HashMap<RelPath, Modes> = HashMap::new();
    for operation in operations {
        if let Operation::SetMode { path, from, to } = operation {
            modes.entry(path.clone()).or_default().changes.push((*from, *to));
        }
    }
    for (index, operation) in operations.iter().enumerate() {
        if let Some(modes) = modes.get_mut(operation.path())
            && !operation.is_mode()
        {
            modes.moved_by = Some(index);
        }
    }
    modes
}

impl<F: Fs> Applier<'_, F> {
    /// How far operation `index` has come.
    pub(crate) fn state(&self, index: usize, operation: &Operation) -> Result<State> {
        match self.state_by(index, operation, Doubt::No)? {
            State::Final | State::Left | State::Unrecognized => self.state_by(index, operation, Doubt::Yes),
            state => Ok(state),
        }
    }

    /// The same for going back: where the output is as before an operation there is nothing to undo, whatever became of what was to
    /// come; and what was taken away has to have a place to come back to.
    pub(crate) fn state_back(&self, index: usize, operation: &Operation) -> Result<State> {
        let state = self.state(index, operation)?;
        let settled = match state {
            State::Final | State::Left | State::Unrecognized => self.is_as_before(operation)?.then_some(State::NotDone),
            State::Done if operation.takes_away() => {
                let is_there = stat(self.published(operation.path())?.as_ref())?.is_some();
                (is_there || !self.has_place(operation.path())?).then_some(State::Unrecognized)
            }
            State::Done | State::NotDone | State::Half => None,
        };
        Ok(settled.unwrap_or(state))
    }

    /// Whether the output is as before an operation, whatever became of what was to come.
    fn is_as_before(&self, operation: &Operation) -> Result<bool> {
        let Some(end) = self.published(operation.path())? else {
            return Ok(matches!(operation, Operation::Add { .. } | Operation::SetMode { .. }));
        };
        let found = end.stat()?;
        match operation {
            Operation::Add { .. } => Ok(found.is_none()),
            Operation::Replace { old, .. } | Operation::Remove { old, .. } => end.is(old, found.as_ref(), Doubt::Yes),
            Operation::SetMode { .. } => Ok(!found.is_some_and(|stat| stat.is_dir())),
            Operation::RemoveDirectory { .. } => Ok(found.is_some_and(|stat| stat.is_dir())),
        }
    }

    /// Whether there is nowhere to put what an operation adds.
    pub(crate) fn lacks_place(&self, operation: &Operation) -> Result<bool> {
        Ok(matches!(operation, Operation::Add { .. }) && !self.has_place(operation.path())?)
    }

    /// Whether the directory of the output is there that holds, or is to hold, the entry at `path`; or comes back with the operation
    /// that took it away.
    pub(crate) fn has_place(&self, path: &RelPath) -> Result<bool> {
        let parent = path.parent();
        let is_known = self.place.borrow().as_ref() == Some(&parent);
        if path.is_root() || is_known || self.apart.contains(&parent) {
            return Ok(true);
        }
        let is_dir = stat(self.published(&parent)?.as_ref())?.is_some_and(|stat| stat.is_dir());
        if is_dir {
            *self.place.borrow_mut() = Some(parent);
        }
        Ok(is_dir)
    }

    /// Whether what an operation moves into the output is in the stage, as it was staged, and nothing that it displaced is with it.
    pub(crate) fn is_as_staged(&self, index: usize, operation: &Operation) -> Result<bool> {
        let is_removed = || Ok(stat(self.removed(index).as_ref())?.is_some());
        let Some((path, new)) = operation.moved_in() else { return Ok(!operation.takes_away() || !is_removed()?) };
        let Some(end) = self.staged(path)? else { return Ok(false) };
        Ok(end.is(new, end.stat()?.as_ref(), Doubt::Yes)? && !is_removed()?)
    }

    /// Whether something lies in the stage, at the path of an operation that is left as it is, that the operation did not displace.
    pub(crate) fn is_left_over(&self, operation: &Operation) -> Result<bool> {
        let Some((path, _)) = operation.moved_in() else { return Ok(false) };
        let Some(end) = self.staged(path)? else { return Ok(false) };
        let found = end.stat()?;
        let displaced = match operation {
            Operation::Replace { old, .. } => end.is(old, found.as_ref(), Doubt::Yes)?,
            _ => false,
        };
        Ok(found.is_some() && !displaced)
    }

    /// Whether what an operation displaced lies where only it can have put it: the operation was begun, whatever became of the rest.
    pub(crate) fn holds_displaced(&self, operation: &Operation) -> Result<bool> {
        let Operation::Replace { path, old, .. } = operation else { return Ok(false) };
        let is_old = |end: Option<End<'_, F>>| match end {
            Some(end) => end.is(old, end.stat()?.as_ref(), Doubt::No),
            None => Ok(false),
        };
        Ok(is_old(self.staged(path)?)? && !is_old(self.published(path)?)?)
    }

    /// The same by identity alone: what happens to have the same content proves nothing.
    pub(crate) fn state_by_identity(&self, index: usize, operation: &Operation) -> Result<State> {
        self.state_by(index, operation, Doubt::No)
    }

    fn state_by(&self, index: usize, operation: &Operation, doubt: Doubt) -> Result<State> {
        match operation {
            Operation::SetMode { path, from, to } => self.mode_state(index, path, *from, *to),
            Operation::RemoveDirectory { path, .. } => self.directory_state(path),
            Operation::Add { path, new } => move_state(new, self.staged(path)?, self.published(path)?, doubt),
            Operation::Remove { path, old } => move_state(old, self.published(path)?, self.removed(index), doubt),
            Operation::Replace { path, old, new } => self.replace_state(index, path, [old, new], doubt),
        }
    }

    fn mode_state(&self, index: usize, path: &RelPath, from: u32, to: u32) -> Result<State> {
        let modes = self.modes.get(path);
        let stat = match self.published(path)? {
            Some(end) => end.stat()?,
            None => None,
        };
        Ok(match (stat, modes.and_then(|modes| modes.moved_by)) {
            (Some(stat), _) if stat.is_dir() && stat.mode == to => State::Done,
            (Some(stat), _) if stat.is_dir() && stat.mode == from => State::NotDone,
            (Some(stat), _) if stat.is_dir() && modes.is_some_and(|modes| modes.know(stat.mode)) => State::NotDone,
            // Somebody gave it the mode that was noted, and a crash took that.
            (Some(stat), _) if stat.is_dir() && self.is_from_before(&stat) => State::NotDone,
            // The directory has left its place, or has not come yet.
            (stat, Some(moved_by)) if !left_out(Mutant::MovedModes) && !stat.is_some_and(|stat| stat.is_dir()) => {
                if index < moved_by {
                    State::Done
                } else {
                    State::NotDone
                }
            }
            _ => State::Unrecognized,
        })
    }

    /// Whether a directory of the output is as it was before the commit was planned. What anybody changes later has a later time.
    fn is_from_before(&self, stat: &Stat) -> bool {
        self.since.is_some_and(|since| stat.ctime <= since)
    }

    fn directory_state(&self, path: &RelPath) -> Result<State> {
        let Some(end) = self.published(path)? else { return Ok(State::Done) };
        Ok(match end.stat()? {
            None => State::Done,
            Some(stat) if stat.is_dir() => State::NotDone,
            Some(_) => State::Left,
        })
    }

    fn replace_state(&self, index: usize, path: &RelPath, [old, new]: [&Object; 2], doubt: Doubt) -> Result<State> {
        let ends = [self.published(path)?, self.staged(path)?, self.removed(index)];
        let [target, source, kept] = ends.each_ref().map(Option::as_ref);
        let [at_target, at_source] = [stat(target)?, stat(source)?];
        let is = |end: Option<&End<'_, F>>, object: &Object, stat: Option<&Stat>| match end {
            Some(end) => end.is(object, stat, doubt),
            None => Ok(false),
        };
        let new_at_source = is(source, new, at_source.as_ref())?;
        if new_at_source && is(target, old, at_target.as_ref())? {
            return Ok(State::NotDone);
        }
        if is(target, new, at_target.as_ref())? {
            let old_is_kept = is(kept, old, stat(kept)?.as_ref())?;
            let both_names = at_source.zip(at_target).is_some_and(|(a, b)| a.is_same_entry(&b));
            if both_names {
                return Ok(if old_is_kept { State::Half } else { State::Final });
            }
            if !new_at_source {
                let old_is_there = old_is_kept || is(source, old, at_source.as_ref())?;
                return Ok(if old_is_there { State::Done } else { State::Final });
            }
        }
        Ok(if new_at_source { State::Unrecognized } else { State::Left })
    }
}

/// The changes of modes that go with skipped moves: what was not moved keeps its mode.
pub(crate) fn modes_of(operations: &[Operation], skipped: &HashSet<usize>) -> Vec<usize> {
    let paths: BTreeSet<&RelPath> = skipped.iter().map(|&index| operations[index].path()).collect();
    let goes_along = |(_, operation): &(usize, &Operation)| operation.is_mode() && paths.contains(operation.path());
    operations.iter().enumerate().filter(goes_along).map(|(index, _)| index).collect()
}

/// How far a move has come, by what lies at its ends.
fn move_state<F: Fs>(
    object: &Object,
    source: Option<End<'_, F>>,
    target: Option<End<'_, F>>,
    doubt: Doubt,
) -> Result<State> {
    let (from, to) = (stat(source.as_ref())?, stat(target.as_ref())?);
    let is = |end: &Option<End<'_, F>>, stat: &Option<Stat>| match end {
        Some(end) => end.is(object, stat.as_ref(), doubt),
        None => Ok(false),
    };
    Ok(match (is(&source, &from)?, is(&target, &to)?) {
        (true, true) if from.zip(to).is_some_and(|(from, to)| from.is_same_entry(&to)) => {
            if left_out(Mutant::HalfDone) { State::Done } else { State::Half }
        }
        (true, false) if to.is_none() => State::NotDone,
        (true, _) => State::Unrecognized,
        (false, true) => State::Done,
        (false, false) => State::Left,
    })
}
