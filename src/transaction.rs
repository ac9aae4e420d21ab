//! A transaction: begun, taken up again, filled, aborted. How it is committed is in `commit.rs`.
//!
//! ```text
//! begin --> open --commit--> published
//!            +--abort, drop--> discarded
//! ```
//!
//! Invariants:
//! 1. Nothing but the transaction's own directory is written, and the output is only read, but for what recovery and sweeping do
//!    when it begins, and recovery when it is aborted.
//! 2. It dies with its process, unless it is detached: then with the boot of the machine, after which its stage may lack content.
//!
//! A crash inside leaves a dead transaction, which the next txfs command discards.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::barrier::{self, MANY};
use crate::copy::{self, Source};
use crate::early_sync::EarlySync;
use crate::error::{Error, Result};
use crate::fs::stream::Stream;
use crate::fs::tree::{Tree, is_absent};
use crate::fs::{Fs, Kind, LinuxFs, Timestamp, found};
use crate::journal::record::TransactionId;
use crate::layout::{name, state_path};
use crate::lock::{self, Lock};
use crate::manifest::{Digest, Head, Object};
use crate::mutant::{Mutant, left_out};
use crate::path::{RESERVED, RelPath};
use crate::published::Audit;
use crate::recover::Manner;
use crate::referenced::{Referenced, not_staged};
use crate::settle;
use crate::stage::Known;
use crate::store::Store;
use crate::txdir::{self, Basis, Life, Meta, STAGE, part};

/// How a transaction begins.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct BeginOptions {
    /// What the stage stands for.
    pub from: Basis,
    /// Whether the transaction outlives this process: it stays open until it is committed or aborted by its stage's path, or
    /// the machine restarts. Otherwise it is discarded when it is dropped, or its process dies.
    pub detached: bool,
}

impl BeginOptions {
    /// What the stage stands for.
    #[must_use = "this returns the changed options"]
    pub fn from(mut self, from: Basis) -> Self {
        self.from = from;
        self
    }

    /// Whether the transaction outlives this process.
    #[must_use = "this returns the changed options"]
    pub fn detached(mut self, detached: bool) -> Self {
        self.detached = detached;
        self
    }
}

/// An open transaction.
///
/// Dropping one that is open and not detached discards it. That takes the store's lock, and so may wait for as long as
/// [`OpenOptions::lock_timeout`](crate::OpenOptions::lock_timeout) says, and for what the disk has been given to do; [`Transaction::abort`] does the same and tells of errors.
#[must_use = "a transaction that is dropped is aborted, unless it is detached"]
pub struct Transaction<'s, F: Fs = LinuxFs> {
    pub(crate) store: &'s Store<F>,
    pub(crate) id: TransactionId,
    pub(crate) meta: Meta,
    pub(crate) tree: Tree<F>,
    /// Held for as long as this process works on the transaction.
    _lock: Lock<F>,
    pub(crate) known: Known,
    /// Files that were created here and not finished: half of one is not to be published.
    pub(crate) unfinished: BTreeSet<RelPath>,
    pub(crate) removals: Vec<RelPath>,
    pub(crate) referenced: Option<Referenced<F>>,
    pub(crate) early: Option<EarlySync<F>>,
    written: Written,
    pub(crate) open: bool,
    left_out: Vec<PathBuf>,
    /// The barriers that had failed when nothing was staged yet.
    pub(crate) failed_barriers: u64,
    /// What recovery and sweeping found and met when the transaction began; the caller learns of it with the commit.
    pub(crate) rescued: Vec<PathBuf>,
    pub(crate) warnings: Vec<Error>,
}

impl<F: Fs> fmt::Debug for Transaction<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("stage", &self.stage()).field("base", &self.meta.base).finish()
    }
}

