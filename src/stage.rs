//! Filling a stage by copying, and scanning it: what a transaction wants to publish, digested.
//!
//! Invariants (P2):
//! 1. A file with several hard links is copied to an inode of its own first, so that nobody can change a published file through
//!    another name of it.
//! 2. A scan looks at the stage alone; only filling reads the output, where it is copied from. Neither changes anything outside
//!    the transaction's directory.
//! 3. What txfs published is copied with owner, group and attributes, as far as this user may give them: going back gives back what
//!    was. Whatever else is copied belongs to whoever copies, and a set-id bit lends nobody the rights of another.
//!
//! A crash inside a scan leaves the stage with fewer hard links, and perhaps a directory open to its owner; one inside filling
//! leaves a part of the copy.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use crate::digest::{self, Changed, Found, Pool};
use crate::error::{Error, Paths, Problem, Result};
use crate::fs::tree::{Named, Tree, Walked, is_absent};
use crate::fs::{Fs, Kind, RenameMode, Stat, Timestamp, is_unsupported};
use crate::layout::{is_state_name, name};
use crate::manifest::inventory::{Cursor, Inventory};
use crate::manifest::{Digest, Entry, Object};
use crate::mutant::{Mutant, left_out};
use crate::path::{RESERVED, RelPath};

/// What is in a stage.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// Every entry, ascending.
    pub(crate) entries: Vec<Entry>,
    /// What cannot be published.
    pub(crate) problems: Vec<Problem>,
}

/// From this many entries on that are to be published, the disk is put to work while the rest is still read. Not for fewer: what
/// is staged and published already would go to the disk in vain.
const EARLY_SYNC_FROM: usize = 256;

/// Digests that are known because txfs wrote the files itself; used only while the file is the very same.
pub(crate) type Known = HashMap<RelPath, Object>;

/// Where a file may be made on the stage's file system.
pub(crate) struct Scratch<'a, F: Fs> {
    pub(crate) tree: &'a Tree<F>,
    pub(crate) path: &'a RelPath,
}

/// Lists and digests everything in `stage`. Without a scratch file the stage is only read: for a preview. What is `published`
/// tells how much of it is new.
///
/// # Errors
/// [`Error::StageLost`] when a large stage began to be made durable while it was read and that failed, whatever else did: the
/// barrier proper comes later, but the kernel tells of an error only once (A5).
pub(crate) fn scan<F: Fs>(
    stage: &Tree<F>,
    known: &Known,
    published: &Inventory<F>,
    scratch: Option<Scratch<'_, F>>,
) -> Result<Staged> {
    let may_sync = scratch.is_some() && stage.fs.parallelism() > 1;
    let sync_failed = |source| {
        let source = stage.io("make durable", &RelPath::root())(source);
        Error::StageLost { source: Box::new(source) }
    };
    std::thread::scope(|scope| {
        let (changed, much_changed) = Changed::new(EARLY_SYNC_FROM);
        let mut much_changed = may_sync.then_some(much_changed);
        let mut early_sync = None;
        let mut scan = Scan {
            stage,
            known,
            published,
            pool: Pool::new(scope, stage, changed.clone()),
            changed,
            staged: Staged::default(),
            unsupported: Paths::default(),
            reserved: Paths::default(),
        };
        let walked = stage.walk_names(
            &RelPath::root(),
            |_| true,
            |entry| {
                scan.note(entry)?;
                if scan.staged.entries.len() >= EARLY_SYNC_FROM
                    && let Some(much_changed) = much_changed.take()
                {
                    let stage = stage.clone();
                    let sync = move || much_changed.recv().map_or(Ok(()), |()| stage.fs.sync_fs(stage.root()));
                    // Where the system has no more threads to give, the barrier does all of it.
                    early_sync = std::thread::Builder::new().spawn_scoped(scope, sync).ok();
                }
                Ok(())
            },
        );
        // The scan goes with this, and with it what the sync may still wait for.
        let staged = walked.and_then(|()| scan.finish(scratch));
        let synced = early_sync.map(|sync| sync.join().expect("a system call does not panic"));
        match synced {
            Some(Err(error)) => Err(sync_failed(error)),
            _ => staged,
        }
    })
}

