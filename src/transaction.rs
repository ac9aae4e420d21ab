//! A transaction: begun, taken up again, kept, aborted. How it is filled is in `fill.rs`, how it is committed in `commit.rs`.
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
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::barrier;
use crate::copy::{self, Source};
use crate::early_sync::EarlySync;
use crate::error::{Error, Paths, Problem, Result};
use crate::fs::tree::{Tree, is_absent};
use crate::fs::{Fs, LinuxFs, Timestamp};
use crate::journal::record::TransactionId;
use crate::layout::{name, state_path};
use crate::lock::{self, Lock};
use crate::manifest::Head;
use crate::mutant::{Mutant, left_out};
use crate::path::{RESERVED, RelPath};
use crate::recover::Manner;
use crate::referenced::{Referenced, are_there, not_staged};
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
    /// the machine restarts. Otherwise it is discarded when it is dropped, or its process dies. So is one that takes something from the
    /// current generation without staging it ([`Transaction::copy_differing_from`], [`Transaction::copy_previous`]), unless it is kept.
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
    pub(crate) written: Written,
    pub(crate) open: bool,
    pub(crate) left_out: Vec<PathBuf>,
    pub(crate) without_set_id: Paths,
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
    /// [`Error::Busy`] while another process commits; [`Error::Io`] when the stage cannot be made; [`Error::StageLost`] when the disk
    /// failed while the current generation was copied; and those of [`Store::recover`].
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
            without_set_id: Paths::default(),
            failed_barriers: self.failed_before_any(),
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
            _ => missing("its process died before it was finished, or the disk failed meanwhile: begin again"),
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

    /// A barrier of another transaction may have been told of an error that lost what is staged here, and then this one's would be told
    /// of none.
    pub(crate) fn check_barriers(&mut self) -> Result<()> {
        if self.store.failed_barriers() == self.failed_barriers && !self.store.is_ended(self.id)? {
            return Ok(());
        }
        let told = std::io::Error::other("a barrier failed while it was being filled");
        Err(self.lose_stage(Error::io("make durable", self.stage())(told)))
    }

    /// A second attempt to make the stage durable would be told of success, and find old data on the medium.
    pub(crate) fn lose_stage(&mut self, source: Error) -> Error {
        self.open = false;
        let _ = self.store.remove_transaction(self.id);
        Error::StageLost { source: Box::new(source) }
    }

    pub(crate) fn wait_for_early(&self) -> Result<()> {
        self.early.as_ref().map_or(Ok(()), EarlySync::wait)
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
        // What failed has been noted where it did.
        let _ = self.wait_for_early();
        let lock = self.store.lock()?;
        // A journal may be about this very transaction: what is in its directory is needed until that is settled.
        let mut recovered = self.store.recover_locked(&lock, Manner::Plain)?;
        if self.store.unsettled()?.contains(&self.id) {
            return recovered.warnings.pop().map_or(Ok(()), Err);
        }
        self.store.remove_transaction(self.id)
    }

    /// Leaves the transaction open when this process ends, as one begun detached; for a stage that is to be looked at. Whoever
    /// takes it up does not know which of its files were not finished, nor what a change removes: [`Transaction::remove`] has to say it
    /// again.
    ///
    /// # Errors
    /// The state directory cannot be written; [`Error::StageLost`] when the disk could not take what was written;
    /// [`Error::Usage`] when the transaction is over. Where something was to be taken from the current generation: [`Error::Io`] when
    /// it is not there any more, and after [`Transaction::copy_previous`] also [`Error::Refused`], [`Error::BaseMoved`],
    /// [`Error::Busy`], and those of [`Store::recover`]. The stage is discarded then.
    pub fn keep(mut self) -> Result<PathBuf> {
        self.check_open()?;
        self.check_barriers()?;
        self.stage_referenced()?;
        // Whoever takes it up is not told again of what failed by now.
        self.store.sync_all().and(self.wait_for_early()).map_err(|error| self.lose_stage(error))?;
        self.set_attached(false)?;
        self.open = false;
        Ok(self.stage())
    }

    /// Without this process nobody knows what was to be taken from the current generation.
    fn stage_referenced(&mut self) -> Result<()> {
        let Some(Referenced { from, entries, .. }) = self.referenced.take() else { return Ok(()) };
        let stage = self.stage_tree()?;
        let paths: Vec<_> = entries.into_iter().map(|entry| entry.path).collect();
        let paths = not_staged(&stage, &paths)?;
        let wanted = || paths.iter().cloned().map(Ok);
        if let Some(from) = &from {
            copy::copy_paths(Source::foreign(from), &stage, wanted())?;
            return are_there(&stage, from, &paths);
        }
        // As when the current generation is copied: half of another commit is not to be taken for it.
        let lock = self.store.lock()?;
        self.store.recover_commits(&lock, Manner::Plain)?;
        self.check_base()?;
        let Some(output) = self.store.output.open()? else {
            let output = self.store.output.path.clone();
            return Err(Error::Refused { output, problems: vec![Problem::OutputGone] });
        };
        copy::copy_paths(Source::published(&output), &stage, wanted())?;
        are_there(&stage, &output, &paths)
    }

    /// Whether the transaction dies with this process.
    pub(crate) fn set_attached(&mut self, attached: bool) -> Result<()> {
        if self.meta.attached != attached {
            // A barrier of another process may have failed meanwhile, which took `meta` away: it is not to be made again.
            self.check_barriers()?;
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
pub(crate) struct Written {
    /// Since it was last asked whether that is worth its while.
    pub(crate) files: usize,
    pub(crate) bytes: u64,
}
