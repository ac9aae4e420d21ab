//! A store: one output and its state directory, opened; and the files of the state directory that all parts of the engine read
//! and write.
//!
//! Invariant (journal-spec.md, "Security"): nothing of a state directory is used before it was found trustworthy and complete.
//!
//! A crash while a store is being made leaves a part of it, which the next opening completes.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::frame::Damage;
use crate::fs::stream::Stream;
use crate::fs::tree::Tree;
use crate::fs::{Fs, LinuxFs, RenameMode};
use crate::initialize::{Capabilities, check_unclaimed, initialize, probe_again, read_capabilities};
use crate::journal::record::{Begin, TransactionId};
use crate::layout::{self, check_layout, check_trust, manifest_path, name, open_trusted, state_path, write_new};
use crate::lock::{self, Lock};
use crate::manifest::inventory::Inventory;
use crate::manifest::node::Subtree;
use crate::manifest::writer::{Edit, FANOUT};
use crate::manifest::{self, Extent, Head, Info};
use crate::output::{Output, Place};
use crate::path::RelPath;

/// How the barriers of a commit are passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[doc(hidden)]
pub enum Barriers {
    /// By what is to be made durable, and by how much others have dirty; begun early where that is faster.
    #[default]
    Chosen,
    /// By one `syncfs`.
    Whole,
    /// By `fsync` of each, wherever all of it can be opened.
    Single,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions<F: Fs = LinuxFs> {
    pub(crate) fs: F,
    pub(crate) lock_timeout: Duration,
    pub(crate) barriers: Barriers,
    fanout: usize,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::with(LinuxFs::new())
    }
}

impl<F: Fs> OpenOptions<F> {
    /// Options for a store on another implementation of the file system.
    pub fn with(fs: F) -> Self {
        Self { fs, lock_timeout: Duration::from_secs(10), barriers: Barriers::Chosen, fanout: FANOUT }
    }

    /// How the barriers of a commit are passed; for tests of either way.
    #[doc(hidden)]
    #[must_use = "this returns the changed options"]
    pub fn barriers(mut self, barriers: Barriers) -> Self {
        self.barriers = barriers;
        self
    }

    /// How long to wait for a lock that another process holds; 10 s unless said.
    #[must_use = "this returns the changed options"]
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// How many entries a node of a manifest holds at most; for tests, in which trees are small and are to be deep.
    #[doc(hidden)]
    #[must_use = "this returns the changed options"]
    pub fn fanout(mut self, fanout: usize) -> Self {
        self.fanout = fanout.max(2);
        self
    }
}

/// An output and its state directory.
pub struct Store<F: Fs = LinuxFs> {
    pub(crate) fs: F,
    pub(crate) output: Output<F>,
    pub(crate) state: Tree<F>,
    capabilities: Mutex<Capabilities>,
    pub(crate) lock_timeout: Duration,
    pub(crate) barriers: Barriers,
    fanout: usize,
    /// The transaction that was carried out through this very value, and whose journal is not settled yet.
    pub(crate) carried_out: Mutex<Option<TransactionId>>,
    pub(crate) failed_barriers: Arc<FailedBarriers>,
}

/// The kernel tells a store's descriptor of an error once (A5), whoever of its transactions asks.
#[derive(Debug, Default)]
pub(crate) struct FailedBarriers {
    pub(crate) count: AtomicU64,
    /// How many had failed when every transaction was ended last.
    pub(crate) ended_at: AtomicU64,
}

impl<F: Fs> std::fmt::Debug for Store<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("output", &self.output.path).field("state", &self.state.at()).finish()
    }
}

impl<F: Fs> Store<F> {
    /// Opens the store of `out` without making or recovering it; `None` when there is none.
    ///
    /// # Errors
    /// As [`Store::open`], but for those of [`Store::recover`].
    pub fn find(options: &OpenOptions<F>, out: impl AsRef<Path>) -> Result<Option<Self>> {
        let output = Output::locate(&options.fs, out.as_ref())?;
        let Some(state) = output.open_state()? else { return Ok(None) };
        check_trust(&state)?;
        let Some(capabilities) = read_capabilities(&state)? else {
            check_unclaimed(&state)?;
            return Ok(None);
        };
        check_layout(&state)?;
        Ok(Some(Self::new(options, output, state, capabilities)))
    }

    /// As [`Store::open_with`], without recovering: for callers that want to report what recovery does.
    ///
    /// # Errors
    /// As [`Store::find`].
    pub fn make(options: &OpenOptions<F>, out: impl AsRef<Path>) -> Result<Self> {
        let out = out.as_ref();
        if let Some(store) = Self::find(options, out)? {
            return Ok(store);
        }
        let mut output = Output::locate(&options.fs, out)?;
        let state = output.make_state()?;
        check_trust(&state)?;
        check_unclaimed(&state)?;
        let _lock = lock::acquire(&state, &state_path(name::LOCK), options.lock_timeout)?;
        let capabilities = match read_capabilities(&state)? {
            Some(capabilities) => capabilities,
            None => initialize(&state)?,
        };
        Ok(Self::new(options, output, state, capabilities))
    }

    fn new(options: &OpenOptions<F>, output: Output<F>, state: Tree<F>, capabilities: Capabilities) -> Self {
        let OpenOptions { fs, lock_timeout, barriers, fanout } = options.clone();
        let capabilities = Mutex::new(capabilities);
        let (carried_out, failed_barriers) = (Mutex::default(), Arc::default());
        Self { fs, output, state, capabilities, lock_timeout, barriers, fanout, carried_out, failed_barriers }
    }

