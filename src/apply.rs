//! One operation, forward or back: told by identity whether it is done, and idempotent.
//!
//! ```text
//! operation        forward                               back
//! add              stage/p  -> output/p                  output/p  -> stage/p
//! replace          stage/p <-> output/p                  the same
//! remove           output/p -> removed/i                 removed/i -> output/p
//! set-mode         from -> to                            to -> from
//! remove-directory rmdir output/p                        mkdir output/p
//! ```
//!
//! Invariants (journal-spec.md, "Apply"):
//! 1. Nothing is overwritten: a rename refuses what is in its way, or exchanges with what was identified (G3, G6).
//! 2. An operation is done, not done, half done or unrecognized by the identity of what lies at both its ends: inode, size and
//!    time; the digest where the inode disagrees. Existence alone decides nothing (G7).
//! 3. Half done: both names lead to the new entry, which some file systems leave after a crash. The wrong one is removed;
//!    renaming one to the other would succeed and do nothing.
//! 4. Without RENAME_EXCHANGE a replaced file is first linked to `removed/i`, so that its name is never missing.
//!
//! A crash inside leaves one operation done, not done or half done; [`crate::recover`] goes on from there.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;

use crate::digest;
use crate::error::{Error, Result};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, RenameMode, Stat};
use crate::journal::record::Operation;
use crate::manifest::Object;
use crate::manifest::inventory::Inventory;
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::store::{Capabilities, Output};
use crate::txdir::{REMOVED, STAGE, part};

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

/// Applies the operations of one journal.
pub(crate) struct Applier<'a, F: Fs> {
    output: &'a Output<F>,
    tree: OnceCell<Tree<F>>,
    /// The transaction's directory, `tx/ID` or `previous/N`; `None` when it is gone.
    transaction: Option<Tree<F>>,
    stage: Option<Tree<F>>,
    capabilities: Capabilities,
    /// The paths whose mode changes.
    modes: HashMap<RelPath, Modes>,
}

/// What a journal does to a path whose mode it changes: a directory that is opened may be closed with another mode, move away,
/// or have come from the stage, so that one operation alone cannot tell how far it has come.
#[derive(Debug, Default)]
struct Modes {
    /// Every change of it, from and to, in order.
    changes: Vec<(u32, u32)>,
    /// The operation that makes the directory come or go.
    moved_by: Option<usize>,
}

impl Modes {
    /// Whether the directory has this mode at some time.
    fn know(&self, mode: u32) -> bool {
        self.changes.iter().any(|&(from, to)| from == mode || to == mode)
    }
}

fn modes(operations: &[Operation]) -> HashMap<RelPath, Modes> {
    let mut modes: HashMap<RelPath, Modes> = HashMap::new();
    for operation in operations {
        if let Operation::SetMode { path, from, to } = operation {
            modes.entry(path.clone()).or_default().changes.push((*from, *to));
        }
    }
    for (index, operation) in operations.iter().enumerate() {
        if let Some(modes) = modes.get_mut(operation.path())
            && !matches!(operation, Operation::SetMode { .. })
        {
            modes.moved_by = Some(index);
        }
    }
    modes
}

/// Which way an operation is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Back,
}

/// Whether an inode that disagrees is given a second chance by its content: a file system may give inodes other numbers, and a
/// store may have been restored from a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    No,
    Yes,
}

/// One end of a rename.
struct End<'a, F: Fs> {
    tree: &'a Tree<F>,
    path: RelPath,
}

impl<F: Fs> End<'_, F> {
    fn stat(&self) -> Result<Option<Stat>> {
        self.tree.stat(&self.path)
    }

    fn io(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        self.tree.io(action, &self.path)
    }

    /// Whether the object is here: by identity, and in doubt by content too.
    fn is(&self, object: &Object, stat: Option<&Stat>, doubt: Doubt) -> Result<bool> {
        let Some(stat) = stat else { return Ok(false) };
        if object.is(stat) || doubt == Doubt::No {
            return Ok(object.is(stat));
        }
        if object.kind == Kind::Directory || Some(object.kind) != stat.kind || object.size != stat.size {
            return Ok(false);
        }
        let found = digest::object(self.tree, &self.path, object.kind, stat)?;
        Ok(found.publishes_same(object))
    }
}

