//! Freeing what the last commits displaced, before the next commit would: for a disk that is full. What goes so cannot be gone back to.
//!
//! Invariants:
//! 1. Only what is settled is freed: a commit whose journal is not retired may have to be undone with what it displaced.
//! 2. Nothing goes by another way than sweeping has ([`settle::purge`]): what cannot be proved to be ours is moved to `rescued/`, and the
//!    journal stays, as the proof.
//! 3. `previous/N/pruned` is there before anything goes, so that going back says why it cannot.
//!
//! A crash inside leaves less in `previous/N`; where it keeps the mark, the next sweeping finishes, and otherwise the next commit's.

use std::path::PathBuf;
use std::sync::PoisonError;

use crate::error::{Error, Result};
use crate::fs::compiled::{compiled, same_ref};
use crate::fs::tree::Walked;
use crate::fs::{Fs, Kind};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::protocol::recover::{Manner, Recovered};
use crate::protocol::settle;
use crate::store::Store;
use crate::store::layout::{name, previous_path, state_path, write_new};
use crate::store::retention::Retention;

/// What [`Store::prune`] did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Pruned {
    /// The generation that is published. What it displaced is gone, unless it is to be kept.
    pub generation: Option<u64>,
    /// Files and links that were freed.
    pub files: u64,
    /// Bytes that these held.
    pub bytes: u64,
    /// Where entries were moved that txfs found among its own and could not prove to be so.
    pub rescued: Vec<PathBuf>,
    /// What failed after the output was as it has to be. The next txfs command tries again.
    pub warnings: Vec<Error>,
}

/// How much something holds.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Held {
    files: u64,
    pub(super) bytes: u64,
}

impl<F: Fs> Store<F> {
    /// Frees what the commits displaced, but for what `keep` keeps, and whatever else nobody needs any more, as [`Store::sweep`] does. With
    /// [`Retention::generations`] of 0 nothing is left to go back to until the next commit. What is kept from then on is as it was said last
    /// ([`Store::set_retention`]).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let dist = dir.path().join("dist");
    /// # for text in ["one", "two"] {
    /// #     let mut transaction = txfs::Store::open(&dist)?.begin(txfs::BeginOptions::default())?;
    /// #     transaction.write("index.html", text)?;
    /// #     transaction.commit(&txfs::CommitOptions::default())?;
    /// # }
    /// let store = txfs::Store::open(&dist)?;
    /// let pruned = store.prune(txfs::Retention::generations(0))?;
    /// assert_eq!((pruned.generation, pruned.files), (Some(2), 1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Busy`] while another process commits; those of [`Store::recover`]; something cannot be removed. The output and the
    /// current generation are not concerned.
    pub fn prune(&self, keep: Retention) -> Result<Pruned> {
        compiled!(F, (this: &Store = same_ref(self), keep: Retention = keep) -> Result<Pruned> {
            this.prune_any(keep)
        });
        self.prune_any(keep)
    }

    fn prune_any(&self, keep: Retention) -> Result<Pruned> {
        let lock = self.lock()?;
        let pruned =
            self.recover_locked(&lock, Manner::PLAIN).and_then(|recovered| self.prune_settled(keep, recovered));
        self.telling(pruned)
    }

    fn prune_settled(&self, keep: Retention, recovered: Recovered) -> Result<Pruned> {
        let generation = self.head()?.map(|head| head.info.generation);
        let (before, told) = (self.held()?, self.rescued.lock().unwrap_or_else(PoisonError::into_inner).len());
        settle::sweep(self)?;
        let current = generation.unwrap_or_default();
        for displaced in settle::numbers(self, name::PREVIOUS)? {
            if settle::is_kept_by(self, keep, displaced, current)? {
                break;
            }
            // A newer one is of a commit that was taken back.
            if displaced <= current {
                self.mark_pruned(displaced)?;
                settle::purge(self, displaced)?;
                if left_out(Mutant::ProofOfPruned) {
                    self.state.remove(&settle::settled_path(displaced))?;
                }
            }
        }
        let mut after = self.held()?;
        let rescued = self.take_rescued();
        for path in &rescued[told.min(rescued.len())..] {
            after = after.and(self.held_at(&self.in_state(path)?)?);
        }
        let (files, bytes) = (before.files.saturating_sub(after.files), before.bytes.saturating_sub(after.bytes));
        Ok(Pruned { generation, files, bytes, rescued, warnings: recovered.warnings })
    }

    /// Notes that what the generation displaced goes, where there is anything.
    fn mark_pruned(&self, generation: u64) -> Result<()> {
        let path = previous_path(generation);
        let listed = self.state.dir(&path).and_then(|dir| self.fs.list(&dir)).map_err(self.state.io("list", &path))?;
        match listed.iter().all(|entry| settle::is_note(&entry.name)) {
            true => Ok(()),
            false => match write_new(&self.state, &settle::pruned_path(generation), |_| Ok(())) {
                // That is what it is to mend.
                Err(Error::Io { source, .. }) if is_full(&source) => Ok(()),
                marked => marked,
            },
        }
    }

    /// What is held that commits displaced, and of transactions that are over.
    fn held(&self) -> Result<Held> {
        [name::PREVIOUS, name::TRASH]
            .iter()
            .try_fold(Held::default(), |held, name| Ok(held.and(self.held_at(&state_path(name))?)))
    }

    /// What is held of a directory's content: `previous/N/…/PATH`, or what was moved out of that.
    pub(super) fn held_at(&self, path: &RelPath) -> Result<Held> {
        let mut held = Held::default();
        // What lies in `previous/N` and `trash/ID` themselves is txfs' own.
        let depth = path.components().count();
        let is_content = |entry: &Walked| depth > 1 || entry.path.components().count() > 3;
        let mut count = |entry: &Walked| {
            // A file that has other names holds nothing alone.
            if entry.stat.kind != Some(Kind::Directory) && entry.stat.nlink < 2 && is_content(entry) {
                held = held.and(Held { files: 1, bytes: entry.stat.size });
            }
        };
        let Some(stat) = self.state.stat(path)? else { return Ok(held) };
        let is_dir = stat.is_dir();
        count(&Walked { path: path.clone(), stat });
        if is_dir {
            // What may not be read is not counted.
            let enter = |entry: &Walked| entry.stat.mode & 0o500 == 0o500;
            self.state.walk(path, enter, |entry| {
                count(&entry);
                Ok(())
            })?;
        }
        Ok(held)
    }

    fn in_state(&self, path: &std::path::Path) -> Result<RelPath> {
        let within = path.strip_prefix(self.state.at()).unwrap_or(path);
        RelPath::from_path(within).map_err(|error| Error::corrupt(path, error))
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

impl Held {
    fn and(self, other: Held) -> Self {
        Self { files: self.files + other.files, bytes: self.bytes + other.bytes }
    }
}
