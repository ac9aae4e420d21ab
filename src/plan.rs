//! The plan: the pure difference between what is published and what is staged, as a list of operations.
//!
//! The planner changes nothing and knows no file system: it sees the output through [`Live`]. Stages filled in memory, by a
//! tool, or as a change to the current generation all go through it.
//!
//! Invariants:
//! 1. An operation names only paths that are owned, new, or that the user allowed to be taken over (G6).
//! 2. What is published already is not touched (G5): identity first, the digest where identity disagrees.
//! 3. Order (G4): modes that have to be opened, additions, replacements with entry documents last, removals from the bottom
//!    up, final modes.
//! 4. No operation works below an entry that another one moves: a new or stale directory moves as one.
//! 5. Everything that stands against the commit is collected, so that the user sees it all at once.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::error::{Paths, Problem, Result};
use crate::fs::tree::Walked;
use crate::fs::{Fs, Kind, Stat};
use crate::journal::record::Operation;
use crate::manifest::inventory::{Cursor, Inventory};
use crate::manifest::writer::Edit;
use crate::manifest::{Entry, Object, Totals};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;

/// What the planner asks about the generation that is published.
pub(crate) trait Base {
    fn totals(&self) -> Totals;
    /// What is published at `path`.
    fn get(&self, path: &RelPath) -> Result<Option<Object>>;
    /// Everything, ascending.
    fn entries(&self) -> impl Iterator<Item = Result<Entry>>;
    /// The entry at `path` and everything below it, ascending.
    fn range(&self, path: &RelPath) -> impl Iterator<Item = Result<Entry>>;
    /// What is directly in a directory.
    fn children(&self, path: &RelPath) -> Result<Vec<Entry>>;
}

impl<F: Fs> Base for Inventory<F> {
    fn totals(&self) -> Totals {
        self.totals()
    }

    fn get(&self, path: &RelPath) -> Result<Option<Object>> {
        self.get(path)
    }

    fn entries(&self) -> impl Iterator<Item = Result<Entry>> {
        self.entries()
    }

    fn range(&self, path: &RelPath) -> impl Iterator<Item = Result<Entry>> {
        self.range(path)
    }

    fn children(&self, path: &RelPath) -> Result<Vec<Entry>> {
        self.children(path)
    }
}

/// What the planner asks about the output as it is now.
pub(crate) trait Live {
    /// What is at `path`; `None` when nothing is.
    fn stat(&self, path: &RelPath) -> Result<Option<Stat>>;
    /// Whether an owned entry is known to be as it was published, so that there is no need to look.
    fn is_as_published(&self, path: &RelPath) -> bool;
    /// The same with its digest.
    fn object(&self, path: &RelPath, kind: Kind, stat: &Stat) -> Result<Object>;
    /// Everything below the directory `path`.
    fn below(&self, path: &RelPath) -> Result<Vec<Walked>>;
    /// Whether the output is there at all.
    fn exists(&self) -> bool;
}

/// What the stage stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scope<'a> {
    /// The whole new generation: what is not staged is stale.
    Whole,
    /// A change to the current generation: only the named paths, and what is below them, go.
    Change { removals: &'a [RelPath] },
}

/// What the user allows, and what the file system can do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Take over foreign files and links that are in the way.
    pub(crate) adopt: bool,
    /// Publish over drift.
    pub(crate) drift: bool,
    /// Publish paths that differ only by case.
    pub(crate) case_collisions: bool,
    /// Publish nothing.
    pub(crate) empty: bool,
    /// Percentage of files that may go without others coming.
    pub(crate) max_removed: u8,
    /// Whether directories can change places with other kinds (`RENAME_EXCHANGE`).
    pub(crate) exchange: bool,
    /// Take stale directories apart instead of moving them: an overlayfs cannot rename those of its lower layers.
    pub(crate) piecewise: bool,
}

/// How a path changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ChangeKind {
    /// It was not published before.
    Added,
    /// Its content changes.
    Modified,
    /// Only its mode changes.
    Mode,
    /// It becomes another kind of entry.
    Kind,
    /// It is not published any more.
    Removed,
}

impl ChangeKind {
    /// One letter, as version control systems write it.
    pub fn letter(self) -> char {
        match self {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'M',
            ChangeKind::Mode => 'm',
            ChangeKind::Kind => 'T',
            ChangeKind::Removed => 'D',
        }
    }
}

/// A path that the commit changes for those who read the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// Which.
    pub path: RelPath,
    /// What it is afterwards, or was when it is removed.
    pub entry: Kind,
}

/// How many paths change, and how many do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Paths that appear.
    pub added: u64,
    /// Paths whose content, kind or mode changes.
    pub changed: u64,
    /// Paths that go.
    pub removed: u64,
    /// Paths that are published already as they are staged, and are not touched.
    pub unchanged: u64,
}

/// The plan of a commit. Nothing has been changed yet.
#[derive(Debug, Clone, Default)]
#[must_use = "a plan changes nothing until it is committed"]
pub struct Plan {
    /// Every path that changes, in order of the tree.
    pub changes: Vec<Change>,
    /// Everything that stands against the commit; empty when it can go ahead.
    pub problems: Vec<Problem>,
    /// How many paths change.
    pub summary: Summary,
    /// Published paths that somebody else removed, and that the commit puts back.
    pub restored: Paths,
    pub(crate) operations: Vec<Operation>,
    /// What the new manifest has otherwise than the current one, ascending, without what is added or replaced: the operations
    /// say that ([`edits`]).
    pub(crate) edits: Vec<Edit>,
    /// Staged directories that are opened to be moved or emptied, with the modes that they were staged with.
    pub(crate) stage_modes: Vec<(RelPath, u32)>,
}

