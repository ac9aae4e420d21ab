//! Locks that belong to a process: they die with it, whatever of it lives on in children (journal-spec.md, "Locking").
//!
//! A `flock` belongs to an open file, and so to every descriptor of it: a child that another thread of the program forks has one
//! until it executes its program, or for as long as it lives if it executes none. With it alone a dead process looked alive, and a
//! lock that had just been dropped was held. So two locks are taken:
//!
//! 1. The record lock of `fcntl` says whether a *process* is at work. No child has it, and it ends with its process. Over NFS
//!    the server knows it, and its own processes meet it.
//! 2. What it lacks [`Table`] has: threads of one process do not meet each other's, and the close of any descriptor of the file
//!    ends it. Here nothing opens a file that this process holds.
//! 3. The `flock` is for whoever knows nothing of this: `flock(1)`; another copy of this library in the process; a program
//!    that reads the lock file, and by closing it ends the lock without a word. It is given back by name, not by the close
//!    that a child would delay. Where it alone is refused, /proc/locks tells whose it is: a process that lives is respected; one
//!    that died left it to a child, and is not. (On NFS both are locks of the server, and the second meets the first: it is
//!    nobody's in that list.)
//!
//! To look who holds a lock takes none, so that two who look do not find each other.
//!
//! A crash inside leaves nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use super::mounts::mount_device;
use super::{FILE_FLAGS, convert};
use crate::fs::{Holder, Stat};

/// How often /proc/locks is read where it does not have what it should: it is no snapshot, and may miss one for another that goes.
const LOOKS: usize = 3;

/// Device and inode.
type Key = (u64, u64);

/// The files that this process has locked, or that one of its threads is about to open.
struct Table {
    entries: Mutex<BTreeMap<Key, Entry>>,
    changed: Condvar,
}

#[derive(Default)]
struct Entry {
    held: bool,
    /// Other descriptors of the file, which are not to be closed before it is unlocked.
    parked: Vec<File>,
}

static TABLE: Table = Table { entries: Mutex::new(BTreeMap::new()), changed: Condvar::new() };

impl Table {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes a file that nobody wanted to open, when that does no harm.
    fn close(&self, file: File, key: Key) {
        match self.entries().get_mut(&key) {
            Some(entry) => entry.parked.push(file),
            None => drop(file),
        }
    }
}

/// The right to open and close a file: no other thread of this process has it locked, or tries to.
struct Claim(Key);

impl Claim {
    /// `None` while this process holds the lock. Who is about to learn whether it gets it is waited for.
    fn of(key: Key) -> Option<Self> {
        let mut entries = TABLE.entries();
        loop {
            match entries.get(&key) {
                Some(entry) if entry.held => return None,
                Some(_) => entries = TABLE.changed.wait(entries).unwrap_or_else(PoisonError::into_inner),
                None => {
                    entries.insert(key, Entry::default());
                    return Some(Self(key));
                }
            }
        }
    }

    /// Says whether the lock is held, and no longer only claimed.
    fn set_held(&self, held: bool) {
        if let Some(entry) = TABLE.entries().get_mut(&self.0) {
            entry.held = held;
        }
        TABLE.changed.notify_all();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // What is parked is closed before anybody else can lock the file.
        drop(TABLE.entries().remove(&self.0));
        TABLE.changed.notify_all();
    }
}

/// A held lock.
#[derive(Debug)]
pub struct FileLock {
    /// Closed before the claim on it ends.
    file: File,
    /// Who took it: what a child has of its parent's memory is no lock.
    process: u32,
    claim: Claim,
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            // A child may have the descriptor still, and with it what the close would leave.
            let _ = fs2::FileExt::unlock(&self.file);
        }
        // With the close its inode may be free for another file, of which nobody is to think that it is locked.
        self.claim.set_held(false);
    }
}

/// An open file that may be locked or looked at.
struct Opened {
    // Closed before the claim on it ends.
    file: File,
    stat: Stat,
    claim: Claim,
}

/// Opens the file of that name; `None` where this process holds its lock.
fn open(at: &OwnedFd, name: &[u8]) -> io::Result<Option<Opened>> {
    let named = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(named.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL.into());
    }
    let named = convert(&named);
    let Some(claim) = Claim::of((named.dev, named.ino)) else { return Ok(None) };
    let file = open_to_lock(at, name)?;
    let stat = convert(&rustix::fs::fstat(&file)?);
    if (stat.dev, stat.ino) != claim.0 {
        // It was replaced in this moment. What was opened may be another thread's.
        TABLE.close(file, (stat.dev, stat.ino));
        return Err(Errno::NOENT.into());
    }
    Ok(Some(Opened { file, stat, claim }))
}

