//! What of a stage is not to be published.
//!
//! Invariant: it is gone from the stage before that is planned. A directory moves into the output as one, with all
//! that lies in it.
//!
//! A crash inside leaves a stage that nobody commits, or one without some of what was excluded.

use crate::error::Result;
use crate::format::manifest::Entry;
use crate::fs::tree::{Named, Tree};
use crate::fs::{Fs, Kind};
use crate::options::Exclude;
use crate::path::RelPath;

pub(crate) fn is_excluded(excluded: &Exclude, Named { path, kind }: &Named) -> bool {
    excluded.has(path.as_path(), *kind == Some(Kind::Directory))
}

/// Whether an entry is excluded, by itself or with a directory that it is in.
pub(crate) fn covers(excluded: &Exclude, entry: &Entry) -> bool {
    excluded.covers(entry.path.as_path(), entry.object.kind == Kind::Directory)
}

/// Removes what is excluded from the stage.
pub(crate) fn remove<F: Fs>(stage: &Tree<F>, excluded: &Exclude) -> Result<()> {
    let mut found = Vec::new();
    stage.walk_names(
        &RelPath::root(),
        |named| !is_excluded(excluded, named),
        |named| {
            stage.check_interrupt(&named.path)?;
            found.extend(is_excluded(excluded, &named).then_some(named.path));
            Ok(())
        },
    )?;
    found.iter().try_for_each(|path| {
        let dir = path.parent();
        // It has the mode that is to be published.
        let closed = stage.make_writable(&dir)?;
        let removed = stage.remove(path);
        let closing = closed.map_or(Ok(()), |mode| stage.set_dir_mode(&dir, mode));
        removed.and(closing)
    })
}
