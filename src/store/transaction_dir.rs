//! The directory of one open transaction: `tx/ID`.
//!
//! ```text
//! tx/ID/lock      held by the process that works on it
//! tx/ID/meta      the generation it began on, and who keeps it alive
//! tx/ID/gone      of a change that is kept: what it takes away, of which its stage says nothing
//! tx/ID/turn      whoever waits for other builds waits for it, though no process is at work on it
//! tx/ID/stage/    what is to be published; of a transaction that is about a path, below `stage/PATH`
//! tx/ID/removed/  while it is applied: entry I is what operation I took out of the output; its mode is what the umask said
//! tx/ID/kept/     once it is settled: what operation I took out is kept/I, if it is a directory
//! tx/ID/left      whoever built its stage could not publish it, and left it: the next that is left replaces it
//! tx/ID/copy      while it is scanned: a hard-linked file's own inode
//! tx/ID/tried/    for an instant: `removed`, where it has to be tried whether directories can be renamed
//! tx/ID/work/, cover/, root-I/  while what a command writes to the output is diverted: of its mounts
//! ```
//!
//! Invariants:
//! 1. It is made, and found dead, only under the store's lock; a live one is never removed by another process (G10).
//! 2. An attached transaction lives as long as its process holds `lock`. A detached one (`txfs begin`) lives until it is
//!    committed or aborted, or the machine restarts: what was written to its stage may then be lost.
//! 3. Without `meta`, or with a torn one, the transaction is dead: nobody was ever told of it, or it is being removed.
//! 4. What is dead is discarded, but not what a journal names that is not settled: in it lies what was displaced.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, move_away};
use crate::format::frame::{Damage, Format, FrameReader, FrameWriter};
use crate::format::identity::Digest;
use crate::format::journal::record::TransactionId;
use crate::format::manifest::{decode, encode, encode_one, read_one};
use crate::fs::stream::Stream;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Timestamp};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::store::Store;
use crate::store::layout::{make_dir, name, numbered, open_trusted, state_path};
use crate::store::lock::{self, Attempt, Lock, Patience};
use crate::store::sharing;

const MAGIC: [u8; 8] = *b"txfstran";

/// Of a transaction that is about the whole output, which older programs know too.
const OF_ALL: Format = Format { magic: MAGIC, version: 1 };
/// Of one that replaces only what is below a path, which they refuse.
const OF_BELOW: Format = Format { magic: MAGIC, version: 2 };
/// Of a change that is kept, and is more than its stage: whoever knows nothing of [`GONE`] would publish a part of it.
const OF_CHANGE: Format = Format { magic: MAGIC, version: 3 };

/// What a change that is kept takes away: one path a frame.
const OF_GONE: Format = Format { magic: *b"txfsgone", version: 1 };

/// What a transaction's stage stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Basis {
    /// The stage is the whole new generation: what it does not have is stale.
    #[default]
    Empty,
    /// The stage is a change to the current generation: what it does not name stays.
    Current,
    /// As [`Basis::Empty`], and the stage starts as a copy of the current generation. While it is copied the store's lock is held:
    /// others wait.
    Copy,
}

/// What is known of an open transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub(crate) base: u64,
    pub(crate) from: Basis,
    pub(crate) attached: bool,
    pub(crate) began: Timestamp,
    pub(crate) boot: String,
    /// In version 2, and from there on, what follows it in the record.
    #[serde(skip)]
    pub(crate) below: Option<Below>,
    /// In version 3 what follows that.
    #[serde(skip)]
    pub(crate) besides: Option<Besides>,
}

/// What a change is besides its stage, once it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Besides {
    /// Whether it is what a tool changed of the output, as far as that differs.
    pub(crate) captured: bool,
    /// How many paths of [`GONE`] it takes away, the first ones.
    pub(crate) gone: u64,
}

/// Of a transaction that replaces only what is at a path and below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Below {
    pub(crate) at: RelPath,
    /// Stands for what was published there when it began.
    pub(crate) was: Digest,
}

impl Meta {
    /// What it replaces: a path, or the root.
    pub(crate) fn at(&self) -> RelPath {
        self.below.as_ref().map(|below| below.at.clone()).unwrap_or_default()
    }

    fn encode(&self) -> io::Result<Vec<u8>> {
        match (&self.below, self.besides) {
            (below, Some(besides)) => encode_one(&(self, below, besides), OF_CHANGE),
            (None, None) => encode_one(self, OF_ALL),
            (Some(below), None) => encode_one(&(self, below), OF_BELOW),
        }
    }

