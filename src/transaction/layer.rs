//! A transaction that an earlier layer of an image holds: begun in one `RUN`, to be committed in a later one.
//!
//! An overlay does not rename the directories of its lower layers, and a commit renames the transaction's. txfs copies the transaction to this
//! layer then, and the copy takes its name.
//!
//! Invariants:
//! 1. The original goes only when the copy is whole and can be taken up in its stead.
//! 2. The stage keeps its path.
//!
//! A crash inside leaves the original, and beside it a copy that is dead, or that is as good; or the copy alone, under a number of its own.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::error::Result;
use crate::format::journal::record::TransactionId;
use crate::fs::tree::{Tree, Walked};
use crate::fs::{Fs, RenameMode};
use crate::path::RelPath;
use crate::progress::Phase;
use crate::stage::copy::{self, Looks, Source};
use crate::store::transaction_dir::{self, GONE, LEFT, Meta, REMOVED, STAGE, TRIED, TURN, part};
use crate::transaction::Transaction;

impl<F: Fs> Transaction<F> {
    /// Brings the transaction to a layer that can be changed, if it is in one that cannot. A copy of a large stage takes a while.
    pub(crate) fn leave_earlier_layer(&mut self) -> Result<()> {
        if self.meta.attached || !self.store.fs.has_layers(self.tree.root()) || self.can_be_renamed()? {
            return Ok(());
        }
        let store = self.store.clone();
        let _lock = store.lock()?;
        // What failed to become durable is not to be copied.
        self.wait_for_early()?;
        self.check_barriers()?;
        let old = self.id;
        // Until it is whole it dies with this process.
        let (id, tree, held) = store.make_transaction(&Meta { attached: true, ..self.meta.clone() })?;
        let copied = self.copy_to(&tree).and_then(|()| store.write_meta(id, &self.meta));
        if let Err(error) = copied {
            let _ = store.remove_transaction(id);
            return Err(error);
        }
        (self.id, self.tree, self.lock) = (id, tree, held);
        // They are of files that are gone.
        self.ledger.open().known.clear();
        self.take_over(old)
    }

    /// Takes the name of the original, which goes. Where it cannot, the transaction has a stage of another name.
    fn take_over(&mut self, old: TransactionId) -> Result<()> {
        let store = self.store.clone();
        let (own, its) = (transaction_dir::path(self.id), transaction_dir::path(old));
        if store.remove_transaction(old).and_then(|()| store.rename(&own, &its)).is_ok() {
            self.id = old;
            self.tree = store.state.below(&its)?;
        }
        self.traces = Arc::new(store.traces(self.id));
        Ok(())
    }

    /// Whether an overlay moves what is in the transaction's directory; anything else that stands against it is said of what it hinders.
    fn can_be_renamed(&self) -> Result<bool> {
        let (fs, dir) = (&self.store.fs, self.tree.root());
        let (removed, tried) = (REMOVED.as_bytes(), TRIED.as_bytes());
        let back = || fs.rename(dir, tried, dir, removed, RenameMode::NoReplace);
        // A crash may have come between the two.
        let _ = back();
        match fs.rename(dir, removed, dir, tried, RenameMode::NoReplace) {
            Ok(()) => back().map(|()| true).map_err(self.tree.io("rename", &part(TRIED))),
            Err(error) => Ok(error.kind() != ErrorKind::CrossesDevices),
        }
    }

    fn copy_to(&self, copy: &Tree<F>) -> Result<()> {
        let (from, to) = (self.stage_tree()?, copy.below(&part(STAGE))?);
        let mut paths = Vec::new();
        from.walk(
            &RelPath::root(),
            |_| true,
            |Walked { path, .. }| {
                paths.push(path);
                Ok(())
            },
        )?;
        let meter = self.store.progress.begin(Phase::Copy, Some(paths.len() as u64));
        copy::copy_paths(Source::published(&from), &to, paths.into_iter().inspect(|_| meter.step()).map(Ok))?;
        let root = RelPath::root();
        Source::published(&from).liken_dir(&root, &to, &root)?;
        if let Some(stat) = from.stat(&root)? {
            to.set_dir_mode(&root, stat.mode)?;
        }
        meter.end();
        [TURN, LEFT, GONE].into_iter().try_for_each(|name| self.copy_beside(copy, name))
    }

    /// Copies what lies beside the stage, if it is there.
    fn copy_beside(&self, copy: &Tree<F>, name: &str) -> Result<()> {
        match self.tree.stat(&part(name))? {
            Some(stat) => Source::published(&self.tree).copy_file(&part(name), Looks::of(&stat), copy, &part(name)),
            None => Ok(()),
        }
    }
}
