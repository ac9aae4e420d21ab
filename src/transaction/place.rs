//! Where in the stage, and in the output, lies what a transaction is about: everything, or what is at one path (`at.rs`).
//!
//! Invariant: callers name paths as they are called there; everything else has those of the output.
//!
//! A crash inside leaves a stage that nobody commits.

use std::path::Path;

use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::fs::compiled::{compiled, same_mut};
use crate::fs::tree::Tree;
use crate::path::RelPath;
use crate::transaction::begin::Transaction;

impl<F: Fs> Transaction<F> {
    /// Says that nothing is to be published any more at the path that the transaction began at ([`BeginOptions::at`](crate::BeginOptions::at)),
    /// the path itself included. Staging something takes that back.
    ///
    /// # Errors
    /// [`Error::Usage`] when the transaction is about the whole output, [`Error::NoPlace`] when nothing is published there;
    /// [`Error::TransactionOver`]; [`Error::BaseMoved`]; the stage cannot be written.
    pub fn remove_at(&mut self) -> Result<()> {
        compiled!(F, (this: &mut Transaction = same_mut(self)) -> Result<()> { this.remove_at_any() });
        self.remove_at_any()
    }

    fn remove_at_any(&mut self) -> Result<()> {
        let (stage, at) = (self.stage_tree()?, self.at());
        let path = at.under(&self.store.output.path);
        if at.is_root() {
            let what = "this transaction is about the whole output: publish an empty stage instead".to_owned();
            return Err(Error::Usage { path, what });
        }
        if self.current()?.inventory.get(&at)?.is_none() {
            return Err(Error::NoPlace { path, what: "nothing is published there" });
        }
        stage.remove(&at)?;
        self.ledger.open().clear();
        self.referenced = None;
        self.removes_at = true;
        Ok(())
    }

    /// A path that the caller names, as one of the output.
    pub(crate) fn place(&self, path: &Path) -> Result<RelPath> {
        let confined = RelPath::from_path(path);
        let confined = confined.map_err(|source| Error::NoPath { path: path.to_path_buf(), source })?;
        Ok(confined.within(&self.at()))
    }

    /// The directory of the output that it is about, if there is one.
    pub(crate) fn place_in_output(&self) -> Result<Option<Tree<F>>> {
        let (output, at) = (self.store.output.open()?, self.at());
        match output {
            Some(output) if !at.is_root() => output.find_directory(&at),
            output => Ok(output),
        }
    }

    /// Whether it takes away the path that it is about: nothing is staged there, because it was said to go.
    pub(crate) fn is_vacated(&self, stage: &Tree<F>) -> Result<bool> {
        let at = self.at();
        if at.is_root() {
            return Ok(false);
        }
        match stage.stat(&at)? {
            Some(stat) if stat.is_dir() => Ok(false),
            None if self.removes_at => Ok(true),
            _ => Err(self.stage_gone()),
        }
    }
}
