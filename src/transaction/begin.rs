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

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Ended, Error, Paths, Problem, Result};
use crate::format::journal::record::TransactionId;
use crate::format::manifest::{Entry, Head};
use crate::fs::background_sync::EarlySync;
use crate::fs::compiled::{compiled, same, same_mut, same_ref};
use crate::fs::tree::{Tree, is_absent};
use crate::fs::{Attribute, Fs, LinuxFs, Timestamp};
use crate::mutant::{Mutant, left_out};
use crate::options::Exclude;
use crate::path::{RESERVED, RelPath};
use crate::plan::Base;
use crate::plan::live::{self, Published};
use crate::progress::Phase;
use crate::protocol::barrier;
use crate::protocol::recover::Manner;
use crate::protocol::settle;
use crate::stage::copy::{self, Source};
use crate::stage::source_look::{self, SourceLook};
use crate::stage::sources::Sources;
use crate::stage::traces::Traces;
use crate::store::current::Current;
use crate::store::inherit::inherit;
use crate::store::layout::{name, renew_ignore, state_path, write_new};
use crate::store::lock::{self, Attempt, Lock};
use crate::store::sharing::give_dir;
use crate::store::transaction_dir::{self, Basis, Besides, LEFT, Life, Meta, STAGE, part};
use crate::store::whereabouts;
use crate::store::{OpenOptions, Store};
use crate::transaction::at;
use crate::transaction::begin_options::BeginOptions;
use crate::transaction::borrowed::{Original, Referenced, are_there, copy_from_source, not_staged};
use crate::transaction::staged_file::Ledger;

/// An open transaction.
///
/// Dropping one that is open and not detached discards it. That takes the store's lock, and so may wait for as long as
/// [`OpenOptions::lock_timeout`](crate::OpenOptions::lock_timeout) says, and for what the disk has been given to do; [`Transaction::abort`] does the same and tells of errors.
#[must_use = "a transaction that is dropped is aborted, unless it is detached"]
pub struct Transaction<F: Fs = LinuxFs> {
    pub(crate) store: Store<F>,
    pub(crate) id: TransactionId,
    pub(crate) meta: Meta,
    pub(crate) tree: Tree<F>,
    /// Held for as long as this process works on the transaction.
    pub(crate) lock: Lock<F>,
    /// What is known of the files that were written here.
    pub(crate) ledger: Ledger,
    /// What its stage is looked for by in what is published.
    pub(crate) traces: Arc<Traces<F>>,
    pub(crate) removals: Vec<RelPath>,
    /// Whether the path that it is about is to go.
    pub(crate) removes_at: bool,
    /// Whether the stage is what a tool changed of the output, as far as that differs.
    pub(crate) captured: bool,
    pub(crate) referenced: Option<Referenced<F>>,
    pub(crate) early: Option<EarlySync<F>>,
    pub(crate) open: bool,
    pub(crate) left_out: Vec<PathBuf>,
    pub(crate) without_set_id: Paths,
    /// What is neither copied nor published.
    pub(crate) excluded: Option<Exclude>,
    /// The directories that were copied.
    pub(crate) sources: Vec<SourceLook<F>>,
    /// What is known of the files in them.
    pub(crate) known_sources: Option<Sources>,
    /// What somebody else had changed or removed in the output that the stage began as a copy of.
    copied_drift: Paths,
    /// The barriers that had failed when nothing was staged yet.
    pub(crate) failed_barriers: u64,
    /// What recovery and sweeping met when the transaction began; the caller learns of it with the commit.
    pub(crate) warnings: Vec<Error>,
}

impl<F: Fs> fmt::Debug for Transaction<F> {
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
    /// The path of the output that alone it replaces ([`BeginOptions::at`]).
    pub at: Option<RelPath>,
    /// What its stage stands for; `None` as above.
    pub from: Option<Basis>,
    /// When it began; `None` as above.
    pub began: Option<Timestamp>,
    /// Whether a process is at work on it right now.
    pub live: bool,
    /// Whether whoever built it could not publish it and left it ([`Transaction::leave`]): the next one that is left replaces it.
    pub left: bool,
}

