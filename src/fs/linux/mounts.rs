//! What a directory is mounted on.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;

use super::convert;

/// As include/uapi/linux/magic.h has it.
const BTRFS_SUPER_MAGIC: u64 = 0x9123_683e;

pub(super) fn is_btrfs(dir: &OwnedFd) -> bool {
    rustix::fs::fstatfs(dir).is_ok_and(|stat| stat.f_type as u64 == BTRFS_SUPER_MAGIC)
}

/// What tells the mounts of two descriptors apart: the device, and the mount's number where the kernel tells it.
pub(super) fn mount_of(dir: &OwnedFd) -> Result<(u64, Option<u64>), Errno> {
    match rustix::fs::statx(dir, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID) {
        Ok(stat) => {
            let told = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
            Ok((rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), told.then_some(stat.stx_mnt_id)))
        }
        // What takes `openat2` away may take this away, too.
        Err(Errno::NOSYS | Errno::PERM) => Ok((convert(&rustix::fs::fstat(dir)?).dev, None)),
        Err(error) => Err(error),
    }
}

/// The options of the file system that a directory lies on.
pub(super) fn mount_options(dir: &OwnedFd) -> io::Result<String> {
    let (_, mount) = mount_of(dir)?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let options = mount.and_then(|mount| mount_options_in(&mounts, mount));
    options.map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// As /proc/self/mountinfo has them: the mount's number first in its line, the file system's options last.
fn mount_options_in(mounts: &str, mount: u64) -> Option<&str> {
    let line = mounts.lines().find(|line| line.split(' ').next().and_then(|id| id.parse().ok()) == Some(mount))?;
    line.split_once(" - ")?.1.split(' ').next_back()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::fs::{Fs, LinuxFs};

    #[test]
    fn the_options_of_a_mount_are_the_last_in_its_line() {
        let mounts = "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                      125 25 0:45 /vol /srv rw - btrfs /dev/sdb rw,ssd,space_cache=v2\n";
        assert_eq!(mount_options_in(mounts, 125), Some("rw,ssd,space_cache=v2"));
        assert_eq!(mount_options_in(mounts, 25), Some("rw,errors=remount-ro"));
        assert_eq!(mount_options_in(mounts, 5), None);
        let root = LinuxFs::new().open_anchor(Path::new("/")).unwrap();
        assert!(!mount_options(&root).unwrap().is_empty());
    }
}
