//! Signals: nothing that txfs began to change is left half changed because of one, and what txfs runs has them too.
//!
//! Invariants:
//! 1. While they are held, INT, TERM, HUP and QUIT do not kill txfs; the library is asked to stop instead, and does while nothing is
//!    changed ([`OpenOptions::interrupted_by`]). Those that were ignored when txfs started (`nohup`, a shell's background job) stay
//!    ignored, for what it runs too.
//! 2. A signal that a process sent to txfs is forwarded, once. One from the kernel (a terminal's ^C or hang-up) is
//!    not, unless there was nothing to have it: it went to the whole process group, so what txfs runs has it already.
//!    What runs in a process group of its own has it from txfs alone.
//! 3. A signal is only sent to a process that has not been reaped: its number cannot be another's by then.
//! 4. Once a signal arrived, only the commit itself can still make the output change: what a command or a check that succeeds in
//!    spite of it leaves is not committed. A commit that has begun runs to its end, and so does recovery.
//! 5. XFSZ never kills txfs: what is larger than a file may be is an error of the call that writes it, and has a path. What txfs
//!    runs has the default, as a handler does not survive `exec`.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;

use crate::talk::error::{Failure, failed, stopped_by};
use crate::talk::text::reason;

/// The signals that are held, and the process that they are forwarded to.
pub(crate) struct Signals {
    received: Arc<AtomicUsize>,
    /// Whether any was received; the library's flag.
    interrupt: Arc<AtomicBool>,
    /// Whether they kill txfs as they would any other command.
    released: Arc<AtomicBool>,
    target: Arc<Mutex<Target>>,
}

/// What a signal is forwarded to.
#[derive(Default)]
struct Target {
    pid: Option<Pid>,
    /// Whether it leads a process group of its own.
    leads: bool,
    /// One that arrived while there was nothing to have it.
    pending: Option<i32>,
}

impl Signals {
    /// From here on they are held, unless the command may be killed at any time.
    pub(crate) fn handle(released: bool) -> Result<Self, Failure> {
        let signals = Self {
            received: Arc::default(),
            interrupt: Arc::default(),
            released: Arc::new(AtomicBool::new(released)),
            target: Arc::default(),
        };
        signals.register().map_err(|error| cannot_handle(&error))?;
        Ok(signals)
    }

    /// As [`Signals::handle`], for a command that runs others: those have them too.
    pub(crate) fn forward() -> Result<Self, Failure> {
        let signals = Self::handle(false)?;
        let origins = SignalsInfo::new(not_ignored(&HELD, ignored_signals())).map_err(|error| cannot_handle(&error))?;
        signals.start_forwarding(origins).map_err(|error| {
            failed(format!("cannot start the thread that handles signals: {}", reason(&error)))
                .hint("this user has as many processes and threads as allowed: raise `ulimit -u`")
        })?;
        Ok(signals)
    }

    /// All in the handler itself: a thread may be late to see a signal that the command died of. In the order in which they are done:
    /// who sees that txfs is to stop can ask why.
    fn register(&self) -> io::Result<()> {
        let ignored = ignored_signals();
        for signal in not_ignored(&HELD, ignored) {
            flag::register_conditional_default(signal, Arc::clone(&self.released))?;
            flag::register_usize(signal, Arc::clone(&self.received), usize::try_from(signal).unwrap_or_default())?;
            flag::register(signal, Arc::clone(&self.interrupt))?;
        }
        for signal in not_ignored(&[SIGXFSZ], ignored) {
            flag::register(signal, Arc::default())?;
        }
        Ok(())
    }

    fn start_forwarding(&self, mut origins: SignalsInfo<WithOrigin>) -> io::Result<()> {
        let target = Arc::clone(&self.target);
        let forward =
            move || origins.forever().for_each(|origin| lock(&target).take(origin.signal, origin.process.is_some()));
        std::thread::Builder::new().name("signals".to_owned()).spawn(forward).map(drop)
    }

