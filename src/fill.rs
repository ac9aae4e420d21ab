//! Filling a stage: by the library's own writing, or with a copy of a directory. Any other tool fills it behind txfs' back.
//!
//! Invariants:
//! 1. Nothing outside the stage is written.
//! 2. A file that was begun and not finished is known, so that half of it is not published.
//! 3. What is written here is digested on the way, and need not be read again unless somebody changed it since.
//!
//! A crash inside leaves a stage that nobody commits, as anywhere before the commit.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::barrier::{self, MANY};
use crate::copy::{self, Copied};
use crate::error::{Error, Paths, Problem, Result};
use crate::fs::stream::Stream;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, LinuxFs, found};
use crate::manifest::{Digest, Entry, Object};
use crate::path::RelPath;
use crate::published::Audit;
use crate::referenced::Referenced;
use crate::stage::Known;
use crate::transaction::{Transaction, Written};
use crate::txdir::{Basis, STAGE, part};

impl<F: Fs> Transaction<'_, F> {
    /// Writes a whole file of the stage, and the directories above it. A file that is there is replaced.
    ///
    /// # Errors
    /// `path` is no confined relative path, or the file cannot be written. Nothing is durable before the commit.
    pub fn write(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        let mut file = self.create(path)?;
        file.write_all(bytes.as_ref()).map_err(Error::io("write", &file.at))?;
        file.finish()
    }

    /// Creates a file of the stage to write to, and the directories above it. Call [`StagedFile::finish`] when it is complete: while
    /// the stage has a file that was not finished, committing is refused ([`Problem::Unfinished`](crate::Problem::Unfinished)).
    /// Writing it anew, or removing it, mends that.
    ///
    /// # Errors
    /// As [`Transaction::write`].
    pub fn create(&mut self, path: impl AsRef<Path>) -> Result<StagedFile<'_, F>> {
        let room = self.make_room(path.as_ref())?;
        self.begin_ahead();
        let file = self.make_anew(&room, "create", |transaction, dir| {
            let file = room.tree.fs.create_file(dir, room.path.name(), 0o666);
            // The file may be there though something failed.
            if !is_in_the_way(&file) {
                transaction.unfinished.insert(room.path.clone());
            }
            file
        })?;
        let Room { tree, place, path, .. } = room;
        let stream = Stream { fs: tree.fs.clone(), file };
        Ok(StagedFile {
            stream,
            path,
            at: place.under(tree.at()),
            hasher: blake3::Hasher::new(),
            known: &mut self.known,
            unfinished: &mut self.unfinished,
            written: &mut self.written,
        })
    }

    /// Puts the disk to work on what was written so far, when there is enough of it: the commit will have to wait for it. Not where most of
    /// what is written may be published already; nor where this process may end before the commit, and with it the memory of an error.
    fn begin_ahead(&mut self) {
        let is_new = self.meta.base == 0 || self.meta.from == Basis::Current;
        let is_enough = self.written.files >= MANY && is_new && self.meta.attached;
        let Some(early) = self.early.as_ref().filter(|early| is_enough && !early.is_under_way()) else { return };
        self.written.files = 0;
        if barrier::begin_ahead(self.store, early, self.written.bytes) {
            self.written.bytes = 0;
        }
    }

    /// Makes a symbolic link of the stage. Its target is published as it is, and never followed.
    ///
    /// # Errors
    /// As [`Transaction::write`].
    pub fn symlink(&mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<()> {
        let room = self.make_room(path.as_ref())?;
        let target = target.as_ref().as_os_str().as_bytes();
        self.make_anew(&room, "make the link", |_, dir| room.tree.fs.make_symlink(dir, room.path.name(), target))
    }

    /// Makes a directory of the stage, and those above it. One that is there is no error.
    ///
    /// # Errors
    /// As [`Transaction::write`].
    pub fn make_dir(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = confined(path.as_ref())?;
        let tree = self.stage_tree()?;
        self.make_dirs(&tree, path.ancestors().chain([path.clone()])).map(drop)
    }

    /// Says that `path`, with everything below it, is not to be published any more. In a transaction that is a change
    /// ([`Basis::Current`]) this is the only way to say so; in others the path just goes from the stage.
    ///
    /// # Errors
    /// As [`Transaction::write`].
    pub fn remove(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = confined(path.as_ref())?;
        self.stage_tree()?.remove(&path)?;
        self.leave_out(&path);
        self.known.retain(|known, _| *known != path && !known.is_below(&path));
        self.drop_unfinished(&path);
        self.removals.push(path);
        Ok(())
    }

    /// Fills the stage with a copy of the directory `source`: modes and extended attributes included, and of files times. The copy
    /// belongs to whoever copies; a set-id bit of a file goes where owner or group is another then. State directories of txfs are
    /// left out ([`Transaction::left_out`]).
    ///
    /// # Errors
    /// [`Error::Refused`] where something is neither file, directory nor symbolic link; [`Error::Io`]; [`Error::Interrupted`].
    pub fn copy_from(&mut self, source: impl AsRef<Path>) -> Result<()> {
        let from = Tree::open(&self.store.fs, source.as_ref())?;
        let stage = self.stage_tree()?;
        let copied = copy::copy_tree(&from, &stage)?;
        self.note_copied(&from, copied)?;
        copy::copy_root(&from, &stage)
    }

    /// The state directories of txfs that copying left out so far. They may be content that only has such a name.
    pub fn left_out(&self) -> &[PathBuf] {
        &self.left_out
    }

    /// The files that copying took a set-id bit from so far: it would have lent the rights of somebody else than in the original.
    pub fn without_set_id(&self) -> &Paths {
        &self.without_set_id
    }

    /// Keeps what the caller is to know of a copy, and returns what needed no copy.
    fn note_copied(&mut self, from: &Tree<F>, copied: Copied) -> Result<Vec<Entry>> {
        let Copied { same, states, without_set_id, unsupported } = copied;
        self.left_out.extend(states.iter().map(|path| path.under(from.at())));
        self.without_set_id.append(without_set_id);
        if unsupported.is_empty() {
            return Ok(same);
        }
        Err(Error::Refused {
            output: self.store.output.path.clone(),
            problems: vec![Problem::UnsupportedKind(unsupported)],
        })
    }

    /// As [`Transaction::copy_from`], but files that are published with the same size, time and mode are taken from the current
    /// generation without being read or copied, as rsync does. The stage then has only what differs: checks see no more. The
    /// output is looked at now, for whether it still is as it was published, and not again by the commit.
    ///
    /// # Errors
    /// As [`Transaction::copy_from`]; [`Error::BaseMoved`].
    pub fn copy_differing_from(&mut self, source: impl AsRef<Path>) -> Result<()> {
        self.check_not_filled()?;
        let from = Tree::open(&self.store.fs, source.as_ref())?;
        let head = self.check_base()?;
        let (published, stage) = (self.store.inventory(head.as_ref())?, self.stage_tree()?);
        let audit = Audit::of(self.store, head.as_ref())?;
        // Only this process knows what is not staged.
        self.set_attached(true)?;
        let copy = || copy::copy_differing(&from, &stage, published.entries());
        let (copied, drifted) = Audit::beside(audit, copy)?;
        let entries = self.note_copied(&from, copied)?;
        copy::copy_root(&from, &stage)?;
        self.referenced = Some(Referenced { from: Some(from), entries, drifted });
        Ok(())
    }

    /// Makes the directories above `path` in the stage.
    fn make_room(&mut self, path: &Path) -> Result<Room<F>> {
        let path = confined(path)?;
        self.check_open()?;
        // One that remembers no directory: since the last call a tool may have put another in its place.
        let tree = self.tree.clone();
        let place = path.within(&part(STAGE));
        // As a rule they are there.
        let there = tree.parent(&place).and_then(|dir| tree.fs.stat_dir(&dir));
        let closed = match there {
            Ok(_) if path.parent().is_root() => None,
            Ok(stat) => Some(stat.mode).filter(|mode| mode & 0o700 != 0o700),
            Err(_) => self.make_dirs(&self.stage_tree()?, path.ancestors())?,
        };
        self.known.remove(&path);
        self.leave_out(&path);
        Ok(Room { tree, place, path, closed })
    }

    /// Makes an entry of the stage; what is in its place is removed.
    fn make_anew<T>(
        &mut self,
        Room { tree, place, path, closed }: &Room<F>,
        action: &'static str,
        make: impl Fn(&mut Self, &F::Dir) -> io::Result<T>,
    ) -> Result<T> {
        make_in(tree, place, *closed, action, |dir| {
            let mut made = make(self, dir);
            if is_in_the_way(&made) {
                tree.remove(place)?;
                self.drop_unfinished(path);
                made = make(self, dir);
            }
            made.map_err(tree.io(action, place))
        })
    }

    /// Makes directories of the stage, each in the one before. Returns the mode of the last if its owner may not write to it.
    fn make_dirs(&self, stage: &Tree<F>, dirs: impl Iterator<Item = RelPath>) -> Result<Option<u32>> {
        let mut closed = None;
        for dir in dirs {
            let mode = self.make_stage_dir(stage, &dir, closed)?;
            closed = Some(mode).filter(|mode| mode & 0o700 != 0o700);
        }
        Ok(closed)
    }

    /// Makes a directory of the stage, unless it is there, in one with the mode `closed`, and returns its mode. One that is taken
    /// from the current generation has the mode that it is published with: writing into it is not to open it to others.
    fn make_stage_dir(&self, stage: &Tree<F>, path: &RelPath, closed: Option<u32>) -> Result<u32> {
        const ACTION: &str = "make the directory";
        let there = stage.parent(path).and_then(|dir| found(stage.fs.stat(&dir, path.name())));
        match there.map_err(stage.io(ACTION, path))? {
            Some(stat) if stat.is_dir() => return Ok(stat.mode),
            Some(_) => return Err(stage.io(ACTION, path)(io::ErrorKind::NotADirectory.into())),
            None => {}
        }
        let published = self.referenced.as_ref().and_then(|referenced| referenced.mode_of_dir(path));
        let mode = published.map_or(0o777, |_| 0o700);
        make_in(stage, path, closed, ACTION, |dir| {
            stage.fs.make_dir(dir, path.name(), mode).map_err(stage.io(ACTION, path))
        })?;
        if let Some(mode) = published {
            stage.set_dir_mode(path, mode)?;
        }
        Ok(published.unwrap_or(0o700))
    }

    fn leave_out(&mut self, path: &RelPath) {
        if let Some(referenced) = &mut self.referenced {
            referenced.leave_out(path);
        }
    }

    /// What is taken from the current generation is noted once.
    pub(crate) fn check_not_filled(&self) -> Result<()> {
        if self.referenced.is_none() {
            return Ok(());
        }
        Err(Error::Usage { path: self.stage(), what: "this transaction has been filled already: begin another".into() })
    }

    /// Notes that what was not finished at `path`, or below it, is gone.
    fn drop_unfinished(&mut self, path: &RelPath) {
        self.unfinished.retain(|unfinished| unfinished != path && !unfinished.is_below(path));
    }
}

