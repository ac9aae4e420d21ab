//! The two barriers of a commit: what each has to make durable, and which way it does so.
//!
//! | what others have dirty | what the barrier is for | way |
//! |---|---|---|
//! | little, or unknown | anything | one `syncfs` |
//! | much | little | `fsync` of each file, then of each directory; on btrfs in the other order, if that is faster |
//! | much | much | one `syncfs` |
//!
//! `syncfs` makes durable whatever is dirty on the file system: beside a busy writer it takes as long as that writer's data
//! takes. `fsync` of each takes as long as what the barrier is for, and longer than a `syncfs` of the same on an idle disk.
//! Most often one is begun [`early`]; while it goes on a barrier is a `syncfs`, too.
//!
//! Invariants (journal-spec.md, "Barriers"):
//! 1. Both ways make durable all that [`Needs`] names; which is taken is a matter of time alone.
//! 2. An error of any `fsync` or of `syncfs` is the barrier's. None is retried, and no other way is tried after it (A5).
//! 3. Everything is open before anything is synced. What cannot be opened is left to `syncfs`, which needs no permission.
//!
//! A crash inside a barrier leaves what a crash before it leaves: some of it durable, in any order.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::identity::Object;
use crate::format::journal::reader::Journal;
use crate::format::journal::record::Operation;
use crate::fs::background_sync::EarlySync;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, is_unsyncable};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::protocol::settle;
use crate::store::layout::{manifest_path, name, previous_path, state_path};
use crate::store::lost_stages::noting;
use crate::store::output::Place;
use crate::store::transaction_dir::{self, REMOVED, STAGE};
use crate::store::{Barriers, Store};
use crate::threads;

/// Up to so much of what others have dirty goes to the disk along with the rest.
const LITTLE: u64 = 4 << 20;

/// An `fsync` takes about as long as writing so many bytes: less on a fast disk, more on a slow one.
const BYTES_PER_FSYNC: u64 = 256 << 10;

/// More files and directories than this are not opened at once: a process may have 1024 of them.
const MOST: usize = 400;

/// How many files are synced at the same time, where that is faster. The threads only wait.
const WAITING: usize = 16;

/// From so many changed entries on barrier 1 is begun early in any case. Not from fewer where much is dirty: it may be the stage of a
/// build in which little changed, which would go to the disk in vain.
pub(crate) const MANY: usize = 256;

/// What may be begun before barrier 1 on the file system of `tree`; nothing where one thread would have nothing to do meanwhile.
pub(crate) fn early<F: Fs>(store: &Store<F>, tree: &Tree<F>) -> Option<EarlySync<F>> {
    (store.fs.parallelism() > 1 && store.barriers == Barriers::Chosen).then(|| EarlySync::of(tree, noting(store)))
}

/// From how many entries that have changed on it is worth its while to begin with them while the rest of the stage is read.
pub(crate) fn is_due_at<F: Fs>(store: &Store<F>) -> usize {
    if limit(store).is_some() { MANY } else { 1 }
}

/// Begins with what is staged so far, `own` bytes that were written since the last time, if that is worth its while.
pub(crate) fn begin_ahead<F: Fs>(store: &Store<F>, early: &EarlySync<F>, own: u64) -> bool {
    let others = store.fs.dirty().unwrap_or(0).saturating_sub(own);
    others <= LITTLE && !store.fs.changes_in_turn(store.state.root()) && early.begin()
}

/// Barrier 1: makes durable what the journal names, and the journal; and where it was `found` in the output, what is published as
/// it lies there. It ends with what was begun `early`.
///
/// # Errors
/// What the kernel says; the stage is not to be trusted any more.
pub(crate) fn before_commit_point<F: Fs>(
    store: &Store<F>,
    journal: &Journal,
    found: bool,
    early: Option<&EarlySync<F>>,
) -> Result<()> {
    // What somebody else put into the output, perhaps just now, has no name in the journal; nor do the directories that lead to a new
    // store, whose maker may have been killed before its barrier. And what waits for a whole barrier gains nothing by single ones.
    let is_first = journal.begin.base == 0;
    let whole = found || is_first || early.is_some_and(EarlySync::is_under_way);
    let passed = if whole { store.sync_all() } else { pass(store, |needs| needs.intent(store, journal)) };
    let early = early.map_or(Ok(()), EarlySync::wait);
    passed.and(early)
}

