//! The directory of one open transaction: `tx/ID`.
//!
//! ```text
//! tx/ID/lock      flock'd by the process that works on it
//! tx/ID/meta      the generation it began on, and who keeps it alive
//! tx/ID/stage/    what is to be published
//! tx/ID/removed/  while it is applied: entry I is what operation I took out of the output
//! tx/ID/copy      while it is scanned: a hard-linked file's own inode
//! ```
//!
//! Invariants:
//! 1. It is made, and found dead, only under the store's lock; a live one is never removed by another process (G10).
//! 2. An attached transaction lives as long as its process holds `lock`. A detached one (`txfs begin`) lives until it is
//!    committed or aborted, or the machine restarts: what was written to its stage may then be lost.
//! 3. Without `meta`, or with a torn one, the transaction is dead: nobody was ever told of it, or it is being removed.
//! 4. What is dead is discarded, but not what a journal names that is not settled: in it lies what was displaced.

use std::io::{self, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::frame::{Damage, Format};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Timestamp};
use crate::journal::record::TransactionId;
use crate::layout::{make_dir, name, numbered, open_trusted, state_path};
use crate::lock::{self, Attempt, Lock};
use crate::manifest::{encode_one, read_one};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::store::Store;

const META_FORMAT: Format = Format { magic: *b"txfstran", version: 1 };

/// Whoever only looks whether a transaction is alive holds its lock for an instant; this is longer, however slow the machine.
pub(crate) const GLANCE: Duration = Duration::from_secs(2);

/// What a transaction's stage stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Basis {
    /// The stage is the whole new generation: what it does not have is stale.
    #[default]
    Empty,
    /// The stage is a change to the current generation: what it does not name stays.
    Current,
    /// As [`Basis::Empty`], and the stage starts as a copy of the current generation. While it is copied the store's lock is held:
    /// others wait.
    Copy,
}

/// What is known of an open transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) base: u64,
    pub(crate) from: Basis,
    pub(crate) attached: bool,
    pub(crate) began: Timestamp,
    pub(crate) boot: String,
}

impl Meta {
    /// Whether it began in this boot, as far as that is known.
    pub(crate) fn is_of(&self, boot: &str) -> bool {
        self.boot == boot || self.boot.is_empty() || boot.is_empty()
    }
}

/// Whether somebody still needs a transaction.
pub(crate) enum Life<F: Fs> {
    /// Its process is at work.
    Live,
    /// Nobody is at work on it and it is to be kept.
    Detached,
    /// Nobody needs it; the lock keeps it that way while it is removed.
    Dead(Option<Lock<F>>),
}

pub(crate) fn path(id: TransactionId) -> RelPath {
    numbered(name::TRANSACTIONS, id)
}

/// The names in a transaction's directory.
pub(crate) fn part(name: &str) -> RelPath {
    state_path(name)
}

pub(crate) const STAGE: &str = "stage";
pub(crate) const REMOVED: &str = "removed";
pub(crate) const COPY: &str = "copy";
pub(crate) const LOCK: &str = "lock";
pub(crate) const META: &str = "meta";

impl<F: Fs> Store<F> {
    /// Makes the directory of a new transaction, locked. Call with the store's lock held.
    pub(crate) fn make_transaction(&self, meta: &Meta) -> Result<(TransactionId, Tree<F>, Lock<F>)> {
        let id = TransactionId(self.fs.unique().map_err(Error::io("draw a number for", self.state.at()))?);
        let path = path(id);
        make_dir(&self.state, &path)?;
        self.fill_transaction(id, meta).inspect_err(|_| {
            // Best effort: what is left without its `meta` is dead.
            let _ = self.remove_transaction(id);
        })
    }

    fn fill_transaction(&self, id: TransactionId, meta: &Meta) -> Result<(TransactionId, Tree<F>, Lock<F>)> {
        let tree = self.state.below(&path(id))?;
        let lock = lock::acquire(&tree, &part(LOCK), GLANCE)?;
        let stage = part(STAGE);
        let made = tree.fs.make_dir(tree.root(), stage.as_bytes(), 0o777);
        made.map_err(tree.io("make the directory", &stage))?;
        make_dir(&tree, &part(REMOVED))?;
        self.write_meta(id, meta)?;
        Ok((id, tree, lock))
    }

    /// Writes `meta` anew. A crash inside leaves a transaction that nobody was told of, or that is being kept: dead.
    pub(crate) fn write_meta(&self, id: TransactionId, meta: &Meta) -> Result<()> {
        let path = meta_path(id);
        self.write_new(&path, |mut file| file.write_all(&encode_one(meta, META_FORMAT)?))
    }