/// A transaction that was left open.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Left {
    /// Its stage.
    pub stage: PathBuf,
    /// How many that were left before were discarded for it.
    pub replaced: u64,
}

impl<F: Fs> Store<F> {
    /// Begins a transaction on the current generation.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use txfs::{Basis, BeginOptions, Store};
    ///
    /// let store = Store::open(dir.path().join("dist"))?;
    /// let whole = store.begin(BeginOptions::default())?;
    /// let change = store.begin(BeginOptions::default().from(Basis::Current))?;
    /// assert_ne!(whole.stage(), change.stage());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::NoPlace`] when it is to be about a path that is none for it; [`Error::Busy`] while another process commits; [`Error::Waited`] when it was to wait for others, for longer than that; [`Error::Io`] when the stage cannot be made, or nothing has been published and the output is another user's, and closed to this one; [`Error::StageLost`] when the disk
    /// failed while the current generation was copied; [`Error::Refused`] when it was to be copied and is not in the output as it was
    /// published; and those of [`Store::recover`].
    pub fn begin(&self, options: BeginOptions) -> Result<Transaction<F>> {
        compiled!(F, (store: &Store = same_ref(self), options: BeginOptions = options) -> Result<Transaction> {
            store.begin_any(options)
        });
        self.begin_any(options)
    }

    fn begin_any(&self, options: BeginOptions) -> Result<Transaction<F>> {
        self.telling(self.begin_on_current(options))
    }

    fn begin_on_current(&self, options: BeginOptions) -> Result<Transaction<F>> {
        let at = options.at.as_deref().map(at::parse).transpose()?;
        let (lock, turn) = match options.wait {
            Some(limit) => self.wait_for_turn(limit)?,
            None => (self.lock()?, None),
        };
        let recovered = self.recover_locked(&lock, Manner::PLAIN)?;
        let swept = settle::sweep(self);
        // Where it cannot be, a check sees less, which is no reason to build nothing.
        let renewed = renew_ignore(&self.state);
        let head = self.head()?;
        let base = head.as_ref().map_or(0, |head| head.info.generation);
        let below = at.map(|at| self.below(at, head)).transpose()?;
        if base == 0 {
            self.check_access(&below.as_ref().map(|below| below.at.clone()).unwrap_or_default())?;
        }
        // While its stage is being filled a transaction dies with its process: nobody is to find a part of a copy.
        let (from, is_filled) = (options.from, options.from == Basis::Copy || below.is_some());
        let attached = !options.detached || is_filled;
        let meta = Meta { base, from, attached, began: self.fs.now(), boot: self.boot()?, below, besides: None };
        self.output.mark();
        let (id, tree, held) = self.make_transaction(&meta)?;
        let mut transaction = self.transaction(id, meta, tree, held);
        transaction.failed_barriers = self.failed_barriers();
        transaction.warnings = recovered.warnings;
        transaction.warnings.extend(swept.err().into_iter().chain(renewed.err()));
        // What cannot be given, as a group to which this user does not belong, the commit tells of where it matters.
        let _ = self.inherit_from_output(&transaction.tree);
        // Nobody commits meanwhile: of a commit that is taken back again, the half that was done would be copied, and published.
        let copied = transaction.make_way().and_then(|()| match from {
            Basis::Copy => transaction.copy_current(options.allow_drift),
            _ => Ok(()),
        });
        let kept = if options.wait.is_some() && options.detached { self.keep_turn(id) } else { Ok(()) };
        // From now on others wait for the transaction.
        drop(turn);
        // Before a transaction can be dropped that wants it.
        drop(lock);
        match copied.and(kept).and_then(|()| transaction.set_attached(!options.detached)) {
            Ok(()) => Ok(transaction),
            Err(error) => {
                // A detached one would stay, and nobody has been told of it.
                let _ = transaction.discard();
                Err(error)
            }
        }
    }

