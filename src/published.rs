//! What is published, as the planner sees it: the current manifest, and the output as it is now.
//!
//! A commit of a whole stage has to look at every owned entry, changed or not. An [`Audit`] does that while the stage is read, on
//! a thread of its own, so that the planner has to look only at what is not as it was published.
//!
//! Invariant: what is spared a second look is as it was published by identity (kind, mode, inode, size and time); anything else
//! the planner looks at itself.

use std::io;

use crate::digest;
use crate::error::{Error, Result};
use crate::fs::tree::{Tree, Walked};
use crate::fs::{Fs, Kind, Stat};
use crate::manifest::inventory::Inventory;
use crate::manifest::{Entry, Head, Object, Totals};
use crate::path::RelPath;
use crate::plan::{Base, Live};
use crate::store::Store;

/// Looking at fewer entries is not worth a thread of its own.
pub(crate) const WORTH_A_THREAD: usize = 256;

/// The current generation, and the output.
pub(crate) struct Published<F: Fs> {
    pub(crate) inventory: Inventory<F>,
    tree: Option<Tree<F>>,
    drifted: Option<Drifted>,
}

impl<F: Fs> Published<F> {
    pub(crate) fn open(store: &Store<F>, head: Option<&Head>) -> Result<Self> {
        Ok(Self { inventory: store.inventory(head)?, tree: store.output.open()?, drifted: None })
    }

    /// Takes what an audit found for true: an entry that is not among it is not looked at again.
    pub(crate) fn spare(&mut self, drifted: Drifted) {
        self.drifted = Some(drifted);
    }
}

impl<F: Fs> Base for Inventory<F> {
    fn totals(&self) -> Totals {
        self.totals()
    }

    fn get(&self, path: &RelPath) -> Result<Option<Object>> {
        self.get(path)
    }

    fn entries(&self) -> impl Iterator<Item = Result<Entry>> {
        self.entries()
    }

    fn range(&self, path: &RelPath) -> impl Iterator<Item = Result<Entry>> {
        self.range(path)
    }

    fn children(&self, path: &RelPath) -> Result<Vec<Entry>> {
        self.children(path)
    }
}

impl<F: Fs> Live for Published<F> {
    fn stat(&self, path: &RelPath) -> Result<Option<Stat>> {
        self.tree.as_ref().map_or(Ok(None), |tree| tree.stat(path))
    }

    fn is_as_published(&self, path: &RelPath) -> bool {
        self.drifted.as_ref().is_some_and(|drifted| drifted.spares(path))
    }

    fn object(&self, path: &RelPath, kind: Kind, stat: &Stat) -> Result<Object> {
        match &self.tree {
            Some(tree) => {
                tree.check_interrupt(path)?;
                digest::object(tree, path, kind, stat)
            }
            None => Err(Error::io("read", path.as_path())(io::ErrorKind::NotFound.into())),
        }
    }

    fn below(&self, path: &RelPath) -> Result<Vec<Walked>> {
        let mut entries = Vec::new();
        if let Some(tree) = &self.tree {
            tree.walk(
                path,
                |_| true,
                |entry| {
                    entries.push(entry);
                    Ok(())
                },
            )?;
        }
        Ok(entries)
    }

    fn exists(&self) -> bool {
        self.tree.is_some()
    }
}

/// One look at each owned entry of the output, to be taken beside other work.
pub(crate) struct Audit<F: Fs> {
    inventory: Inventory<F>,
    tree: Tree<F>,
}

impl<F: Fs> Audit<F> {
    /// `None` where there is nothing to look at, or too little to be worth a thread.
    pub(crate) fn of(store: &Store<F>, head: Option<&Head>) -> Result<Option<Self>> {
        let many = head.is_some_and(|head| head.totals.entries >= WORTH_A_THREAD as u64);
        if !many || store.fs.parallelism() < 2 {
            return Ok(None);
        }
        let Some(tree) = store.output.open()? else { return Ok(None) };
        Ok(Some(Self { inventory: store.inventory(head)?, tree }))
    }

    /// Does `work` and looks meanwhile. Where the system has no more threads to give nothing is looked at: the planner does.
    pub(crate) fn beside<T>(audit: Option<Self>, work: impl FnOnce() -> Result<T>) -> Result<(T, Option<Drifted>)> {
        std::thread::scope(|scope| {
            let look = |audit: Self| std::thread::Builder::new().spawn_scoped(scope, move || audit.look()).ok();
            let looking = audit.and_then(look);
            let done = work();
            let drifted = looking.map(|looking| looking.join().expect("an audit does not panic"));
            Ok((done?, drifted.transpose()?))
        })
    }

    fn look(self) -> Result<Drifted> {
        let mut drifted = Vec::new();
        for entry in self.inventory.entries() {
            let entry = entry?;
            if !self.tree.stat(&entry.path)?.is_some_and(|stat| is_untouched(&entry.object, &stat)) {
                drifted.push(entry.path);
            }
        }
        Ok(Drifted(drifted))
    }
}

fn is_untouched(object: &Object, stat: &Stat) -> bool {
    object.mode == stat.mode && object.is(stat)
}

/// The owned entries that are not as they were published, ascending.
#[derive(Debug, Clone)]
pub(crate) struct Drifted(Vec<RelPath>);

impl Drifted {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the owned entry at `path` was as it was published.
    fn spares(&self, path: &RelPath) -> bool {
        self.0.is_empty() || self.0.binary_search(path).is_err()
    }
}
