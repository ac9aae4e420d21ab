//! A store: one output and its state directory. Where both are, whether they are trusted, and what lies in the state directory.
//!
//! ```text
//! .dist.txfs/            beside dist; or dist/.txfs where dist is a mount point or its parent cannot be written
//!     store              what the file system can do; its presence says that the directory is txfs'
//!     lock               flock'd by whoever changes anything, never unlinked
//!     journal[.new|.undo]  a commit that is not settled | being written | being undone
//!     HEAD[.new]         the current generation
//!     manifests/K        inventories of generation K and of those after it, until one begins a file of its own
//!     tx/ID/             an open transaction
//!     previous/N/        what generation N displaced, with its journal
//!     trash/ID           a transaction that had nothing to publish
//!     rescued/N.I        what txfs found among it and could not prove to be its own
//! ```
//!
//! Invariants (journal-spec.md, "Layout" and "Security"):
//! 1. The state directory belongs to the effective user and nobody else may write to it; otherwise it is refused (G9).
//! 2. It is on the output's file system and mount: every entry can be renamed from one to the other.
//! 3. A directory of that name without a `store` file that holds anything unknown is not ours, and is refused.
//!
//! A crash while a store is being made leaves a part of it, which the next `open` completes.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::barrier::Barriers;
use crate::error::{Error, Result};
use crate::frame::{Damage, Format, FrameReader, FrameWriter};
use crate::fs::stream::Stream;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, LinuxFs, RenameMode, found, is_not_directory, is_unsupported};
use crate::journal::record::{Begin, TransactionId};
use crate::lock::{self, Lock};
use crate::manifest::inventory::Inventory;
use crate::manifest::node::Subtree;
use crate::manifest::writer::{Edit, FANOUT};
use crate::manifest::{self, Extent, Head, Info, decode, encode};
use crate::mutant::{Mutant, left_out};
use crate::path::{NAME_MAX, RESERVED, RelPath};

const STORE: Format = Format { magic: *b"txfsstor", version: 1 };

/// The name of each part of the state directory.
pub(crate) mod name {
    pub(crate) const STORE: &str = "store";
    pub(crate) const STORE_NEW: &str = "store.new";
    pub(crate) const LOCK: &str = "lock";
    pub(crate) const IGNORE: &str = ".gitignore";
    pub(crate) const JOURNAL: &str = "journal";
    pub(crate) const JOURNAL_NEW: &str = "journal.new";
    pub(crate) const JOURNAL_UNDO: &str = "journal.undo";
    pub(crate) const HEAD: &str = "HEAD";
    pub(crate) const HEAD_NEW: &str = "HEAD.new";
    pub(crate) const MANIFESTS: &str = "manifests";
    pub(crate) const TRANSACTIONS: &str = "tx";
    pub(crate) const PREVIOUS: &str = "previous";
    pub(crate) const TRASH: &str = "trash";
    pub(crate) const RESCUED: &str = "rescued";
    pub(crate) const PROBE: &str = "probe";
}

/// The directories that every store has.
const DIRECTORIES: [&str; 3] = [name::MANIFESTS, name::TRANSACTIONS, name::PREVIOUS];

/// What the file system of a store can do, found out by doing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// `RENAME_EXCHANGE`: two names change places in one instant.
    pub exchange: bool,
    /// `RENAME_NOREPLACE`: a rename that refuses to replace.
    pub no_replace: bool,
    /// Hard links.
    pub links: bool,
}

/// Where the state directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// `.NAME.txfs`, the output's sibling.
    Beside,
    /// `.txfs` in the output: it is a mount point, or nothing can be made beside it.
    Inside,
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
    pub(crate) capabilities: Capabilities,
    pub(crate) lock_timeout: Duration,
    pub(crate) barriers: Barriers,
    fanout: usize,
    /// The transaction that was carried out through this very value, and whose journal is not settled yet.
    pub(crate) carried_out: Mutex<Option<TransactionId>>,
}

impl<F: Fs> std::fmt::Debug for Store<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("output", &self.output.path).field("state", &self.state.at()).finish()
    }
}

/// Where an output is; it need not exist.
pub(crate) struct Output<F: Fs> {
    pub(crate) path: PathBuf,
    pub(crate) place: Place,
    /// The directory that holds it.
    pub(crate) holder: Tree<F>,
    pub(crate) name: RelPath,
}

