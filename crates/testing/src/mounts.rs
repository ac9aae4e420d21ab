//! Scratch file systems: loop images, tmpfs and overlayfs, each mounted in a directory of its own and unmounted when dropped,
//! also by a panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A mounted file system.
pub struct Mount {
    at: PathBuf,
    _scratch: Option<TempDir>,
    /// What it lies on: unmounted after it.
    _below: Option<Box<Mount>>,
}

impl Mount {
    /// What somebody else mounted there.
    pub fn of(at: &Path) -> Self {
        Self { at: at.to_path_buf(), _scratch: None, _below: None }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, so that nothing that is still open keeps the mount alive.
        let _ = Command::new("umount").arg("-l").arg(&self.at).stderr(Stdio::null()).status();
    }
}

/// What the file system of an image needs.
struct Image {
    size: u64,
    make: &'static [&'static str],
}

/// Makes and mounts a file system of this type.
///
/// # Errors
/// Why this environment cannot do it.
pub fn mount(kind: &str) -> Result<Mount, String> {
    match kind {
        "tmpfs" => tmpfs(),
        "overlayfs" => overlay_on(tmpfs()?, |_| ()),
        "ext4" => image(&Image { size: 256 << 20, make: &["mkfs.ext4", "-q", "-F"] }),
        "ext4 without a journal" => {
            image(&Image { size: 64 << 20, make: &["mkfs.ext4", "-q", "-F", "-O", "^has_journal"] })
        }
        "ext2" => image(&Image { size: 64 << 20, make: &["mkfs.ext2", "-q", "-F"] }),
        "xfs" => image(&Image { size: 512 << 20, make: &["mkfs.xfs", "-q", "-f"] }),
        "btrfs" => image(&Image { size: 512 << 20, make: &["mkfs.btrfs", "-q", "-f"] }),
        other => Err(format!("no such file system: {other}")),
    }
}

fn scratch() -> Result<TempDir, String> {
    if !crate::is_root() {
        return Err("mounting needs root".into());
    }
    tempfile::Builder::new().prefix("txfs-mount").tempdir().map_err(|error| error.to_string())
}

fn tmpfs() -> Result<Mount, String> {
    let scratch = scratch()?;
    mount_at(scratch.path().join("mnt"), &["-t", "tmpfs", "-o", "mode=0755,size=1g", "tmpfs"], Some(scratch), None)
}

fn image(image: &Image) -> Result<Mount, String> {
    let scratch = scratch()?;
    let file = scratch.path().join("image");
    let made = fs::File::create(&file).and_then(|file| file.set_len(image.size));
    made.map_err(|error| error.to_string())?;
    run(Command::new(image.make[0]).args(&image.make[1..]).arg(&file))?;
    let source = file.to_str().ok_or("a temporary directory that is not UTF-8")?.to_owned();
    mount_at(scratch.path().join("mnt"), &["-o", "loop", &source], Some(scratch), None)
}

/// An overlayfs over `below/lower`, which `fill` may fill before it is mounted.
pub fn overlay(fill: impl FnOnce(&Path)) -> Result<Mount, String> {
    overlay_on(tmpfs()?, fill)
}

fn overlay_on(below: Mount, fill: impl FnOnce(&Path)) -> Result<Mount, String> {
    let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| below.path().join(name));
    for directory in [&lower, &upper, &work] {
        fs::create_dir(directory).map_err(|error| error.to_string())?;
    }
    fill(&lower);
    let layers = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    // As container engines have it.
    let options = format!("{layers},redirect_dir=off");
    mount_at(merged, &["-t", "overlay", "-o", &options, "overlay"], None, Some(below))
}

/// An overlayfs with this option, whose upper layer is `name` in `dir`, and whose lower one is empty.
///
/// # Errors
/// Why this environment cannot do it.
pub fn overlay_over(dir: &Path, name: &str, option: &str) -> Result<Mount, String> {
    let scratch = scratch()?;
    let [lower, merged] = ["lower", "merged"].map(|name| scratch.path().join(name));
    let (upper, work) = (dir.join(name), dir.join(format!("{name}.work")));
    for directory in [&lower, &upper, &work] {
        fs::create_dir(directory).map_err(|error| error.to_string())?;
    }
    let [upper, work] = [&upper, &work].map(|path| path.display().to_string().replace(',', "\\,"));
    let options = format!("lowerdir={},upperdir={upper},workdir={work},{option}", lower.display());
    mount_at(merged, &["-t", "overlay", "-o", &options, "overlay"], Some(scratch), None)
}

/// Mounts another view of `source` at `at`.
pub fn bind(source: &Path, at: &Path) -> Result<Mount, String> {
    if !crate::is_root() {
        return Err("mounting needs root".into());
    }
    run(Command::new("mount").arg("--bind").arg(source).arg(at))?;
    Ok(Mount { at: at.to_path_buf(), _scratch: None, _below: None })
}

fn mount_at(at: PathBuf, arguments: &[&str], scratch: Option<TempDir>, below: Option<Mount>) -> Result<Mount, String> {
    fs::create_dir(&at).map_err(|error| error.to_string())?;
    run(Command::new("mount").args(arguments).arg(&at))?;
    Ok(Mount { at, _scratch: scratch, _below: below.map(Box::new) })
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
