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
//!
//! What comes out is [`Planned`]: the [`Plan`], which says to the user what changes, and the [`Intent`], which the protocol carries out.

pub(crate) mod between;
mod foreign;
mod guards;
pub(crate) mod live;
mod merge;
mod order;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::error::{Paths, Problem, Result};
use crate::format::identity::Object;
use crate::format::journal::record::Operation;
use crate::format::manifest::writer::Edit;
use crate::format::manifest::{Entry, Totals};
use crate::fs::tree::Walked;
use crate::fs::{Kind, Stat, Timestamp};
use crate::path::RelPath;
use crate::warning::Warning;

/// What the planner asks about the generation that is published.
pub(crate) trait Base {
    fn totals(&self) -> Totals;
    /// What is published at `path`.
    fn get(&self, path: &RelPath) -> Result<Option<Object>>;
    /// The directory that is planned for, with what is below it; the root where that is all. What is above it stays.
    fn at(&self) -> RelPath;
    /// Everything at and below that, ascending, and how much it is: [`Base::totals`].
    fn entries(&self) -> impl Iterator<Item = Result<Entry>>;
    /// The entry at `path` and everything below it, ascending.
    fn range(&self, path: &RelPath) -> impl Iterator<Item = Result<Entry>>;
    /// What is directly in a directory.
    fn children(&self, path: &RelPath) -> Result<Vec<Entry>>;
}

/// What the planner asks about the output as it is now.
pub(crate) trait Live {
    /// What is at `path`; `None` when nothing is.
    fn stat(&self, path: &RelPath) -> Result<Option<Stat>>;
    /// Whether an owned entry is known to be as it was published, so that there is no need to look.
    fn is_as_published(&self, path: &RelPath) -> bool;
    /// The same with its digest.
    fn object(&self, path: &RelPath, kind: Kind, stat: &Stat) -> Result<Object>;
    /// Whether the directory `path` can change places with something else.
    fn is_movable(&self, path: &RelPath) -> Result<bool>;
    /// Whether a directory of the output is of another file system, or a subvolume: nothing can be moved into it, or out of it.
    fn is_apart(&self, stat: &Stat) -> bool;
    /// Everything below the directory `path`, but for what is in a directory that is apart.
    fn below(&self, path: &RelPath) -> Result<Vec<Walked>>;
    /// Everything in the output but state directories, and what is in a directory that is apart.
    fn foreign(&self) -> Result<Vec<Walked>>;
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
    /// As a change; and it is all that differs between the current generation and what a tool left in its place. So a staged directory has
    /// the mode that it is to have, and what looks like a mistake of the build is one.
    Captured { removals: &'a [RelPath] },
}

/// What the user allows, and what the file system can do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Take over foreign files and links that are in the way.
    pub(crate) adopt: bool,
    /// Take for published whatever lies in the output.
    pub(crate) adopt_all: bool,
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
    /// Whether what is published gets another time than it was staged with.
    pub(crate) touch: bool,
    /// How stale directories go.
    pub(crate) stale: Stale,
    /// The group that shares the store. No commit changes the mode of a directory that is there then: only its owner could, and not every
    /// member who may have to carry the commit out, or to undo it.
    pub(crate) group: Option<u32>,
}

/// How stale directories go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stale {
    /// Moved away as one.
    Whole,
    /// Taken apart: an overlayfs cannot rename the directories of its lower layers.
    Apart,
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
    /// What readers see of an entry that is published after another, or after none; `None` where that is nothing.
    pub(crate) fn between(old: Option<&Object>, new: &Object) -> Option<Self> {
        match old {
            None => Some(Self::Added),
            Some(old) if old.kind != new.kind => Some(Self::Kind),
            Some(old) if !old.same_content(new) => Some(Self::Modified),
            Some(old) if old.mode != new.mode => Some(Self::Mode),
            Some(_) => None,
        }
    }

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
#[non_exhaustive]
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
#[non_exhaustive]
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
    /// What deserves a look before it is published.
    pub warnings: Vec<Warning>,
    /// How many journaled operations it takes.
    operations: u64,
}

