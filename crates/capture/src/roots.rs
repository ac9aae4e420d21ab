//! What is shown where the output is, from its removal by the command to its remaking: a stack of mounts.
//!
//! ```text
//! overlay, or a directory --rmdir--> gone --mkdir--> an empty directory
//!        |                            |
//!        +-------rename onto it-------+--------> the directory that was renamed
//! a directory --rename away--> gone
//! ```
//!
//! Invariants:
//! 1. A directory that the command moves onto the output, or away, is moved by one rename, with the rights of the command.
//! 2. After the output was removed nothing of its old content comes back.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

use crate::space::{ROOT, Space, inherit, open_dir};

/// What is shown, unless it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Shown {
    Overlay,
    /// A directory of this name among the caller's.
    Directory(OsString),
    /// What was shown the command moved away.
    MovedAway,
}

/// What is left when the command has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Left {
    Upper(OsString),
    Whole(OsString),
    Nothing,
}

pub(crate) struct Roots {
    pub(crate) space: Space,
    shown: Shown,
    gone: bool,
    made: u32,
}

impl Roots {
    pub(crate) fn new(space: Space, absent: bool) -> Self {
        let shown = if space.overlay { Shown::Overlay } else { Shown::Directory(space.first.clone()) };
        Self { space, shown, gone: absent, made: 0 }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.shown, Shown::Directory(_))
    }

    pub(crate) fn left(&self) -> Left {
        match &self.shown {
            _ if self.gone => Left::Nothing,
            Shown::Overlay => Left::Upper(self.space.first.clone()),
            Shown::Directory(name) => Left::Whole(name.clone()),
            Shown::MovedAway => Left::Nothing,
        }
    }

    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(&self.space.parent, &self.space.name, flags, Mode::empty())?;
        for entry in Dir::new(dir)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The command removed it.
    pub(crate) fn remove(&mut self) -> io::Result<()> {
        self.space.cover()?;
        self.gone = true;
        Ok(())
    }

    /// The command makes it anew.
    pub(crate) fn make(&mut self, mode: u32) -> io::Result<()> {
        let made = if let Shown::Directory(name) = &self.shown {
            // It is empty: under the cover nothing could be made in it.
            let directory = open_dir(&self.space.place, name)?;
            self.uncover()?;
            directory
        } else {
            let name = self.next_name();
            let directory = self.space.make_dir(&name, 0o700)?;
            if let Ok(first) = open_dir(&self.space.place, &self.space.first) {
                inherit(&first, &directory);
            }
            self.uncover()?;
            self.space.show(&directory)?;
            self.shown = Shown::Directory(name);
            directory
        };
        self.gone = false;
        let kept = rustix::fs::statat(&made, "", AtFlags::EMPTY_PATH)?.st_mode & 0o2000;
        let mode = Mode::from_raw_mode(mode & 0o1777 | kept);
        Ok(rustix::fs::chmodat(rustix::fs::CWD, crate::space::at(&made), mode, AtFlags::empty())?)
    }

    /// The command moves a directory onto it, which is gone or empty.
    pub(crate) fn adopt(&mut self, from: &OwnedFd, name: &[u8]) -> io::Result<()> {
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            // A file can take the place of what is gone, but not here.
            return Err(if self.gone { rustix::io::Errno::XDEV } else { rustix::io::Errno::ISDIR }.into());
        }
        let own = self.next_name();
        let place = &self.space.place;
        self.as_command(|| rustix::fs::renameat(from, name, place, own.as_bytes()))?;
        let directory = open_dir(place, &own);
        match directory.and_then(|directory| self.uncover().and_then(|()| self.space.show(&directory))) {
            Ok(()) => {
                self.shown = Shown::Directory(own);
                self.gone = false;
                Ok(())
            }
            Err(error) => {
                // Something else was put in its place just before the rename.
                let _ = rustix::fs::renameat_with(place, own.as_bytes(), from, name, RenameFlags::NOREPLACE);
                Err(error)
            }
        }
    }

    /// The command moves it away; `EXDEV` where it is more than one directory.
    pub(crate) fn move_away(&mut self, to: &OwnedFd, name: &[u8], flags: RenameFlags) -> io::Result<()> {
        let Shown::Directory(own) = &self.shown else { return Err(rustix::io::Errno::XDEV.into()) };
        let place = &self.space.place;
        self.as_command(|| rustix::fs::renameat_with(place, own.as_bytes(), to, name, flags))?;
        self.shown = Shown::MovedAway;
        self.gone = true;
        // Otherwise it would be a mount point where it is now, and could not be removed. Below is an empty directory.
        unmount(self.space.output(), UnmountFlags::DETACH)?;
        self.space.cover()
    }

    /// Nothing can be mounted on what is not there. What comes to light for an instant is empty, or is what is being made.
    fn uncover(&self) -> io::Result<()> {
        if self.gone {
            unmount(self.space.output(), UnmountFlags::DETACH)?;
        }
        Ok(())
    }

    fn next_name(&mut self) -> OsString {
        self.made += 1;
        format!("{ROOT}-{}", self.made).into()
    }

    /// With the rights of the command, which are fewer than those of who made the namespace.
    fn as_command(&self, act: impl FnOnce() -> rustix::io::Result<()>) -> io::Result<()> {
        if !self.space.rootless {
            return Ok(act()?);
        }
        let all = capabilities(None)?;
        let none = CapabilitySets { effective: CapabilitySet::empty(), ..all };
        set_capabilities(None, none)?;
        let done = act();
        set_capabilities(None, all)?;
        Ok(done?)
    }
}
