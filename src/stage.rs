//! The scan of a stage: what a transaction wants to publish, digested.
//!
//! Invariants (P2):
//! 1. A file with several hard links is copied to an inode of its own first, so that nobody can change a published file through
//!    another name of it.
//! 2. Only the stage is read and changed; the output is not looked at here.
//!
//! A crash inside leaves the stage with fewer hard links; nothing else.

use std::collections::HashMap;
use std::io;

use crate::digest::{self, Pool};
use crate::error::{Error, Paths, Problem, Result};
use crate::fs::tree::{Tree, Walked};
use crate::fs::{Fs, Kind, RenameMode, Stat};
use crate::manifest::{Digest, Entry, Object};
use crate::path::{RESERVED, RelPath};

/// What is in a stage.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// Every entry, ascending.
    pub(crate) entries: Vec<Entry>,
    /// What cannot be published.
    pub(crate) problems: Vec<Problem>,
    /// What the kernel said when a large stage began to be made durable while it was read; the barrier proper comes later, but
    /// an error is told only once.
    pub(crate) early_sync: Option<io::Error>,
}

/// From this many entries on, the disk is put to work while the rest is still read.
const EARLY_SYNC_FROM: usize = 256;

/// Digests that are known because txfs wrote the files itself; used only while the file is the very same.
pub(crate) type Known = HashMap<RelPath, Object>;

/// Where a file may be made on the stage's file system.
pub(crate) struct Scratch<'a, F: Fs> {
    pub(crate) tree: &'a Tree<F>,
    pub(crate) path: &'a RelPath,
}

/// Lists and digests everything in `stage`. Without a scratch file the stage is only read: for a preview.
pub(crate) fn scan<F: Fs>(stage: &Tree<F>, known: &Known, scratch: Option<Scratch<'_, F>>) -> Result<Staged> {
    let may_sync = scratch.is_some() && stage.fs.parallelism() > 1;
    std::thread::scope(|scope| {
        let mut scan = Scan {
            stage,
            known,
            pool: Pool::new(scope, stage),
            staged: Staged::default(),
            linked: Vec::new(),
            unsupported: Paths::default(),
            reserved: Paths::default(),
        };
        let mut early_sync = None;
        stage.walk(
            &RelPath::root(),
            |_| true,
            |entry| {
                scan.note(entry);
                if may_sync && scan.staged.entries.len() == EARLY_SYNC_FROM {
                    let stage = stage.clone();
                    early_sync = Some(scope.spawn(move || stage.fs.sync_fs(stage.root())));
                }
                Ok(())
            },
        )?;
        let mut staged = scan.finish(scratch)?;
        let synced = early_sync.map(|sync| sync.join().expect("a system call does not panic"));
        staged.early_sync = synced.and_then(Result::err);
        Ok(staged)
    })
}

struct Scan<'a, 'scope, 'env, F: Fs> {
    stage: &'a Tree<F>,
    known: &'a Known,
    pool: Pool<'scope, 'env, F>,
    staged: Staged,
    /// Files with several names: which, and their attributes.
    linked: Vec<(usize, Stat)>,
    unsupported: Paths,
    reserved: Paths,
}

impl<'scope, F: Fs + 'scope> Scan<'_, 'scope, '_, F> {
    fn note(&mut self, Walked { path, stat }: Walked) {
        if path.as_bytes() == RESERVED {
            self.reserved.push(path.clone());
        }
        let Some(kind) = stat.kind else {
            self.unsupported.push(path);
            return;
        };
        let index = self.staged.entries.len();
        let mut entry = Entry { object: Object::new(kind, &stat, Digest::default()), path };
        match self.known.get(&entry.path) {
            _ if kind == Kind::Directory => {}
            _ if kind == Kind::File && stat.nlink > 1 => self.linked.push((index, stat)),
            Some(object) if object.is(&stat) => entry.object.digest = object.digest,
            _ => self.pool.push(index, &entry),
        }
        self.staged.entries.push(entry);
    }

    fn finish(self, scratch: Option<Scratch<'_, F>>) -> Result<Staged> {
        let Self { stage, pool, mut staged, linked, unsupported, reserved, .. } = self;
        for (index, digest) in pool.finish()? {
            staged.entries[index].object.digest = digest;
        }
        for (index, mut stat) in linked {
            let Entry { path, object } = &mut staged.entries[index];
            if let Some(scratch) = &scratch {
                stat = separate(stage, scratch, path, &stat)?;
            }
            *object = digest::object(stage, path, Kind::File, &stat)?;
        }
        let problems =
            [(unsupported, Problem::UnsupportedKind as fn(Paths) -> Problem), (reserved, Problem::ReservedName)];
        staged.problems =
            problems.into_iter().filter(|(paths, _)| !paths.is_empty()).map(|(paths, of)| of(paths)).collect();
        Ok(staged)
    }
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