/// An open transaction, as [`Store::transactions`] lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenTransaction {
    /// Its number.
    pub id: TransactionId,
    /// Its stage.
    pub stage: PathBuf,
    /// The generation that it began on; `None` while its process is still making it.
    pub base: Option<u64>,
    /// What its stage stands for; `None` as above.
    pub from: Option<Basis>,
    /// When it began; `None` as above.
    pub began: Option<Timestamp>,
    /// Whether a process is at work on it right now.
    pub live: bool,
}

impl<F: Fs> Store<F> {
    /// Begins a transaction on the current generation.
    ///
    /// # Errors
    /// [`Error::Busy`] while another process commits; [`Error::Io`] when the stage cannot be made; and those of [`Store::recover`].
    pub fn begin(&self, options: BeginOptions) -> Result<Transaction<'_, F>> {
        let lock = self.lock()?;
        let recovered = self.recover_locked(&lock, Manner::Plain)?;
        let swept = settle::sweep(self);
        let base = self.head()?.map_or(0, |head| head.info.generation);
        // While its stage is being filled a transaction dies with its process: nobody is to find a part of a copy.
        let (from, attached) = (options.from, !options.detached || options.from == Basis::Copy);
        let meta = Meta { base, from, attached, began: self.fs.now(), boot: self.boot()? };
        let (id, tree, held) = self.make_transaction(&meta)?;
        let mut transaction = self.transaction(id, meta, tree, held);
        transaction.failed_barriers = self.failed_barriers();
        transaction.rescued = recovered.rescued;
        transaction.warnings = recovered.warnings;
        match swept {
            Ok(rescued) => transaction.rescued.extend(rescued),
            Err(error) => transaction.warnings.push(error),
        }
        // Nobody commits meanwhile: of a commit that is taken back again, the half that was done would be copied, and published.
        let copied = if from == Basis::Copy { transaction.copy_current() } else { Ok(()) };
        // Before a transaction can be dropped that wants it.
        drop(lock);
        copied?;
        transaction.set_attached(!options.detached)?;
        Ok(transaction)
    }

    fn transaction(&self, id: TransactionId, meta: Meta, tree: Tree<F>, lock: Lock<F>) -> Transaction<'_, F> {
        Transaction {
            store: self,
            id,
            meta,
            early: barrier::early(self, &tree),
            written: Written::default(),
            tree,
            _lock: lock,
            known: Known::new(),
            unfinished: BTreeSet::new(),
            removals: Vec::new(),
            referenced: None,
            open: true,
            left_out: Vec::new(),
            // What was staged earlier, by whomever, an error since the store was opened may concern.
            failed_barriers: 0,
            rescued: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Takes up a detached transaction by its number. Waits for its lock as for any other: whoever lists transactions holds it for an
    /// instant.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process works on it for longer than the options say, [`Error::Usage`] when there is none.
    pub fn resume(&self, id: TransactionId) -> Result<Transaction<'_, F>> {
        let stage = txdir::path(id).under(self.state.at()).join(STAGE);
        let missing = |what: &str| Err(Error::Usage { path: stage.clone(), what: what.to_owned() });
        let Some(tree) = self.state.find_below(&txdir::path(id))? else {
            return missing("there is no such transaction: it was committed or aborted");
        };
        let lock = match lock::acquire_existing(&tree, &part(txdir::LOCK), self.lock_timeout)? {
            Some(lock) => lock,
            None => return missing("there is no such transaction: it was committed or aborted"),
        };
        match self.read_meta(id)? {
            Some(meta) if !meta.is_of(&self.boot()?) => {
                missing("the machine restarted since it began, so its stage may have lost files: begin again")
            }
            Some(meta) if !meta.attached => Ok(self.transaction(id, meta, tree, lock)),
            _ => missing("its process died before it was finished: begin again"),
        }
    }

    /// Every open transaction.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn transactions(&self) -> Result<Vec<OpenTransaction>> {
        let mut open = Vec::new();
        for id in self.transaction_ids()? {
            let live = match self.life(id)? {
                Life::Live => true,
                Life::Detached => false,
                Life::Dead(_) => continue,
            };
            let meta = self.read_meta(id)?;
            open.push(OpenTransaction {
                id,
                stage: txdir::path(id).under(self.state.at()).join(STAGE),
                base: meta.as_ref().map(|meta| meta.base),
                from: meta.as_ref().map(|meta| meta.from),
                began: meta.as_ref().map(|meta| meta.began),
                live,
            });
        }
        Ok(open)
    }

    /// The transaction and the output that a stage's path belongs to; `None` when the path is no stage of txfs.
    ///
    /// The path need not exist: some tools remove the directory that they are told to write to.
    ///
    /// # Errors
    /// The path cannot be resolved, for another reason than that it leads nowhere.
    pub fn parse_stage(fs: &F, stage: &Path) -> Result<Option<(PathBuf, TransactionId)>> {
        let Some(parent) = stage.parent().filter(|_| stage.file_name() == Some(OsStr::new(STAGE))) else {
            return Ok(None);
        };
        match fs.resolve(parent) {
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(Error::io("find the transaction of", stage)(error)),
            Ok(directory) => Ok(Self::parse_directory(&directory)),
        }
    }

    fn parse_directory(directory: &Path) -> Option<(PathBuf, TransactionId)> {
        let id = txdir::parse_id(directory.file_name()?.as_bytes())?;
        let transactions = directory.parent()?;
        let state = transactions.parent()?;
        if transactions.file_name()? != name::TRANSACTIONS {
            return None;
        }
        let (holder, state_name) = (state.parent()?, state.file_name()?.as_bytes());
        if state_name == RESERVED {
            return Some((holder.to_path_buf(), id));
        }
        let output = state_name.strip_prefix(b".")?.strip_suffix(b".txfs")?;
        (!output.is_empty()).then(|| (holder.join(OsStr::from_bytes(output)), id))
    }
}

