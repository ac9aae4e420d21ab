//! [`Fs`] on Linux, over rustix, fs2 and xattr.
//!
//! rustix makes the system calls itself: `fstatat` costs two thirds of what it costs by way of the C library, `fstat` likewise,
//! and there is little else that a scan does of each file. What stands between programs and that library (fakeroot) reaches none
//! of them: the user and the owners are the real ones throughout.
//!
//! Descent uses `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV`; where a kernel before 5.6 or a
//! seccomp filter lacks it, one `openat(O_NOFOLLOW)` a component, with the mount compared at each step. Before 5.8 the kernel does
//! not number its mounts, and the device is compared instead: there a bind mount of the same file system is not noticed.

mod attributes;
mod content;
mod lock;
mod machine;
mod mounts;
pub(crate) mod notice;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    Access, Advice, AtFlags, FileType, Gid, Mode, OFlags, RawDir, RenameFlags, ResolveFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;
use rustix::path::Arg;

pub use self::lock::FileLock;
use self::mounts::{is_btrfs, mount_of, mount_options};
use super::{Attribute, Fs, Holder, Kind, Listed, RenameMode, Stat, Timestamp, Weakness, found};
use crate::path::RelPath;

/// Bytes of a directory that are read at once; some hundred entries.
const LIST_BUFFER: usize = 32 << 10;

/// Longest path handed to the kernel at once: below `PATH_MAX` (4096 with the NUL) by a margin.
const PIECE_MAX: usize = 4000;

const DIR_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// For what is expected to be a file and may be anything: nothing is followed, waited for, or made the controlling terminal.
const FILE_FLAGS: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The rename flags that this file system is to be treated as not having; for tests of the fallbacks.
#[derive(Debug, Clone, Copy, Default)]
#[doc(hidden)]
pub struct Without {
    /// Pretend that `RENAME_EXCHANGE` is not supported.
    pub exchange: bool,
    /// Pretend that `RENAME_NOREPLACE` is not supported.
    pub no_replace: bool,
    /// Pretend that hard links are not supported.
    pub links: bool,
    /// Pretend that `openat2` is not there.
    pub openat2: bool,
}

/// The Linux kernel.
#[derive(Debug, Clone, Default)]
pub struct LinuxFs {
    without: Without,
    no_openat2: Arc<AtomicBool>,
    interrupt: Option<Arc<AtomicBool>>,
}

impl LinuxFs {
    /// The kernel as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// The kernel with some of its features denied, to exercise what txfs does on file systems that lack them.
    #[doc(hidden)]
    pub fn without(without: Without) -> Self {
        Self { without, no_openat2: Arc::new(AtomicBool::new(without.openat2)), interrupt: None }
    }

    /// As [`OpenOptions::interrupted_by`](crate::OpenOptions::interrupted_by), for tests of what is stacked on this.
    #[doc(hidden)]
    #[must_use = "this returns the changed file system"]
    pub fn interrupted_by(mut self, interrupt: Arc<AtomicBool>) -> Self {
        self.interrupt = Some(interrupt);
        self
    }

    fn open_piece(&self, at: &OwnedFd, piece: &[u8]) -> io::Result<OwnedFd> {
        if !self.no_openat2.load(Ordering::Relaxed) {
            let resolve =
                ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
            let open = |flags| rustix::fs::openat2(at, piece, flags, Mode::empty(), resolve);
            let result = match open(DIR_FLAGS) {
                Err(Errno::ACCESS) => open(DIR_FLAGS | OFlags::PATH),
                result => result,
            };
            match result {
                Err(Errno::NOSYS | Errno::PERM) => self.no_openat2.store(true, Ordering::Relaxed),
                result => return Ok(result?),
            }
        }
        self.open_by_component(at, piece)
    }

