//! The order of the operations (invariant 3), and the modes that have to be opened for them and set when they are done.

use super::{Base, Live, Planned, Planner, Summary};
use crate::error::{Paths, Problem, Result};
use crate::format::journal::record::Operation;
use crate::fs::Stat;
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::store::sharing::is_open_to;
use crate::warning::Warning;

impl<B: Base, L: Live> Planner<'_, B, L> {
    pub(super) fn finish(mut self) -> Result<Planned> {
        let lists = [
            (std::mem::take(&mut self.foreign), Problem::Foreign as fn(Paths) -> Problem),
            (std::mem::take(&mut self.immovable), Problem::ForeignDirectory),
            (std::mem::take(&mut self.drift), Problem::Drift),
            (std::mem::take(&mut self.needs_exchange), Problem::NeedsExchange),
            (std::mem::take(&mut self.lower), Problem::LowerLayer),
        ];
        self.plan
            .problems
            .extend(lists.into_iter().filter(|(paths, _)| !paths.is_empty()).map(|(paths, of)| of(paths)));
        let paths = std::mem::take(&mut self.look_alikes);
        if !paths.is_empty() && !self.rules.touch {
            self.plan.warnings.push(Warning::LooksUnchanged { paths });
        }
        let (open, close) = self.mode_operations()?;
        open.iter().chain(&close).try_for_each(|operation| self.note_mode_of(operation.path()))?;
        let apart = std::mem::take(&mut self.apart);
        if !apart.is_empty() {
            self.plan.problems.push(Problem::Apart(apart));
        }
        if let Some(group) = self.rules.group
            && !self.closed.is_empty()
        {
            let paths = std::mem::take(&mut self.closed).into_iter().collect();
            self.plan.problems.push(Problem::NotShared { paths, group, staged: false });
        }
        let Summary { changed, removed, .. } = self.plan.summary;
        self.plan.summary.unchanged =
            self.base.totals().entries.saturating_sub(changed + removed - self.foreign_removed);
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
        self.intent.operations = in_sequence(if left_out(Mutant::RemovalsLast) {
            [open, removes, adds, replaces, close]
        } else if left_out(Mutant::AdditionsFirst) {
            [open, replaces, adds, removes, close]
        } else {
            [open, adds, replaces, removes, close]
        });
        self.plan.operations = self.intent.operations.len() as u64;
        Ok(Planned { plan: self.plan, intent: self.intent })
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
        if self.rules.group.is_some() {
            parents.iter().try_for_each(|path| self.expect_open(path))?;
        }
        parents.retain(|path| !self.writable.contains(path));
        for path in parents {
            let Some(stat) = self.live.stat(&path)? else { continue };
            if self.live.is_apart(&stat) {
                self.apart.push(path);
                continue;
            }
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

impl<B: Base, L: Live> Planner<'_, B, L> {
    /// Notes when the mode of a directory was changed last that is to have another: one that a crash brings back is older.
    fn note_mode_of(&mut self, path: &RelPath) -> Result<()> {
        if let Some(stat) = self.live.stat(path)?.filter(Stat::is_dir) {
            self.intent.last_change = self.intent.last_change.max(stat.ctime);
        }
        Ok(())
    }

    /// Notes a directory of the output that not every member of the group can use that shares the store.
    pub(super) fn expect_open(&mut self, path: &RelPath) -> Result<()> {
        let Some(group) = self.rules.group else { return Ok(()) };
        // What the manifest says of it does not say whose it is.
        if self.live.stat(path)?.is_some_and(|stat| stat.is_dir() && !is_open_to(&stat, group)) {
            self.closed.insert(path.clone());
        }
        Ok(())
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