    /// The output's canonical path. It exists once something has been published.
    pub fn output(&self) -> &Path {
        &self.output.path
    }

    /// The state directory's path.
    pub fn state(&self) -> &Path {
        self.state.at()
    }

    /// Where the state directory is.
    pub fn place(&self) -> Place {
        self.output.place
    }

    /// What the file system can do.
    pub fn capabilities(&self) -> Capabilities {
        *self.capabilities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the file system turns out to do something else than it did when the store was made; what it can do is known then.
    pub(crate) fn has_moved(&self, _lock: &Lock<F>) -> Result<bool> {
        let able = probe_again(&self.state, self.capabilities())?;
        if let Some(able) = able {
            *self.capabilities.lock().unwrap_or_else(PoisonError::into_inner) = able;
        }
        Ok(able.is_some())
    }

    /// Takes the store's lock, waiting as long as the options say.
    pub(crate) fn lock(&self) -> Result<Lock<F>> {
        lock::acquire(&self.state, &state_path(name::LOCK), self.lock_timeout)
    }

    /// Takes the store's lock if nobody holds it.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock<F>>> {
        lock::try_acquire(&self.state, &state_path(name::LOCK))
    }

    /// The current generation; `None` when nothing has been published.
    ///
    /// # Errors
    /// HEAD cannot be read, or is damaged.
    pub fn head(&self) -> Result<Option<Head>> {
        let path = state_path(name::HEAD);
        let Some(stream) = open_trusted(&self.state, &path)? else { return Ok(None) };
        Head::read(stream).map(Some).map_err(|damage| self.damaged(&path, damage))
    }

    /// What the generation `head` publishes; nothing where there is none.
    pub(crate) fn inventory(&self, head: Option<&Head>) -> Result<Inventory<F>> {
        let Some(head) = head else { return Ok(Inventory::nothing()) };
        let inventory = self.open_manifest(head.extent, head.root())?;
        if inventory.totals() != head.totals {
            let path = manifest_path(head.extent.file).under(self.state.at());
            return Err(Error::corrupt(path, "its totals are not those that HEAD gives"));
        }
        Ok(inventory)
    }

    /// What the generation publishes that a journal begins on.
    pub(crate) fn base_inventory(&self, begin: &Begin) -> Result<Inventory<F>> {
        if begin.base == 0 {
            return Ok(Inventory::nothing());
        }
        self.open_manifest(begin.base_extent, begin.base_extent.root(begin.base_manifest))
    }

    fn open_manifest(&self, extent: Extent, root: Subtree) -> Result<Inventory<F>> {
        let path = manifest_path(extent.file);
        let at = path.under(self.state.at());
        match open_trusted(&self.state, &path)? {
            Some(stream) => Inventory::open(stream, at, root),
            None => Err(Error::corrupt(at, "it is missing")),
        }
    }

    /// Applies `edits` (`count` of them, ascending) to `inventory`, the manifest of `base`, writes the result, and returns the HEAD
    /// that names it; nothing is durable yet.
    pub(crate) fn write_manifest(
        &self,
        base: Option<&Head>,
        inventory: &Inventory<F>,
        count: usize,
        edits: impl Iterator<Item = Edit>,
        info: Info,
    ) -> Result<Head> {
        let (file, root) = match base {
            Some(base) if manifest::writer::appends(inventory, count) => {
                let edits: Vec<Edit> = edits.collect();
                let path = manifest_path(base.extent.file);
                let stream = self.open_to_append(&path)?;
                let at = path.under(self.state.at());
                (base.extent.file, manifest::writer::append(inventory, &edits, self.fanout, stream, at)?)
            }
            _ => {
                let path = manifest_path(info.generation);
                let at = path.under(self.state.at());
                let stream = self.write_new(&path, Ok)?;
                (info.generation, manifest::writer::write_whole(inventory, edits, self.fanout, stream, at)?)
            }
        };
        Ok(Head::new(info, file, &root))
    }

    fn open_to_append(&self, path: &RelPath) -> Result<Stream<F>> {
        let file = self.state.parent(path).and_then(|dir| self.fs.open_write(&dir, path.name()));
        Ok(Stream { fs: self.fs.clone(), file: file.map_err(self.state.io("write", path))? })
    }

    /// Why a file of the state directory cannot be used.
    pub(crate) fn damaged(&self, path: &RelPath, damage: Damage) -> Error {
        layout::damaged(&self.state, path, damage)
    }

    /// Creates a file of the state directory anew and fills it; not durable yet.
    pub(crate) fn write_new<T>(&self, path: &RelPath, fill: impl FnOnce(Stream<F>) -> io::Result<T>) -> Result<T> {
        write_new(&self.state, path, fill)
    }

    /// Renames one file of the state directory over another.
    pub(crate) fn rename(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let result = self.state.parent(from).and_then(|source| {
            let target = self.state.parent(to)?;
            self.fs.rename(&source, from.name(), &target, to.name(), RenameMode::Replace)
        });
        self.state.forget();
        result.map_err(self.state.io("rename", from))
    }

    /// Makes the names in the state directory durable.
    pub(crate) fn sync_state(&self) -> Result<()> {
        self.fs.sync_dir(self.state.root()).map_err(self.state.io("make durable", &RelPath::root()))
    }
}
