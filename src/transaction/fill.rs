//! Filling a stage: by the library's own writing, or with a copy of a directory. Any other tool fills it behind txfs' back.
//!
//! Invariants:
//! 1. Nothing outside the stage is written.
//! 2. A file that was begun and not finished is known, so that half of it is not published.
//! 3. What is written here is digested on the way, and need not be read again unless somebody changed it since.
//!
//! A crash inside leaves a stage that nobody commits, as anywhere before the commit.

use std::collections::HashSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Paths, Problem, Result};
use crate::format::manifest::Entry;
use crate::format::manifest::inventory::Cursor;
use crate::fs::compiled::{compiled, same_mut};
use crate::fs::stream::Stream;
use crate::fs::tree::{Tree, is_absent};
use crate::fs::{Fs, found};
use crate::options::Exclude;
use crate::path::RelPath;
use crate::plan::Intent;
use crate::plan::live::{Audit, Published};
use crate::progress::Phase;
use crate::protocol::barrier::{self, MANY};
use crate::stage::copy::{self, Copied};
use crate::stage::sources::Sources;
use crate::store::Store;
use crate::store::current::Current;
use crate::store::inherit::inherit;
use crate::store::transaction_dir::{Basis, STAGE, part};
use crate::transaction::at::seen_from;
use crate::transaction::begin::Transaction;
use crate::transaction::borrowed::{Original, Referenced, copy_from_source, not_staged};
use crate::transaction::staged_file::StagedFile;

/// To find an entry of a manifest takes as long as to read so many in their order.
const IN_ORDER: u64 = 16;

impl<F: Fs> Transaction<F> {
    /// Writes a whole file of the stage, and the directories above it. A file that is there is replaced.
    ///
    /// # Errors
    /// `path` is no confined relative path, or the file cannot be written. Nothing is durable before the commit.
    pub fn write(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.create(path)?.finish_with(bytes.as_ref())
    }

    /// As [`Transaction::write`], with the permission bits `mode`, whatever the umask is; a file that is written without has those that any
    /// program's new file has.
    ///
    /// ```
    /// # fn main() -> txfs::Result<()> {
    /// # let dir = tempfile::tempdir().expect("a temporary directory");
    /// # let dist = dir.path().join("dist");
    /// use std::os::unix::fs::PermissionsExt;
    ///
    /// let mut transaction = txfs::Store::open(&dist)?.begin(txfs::BeginOptions::default())?;
    /// transaction.write_with_mode("bin/tool", "#!/bin/sh\n", 0o755)?;
    /// transaction.commit(&txfs::CommitOptions::default())?;
    /// # let mode = dist.join("bin/tool").metadata().expect("it is there").permissions().mode();
    /// # assert_eq!(mode & 0o7777, 0o755);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Transaction::create_with_mode`].
    pub fn write_with_mode(&mut self, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>, mode: u32) -> Result<()> {
        self.create_with_mode(path, mode)?.finish_with(bytes.as_ref())
    }

    /// Creates a file of the stage to write to, and the directories above it. Call [`StagedFile::finish`] when it is complete: while
    /// the stage has a file that was not finished, committing is refused ([`Problem::Unfinished`](crate::Problem::Unfinished)).
    /// Writing it anew, or removing it, mends that.
    ///
    /// # Errors
    /// As [`Transaction::write`].
    pub fn create(&mut self, path: impl AsRef<Path>) -> Result<StagedFile<F>> {
        self.create_any(path.as_ref(), None)
    }

    /// As [`Transaction::create`], with the permission bits `mode` once it is finished, whatever the umask is. Until then nobody may do more
    /// with it than that.
    ///
    /// # Errors
    /// As [`Transaction::create`]; [`Error::Usage`] when `mode` has other bits than `0o7777`.
    pub fn create_with_mode(&mut self, path: impl AsRef<Path>, mode: u32) -> Result<StagedFile<F>> {
        if mode & !0o7777 != 0 {
            let what = format!("{mode:#o} has other bits than those of permissions, 0o7777");
            return Err(Error::Usage { path: path.as_ref().to_path_buf(), what });
        }
        self.create_any(path.as_ref(), Some(mode))
    }