/// Barrier 2: makes durable what a commit did that was carried out in one go, and by this very store, after barrier 1. `journal`
/// is read where it is needed.
///
/// # Errors
/// What the kernel says; the journal must not be retired.
pub(crate) fn after_operations<F: Fs>(store: &Store<F>, journal: impl FnOnce() -> Result<Journal>) -> Result<()> {
    pass(store, |needs| {
        let journal = journal()?;
        let generation = journal.begin.head.info.generation;
        let open = transaction_dir::path(journal.begin.transaction);
        // As recovery finds it: what has the other name may be somebody's.
        let transaction = match store.state.stat(&open)? {
            Some(_) => open,
            None => previous_path(generation),
        };
        needs.applied(&journal, &transaction, store.capabilities().exchange, store.place());
        Ok(())
    })
}

fn pass<F: Fs>(store: &Store<F>, find: impl FnOnce(&mut Needs) -> Result<()>) -> Result<()> {
    let Some(limit) = limit(store) else { return store.sync_all() };
    let mut needs = Needs { limit, ..Needs::default() };
    // Whatever cannot be found or opened: syncfs needs neither.
    match find(&mut needs).ok().filter(|()| needs.are_few()).and_then(|()| Opened::open(store, &needs).ok()) {
        Some(opened) => opened.sync(store).inspect_err(|_| store.note_failed_barrier()),
        None => store.sync_all(),
    }
}

/// How much may be synced one by one.
#[derive(Debug, Clone, Copy, Default)]
struct Limit {
    count: usize,
    /// Bytes dirty on the machine; our own are among them.
    dirty: u64,
}

/// `None` where there is no reason to sync one by one.
fn limit<F: Fs>(store: &Store<F>) -> Option<Limit> {
    let dirty = match store.barriers {
        Barriers::Whole => return None,
        Barriers::Single => return Some(Limit { count: usize::MAX, dirty: u64::MAX }),
        // Not to know is no reason to.
        Barriers::Chosen => store.fs.dirty().unwrap_or(0),
    };
    (dirty > LITTLE).then_some(Limit { count: MOST, dirty })
}

/// What a path of [`Needs`] is relative to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Root {
    State,
    Output,
    /// The directory that holds the output.
    Holder,
}

/// What a barrier is for, in order of the tree.
#[derive(Debug, Default)]
struct Needs {
    files: BTreeSet<RelPath>,
    directories: BTreeSet<(Root, RelPath)>,
    /// Bytes in the files: so much of what is dirty may be their own.
    bytes: u64,
    limit: Limit,
}

impl Needs {
    fn count(&self) -> usize {
        self.files.len() + self.directories.len()
    }

    /// Whether syncing them one by one takes less time than what others have dirty.
    fn are_few(&self) -> bool {
        let others = self.limit.dirty.saturating_sub(self.bytes);
        let count = self.count();
        count <= self.limit.count && others > LITTLE.max(BYTES_PER_FSYNC.saturating_mul(count as u64))
    }

    /// What recovery has to find.
    fn intent<F: Fs>(&mut self, store: &Store<F>, journal: &Journal) -> Result<()> {
        let manifest = manifest_path(journal.begin.head.extent.file);
        for file in [manifest, state_path(name::HEAD_NEW), state_path(name::JOURNAL_NEW)] {
            self.file(file, 0);
        }
        self.side(RelPath::root(), Mutant::SyncedJournal);
        let transaction = transaction_dir::path(journal.begin.transaction);
        let removed = below(&transaction, REMOVED, &RelPath::root());
        self.names_above(&removed);
        if store.state.group().is_some() {
            // Its mode, too: another member may have to put something there.
            self.directories.insert((Root::State, removed));
        }
        for operation in &journal.operations {
            let Some((path, new)) = operation.moved_in() else { continue };
            self.staged(store, below(&transaction, STAGE, path), new)?;
            if self.count() > self.limit.count {
                break;
            }
        }
        self.proof_is_all(store)
    }

