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
//! 2. An operation is not done, half done, done, final, left or unrecognized ([`State`]), by the identity of what lies at both its
//!    ends: inode, size and time; the digest where the inode disagrees. Existence alone decides nothing (G7).
//! 3. Half done: both names lead to the new entry, which some file systems leave after a crash. The wrong one is removed;
//!    renaming one to the other would succeed and do nothing.
//! 4. Without RENAME_EXCHANGE a replaced file is first linked to `removed/i`, so that its name is never missing.
//!
//! A crash inside leaves one operation done, not done or half done; [`crate::protocol::recover`] goes on from there.

mod end;
mod state;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;

use crate::error::{Error, Result};
use crate::format::identity::Object;
use crate::format::journal::record::Operation;
use crate::format::manifest::inventory::Inventory;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, RenameMode, Timestamp};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::store::layout::{make_dir, mend_dir};
use crate::store::output::Output;
use crate::store::sharing::is_open_to;
use crate::store::store_file::Capabilities;
use crate::store::transaction_dir::{REMOVED, STAGE, part};

use end::{Doubt, End, drop_name, drop_other_name, link, make_durable, open_for_move, rename, stat};
use state::{Modes, modes};
pub(crate) use state::{State, modes_of};

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
    /// The directories that are taken apart.
    apart: HashSet<RelPath>,
    /// The directory of the output that was found to be there last.
    place: RefCell<Option<RelPath>>,
    /// Whether a directory of the stage was gone, with what was in it, and was made anew.
    mended: Cell<bool>,
    /// What moves by itself has the mode that it was read with: somebody changes it while it is committed otherwise.
    expects_modes: bool,
    /// When what a commit is about was changed last, where a crash may have come between: a mode from before is one that it brought back.
    since: Option<Timestamp>,
}

/// Which way an operation is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Back,
}

impl<'a, F: Fs> Applier<'a, F> {
    pub(crate) fn new(
        output: &'a Output<F>,
        transaction: Option<Tree<F>>,
        capabilities: Capabilities,
        operations: &[Operation],
    ) -> Result<Self> {
        let stage = match &transaction {
            Some(tree) => tree.find_directory(&part(STAGE))?,
            None => None,
        };
        let apart = operations.iter().filter(|operation| matches!(operation, Operation::RemoveDirectory { .. }));
        Ok(Self {
            output,
            tree: OnceCell::new(),
            transaction,
            stage,
            capabilities,
            modes: modes(operations),
            apart: apart.map(|operation| operation.path().clone()).collect(),
            place: RefCell::default(),
            mended: Cell::new(false),
            expects_modes: false,
            since: None,
        })
    }

    /// Whether the directory that was changed is the output still: somebody may have put another in its place.
    pub(crate) fn is_the_output(&self) -> Result<bool> {
        let Some(changed) = self.tree.get() else { return Ok(true) };
        let root = RelPath::root();
        let there = self.output.open()?.map_or(Ok(None), |tree| tree.stat(&root))?;
        Ok(changed.stat(&root)?.zip(there).is_some_and(|(changed, there)| changed.is_same_entry(&there)))
    }

    /// The applier of a commit that nobody was told of yet: what was changed since it was read is refused.
    pub(crate) fn of_commit(mut self) -> Self {
        self.expects_modes = !left_out(Mutant::ModeBeforeMoving);
        self
    }

    /// The applier of a recovery: what the commit was about was changed last at `last_change`, and a crash may have taken such a change.
    pub(crate) fn of_recovery(mut self, last_change: Timestamp) -> Self {
        self.since = Some(last_change).filter(|_| !left_out(Mutant::LostModes));
        self
    }

