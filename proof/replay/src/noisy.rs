//! The kernel's file system with neighbours: at any call somebody else may make something durable, which carries a part of
//! the commit with it. Without that, the renames of a small commit reach the disk all at once.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use txfs::RelPath;
use txfs::fs::sealed::Sealed;
use txfs::fs::{Fs, Holder, LinuxFs, Listed, Machine, RenameMode, Stat, Timestamp};

use crate::random::Random;

/// What the neighbours do.
#[derive(Debug)]
struct State {
    random: Random,
    /// Percent of the calls before which they do something.
    chance: usize,
    noise: Option<File>,
    renames: usize,
    /// The rename, counted from [`Noisy::arm`], that fails.
    fail: Option<usize>,
}

#[derive(Debug, Clone)]
pub(crate) struct Noisy {
    kernel: LinuxFs,
    state: Arc<Mutex<State>>,
}

impl Noisy {
    /// `noise` is the neighbours' own file.
    pub(crate) fn new(seed: u64, chance: usize, noise: Option<File>) -> Self {
        let state = State { random: Random::new(seed, "noise"), chance, noise, renames: 0, fail: None };
        Self { kernel: LinuxFs::new(), state: Arc::new(Mutex::new(state)) }
    }

    /// The `nth` rename from here on fails.
    pub(crate) fn arm(&self, nth: usize) {
        let mut state = self.state();
        (state.renames, state.fail) = (0, Some(nth));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something else on the file system is made durable, perhaps.
    fn noise(&self, dirs: &[&OwnedFd]) {
        let mut state = self.state();
        let chance = state.chance;
        if !state.random.percent(chance) {
            return;
        }
        let choice = state.random.below(4);
        let dir = (!dirs.is_empty()).then(|| dirs[state.random.below(dirs.len())]);
        // What becomes of it is the neighbours' affair.
        let _ = match (choice, dir) {
            (0 | 1, Some(dir)) => self.kernel.sync_dir(dir),
            (2, Some(dir)) => self.kernel.sync_fs(dir),
            _ => match &mut state.noise {
                Some(file) => io::Write::write_all(file, b"more noise").and_then(|()| file.sync_all()),
                None => Ok(()),
            },
        };
    }
}

impl Sealed for Noisy {}

impl Fs for Noisy {
    type Dir = OwnedFd;
    type File = File;
    type Lock = <LinuxFs as Fs>::Lock;