impl Plan {
    /// Whether committing it would change nothing: neither the output nor what is owned in it.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty() && self.changes.is_empty()
    }

    /// How many journaled operations it takes.
    pub fn operations(&self) -> u64 {
        self.operations.len() as u64
    }
}

/// How many edits [`edits`] has.
pub(crate) fn count_edits(others: &[Edit], operations: &[Operation]) -> usize {
    others.len() + operations.iter().filter(|operation| moved_in(operation).is_some()).count()
}

/// What a plan changes in the manifest, ascending: `others`, and what its operations move into the output. Most of a large plan is
/// in its operations, and is not held in memory twice.
pub(crate) fn edits<'p>(others: &'p [Edit], operations: &'p [Operation]) -> impl Iterator<Item = Edit> + 'p {
    let mut moved: Vec<(&RelPath, &Object)> = operations.iter().filter_map(moved_in).collect();
    moved.sort_unstable_by(|a, b| a.0.cmp(b.0));
    let mut moved = moved.into_iter().peekable();
    let mut others = others.iter().peekable();
    std::iter::from_fn(move || match (moved.peek(), others.peek()) {
        (Some((path, _)), Some(other)) if other.path < **path => others.next().cloned(),
        (None, _) => others.next().cloned(),
        (Some(_), _) => moved.next().map(|(path, object)| Edit { path: path.clone(), object: Some(*object) }),
    })
}

/// What an operation moves into the output; the output itself is no entry.
fn moved_in(operation: &Operation) -> Option<(&RelPath, &Object)> {
    match operation {
        Operation::Add { path, new } | Operation::Replace { path, new, .. } if !path.is_root() => Some((path, new)),
        _ => None,
    }
}

/// Computes the plan. `stage` is the root of the stage, which becomes the output where there is none yet.
pub(crate) fn plan(
    base: &impl Base,
    stage: Object,
    staged: Vec<Entry>,
    scope: Scope<'_>,
    rules: Rules,
    live: &impl Live,
) -> Result<Plan> {
    let mut planner = Planner::new(base, scope, rules, live);
    planner.guard_stage(&staged);
    planner.merge(stage, staged)?;
    planner.guard_size();
    planner.guard_case()?;
    planner.finish()
}

struct Planner<'a, B: Base, L: Live> {
    base: &'a B,
    scope: Scope<'a>,
    rules: Rules,
    live: &'a L,
    plan: Plan,
    adds: Vec<Operation>,
    replaces: Vec<Operation>,
    removes: Vec<Operation>,
    /// Directories of the output whose mode is to change: from, to.
    modes: BTreeMap<RelPath, (u32, u32)>,
    /// Directories of the output that are moved away and need write permission for it, with their modes.
    unlock: Vec<(RelPath, u32)>,
    /// Of a change: directories of the output that were looked at, and that their owner may write to.
    writable: HashSet<RelPath>,
    /// The staged directory that moves as one: what is staged below it goes along.
    moved: Option<RelPath>,
    /// The entry of the output that moves away as one: what is owned below it goes along.
    gone: Option<RelPath>,
    /// Of a change: the path that is no directory any more, below which everything has been noted as stale.
    emptied: Option<RelPath>,
    foreign: Paths,
    immovable: Paths,
    drift: Paths,
    needs_exchange: Paths,
    files_added: u64,
    files_removed: u64,
}

impl<'a, B: Base, L: Live> Planner<'a, B, L> {
    fn new(base: &'a B, scope: Scope<'a>, rules: Rules, live: &'a L) -> Self {
        Self {
            base,
            scope,
            rules,
            live,
            plan: Plan::default(),
            adds: Vec::new(),
            replaces: Vec::new(),
            removes: Vec::new(),
            modes: BTreeMap::new(),
            unlock: Vec::new(),
            writable: HashSet::new(),
            moved: None,
            gone: None,
            emptied: None,
            foreign: Paths::default(),
            immovable: Paths::default(),
            drift: Paths::default(),
            needs_exchange: Paths::default(),
            files_added: 0,
            files_removed: 0,
        }
    }

    /// Walks what is staged, and what is published and may be stale, side by side, in order of the tree.
    fn merge(&mut self, stage: Object, staged: Vec<Entry>) -> Result<()> {
        if self.live.exists() {
            self.open_staged(&Entry { path: RelPath::root(), object: stage }, false);
        } else {
            self.add_root(stage);
        }
        let base = self.base;
        match self.scope {
            Scope::Whole => self.merge_with(staged, Cursor::new(base.entries())),
            Scope::Change { removals } => {
                let removed = outermost(removals);
                let stale = removed.iter().flat_map(|removal| base.range(removal));
                self.merge_with(staged, Cursor::new(stale))
            }
        }
    }

    fn merge_with(&mut self, staged: Vec<Entry>, mut owned: Cursor<impl Iterator<Item = Result<Entry>>>) -> Result<()> {
        for entry in drain(staged) {
            while let Some(stale) = owned.next_before(&entry.path)? {
                self.not_staged(stale)?;
            }
            let mut before = owned.find(&entry.path)?;
            if before.is_none() && self.is_change() {
                let object = self.base.get(&entry.path)?;
                before = object.map(|object| Entry { path: entry.path.clone(), object });
            }
            self.staged(entry, before.as_ref())?;
        }
        while let Some(stale) = owned.next()? {
            self.not_staged(stale)?;
        }
        Ok(())
    }

