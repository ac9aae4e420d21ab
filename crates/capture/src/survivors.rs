//! What is left of a command whose keeper was killed: found by its mount namespace, which it shares with nothing else.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// The mount namespace of a process; `None` once it is gone.
fn namespace_of(process: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{process}/ns/mnt")).ok()
}

/// A mount namespace that is held: as long as it is, no other gets its number, even when all its processes have ended.
#[derive(Debug)]
pub(crate) struct Held {
    _open: File,
    name: PathBuf,
}

impl Held {
    /// Holds the namespace of a process; `None` once it is gone.
    pub(crate) fn of(process: u32) -> Option<Self> {
        let open = File::open(format!("/proc/{process}/ns/mnt")).ok()?;
        let name = fs::read_link(format!("/proc/self/fd/{}", open.as_raw_fd())).ok()?;
        Some(Self { _open: open, name })
    }
}

/// Kills every process of a mount namespace, and waits until none is left, or for a while.
pub(crate) fn kill_all_in(namespace: &Held) {
    let namespace = namespace.name.as_path();
    const LAST: Duration = Duration::from_secs(10);
    // A namespace that others live in is not the command's: the keeper was killed before it had one.
    if namespace_of(std::process::id()).as_deref() == Some(namespace) {
        return;
    }
    let began = Instant::now();
    // A new process may have a lower number than the one that began it, and be missed once.
    while (kill_once(namespace) || kill_once(namespace)) && began.elapsed() < LAST {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether any was there.
fn kill_once(namespace: &Path) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut found = false;
    for process in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let is_inside = || namespace_of(process).as_deref() == Some(namespace);
        if !is_inside() {
            continue;
        }
        let pid = i32::try_from(process).ok().and_then(Pid::from_raw);
        let Some(Ok(handle)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { continue };
        // Its number may have become another's before the handle was there.
        if is_inside() {
            found = true;
            let _ = pidfd_send_signal(&handle, Signal::KILL);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The kernel gives the lowest number that is free: whoever only remembered a number would kill who has it next.
    #[test]
    fn no_namespace_gets_the_number_of_one_that_is_held() {
        let mut sleeper = Command::new("unshare").args(["-rm", "sleep", "60"]).spawn().unwrap();
        let own = namespace_of(std::process::id());
        let began = Instant::now();
        while namespace_of(sleeper.id()) == own && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_ne!(namespace_of(sleeper.id()), own);
        let held = Held::of(sleeper.id()).unwrap();
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        for _ in 0..50 {
            let other = Command::new("unshare").args(["-rm", "readlink", "/proc/self/ns/mnt"]).output().unwrap();
            assert!(other.status.success());
            assert_ne!(String::from_utf8(other.stdout).unwrap().trim_end(), held.name.to_str().unwrap());
        }
    }
}
