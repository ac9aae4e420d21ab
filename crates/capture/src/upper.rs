//! The upper layer of an overlay when the command has ended: what the command wrote, and what it removed.
//!
//! An overlay keeps a removal as a character device 0:0 (a whiteout), and a directory that took the place of another as one with the
//! attribute `overlay.opaque`. Neither is to be published, nor are the other attributes that it keeps for itself.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, Stat};

use crate::walk;

/// A difference between what the output was and what the command left.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Made, or changed; also a directory that only holds such entries.
    Written(PathBuf),
    /// Not there any more, with everything below it.
    Removed(PathBuf),
    /// A new directory in the place of what was there: of the old only what is written below it as well is there still.
    Replaced(PathBuf),
}

/// What the upper layer says, directory by directory, each before what is in it. Paths are relative to the output.
///
/// # Errors
/// The layer cannot be opened.
pub fn changes(upper: &Path) -> io::Result<Changes> {
    let root = walk::open(upper)?;
    Ok(Changes { root, directories: vec![PathBuf::new()], found: VecDeque::new() })
}

/// See [`changes`].
#[derive(Debug)]
pub struct Changes {
    root: OwnedFd,
    directories: Vec<PathBuf>,
    found: VecDeque<Change>,
}

impl Iterator for Changes {
    type Item = io::Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(change) = self.found.pop_front() {
                return Some(Ok(change));
            }
            let directory = self.directories.pop()?;
            if let Err(error) = self.look(&directory) {
                return Some(Err(error));
            }
        }
    }
}

impl Changes {
    fn look(&mut self, directory: &Path) -> io::Result<()> {
        let dir = walk::open_below(&self.root, directory)?;
        for (name, stat) in walk::list(&dir)? {
            let path = directory.join(&name);
            self.found.push_back(match walk::kind(&stat) {
                _ if is_whiteout(&stat) => Change::Removed(path),
                FileType::Directory => {
                    self.directories.push(path.clone());
                    if is_opaque(&dir, &name) { Change::Replaced(path) } else { Change::Written(path) }
                }
                _ => Change::Written(path),
            });
        }
        Ok(())
    }
}

/// Makes an ordinary directory of the upper layer: whiteouts and the overlay's own attributes go. Returns what the command removed:
/// of each path, everything that was there is not there any more, but for what the directory still has.
///
/// The overlay is to be gone. Done again after an error, or a kill, it goes on, and does not tell again of what it had come to.
///
/// # Errors
/// An entry cannot be read or removed, or an attribute.
pub fn flatten(upper: &Path) -> io::Result<Vec<PathBuf>> {
    let root = walk::open(upper)?;
    let mut flattener = Flattener { root, removed: Vec::new(), closed: Vec::new() };
    let result = flattener.run();
    let reopened = flattener.close();
    result.and(reopened)?;
    flattener.removed.sort();
    Ok(flattener.removed)
}

struct Flattener {
    root: OwnedFd,
    removed: Vec<PathBuf>,
    /// The directories that were opened to their owner, with their modes.
    closed: Vec<(PathBuf, u32)>,
}

impl Flattener {
    fn run(&mut self) -> io::Result<()> {
        strip(&fd_path(&self.root), 0)?;
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            let dir = walk::open_below(&self.root, &directory)?;
            for (name, stat) in walk::list(&dir)? {
                let path = directory.join(&name);
                if is_whiteout(&stat) {
                    rustix::fs::unlinkat(&dir, &name, AtFlags::empty())?;
                    self.removed.push(path);
                    continue;
                }
                if walk::kind(&stat) == FileType::Directory {
                    if is_opaque(&dir, &name) {
                        self.removed.push(path.clone());
                    }
                    self.open(&dir, &name, &path, &stat)?;
                    directories.push(path);
                }
                strip(&fd_path(&dir).join(&name), stat.st_mode)?;
            }
        }
        Ok(())
    }

    /// Only who may write to a directory can remove what is in it.
    fn open(&mut self, dir: &OwnedFd, name: &OsStr, path: &Path, stat: &Stat) -> io::Result<()> {
        let mode = stat.st_mode & 0o7777;
        if mode & 0o700 == 0o700 {
            return Ok(());
        }
        self.closed.push((path.to_path_buf(), mode));
        Ok(rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode | 0o700), AtFlags::empty())?)
    }

    fn close(&mut self) -> io::Result<()> {
        for (path, mode) in self.closed.drain(..).rev() {
            let dir = walk::open_below(&self.root, &path)?;
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    walk::kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn fd_path(dir: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/.", dir.as_raw_fd()))
}

fn is_opaque(dir: &OwnedFd, name: &OsStr) -> bool {
    let path = fd_path(dir).join(name);
    let is = |attribute: &str| xattr::get(&path, attribute).is_ok_and(|value| value.as_deref() == Some(b"y"));
    is("user.overlay.opaque") || is("trusted.overlay.opaque")
}

/// Takes an overlay's attributes from an entry.
fn strip(path: &Path, mode: u32) -> io::Result<()> {
    let names: Vec<OsString> = xattr::list(path)?.filter(|name| is_of_overlay(name)).collect();
    for name in names {
        match xattr::remove(path, &name) {
            // Only who may write to a file may do that; its owner may change that.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && mode & 0o200 == 0 => {
                let chmod =
                    |mode| rustix::fs::chmodat(rustix::fs::CWD, path, Mode::from_raw_mode(mode), AtFlags::empty());
                chmod(mode & 0o7777 | 0o200)?;
                let removed = xattr::remove(path, &name);
                chmod(mode & 0o7777)?;
                removed?;
            }
            removed => removed?,
        }
    }
    Ok(())
}

fn is_of_overlay(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.overlay.")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn attributes_of_an_overlay_go_and_others_stay() {
        let upper = tempfile::tempdir().unwrap();
        let file = upper.path().join("file");
        fs::write(&file, "x").unwrap();
        xattr::set(&file, "user.overlay.origin", b"x").unwrap();
        xattr::set(&file, "user.mine", b"x").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
        let closed = upper.path().join("closed");
        fs::create_dir(&closed).unwrap();
        xattr::set(&closed, "user.overlay.opaque", b"y").unwrap();
        fs::write(closed.join("new"), "x").unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).unwrap();
        let listed: Vec<_> = changes(upper.path()).unwrap().collect::<io::Result<_>>().unwrap();
        let expected =
            [Change::Replaced("closed".into()), Change::Written("file".into()), Change::Written("closed/new".into())];
        assert_eq!(listed, expected);
        assert_eq!(flatten(upper.path()).unwrap(), [PathBuf::from("closed")]);
        assert_eq!(xattr::list(&file).unwrap().collect::<Vec<_>>(), ["user.mine"]);
        assert_eq!(xattr::list(&closed).unwrap().count(), 0);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o444);
        assert_eq!(fs::metadata(&closed).unwrap().permissions().mode() & 0o777, 0o555);
    }
}