    fn is_change(&self) -> bool {
        matches!(self.scope, Scope::Change { .. })
    }

    /// The output is not there: the whole stage becomes the output in one rename.
    fn add_root(&mut self, stage: Object) {
        let root = Entry { path: RelPath::root(), object: stage };
        if self.base.totals().entries > 0 {
            self.plan.restored.push(root.path.clone());
        }
        self.open_staged(&root, true);
        self.adds.push(Operation::Add { path: RelPath::root(), new: stage });
        self.moved = Some(root.path);
    }

    fn staged(&mut self, entry: Entry, before: Option<&Entry>) -> Result<()> {
        if below(&self.moved, &entry.path) {
            return self.publish(entry, before);
        }
        let Some(stat) = self.stat(&entry.path, before)? else { return self.add(entry, before) };
        if entry.object.kind == Kind::Directory && stat.is_dir() {
            return self.merge_directory(entry, before, &stat);
        }
        self.take_place(entry, before, &stat)
    }

    fn stat(&self, path: &RelPath, before: Option<&Entry>) -> Result<Option<Stat>> {
        match before {
            Some(before) if self.live.is_as_published(path) => Ok(Some(before.object.stat())),
            _ => self.live.stat(path),
        }
    }

    /// Nothing is where the entry goes.
    fn add(&mut self, entry: Entry, before: Option<&Entry>) -> Result<()> {
        if before.is_some() {
            self.plan.restored.push(entry.path.clone());
        }
        self.adds.push(Operation::Add { path: entry.path.clone(), new: entry.object });
        self.move_in(entry, before)
    }

    /// Notes an entry that an operation moves from the stage into the output.
    fn move_in(&mut self, entry: Entry, before: Option<&Entry>) -> Result<()> {
        if entry.object.kind == Kind::Directory {
            self.moved = Some(entry.path.clone());
            self.open_staged(&entry, true);
        }
        self.note_change(&entry, before)
    }

    /// A staged directory that its owner may not write to can neither be moved nor emptied: its mode is set at the end.
    fn open_staged(&mut self, entry: &Entry, moves: bool) {
        let mode = entry.object.mode;
        if mode & 0o700 != 0o700 {
            self.plan.stage_modes.push((entry.path.clone(), mode));
            if moves {
                self.modes.insert(entry.path.clone(), (mode | 0o700, mode));
            }
        }
    }

    /// A directory is where the directory goes: it stays, with its own inode, and what is foreign in it.
    fn merge_directory(&mut self, mut entry: Entry, before: Option<&Entry>, stat: &Stat) -> Result<()> {
        self.open_staged(&entry, false);
        if self.is_change() {
            // The stage of a change has directories only to hold what changes.
            entry.object.mode = before.map_or(stat.mode, |before| before.object.mode);
            if stat.mode & 0o700 == 0o700 {
                self.writable.insert(entry.path.clone());
            }
        }
        let wanted = entry.object.mode;
        let allowed = match before.map(|before| &before.object) {
            Some(object) if object.kind == Kind::Directory => {
                object.mode == stat.mode || self.rules.drift || problem(&mut self.drift, &entry.path)
            }
            _ => self.rules.adopt || stat.mode == wanted || problem(&mut self.foreign, &entry.path),
        };
        if allowed && stat.mode != wanted {
            self.modes.insert(entry.path.clone(), (stat.mode, wanted));
        }
        entry.object.ino = stat.ino;
        self.publish(entry, before)
    }

    /// Something is where the entry goes, and not both are directories.
    fn take_place(&mut self, entry: Entry, before: Option<&Entry>, stat: &Stat) -> Result<()> {
        let published = match before {
            Some(before) => self.as_published(before, stat)?,
            None => None,
        };
        match (published, stat.kind) {
            (Some(old), _) if old.publishes_same(&entry.object) => self.keep(entry, before, old),
            (Some(old), Some(Kind::Directory)) => self.replace_directory(entry, before, old, stat),
            (Some(old), _) => self.replace(entry, before, old),
            (None, None | Some(Kind::Directory)) => {
                self.immovable.push(entry.path.clone());
                self.skip(entry);
                Ok(())
            }
            (None, Some(kind)) => {
                let old = self.live.object(&entry.path, kind, stat)?;
                let same = old.publishes_same(&entry.object);
                let allowed = match before {
                    Some(_) => {
                        same || self.rules.drift
                            || left_out(Mutant::DriftCheck)
                            || problem(&mut self.drift, &entry.path)
                    }
                    None => {
                        self.rules.adopt || left_out(Mutant::ForeignCheck) || problem(&mut self.foreign, &entry.path)
                    }
                };
                match (allowed, same) {
                    (false, _) => {
                        self.skip(entry);
                        Ok(())
                    }
                    (true, true) => self.keep(entry, before, old),
                    (true, false) => self.replace(entry, before, old),
                }
            }
        }
    }

    fn keep(&mut self, mut entry: Entry, before: Option<&Entry>, live: Object) -> Result<()> {
        entry.object = live;
        self.publish(entry, before)
    }

    fn replace(&mut self, entry: Entry, before: Option<&Entry>, old: Object) -> Result<()> {
        if entry.object.kind == Kind::Directory && !self.rules.exchange {
            self.needs_exchange.push(entry.path.clone());
        }
        self.replaces.push(Operation::Replace { path: entry.path.clone(), old, new: entry.object });
        self.move_in(entry, before)
    }