impl<F: Fs> Transaction<'_, F> {
    /// The directory to write to: by this transaction's methods, or by any tool.
    pub fn stage(&self) -> PathBuf {
        self.tree.at().join(STAGE)
    }

    /// The transaction's number.
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// The generation that it began on; 0 when nothing had been published.
    pub fn base(&self) -> u64 {
        self.meta.base
    }

    /// What its stage stands for.
    pub fn from(&self) -> Basis {
        self.meta.from
    }

    /// Whether it can still be written to and committed. It is over once it was committed, and after a failed commit that says so
    /// ([`Transaction::commit`]).
    pub fn is_open(&self) -> bool {
        self.open
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.open {
            return Ok(());
        }
        Err(Error::Usage { path: self.stage(), what: "this transaction is over: begin a new one".into() })
    }

    /// Writes a whole file of the stage, and the directories above it. A file that is there is replaced.
    ///
    /// # Errors
    /// `path` is no confined relative path, or the file cannot be written. Nothing is durable before the commit.
    pub fn write(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        let mut file = self.create(path)?;
        file.write_all(bytes.as_ref()).map_err(Error::io("write", file.path.as_path()))?;
        file.finish()
    }

    /// Creates a file of the stage to write to, and the directories above it. Call [`StagedFile::finish`] when it is complete: while
    /// the stage has a file that was not finished, committing is refused ([`Problem::Unfinished`](crate::Problem::Unfinished)).
    /// Writing it anew, or removing it, mends that.
    ///
    /// # Errors
    /// As [`Transaction::write`].
    pub fn create(&mut self, path: impl AsRef<Path>) -> Result<StagedFile<'_, F>> {
        let room = self.make_room(path.as_ref())?;
        self.begin_ahead();
        let file = self.make_anew(&room, "create", |transaction, dir| {
            let file = room.tree.fs.create_file(dir, room.path.name(), 0o666);
            // The file may be there though something failed.
            if !is_in_the_way(&file) {
                transaction.unfinished.insert(room.path.clone());
            }
            file
        })?;
        let Room { tree, path, .. } = room;
        let stream = Stream { fs: tree.fs.clone(), file };
        Ok(StagedFile {
            stream,
            path,
            at: tree.at().to_path_buf(),
            hasher: blake3::Hasher::new(),
            known: &mut self.known,
            unfinished: &mut self.unfinished,
            written: &mut self.written,
        })
    }

    /// Puts the disk to work on what was written so far, when there is enough of it: the commit will have to wait for it. Not where most of
    /// what is written may be published already; nor where this process may end before the commit, and with it the memory of an error.
    fn begin_ahead(&mut self) {
        let is_new = self.meta.base == 0 || self.meta.from == Basis::Current;
        let is_enough = self.written.files >= MANY && is_new && self.meta.attached;
        let Some(early) = self.early.as_ref().filter(|early| is_enough && !early.is_under_way()) else { return };
        self.written.files = 0;
        if barrier::begin_ahead(self.store, early, self.written.bytes) {
            self.written.bytes = 0;
        }
    }

    pub(crate) fn wait_for_early(&self) -> Result<()> {
        self.early.as_ref().map_or(Ok(()), EarlySync::wait)
    }

    /// Makes a symbolic link of the stage. Its target is published as it is, and never followed.
    ///
    /// # Errors
    /// As [`Transaction::write`].
    pub fn symlink(&mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<()> {
        let room = self.make_room(path.as_ref())?;
        let target = target.as_ref().as_os_str().as_bytes();
        self.make_anew(&room, "make the link", |_, dir| room.tree.fs.make_symlink(dir, room.path.name(), target))
    }

    /// Makes a directory of the stage, and those above it. One that is there is no error.
    ///
    /// # Errors
    /// As [`Transaction::write`].
    pub fn make_dir(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = confined(path.as_ref())?;
        let tree = self.stage_tree()?;
        self.make_dirs(&tree, path.ancestors().chain([path.clone()])).map(drop)
    }

    /// Says that `path`, with everything below it, is not to be published any more. In a transaction that is a change
    /// ([`Basis::Current`]) this is the only way to say so; in others the path just goes from the stage.
    ///
    /// # Errors
    /// As [`Transaction::write`].
    pub fn remove(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = confined(path.as_ref())?;
        self.stage_tree()?.remove(&path)?;
        self.leave_out(&path);
        self.known.retain(|known, _| *known != path && !known.is_below(&path));
        self.drop_unfinished(&path);
        self.removals.push(path);
        Ok(())
    }

    /// Fills the stage with a copy of the directory `source`: modes and extended attributes included, and of files times. The copy
    /// belongs to whoever copies; a set-id bit of a file goes where owner or group is another then. State directories of txfs are
    /// left out ([`Transaction::left_out`]).
    ///
    /// # Errors
    /// [`Error::Usage`] for what is neither file, directory nor symbolic link; [`Error::Io`].
    pub fn copy_from(&mut self, source: impl AsRef<Path>) -> Result<()> {
        let from = Tree::open(&self.store.fs, source.as_ref())?;
        let stage = self.stage_tree()?;
        let states = copy::copy_tree(&from, &stage)?;
        self.note_left_out(&from, &states);
        copy::copy_root(&from, &stage)
    }

    /// The state directories of txfs that copying left out so far. They may be content that only has such a name.
    pub fn left_out(&self) -> &[PathBuf] {
        &self.left_out
    }

    fn note_left_out(&mut self, from: &Tree<F>, states: &[RelPath]) {
        self.left_out.extend(states.iter().map(|path| path.under(from.at())));
    }

    /// As [`Transaction::copy_from`], but files that are published with the same size, time and mode are taken from the current
    /// generation without being read or copied, as rsync does. The stage then has only what differs: checks see no more. The
    /// output is looked at now, for whether it still is as it was published, and not again by the commit.
    ///
    /// # Errors
    /// As [`Transaction::copy_from`]; [`Error::BaseMoved`].
    pub fn copy_differing_from(&mut self, source: impl AsRef<Path>) -> Result<()> {
        self.check_not_filled()?;
        let from = Tree::open(&self.store.fs, source.as_ref())?;
        let head = self.check_base()?;
        let (published, stage) = (self.store.inventory(head.as_ref())?, self.stage_tree()?);
        let audit = Audit::of(self.store, head.as_ref())?;
        let copy = || copy::copy_differing(&from, &stage, published.entries());
        let ((entries, states), drifted) = Audit::beside(audit, copy)?;
        self.note_left_out(&from, &states);
        copy::copy_root(&from, &stage)?;
        self.referenced = Some(Referenced { from: Some(from), entries, drifted });
        Ok(())
    }

    /// First committer wins: the generation that it began on has to be the current one still.
    pub(crate) fn check_base(&self) -> Result<Option<Head>> {
        self.check_open()?;
        let head = self.store.head()?;
        let current = head.as_ref().map_or(0, |head| head.info.generation);
        if current != self.meta.base && !left_out(Mutant::BaseCheck) {
            let output = self.store.output.path.clone();
            return Err(Error::BaseMoved { output, base: self.meta.base, current });
        }
        if current == u64::MAX {
            let head = state_path(name::HEAD).under(self.store.state.at());
            return Err(Error::corrupt(head, "its generation is the last that there can be"));
        }
        Ok(head)
    }

    fn copy_current(&self) -> Result<()> {
        let head = self.store.head()?;
        let (Some(from), to) = (self.store.output.open()?, self.stage_tree()?) else { return Ok(()) };
        let published = self.store.inventory(head.as_ref())?;
        let paths = published.entries().map(|entry| entry.map(|entry| entry.path));
        copy::copy_paths(Source::published(&from), &to, paths)
    }

    /// Makes the directories above `path` in the stage.
    fn make_room(&mut self, path: &Path) -> Result<Room<F>> {
        let path = confined(path)?;
        let tree = self.stage_tree()?;
        let above = path.parent();
        // As a rule they are there.
        let there = tree.dir(&above).and_then(|dir| tree.fs.stat_dir(&dir));
        let closed = match there {
            _ if above.is_root() => None,
            Ok(stat) => Some(stat.mode).filter(|mode| mode & 0o700 != 0o700),
            Err(_) => self.make_dirs(&tree, path.ancestors())?,
        };
        self.known.remove(&path);
        self.leave_out(&path);
        Ok(Room { tree, path, closed })
    }

    /// Makes an entry of the stage; what is in its place is removed.
    fn make_anew<T>(
        &mut self,
        Room { tree, path, closed }: &Room<F>,
        action: &'static str,
        make: impl Fn(&mut Self, &F::Dir) -> io::Result<T>,
    ) -> Result<T> {
        make_in(tree, path, *closed, action, |dir| {
            let mut made = make(self, dir);
            if is_in_the_way(&made) {
                tree.remove(path)?;
                self.drop_unfinished(path);
                made = make(self, dir);
            }
            made.map_err(tree.io(action, path))
        })
    }

    /// Makes directories of the stage, each in the one before. Returns the mode of the last if its owner may not write to it.
    fn make_dirs(&self, stage: &Tree<F>, dirs: impl Iterator<Item = RelPath>) -> Result<Option<u32>> {
        let mut closed = None;
        for dir in dirs {
            let mode = self.make_stage_dir(stage, &dir, closed)?;
            closed = Some(mode).filter(|mode| mode & 0o700 != 0o700);
        }
        Ok(closed)
    }

    /// Makes a directory of the stage, unless it is there, in one with the mode `closed`, and returns its mode. One that is taken
    /// from the current generation has the mode that it is published with: writing into it is not to open it to others.
    fn make_stage_dir(&self, stage: &Tree<F>, path: &RelPath, closed: Option<u32>) -> Result<u32> {
        const ACTION: &str = "make the directory";
        let there = stage.parent(path).and_then(|dir| found(stage.fs.stat(&dir, path.name())));
        match there.map_err(stage.io(ACTION, path))? {
            Some(stat) if stat.is_dir() => return Ok(stat.mode),
            Some(_) => return Err(stage.io(ACTION, path)(io::ErrorKind::NotADirectory.into())),
            None => {}
        }
        let published = self.referenced.as_ref().and_then(|referenced| referenced.mode_of_dir(path));
        let mode = published.map_or(0o777, |_| 0o700);
        make_in(stage, path, closed, ACTION, |dir| {
            stage.fs.make_dir(dir, path.name(), mode).map_err(stage.io(ACTION, path))
        })?;
        if let Some(mode) = published {
            stage.set_dir_mode(path, mode)?;
        }
        Ok(published.unwrap_or(0o700))
    }

    fn leave_out(&mut self, path: &RelPath) {
        if let Some(referenced) = &mut self.referenced {
            referenced.leave_out(path);
        }
    }

    /// What is taken from the current generation is noted once.
    pub(crate) fn check_not_filled(&self) -> Result<()> {
        if self.referenced.is_none() {
            return Ok(());
        }
        Err(Error::Usage { path: self.stage(), what: "this transaction has been filled already: begin another".into() })
    }

    /// Notes that what was not finished at `path`, or below it, is gone.
    fn drop_unfinished(&mut self, path: &RelPath) {
        self.unfinished.retain(|unfinished| unfinished != path && !unfinished.is_below(path));
    }

    /// The stage, while the transaction is open: afterwards the directory that was its own belongs to what comes after.
    pub(crate) fn stage_tree(&self) -> Result<Tree<F>> {
        self.check_open()?;
        let stage = part(STAGE);
        match self.tree.find_below(&stage)? {
            Some(tree) => Ok(tree),
            None => Err(Error::Usage {
                path: stage.under(self.tree.at()),
                what: "the stage is gone: the tool that was to write to it removed it".into(),
            }),
        }
    }

    /// Ends the transaction; its stage goes, the output stays as it is.
    ///
    /// # Errors
    /// The stage cannot be removed, or [`Error::Busy`]; the transaction is over all the same, and the next txfs command removes it
    /// unless it is detached.
    pub fn abort(mut self) -> Result<()> {
        self.discard()
    }

    fn discard(&mut self) -> Result<()> {
        self.open = false;
        let lock = self.store.lock()?;
        // A journal may be about this very transaction: what is in its directory is needed until that is recovered.
        self.store.recover_locked(&lock, Manner::Plain)?;
        self.store.remove_transaction(self.id)
    }

    /// Leaves the transaction open when this process ends, as one begun detached; for a stage that is to be looked at. Whoever
    /// takes it up does not know which of its files were not finished.
    ///
    /// # Errors
    /// The state directory cannot be written; [`Error::StageLost`] when the disk could not take what was written;
    /// [`Error::Usage`] when the transaction is over.
    pub fn keep(mut self) -> Result<PathBuf> {
        self.check_open()?;
        // Whoever takes it up is not told again.
        self.wait_for_early().map_err(|source| Error::StageLost { source: Box::new(source) })?;
        if let Some(referenced) = self.referenced.take() {
            // Without this process nobody knows what was to be taken from the current generation.
            let stage = self.stage_tree()?;
            let paths: Vec<_> = referenced.entries.into_iter().map(|entry| entry.path).collect();
            let paths = not_staged(&stage, &paths)?;
            let paths = paths.into_iter().map(Ok);
            if let Some(from) = &referenced.from {
                copy::copy_paths(Source::foreign(from), &stage, paths)?;
            } else if let Some(output) = self.store.output.open()? {
                copy::copy_paths(Source::published(&output), &stage, paths)?;
            }
        }
        self.set_attached(false)?;
        self.open = false;
        Ok(self.stage())
    }

    /// Whether the transaction dies with this process.
    fn set_attached(&mut self, attached: bool) -> Result<()> {
        if self.meta.attached != attached {
            let meta = Meta { attached, ..self.meta.clone() };
            self.store.write_meta(self.id, &meta)?;
            self.meta = meta;
        }
        Ok(())
    }
}

