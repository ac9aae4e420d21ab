//! The scan of a stage: what a transaction wants to publish, digested.
//!
//! Invariants (P2):
//! 1. A file is digested between two looks at its size and time: one that is being written meanwhile is an error, not a digest.
//! 2. A file with several hard links is copied to an inode of its own first, so that nobody can change a published file through
//!    another name of it.
//! 3. Only the stage is read and changed; the output is not looked at here.
//!
//! A crash inside leaves the stage with fewer hard links; nothing else.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::{Error, Paths, Problem, Result};
use crate::fs::stream::Stream;
use crate::fs::tree::{Tree, Walked};
use crate::fs::{Fs, Kind, RenameMode, Stat};
use crate::manifest::{Digest, Entry, Object};
use crate::path::{RESERVED, RelPath};

/// Read at once while digesting, in bytes.
const CHUNK: usize = 128 << 10;

/// Fewer files than this are digested on one thread: starting another costs more.
const PARALLEL_FROM: usize = 64;

/// What is in a stage.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// Every entry, ascending.
    pub(crate) entries: Vec<Entry>,
    /// What cannot be published.
    pub(crate) problems: Vec<Problem>,
}

/// Digests that are known because txfs wrote the files itself; used only while the file is the very same.
pub(crate) type Known = HashMap<RelPath, Object>;

/// Where a file may be made on the stage's file system.
pub(crate) struct Scratch<'a, F: Fs> {
    pub(crate) tree: &'a Tree<F>,
    pub(crate) path: &'a RelPath,
}

/// Lists and digests everything in `stage`. Without a scratch file the stage is only read: for a preview.
pub(crate) fn scan<F: Fs>(stage: &Tree<F>, known: &Known, scratch: Option<Scratch<'_, F>>) -> Result<Staged> {
    let mut staged = Staged::default();
    let mut linked = Vec::new();
    let (mut unsupported, mut reserved) = (Paths::default(), Paths::default());
    let mut to_digest = Vec::new();
    stage.walk(
        &RelPath::root(),
        |_| true,
        |Walked { path, stat }| {
            if path.as_bytes() == RESERVED {
                reserved.push(path.clone());
            }
            let Some(kind) = stat.kind else {
                unsupported.push(path);
                return Ok(());
            };
            if kind == Kind::File && stat.nlink > 1 {
                linked.push((staged.entries.len(), stat));
            }
            let digest = match known.get(&path) {
                Some(object) if object.is(&stat) => object.digest,
                _ if kind == Kind::Directory => Digest::default(),
                _ => {
                    to_digest.push(staged.entries.len());
                    Digest::default()
                }
            };
            staged.entries.push(Entry { path, object: Object::new(kind, &stat, digest) });
            Ok(())
        },
    )?;
    if let Some(scratch) = scratch {
        for (i, stat) in linked {
            let Entry { path, object } = &mut staged.entries[i];
            *object = Object::new(Kind::File, &separate(stage, &scratch, path, &stat)?, object.digest);
        }
    }
    digest_all(stage, &mut staged.entries, &to_digest)?;
    let problems = [(unsupported, Problem::UnsupportedKind as fn(Paths) -> Problem), (reserved, Problem::ReservedName)];
    staged.problems =
        problems.into_iter().filter(|(paths, _)| !paths.is_empty()).map(|(paths, of)| of(paths)).collect();
    Ok(staged)
}

fn digest_all<F: Fs>(stage: &Tree<F>, entries: &mut [Entry], which: &[usize]) -> Result<()> {
    let threads = if which.len() < PARALLEL_FROM { 1 } else { stage.fs.parallelism() };
    let digests = if threads == 1 {
        which.iter().map(|&i| digest_staged(stage, &entries[i])).collect::<Result<Vec<_>>>()?
    } else {
        digest_parallel(stage, entries, which, threads)?
    };
    for (&i, digest) in which.iter().zip(digests) {
        entries[i].object.digest = digest;
    }
    Ok(())
}

