//! What a transaction takes from the current generation without staging it.
//!
//! Invariant: what is staged, or removed, is not taken; and what a plan would have to move is not where it was published, and has to
//! be copied.
//!
//! Nothing is changed here but the stage, into which it is copied where it has to be.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;

use crate::error::Result;
use crate::format::journal::record::Operation;
use crate::format::manifest::{Entry, Totals};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind};
use crate::options::Exclude;
use crate::path::RelPath;
use crate::plan::Intent;
use crate::plan::live::Drifted;
use crate::stage::copy::{self, Source};
use crate::stage::exclude;

/// What is published as it is in the current generation, and is not staged.
pub(crate) struct Referenced<F: Fs> {
    pub(crate) of: Original<F>,
    /// Ascending.
    pub(crate) entries: Vec<Entry>,
    /// What an audit of the output found meanwhile.
    pub(crate) drifted: Option<Drifted>,
}

/// What it is a part of.
pub(crate) enum Original<F: Fs> {
    /// A directory of the user's, from which it could be copied as well.
    Source(Tree<F>),
    /// A generation that is put together again: what is not in the output is nowhere.
    Generation(u64),
}

impl<F: Fs> Referenced<F> {
    /// Whether everything published is referenced and untouched: then there is nothing to plan. Not without files: then the guard
    /// against an empty stage has to speak.
    pub(crate) fn is_all_of(&self, published: Totals) -> bool {
        // What is referenced is published: as many are the same.
        let all = published.files > 0 && self.entries.len() as u64 == published.entries;
        all && self.drifted.as_ref().is_some_and(Drifted::is_empty)
    }

    /// The entries without those that are excluded.
    pub(crate) fn but_for(&self, excluded: Option<&Exclude>) -> Cow<'_, [Entry]> {
        match excluded {
            None => Cow::Borrowed(&self.entries),
            Some(excluded) => self.entries.iter().filter(|entry| !exclude::covers(excluded, entry)).cloned().collect(),
        }
    }

    /// The entries that are to be moved into the output, by themselves or with a directory: they are not there as they were published.
    pub(crate) fn missing(&self, intent: &Intent) -> Vec<RelPath> {
        let moves = intent.operations.iter().filter(|operation| !operation.is_mode());
        let moved: BTreeSet<&RelPath> = moves.map(Operation::path).collect();
        self.entries.iter().map(|entry| &entry.path).filter(|path| path.is_at_or_below(&moved)).cloned().collect()
    }

    /// The mode of a directory, if it is taken from the current generation.
    pub(crate) fn mode_of_dir(&self, path: &RelPath) -> Option<u32> {
        let index = self.entries.binary_search_by(|entry| entry.path.cmp(path)).ok()?;
        let object = &self.entries[index].object;
        (object.kind == Kind::Directory).then_some(object.mode)
    }

    /// What is staged at `path`, or is to be nowhere, is not taken from the current generation.
    pub(crate) fn leave_out(&mut self, path: &RelPath) {
        let start = self.entries.partition_point(|entry| entry.path < *path);
        let is_out = |entry: &&Entry| entry.path == *path || entry.path.is_below(path);
        let count = self.entries[start..].iter().take_while(is_out).count();
        self.entries.drain(start..start + count);
    }
}

/// Those of some paths, ascending, at which nothing is staged, and could be.
pub(crate) fn not_staged<F: Fs>(stage: &Tree<F>, paths: &[RelPath]) -> Result<Vec<RelPath>> {
    let mut not_staged = Vec::new();
    let (mut before, mut blocked) = (&RelPath::root(), None::<RelPath>);
    for path in paths {
        for above in path.ancestors_not_of(before) {
            let is_blocked = blocked.as_ref().is_some_and(|blocked| above.is_below(blocked));
            if !is_blocked && stage.stat(&above)?.is_some_and(|stat| !stat.is_dir()) {
                blocked = Some(above);
            }
        }
        before = path;
        let is_free = stage.stat(path)?.is_none() && !blocked.as_ref().is_some_and(|blocked| path.is_below(blocked));
        not_staged.extend(is_free.then(|| path.clone()));
    }
    Ok(not_staged)
}

/// Copies from a directory of the user's what has these paths, ascending, where that is the one at `at`; `stage` is what is staged there.
pub(crate) fn copy_from_source<F: Fs>(from: &Tree<F>, stage: &Tree<F>, at: &RelPath, paths: &[RelPath]) -> Result<()> {
    let paths: Vec<_> = paths.iter().filter_map(|path| path.seen_from(at)).collect();
    copy::copy_paths(Source::foreign(from), stage, paths.iter().cloned().map(Ok))?;
    are_there(stage, from, &paths)
}

/// What went away while it was copied is not there.
pub(crate) fn are_there<F: Fs>(stage: &Tree<F>, from: &Tree<F>, paths: &[RelPath]) -> Result<()> {
    for path in paths {
        if stage.stat(path)?.is_none() {
            return Err(from.io("copy", path)(io::ErrorKind::NotFound.into()));
        }
    }
    Ok(())
}
