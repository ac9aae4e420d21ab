//! Files for the commands that a process runs once it has committed: `handed/ID`, beside its lock `handed/ID.lock`.
//!
//! Invariants:
//! 1. The lock is held by the process that runs the commands, from before the file is there.
//! 2. A file whose lock nobody holds is nobody's, and goes when the store is swept.
//!
//! Nothing here is made durable. A crash leaves files that the next sweep removes.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use crate::error::Result;
use crate::format::journal::record::TransactionId;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, LinuxFs, found};
use crate::path::RelPath;
use crate::store::Store;
use crate::store::layout::{make_dir, name, numbered, state_path, write_new};
use crate::store::lock::{self, Lock};
use crate::store::transaction_dir::parse_id;

const LOCK: &str = ".lock";

/// A file for commands that this process runs; it goes when this is dropped.
#[must_use = "the file goes when this is dropped"]
pub struct HandedOut<F: Fs = LinuxFs> {
    store: Store<F>,
    id: TransactionId,
    _lock: Lock<F>,
}

impl<F: Fs> HandedOut<F> {
    /// Where it is.
    pub fn path(&self) -> PathBuf {
        file(self.id).under(self.store.state.at())
    }
}

impl<F: Fs> Drop for HandedOut<F> {
    fn drop(&mut self) {
        // What stays the next sweep has.
        let _ = remove(&self.store.state, self.id);
    }
}

impl<F: Fs> Store<F> {
    /// Writes a file for commands that this process runs and that are to read it. When the process is killed, whoever sweeps the store
    /// next removes the file ([`Store::sweep`], and beginning a transaction).
    ///
    /// # Errors
    /// It cannot be written.
    pub fn hand_out(&self, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<HandedOut<F>> {
        make_dir(&self.state, &state_path(name::HANDED))?;
        let id = self.draw_id()?;
        let lock = lock::acquire(&self.state, &lock_of(id), &self.patience)?;
        let handed = HandedOut { store: self.clone(), id, _lock: lock };
        write_new(&self.state, &file(id), |stream| {
            let mut stream = BufWriter::new(stream);
            fill(&mut stream)?;
            stream.flush()
        })?;
        Ok(handed)
    }

    /// Removes what dead processes left.
    pub(crate) fn sweep_handed_out(&self) -> Result<()> {
        let path = state_path(name::HANDED);
        let listed = self.state.dir(&path).and_then(|dir| self.fs.list(&dir));
        let listed = found(listed).map_err(self.state.io("list", &path))?.unwrap_or_default();
        let id = |name: &[u8]| parse_id(name.strip_suffix(LOCK.as_bytes()).unwrap_or(name));
        let ids: BTreeSet<_> = listed.iter().filter_map(|entry| id(&entry.name)).collect();
        for id in ids {
            // Of another member's, who has not shared it yet, nothing is known.
            match lock::holder(&self.state, &lock_of(id)) {
                Ok(None) => remove(&self.state, id)?,
                Err(error) if self.state.group().is_none() || !error.is_denied() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn file(id: TransactionId) -> RelPath {
    numbered(name::HANDED, id)
}

fn lock_of(id: TransactionId) -> RelPath {
    numbered(name::HANDED, format!("{id}{LOCK}"))
}

fn remove<F: Fs>(state: &Tree<F>, id: TransactionId) -> Result<()> {
    state.remove_entry(&file(id), Kind::File)?;
    state.remove_entry(&lock_of(id), Kind::File)
}