impl<F: Fs> Drop for Transaction<'_, F> {
    fn drop(&mut self) {
        if self.open && self.meta.attached {
            // What cannot be removed now is removed by the next txfs command: its lock is free then.
            let _ = self.discard();
        }
    }
}

/// What was written by the library and is not being made durable yet.
#[derive(Debug, Default)]
struct Written {
    /// Since it was last asked whether that is worth its while.
    files: usize,
    bytes: u64,
}

/// A file of a stage that is being written. The bytes go to the stage as they come; wrap it in a
/// [`BufWriter`](std::io::BufWriter) for many small writes, and finish what [`into_inner`](std::io::BufWriter::into_inner) returns.
#[must_use = "a staged file that is not finished is not published"]
pub struct StagedFile<'t, F: Fs = LinuxFs> {
    stream: Stream<F>,
    path: RelPath,
    at: PathBuf,
    hasher: blake3::Hasher,
    known: &'t mut Known,
    unfinished: &'t mut BTreeSet<RelPath>,
    written: &'t mut Written,
}

impl<F: Fs> StagedFile<'_, F> {
    /// Ends the file. Its content was digested on the way, so the commit need not read it again.
    ///
    /// # Errors
    /// The file's attributes cannot be read.
    pub fn finish(self) -> Result<()> {
        let Stream { fs, file } = &self.stream;
        // A kernel gives what is written within one tick of its clock the same time: written to again, the file would look as it
        // does now. No tick has the time that is set here, to the nanosecond.
        let stat = fs.set_mtime(file, fs.now()).and_then(|()| fs.stat_file(file));
        let stat = stat.map_err(Error::io("read the attributes of", self.path.under(&self.at)))?;
        let object = Object::new(Kind::File, &stat, Digest(self.hasher.finalize().into()));
        self.written.files += 1;
        self.written.bytes += object.size;
        self.unfinished.remove(&self.path);
        self.known.insert(self.path, object);
        Ok(())
    }
}