    fn decode(mut stream: impl Read) -> Result<Self, Damage> {
        let mut bytes = Vec::new();
        stream.by_ref().take(SIZE_MAX).read_to_end(&mut bytes)?;
        match read_one::<(Self, Option<Below>, Besides)>(&*bytes, OF_CHANGE) {
            Ok((meta, below, besides)) => Ok(Self { below, besides: Some(besides), ..meta }),
            Err(Damage::Version { version: 2, .. }) => {
                read_one(&*bytes, OF_BELOW).map(|(meta, below)| Self { below: Some(below), ..meta })
            }
            Err(Damage::Version { version: 1, .. }) => read_one(&*bytes, OF_ALL),
            Err(damage) => Err(damage),
        }
    }

    /// Whether it began in this boot, as far as that is known.
    pub(crate) fn is_of(&self, boot: &str) -> bool {
        self.boot == boot || self.boot.is_empty() || boot.is_empty()
    }
}

/// Whether somebody still needs a transaction.
pub(crate) enum Life<F: Fs> {
    /// Its process is at work.
    Live,
    /// Nobody is at work on it and it is to be kept.
    Detached,
    /// Nobody needs it; the lock keeps it that way while it is removed.
    Dead(Option<Lock<F>>),
}

/// Where the directory that operation `index` took out of the output is kept, once that is settled.
pub(crate) fn kept(index: usize) -> RelPath {
    numbered(KEPT, index)
}

pub(crate) fn path(id: TransactionId) -> RelPath {
    numbered(name::TRANSACTIONS, id)
}

/// What a transaction of `at` stages, in the state directory.
pub(crate) fn stage_path(id: TransactionId, at: &RelPath) -> RelPath {
    at.within(&part(STAGE).within(&path(id)))
}

/// The names in a transaction's directory.
pub(crate) fn part(name: &str) -> RelPath {
    state_path(name)
}

pub(crate) use crate::store::layout::name::{KEPT, REMOVED, STAGE};
pub(crate) const COPY: &str = "copy";
pub(crate) const GONE: &str = "gone";
pub(crate) const LOCK: &str = "lock";
pub(crate) const LEFT: &str = "left";
pub(crate) const META: &str = "meta";
pub(crate) const TRIED: &str = "tried";
pub(crate) const TURN: &str = "turn";

/// Longer than any `meta` that is valid.
const SIZE_MAX: u64 = 1 << 16;

/// The path that the transaction in a directory is about, whoever wrote that; `None` also where it cannot be made out.
pub(crate) fn claimed_at<F: Fs>(fs: &F, directory: &Path) -> Option<RelPath> {
    let (file, _) = fs.open_file(&fs.open_anchor(directory).ok()?, META.as_bytes()).ok()?;
    Some(Meta::decode(Stream { fs: fs.clone(), file }).ok()?.at())
}

impl<F: Fs> Store<F> {
    /// A number that no other has.
    pub(crate) fn draw_id(&self) -> Result<TransactionId> {
        self.fs.unique().map(TransactionId).map_err(Error::io("draw a number for", self.state.at()))
    }

    /// Makes the directory of a new transaction, locked. Call with the store's lock held.
    pub(crate) fn make_transaction(&self, meta: &Meta) -> Result<(TransactionId, Tree<F>, Lock<F>)> {
        let id = self.draw_id()?;
        let path = path(id);
        make_dir(&self.state, &path)?;
        self.fill_transaction(id, meta).inspect_err(|_| {
            // Best effort: what is left without its `meta` is dead.
            let _ = self.remove_transaction(id);
        })
    }

    fn fill_transaction(&self, id: TransactionId, meta: &Meta) -> Result<(TransactionId, Tree<F>, Lock<F>)> {
        let tree = self.state.below(&path(id))?;
        let lock = lock::acquire(&tree, &part(LOCK), &Patience::of(Duration::ZERO))?;
        // `removed`, too, and unlike the rest of the state, is made as the umask says: of the stage it will not be known any more.
        for part in [part(STAGE), part(REMOVED)] {
            let made = tree.fs.make_dir(tree.root(), part.as_bytes(), 0o777);
            made.map_err(tree.io("make the directory", &part))?;
            share_part(&tree, &part)?;
        }
        tree.make_writable(&part(REMOVED))?;
        self.write_meta(id, meta)?;
        Ok((id, tree, lock))
    }

    /// Writes `meta` anew. A crash inside leaves a transaction that nobody was told of, or that is being kept: dead.
    pub(crate) fn write_meta(&self, id: TransactionId, meta: &Meta) -> Result<()> {
        let path = meta_path(id);
        self.write_new(&path, |mut file| file.write_all(&meta.encode()?))
    }

