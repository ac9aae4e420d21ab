//! A tree of directories below one open root: the handful of steps that every part of the engine takes in it.
//!
//! Invariants:
//! 1. Descent is iterative and by path, so depth is bounded by memory, not by the stack or by open descriptors.
//! 2. Removal names entries by the directory that holds them and follows nothing; it stops at a mount (G9).
//!
//! A crash inside [`Tree::remove_below`] leaves a smaller tree; whoever removes it next finishes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Fs, Kind, Stat, found, is_not_directory};
use crate::error::{Error, Owned, Result};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::threads;

/// Whoever may do everything.
pub(crate) const ROOT: u32 = 0;

/// Two threads are not started to remove fewer files than this.
const MANY: usize = 512;

/// What is done to an entry itself. Anything else changes the directory that holds it.
const OF_ENTRY: [&str; 9] = [
    "change the group of",
    "change the mode of",
    "copy",
    "list",
    "list the directory",
    "make durable",
    "open the directory",
    "read",
    "share",
];

/// An open root directory and where the user knows it.
pub(crate) struct Tree<F: Fs> {
    pub(crate) fs: F,
    root: Arc<F::Dir>,
    at: PathBuf,
    /// The group that a shared store's state belongs to: what is made in it for txfs is given to that, and its members are believed.
    group: Option<u32>,
    /// The directory used last: operations come sorted, so most name their neighbour's.
    last: Mutex<Option<(RelPath, Arc<F::Dir>)>>,
}

impl<F: Fs> Clone for Tree<F> {
    fn clone(&self) -> Self {
        let (fs, root, at) = (self.fs.clone(), self.root.clone(), self.at.clone());
        Self { fs, root, at, group: self.group, last: Mutex::default() }
    }
}

/// An entry met on a walk.
#[derive(Debug, Clone)]
pub(crate) struct Walked {
    pub(crate) path: RelPath,
    pub(crate) stat: Stat,
}

/// An entry met on a walk that looks at nothing but names.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) path: RelPath,
    /// `None` when the kind is none that txfs publishes.
    pub(crate) kind: Option<Kind>,
}

/// What a walk has to know of an entry.
trait Met {
    fn path(&self) -> &RelPath;
    fn is_dir(&self) -> bool;
}

impl Met for Walked {
    fn path(&self) -> &RelPath {
        &self.path
    }

    fn is_dir(&self) -> bool {
        self.stat.is_dir()
    }
}

impl Met for Named {
    fn path(&self) -> &RelPath {
        &self.path
    }

    fn is_dir(&self) -> bool {
        self.kind == Some(Kind::Directory)
    }
}

impl<F: Fs> Tree<F> {
    pub(crate) fn new(fs: &F, root: F::Dir, at: impl Into<PathBuf>) -> Self {
        Self { fs: fs.clone(), root: Arc::new(root), at: at.into(), group: None, last: Mutex::default() }
    }

    /// The same tree, as one that a group shares, or that none does. So is every tree below it.
    pub(crate) fn shared_with(self, group: Option<u32>) -> Self {
        Self { group, ..self }
    }

    /// The group that shares it.
    pub(crate) fn group(&self) -> Option<u32> {
        self.group
    }

    /// Opens a directory of the user's.
    pub(crate) fn open(fs: &F, at: &Path) -> Result<Self> {
        let root = fs.open_anchor(at).map_err(Error::io("open the directory", at))?;
        Ok(Self::new(fs, root, at))
    }

    /// The tree below one of the directories of this one.
    pub(crate) fn below(&self, path: &RelPath) -> Result<Self> {
        let root = self.fs.open_dir(&self.root, path).map_err(self.not_opened(path))?;
        Ok(self.at_root(root, path))
    }

    /// As [`Tree::below`], `None` where there is no such directory.
    pub(crate) fn find_below(&self, path: &RelPath) -> Result<Option<Self>> {
        let root = found(self.fs.open_dir(&self.root, path)).map_err(self.not_opened(path))?;
        Ok(root.map(|root| self.at_root(root, path)))
    }

    fn at_root(&self, root: F::Dir, path: &RelPath) -> Self {
        Self::new(&self.fs, root, path.under(&self.at)).shared_with(self.group)
    }

