//! A store: one output and its state directory, opened; and the files of the state directory that all parts of the engine read
//! and write.
//!
//! Invariant (journal-spec.md, "Security"): nothing of a state directory is used before it was found trustworthy and complete.
//!
//! A crash while a store is being made leaves a part of it, which the next opening completes.

use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::frame::Damage;
use crate::format::journal::record::TransactionId;
use crate::format::manifest::writer::FANOUT;
use crate::fs::compiled::{compiled, same, same_ref};
use crate::fs::stream::Stream;
use crate::fs::tree::Tree;
use crate::fs::{Fs, LinuxFs, RenameMode, Weakness};
use crate::holder::Waiting;
use crate::path::RelPath;
use crate::progress::{Listener, Progress};
use crate::store::layout::{self, check_layout, name, state_path, write_new};
use crate::store::lock::{self, Lock, Patience};
use crate::store::output::{Output, Place};
use crate::store::probe::{check_kept, check_unclaimed, initialize, probe_again, uninitialize};
use crate::store::shared_state;
use crate::store::sharing;
use crate::store::store_file::{self, Capabilities, Said};
use crate::store::trust::{Sharing, trusted};

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
    pub(crate) patience: Patience,
    pub(crate) barriers: Barriers,
    fanout: usize,
    pub(crate) recovers: bool,
    pub(crate) state: Option<PathBuf>,
    pub(crate) sharing: Option<Sharing>,
    progress: Listener,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::with(LinuxFs::new())
    }
}

impl OpenOptions {
    /// Stops what goes on once `flag` is set, as by a signal handler or another thread: whatever copies, reads a stage or waits for a lock
    /// then ends with [`Error::Interrupted`], and changes nothing; the transaction stays open. A commit that has passed its commit
    /// point, and recovery, go on to their end.
    #[must_use = "this returns the changed options"]
    pub fn interrupted_by(mut self, flag: Arc<AtomicBool>) -> Self {
        self.fs = self.fs.interrupted_by(flag);
        self
    }
}

impl<F: Fs> OpenOptions<F> {
    /// Options for a store on another implementation of the file system.
    pub fn with(fs: F) -> Self {
        let patience = Patience::of(Duration::from_secs(10));
        Self {
            fs,
            patience,
            barriers: Barriers::Chosen,
            fanout: FANOUT,
            recovers: true,
            state: None,
            sharing: None,
            progress: Listener::default(),
        }
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
        self.patience.timeout = timeout;
        self
    }

    /// Has `told` called, in the thread that waits, when a lock has been waited for longer than a second, and at once for every build that
    /// [`BeginOptions::wait`](crate::BeginOptions::wait) waits for. It is not to take long.
    #[must_use = "this returns the changed options"]
    pub fn when_waiting(mut self, told: impl Fn(&Waiting) + Send + Sync + 'static) -> Self {
        self.patience.told = Some(Arc::new(told));
        self
    }

    /// Has `told` called when something that takes long begins, now and then while it goes on, and when it is done: copying, reading a stage,
    /// waiting for the disk, carrying a commit out, verifying. It is called by the thread that works, or one that it began, and is not
    /// to take long; of a panic in it a commit is left as by a crash, and recovered by what comes next.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use txfs::{BeginOptions, CommitOptions, OpenOptions, Phase, Store};
    ///
    /// # fn main() -> txfs::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a temporary directory");
    /// let done = Arc::new(Mutex::new(Vec::new()));
    /// let told = done.clone();
    /// let options = OpenOptions::default().on_progress(move |progress| {
    ///     if Some(progress.done) == progress.total {
    ///         told.lock().expect("nobody panics").push(progress.phase);
    ///     }
    /// });
    /// let mut transaction = Store::open_with(&options, dir.path().join("dist"))?.begin(BeginOptions::default())?;
    /// transaction.write("index.html", "<h1>Hello</h1>")?;
    /// transaction.commit(&CommitOptions::default())?;
    /// assert_eq!(*done.lock().expect("nobody panics"), [Phase::Scan, Phase::Barrier, Phase::Apply]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "this returns the changed options"]
    pub fn on_progress(mut self, told: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.progress = Listener::new(told);
        self
    }

    /// Where the state of the output is to be, on the same file system and mount: the state directory itself, if `dir` has the name of one
    /// (`.txfs`, `.NAME.txfs`), or the directory that is to hold it. It is written down beside the output and on it, so that later
    /// it is found without being said again; a state that is elsewhere already is an error. Unless it is said the state is beside the
    /// output, or inside it where nothing can be beside it or be moved to and fro.
    #[must_use = "this returns the changed options"]
    pub fn state(mut self, dir: impl Into<PathBuf>) -> Self {
        self.state = Some(dir.into());
        self
    }