    /// A file or a link takes the place of an owned directory, which moves away with everything that is owned in it.
    fn replace_directory(&mut self, entry: Entry, before: Option<&Entry>, old: Object, stat: &Stat) -> Result<()> {
        let contents = self.contents(&entry.path)?;
        for path in contents.foreign {
            self.immovable.push(path);
        }
        self.note_drift(contents.drifted);
        if !self.rules.exchange {
            self.needs_exchange.push(entry.path.clone());
        }
        self.unlock_directory(&entry.path, stat);
        self.gone = Some(entry.path.clone());
        self.replaces.push(Operation::Replace { path: entry.path.clone(), old, new: entry.object });
        self.move_in(entry, before)
    }

    /// The entry cannot be published; the reason has been noted. What is below it is not looked at.
    fn skip(&mut self, entry: Entry) {
        if entry.object.kind == Kind::Directory {
            self.moved = Some(entry.path);
        }
    }

    /// An owned entry that the stage does not have.
    fn not_staged(&mut self, before: Entry) -> Result<()> {
        let before = &before;
        if below(&self.emptied, &before.path) {
            return Ok(());
        }
        if below(&self.gone, &before.path) {
            self.stale(before);
            return Ok(());
        }
        let Some(stat) = self.stat(&before.path, Some(before))? else {
            self.stale(before);
            return Ok(());
        };
        match (self.as_published(before, &stat)?, stat.kind) {
            (Some(_), Some(Kind::Directory)) => return self.remove_directory(before, &stat),
            (Some(old), _) => self.removes.push(Operation::Remove { path: before.path.clone(), old }),
            // What took a published entry's place, and is no file or link, stays: it is foreign from now on.
            (None, None | Some(Kind::Directory)) => self.note_drift(vec![before.path.clone()]),
            (None, Some(kind)) if self.rules.drift => {
                let old = self.live.object(&before.path, kind, &stat)?;
                self.removes.push(Operation::Remove { path: before.path.clone(), old });
            }
            (None, Some(_)) => self.drift.push(before.path.clone()),
        }
        self.stale(before);
        Ok(())
    }

    /// A stale directory moves away as one, unless something foreign lives in it: then it stays, and is foreign itself.
    fn remove_directory(&mut self, before: &Entry, stat: &Stat) -> Result<()> {
        let contents = self.contents(&before.path)?;
        if contents.foreign.is_empty() {
            if self.rules.piecewise {
                self.removes.push(Operation::RemoveDirectory { path: before.path.clone(), mode: stat.mode });
            } else {
                self.note_drift(contents.drifted);
                self.unlock_directory(&before.path, stat);
                let old = Object { ino: stat.ino, mode: stat.mode, ..before.object };
                self.removes.push(Operation::Remove { path: before.path.clone(), old });
                self.gone = Some(before.path.clone());
            }
        }
        self.stale(before);
        Ok(())
    }

    fn unlock_directory(&mut self, path: &RelPath, stat: &Stat) {
        if stat.mode & 0o700 != 0o700 {
            self.unlock.push((path.clone(), stat.mode));
        }
    }

    fn note_drift(&mut self, drifted: Vec<RelPath>) {
        if !self.rules.drift {
            drifted.into_iter().for_each(|path| self.drift.push(path));
        }
    }

    /// What is in a directory of the output, held against the manifest.
    fn contents(&self, path: &RelPath) -> Result<Contents> {
        let mut contents = Contents::default();
        for Walked { path, stat } in self.live.below(path)? {
            let Some(object) = self.base.get(&path)? else {
                contents.foreign.push(path);
                continue;
            };
            let published = Entry { path, object };
            if self.as_published(&published, &stat)?.is_none() {
                contents.drifted.push(published.path);
            }
        }
        Ok(contents)
    }

    /// The object at an owned path, if it is what was published there.
    fn as_published(&self, before: &Entry, stat: &Stat) -> Result<Option<Object>> {
        let object = &before.object;
        if Some(object.kind) != stat.kind || (object.mode != stat.mode && object.kind != Kind::Directory) {
            return Ok(None);
        }
        if object.kind == Kind::Directory {
            return Ok(Some(Object { ino: stat.ino, ..*object }));
        }
        if object.is(stat) {
            return Ok(Some(*object));
        }
        if object.size != stat.size {
            return Ok(None);
        }
        let live = self.live.object(&before.path, object.kind, stat)?;
        Ok(live.publishes_same(object).then_some(live))
    }

    /// Puts an entry into the new manifest that no operation of its own moves.
    fn publish(&mut self, entry: Entry, before: Option<&Entry>) -> Result<()> {
        if before.is_none_or(|before| before.object != entry.object) {
            self.plan.edits.push(Edit { path: entry.path.clone(), object: Some(entry.object) });
        }
        self.note_change(&entry, before)
    }

    /// Notes what an entry changes for readers.
    fn note_change(&mut self, entry: &Entry, before: Option<&Entry>) -> Result<()> {
        let (old, new) = (before.map(|before| &before.object), &entry.object);
        let kind = match old {
            None => Some(ChangeKind::Added),
            Some(old) if old.kind != new.kind => Some(ChangeKind::Kind),
            Some(old) if !old.same_content(new) => Some(ChangeKind::Modified),
            Some(old) if old.mode != new.mode => Some(ChangeKind::Mode),
            Some(_) => None,
        };
        match kind {
            None => {}
            Some(ChangeKind::Added) => self.plan.summary.added += 1,
            Some(_) => self.plan.summary.changed += 1,
        }
        if before.is_none() && new.kind != Kind::Directory {
            self.files_added += 1;
        }
        if let Some(kind) = kind {
            self.plan.changes.push(Change { kind, path: entry.path.clone(), entry: new.kind });
        }
        let was_directory = old.is_some_and(|old| old.kind == Kind::Directory) && new.kind != Kind::Directory;
        if was_directory && self.is_change() {
            return self.all_below_is_stale(&entry.path);
        }
        Ok(())
    }

