//! What lies in the output and txfs did not publish, where all of it is to be taken over, or what stays of it is to be said.
//!
//! Invariant: a repository, the state of an output, what is mounted in it, a subvolume, and what is neither file, directory nor link are never removed.

use super::{Base, Change, ChangeKind, Live, Planner};
use crate::error::{Paths, Result};
use crate::format::journal::record::Operation;
use crate::format::manifest::Entry;
use crate::fs::Kind;
use crate::fs::tree::Walked;
use crate::path::RelPath;
use crate::warning::Warning;

/// What git keeps of a repository, or of where it is.
const REPOSITORY: &[u8] = b".git";

/// Entries of the output that are neither published nor staged, ascending.
#[derive(Debug, Default)]
pub(super) struct Foreign {
    entries: Vec<Walked>,
    /// Those that stay, whatever is taken over, ascending.
    kept: Vec<RelPath>,
}

impl<B: Base, L: Live> Planner<'_, B, L> {
    /// Looks for it before the stage is planned.
    pub(super) fn look_for_foreign(&mut self, staged: &[Entry]) -> Result<()> {
        if !self.rules.adopt || !self.live.exists() {
            return Ok(());
        }
        let find = |path: &RelPath| staged.binary_search_by(|entry| entry.path.cmp(path)).ok().map(|i| &staged[i]);
        let is_hidden = |above: RelPath| find(&above).is_some_and(|entry| entry.object.kind != Kind::Directory);
        for entry in self.live.foreign()? {
            // What is below a file that is staged stands against the commit, which says so.
            if find(&entry.path).is_some()
                || self.base.get(&entry.path)?.is_some()
                || entry.path.ancestors().any(is_hidden)
            {
                continue;
            }
            let is_kept = entry.stat.kind.is_none() || is_repository(&entry.path) || self.live.is_apart(&entry.stat);
            if is_kept {
                self.others.kept.push(entry.path.clone());
            }
            self.others.entries.push(entry);
        }
        Ok(())
    }

    /// Whether something foreign at or below a path stays when everything is taken over.
    pub(super) fn keeps_something_at(&self, path: &RelPath) -> bool {
        let kept = &self.others.kept;
        let next = kept.get(kept.partition_point(|kept| kept < path));
        next.is_some_and(|next| next == path || next.is_below(path))
    }

    /// Removes what is taken over and not staged, each by itself: nothing but the journal proves that it was ours. Or says what stays.
    pub(super) fn remove_foreign(&mut self) -> Result<()> {
        let mut stays = Paths::default();
        for Walked { path, stat } in std::mem::take(&mut self.others.entries) {
            let Some(kind) = stat.kind.filter(|_| self.rules.adopt_all && !self.keeps_something_at(&path)) else {
                // A directory stays for what is in it; and nobody takes a repository for a page.
                if (!stat.is_dir() || self.live.is_apart(&stat)) && !is_repository(&path) {
                    stays.push(path);
                }
                continue;
            };
            if kind == Kind::Directory {
                self.removes.push(Operation::RemoveDirectory { path: path.clone(), mode: stat.mode });
            } else {
                self.leaving.extend((stat.nlink == 1).then(|| (stat.ino, path.clone())));
                let old = self.live.object(&path, kind, &stat)?;
                self.removes.push(Operation::Remove { path: path.clone(), old });
                self.files_removed += 1;
                self.files_taken_over += 1;
                self.foreign_files_removed += 1;
            }
            self.foreign_removed += 1;
            self.plan.summary.removed += 1;
            self.plan.changes.push(Change { kind: ChangeKind::Removed, path, entry: kind });
        }
        if self.foreign_removed > 0 {
            self.plan.changes.sort_by(|a, b| a.path.cmp(&b.path));
        }
        if !stays.is_empty() {
            self.plan.warnings.push(Warning::Stays { paths: stays, all: self.rules.adopt_all });
        }
        Ok(())
    }
}

fn is_repository(path: &RelPath) -> bool {
    path.components().any(|name| name == REPOSITORY)
}
