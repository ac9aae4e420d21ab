//! The two ends of an operation: an entry of the output, of the stage, or of what was removed; and what can be done between two.

use std::io;

use crate::error::{Error, Result};
use crate::format::identity::{Like, Object};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, RenameMode, Stat};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::stage::digest;

/// Whether an inode that disagrees is given a second chance by its content: a file system may give inodes other numbers, and a
/// store may have been restored from a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    No,
    Yes,
}

/// One end of a rename.
pub(super) struct End<'a, F: Fs> {
    pub(super) tree: &'a Tree<F>,
    pub(super) path: RelPath,
    /// Whether it is an entry of the output.
    pub(super) published: bool,
}

impl<F: Fs> End<'_, F> {
    pub(super) fn stat(&self) -> Result<Option<Stat>> {
        self.tree.stat(&self.path)
    }

    pub(super) fn io(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        self.tree.io(action, &self.path)
    }

    /// Whether the object is here: by identity, and in doubt by content too.
    pub(super) fn is(&self, object: &Object, stat: Option<&Stat>, doubt: Doubt) -> Result<bool> {
        let Some(stat) = stat else { return Ok(false) };
        match doubt {
            Doubt::No => Ok(object.is(stat)),
            Doubt::Yes => Ok(digest::find(self.tree, &self.path, object, stat, Like::Published)?.is_some()),
        }
    }
}

pub(super) fn stat<F: Fs>(end: Option<&End<'_, F>>) -> Result<Option<Stat>> {
    end.map_or(Ok(None), End::stat)
}

/// To give a directory another parent, the kernel wants write permission on the directory itself. The plan opens closed ones
/// first; but a crash can keep the move and lose the mode, or keep the mode that an undone move was to be followed by.
pub(super) fn open_for_move<F: Fs>(kind: Kind, end: &End<'_, F>) -> Result<()> {
    if kind == Kind::Directory { end.tree.make_writable(&end.path).map(drop) } else { Ok(()) }
}

pub(super) fn rename<F: Fs>(source: &End<'_, F>, target: &End<'_, F>, mode: RenameMode) -> Result<()> {
    // An exchange does the same whichever end is named first. But the kernel tells who watches the first that its entry went and
    // another came, and who watches the second the other way round, as if it were gone: the output is what is watched.
    let [first, second] = if mode == RenameMode::Exchange { [target, source] } else { [source, target] };
    let result = first.tree.parent(&first.path).and_then(|from| {
        let to = second.tree.parent(&second.path)?;
        // A directory that was opened to set its mode is not at its path any more.
        first.tree.forget_at(&first.path);
        second.tree.forget_at(&second.path);
        first.tree.fs.rename(&from, first.path.name(), &to, second.path.name(), mode)
    });
    result.map_err(target_or_source(source, target, mode))
}

/// A failed move is reported at the end that the user knows, the one in the output, whichever way it goes.
fn target_or_source<'a, F: Fs>(
    source: &'a End<'_, F>,
    target: &'a End<'_, F>,
    mode: RenameMode,
) -> impl FnOnce(io::Error) -> Error + 'a {
    let end = if source.published { source } else { target };
    move |error| match mode {
        RenameMode::Exchange => end.io("replace")(error),
        _ if source.published => end.io("remove")(error),
        RenameMode::NoReplace => end.io("add")(error),
        RenameMode::Replace => end.io("replace")(error),
    }
}

pub(super) fn link<F: Fs>(source: &End<'_, F>, target: &End<'_, F>) -> Result<()> {
    let result = source.tree.parent(&source.path).and_then(|from| {
        let to = target.tree.parent(&target.path)?;
        source.tree.fs.link(&from, source.path.name(), &to, target.path.name())
    });
    result.map_err(target.io("link an entry to"))
}

/// Removes one of two names of an entry, once the other is there to stay: unlike a rename, a link and a removal can reach the
/// medium in any order.
pub(super) fn drop_other_name<F: Fs>(name: &End<'_, F>, other: &End<'_, F>) -> Result<()> {
    if !left_out(Mutant::LinkBarrier) {
        make_durable(other)?;
    }
    drop_name(name)
}

/// Makes the name durable.
pub(super) fn make_durable<F: Fs>(end: &End<'_, F>) -> Result<()> {
    let result = end.tree.parent(&end.path).and_then(|dir| end.tree.fs.sync_dir(&dir));
    result.map_err(end.io("make durable"))
}

/// Removes one of two names of an entry.
pub(super) fn drop_name<F: Fs>(end: &End<'_, F>) -> Result<()> {
    let result = end.tree.parent(&end.path).and_then(|dir| end.tree.fs.remove_file(&dir, end.path.name()));
    result.map_err(end.io("remove the second name of"))
}