    /// Nothing can be published below what is no directory any more; what is staged as a change does not say so.
    fn all_below_is_stale(&mut self, path: &RelPath) -> Result<()> {
        for entry in self.base.range(path).skip(1) {
            self.stale(&entry?);
        }
        self.emptied = Some(path.clone());
        Ok(())
    }

    fn stale(&mut self, before: &Entry) {
        self.plan.summary.removed += 1;
        self.files_removed += u64::from(before.object.kind != Kind::Directory);
        let (path, entry) = (before.path.clone(), before.object.kind);
        self.plan.changes.push(Change { kind: ChangeKind::Removed, path, entry });
        self.plan.edits.push(Edit { path: before.path.clone(), object: None });
    }

    fn guard_stage(&mut self, staged: &[Entry]) {
        let no_file = staged.iter().all(|entry| entry.object.kind == Kind::Directory);
        if no_file && !self.rules.empty && matches!(self.scope, Scope::Whole) {
            self.plan.problems.push(Problem::EmptyStage);
        }
    }

    /// A build that wrote next to nothing and said it succeeded would take the site down.
    fn guard_size(&mut self) {
        let files = self.base.totals().files;
        let lost = self.files_removed.saturating_sub(self.files_added);
        let limit = self.rules.max_removed;
        let empty = self.plan.problems.contains(&Problem::EmptyStage) || self.rules.empty;
        if !empty && lost * 100 > files * u64::from(limit) && matches!(self.scope, Scope::Whole) {
            let (removed, added) = (self.files_removed, self.files_added);
            self.plan.problems.push(Problem::Shrunken { removed, added, files, limit });
        }
    }

    /// Two names in a directory, a new one among them, that are one where case is not distinguished: a checkout or a deployment
    /// there would lose one of them.
    fn guard_case(&mut self) -> Result<()> {
        if self.rules.case_collisions {
            return Ok(());
        }
        let mut added: HashMap<&[u8], Vec<&RelPath>> = HashMap::new();
        for change in self.plan.changes.iter().filter(|change| change.kind == ChangeKind::Added) {
            added.entry(change.path.parent_bytes()).or_default().push(&change.path);
        }
        let mut collisions = Vec::new();
        for new in added.into_values() {
            collisions.append(&mut self.collisions(&new)?);
        }
        collisions.sort();
        if !collisions.is_empty() {
            let mut paths = Paths::default();
            collisions.into_iter().for_each(|path| paths.push(path));
            self.plan.problems.push(Problem::CaseCollision(paths));
        }
        Ok(())
    }

    /// What collides with the new entries of one directory, and those that do.
    fn collisions(&self, new: &[&RelPath]) -> Result<Vec<RelPath>> {
        let directory = new[0].parent();
        let is_new = |change: &Change| change.kind == ChangeKind::Added;
        let change = |path: &RelPath| {
            self.plan.changes.binary_search_by(|change| change.path.cmp(path)).ok().map(|i| &self.plan.changes[i])
        };
        let kept = match change(&directory) {
            Some(directory) if is_new(directory) => Vec::new(),
            _ => self.base.children(&directory)?,
        };
        let stays = |entry: &Entry| change(&entry.path).is_none_or(|change| change.kind != ChangeKind::Removed);
        let mut folded: HashMap<String, RelPath> = HashMap::with_capacity(new.len());
        for entry in kept.into_iter().filter(stays) {
            folded.extend(fold(&entry.path).map(|name| (name, entry.path)));
        }
        let mut collisions = Vec::new();
        for path in new {
            let Some(name) = fold(path) else { continue };
            if let Some(other) = folded.insert(name, (*path).clone()) {
                collisions.extend([other, (*path).clone()]);
            }
        }
        Ok(collisions)
    }

    fn finish(mut self) -> Result<Plan> {
        let lists = [
            (std::mem::take(&mut self.foreign), Problem::Foreign as fn(Paths) -> Problem),
            (std::mem::take(&mut self.immovable), Problem::ForeignDirectory),
            (std::mem::take(&mut self.drift), Problem::Drift),
            (std::mem::take(&mut self.needs_exchange), Problem::NeedsExchange),
        ];
        self.plan
            .problems
            .extend(lists.into_iter().filter(|(paths, _)| !paths.is_empty()).map(|(paths, of)| of(paths)));
        let Summary { changed, removed, .. } = self.plan.summary;
        self.plan.summary.unchanged = self.base.totals().entries.saturating_sub(changed + removed);
        let (open, close) = self.mode_operations()?;
        // Made again by undoing, a directory has to take what was removed from it.
        for operation in &mut self.removes {
            if let Operation::RemoveDirectory { path, mode } = operation
                && open.iter().any(|open| open.path() == path)
            {
                *mode |= 0o700;
            }
        }
        self.replaces.sort_unstable_by(|a, b| rank(a.path()).cmp(&rank(b.path())).then_with(|| a.path().cmp(b.path())));
        self.removes.sort_unstable_by(|a, b| b.path().cmp(a.path()));
        let (adds, replaces, removes) = (self.adds, self.replaces, self.removes);
        self.plan.operations = in_sequence(if left_out(Mutant::RemovalsLast) {
            [open, removes, adds, replaces, close]
        } else if left_out(Mutant::AdditionsFirst) {
            [open, replaces, adds, removes, close]
        } else {
            [open, adds, replaces, removes, close]
        });
        Ok(self.plan)
    }

