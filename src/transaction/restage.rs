//! Going back: the generation before the current one, staged from what the current one displaced. Its commit is one as any other.
//!
//! Invariants:
//! 1. Only the stage is written, and nothing where it is only asked what would change ([`Store::preview_previous`]). What the current
//!    generation displaced is copied, and stays until the commit that goes back is swept.
//! 2. Nothing is taken for what was displaced that is not it, by identity or by content.
//! 3. What comes back is what was, with owner, group and attributes as far as this user may give them.
//!
//! A crash inside leaves a dead transaction, as one that is being filled in any other way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::error::{Error, NothingBefore, Paths, Problem, Result};
use crate::format::journal::reader::Journal;
use crate::format::journal::record::Operation;
use crate::format::manifest::inventory::Inventory;
use crate::format::manifest::{Entry, Head, Object};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Stat};
use crate::options::CommitOptions;
use crate::path::RelPath;
use crate::plan::live::Published;
use crate::plan::{Plan, Scope, Stale};
use crate::protocol::settle;
use crate::stage::scan::Staged;
use crate::stage::{digest, shared};
use crate::store::Store;
use crate::store::layout::previous_path;
use crate::store::transaction_dir::Basis;
use crate::transaction::Transaction;
use crate::transaction::at::seen_from;
use crate::transaction::borrowed::Referenced;
use crate::transaction::planning::{make_plan, rules};
use crate::transaction::receiver::{Noting, Receiver, Staging};

impl<F: Fs> Transaction<F> {
    /// Fills the stage with what was published before the current generation, and returns that generation's number. What is in
    /// both is taken from the output without being copied; the stage has only what differs, with the owner, the group and the
    /// extended attributes that it had, as far as this user may give them. What the current generation displaced comes back also
    /// where txfs had not published it: it was taken over, or published over, with the user's leave. The first generation
    /// can be gone back from, to generation 0, if it displaced anything. To go back twice is to go forward again.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let dist = dir.path().join("dist");
    /// # for text in ["one", "two"] {
    /// #     let mut transaction = txfs::Store::open(&dist)?.begin(txfs::BeginOptions::default())?;
    /// #     transaction.write("index.html", text)?;
    /// #     transaction.commit(&txfs::CommitOptions::default())?;
    /// # }
    /// use txfs::{BeginOptions, CommitOptions, Store};
    ///
    /// let mut transaction = Store::open(&dist)?.begin(BeginOptions::default())?;
    /// assert_eq!(transaction.copy_previous()?, 1);
    /// transaction.commit(&CommitOptions::default())?;
    /// assert_eq!(std::fs::read_to_string(dist.join("index.html"))?, "one");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] when the output is gone; [`Error::NothingBefore`], also when something of the generation before was missing in the
    /// output already. [`Error::Corrupt`] when what was displaced is not as it was any more; [`Error::BaseMoved`].
    pub fn copy_previous(&mut self) -> Result<u64> {
        self.restage_or_tell(false)
    }

    /// As [`Transaction::copy_previous`], and also to where there was nothing before the first generation: for
    /// whoever finds out that what was published should not have been. The commit needs
    /// [`CommitOptions::allow_empty`](crate::CommitOptions::allow_empty) then.
    ///
    /// # Errors
    /// As [`Transaction::copy_previous`].
    pub fn copy_what_was_before(&mut self) -> Result<u64> {
        self.restage_or_tell(true)
    }

    fn restage_or_tell(&mut self, also_nothing: bool) -> Result<u64> {
        // Another commit takes away what is looked for: that it came first is what the caller has to know.
        self.restage_previous(also_nothing).or_else(|error| self.check_base().and(Err(error)))
    }

    fn restage_previous(&mut self, also_nothing: bool) -> Result<u64> {
        self.check_not_filled()?;
        let head = self.check_base()?;
        if self.meta.below.is_some() {
            let what = "this transaction is about a path: going back takes one that is about the whole output";
            return Err(usage(&self.store.output.path, what.into()));
        }
        if self.meta.from == Basis::Current {
            let what = "this transaction is a change: going back takes one that is a whole generation";
            return Err(usage(&self.store.output.path, what.into()));
        }
        let store = self.store.clone();
        let again = Again::of(&store, head.as_ref(), also_nothing)?;
        let stage = self.stage_tree()?;
        // Only this process knows what is not staged.
        self.set_attached(true)?;
        let mut staging = Staging::new(&stage);
        let entries = again.tell(&mut staging)?;
        staging.close()?;
        self.referenced = Some(Referenced { from: None, entries, drifted: None });
        Ok(again.generation())
    }
}