    /// As [`Tree::find_below`], `None` also where something else is there than a directory.
    pub(crate) fn find_directory(&self, path: &RelPath) -> Result<Option<Self>> {
        match self.fs.open_dir(&self.root, path) {
            Ok(root) => Ok(Some(self.at_root(root, path))),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.not_opened(path)(error)),
        }
    }

    /// Whatever is in the place of one of txfs' own directories was not put there by txfs.
    fn not_opened(&self, path: &RelPath) -> impl FnOnce(io::Error) -> Error {
        |error| match is_not_directory(&error) {
            true => Error::not_a_directory(path.under(&self.at)),
            false => self.io("open the directory", path)(error),
        }
    }

    pub(crate) fn root(&self) -> &F::Dir {
        &self.root
    }

    /// The root as the user knows it.
    pub(crate) fn at(&self) -> &Path {
        &self.at
    }

    pub(crate) fn io(&self, action: &'static str, path: &RelPath) -> impl FnOnce(io::Error) -> Error {
        move |source| {
            let denied = source.kind() == io::ErrorKind::PermissionDenied;
            let whose = if denied { self.closed(action, path) } else { None };
            Error::Io { action, path: path.under(&self.at), source, whose: whose.map(Box::new) }
        }
    }

    /// What is closed where `action` is not permitted at `path`: to this user, because it is another's, or by its mode to its owner.
    /// `None` where neither is the cause.
    fn closed(&self, action: &str, path: &RelPath) -> Option<Owned> {
        if self.fs.user() == ROOT {
            return None;
        }
        let (at, stat) = match self.glance(path) {
            Some(stat) if OF_ENTRY.contains(&action) || self.may_change(&path.parent()) => (path.clone(), stat),
            // The directory; or the nearest that can be looked at, which cannot be searched.
            _ => path
                .parents()
                .chain([RelPath::root()])
                .find_map(|above| self.glance(&above).map(|stat| (above, stat)))?,
        };
        (stat.uid != self.fs.user() || is_closed(&stat)).then(|| self.owned_by(&at, stat.uid))
    }

    /// Not by [`Tree::stat`]: what is not permitted either would ask the same again, without end.
    fn glance(&self, path: &RelPath) -> Option<Stat> {
        match path.is_root() {
            true => self.fs.stat_dir(self.root()).ok(),
            false => self.parent(path).and_then(|dir| self.fs.stat(&dir, path.name())).ok(),
        }
    }

    fn may_change(&self, path: &RelPath) -> bool {
        self.dir(path).and_then(|dir| self.fs.may_change(&dir)).unwrap_or(false)
    }

    /// What belongs to this user or another in this tree, and is closed to this one.
    pub(crate) fn owned_by(&self, path: &RelPath, owner: u32) -> Owned {
        let user = (self.fs.user(), self.group.unwrap_or_else(|| self.fs.group()));
        Owned { path: path.under(&self.at), owner, user, trees: vec![self.at.clone()] }
    }

    /// Fails once the caller wants to stop; `path` is what would be next. Not to be asked after the commit point, nor in recovery.
    pub(crate) fn check_interrupt(&self, path: &RelPath) -> Result<()> {
        if self.fs.is_interrupted() { Err(Error::Interrupted { path: path.under(&self.at) }) } else { Ok(()) }
    }

    /// What is at `path` is not what it has to be.
    pub(crate) fn corrupt(&self, path: &RelPath, what: impl fmt::Display) -> Error {
        Error::corrupt(path.under(&self.at), what)
    }

    /// The open directory at `path`.
    pub(crate) fn dir(&self, path: &RelPath) -> io::Result<Arc<F::Dir>> {
        match self.last(path.as_bytes()) {
            Some(dir) => Ok(dir),
            None => self.open_anew(path.clone()),
        }
    }

    /// The open directory that holds the entry at `path`.
    pub(crate) fn parent(&self, path: &RelPath) -> io::Result<Arc<F::Dir>> {
        match self.last(path.parent_bytes()) {
            Some(dir) => Ok(dir),
            None => self.open_anew(path.parent()),
        }
    }

    /// The directory at `path`, if it is the root, or the one used last.
    fn last(&self, path: &[u8]) -> Option<Arc<F::Dir>> {
        if path.is_empty() {
            return Some(self.root.clone());
        }
        let last = self.used_last();
        last.as_ref().filter(|(last, _)| last.as_bytes() == path).map(|(_, dir)| dir.clone())
    }

    fn used_last(&self) -> MutexGuard<'_, Option<(RelPath, Arc<F::Dir>)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the one used last where that is on the way, so that going down a deep tree takes no longer with each step.
    fn open_anew(&self, path: RelPath) -> io::Result<Arc<F::Dir>> {
        let from = self.used_last().as_ref().and_then(|(last, dir)| Some((path.seen_from(last)?, dir.clone())));
        let opened = match from {
            Some((rest, dir)) => self.fs.open_dir(&dir, &rest),
            None => self.fs.open_dir(&self.root, &path),
        };
        let dir = Arc::new(opened?);
        *self.used_last() = Some((path, dir.clone()));
        Ok(dir)
    }

    /// Forgets the directory used last, after it may have changed places.
    pub(crate) fn forget(&self) {
        *self.used_last() = None;
    }

    /// Forgets the directory used last if it is the one at `path`, or below: another one made there is not the one that is open.
    pub(crate) fn forget_at(&self, path: &RelPath) {
        self.used_last().take_if(|(last, _)| last == path || last.is_below(path));
    }

    /// Opens the file at `path` for reading, and says what was opened.
    pub(crate) fn open_file(&self, path: &RelPath) -> Result<(F::File, Stat)> {
        let opened = self.parent(path).and_then(|dir| self.fs.open_file(&dir, path.name()));
        opened.map_err(self.io("read", path))
    }

    /// Forgets what memory holds of the file at `path` and need not write: what is read next is read from the medium.
    pub(crate) fn drop_cached(&self, path: &RelPath) -> Result<()> {
        if left_out(Mutant::ReadFromMedium) {
            return Ok(());
        }
        let (file, _) = self.open_file(path)?;
        self.fs.drop_cached(&file).map_err(self.io("read", path))
    }

    /// What is at `path`; `None` when nothing is, also when a directory on the way is missing or is none.
    pub(crate) fn stat(&self, path: &RelPath) -> Result<Option<Stat>> {
        if path.is_root() {
            return self.fs.stat_dir(&self.root).map(Some).map_err(self.io("read the attributes of", path));
        }
        let stat = self.parent(path).and_then(|dir| self.fs.stat(&dir, path.name()));
        match stat {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.io("read the attributes of", path)(error)),
        }
    }

    /// Every entry below `start` in order of the tree, `start` itself left out. `enter` says whether to go below a directory.
    pub(crate) fn walk(
        &self,
        start: &RelPath,
        enter: impl FnMut(&Walked) -> bool,
        visit: impl FnMut(Walked) -> Result<()>,
    ) -> Result<()> {
        let look = |dir: &F::Dir, Named { path, .. }: Named| {
            let stat = found(self.fs.stat(dir, path.name())).map_err(self.io("read the attributes of", &path))?;
            // An entry that went away between the two calls is as if it had gone before.
            Ok(stat.map(|stat| Walked { path, stat }))
        };
        self.walk_with(look, start, enter, visit)
    }

    /// As [`Tree::walk`], for callers that need no attributes or read them elsewhere: reading them is the more expensive half of a
    /// walk.
    pub(crate) fn walk_names(
        &self,
        start: &RelPath,
        enter: impl FnMut(&Named) -> bool,
        visit: impl FnMut(Named) -> Result<()>,
    ) -> Result<()> {
        self.walk_with(|_, named| Ok(Some(named)), start, enter, visit)
    }

    fn walk_with<T: Met>(
        &self,
        look: impl Fn(&F::Dir, Named) -> Result<Option<T>>,
        start: &RelPath,
        mut enter: impl FnMut(&T) -> bool,
        mut visit: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        let mut pending = self.children(start, &look)?;
        while let Some(entry) = pending.pop() {
            if entry.is_dir() && enter(&entry) {
                let path = entry.path().clone();
                visit(entry)?;
                pending.append(&mut self.children(&path, &look)?);
            } else {
                visit(entry)?;
            }
        }
        Ok(())
    }

    /// The entries of one directory, last first.
    fn children<T: Met>(&self, path: &RelPath, look: impl Fn(&F::Dir, Named) -> Result<Option<T>>) -> Result<Vec<T>> {
        let dir = self.dir(path).map_err(self.io("open the directory", path))?;
        let listed = self.fs.list(&dir).map_err(self.io("list the directory", path))?;
        let mut children = Vec::with_capacity(listed.len());
        for entry in listed {
            let path = path.join(&entry.name).map_err(|error| self.corrupt(path, error))?;
            children.extend(look(&dir, Named { path, kind: entry.kind })?);
        }
        children.sort_unstable_by(|a, b| b.path().cmp(a.path()));
        // A directory that changes while it is read may name an entry twice.
        children.dedup_by(|a, b| a.path() == b.path());
        Ok(children)
    }

    /// Removes the entry at `path` and everything below it; nothing there is no error.
    pub(crate) fn remove(&self, path: &RelPath) -> Result<()> {
        match self.stat(path)? {
            None => Ok(()),
            Some(stat) if stat.is_dir() => {
                self.remove_below(path)?;
                self.remove_entry(path, Kind::Directory)
            }
            Some(_) => self.remove_entry(path, Kind::File),
        }
    }

    /// Empties the directory at `path`.
    pub(crate) fn remove_below(&self, path: &RelPath) -> Result<()> {
        self.make_writable(path)?;
        let mut entries = Vec::new();
        let mut failed = None;
        let enter = |entry: &Named| match self.make_writable(&entry.path) {
            Ok(_) => true,
            Err(error) => {
                failed.get_or_insert(error);
                false
            }
        };
        let note = |entry: Named| {
            entries.push(entry);
            Ok(())
        };
        self.walk_names(path, enter, note)?;
        if let Some(error) = failed {
            return Err(error);
        }
        self.remove_entries(entries)
    }

    /// Removes entries that come in order of the tree; of directories only those in which nothing else is can be among them.
    pub(crate) fn remove_entries(&self, entries: Vec<Named>) -> Result<()> {
        let (directories, files): (Vec<_>, Vec<_>) = entries.into_iter().partition(Met::is_dir);
        let in_turn = files.len() < MANY || self.fs.parallelism() < 2 || self.fs.changes_in_turn(&self.root);
        // Two also where there are more processors: more wait for each other.
        let threads = if in_turn { 1 } else { 2 };
        let remove = |files: &[Named]| {
            // The directory used last is of one thread alone.
            let tree = self.clone();
            files.iter().try_for_each(|file| tree.remove_entry(&file.path, Kind::File))
        };
        // By directories: two threads in one would wait for each other.
        let held_together = files.chunk_by(|a, b| a.path.parent_bytes() == b.path.parent_bytes());
        threads::for_each(held_together.collect(), threads, remove)?;
        directories.iter().rev().try_for_each(|entry| self.remove_entry(&entry.path, Kind::Directory))
    }

    /// Removes one entry, an empty directory where `kind` says so; nothing there is no error.
    pub(crate) fn remove_entry(&self, path: &RelPath, kind: Kind) -> Result<()> {
        let result = self.parent(path).and_then(|dir| match kind {
            Kind::Directory => {
                self.forget_at(path);
                self.fs.remove_dir(&dir, path.name())
            }
            Kind::File | Kind::Symlink => self.fs.remove_file(&dir, path.name()),
        });
        match result {
            Err(error) if !is_absent(&error) => Err(self.io("remove", path)(error)),
            _ => Ok(()),
        }
    }

    /// Gives the owner full access to a directory, without which nothing in it can be removed. Returns the mode that it had, if
    /// that was another.
    pub(crate) fn make_writable(&self, path: &RelPath) -> Result<Option<u32>> {
        match self.stat(path)? {
            Some(stat) if stat.is_dir() && stat.mode & 0o700 != 0o700 => {
                self.set_dir_mode(path, stat.mode | 0o700)?;
                Ok(Some(stat.mode))
            }
            _ => Ok(None),
        }
    }

    /// Sets the mode of a directory, also of one that cannot be opened yet.
    pub(crate) fn set_dir_mode(&self, path: &RelPath, mode: u32) -> Result<()> {
        let result = self.dir(path).and_then(|dir| self.fs.set_dir_mode(&dir, mode));
        // Opened while it was closed it can be searched, and neither listed nor synced.
        self.forget_at(path);
        result.map_err(self.io("change the mode of", path))
    }
}

/// Whether the error says that nothing is at the path: nothing can be below a file or a link either.
pub(crate) fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || is_not_directory(error)
}

/// Whether its owner has to open it first.
fn is_closed(stat: &Stat) -> bool {
    let needed = if stat.kind == Some(Kind::Directory) { 0o700 } else { 0o400 };
    stat.mode & needed != needed
}