impl<F: Fs> Output<F> {
    /// Resolves what the user called the output. A symbolic link is followed, and stays one.
    pub(crate) fn locate(fs: &F, out: &Path) -> Result<Self> {
        let (path, exists) = resolve(fs, out)?;
        let usage = |what: &str| Error::Usage { path: out.to_path_buf(), what: what.to_owned() };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(usage("the root of the file system cannot be an output"));
        };
        let name = RelPath::new(name.as_bytes()).map_err(|error| usage(&error.to_string()))?;
        let holder = Tree::open(fs, parent)?;
        let mut output = Self { place: Place::Beside, holder, name, path };
        if exists && output.must_hold_state()? {
            output.place = Place::Inside;
        }
        Ok(output)
    }

    /// Whether the state has to be inside: entries cannot be renamed between the output and a sibling of it.
    fn must_hold_state(&self) -> Result<bool> {
        let fs = &self.holder.fs;
        let output = match fs.open_dir(self.holder.root(), &self.name) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return Ok(true),
            result => result.map_err(self.not_opened())?,
        };
        let beside = fs.stat_dir(self.holder.root()).map_err(Error::io("read the attributes of", self.holder.at()))?;
        let within = fs.stat_dir(&output).map_err(Error::io("read the attributes of", &self.path))?;
        let has_state = |dir: &F::Dir, name: &[u8]| fs.stat(dir, name).is_ok_and(|stat| stat.is_dir());
        let inside_only = has_state(&output, RESERVED) && !has_state(self.holder.root(), &self.sibling());
        Ok(beside.dev != within.dev || inside_only || self.sibling().len() > NAME_MAX)
    }

    fn sibling(&self) -> Vec<u8> {
        [b".", self.name.as_bytes(), b".txfs"].concat()
    }

    /// The state directory's path.
    pub(crate) fn state_path(&self) -> PathBuf {
        match self.place {
            Place::Beside => self.holder.at().join(OsStr::from_bytes(&self.sibling())),
            Place::Inside => self.path.join(OsStr::from_bytes(RESERVED)),
        }
    }

    /// The output itself, if it is there.
    pub(crate) fn open(&self) -> Result<Option<Tree<F>>> {
        if self.place == Place::Inside {
            return Tree::open(&self.holder.fs, &self.path).map(Some);
        }
        let root = found(self.holder.fs.open_dir(self.holder.root(), &self.name));
        let root = root.map_err(self.not_opened())?;
        Ok(root.map(|root| Tree::new(&self.holder.fs, root, &self.path)))
    }

    fn not_opened(&self) -> impl FnOnce(io::Error) -> Error {
        let path = self.path.clone();
        |error| match is_not_directory(&error) {
            true => Error::Usage { path, what: "it is not a directory, so it cannot be an output".into() },
            false => Error::io("open the output", path)(error),
        }
    }

    /// The state directory, if it is there.
    fn open_state(&self) -> Result<Option<Tree<F>>> {
        let (tree, name) = self.state_location()?;
        let Some(tree) = tree else { return Ok(None) };
        let root = found(tree.fs.open_dir(tree.root(), &name));
        let at = self.state_path();
        match root {
            Err(error) if is_not_directory(&error) => {
                Err(Error::Untrusted { path: at, what: "it is not a directory: move it away".into() })
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(self.not_ours(&tree, &name, error)),
            Err(error) => Err(Error::io("open the state directory", at)(error)),
            Ok(root) => Ok(root.map(|root| Tree::new(&tree.fs, root, at))),
        }
    }

    /// A state directory that cannot be opened: most likely another user's.
    fn not_ours(&self, tree: &Tree<F>, name: &RelPath, error: io::Error) -> Error {
        match tree.fs.stat(tree.root(), name.as_bytes()) {
            Ok(stat) if stat.uid != tree.fs.user() => another_user(self.state_path(), stat.uid, tree.fs.user()),
            _ => Error::io("open the state directory", self.state_path())(error),
        }
    }

    /// The directory that holds the state directory, and the name in it.
    fn state_location(&self) -> Result<(Option<Tree<F>>, RelPath)> {
        let (tree, name) = match self.place {
            Place::Beside => (Some(self.holder.clone()), self.sibling()),
            Place::Inside => (self.open()?, RESERVED.to_vec()),
        };
        let name = RelPath::new(name).map_err(|error| Error::corrupt(self.state_path(), error))?;
        Ok((tree, name))
    }

    /// Makes the state directory; inside the output where nothing can be made beside it.
    fn make_state(&mut self) -> Result<Tree<F>> {
        let (tree, name) = self.state_location()?;
        let made = match &tree {
            Some(tree) => tree.fs.make_dir(tree.root(), name.as_bytes(), 0o700),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match made {
            Err(error) if self.place == Place::Beside && is_refusal(&error) && self.open()?.is_some() => {
                self.place = Place::Inside;
                return self.make_state();
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("make the state directory", self.state_path())(error));
            }
            _ => {}
        }
        self.open_state()?.ok_or_else(|| Error::corrupt(self.state_path(), "it went away while it was being made"))
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// The canonical path of an output, and whether it is there.
fn resolve<F: Fs>(fs: &F, out: &Path) -> Result<(PathBuf, bool)> {
    const LINKS_MAX: usize = 40;
    let mut out = out.to_path_buf();
    for _ in 0..LINKS_MAX {
        match fs.resolve(&out) {
            Ok(path) => return Ok((path, true)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("find the output", &out)(error)),
        }
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        if let Ok(target) = fs.read_anchor_link(&out) {
            out = parent.join(target);
            continue;
        }
        let Some(name) = out.file_name() else {
            return Err(Error::Usage { path: out, what: "this names no directory".into() });
        };
        return match fs.resolve(&parent) {
            Ok(parent) => Ok((parent.join(name), false)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Usage {
                path: parent,
                what: "the directory that is to hold the output is not there: make it first".into(),
            }),
            Err(error) => Err(Error::io("find the directory of the output", parent)(error)),
        };
    }
    Err(Error::Usage { path: out, what: "too many symbolic links".into() })
}

impl<F: Fs> Store<F> {
    /// Opens the store of `out` without recovering it; `None` when txfs has nothing there.
    pub(crate) fn open_existing(options: &OpenOptions<F>, out: &Path) -> Result<Option<Self>> {
        let output = Output::locate(&options.fs, out)?;
        let Some(state) = output.open_state()? else { return Ok(None) };
        check_trust(&state)?;
        let Some(capabilities) = read_capabilities(&state)? else { return Ok(None) };
        check_layout(&state)?;
        Ok(Some(Self::new(options, output, state, capabilities)))
    }

    /// Opens the store of `out` without recovering it, and makes what is missing of it.
    pub(crate) fn open_or_make(options: &OpenOptions<F>, out: &Path) -> Result<Self> {
        if let Some(store) = Self::open_existing(options, out)? {
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
        Self { fs, output, state, capabilities, lock_timeout, barriers, fanout, carried_out: Mutex::default() }
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
        self.capabilities
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

    /// Writes the manifest that `edits`, so many and ascending, make of `inventory`, that of the generation `base`, and returns the HEAD that
    /// names it; nothing of it is durable yet.
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

    /// Why a file of the state directory cannot be used: it could not be read, or what was read is wrong.
    pub(crate) fn damaged(&self, path: &RelPath, damage: Damage) -> Error {
        match damage {
            Damage::Io(source) => self.state.io("read", path)(source),
            damage => Error::corrupt(path.under(self.state.at()), damage),
        }
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

    /// Makes everything on the store's file system durable.
    pub(crate) fn sync_all(&self) -> Result<()> {
        self.fs.sync_fs(self.state.root()).map_err(self.state.io("make durable", &RelPath::root()))
    }
}

/// The path of a part of the state directory.
pub(crate) fn state_path(name: &str) -> RelPath {
    RelPath::new(name).expect("the names of the layout are valid")
}

/// The path of something in one of the state directory's directories.
pub(crate) fn numbered(directory: &str, name: impl std::fmt::Display) -> RelPath {
    state_path(directory).join(name.to_string().as_bytes()).expect("numbers are valid names")
}

pub(crate) fn manifest_path(generation: u64) -> RelPath {
    numbered(name::MANIFESTS, generation)
}

/// Refuses a state directory that somebody else may have written to.
fn check_trust<F: Fs>(state: &Tree<F>) -> Result<()> {
    let stat = state.fs.stat_dir(state.root()).map_err(state.io("read the attributes of", &RelPath::root()))?;
    let untrusted = |what: String| Err(Error::Untrusted { path: state.at().to_path_buf(), what });
    let user = state.fs.user();
    if stat.uid != user {
        return Err(another_user(state.at().to_path_buf(), stat.uid, user));
    }
    if stat.mode & 0o022 != 0 {
        return untrusted(format!(
            "others may write to it (mode {:04o}): `chmod 700` it if you know its content",
            stat.mode
        ));
    }
    Ok(())
}

fn another_user(path: PathBuf, owner: u32, user: u32) -> Error {
    let what = format!("it belongs to user {owner}, and this is user {user}: run txfs as its owner");
    Error::Untrusted { path, what }
}

/// The directories of a complete store are there, and are directories.
fn check_layout<F: Fs>(state: &Tree<F>) -> Result<()> {
    for directory in DIRECTORIES {
        let path = state_path(directory);
        match state.stat(&path)? {
            Some(stat) if stat.is_dir() => {}
            Some(_) => {
                let what = "it is not a directory: move it away".into();
                return Err(Error::Untrusted { path: path.under(state.at()), what });
            }
            None => return Err(Error::corrupt(path.under(state.at()), "it is missing")),
        }
    }
    Ok(())
}

/// Opens a file of the state directory that belongs to this user and is a file.
pub(crate) fn open_trusted<F: Fs>(state: &Tree<F>, path: &RelPath) -> Result<Option<Stream<F>>> {
    let Some(named) = state.stat(path)? else { return Ok(None) };
    let untrusted = |what: &str| Err(Error::Untrusted { path: path.under(state.at()), what: what.to_owned() });
    if named.kind != Some(Kind::File) {
        return untrusted("it is not a regular file");
    }
    if named.uid != state.fs.user() {
        return untrusted("it belongs to another user");
    }
    let (file, _) = state.open_file(path)?;
    Ok(Some(Stream { fs: state.fs.clone(), file }))
}

/// A directory that is not a store yet may hold only what making one leaves behind.
fn check_unclaimed<F: Fs>(state: &Tree<F>) -> Result<()> {
    let listed = state.fs.list(state.root()).map_err(state.io("list", &RelPath::root()))?;
    let made_first = [name::STORE, name::STORE_NEW, name::LOCK, name::IGNORE, name::MANIFESTS, name::TRANSACTIONS];
    let made_first = [&made_first[..], &[name::PREVIOUS, name::PROBE]].concat();
    let unknown = listed.iter().find(|entry| !made_first.iter().any(|known| known.as_bytes() == &*entry.name));
    let claimed = listed.iter().any(|entry| &*entry.name == name::STORE.as_bytes());
    match unknown {
        Some(entry) if !claimed => Err(Error::Untrusted {
            path: state.at().to_path_buf(),
            what: format!(
                "it holds `{}` and no store: it is not a state directory of txfs; move it away",
                entry.name.escape_ascii()
            ),
        }),
        _ => Ok(()),
    }
}

/// Fills a new state directory; the `store` file comes last, and says that it is complete.
fn initialize<F: Fs>(state: &Tree<F>) -> Result<Capabilities> {
    for directory in DIRECTORIES {
        make_dir(state, &state_path(directory))?;
    }
    write_new(state, &state_path(name::IGNORE), |mut file| file.write_all(b"*\n"))?;
    let capabilities = probe(state)?;
    if !capabilities.no_replace && !capabilities.links {
        return Err(Error::Unsupported {
            path: state.at().to_path_buf(),
            what:
                "its file system has neither RENAME_NOREPLACE nor hard links, so an entry cannot be added without the \
                   danger of overwriting another; use ext4, xfs, btrfs, tmpfs or overlayfs"
                    .into(),
        });
    }
    if !capabilities.exchange && !capabilities.links {
        return Err(Error::Unsupported {
            path: state.at().to_path_buf(),
            what: "its file system has neither RENAME_EXCHANGE nor hard links, so an entry cannot be replaced without \
                   being missing for a moment; use ext4, xfs, btrfs, tmpfs or overlayfs"
                .into(),
        });
    }
    let (new, store) = (state_path(name::STORE_NEW), state_path(name::STORE));
    write_new(state, &new, |file| {
        let mut writer = FrameWriter::new(file, STORE)?;
        writer.frame(&encode(&capabilities)?)?;
        let stream = writer.finish()?;
        // Durable before it has its name: a torn `store` file would look like damage after a crash.
        if left_out(Mutant::StoreFileBarrier) { Ok(()) } else { stream.fs.sync_file(&stream.file) }
    })?;
    let dir = state.root();
    // Barrier: the `store` file says that the rest is there, so no crash may keep it and lose the rest.
    if !left_out(Mutant::StoreDirectoryBarrier) {
        state.fs.sync_dir(dir).map_err(state.io("make durable", &RelPath::root()))?;
    }
    state.fs.rename(dir, new.name(), dir, store.name(), RenameMode::Replace).map_err(state.io("rename", &new))?;
    // And before anything else is made in it: a directory that holds more than this and no store is not taken for ours. Once for
    // all commits it is a syncfs: the directories that lead to the store may have been made just now.
    if !left_out(Mutant::StoreNameBarrier) {
        state.fs.sync_fs(dir).map_err(state.io("make durable", &RelPath::root()))?;
    }
    Ok(capabilities)
}

/// Makes a directory of the state; one that is there already is no error.
pub(crate) fn make_dir<F: Fs>(state: &Tree<F>, path: &RelPath) -> Result<()> {
    match state.parent(path).and_then(|dir| state.fs.make_dir(&dir, path.name(), 0o700)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(state.io("make the directory", path)(error)),
        _ => Ok(()),
    }
}

fn write_new<F: Fs, T>(state: &Tree<F>, path: &RelPath, fill: impl FnOnce(Stream<F>) -> io::Result<T>) -> Result<T> {
    state.remove_entry(path, Kind::File)?;
    let result = state.parent(path).and_then(|dir| {
        let file = state.fs.create_file(&dir, path.name(), 0o600)?;
        fill(Stream { fs: state.fs.clone(), file })
    });
    result.map_err(state.io("write", path))
}

/// Tries what the file system can do, in a directory of its own.
fn probe<F: Fs>(state: &Tree<F>) -> Result<Capabilities> {
    let path = state_path(name::PROBE);
    state.remove(&path)?;
    make_dir(state, &path)?;
    let (one, two, three) = (path.join(b"one"), path.join(b"two"), path.join(b"three"));
    let (one, two, three) = match (one, two, three) {
        (Ok(one), Ok(two), Ok(three)) => (one, two, three),
        _ => unreachable!("these are valid names"),
    };
    write_new(state, &one, |_| Ok(()))?;
    write_new(state, &two, |_| Ok(()))?;
    let dir = state.dir(&path).map_err(state.io("open the directory", &path))?;
    let fs = &state.fs;
    let rename = |from: &RelPath, to: &RelPath, mode| fs.rename(&dir, from.name(), &dir, to.name(), mode);
    let exchange = supported(rename(&one, &two, RenameMode::Exchange)).map_err(state.io("probe renaming in", &path))?;
    let no_replace =
        supported(rename(&one, &three, RenameMode::NoReplace)).map_err(state.io("probe renaming in", &path))?;
    let links = supported(fs.link(&dir, two.name(), &dir, b"four")).map_err(state.io("probe linking in", &path))?;
    state.remove(&path)?;
    Ok(Capabilities { exchange, no_replace, links })
}

fn supported(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if is_unsupported(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn read_capabilities<F: Fs>(state: &Tree<F>) -> Result<Option<Capabilities>> {
    let path = state_path(name::STORE);
    let Some(stream) = open_trusted(state, &path)? else { return Ok(None) };
    let read = || -> Result<Capabilities, Damage> {
        let mut reader = FrameReader::new(stream, STORE)?;
        let offset = reader.offset();
        let payload = reader.next_frame()?.ok_or(Damage::Torn { offset })?;
        decode(&payload).map_err(|what| Damage::corrupt(offset, what))
    };
    read().map(Some).map_err(|damage| match damage {
        Damage::Io(source) => state.io("read", &path)(source),
        damage => Error::corrupt(path.under(state.at()), damage),
    })
}