impl<F: Fs> Store<F> {
    /// What a commit of what [`Transaction::copy_previous`] stages would change. Nothing is written, and no lock is taken. What a crash
    /// left, or a commit that was not swept yet, has to be recovered before ([`Store::recover`]). That this user may not give an entry
    /// its owner, and so not its set-id bits, is not known.
    ///
    /// # Errors
    /// As [`Transaction::copy_previous`].
    pub fn preview_previous(&self, options: &CommitOptions<'_>) -> Result<Plan> {
        let head = self.head()?;
        self.plan_previous(head.as_ref(), options).or_else(|error| {
            // Another commit takes away what is looked for.
            let [base, current] =
                [&head, &self.head()?].map(|head| head.as_ref().map_or(0, |head| head.info.generation));
            if base == current {
                Err(error)
            } else {
                Err(Error::BaseMoved { output: self.output.path.clone(), base, current })
            }
        })
    }

    fn plan_previous(&self, head: Option<&Head>, options: &CommitOptions<'_>) -> Result<Plan> {
        let again = Again::of(self, head, false)?;
        let mut noting = Noting::default();
        let referenced: Referenced<F> = Referenced { from: None, entries: again.tell(&mut noting)?, drifted: None };
        let is_noted = noting.paths();
        let mut staged = Staged { entries: noting.into_entries(), ..Staged::default() };
        staged.add_referenced(&referenced.entries);
        let group = self.state.group();
        shared::expect_modes(&mut staged.entries, group);
        let rules = rules(options, self.capabilities().exchange, Stale::Whole, group);
        let published = Published::open(self, head, RelPath::root())?;
        let plan = make_plan(&self.output.path, &again.live, staged, &published, Scope::Whole, rules)?;
        let lost: Paths = referenced.missing(&plan).into_iter().filter(|path| !is_noted.contains(path)).collect();
        if lost.is_empty() { Ok(plan) } else { Err(self.not_put_together(again.current(), again.generation(), &lost)) }
    }

    /// Of the generation before `current`.
    pub(crate) fn not_put_together(&self, current: u64, generation: u64, lost: &Paths) -> Error {
        let pruned = settle::is_pruned(self, current).unwrap_or_default();
        let why = match pruned {
            true => NothingBefore::Pruned { before: generation, current },
            false => NothingBefore::Incomplete { before: generation, missing: lost.clone() },
        };
        Error::NothingBefore { output: self.output.path.clone(), why }
    }
}

fn usage(output: &Path, what: String) -> Error {
    Error::Usage { path: output.to_path_buf(), what }
}

/// What a generation displaced.
struct Displaced<F: Fs> {
    journal: Journal,
    tree: Tree<F>,
    /// Where each path of the output lies in `tree`, and what was there.
    places: BTreeMap<RelPath, (RelPath, Object)>,
}

impl<F: Fs> Displaced<F> {
    /// `None` where nothing is kept of it.
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
        Ok(Some(Self { journal, tree, places }))
    }

    /// Whether there was anything before.
    fn is_something(&self) -> bool {
        self.journal.begin.base > 0 || !self.places.is_empty()
    }

    /// Where a path lies that was displaced, by itself or with a directory.
    fn place(&self, path: &RelPath) -> Option<RelPath> {
        let (above, (place, _)) = path.nearest(|until| self.places.range(..=until).next_back())?;
        Some(path.seen_from(above).map_or_else(|| place.clone(), |rest| rest.within(place)))
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

fn is_still<F: Fs>(tree: &Tree<F>, place: &RelPath, old: &Object, stat: &Stat) -> Result<()> {
    if old.is(stat) || stat.kind == Some(old.kind) && digest::object(tree, place, old.kind, stat)?.publishes_same(old) {
        return Ok(());
    }
    Err(tree.corrupt(place, "it was changed since it was displaced"))
}

/// A generation that is to be put together again.
struct Again<'a, F: Fs> {
    store: &'a Store<F>,
    displaced: Displaced<F>,
    live: Tree<F>,
    before: Inventory<F>,
    now: Inventory<F>,
}

