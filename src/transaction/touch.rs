//! Giving the files that are published the time of their commit.
//!
//! Invariants:
//! 1. Only the stage is written, before the commit point: what is published already as it is staged keeps its time (G5).
//! 2. What is intended of a file is what its attributes are afterwards.
//!
//! A crash inside leaves a stage with other times.

use std::io;

use crate::error::{Error, Result};
use crate::format::identity::Object;
use crate::format::journal::record::Operation;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Timestamp};
use crate::path::RelPath;
use crate::plan::Intent;

/// Gives every file that `intent` moves out of `stage` this time.
///
/// # Errors
/// A file is another than was planned, or its time cannot be set.
pub(crate) fn touch<F: Fs>(stage: &Tree<F>, intent: &mut Intent, time: Timestamp) -> Result<()> {
    let mut touching = Touching { stage, time, last_change: intent.last_change };
    let mut directories = Vec::new();
    for operation in &mut intent.operations {
        let (Operation::Add { path, new } | Operation::Replace { path, new, .. }) = operation else { continue };
        match new.kind {
            Kind::File => touching.file(path, new)?,
            Kind::Directory => directories.push(path.clone()),
            Kind::Symlink => {}
        }
    }
    // What moves along with a directory.
    let directories = directories.iter().collect();
    for edit in &mut intent.edits {
        if let Some(object) = edit.object.as_mut().filter(|object| object.kind == Kind::File)
            && edit.path.is_at_or_below(&directories)
        {
            touching.file(&edit.path, object)?;
        }
    }
    intent.last_change = touching.last_change;
    Ok(())
}

struct Touching<'a, F: Fs> {
    stage: &'a Tree<F>,
    time: Timestamp,
    last_change: Timestamp,
}

impl<F: Fs> Touching<'_, F> {
    fn file(&mut self, path: &RelPath, object: &mut Object) -> Result<()> {
        let Self { stage, time, .. } = *self;
        let (file, found) = stage.open_file(path)?;
        if !object.is(&found) {
            let changed = io::Error::other("it was changed after it was read: wait until the build has finished");
            return Err(Error::io("publish", path.under(stage.at()))(changed));
        }
        let touched = stage.fs.set_mtime(&file, time).and_then(|()| stage.fs.stat_file(&file));
        let touched = touched.map_err(stage.io("set the time of", path))?;
        // As the file system keeps it.
        object.mtime = touched.mtime;
        self.last_change = self.last_change.max(touched.ctime);
        Ok(())
    }
}
