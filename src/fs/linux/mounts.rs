//! What a directory is mounted on.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use super::convert;
use crate::fs::Weakness;

/// As include/uapi/linux/magic.h has it.
const BTRFS_SUPER_MAGIC: u64 = 0x9123_683e;
const OVERLAYFS_SUPER_MAGIC: u64 = 0x794c_7630;

const OVERLAY: &str = "overlay";
const FAT: [&str; 3] = ["vfat", "msdos", "exfat"];
const EXT: [&str; 3] = ["ext2", "ext3", "ext4"];
const REMOTE: [&str; 11] = ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs", "ocfs2", "gfs2", "fuse.sshfs"];

/// How a mount shows that it does not wait for the disk: f2fs has the third, and overlayfs the last two, by the age of the kernel.
const NO_BARRIERS: [&str; 5] = ["nobarrier", "barrier=0", "fsync_mode=nobarrier", "volatile", "fsync=volatile"];

/// [`Fs::weaknesses`](crate::fs::Fs::weaknesses). Where nothing is told of the mount, none is known.
pub(super) fn weaknesses(dir: &OwnedFd) -> Vec<Weakness> {
    let Ok(Some((kind, options))) = of_mount(dir, described_in) else { return Vec::new() };
    let mut weaknesses = weaknesses_of(dir, &kind, &options);
    // What is written to an overlay lies in its upper layer. That is no overlay itself: the kernel takes none.
    if let Some(upper) = upper_of(&kind, &options)
        && let Ok(Some((kind, options))) = of_mount(&upper, described_in)
    {
        weaknesses.extend(weaknesses_of(&upper, &kind, &options));
    }
    weaknesses
}

/// The upper layer of an overlay, where this process sees it, as one in a container as a rule does not.
fn upper_of(kind: &str, options: &str) -> Option<OwnedFd> {
    let open = |path| rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok();
    if kind == OVERLAY { uppers_in(options).into_iter().find_map(open) } else { None }
}

/// What a file system lacks by its kind and its options.
fn weaknesses_of(dir: &OwnedFd, kind: &str, options: &str) -> Vec<Weakness> {
    let has = |names: &[&str]| options.split(',').any(|option| names.contains(&option));
    let is = |names: &[&str]| names.contains(&kind);
    let mut weaknesses = Vec::new();
    if is(&FAT) {
        weaknesses.push(Weakness::Fat);
    }
    if is(&EXT) && !has_journal(dir, kind) {
        let device = |dir: &OwnedFd| mount_of(dir).map(|(device, _)| device).ok();
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok();
        let is_root = root.is_some_and(|root| device(&root) == device(dir));
        weaknesses.push(if is_root { Weakness::RootWithoutJournal } else { Weakness::NoJournal });
    }
    if has(&NO_BARRIERS) {
        weaknesses.push(Weakness::NoBarriers);
    }
    if is(&REMOTE) {
        let local = has(&["nolock", "nobrl", "local_lock=all", "local_lock=flock"]);
        weaknesses.push(if local { Weakness::LocalLocks } else { Weakness::Remote });
    }
    weaknesses
}

/// Whether an ext file system has a journal, which its driver tells in /sys; the ext2 driver has no entry there, and no journal. Where
/// nothing is told of another, it is taken to have one.
fn has_journal(dir: &OwnedFd, kind: &str) -> bool {
    let Ok((device, _)) = mount_of(dir) else { return true };
    let named = format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(target) = std::fs::read_link(named) else { return true };
    let Some(name) = target.file_name() else { return true };
    let ext4 = std::path::Path::new("/sys/fs/ext4");
    match std::fs::read_to_string(ext4.join(name).join("journal_task")) {
        Ok(task) => task.trim() != "<none>",
        Err(_) => kind != "ext2",
    }
}

pub(super) fn is_btrfs(dir: &OwnedFd) -> bool {
    is(dir, BTRFS_SUPER_MAGIC)
}

pub(super) fn is_overlay(dir: &OwnedFd) -> bool {
    is(dir, OVERLAYFS_SUPER_MAGIC)
}

fn is(dir: &OwnedFd, magic: u64) -> bool {
    rustix::fs::fstatfs(dir).is_ok_and(|stat| stat.f_type as u64 == magic)
}

/// What tells the mounts of two descriptors apart: the device, and the mount's number where the kernel tells it.
pub(super) fn mount_of(dir: impl AsFd) -> Result<(u64, Option<u64>), Errno> {
    match rustix::fs::statx(&dir, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(stat) => {
            let told = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
            Ok((rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), told.then_some(stat.stx_mnt_id)))
        }
        // What takes `openat2` away may take this away, too.
        Err(Errno::NOSYS | Errno::PERM) => Ok((convert(&rustix::fs::fstat(&dir)?).dev, None)),
        Err(error) => Err(error),
    }
}

