//! What has to hold: of an output at every instant, of a store after recovery, and of the transaction after that.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::{Call, Entry, Event, SimFs, Tree, View};
use txfs::fs::Stat;
use txfs::{Kind, RecoverOptions, RelPath, Store};

use super::spec::{self, FILES, FOREIGN, Node, Spec};
use super::tally::{Checked, Tally, Violation};
use super::world::{self, OUTPUT, OUTSIDE, STATE, World};

/// Which generation an output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    Old,
    New,
    /// Both are the same.
    Either,
}

/// Which generations an output may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    Old,
    New,
    Either,
}

impl Allowed {
    pub fn check(self, found: Generation) -> Checked {
        match (self, found) {
            (Allowed::Old, Generation::New) => {
                Err(Violation::new("unchanged means unchanged", "the output is the new generation"))
            }
            (Allowed::New, Generation::Old) => {
                Err(Violation::new("acknowledged means durable", "the output is the old generation"))
            }
            _ => Ok(()),
        }
    }

    pub fn only(generation: Generation) -> Self {
        match generation {
            Generation::Old => Allowed::Old,
            Generation::New => Allowed::New,
            Generation::Either => Allowed::Either,
        }
    }
}

/// What the output of one world may be.
pub struct Oracle {
    old: u64,
    new: u64,
    /// The old and the new output.
    trees: [Tree; 2],
    outside: u64,
    foreign: bool,
    /// What was not taken over is foreign, and stays.
    adopted: bool,
    /// The transaction is detached: while the machine goes on it stays open.
    detached: bool,
    /// A group shares the store, and this user made it.
    shared: Option<u32>,
}

impl Oracle {
    /// The modes with which an entry of the output is published.
    pub(super) fn modes_of(&self, place: &Path) -> Vec<u32> {
        let path = place.strip_prefix(OUTPUT).map(|path| RelPath::from_path(path).unwrap_or_else(|_| RelPath::root()));
        let Ok(path) = path else { return Vec::new() };
        self.trees().iter().filter_map(|tree| tree.get(&path)).map(|entry| entry.mode).collect()
    }

    pub fn new(world: &World, before: &SimFs, after: &SimFs) -> Self {
        Self {
            old: before.tree_hash(OUTPUT),
            new: after.tree_hash(OUTPUT),
            trees: [before.tree(OUTPUT), after.tree(OUTPUT)],
            outside: before.tree_hash(OUTSIDE),
            foreign: world.foreign,
            adopted: world.adopt,
            detached: world.overtaken,
            shared: world.is_shared().then_some(world.config.uid),
        }
    }

    pub(super) fn trees(&self) -> &[Tree; 2] {
        &self.trees
    }

    /// Crash refinement: the output is exactly the old or exactly the new generation.
    pub fn generation(&self, fs: &SimFs) -> Checked<Generation> {
        let found = fs.tree_hash(OUTPUT);
        match (found == self.old, found == self.new) {
            (true, true) => Ok(Generation::Either),
            (true, false) => Ok(Generation::Old),
            (false, true) => Ok(Generation::New),
            (false, false) => {
                let found = shown(&fs.tree(OUTPUT));
                Err(Violation::new("exactly old or exactly new", format!("the output is neither:\n{found}")))
            }
        }
    }

    /// After a recovery: the state directory holds nothing that nobody needs, nothing else was touched, another recovery does
    /// nothing, and the next commit works.
    pub fn aftermath(&self, fs: &SimFs, store: &Store<SimFs>, tally: &mut Tally) -> Checked {
        let before = fs.hash();
        let again = store.recover(RecoverOptions::default()).map_err(|error| failed("the second recovery", &error))?;
        if !again.is_nothing() || fs.hash() != before {
            return Err(Violation::new("recovery is a fixed point", format!("the second one did: {again:?}")));
        }
        let rescued = store.sweep().map_err(|error| failed("sweeping", &error))?.rescued;
        if !rescued.is_empty() {
            return Err(Violation::new("nothing of txfs' own is rescued", format!("{rescued:?}")));
        }
        self.outside(fs)?;
        let open = store.transactions().map_err(|error| failed("listing transactions", &error))?.len();
        self.sweep_as_owner(fs)?;
        residue(fs, store, open)?;
        self.next_commit(fs, store, tally)
    }

