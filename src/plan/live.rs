//! What is published, as the planner sees it: the current manifest, and the output as it is now.
//!
//! A commit of a whole stage has to look at every owned entry, changed or not. An [`Audit`] does that while the stage is read, on
//! a thread of its own, so that the planner has to look only at what is not as it was published.
//!
//! Invariant: what is spared a second look is as it was published by identity (kind, mode, inode, size and time); anything else
//! the planner looks at itself.

use std::io;

use crate::error::{Error, Paths, Result};
use crate::format::identity::{Like, Object};
use crate::format::manifest::inventory::Inventory;
use crate::format::manifest::{Entry, Head, Totals};
use crate::fs::tree::{Tree, Walked};
use crate::fs::{Fs, Kind, RenameMode, Stat};
use crate::path::RelPath;
use crate::plan::{Base, Live};
use crate::stage::digest;
use crate::store::Store;
use crate::store::current::Current;
use crate::store::layout::{is_state_dir, name};
use crate::store::output::Output;

/// Looking at fewer entries is not worth a thread of its own.
pub(crate) const WORTH_A_THREAD: usize = 256;

/// The current generation, and the output.
pub(crate) struct Published<F: Fs> {
    current: Current<F>,
    tree: Option<Tree<F>>,
    /// The state directory, where the file system has layers.
    layered: Option<Tree<F>>,
    /// The device of the output.
    device: Option<u64>,
    drifted: Option<Drifted>,
    /// What of it is planned for, and how much that is.
    at: RelPath,
    totals: Totals,
}

impl<F: Fs> Published<F> {
    /// `head` is the current one, or `None` of generation 0.
    pub(crate) fn open(store: &Store<F>, head: Option<Head>, at: RelPath) -> Result<Self> {
        let current = store.current_of(head)?;
        let inventory = &current.inventory;
        let totals = if at.is_root() { inventory.totals() } else { totals_of(inventory.range(&at))? };
        let layered = store.fs.has_layers(store.state.root()).then(|| store.state.clone());
        let tree = store.output.open()?;
        let device = device_of(tree.as_ref())?;
        Ok(Self { current, tree, layered, device, drifted: None, at, totals })
    }

    /// Where nothing has been published, and no store is.
    pub(crate) fn nothing(output: &Output<F>) -> Result<Self> {
        let (current, at) = (Current::nothing(), RelPath::root());
        let totals = Totals::default();
        let tree = output.open()?;
        let device = device_of(tree.as_ref())?;
        Ok(Self { current, tree, layered: None, device, drifted: None, at, totals })
    }

    /// The generation that is planned from.
    pub(crate) fn current(&self) -> &Current<F> {
        &self.current
    }

    pub(crate) fn inventory(&self) -> &Inventory<F> {
        &self.current.inventory
    }

    /// An audit of it; `None` where there is nothing to look at, or too little to be worth a thread.
    pub(crate) fn audit(&self, store: &Store<F>) -> Result<Option<Audit<F>>> {
        let Some((head, tree)) = self.current.head().zip(self.tree.clone()) else { return Ok(None) };
        if head.totals.entries < WORTH_A_THREAD as u64 || store.fs.parallelism() < 2 {
            return Ok(None);
        }
        // Of its own: an inventory belongs to one thread.
        Ok(Some(Audit { inventory: store.inventory(head)?, tree, at: self.at.clone() }))
    }

    /// Takes what an audit found for true: an entry that is not among it is not looked at again.
    pub(crate) fn spare(&mut self, drifted: Drifted) {
        self.drifted = Some(drifted);
    }
}

fn device_of<F: Fs>(output: Option<&Tree<F>>) -> Result<Option<u64>> {
    Ok(output.map(|tree| tree.stat(&RelPath::root())).transpose()?.flatten().map(|stat| stat.dev))
}

fn totals_of(entries: impl Iterator<Item = Result<Entry>>) -> Result<Totals> {
    let mut entries = entries;
    entries.try_fold(Totals::default(), |totals, entry| Ok(totals.plus(&Totals::of(&[entry?]))))
}

impl<F: Fs> Base for Published<F> {
    fn totals(&self) -> Totals {
        self.totals
    }

    fn get(&self, path: &RelPath) -> Result<Option<Object>> {
        self.inventory().get(path)
    }

    fn at(&self) -> RelPath {
        self.at.clone()
    }

    fn entries(&self) -> impl Iterator<Item = Result<Entry>> {
        self.inventory().range(&self.at)
    }

