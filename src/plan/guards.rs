//! What looks like a mistake of the build: nothing staged, much less than before, names that a file system could not hold apart.

use std::collections::HashMap;

use super::{Base, Change, ChangeKind, Live, Planner, Scope};
use crate::error::{Paths, Problem, Result};
use crate::format::manifest::Entry;
use crate::fs::Kind;
use crate::path::RelPath;

impl<B: Base, L: Live> Planner<'_, B, L> {
    pub(super) fn guard_stage(&mut self, staged: &[Entry]) {
        self.no_file = staged.iter().all(|entry| entry.object.kind == Kind::Directory);
        if self.no_file && !self.rules.empty && matches!(self.scope, Scope::Whole) {
            self.plan.problems.push(Problem::EmptyStage);
        }
    }

    /// A build that wrote next to nothing and said it succeeded would take the site down. One that wrote no file at all is the other
    /// guard's affair, and its alone.
    pub(super) fn guard_size(&mut self) {
        if matches!(self.scope, Scope::Change { .. }) {
            return;
        }
        let files = self.base.totals().files + self.files_taken_over;
        // Of what is taken over as published, what stays is not new.
        let stays = self.files_taken_over.saturating_sub(self.foreign_files_removed);
        let added = self.files_added.saturating_sub(stays);
        let lost = self.files_removed.saturating_sub(added);
        let limit = self.rules.max_removed;
        // What is captured tells of no file that stays as it is.
        let is_captured = matches!(self.scope, Scope::Captured { .. });
        let is_empty = if is_captured { lost >= files } else { self.no_file };
        if is_captured && is_empty && files > 0 && !self.rules.empty {
            self.plan.problems.push(Problem::EmptyStage);
        }
        if !is_empty && lost * 100 > files * u64::from(limit) {
            let removed = self.files_removed;
            self.plan.problems.push(Problem::Shrunken { removed, added, files, limit });
        }
    }

    /// Two names in a directory, a new one among them, that are one where case is not distinguished: a checkout or a deployment
    /// there would lose one of them.
    pub(super) fn guard_case(&mut self) -> Result<()> {
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
            self.plan.problems.push(Problem::CaseCollision(collisions.into_iter().collect()));
        }
        Ok(())
    }

    /// A new name that leads to what is stale: the output does not distinguish case, and what is published under the one would go with the
    /// other.
    pub(super) fn guard_case_rename(&mut self) {
        let is_beside = |a: &RelPath, b: &RelPath| a.parent_bytes() == b.parent_bytes();
        let both = |(ino, new): &(u64, RelPath)| {
            let old = self.leaving.get(ino).filter(|old| is_beside(old, new))?;
            Some([old.clone(), new.clone()])
        };
        let paths: Paths = self.arriving.iter().filter_map(both).flatten().collect();
        if !paths.is_empty() {
            self.plan.problems.push(Problem::CaseRename(paths));
        }
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
}

/// A name as file systems see it that do not distinguish case; `None` for what is no text.
fn fold(path: &RelPath) -> Option<String> {
    std::str::from_utf8(path.name()).ok().map(str::to_lowercase)
}
