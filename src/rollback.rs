//! Going back: the generation before the current one, staged from what the current one displaced. Its commit is one as any other.
//!
//! Invariants:
//! 1. Only the stage is written. What the current generation displaced is copied, and stays until the commit that goes back is swept.
//! 2. Nothing is taken for what was displaced that is not it, by identity or by content.
//! 3. What comes back is what was, with owner, group and attributes as far as this user may give them.
//!
//! A crash inside leaves a dead transaction, as one that is being filled in any other way.

use std::collections::{BTreeMap, BTreeSet};

use crate::copy::{self, NewDirs, Source};
use crate::digest;
use crate::error::{Error, Paths, Problem, Result};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Stat};
use crate::journal::reader::Journal;
use crate::journal::record::Operation;
use crate::layout::previous_path;
use crate::manifest::inventory::Inventory;
use crate::manifest::{Entry, Object};
use crate::path::RelPath;
use crate::referenced::Referenced;
use crate::settle;
use crate::store::Store;
use crate::transaction::Transaction;
use crate::txdir::Basis;

impl<F: Fs> Transaction<'_, F> {
    /// Fills the stage with what was published before the current generation, and returns that generation's number. What is in
    /// both is taken from the output without being copied; the stage has only what differs, with the owner, the group and the
    /// extended attributes that it had, as far as this user may give them. What the current generation displaced comes back also
    /// where txfs had not published it: it was taken over, or published over, with the user's leave. The first generation
    /// can be gone back from, to generation 0, if it displaced anything. To go back twice is to go forward again.
    ///
    /// # Errors
    /// [`Error::Refused`] when the output is gone; [`Error::Usage`] when there is no generation before, or it cannot be put together again: something of it was missing in
    /// the output already. [`Error::Corrupt`] when what was displaced is not as it was any more; [`Error::BaseMoved`].
    pub fn copy_previous(&mut self) -> Result<u64> {
        // Another commit takes away what is looked for: that it came first is what the caller has to know.
        self.restage_previous().or_else(|error| self.check_base().and(Err(error)))
    }

    fn restage_previous(&mut self) -> Result<u64> {
        self.check_not_filled()?;
        let head = self.check_base()?;
        let output = self.store.output.path.clone();
        let usage = |what: String| Error::Usage { path: output.clone(), what };
        if self.meta.from == Basis::Current {
            return Err(usage("this transaction is a change: going back takes one that is a whole generation".into()));
        }
        let current = head.as_ref().map_or(0, |head| head.info.generation);
        let Some(displaced) = Displaced::by(self.store, current)? else {
            return Err(usage("there is no generation to go back to".into()));
        };
        let Some(live) = self.store.output.open()? else {
            return Err(Error::Refused { output, problems: vec![Problem::OutputGone] });
        };
        let (now, before) =
            (self.store.inventory(head.as_ref())?, self.store.base_inventory(&displaced.journal.begin)?);
        let stage = self.stage_tree()?;
        // Only this process knows what is not staged.
        self.set_attached(true)?;
        let mut restoring =
            Restoring { stage: &stage, live: &live, before: &before, now: &now, made: NewDirs::new(&stage) };
        restoring.displaced(&displaced)?;
        let (entries, lost) = restoring.others(&displaced)?;
        let generation = displaced.journal.begin.base;
        if !lost.is_empty() {
            return Err(self.not_put_together(generation, &lost));
        }
        restoring.made.close()?;
        self.referenced = Some(Referenced { from: None, entries, drifted: None });
        Ok(generation)
    }

    pub(crate) fn not_put_together(&self, generation: u64, lost: &Paths) -> Error {
        let what =
            format!("generation {generation} cannot be put together again, for this was missing already: {lost}");
        Error::Usage { path: self.store.output.path.clone(), what }
    }
}

/// What a generation displaced.
struct Displaced<F: Fs> {
    journal: Journal,
    tree: Tree<F>,
    /// Where each path of the output lies in `tree`, and what was there.
    places: BTreeMap<RelPath, (RelPath, Object)>,
}

impl<F: Fs> Displaced<F> {
    /// `None` where there was nothing before, or nothing is kept of it.
    fn by(store: &Store<F>, generation: u64) -> Result<Option<Self>> {
        let Some(tree) = store.state.find_below(&previous_path(generation))? else { return Ok(None) };
        let path = settle::settled_path(generation);
        let journal = match settle::read_journal(store, &path)? {
            Some(Ok(journal)) => journal,
            Some(Err(damage)) => return Err(store.damaged(&path, damage)),
            None => return Ok(None),
        };
        let mut places = BTreeMap::new();
        for (index, operation) in journal.operations.iter().enumerate() {
            let (Operation::Replace { path, old, .. } | Operation::Remove { path, old }) = operation else { continue };
            for place in settle::displaced_places(index, operation) {
                if let Some(stat) = tree.stat(&place)? {
                    is_still(&tree, &place, old, &stat)?;
                    places.insert(path.clone(), (place, *old));
                }
            }
        }
        let was_there = journal.begin.base > 0 || !places.is_empty();
        Ok(was_there.then_some(Self { journal, tree, places }))
    }

