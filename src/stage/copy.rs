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
use crate::format::identity::Object;
use crate::format::manifest::Entry;
use crate::format::manifest::inventory::Cursor;
use crate::fs::tree::{Tree, Walked, is_absent};
use crate::fs::{Fs, Kind, Stat, Timestamp, is_unsupported};
use crate::options::Exclude;
use crate::path::RelPath;
use crate::progress::Meter;
use crate::stage::digest::{self, Found, Pool};
use crate::stage::source_look::SourceLook;
use crate::stage::sources::{Met, Sources};
use crate::store::inherit::inherit;
use crate::store::sharing::content_mode;
use crate::threads;

const SET_GID: u32 = 0o2000;

/// So many files are found before they are copied together.
const TOGETHER: usize = 4096;

/// Files of one directory that one thread copies before it takes others.
const AT_ONCE: usize = 64;

/// What a copy of a file is to be like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Looks {
    pub(crate) mode: u32,
    pub(crate) mtime: Timestamp,
}

impl Looks {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { mode: stat.mode, mtime: stat.mtime }
    }
}

/// Whose an entry is, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Owner {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { uid: stat.uid, gid: stat.gid }
    }
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

    /// Copies a file with its mode, time and extended attributes; a larger one shares blocks where the file system can.
    pub(crate) fn copy_file(self, path: &RelPath, looks: Looks, to: &Tree<F>, new: &RelPath) -> Result<()> {
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
            let (original_owner, owner) = (Owner::of(&opened), Owner::of(&made));
            let owned = self.give(original_owner, owner, give)?;
            fs.copy_attributes(&original, &copy)?;
            fs.set_mode(&copy, mode_of_copy(looks.mode, original_owner, owned))?;
            fs.set_mtime(&copy, looks.mtime)
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
            self.give(Owner::of(&stat), Owner::of(&fs.stat(&dir, new.name())?), give).map(drop)
        });
        made.map_err(to.io("make the link", new))
    }

    /// Gives the directory `new` owner, group and extended attributes of the one at `path`, if that is there still.
    pub(crate) fn liken_dir(self, path: &RelPath, to: &Tree<F>, new: &RelPath) -> Result<()> {
        let fs = &to.fs;
        let original = match self.tree.dir(path) {
            Err(error) if is_absent(&error) => return Ok(()),
            original => original.map_err(self.tree.io("open the directory", path))?,
        };
        let likened = to.dir(new).and_then(|dir| {
            let give = |owner, group| fs.set_dir_owner(&dir, owner, group);
            self.give(Owner::of(&fs.stat_dir(&original)?), Owner::of(&fs.stat_dir(&dir)?), give)?;
            fs.copy_dir_attributes(&original, &dir)
        });
        likened.map_err(to.io("copy a directory to", new))
    }

    /// Gives a copy the owner and the group of its original, or the group alone, as far as that is permitted; and says whose it is
    /// now.
    fn give(
        self,
        original: Owner,
        copy: Owner,
        set_owner: impl Fn(Option<u32>, u32) -> io::Result<()>,
    ) -> io::Result<Owner> {
        let Owner { uid, gid } = original;
        if !self.keeps_owner || copy == original {
            return Ok(copy);
        }
        for owner in [Some(uid), None] {
            match set_owner(owner, gid) {
                Err(error) if is_unsupported(&error) => {}
                given => return given.map(|()| Owner { uid: owner.unwrap_or(copy.uid), gid }),
            }
        }
        Ok(copy)
    }
}

/// The mode of a copy: a set-id bit goes where it would lend the rights of somebody else than in the original.
fn mode_of_copy(mode: u32, original: Owner, copy: Owner) -> u32 {
    let set_uid = if copy.uid == original.uid { 0 } else { 0o4000 };
    let set_gid = if copy.gid == original.gid { 0 } else { 0o2000 };
    mode & !(set_uid | set_gid)
}

/// Gives what was found in `from` the modes that the copies will have, which belong to `owner`, and are made in what
/// gives as `output` does, or the directory that will hold it. Returns the files that lose a set-id bit.
pub(crate) fn expect_modes<F: Fs>(
    from: &Tree<F>,
    entries: &mut [Entry],
    owner: Owner,
    output: Option<&Tree<F>>,
    holder: &Tree<F>,
) -> Result<Paths> {
    expect_given(entries, output, holder)?;
    let mut without_set_id = Paths::default();
    for Entry { path, object } in entries.iter_mut().filter(|entry| has_set_id(entry.object.kind, entry.object.mode)) {
        let Some(original) = from.stat(path)? else { continue };
        let mode = mode_of_copy(object.mode, Owner::of(&original), owner);
        if mode != object.mode {
            object.mode = mode;
            without_set_id.push(path.clone());
        }
    }
    Ok(without_set_id)
}