fn digest_parallel<F: Fs>(stage: &Tree<F>, entries: &[Entry], which: &[usize], threads: usize) -> Result<Vec<Digest>> {
    /// Files taken at once: neighbours share a directory.
    const BATCH: usize = 32;
    let next = AtomicUsize::new(0);
    let trees: Vec<Tree<F>> = (0..threads).map(|_| stage.clone()).collect();
    let parts: Result<Vec<Vec<(usize, Digest)>>> = std::thread::scope(|scope| {
        let workers: Vec<_> = trees
            .into_iter()
            .map(|tree| {
                let next = &next;
                scope.spawn(move || {
                    let mut done = Vec::new();
                    loop {
                        let start = next.fetch_add(BATCH, Ordering::Relaxed);
                        let Some(batch) = which.get(start..which.len().min(start + BATCH)) else { break };
                        if batch.is_empty() {
                            break;
                        }
                        for (k, &i) in batch.iter().enumerate() {
                            done.push((start + k, digest_staged(&tree, &entries[i])?));
                        }
                    }
                    Ok(done)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a digesting thread does not panic")).collect()
    });
    let mut digests = vec![Digest::default(); which.len()];
    for (k, digest) in parts?.into_iter().flatten() {
        digests[k] = digest;
    }
    Ok(digests)
}

fn digest_staged<F: Fs>(stage: &Tree<F>, entry: &Entry) -> Result<Digest> {
    match digest(stage, &entry.path, entry.object.kind)? {
        (_, Some(stat)) if !entry.object.is(&stat) => Err(stage.io("read", &entry.path)(io::Error::other(
            "it is being written to: wait until the build has finished",
        ))),
        (digest, _) => Ok(digest),
    }
}

/// Digests what is at `path`; for a file with its attributes after reading.
pub(crate) fn digest<F: Fs>(tree: &Tree<F>, path: &RelPath, kind: Kind) -> Result<(Digest, Option<Stat>)> {
    let dir = tree.parent(path).map_err(tree.io("open the directory of", path))?;
    match kind {
        Kind::Directory => Ok((Digest::default(), None)),
        Kind::Symlink => {
            let target = tree.fs.read_link(&dir, path.name()).map_err(tree.io("read the link", path))?;
            Ok((Digest::of(&target), None))
        }
        Kind::File => {
            let file = tree.fs.open_file(&dir, path.name()).map_err(tree.io("read", path))?;
            let mut stream = Stream { fs: tree.fs.clone(), file };
            let digest = digest_stream(&mut stream).map_err(tree.io("read", path))?;
            let stat = tree.fs.stat_file(&stream.file).map_err(tree.io("read the attributes of", path))?;
            Ok((digest, Some(stat)))
        }
    }
}

fn digest_stream(stream: &mut impl Read) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(Digest(hasher.finalize().into())),
            Ok(n) => hasher.update(&chunk[..n]),
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

/// Gives the file at `path` an inode of its own, by way of a scratch file.
fn separate<F: Fs>(stage: &Tree<F>, scratch: &Scratch<'_, F>, path: &RelPath, stat: &Stat) -> Result<Stat> {
    let Scratch { tree, path: copy } = *scratch;
    tree.remove_entry(copy, Kind::File)?;
    copy_file(stage, path, stat, tree, copy)?;
    stage.make_writable(&path.parent())?;
    let result = tree.parent(copy).and_then(|from| {
        let to = stage.parent(path)?;
        stage.fs.rename(&from, copy.name(), &to, path.name(), RenameMode::Replace)?;
        stage.fs.stat(&to, path.name())
    });
    result.map_err(stage.io("replace the hard link", path))
}

/// Copies a file with its mode, time and extended attributes; shares blocks where the file system can.
pub(crate) fn copy_file<F: Fs>(from: &Tree<F>, path: &RelPath, stat: &Stat, to: &Tree<F>, new: &RelPath) -> Result<()> {
    let fs = &from.fs;
    let mut source =
        from.parent(path).and_then(|dir| fs.open_file(&dir, path.name())).map_err(from.io("read", path))?;
    let copy = to.parent(new).and_then(|dir| {
        let mut copy = fs.create_file(&dir, new.name(), 0o600)?;
        fs.copy_content(&mut source, &mut copy)?;
        fs.copy_attributes(&source, &copy)?;
        fs.set_mode(&copy, stat.mode)?;
        fs.set_mtime(&copy, stat.mtime)
    });
    copy.map_err(to.io("copy a file to", new))
}

/// Copies the tree `from`, except a state directory of txfs at its top, into the empty directory `to`.
pub(crate) fn copy_tree<F: Fs>(from: &Tree<F>, to: &Tree<F>) -> Result<()> {
    let mut copier = Copier { from, to, directories: Vec::new() };
    let ours = |entry: &Walked| entry.path.as_bytes() == RESERVED;
    from.walk(&RelPath::root(), |entry| !ours(entry), |entry| if ours(&entry) { Ok(()) } else { copier.copy(entry) })?;
    copier.finish()
}

/// Copies entries, directories before what is in them.
struct Copier<'a, F: Fs> {
    from: &'a Tree<F>,
    to: &'a Tree<F>,
    directories: Vec<(RelPath, u32)>,
}

impl<F: Fs> Copier<'_, F> {
    fn copy(&mut self, Walked { path, stat }: Walked) -> Result<()> {
        let (from, to) = (self.from, self.to);
        match stat.kind {
            Some(Kind::File) => copy_file(from, &path, &stat, to, &path),
            Some(Kind::Symlink) => copy_symlink(from, to, &path),
            Some(Kind::Directory) => {
                let made = to.parent(&path).and_then(|dir| to.fs.make_dir(&dir, path.name(), 0o700));
                made.map_err(to.io("make the directory", &path))?;
                self.directories.push((path, stat.mode));
                Ok(())
            }
            None => Err(Error::Usage {
                path: path.under(from.at()),
                what: "it is neither file, directory nor symlink, and only those are published".into(),
            }),
        }
    }

    /// Modes last, and from the bottom: a directory that its owner may not write to could not be filled.
    fn finish(self) -> Result<()> {
        self.directories.iter().rev().try_for_each(|(path, mode)| self.to.set_dir_mode(path, *mode))
    }
}

fn copy_symlink<F: Fs>(from: &Tree<F>, to: &Tree<F>, path: &RelPath) -> Result<()> {
    let target = from.parent(path).and_then(|dir| from.fs.read_link(&dir, path.name()));
    let target = target.map_err(from.io("read the link", path))?;
    let made = to.parent(path).and_then(|dir| to.fs.make_symlink(&dir, path.name(), &target));
    made.map_err(to.io("make the link", path))
}

/// Copies some entries of `from` into the empty directory `to`; what is missing there is left out.
pub(crate) fn copy_entries<F: Fs>(from: &Tree<F>, to: &Tree<F>, entries: &[Entry]) -> Result<()> {
    let mut copier = Copier { from, to, directories: Vec::new() };
    for entry in entries {
        if let Some(stat) = from.stat(&entry.path)? {
            copier.copy(Walked { path: entry.path.clone(), stat })?;
        }
    }
    copier.finish()
}
