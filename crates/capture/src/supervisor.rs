//! What is answered to the calls that would remove, make or rename the output, and to those that look for it while it is gone.
//!
//! The output is a mount point, and the kernel says EBUSY to whoever removes it. The supervisor says what the kernel would say of a
//! directory, and changes what is shown.
//!
//! Invariants:
//! 1. What does not concern the output itself the kernel does, as if nobody had asked.
//! 2. A path is read once, and what it names is found once: what the command changes meanwhile changes nothing of the answer.
//! 3. A directory is moved only for a process that has the rights of the command, and by one that has no others. A path that another
//!    process changes in between leads to what the command could have moved itself.

use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags};

use crate::calls::{self, Call, REMOVE_DIR};
use crate::roots::Roots;
use crate::sys::{Answer, Notice};

pub(crate) struct Supervisor {
    pub(crate) roots: Roots,
    /// What this process is, and the command was when it began.
    own: Identity,
    /// A process gave up rights in a way that cannot be seen.
    restricted: bool,
    /// How many calls were answered by the supervisor itself.
    pub(crate) answered: u64,
}

/// A path of a call: the directory that it begins at, if it is relative and not to the working directory, and its bytes.
struct Named {
    dir: Option<i32>,
    path: Vec<u8>,
}

/// Where a path leads: the directory that holds its last component.
struct Place {
    parent: OwnedFd,
    name: Vec<u8>,
    is_output: bool,
}

impl Supervisor {
    /// `filters`: how many seccomp filters the command began with.
    pub(crate) fn new(roots: Roots) -> io::Result<Self> {
        let mut own = Identity::of("self")?;
        // The one that asks.
        own.filters = own.filters.map(|filters| filters + 1);
        Ok(Self { roots, own, restricted: false, answered: 0 })
    }

    pub(crate) fn answer(&mut self, notice: &Notice, is_waiting: impl Fn(&Notice) -> bool) -> Answer {
        let Some(call) = calls::find(notice.arch, notice.nr) else { return Answer::Continue };
        // What cannot be read or found the kernel cannot either, and it says so better.
        let answer = self.decide(call, notice, is_waiting).unwrap_or(Answer::Continue);
        self.answered += u64::from(answer != Answer::Continue);
        answer
    }

    fn decide(&mut self, call: Call, notice: &Notice, is_waiting: impl Fn(&Notice) -> bool) -> io::Result<Answer> {
        let args = &notice.args;
        let (from, to) = match call {
            Call::Restrict => {
                self.restricted = true;
                return Ok(Answer::Continue);
            }
            Call::Rename => (named(notice, None, 0), Some(named(notice, None, 1))),
            Call::RenameAt | Call::RenameAt2 => (named(notice, Some(0), 1), Some(named(notice, Some(2), 3))),
            Call::UnlinkAt if !self.roots.is_gone() && lower_half(args[2]) & REMOVE_DIR == 0 => {
                return Ok(Answer::Continue);
            }
            Call::Look | Call::Open | Call::Stat | Call::LookAt | Call::OpenAt | Call::StatAt | Call::Unlink
                if !self.roots.is_gone() =>
            {
                return Ok(Answer::Continue);
            }
            Call::UnlinkAt | Call::MkdirAt | Call::LookAt | Call::OpenAt | Call::StatAt => {
                (named(notice, Some(0), 1), None)
            }
            _ => (named(notice, None, 0), None),
        };
        let (from, to) = (from?, to.transpose()?);
        let is_named =
            |named: &Named| split(&named.path).is_some_and(|(_, name)| name == self.roots.space.name.as_bytes());
        if !is_named(&from) && !to.as_ref().is_some_and(is_named) {
            return Ok(Answer::Continue);
        }
        let Some(from) = self.find(notice.pid, &from)? else { return Ok(Answer::Continue) };
        let to = match &to {
            Some(to) => self.find(notice.pid, to)?,
            None => None,
        };
        let concerns = from.is_output || to.as_ref().is_some_and(|to| to.is_output);
        // Otherwise its number may be another's by now, and with it what was read.
        if !concerns || !is_waiting(notice) {
            return Ok(Answer::Continue);
        }
        let mode = |argument: usize| u32::try_from(args[argument] & 0o7777).unwrap_or_default();
        Ok(match (call, to) {
            (Call::Rmdir | Call::UnlinkAt, _) => self.remove(notice.pid),
            (Call::Mkdir, _) => self.make(notice.pid, mode(1)),
            (Call::MkdirAt, _) => self.make(notice.pid, mode(2)),
            (Call::Unmount, _) => Answer::Fail(libc::EINVAL),
            (Call::RenameAt2, Some(to)) => self.rename(notice.pid, &from, &to, lower_half(args[4])),
            (_, Some(to)) => self.rename(notice.pid, &from, &to, 0),
            _ => Answer::Fail(libc::ENOENT),
        })
    }

