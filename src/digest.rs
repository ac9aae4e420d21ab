//! Digests of entries: one, or many on several threads while a walk still finds them.
//!
//! Invariant: a file is digested between two looks at its size and time (P2): one that is being written meanwhile is an error,
//! not a digest.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};

use crate::error::{Error, Result};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Stat};
use crate::manifest::{Digest, Entry, Object};
use crate::path::RelPath;

/// Read at once, in bytes: beyond it a larger piece is no faster.
const CHUNK: usize = 128 << 10;

/// Files handed over at once: neighbours share a directory, and a thread is not started for fewer.
const BATCH: usize = 32;

/// Batches that wait at most: a walk that is further ahead digests, too, instead of filling memory.
const WAITING: usize = 64;

/// Digests what is at `path`; for a file with its attributes after reading.
pub(crate) fn digest<F: Fs>(tree: &Tree<F>, path: &RelPath, kind: Kind) -> Result<(Digest, Option<Stat>)> {
    digest_with(tree, path, kind, &mut Vec::new())
}

fn digest_with<F: Fs>(
    tree: &Tree<F>,
    path: &RelPath,
    kind: Kind,
    buffer: &mut Vec<u8>,
) -> Result<(Digest, Option<Stat>)> {
    let dir = tree.parent(path).map_err(tree.io("open the directory of", path))?;
    match kind {
        Kind::Directory => Ok((Digest::default(), None)),
        Kind::Symlink => {
            let target = tree.fs.read_link(&dir, path.name()).map_err(tree.io("read the link", path))?;
            Ok((Digest::of(&target), None))
        }
        Kind::File => {
            let mut file = tree.fs.open_file(&dir, path.name()).map_err(tree.io("read", path))?;
            let digest = digest_file(&tree.fs, &mut file, buffer).map_err(tree.io("read", path))?;
            let stat = tree.fs.stat_file(&file).map_err(tree.io("read the attributes of", path))?;
            Ok((digest, Some(stat)))
        }
    }
}

fn digest_file<F: Fs>(fs: &F, file: &mut F::File, buffer: &mut Vec<u8>) -> io::Result<Digest> {
    buffer.resize(CHUNK, 0);
    let mut hasher = blake3::Hasher::new();
    loop {
        match fs.read(file, buffer) {
            Ok(0) => return Ok(Digest(hasher.finalize().into())),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
}

/// The object at a path of the output, digested.
pub(crate) fn object<F: Fs>(tree: &Tree<F>, path: &RelPath, kind: Kind, stat: &Stat) -> Result<Object> {
    let (digest, after) = digest(tree, path, kind)?;
    Ok(Object::new(kind, &after.unwrap_or(*stat), digest))
}

/// Digests with the places of their entries in the caller's list.
type Digests = Vec<(usize, Digest)>;

/// A file to digest: its place in the caller's list, its path, and its attributes when it was found.
struct Task {
    index: usize,
    path: RelPath,
    object: Object,
}

impl Task {
    fn run<F: Fs>(&self, tree: &Tree<F>, buffer: &mut Vec<u8>) -> Result<(usize, Digest)> {
        match digest_with(tree, &self.path, self.object.kind, buffer)? {
            (_, Some(stat)) if !self.object.is(&stat) => Err(tree.io("read", &self.path)(io::Error::other(
                "it is being written to: wait until the build has finished",
            ))),
            (digest, _) => Ok((self.index, digest)),
        }
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
    workers: Vec<ScopedJoinHandle<'scope, Result<Digests>>>,
    /// What the caller's own thread did, and the batches that it has had to take on.
    own: Digests,
    failed: Option<Error>,
}

impl<'scope, F: Fs + 'scope> Pool<'scope, '_, F> {
    pub(crate) fn new<'env>(scope: &'scope Scope<'scope, 'env>, tree: &Tree<F>) -> Pool<'scope, 'env, F> {
        let (queue, waiting) = sync_channel(WAITING);
        Pool {
            scope,
            tree: tree.clone(),
            threads: tree.fs.parallelism(),
            batch: Vec::new(),
            queue,
            waiting: Arc::new(Mutex::new(waiting)),
            workers: Vec::new(),
            own: Vec::new(),
            failed: None,
        }
    }

    /// Digests `entry` sooner or later; `index` says which it is.
    pub(crate) fn push(&mut self, index: usize, entry: &Entry) {
        self.batch.push(Task { index, path: entry.path.clone(), object: entry.object });
        if self.batch.len() < BATCH {
            return;
        }
        self.hand_over();
        // The caller's own thread works too, once it has found everything.
        if self.workers.len() + 1 < self.threads {
            let (tree, waiting) = (self.tree.clone(), self.waiting.clone());
            self.workers.push(self.scope.spawn(move || work(&tree, &waiting)));
        }
    }

    fn hand_over(&mut self) {
        if let Err(TrySendError::Full(batch)) = self.queue.try_send(std::mem::take(&mut self.batch)) {
            // An error is told at the end, as a worker's is.
            let digested = digest_batch(&self.tree, &batch, &mut Vec::new(), &mut self.own);
            self.failed = self.failed.take().or(digested.err());
        }
    }

    /// Waits for every digest.
    pub(crate) fn finish(mut self) -> Result<Digests> {
        self.hand_over();
        let Self { tree, queue, waiting, workers, own: mut digests, failed, .. } = self;
        drop(queue);
        if let Some(error) = failed {
            return Err(error);
        }
        digests.append(&mut work(&tree, &waiting)?);
        for worker in workers {
            digests.append(&mut worker.join().expect("a digesting thread does not panic")?);
        }
        Ok(digests)
    }
}

/// Digests batches until no more can come.
fn work<F: Fs>(tree: &Tree<F>, waiting: &Mutex<Receiver<Vec<Task>>>) -> Result<Digests> {
    let mut buffer = Vec::new();
    let mut digests = Vec::new();
    loop {
        let batch = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = batch else { return Ok(digests) };
        digest_batch(tree, &batch, &mut buffer, &mut digests)?;
    }
}

fn digest_batch<F: Fs>(tree: &Tree<F>, batch: &[Task], buffer: &mut Vec<u8>, digests: &mut Digests) -> Result<()> {
    for task in batch {
        digests.push(task.run(tree, buffer)?);
    }
    Ok(())
}