    /// Where a path lies that was displaced, by itself or with a directory.
    fn place(&self, path: &RelPath) -> Option<RelPath> {
        if let Some((place, _)) = self.places.get(path) {
            return Some(place.clone());
        }
        let above = path.ancestors().find(|above| self.places.contains_key(above))?;
        Some(below(&above, path).within(&self.places[&above].0))
    }

    /// With the user's leave a file may go that somebody had changed; but nobody gave it for what was written afterwards.
    fn is_older(&self, place: &RelPath, object: &Object, stat: &Stat) -> Result<()> {
        let is_file = object.kind == Kind::File && stat.kind == Some(Kind::File);
        if is_file && !object.is(stat) && stat.mtime > self.journal.begin.head.info.committed {
            return is_still(&self.tree, place, object, stat);
        }
        Ok(())
    }
}

/// `path`, which is below `above`, seen from there.
fn below(above: &RelPath, path: &RelPath) -> RelPath {
    RelPath::new(&path.as_bytes()[above.as_bytes().len() + 1..]).expect("the end of a path is one")
}

fn is_still<F: Fs>(tree: &Tree<F>, place: &RelPath, old: &Object, stat: &Stat) -> Result<()> {
    if old.is(stat) || stat.kind == Some(old.kind) && digest::object(tree, place, old.kind, stat)?.publishes_same(old) {
        return Ok(());
    }
    Err(tree.corrupt(place, "it was changed since it was displaced"))
}

/// A stage that is being filled with a generation that was.
struct Restoring<'a, F: Fs> {
    stage: &'a Tree<F>,
    live: &'a Tree<F>,
    before: &'a Inventory<F>,
    now: &'a Inventory<F>,
    made: NewDirs<'a, F>,
}

impl<'a, F: Fs> Restoring<'a, F> {
    /// Copies everything that was displaced to where it was.
    fn displaced(&mut self, displaced: &'a Displaced<F>) -> Result<()> {
        let from = Source::published(&displaced.tree);
        for (path, (place, old)) in &displaced.places {
            path.ancestors().try_for_each(|above| self.make_dir(&above))?;
            match old.kind {
                Kind::Directory => {
                    self.made.make(path.clone(), old.mode, from, place.clone())?;
                    // What is there besides was put there after the directory had been displaced.
                    let was_in_it = self.before.range(path).skip(1).map(|entry| Ok(below(path, &entry?.path)));
                    let (below_place, staged) = (displaced.tree.below(place)?, self.stage.below(path)?);
                    copy::copy_paths(Source::published(&below_place), &staged, was_in_it)?;
                }
                Kind::File => {
                    let stat = Stat { mode: old.mode, ..self.look(&displaced.tree, place)? };
                    from.copy_file(place, &stat, self.stage, path)?;
                }
                Kind::Symlink => from.copy_symlink(place, self.stage, path)?,
            }
        }
        Ok(())
    }

    fn look(&self, tree: &Tree<F>, path: &RelPath) -> Result<Stat> {
        let gone = || tree.io("read the attributes of", path)(std::io::ErrorKind::NotFound.into());
        tree.stat(path)?.ok_or_else(gone)
    }

    /// Of what was not displaced, that which is published now as it was then; and what is nowhere.
    fn others(&mut self, displaced: &Displaced<F>) -> Result<(Vec<Entry>, Paths)> {
        let (mut same, mut lost) = (Vec::new(), Paths::default());
        for entry in self.before.entries() {
            let Entry { path, object } = entry?;
            if let Some(place) = displaced.place(&path) {
                // What somebody had taken out of a directory before that was displaced is in no place.
                match displaced.tree.stat(&place)? {
                    None => lost.push(path),
                    Some(stat) => displaced.is_older(&place, &object, &stat)?,
                }
                continue;
            }
            match self.now.get(&path)? {
                Some(now) if now.publishes_same(&object) => same.push(Entry { path, object: now }),
                _ if object.kind == Kind::Directory => self.make_dir(&path)?,
                _ => lost.push(path),
            }
        }
        same.extend(self.taken_over(displaced)?);
        same.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok((same, lost))
    }

    /// What the current generation took over as it lay there: it was in the output before, though not published, and stays.
    fn taken_over(&self, displaced: &Displaced<F>) -> Result<Vec<Entry>> {
        let brought = displaced.journal.operations.iter().filter_map(Operation::moved_in);
        let brought: BTreeSet<&RelPath> = brought.map(|(path, _)| path).collect();
        let mut taken = Vec::new();
        for entry in self.now.entries() {
            let entry = entry?;
            if self.before.get(&entry.path)?.is_none() && !entry.path.is_at_or_below(&brought) {
                taken.push(entry);
            }
        }
        Ok(taken)
    }

    /// Makes a directory with the mode that it had; what was no entry then keeps the mode that it has. Owner and attributes were
    /// those of the directory that is there now, if any is: no commit changes them.
    fn make_dir(&mut self, path: &RelPath) -> Result<()> {
        let known = match self.before.get(path)? {
            Some(object) => Some(object),
            None => self.now.get(path)?,
        };
        let mode = known.map_or(0o755, |object| object.mode);
        self.made.make(path.clone(), mode, Source::published(self.live), path.clone())
    }
}
