//! Digests of entries: one, or many on several threads while a walk still finds them.
//!
//! Invariant: a staged file is digested between two looks at its size and time (P2): one that is being written meanwhile is an
//! error, not a digest.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crate::error::{Error, Result};
use crate::format::identity::{Digest, Like, Object};
use crate::fs::background_sync::EarlySync;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Stat, Timestamp};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::stage::traces::{Reading, Trace, Traces};

/// Bytes per read; larger reads are no faster.
const CHUNK: usize = 128 << 10;

/// Files handed over at once: neighbours share a directory, and a thread is not started for fewer.
const BATCH: usize = 32;

/// Batches that wait at most: a walk that is further ahead digests, too, instead of filling memory.
const WAITING: usize = 64;

/// Digests what is at `path`; for a file with its attributes after reading.
fn digest<F: Fs>(tree: &Tree<F>, path: &RelPath, kind: Kind) -> Result<(Digest, Option<Stat>)> {
    match kind {
        Kind::Directory => Ok((Digest::default(), None)),
        Kind::Symlink => Ok((digest_link(tree, path)?, None)),
        Kind::File => {
            let (mut file, stat) = tree.open_file(path)?;
            let read = digest_file(&tree.fs, &mut file, stat.size, &mut Vec::new(), || false, |_| {});
            let (digest, stat) = read.map_err(tree.io("read", path))?;
            Ok((digest, Some(stat)))
        }
    }
}

fn digest_link<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Result<Digest> {
    Ok(Digest::of(&link_target(tree, path)?))
}

fn link_target<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Result<Vec<u8>> {
    let target = tree.parent(path).and_then(|dir| tree.fs.read_link(&dir, path.name()));
    target.map_err(tree.io("read the link", path))
}