    /// Modes to open before anything moves, and modes to set when everything is in place.
    fn mode_operations(&mut self) -> Result<(Vec<Operation>, Vec<Operation>)> {
        let mut open = Vec::new();
        let mut close = std::mem::take(&mut self.modes);
        let moves = || self.adds.iter().chain(&self.replaces).chain(&self.removes);
        let inside = |operation: &&Operation| !operation.path().is_root();
        let mut parents: Vec<RelPath> = Vec::new();
        for operation in moves().filter(inside) {
            if parents.last().is_none_or(|last| last.as_bytes() != operation.path().parent_bytes()) {
                parents.push(operation.path().parent());
            }
        }
        parents.sort();
        parents.dedup();
        parents.retain(|path| !self.writable.contains(path));
        for path in parents {
            let Some(stat) = self.live.stat(&path)? else { continue };
            if stat.mode & 0o700 != 0o700 {
                let wanted = close.get(&path).map_or(stat.mode, |&(_, to)| to);
                open.push(Operation::SetMode { path: path.clone(), from: stat.mode, to: stat.mode | 0o700 });
                close.insert(path, (stat.mode | 0o700, wanted));
            }
        }
        for (path, mode) in &self.unlock {
            open.push(Operation::SetMode { path: path.clone(), from: *mode, to: mode | 0o700 });
        }
        let gone: Vec<&RelPath> = self.removes.iter().map(Operation::path).collect();
        let close = close
            .into_iter()
            .rev()
            .filter(|(path, (from, to))| from != to && !gone.contains(&path))
            .map(|(path, (from, to))| Operation::SetMode { path, from, to })
            .collect();
        Ok((open, close))
    }
}

/// One list of several; where only one has anything in it, as in most large plans, nothing is copied.
fn in_sequence(lists: [Vec<Operation>; 5]) -> Vec<Operation> {
    let mut all = Vec::new();
    for mut list in lists {
        if all.is_empty() {
            all = list;
        } else {
            all.append(&mut list);
        }
    }
    all
}

/// The paths that are not below another of them, ascending.
fn outermost(paths: &[RelPath]) -> Vec<RelPath> {
    let mut sorted = paths.to_vec();
    sorted.sort();
    sorted.dedup_by(|path, above| path == above || path.is_below(above));
    sorted
}

/// The entries, whose memory is given back on the way: what the planner makes of them grows as they go.
fn drain(mut entries: Vec<Entry>) -> impl Iterator<Item = Entry> {
    const PIECE: usize = 1 << 15;
    entries.reverse();
    std::iter::from_fn(move || {
        if entries.len().is_multiple_of(PIECE) {
            entries.shrink_to_fit();
        }
        entries.pop()
    })
}

/// A name as file systems see it that do not distinguish case; `None` for what is no text.
fn fold(path: &RelPath) -> Option<String> {
    std::str::from_utf8(path.name()).ok().map(str::to_lowercase)
}

/// What is in a directory of the output.
#[derive(Default)]
struct Contents {
    foreign: Vec<RelPath>,
    drifted: Vec<RelPath>,
}

/// Notes a path that stands against the commit; always `false`.
fn problem(paths: &mut Paths, path: &RelPath) -> bool {
    paths.push(path.clone());
    false
}

fn below(ancestor: &Option<RelPath>, path: &RelPath) -> bool {
    ancestor.as_ref().is_some_and(|ancestor| path.is_below(ancestor))
}