    /// An entry of the stage, with all that moves along with it.
    fn staged<F: Fs>(&mut self, store: &Store<F>, path: RelPath, object: &Object) -> Result<()> {
        self.names_above(&path);
        match object.kind {
            // It is durable with its name.
            Kind::Symlink => {}
            Kind::File => self.file(path, object.size),
            Kind::Directory => {
                let (mut files, mut directories) = (Vec::new(), vec![path.clone()]);
                let most = self.limit.count;
                store.state.walk(
                    &path,
                    |_| true,
                    |entry| {
                        match entry.stat.kind {
                            Some(Kind::File) => files.push((entry.path, entry.stat.size)),
                            Some(Kind::Directory) => directories.push(entry.path),
                            _ => {}
                        }
                        if files.len() + directories.len() > most { Err(too_many(store)) } else { Ok(()) }
                    },
                )?;
                files.into_iter().for_each(|(path, size)| self.file(path, size));
                directories.into_iter().for_each(|path| _ = self.staged_directory(path));
            }
        }
        Ok(())
    }

    /// What generations displaced that are not kept was removed when this transaction began. Only their journals are left, which the
    /// next transaction removes; by then the removals have to be durable, for the journal proves what the entries were.
    fn proof_is_all<F: Fs>(&mut self, store: &Store<F>) -> Result<()> {
        if !left_out(Mutant::SyncedProof) {
            self.directories.extend(settle::emptied(store)?.into_iter().map(|emptied| (Root::State, emptied)));
        }
        Ok(())
    }

    /// Both ends of every operation, and HEAD.
    fn applied(&mut self, journal: &Journal, transaction: &RelPath, exchange: bool, at: Place) {
        if !left_out(Mutant::SyncedHead) {
            self.directories.insert((Root::State, RelPath::root()));
        }
        // Under its old name, and with the journal gone, the transaction would be a dead one's, and what it displaced be removed.
        let names = [name::TRANSACTIONS, name::PREVIOUS].map(state_path);
        self.directories.extend(names.map(|directory| (Root::State, directory)));
        let mut gone = BTreeSet::new();
        for operation in &journal.operations {
            match operation {
                Operation::SetMode { path, .. } => self.changed_mode(path),
                Operation::Add { path, .. } | Operation::Replace { path, .. } => {
                    self.parent_in_output(path);
                    self.side(below(transaction, STAGE, path).parent(), Mutant::SyncedSources);
                }
                Operation::Remove { path, .. } | Operation::RemoveDirectory { path, .. } => self.parent_in_output(path),
            }
            // An exchange leaves it in the stage.
            if operation.displaced().is_some() && !(exchange && operation.moved_in().is_some()) {
                self.side(below(transaction, REMOVED, &RelPath::root()), Mutant::SyncedRemoved);
            }
            if leaves_no_directory(operation) {
                gone.insert(operation.path());
            }
        }
        self.directories.retain(|(root, path)| *root != Root::Output || !gone.contains(path));
        if at == Place::Inside {
            // Where the output is mounted nothing of it is held by the directory around it.
            self.directories.retain(|(root, _)| *root != Root::Holder);
        }
    }

    fn file(&mut self, path: RelPath, size: u64) {
        self.names_above(&path);
        self.bytes += size;
        if !left_out(Mutant::SyncedFiles) {
            self.files.insert(path);
        }
    }

    /// Every directory of the state that leads to `path`, but the state directory itself.
    fn names_above(&mut self, path: &RelPath) {
        // Above one that is noted all are.
        let _ = path.parents().find(|directory| !self.staged_directory(directory.clone()));
    }

    /// Whether it was not noted before.
    fn staged_directory(&mut self, path: RelPath) -> bool {
        let mutant = match path.components().nth(2) {
            Some(_) => Mutant::SyncedStage,
            None => Mutant::SyncedTransaction,
        };
        left_out(mutant) || self.directories.insert((Root::State, path))
    }

    /// The end of an operation that is not in the output.
    fn side(&mut self, path: RelPath, mutant: Mutant) {
        if !left_out(mutant) {
            self.directories.insert((Root::State, path));
        }
    }

    /// The directory that holds an entry of the output, and those that lead to it: another may have made them just now.
    fn parent_in_output(&mut self, path: &RelPath) {
        if left_out(Mutant::SyncedOutput) {
            return;
        }
        self.directories.insert((Root::Holder, RelPath::root()));
        if !path.is_root() {
            self.directories.insert((Root::Output, RelPath::root()));
            // Above one that is noted all are.
            let _ = path.parents().find(|directory| !self.directories.insert((Root::Output, directory.clone())));
        }
    }

