//! An empty directory of the state, in which it is tried out what works where transactions lie.
//!
//! Invariant: each trial has a directory of its own, so that none is in the way of another.
//!
//! A crash inside leaves `probe/`, which the next sweep removes.

use std::path::Path;

use crate::error::Result;
use crate::fs::{Fs, Kind};
use crate::store::Store;
use crate::store::layout::{make_dir, name, numbered, state_path};
use crate::store::transaction_dir::is_not_empty;

impl<F: Fs> Store<F> {
    /// Gives `work` an empty directory of the state, on the file system of the stages, and removes it afterwards. Nothing in it is made
    /// durable; what a kill leaves goes when the store is swept.
    ///
    /// # Errors
    /// The directory cannot be made, or removed.
    pub fn try_out<T>(&self, work: impl FnOnce(&Path) -> T) -> Result<T> {
        let trials = state_path(name::PROBE);
        let own = numbered(name::PROBE, self.draw_id()?);
        make_dir(&self.state, &trials)?;
        make_dir(&self.state, &own)?;
        let tried = work(&own.under(self.state.at()));
        self.state.remove(&own)?;
        match self.state.remove_entry(&trials, Kind::Directory) {
            // Another process is at it.
            Err(error) if !is_not_empty(&error) => Err(error),
            _ => Ok(tried),
        }
    }
}