    /// Has the stage give what the output gives, or the directory that will hold it.
    fn inherit_from_output(&self, transaction: &Tree<F>) -> Result<()> {
        let output = self.output.open()?;
        let model = output.as_ref().unwrap_or(&self.output.holder);
        let stage = transaction.below(&part(STAGE))?;
        let given = inherit(&self.fs, model.root(), stage.root());
        // In a shared store the group is that of the members.
        let group = stage.group().map_or(Ok(false), |group| give_dir(&self.fs, stage.root(), group));
        given
            .and(group)
            .map(drop)
            .map_err(Error::io("give what is staged the group, or the default ACL, of", model.at()))
    }

    fn transaction(&self, id: TransactionId, meta: Meta, tree: Tree<F>, lock: Lock<F>) -> Transaction<F> {
        Transaction {
            store: self.clone(),
            id,
            meta,
            early: barrier::early(self, &tree),
            tree,
            lock,
            ledger: Ledger::default(),
            traces: Arc::new(self.traces(id)),
            removals: Vec::new(),
            removes_at: false,
            captured: false,
            referenced: None,
            open: true,
            left_out: Vec::new(),
            without_set_id: Paths::default(),
            excluded: None,
            sources: Vec::new(),
            known_sources: None,
            copied_drift: Paths::default(),
            failed_barriers: self.failed_before_any(),
            warnings: Vec::new(),
        }
    }

    pub(crate) fn traces(&self, id: TransactionId) -> Traces<F> {
        let stage = transaction_dir::path(id).under(self.state.at()).join(STAGE);
        Traces::new(&self.fs, &id.to_string(), &stage, self.state.at(), &self.output.path)
    }

    /// Takes up a detached transaction by its number. Waits for its lock as for any other: whoever discards what is dead may hold it for
    /// an instant.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use txfs::{BeginOptions, CommitOptions, Store};
    ///
    /// let store = Store::open(dir.path().join("dist"))?;
    /// let id = store.begin(BeginOptions::default().detached(true))?.id();
    /// // Later, perhaps in another process:
    /// let mut transaction = store.resume(id)?;
    /// transaction.write("index.html", "<h1>Hello</h1>")?;
    /// transaction.commit(&CommitOptions::default())?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Busy`] when another process works on it for longer than the options say, [`Error::NoTransaction`].
    pub fn resume(&self, id: TransactionId) -> Result<Transaction<F>> {
        compiled!(F, (store: &Store = same_ref(self), id: TransactionId = id) -> Result<Transaction> {
            store.resume_any(id)
        });
        self.resume_any(id)
    }

    fn resume_any(&self, id: TransactionId) -> Result<Transaction<F>> {
        let stage = transaction_dir::path(id).under(self.state.at()).join(STAGE);
        let missing = |why| Err(Error::NoTransaction { stage: stage.clone(), why });
        let Some(tree) = self.state.find_below(&transaction_dir::path(id))? else {
            return missing(Ended::Closed);
        };
        let lock = match lock::acquire_existing(&tree, &part(transaction_dir::LOCK), &self.patience)? {
            Some(lock) => lock,
            None => return missing(Ended::Closed),
        };
        match self.read_meta(id)? {
            Some(meta) if !meta.is_of(&self.boot()?) => missing(Ended::Restarted),
            Some(meta) if !meta.attached => {
                let besides = meta.besides;
                let mut transaction = self.transaction(id, meta, tree, lock);
                if let Some(Besides { captured, gone }) = besides {
                    transaction.captured = captured;
                    transaction.removals = self.read_gone(id, gone)?;
                }
                Ok(transaction)
            }
            _ => missing(Ended::Died),
        }
    }