struct Scan<'a, 'scope, 'env, F: Fs> {
    stage: &'a Tree<F>,
    known: &'a Known,
    published: &'a Inventory<F>,
    pool: Pool<'scope, 'env, F>,
    changed: Arc<Changed>,
    staged: Staged,
    unsupported: Paths,
    reserved: Paths,
}

impl<'scope, F: Fs + 'scope> Scan<'_, 'scope, '_, F> {
    /// Of files and links the attributes are read where they are digested.
    fn note(&mut self, Named { path, kind }: Named) -> Result<()> {
        if is_state(self.stage, &path, kind) {
            self.reserved.push(path.clone());
        }
        let Some(kind) = kind else {
            self.unsupported.push(path);
            return Ok(());
        };
        let object = match kind {
            Kind::Directory => Some(self.directory(&path)?),
            Kind::File | Kind::Symlink => self.known(&path)?,
        };
        let index = self.staged.entries.len();
        if kind != Kind::Directory {
            let published = self.published.get(&path)?.map(|object| object.digest);
            match &object {
                Some(object) => self.changed.note(published, object.digest),
                None => self.pool.push(index, kind, &path, published),
            }
        }
        self.staged.entries.push(Entry { path, object: object.unwrap_or(to_come(kind)) });
        Ok(())
    }

    fn directory(&self, path: &RelPath) -> Result<Object> {
        let dir = self.stage.dir(path).map_err(self.stage.io("open the directory", path))?;
        let stat = self.stage.fs.stat_dir(&dir).map_err(self.stage.io("read the attributes of", path))?;
        Ok(Object::new(Kind::Directory, &stat, Digest::default()))
    }

    /// The object at `path`, if txfs wrote it itself, and it is the very same.
    fn known(&self, path: &RelPath) -> Result<Option<Object>> {
        let Some(known) = self.known.get(path) else { return Ok(None) };
        let stat = self.stage.stat(path)?;
        // What nobody may read could not be read by recovery either.
        // Where times have no fraction, what was written within the same second looks the same.
        let is_fine = known.mtime.nanos != 0;
        let is_same = |stat: &Stat| {
            is_fine && known.is(stat) && stat.mode & 0o400 != 0 && (stat.nlink == 1 || left_out(Mutant::HardLinkCopy))
        };
        Ok(stat.filter(is_same).map(|stat| Object::new(Kind::File, &stat, known.digest)))
    }

    fn finish(self, scratch: Option<Scratch<'_, F>>) -> Result<Staged> {
        let Self { stage, pool, mut staged, unsupported, reserved, .. } = self;
        for (index, found) in pool.finish()? {
            let Entry { path, object } = &mut staged.entries[index];
            *object = match (found, &scratch) {
                (Found::Digested(object), _) => object,
                (Found::Linked(stat), Some(scratch)) => {
                    digest::object(stage, path, Kind::File, &separate(stage, scratch, path, &stat)?)?
                }
                (Found::Linked(stat), None) => digest::object(stage, path, Kind::File, &stat)?,
            };
        }
        let problems =
            [(unsupported, Problem::UnsupportedKind as fn(Paths) -> Problem), (reserved, Problem::ReservedName)];
        staged.problems =
            problems.into_iter().filter(|(paths, _)| !paths.is_empty()).map(|(paths, of)| of(paths)).collect();
        Ok(staged)
    }
}

/// Whether this is the state directory of some output: a build that copies the directory around its output takes it for content.
fn is_state<F: Fs>(tree: &Tree<F>, path: &RelPath, kind: Option<Kind>) -> bool {
    if path.as_bytes() == RESERVED {
        return true;
    }
    let holds_store = |store: &RelPath| tree.stat(store).is_ok_and(|found| found.is_some());
    kind == Some(Kind::Directory)
        && is_state_name(path.name())
        && path.join(name::STORE.as_bytes()).is_ok_and(|store| holds_store(&store))
}

/// Stands for what is still being digested.
fn to_come(kind: Kind) -> Object {
    Object { kind, mode: 0, size: 0, digest: Digest::default(), ino: 0, mtime: Timestamp::default() }
}