/// What the protocol does so that the plan comes true: it goes into the journal and the manifest, and is then carried out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Intent {
    /// In the order in which they are carried out.
    pub(crate) operations: Vec<Operation>,
    /// How the new manifest differs from the current one, ascending. What is added or replaced is left out, because the
    /// operations say it ([`edits`]).
    pub(crate) edits: Vec<Edit>,
    /// Whether anything is to be published as it lies in the output that no commit made durable: somebody else put it there.
    pub(crate) found: bool,
    /// When a staged entry was changed last, or a directory of the output whose mode is to change.
    pub(crate) last_change: Timestamp,
    /// Staged directories that are opened to be moved or emptied, with the modes that they were staged with.
    pub(crate) stage_modes: Vec<(RelPath, u32)>,
}

/// A plan, and what it takes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) intent: Intent,
}

impl Planned {
    /// Where everything that is published is staged as it is.
    pub(crate) fn of_unchanged(published: Totals) -> Self {
        let summary = Summary { unchanged: published.entries, ..Summary::default() };
        Self { plan: Plan { summary, ..Plan::default() }, intent: Intent::default() }
    }
}

impl Plan {
    /// Whether committing it would change nothing: neither the output nor what is owned in it.
    pub fn is_empty(&self) -> bool {
        self.operations == 0 && self.changes.is_empty()
    }

    /// How many journaled operations it takes.
    pub fn operations(&self) -> u64 {
        self.operations
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
    operation.moved_in().filter(|(path, _)| !path.is_root())
}

/// Computes the plan. `stage` is the root of the stage, which becomes the output where there is none yet.
pub(crate) fn plan(
    base: &impl Base,
    stage: Object,
    staged: Vec<Entry>,
    scope: Scope<'_>,
    rules: Rules,
    live: &impl Live,
) -> Result<Planned> {
    let mut planner = Planner::new(base, scope, rules, live);
    planner.guard_stage(&staged);
    planner.look_for_foreign(&staged)?;
    planner.merge(stage, staged)?;
    planner.remove_foreign()?;
    planner.guard_size();
    planner.guard_case()?;
    planner.guard_case_rename();
    planner.finish()
}

struct Planner<'a, B: Base, L: Live> {
    base: &'a B,
    at: RelPath,
    scope: Scope<'a>,
    rules: Rules,
    live: &'a L,
    plan: Plan,
    intent: Intent,
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
    /// Directories of the output that not every member of the group can use that shares the store.
    closed: BTreeSet<RelPath>,
    /// The directory of the output that was looked into last, and what is in it.
    contents: Option<(RelPath, merge::Contents)>,
    /// Inodes of the output at paths that are new, and at paths that are stale.
    arriving: Vec<(u64, RelPath)>,
    leaving: HashMap<u64, RelPath>,
    foreign: Paths,
    immovable: Paths,
    drift: Paths,
    needs_exchange: Paths,
    /// Directories of another file system, or subvolumes, into which something is to be moved, or out of which.
    apart: Paths,
    /// Directories of a lower layer that something else is to take the place of.
    lower: Paths,
    /// Files whose content changes, and neither size nor time.
    look_alikes: Paths,
    /// Whether no file or link is staged.
    no_file: bool,
    files_added: u64,
    files_removed: u64,
    /// Files that nobody published and that count as published.
    files_taken_over: u64,
    /// What is neither published nor staged.
    others: foreign::Foreign,
    /// Entries of it that go.
    foreign_removed: u64,
    foreign_files_removed: u64,
}

impl<'a, B: Base, L: Live> Planner<'a, B, L> {
    fn new(base: &'a B, scope: Scope<'a>, rules: Rules, live: &'a L) -> Self {
        Self {
            base,
            at: base.at(),
            scope,
            rules,
            live,
            plan: Plan::default(),
            intent: Intent::default(),
            adds: Vec::new(),
            replaces: Vec::new(),
            removes: Vec::new(),
            modes: BTreeMap::new(),
            unlock: Vec::new(),
            writable: HashSet::new(),
            moved: None,
            gone: None,
            emptied: None,
            closed: BTreeSet::new(),
            contents: None,
            arriving: Vec::new(),
            leaving: HashMap::new(),
            foreign: Paths::default(),
            immovable: Paths::default(),
            drift: Paths::default(),
            needs_exchange: Paths::default(),
            apart: Paths::default(),
            lower: Paths::default(),
            look_alikes: Paths::default(),
            no_file: false,
            files_added: 0,
            files_removed: 0,
            files_taken_over: 0,
            others: foreign::Foreign::default(),
            foreign_removed: 0,
            foreign_files_removed: 0,
        }
    }
}

#[cfg(test)]
mod tests;