    /// Whether the store is one that a group shares, each of whose members may publish: one of another user's is used, which otherwise is
    /// refused, if this process belongs to its group; one that is made is shared, with `group`, or the group of the output, or of the
    /// directory that will hold it. All members of the group can then change what is published, and have to be trusted with it. A store
    /// that is there and is not shared stays so: [`Store::share`].
    #[must_use = "this returns the changed options"]
    pub fn shared(mut self, group: Option<u32>) -> Self {
        self.sharing = Some(Sharing { group });
        self
    }

    /// Whether [`Store::open_with`] recovers the store; `true` unless said. Without it the caller does so, before anything else, by
    /// [`Store::recover`], and learns what was done.
    #[must_use = "this returns the changed options"]
    pub fn recover(mut self, recover: bool) -> Self {
        self.recovers = recover;
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

/// An output and its state directory. It is a handle: a clone of it is the same store, and what is made by it, as a transaction, holds
/// one.
pub struct Store<F: Fs = LinuxFs> {
    opened: Arc<Opened<F>>,
}

/// What all handles of a store share.
#[doc(hidden)]
pub struct Opened<F: Fs> {
    pub(crate) fs: F,
    pub(crate) output: Output<F>,
    pub(crate) state: Tree<F>,
    capabilities: Mutex<Capabilities>,
    pub(crate) patience: Patience,
    pub(crate) progress: Listener,
    pub(crate) barriers: Barriers,
    pub(super) fanout: usize,
    /// The transaction that was carried out through this very value, and whose journal is not settled yet.
    pub(crate) carried_out: Mutex<Option<TransactionId>>,
    pub(crate) failed_barriers: Arc<FailedBarriers>,
    /// Where entries were moved that nobody has been told of yet, and how many names had been taken.
    pub(crate) rescued: Mutex<Vec<PathBuf>>,
    pub(crate) rescued_before: AtomicU64,
}

/// The kernel tells a store's descriptor of an error once (A5), whoever of its transactions asks.
#[derive(Debug, Default)]
pub(crate) struct FailedBarriers {
    pub(crate) count: AtomicU64,
    /// How many had failed when every transaction was ended last.
    pub(crate) ended_at: AtomicU64,
}

impl<F: Fs> Clone for Store<F> {
    fn clone(&self) -> Self {
        Self { opened: Arc::clone(&self.opened) }
    }
}

#[doc(hidden)]
impl<F: Fs> Deref for Store<F> {
    type Target = Opened<F>;

    fn deref(&self) -> &Self::Target {
        &self.opened
    }
}

impl<F: Fs> std::fmt::Debug for Store<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("output", &self.output.path).field("state", &self.state.at()).finish()
    }
}

impl<F: Fs> Store<F> {
    /// Opens the store of `out` without making or recovering it; `None` when there is none.
    ///
    /// ```
    /// # fn main() -> txfs::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a temporary directory");
    /// let nothing = txfs::Store::find(&txfs::OpenOptions::default(), dir.path().join("dist"))?;
    /// assert!(nothing.is_none());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Store::open`], but for those of [`Store::recover`].
    pub fn find(options: &OpenOptions<F>, out: impl AsRef<Path>) -> Result<Option<Self>> {
        let out = out.as_ref();
        compiled!(F, (options: &OpenOptions = same_ref(options), out: &Path = out) -> Result<Option<Store>> {
            Store::find_any(options, out)
        });
        Self::find_any(options, out)
    }

    fn find_any(options: &OpenOptions<F>, out: &Path) -> Result<Option<Self>> {
        let output = Self::locate_output(options, out)?;
        let Some(state) = output.find_trusted_state()? else { return Ok(None) };
        let Some(Said { capabilities, group }) = store_file::read(&state)? else {
            check_unclaimed(&state)?;
            return Ok(None);
        };
        let is_half_shared = group.is_some() && state.group().is_none();
        let state = state.shared_with(group);
        if is_half_shared {
            shared_state::give_output(&state, &output)?;
            shared_state::give(&state)?;
        }
        check_layout(&state, &output.path)?;
        Ok(Some(Self::new(options, output, state, capabilities)))
    }

    /// The canonical path of the output that `out` names, whether it is there or not. Nothing is made.
    ///
    /// # Errors
    /// [`Error::NotAnOutput`], [`Error::StateElsewhere`]; [`Error::Io`].
    pub fn locate(options: &OpenOptions<F>, out: impl AsRef<Path>) -> Result<PathBuf> {
        Self::locate_output(options, out.as_ref()).map(|output| output.path)
    }

    fn locate_output(options: &OpenOptions<F>, out: &Path) -> Result<Output<F>> {
        Output::locate(&options.fs, out, options.state.as_deref(), options.sharing)
    }