    /// Nothing outside the output and its state directory changed.
    pub fn outside(&self, fs: &SimFs) -> Checked {
        let names: BTreeSet<RelPath> = fs.tree("/w").into_keys().filter(|path| path.parent().is_root()).collect();
        let known = [&b""[..], b"out", b".out.txfs", b"outside"];
        let unknown: Vec<_> = names.iter().filter(|name| !known.contains(&name.as_bytes())).collect();
        if fs.tree_hash(OUTSIDE) != self.outside || !unknown.is_empty() {
            return Err(Violation::new("nothing outside is touched", format!("{unknown:?}")));
        }
        Ok(())
    }

    /// The transaction after whatever happened succeeds, and publishes what it says.
    pub fn next_commit(&self, fs: &SimFs, store: &Store<SimFs>, tally: &mut Tally) -> Checked {
        let mut next = Spec::from([("next", FILES[0]), ("nextdir", Node::Dir(0o755)), ("nextdir/y", FILES[1])]);
        if store.capabilities().exchange && !self.adopted {
            next.extend([("a", FILES[1]), ("d", Node::Dir(0o755)), ("d/y", FILES[0])]);
        }
        let was = store.head().map_err(|error| failed("reading HEAD", &error))?.map_or(0, |head| head.info.generation);
        let committed = world::publish_in(fs, store, &next).map_err(|error| failed("the next commit", &error))?;
        tally.commits += 1;
        if committed.generation != was + 1 || !committed.warnings.is_empty() || !committed.rescued.is_empty() {
            return Err(Violation::new("the next commit works", format!("{committed:?}")));
        }
        let tree = fs.tree(OUTPUT);
        if self.shared.is_some() {
            next = spec::for_group(&next);
        }
        if !self.adopted && !spec::is_published(&tree, &next, self.foreign) {
            return Err(Violation::new("the next commit works", format!("it published:\n{}", shown(&tree))));
        }
        let rescued = store.sweep().map_err(|error| failed("sweeping", &error))?.rescued;
        if !rescued.is_empty() {
            return Err(Violation::new("nothing of txfs' own is rescued", format!("{rescued:?}")));
        }
        self.sweep_as_owner(fs)?;
        let open = if self.detached { store.transactions().map_or(0, |open| open.len()) } else { 0 };
        residue(fs, store, open)
    }

    /// What a member of the group could not remove, as it was not given to the group when its maker died, that one sweeps.
    fn sweep_as_owner(&self, fs: &SimFs) -> Checked {
        let Some(owner) = self.shared else { return Ok(()) };
        let swept = Store::open_with(&World::options(&fs.as_user(owner)), OUTPUT).and_then(|store| store.sweep());
        let swept = swept.map_err(|error| failed("sweeping by its maker", &error))?;
        match swept.warnings.is_empty() && swept.rescued.is_empty() {
            true => Ok(()),
            false => Err(Violation::new("its maker sweeps", format!("{swept:?}"))),
        }
    }
}

pub fn failed(what: &str, error: &txfs::Error) -> Box<Violation> {
    Violation::new("recovery and the next commit succeed", format!("{what}: {error}"))
}

