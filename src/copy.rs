//! Copying into a stage: a directory of the user's, or what txfs published or displaced.
//!
//! Invariants:
//! 1. Only the stage is written.
//! 2. What txfs published is copied with owner, group and attributes, as far as this user may give them: going back gives back what
//!    was. Whatever else is copied belongs to whoever copies, and a set-id bit lends nobody the rights of another.
//!
//! A crash inside leaves a part of the copy, and so does a caller who wants to stop: it is asked for between entries, and within large files.

use std::io;

use crate::error::{Error, Paths, Result};
use crate::fs::tree::{Tree, Walked, is_absent};
use crate::fs::{Fs, Kind, Stat, is_unsupported};
use crate::layout::is_state_dir;
use crate::manifest::inventory::Cursor;
use crate::manifest::{Entry, Object};
use crate::path::RelPath;
use crate::threads;

/// So many files are found before they are copied together.
const TOGETHER: usize = 4096;

/// Files of one directory that one thread copies before it takes others.
const AT_ONCE: usize = 64;

/// Where copies are made from.
pub(crate) struct Source<'a, F: Fs> {
    tree: &'a Tree<F>,
    /// Whether a copy is given to the owner of its original.
    keeps_owner: bool,
}

impl<F: Fs> Clone for Source<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Fs> Copy for Source<'_, F> {}

impl<'a, F: Fs> Source<'a, F> {
    /// A tree that txfs published, or displaced.
    pub(crate) fn published(tree: &'a Tree<F>) -> Self {
        Self { tree, keeps_owner: true }
    }

    /// Any other tree.
    pub(crate) fn foreign(tree: &'a Tree<F>) -> Self {
        Self { tree, keeps_owner: false }
    }

    /// Copies a file with its mode, time and extended attributes; a larger one shares blocks where the file system can.
    pub(crate) fn copy_file(self, path: &RelPath, stat: &Stat, to: &Tree<F>, new: &RelPath) -> Result<()> {
        to.check_interrupt(new)?;
        let fs = &to.fs;
        // The owner is that of what is read: another file may have got the name since it was looked at.
        let (mut original, opened) = self.tree.open_file(path)?;
        let made = to.parent(new).and_then(|dir| fs.create_file(&dir, new.name(), 0o600));
        let mut copy = made.map_err(to.io("copy a file to", new))?;
        fs.copy_content(&mut original, &mut copy).map_err(|error| self.not_copied(path, to, new, error))?;
        let likened = fs.stat_file(&copy).and_then(|made| {
            let give = |owner, group| fs.set_owner(&copy, owner, group);
            // Before the rest, some of which a file loses with its owner.
            let owned = self.give(&opened, made, give)?;
            fs.copy_attributes(&original, &copy)?;
            fs.set_mode(&copy, mode_of_copy(stat.mode, &opened, &owned))?;
            fs.set_mtime(&copy, stat.mtime)
        });
        likened.map_err(to.io("copy a file to", new))
    }

    /// A file that is full, or a disk, is that of the copy; any other error may be of the original.
    fn not_copied(&self, path: &RelPath, to: &Tree<F>, new: &RelPath, error: io::Error) -> Error {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        match error.kind() {
            _ if to.fs.is_interrupted() => Error::Interrupted { path: new.under(to.at()) },
            StorageFull | QuotaExceeded | FileTooLarge => to.io("copy a file to", new)(error),
            _ => self.tree.io("copy", path)(error),
        }
    }

    pub(crate) fn copy_symlink(self, path: &RelPath, to: &Tree<F>, new: &RelPath) -> Result<()> {
        let fs = &to.fs;
        let original = self.tree.parent(path).and_then(|dir| {
            let stat = if self.keeps_owner { Some(fs.stat(&dir, path.name())?) } else { None };
            Ok((fs.read_link(&dir, path.name())?, stat))
        });
        let (target, stat) = original.map_err(self.tree.io("read the link", path))?;
        let made = to.parent(new).and_then(|dir| {
            fs.make_symlink(&dir, new.name(), &target)?;
            let Some(stat) = stat else { return Ok(()) };
            let give = |owner, group| fs.set_link_owner(&dir, new.name(), owner, group);
            self.give(&stat, fs.stat(&dir, new.name())?, give).map(drop)
        });
        made.map_err(to.io("make the link", new))
    }

