//! The place in which a command runs: namespaces of its own, and what it sees where the output is.
//!
//! Invariants:
//! 1. No mount made here is seen outside (G14), and all of them die with the last process inside.
//! 2. The user keeps its own number: programs that ask who they are get the same answer as ever.
//! 3. Nothing is named by a path that mount options would have to quote: all by `/proc/self/fd/N`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, StatVfsMountFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_remount};
use rustix::process::{DumpableBehavior, getegid, geteuid, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, remove_capability_from_bounding_set};

use crate::gate::Step;
use crate::sys;

/// A step that failed.
pub(crate) type Failed = (Step, io::Error);

/// What is known before the process that goes inside is there.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// The directory that holds the output.
    pub(crate) parent: PathBuf,
    /// The output's name in it.
    pub(crate) name: OsString,
    /// The caller's directory, which takes what is written.
    pub(crate) place: PathBuf,
    /// Of it, the upper layer of the overlay, or the directory that is seen instead of the output.
    pub(crate) first: OsString,
    /// Whether the output's own content is seen below what is written.
    pub(crate) overlay: bool,
    /// Whether the output is to seem absent.
    pub(crate) absent: bool,
    /// Whether calls that only look are asked about, though a cover may see to it; for tests.
    pub(crate) stats: bool,
}

