//! What is staged and what is published, walked side by side: each path becomes an operation, stays, or stands against the commit.

use super::{Base, Change, ChangeKind, Live, Planner, Scope, Stale};
use crate::error::{Paths, Result};
use crate::format::journal::record::Operation;
use crate::format::manifest::inventory::Cursor;
use crate::format::manifest::writer::Edit;
use crate::format::manifest::{Entry, Object};
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
        let Some(stat) = self.stat(&entry.path, before)? else {
            self.note_other_mode(&entry, before);
            return self.add(entry, before);
        };
        if before.is_none() && has_one_name(&stat) {
            self.arriving.push((stat.ino, entry.path.clone()));
        }
        if entry.object.kind == Kind::Directory && stat.is_dir() {
            return self.merge_directory(entry, before, &stat);
        }
        self.take_place(entry, before, &stat)
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
        if self.is_mere(&entry.path) {
            entry.object.mode = before.map_or(stat.mode, |before| before.object.mode);
        }
        if self.is_change() && stat.mode & 0o700 == 0o700 {
            self.writable.insert(entry.path.clone());
        }
        if self.rules.group.is_some() {
            entry.object.mode = stat.mode;
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
        let is_durable = |before: &Entry| before.object.ino == stat.ino && before.object.mode == stat.mode;
        self.plan.found |= !before.is_some_and(is_durable);
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
                self.skip(entry, before)
            }
            (None, Some(kind)) => {
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
        self.plan.found |= before.is_none_or(|before| before.object != live);
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
        } else if !self.live.is_movable(&entry.path)? {
            self.lower.push(entry.path.clone());
        }
        self.unlock_directory(&entry.path, stat)?;
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
        let Some(stat) = self.stat(&before.path, Some(before))? else {
            self.stale(before);
            return Ok(());
        };
        if has_one_name(&stat) {
            self.leaving.insert(stat.ino, before.path.clone());
        }
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
        // What is taken over in it goes by itself.
        let goes_apart = self.rules.adopt_all && !self.keeps_something_at(&before.path);
        if contents.foreign.is_empty() || goes_apart {
            if self.rules.stale == Stale::Apart || !contents.foreign.is_empty() {
                self.removes.push(Operation::RemoveDirectory { path: before.path.clone(), mode: stat.mode });
            } else {
                self.note_drift(contents.drifted);
                self.unlock_directory(&before.path, stat)?;
                let old = Object { ino: stat.ino, mode: stat.mode, ..before.object };
                self.removes.push(Operation::Remove { path: before.path.clone(), old });
                self.gone = Some(before.path.clone());
            }
        }
        self.stale(before);
        Ok(())
    }

    fn unlock_directory(&mut self, path: &RelPath, stat: &Stat) -> Result<()> {
        if stat.mode & 0o700 != 0o700 {
            self.unlock.push((path.clone(), stat.mode));
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
        self.plan.edits.push(Edit { path: before.path.clone(), object: None });
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

/// Whether one path leads to it, as long as no other path leads to the same name.
fn has_one_name(stat: &Stat) -> bool {
    stat.is_dir() || stat.nlink == 1
}

fn below(ancestor: &Option<RelPath>, path: &RelPath) -> bool {
    ancestor.as_ref().is_some_and(|ancestor| path.is_below(ancestor))
}