impl<'a, F: Fs> Applier<'a, F> {
    pub(crate) fn new(
        output: &'a Output<F>,
        transaction: Option<Tree<F>>,
        capabilities: Capabilities,
        operations: &[Operation],
    ) -> Result<Self> {
        let stage = match &transaction {
            Some(tree) => tree.find_below(&part(STAGE))?,
            None => None,
        };
        Ok(Self { output, tree: OnceCell::new(), transaction, stage, capabilities, modes: modes(operations) })
    }

    /// Gives the owner full access to the staged directories that move, and to those that entries move out of. Not before the
    /// commit point: a stage whose commit does not come so far can be committed again, and means what it meant.
    pub(crate) fn open_stage(&self, operations: &[Operation]) -> Result<()> {
        let Some(stage) = &self.stage else { return Ok(()) };
        let mut opened = None;
        for operation in operations {
            let (Operation::Add { path, new } | Operation::Replace { path, new, .. }) = operation else { continue };
            let parent = path.parent();
            if opened.as_ref() != Some(&parent) {
                stage.make_writable(&parent)?;
                opened = Some(parent);
            }
            let closed = new.kind == Kind::Directory && new.mode & 0o700 != 0o700;
            if closed && stage.stat(path)?.is_some_and(|stat| new.is(&stat)) {
                stage.make_writable(path)?;
            }
        }
        stage.forget();
        Ok(())
    }

    /// Takes back [`Applier::open_stage`], once everything is in the stage again that it held: `published` has the modes.
    pub(crate) fn close_stage(&self, operations: &[Operation], published: &Inventory<F>) -> Result<()> {
        let Some(stage) = &self.stage else { return Ok(()) };
        stage.forget();
        let mut closed = BTreeMap::new();
        for operation in operations {
            let (Operation::Add { path, new } | Operation::Replace { path, new, .. }) = operation else { continue };
            if path.is_root() {
                closed.insert(path.clone(), new.mode);
            }
            for directory in [path.clone(), path.parent()] {
                match published.get(&directory)? {
                    Some(object) if object.kind == Kind::Directory => closed.insert(directory, object.mode),
                    _ => None,
                };
            }
        }
        // A directory is closed after those below it.
        for (path, mode) in closed.iter().rev().filter(|(_, mode)| *mode & 0o700 != 0o700) {
            if stage.stat(path)?.is_some_and(|stat| stat.is_dir() && stat.mode == mode | 0o700) {
                stage.set_dir_mode(path, *mode)?;
            }
        }
        Ok(())
    }