/// Only what somebody needs is in the state directory.
fn residue(fs: &SimFs, store: &Store<SimFs>, open: usize) -> Checked {
    let generation =
        store.head().map_err(|error| failed("reading HEAD", &error))?.map_or(0, |head| head.info.generation);
    let tree = fs.tree(STATE);
    let (mut transactions, mut manifests) = (0, 0);
    for (path, entry) in &tree {
        let text = String::from_utf8_lossy(path.as_bytes()).into_owned();
        let parts: Vec<&str> = text.split('/').collect();
        let number = |name: &str| name.parse::<u64>().ok();
        let expected = match parts[..] {
            ["" | "store" | "lock" | ".gitignore" | "manifests" | "tx" | "previous" | "sources" | "sources.new"] => {
                true
            }
            ["HEAD"] => generation > 0,
            // A small change is appended to the file of an earlier generation.
            ["manifests", n] => {
                manifests += 1;
                number(n).is_some_and(|n| n > 0 && n <= generation)
            }
            ["tx", _] => {
                transactions += 1;
                true
            }
            ["tx", ..] => true,
            // Of what is not kept any more the journal stays for one more generation.
            ["previous", n] => number(n).is_some_and(|n| n == generation || n + 1 == generation),
            ["previous", n, "journal"] => {
                number(n).is_some_and(|n| n == generation || n + 1 == generation) && entry.kind == Some(Kind::File)
            }
            ["previous", n, "stage" | "removed" | "kept", ..] => number(n) == Some(generation),
            // Where a file system keeps no order in a directory: `meta` is gone for good, and the removals before it were lost.
            ["previous", n, "lock" | "copy"] => number(n) == Some(generation) && entry.content().is_empty(),
            _ => false,
        };
        if !expected {
            return Err(Violation::new("no residue", format!("{STATE}/{text} at generation {generation}")));
        }
    }
    if manifests > 3 {
        return Err(Violation::new("no residue", format!("{manifests} manifests")));
    }
    if transactions != open {
        return Err(Violation::new("no residue", format!("{transactions} transactions, {open} of them open")));
    }
    Ok(())
}

pub fn shown(tree: &Tree) -> String {
    let line = |(path, entry): (&RelPath, &Entry)| {
        let kind = entry.kind.map_or("other", Kind::word);
        format!("    {kind} {:04o} /{path} {:?}\n", entry.mode, String::from_utf8_lossy(entry.content()))
    };
    tree.iter().map(line).collect()
}

// ---- every instant of a commit

/// How the paths of the output may change while a commit is applied (G2, G3, G4).
struct Instants {
    old: Tree,
    new: Tree,
    /// Paths that come, change, and go by an operation of their own.
    comes: Vec<RelPath>,
    changes: Vec<RelPath>,
    goes: Vec<RelPath>,
    journal: Journal,
    changed: bool,
    looked: u64,
    found: Option<Box<Violation>>,
}

/// How far the journal has come.
#[derive(PartialEq, Eq)]
enum Journal {
    Absent,
    Written,
    Durable,
}

/// Watches every call of a commit that goes well.
pub struct Watch(Arc<Mutex<Instants>>);

impl Watch {
    pub fn over(fs: &SimFs, old: Tree, new: Tree) -> Self {
        let is_dir = |tree: &Tree, path: &RelPath| tree.get(path).is_some_and(|e| e.kind == Some(Kind::Directory));
        let in_place = |path: &&RelPath| {
            let parent = path.parent();
            !path.is_root() && is_dir(&old, &parent) && is_dir(&new, &parent)
        };
        let comes = new.keys().filter(|path| !old.contains_key(path)).filter(in_place).cloned().collect();
        let goes = old.keys().filter(|path| !new.contains_key(path)).filter(in_place).cloned().collect();
        let differs = |path: &&RelPath| {
            old.get(path) != new.get(path) && !(is_dir(&old, path) && is_dir(&new, path)) && old.contains_key(path)
        };
        let changes = new.keys().filter(differs).filter(in_place).cloned().collect();
        let (journal, changed) = (Journal::Absent, false);
        let instants = Instants { old, new, comes, changes, goes, journal, changed, looked: 0, found: None };
        let instants = Arc::new(Mutex::new(instants));
        let seen = instants.clone();
        fs.after_each_call(move |view, event| {
            if let Ok(mut seen) = seen.lock() {
                seen.look(view, event);
            }
        });
        Self(instants)
    }

    pub fn finish(self, tally: &mut Tally) -> Checked {
        let mut instants = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tally.instants += instants.looked;
        instants.found.take().map_or(Ok(()), Err)
    }
}

