//! Going back: an earlier generation, staged from what those after it displaced. Its commit is one as any other.
//!
//! What is looked for lies where the first commit that displaced it put it; what none displaced is published still.
//!
//! Invariants:
//! 1. Only the stage is written, and nothing where it is only asked what would change ([`Store::preview_previous`]). What was displaced is
//!    copied, and stays for as long as it is kept.
//! 2. Nothing is taken for what was displaced that is not it, by identity or by content.
//! 3. What comes back is what was, with owner, group and attributes as far as this user may give them.
//!
//! A crash inside leaves a dead transaction, as one that is being filled in any other way.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::{Error, NothingBefore, Paths, Problem, Result};
use crate::format::identity::{Digest, Like, Object};
use crate::format::journal::reader::Journal;
use crate::format::journal::record::Operation;
use crate::format::manifest::inventory::Inventory;
use crate::format::manifest::{Entry, Head};
use crate::fs::compiled::{compiled, same_mut, same_ref};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Stat};
use crate::options::CommitOptions;
use crate::path::RelPath;
use crate::plan::live::Published;
use crate::plan::{Plan, Planned, Scope, Stale};
use crate::protocol::settle;
use crate::stage::scan::Staged;
use crate::stage::{digest, shared};
use crate::store::Store;
use crate::store::current::Current;
use crate::store::displaced::Displaced;
use crate::store::transaction_dir::Basis;
use crate::transaction::Transaction;
use crate::transaction::borrowed::{Original, Referenced};
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
        self.restage_or_tell(Target::Previous { also_nothing: false })
    }

    /// As [`Transaction::copy_previous`], any generation that is kept ([`Store::set_retention`], [`Store::history`]). The cost is that of
    /// what differs, and a look at each entry.
    ///
    /// What the generation after it had taken over or published over comes back as well; what later ones had, stays where it was kept.
    ///
    /// # Errors
    /// [`Error::NothingBefore`] when it is not kept, or is the current one; otherwise as [`Transaction::copy_previous`].
    pub fn copy_generation(&mut self, generation: u64) -> Result<()> {
        self.restage_or_tell(Target::Generation(generation)).map(drop)
    }

    /// As [`Transaction::copy_previous`], and also to where there was nothing before the first generation: for
    /// whoever finds out that what was published should not have been. The commit needs
    /// [`CommitOptions::allow_empty`](crate::CommitOptions::allow_empty) then.
    ///
    /// # Errors
    /// As [`Transaction::copy_previous`].
    pub fn copy_what_was_before(&mut self) -> Result<u64> {
        self.restage_or_tell(Target::Previous { also_nothing: true })
    }

    fn restage_or_tell(&mut self, target: Target) -> Result<u64> {
        compiled!(F, (this: &mut Transaction = same_mut(self), target: Target = target) -> Result<u64> {
            this.restage_or_tell_any(target)
        });
        self.restage_or_tell_any(target)
    }

    fn restage_or_tell_any(&mut self, target: Target) -> Result<u64> {
        // Another commit takes away what is looked for: that it came first is what the caller has to know.
        self.restage(target).or_else(|error| self.check_base().and(Err(error)))
    }

    fn restage(&mut self, target: Target) -> Result<u64> {
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
        let again = Again::of(&store, store.current_of(head)?, target)?;
        let stage = self.stage_tree()?;
        // Only this process knows what is not staged.
        self.set_attached(true)?;
        let mut staging = Staging::new(&stage);
        let entries = again.tell(&mut staging)?;
        staging.close()?;
        let of = Original::Generation(again.generation());
        self.referenced = Some(Referenced { of, entries, drifted: None });
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
        self.preview_of(Target::Previous { also_nothing: false }, options)
    }

    /// As [`Store::preview_previous`], of [`Transaction::copy_generation`].
    ///
    /// # Errors
    /// As [`Transaction::copy_generation`].
    pub fn preview_generation(&self, generation: u64, options: &CommitOptions<'_>) -> Result<Plan> {
        self.preview_of(Target::Generation(generation), options)
    }

    fn preview_of(&self, target: Target, options: &CommitOptions<'_>) -> Result<Plan> {
        compiled!(F, (
            this: &Store = same_ref(self),
            target: Target = target,
            options: &CommitOptions<'_> = options
        ) -> Result<Plan> {
            this.preview_of_any(target, options)
        });
        self.preview_of_any(target, options)
    }

    fn preview_of_any(&self, target: Target, options: &CommitOptions<'_>) -> Result<Plan> {
        let head = self.head()?;
        self.plan_to_go_back(target, head.clone(), options).or_else(|error| {
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

    fn plan_to_go_back(&self, target: Target, head: Option<Head>, options: &CommitOptions<'_>) -> Result<Plan> {
        let again = Again::of(self, self.current_of(head.clone())?, target)?;
        let mut noting = Noting::default();
        let of: Original<F> = Original::Generation(again.generation());
        let referenced = Referenced { of, entries: again.tell(&mut noting)?, drifted: None };
        let is_noted = noting.paths();
        let mut staged = Staged { entries: noting.into_entries(), ..Staged::default() };
        staged.add_referenced(&referenced.entries);
        let group = self.state.group();
        shared::expect_modes(&mut staged.entries, group);
        let rules = rules(options, self.capabilities().exchange, Stale::Whole, group);
        let published = Published::open(self, head, RelPath::root())?;
        let Planned { plan, intent } =
            make_plan(&self.output.path, &again.live, staged, &published, Scope::Whole, rules)?;
        let lost: Paths = referenced.missing(&intent).into_iter().filter(|path| !is_noted.contains(path)).collect();
        if lost.is_empty() { Ok(plan) } else { Err(self.not_put_together(again.generation(), &lost)) }
    }

    /// Why a generation is not kept, if it is not.
    fn why_not_kept(&self, generation: u64) -> Result<Option<NothingBefore>> {
        let current = self.head()?.map_or(0, |head| head.info.generation);
        for displacing in generation.saturating_add(1)..=current {
            if settle::is_pruned(self, displacing)? {
                return Ok(Some(was_pruned(displacing - 1)));
            }
            match settle::read_settled(self, displacing)? {
                Some(journal) if !settle::is_freed(self, &journal)? => {}
                _ => return Ok(Some(NothingBefore::NotKept { generation })),
            }
        }
        Ok(None)
    }

    pub(crate) fn not_put_together(&self, generation: u64, lost: &Paths) -> Error {
        let incomplete = || NothingBefore::Incomplete { generation, missing: lost.clone() };
        let why = self.why_not_kept(generation).ok().flatten().unwrap_or_else(incomplete);
        Error::NothingBefore { output: self.output.path.clone(), why }
    }
}

/// Where one goes back to.
#[derive(Clone, Copy)]
enum Target {
    /// To the generation before the current one; and to where there was nothing, too.
    Previous {
        also_nothing: bool,
    },
    Generation(u64),
}

impl Target {
    fn also_nothing(self) -> bool {
        matches!(self, Self::Previous { also_nothing: true })
    }
}

fn usage(output: &Path, what: String) -> Error {
    Error::Usage { path: output.to_path_buf(), what }
}

fn was_pruned(generation: u64) -> NothingBefore {
    NothingBefore::Pruned { generation, after: generation.saturating_add(1) }
}

fn is_still<F: Fs>(tree: &Tree<F>, place: &RelPath, old: &Object, stat: &Stat) -> Result<()> {
    // A store that was restored from a copy has other directories.
    let is_directory = || old.kind == Kind::Directory && Object::directory(stat).publishes_same(old) && stat.is_dir();
    if digest::find(tree, place, old, stat, Like::Published)?.is_some() || is_directory() {
        return Ok(());
    }
    Err(tree.corrupt(place, "it was changed since it was displaced"))
}

/// A file that was written to in place before it was displaced, and given its time again, looks as it was published.
fn has_its_content<F: Fs>(tree: &Tree<F>, place: &RelPath, object: &Object) -> Result<()> {
    let Some(stat) = tree.stat(place)? else { return Ok(()) };
    let is_known = object.kind == Kind::File && object.digest != Digest::default() && object.is(&stat);
    if is_known && !digest::object(tree, place, object.kind, &stat)?.same_content(object) {
        return Err(tree.corrupt(place, "its content was changed, though its size and time are as they were published"));
    }
    Ok(())
}

/// What came after the generation that is to be put together again, one generation each.
struct Since<F: Fs> {
    journal: Journal,
    displaced: Displaced<F>,
    /// What had been published until then.
    before: Inventory<F>,
}

impl<F: Fs> Since<F> {
    /// `None` where nothing is kept of it.
    fn of(store: &Store<F>, generation: u64) -> Result<Option<Self>> {
        let Some((journal, displaced)) = settle::displaced_by(store, generation)? else { return Ok(None) };
        for (place, old) in displaced.places.values() {
            if let Some(stat) = displaced.tree.stat(place)? {
                is_still(&displaced.tree, place, old, &stat)?;
            }
        }
        let before = store.base_inventory(&journal.begin)?;
        Ok(Some(Self { journal, displaced, before }))
    }

    /// Whether there was anything before.
    fn is_something(&self) -> bool {
        self.journal.begin.base > 0 || !self.displaced.places.is_empty()
    }

    /// With the user's leave a file may go that somebody had changed; but nobody gave it for what was written afterwards.
    fn is_older(&self, place: &RelPath, object: &Object, stat: &Stat) -> Result<()> {
        let is_file = object.kind == Kind::File && stat.kind == Some(Kind::File);
        if is_file && !object.is(stat) && stat.mtime > self.journal.begin.head.info.committed {
            return is_still(&self.displaced.tree, place, object, stat);
        }
        Ok(())
    }
}

/// A generation that is to be put together again.
struct Again<'a, F: Fs> {
    store: &'a Store<F>,
    /// From the one after it to the current one.
    since: Vec<Since<F>>,
    live: Tree<F>,
    now: Inventory<F>,
}

/// Where an entry of the generation is.
enum Found<'a, F: Fs> {
    /// It was displaced, and lies there, as this.
    At(&'a Displaced<F>, RelPath, Object),
    /// It is published still.
    Published(Object),
    /// It is a directory, and is made anew.
    Anew,
    Nowhere,
}

impl<'a, F: Fs> Again<'a, F> {
    /// What `now` is to be left for.
    fn of(store: &'a Store<F>, now: Current<F>, target: Target) -> Result<Self> {
        let current = now.generation();
        let refuse = |why| Err(Error::NothingBefore { output: store.output.path.clone(), why });
        let generation = match target {
            Target::Previous { .. } => current.saturating_sub(1),
            Target::Generation(to) if to < current => to,
            Target::Generation(to) => return refuse(NothingBefore::NotBefore { generation: to, current }),
        };
        let mut since = Vec::new();
        for displacing in generation + 1..=current {
            let Some(one) = Since::of(store, displacing)? else {
                return refuse(match settle::is_pruned(store, displacing)? {
                    true => was_pruned(displacing - 1),
                    false if matches!(target, Target::Generation(_)) => NothingBefore::NotKept { generation },
                    false => NothingBefore::First,
                });
            };
            since.push(one);
        }
        let is_something = since.first().is_some_and(|first| target.also_nothing() || first.is_something());
        if !is_something {
            return refuse(NothingBefore::First);
        }
        let Some(live) = store.output.open()? else {
            return Err(Error::Refused { output: store.output.path.clone(), problems: vec![Problem::OutputGone] });
        };
        Ok(Self { store, since, live, now: now.inventory })
    }

    /// There is always one: without it there is nothing to go back from.
    fn first(&self) -> &Since<F> {
        &self.since[0]
    }

    fn generation(&self) -> u64 {
        self.first().journal.begin.base
    }

    /// What was published in the generation.
    fn before(&self) -> &Inventory<F> {
        &self.first().before
    }

    /// Tells what has to be staged; and returns what is published as it was, and need not be.
    fn tell(&'a self, receiver: &mut impl Receiver<'a, F>) -> Result<Vec<Entry>> {
        let first = &self.first().displaced;
        let (mut same, mut lost, mut before) = (Vec::new(), Paths::default(), RelPath::root());
        // What the next generation displaced and txfs had not published comes back, too.
        let mut others = first.places.iter().peekable();
        for entry in self.before().entries() {
            let Entry { path, object } = entry?;
            while let Some((other, (place, old))) = others.next_if(|(other, _)| **other < path) {
                self.stage(receiver, &mut before, other, old, first, place)?;
            }
            // As it was displaced, not as it was published: somebody may have changed it, and published over that with leave.
            let as_displaced = others.next_if(|(other, _)| **other == path).map(|(_, (_, old))| *old);
            match self.find(&path, &object, as_displaced)? {
                Found::At(displaced, place, found) => {
                    self.stage(receiver, &mut before, &path, &found, displaced, &place)?;
                }
                Found::Published(now) => same.push(Entry { path, object: now }),
                Found::Anew => {
                    path.ancestors_not_of(&before).try_for_each(|above| self.make_dir(receiver, &above))?;
                    self.make_dir(receiver, &path)?;
                    before = path;
                }
                Found::Nowhere => lost.push(path),
            }
        }
        for (other, (place, old)) in others {
            self.stage(receiver, &mut before, other, old, first, place)?;
        }
        if !lost.is_empty() {
            return Err(self.store.not_put_together(self.generation(), &lost));
        }
        same.extend(self.taken_over()?);
        same.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(same)
    }

    /// Tells of an entry that was displaced, and of the directories that it is in and that were not told of before.
    fn stage(
        &'a self,
        receiver: &mut impl Receiver<'a, F>,
        before: &mut RelPath,
        path: &RelPath,
        object: &Object,
        from: &'a Displaced<F>,
        place: &RelPath,
    ) -> Result<()> {
        path.ancestors_not_of(before).try_for_each(|above| self.make_dir(receiver, &above))?;
        *before = path.clone();
        match object.kind {
            Kind::Directory => receiver.dir(path.clone(), object.mode, &from.tree, place.clone()),
            Kind::File | Kind::Symlink => {
                has_its_content(&from.tree, place, object)?;
                receiver.entry(path, object, &from.tree, place)
            }
        }
    }

    /// Finds an entry of the generation; `as_displaced` is what the next one displaced there.
    fn find(&'a self, path: &RelPath, object: &Object, as_displaced: Option<Object>) -> Result<Found<'a, F>> {
        for since @ Since { displaced, before, .. } in &self.since {
            let Some(place) = displaced.place(path) else { continue };
            // One that somebody removed and a commit made anew is another.
            let is_it = before.get(path)?.is_some_and(|was| was.same_content(object));
            // What somebody had taken out of a directory before that was displaced is in no place.
            let Some(stat) = displaced.tree.stat(&place)?.filter(|_| is_it) else { return Ok(Found::Nowhere) };
            since.is_older(&place, object, &stat)?;
            // In a directory somebody may have put another kind of entry in its place.
            let found = as_displaced.or_else(|| {
                stat.kind.filter(|kind| *kind != object.kind).map(|kind| Object::new(kind, &stat, Digest::default()))
            });
            return Ok(Found::At(displaced, place, found.unwrap_or(*object)));
        }
        Ok(match self.now.get(path)? {
            Some(now) if now.publishes_same(object) => Found::Published(now),
            // One that it is in may be published as it was then, and so is not staged.
            _ if object.kind == Kind::Directory => Found::Anew,
            _ => Found::Nowhere,
        })
    }

    /// What was taken over since as it lay there: it was in the output before, though not published, and stays.
    fn taken_over(&self) -> Result<Vec<Entry>> {
        let operations = self.since.iter().flat_map(|since| &since.journal.operations);
        let brought: BTreeSet<&RelPath> = operations.filter_map(Operation::moved_in).map(|(path, _)| path).collect();
        let mut taken = Vec::new();
        for entry in self.now.entries() {
            let entry = entry?;
            if self.before().get(&entry.path)?.is_none() && !entry.path.is_at_or_below(&brought) {
                taken.push(entry);
            }
        }
        Ok(taken)
    }

    /// Makes a directory with the mode that it had; what was no entry then keeps the mode that it has. Owner and attributes were
    /// those of the directory that is there now, if any is: no commit changes them.
    fn make_dir(&'a self, receiver: &mut impl Receiver<'a, F>, path: &RelPath) -> Result<()> {
        let known = match self.before().get(path)? {
            Some(object) => Some(object),
            None => self.now.get(path)?,
        };
        let mode = known.map_or(0o755, |object| object.mode);
        receiver.dir(path.clone(), mode, &self.live, path.clone())
    }
}