    /// How far operation `index` has come.
    pub(crate) fn state(&self, index: usize, operation: &Operation) -> Result<State> {
        match self.state_by(index, operation, Doubt::No)? {
            State::Final | State::Left | State::Unrecognized => self.state_by(index, operation, Doubt::Yes),
            state => Ok(state),
        }
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
            let both_names = at_source.zip(at_target).is_some_and(|(a, b)| a.ino == b.ino);
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

    /// Performs operation `index`, which is not done or half done.
    pub(crate) fn forward(&self, index: usize, operation: &Operation) -> Result<()> {
        let state = self.state(index, operation)?;
        if matches!(state, State::NotDone | State::Half | State::Final) {
            self.open_parent(operation, Way::Forward)?;
        }
        match (state, operation) {
            (State::Done, _) => Ok(()),
            (State::Final, _) => {
                let (source, target) = (self.staged(operation.path())?, self.need_published(operation.path())?);
                match source.map(|source| Ok((source.stat()?, source))).transpose()?.zip(target.stat()?) {
                    Some(((Some(found), source), published)) if found.ino == published.ino => {
                        drop_other_name(&source, &target)
                    }
                    // What was displaced may be there, changed since: it is not ours to remove.
                    _ => Ok(()),
                }
            }
            (State::NotDone, Operation::SetMode { path, to, .. }) => self.set_mode(path, *to),
            (State::NotDone, Operation::RemoveDirectory { path, .. }) => self.remove_directory(path),
            (State::NotDone, Operation::Add { path, new }) => {
                self.move_entry(new.kind, &self.need_staged(path)?, &self.need_published(path)?)
            }
            (State::NotDone, Operation::Remove { path, old }) => {
                self.move_entry(old.kind, &self.need_published(path)?, &self.need_removed(index)?)
            }
            (State::NotDone, Operation::Replace { path, old, new }) => self.replace(index, path, [old, new]),
            (State::Half, Operation::Add { path, .. } | Operation::Replace { path, .. }) => {
                drop_other_name(&self.need_staged(path)?, &self.need_published(path)?)
            }
            (State::Half, Operation::Remove { path, .. }) => {
                drop_other_name(&self.need_published(path)?, &self.need_removed(index)?)
            }
            (_, operation) => Err(self.changed(operation)),
        }
    }

    /// Undoes operation `index`, which is done or half done.
    pub(crate) fn back(&self, index: usize, operation: &Operation) -> Result<()> {
        let state = self.state(index, operation)?;
        if matches!(state, State::Done | State::Half) {
            self.open_parent(operation, Way::Back)?;
        }
        match (state, operation) {
            (State::NotDone, Operation::Replace { path, .. }) => self.drop_kept(index, path),
            (State::Done | State::NotDone, Operation::SetMode { path, from, .. }) => {
                // A directory that has not come yet, or that is not back yet where it was not to leave, has its mode.
                let is_there = stat(self.published(path)?.as_ref())?.is_some_and(|stat| stat.is_dir());
                if is_there { self.set_mode(path, *from) } else { Ok(()) }
            }
            (State::NotDone, _) => Ok(()),
            (State::Done, Operation::RemoveDirectory { path, mode }) => self.make_directory(path, *mode),
            (State::Done, Operation::Add { path, new }) => {
                self.move_entry(new.kind, &self.need_published(path)?, &self.need_staged(path)?)
            }
            (State::Done, Operation::Remove { path, old }) => {
                self.move_entry(old.kind, &self.need_removed(index)?, &self.need_published(path)?)
            }
            (State::Done | State::Half, Operation::Replace { path, old, new }) => self.restore(index, path, [old, new]),
            (State::Half, Operation::Add { path, .. }) => {
                drop_other_name(&self.need_published(path)?, &self.need_staged(path)?)
            }
            (State::Half, Operation::Remove { path, .. }) => {
                drop_other_name(&self.need_removed(index)?, &self.need_published(path)?)
            }
            (_, operation) => Err(self.changed(operation)),
        }
    }

    /// A crash can keep the mode that a directory has at the end and lose what was done in it before: then it is opened again,
    /// and the change of its mode, which is not done any more, comes in its turn.
    fn open_parent(&self, operation: &Operation, way: Way) -> Result<()> {
        let is_mode = matches!(operation, Operation::SetMode { .. });
        if is_mode || left_out(Mutant::OpenParent) || self.modes.is_empty() || operation.path().is_root() {
            return Ok(());
        }
        let parent = operation.path().parent();
        let changes = self.modes.get(&parent).map_or(&[][..], |modes| &modes.changes);
        let (Some(first), Some(&last)) = (changes.first(), changes.last()) else { return Ok(()) };
        let (open, closed) = match way {
            Way::Forward => last,
            Way::Back => (first.1, first.0),
        };
        let end = self.published(&parent)?;
        match stat(end.as_ref())? {
            Some(stat) if stat.is_dir() && stat.mode == closed && closed & 0o700 != 0o700 => {
                self.set_mode(&parent, open)
            }
            _ => Ok(()),
        }
    }

    fn changed(&self, operation: &Operation) -> Error {
        Error::Io {
            action: match operation {
                Operation::Add { .. } => "add",
                Operation::Replace { .. } => "replace",
                Operation::Remove { .. } | Operation::RemoveDirectory { .. } => "remove",
                Operation::SetMode { .. } => "change the mode of",
            },
            path: operation.path().under(&self.output.path),
            source: io::Error::other("it was changed since the commit was planned"),
        }
    }

    /// Moves an entry to where nothing is.
    fn move_entry(&self, kind: Kind, source: &End<'_, F>, target: &End<'_, F>) -> Result<()> {
        open_for_move(kind, source)?;
        if self.capabilities.no_replace {
            return rename(source, target, RenameMode::NoReplace);
        }
        if kind == Kind::Directory {
            // rename(2) puts a directory over nothing but an empty directory, so nothing can be lost.
            return match target.stat()? {
                Some(_) => Err(target.io("move an entry to")(io::ErrorKind::AlreadyExists.into())),
                None => rename(source, target, RenameMode::Replace),
            };
        }
        link(source, target)?;
        drop_other_name(source, target)
    }

    fn replace(&self, index: usize, path: &RelPath, [old, new]: [&Object; 2]) -> Result<()> {
        let (source, target) = (self.need_staged(path)?, self.need_published(path)?);
        if self.capabilities.exchange {
            open_for_move(old.kind, &target)?;
            open_for_move(new.kind, &source)?;
            return rename(&source, &target, RenameMode::Exchange);
        }
        self.need_no_directory(old, &target)?;
        let kept = self.need_removed(index)?;
        if kept.stat()?.is_none() {
            link(&target, &kept)?;
        }
        rename(&source, &target, RenameMode::Replace)
    }

    /// Puts the old entry back in one instant, from where the exchange or the link left it.
    fn restore(&self, index: usize, path: &RelPath, [old, new]: [&Object; 2]) -> Result<()> {
        let (source, target) = (self.need_staged(path)?, self.need_published(path)?);
        if source.is(old, source.stat()?.as_ref(), Doubt::Yes)? {
            open_for_move(old.kind, &source)?;
            open_for_move(new.kind, &target)?;
            return rename(&source, &target, RenameMode::Exchange);
        }
        self.need_no_directory(old, &target)?;
        if source.stat()?.is_none() {
            link(&target, &source)?;
        }
        // Else a crash could keep the rename and lose the link, and with it the new entry. One that is there may be an
        // interrupted attempt's, and not durable.
        make_durable(&source)?;
        rename(&self.need_removed(index)?, &target, RenameMode::Replace)
    }

    /// Removes the second name that an interrupted replacement gave to the entry that is still published.
    fn drop_kept(&self, index: usize, path: &RelPath) -> Result<()> {
        let (Some(kept), target) = (self.removed(index), self.need_published(path)?) else { return Ok(()) };
        match kept.stat()?.zip(target.stat()?) {
            Some((kept_stat, stat)) if kept_stat.ino == stat.ino => drop_name(&kept),
            _ => Ok(()),
        }
    }

    fn need_no_directory(&self, old: &Object, target: &End<'_, F>) -> Result<()> {
        match old.kind {
            Kind::Directory => Err(target.io("replace the directory")(io::ErrorKind::Unsupported.into())),
            Kind::File | Kind::Symlink => Ok(()),
        }
    }

    /// Sets the mode of a directory of the output, if it is there: the operation that makes it come or go may be left out.
    fn set_mode(&self, path: &RelPath, mode: u32) -> Result<()> {
        let Some(end) = self.published(path)? else { return Ok(()) };
        match end.stat()? {
            Some(stat) if stat.is_dir() && stat.mode != mode => self.need_output()?.set_dir_mode(path, mode),
            _ => Ok(()),
        }
    }

    fn remove_directory(&self, path: &RelPath) -> Result<()> {
        let end = self.need_published(path)?;
        let result = end.tree.parent(&end.path).and_then(|dir| end.tree.fs.remove_dir(&dir, end.path.name()));
        end.tree.forget();
        result.map_err(end.io("remove the directory"))
    }

    fn make_directory(&self, path: &RelPath, mode: u32) -> Result<()> {
        let end = self.need_published(path)?;
        let result = end.tree.parent(&end.path).and_then(|dir| end.tree.fs.make_dir(&dir, end.path.name(), mode));
        result.map_err(end.io("make the directory"))?;
        end.tree.set_dir_mode(&end.path, mode)
    }

    /// The output, opened when it is first needed: the first operation may be what makes it.
    fn output_tree(&self) -> Result<Option<&Tree<F>>> {
        if self.tree.get().is_none()
            && let Some(tree) = self.output.open()?
        {
            return Ok(Some(self.tree.get_or_init(|| tree)));
        }
        Ok(self.tree.get())
    }

    fn need_output(&self) -> Result<&Tree<F>> {
        self.output_tree()?
            .ok_or_else(|| Error::io("open the output", &self.output.path)(io::ErrorKind::NotFound.into()))
    }

    /// An entry of the output; `None` when the output is not there.
    fn published(&self, path: &RelPath) -> Result<Option<End<'_, F>>> {
        if path.is_root() {
            return Ok(Some(End { tree: &self.output.holder, path: self.output.name.clone() }));
        }
        Ok(self.output_tree()?.map(|tree| End { tree, path: path.clone() }))
    }