    /// Reads `meta`; `None` where it is missing or torn.
    pub(crate) fn read_meta(&self, id: TransactionId) -> Result<Option<Meta>> {
        let path = meta_path(id);
        let Some(stream) = open_trusted(&self.state, &path)? else { return Ok(None) };
        match read_one(stream, META_FORMAT) {
            Ok(meta) => Ok(Some(meta)),
            Err(Damage::Torn { .. }) => Ok(None),
            Err(Damage::Io(source)) => Err(self.damaged(&path, Damage::Io(source))),
            Err(damage) => {
                let what = format!("its `meta` is damaged ({damage}): move it away; the output is not concerned");
                Err(Error::Untrusted { path: self::path(id).under(self.state.at()), what })
            }
        }
    }

    /// Every transaction's number. Other names in `tx` are not ours and are left alone.
    pub(crate) fn transaction_ids(&self) -> Result<Vec<TransactionId>> {
        ids(&self.state)
    }

    /// Whether anybody still needs the transaction. Whoever acts on the answer holds the store's lock.
    pub(crate) fn life(&self, id: TransactionId) -> Result<Life<F>> {
        let Some(tree) = self.state.find_below(&path(id))? else { return Ok(Life::Dead(None)) };
        let lock = match lock::attempt(&tree, &part(LOCK))? {
            Attempt::Held(lock) => lock,
            Attempt::Busy if left_out(Mutant::LifeCheck) => return Ok(Life::Dead(None)),
            Attempt::Busy => return Ok(Life::Live),
            Attempt::Missing => return Ok(Life::Dead(None)),
        };
        Ok(match self.read_meta(id)? {
            Some(meta) if !meta.attached && (meta.is_of(&self.boot()?) || left_out(Mutant::BootCheck)) => {
                Life::Detached
            }
            _ => Life::Dead(Some(lock)),
        })
    }

    /// The current boot; empty without /proc, where every boot looks the same.
    pub(crate) fn boot(&self) -> Result<String> {
        match self.fs.boot() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                Ok(String::new())
            }
            // Not knowing is no reason to take a transaction for one of another boot, and to discard it.
            boot => boot.map_err(Error::io("read", "/proc/sys/kernel/random/boot_id")),
        }
    }

    /// Puts a transaction that is over where sweeping finds it: its stage may be large, and its caller waits.
    pub(crate) fn retire_transaction(&self, id: TransactionId) -> Result<()> {
        make_dir(&self.state, &state_path(name::TRASH))?;
        self.rename(&path(id), &numbered(name::TRASH, id))
    }

    /// Removes a transaction that nobody needs, with everything in its stage.
    pub(crate) fn remove_transaction(&self, id: TransactionId) -> Result<()> {
        // A part of a stage must never be found open, and committed.
        self.end_transaction(id)?;
        self.state.remove(&path(id))
    }

    /// Takes away what a transaction could be taken up again by (invariant 3).
    pub(crate) fn end_transaction(&self, id: TransactionId) -> Result<()> {
        end(&self.state, id)
    }

    /// Whether it cannot be taken up again, whoever saw to that.
    pub(crate) fn is_ended(&self, id: TransactionId) -> Result<bool> {
        Ok(self.state.stat(&meta_path(id))?.is_none())
    }
}

/// Takes away what any transaction of the state directory could be taken up again by.
pub(crate) fn end_all<F: Fs>(state: &Tree<F>) -> Result<()> {
    // All of them, whichever cannot be ended.
    let ended: Vec<_> = ids(state)?.into_iter().map(|id| end(state, id)).collect();
    ended.into_iter().collect()
}

fn end<F: Fs>(state: &Tree<F>, id: TransactionId) -> Result<()> {
    state.remove_entry(&meta_path(id), Kind::File)
}

fn ids<F: Fs>(state: &Tree<F>) -> Result<Vec<TransactionId>> {
    let path = state_path(name::TRANSACTIONS);
    let listed = state.dir(&path).and_then(|dir| state.fs.list(&dir));
    let listed = listed.map_err(state.io("list", &path))?;
    let mut ids: Vec<_> = listed.iter().filter_map(|entry| parse_id(&entry.name)).collect();
    ids.sort();
    Ok(ids)
}

fn meta_path(id: TransactionId) -> RelPath {
    path(id).join(META.as_bytes()).expect("the names of the layout are valid")
}

/// The number that a directory's name stands for.
pub(crate) fn parse_id(name: &[u8]) -> Option<TransactionId> {
    let text = std::str::from_utf8(name).ok()?;
    let id: TransactionId = text.parse().ok()?;
    (id.to_string() == text).then_some(id)
}
