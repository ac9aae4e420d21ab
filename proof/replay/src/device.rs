//! Loop devices and mounts that go when they are dropped, by a panic too, and on Ctrl-C.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Everything that has to be undone before this process ends, in the order in which it was done.
static HELD: Mutex<Vec<Held>> = Mutex::new(Vec::new());

/// Open to whoever makes something that has to be undone, until it is; closed for good when everything is being undone.
static GATE: RwLock<()> = RwLock::new(());

fn pass_gate() -> RwLockReadGuard<'static, ()> {
    GATE.read().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Held {
    Mount(PathBuf),
    Loop(PathBuf),
    /// What is served by this process.
    Served(PathBuf),
    Scratch(PathBuf),
}

impl Held {
    fn release(&self) {
        match self {
            Held::Mount(at) => drop(umount2(at, MntFlags::MNT_DETACH)),
            Held::Served(at) => {
                // Requests under way fail, so that nobody waits for an answer from a process that is ending.
                let _ = umount2(at, MntFlags::MNT_FORCE);
                let _ = umount2(at, MntFlags::MNT_DETACH);
            }
            Held::Scratch(at) => drop(std::fs::remove_dir_all(at)),
            Held::Loop(device) => drop(run(Command::new("losetup").arg("-d").arg(device))),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(5);

/// Undoes one thing when it is dropped.
#[derive(Debug)]
pub(crate) struct Cleanup(Held);

impl Cleanup {
    fn new(held: Held) -> Self {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).push(held.clone());
        Self(held)
    }

    pub(crate) fn mount(at: &Path) -> Self {
        Self::new(Held::Mount(at.to_path_buf()))
    }

    pub(crate) fn served(at: &Path) -> Self {
        Self::new(Held::Served(at.to_path_buf()))
    }

    pub(crate) fn scratch(at: &Path) -> Self {
        Self::new(Held::Scratch(at.to_path_buf()))
    }

    /// It was undone already.
    fn forget(&self) {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|held| *held != self.0);
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = held.iter().rposition(|held| *held == self.0) {
            held.remove(at);
            drop(held);
            self.0.release();
        }
    }
}

/// Undoes everything, for a process that is told to end.
pub(crate) fn release_all() {
    std::mem::forget(GATE.write().unwrap_or_else(PoisonError::into_inner));
    let held = std::mem::take(&mut *HELD.lock().unwrap_or_else(PoisonError::into_inner));
    let (served, others): (Vec<_>, Vec<_>) = held.iter().partition(|held| matches!(held, Held::Served(_)));
    served.into_iter().chain(others.into_iter().rev()).for_each(Held::release);
}

pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A mounted file system.
#[derive(Debug)]
pub(crate) struct Mounted {
    at: PathBuf,
    cleanup: Cleanup,
}

impl Mounted {
    pub(crate) fn new(source: &Path, at: &Path, kind: &str, options: &str) -> nix::Result<Self> {
        let _gate = pass_gate();
        let started = Instant::now();
        loop {
            match mount(Some(source), at, Some(kind), MsFlags::empty(), Some(options)) {
                // btrfs remembers where it saw the file system last, and that it was a later state; on another device it is refused then.
                Err(Errno::EEXIST) if kind == "btrfs" && started.elapsed() < PATIENCE => {
                    let _ = run(Command::new("btrfs").args(["device", "scan", "--forget"]));
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(Self { at: at.to_path_buf(), cleanup: Cleanup::mount(at) }),
            }
        }
    }

    /// Unmounts for good: when this returns, nothing of the file system is left in memory.
    pub(crate) fn unmount(self) -> Result<(), String> {
        let started = Instant::now();
        loop {
            match umount2(&self.at, MntFlags::empty()) {
                // A child that was just forked has every descriptor until it executes its program.
                Err(Errno::EBUSY) if started.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => return Err(format!("unmounting {}: {error}", self.at.display())),
                Ok(()) => break,
            }
        }
        self.cleanup.forget();
        Ok(())
    }
}

/// A loop device.
#[derive(Debug)]
pub(crate) struct Device {
    path: PathBuf,
    _cleanup: Cleanup,
}

impl Device {
    pub(crate) fn attach(file: &Path) -> Result<Self, String> {
        let _gate = pass_gate();
        let path = run(Command::new("losetup").args(["--find", "--show"]).arg(file))?;
        let path = PathBuf::from(path);
        Ok(Self { _cleanup: Cleanup::new(Held::Loop(path.clone())), path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets what the kernel keeps in memory of the device, whose file has been exchanged under it.
    pub(crate) fn forget(&self) -> Result<(), String> {
        let forget = || -> std::io::Result<()> {
            let device = File::open(&self.path)?;
            Ok(posix_fadvise(&device, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
        };
        forget().map_err(|error| format!("{}: {error}", self.path.display()))
    }
}