    /// Gives the directory `new` owner, group and extended attributes of the one at `path`, if that is there still.
    fn liken_dir(self, path: &RelPath, to: &Tree<F>, new: &RelPath) -> Result<()> {
        let fs = &to.fs;
        let original = match self.tree.dir(path) {
            Err(error) if is_absent(&error) => return Ok(()),
            original => original.map_err(self.tree.io("open the directory", path))?,
        };
        let likened = to.dir(new).and_then(|dir| {
            let give = |owner, group| fs.set_dir_owner(&dir, owner, group);
            self.give(&fs.stat_dir(&original)?, fs.stat_dir(&dir)?, give)?;
            fs.copy_dir_attributes(&original, &dir)
        });
        likened.map_err(to.io("copy a directory to", new))
    }

    /// Gives a copy the owner and the group of its original, or the group alone, as far as that is permitted; and says whose it is
    /// now.
    fn give(
        self,
        original: &Stat,
        copy: Stat,
        set_owner: impl Fn(Option<u32>, u32) -> io::Result<()>,
    ) -> io::Result<Stat> {
        let (uid, gid) = (original.uid, original.gid);
        if !self.keeps_owner || (copy.uid, copy.gid) == (uid, gid) {
            return Ok(copy);
        }
        for owner in [Some(uid), None] {
            match set_owner(owner, gid) {
                Err(error) if is_unsupported(&error) => {}
                given => return given.map(|()| Stat { uid: owner.unwrap_or(copy.uid), gid, ..copy }),
            }
        }
        Ok(copy)
    }
}

/// The mode of a copy: a set-id bit goes where it would lend the rights of somebody else than in the original.
fn mode_of_copy(mode: u32, original: &Stat, copy: &Stat) -> u32 {
    let set_uid = if copy.uid == original.uid { 0 } else { 0o4000 };
    let set_gid = if copy.gid == original.gid { 0 } else { 0o2000 };
    mode & !(set_uid | set_gid)
}

/// Gives files of `from` the modes that their copies will have, which belong to whom `copy` belongs to.
pub(crate) fn expect_modes<F: Fs>(from: &Tree<F>, entries: &mut [Entry], copy: &Stat) -> Result<()> {
    for Entry { path, object } in entries.iter_mut().filter(|entry| has_set_id(entry.object.kind, entry.object.mode)) {
        if let Some(original) = from.stat(path)? {
            object.mode = mode_of_copy(object.mode, &original, copy);
        }
    }
    Ok(())
}

fn has_set_id(kind: Kind, mode: u32) -> bool {
    kind == Kind::File && mode & 0o6000 != 0
}

/// What a copy of a directory of the user's is not, or lacks.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    /// Entries that are published already, and were not copied.
    pub(crate) same: Vec<Entry>,
    /// State directories of txfs, which were left out.
    pub(crate) states: Vec<RelPath>,
    /// Files whose copies lack a set-id bit.
    pub(crate) without_set_id: Paths,
    /// What cannot be copied, as it cannot be published.
    pub(crate) unsupported: Paths,
}

/// Copies the tree `from`, except state directories of txfs, into the empty directory `to`.
pub(crate) fn copy_tree<F: Fs>(from: &Tree<F>, to: &Tree<F>) -> Result<Copied> {
    copy_differing(from, to, std::iter::empty())
}

/// Gives the stage the attributes and the mode of the directory that it is a copy of, for an output that is made of the stage. Its
/// owner may always write to it.
pub(crate) fn copy_root<F: Fs>(from: &Tree<F>, to: &Tree<F>) -> Result<()> {
    let root = RelPath::root();
    let Some(stat) = from.stat(&root)? else { return Ok(()) };
    Source::foreign(from).liken_dir(&root, to, &root)?;
    to.set_dir_mode(&root, stat.mode & 0o777 | 0o700)
}

