//! The only door to the operating system: trait [`Fs`], about one method for each system call on files, and trait [`Machine`], what is
//! asked of the machine they are on.
//!
//! The engine is generic over [`Fs`]. [`linux`] is the real one; the simulator (`crates/sim`) runs the real commit and
//! the real recovery on storage that forgets, tears and fails. A crate of a stranger's implements neither trait ([`sealed`]):
//!
//! ```compile_fail,E0277
//! # use txfs::fs::{Machine, Timestamp};
//! struct Mine;
//! impl Machine for Mine {
//! # fn user(&self) -> u32 { 0 }
//! # fn group(&self) -> u32 { 0 }
//! # fn belongs_to(&self, _: u32) -> std::io::Result<bool> { Ok(true) }
//! # fn now(&self) -> Timestamp { Timestamp::default() }
//! # fn elapsed(&self) -> std::time::Duration { Default::default() }
//! # fn pause(&self, _: std::time::Duration) {}
//! # fn boot(&self) -> std::io::Result<String> { Ok(String::new()) }
//! # fn unique(&self) -> std::io::Result<u64> { Ok(0) }
//! # fn parallelism(&self) -> usize { 1 }
//! # fn dirty(&self) -> std::io::Result<u64> { Ok(0) }
//! # fn is_interrupted(&self) -> bool { false }
//!     // …
//! }
//! ```
//!
//! Invariants:
//! 1. Every method that names an entry takes an open directory and ONE name, or a [`RelPath`] that is resolved beneath an
//!    open directory without following a symbolic link and without crossing a mount (G9). Only the anchors
//!    ([`Fs::open_anchor`], [`Fs::resolve`], [`Fs::read_anchor_link`]) take a path of the user's.
//! 2. A failed call is never repeated to the same end. Where a kernel lacks a call, or a permission only an optional flag, the
//!    plainer call is made; every other error is the kernel's answer.
//! 3. Every descriptor is close-on-exec: no program that a child executes has one. Locks do not rely on it ([`Fs::try_lock`]).

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::path::RelPath;

pub(crate) mod background_sync;
pub(crate) mod compiled;
pub mod linux;
mod machine;
#[doc(hidden)]
pub mod sealed;
pub(crate) mod stream;
pub(crate) mod tree;
mod weakness;

pub use crate::holder::Holder;
pub use linux::LinuxFs;
pub use machine::Machine;
pub use weakness::Weakness;

/// The kinds of entries that txfs publishes. The order of the variants is part of the disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, published as it is and never followed.
    Symlink,
}

impl Kind {
    /// The word for it in messages.
    pub fn word(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Symlink => "symlink",
        }
    }
}

/// A point in time of a file system: seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Timestamp {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds, below one thousand million.
    pub nanos: u32,
}

impl From<Timestamp> for SystemTime {
    /// What the system's own times do not reach becomes the beginning of 1970.
    fn from(time: Timestamp) -> Self {
        let seconds = Duration::from_secs(time.seconds.unsigned_abs());
        let whole = match time.seconds {
            0.. => SystemTime::UNIX_EPOCH.checked_add(seconds),
            _ => SystemTime::UNIX_EPOCH.checked_sub(seconds),
        };
        let time = whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanos.into())));
        time.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

/// What `lstat` says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `None` for anything that is neither file, directory nor symbolic link.
    pub kind: Option<Kind>,
    /// Permission bits with set-uid, set-gid and sticky: `st_mode & 07777`.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The number of hard links.
    pub nlink: u64,
    /// The device. Never stored: device numbers do not survive a reboot.
    pub dev: u64,
    /// The inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last change of the content, or what somebody said it was.
    pub mtime: Timestamp,
    /// Time of the last change of content or attributes, which no call sets.
    pub ctime: Timestamp,
}

impl Stat {
    /// Whether the entry is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Some(Kind::Directory)
    }

    /// Whether both are of one entry, as of two names of a file.
    pub(crate) fn is_same_entry(&self, other: &Stat) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

/// What a directory can have that names and modes do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attribute {
    /// Where the state of an output is: txfs' own mark on it.
    Mark,
    /// The ACL that is given to what is made in the directory.
    DefaultAcl,
    /// The ACL of the directory itself.
    AccessAcl,
    /// The label that a security policy goes by.
    Label,
}

/// How a rename treats what is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RenameMode {
    /// Plain `rename(2)`: an entry in the way is replaced.
    Replace,
    /// `RENAME_NOREPLACE`: an entry in the way is an error.
    NoReplace,
    /// `RENAME_EXCHANGE`: both names change places in one instant.
    Exchange,
}

