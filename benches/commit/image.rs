//! Loop images of file systems.
//!
//! Invariant: nothing is left behind but an empty directory, however this process ends. Everything is mounted in a mount namespace
//! of this process alone, which the kernel takes down with its last process; a loop device is freed when it is unmounted; and an
//! image loses its name as soon as it is mounted.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::measure::Outcome;

/// The file systems that can be made.
pub(crate) const KINDS: [&str; 3] = ["ext4", "xfs", "btrfs"];

/// Where an image is mounted, in the directory where it lies. Others see an empty directory.
const MOUNTED: &str = "mnt";

const SIZE: u64 = 8 << 30;
/// A million files need as many inodes.
const LARGE: u64 = 32 << 30;

/// Takes this process to a mount namespace of its own.
pub(crate) fn be_alone() -> Outcome<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("mounting needs root: {error}"))?;
    Ok(mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?)
}

/// A mounted image.
pub(crate) struct Image {
    at: PathBuf,
}

impl Image {
    /// Makes a file system of this kind in a sparse file in `dir`, and mounts it.
    pub(crate) fn mount(kind: &str, dir: &Path, large: bool) -> Outcome<Self> {
        let dir = dir.canonicalize()?;
        let file = dir.join(format!("{kind}-{}.image", std::process::id()));
        let made = make(kind, &file, if large { LARGE } else { SIZE });
        let mounted = made.and_then(|()| {
            let at = dir.join(MOUNTED);
            fs::create_dir_all(&at)?;
            // What ext4 did not write when it was made it would write while we measure.
            let options = if kind == "ext4" { "loop,noinit_itable" } else { "loop" };
            run(Command::new("mount").args(["-o", options]).arg(&file).arg(&at))?;
            Ok(Self { at })
        });
        fs::remove_file(&file)?;
        mounted
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // Lazily: what is still open does not keep it.
        let _ = Command::new("umount").arg("-l").arg(&self.at).stderr(Stdio::null()).status();
    }
}

fn make(kind: &str, file: &Path, size: u64) -> Outcome<()> {
    File::create(file)?.set_len(size)?;
    let force = if kind == "ext4" { "-F" } else { "-f" };
    run(Command::new(format!("mkfs.{kind}")).args(["-q", force]).arg(file))
}

fn run(command: &mut Command) -> Outcome<()> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()).into()),
    }
}