/// As [`copy_tree`], but what `published` has with the same size, time and mode is not copied.
pub(crate) fn copy_differing<F: Fs>(
    from: &Tree<F>,
    to: &Tree<F>,
    published: impl Iterator<Item = Result<Entry>>,
) -> Result<Copied> {
    let mut copier = Copier::new(Source::foreign(from), to);
    let mut published = Cursor::new(published);
    let (mut same, mut states) = (Vec::new(), Vec::new());
    let ours = |entry: &Walked| is_state_dir(from, &entry.path, entry.stat.kind);
    from.walk(
        &RelPath::root(),
        |entry| !ours(entry),
        |entry| {
            from.check_interrupt(&entry.path)?;
            match published.find(&entry.path)? {
                _ if ours(&entry) => states.push(entry.path),
                Some(published) if looks_same(&published.object, &entry.stat) => {
                    copier.pass(&entry);
                    same.push(published);
                }
                _ => copier.copy(entry)?,
            }
            Ok(())
        },
    )?;
    let Copier { without_set_id, unsupported, .. } = copier.finish()?;
    Ok(Copied { same, states, without_set_id, unsupported })
}

/// The quick check of rsync: same kind, mode, size and time. A link has no time of its own worth trusting, and a directory that
/// its owner may not write to is always copied, because it has to be opened for what is copied into it.
fn looks_same(published: &Object, stat: &Stat) -> bool {
    let same = stat.kind == Some(published.kind) && stat.mode == published.mode;
    same && match published.kind {
        Kind::File => stat.size == published.size && stat.mtime == published.mtime,
        Kind::Directory => stat.mode & 0o700 == 0o700,
        Kind::Symlink => false,
    }
}

/// Copies the entries of `from` at `paths`, ascending, into `to`, with the directories above them.
pub(crate) fn copy_paths<F: Fs>(
    from: Source<'_, F>,
    to: &Tree<F>,
    paths: impl IntoIterator<Item = Result<RelPath>>,
) -> Result<()> {
    let mut copier = Copier::new(from, to);
    for path in paths {
        let path = &path?;
        to.check_interrupt(path)?;
        for above in path.ancestors() {
            if let Some(stat) = from.tree.stat(&above)?.filter(Stat::is_dir) {
                copier.made.make_like(from, above, stat.mode)?;
            }
        }
        if let Some(stat) = from.tree.stat(path)? {
            copier.copy(Walked { path: path.clone(), stat })?;
        }
    }
    match copier.finish()?.unsupported.first.first() {
        None => Ok(()),
        Some(path) => Err(Error::Usage {
            path: path.under(from.tree.at()),
            what: "it is neither file, directory nor symlink, and only those are published".into(),
        }),
    }
}

/// Copies entries that come in order of the tree; files on several threads, when their directories are made. A directory that only
/// leads to others is made when the first of them is copied.
struct Copier<'a, F: Fs> {
    from: Source<'a, F>,
    to: &'a Tree<F>,
    /// Directories above the entry that is next, with their modes, that have not been made.
    passed: Vec<(RelPath, u32)>,
    made: NewDirs<'a, F>,
    /// Files that are still to be copied.
    files: Vec<(RelPath, Stat)>,
    without_set_id: Paths,
    unsupported: Paths,
}

impl<'a, F: Fs> Copier<'a, F> {
    fn new(from: Source<'a, F>, to: &'a Tree<F>) -> Self {
        let (passed, files, made) = (Vec::new(), Vec::new(), NewDirs::new(to));
        Self { from, to, passed, made, files, without_set_id: Paths::default(), unsupported: Paths::default() }
    }

    /// Notes an entry that is not copied.
    fn pass(&mut self, entry: &Walked) {
        self.passed.retain(|(dir, _)| entry.path.is_below(dir));
        if entry.stat.is_dir() {
            self.passed.push((entry.path.clone(), entry.stat.mode));
        }
    }

