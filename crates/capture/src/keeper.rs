//! The process between the caller and the command: it answers the command's calls, has its signals forwarded, ends what outlives it,
//! and ends as it did.
//!
//! Invariants:
//! 1. It takes part in nothing that goes to the command's group of processes: a terminal's signals reach the command as without it.
//! 2. It ends last: when it is gone, no process is left that could write to what was captured, and the mounts are gone with them.
//! 3. It does not outlive its caller; then whatever runs is killed.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, raise, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, setpgid};
use rustix::event::{PollFd, PollFlags, poll};

use crate::report::Report;
use crate::roots::Roots;
use crate::supervisor::Supervisor;
use crate::sys::{self, Listener};

/// What becomes of processes that outlive the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Linger {
    /// They are asked to end (`SIGTERM`), and killed when they have not after two seconds.
    #[default]
    End,
    /// They are waited for.
    Wait,
}

/// How long a process that was asked to end may take.
const GRACE: Duration = Duration::from_secs(2);
/// How long one that was killed may take, before it is said to be left.
const LAST: Duration = Duration::from_secs(10);

/// What the kernel may not deliver while the keeper is at work; it has them by way of a descriptor.
pub(crate) fn block_signals() -> nix::Result<SigSet> {
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&SigSet::all()), Some(&mut before))?;
    Ok(before)
}

/// Keeps the command until it and all that it started have ended; does not return.
pub(crate) fn keep(roots: Roots, tool: Pid, filter: &UnixStream, caller: UnixStream, linger: Linger) -> ! {
    let code = match Keeper::new(roots, tool, filter, caller, linger) {
        Ok(mut keeper) => keeper.run(),
        Err(_) => {
            let _ = kill(tool, Signal::SIGKILL);
            None
        }
    };
    match code {
        Some(WaitStatus::Exited(_, code)) => sys::exit(code),
        Some(WaitStatus::Signaled(_, signal, _)) => die_of(signal),
        _ => die_of(Signal::SIGKILL),
    }
}

/// Ends as the command did.
fn die_of(signal: Signal) -> ! {
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Core,
        rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
    );
    let _ = sys::reset(signal);
    let _ = raise(signal);
    let _ = SigSet::all().thread_unblock();
    sys::exit(128 + signal as i32)
}

struct Keeper {
    supervisor: Supervisor,
    listener: Option<Listener>,
    signals: SignalFd,
    caller: UnixStream,
    tool: Pid,
    /// How the command ended.
    ended: Option<WaitStatus>,
    linger: Linger,
    /// Those that were asked to end.
    asked: HashSet<i32>,
    names: Vec<String>,
}

impl Keeper {
    fn new(roots: Roots, tool: Pid, filter: &UnixStream, caller: UnixStream, linger: Linger) -> io::Result<Self> {
        let own = Pid::from_raw(0);
        setpgid(own, own)?;
        let keep = [filter.as_raw_fd(), caller.as_raw_fd()];
        sys::close_all_but(&[roots.space.descriptors(), keep.to_vec()].concat())?;
        let _ = rustix::thread::set_name(c"txfs-capture");
        rustix::process::chdir("/")?;
        let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        // None comes when the command could not be begun.
        let listener = sys::receive_fd(filter)?.map(Listener::new).transpose()?;
        let supervisor = Supervisor::new(roots)?;
        Ok(Self {
            supervisor,
            listener,
            signals,
            caller,
            tool,
            ended: None,
            linger,
            asked: HashSet::new(),
            names: Vec::new(),
        })
    }

