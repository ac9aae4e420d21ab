//! What a commit moves out of its stage, held against its manifest: by the commit, which asks whether anybody changed it since it
//! was digested, and by recovery, which asks whether it was made durable.
//!
//! Invariant: of a directory that moves as one every staged entry has to be there; what is there besides is told apart, for it
//! moves along and is not published.
//!
//! Nothing is changed here, so a crash inside changes nothing.

use std::cell::OnceCell;
use std::io;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::fs::tree::{Tree, Walked};
use crate::fs::{Fs, Kind, Stat, Timestamp};
use crate::journal::reader::Journal;
use crate::journal::record::{Begin, Operation};
use crate::manifest::inventory::{Cursor, Inventory};
use crate::manifest::{Entry, Object};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::store::Store;
use crate::txdir::{STAGE, part};

/// How long is waited, at most, for the kernel's clock for files to go on: its ticks are of 1 to 10 ms.
const TICK: Duration = Duration::from_millis(20);

/// Looks once more at what moves along with a staged directory, after the commit was made ready. Whoever changes it later leaves a
/// later time, by which recovery knows that it was changed by somebody else (`evidence.rs`). What an operation moves by itself is
/// looked at when it is moved.
///
/// # Errors
/// Something was changed, added or removed since it was digested.
pub(crate) fn check_unchanged<F: Fs>(store: &Store<F>, transaction: &Tree<F>, journal: &Journal) -> Result<()> {
    if left_out(Mutant::SecondLook) {
        return Ok(());
    }
    wait_for_tick(store, journal.begin.head.info.committed);
    let inventory = store.inventory(Some(&journal.begin.head))?;
    let is_same =
        |_: &Tree<F>, _: &RelPath, object: &Object, stat: &Stat| Ok(object.mode == stat.mode && object.is(stat));
    let moves = Moves::new(store, &journal.begin, &inventory, is_same);
    let stage = transaction.below(&part(STAGE))?;
    let mut unlisted = Vec::new();
    for (path, new) in directories(journal) {
        if let Some(path) = moves.differing(&stage, path, new, &mut unlisted)?.or_else(|| unlisted.pop()) {
            let changed = io::Error::other("it was changed after it was read: wait until the build has finished");
            return Err(stage.io("publish", &path)(changed));
        }
    }
    Ok(())
}

/// Whether there is anything to look at for [`check_unchanged`].
pub(crate) fn moves_directories(journal: &Journal) -> bool {
    directories(journal).next().is_some()
}

fn directories(journal: &Journal) -> impl Iterator<Item = (&RelPath, &Object)> {
    journal.operations.iter().filter_map(|operation| match operation {
        Operation::Add { path, new } | Operation::Replace { path, new, .. } if new.kind == Kind::Directory => {
            Some((path, new))
        }
        _ => None,
    })
}

/// Until what is written gets a later time than `ready`.
fn wait_for_tick<F: Fs>(store: &Store<F>, ready: Timestamp) {
    let step = TICK / 20;
    let mut waited = Duration::ZERO;
    // A clock that was set back is not waited for.
    while store.fs.file_time() <= ready && waited < TICK {
        store.fs.pause(step);
        waited += step;
    }
}

/// What the operations of a commit move, as the manifest has it.
pub(crate) struct Moves<'a, F: Fs, I> {
    store: &'a Store<F>,
    begin: &'a Begin,
    inventory: &'a Inventory<F>,
    /// The manifest before it, read when it is asked.
    base: OnceCell<Inventory<F>>,
    /// Whether what is found at a path of the stage is what the manifest has there.
    is_entry: I,
}

impl<'a, F: Fs, I: Fn(&Tree<F>, &RelPath, &Object, &Stat) -> Result<bool>> Moves<'a, F, I> {
    pub(crate) fn new(store: &'a Store<F>, begin: &'a Begin, inventory: &'a Inventory<F>, is_entry: I) -> Self {
        Self { store, begin, inventory, base: OnceCell::new(), is_entry }
    }

    /// The first path at which the stage does not have what an operation moves, or what moves along with it. What lies there
    /// besides is added to `unlisted`: paths in the stage, none below another.
    pub(crate) fn differing(
        &self,
        stage: &Tree<F>,
        path: &RelPath,
        new: &Object,
        unlisted: &mut Vec<RelPath>,
    ) -> Result<Option<RelPath>> {
        let Some(mut stat) = stage.stat(path)? else { return Ok(Some(path.clone())) };
        if stat.mode == new.mode | 0o700 && new.kind == Kind::Directory {
            // It is opened for its owner before it moves, and closed by an operation of its own.
            stat.mode = new.mode;
        }
        if !(self.is_entry)(stage, path, new, &stat)? {
            return Ok(Some(path.clone()));
        }
        if new.kind == Kind::Directory { self.differing_below(stage, path, unlisted) } else { Ok(None) }
    }

    fn differing_below(&self, stage: &Tree<F>, dir: &RelPath, unlisted: &mut Vec<RelPath>) -> Result<Option<RelPath>> {
        let mut expected = Cursor::new(self.inventory.range(dir));
        // The directory itself was looked at.
        let mut differing = unless_damaged(expected.find(dir))?.is_none().then(|| dir.clone());
        stage.walk(
            dir,
            |_| true,
            |Walked { path, stat }| {
                if differing.is_none() {
                    differing = self.staged_and_missing(|| expected.next_before(&path), &path)?;
                }
                if differing.is_some() {
                    return Ok(());
                }
                match unless_damaged(expected.find(&path))? {
                    None => differing = Some(path),
                    Some(Some(entry)) => {
                        let is_entry = (self.is_entry)(stage, &path, &entry.object, &stat)?;
                        differing = (!is_entry).then_some(path);
                    }
                    Some(None) if unlisted.last().is_some_and(|above| path.is_below(above)) => {}
                    Some(None) => unlisted.push(path),
                }
                Ok(())
            },
        )?;
        match differing {
            None => self.staged_and_missing(|| expected.next(), dir),
            differing => Ok(differing),
        }
    }

    /// The first of these entries of the manifest, none of which is in the stage, that was staged: a change does not name what
    /// stays as it was, be it there or not. `at` where the manifest is damaged.
    fn staged_and_missing(
        &self,
        mut missing: impl FnMut() -> Result<Option<Entry>>,
        at: &RelPath,
    ) -> Result<Option<RelPath>> {
        loop {
            match unless_damaged(missing())? {
                None => return Ok(Some(at.clone())),
                Some(None) => return Ok(None),
                Some(Some(Entry { path, object })) if self.base()?.get(&path)? != Some(object) => {
                    return Ok(Some(path));
                }
                Some(Some(_)) => {}
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
}

/// What was read of the commit's manifest; `None` where it is damaged, and so was not made durable.
fn unless_damaged<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Err(Error::Corrupt { .. }) => Ok(None),
        read => read.map(Some),
    }
}