/// A directory gets the set-gid bit from the one that it is made in.
fn expect_given<F: Fs>(entries: &mut [Entry], output: Option<&Tree<F>>, holder: &Tree<F>) -> Result<()> {
    let given_by = |tree: &Tree<F>, path: &RelPath| {
        Ok::<_, Error>(tree.stat(path)?.filter(Stat::is_dir).map(|stat| stat.mode & SET_GID))
    };
    let gives = |path: &RelPath| output.map_or(Ok(None), |output| given_by(output, path));
    let root = RelPath::root();
    let of_root = given_by(output.unwrap_or(holder), &root)?.unwrap_or(0);
    let mut given = vec![(root, of_root)];
    for Entry { path, object } in entries.iter_mut().filter(|entry| entry.object.kind == Kind::Directory) {
        while given.len() > 1 && given.last().is_some_and(|(above, _)| !path.is_below(above)) {
            given.pop();
        }
        object.mode |= given.last().map_or(0, |(_, bit)| *bit);
        given.push((path.clone(), gives(path)?.unwrap_or(object.mode & SET_GID)));
    }
    Ok(())
}

fn has_set_id(kind: Kind, mode: u32) -> bool {
    kind == Kind::File && mode & 0o6000 != 0
}

/// What a copy of a directory of the user's is not, or lacks.
pub(crate) struct Copied<F: Fs> {
    /// Entries that are published already, and were not copied.
    pub(crate) same: Vec<Entry>,
    /// State directories of txfs, which were left out.
    pub(crate) states: Vec<RelPath>,
    /// Files whose copies lack a set-id bit.
    pub(crate) without_set_id: Paths,
    /// What cannot be copied, as it cannot be published.
    pub(crate) unsupported: Paths,
    /// To be asked before the copy is committed.
    pub(crate) look: SourceLook<F>,
}

/// Copies the tree `from`, except what is excluded and state directories of txfs, into the empty directory `to`. What
/// is new gets from the directories above it what those of `output` give, if there is one.
pub(crate) fn copy_tree<F: Fs>(
    from: &Tree<F>,
    to: &Tree<F>,
    output: Option<&Tree<F>>,
    excluded: Option<&Exclude>,
    sources: &mut Sources,
    meter: &Meter<'_>,
) -> Result<Copied<F>> {
    copy_differing(from, to, output, std::iter::empty(), excluded, sources, meter)
}

/// Gives the stage the attributes and the mode of the directory that it is a copy of, for an output that is made of the stage. Its
/// owner may always write to it.
pub(crate) fn copy_root<F: Fs>(from: &Tree<F>, to: &Tree<F>) -> Result<()> {
    let root = RelPath::root();
    let Some(stat) = from.stat(&root)? else { return Ok(()) };
    Source::foreign(from).liken_dir(&root, to, &root)?;
    let given = to.stat(&root)?.map_or(0, |made| made.mode & SET_GID);
    to.set_dir_mode(&root, stat.mode & 0o777 | 0o700 | given)
}

/// As [`copy_tree`], but what is the same as `published` is not copied: a file that is known to have the same content is not even read.
pub(crate) fn copy_differing<F: Fs>(
    from: &Tree<F>,
    to: &Tree<F>,
    output: Option<&Tree<F>>,
    published: impl Iterator<Item = Result<Entry>>,
    excluded: Option<&Exclude>,
    sources: &mut Sources,
    meter: &Meter<'_>,
) -> Result<Copied<F>> {
    let mut copier = Copier::new(Source::foreign(from), to);
    copier.made.output = output.cloned();
    let mut published = Cursor::new(published);
    let (mut same, mut doubtful, mut states) = (Vec::new(), Vec::new(), Vec::new());
    let mut look = SourceLook::new(from, excluded);
    look.walk(
        |state| states.push(state.path),
        |entry| {
            meter.step();
            let is_file = entry.stat.kind == Some(Kind::File);
            match published.find(&entry.path)? {
                Some(published) if looks_same(&published.object, &entry.stat, to.group()) => {
                    copier.pass(&entry);
                    // One path for all lists.
                    let listed = Entry { path: entry.path, ..published };
                    if is_file && !sources.knows(&entry.stat, &listed.object.digest) {
                        doubtful.push((listed, sources.meet(&entry.stat)));
                    } else {
                        same.push(listed);
                    }
                    Ok(())
                }
                _ => {
                    if is_file {
                        let met = sources.meet(&entry.stat);
                        sources.copied(met, &entry.path);
                    }
                    copier.copy(entry)
                }
            }
        },
    )?;
    let Copier { mut without_set_id, mut unsupported, .. } = copier.finish()?;
    let others = read_doubtful(from, doubtful, &mut same, sources)?;
    let mut copier = Copier::new(Source::foreign(from), to);
    copier.made.output = output.cloned();
    let copied = copy_each(copier, others.into_iter().map(Ok))?;
    without_set_id.append(copied.without_set_id);
    unsupported.append(copied.unsupported);
    Ok(Copied { same, states, without_set_id, unsupported, look })
}

