//! Whether barrier 1 was passed by a commit whose journal has not got its name: the evidence that makes a commit of it.
//!
//! | what is found | barrier 1 |
//! |---|---|
//! | an operation that was begun, by the identity of what it moved | was passed: none is begun before |
//! | all that the journal names, on the medium, to the byte | may as well have been passed |
//! | anything missing or other | was not passed, and nobody was told of a commit |
//!
//! Invariants (journal-spec.md, "Evidence"):
//! 1. What is read is what the medium has. A process that was killed may have been told of an error of the barrier, after which
//!    memory holds what the medium does not, and no later barrier says so (A5).
//! 2. Everything that the journal names is held against its identity, its mode and its digest, and a directory that moves as one
//!    against the manifest: no entry is missing, none too many.
//! 3. What cannot be read says nothing: it is an error, never a reason to discard a commit.
//!
//! Nothing is changed here but what memory holds, so that a crash inside changes nothing.

use crate::apply::{Applier, State};
use crate::digest;
use crate::error::{Error, Result};
use crate::fs::tree::{Tree, Walked};
use crate::fs::{Fs, Kind, Stat};
use crate::journal::reader::Journal;
use crate::journal::record::{Begin, Operation};
use crate::layout::{name, state_path};
use crate::manifest::Object;
use crate::manifest::inventory::{Cursor, Inventory};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::settle;
use crate::store::Store;
use crate::txdir::{REMOVED, STAGE, part};

/// Whether the commit was made: barrier 1 was passed, or it makes no difference.
///
/// # Errors
/// Something cannot be read that would tell.
pub(crate) fn is_committed<F: Fs>(store: &Store<F>, journal: &Journal, applier: &Applier<'_, F>) -> Result<bool> {
    if !left_out(Mutant::BegunTells) && has_begun(store, journal, applier)? {
        return Ok(true);
    }
    // What is still to be written is written; where it failed before, reading tells.
    if !left_out(Mutant::BarrierBeforeReading) {
        store.sync_all()?;
    }
    if left_out(Mutant::ContentTells) {
        return Ok(true);
    }
    if !is_journal_on_medium(store, journal)? {
        return Ok(false);
    }
    match inventory(store, &journal.begin) {
        Err(Error::Corrupt { .. }) => Ok(false),
        inventory => is_staged(store, journal, &inventory?),
    }
}

/// Whether any operation that moves an entry was begun. What lies in the transaction's own directories was put there by it.
fn has_begun<F: Fs>(store: &Store<F>, journal: &Journal, applier: &Applier<'_, F>) -> Result<bool> {
    for (index, operation) in journal.operations.iter().enumerate() {
        let moved = match operation {
            Operation::Add { path, new } | Operation::Replace { path, new, .. } => {
                match applier.state_by_identity(index, operation)? {
                    State::Half => true,
                    State::Done if matches!(operation, Operation::Replace { .. }) => true,
                    State::Done | State::Final => is_ours(store, &journal.begin, path, new)?,
                    State::NotDone | State::Left | State::Unrecognized => false,
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

/// Whether what has the inode of a new entry, and lies in the output, is the new entry. A directory has nothing but that number,
/// which somebody's own directory may have been given after a crash lost the staged one: what is in it tells.
fn is_ours<F: Fs>(store: &Store<F>, begin: &Begin, path: &RelPath, new: &Object) -> Result<bool> {
    if new.kind != Kind::Directory || left_out(Mutant::DirectoryTells) {
        return Ok(true);
    }
    let inventory = match store.inventory(Some(&begin.head)) {
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
            if output.stat(&entry.path)?.is_some_and(|stat| entry.object.is(&stat)) {
                return Ok(true);
            }
        }
    }
    Ok(empty)
}

fn is_journal_on_medium<F: Fs>(store: &Store<F>, journal: &Journal) -> Result<bool> {
    let path = state_path(name::JOURNAL_NEW);
    store.state.drop_cached(&path)?;
    Ok(settle::read_journal(store, &path)?.is_some_and(|read| read.is_ok_and(|read| read == *journal)))
}

/// The manifest that the journal's HEAD names; what the commit wrote of it is read from the medium.
fn inventory<F: Fs>(store: &Store<F>, begin: &Begin) -> Result<Inventory<F>> {
    let inventory = store.inventory(Some(&begin.head))?;
    let (new, base) = (&begin.head.extent, &begin.base_extent);
    // What lies before the end of the base's root was durable when the base was committed.
    let appended = new.file == base.file;
    let from = if appended { base.offset.saturating_add(u64::from(base.length)) } else { 0 };
    if !left_out(Mutant::ManifestTells) {
        inventory.check_from(from)?;
    }
    Ok(inventory)
}

fn is_staged<F: Fs>(store: &Store<F>, journal: &Journal, inventory: &Inventory<F>) -> Result<bool> {
    let Some(transaction) = settle::find_transaction(store, journal)? else { return Ok(false) };
    // What is taken out of the output needs a place to go.
    if !transaction.stat(&part(REMOVED))?.is_some_and(|stat| stat.is_dir()) {
        return Ok(false);
    }
    let stage = transaction.find_below(&part(STAGE))?;
    for operation in &journal.operations {
        let (Operation::Add { path, new } | Operation::Replace { path, new, .. }) = operation else { continue };
        let Some(stage) = &stage else { return Ok(false) };
        if !is_whole(stage, path, new, inventory)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether what an operation moves is in the stage, with everything that moves along.
fn is_whole<F: Fs>(stage: &Tree<F>, path: &RelPath, new: &Object, inventory: &Inventory<F>) -> Result<bool> {
    let Some(mut stat) = stage.stat(path)? else { return Ok(false) };
    if stat.mode == new.mode | 0o700 && new.kind == Kind::Directory {
        // It is opened for its owner before it moves, and closed by an operation of its own.
        stat.mode = new.mode;
    }
    if !is_entry(stage, path, new, &stat)? {
        return Ok(false);
    }
    if new.kind != Kind::Directory {
        return Ok(true);
    }
    let mut expected =
        Cursor::new(inventory.range(path).filter(|entry| entry.as_ref().map_or(true, |e| e.path != *path)));
    let mut next = || match expected.next() {
        Err(Error::Corrupt { .. }) => Ok(Err(())),
        next => next.map(Ok),
    };
    let mut whole = true;
    stage.walk(
        path,
        |_| true,
        |Walked { path, stat }| {
            whole = whole
                && match next()? {
                    Ok(Some(entry)) => entry.path == path && is_entry(stage, &path, &entry.object, &stat)?,
                    Ok(None) | Err(()) => false,
                };
            Ok(())
        },
    )?;
    Ok(whole && next()? == Ok(None))
}

fn is_entry<F: Fs>(stage: &Tree<F>, path: &RelPath, object: &Object, stat: &Stat) -> Result<bool> {
    let same = object.is(stat) && stat.mode == object.mode;
    Ok(same && (object.kind == Kind::Directory || digest::is_on_medium(stage, path, object)?))
}