    fn copy(&mut self, Walked { path, stat }: Walked) -> Result<()> {
        let (from, to) = (self.from, self.to);
        for (dir, mode) in std::mem::take(&mut self.passed) {
            if path.is_below(&dir) {
                self.made.make_like(from, dir, mode)?;
            }
        }
        match stat.kind {
            Some(Kind::File) => {
                self.files.push((path, stat));
                if self.files.len() < TOGETHER { Ok(()) } else { self.copy_files() }
            }
            Some(Kind::Symlink) => from.copy_symlink(&path, to, &path),
            Some(Kind::Directory) => self.made.make_like(from, path, stat.mode),
            None => {
                self.unsupported.push(path);
                Ok(())
            }
        }
    }

    fn copy_files(&mut self) -> Result<()> {
        let (files, fs) = (std::mem::take(&mut self.files), &self.to.fs);
        let in_turn = files.len() <= AT_ONCE || fs.parallelism() < 2 || fs.changes_in_turn(self.to.root());
        let threads = if in_turn { 1 } else { fs.parallelism() };
        let held_together = files.chunk_by(|(a, _), (b, _)| a.parent_bytes() == b.parent_bytes());
        let shares = held_together.flat_map(|files| files.chunks(AT_ONCE)).collect();
        let from = self.from;
        threads::for_each(shares, threads, |files| {
            // The directory used last is of one thread alone.
            let (tree, to) = (from.tree.clone(), self.to.clone());
            let from = Source { tree: &tree, ..from };
            files.iter().try_for_each(|(path, stat)| from.copy_file(path, stat, &to, path))
        })?;
        self.note_set_ids(files)
    }

    fn note_set_ids(&mut self, files: Vec<(RelPath, Stat)>) -> Result<()> {
        for (path, original) in files.into_iter().filter(|(_, stat)| has_set_id(Kind::File, stat.mode)) {
            if self.to.stat(&path)?.is_some_and(|copy| copy.mode != original.mode) {
                self.without_set_id.push(path);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Self> {
        self.copy_files()?;
        self.made.close()?;
        Ok(self)
    }
}

/// Directories that their owner may write to until everything is in them.
pub(crate) struct NewDirs<'a, F: Fs> {
    tree: &'a Tree<F>,
    made: Vec<NewDir<'a, F>>,
}

struct NewDir<'a, F: Fs> {
    path: RelPath,
    /// The mode that it is to have.
    mode: u32,
    /// What it is a copy of, where it is to have more of that than the mode.
    original: Option<(Source<'a, F>, RelPath)>,
}

impl<'a, F: Fs> NewDirs<'a, F> {
    pub(crate) fn new(tree: &'a Tree<F>) -> Self {
        Self { tree, made: Vec::new() }
    }

    /// Makes a directory like the one at `original`. One that is there is no error; it may have been closed when it was filled.
    pub(crate) fn make(&mut self, path: RelPath, mode: u32, from: Source<'a, F>, original: RelPath) -> Result<()> {
        let made = self.tree.parent(&path).and_then(|dir| self.tree.fs.make_dir(&dir, path.name(), 0o700));
        let new = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.tree.make_writable(&path)?.map(|mode| NewDir { path, mode, original: None })
            }
            made => {
                made.map_err(self.tree.io("make the directory", &path))?;
                Some(NewDir { path, mode, original: Some((from, original)) })
            }
        };
        self.made.extend(new);
        Ok(())
    }

    /// As [`NewDirs::make`], where the original has the same path.
    fn make_like(&mut self, from: Source<'a, F>, path: RelPath, mode: u32) -> Result<()> {
        let original = path.clone();
        self.make(path, mode, from, original)
    }

    /// From the bottom, when all are filled: into a directory that its owner may not write to nothing could be copied, and what was
    /// copied into one with a default ACL would take that over. Modes last, for an ACL brings its own.
    pub(crate) fn close(&mut self) -> Result<()> {
        for NewDir { path, mode, original } in std::mem::take(&mut self.made).into_iter().rev() {
            if let Some((from, original)) = original {
                from.liken_dir(&original, self.tree, &path)?;
            }
            self.tree.set_dir_mode(&path, mode)?;
        }
        Ok(())
    }
}