    /// Opens for reading what is in a directory. A file can be a mount point, too; with one name nothing else leads elsewhere.
    fn open_no_mount(&self, at: &OwnedFd, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = FILE_FLAGS | OFlags::RDONLY | flags;
        if !self.no_openat2.load(Ordering::Relaxed) {
            match rustix::fs::openat2(at, name, flags, Mode::empty(), ResolveFlags::NO_XDEV) {
                Err(Errno::NOSYS) => self.no_openat2.store(true, Ordering::Relaxed),
                // O_NOATIME may be what is not permitted.
                Err(Errno::PERM) if !flags.contains(OFlags::NOATIME) => {}
                result => return result,
            }
        }
        let file = rustix::fs::openat(at, name, flags, Mode::empty())?;
        if mount_of(&file)? != mount_of(at)? {
            return Err(Errno::XDEV);
        }
        Ok(file)
    }

    fn open_by_component(&self, at: &OwnedFd, piece: &[u8]) -> io::Result<OwnedFd> {
        let mut dir = at.try_clone()?;
        let mount = mount_of(&dir)?;
        for name in piece.split(|&b| b == b'/') {
            dir = open_readable_or_not(&dir, name, DIR_FLAGS)?;
            if mount_of(&dir)? != mount {
                return Err(Errno::XDEV.into());
            }
        }
        Ok(dir)
    }
}

impl Fs for LinuxFs {
    const IS_COMPILED: bool = true;
    type Dir = OwnedFd;
    type File = File;
    type Lock = FileLock;

