//! One run of the binary under strace: to learn its system calls, and to let one of them fail or be the last.
//!
//! Only the main thread is traced, so that the n-th call of a kind is the same one in every run: the engine has no other
//! thread with so few files ([`recording`] makes sure), `run`'s second one only waits for signals, and what `run` runs is not txfs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::errno::Errno;

/// Calls that are none of a file system's, and that fail for reasons of their own.
const PASSED_OVER: &[&str] = &[
    "arch_prctl",
    "brk",
    // Linux frees the descriptor whatever it returns, and strace would keep it open.
    "close",
    "clock_nanosleep",
    "clone",
    "clone3",
    "execve",
    "futex",
    "geteuid",
    "getpid",
    "getrandom",
    "gettid",
    "ioctl",
    "kill",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "poll",
    "prctl",
    "prlimit64",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "socketpair",
    "vfork",
    "wait4",
    "waitid",
    "write_to_terminal",
];

/// A system call of the recorded run.
#[derive(Debug, Clone)]
pub struct Call {
    pub name: String,
    /// Which one of its name, from 1.
    pub nth: usize,
    /// As strace shows it.
    pub line: String,
}

impl Call {
    /// Whether it is what tells the user: when it fails, nothing can be told.
    pub fn is_talk(&self) -> bool {
        self.line.starts_with("write(2,")
    }

    /// Every error that the call may meet, among those that disks, full disks, permissions, signals and limits cause.
    pub fn errors(&self) -> &'static [Errno] {
        use Errno::{EACCES, EINTR, EIO, EMFILE, ENOLCK, ENOSPC, EROFS};
        match &*self.name {
            "openat" if self.line.contains("O_CREAT") => &[EIO, ENOSPC, EACCES, EINTR, EMFILE, EROFS],
            "openat" if self.line.contains("O_RDWR") => &[EIO, EACCES, EINTR, EMFILE, EROFS],
            "open" | "openat" | "openat2" => &[EIO, EACCES, EINTR, EMFILE],
            "newfstatat" | "fstat" | "fstatfs" | "statx" | "readlink" | "readlinkat" | "fgetxattr" | "flistxattr" => {
                &[EIO, EACCES]
            }
            "getcwd" => &[EACCES],
            "read" | "pread64" | "getdents64" => &[EIO, EINTR],
            "lseek" | "fadvise64" => &[EIO],
            "write" if self.is_talk() || self.line.starts_with("write(1,") => &[EIO, ENOSPC, EINTR],
            "write" | "pwrite64" | "copy_file_range" | "sendfile" | "ftruncate" => &[EIO, ENOSPC, EINTR, EROFS],
            "mkdirat" | "symlinkat" | "linkat" | "renameat" | "renameat2" => &[EIO, ENOSPC, EACCES, EINTR, EROFS],
            "unlinkat" => &[EIO, ENOSPC, EACCES, EINTR, EROFS],
            "fchmod" | "fchmodat" | "fchown" | "fchownat" | "utimensat" | "fsetxattr" => &[EIO, ENOSPC, EACCES, EROFS],
            "fsync" | "fdatasync" | "syncfs" => &[EIO, ENOSPC, EINTR, EROFS],
            "flock" => &[EIO, EINTR],
            "fcntl" if self.line.contains("F_DUPFD") => &[EMFILE],
            "fcntl" if self.line.contains("F_SETLK") || self.line.contains("F_GETLK") => &[ENOLCK, EINTR],
            _ => &[],
        }
    }

    /// Whether a disk that fails goes on failing here.
    pub fn may_fail_on(&self) -> bool {
        matches!(&*self.name, "fsync" | "syncfs" | "renameat" | "renameat2")
    }

    fn is_known(&self) -> bool {
        PASSED_OVER.contains(&&*self.name)
            || self.name == "fcntl"
            || self.name == "exit_group"
            || !self.errors().is_empty()
    }

    fn is_passed_over(&self) -> bool {
        PASSED_OVER.contains(&&*self.name)
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL on entry: what the call would have done is not done. What the one before it did is.
    Kill,
    /// It fails, once.
    Once(Errno),
    /// It fails, and so does every later one of its name.
    Always(Errno),
}

impl Fault {
    fn injection(self, call: &Call) -> String {
        let (name, nth) = (&call.name, call.nth);
        match self {
            Self::Kill => format!("inject={name}:signal=KILL:when={nth}"),
            Self::Once(errno) => format!("inject={name}:error={errno:?}:when={nth}"),
            Self::Always(errno) => format!("inject={name}:error={errno:?}:when={nth}+"),
        }
    }
}