    /// Reads `meta`; `None` where it is missing or torn.
    pub(crate) fn read_meta(&self, id: TransactionId) -> Result<Option<Meta>> {
        let path = meta_path(id);
        let Some(stream) = open_trusted(&self.state, &path)? else { return Ok(None) };
        match Meta::decode(stream) {
            Ok(meta) => Ok(Some(meta)),
            Err(Damage::Torn { .. }) => Ok(None),
            Err(Damage::Io(source)) => Err(self.damaged(&path, Damage::Io(source))),
            Err(damage) => Err(self.cannot_be_used(id, META, damage)),
        }
    }

    fn cannot_be_used(&self, id: TransactionId, file: &str, damage: impl Display) -> Error {
        let path = path(id).under(self.state.at());
        let what = format!("its `{file}` is damaged ({damage}): {}; the output is not concerned", move_away(&path));
        Error::Untrusted { path, what }
    }

    /// Writes down what a change takes away. `meta` says then that it counts, and how much of it.
    pub(crate) fn write_gone(&self, id: TransactionId, gone: &[RelPath]) -> Result<()> {
        self.write_new(&gone_path(id), |file| {
            let mut frames = FrameWriter::new(file, OF_GONE)?;
            gone.iter().try_for_each(|path| frames.frame(&encode(path)?))?;
            frames.finish()?.flush()
        })
    }

    /// The first paths of what a change takes away. All of them have to be there: a part of a change is another one.
    pub(crate) fn read_gone(&self, id: TransactionId, count: u64) -> Result<Vec<RelPath>> {
        let path = gone_path(id);
        let Some(stream) = open_trusted(&self.state, &path)? else {
            return Err(self.cannot_be_used(id, GONE, "it is missing"));
        };
        read_paths(stream, count).map_err(|damage| match damage {
            Damage::Io(source) => self.state.io("read", &path)(source),
            damage => self.cannot_be_used(id, GONE, damage),
        })
    }

    /// Every transaction's number. Other names in `tx` are not ours and are left alone.
    pub(crate) fn transaction_ids(&self) -> Result<Vec<TransactionId>> {
        ids(&self.state)
    }

    /// Whether anybody still needs the transaction, as far as a look tells: it holds nobody up, and nothing holds still for it.
    pub(crate) fn look_at(&self, id: TransactionId) -> Result<Life<F>> {
        let Some(tree) = self.state.find_below(&path(id))? else { return Ok(Life::Dead(None)) };
        match self.is_held(&tree)? {
            // It is being made by another member.
            None | Some(true) => Ok(Life::Live),
            Some(false) => self.without_process(id, None),
        }
    }

    /// As [`Store::look_at`], for whoever acts on the answer, and holds the store's lock.
    pub(crate) fn life(&self, id: TransactionId) -> Result<Life<F>> {
        let Some(tree) = self.state.find_below(&path(id))? else { return Ok(Life::Dead(None)) };
        match self.is_held(&tree)? {
            // Whoever makes one holds the store's lock, and was killed before it had given this to the group.
            None => return Ok(Life::Dead(None)),
            Some(true) => return Ok(Life::Live),
            Some(false) => {}
        }
        match self.without_process(id, None)? {
            Life::Dead(_) => {}
            life => return Ok(life),
        }
        match lock::attempt(&tree, &part(LOCK))? {
            Attempt::Held(lock) => self.without_process(id, Some(lock)),
            Attempt::Busy if left_out(Mutant::LifeCheck) => Ok(Life::Dead(None)),
            Attempt::Busy => Ok(Life::Live),
            Attempt::Missing => Ok(Life::Dead(None)),
        }
    }

    /// Whether a process holds the lock of a transaction; `None` where another member has not given that to the group.
    fn is_held(&self, transaction: &Tree<F>) -> Result<Option<bool>> {
        match lock::holder(transaction, &part(LOCK)) {
            Err(error) if self.is_closed_to_members(&error) => Ok(None),
            holder => Ok(Some(holder?.is_some() && !left_out(Mutant::LifeCheck))),
        }
    }

    /// What is known of a transaction that another member may not have given to the group yet: nothing.
    pub(crate) fn unless_closed<T: Default>(&self, looked: Result<T>) -> Result<T> {
        match looked {
            Err(error) if self.is_closed_to_members(&error) => Ok(T::default()),
            looked => looked,
        }
    }

    /// Whether an error says that another member has not given something to the group that shares the store.
    fn is_closed_to_members(&self, error: &Error) -> bool {
        self.state.group().is_some() && error.is_denied()
    }

    /// What a transaction is that no process is at work on.
    fn without_process(&self, id: TransactionId, lock: Option<Lock<F>>) -> Result<Life<F>> {
        Ok(match self.read_meta(id)? {
            Some(meta) if !meta.attached && (meta.is_of(&self.boot()?) || left_out(Mutant::BootCheck)) => {
                Life::Detached
            }
            _ => Life::Dead(lock),
        })
    }