    fn run(&mut self) -> Option<WaitStatus> {
        let mut since = None;
        while let Ok(has_caller) = self.serve(since.map(|_| Duration::from_millis(20))) {
            let has_children = self.reap();
            if !has_caller {
                self.kill_all();
                return None;
            }
            if !has_children {
                break;
            }
            if self.ended.is_some() {
                let since = *since.get_or_insert_with(Instant::now);
                if !self.end_rest(since.elapsed()) {
                    break;
                }
            }
        }
        let left = children();
        let names = if left.is_empty() {
            std::mem::take(&mut self.names)
        } else {
            left.into_iter().map(|(_, name)| name).collect()
        };
        let answered = self.supervisor.answered;
        let report = Report { left: self.supervisor.roots.left(), names, survived: !children().is_empty(), answered };
        let _ = self.caller.write_all(&report.encode());
        self.ended
    }

    /// Waits for something to happen, and answers calls and forwards signals. `false` once the caller is dead.
    fn serve(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let ready = PollFlags::IN;
        let (signals, caller) = (self.signals.as_fd(), self.caller.as_fd());
        let mut fds = vec![PollFd::new(&signals, ready), PollFd::new(&caller, ready)];
        let listener = self.listener.as_ref().map(Listener::fd);
        fds.extend(listener.map(|fd| PollFd::new(fd, ready)));
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(true),
            polled => polled.map(drop)?,
        }
        let got: Vec<_> = fds.iter().map(PollFd::revents).collect();
        // The caller never writes: whatever comes from there is its end.
        if !got[1].is_empty() {
            return Ok(false);
        }
        if got[0].contains(PollFlags::IN) {
            self.forward();
        }
        match got.get(2) {
            Some(flags) if flags.contains(PollFlags::IN) => self.answer(),
            // Nothing is left that could ask.
            Some(flags) if !flags.is_empty() => self.listener = None,
            _ => {}
        }
        Ok(true)
    }

    fn answer(&mut self) {
        let Some(listener) = &mut self.listener else { return };
        let Ok(Some(notice)) = listener.receive() else { return };
        let answer = self.supervisor.answer(&notice, |notice| listener.is_waiting(notice));
        listener.answer(&notice, answer);
    }

    /// Forwards what another process sent to this one. What the kernel sends goes to the command by itself.
    fn forward(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|signal| Signal::try_from(signal).ok());
            let Some(signal) = signal.filter(|signal| info.ssi_code <= 0 && *signal != Signal::SIGCHLD) else {
                continue;
            };
            if self.ended.is_none() {
                let _ = kill(self.tool, signal);
            } else {
                signal_children(signal);
            }
        }
    }

    /// Whether there are children still.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::EINTR) => return true,
                Ok(status) if status.pid() == Some(self.tool) => self.ended = Some(status),
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// The command has ended, others have not: they are waited for, or made to end. `false` when they cannot be.
    fn end_rest(&mut self, since: Duration) -> bool {
        if self.linger == Linger::Wait {
            return true;
        }
        for (pid, name) in children() {
            // It has not been reaped, so its number is its own.
            let pid = Pid::from_raw(pid);
            if since >= GRACE {
                let _ = kill(pid, Signal::SIGKILL);
            } else if self.asked.insert(pid.as_raw()) {
                self.names.push(name);
                let _ = kill(pid, Signal::SIGTERM);
                // One that was stopped would not hear of it.
                let _ = kill(pid, Signal::SIGCONT);
            }
        }
        since < GRACE + LAST
    }

    fn kill_all(&mut self) {
        let began = Instant::now();
        while self.reap() && began.elapsed() < LAST {
            signal_children(Signal::SIGKILL);
            // Who waits for an answer is killed all the same.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn signal_children(signal: Signal) {
    for (pid, _) in children() {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The children of this process, with their names. A process whose parent has ended is one, however it was begun.
fn children() -> Vec<(i32, String)> {
    let own = std::process::id().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat).into_owned();
        let (before, after) = (stat.find('(')?, stat.rfind(')')?);
        let parent = stat.get(after + 1..)?.split_whitespace().nth(1)?;
        (parent == own).then(|| (pid, stat.get(before + 1..after).unwrap_or_default().to_owned()))
    })
    .collect()
}
