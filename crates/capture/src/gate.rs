//! Why a capture cannot be had here: the gate that is shut, and the way out, in words.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::process::{getegid, geteuid};

use crate::walk;

/// A step on the way into a capture. What failed is told by its number over a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Users,
    MapUser,
    Mounts,
    Private,
    Output,
    Place,
    Overlay,
    Bind,
    Cover,
    Helper,
    Filter,
    Program,
}

impl Step {
    const ALL: [Self; 12] = [
        Self::Users,
        Self::MapUser,
        Self::Mounts,
        Self::Private,
        Self::Output,
        Self::Place,
        Self::Overlay,
        Self::Bind,
        Self::Cover,
        Self::Helper,
        Self::Filter,
        Self::Program,
    ];

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == number)
    }
}

/// What is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gate {
    /// AppArmor lets an ordinary user have a user namespace, and no rights in it (Ubuntu since 23.10).
    AppArmor,
    /// The machine does not let ordinary users have user namespaces.
    UserNamespaces,
    /// A seccomp filter, as container runtimes set one, forbids namespaces or mounts.
    Container,
    /// The kernel has no overlay file system, or does not let ordinary users mount it (before Linux 5.11).
    NoOverlay,
    /// The file system that is to hold the writes cannot be the upper layer of an overlay: another overlay, NFS, one without attributes.
    Upper,
    /// Other mounts lie below the output.
    MountsBelow(PathBuf),
    /// In the output lies what is not this user's, or is another group's than its first one: in a user namespace nobody else has a number, and
    /// an overlay copies up nothing of that (EOVERFLOW).
    OfOthers(PathBuf),
    /// A process tree has one supervisor of calls only, and this one has one already.
    Nested,
    /// The kernel has no seccomp user notification (before Linux 5.5).
    Notification,
    /// Neither `/proc`, nor its files of this process, can be used.
    Proc,
    /// The machine's calls are not known to this program.
    Machine,
    /// Something else failed.
    Other(&'static str),
}

/// A capture that cannot be had: the gate that is shut, and what the system said.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// What is in the way.
    pub gate: Gate,
    /// What the system said, if it was asked.
    pub error: Option<io::Error>,
}

impl Refusal {
    pub(crate) fn of(gate: Gate) -> Self {
        Self { gate, error: None }
    }

    /// Finds the gate that a failed step ran into.
    pub(crate) fn at(step: Step, error: io::Error) -> Self {
        let gate = gate_of(step, error.raw_os_error().unwrap_or_default(), &Machine::look());
        Self { gate, error: Some(error) }
    }