    fn create_any(&mut self, path: &Path, mode: Option<u32>) -> Result<StagedFile<F>> {
        compiled!(F, (
            this: &mut Transaction = same_mut(self),
            path: &Path = path,
            mode: Option<u32> = mode
        ) -> Result<StagedFile> {
            this.create_file(path, mode)
        });
        self.create_file(path, mode)
    }

    fn create_file(&mut self, path: &Path, mode: Option<u32>) -> Result<StagedFile<F>> {
        let room = self.make_room(path)?;
        self.begin_ahead();
        let (file, turn) = self.make_anew(&room, "create", |dir| {
            let file = room.tree.fs.create_file(dir, room.path.name(), mode.map_or(0o666, |mode| mode & 0o777));
            // The file may be there though something failed.
            let turn = if is_in_the_way(&file) { 0 } else { self.ledger.open().begin(&room.path) };
            file.map(|file| (file, turn))
        })?;
        let Room { tree, place, path, .. } = room;
        let stream = Stream { fs: tree.fs.clone(), file };
        Ok(StagedFile {
            stream,
            path: path.clone(),
            at: place.under(tree.at()),
            hasher: blake3::Hasher::new(),
            reading: self.traces.file(&path),
            traces: self.traces.clone(),
            ledger: self.ledger.clone(),
            turn,
            mode,
        })
    }

    /// Puts the disk to work on what was written so far, when there is enough of it: the commit will have to wait for it. Not where most of
    /// what is written may be published already; nor where this process may end before the commit, and with it the memory of an error.
    fn begin_ahead(&mut self) {
        let is_new = self.meta.base == 0 || self.meta.from == Basis::Current;
        let mut filled = self.ledger.open();
        let is_enough = filled.files >= MANY && is_new && self.meta.attached;
        let Some(early) = self.early.as_ref().filter(|early| is_enough && !early.is_under_way()) else { return };
        filled.files = 0;
        if barrier::begin_ahead(&self.store, early, filled.bytes) {
            filled.bytes = 0;
        }
    }

