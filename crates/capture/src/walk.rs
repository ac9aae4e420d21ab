//! Directories by descriptor: paths of any length, and directories that their owner may not enter.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

const READ: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// Opens a directory to be listed.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, READ, Mode::empty())?)
}

/// Opens a directory below another, however long the path to it is.
pub(crate) fn open_below(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    const LONG: usize = 2048;
    if path.as_os_str().is_empty() {
        return root.try_clone();
    }
    if path.as_os_str().len() < LONG {
        return Ok(rustix::fs::openat(root, path, READ, Mode::empty())?);
    }
    let mut dir = root.try_clone()?;
    for name in path {
        dir = rustix::fs::openat(&dir, name, READ, Mode::empty())?;
    }
    Ok(dir)
}

/// The names in a directory, with what they are.
pub(crate) fn list(dir: &OwnedFd) -> io::Result<Vec<(OsString, Stat)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let name = OsString::from_vec(name.to_vec());
        let stat = rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        names.push((name, stat));
    }
    names.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
    Ok(names)
}

pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Removes whatever a name stands for, with everything in it, also in directories that nobody may enter or write to. What is not there
/// is no error.
pub(crate) fn remove(dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if kind(&stat) == FileType::Directory && stat.st_mode & 0o700 != 0o700 {
        rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
    }
    let below = rustix::fs::openat(dir, name, READ, Mode::empty())?;
    for (name, _) in list(&below)? {
        remove(&below, &name)?;
    }
    Ok(rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?)
}