/// Inside.
pub(crate) struct Space {
    pub(crate) parent: OwnedFd,
    pub(crate) name: OsString,
    /// The parent's identity.
    pub(crate) parent_id: (u64, u64),
    pub(crate) place: OwnedFd,
    pub(crate) first: OsString,
    pub(crate) overlay: bool,
    pub(crate) rootless: bool,
    /// Whether a mount can show nothing at all.
    pub(crate) ghosts: bool,
    /// What this process was able to do before it went inside.
    able: CapabilitySet,
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Where a descriptor's file is, for calls that take a path.
pub(crate) fn at(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

pub(crate) fn open_dir(dir: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?)
}

/// Goes inside. The process that calls it has one thread, and does not come out again.
pub(crate) fn enter(setup: &Setup) -> Result<Space, Failed> {
    let able = capabilities(None).map_err(|errno| (Step::Users, errno.into()))?;
    let rootless = is_rootless().map_err(|error| (Step::Users, error))?;
    let cwd = std::env::current_dir().ok();
    leave(rootless)?;
    let parent = rustix::fs::openat(CWD, &setup.parent, DIRECTORY, Mode::empty());
    let parent = parent.map_err(|errno| (Step::Output, errno.into()))?;
    let stat = rustix::fs::fstat(&parent).map_err(|errno| (Step::Output, errno.into()))?;
    let place = rustix::fs::openat(CWD, &setup.place, DIRECTORY, Mode::empty());
    let space = Space {
        parent,
        name: setup.name.clone(),
        parent_id: (stat.st_dev, stat.st_ino),
        place: place.map_err(|errno| (Step::Place, errno.into()))?,
        first: setup.first.clone(),
        overlay: setup.overlay,
        rootless,
        ghosts: !setup.stats && has_ghosts().map_err(|error| (Step::Cover, error))?,
        able: able.permitted,
    };
    space.show_first()?;
    if setup.absent {
        space.cover().map_err(|error| (Step::Cover, error))?;
    } else {
        space.go_back(cwd, &setup.parent.join(&setup.name)).map_err(|error| (Step::Output, error))?;
    }
    Ok(space)
}

/// Whether this process needs a user namespace, in which its own user and group alone have numbers.
pub(crate) fn is_rootless() -> io::Result<bool> {
    Ok(!capabilities(None)?.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Out of the namespaces that others share.
fn leave(rootless: bool) -> Result<(), Failed> {
    // Otherwise the files of /proc that are written here belong to root, where the program may not be read.
    set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(|errno| (Step::Users, errno.into()))?;
    if rootless {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNS).map_err(|error| (Step::Users, error))?;
        let map = |file: &str, text: String| fs::write(file, text).map_err(|error| (Step::MapUser, error));
        // Before Linux 3.19 there is no such file, and no need for it.
        if Path::new("/proc/self/setgroups").exists() {
            map("/proc/self/setgroups", "deny".to_owned())?;
        }
        map("/proc/self/uid_map", format!("{user} {user} 1"))?;
        map("/proc/self/gid_map", format!("{group} {group} 1"))?;
    } else {
        sys::unshare(UnshareFlags::NEWNS).map_err(|error| (Step::Mounts, error))?;
    }
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    match mount_change("/", flags) {
        // In a changed root that is no mount. In a user namespace no mount is shared with others anyway.
        Err(Errno::INVAL) if rootless => Ok(()),
        changed => changed.map_err(|errno| (Step::Private, errno.into())),
    }
}

/// Does something with a directory that is not there from then on, to whoever asks: `stat` says ENOENT, and so does all that looks for
/// something in it. It is a process' directory of descriptors, whose process has ended.
fn with_ghost<T>(act: impl FnOnce(&OwnedFd) -> io::Result<T>) -> io::Result<T> {
    let (end, mut waiting) = UnixStream::pair()?;
    let Some(child) = sys::fork()? else {
        drop(end);
        let _ = waiting.read(&mut [0]);
        sys::exit(0)
    };
    drop(waiting);
    // The child lives: of one that has ended the directory belongs to root, and others get EACCES below it.
    let directory = rustix::fs::openat(CWD, format!("/proc/{child}/fd"), DIRECTORY, Mode::empty());
    drop(end);
    let wait = |flags| while waitid(Id::Pid(child), WaitPidFlag::WEXITED | flags) == Err(nix::errno::Errno::EINTR) {};
    // From here on the directory is empty, and until the child is reaped it can be mounted.
    wait(WaitPidFlag::WNOWAIT);
    let done = directory.map_err(io::Error::from).and_then(|directory| act(&directory));
    wait(WaitPidFlag::empty());
    done
}

/// Whether the kernel has such ghosts: since Linux 6.2.
fn has_ghosts() -> io::Result<bool> {
    let directory = with_ghost(|directory| directory.try_clone())?;
    Ok(rustix::fs::statat(&directory, "", AtFlags::EMPTY_PATH).is_err())
}

impl Space {
    /// Where the output is seen. Mounts on it are followed, the uppermost.
    pub(crate) fn output(&self) -> PathBuf {
        at(&self.parent).join(&self.name)
    }

    /// The descriptors that have to stay open.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        vec![self.parent.as_raw_fd(), self.place.as_raw_fd()]
    }

    fn show_first(&self) -> Result<(), Failed> {
        let output = open_dir(&self.parent, &self.name).map_err(|error| (Step::Output, error))?;
        let first = open_dir(&self.place, &self.first).map_err(|error| (Step::Place, error))?;
        inherit(&output, &first);
        // At the bottom is an empty directory: whatever is taken away above it, the output itself never comes to light.
        self.show(&self.empty().map_err(|error| (Step::Place, error))?).map_err(|error| (Step::Bind, error))?;
        if !self.overlay {
            return self.show(&first).map_err(|error| (Step::Bind, error));
        }
        let work = self.make_dir(OsStr::new(WORK), 0o700).map_err(|error| (Step::Place, error))?;
        mount_overlay(&output, &first, &work, &self.output(), self.rootless)
            .map_err(|errno| (Step::Overlay, errno.into()))
    }

    /// Shows a directory where the output is.
    pub(crate) fn show(&self, directory: &OwnedFd) -> io::Result<()> {
        Ok(mount_bind(at(directory), self.output())?)
    }

    /// Hides whatever is shown: nothing is there.
    pub(crate) fn cover(&self) -> io::Result<()> {
        if self.ghosts {
            return with_ghost(|ghost| self.show(ghost));
        }
        let cover = self.empty()?;
        self.show(&cover)?;
        Ok(mount_remount(self.output(), MountFlags::BIND | MountFlags::RDONLY | flags_of(&cover), "")?)
    }

    /// A directory that stays empty.
    fn empty(&self) -> io::Result<OwnedFd> {
        self.make_dir(OsStr::new(COVER), 0o555)
    }

    /// Does with an overlay what commands do. Some file systems let it be mounted and fail then.
    pub(crate) fn try_overlay(&self) -> io::Result<()> {
        const NAME: &str = ".txfs-probe";
        rustix::fs::mknodat(&self.place, NAME, FileType::CharacterDevice, Mode::empty(), 0)?;
        rustix::fs::unlinkat(&self.place, NAME, AtFlags::empty())?;
        let output = rustix::fs::openat(CWD, self.output(), DIRECTORY, Mode::empty())?;
        rustix::fs::mkdirat(&output, NAME, Mode::RWXU)?;
        rustix::fs::unlinkat(&output, NAME, AtFlags::REMOVEDIR)?;
        self.try_opaque(NAME.as_ref())
    }

    /// A directory that was removed, with something in it, is one that hides what is below; for a file system without attributes the overlay
    /// finds out when that is to be made, and says EIO.
    fn try_opaque(&self, name: &OsStr) -> io::Result<()> {
        let attribute = if self.rootless { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
        let opaque = self.make_dir(name, 0o700)?;
        // Its path is a link to it.
        let set = xattr::set_deref(at(&opaque), attribute, b"y");
        rustix::fs::unlinkat(&self.place, name, AtFlags::REMOVEDIR)?;
        set
    }

    /// Makes a directory in the caller's.
    pub(crate) fn make_dir(&self, name: &OsStr, mode: u32) -> io::Result<OwnedFd> {
        match rustix::fs::mkdirat(&self.place, name, Mode::from_raw_mode(mode)) {
            Err(Errno::EXIST) => {}
            made => made?,
        }
        open_dir(&self.place, name)
    }

    /// Who was in the output, or below it, is there again. Elsewhere nothing has changed.
    fn go_back(&self, cwd: Option<PathBuf>, output: &Path) -> io::Result<()> {
        let Some(cwd) = cwd else { return Ok(()) };
        let Ok(below) = cwd.strip_prefix(output) else { return Ok(()) };
        let there = self.output().join(below);
        Ok(rustix::process::chdir(&there).or_else(|_| rustix::process::chdir(self.output()))?)
    }

    /// What the command's user was not able to do outside it is not able to do inside either. To be called by the process that
    /// becomes the command.
    pub(crate) fn give_up_rights(&self) -> io::Result<()> {
        if !self.rootless {
            return Ok(());
        }
        for capability in CapabilitySet::all().iter().filter(|capability| !self.able.contains(*capability)) {
            match remove_capability_from_bounding_set(capability) {
                // This kernel does not have it yet.
                Err(Errno::INVAL) => {}
                removed => removed?,
            }
        }
        Ok(())
    }
}

/// The names that are used in the caller's directory, beside the first.
pub(crate) const WORK: &str = "work";
pub(crate) const COVER: &str = "cover";
pub(crate) const ROOT: &str = "root";

fn mount_overlay(lower: &OwnedFd, upper: &OwnedFd, work: &OwnedFd, output: &Path, rootless: bool) -> Result<(), Errno> {
    let layers =
        format!("lowerdir={},upperdir={},workdir={}", at(lower).display(), at(upper).display(), at(work).display());
    // A renamed directory that is only noted, or a file of which only the attributes were copied, would need the lower layer to be read.
    let plain = if rootless { ",userxattr" } else { ",redirect_dir=nofollow,metacopy=off,index=off" };
    let flags = flags_of(lower);
    // What is written is made durable when it is published. Otherwise the whole file system is, at the end of the mount.
    let volatile = mount("overlay", output, "overlay", flags, options(&format!("{layers}{plain},volatile")).as_deref());
    match volatile {
        Err(Errno::INVAL) => {
            mount("overlay", output, "overlay", flags, options(&format!("{layers}{plain}")).as_deref())
        }
        mounted => mounted,
    }
}

fn options(text: &str) -> Option<std::ffi::CString> {
    std::ffi::CString::new(text).ok()
}

/// How the file system below is mounted; what is mounted over it allows no more.
fn flags_of(fd: &OwnedFd) -> MountFlags {
    let Ok(stat) = rustix::fs::fstatvfs(fd) else { return MountFlags::empty() };
    let pairs = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    pairs.iter().filter(|(is, _)| stat.f_flag.contains(*is)).fold(MountFlags::empty(), |flags, (_, flag)| flags | *flag)
}

/// Gives a directory the group, the mode, and the attributes of another, as far as this user may: what is made in it gets what it would
/// have got there.
pub(crate) fn inherit(from: &OwnedFd, to: &OwnedFd) {
    let (from, to) = (at(from), at(to));
    let Ok(stat) = fs::metadata(&from) else { return };
    let _ = rustix::fs::chownat(
        CWD,
        &to,
        Some(Uid::from_raw(stat.uid())),
        Some(Gid::from_raw(stat.gid())),
        AtFlags::empty(),
    )
    .or_else(|_| rustix::fs::chownat(CWD, &to, None, Some(Gid::from_raw(stat.gid())), AtFlags::empty()));
    let _ = fs::set_permissions(&to, fs::Permissions::from_mode(stat.mode() & 0o7777));
    let names = xattr::list(&from).into_iter().flatten();
    for name in names.filter(|name| !is_internal(name)) {
        if let Ok(Some(value)) = xattr::get(&from, &name) {
            let _ = xattr::set(&to, &name, &value);
        }
    }
}

/// Whether an attribute is one that an overlay keeps for itself, or that only root sees.
fn is_internal(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"user.overlay.") || name.starts_with(b"trusted.")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To an ordinary user, too; root may search any directory.
    #[test]
    fn nothing_is_below_what_is_not_there() {
        let look = |ghost: &OwnedFd| Ok(rustix::fs::statat(ghost, "name", AtFlags::empty()));
        for _ in 0..1000 {
            assert_eq!(with_ghost(look).unwrap().map(drop), Err(Errno::NOENT));
        }
    }
}