impl Instants {
    fn look(&mut self, view: View<'_>, event: Event) {
        if !event.changed || self.found.is_some() {
            return;
        }
        self.looked += 1;
        let written = ["journal.new", "journal"].iter().any(|name| view.exists(format!("{STATE}/{name}")));
        self.journal = match (&self.journal, written) {
            (Journal::Durable, _) => Journal::Durable,
            (Journal::Written, true) if event.call == Call::SyncDir || event.call == Call::SyncFs => Journal::Durable,
            (_, true) => Journal::Written,
            (_, false) => Journal::Absent,
        };
        let tree = view.tree(OUTPUT);
        let checked =
            self.before_commit_point(&tree).and_then(|()| self.each_path(&tree)).and_then(|()| self.order(&tree));
        self.found =
            checked.err().map(|violation| violation.after(format!("after call {} ({:?})", event.number, event.call)));
    }

    fn before_commit_point(&mut self, tree: &Tree) -> Checked {
        self.changed |= *tree != self.old;
        if self.changed && self.journal != Journal::Durable {
            return Err(Violation::new("G2: nothing changes before the commit point", shown(tree)));
        }
        Ok(())
    }

    /// What is in both generations is never missing, and is always one of both.
    fn each_path(&self, tree: &Tree) -> Checked {
        for path in self.old.keys().chain(self.new.keys()).chain(tree.keys()) {
            let (old, new, now) = (self.old.get(path), self.new.get(path), tree.get(path));
            let is = |entry: Option<&Entry>| match (entry, now) {
                (Some(entry), Some(now)) => {
                    let same = entry.kind == now.kind && entry.content() == now.content();
                    // Directories are opened for their owner while something in them changes.
                    same && (entry.mode == now.mode || now.kind == Some(Kind::Directory))
                }
                (None, None) => true,
                _ => false,
            };
            if !is(old) && !is(new) {
                return Err(Violation::new(
                    "G3: whole and never missing",
                    format!("/{path} is {now:?}, and was {old:?} and is to be {new:?}"),
                ));
            }
        }
        Ok(())
    }

    /// Additions, then replacements, then removals.
    fn order(&self, tree: &Tree) -> Checked {
        let all_there = self.comes.iter().all(|path| tree.contains_key(path));
        let is_new = |path: &&RelPath| {
            tree.get(path).map(|e| (e.kind, e.content())) == self.new.get(path).map(|e| (e.kind, e.content()))
        };
        let mode_only = |path: &&RelPath| {
            self.old.get(path).map(|e| (e.kind, e.content())) == self.new.get(path).map(|e| (e.kind, e.content()))
        };
        let changing: Vec<&RelPath> = self.changes.iter().filter(|path| !mode_only(path)).collect();
        let replaced = changing.iter().filter(|path| is_new(path)).count();
        let gone = self.goes.iter().filter(|path| !tree.contains_key(path)).count();
        if replaced > 0 && !all_there || gone > 0 && !(all_there && replaced == changing.len()) {
            return Err(Violation::new("G4: additions, replacements, removals", shown(tree)));
        }
        Ok(())
    }
}

/// G5: what did not change keeps its inode and its time.
pub fn untouched(before: &SimFs, after: &SimFs, old: &Tree, new: &Tree) -> Checked {
    for (path, entry) in old {
        if new.get(path) != Some(entry) {
            continue;
        }
        let at = format!("{OUTPUT}/{path}");
        let identity = |fs: &SimFs| fs.look(|view| view.stat(&at)).map(|stat: Stat| (stat.ino, stat.mtime));
        let (was, is) = (identity(before), identity(after));
        let same = if entry.kind == Some(Kind::Directory) { was.map(|w| w.0) == is.map(|i| i.0) } else { was == is };
        if !same {
            return Err(Violation::new("G5: what did not change is not touched", format!("/{path}: {was:?}, {is:?}")));
        }
    }
    let foreign = RelPath::new(FOREIGN).ok().and_then(|path| old.get(&path));
    match foreign {
        Some(_) if RelPath::new(FOREIGN).ok().and_then(|path| new.get(&path)) != foreign => {
            Err(Violation::new("foreign entries stay", "the foreign file is gone"))
        }
        _ => Ok(()),
    }
}
