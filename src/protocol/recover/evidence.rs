//! Whether barrier 1 was passed by a commit whose journal has not got its name: the evidence that makes a commit of it.
//!
//! | what is found | barrier 1 |
//! |---|---|
//! | an operation that was begun, by the identity of what it moved | was passed: none is begun before |
//! | all that the journal names, on the medium, to the byte | may as well have been passed |
//! | the same, and more beside it, or what was changed or replaced later | the same: that is somebody else's doing |
//! | anything missing or other | was not passed, and nobody was told of a commit |
//!
//! Invariants (journal-spec.md, "Evidence"):
//! 1. What is read is what the medium has. A process that was killed may have been told of an error of the barrier, after which
//!    memory holds what the medium does not, and no later barrier says so (A5).
//! 2. Everything that the journal names is held against its identity, its mode and its digest, and a directory that moves as one
//!    against the manifest: every staged entry has to be there, and what is there besides is not published.
//! 3. What cannot be read says nothing: it is an error, never a reason to discard a commit.
//!
//! Only the page cache is changed here, so a crash inside changes nothing.

use std::cell::OnceCell;

use crate::error::{Error, Result};
use crate::format::identity::Object;
use crate::format::journal::reader::Journal;
use crate::format::journal::record::{Begin, Operation};
use crate::format::manifest::Entry;
use crate::format::manifest::inventory::{Cursor, Inventory};
use crate::fs::tree::{Tree, Walked};
use crate::fs::{Fs, Kind, Stat};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::protocol::apply::{Applier, State};
use crate::protocol::settle;
use crate::stage::digest;
use crate::store::Store;
use crate::store::layout::{name, state_path};
use crate::store::transaction_dir::{REMOVED, STAGE, part};

/// What becomes of a journal that has not got its name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The commit was made: barrier 1 was passed, or it makes no difference.
    Committed {
        /// What lies in staged directories that move, and is not to be published: paths in the stage, none below another.
        unlisted: Vec<RelPath>,
    },
    /// Barrier 1 was not passed, and nobody was told of a commit.
    Abandoned,
}

/// Weighs the evidence, where nothing was begun.
///
/// # Errors
/// Something cannot be read that would tell.
pub(crate) fn weigh<F: Fs>(store: &Store<F>, journal: &Journal) -> Result<Verdict> {
    let committed = || Ok(Verdict::Committed { unlisted: Vec::new() });
    // What is still to be written is written; where it failed before, reading tells.
    if !left_out(Mutant::BarrierBeforeReading) {
        store.sync_all()?;
    }
    if left_out(Mutant::ContentTells) {
        return committed();
    }
    if !is_journal_on_medium(store, journal)? {
        return Ok(Verdict::Abandoned);
    }
    match inventory(store, &journal.begin) {
        Err(Error::Corrupt { .. }) => Ok(Verdict::Abandoned),
        inventory => weigh_stage(store, journal, &inventory?),
    }
}