impl Staged {
    /// Notes the files that are here and that whoever created them did not finish.
    pub(crate) fn note_unfinished(&mut self, unfinished: &BTreeSet<RelPath>) {
        let mut paths = Paths::default();
        let is_staged = |path: &&RelPath| self.entries.binary_search_by(|entry| entry.path.cmp(path)).is_ok();
        unfinished.iter().filter(is_staged).for_each(|path| paths.push(path.clone()));
        if !paths.is_empty() {
            self.problems.push(Problem::Unfinished(paths));
        }
    }

    /// Whether nothing was found, not even what stands against a commit.
    pub(crate) fn is_nothing(&self) -> bool {
        self.entries.is_empty() && self.problems.is_empty()
    }

    /// Adds entries that are taken from the current generation; what is staged itself comes before them.
    pub(crate) fn add_referenced(&mut self, referenced: &[Entry]) {
        let staged = std::mem::take(&mut self.entries);
        let mut referenced = referenced.iter().peekable();
        for entry in staged {
            while let Some(before) = referenced.next_if(|referenced| referenced.path < entry.path) {
                self.entries.push(before.clone());
            }
            while referenced.next_if(|referenced| referenced.path == entry.path).is_some() {}
            self.entries.push(entry);
        }
        self.entries.extend(referenced.cloned());
    }
}