    /// What is set when a command is to stop.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.interrupt)
    }

    /// Does what is not to be left half done.
    pub(crate) fn hold_during<T>(&self, work: impl FnOnce() -> T) -> T {
        let released = self.released.swap(false, Ordering::SeqCst);
        let done = work();
        self.released.store(released, Ordering::SeqCst);
        done
    }

    /// Lets them kill txfs: what is still to come may wait for others, and changes nothing. Fails once one arrived.
    pub(crate) fn release(&self) -> Result<(), Failure> {
        self.released.store(true, Ordering::SeqCst);
        self.expect_none()
    }

    /// Fails if one arrived that would have killed the command, had they not been held for a while.
    pub(crate) fn expect_none_held_back(&self) -> Result<(), Failure> {
        if self.released.load(Ordering::SeqCst) { self.expect_none() } else { Ok(()) }
    }

    /// The last signal that arrived.
    pub(crate) fn received(&self) -> Option<i32> {
        i32::try_from(self.received.load(Ordering::SeqCst)).ok().filter(|signal| *signal != 0)
    }

    /// Fails once a signal arrived: nothing is to be changed any more.
    pub(crate) fn expect_none(&self) -> Result<(), Failure> {
        self.received().map_or(Ok(()), |signal| Err(Failure::stopped(signal, stopped_by(signal))))
    }

    /// Waits for the child to end, and forwards signals to it until it has.
    pub(crate) fn supervise(&self, mut child: Child) -> io::Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        lock(&self.target).set(pid, false);
        wait_for(pid);
        lock(&self.target).pid = None;
        child.wait()
    }

    /// As [`Signals::supervise`], of a child that leads a process group of its own, which is ended when it takes
    /// longer than `limit`.
    pub(crate) fn supervise_group(&self, mut child: Child, limit: Option<Duration>) -> io::Result<Supervised> {
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        lock(&self.target).set(pid, true);
        let timed_out = std::thread::scope(|scope| {
            let (ended, is_ended) = channel::<()>();
            let watch = limit.map(|limit| {
                scope.spawn(move || {
                    let is_over = |limit| is_ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
                    is_over(limit) && {
                        let _ = killpg(pid, Signal::SIGTERM);
                        if is_over(GRACE) {
                            let _ = killpg(pid, Signal::SIGKILL);
                        }
                        true
                    }
                })
            });
            wait_for(pid);
            drop(ended);
            watch.is_some_and(|watch| watch.join().unwrap_or_default())
        });
        if timed_out {
            // What it started may outlive it; while it is not reaped the number of its group is its own.
            let _ = killpg(pid, Signal::SIGKILL);
        }
        lock(&self.target).pid = None;
        let status = child.wait()?;
        Ok(match limit.filter(|_| timed_out) {
            Some(limit) => Supervised::TimedOut(limit),
            None => Supervised::Ended(status),
        })
    }
}

/// How what leads a process group ended.
pub(crate) enum Supervised {
    Ended(ExitStatus),
    /// It took longer than this.
    TimedOut(Duration),
}

/// How long what is told to end may take for that.
const GRACE: Duration = Duration::from_secs(5);

/// Waits until a child is dead, but not reaped: its number is still its own.
fn wait_for(pid: Pid) {
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
}

impl Target {
    /// From here on signals are sent to `pid`, and first the one that arrived before it was there.
    fn set(&mut self, pid: Pid, leads: bool) {
        (self.pid, self.leads) = (Some(pid), leads);
        if let Some(signal) = self.pending.take() {
            self.send(pid, signal);
        }
    }

    /// A signal arrived; `sent` says whether a process sent it, and to txfs alone.
    fn take(&mut self, signal: i32, sent: bool) {
        match self.pid {
            Some(pid) if sent || self.leads => self.send(pid, signal),
            Some(_) => {}
            None => self.pending = Some(signal),
        }
    }

    /// A child that is dead already needs no signal any more.
    fn send(&self, pid: Pid, signal: i32) {
        if let Ok(signal) = Signal::try_from(signal) {
            let _ = if self.leads { killpg(pid, signal) } else { kill(pid, signal) };
        }
    }
}

const HELD: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];

fn cannot_handle(error: &io::Error) -> Failure {
    failed(format!("cannot handle signals: {}", reason(error)))
}

fn lock(target: &Mutex<Target>) -> MutexGuard<'_, Target> {
    target.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The mask of signals that were ignored when txfs started; a handler would make them deadly for what it runs.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}

fn not_ignored(signals: &[i32], ignored: u64) -> Vec<i32> {
    signals.iter().copied().filter(|signal| ignored & (1 << (signal - 1)) == 0).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_signal_is_sent_once_and_kept_while_there_is_nothing_to_have_it() {
        for (sent, arrives_first) in [(true, true), (false, true), (true, false)] {
            let mut child = Command::new("sleep").arg("60").spawn().unwrap();
            let pid = Pid::from_raw(child.id().try_into().unwrap());
            let mut target = Target::default();
            if arrives_first {
                target.take(SIGTERM, sent);
                assert_eq!(target.pending, Some(SIGTERM));
            }
            target.set(pid, false);
            assert_eq!(target.pending, None);
            if !arrives_first {
                // From a terminal it has this already.
                target.take(SIGINT, false);
                target.take(SIGTERM, true);
            }
            assert_eq!(child.wait().unwrap().signal(), Some(SIGTERM));
        }
    }
}
