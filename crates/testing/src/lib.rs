//! What the integration tests share: scratch file systems, snapshots of trees, the behaviour suite, and a file system that fails.

#![allow(missing_docs, clippy::unwrap_used, reason = "a test that cannot go on stops")]

pub mod faulty;
pub mod forge;
pub mod generations;
pub mod instances;
pub mod mounts;
pub mod suite;
pub mod tree;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use txfs::fs::linux::Without;
use txfs::fs::{Fs, LinuxFs};
use txfs::{BeginOptions, CommitOptions, Committed, Store};

/// Whether tests whose environment cannot run them have to fail instead of being skipped: CI says so.
pub fn required() -> bool {
    std::env::var_os("TXFS_REQUIRE_MOUNTS").is_some_and(|value| value == "1")
}

/// Says on stderr that a test was not run, past the test harness' capture; fails where nothing may be skipped.
pub fn skip(test: &str, why: &str) {
    use std::io::Write;
    assert!(!required(), "{test} cannot run here, and TXFS_REQUIRE_MOUNTS=1: {why}");
    let _ = writeln!(std::io::stderr().lock(), "SKIPPED: {test}: {why}");
}

/// Whether this process is root.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// How long the open-ended tests run, in seconds: `TXFS_SECONDS` makes them longer.
pub fn seconds(default: u64) -> u64 {
    std::env::var("TXFS_SECONDS").ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Where random choices start from: what `TXFS_SEED` says, or anything. It is printed, so that it can be said the next time.
pub fn seed() -> u64 {
    let said = std::env::var("TXFS_SEED").ok().map(|value| value.parse().expect("TXFS_SEED is a number"));
    let seed = said.unwrap_or_else(|| std::process::id().into());
    println!("TXFS_SEED={seed}");
    seed
}

/// A directory in memory where there is such a place: for tests of many short commits, whose barriers cost nothing there.
pub fn fast_scratch() -> Scratch {
    let memory = Path::new("/dev/shm");
    Scratch(if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() })
}

/// A temporary directory that goes with everything in it, also where the tests made directories read-only.
pub struct Scratch(tempfile::TempDir);

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        open_up(self.path());
    }
}

/// A directory in memory, and an output in it that is not there yet.
pub fn scratch() -> (Scratch, PathBuf) {
    let dir = fast_scratch();
    let out = dir.path().join("dist");
    (dir, out)
}

/// The bits of a mode that can be set.
pub fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Removes a directory with everything in it, also where its owner may not write to what is in it.
pub fn remove_all(dir: &Path) {
    open_up(dir);
    std::fs::remove_dir_all(dir).unwrap();
}

/// Lets the owner of a directory into everything in it; root is let in as it is.
fn open_up(dir: &Path) {
    let is_dir = std::fs::symlink_metadata(dir).is_ok_and(|metadata| metadata.is_dir());
    if is_root() || !is_dir {
        return;
    }
    let _ = std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700));
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.for_each(|entry| open_up(&entry.path()));
}

/// The kernel as it is, and without the call that descends in one step.
pub fn kernels() -> [LinuxFs; 2] {
    [LinuxFs::new(), LinuxFs::without(Without { openat2: true, ..Without::default() })]
}

/// A path of any bytes.
pub fn bytes(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path))
}

/// Options that allow the stage to be as small as the tests like.
pub fn lenient<'a>() -> CommitOptions<'a> {
    CommitOptions::default().max_removed(100).allow_empty(true)
}

/// Publishes exactly these files.
pub fn publish<F: Fs>(store: &Store<F>, files: &[(&str, &str)]) -> txfs::Result<Committed> {
    let mut transaction = store.begin(BeginOptions::default())?;
    for (path, content) in files {
        transaction.write(path, content)?;
    }
    transaction.commit(&lenient())
}

/// The text of a file.
pub fn read(dir: &Path, path: &str) -> String {
    std::fs::read_to_string(dir.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Changes one byte of a file and nothing that tells of it: inode, size and time stay.
pub fn change_a_byte(path: &Path) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let modified = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 0).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 0).unwrap();
    file.set_modified(modified).unwrap();
}

/// A POSIX ACL, version 2: u::rw- u:USER:r-- g::r-- m::r-- o::r--, as (tag, permissions, id).
pub fn acl(user: u32) -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] = [(1, 6, !0), (2, 4, user), (4, 4, !0), (16, 4, !0), (32, 4, !0)];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// A state directory beside `out`.
pub fn state_of(out: &Path) -> PathBuf {
    let name = [b".", out.file_name().unwrap().as_bytes(), b".txfs"].concat();
    out.with_file_name(OsStr::from_bytes(&name))
}

/// Of what generations displaced only the last is kept, and of the one before it the journal: the proof of what was removed.
pub fn assert_only_the_last_is_kept(out: &Path) {
    let kept = std::fs::read_dir(state_of(out).join("previous")).unwrap();
    let mut kept: Vec<PathBuf> = kept.map(|entry| entry.unwrap().path()).collect();
    kept.sort_by_key(|path| path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap());
    assert!((1..=2).contains(&kept.len()), "{kept:?}");
    for earlier in &kept[..kept.len() - 1] {
        let names: Vec<_> = std::fs::read_dir(earlier).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["journal"], "{}", earlier.display());
    }
}

/// A small generator of repeatable random numbers (xorshift64*): tests need variety, not quality.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}