/// Reads files that may have the content which is published: those that have it join the `same`, and the others are returned.
fn read_doubtful<F: Fs>(
    from: &Tree<F>,
    doubtful: Vec<(Entry, Met)>,
    same: &mut Vec<Entry>,
    sources: &mut Sources,
) -> Result<Vec<RelPath>> {
    let found = std::thread::scope(|scope| {
        let mut pool = Pool::new(scope, from, None, None);
        for (index, (entry, _)) in doubtful.iter().enumerate() {
            from.check_interrupt(&entry.path)?;
            pool.push(index, Kind::File, &entry.path, None);
        }
        pool.finish()
    })?;
    let mut digests = vec![None; doubtful.len()];
    for (index, found) in found {
        let object = match found {
            Found::Digested(object, ..) => object,
            // What else leads to it is the user's affair.
            Found::Linked(_) => digest::staged_file(from, &doubtful[index].0.path, None, None)?.0,
        };
        digests[index] = Some(object);
    }
    let (mut others, all_same) = (Vec::new(), same.len());
    for ((entry, met), object) in doubtful.into_iter().zip(digests) {
        match object {
            Some(object) if object.same_content(&entry.object) => {
                sources.learn(met, &object.digest);
                same.push(entry);
            }
            _ => {
                sources.copied(met, &entry.path);
                others.push(entry.path);
            }
        }
    }
    if same.len() > all_same {
        same.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    }
    Ok(others)
}

/// Whether an entry may be what is published, perhaps by a group that shares it: it has the same kind, mode and size. A link is copied sooner than compared, and so is a
/// directory that its owner may not write to, because it has to be opened for what is copied into it.
pub(crate) fn looks_same(published: &Object, stat: &Stat, group: Option<u32>) -> bool {
    // A copy of a directory may have been given the bit by the one above it.
    let given = if published.kind == Kind::Directory { published.mode & SET_GID } else { 0 };
    let mode = if group.is_some() { content_mode(published.kind, stat.mode) } else { stat.mode };
    let same = stat.kind == Some(published.kind) && mode | given == published.mode;
    same && match published.kind {
        Kind::File => stat.size == published.size,
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
    match copy_each(Copier::new(from, to), paths)?.unsupported.first.first() {
        None => Ok(()),
        Some(path) => Err(Error::UnsupportedKind { path: path.under(from.tree.at()) }),
    }
}

fn copy_each<F: Fs>(
    mut copier: Copier<'_, F>,
    paths: impl IntoIterator<Item = Result<RelPath>>,
) -> Result<Copier<'_, F>> {
    let (from, to) = (copier.from, copier.to);
    let mut before = RelPath::root();
    for path in paths {
        let path = path?;
        to.check_interrupt(&path)?;
        for above in path.ancestors_not_of(&before) {
            if let Some(stat) = from.tree.stat(&above)?.filter(Stat::is_dir) {
                copier.made.make_like(from, above, stat.mode)?;
            }
        }
        if let Some(stat) = from.tree.stat(&path)? {
            copier.copy(Walked { path: path.clone(), stat })?;
        }
        before = path;
    }
    copier.finish()
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
            files.iter().try_for_each(|(path, stat)| from.copy_file(path, Looks::of(stat), &to, path))
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
    /// What gives to what is made in the directories, as far as it has the same ones.
    output: Option<Tree<F>>,
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
        Self { tree, made: Vec::new(), output: None }
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
                self.inherit(&path);
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

    /// What cannot be given is left out, as for the stage itself, of which the caller learns.
    fn inherit(&self, path: &RelPath) {
        let Some(output) = &self.output else { return };
        if let (Ok(model), Ok(made)) = (output.dir(path), self.tree.dir(path)) {
            let _ = inherit(&self.tree.fs, &model, &made);
        }
    }

    /// From the bottom, when all are filled: into a directory that its owner may not write to nothing could be copied, and what was
    /// copied into one with a default ACL would take that over. Modes last, for an ACL brings its own.
    pub(crate) fn close(&mut self) -> Result<()> {
        for NewDir { path, mut mode, original } in std::mem::take(&mut self.made).into_iter().rev() {
            if let Some((from, original)) = original {
                from.liken_dir(&original, self.tree, &path)?;
                if !from.keeps_owner {
                    mode |= self.tree.stat(&path)?.map_or(0, |made| made.mode & SET_GID);
                }
            }
            self.tree.set_dir_mode(&path, mode)?;
        }
        Ok(())
    }
}
