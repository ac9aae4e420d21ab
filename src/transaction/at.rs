//! A transaction that replaces only what is below one path of the output, so that several producers share it.
//!
//! Its stage has the path below it: what lies at `stage/PATH` goes to `PATH`, and nothing else is there but the directories that lead
//! to it.
//!
//! Invariants:
//! 1. It may follow a commit that came first: only where that left everything at and below the path as it was when it began, by
//!    identity too, and no directory above it is published as something else. So whoever commits second publishes what it would
//!    have published if it had begun second (G10).
//! 2. What is not at or below the path is not changed, but for directories above it that are missing, which it makes.
//!
//! A crash inside leaves a stage that nobody was told of, as anywhere when a transaction begins.

use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::identity::Digest;
use crate::format::journal::record::TransactionId;
use crate::format::manifest::inventory::Inventory;
use crate::format::manifest::{Entry, Head, encode};
use crate::fs::compiled::{compiled, same_ref};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::store::Store;
use crate::store::current::Current;
use crate::store::inherit::inherit;
use crate::store::transaction_dir::Below;

/// The path that a caller names, as one of the output.
pub(crate) fn parse(given: &Path) -> Result<RelPath> {
    let names: Option<PathBuf> = given
        .components()
        .filter(|part| *part != Component::CurDir)
        .map(|part| matches!(part, Component::Normal(_)).then_some(part))
        .collect();
    let path = names.and_then(|path| RelPath::from_path(path).ok()).filter(|path| !path.is_reserved());
    path.ok_or_else(|| Error::NoPlace {
        path: given.to_path_buf(),
        what: "that is no place in the output: name a directory in it, relative to it and without `..`",
    })
}

/// An entry as it is called in a directory; `None` for that directory itself.
pub(crate) fn seen_from(directory: &RelPath, entry: Entry) -> Option<Entry> {
    entry.path.seen_from(directory).map(|path| Entry { path, ..entry })
}

impl<F: Fs> Store<F> {
    /// Makes the directories of a stage that lead to what is to be staged. They give what those of the output give, as far as that can be
    /// given.
    pub(crate) fn make_way(&self, stage: &Tree<F>, at: &RelPath) -> Result<()> {
        let output = self.output.open()?;
        for path in at.way() {
            let made = stage.parent(&path).and_then(|dir| stage.fs.make_dir(&dir, path.name(), 0o777));
            made.map_err(stage.io("make the directory", &path))?;
            if let Some(output) = &output
                && let (Ok(model), Ok(made)) = (output.dir(&path), stage.dir(&path))
            {
                let _ = inherit(&self.fs, &model, &made);
            }
        }
        Ok(())
    }

    /// What is published at and below a path now; refused where something else than directories leads to it.
    pub(crate) fn below(&self, at: RelPath, head: Option<Head>) -> Result<Below> {
        let Current { inventory, .. } = self.current_of(head)?;
        if let Some(path) = no_directory(&inventory, &at)? {
            let what = "what is published there is no directory, so that nothing can be published below it";
            return Err(Error::NoPlace { path: path.under(&self.output.path), what });
        }
        Ok(Below { was: digest(&inventory, &at)?, at })
    }

    /// Whether the commit of an open transaction would be refused because another came first.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn is_overtaken(&self, id: TransactionId) -> Result<bool> {
        compiled!(F, (this: &Store = same_ref(self), id: TransactionId = id) -> Result<bool> {
            this.is_overtaken_any(id)
        });
        self.is_overtaken_any(id)
    }

    fn is_overtaken_any(&self, id: TransactionId) -> Result<bool> {
        let (head, meta) = (self.head()?, self.read_meta(id)?);
        let current = head.as_ref().map_or(0, |head| head.info.generation);
        let Some(meta) = meta.filter(|meta| meta.base != current) else { return Ok(false) };
        let may_follow = |below| self.may_follow(below, head.clone());
        Ok(!meta.below.as_ref().map_or(Ok(false), may_follow)?)
    }

    /// Whether a transaction that began before may be committed on a generation as if it had begun on that.
    pub(crate) fn may_follow(&self, below: &Below, head: Option<Head>) -> Result<bool> {
        let Current { inventory, .. } = self.current_of(head)?;
        let is_same = || Ok(digest(&inventory, &below.at)? == below.was || left_out(Mutant::BelowCheck));
        Ok(no_directory(&inventory, &below.at)?.is_none() && is_same()?)
    }
}

/// The first on the way to a path, and at it, that is published and no directory.
fn no_directory<F: Fs>(inventory: &Inventory<F>, at: &RelPath) -> Result<Option<RelPath>> {
    for path in at.way() {
        if inventory.get(&path)?.is_some_and(|object| object.kind != Kind::Directory) {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Stands for everything that is published at a path and below it.
fn digest<F: Fs>(inventory: &Inventory<F>, at: &RelPath) -> Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    for entry in inventory.range(at) {
        hasher.update(&encode(&entry?).map_err(Error::io("encode an entry of", at.as_path()))?);
    }
    Ok(Digest(hasher.finalize().into()))
}