/// For writing, as a record lock needs it, and NFS a `flock`; where the file system is mounted read-only, for reading.
fn open_to_lock(at: &OwnedFd, name: &[u8]) -> io::Result<File> {
    let open = |flags| rustix::fs::openat(at, name, FILE_FLAGS | flags, Mode::empty());
    match open(OFlags::RDWR) {
        Err(Errno::ROFS) => Ok(open(OFlags::RDONLY)?.into()),
        opened => Ok(opened?.into()),
    }
}

/// [`Fs::try_lock`](crate::fs::Fs::try_lock).
pub(super) fn try_lock(at: &OwnedFd, name: &[u8]) -> io::Result<Option<(FileLock, Stat)>> {
    let Some(Opened { file, stat, claim }) = open(at, name)? else { return Ok(None) };
    if !lock_record(&file)? {
        return Ok(None);
    }
    if let Err(error) = fs2::FileExt::try_lock_exclusive(&file)
        && error.raw_os_error() == fs2::lock_contended_error().raw_os_error()
        && flock_holder(&file, &stat).is_some()
    {
        return Ok(None);
    }
    claim.set_held(true);
    Ok(Some((FileLock { file, process: std::process::id(), claim }, stat)))
}

fn lock_record(file: &File) -> io::Result<bool> {
    let lock = |operation| rustix::fs::fcntl_lock(file, operation);
    let locked = match lock(FlockOperation::NonBlockingLockExclusive) {
        // It is open for reading alone.
        Err(Errno::BADF) => lock(FlockOperation::NonBlockingLockShared),
        locked => locked,
    };
    match locked {
        Ok(()) => Ok(true),
        Err(Errno::AGAIN | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// [`Fs::lock_holder`](crate::fs::Fs::lock_holder).
pub(super) fn holder(at: &OwnedFd, name: &[u8]) -> io::Result<Option<Holder>> {
    let Some(Opened { file, stat, claim }) = open(at, name)? else {
        return Ok(Some(process(std::process::id())));
    };
    let holder = match record_holder(&file)? {
        Some(holder) => Some(holder),
        None => flock_holder(&file, &stat),
    };
    drop((file, claim));
    Ok(holder)
}

fn record_holder(file: &File) -> io::Result<Option<Holder>> {
    let (exclusive, unlocked) = (libc::F_WRLCK as libc::c_short, libc::F_UNLCK as libc::c_short);
    let whole = libc::SEEK_SET as libc::c_short;
    let mut lock = libc::flock { l_type: exclusive, l_whence: whole, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(file, FcntlArg::F_GETLK(&mut lock))?;
    // Of another machine, or of a container that this process does not see into, there is no number.
    Ok((lock.l_type != unlocked).then(|| u32::try_from(lock.l_pid).map_or(Holder::default(), process)))
}

/// The living process that holds a `flock` of the file, as far as this one is shown it.
fn flock_holder(file: &File, stat: &Stat) -> Option<Holder> {
    let devices = [Some(stat.dev), mount_device(file.as_fd())];
    for _ in 0..LOOKS {
        // Without the list the record lock alone says it.
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        let pids: Vec<_> = locks.lines().filter_map(|line| flock_in(line, &devices, stat.ino)).collect();
        if let Some(pid) = pids.iter().find(|pid| is_alive(**pid)) {
            return Some(u32::try_from(*pid).map_or(Holder::default(), process));
        }
        if !pids.is_empty() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// The process of a line of /proc/locks, if the line is of a `flock` of this file: `1: FLOCK  ADVISORY  WRITE 77 08:01:5 0 EOF`. Who only
/// waits has an arrow behind the number.
fn flock_in(line: &str, devices: &[Option<u64>], inode: u64) -> Option<i32> {
    let mut words = line.split_whitespace().skip(1);
    if words.next() != Some("FLOCK") {
        return None;
    }
    let pid = words.nth(2)?.parse().ok()?;
    let mut file = words.next()?.split(':');
    let mut hexadecimal = || u32::from_str_radix(file.next()?, 16).ok();
    let device = rustix::fs::makedev(hexadecimal()?, hexadecimal()?);
    (devices.contains(&Some(device)) && file.next()?.parse() == Ok(inode)).then_some(pid)
}

/// Whether a process is there and has not ended. What is no number of a process here is taken for one elsewhere.
fn is_alive(pid: i32) -> bool {
    let Some(number) = (pid > 0).then(|| Pid::from_raw(pid)).flatten() else { return true };
    let is_there = !matches!(rustix::process::test_kill_process(number), Err(Errno::SRCH));
    is_there && !has_ended(pid)
}

/// Whether its parent has still to learn that it ended.
fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The command before it, in parentheses, may hold anything.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn process(pid: u32) -> Holder {
    if pid == 0 {
        return Holder::default();
    }
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(arguments.strip_suffix(b"\0").unwrap_or(&arguments)).replace('\0', " ");
    Holder::of(pid, (!command.is_empty()).then_some(command))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::fs::{Fs, LinuxFs};

    fn directory() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lock"), "").unwrap();
        let open = LinuxFs::new().open_anchor(dir.path()).unwrap();
        (dir, open)
    }

    #[test]
    fn a_line_of_the_list_is_that_of_its_file() {
        let is = |line| flock_in(line, &[Some(rustix::fs::makedev(8, 0x21))], 5);
        assert_eq!(is("1: FLOCK  ADVISORY  WRITE 77 08:21:5 0 EOF"), Some(77));
        assert_eq!(is("1: FLOCK  ADVISORY  READ -1 08:21:5 0 EOF"), Some(-1));
        for other in ["1: FLOCK  ADVISORY  WRITE 77 08:21:55 0 EOF", "1: FLOCK  ADVISORY  WRITE 77 08:22:5 0 EOF"] {
            assert_eq!(is(other), None);
        }
        for none in
            ["1: -> FLOCK  ADVISORY  WRITE 77 08:21:5 0 EOF", "1: POSIX  ADVISORY  WRITE 77 08:21:5 0 EOF", "", "1:"]
        {
            assert_eq!(is(none), None);
        }
    }

    #[test]
    fn threads_exclude_each_other_and_a_look_ends_no_lock() {
        let (_dir, at) = directory();
        let held = try_lock(&at, b"lock").unwrap().unwrap();
        let us = Some(std::process::id());
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(try_lock(&at, b"lock").unwrap().is_none()));
            scope.spawn(|| assert_eq!(holder(&at, b"lock").unwrap().unwrap().pid, us));
        });
        assert!(!free_for_others(&_dir));
        drop(held);
        assert!(free_for_others(&_dir));
        assert!(holder(&at, b"lock").unwrap().is_none());
        assert!(try_lock(&at, b"lock").unwrap().is_some());
    }

    /// Whether the tool of the name gets the lock.
    fn free_for_others(dir: &tempfile::TempDir) -> bool {
        Command::new("flock").arg("-n").arg(dir.path().join("lock")).arg("true").status().unwrap().success()
    }

    #[test]
    fn a_tool_that_holds_the_file_is_respected_and_named() {
        let (dir, at) = directory();
        let mut tool = Command::new("flock");
        let tool = tool.arg(dir.path().join("lock")).args(["sh", "-c", "echo held; read end"]);
        let mut tool = tool.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = std::io::BufReader::new(tool.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut said, &mut String::new()).unwrap();
        assert!(try_lock(&at, b"lock").unwrap().is_none());
        let named = holder(&at, b"lock").unwrap().unwrap();
        assert_eq!(named.pid, Some(tool.id()));
        assert!(named.command.unwrap().starts_with("flock "));
        drop(tool.stdin.take());
        tool.wait().unwrap();
        assert!(try_lock(&at, b"lock").unwrap().is_some());
    }

    #[test]
    fn what_a_child_has_of_a_dead_process_is_no_lock() {
        let (dir, at) = directory();
        // The shell that took it is gone; the child that inherited it sleeps.
        let script = "exec 9>>\"$0\"; flock 9; sleep 600 >/dev/null 2>&1 & echo $!";
        let taken = Command::new("sh").args(["-c", script]).arg(dir.path().join("lock")).output().unwrap();
        let child = String::from_utf8(taken.stdout).unwrap();
        assert!(!free_for_others(&dir), "the child has it");
        let looked = holder(&at, b"lock").unwrap();
        let held = try_lock(&at, b"lock").unwrap().is_some();
        Command::new("kill").arg(child.trim()).status().unwrap();
        assert!(held && looked.is_none(), "{looked:?}");
    }

    #[test]
    fn a_lock_is_free_once_it_is_dropped_whatever_children_other_threads_start() {
        let (_dir, at) = directory();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
            let mut wrong = 0;
            for _ in 0..250 {
                let held = try_lock(&at, b"lock").unwrap();
                wrong += usize::from(held.is_none());
                drop(held);
                wrong += usize::from(holder(&at, b"lock").unwrap().is_some());
            }
            done.store(true, Ordering::Relaxed);
            assert_eq!(wrong, 0);
        });
    }
}
