//! A file that is being written to a stage, and what a transaction knows of those that were.
//!
//! Invariants:
//! 1. What was begun at a path counts as unfinished until that very file is finished, or goes: one that was begun there before, and is
//!    finished late, ends nothing.
//! 2. What is told of a finished file is of its own inode, so that nothing else is taken for it.
//!
//! Files are written by several threads at once; a commit looks at what is known while none of them can be finished.
//!
//! A crash inside leaves a stage that nobody commits.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::format::identity::{Digest, Object};
use crate::fs::compiled::{compiled, same, same_mut};
use crate::fs::stream::Stream;
use crate::fs::{Fs, Kind, LinuxFs};
use crate::path::RelPath;
use crate::stage::scan::Known;
use crate::stage::traces::{Reading, Traces};

/// What is known of the files that a process writes to a stage.
#[derive(Default)]
pub(crate) struct Filled {
    pub(crate) known: Known,
    /// Files that were created here and not finished, each with its turn: half of one is not to be published.
    unfinished: BTreeMap<RelPath, u64>,
    /// How many were created.
    turns: u64,
    /// Since it was last asked whether making durable what was written is worth its while.
    pub(crate) files: usize,
    /// What was written and is not being made durable yet.
    pub(crate) bytes: u64,
}

/// What the transaction and its files share.
#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Filled>>);

impl Ledger {
    pub(crate) fn open(&self) -> MutexGuard<'_, Filled> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filled {
    /// Notes that a file is begun, and returns its turn.
    pub(crate) fn begin(&mut self, path: &RelPath) -> u64 {
        self.turns += 1;
        self.unfinished.insert(path.clone(), self.turns);
        self.turns
    }

    /// The files that were created and not finished.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = &RelPath> {
        self.unfinished.keys()
    }

    /// Notes that what was at `path`, or below it, is gone.
    pub(crate) fn forget_below(&mut self, path: &RelPath) {
        self.known.retain(|known, _| known != path && !known.is_below(path));
        self.drop_unfinished(path);
    }

    /// Notes that what was not finished at `path`, or below it, is gone.
    pub(crate) fn drop_unfinished(&mut self, path: &RelPath) {
        self.unfinished.retain(|unfinished, _| unfinished != path && !unfinished.is_below(path));
    }

    /// Notes that everything is gone.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
        self.unfinished.clear();
    }
}

/// A file of a stage that is being written. The bytes go to the stage as they come; wrap it in a
/// [`BufWriter`](std::io::BufWriter) for many small writes, and finish what [`into_inner`](std::io::BufWriter::into_inner) returns.
///
/// It borrows nothing, so that several can be written at once, by several threads:
///
/// ```
/// use std::io::Write;
/// use std::thread;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let store = txfs::Store::open(dir.path().join("dist"))?;
/// let mut transaction = store.begin(txfs::BeginOptions::default())?;
/// let mut threads = Vec::new();
/// for name in ["a", "b"] {
///     let mut file = transaction.create(name)?;
///     threads.push(thread::spawn(move || {
///         write!(file, "{name}")?;
///         file.finish().map_err(std::io::Error::other)
///     }));
/// }
/// for thread in threads {
///     thread.join().expect("it does not panic")?;
/// }
/// assert_eq!(transaction.commit(&txfs::CommitOptions::default())?.totals.entries, 2);
/// # Ok(())
/// # }
/// ```
#[must_use = "a staged file that is not finished is not published"]
pub struct StagedFile<F: Fs = LinuxFs> {
    pub(super) stream: Stream<F>,
    pub(super) path: RelPath,
    /// Where it is, as the user knows it.
    pub(super) at: PathBuf,
    pub(super) hasher: blake3::Hasher,
    pub(super) reading: Reading,
    pub(super) traces: Arc<Traces<F>>,
    pub(super) ledger: Ledger,
    pub(super) turn: u64,
    /// What it has once it is finished, where that was said.
    pub(super) mode: Option<u32>,
}

impl<F: Fs> StagedFile<F> {
    /// Ends the file. Its content was digested on the way, so the commit need not read it again. One that was removed from the stage
    /// meanwhile, or written anew, is gone, and that is no error.
    ///
    /// # Errors
    /// The file's attributes cannot be set or read.
    pub fn finish(self) -> Result<()> {
        compiled!(F, (file: StagedFile = same(self)) -> Result<()> { file.finish_any() });
        self.finish_any()
    }

    fn finish_any(self) -> Result<()> {
        let Stream { fs, file } = &self.stream;
        // Writing takes set-id bits away.
        self.mode.map_or(Ok(()), |mode| fs.set_mode(file, mode)).map_err(Error::io("change the mode of", &self.at))?;
        // A kernel gives what is written within one tick of its clock the same time: written to again, the file would look as it
        // does now. No tick has the time that is set here, to the nanosecond.
        let stat = fs.set_mtime(file, fs.now()).and_then(|()| fs.stat_file(file));
        let stat = stat.map_err(Error::io("read the attributes of", &self.at))?;
        let object = Object::new(Kind::File, &stat, Digest(self.hasher.finalize().into()));
        let mut filled = self.ledger.open();
        if filled.unfinished.get(&self.path) == Some(&self.turn) {
            filled.files += 1;
            filled.bytes += object.size;
            filled.unfinished.remove(&self.path);
            filled.known.insert(self.path, (object, self.reading.end(&self.traces)));
        }
        Ok(())
    }
}

impl<F: Fs> StagedFile<F> {
    /// Writes all of it, and ends it.
    pub(super) fn finish_with(mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(Error::io("write", &self.at))?;
        self.finish()
    }
}

impl<F: Fs> Write for StagedFile<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        compiled!(F, (file: &mut StagedFile = same_mut(self), bytes: &[u8] = bytes) -> io::Result<usize> {
            file.write_any(bytes)
        });
        self.write_any(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: Fs> StagedFile<F> {
    fn write_any(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.reading.see(&self.traces, &bytes[..written]);
        Ok(written)
    }
}

impl<F: Fs> fmt::Debug for StagedFile<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedFile").field("path", &self.path).finish()
    }
}
