//! The kernel with some of its calls failing on demand: for errors that no test can provoke otherwise.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use txfs::RelPath;
use txfs::fs::sealed::Sealed;
use txfs::fs::{Attribute, Fs, Holder, LinuxFs, Listed, Machine, RenameMode, Stat, Timestamp, Weakness};

/// A call that may be made to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    Rename {
        name: Vec<u8>,
        new_name: Vec<u8>,
        directory: bool,
    },
    SyncFile {
        ino: u64,
    },
    SyncDir {
        ino: u64,
    },
    SyncFs,
    DropCached {
        ino: u64,
    },
    RemoveDir {
        name: Vec<u8>,
    },
    RemoveFile {
        name: Vec<u8>,
    },
    CreateFile {
        name: Vec<u8>,
    },
    /// Any other that changes something.
    Other(&'static str),
    /// One that only looks.
    Read(&'static str),
}

impl Call {
    /// Whether it is this one of those that change something.
    pub fn is(&self, name: &str) -> bool {
        match self {
            Self::RemoveFile { .. } => name == "remove_file",
            Self::CreateFile { .. } => name == "create_file",
            Self::Other(other) => *other == name,
            _ => false,
        }
    }
}

type Rule = dyn Fn(&Call) -> Option<Errno> + Send + Sync;

/// [`LinuxFs`], asking a rule before each call that changes something, and before some that do not.
#[derive(Clone)]
pub struct Faulty {
    kernel: LinuxFs,
    rule: Arc<Rule>,
    /// Whether times have no fraction of a second, as on an ext3.
    coarse: bool,
    twice: bool,
    threads: usize,
    /// Renames of this kind are said to be done, and are not.
    lies: Option<RenameMode>,
}

impl Faulty {
    pub fn new(rule: impl Fn(&Call) -> Option<Errno> + Send + Sync + 'static) -> Self {
        Self::on(LinuxFs::new(), rule)
    }

    /// On a kernel that lacks something.
    pub fn on(kernel: LinuxFs, rule: impl Fn(&Call) -> Option<Errno> + Send + Sync + 'static) -> Self {
        Self { kernel, rule: Arc::new(rule), coarse: false, twice: false, threads: 1, lies: None }
    }

    /// With so many threads. With one, as it is unless said, calls come in the same order each time.
    pub fn threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// Where times have no fraction of a second.
    pub fn coarse() -> Self {
        Self { coarse: true, ..Self::new(|_| None) }
    }

    /// Where every directory names its entries twice, as one may that changes while it is read.
    pub fn naming_twice() -> Self {
        Self { twice: true, ..Self::new(|_| None) }
    }

    /// Where renames of this kind are said to be done, and are not.
    pub fn lying(lies: RenameMode) -> Self {
        Self { lies: Some(lies), ..Self::new(|_| None) }
    }

    fn timed(&self, stat: Stat) -> Stat {
        let nanos = if self.coarse { 0 } else { stat.mtime.nanos };
        Stat { mtime: Timestamp { nanos, ..stat.mtime }, ..stat }
    }

    fn ask(&self, call: &Call) -> io::Result<()> {
        (self.rule)(call).map_or(Ok(()), |errno| Err(errno.into()))
    }

    fn other(&self, call: &'static str) -> io::Result<()> {
        self.ask(&Call::Other(call))
    }

    fn look(&self, call: &'static str) -> io::Result<()> {
        self.ask(&Call::Read(call))
    }
}

type File = std::fs::File;

impl Sealed for Faulty {}

impl Fs for Faulty {
    type Dir = OwnedFd;
    type File = File;
    type Lock = <LinuxFs as Fs>::Lock;

    fn open_anchor(&self, path: &Path) -> io::Result<OwnedFd> {
        self.kernel.open_anchor(path)
    }
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.look("resolve")?;
        self.kernel.resolve(path)
    }
    fn read_anchor_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.kernel.read_anchor_link(path)
    }
    fn open_dir(&self, at: &OwnedFd, path: &RelPath) -> io::Result<OwnedFd> {
        self.look("open_dir")?;
        self.kernel.open_dir(at, path)
    }
    fn open_file(&self, at: &OwnedFd, name: &[u8]) -> io::Result<(File, Stat)> {
        self.look("open_file")?;
        self.kernel.open_file(at, name).map(|(file, stat)| (file, self.timed(stat)))
    }
    fn open_write(&self, at: &OwnedFd, name: &[u8]) -> io::Result<File> {
        self.kernel.open_write(at, name)
    }
    fn create_file(&self, at: &OwnedFd, name: &[u8], mode: u32) -> io::Result<File> {
        self.ask(&Call::CreateFile { name: name.to_vec() })?;
        self.kernel.create_file(at, name, mode)
    }
    fn stat(&self, at: &OwnedFd, name: &[u8]) -> io::Result<Stat> {
        self.look("stat")?;
        self.kernel.stat(at, name).map(|stat| self.timed(stat))
    }
    fn stat_dir(&self, dir: &OwnedFd) -> io::Result<Stat> {
        self.kernel.stat_dir(dir)
    }
    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        self.kernel.stat_file(file).map(|stat| self.timed(stat))
    }
    fn list(&self, dir: &OwnedFd) -> io::Result<Vec<Listed>> {
        self.look("list")?;
        let mut listed = self.kernel.list(dir)?;
        if self.twice {
            listed.extend_from_within(..);
        }
        Ok(listed)
    }
    fn read_link(&self, at: &OwnedFd, name: &[u8]) -> io::Result<Vec<u8>> {
        self.kernel.read_link(at, name)
    }
    fn read(&self, file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
        self.look("read")?;
        self.kernel.read(file, buffer)
    }
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        self.other("write")?;
        self.kernel.write(file, bytes)
    }
    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.look("read")?;
        self.kernel.read_at(file, offset, buffer)
    }
    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.other("write")?;
        self.kernel.write_at(file, offset, bytes)
    }
    fn copy_content(&self, from: &mut File, to: &mut File) -> io::Result<()> {
        self.look("copy_content")?;
        self.kernel.copy_content(from, to)
    }
    fn copy_attributes(&self, from: &File, to: &File) -> io::Result<()> {
        self.kernel.copy_attributes(from, to)
    }
    fn copy_dir_attributes(&self, from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
        self.kernel.copy_dir_attributes(from, to)
    }
    fn attribute(&self, dir: &OwnedFd, which: Attribute) -> io::Result<Option<Vec<u8>>> {
        self.look("attribute")?;
        self.kernel.attribute(dir, which)
    }
    fn set_attribute(&self, dir: &OwnedFd, which: Attribute, value: Option<&[u8]>) -> io::Result<()> {
        self.other("set_attribute")?;
        self.kernel.set_attribute(dir, which, value)
    }
    fn set_owner(&self, file: &File, owner: Option<u32>, group: u32) -> io::Result<()> {
        self.other("set_owner")?;
        self.kernel.set_owner(file, owner, group)
    }
    fn set_dir_owner(&self, dir: &OwnedFd, owner: Option<u32>, group: u32) -> io::Result<()> {
        self.other("set_dir_owner")?;
        self.kernel.set_dir_owner(dir, owner, group)
    }
    fn set_link_owner(&self, at: &OwnedFd, name: &[u8], owner: Option<u32>, group: u32) -> io::Result<()> {
        self.other("set_link_owner")?;
        self.kernel.set_link_owner(at, name, owner, group)
    }
    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        self.other("set_mode")?;
        self.kernel.set_mode(file, mode)
    }
    fn set_dir_mode(&self, dir: &OwnedFd, mode: u32) -> io::Result<()> {
        self.other("set_dir_mode")?;
        self.kernel.set_dir_mode(dir, mode)
    }
    fn set_mtime(&self, file: &File, mtime: Timestamp) -> io::Result<()> {
        self.kernel.set_mtime(file, mtime)
    }
    fn make_dir(&self, at: &OwnedFd, name: &[u8], mode: u32) -> io::Result<()> {
        self.other("make_dir")?;
        self.kernel.make_dir(at, name, mode)
    }
    fn make_symlink(&self, at: &OwnedFd, name: &[u8], target: &[u8]) -> io::Result<()> {
        self.kernel.make_symlink(at, name, target)
    }
    fn link(&self, from: &OwnedFd, name: &[u8], to: &OwnedFd, new_name: &[u8]) -> io::Result<()> {
        self.kernel.link(from, name, to, new_name)
    }
    fn rename(&self, from: &OwnedFd, name: &[u8], to: &OwnedFd, new_name: &[u8], mode: RenameMode) -> io::Result<()> {
        if self.lies == Some(mode) {
            return Ok(());
        }
        let directory = self.kernel.stat(from, name).is_ok_and(|stat| stat.is_dir());
        self.ask(&Call::Rename { name: name.to_vec(), new_name: new_name.to_vec(), directory })?;
        self.kernel.rename(from, name, to, new_name, mode)
    }
    fn remove_file(&self, at: &OwnedFd, name: &[u8]) -> io::Result<()> {
        self.ask(&Call::RemoveFile { name: name.to_vec() })?;
        self.kernel.remove_file(at, name)
    }
    fn remove_dir(&self, at: &OwnedFd, name: &[u8]) -> io::Result<()> {
        self.ask(&Call::RemoveDir { name: name.to_vec() })?;
        self.kernel.remove_dir(at, name)
    }
    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.ask(&Call::SyncFile { ino: self.kernel.stat_file(file)?.ino })?;
        self.kernel.sync_file(file)
    }
    fn sync_dir(&self, dir: &OwnedFd) -> io::Result<()> {
        self.ask(&Call::SyncDir { ino: self.kernel.stat_dir(dir)?.ino })?;
        self.kernel.sync_dir(dir)
    }
    fn sync_fs(&self, dir: &OwnedFd) -> io::Result<()> {
        self.ask(&Call::SyncFs)?;
        self.kernel.sync_fs(dir)
    }
    fn drop_cached(&self, file: &File) -> io::Result<()> {
        self.ask(&Call::DropCached { ino: self.kernel.stat_file(file)?.ino })?;
        self.kernel.drop_cached(file)
    }
    fn try_lock(&self, at: &OwnedFd, name: &[u8]) -> io::Result<Option<(Self::Lock, Stat)>> {
        self.look("try_lock")?;
        let locked = self.kernel.try_lock(at, name);
        self.look("locked")?;
        locked
    }
    fn lock_holder(&self, at: &OwnedFd, name: &[u8]) -> io::Result<Option<Holder>> {
        self.look("lock_holder")?;
        self.kernel.lock_holder(at, name)
    }
    fn may_change(&self, dir: &OwnedFd) -> io::Result<bool> {
        self.kernel.may_change(dir)
    }
    fn syncs_in_turn(&self, dir: &OwnedFd) -> bool {
        self.kernel.syncs_in_turn(dir)
    }
    fn changes_in_turn(&self, _: &OwnedFd) -> bool {
        // Wherever the tests run.
        false
    }
    fn has_layers(&self, dir: &OwnedFd) -> bool {
        self.kernel.has_layers(dir)
    }
    fn may_refuse_moves(&self) -> bool {
        self.kernel.may_refuse_moves()
    }
    fn weaknesses(&self, dir: &OwnedFd) -> Vec<Weakness> {
        self.kernel.weaknesses(dir)
    }
}

impl Machine for Faulty {
    fn dirty(&self) -> io::Result<u64> {
        // What others have dirty is not to decide which calls are made.
        Ok(0)
    }
    fn user(&self) -> u32 {
        self.kernel.user()
    }
    fn group(&self) -> u32 {
        self.kernel.group()
    }
    fn belongs_to(&self, group: u32) -> io::Result<bool> {
        self.kernel.belongs_to(group)
    }
    fn now(&self) -> Timestamp {
        self.kernel.now()
    }
    fn elapsed(&self) -> std::time::Duration {
        self.kernel.elapsed()
    }
    fn boot(&self) -> io::Result<String> {
        self.look("boot")?;
        self.kernel.boot()
    }
    fn unique(&self) -> io::Result<u64> {
        self.kernel.unique()
    }
    fn parallelism(&self) -> usize {
        self.threads
    }
    fn pause(&self, duration: std::time::Duration) {
        self.kernel.pause(duration);
    }
    fn is_interrupted(&self) -> bool {
        self.kernel.is_interrupted()
    }
}