/// A file of a stage that is being written. The bytes go to the stage as they come; wrap it in a
/// [`BufWriter`](std::io::BufWriter) for many small writes, and finish what [`into_inner`](std::io::BufWriter::into_inner) returns.
#[must_use = "a staged file that is not finished is not published"]
pub struct StagedFile<'t, F: Fs = LinuxFs> {
    stream: Stream<F>,
    path: RelPath,
    /// Where it is, as the user knows it.
    at: PathBuf,
    hasher: blake3::Hasher,
    known: &'t mut Known,
    unfinished: &'t mut BTreeSet<RelPath>,
    written: &'t mut Written,
}

impl<F: Fs> StagedFile<'_, F> {
    /// Ends the file. Its content was digested on the way, so the commit need not read it again.
    ///
    /// # Errors
    /// The file's attributes cannot be read.
    pub fn finish(self) -> Result<()> {
        let Stream { fs, file } = &self.stream;
        // A kernel gives what is written within one tick of its clock the same time: written to again, the file would look as it
        // does now. No tick has the time that is set here, to the nanosecond.
        let stat = fs.set_mtime(file, fs.now()).and_then(|()| fs.stat_file(file));
        let stat = stat.map_err(Error::io("read the attributes of", &self.at))?;
        let object = Object::new(Kind::File, &stat, Digest(self.hasher.finalize().into()));
        self.written.files += 1;
        self.written.bytes += object.size;
        self.unfinished.remove(&self.path);
        self.known.insert(self.path, object);
        Ok(())
    }
}