    /// The store of `out`, made where there is none; not recovered.
    pub(crate) fn find_or_make(options: &OpenOptions<F>, out: &Path) -> Result<Self> {
        if let Some(store) = Self::find(options, out)? {
            if store.place() == Place::Elsewhere || options.state.is_some() {
                store.output.remember(&store.state)?;
            }
            return Ok(store);
        }
        let mut output = Self::locate_output(options, out)?;
        // Before anything is made.
        let group = options.sharing.map(|sharing| shared_state::group_for(&output, sharing)).transpose()?;
        let (state, capabilities) = loop {
            let (state, is_new) = output.make_state()?;
            match Self::fill_state(options, &output, &state, group, is_new) {
                Err(Error::OutOfReach { .. }) if output.place == Place::Beside && options.state.is_none() => {
                    output.move_inside();
                }
                filled => break filled?,
            }
        };
        Ok(Self::new(options, output, state, capabilities))
    }

    /// Makes a store of a state directory. One that was made for it goes again where it cannot be one.
    fn fill_state(
        options: &OpenOptions<F>,
        output: &Output<F>,
        made: &Tree<F>,
        group: Option<u32>,
        is_new: bool,
    ) -> Result<(Tree<F>, Capabilities)> {
        let fill = || {
            if is_new {
                check_kept(made)?;
            }
            let state = trusted(made.clone(), &output.path, options.sharing)?;
            check_unclaimed(&state)?;
            if group.is_some() {
                // Before anything inherits it.
                sharing::strip(&state.fs, state.root()).map_err(state.io("share", &RelPath::root()))?;
            }
            let _lock = lock::acquire(&state, &state_path(name::LOCK), &options.patience)?;
            let (state, capabilities) = match (store_file::read(&state)?, group) {
                (Some(said), _) => (state, said.capabilities),
                (None, _) => {
                    let capabilities = initialize(&state, output, group)?;
                    let state = state.shared_with(group);
                    shared_state::give_output(&state, output)?;
                    shared_state::give(&state)?;
                    (state, capabilities)
                }
            };
            output.remember(&state)?;
            Ok((state, capabilities))
        };
        fill().inspect_err(|error| {
            if is_new && matches!(error, Error::Unsupported { .. } | Error::OutOfReach { .. }) {
                // Best effort: what is left of it is no store.
                let _ = output.remove_state(made);
            }
        })
    }

    fn new(options: &OpenOptions<F>, output: Output<F>, state: Tree<F>, capabilities: Capabilities) -> Self {
        let OpenOptions { fs, patience, progress, barriers, fanout, .. } = options.clone();
        let capabilities = Mutex::new(capabilities);
        let opened = Opened {
            fs,
            output,
            state,
            capabilities,
            patience,
            progress,
            barriers,
            fanout,
            carried_out: Mutex::default(),
            failed_barriers: Arc::default(),
            rescued: Mutex::default(),
            rescued_before: AtomicU64::new(0),
        };
        Self { opened: Arc::new(opened) }
    }

    /// The same store, once its state was given to others.
    pub(crate) fn with_state(mut self, state: Tree<F>) -> Result<Self> {
        self.alone()?.state = state;
        Ok(self)
    }

    /// What this handle alone has: another would go on with the state as it was.
    pub(crate) fn alone(&mut self) -> Result<&mut Opened<F>> {
        let output = self.output.path.clone();
        Arc::get_mut(&mut self.opened).ok_or(Error::InUse { output })
    }

    /// Takes the state directory away again, if nothing is in it: for callers that made a store to try something, and leave no trace. Says
    /// whether it is gone: what was published, or another process that is at work, keeps it.
    ///
    /// # Errors
    /// Something of it cannot be removed; what is left is a store, or becomes one again.
    pub fn remove_unused(self) -> Result<bool> {
        compiled!(F, (this: Store = same(self)) -> Result<bool> { this.remove_unused_any() });
        self.remove_unused_any()
    }

    fn remove_unused_any(self) -> Result<bool> {
        let Some(_lock) = self.try_lock()? else { return Ok(false) };
        let (holder, name) = self.output.state_location()?;
        let gone = holder.map_or(Ok(false), |holder| uninitialize(&holder, &name, &self.state))?;
        if gone {
            self.output.forget();
        }
        Ok(gone)
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

    /// The group that shares the store, if one does.
    pub fn shared_with(&self) -> Option<u32> {
        self.state.group()
    }

    /// What the file system can do.
    pub fn capabilities(&self) -> Capabilities {
        *self.capabilities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file system lacks, by what it is and how it is mounted, and no probe shows.
    pub fn weaknesses(&self) -> Vec<Weakness> {
        self.fs.weaknesses(self.state.root())
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
        lock::acquire(&self.state, &state_path(name::LOCK), &self.patience)
    }

    /// Takes the store's lock if nobody holds it.
    pub(crate) fn try_lock(&self) -> Result<Option<Lock<F>>> {
        lock::try_acquire(&self.state, &state_path(name::LOCK))
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