    fn remove(&mut self, pid: i32) -> Answer {
        if self.roots.is_gone() {
            return Answer::Fail(libc::ENOENT);
        }
        if !self.is_own_user(pid) {
            return Answer::Continue;
        }
        match self.roots.is_empty() {
            Ok(true) => done(self.roots.remove()),
            Ok(false) => Answer::Fail(libc::ENOTEMPTY),
            Err(error) => fail(&error),
        }
    }

    fn make(&mut self, pid: i32, mode: u32) -> Answer {
        if !self.roots.is_gone() || !self.is_own_user(pid) {
            return Answer::Continue;
        }
        let mask = Identity::of(pid).map_or(0o022, |identity| identity.mask);
        done(self.roots.make(mode & !mask))
    }

    fn rename(&mut self, pid: i32, from: &Place, to: &Place, flags: u32) -> Answer {
        let Some(flags) = RenameFlags::from_bits(flags) else { return Answer::Fail(libc::EINVAL) };
        let gone = self.roots.is_gone();
        match (from.is_output, to.is_output) {
            _ if flags.intersects(RenameFlags::EXCHANGE | RenameFlags::WHITEOUT) => Answer::Fail(libc::EINVAL),
            (true, _) if gone => Answer::Fail(libc::ENOENT),
            (true, true) => Answer::Done,
            (true, false) => match self.may_move(pid) && self.roots.is_plain() {
                true => done(self.roots.move_away(&to.parent, &to.name, flags)),
                false => Answer::Fail(libc::EXDEV),
            },
            (false, _) => self.rename_onto(pid, from, flags),
        }
    }

    fn rename_onto(&mut self, pid: i32, from: &Place, flags: RenameFlags) -> Answer {
        if !self.roots.is_gone() {
            if flags.contains(RenameFlags::NOREPLACE) {
                return Answer::Fail(libc::EEXIST);
            }
            match self.roots.is_empty() {
                Ok(true) => {}
                Ok(false) if is_directory(from) => return Answer::Fail(libc::ENOTEMPTY),
                Ok(false) => return Answer::Fail(libc::EISDIR),
                Err(error) => return fail(&error),
            }
        }
        match self.may_move(pid) {
            true => done(self.roots.adopt(&from.parent, &from.name)),
            false => Answer::Fail(libc::EXDEV),
        }
    }

    /// Whether a process belongs to the user that the command does.
    fn is_own_user(&self, pid: i32) -> bool {
        Identity::of(pid).is_ok_and(|identity| identity.user == self.own.user)
    }

    /// Whether a process may do what the command may, as far as can be seen, and sees the same files.
    fn may_move(&self, pid: i32) -> bool {
        let same = |identity: Identity| identity.has_rights_of(&self.own, self.roots.space.rootless);
        !self.restricted && Identity::of(pid).is_ok_and(same)
    }

    /// Finds where a path leads. `None`: to no place that has a name.
    fn find(&self, pid: i32, named: &Named) -> io::Result<Option<Place>> {
        let Some((parent, name)) = split(&named.path) else { return Ok(None) };
        let parent = open_parent(pid, named.dir, parent)?;
        let is_output = name == self.roots.space.name.as_bytes() && {
            let stat = rustix::fs::statat(&parent, "", AtFlags::EMPTY_PATH)?;
            (stat.st_dev, stat.st_ino) == self.roots.space.parent_id
        };
        Ok(Some(Place { parent, name: name.to_vec(), is_output }))
    }
}

fn done(result: io::Result<()>) -> Answer {
    result.map_or_else(|error| fail(&error), |()| Answer::Done)
}

fn fail(error: &io::Error) -> Answer {
    Answer::Fail(error.raw_os_error().unwrap_or(libc::EIO))
}

