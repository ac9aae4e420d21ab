//! A stage of a shared store: what every member of the group can use, whatever tools and their umask made of it.
//!
//! Invariants (journal-spec.md, "Shared stores"):
//! 1. Only entries of the stage are changed, and those before they are scanned: what is committed says the modes that are published.
//! 2. What another member could neither move nor read is not committed: nobody but its owner could recover.
//!
//! A crash inside leaves a stage some of which is given: the next commit gives the rest.

use crate::error::{Paths, Problem, Result};
use crate::format::manifest::Entry;
use crate::fs::tree::{Tree, Walked};
use crate::fs::{Fs, Kind, Stat};
use crate::path::RelPath;
use crate::store::sharing::{Access, content_mode, is_open_to, is_readable_by, share_entry};

/// Gives all that is staged to the group that shares the store, as far as it is this user's; and says what stays closed to its members.
pub(crate) fn share<F: Fs>(stage: &Tree<F>) -> Result<Option<Problem>> {
    let Some(group) = stage.group() else { return Ok(None) };
    let root = RelPath::root();
    let mut entries = Vec::from_iter(stage.stat(&root)?.map(|stat| Walked { path: root.clone(), stat }));
    stage.walk(
        &root,
        |_| true,
        |entry| {
            stage.check_interrupt(&entry.path)?;
            entries.push(entry);
            Ok(())
        },
    )?;
    let mut closed = Paths::default();
    for entry in entries {
        share_entry(stage, &entry, group, Access::Content)?;
        if is_closed(&entry.stat, group) && stage.stat(&entry.path)?.is_some_and(|stat| is_closed(&stat, group)) {
            closed.push(entry.path);
        }
    }
    Ok((!closed.is_empty()).then_some(Problem::NotShared { paths: closed, group, staged: true }))
}

fn is_closed(stat: &Stat, group: u32) -> bool {
    match stat.kind {
        Some(Kind::Directory) => !is_open_to(stat, group),
        Some(Kind::File) => !is_readable_by(stat, group),
        _ => false,
    }
}

/// Gives what would be staged the modes that it would have then.
pub(crate) fn expect_modes(entries: &mut [Entry], group: Option<u32>) {
    if group.is_some() {
        entries.iter_mut().for_each(|entry| entry.object.mode = content_mode(entry.object.kind, entry.object.mode));
    }
}