    /// A directory of the output whose mode was changed.
    fn changed_mode(&mut self, path: &RelPath) {
        self.parent_in_output(path);
        if !left_out(Mutant::SyncedModes) {
            self.directories.insert((Root::Output, path.clone()));
        }
    }
}

/// `path` below one of the directories of a transaction.
fn below(transaction: &RelPath, directory: &str, path: &RelPath) -> RelPath {
    let directory = transaction.join(directory.as_bytes()).expect("the names of the layout are valid");
    path.components().fold(directory, |above, name| above.join(name).expect("a component of a path is a valid name"))
}

/// Whether an operation leaves no directory where one may have been, whose mode was changed before.
fn leaves_no_directory(operation: &Operation) -> bool {
    let displaces = operation.displaced().is_some();
    operation.takes_away() || displaces && operation.moved_in().is_some_and(|(_, new)| new.kind != Kind::Directory)
}

/// What a barrier is for, open.
struct Opened<F: Fs> {
    files: Vec<F::File>,
    directories: Vec<Arc<F::Dir>>,
}

impl<F: Fs> Opened<F> {
    fn open(store: &Store<F>, needs: &Needs) -> Result<Self> {
        let output = store.output.open()?;
        let tree = |root: Root| match root {
            Root::State => Ok(&store.state),
            Root::Holder => Ok(&store.output.holder),
            Root::Output => output.as_ref().ok_or_else(|| gone(store)),
        };
        let mut opened = Self { files: Vec::new(), directories: Vec::new() };
        for path in &needs.files {
            opened.files.push(store.state.open_file(path)?.0);
        }
        for (root, path) in &needs.directories {
            let tree = tree(*root)?;
            // Not the one that a directory of this name had before it changed places.
            tree.forget();
            opened.directories.push(tree.dir(path).map_err(tree.io("open the directory", path))?);
        }
        Ok(opened)
    }

    /// The order is a matter of time alone. Files go first: a file system that logs an inode along with its name then finds it
    /// clean. Where files are synced one after the other, on btrfs, directories go first: at one that something was moved out of
    /// the whole file system is committed, which leaves little to do for the files.
    fn sync(self, store: &Store<F>) -> Result<()> {
        let Self { files, directories } = self;
        let fs = &store.fs;
        let sync_files = |at_a_time| threads::for_each(files, at_a_time, |file| fs.sync_file(&file));
        if fs.syncs_in_turn(store.state.root()) {
            sync_directories(store, &directories)?;
            return sync_files(1).map_err(not_durable(store));
        }
        // The disk is given the content of many files at once, and one commit of the file system's own journal serves them all.
        sync_files(if fs.parallelism() > 1 { WAITING } else { 1 }).map_err(not_durable(store))?;
        sync_directories(store, &directories)
    }
}

fn sync_directories<F: Fs>(store: &Store<F>, directories: &[Arc<F::Dir>]) -> Result<()> {
    for directory in directories {
        match store.fs.sync_dir(directory) {
            // It could not be asked for: no error of the file system's.
            Err(error) if is_unsyncable(&error) => return store.sync_all(),
            synced => synced.map_err(not_durable(store))?,
        }
    }
    Ok(())
}

fn not_durable<F: Fs>(store: &Store<F>) -> impl FnOnce(io::Error) -> Error {
    Error::io("make durable", store.state.at())
}

/// Never shown: [`pass`] then falls back to `syncfs`.
fn too_many<F: Fs>(store: &Store<F>) -> Error {
    Error::io("sync one by one what is in", store.state.at())(io::ErrorKind::ArgumentListTooLong.into())
}