/// Most files are small: where the size shows that everything was read, the end is not asked for by another read. Ends with
/// [`io::ErrorKind::Interrupted`] when it is to stop.
fn digest_file<F: Fs>(
    fs: &F,
    file: &mut F::File,
    size: u64,
    buffer: &mut Vec<u8>,
    is_to_stop: impl Fn() -> bool,
    mut see: impl FnMut(&[u8]),
) -> io::Result<(Digest, Stat)> {
    // Filled with zeros once: what is read overwrites them.
    buffer.resize(CHUNK, 0);
    let mut hasher = blake3::Hasher::new();
    let (mut expected, mut ended) = (size, false);
    loop {
        while !ended && hasher.count() < expected {
            if is_to_stop() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match fs.read(file, buffer) {
                Ok(0) => ended = true,
                Ok(n) => {
                    hasher.update(&buffer[..n]);
                    see(&buffer[..n]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let stat = fs.stat_file(file)?;
        if ended || stat.size == hasher.count() {
            return Ok((Digest(hasher.finalize().into()), stat));
        }
        expected = u64::MAX;
    }
}

/// The object at a path of the output, digested.
pub(crate) fn object<F: Fs>(tree: &Tree<F>, path: &RelPath, kind: Kind, stat: &Stat) -> Result<Object> {
    let (digest, after) = digest(tree, path, kind)?;
    Ok(Object::new(kind, &after.unwrap_or(*stat), digest))
}

/// What is at a path, if it is the object that was recorded, or like it ([`Object::find`]).
pub(crate) fn find<F: Fs>(
    tree: &Tree<F>,
    path: &RelPath,
    recorded: &Object,
    stat: &Stat,
    like: Like,
) -> Result<Option<Object>> {
    recorded.find(stat, like, || object(tree, path, recorded.kind, stat))
}

/// Whether the content of what `object` describes is at `path`, as the medium has it: what memory holds is not asked.
pub(crate) fn is_on_medium<F: Fs>(tree: &Tree<F>, path: &RelPath, object: &Object) -> Result<bool> {
    if object.kind == Kind::File {
        tree.drop_cached(path)?;
    }
    let (digest, _) = digest(tree, path, object.kind)?;
    Ok(digest == object.digest)
}

/// What was found where a file or a link was to be digested.
pub(crate) enum Found {
    /// With the time of its last change, and what it tells of the stage.
    Digested(Object, Timestamp, Trace),
    /// A file with other names, by which it could be changed afterwards: it was not read.
    Linked(Stat),
}

/// With the places of their entries in the caller's list.
type Digests = Vec<(usize, Found)>;

/// A file or a link to digest: its place in the caller's list, its path, and the digest of what is published there.
struct Task {
    index: usize,
    kind: Kind,
    path: RelPath,
    published: Option<Digest>,
}

impl Task {
    fn run<F: Fs>(&self, tree: &Tree<F>, traces: Option<&Traces<F>>, buffer: &mut Vec<u8>) -> Result<Found> {
        if self.kind == Kind::File {
            return self.read(tree, traces, buffer);
        }
        let gone = || tree.io("read the attributes of", &self.path)(io::ErrorKind::NotFound.into());
        let stat = tree.stat(&self.path)?.ok_or_else(gone)?;
        let target = link_target(tree, &self.path)?;
        let digest = Digest::of(&target);
        let traces = traces.filter(|_| self.published != Some(digest));
        let trace = traces.map(|traces| traces.link(&self.path, &target)).unwrap_or_default();
        Ok(Found::Digested(Object::new(self.kind, &stat, digest), stat.ctime, trace))
    }

    fn read<F: Fs>(&self, tree: &Tree<F>, traces: Option<&Traces<F>>, buffer: &mut Vec<u8>) -> Result<Found> {
        let (mut file, before) = tree.open_file(&self.path)?;
        if before.nlink > 1 && !left_out(Mutant::HardLinkCopy) {
            return Ok(Found::Linked(before));
        }
        let (object, last_change, trace) =
            read_unchanged(tree, &self.path, &mut file, &before, self.published, traces, buffer)?;
        Ok(Found::Digested(object, last_change, trace))
    }
}

/// The staged file at `path`, digested, whatever other names it has; and when it was changed last.
pub(crate) fn staged_file<F: Fs>(
    tree: &Tree<F>,
    path: &RelPath,
    published: Option<Digest>,
    traces: Option<&Traces<F>>,
) -> Result<(Object, Timestamp, Trace)> {
    let (mut file, before) = tree.open_file(path)?;
    read_unchanged(tree, path, &mut file, &before, published, traces, &mut Vec::new())
}

fn read_unchanged<F: Fs>(
    tree: &Tree<F>,
    path: &RelPath,
    file: &mut F::File,
    before: &Stat,
    published: Option<Digest>,
    traces: Option<&Traces<F>>,
    buffer: &mut Vec<u8>,
) -> Result<(Object, Timestamp, Trace)> {
    let mut look = traces.map(|traces| Look::new(traces, path, before.size));
    let see = |piece: &[u8]| {
        if let Some(look) = &mut look {
            look.see(piece);
        }
    };
    let read = digest_file(&tree.fs, file, before.size, buffer, || tree.fs.is_interrupted(), see);
    let stopped_or = |error| tree.check_interrupt(path).err().unwrap_or_else(|| tree.io("read", path)(error));
    let (digest, after) = read.map_err(stopped_or)?;
    let object = Object::new(Kind::File, &after, digest);
    if object.is(before) {
        let trace = match look {
            // That it is published has been said when it was.
            Some(look) if published != Some(digest) => {
                look.end(&tree.fs, file, buffer).map_err(tree.io("read", path))?
            }
            _ => Trace::default(),
        };
        return Ok((object, after.ctime, trace));
    }
    let written = io::Error::other("it is being written to: wait until the build has finished");
    Err(tree.io("read", path)(written))
}

/// A look at what is digested. A file that fits into the buffer is looked at once its digest shows that it is new; most of a build are not.
struct Look<'a, F: Fs> {
    traces: &'a Traces<F>,
    reading: Reading,
    is_small: bool,
    pieces: usize,
    /// How long the last was.
    length: usize,
}

impl<'a, F: Fs> Look<'a, F> {
    fn new(traces: &'a Traces<F>, path: &RelPath, size: u64) -> Self {
        Self { traces, reading: traces.file(path), is_small: size <= CHUNK as u64, pieces: 0, length: 0 }
    }

    fn see(&mut self, piece: &[u8]) {
        (self.pieces, self.length) = (self.pieces + 1, piece.len());
        if !self.is_small {
            self.reading.see(self.traces, piece);
        }
    }

    /// `buffer` holds what was read last.
    fn end(mut self, fs: &F, file: &F::File, buffer: &mut [u8]) -> io::Result<Trace> {
        if self.is_small && self.pieces <= 1 {
            self.reading.see(self.traces, &buffer[..self.length]);
        } else if self.is_small {
            // It came in several pieces nevertheless.
            let mut offset = 0;
            loop {
                match fs.read_at(file, offset, buffer) {
                    Ok(0) => break,
                    Ok(n) => {
                        self.reading.see(self.traces, &buffer[..n]);
                        offset += n as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(self.reading.end(self.traces))
    }
}

/// Digests entries while they are found. Threads are started when there is work for them.
pub(crate) struct Pool<'scope, 'env, F: Fs> {
    scope: &'scope Scope<'scope, 'env>,
    tree: Tree<F>,
    threads: usize,
    batch: Vec<Task>,
    queue: SyncSender<Vec<Task>>,
    waiting: Arc<Mutex<Receiver<Vec<Task>>>>,
    /// What may be begun once enough of it is new; none for a preview.
    early: Option<&'env EarlySync<F>>,
    /// What to look for in what is read, if anything.
    traces: Option<&'env Traces<F>>,
    workers: Vec<ScopedJoinHandle<'scope, Result<Digests>>>,
    /// What the caller's own thread did, and the batches that it has had to take on.
    own: Digests,
    buffer: Vec<u8>,
    failed: Option<Error>,
}

impl<'scope, 'env, F: Fs + 'scope> Pool<'scope, 'env, F> {
    pub(crate) fn new(
        scope: &'scope Scope<'scope, 'env>,
        tree: &Tree<F>,
        early: Option<&'env EarlySync<F>>,
        traces: Option<&'env Traces<F>>,
    ) -> Self {
        let (queue, waiting) = sync_channel(WAITING);
        Self {
            scope,
            tree: tree.clone(),
            threads: tree.fs.parallelism(),
            batch: Vec::new(),
            queue,
            waiting: Arc::new(Mutex::new(waiting)),
            early,
            traces,
            workers: Vec::new(),
            own: Vec::new(),
            buffer: Vec::new(),
            failed: None,
        }
    }

    /// Digests the file or link at `path` sooner or later; `index` says which it is.
    pub(crate) fn push(&mut self, index: usize, kind: Kind, path: &RelPath, published: Option<Digest>) {
        if let (None, Some(early)) = (published, self.early) {
            early.note_changed();
        }
        self.batch.push(Task { index, kind, path: path.clone(), published });
        if self.batch.len() < BATCH {
            return;
        }
        self.hand_over();
        // The caller's own thread works too, once it has found everything.
        if self.workers.len() + 1 < self.threads {
            let (tree, waiting, early, traces) = (self.tree.clone(), self.waiting.clone(), self.early, self.traces);
            let work = move || work(&tree, &waiting, early, traces, true);
            // Where the system has no more threads to give, those that there are do the work.
            self.workers.extend(std::thread::Builder::new().spawn_scoped(self.scope, work));
        }
    }

    /// Notes what has changed and is not to be read. Where nothing is, no other thread begins what is due.
    pub(crate) fn note_changed(&self) {
        if let Some(early) = self.early {
            early.note_changed();
            early.begin_when_due();
        }
    }

    fn hand_over(&mut self) {
        if let Err(TrySendError::Full(batch)) = self.queue.try_send(std::mem::take(&mut self.batch)) {
            // An error is told at the end, as a worker's is.
            let digested = digest_batch(&self.tree, &batch, self.early, self.traces, &mut self.buffer, &mut self.own);
            self.failed = self.failed.take().or(digested.err());
        }
    }

    /// Waits for every digest.
    pub(crate) fn finish(mut self) -> Result<Digests> {
        self.hand_over();
        let Self { tree, queue, waiting, early, traces, workers, own: mut digests, failed, .. } = self;
        drop(queue);
        if let Some(error) = failed {
            return Err(error);
        }
        digests.append(&mut work(&tree, &waiting, early, traces, false)?);
        for worker in workers {
            digests.append(&mut worker.join().expect("a digesting thread does not panic")?);
        }
        Ok(digests)
    }
}

/// Digests batches until no more can come. A thread that may leave does where it began what takes as much of a processor.
fn work<F: Fs>(
    tree: &Tree<F>,
    waiting: &Mutex<Receiver<Vec<Task>>>,
    early: Option<&EarlySync<F>>,
    traces: Option<&Traces<F>>,
    may_leave: bool,
) -> Result<Digests> {
    let mut buffer = Vec::new();
    let mut digests = Vec::new();
    loop {
        let batch = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = batch else { return Ok(digests) };
        digest_batch(tree, &batch, early, traces, &mut buffer, &mut digests)?;
        if early.is_some_and(EarlySync::begin_when_due) && may_leave {
            return Ok(digests);
        }
    }
}

fn digest_batch<F: Fs>(
    tree: &Tree<F>,
    batch: &[Task],
    early: Option<&EarlySync<F>>,
    traces: Option<&Traces<F>>,
    buffer: &mut Vec<u8>,
    digests: &mut Digests,
) -> Result<()> {
    for task in batch {
        tree.check_interrupt(&task.path)?;
        let found = task.run(tree, traces, buffer)?;
        if let (Some(early), Some(published), Found::Digested(object, ..)) = (early, task.published, &found)
            && published != object.digest
        {
            early.note_changed();
        }
        digests.push((task.index, found));
    }
    Ok(())
}