    /// Makes a symbolic link of the stage. Its target is published as it is, and never followed.
    ///
    /// # Errors
    /// As [`Transaction::write`].
    pub fn symlink(&mut self, path: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<()> {
        let room = self.make_room(path.as_ref())?;
        let target = target.as_ref().as_os_str().as_bytes();
        self.make_anew(&room, "make the link", |dir| room.tree.fs.make_symlink(dir, room.path.name(), target))
    }

    /// Makes a directory of the stage, and those above it. One that is there is no error.
    ///
    /// # Errors
    /// As [`Transaction::write`].
    pub fn make_dir(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = self.place(path.as_ref())?;
        let tree = self.stage_tree()?;
        self.make_dirs(&tree, path.way()).map(drop)
    }

    /// Says that `path`, with everything below it, is not to be published any more. In a transaction that is a change
    /// ([`Basis::Current`]) this is the only way to say so; in others the path just goes from the stage.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let dist = dir.path().join("dist");
    /// # for text in ["one", "two"] {
    /// #     let mut transaction = txfs::Store::open(&dist)?.begin(txfs::BeginOptions::default())?;
    /// #     transaction.write("index.html", text)?;
    /// #     transaction.commit(&txfs::CommitOptions::default())?;
    /// # }
    /// use txfs::{Basis, BeginOptions, CommitOptions, Store};
    ///
    /// let mut change = Store::open(&dist)?.begin(BeginOptions::default().from(Basis::Current))?;
    /// change.remove("index.html")?;
    /// change.write("about.html", "About")?;
    /// change.commit(&CommitOptions::default())?;
    /// assert!(!dist.join("index.html").exists());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Transaction::write`].
    pub fn remove(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        compiled!(F, (this: &mut Transaction = same_mut(self), path: &Path = path) -> Result<()> {
            this.remove_any(path)
        });
        self.remove_any(path)
    }

    fn remove_any(&mut self, path: &Path) -> Result<()> {
        let path = self.place(path)?;
        self.stage_tree()?.remove(&path)?;
        self.leave_out(&path);
        self.forget_copied(&path);
        self.ledger.open().forget_below(&path);
        self.removals.push(path);
        Ok(())
    }

    /// Says that the stage is what a tool left in the place of the output, which something diverted there. With `removed` it has what
    /// differs from the current generation, and these paths, with everything below them, are there no more, but for what is in the stage;
    /// otherwise it is the whole. As for a whole stage, a commit that would leave nothing, or little, of the generation is refused.
    ///
    /// # Errors
    /// A path is no confined relative path; [`Error::TransactionOver`]; [`Error::Usage`] when it stands for the whole and gets `removed`.
    pub fn set_captured(&mut self, removed: Option<&[PathBuf]>) -> Result<()> {
        compiled!(F, (this: &mut Transaction = same_mut(self), removed: Option<&[PathBuf]> = removed) -> Result<()> {
            this.set_captured_any(removed)
        });
        self.set_captured_any(removed)
    }

    fn set_captured_any(&mut self, removed: Option<&[PathBuf]>) -> Result<()> {
        self.check_open()?;
        let Some(removed) = removed else {
            self.meta.from = Basis::Empty;
            return Ok(());
        };
        if self.meta.from != Basis::Current {
            let what = "only a transaction from the current generation is a change of it".into();
            return Err(Error::Usage { path: self.stage(), what });
        }
        let removed: Vec<_> = removed.iter().map(|path| self.place(path)).collect::<Result<_>>()?;
        self.removals.extend(removed);
        self.captured = true;
        Ok(())
    }

    /// Says what is not to be copied from now on; a commit leaves it out, too, as
    /// [`CommitOptions::exclude`](crate::CommitOptions::exclude) says, unless that is given another.
    pub fn exclude(&mut self, exclude: Exclude) {
        self.excluded = Some(exclude);
    }

    /// Fills the stage with a copy of the directory `source`: modes and extended attributes included, and of files times. The copy
    /// belongs to whoever copies; a set-id bit of a file goes where owner or group is another then. State directories of txfs are
    /// left out ([`Transaction::left_out`]). It has to stay as it is until the commit, which looks at it once more: what was
    /// copied while somebody changed it is refused ([`Problem::SourceChanged`](crate::Problem::SourceChanged)).
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use txfs::{BeginOptions, CommitOptions, Store};
    ///
    /// # let site = dir.path().join("site");
    /// # std::fs::create_dir(&site)?;
    /// # std::fs::write(site.join("index.html"), "<h1>Hello</h1>")?;
    /// let mut transaction = Store::open(dir.path().join("dist"))?.begin(BeginOptions::default())?;
    /// transaction.copy_from(&site)?;
    /// assert_eq!(transaction.commit(&CommitOptions::default())?.plan.summary.added, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] where something is neither file, directory nor symbolic link, or goes while it is copied; [`Error::Io`];
    /// [`Error::Interrupted`].
    pub fn copy_from(&mut self, source: impl AsRef<Path>) -> Result<()> {
        let source = source.as_ref();
        compiled!(F, (this: &mut Transaction = same_mut(self), source: &Path = source) -> Result<()> {
            this.copy_from_any(source)
        });
        self.copy_from_any(source)
    }

    fn copy_from_any(&mut self, source: &Path) -> Result<()> {
        let from = Tree::open(&self.store.fs, source)?;
        let stage = self.place_tree()?;
        let (mut sources, output) = (self.known_sources(), self.place_in_output()?);
        let meter = self.store.progress.begin(Phase::Copy, None);
        let copied = copy::copy_tree(&from, &stage, output.as_ref(), self.excluded.as_ref(), &mut sources, &meter);
        let copied = copied.map_err(|error| self.of_source(&from, error))?;
        meter.end();
        self.known_sources = Some(sources);
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

    /// Copies what was to be taken from the current generation and turns out not to be there, or not as it was published.
    pub(crate) fn copy_missing(&mut self, intent: &Intent) -> Result<bool> {
        let stage = self.stage_tree()?;
        let Some(referenced) = &self.referenced else { return Ok(false) };
        let missing = referenced.missing(intent);
        let wanted = not_staged(&stage, &missing)?;
        if let Original::Source(from) = &referenced.of
            && let Err(error) = copy_from_source(from, &self.place_tree()?, &self.at(), &wanted)
        {
            // A part of the copy is not to be taken for all of it by another attempt.
            let removed = wanted.iter().rev().try_for_each(|path| stage.remove(path));
            self.open = removed.is_ok();
            return Err(error);
        }
        let missing: HashSet<RelPath> = missing.into_iter().collect();
        if let Some(referenced) = &mut self.referenced {
            referenced.entries.retain(|entry| !missing.contains(&entry.path));
        }
        Ok(!missing.is_empty())
    }

    fn known_sources(&mut self) -> Sources {
        self.known_sources.take().unwrap_or_else(|| Sources::read(&self.store))
    }

    /// Notes which files of the directories that were copied have which content, now that it is published.
    pub(crate) fn note_sources(&mut self) -> Result<()> {
        let Some(sources) = self.known_sources.take() else { return Ok(()) };
        let Current { inventory, .. } = self.store.current()?;
        let at = self.at();
        let copied: Vec<RelPath> = sources.to_digest().map(|path| path.within(&at)).collect();
        let ascending = copied.is_sorted();
        // To look each up costs as much as reading many in order.
        let digests: Vec<_> = if ascending && copied.len() as u64 > inventory.totals().entries / IN_ORDER {
            let mut entries = Cursor::new(inventory.entries());
            let find = |path| Ok(entries.find(path)?.map(|entry| entry.object.digest));
            copied.iter().map(find).collect::<Result<_>>()?
        } else {
            let find = |path| Ok(inventory.get(path)?.map(|object| object.digest));
            copied.iter().map(find).collect::<Result<_>>()?
        };
        sources.write(&self.store, digests.into_iter())
    }

    /// What was copied to `path`, or below it, is something else now.
    fn forget_copied(&mut self, path: &RelPath) {
        let at = self.meta.at();
        if let (Some(sources), Some(path)) = (&mut self.known_sources, path.seen_from(&at)) {
            sources.forget(|copied| *copied == path || copied.is_below(&path));
        }
    }

    /// What goes while it is copied was changed.
    fn of_source(&self, from: &Tree<F>, error: Error) -> Error {
        let Error::Io { path, source, .. } = &error else { return error };
        let gone = path.strip_prefix(from.at()).ok().filter(|_| is_absent(source));
        let Some(gone) = gone.and_then(|path| RelPath::from_path(path).ok()) else { return error };
        let (output, source) = (self.store.output.path.clone(), from.at().to_path_buf());
        let problems = vec![Problem::SourceChanged { source, paths: Paths::from_iter([gone]) }];
        Error::Refused { output, problems }
    }

    /// Keeps what the caller is to know of a copy, and returns what needed no copy.
    fn note_copied(&mut self, from: &Tree<F>, copied: Copied<F>) -> Result<Vec<Entry>> {
        let Copied { same, states, without_set_id, unsupported, look } = copied;
        // What was built in a stage tells of that one.
        if let Some((_, id)) = Store::parse_stage_on(&self.store.fs, from.at())? {
            self.traces = Arc::new(self.traces.and(&id.to_string()));
        }
        self.sources.push(look);
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

    /// As [`Transaction::copy_from`], but files that are the same as published are taken from the current generation without being
    /// copied. Of those that have the same inode and the same `ctime` as when they were published last, this is known; others with the
    /// same size and mode are read. The stage then has only what differs: checks see no more. The output is looked at now, for whether
    /// it still is as it was published, and not again by the commit.
    ///
    /// # Errors
    /// As [`Transaction::copy_from`]; [`Error::BaseMoved`].
    pub fn copy_differing_from(&mut self, source: impl AsRef<Path>) -> Result<()> {
        let source = source.as_ref();
        compiled!(F, (this: &mut Transaction = same_mut(self), source: &Path = source) -> Result<()> {
            this.copy_differing_from_any(source)
        });
        self.copy_differing_from_any(source)
    }

    fn copy_differing_from_any(&mut self, source: &Path) -> Result<()> {
        self.check_not_filled()?;
        let from = Tree::open(&self.store.fs, source)?;
        let (head, at) = (self.check_base()?, self.at());
        let (published, stage) = (Published::open(&self.store, head, at.clone())?, self.place_tree()?);
        let audit = published.audit(&self.store)?;
        // Only this process knows what is not staged.
        self.set_attached(true)?;
        let (mut sources, output) = (self.known_sources(), self.place_in_output()?);
        let excluded = self.excluded.as_ref();
        let seen =
            published.inventory().range(&at).filter_map(|entry| entry.map(|entry| seen_from(&at, entry)).transpose());
        let meter = self.store.progress.begin(Phase::Copy, None);
        let copy = || copy::copy_differing(&from, &stage, output.as_ref(), seen, excluded, &mut sources, &meter);
        let (copied, drifted) = Audit::beside(audit, copy).map_err(|error| self.of_source(&from, error))?;
        meter.end();
        self.known_sources = Some(sources);
        let mut entries = self.note_copied(&from, copied)?;
        if !at.is_root() {
            entries.iter_mut().for_each(|entry| entry.path = entry.path.within(&at));
            // The directory itself stays, too.
            entries.splice(0..0, published.inventory().get(&at)?.map(|object| Entry { path: at, object }));
        }
        copy::copy_root(&from, &stage)?;
        self.referenced = Some(Referenced { of: Original::Source(from), entries, drifted });
        Ok(())
    }

    /// Makes the directories above `path` in the stage.
    fn make_room(&mut self, path: &Path) -> Result<Room<F>> {
        let path = self.place(path)?;
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
        self.ledger.open().known.remove(&path);
        self.leave_out(&path);
        self.forget_copied(&path);
        Ok(Room { tree, place, path, closed })
    }

    /// Makes an entry of the stage; what is in its place is removed.
    fn make_anew<T>(
        &self,
        Room { tree, place, path, closed }: &Room<F>,
        action: &'static str,
        make: impl Fn(&F::Dir) -> io::Result<T>,
    ) -> Result<T> {
        make_in(tree, place, *closed, action, |dir| {
            let mut made = make(dir);
            if is_in_the_way(&made) {
                tree.remove(place)?;
                self.ledger.open().drop_unfinished(path);
                made = make(dir);
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
        self.inherit_from_output(stage, path);
        if let Some(mode) = published {
            stage.set_dir_mode(path, mode)?;
        }
        Ok(published.unwrap_or(0o700))
    }

    /// Has a directory of the stage give what that of the output gives, if there is one. What cannot be given is left out, as for the
    /// stage itself, of which the caller learns.
    fn inherit_from_output(&self, stage: &Tree<F>, path: &RelPath) {
        if let Ok(Some(output)) = self.store.output.open()
            && let (Ok(model), Ok(made)) = (output.dir(path), stage.dir(path))
        {
            let _ = inherit(&self.store.fs, &model, &made);
        }
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