/// Replacements run in ascending rank: what entry documents refer to is in place before they are (G4).
fn rank(path: &RelPath) -> u8 {
    let name = path.name();
    let stem_end = name.iter().rposition(|&b| b == b'.').unwrap_or(name.len());
    let (stem, extension) = name.split_at(stem_end);
    let document = [&b".html"[..], b".htm", b".xhtml", b".php"].iter().any(|e| extension.eq_ignore_ascii_case(e));
    match (document, stem.eq_ignore_ascii_case(b"index"), path.parent().is_root()) {
        (true, true, true) => 3,
        (true, true, false) => 2,
        (true, false, _) => 1,
        (false, ..) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::Timestamp;
    use crate::manifest::Digest;

    const RULES: Rules = Rules {
        adopt: false,
        drift: false,
        case_collisions: false,
        empty: false,
        max_removed: 100,
        exchange: true,
        piecewise: false,
    };

    /// An output in memory: what a path holds is its content's text.
    #[derive(Default)]
    struct Memory(BTreeMap<RelPath, Object>);

    impl Live for Memory {
        fn stat(&self, path: &RelPath) -> Result<Option<Stat>> {
            let root = object("/", 1);
            let object = if path.is_root() { Some(&root) } else { self.0.get(path) };
            Ok(object.map(|object| Stat {
                kind: Some(object.kind),
                mode: object.mode,
                uid: 0,
                nlink: 1,
                dev: 1,
                ino: object.ino,
                size: object.size,
                mtime: object.mtime,
            }))
        }

        fn is_as_published(&self, _: &RelPath) -> bool {
            false
        }

        fn object(&self, path: &RelPath, _: Kind, _: &Stat) -> Result<Object> {
            Ok(self.0[path])
        }

        fn below(&self, path: &RelPath) -> Result<Vec<Walked>> {
            let below = self.0.keys().filter(|other| other.is_below(path));
            below.map(|path| Ok(Walked { path: path.clone(), stat: self.stat(path)?.expect("listed") })).collect()
        }

        fn exists(&self) -> bool {
            true
        }
    }

    /// A manifest in memory.
    struct Published(Vec<Entry>);

    impl Base for Published {
        fn totals(&self) -> Totals {
            Totals::of(&self.0)
        }

        fn get(&self, path: &RelPath) -> Result<Option<Object>> {
            Ok(self.0.iter().find(|entry| entry.path == *path).map(|entry| entry.object))
        }

        fn entries(&self) -> impl Iterator<Item = Result<Entry>> {
            self.0.iter().cloned().map(Ok)
        }

        fn range(&self, path: &RelPath) -> impl Iterator<Item = Result<Entry>> {
            let inside = move |entry: &&Entry| entry.path == *path || entry.path.is_below(path);
            self.0.iter().filter(inside).cloned().map(Ok).collect::<Vec<_>>().into_iter()
        }

        fn children(&self, path: &RelPath) -> Result<Vec<Entry>> {
            Ok(self.0.iter().filter(|entry| entry.path.parent() == *path).cloned().collect())
        }
    }

    /// `/` is a directory, `>x` a link to x, anything else a file of that content.
    fn object(content: &str, ino: u64) -> Object {
        let (kind, mode, size) = match content {
            "/" => (Kind::Directory, 0o755, 0),
            link if link.starts_with('>') => (Kind::Symlink, 0o777, link.len() as u64),
            file => (Kind::File, 0o644, file.len() as u64),
        };
        let digest = if kind == Kind::Directory { Digest::default() } else { Digest::of(content.as_bytes()) };
        Object { kind, mode, size, digest, ino, mtime: Timestamp::default() }
    }

    fn entries(tree: &[(&str, &str)], ino: u64) -> Vec<Entry> {
        let mut entries: Vec<Entry> = tree
            .iter()
            .zip(ino..)
            .map(|((path, content), ino)| Entry { path: RelPath::new(path).unwrap(), object: object(content, ino) })
            .collect();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        entries
    }

    fn live(entries: &[Entry]) -> Memory {
        Memory(entries.iter().map(|entry| (entry.path.clone(), entry.object)).collect())
    }

    fn plan_of(old: &[(&str, &str)], new: &[(&str, &str)], rules: Rules) -> Plan {
        let base = entries(old, 100);
        let live = live(&base);
        plan(&Published(base), object("/", 2), entries(new, 200), Scope::Whole, rules, &live).unwrap()
    }

    fn all_edits(plan: &Plan) -> impl Iterator<Item = Edit> {
        let all: Vec<Edit> = edits(&plan.edits, &plan.operations).collect();
        assert!(all.windows(2).all(|pair| pair[0].path < pair[1].path));
        all.into_iter()
    }

    fn words(plan: &Plan) -> Vec<String> {
        plan.operations.iter().map(|operation| format!("{} {}", operation.word(), operation.path())).collect()
    }

    #[test]
    fn additions_come_first_then_replacements_with_entry_documents_last_then_removals_from_the_bottom() {
        let old = [
            ("a.html", "1"),
            ("app.js", "1"),
            ("index.html", "1"),
            ("d", "/"),
            ("d/index.html", "1"),
            ("x", "1"),
            ("y", "1"),
        ];
        let new =
            [("a.html", "2"), ("app.js", "2"), ("index.html", "2"), ("d", "/"), ("d/index.html", "2"), ("new", "1")];
        let plan = plan_of(&old, &new, RULES);
        let expected = [
            "add new",
            "replace app.js",
            "replace a.html",
            "replace d/index.html",
            "replace index.html",
            "remove y",
            "remove x",
        ];
        assert_eq!(words(&plan), expected);
    }

    #[test]
    fn new_and_stale_directories_move_as_one() {
        let old = [("old", "/"), ("old/a", "1"), ("old/b", "/"), ("old/b/c", "1")];
        let new = [("new", "/"), ("new/a", "1"), ("new/b", "/"), ("new/b/c", "1")];
        let plan = plan_of(&old, &new, RULES);
        assert_eq!(words(&plan), ["add new", "remove old"]);
        assert_eq!((plan.summary.added, plan.summary.removed), (4, 4));
        let piecewise = plan_of(&old, &new, Rules { piecewise: true, ..RULES });
        let expected = ["add new", "remove old/b/c", "remove-directory old/b", "remove old/a", "remove-directory old"];
        assert_eq!(words(&piecewise), expected);
    }

    #[test]
    fn what_is_published_already_is_no_operation() {
        let tree = [("a", "1"), ("d", "/"), ("d/l", ">a")];
        let plan = plan_of(&tree, &tree, RULES);
        assert!(plan.is_empty() && plan.problems.is_empty());
        assert_eq!(plan.summary, Summary { unchanged: 3, ..Summary::default() });
    }

    #[test]
    fn a_mode_that_keeps_its_owner_out_is_opened_first_and_set_last() {
        let mut base = entries(&[("d", "/"), ("d/a", "1"), ("d/b", "1")], 100);
        base[0].object.mode = 0o555;
        let mut staged = entries(&[("d", "/"), ("d/a", "2"), ("d/b", "1")], 200);
        staged[0].object.mode = 0o555;
        let live = live(&base);
        let plan = plan(&Published(base), object("/", 2), staged, Scope::Whole, RULES, &live).unwrap();
        assert_eq!(words(&plan), ["set-mode d", "replace d/a", "set-mode d"]);
        assert!(matches!(plan.operations[2], Operation::SetMode { from: 0o755, to: 0o555, .. }));
        assert_eq!(plan.stage_modes.len(), 1);
    }

    #[test]
    fn every_problem_is_collected_at_once() {
        let base = entries(&[("drifted", "1"), ("kept", "1")], 100);
        let mut output = live(&base);
        output.0.insert(RelPath::new("drifted").unwrap(), object("2", 7));
        output.0.insert(RelPath::new("foreign").unwrap(), object("f", 8));
        output.0.insert(RelPath::new("directory").unwrap(), object("/", 9));
        let new = entries(&[("drifted", "3"), ("foreign", "n"), ("directory", "n"), ("Case", "1"), ("case", "1")], 200);
        let plan = plan(&Published(base), object("/", 2), new, Scope::Whole, RULES, &output).unwrap();
        let codes: Vec<_> = plan.problems.iter().map(Problem::code).collect();
        assert_eq!(codes, ["case-collision", "foreign", "foreign-directory", "drift"]);
    }

    #[test]
    fn without_exchange_only_directories_that_change_kind_are_a_problem() {
        let old = [("f", "1"), ("d", "/"), ("d/x", "1"), ("l", ">f")];
        let new = [("f", "2"), ("d", "now a file"), ("l", "now a file")];
        let plan = plan_of(&old, &new, Rules { exchange: false, ..RULES });
        assert_eq!(plan.problems.len(), 1);
        assert!(matches!(&plan.problems[0], Problem::NeedsExchange(paths) if paths.total == 1));
    }

    #[test]
    fn a_shrinking_build_is_refused_and_a_renaming_one_is_not() {
        let old = [("index.html", "1"), ("app-1.js", "1"), ("app-1.css", "1")];
        let rules = Rules { max_removed: 50, ..RULES };
        assert!(
            plan_of(&old, &[("index.html", "2"), ("app-2.js", "1"), ("app-2.css", "1")], rules).problems.is_empty()
        );
        let problems = plan_of(&old, &[("index.html", "2")], rules).problems;
        assert!(matches!(problems[..], [Problem::Shrunken { removed: 2, added: 0, files: 3, limit: 50 }]));
    }

    #[test]
    fn edits_make_of_the_manifest_what_the_output_holds_afterwards() {
        let old = [("a", "1"), ("b", "1"), ("d", "/"), ("d/x", "1"), ("gone", "1")];
        let new = [("a", "1"), ("b", "2"), ("d", "/"), ("d/x", "1"), ("d/y", "1")];
        let plan = plan_of(&old, &new, RULES);
        let edits: Vec<_> =
            all_edits(&plan).map(|edit| (edit.path.to_string(), edit.object.map(|object| object.ino))).collect();
        let expected = [("b", Some(201)), ("d/y", Some(204)), ("gone", None)];
        assert_eq!(edits, expected.map(|(path, ino)| (path.to_string(), ino)));
    }

    fn change_of(old: &[(&str, &str)], staged: &[(&str, &str)], removals: &[&str], output: &Memory) -> Plan {
        let removals: Vec<_> = removals.iter().map(|path| RelPath::new(path).unwrap()).collect();
        let scope = Scope::Change { removals: &removals };
        let rules = Rules { drift: true, ..RULES };
        plan(&Published(entries(old, 100)), object("/", 2), entries(staged, 200), scope, rules, output).unwrap()
    }

    #[test]
    fn a_change_leaves_alone_what_it_does_not_name() {
        let old = [("a", "1"), ("d", "/"), ("d/x", "1"), ("d/y", "1"), ("e", "/"), ("e/z", "1")];
        let plan =
            change_of(&old, &[("a", "2"), ("d", "/"), ("d/n", "1")], &["d/x", "e", "e/z"], &live(&entries(&old, 100)));
        assert_eq!(words(&plan), ["add d/n", "replace a", "remove e", "remove d/x"]);
        assert_eq!(plan.summary, Summary { added: 1, changed: 1, removed: 3, unchanged: 2 });
        assert_eq!((all_edits(&plan).count(), count_edits(&plan.edits, &plan.operations)), (5, 5));
    }

    #[test]
    fn nothing_stays_published_below_what_a_change_makes_a_file() {
        let old = [("d", "/"), ("d/x", "1"), ("e", "1")];
        for output in [live(&entries(&old, 100)), live(&entries(&[("d", "drift"), ("e", "1")], 300))] {
            let plan = change_of(&old, &[("d", "now a file")], &["d/x"], &output);
            let gone = all_edits(&plan).filter(|edit| edit.object.is_none()).count();
            assert_eq!((gone, plan.summary.removed, plan.summary.unchanged), (1, 1, 1));
        }
    }

    #[test]
    fn names_that_differ_by_case_collide_with_what_stays_in_their_directory_alone() {
        let old = [("d", "/"), ("d/Readme", "1"), ("d/gone", "1"), ("readme", "1")];
        let output = live(&entries(&old, 100));
        let case = |staged: &[(&str, &str)], removals: &[&str]| {
            let plan = change_of(&old, staged, removals, &output);
            plan.problems.iter().map(|problem| problem.to_string()).collect::<Vec<_>>().join("; ")
        };
        let collision = case(&[("d", "/"), ("d/README", "1")], &[]);
        assert!(collision.contains("d/README") && collision.contains("d/Readme"), "{collision}");
        assert_eq!(case(&[("d", "/"), ("d/GONE", "1")], &["d/gone"]), "");
        assert_eq!(case(&[("other", "/"), ("other/readme", "1")], &[]), "");
        assert!(case(&[("D", "/"), ("D/x", "1")], &[]).contains("D"));
    }
}