    /// An entry of the stage; `None` when the stage is not there.
    fn staged(&self, path: &RelPath) -> Result<Option<End<'_, F>>> {
        if path.is_root() {
            return Ok(self.transaction.as_ref().map(|tree| End { tree, path: part(STAGE) }));
        }
        Ok(self.stage.as_ref().map(|tree| End { tree, path: path.clone() }))
    }

    /// Where the entry that operation `index` takes out of the output goes.
    fn removed(&self, index: usize) -> Option<End<'_, F>> {
        let path = part(REMOVED).join(index.to_string().as_bytes()).expect("numbers are valid names");
        self.transaction.as_ref().map(|tree| End { tree, path })
    }

    fn need_published(&self, path: &RelPath) -> Result<End<'_, F>> {
        if path.is_root() {
            return self.published(path)?.ok_or_else(|| self.gone());
        }
        self.need_output().map(|tree| End { tree, path: path.clone() })
    }

    fn need_staged(&self, path: &RelPath) -> Result<End<'_, F>> {
        self.staged(path)?.ok_or_else(|| self.gone())
    }

    fn need_removed(&self, index: usize) -> Result<End<'_, F>> {
        self.removed(index).ok_or_else(|| self.gone())
    }

    fn gone(&self) -> Error {
        Error::corrupt(&self.output.path, "the transaction's directory is missing from its state directory")
    }
}