impl<F: Fs> Write for StagedFile<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: Fs> fmt::Debug for StagedFile<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedFile").field("path", &self.path).finish()
    }
}

fn confined(path: &Path) -> Result<RelPath> {
    RelPath::from_path(path).map_err(|error| Error::Usage { path: path.to_path_buf(), what: error.to_string() })
}

/// Where something can be made in the stage.
struct Room<F: Fs> {
    tree: Tree<F>,
    path: RelPath,
    /// The mode of the directory above, if its owner may not write to it.
    closed: Option<u32>,
}

/// Whether something could not be made because something is in its place.
fn is_in_the_way<T>(made: &io::Result<T>) -> bool {
    made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
}

/// Makes an entry of the stage. A directory above it with the mode `closed` is open to its owner meanwhile.
fn make_in<F: Fs, T>(
    stage: &Tree<F>,
    path: &RelPath,
    closed: Option<u32>,
    action: &'static str,
    make: impl FnOnce(&F::Dir) -> Result<T>,
) -> Result<T> {
    let above = path.parent();
    if let Some(mode) = closed {
        stage.set_dir_mode(&above, mode | 0o700)?;
    }
    let made = stage.parent(path).map_err(stage.io(action, path)).and_then(|dir| make(&dir));
    let closing = closed.map_or(Ok(()), |mode| stage.set_dir_mode(&above, mode));
    let made = made?;
    closing.map(|()| made)
}