    /// Every open transaction.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use txfs::{BeginOptions, Store};
    ///
    /// let store = Store::open(dir.path().join("dist"))?;
    /// let transaction = store.begin(BeginOptions::default())?;
    /// let open = store.transactions()?;
    /// assert_eq!((open[0].id, open[0].live), (transaction.id(), true));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn transactions(&self) -> Result<Vec<OpenTransaction>> {
        compiled!(F, (store: &Store = same_ref(self)) -> Result<Vec<OpenTransaction>> { store.transactions_any() });
        self.transactions_any()
    }

    fn transactions_any(&self) -> Result<Vec<OpenTransaction>> {
        let mut open = Vec::new();
        for id in self.transaction_ids()? {
            let live = match self.look_at(id)? {
                Life::Live => true,
                Life::Detached => false,
                Life::Dead(_) => continue,
            };
            let meta = self.unless_closed(self.read_meta(id))?;
            let left = self.unless_closed(self.state.stat(&transaction_dir::left(id)))?.is_some();
            let at = meta.as_ref().map(Meta::at).unwrap_or_default();
            open.push(OpenTransaction {
                id,
                stage: transaction_dir::stage_path(id, &at).under(self.state.at()),
                at: (!at.is_root()).then_some(at),
                base: meta.as_ref().map(|meta| meta.base),
                from: meta.as_ref().map(|meta| meta.from),
                began: meta.as_ref().map(|meta| meta.began),
                live,
                left,
            });
        }
        Ok(open)
    }

    /// Discards what was left before `last`.
    fn discard_left_before(&self, last: TransactionId) -> Result<u64> {
        let _lock = self.lock()?;
        // In these lies what was displaced.
        let unsettled = self.unsettled()?;
        let mut discarded = 0;
        for id in self.transaction_ids()?.into_iter().filter(|id| *id != last && !unsettled.contains(id)) {
            let Some(tree) = self.state.find_below(&transaction_dir::path(id))? else { continue };
            if tree.stat(&part(LEFT))?.is_none() {
                continue;
            }
            if let Attempt::Held(_held) = lock::attempt(&tree, &part(transaction_dir::LOCK))? {
                // One that cannot be removed does not keep the others from going.
                discarded += u64::from(self.remove_transaction(id).is_ok());
            }
        }
        Ok(discarded)
    }

    /// The transaction and the output that a stage's path belongs to; `None` when the path is no stage of txfs.
    ///
    /// The path need not exist: some tools remove the directory that they are told to write to.
    ///
    /// ```
    /// use txfs::{BeginOptions, OpenOptions, Store};
    ///
    /// # fn main() -> txfs::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a temporary directory");
    /// # let dist = dir.path().canonicalize().expect("it is there").join("dist");
    /// let transaction = Store::open(&dist)?.begin(BeginOptions::default().detached(true))?;
    /// let found = Store::parse_stage(&OpenOptions::default(), transaction.stage())?;
    /// assert_eq!(found, Some((dist, transaction.id())));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The path cannot be resolved, for another reason than that it leads nowhere.
    pub fn parse_stage(options: &OpenOptions<F>, stage: impl AsRef<Path>) -> Result<Option<(PathBuf, TransactionId)>> {
        Self::parse_stage_on(&options.fs, stage.as_ref())
    }

    pub(crate) fn parse_stage_on(fs: &F, stage: &Path) -> Result<Option<(PathBuf, TransactionId)>> {
        for whole in stage.ancestors().filter(|above| above.file_name() == Some(OsStr::new(STAGE))) {
            let Some(parent) = whole.parent() else { continue };
            let directory = match fs.resolve(parent) {
                Err(error) if is_absent(&error) => continue,
                Err(error) => return Err(not_found(fs, parent, stage)(error)),
                Ok(directory) => directory,
            };
            let Some(found) = Self::parse_directory(fs, &directory) else { continue };
            // Of one that is about a path, that path in it is the stage.
            let is_stage = |at: RelPath| stage == at.under(whole);
            if stage == whole || transaction_dir::claimed_at(fs, &directory).is_some_and(is_stage) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn parse_directory(fs: &F, directory: &Path) -> Option<(PathBuf, TransactionId)> {
        let id = transaction_dir::parse_id(directory.file_name()?.as_bytes())?;
        let transactions = directory.parent()?;
        let state = transactions.parent()?;
        if transactions.file_name()? != name::TRANSACTIONS {
            return None;
        }
        let (holder, state_name) = (state.parent()?, state.file_name()?.as_bytes());
        if let Some(output) = whereabouts::output_of_state(fs, state) {
            return Some((output, id));
        }
        if state_name == RESERVED {
            return Some((holder.to_path_buf(), id));
        }
        let output = state_name.strip_prefix(b".")?.strip_suffix(b".txfs")?;
        (!output.is_empty()).then(|| (holder.join(OsStr::from_bytes(output)), id))
    }
}

/// Why the directory of a transaction cannot be found: something in the state that it would be in is closed, as a rule.
fn not_found<F: Fs>(fs: &F, directory: &Path, stage: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |source| {
        let state = directory.ancestors().nth(2);
        let found = state.and_then(|state| Some((Tree::open(fs, state).ok()?, directory.strip_prefix(state).ok()?)));
        match found.and_then(|(state, path)| Some((state, RelPath::from_path(path).ok()?))) {
            Some((state, path)) => state.io("open the directory", &path)(source),
            None => Error::io("find the transaction of", stage)(source),
        }
    }
}

impl<F: Fs> Transaction<F> {
    /// The directory to write to: by this transaction's methods, or by any tool.
    pub fn stage(&self) -> PathBuf {
        self.at().within(&part(STAGE)).under(self.tree.at())
    }

    /// The path of the output that it replaces, with what is below it; the root where that is all ([`BeginOptions::at`]).
    pub fn at(&self) -> RelPath {
        self.meta.at()
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
        Err(Error::TransactionOver { stage: self.stage() })
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

    /// What it began on, which is current still, as [`Transaction::check_base`] says.
    pub(crate) fn current(&self) -> Result<Current<F>> {
        self.store.current_of(self.check_base()?)
    }

    /// First committer wins: the generation that it began on has to be the current one still, or agree with that in all that it replaces.
    pub(crate) fn check_base(&self) -> Result<Option<Head>> {
        self.check_open()?;
        let head = self.store.head()?;
        let current = head.as_ref().map_or(0, |head| head.info.generation);
        let may_follow = |below| self.store.may_follow(below, head.clone());
        if current != self.meta.base && !self.meta.below.as_ref().map_or(Ok(left_out(Mutant::BaseCheck)), may_follow)? {
            let output = self.store.output.path.clone();
            return Err(Error::BaseMoved { output, base: self.meta.base, current });
        }
        if current == u64::MAX {
            let head = state_path(name::HEAD).under(self.store.state.at());
            return Err(Error::corrupt(head, "its generation is the last that there can be"));
        }
        Ok(head)
    }

    /// Copies the current generation. What lies in the output instead of it is none of it: the commit would publish it as if it had been
    /// built.
    fn copy_current(&mut self, allow_drift: bool) -> Result<()> {
        let head = self.store.head()?;
        let at = self.at();
        let published = Published::open(&self.store, head, at.clone())?;
        let refused = |problem| Err(Error::Refused { output: self.store.output.path.clone(), problems: vec![problem] });
        let from = match self.store.output.open()? {
            Some(from) => from,
            None if published.totals().entries == 0 || allow_drift => return Ok(()),
            None => return refused(Problem::OutputGone),
        };
        let drift = live::drift(&from, published.entries())?;
        if !drift.is_empty() && !allow_drift {
            return refused(Problem::Drift(drift));
        }
        let meter = self.store.progress.begin(Phase::Copy, Some(published.totals().entries));
        let paths = published.entries().inspect(|_| meter.step()).map(|entry| entry.map(|entry| entry.path));
        let to = self.stage_tree()?;
        copy::copy_paths(Source::published(&from), &to, paths)?;
        meter.end();
        // The mark counts on the output alone; without it the copy would differ from what it is a copy of.
        if let Ok(Some(mark)) = from.fs.attribute(from.root(), Attribute::Mark)
            && at.is_root()
        {
            let _ = to.fs.set_attribute(to.root(), Attribute::Mark, Some(&mark));
        }
        // And nobody changed it while it was copied.
        self.copied_drift = live::drift(&from, published.entries())?;
        match self.copied_drift.is_empty() || allow_drift {
            true => Ok(()),
            false => refused(Problem::Drift(std::mem::take(&mut self.copied_drift))),
        }
    }

    /// What somebody else had changed or removed of the current generation, which the stage began as a copy of nevertheless
    /// ([`BeginOptions::allow_drift`]): the stage has it as it lay in the output.
    pub fn copied_drift(&self) -> &Paths {
        &self.copied_drift
    }

    /// The stage, while the transaction is open: afterwards the directory that was its own belongs to what comes after.
    pub(crate) fn stage_tree(&self) -> Result<Tree<F>> {
        self.check_open()?;
        let stage = part(STAGE);
        match self.tree.find_below(&stage)? {
            Some(tree) => Ok(tree),
            None => Err(self.stage_gone()),
        }
    }

    /// What is staged of what it is about.
    pub(crate) fn place_tree(&self) -> Result<Tree<F>> {
        let (stage, at) = (self.stage_tree()?, self.at());
        if at.is_root() {
            return Ok(stage);
        }
        stage.find_directory(&at)?.ok_or_else(|| self.stage_gone())
    }

    pub(crate) fn stage_gone(&self) -> Error {
        Error::StageGone { stage: self.stage() }
    }

    fn make_way(&self) -> Result<()> {
        self.store.make_way(&self.stage_tree()?, &self.at())
    }

    /// Ends the transaction; its stage goes, the output stays as it is.
    ///
    /// # Errors
    /// The stage cannot be removed, or [`Error::Busy`]; the transaction is over all the same, and the next txfs command removes it
    /// unless it is detached.
    pub fn abort(mut self) -> Result<()> {
        let store = self.store.clone();
        store.telling(self.discard())
    }

    fn discard(&mut self) -> Result<()> {
        compiled!(F, (transaction: &mut Transaction = same_mut(self)) -> Result<()> { transaction.discard_any() });
        self.discard_any()
    }

    fn discard_any(&mut self) -> Result<()> {
        self.open = false;
        // What failed has been noted where it did.
        let _ = self.wait_for_early();
        let lock = self.store.lock()?;
        // A journal may be about this very transaction: what is in its directory is needed until that is settled.
        let mut recovered = self.store.recover_locked(&lock, Manner::PLAIN)?;
        if self.store.unsettled()?.contains(&self.id) {
            return recovered.warnings.pop().map_or(Ok(()), Err);
        }
        self.store.remove_transaction(self.id)
    }

    /// Leaves the transaction open when this process ends, as one begun detached; for a stage that is to be looked at. Whoever
    /// takes it up does not know which of its files were not finished; what a change removes is written down.
    ///
    /// # Errors
    /// The state directory cannot be written; [`Error::StageLost`] when the disk could not take what was written;
    /// [`Error::TransactionOver`]. Where something was to be taken from the current generation: [`Error::Io`] when
    /// it is not there any more, and after [`Transaction::copy_previous`] also [`Error::Refused`], [`Error::BaseMoved`],
    /// [`Error::Busy`], and those of [`Store::recover`]. The stage is discarded then.
    pub fn keep(mut self) -> Result<PathBuf> {
        let store = self.store.clone();
        store.telling(self.detach())
    }

    fn detach(&mut self) -> Result<PathBuf> {
        compiled!(F, (transaction: &mut Transaction = same_mut(self)) -> Result<PathBuf> { transaction.detach_any() });
        self.detach_any()
    }

    fn detach_any(&mut self) -> Result<PathBuf> {
        self.check_open()?;
        self.check_barriers()?;
        self.stage_referenced()?;
        // Whoever takes it up is not told again of what failed by now.
        let besides = self.write_besides()?;
        self.store.sync_all().and(self.wait_for_early()).map_err(|error| self.lose_stage(error))?;
        self.set_meta(Meta { attached: false, besides, ..self.meta.clone() })?;
        self.open = false;
        Ok(self.stage())
    }

    /// Writes down what a change is besides its stage, of which only this process knows.
    fn write_besides(&self) -> Result<Option<Besides>> {
        let is_more = self.captured || !self.removals.is_empty();
        if self.meta.from != Basis::Current || !is_more {
            return Ok(None);
        }
        let besides = Besides { captured: self.captured, gone: self.removals.len() as u64 };
        if self.meta.besides != Some(besides) {
            self.store.write_gone(self.id, &self.removals)?;
        }
        Ok(Some(besides))
    }

    /// As [`Transaction::keep`], for what was built and could not be published: a program that is run again and again leaves one, and
    /// not one each time. Those that were left before are discarded, unless a process is at work on them.
    ///
    /// # Errors
    /// As [`Transaction::keep`]. What cannot be discarded is, by the next that is left.
    pub fn leave(self) -> Result<Left> {
        compiled!(F, (this: Transaction = same(self)) -> Result<Left> { this.leave_any() });
        self.leave_any()
    }

    fn leave_any(self) -> Result<Left> {
        self.check_open()?;
        // Before it outlives this process: one without the mark would stay beside the next.
        write_new(&self.tree, &part(LEFT), |_| Ok(()))?;
        let (store, id) = (self.store.clone(), self.id);
        let stage = self.keep()?;
        Ok(Left { stage, replaced: store.discard_left_before(id).unwrap_or_default() })
    }

    /// Without this process nobody knows what was to be taken from the current generation.
    fn stage_referenced(&mut self) -> Result<()> {
        let Some(Referenced { of, entries, .. }) = self.referenced.take() else { return Ok(()) };
        let stage = self.stage_tree()?;
        let paths: Vec<_> = entries.iter().map(|entry| entry.path.clone()).collect();
        let paths = not_staged(&stage, &paths)?;
        let wanted = || paths.iter().cloned().map(Ok);
        if let Original::Source(from) = &of {
            copy_from_source(from, &self.place_tree()?, &self.at(), &paths)?;
            return source_look::check_all(&self.sources, &self.store.output.path);
        }
        // As when the current generation is copied: half of another commit is not to be taken for it.
        let lock = self.store.lock()?;
        self.store.recover_commits(&lock, Manner::PLAIN)?;
        self.check_base()?;
        let Some(output) = self.store.output.open()? else {
            let output = self.store.output.path.clone();
            return Err(Error::Refused { output, problems: vec![Problem::OutputGone] });
        };
        copy::copy_paths(Source::published(&output), &stage, wanted())?;
        are_there(&stage, &output, &paths)?;
        // As it lies there it would be published as if it had been that generation's.
        let is_copied = |entry: &Entry| paths.binary_search(&entry.path).is_ok();
        let drift = live::drift(&output, entries.into_iter().filter(is_copied).map(Ok))?;
        if drift.is_empty() {
            return Ok(());
        }
        Err(Error::Refused { output: self.store.output.path.clone(), problems: vec![Problem::Drift(drift)] })
    }

    /// Whether the transaction dies with this process.
    pub(crate) fn set_attached(&mut self, attached: bool) -> Result<()> {
        self.set_meta(Meta { attached, ..self.meta.clone() })
    }

    fn set_meta(&mut self, meta: Meta) -> Result<()> {
        if (self.meta.attached, self.meta.besides) != (meta.attached, meta.besides) {
            // A barrier of another process may have failed meanwhile, which took `meta` away: it is not to be made again.
            self.check_barriers()?;
            self.store.write_meta(self.id, &meta)?;
            self.meta = meta;
        }
        Ok(())
    }
}

impl<F: Fs> Drop for Transaction<F> {
    fn drop(&mut self) {
        if self.open && self.meta.attached {
            // What cannot be removed now is removed by the next txfs command: its lock is free then.
            let _ = self.discard();
        }
    }
}