fn stat<F: Fs>(end: Option<&End<'_, F>>) -> Result<Option<Stat>> {
    end.map_or(Ok(None), End::stat)
}

/// The changes of modes that go with skipped moves: what was not moved keeps its mode.
pub(crate) fn modes_of(operations: &[Operation], skipped: &HashSet<usize>) -> Vec<usize> {
    let paths: BTreeSet<&RelPath> = skipped.iter().map(|&index| operations[index].path()).collect();
    let is_mode = |operation: &Operation| matches!(operation, Operation::SetMode { .. });
    let goes_along = |(_, operation): &(usize, &Operation)| is_mode(operation) && paths.contains(operation.path());
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
        (true, true) if from.map(|stat| stat.ino) == to.map(|stat| stat.ino) => {
            if left_out(Mutant::HalfDone) {
                State::Done
            } else {
                State::Half
            }
        }
        (true, false) if to.is_none() => State::NotDone,
        (true, _) => State::Unrecognized,
        (false, true) => State::Done,
        (false, false) => State::Left,
    })
}

/// A directory can only be given another parent by who may write to it. The plan opens those that are closed; but a crash can
/// keep the move and lose the mode, or keep the mode that an undone move was to be followed by.
fn open_for_move<F: Fs>(kind: Kind, end: &End<'_, F>) -> Result<()> {
    if kind == Kind::Directory { end.tree.make_writable(&end.path) } else { Ok(()) }
}

fn rename<F: Fs>(source: &End<'_, F>, target: &End<'_, F>, mode: RenameMode) -> Result<()> {
    let result = source.tree.parent(&source.path).and_then(|from| {
        let to = target.tree.parent(&target.path)?;
        source.tree.fs.rename(&from, source.path.name(), &to, target.path.name(), mode)
    });
    result.map_err(target_or_source(source, target, mode))
}

/// A failed move is reported at the end that the user knows: the one in the output.
fn target_or_source<'a, F: Fs>(
    source: &'a End<'_, F>,
    target: &'a End<'_, F>,
    mode: RenameMode,
) -> impl FnOnce(io::Error) -> Error + 'a {
    let removing = target.path.parent() == part(REMOVED);
    move |error| match (removing, mode) {
        (true, _) => source.io("remove")(error),
        (false, RenameMode::NoReplace) => target.io("add")(error),
        (false, _) => target.io("replace")(error),
    }
}

fn link<F: Fs>(source: &End<'_, F>, target: &End<'_, F>) -> Result<()> {
    let result = source.tree.parent(&source.path).and_then(|from| {
        let to = target.tree.parent(&target.path)?;
        source.tree.fs.link(&from, source.path.name(), &to, target.path.name())
    });
    result.map_err(target.io("link an entry to"))
}

/// Removes one of two names of an entry, once the other is there to stay: unlike a rename, a link and a removal can reach the
/// medium in any order.
fn drop_other_name<F: Fs>(name: &End<'_, F>, other: &End<'_, F>) -> Result<()> {
    if !left_out(Mutant::LinkBarrier) {
        make_durable(other)?;
    }
    drop_name(name)
}

/// Makes the name durable.
fn make_durable<F: Fs>(end: &End<'_, F>) -> Result<()> {
    let result = end.tree.parent(&end.path).and_then(|dir| end.tree.fs.sync_dir(&dir));
    result.map_err(end.io("make durable"))
}

/// Removes one of two names of an entry.
fn drop_name<F: Fs>(end: &End<'_, F>) -> Result<()> {
    let result = end.tree.parent(&end.path).and_then(|dir| end.tree.fs.remove_file(&dir, end.path.name()));
    result.map_err(end.io("remove the second name of"))
}