    /// The current boot; empty without /proc, where every boot looks the same.
    pub(crate) fn boot(&self) -> Result<String> {
        match self.fs.boot() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                Ok(String::new())
            }
            // Not knowing is no reason to take a transaction for one of another boot, and to discard it.
            boot => boot.map_err(Error::io("read", "/proc/sys/kernel/random/boot_id")),
        }
    }

    /// Puts a transaction that is over where sweeping finds it: its stage may be large, and its caller waits.
    pub(crate) fn retire_transaction(&self, id: TransactionId) -> Result<()> {
        make_dir(&self.state, &state_path(name::TRASH))?;
        self.rename(&path(id), &numbered(name::TRASH, id))
    }

    /// Removes a transaction that nobody needs, with everything in its stage.
    pub(crate) fn remove_transaction(&self, id: TransactionId) -> Result<()> {
        // A part of a stage must never be found open, and committed.
        match self.end_transaction(id).and_then(|()| self.state.remove(&path(id))) {
            Err(error) if is_not_empty(&error) => self.retire_transaction(id),
            // Its directories are another member's, who did not give them to the group: it is out of the way until he sweeps.
            Err(error) if self.is_closed_to_members(&error) => {
                // One that was never given has nothing in it, and stays where it is otherwise.
                let is_empty = self.state.remove_entry(&path(id), Kind::Directory).is_ok();
                if is_empty { Ok(()) } else { self.retire_transaction(id) }
            }
            removed => removed,
        }
    }

    /// Takes away what a transaction could be taken up again by (invariant 3).
    pub(crate) fn end_transaction(&self, id: TransactionId) -> Result<()> {
        end(&self.state, id)
    }

    /// Whether it cannot be taken up again, whoever saw to that.
    pub(crate) fn is_ended(&self, id: TransactionId) -> Result<bool> {
        Ok(self.state.stat(&meta_path(id))?.is_none())
    }
}

fn read_paths(input: impl Read, count: u64) -> Result<Vec<RelPath>, Damage> {
    let mut frames = FrameReader::new(input, OF_GONE)?;
    let mut paths = Vec::new();
    for _ in 0..count {
        let offset = frames.offset();
        let frame = frames.next_frame()?.ok_or(Damage::Torn { offset })?;
        paths.push(decode(&frame).map_err(|what| Damage::corrupt(offset, what))?);
    }
    Ok(paths)
}

/// Gives a part of a transaction to the group that shares the store.
fn share_part<F: Fs>(transaction: &Tree<F>, part: &RelPath) -> Result<()> {
    let given = transaction.dir(part).and_then(|dir| sharing::share_dir(transaction, &dir));
    transaction.forget();
    given.map_err(transaction.io("share", part))
}

/// Whether a directory keeps something although all of it was removed: NFS and FUSE keep a removed file that is open under a name of their
/// own (`.nfs…`, `.fuse_hidden…`), and the lock of a transaction is open while that is discarded.
pub(crate) fn is_not_empty(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::DirectoryNotEmpty)
}

/// Takes away what any transaction of the state directory could be taken up again by.
pub(crate) fn end_all<F: Fs>(state: &Tree<F>) -> Result<()> {
    // All of them, whichever cannot be ended.
    let ended: Vec<_> = ids(state)?.into_iter().map(|id| end(state, id)).collect();
    ended.into_iter().collect()
}

fn end<F: Fs>(state: &Tree<F>, id: TransactionId) -> Result<()> {
    state.remove_entry(&meta_path(id), Kind::File)
}

fn ids<F: Fs>(state: &Tree<F>) -> Result<Vec<TransactionId>> {
    let path = state_path(name::TRANSACTIONS);
    let listed = state.dir(&path).and_then(|dir| state.fs.list(&dir));
    let listed = listed.map_err(state.io("list", &path))?;
    let mut ids: Vec<_> = listed.iter().filter_map(|entry| parse_id(&entry.name)).collect();
    ids.sort();
    Ok(ids)
}

/// What says that a transaction was left.
pub(crate) fn left(id: TransactionId) -> RelPath {
    path(id).join(LEFT.as_bytes()).expect("the names of the layout are valid")
}

fn gone_path(id: TransactionId) -> RelPath {
    path(id).join(GONE.as_bytes()).expect("the names of the layout are valid")
}

fn meta_path(id: TransactionId) -> RelPath {
    path(id).join(META.as_bytes()).expect("the names of the layout are valid")
}

/// The number that a directory's name stands for.
pub(crate) fn parse_id(name: &[u8]) -> Option<TransactionId> {
    let text = std::str::from_utf8(name).ok()?;
    let id: TransactionId = text.parse().ok()?;
    (id.to_string() == text).then_some(id)
}
