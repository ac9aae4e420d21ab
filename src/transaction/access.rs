//! Whether this user may add to the output: asked before anything is built for it.
//!
//! Invariant: what could be published is not refused. Once something has been published a change may concern only directories that this
//! user may write to; and one of his own that is closed is opened for the commit.
//!
//! Nothing is changed here.

use std::io;

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::fs::tree::Tree;
use crate::path::RelPath;
use crate::store::Store;

impl<F: Fs> Store<F> {
    /// Refuses an output, or the directory in it that is to hold what is published at `at`, that belongs to another user and is closed
    /// to this one.
    pub(crate) fn check_access(&self, at: &RelPath) -> Result<()> {
        let Some(output) = self.output.open()? else { return Ok(()) };
        let (dir, path) = nearest(&output, at)?;
        let io = |action| output.io(action, &path);
        let stat = self.fs.stat_dir(dir.root()).map_err(io("read the attributes of"))?;
        if stat.uid == self.fs.user() || self.fs.may_change(dir.root()).map_err(io("ask for access to"))? {
            return Ok(());
        }
        let source = io::Error::new(io::ErrorKind::PermissionDenied, "Permission denied");
        let whose = Some(Box::new(output.owned_by(&path, stat.uid)));
        Err(Error::Io { action: "write to", path: path.under(output.at()), source, whose })
    }
}

/// The directory at a path, or the nearest above it that is there.
fn nearest<F: Fs>(output: &Tree<F>, at: &RelPath) -> Result<(Tree<F>, RelPath)> {
    let mut path = at.clone();
    while !path.is_root() {
        if let Some(dir) = output.find_directory(&path)? {
            return Ok((dir, path));
        }
        path = path.parent();
    }
    Ok((output.clone(), path))
}