    /// What can be done about it.
    pub fn way_out(&self) -> &'static str {
        match self.gate {
            Gate::AppArmor => "install an AppArmor profile for this program that allows `userns,`, or run it as root",
            Gate::UserNamespaces => {
                "allow them (`sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000`), or run it as root"
            }
            Gate::Container => {
                "start the container with a seccomp profile that allows `unshare` and `mount`, or with --privileged"
            }
            Gate::NoOverlay => "load it (`modprobe overlay`), use Linux 5.11 or later, or capture by a copy",
            Gate::Upper => "move the output to ext4, xfs or btrfs, or capture by a copy",
            Gate::MountsBelow(_) => "unmount it while the command runs",
            Gate::OfOthers(_) => "capture by a copy, or run it as root",
            Gate::Nested => "run both commands under one capture",
            Gate::Notification => "use Linux 5.5 or later",
            Gate::Proc => "mount /proc",
            Gate::Machine => "use x86-64, aarch64 or riscv64",
            Gate::Other(_) => "have the command write elsewhere",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.gate {
            Gate::AppArmor => f.write_str("AppArmor denies this program what it needs in a user namespace"),
            Gate::UserNamespaces => f.write_str("this machine does not let ordinary users have user namespaces"),
            Gate::Container => f.write_str("a seccomp filter, as containers have one, forbids namespaces or mounts"),
            Gate::NoOverlay => f.write_str("this kernel has no overlay file system that this user may mount"),
            Gate::Upper => f.write_str("the file system beside the output cannot take an overlay's writes"),
            Gate::MountsBelow(at) => write!(f, "{} is mounted below the output", at.display()),
            Gate::OfOthers(at) => {
                write!(
                    f,
                    "{} is another user's, or another group's: an overlay of this user cannot change it",
                    at.display()
                )
            }
            Gate::Nested => f.write_str("another capture, or a supervisor of its kind, runs this program already"),
            Gate::Notification => f.write_str("this kernel cannot have a program's calls supervised"),
            Gate::Proc => f.write_str("/proc cannot be used"),
            Gate::Machine => f.write_str("the system calls of this kind of machine are not known"),
            Gate::Other(what) => write!(f, "cannot {what}"),
        }?;
        match &self.error {
            Some(error) => write!(f, " ({error})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.as_ref().map(|error| error as _)
    }
}

/// What the machine says of itself, for telling gates apart that fail alike.
struct Machine {
    /// AppArmor restricts user namespaces.
    restricted: bool,
    /// The administrator forbids them.
    forbidden: bool,
    /// This process is under a seccomp filter.
    filtered: bool,
    /// `/proc` is there.
    has_proc: bool,
}

impl Machine {
    fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        Self {
            restricted: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").trim() == "1",
            forbidden: read("/proc/sys/kernel/unprivileged_userns_clone").trim() == "0"
                || read("/proc/sys/user/max_user_namespaces").trim() == "0",
            filtered: status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2")),
            has_proc: !status.is_empty(),
        }
    }
}

fn gate_of(step: Step, errno: i32, machine: &Machine) -> Gate {
    let denied = matches!(errno, libc::EPERM | libc::EACCES);
    match step {
        _ if !machine.has_proc => Gate::Proc,
        Step::Users if machine.forbidden => Gate::UserNamespaces,
        Step::Users | Step::MapUser | Step::Mounts | Step::Private | Step::Overlay | Step::Bind
            if denied && machine.restricted =>
        {
            Gate::AppArmor
        }
        Step::Users | Step::Mounts | Step::Private | Step::Bind if denied && machine.filtered => Gate::Container,
        Step::Users | Step::MapUser => Gate::UserNamespaces,
        Step::Overlay if matches!(errno, libc::ENODEV | libc::EPERM) => Gate::NoOverlay,
        Step::Overlay => Gate::Upper,
        Step::Filter if errno == libc::EBUSY => Gate::Nested,
        Step::Filter if matches!(errno, libc::EINVAL | libc::ENOSYS) => Gate::Notification,
        Step::Mounts | Step::Private => Gate::Other("have mounts of its own"),
        Step::Output => Gate::Other("open the output"),
        Step::Place => Gate::Other("use the directory that is to take the writes"),
        Step::Bind => Gate::Other("mount a directory over the output"),
        Step::Cover => Gate::Other("hide the output"),
        Step::Helper => Gate::Other("start another process"),
        Step::Filter => Gate::Other("supervise the command's calls"),
        Step::Program => Gate::Other("run the command"),
    }
}

/// The first mount that lies below `output`, of which an overlay, or a copy, would show nothing.
pub(crate) fn mount_below(output: &Path) -> io::Result<Option<PathBuf>> {
    let mounts = std::fs::read("/proc/self/mountinfo")?;
    Ok(find_below(&mounts, output))
}

/// The first entry below `output` of which an overlay in a user namespace of this process' user could change nothing. What is in a directory
/// that cannot be read is not known.
pub(crate) fn of_others(output: &Path) -> io::Result<Option<PathBuf>> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    let root = walk::open(output)?;
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let listed = walk::open_below(&root, &directory).and_then(|dir| walk::list(&dir));
        for (name, stat) in listed.unwrap_or_default() {
            let path = directory.join(name);
            if (stat.st_uid, stat.st_gid) != (user, group) {
                return Ok(Some(output.join(path)));
            }
            if walk::kind(&stat) == FileType::Directory {
                directories.push(path);
            }
        }
    }
    Ok(None)
}

fn find_below(mounts: &[u8], output: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let places = mounts.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let mut places = places.map(|place| PathBuf::from(std::ffi::OsString::from_vec(unescape(place))));
    places.find(|place| place != output && place.starts_with(output))
}

/// The kernel writes blanks and the like as `\040`.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let octal = (*first == b'\\').then(|| after.get(..3)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &after[3..] } else { after };
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Machine = Machine { restricted: false, forbidden: false, filtered: false, has_proc: true };

    #[test]
    fn each_gate_is_told_from_the_others() {
        for (step, errno, machine, gate) in [
            (Step::Users, libc::ENOSPC, Machine { forbidden: true, ..OPEN }, Gate::UserNamespaces),
            (Step::Users, libc::EPERM, Machine { filtered: true, ..OPEN }, Gate::Container),
            (Step::Users, libc::EINVAL, OPEN, Gate::UserNamespaces),
            (Step::MapUser, libc::EPERM, Machine { restricted: true, ..OPEN }, Gate::AppArmor),
            (Step::Private, libc::EACCES, Machine { restricted: true, ..OPEN }, Gate::AppArmor),
            (Step::Overlay, libc::ENODEV, OPEN, Gate::NoOverlay),
            (Step::Overlay, libc::EPERM, OPEN, Gate::NoOverlay),
            (Step::Overlay, libc::EINVAL, OPEN, Gate::Upper),
            (Step::Filter, libc::EBUSY, OPEN, Gate::Nested),
            (Step::Filter, libc::EINVAL, OPEN, Gate::Notification),
            (Step::Users, libc::EPERM, Machine { has_proc: false, ..OPEN }, Gate::Proc),
        ] {
            assert_eq!(gate_of(step, errno, &machine), gate, "{step:?} {errno}");
        }
    }

    #[test]
    fn a_mount_below_is_found_whatever_its_name() {
        let mounts = b"1 2 3:4 / / rw - ext4 x rw\n5 1 3:4 / /a\\040b rw - ext4 x rw\n6 1 3:4 / /a\\040b/c\\134d rw\n7 1 1:1 / /a\\040bc/x";
        assert_eq!(find_below(mounts, Path::new("/a b")), Some(PathBuf::from("/a b/c\\d")));
        assert_eq!(find_below(mounts, Path::new("/a b/c\\d")), None);
        assert_eq!(find_below(mounts, Path::new("/x")), None);
    }
}