/// Whether strace is here and may trace; otherwise why not.
pub fn available() -> Result<(), String> {
    match Command::new("strace").args(["-o", "/dev/null", "true"]).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("strace may not trace: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("strace cannot be run: {error}")),
    }
}

fn strace(options: &[&str], log: &Path, command: &[OsString]) -> Output {
    let mut strace = Command::new("strace");
    strace.args(options).arg("-o").arg(log).arg("--").arg(env!("CARGO_BIN_EXE_txfs"));
    // What others have dirty on the machine is not to decide which calls are made.
    strace.args(["--barriers", "whole"]).args(command);
    strace.env("LC_ALL", "C").env_remove("RUST_BACKTRACE").stdin(Stdio::null()).output().unwrap()
}

/// The calls of the command's main thread from the first one that names `world` or a directory on the way to it: what comes
/// before is the dynamic loader's and the argument parser's.
pub fn recording(world: &Path, command: &[OsString]) -> (Vec<Call>, Output) {
    let log = world.with_extension("strace");
    let output = strace(&["-s", "4096"], &log, command);
    let text = fs::read_to_string(&log).unwrap();
    let mut seen = BTreeMap::<String, usize>::new();
    let mut calls = Vec::new();
    let mut locks = Locks::default();
    for line in text.lines().filter(|line| !line.starts_with(['+', '-'])) {
        let Some((name, _)) = line.split_once('(') else { panic!("strace says: {line}") };
        let nth = seen.entry(name.to_owned()).or_default();
        *nth += 1;
        if !locks.is_read_on(line) {
            calls.push(Call { name: name.to_owned(), nth: *nth, line: line.to_owned() });
        }
    }
    let ways: Vec<_> = world.ancestors().filter(|dir| dir.parent().is_some()).map(|dir| dir.display()).collect();
    let names_it = |call: &Call| {
        let quoted = |way: &dyn std::fmt::Display| call.line.contains(&format!("\"{way}"));
        call.name != "execve"
            && (quoted(&world.display()) || ways.iter().any(|way| call.line.contains(&format!("\"{way}\""))))
    };
    let first = calls.iter().position(names_it).expect("some call names the store");
    let calls = calls.split_off(first);
    let unknown: BTreeSet<_> = calls.iter().filter(|call| !call.is_known()).map(|call| &call.line).collect();
    assert!(unknown.is_empty(), "calls that the sweep knows nothing of: {unknown:#?}");
    (calls.into_iter().filter(|call| !call.is_passed_over()).collect(), output)
}

/// Where a recording reads /proc/locks: in as many calls as everything that is locked on the machine takes.
#[derive(Default)]
struct Locks {
    /// How a read of what was opened begins, and whether there was one.
    opened: Option<(String, bool)>,
}

impl Locks {
    /// Whether the call is such a read after the first one.
    fn is_read_on(&mut self, line: &str) -> bool {
        let fd = line.rsplit_once(" = ").map_or("", |(_, result)| result);
        if line.contains("\"/proc/locks\"") {
            self.opened = Some((format!("read({fd},"), false));
            return false;
        }
        match &mut self.opened {
            Some((read, begun)) if line.starts_with(&**read) => std::mem::replace(begun, true),
            // Then the number may be another file's.
            Some((read, _)) if line.starts_with(&read.replace("read(", "close(").replace(',', ")")) => {
                self.opened = None;
                false
            }
            _ => false,
        }
    }
}

/// How many threads and processes the command has.
pub fn threads(world: &Path, command: &[OsString]) -> usize {
    let log = world.with_extension("strace");
    strace(&["-f", "-e", "trace=exit_group,exit"], &log, command);
    let text = fs::read_to_string(&log).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).collect::<BTreeSet<_>>().len()
}

/// How a run with a fault ended.
pub struct Faulted {
    /// Whether strace says that the fault was met, at the very call that was meant.
    pub fired: bool,
    /// `None` when it was killed.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs the command with the fault.
pub fn inject(world: &Path, command: &[OsString], call: &Call, fault: Fault) -> Faulted {
    let log = world.with_extension("strace");
    let output = strace(&["-e", &format!("trace={}", call.name), "-e", &fault.injection(call)], &log, command);
    let text = fs::read_to_string(&log).unwrap();
    let calls: Vec<_> = text.lines().filter(|line| !line.starts_with(['+', '-'])).collect();
    let fired = match fault {
        Fault::Kill => text.ends_with("+++ killed by SIGKILL +++\n") && calls.len() == call.nth,
        Fault::Once(_) | Fault::Always(_) => {
            calls.iter().position(|line| line.ends_with("(INJECTED)")).is_some_and(|first| first + 1 == call.nth)
        }
    };
    Faulted {
        fired,
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