/// The options of the file system that a directory lies on.
pub(super) fn mount_options(dir: &OwnedFd) -> io::Result<String> {
    let options = of_mount(dir, mount_options_in)?;
    options.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// The device of the mount that a file lies on, as the kernel's own lists have it: btrfs and overlayfs tell whoever asks of the file
/// another.
pub(super) fn mount_device(file: impl AsFd) -> Option<u64> {
    of_mount(file, mount_device_in).ok()?
}

/// What `read` finds in the line of /proc/self/mountinfo for the mount that a file lies on.
fn of_mount<T>(file: impl AsFd, read: impl FnOnce(&str) -> Option<T>) -> io::Result<Option<T>> {
    let (_, mount) = mount_of(file)?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mount.and_then(|mount| line_of(&mounts, mount)).and_then(read))
}

/// The mount's number is the first in its line.
fn line_of(mounts: &str, mount: u64) -> Option<&str> {
    mounts.lines().find(|line| line.split(' ').next().and_then(|id| id.parse().ok()) == Some(mount))
}

/// The file system's kind is the first after the dash, and its options are the last.
fn described_in(line: &str) -> Option<(String, String)> {
    let mut words = line.split_once(" - ")?.1.split(' ');
    Some((words.next()?.to_owned(), words.next_back()?.to_owned()))
}

/// Where the upper layer of an overlay is, which has to be an absolute path to be found: with the backslashes by which commas were
/// mounted, and without them.
fn uppers_in(options: &str) -> Vec<PathBuf> {
    let shown = options.split(',').find_map(|option| option.strip_prefix("upperdir="));
    let Some(upper) = shown.map(unescape).filter(|upper| upper.starts_with(b"/")) else { return Vec::new() };
    let without: Vec<u8> = upper.iter().copied().filter(|&byte| byte != b'\\').collect();
    [upper, without].map(|path| PathBuf::from(OsStr::from_bytes(&path))).into()
}

/// Blanks, commas and the like are shown as a backslash and three octal digits.
fn unescape(shown: &str) -> Vec<u8> {
    let mut parts = shown.split('\\');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&part.as_bytes()[3..]);
            }
            None => bytes.extend_from_slice(&[b"\\", part.as_bytes()].concat()),
        }
    }
    bytes
}

/// The file system's options are the last.
fn mount_options_in(line: &str) -> Option<String> {
    line.split_once(" - ")?.1.split(' ').next_back().map(str::to_owned)
}

/// The device is the third, in decimal numbers.
fn mount_device_in(line: &str) -> Option<u64> {
    let (major, minor) = line.split(' ').nth(2)?.split_once(':')?;
    Some(rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fs::{Fs, LinuxFs};

    #[test]
    fn a_mount_has_its_number_its_device_and_its_options_in_one_line() {
        let mounts = "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                      125 25 0:45 /vol /srv rw - btrfs /dev/sdb rw,ssd,space_cache=v2\n";
        let read = |mount| line_of(mounts, mount).map(|line| (mount_options_in(line), mount_device_in(line)));
        let told = |options: &str, device| Some((Some(options.to_owned()), Some(device)));
        assert_eq!(read(125), told("rw,ssd,space_cache=v2", rustix::fs::makedev(0, 45)));
        assert_eq!(read(25), told("rw,errors=remount-ro", rustix::fs::makedev(8, 1)));
        assert_eq!(read(5), None);
        let root = LinuxFs::new().open_anchor(Path::new("/")).unwrap();
        assert!(!mount_options(&root).unwrap().is_empty());
        assert!(mount_device(&root).is_some());
    }

    #[test]
    fn the_upper_layer_of_an_overlay_is_where_its_options_say_whatever_its_name_is() {
        let uppers =
            |options| uppers_in(options).into_iter().map(|upper| upper.into_os_string().into_string().unwrap());
        let told = |options| uppers(options).collect::<Vec<_>>();
        assert_eq!(told(r"rw,lowerdir=/l,upperdir=/u\040b,workdir=/w,uuid=on")[0], "/u b");
        assert_eq!(told(r"rw,upperdir=/u\134\054x")[1], "/u,x");
        assert_eq!(told(r"rw,upperdir=/u\13").len(), 2);
        for none in ["rw,lowerdir=/l", "rw,upperdir=u"] {
            assert_eq!(told(none), [] as [&str; 0]);
        }
    }
}