impl<'a, F: Fs> Again<'a, F> {
    /// The generation before that of `head`.
    fn of(store: &'a Store<F>, head: Option<&Head>, also_nothing: bool) -> Result<Self> {
        let current = head.map_or(0, |head| head.info.generation);
        let Some(displaced) =
            Displaced::by(store, current)?.filter(|displaced| also_nothing || displaced.is_something())
        else {
            let why = match settle::is_pruned(store, current)? {
                true => NothingBefore::Pruned { before: current.saturating_sub(1), current },
                false => NothingBefore::First,
            };
            return Err(Error::NothingBefore { output: store.output.path.clone(), why });
        };
        let Some(live) = store.output.open()? else {
            return Err(Error::Refused { output: store.output.path.clone(), problems: vec![Problem::OutputGone] });
        };
        let (now, before) = (store.inventory(head)?, store.base_inventory(&displaced.journal.begin)?);
        Ok(Self { store, displaced, live, before, now })
    }

    fn generation(&self) -> u64 {
        self.displaced.journal.begin.base
    }

    fn current(&self) -> u64 {
        self.displaced.journal.begin.head.info.generation
    }

    /// Tells what has to be staged; and returns what is published as it was, and need not be.
    fn tell(&'a self, receiver: &mut impl Receiver<'a, F>) -> Result<Vec<Entry>> {
        self.tell_displaced(receiver)?;
        let (entries, lost) = self.others(receiver)?;
        if lost.is_empty() {
            Ok(entries)
        } else {
            Err(self.store.not_put_together(self.current(), self.generation(), &lost))
        }
    }

    /// Everything that was displaced, where it was.
    fn tell_displaced(&'a self, receiver: &mut impl Receiver<'a, F>) -> Result<()> {
        let from = &self.displaced.tree;
        let mut before = &RelPath::root();
        for (path, (place, old)) in &self.displaced.places {
            path.ancestors_not_of(before).try_for_each(|above| self.make_dir(receiver, &above))?;
            before = path;
            if old.kind != Kind::Directory {
                receiver.entry(path, old, from, place)?;
                continue;
            }
            receiver.dir(path.clone(), old.mode, from, place.clone())?;
            // What is there besides was put there after the directory had been displaced.
            let was_in_it = self.before.range(path);
            let was_in_it = was_in_it.filter_map(|entry| entry.map(|entry| seen_from(path, entry)).transpose());
            receiver.below(path, from, place, was_in_it)?;
        }
        Ok(())
    }

    /// Of what was not displaced, that which is published now as it was then; and what is nowhere.
    fn others(&'a self, receiver: &mut impl Receiver<'a, F>) -> Result<(Vec<Entry>, Paths)> {
        let displaced = &self.displaced;
        let (mut same, mut lost, mut made) = (Vec::new(), Paths::default(), RelPath::root());
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
                _ if object.kind == Kind::Directory => {
                    // One that it is in may be published as it was then, and so is not staged.
                    path.ancestors_not_of(&made).try_for_each(|above| self.make_dir(receiver, &above))?;
                    self.make_dir(receiver, &path)?;
                    made = path;
                }
                _ => lost.push(path),
            }
        }
        same.extend(self.taken_over()?);
        same.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok((same, lost))
    }

    /// What the current generation took over as it lay there: it was in the output before, though not published, and stays.
    fn taken_over(&self) -> Result<Vec<Entry>> {
        let brought = self.displaced.journal.operations.iter().filter_map(Operation::moved_in);
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
    fn make_dir(&'a self, receiver: &mut impl Receiver<'a, F>, path: &RelPath) -> Result<()> {
        let known = match self.before.get(path)? {
            Some(object) => Some(object),
            None => self.now.get(path)?,
        };
        let mode = known.map_or(0o755, |object| object.mode);
        receiver.dir(path.clone(), mode, &self.live, path.clone())
    }
}