/// An entry of a directory, as `readdir` gives it; where that leaves out the kind, an `lstat` more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// One component.
    pub name: Box<[u8]>,
    /// `None` when the kind is none that txfs publishes.
    pub kind: Option<Kind>,
}

/// Every system call on files that the engine makes. See the module's invariants. Sealed: it gets methods as the engine needs them.
///
/// Errors are the operating system's; callers add the path and what they were doing.
#[allow(missing_docs, reason = "each is the system call of its name; what is particular is said where it is")]
pub trait Fs: Machine + Clone + Send + Sync + 'static {
    /// Whether the engine on it is compiled with the library: of [`LinuxFs`], and nothing else.
    #[doc(hidden)]
    const IS_COMPILED: bool = false;
    /// An open directory.
    type Dir: Send + Sync;
    /// An open regular file.
    type File: Send;
    /// A lock that is held.
    type Lock: Send;

    /// Opens a directory by a path of the user's, following links as the shell would.
    fn open_anchor(&self, path: &Path) -> io::Result<Self::Dir>;
    /// The canonical absolute path; every component has to exist.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;
    /// Reads a symbolic link at a path of the user's; `InvalidInput` where there is none.
    fn read_anchor_link(&self, path: &Path) -> io::Result<PathBuf>;

    /// Opens the directory at `path` beneath `at`: no symbolic link is followed (ELOOP or ENOTDIR), no mount crossed (EXDEV).
    fn open_dir(&self, at: &Self::Dir, path: &RelPath) -> io::Result<Self::Dir>;
    /// Opens a regular file for reading, without following a link and without blocking on a FIFO, and says what was opened.
    fn open_file(&self, at: &Self::Dir, name: &[u8]) -> io::Result<(Self::File, Stat)>;
    /// Opens an existing regular file for writing in place, without following a link.
    fn open_write(&self, at: &Self::Dir, name: &[u8]) -> io::Result<Self::File>;
    /// Creates a file that did not exist, for reading and writing; `mode` is subject to the umask.
    fn create_file(&self, at: &Self::Dir, name: &[u8], mode: u32) -> io::Result<Self::File>;

    fn stat(&self, at: &Self::Dir, name: &[u8]) -> io::Result<Stat>;
    fn stat_dir(&self, dir: &Self::Dir) -> io::Result<Stat>;
    fn stat_file(&self, file: &Self::File) -> io::Result<Stat>;
    /// Every entry but `.` and `..`, in no particular order.
    fn list(&self, dir: &Self::Dir) -> io::Result<Vec<Listed>>;
    fn read_link(&self, at: &Self::Dir, name: &[u8]) -> io::Result<Vec<u8>>;

    fn read(&self, file: &mut Self::File, buffer: &mut [u8]) -> io::Result<usize>;
    fn write(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<usize>;
    /// Reads from `offset`; the position of [`Fs::read`] is neither used nor changed.
    fn read_at(&self, file: &Self::File, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes at `offset`; the position of [`Fs::write`] is neither used nor changed.
    fn write_at(&self, file: &Self::File, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Copies all of `from`, from its current position, to `to`; of what is not small it shares blocks where the file
    /// system can.
    fn copy_content(&self, from: &mut Self::File, to: &mut Self::File) -> io::Result<()>;
    /// Copies extended attributes (ACLs among them) as far as this user may set them.
    fn copy_attributes(&self, from: &Self::File, to: &Self::File) -> io::Result<()>;
    /// As [`Fs::copy_attributes`], of a directory: its default ACL is among them, and goes to everything that is made in it later.
    fn copy_dir_attributes(&self, from: &Self::Dir, to: &Self::Dir) -> io::Result<()>;
    /// What a directory has of this attribute; `None` where it has nothing, or the file system has no such thing.
    fn attribute(&self, dir: &Self::Dir, which: Attribute) -> io::Result<Option<Vec<u8>>> {
        let (_, _) = (dir, which);
        Ok(None)
    }
    /// Gives a directory this attribute, or takes it away. A file system may not have it.
    fn set_attribute(&self, dir: &Self::Dir, which: Attribute, value: Option<&[u8]>) -> io::Result<()> {
        let (_, _, _) = (dir, which, value);
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Gives a file to an owner, where one is named, and to a group. The kernel takes set-id bits and capabilities from it.
    fn set_owner(&self, file: &Self::File, owner: Option<u32>, group: u32) -> io::Result<()>;
    /// As [`Fs::set_owner`]; a directory keeps its bits.
    fn set_dir_owner(&self, dir: &Self::Dir, owner: Option<u32>, group: u32) -> io::Result<()>;
    /// As [`Fs::set_owner`], of an entry that may be a symbolic link, which is not followed.
    fn set_link_owner(&self, at: &Self::Dir, name: &[u8], owner: Option<u32>, group: u32) -> io::Result<()>;
    fn set_mode(&self, file: &Self::File, mode: u32) -> io::Result<()>;
    fn set_dir_mode(&self, dir: &Self::Dir, mode: u32) -> io::Result<()>;
    fn set_mtime(&self, file: &Self::File, mtime: Timestamp) -> io::Result<()>;

    fn make_dir(&self, at: &Self::Dir, name: &[u8], mode: u32) -> io::Result<()>;
    fn make_symlink(&self, at: &Self::Dir, name: &[u8], target: &[u8]) -> io::Result<()>;
    /// Makes a second name for the entry itself: a symbolic link is not followed.
    fn link(&self, from: &Self::Dir, name: &[u8], to: &Self::Dir, new_name: &[u8]) -> io::Result<()>;
    fn rename(
        &self,
        from: &Self::Dir,
        name: &[u8],
        to: &Self::Dir,
        new_name: &[u8],
        mode: RenameMode,
    ) -> io::Result<()>;
    fn remove_file(&self, at: &Self::Dir, name: &[u8]) -> io::Result<()>;
    fn remove_dir(&self, at: &Self::Dir, name: &[u8]) -> io::Result<()>;

    /// `fsync` of a file: its content and size are on the medium when this returns.
    fn sync_file(&self, file: &Self::File) -> io::Result<()>;
    /// `fsync` of a directory: the names in it are on the medium when this returns.
    fn sync_dir(&self, dir: &Self::Dir) -> io::Result<()>;
    /// `syncfs`: everything written to the file system of `dir` before the call is on the medium when this returns.
    fn sync_fs(&self, dir: &Self::Dir) -> io::Result<()>;

    /// Forgets what memory holds of the file's content and need not write any more: what is read next is read from the medium.
    fn drop_cached(&self, file: &Self::File) -> io::Result<()>;

    /// Takes the lock of the regular file `name` without waiting, and says which file that is; `None` while another process, or another
    /// thread of this one, holds it. It ends when it is dropped and with this process, whatever descriptors children have.
    fn try_lock(&self, at: &Self::Dir, name: &[u8]) -> io::Result<Option<(Self::Lock, Stat)>>;
    /// Who holds that lock; `None` when nobody does. Neither who looks nor who wants to lock is ever found by it.
    fn lock_holder(&self, at: &Self::Dir, name: &[u8]) -> io::Result<Option<Holder>>;

    /// Whether this user may make and remove entries in a directory.
    fn may_change(&self, _dir: &Self::Dir) -> io::Result<bool> {
        Ok(true)
    }
    /// Whether several files are synced sooner one after the other than at the same time, on the file system of `dir`.
    fn syncs_in_turn(&self, dir: &Self::Dir) -> bool;
    /// Whether changes to the file system of `dir` wait for each other: two threads remove files no sooner than one, and whoever
    /// writes waits for a `syncfs`.
    fn changes_in_turn(&self, dir: &Self::Dir) -> bool;
    /// Whether directories of one device can refuse each other's entries, as for a project quota: then it has to be tried.
    fn may_refuse_moves(&self) -> bool {
        false
    }
    /// Whether the file system of `dir` shows directories of layers below it, which it may not rename: then it has to be tried.
    fn has_layers(&self, dir: &Self::Dir) -> bool {
        let _ = dir;
        false
    }
    /// What the file system of `dir` is known to lack, by what it is and how it is mounted.
    fn weaknesses(&self, dir: &Self::Dir) -> Vec<Weakness> {
        let _ = dir;
        Vec::new()
    }
}

/// `Ok(None)` where there is no such entry.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the file system does not have the call that failed. EPERM says so of links; EACCES says nothing of the kind.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => true,
        io::ErrorKind::PermissionDenied => error.raw_os_error() != Some(nix::errno::Errno::EACCES as i32),
        _ => false,
    }
}

/// Whether a directory could not be synced because it was opened only to be searched: nothing was asked of the file system.
pub(crate) fn is_unsyncable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none()
}

/// Whether something other than a directory, a symbolic link among it, was where a directory had to be.
pub(crate) fn is_not_directory(error: &io::Error) -> bool {
    let link = nix::errno::Errno::ELOOP as i32;
    error.kind() == io::ErrorKind::NotADirectory || error.raw_os_error() == Some(link)
}