/// Whether any operation that moves an entry was begun. What lies in the transaction's own directories was put there by it.
///
/// # Errors
/// It cannot be told: then nothing of the transaction may be discarded.
pub(crate) fn has_begun<F: Fs>(store: &Store<F>, journal: &Journal, applier: &Applier<'_, F>) -> Result<bool> {
    if left_out(Mutant::BegunTells) {
        return Ok(false);
    }
    for (index, operation) in journal.operations.iter().enumerate() {
        let moved = match operation {
            Operation::Add { path, new } | Operation::Replace { path, new, .. } => {
                match applier.state_by_identity(index, operation)? {
                    State::Half => true,
                    State::Done if matches!(operation, Operation::Replace { .. }) => true,
                    State::Done | State::Final => is_the_new_one(store, &journal.begin, path, new)?,
                    State::NotDone => false,
                    // Another process may have put something in the place of what was published.
                    State::Left | State::Unrecognized => applier.holds_displaced(operation)?,
                }
            }
            Operation::Remove { .. } => {
                matches!(applier.state_by_identity(index, operation)?, State::Done | State::Half)
            }
            Operation::SetMode { .. } | Operation::RemoveDirectory { .. } => false,
        };
        if moved {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the entry of the output that has the inode of a new one is the new one. Of a directory the number alone proves
/// nothing: after a crash that lost the staged directory, somebody's own may have been given it. What is in it tells.
fn is_the_new_one<F: Fs>(store: &Store<F>, begin: &Begin, path: &RelPath, new: &Object) -> Result<bool> {
    if new.kind != Kind::Directory || left_out(Mutant::DirectoryTells) {
        return Ok(true);
    }
    let inventory = match store.inventory(&begin.head) {
        Err(Error::Corrupt { .. }) => return Ok(false),
        inventory => inventory?,
    };
    let Some(output) = store.output.open()? else { return Ok(false) };
    let mut empty = true;
    for entry in inventory.range(path) {
        let entry = match entry {
            Err(Error::Corrupt { .. }) => return Ok(false),
            entry => entry?,
        };
        if entry.object.kind != Kind::Directory {
            empty = false;
            let is_same = |stat: &Stat| entry.object.is(stat) || was_changed(begin, stat);
            if output.stat(&entry.path)?.as_ref().is_some_and(is_same) {
                return Ok(true);
            }
        }
    }
    Ok(empty)
}

/// Whether somebody changed an entry after all that is committed had been: that says nothing of what was durable before. `ctime` tells
/// it, whatever time the entry was given. (Later than the scan saw that entry is not enough: a crash may have lost what the scan saw.)
fn was_changed(begin: &Begin, stat: &Stat) -> bool {
    let changed = if left_out(Mutant::TimeOfChanges) { stat.mtime } else { stat.ctime };
    changed > begin.last_change
}

/// Whether what lies in the place of a staged file or link, changed later, has its content from later, too: written to, or replaced by
/// another, as an editor does that saves. Whoever changes no more than the mode of what a crash has torn makes it no evidence; whoever
/// sets a time back leaves the content that was staged.
fn is_of_later<F: Fs>(stage: &Tree<F>, path: &RelPath, object: &Object, stat: &Stat) -> Result<bool> {
    let is_another = stat.ino != object.ino || stat.kind != Some(object.kind);
    if is_another || stat.mtime > object.mtime {
        return Ok(true);
    }
    Ok(stat.size == object.size && digest::is_on_medium(stage, path, object)?)
}

fn is_journal_on_medium<F: Fs>(store: &Store<F>, journal: &Journal) -> Result<bool> {
    let path = state_path(name::JOURNAL_NEW);
    store.state.drop_cached(&path)?;
    Ok(settle::read_journal(store, &path)?.is_some_and(|read| read.is_ok_and(|read| read == *journal)))
}

/// The manifest that the journal's HEAD names; what the commit wrote of it is read from the medium.
fn inventory<F: Fs>(store: &Store<F>, begin: &Begin) -> Result<Inventory<F>> {
    let inventory = store.inventory(&begin.head)?;
    let (new, base) = (&begin.head.extent, &begin.base_extent);
    // What lies before the end of the base's root was durable when the base was committed.
    let appended = new.file == base.file;
    let from = if appended { base.end() } else { 0 };
    if !left_out(Mutant::ManifestTells) {
        inventory.check_from(from)?;
    }
    Ok(inventory)
}

fn weigh_stage<F: Fs>(store: &Store<F>, journal: &Journal, inventory: &Inventory<F>) -> Result<Verdict> {
    let Some(transaction) = settle::find_transaction(store, journal)? else { return Ok(Verdict::Abandoned) };
    // What is taken out of the output needs a place to go.
    if !transaction.stat(&part(REMOVED))?.is_some_and(|stat| stat.is_dir()) {
        return Ok(Verdict::Abandoned);
    }
    let moves = Moves { store, begin: &journal.begin, inventory, base: OnceCell::new() };
    let stage = transaction.find_directory(&part(STAGE))?;
    let mut unlisted = Vec::new();
    for operation in &journal.operations {
        let Some((path, new)) = operation.moved_in() else { continue };
        let is_there = match &stage {
            Some(stage) => moves.is_whole(stage, path, new, &mut unlisted)?,
            None => false,
        };
        if !is_there && !was_moved(store, &journal.begin, operation, new)? {
            return Ok(Verdict::Abandoned);
        }
    }
    Ok(Verdict::Committed { unlisted })
}

/// Whether a file may be where it was to go, and somebody has written to it since, or put another in its place. That alone does not
/// tell that the commit was begun: its inode number may have been given to another.
fn was_moved<F: Fs>(store: &Store<F>, begin: &Begin, operation: &Operation, new: &Object) -> Result<bool> {
    let Some(output) = store.output.open()?.filter(|_| !left_out(Mutant::MovedAndRewritten)) else { return Ok(false) };
    let is_old = |stat: &Stat| matches!(operation, Operation::Replace { old, .. } if old.ino == stat.ino);
    let is_later = |stat: &Stat| was_changed(begin, stat) && new.kind != Kind::Directory && !is_old(stat);
    Ok(output.stat(operation.path())?.is_some_and(|stat| is_later(&stat)))
}

/// What the operations move, as the manifest has it.
struct Moves<'a, F: Fs> {
    store: &'a Store<F>,
    begin: &'a Begin,
    inventory: &'a Inventory<F>,
    /// The manifest before it, read when it is asked.
    base: OnceCell<Inventory<F>>,
}

impl<F: Fs> Moves<'_, F> {
    /// Whether what an operation moves is in the stage, with everything that moves along. What lies there besides is noted.
    fn is_whole(&self, stage: &Tree<F>, path: &RelPath, new: &Object, unlisted: &mut Vec<RelPath>) -> Result<bool> {
        let Some(stat) = stage.stat(path)? else { return Ok(false) };
        // A directory is opened for its owner before it moves, and closed by an operation of its own.
        let is_opened = stat.mode == new.mode | 0o700 && new.kind == Kind::Directory;
        if !self.is_entry(stage, path, new, &stat, is_opened || stat.mode == new.mode)? {
            return Ok(false);
        }
        Ok(new.kind != Kind::Directory || self.holds_all(stage, path, unlisted)?)
    }

    /// Whether a staged directory has everything below it that the manifest has there.
    fn holds_all(&self, stage: &Tree<F>, dir: &RelPath, unlisted: &mut Vec<RelPath>) -> Result<bool> {
        let mut expected = Cursor::new(self.inventory.range(dir));
        // The directory itself was looked at.
        let mut whole = unless_damaged(expected.find(dir))?.is_some();
        stage.walk(
            dir,
            |_| true,
            |Walked { path, stat }| {
                whole = whole && self.are_not_staged(|| expected.next_before(&path))?;
                let Some(listed) = unless_damaged(expected.find(&path))?.filter(|_| whole) else {
                    whole = false;
                    return Ok(());
                };
                match listed {
                    Some(Entry { object, .. }) => {
                        whole = self.is_entry(stage, &path, &object, &stat, stat.mode == object.mode)?;
                    }
                    None if unlisted.last().is_some_and(|above| path.is_below(above)) => {}
                    None => unlisted.push(path),
                }
                Ok(())
            },
        )?;
        Ok(whole && self.are_not_staged(|| expected.next())?)
    }

    /// Whether all of these entries of the manifest, which are not in the stage, were not staged: a change does not name what stays
    /// as it was, be it there or not.
    fn are_not_staged(&self, mut missing: impl FnMut() -> Result<Option<Entry>>) -> Result<bool> {
        loop {
            match unless_damaged(missing())? {
                Some(Some(Entry { path, object })) if self.base()?.get(&path)? == Some(object) => {}
                Some(None) => return Ok(true),
                _ => return Ok(false),
            }
        }
    }

    fn base(&self) -> Result<&Inventory<F>> {
        if let Some(base) = self.base.get() {
            return Ok(base);
        }
        let base = self.store.base_inventory(self.begin)?;
        Ok(self.base.get_or_init(|| base))
    }

    fn is_entry(
        &self,
        stage: &Tree<F>,
        path: &RelPath,
        object: &Object,
        stat: &Stat,
        has_its_mode: bool,
    ) -> Result<bool> {
        let was_changed = was_changed(self.begin, stat);
        if !object.is(stat) {
            return Ok(was_changed && object.kind != Kind::Directory && is_of_later(stage, path, object, stat)?);
        }
        Ok((was_changed || has_its_mode)
            && (object.kind == Kind::Directory || digest::is_on_medium(stage, path, object)?))
    }
}

/// What was read of the commit's manifest; `None` where it is damaged, and so was not made durable.
fn unless_damaged<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(Error::Corrupt { .. }) => Ok(None),
        read => read.map(Some),
    }
}