impl<F: Fs> Write for StagedFile<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.stream.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: Fs> fmt::Debug for StagedFile<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagedFile").field("path", &self.path).finish()
    }
}

fn confined(path: &Path) -> Result<RelPath> {
    RelPath::from_path(path).map_err(|error| Error::Usage { path: path.to_path_buf(), what: error.to_string() })
}

/// Where something can be made in the stage.
struct Room<F: Fs> {
    /// The directory of the transaction.
    tree: Tree<F>,
    /// The path in it.
    place: RelPath,
    /// The path in the stage.
    path: RelPath,
    /// The mode of the directory above, if its owner may not write to it.
    closed: Option<u32>,
}

/// Whether something could not be made because something is in its place.
fn is_in_the_way<T>(made: &io::Result<T>) -> bool {
    made.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists)
}

/// Makes an entry of the stage. A directory above it with the mode `closed` is open to its owner meanwhile.
fn make_in<F: Fs, T>(
    stage: &Tree<F>,
    path: &RelPath,
    closed: Option<u32>,
    action: &'static str,
    make: impl FnOnce(&F::Dir) -> Result<T>,
) -> Result<T> {
    let above = path.parent();
    if let Some(mode) = closed {
        stage.set_dir_mode(&above, mode | 0o700)?;
    }
    let made = stage.parent(path).map_err(stage.io(action, path)).and_then(|dir| make(&dir));
    let closing = closed.map_or(Ok(()), |mode| stage.set_dir_mode(&above, mode));
    let made = made?;
    closing.map(|()| made)
}