/// Gives the file at `path` an inode of its own, by way of a scratch file.
fn separate<F: Fs>(stage: &Tree<F>, scratch: &Scratch<'_, F>, path: &RelPath, stat: &Stat) -> Result<Stat> {
    let Scratch { tree, path: copy } = *scratch;
    tree.remove_entry(copy, Kind::File)?;
    Source::foreign(stage).copy_file(path, stat, tree, copy)?;
    let dir = path.parent();
    // The scan has noted it with its mode, which is the one to be published.
    let closed = stage.make_writable(&dir)?;
    let result = tree.parent(copy).and_then(|from| {
        let to = stage.parent(path)?;
        stage.fs.rename(&from, copy.name(), &to, path.name(), RenameMode::Replace)?;
        stage.fs.stat(&to, path.name())
    });
    let closing = closed.map_or(Ok(()), |mode| stage.set_dir_mode(&dir, mode));
    let separated = result.map_err(stage.io("replace the hard link", path))?;
    closing.map(|()| separated)
}

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

    /// Copies a file with its mode, time and extended attributes; shares blocks where the file system can.
    pub(crate) fn copy_file(self, path: &RelPath, stat: &Stat, to: &Tree<F>, new: &RelPath) -> Result<()> {
        let fs = &to.fs;
        // The owner is that of what is read: another file may have got the name since it was looked at.
        let (mut original, opened) = self.tree.open_file(path)?;
        let copy = to.parent(new).and_then(|dir| {
            let mut copy = fs.create_file(&dir, new.name(), 0o600)?;
            fs.copy_content(&mut original, &mut copy)?;
            let give = |owner, group| fs.set_owner(&copy, owner, group);
            // Before the rest, some of which a file loses with its owner.
            let owned = self.give(&opened, fs.stat_file(&copy)?, give)?;
            fs.copy_attributes(&original, &copy)?;
            fs.set_mode(&copy, mode_of_copy(stat.mode, &opened, &owned))?;
            fs.set_mtime(&copy, stat.mtime)
        });
        copy.map_err(to.io("copy a file to", new))
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

/// Copies the tree `from`, except state directories of txfs, into the empty directory `to`. Returns those.
pub(crate) fn copy_tree<F: Fs>(from: &Tree<F>, to: &Tree<F>) -> Result<Vec<RelPath>> {
    copy_differing(from, to, std::iter::empty()).map(|(_, states)| states)
}

/// Gives the stage the attributes and the mode of the directory that it is a copy of, for an output that is made of the stage. Its
/// owner may always write to it.
pub(crate) fn copy_root<F: Fs>(from: &Tree<F>, to: &Tree<F>) -> Result<()> {
    let root = RelPath::root();
    let Some(stat) = from.stat(&root)? else { return Ok(()) };
    Source::foreign(from).liken_dir(&root, to, &root)?;
    to.set_dir_mode(&root, stat.mode & 0o777 | 0o700)
}

/// As [`copy_tree`], but what `published` has with the same size, time and mode is not copied: it is returned, too, and first.
pub(crate) fn copy_differing<F: Fs>(
    from: &Tree<F>,
    to: &Tree<F>,
    published: impl Iterator<Item = Result<Entry>>,
) -> Result<(Vec<Entry>, Vec<RelPath>)> {
    let mut copier = Copier::new(Source::foreign(from), to);
    let mut published = Cursor::new(published);
    let (mut same, mut states) = (Vec::new(), Vec::new());
    // What is no directory and has the name is content by mistake: the scan says so.
    let ours = |entry: &Walked| entry.stat.is_dir() && is_state(from, &entry.path, entry.stat.kind);
    from.walk(
        &RelPath::root(),
        |entry| !ours(entry),
        |entry| match published.find(&entry.path)? {
            _ if ours(&entry) => {
                states.push(entry.path);
                Ok(())
            }
            Some(published) if looks_same(&published.object, &entry.stat) => {
                copier.pass(&entry);
                same.push(published);
                Ok(())
            }
            _ => copier.copy(&entry),
        },
    )?;
    copier.finish()?;
    Ok((same, states))
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

/// Copies the entries of `from`, which txfs did not publish, at `paths`, ascending, into `to`, with the directories above them.
pub(crate) fn copy_paths<F: Fs>(
    from: &Tree<F>,
    to: &Tree<F>,
    paths: impl IntoIterator<Item = Result<RelPath>>,
) -> Result<()> {
    copy_paths_of(Source::foreign(from), to, paths)
}

/// As [`copy_paths`], of whatever source.
pub(crate) fn copy_paths_of<F: Fs>(
    from: Source<'_, F>,
    to: &Tree<F>,
    paths: impl IntoIterator<Item = Result<RelPath>>,
) -> Result<()> {
    let mut copier = Copier::new(from, to);
    for path in paths {
        let path = &path?;
        for above in path.ancestors() {
            if let Some(stat) = from.tree.stat(&above)?.filter(Stat::is_dir) {
                copier.made.make_like(from, above, stat.mode)?;
            }
        }
        if let Some(stat) = from.tree.stat(path)? {
            copier.copy(&Walked { path: path.clone(), stat })?;
        }
    }
    copier.finish()
}

/// Copies entries in order of the tree. A directory that only leads to others is made when the first of them is copied.
struct Copier<'a, F: Fs> {
    from: Source<'a, F>,
    to: &'a Tree<F>,
    /// Directories above the entry that is next, with their modes, that have not been made.
    passed: Vec<(RelPath, u32)>,
    made: NewDirs<'a, F>,
}

impl<'a, F: Fs> Copier<'a, F> {
    fn new(from: Source<'a, F>, to: &'a Tree<F>) -> Self {
        Self { from, to, passed: Vec::new(), made: NewDirs::new(to) }
    }

    /// Notes an entry that is not copied.
    fn pass(&mut self, entry: &Walked) {
        self.passed.retain(|(dir, _)| entry.path.is_below(dir));
        if entry.stat.is_dir() {
            self.passed.push((entry.path.clone(), entry.stat.mode));
        }
    }

    fn copy(&mut self, Walked { path, stat }: &Walked) -> Result<()> {
        let (from, to) = (self.from, self.to);
        for (dir, mode) in std::mem::take(&mut self.passed) {
            if path.is_below(&dir) {
                self.made.make_like(from, dir, mode)?;
            }
        }
        match stat.kind {
            Some(Kind::File) => from.copy_file(path, stat, to, path),
            Some(Kind::Symlink) => from.copy_symlink(path, to, path),
            Some(Kind::Directory) => self.made.make_like(from, path.clone(), stat.mode),
            None => Err(Error::Usage {
                path: path.under(from.tree.at()),
                what: "it is neither file, directory nor symlink, and only those are published".into(),
            }),
        }
    }

    fn finish(self) -> Result<()> {
        self.made.close()
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
    pub(crate) fn close(self) -> Result<()> {
        for NewDir { path, mode, original } in self.made.iter().rev() {
            if let Some((from, original)) = original {
                from.liken_dir(original, self.tree, path)?;
            }
            self.tree.set_dir_mode(path, *mode)?;
        }
        Ok(())
    }
}