/// Never shown: [`pass`] then falls back to `syncfs`.
fn gone<F: Fs>(store: &Store<F>) -> Error {
    Error::io("open the output", &store.output.path)(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::identity::Digest;
    use crate::format::journal::record::{Begin, TransactionId};
    use crate::format::manifest::{Extent, Head, Info, Totals};
    use crate::fs::Timestamp;

    fn needs(count: usize, bytes: u64, limit: Limit) -> Needs {
        let files = (0..count).map(|n| state_path(&n.to_string())).collect();
        Needs { files, bytes, limit, ..Needs::default() }
    }

    #[test]
    fn few_are_synced_one_by_one_where_others_have_much_dirty() {
        let limit = |dirty| Limit { count: MOST, dirty };
        let (little, much) = (LITTLE, 1 << 30);
        assert!(!needs(1, 0, limit(little)).are_few(), "nobody else has much");
        assert!(needs(1, 0, limit(little + 1)).are_few());
        assert!(needs(40, 0, limit(much)).are_few());
        assert!(!needs(40, 0, limit(40 * BYTES_PER_FSYNC)).are_few(), "one syncfs is faster");
        assert!(!needs(40, much, limit(much)).are_few(), "what is dirty is our own");
        assert!(!needs(MOST + 1, 0, limit(u64::MAX)).are_few(), "too many to be open at once");
    }

    fn object(kind: Kind) -> Object {
        Object { kind, mode: 0o644, size: 1, digest: Digest::default(), ino: 1, mtime: Timestamp::default() }
    }

    fn path(path: &str) -> RelPath {
        if path.is_empty() { RelPath::root() } else { RelPath::new(path).unwrap() }
    }

    fn applied(operations: Vec<Operation>, exchange: bool, at: Place) -> Vec<String> {
        let info = Info { generation: 2, committed: Timestamp::default(), message: None };
        let (base_manifest, base_extent) = (Digest::default(), Extent::default());
        let head = Head { info, manifest: base_manifest, totals: Totals::default(), extent: base_extent };
        let begin = Begin {
            transaction: TransactionId(1),
            base: 1,
            base_manifest,
            base_extent,
            head,
            last_change: Timestamp::default(),
        };
        let mut needs = Needs::default();
        let transaction = transaction_dir::path(TransactionId(1));
        needs.applied(&Journal { begin, operations }, &transaction, exchange, at);
        let transaction = transaction.to_string();
        let shown = |(root, path): &(Root, RelPath)| format!("{root:?} {path}").replace(&transaction, "own");
        needs.directories.iter().map(shown).collect()
    }

    #[test]
    fn both_ends_of_every_operation_are_synced() {
        let (file, directory) = (object(Kind::File), object(Kind::Directory));
        let operations = vec![
            Operation::SetMode { path: path("closed"), from: 0o755, to: 0o555 },
            Operation::Add { path: path("a/b/c"), new: directory },
            Operation::Replace { path: path("d/e"), old: file, new: file },
            Operation::Remove { path: path("f/g"), old: file },
        ];
        let expected = [
            "State .",
            "State previous",
            "State tx",
            "State own/removed",
            "State own/stage/a/b",
            "State own/stage/d",
            "Output .",
            "Output a",
            "Output a/b",
            "Output closed",
            "Output d",
            "Output f",
            "Holder .",
        ];
        assert_eq!(applied(operations.clone(), true, Place::Beside), expected);
        assert_eq!(applied(operations, true, Place::Inside), expected[..expected.len() - 1]);
    }

    #[test]
    fn a_stage_that_becomes_the_output_leaves_its_transaction_and_enters_the_directory_around_it() {
        let root = vec![Operation::Add { path: RelPath::root(), new: object(Kind::Directory) }];
        assert_eq!(
            applied(root, true, Place::Beside),
            ["State .", "State previous", "State tx", "State own", "Holder ."]
        );
    }

    #[test]
    fn without_an_exchange_what_is_replaced_lies_with_what_is_removed() {
        let file = object(Kind::File);
        let replace = vec![Operation::Replace { path: path("a"), old: file, new: file }];
        let removed = "State own/removed".to_owned();
        assert!(!applied(replace.clone(), true, Place::Beside).contains(&removed));
        assert!(applied(replace, false, Place::Beside).contains(&removed));
    }

    #[test]
    fn a_directory_that_has_gone_is_not_synced() {
        let (old, new) = (object(Kind::Directory), object(Kind::File));
        let open = |name: &str| Operation::SetMode { path: path(name), from: 0o555, to: 0o755 };
        let operations = vec![
            open("apart"),
            open("moved"),
            open("other"),
            Operation::Replace { path: path("other"), old, new },
            Operation::Remove { path: path("moved"), old },
            Operation::Remove { path: path("apart/x"), old: new },
            Operation::RemoveDirectory { path: path("apart"), mode: 0o755 },
        ];
        let outputs = applied(operations, true, Place::Beside);
        let outputs: Vec<_> = outputs.iter().filter(|shown| shown.starts_with("Output")).collect();
        assert_eq!(outputs, ["Output ."]);
    }
}