    fn range(&self, path: &RelPath) -> impl Iterator<Item = Result<Entry>> {
        self.inventory().range(path)
    }

    fn children(&self, path: &RelPath) -> Result<Vec<Entry>> {
        self.inventory().children(path)
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

    /// An overlay that is to rename a directory over one that is not empty says first whether it could move it at all: EXDEV of one that
    /// a lower layer holds. Nothing is changed either way, for what has been published has a manifest in `manifests/`.
    fn is_movable(&self, path: &RelPath) -> Result<bool> {
        let (Some(state), Some(tree)) = (&self.layered, &self.tree) else { return Ok(true) };
        let parent = tree.parent(path).map_err(tree.io("look at", path))?;
        let full = (state.root(), name::MANIFESTS.as_bytes());
        let refused = state.fs.rename(&parent, path.name(), full.0, full.1, RenameMode::Replace);
        Ok(!refused.is_err_and(|error| error.kind() == io::ErrorKind::CrossesDevices))
    }

    /// By the device: an overlay shows files of several, but its directories are all of its own.
    fn is_apart(&self, stat: &Stat) -> bool {
        stat.is_dir() && self.device.is_some_and(|device| device != stat.dev)
    }

    fn below(&self, path: &RelPath) -> Result<Vec<Walked>> {
        let is_apart = |entry: &Walked| self.is_apart(&entry.stat);
        self.tree.as_ref().map_or(Ok(Vec::new()), |tree| list(tree, path, |_| false, is_apart))
    }

    fn foreign(&self) -> Result<Vec<Walked>> {
        let Some(tree) = &self.tree else { return Ok(Vec::new()) };
        // Through no link: what is behind one is not the output's.
        if !self.at.is_root() && tree.find_directory(&self.at)?.is_none() {
            return Ok(Vec::new());
        }
        let is_state = |entry: &Walked| is_state_dir(tree, &entry.path, entry.stat.kind);
        list(tree, &self.at, is_state, |entry| self.is_apart(&entry.stat))
    }

    fn exists(&self) -> bool {
        self.tree.is_some()
    }
}

/// Everything below a directory but what is left out, and what is in what is closed.
fn list<F: Fs>(
    tree: &Tree<F>,
    path: &RelPath,
    is_left_out: impl Fn(&Walked) -> bool,
    is_closed: impl Fn(&Walked) -> bool,
) -> Result<Vec<Walked>> {
    let mut entries = Vec::new();
    tree.walk(
        path,
        |entry| !is_left_out(entry) && !is_closed(entry),
        |entry| {
            tree.check_interrupt(&entry.path)?;
            entries.extend((!is_left_out(&entry)).then_some(entry));
            Ok(())
        },
    )?;
    Ok(entries)
}

/// One look at each owned entry of the output, or of what is planned for in it and above that, to be taken beside other work.
pub(crate) struct Audit<F: Fs> {
    inventory: Inventory<F>,
    tree: Tree<F>,
    at: RelPath,
}

impl<F: Fs> Audit<F> {
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
        let above = |path: RelPath| Ok(self.inventory.get(&path)?.map(|object| Entry { path, object }));
        let above = self.at.ancestors().filter_map(|path| above(path).transpose());
        for entry in above.chain(self.inventory.range(&self.at)) {
            let entry = entry?;
            let is_untouched = match self.tree.stat(&entry.path) {
                // Something is mounted on the way there, which the planner meets first.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::CrossesDevices => false,
                stat => stat?.is_some_and(|stat| entry.object.is_untouched(&stat)),
            };
            if !is_untouched {
                drifted.push(entry.path);
            }
        }
        Ok(Drifted(drifted))
    }
}

/// Which of some entries are not in `output` as they were published: by identity, and where that is another by content.
pub(crate) fn drift<F: Fs>(output: &Tree<F>, entries: impl Iterator<Item = Result<Entry>>) -> Result<Paths> {
    let mut drift = Paths::default();
    for entry in entries {
        let Entry { path, object } = entry?;
        output.check_interrupt(&path)?;
        let is_as_published = match output.stat(&path)? {
            None => false,
            Some(stat) if object.mode != stat.mode || Some(object.kind) != stat.kind => false,
            // A directory may be another one.
            Some(_) if object.kind == Kind::Directory => true,
            Some(stat) => digest::find(output, &path, &object, &stat, Like::Published)?.is_some(),
        };
        if !is_as_published {
            drift.push(path);
        }
    }
    Ok(drift)
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