    fn open_anchor(&self, path: &Path) -> io::Result<OwnedFd> {
        open_readable_or_not(rustix::fs::CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        std::fs::canonicalize(path)
    }

    fn read_anchor_link(&self, path: &Path) -> io::Result<PathBuf> {
        std::fs::read_link(path)
    }

    fn open_dir(&self, at: &OwnedFd, path: &RelPath) -> io::Result<OwnedFd> {
        if path.is_root() {
            return self.open_piece(at, b".");
        }
        let mut rest = path.as_bytes();
        let mut dir: Option<OwnedFd> = None;
        while rest.len() > PIECE_MAX {
            let slash = rest[..PIECE_MAX].iter().rposition(|&b| b == b'/').ok_or(Errno::NAMETOOLONG)?;
            dir = Some(self.open_piece(dir.as_ref().unwrap_or(at), &rest[..slash])?);
            rest = &rest[slash + 1..];
        }
        self.open_piece(dir.as_ref().unwrap_or(at), rest)
    }

    fn open_file(&self, at: &OwnedFd, name: &[u8]) -> io::Result<(File, Stat)> {
        // txfs' own reads are not to update access times: that would dirty every inode read, and the next barrier would write
        // them. Only the owner may ask for O_NOATIME.
        let file: File = match self.open_no_mount(at, name, OFlags::NOATIME) {
            Err(Errno::PERM) => self.open_no_mount(at, name, OFlags::empty())?,
            file => file?,
        }
        .into();
        let stat = self.stat_file(&file)?;
        if stat.kind != Some(Kind::File) {
            return Err(Errno::INVAL.into());
        }
        Ok((file, stat))
    }

    fn open_write(&self, at: &OwnedFd, name: &[u8]) -> io::Result<File> {
        Ok(rustix::fs::openat(at, name, FILE_FLAGS | OFlags::RDWR, Mode::empty())?.into())
    }

    fn create_file(&self, at: &OwnedFd, name: &[u8], mode: u32) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(at, name, flags, Mode::from_raw_mode(mode))?.into())
    }

    fn stat(&self, at: &OwnedFd, name: &[u8]) -> io::Result<Stat> {
        Ok(convert(&rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn stat_dir(&self, dir: &OwnedFd) -> io::Result<Stat> {
        Ok(convert(&rustix::fs::fstat(dir)?))
    }

    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        Ok(convert(&rustix::fs::fstat(file)?))
    }

    fn list(&self, dir: &OwnedFd) -> io::Result<Vec<Listed>> {
        // A descriptor of its own: reading moves the offset that `dir` and its clones share.
        let stream = rustix::fs::openat(dir, ".", DIR_FLAGS, Mode::empty())?;
        let mut listed = Vec::new();
        // Not `readdir`, which asks four things of a directory before it reads it.
        let mut buffer = [std::mem::MaybeUninit::uninit(); LIST_BUFFER];
        let mut entries = RawDir::new(stream, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                // A directory that was removed meanwhile has nothing in it.
                Err(Errno::NOENT) => break,
                entry => entry?,
            };
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let kind = match entry.file_type() {
                    FileType::RegularFile => Some(Kind::File),
                    FileType::Directory => Some(Kind::Directory),
                    FileType::Symlink => Some(Kind::Symlink),
                    // Not every file system keeps it with the name.
                    FileType::Unknown => match found(self.stat(dir, name))? {
                        Some(stat) => stat.kind,
                        None => continue,
                    },
                    _ => None,
                };
                listed.push(Listed { name: name.into(), kind });
            }
        }
        Ok(listed)
    }

    fn read_link(&self, at: &OwnedFd, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(at, name, Vec::new())?.into_bytes())
    }

    fn read(&self, file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
        file.read(buffer)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        file.write(bytes)
    }

    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }

    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    fn copy_content(&self, from: &mut File, to: &mut File) -> io::Result<()> {
        self.copy(from, to)
    }

    fn copy_attributes(&self, from: &File, to: &File) -> io::Result<()> {
        attributes::copy(from, to)
    }

    fn copy_dir_attributes(&self, from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
        attributes::copy_of_dir(from, to)
    }

    fn attribute(&self, dir: &OwnedFd, which: Attribute) -> io::Result<Option<Vec<u8>>> {
        attributes::get(dir, which)
    }

    fn set_attribute(&self, dir: &OwnedFd, which: Attribute, value: Option<&[u8]>) -> io::Result<()> {
        attributes::put(dir, which, value)
    }

    fn set_owner(&self, file: &File, owner: Option<u32>, group: u32) -> io::Result<()> {
        Ok(rustix::fs::fchown(file, owner.map(Uid::from_raw), Some(Gid::from_raw(group)))?)
    }

    fn set_dir_owner(&self, dir: &OwnedFd, owner: Option<u32>, group: u32) -> io::Result<()> {
        Ok(rustix::fs::fchown(dir, owner.map(Uid::from_raw), Some(Gid::from_raw(group)))?)
    }

    fn set_link_owner(&self, at: &OwnedFd, name: &[u8], owner: Option<u32>, group: u32) -> io::Result<()> {
        let (owner, group) = (owner.map(Uid::from_raw), Some(Gid::from_raw(group)));
        Ok(rustix::fs::chownat(at, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?)
    }

    fn set_dir_mode(&self, dir: &OwnedFd, mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        match rustix::fs::fchmod(dir, mode) {
            Err(Errno::BADF) => rustix::fs::chmod(proc_name(dir), mode).map_err(of_proc),
            result => Ok(result?),
        }
    }

    fn set_mtime(&self, file: &File, mtime: Timestamp) -> io::Result<()> {
        let last_access = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let last_modification = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() };
        Ok(rustix::fs::futimens(file, &Timestamps { last_access, last_modification })?)
    }

    fn make_dir(&self, at: &OwnedFd, name: &[u8], mode: u32) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(at, name, Mode::from_raw_mode(mode))?)
    }

    fn make_symlink(&self, at: &OwnedFd, name: &[u8], target: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, at, name)?)
    }

    fn link(&self, from: &OwnedFd, name: &[u8], to: &OwnedFd, new_name: &[u8]) -> io::Result<()> {
        if self.without.links {
            return Err(Errno::PERM.into());
        }
        Ok(rustix::fs::linkat(from, name, to, new_name, AtFlags::empty())?)
    }

    fn rename(&self, from: &OwnedFd, name: &[u8], to: &OwnedFd, new_name: &[u8], mode: RenameMode) -> io::Result<()> {
        let flags = match mode {
            RenameMode::Replace => RenameFlags::empty(),
            RenameMode::NoReplace if self.without.no_replace => return Err(Errno::INVAL.into()),
            RenameMode::NoReplace => RenameFlags::NOREPLACE,
            RenameMode::Exchange if self.without.exchange => return Err(Errno::INVAL.into()),
            RenameMode::Exchange => RenameFlags::EXCHANGE,
        };
        if mode == RenameMode::Replace {
            return Ok(rustix::fs::renameat(from, name, to, new_name)?);
        }
        Ok(rustix::fs::renameat_with(from, name, to, new_name, flags)?)
    }

    fn remove_file(&self, at: &OwnedFd, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(at, name, AtFlags::empty())?)
    }

    fn remove_dir(&self, at: &OwnedFd, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)?)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::fsync(file)?)
    }

    fn sync_dir(&self, dir: &OwnedFd) -> io::Result<()> {
        rustix::fs::fsync(dir).map_err(of_directory)
    }

    fn sync_fs(&self, dir: &OwnedFd) -> io::Result<()> {
        rustix::fs::syncfs(dir).map_err(of_directory)
    }

    fn drop_cached(&self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?)
    }

    fn try_lock(&self, at: &OwnedFd, name: &[u8]) -> io::Result<Option<(FileLock, Stat)>> {
        lock::try_lock(at, name)
    }

    fn lock_holder(&self, at: &OwnedFd, name: &[u8]) -> io::Result<Option<Holder>> {
        lock::holder(at, name)
    }

    fn may_change(&self, dir: &OwnedFd) -> io::Result<bool> {
        let access = Access::WRITE_OK | Access::EXEC_OK;
        // The kernel knows the groups and the ACL. One that lacks faccessat2 asks for the real user, as a rule the same.
        let may = match rustix::fs::accessat(dir, ".", access, AtFlags::EACCESS) {
            Err(Errno::NOSYS | Errno::INVAL) => rustix::fs::accessat(dir, ".", access, AtFlags::empty()),
            may => may,
        };
        match may {
            Ok(()) => Ok(true),
            Err(Errno::ACCESS | Errno::ROFS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn syncs_in_turn(&self, dir: &OwnedFd) -> bool {
        // Unless it takes its disk for one without seeks, btrfs waits a tick of the clock for more whenever several sync together.
        is_btrfs(dir)
            && mount_options(dir).is_ok_and(|options| !options.split(',').any(|option| option.starts_with("ssd")))
    }

    fn changes_in_turn(&self, dir: &OwnedFd) -> bool {
        // There two threads wait for each other, at the locks of one tree.
        is_btrfs(dir)
    }

    fn may_refuse_moves(&self) -> bool {
        true
    }

    fn has_layers(&self, dir: &OwnedFd) -> bool {
        mounts::is_overlay(dir)
    }

    fn weaknesses(&self, dir: &OwnedFd) -> Vec<Weakness> {
        mounts::weaknesses(dir)
    }
}

/// Where a descriptor that only names a directory is good for nothing else: its entry in /proc is that very directory, whatever the
/// path is now.
fn proc_name(dir: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", dir.as_raw_fd())
}

/// Without /proc that entry is not there, which is not what "no such file" would say of the directory.
fn of_proc(errno: Errno) -> io::Error {
    match errno {
        Errno::NOENT => io::Error::other(
            "its owner may not read it, and /proc is not mounted: mount it, or `chmod u+rwx` the directory",
        ),
        errno => errno.into(),
    }
}

/// Opens a directory; where it may not be read, one that can only be searched, or have its mode changed by its owner.
fn open_readable_or_not(at: impl AsFd, path: impl Arg + Copy, flags: OFlags) -> io::Result<OwnedFd> {
    match rustix::fs::openat(&at, path, flags, Mode::empty()) {
        Err(Errno::ACCESS) => Ok(rustix::fs::openat(&at, path, flags | OFlags::PATH, Mode::empty())?),
        result => Ok(result?),
    }
}

/// A directory that could only be opened to be searched cannot be synced either. It is told from an error that the file system
/// reports, which has its number.
fn of_directory(errno: Errno) -> io::Error {
    match errno {
        Errno::BADF => io::Error::new(io::ErrorKind::PermissionDenied, "Permission denied"),
        errno => errno.into(),
    }
}

fn convert(stat: &rustix::fs::Stat) -> Stat {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Directory),
        FileType::Symlink => Some(Kind::Symlink),
        _ => None,
    };
    #[allow(clippy::unnecessary_cast, reason = "the widths of these fields differ between architectures")]
    Stat {
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        nlink: stat.st_nlink as u64,
        dev: stat.st_dev as u64,
        ino: stat.st_ino as u64,
        size: stat.st_size as u64,
        mtime: Timestamp { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
        ctime: Timestamp { seconds: stat.st_ctime, nanos: stat.st_ctime_nsec as u32 },
    }
}