    /// Gives the owner full access to the staged directories that move, and to those that entries move out of. Not before the
    /// commit point: a stage whose commit does not come so far can be committed again, and means what it meant.
    pub(crate) fn open_stage(&self, operations: &[Operation]) -> Result<()> {
        let Some(stage) = &self.stage else { return Ok(()) };
        let mut opened = None;
        for operation in operations {
            let Some((path, new)) = operation.moved_in() else { continue };
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

    /// Gives the owner full access to the directories of the transaction that lead to what is staged and removed. Not to one that moves:
    /// its mode is evidence.
    pub(crate) fn open_ways(&self, operations: &[Operation]) -> Result<()> {
        let Some(transaction) = &self.transaction else { return Ok(()) };
        for directory in [RelPath::root(), part(REMOVED), part(STAGE)] {
            transaction.make_writable(&directory)?;
        }
        mend_dir(transaction, &part(REMOVED))?;
        let is_new = mend_dir(transaction, &part(STAGE))?;
        // There is nothing in a stage that was made anew; the one that was opened is gone.
        let Some(stage) = self.stage.as_ref().filter(|_| !is_new) else { return Ok(()) };
        let mut before = &RelPath::root();
        for (path, _) in operations.iter().filter_map(Operation::moved_in) {
            path.ancestors_not_of(before).try_for_each(|above| stage.make_writable(&above).map(drop))?;
            before = path;
        }
        stage.forget();
        Ok(())
    }

    /// Notes that a directory of the transaction was made anew.
    pub(crate) fn note_mended(&self) {
        self.mended.set(true);
    }

    /// Whether a part of the stage was gone.
    pub(crate) fn is_mended(&self) -> bool {
        self.mended.get()
    }

    /// Makes the directories of the stage that are to hold what comes back to `path`; where something else is in the place of one, that
    /// is named.
    pub(crate) fn make_room(&self, path: &RelPath) -> Result<Option<RelPath>> {
        let Some(stage) = &self.stage else { return Ok(None) };
        stage.forget();
        for above in path.ancestors() {
            match stage.stat(&above)? {
                Some(stat) if stat.is_dir() => _ = mend_dir(stage, &above)?,
                Some(_) => return Ok(Some(above)),
                None => {
                    make_dir(stage, &above)?;
                    self.note_mended();
                }
            }
        }
        Ok(None)
    }

    /// Takes back [`Applier::open_stage`], once everything is in the stage again that it held: `published` has the modes.
    pub(crate) fn close_stage(&self, operations: &[Operation], published: &Inventory<F>) -> Result<()> {
        let Some(stage) = &self.stage else { return Ok(()) };
        stage.forget();
        let mut closed = BTreeMap::new();
        for operation in operations {
            let Some((path, new)) = operation.moved_in() else { continue };
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

    /// Gives the directories of the output back the modes that they had, where no operation was begun that moves an entry; and says whether
    /// any had another. One that the journal does not know is somebody's.
    pub(crate) fn close_opened(&self, operations: &[Operation]) -> Result<bool> {
        let comes =
            |operation: &&Operation| matches!(operation.moved_in(), Some((_, new)) if new.kind == Kind::Directory);
        let coming: HashSet<&RelPath> = operations.iter().filter(comes).map(Operation::path).collect();
        let (mut before, mut is_any) = (BTreeMap::new(), false);
        for operation in operations {
            if let Operation::SetMode { path, from, .. } = operation
                && !coming.contains(path)
            {
                before.entry(path).or_insert(*from);
            }
        }
        // From the bottom: one that is closed may not be searched.
        for (path, mode) in before.into_iter().rev() {
            let known = |found: u32| self.modes.get(path).is_some_and(|modes| modes.know(found));
            let found = stat(self.published(path)?.as_ref())?.filter(|stat| stat.is_dir() && stat.mode != mode);
            if found.is_some_and(|stat| known(stat.mode)) {
                self.set_mode(path, mode)?;
                is_any = true;
            }
        }
        Ok(is_any)
    }

    /// Performs operation `index` as far as it is not done yet.
    pub(crate) fn forward(&self, index: usize, operation: &Operation) -> Result<()> {
        let state = self.state(index, operation)?;
        if matches!(state, State::NotDone | State::Half | State::Final) {
            self.open_parent(operation, Way::Forward)?;
        }
        if state == State::NotDone && !self.has_mode(operation)? {
            return Err(self.changed(operation));
        }
        match (state, operation) {
            (State::Done, _) => Ok(()),
            (State::Final, _) => {
                let (source, target) = (self.staged(operation.path())?, self.need_published(operation.path())?);
                let Some(source) = source else { return Ok(()) };
                match source.stat()?.zip(target.stat()?) {
                    Some((found, published)) if found.is_same_entry(&published) => drop_other_name(&source, &target),
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

    /// Whether a file that is to be moved has the mode that it was read with, where that counts. Changed before the commit's later time it
    /// would be evidence against a commit that is reported. (A directory's was looked at with what is in it.)
    fn has_mode(&self, operation: &Operation) -> Result<bool> {
        let moved = operation.moved_in().filter(|(_, new)| self.expects_modes && new.kind == Kind::File);
        let Some((path, new)) = moved else { return Ok(true) };
        Ok(stat(self.staged(path)?.as_ref())?.is_none_or(|stat| stat.mode == new.mode))
    }

    /// Undoes operation `index` as far as it is done.
    pub(crate) fn back(&self, index: usize, operation: &Operation) -> Result<()> {
        let state = self.state_back(index, operation)?;
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
            (State::NotDone, Operation::RemoveDirectory { path, mode }) => self.mend_directory(path, *mode),
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
        if operation.is_mode() || left_out(Mutant::OpenParent) || self.modes.is_empty() || operation.path().is_root() {
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
            whose: None,
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
            Some((kept_stat, stat)) if kept_stat.is_same_entry(&stat) => drop_name(&kept),
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

    /// In a shared store: one that another member made here, and was killed before it had its mode, is made anew. Nothing is in it.
    fn mend_directory(&self, path: &RelPath, mode: u32) -> Result<()> {
        let Some(group) = self.transaction.as_ref().and_then(Tree::group) else { return Ok(()) };
        let end = self.need_published(path)?;
        match end.stat()? {
            Some(stat) if stat.uid != end.tree.fs.user() && !is_open_to(&stat, group) => {
                self.remove_directory(path)?;
                self.make_directory(path, mode)
            }
            _ => Ok(()),
        }
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
            return Ok(Some(End { tree: &self.output.holder, path: self.output.name.clone(), published: true }));
        }
        Ok(self.output_tree()?.map(|tree| End { tree, path: path.clone(), published: true }))
    }

    /// An entry of the stage; `None` when the stage is not there.
    fn staged(&self, path: &RelPath) -> Result<Option<End<'_, F>>> {
        if path.is_root() {
            return Ok(self.transaction.as_ref().map(|tree| End { tree, path: part(STAGE), published: false }));
        }
        Ok(self.stage.as_ref().map(|tree| End { tree, path: path.clone(), published: false }))
    }

    /// Where the entry that operation `index` takes out of the output goes.
    fn removed(&self, index: usize) -> Option<End<'_, F>> {
        let path = part(REMOVED).join(index.to_string().as_bytes()).expect("numbers are valid names");
        self.transaction.as_ref().map(|tree| End { tree, path, published: false })
    }

    fn need_published(&self, path: &RelPath) -> Result<End<'_, F>> {
        if path.is_root() {
            return self.published(path)?.ok_or_else(|| self.gone());
        }
        self.need_output().map(|tree| End { tree, path: path.clone(), published: true })
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
