//! What is staged and what is published, walked side by side: each path becomes an operation, stays, or stands against the commit.

use super::{Base, Change, ChangeKind, Live, Planner, Scope, Stale};
use crate::error::{Paths, Result};
use crate::format::identity::{Like, Object};
use crate::format::journal::record::Operation;
use crate::format::manifest::Entry;
use crate::format::manifest::inventory::Cursor;
use crate::format::manifest::writer::Edit;
use crate::fs::tree::Walked;
use crate::fs::{Kind, Stat};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;

impl<B: Base, L: Live> Planner<'_, B, L> {
    /// Walks what is staged, and what is published and may be stale, side by side, in order of the tree.
    pub(super) fn merge(&mut self, stage: Object, staged: Vec<Entry>) -> Result<()> {
        if self.live.exists() {
            self.open_staged(&Entry { path: RelPath::root(), object: stage }, false);
        } else {
            self.add_root(stage);
        }
        let base = self.base;
        match self.scope {
            Scope::Whole => self.merge_with(staged, Cursor::new(base.entries())),
            Scope::Change { removals } | Scope::Captured { removals } => {
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
            if before.is_none() && (self.is_change() || self.leads_there(&entry.path)) {
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
        matches!(self.scope, Scope::Change { .. } | Scope::Captured { .. })
    }

    /// Whether a staged directory is there only to hold what changes, and says nothing of itself.
    fn is_mere(&self, directory: &RelPath) -> bool {
        matches!(self.scope, Scope::Change { .. }) || self.leads_there(directory)
    }

    /// Whether it is where what is planned for lies, or above it, but not the output: that is no entry.
    fn leads_there(&self, directory: &RelPath) -> bool {
        *directory == self.at || self.at.is_below(directory)
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
            self.note_other_mode(&entry, before);
            return self.publish(entry, before);
        }
        let Some(there) = self.look(&entry.path, before)? else {
            self.note_other_mode(&entry, before);
            return self.add(entry, before);
        };
        if before.is_none() && there.has_one_name() {
            self.arriving.push((there.ino(), entry.path.clone()));
        }
        if self.is_apart(&entry.path, &there) {
            return self.skip(entry, before);
        }
        if entry.object.kind == Kind::Directory && there.is_dir() {
            return self.merge_directory(entry, before, &there);
        }
        self.take_place(entry, before, there)
    }

    /// The stage of a change has directories only to hold what changes: one that is put back by it does not say which mode it is to have,
    /// and may open to others what was closed to them.
    fn note_other_mode(&mut self, entry: &Entry, before: Option<&Entry>) {
        let (new, old) = (&entry.object, before.map(|before| &before.object));
        let is_other = old.is_some_and(|old| old.kind == Kind::Directory && old.mode != new.mode);
        if new.kind == Kind::Directory && self.is_mere(&entry.path) && is_other && !self.rules.drift {
            self.drift.push(entry.path.clone());
        }
    }

    /// Notes a directory of another file system, which stands against the commit. What is below it is not looked at: it is not the output's.
    fn is_apart(&mut self, path: &RelPath, there: &Present) -> bool {
        let is_apart = matches!(there, Present::Seen(stat) if self.live.is_apart(stat));
        if is_apart {
            self.apart.push(path.clone());
            self.gone = Some(path.clone());
        }
        is_apart
    }

    fn look(&self, path: &RelPath, before: Option<&Entry>) -> Result<Option<Present>> {
        match before {
            Some(before) if self.live.is_as_published(path) => Ok(Some(Present::AsPublished(before.object))),
            _ => Ok(self.live.stat(path)?.map(Present::Seen)),
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
            self.intent.stage_modes.push((entry.path.clone(), mode));
            if moves {
                self.modes.insert(entry.path.clone(), (mode | 0o700, mode));
            }
        }
    }

    /// A directory is where the directory goes: it stays, with its own inode, and what is foreign in it.
    fn merge_directory(&mut self, mut entry: Entry, before: Option<&Entry>, there: &Present) -> Result<()> {
        let found = there.mode();
        self.open_staged(&entry, false);
        if self.is_mere(&entry.path) {
            entry.object.mode = before.map_or(found, |before| before.object.mode);
        }
        if self.is_change() && found & 0o700 == 0o700 {
            self.writable.insert(entry.path.clone());
        }
        if self.rules.group.is_some() {
            entry.object.mode = found;
        }
        let wanted = entry.object.mode;
        let allowed = match before.map(|before| &before.object) {
            Some(object) if object.kind == Kind::Directory => {
                object.mode == found || self.rules.drift || problem(&mut self.drift, &entry.path)
            }
            _ => self.rules.adopt || found == wanted || problem(&mut self.foreign, &entry.path),
        };
        if allowed && found != wanted {
            self.modes.insert(entry.path.clone(), (found, wanted));
        }
        entry.object.ino = there.ino();
        self.intent.found |= !before.is_some_and(|before| there.is_untouched(&before.object));
        self.publish(entry, before)
    }

    /// Something is where the entry goes, and not both are directories.
    fn take_place(&mut self, entry: Entry, before: Option<&Entry>, there: Present) -> Result<()> {
        let there = match before {
            Some(before) => self.hold_against(before, there)?,
            None => there,
        };
        match there {
            Present::AsPublished(old) if old.publishes_same(&entry.object) => self.keep(entry, before, old),
            Present::AsPublished(old) if old.kind == Kind::Directory => self.replace_directory(entry, before, old),
            Present::AsPublished(old) => self.replace(entry, before, old),
            Present::Seen(stat) => self.take_place_of_other(entry, before, &stat),
        }
    }

    /// What is where the entry goes is not what was published there.
    fn take_place_of_other(&mut self, entry: Entry, before: Option<&Entry>, stat: &Stat) -> Result<()> {
        match stat.kind {
            None | Some(Kind::Directory) => {
                self.immovable.push(entry.path.clone());
                self.skip(entry, before)
            }
            Some(kind) => {
                let old = self.live.object(&entry.path, kind, stat)?;
                let same = old.publishes_same(&entry.object);
                self.files_taken_over += u64::from(before.is_none() && self.rules.adopt_all);
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
                    (false, _) => self.skip(entry, before),
                    (true, true) => self.keep(entry, before, old),
                    (true, false) => self.replace(entry, before, old),
                }
            }
        }
    }

    fn keep(&mut self, mut entry: Entry, before: Option<&Entry>, live: Object) -> Result<()> {
        self.intent.found |= before.is_none_or(|before| before.object != live);
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
    fn replace_directory(&mut self, entry: Entry, before: Option<&Entry>, old: Object) -> Result<()> {
        let contents = self.contents(&entry.path)?;
        for path in contents.foreign {
            self.immovable.push(path);
        }
        self.note_drift(contents.drifted);
        if !self.rules.exchange {
            self.needs_exchange.push(entry.path.clone());
        } else if !self.live.is_movable(&entry.path)? {
            self.lower.push(entry.path.clone());
        }
        self.unlock_directory(&entry.path, old.mode)?;
        self.gone = Some(entry.path.clone());
        self.replaces.push(Operation::Replace { path: entry.path.clone(), old, new: entry.object });
        self.move_in(entry, before)
    }

    /// The entry cannot be published; the reason has been noted. It is a change all the same, and what is below it goes along.
    fn skip(&mut self, entry: Entry, before: Option<&Entry>) -> Result<()> {
        if entry.object.kind == Kind::Directory {
            self.moved = Some(entry.path.clone());
        }
        self.note_change(&entry, before)
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
        let Some(there) = self.look(&before.path, Some(before))? else {
            self.stale(before);
            return Ok(());
        };
        if self.is_apart(&before.path, &there) {
            self.stale(before);
            return Ok(());
        }
        if there.has_one_name() {
            self.leaving.insert(there.ino(), before.path.clone());
        }
        match self.hold_against(before, there)? {
            Present::AsPublished(old) if old.kind == Kind::Directory => return self.remove_directory(before, old),
            Present::AsPublished(old) => self.removes.push(Operation::Remove { path: before.path.clone(), old }),
            Present::Seen(stat) => self.remove_other(before, &stat)?,
        }
        self.stale(before);
        Ok(())
    }

    /// What is at the path of a stale entry is not what was published there.
    fn remove_other(&mut self, before: &Entry, stat: &Stat) -> Result<()> {
        match stat.kind {
            // What took a published entry's place, and is no file or link, stays: it is foreign from now on.
            None | Some(Kind::Directory) => self.note_drift(vec![before.path.clone()]),
            Some(kind) if self.rules.drift => {
                let old = self.live.object(&before.path, kind, stat)?;
                self.removes.push(Operation::Remove { path: before.path.clone(), old });
            }
            Some(_) => self.drift.push(before.path.clone()),
        }
        Ok(())
    }

    /// A stale directory moves away as one, unless something foreign lives in it: then it stays, and is foreign itself.
    fn remove_directory(&mut self, before: &Entry, old: Object) -> Result<()> {
        let contents = self.contents(&before.path)?;
        // What is taken over in it goes by itself.
        let goes_apart = self.rules.adopt_all && !self.keeps_something_at(&before.path);
        if contents.foreign.is_empty() || goes_apart {
            if self.rules.stale == Stale::Apart || !contents.foreign.is_empty() {
                self.removes.push(Operation::RemoveDirectory { path: before.path.clone(), mode: old.mode });
            } else {
                self.note_drift(contents.drifted);
                self.unlock_directory(&before.path, old.mode)?;
                self.removes.push(Operation::Remove { path: before.path.clone(), old });
                self.gone = Some(before.path.clone());
            }
        }
        self.stale(before);
        Ok(())
    }

    fn unlock_directory(&mut self, path: &RelPath, mode: u32) -> Result<()> {
        if mode & 0o700 != 0o700 {
            self.unlock.push((path.clone(), mode));
        }
        self.expect_open(path)
    }

    fn note_drift(&mut self, drifted: Vec<RelPath>) {
        if !self.rules.drift {
            drifted.into_iter().for_each(|path| self.drift.push(path));
        }
    }

    /// What is in a directory of the output, held against the manifest. Of a directory in it is known then what is in that.
    fn contents(&mut self, path: &RelPath) -> Result<Contents> {
        if let Some((above, contents)) = &self.contents
            && path.is_below(above)
        {
            return Ok(contents.below(path));
        }
        let contents = self.look_into(path)?;
        self.contents = Some((path.clone(), contents.clone()));
        Ok(contents)
    }

    fn look_into(&self, path: &RelPath) -> Result<Contents> {
        let mut contents = Contents::default();
        for Walked { path, stat } in self.live.below(path)? {
            let Some(object) = self.base.get(&path)?.filter(|_| !self.live.is_apart(&stat)) else {
                contents.foreign.push(path);
                continue;
            };
            let published = Entry { path, object };
            if let Present::Seen(_) = self.hold_against(&published, Present::Seen(stat))? {
                contents.drifted.push(published.path);
            }
        }
        Ok(contents)
    }

    /// What lies at an owned path, held against what was published there: by identity, and by content where that disagrees. A directory may be
    /// another one, and have another mode: that is asked where it counts.
    fn hold_against(&self, before: &Entry, there: Present) -> Result<Present> {
        let (Present::Seen(stat), published) = (&there, &before.object) else { return Ok(there) };
        let found = match published.kind {
            Kind::Directory => stat.is_dir().then(|| Object::directory(stat)),
            _ if published.mode != stat.mode => None,
            kind => published.find(stat, Like::Published, || self.live.object(&before.path, kind, stat))?,
        };
        Ok(found.map_or(there, Present::AsPublished))
    }

    /// Puts an entry into the new manifest that no operation of its own moves.
    fn publish(&mut self, entry: Entry, before: Option<&Entry>) -> Result<()> {
        if before.is_none_or(|before| before.object != entry.object) {
            self.intent.edits.push(Edit { path: entry.path.clone(), object: Some(entry.object) });
        }
        self.note_change(&entry, before)
    }

    /// Notes what an entry changes for readers.
    fn note_change(&mut self, entry: &Entry, before: Option<&Entry>) -> Result<()> {
        let (old, new) = (before.map(|before| &before.object), &entry.object);
        let kind = ChangeKind::between(old, new);
        let looks_alike = |old: &Object| new.kind == Kind::File && old.size == new.size && old.mtime == new.mtime;
        if kind == Some(ChangeKind::Modified) && old.is_some_and(looks_alike) {
            self.look_alikes.push(entry.path.clone());
        }
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
        self.intent.edits.push(Edit { path: before.path.clone(), object: None });
    }
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

/// What is in a directory of the output, in order of the tree.
#[derive(Default, Clone)]
pub(super) struct Contents {
    foreign: Vec<RelPath>,
    drifted: Vec<RelPath>,
}

impl Contents {
    fn below(&self, path: &RelPath) -> Self {
        let those = |all: &[RelPath]| {
            let start = all.partition_point(|other| other <= path);
            all[start..].iter().take_while(|other| other.is_below(path)).cloned().collect()
        };
        Self { foreign: those(&self.foreign), drifted: those(&self.drifted) }
    }
}

/// Notes a path that stands against the commit; always `false`.
fn problem(paths: &mut Paths, path: &RelPath) -> bool {
    paths.push(path.clone());
    false
}

/// What lies at a path of the output.
enum Present {
    /// What was published there, known to be so or held against it ([`Planner::hold_against`]): as it lies there now.
    AsPublished(Object),
    /// Anything else, or not held against anything yet.
    Seen(Stat),
}

impl Present {
    fn is_dir(&self) -> bool {
        match self {
            Present::AsPublished(object) => object.kind == Kind::Directory,
            Present::Seen(stat) => stat.is_dir(),
        }
    }

    fn mode(&self) -> u32 {
        match self {
            Present::AsPublished(object) => object.mode,
            Present::Seen(stat) => stat.mode,
        }
    }

    fn ino(&self) -> u64 {
        match self {
            Present::AsPublished(object) => object.ino,
            Present::Seen(stat) => stat.ino,
        }
    }

    fn is_untouched(&self, recorded: &Object) -> bool {
        match self {
            Present::AsPublished(_) => true,
            Present::Seen(stat) => recorded.is_untouched(stat),
        }
    }

    /// Whether one path leads to it, as long as no other path leads to the same name. Of what was not looked at that is not known: a new
    /// path that leads to it was, and so tells.
    fn has_one_name(&self) -> bool {
        match self {
            Present::AsPublished(_) => true,
            Present::Seen(stat) => stat.is_dir() || stat.nlink == 1,
        }
    }
}

fn below(ancestor: &Option<RelPath>, path: &RelPath) -> bool {
    ancestor.as_ref().is_some_and(|ancestor| path.is_below(ancestor))
}