fn is_directory(place: &Place) -> bool {
    let stat = rustix::fs::statat(&place.parent, &place.name[..], AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}

#[expect(clippy::cast_possible_truncation, reason = "the kernel looks at the lower half alone, too")]
fn lower_half(argument: u64) -> u32 {
    argument as u32
}

/// The path that an argument of a call points to.
fn named(notice: &Notice, dir: Option<usize>, path: usize) -> io::Result<Named> {
    let dir = dir.map(|argument| lower_half(notice.args[argument]).cast_signed()).filter(|fd| *fd != libc::AT_FDCWD);
    Ok(Named { dir, path: read_path(notice.pid, notice.args[path])? })
}

/// Reads a path from another process' memory.
fn read_path(pid: i32, address: u64) -> io::Result<Vec<u8>> {
    const PAGE: usize = 4096;
    let mut base = usize::try_from(address).map_err(io::Error::other)?;
    let mut path = Vec::new();
    // What is behind the end of the path may not be there to be read.
    while path.len() < 2 * PAGE {
        let mut piece = [0; PAGE];
        let len = PAGE - base % PAGE;
        let remote = [RemoteIoVec { base, len }];
        let read = process_vm_readv(Pid::from_raw(pid), &mut [IoSliceMut::new(&mut piece[..len])], &remote)?;
        if let Some(end) = piece[..read].iter().position(|byte| *byte == 0) {
            path.extend_from_slice(&piece[..end]);
            return Ok(path);
        }
        if read < len {
            break;
        }
        path.extend_from_slice(&piece[..read]);
        base += len;
    }
    Err(io::ErrorKind::InvalidInput.into())
}

/// Splits the last component from a path; `None` where it has none of its own.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut path = path;
    while let Some(shorter) = path.strip_suffix(b"/").or_else(|| path.strip_suffix(b"/.")) {
        path = shorter;
    }
    let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (parent, name) = path.split_at(start);
    (!matches!(name, b"" | b"." | b"..")).then_some((parent, name))
}

/// Opens the directory that a path begins at, and goes on from there, as the process itself would.
fn open_parent(pid: i32, dir: Option<i32>, parent: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = PathBuf::from(format!("/proc/{pid}"));
    let open = |path: &Path| rustix::fs::openat(CWD, path, flags, Mode::empty());
    if parent.starts_with(b"/") {
        let root = open(&process.join("root"))?;
        let same = identity(&root)? == identity(&open(Path::new("/"))?)?;
        return Ok(match same {
            true => rustix::fs::openat(CWD, parent, flags, Mode::empty())?,
            false => rustix::fs::openat2(&root, parent, flags, Mode::empty(), ResolveFlags::IN_ROOT)?,
        });
    }
    let base = open(&match dir {
        None => process.join("cwd"),
        Some(fd) => process.join(format!("fd/{fd}")),
    })?;
    match parent {
        b"" => Ok(base),
        parent => Ok(rustix::fs::openat(&base, parent, flags, Mode::empty())?),
    }
}

fn identity(fd: &OwnedFd) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// What a process may do, as far as others see it.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    user: [String; 3],
    effective: String,
    filters: Option<u64>,
    /// Its user and mount namespaces.
    namespaces: [Option<PathBuf>; 2],
    mask: u32,
}

impl Identity {
    fn of(process: impl std::fmt::Display) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(|value| value.trim().to_owned()).unwrap_or_default()
        };
        let namespace = |name: &str| fs::read_link(format!("/proc/{process}/ns/{name}")).ok();
        Ok(Self {
            user: [field("Uid:"), field("Gid:"), field("Groups:")],
            effective: field("CapEff:"),
            filters: field("Seccomp_filters:").parse().ok(),
            namespaces: [namespace("user"), namespace("mnt")],
            mask: u32::from_str_radix(&field("Umask:"), 8).unwrap_or(0o022),
        })
    }

    fn has_rights_of(&self, other: &Self, rootless: bool) -> bool {
        self.user == other.user
            && self.namespaces == other.namespaces
            && self.filters == other.filters
            // In a user namespace of its own the supervisor has more than the command, and uses none of it.
            && (rootless || self.effective == other.effective)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_component_is_found_as_the_kernel_does() {
        for (path, expected) in [
            (&b"out"[..], Some((&b""[..], &b"out"[..]))),
            (b"/out//", Some((b"/", b"out"))),
            (b"a/../out/./", Some((b"a/../", b"out"))),
            (b"./out/.", Some((b"./", b"out"))),
            (b"out/..", None),
            (b"/", None),
            (b"", None),
            (b".", None),
            (b"a/.out", Some((b"a/", b".out"))),
        ] {
            assert_eq!(split(path), expected, "{}", String::from_utf8_lossy(path));
        }
    }

    #[test]
    fn paths_are_read_across_pages_and_up_to_the_end_of_memory() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut text = vec![b'a'; 20_000];
        text.push(0);
        for from in [15_000, 15_904, 16_000, 19_999, 20_000] {
            let read = read_path(own, text[from..].as_ptr() as u64).unwrap();
            assert_eq!(read.len(), 20_000 - from);
        }
        assert!(read_path(own, text.as_ptr() as u64).is_err(), "longer than any path");
        assert!(read_path(own, 16).is_err());
    }
}
