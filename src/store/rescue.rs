//! What txfs finds among its own and cannot prove to be so: moved to `rescued/`, and told of.
//!
//! Invariants:
//! 1. Nothing is overwritten and nothing is deleted: an entry moves in one rename, to a name that nothing has (G6).
//! 2. Whatever was moved is told of. It is noted until a result, or an error, takes it to the caller.
//!
//! A crash inside leaves the entry in one of both places.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::error::Result;
use crate::fs::{Fs, RenameMode};
use crate::path::RelPath;
use crate::store::Store;
use crate::store::layout::{make_dir, name, numbered, state_path};

impl<F: Fs> Store<F> {
    /// Moves an entry of the state directory aside.
    pub(crate) fn rescue(&self, from: &RelPath, as_name: &str) -> Result<()> {
        make_dir(&self.state, &state_path(name::RESCUED))?;
        let to = self.free_name(as_name)?;
        let result = self.state.parent(from).and_then(|source| {
            let target = self.state.parent(&to)?;
            self.fs.rename(&source, from.name(), &target, to.name(), RenameMode::Replace)
        });
        self.state.forget();
        result.map_err(self.state.io("move aside", from))?;
        let to = to.under(self.state.at());
        self.rescued.lock().unwrap_or_else(PoisonError::into_inner).push(to);
        Ok(())
    }

    fn free_name(&self, as_name: &str) -> Result<RelPath> {
        let mut to = numbered(name::RESCUED, as_name);
        while self.state.stat(&to)?.is_some() {
            // Where many are moved, not every one of them asks for the names of all before it.
            let number = self.rescued_before.fetch_add(1, Ordering::Relaxed) + 1;
            to = numbered(name::RESCUED, format!("{as_name}.{number}"));
        }
        Ok(to)
    }

    /// Where entries were moved since the last result, or error, told of some: those that txfs found among its own and could not prove
    /// to be so. To be asked after a transaction was dropped, or begun, which have nothing to tell it by.
    pub fn take_rescued(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.rescued.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An error tells of what was moved before it.
    pub(crate) fn telling<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.after_rescue(self.take_rescued()))
    }
}