    fn open_anchor(&self, path: &Path) -> io::Result<OwnedFd> {
        self.kernel.open_anchor(path)
    }
    fn resolve(&self, path: &Path) -> io::Result<std::path::PathBuf> {
        self.kernel.resolve(path)
    }
    fn read_anchor_link(&self, path: &Path) -> io::Result<std::path::PathBuf> {
        self.kernel.read_anchor_link(path)
    }
    fn open_dir(&self, at: &OwnedFd, path: &RelPath) -> io::Result<OwnedFd> {
        self.kernel.open_dir(at, path)
    }
    fn open_file(&self, at: &OwnedFd, name: &[u8]) -> io::Result<(File, Stat)> {
        self.kernel.open_file(at, name)
    }
    fn open_write(&self, at: &OwnedFd, name: &[u8]) -> io::Result<File> {
        self.kernel.open_write(at, name)
    }
    fn create_file(&self, at: &OwnedFd, name: &[u8], mode: u32) -> io::Result<File> {
        self.noise(&[at]);
        self.kernel.create_file(at, name, mode)
    }
    fn stat(&self, at: &OwnedFd, name: &[u8]) -> io::Result<Stat> {
        self.kernel.stat(at, name)
    }
    fn stat_dir(&self, dir: &OwnedFd) -> io::Result<Stat> {
        self.kernel.stat_dir(dir)
    }
    fn stat_file(&self, file: &File) -> io::Result<Stat> {
        self.kernel.stat_file(file)
    }
    fn list(&self, dir: &OwnedFd) -> io::Result<Vec<Listed>> {
        self.kernel.list(dir)
    }
    fn read_link(&self, at: &OwnedFd, name: &[u8]) -> io::Result<Vec<u8>> {
        self.kernel.read_link(at, name)
    }
    fn read(&self, file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
        self.kernel.read(file, buffer)
    }
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<usize> {
        self.noise(&[]);
        self.kernel.write(file, bytes)
    }
    fn read_at(&self, file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.kernel.read_at(file, offset, buffer)
    }
    fn write_at(&self, file: &File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.noise(&[]);
        self.kernel.write_at(file, offset, bytes)
    }
    fn copy_content(&self, from: &mut File, to: &mut File) -> io::Result<()> {
        self.kernel.copy_content(from, to)
    }
    fn copy_attributes(&self, from: &File, to: &File) -> io::Result<()> {
        self.kernel.copy_attributes(from, to)
    }
    fn copy_dir_attributes(&self, from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
        self.kernel.copy_dir_attributes(from, to)
    }
    fn set_owner(&self, file: &File, owner: Option<u32>, group: u32) -> io::Result<()> {
        self.kernel.set_owner(file, owner, group)
    }
    fn set_dir_owner(&self, dir: &OwnedFd, owner: Option<u32>, group: u32) -> io::Result<()> {
        self.noise(&[dir]);
        self.kernel.set_dir_owner(dir, owner, group)
    }
    fn set_link_owner(&self, at: &OwnedFd, name: &[u8], owner: Option<u32>, group: u32) -> io::Result<()> {
        self.noise(&[at]);
        self.kernel.set_link_owner(at, name, owner, group)
    }
    fn set_mode(&self, file: &File, mode: u32) -> io::Result<()> {
        self.kernel.set_mode(file, mode)
    }
    fn set_dir_mode(&self, dir: &OwnedFd, mode: u32) -> io::Result<()> {
        self.noise(&[dir]);
        self.kernel.set_dir_mode(dir, mode)
    }
    fn set_mtime(&self, file: &File, mtime: Timestamp) -> io::Result<()> {
        self.kernel.set_mtime(file, mtime)
    }
    fn make_dir(&self, at: &OwnedFd, name: &[u8], mode: u32) -> io::Result<()> {
        self.noise(&[at]);
        self.kernel.make_dir(at, name, mode)
    }
    fn make_symlink(&self, at: &OwnedFd, name: &[u8], target: &[u8]) -> io::Result<()> {
        self.kernel.make_symlink(at, name, target)
    }
    fn link(&self, from: &OwnedFd, name: &[u8], to: &OwnedFd, new_name: &[u8]) -> io::Result<()> {
        self.noise(&[from, to]);
        self.kernel.link(from, name, to, new_name)
    }
    fn rename(&self, from: &OwnedFd, name: &[u8], to: &OwnedFd, new_name: &[u8], mode: RenameMode) -> io::Result<()> {
        self.noise(&[from, to]);
        let mut state = self.state();
        state.renames += 1;
        if state.fail == Some(state.renames) {
            return Err(Errno::EPERM.into());
        }
        drop(state);
        self.kernel.rename(from, name, to, new_name, mode)?;
        self.noise(&[from, to]);
        Ok(())
    }
    fn remove_file(&self, at: &OwnedFd, name: &[u8]) -> io::Result<()> {
        self.noise(&[at]);
        self.kernel.remove_file(at, name)
    }
    fn remove_dir(&self, at: &OwnedFd, name: &[u8]) -> io::Result<()> {
        self.noise(&[at]);
        self.kernel.remove_dir(at, name)
    }
    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.kernel.sync_file(file)
    }
    fn sync_dir(&self, dir: &OwnedFd) -> io::Result<()> {
        self.kernel.sync_dir(dir)
    }
    fn sync_fs(&self, dir: &OwnedFd) -> io::Result<()> {
        self.kernel.sync_fs(dir)
    }
    fn drop_cached(&self, file: &File) -> io::Result<()> {
        self.kernel.drop_cached(file)
    }
    fn try_lock(&self, at: &OwnedFd, name: &[u8]) -> io::Result<Option<(Self::Lock, Stat)>> {
        self.kernel.try_lock(at, name)
    }
    fn lock_holder(&self, at: &OwnedFd, name: &[u8]) -> io::Result<Option<Holder>> {
        self.kernel.lock_holder(at, name)
    }
    fn syncs_in_turn(&self, dir: &OwnedFd) -> bool {
        self.kernel.syncs_in_turn(dir)
    }
    fn changes_in_turn(&self, dir: &OwnedFd) -> bool {
        self.kernel.changes_in_turn(dir)
    }
}

impl Machine for Noisy {
    fn dirty(&self) -> io::Result<u64> {
        // What others have dirty is not to decide which calls are made.
        Ok(0)
    }
    fn user(&self) -> u32 {
        self.kernel.user()
    }
    fn group(&self) -> u32 {
        self.kernel.group()
    }
    fn belongs_to(&self, group: u32) -> io::Result<bool> {
        self.kernel.belongs_to(group)
    }
    fn now(&self) -> Timestamp {
        self.kernel.now()
    }
    fn elapsed(&self) -> std::time::Duration {
        self.kernel.elapsed()
    }
    fn boot(&self) -> io::Result<String> {
        self.kernel.boot()
    }
    fn unique(&self) -> io::Result<u64> {
        self.kernel.unique()
    }
    fn parallelism(&self) -> usize {
        self.kernel.parallelism()
    }
    fn pause(&self, duration: std::time::Duration) {
        self.kernel.pause(duration);
    }
    fn is_interrupted(&self) -> bool {
        self.kernel.is_interrupted()
    }
}
