//! Signals to a command that runs others: `run`, and whatever has checks.
//!
//! Invariants:
//! 1. Once they are held, INT, TERM, HUP and QUIT do not kill txfs. Those that were ignored when txfs started (`nohup`, a shell's
//!    background job) stay ignored, for what it runs too.
//! 2. A signal that a process sent to txfs is forwarded. One from the kernel (a terminal's ^C or hang-up) is not: it went to the
//!    whole process group, so what txfs runs has it already.
//! 3. A signal is only sent to a process that has not been reaped: its number cannot be another's by then.
//! 4. Once a signal arrived, only the commit itself can still make the output change: what a command or a check that succeeds in
//!    spite of it leaves is not committed. A commit that has begun runs to its end.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;

use super::error::{self, Failure, failed};

/// The signals that are held, and the process that they are forwarded to.
pub(super) struct Signals {
    received: Arc<AtomicUsize>,
    target: Arc<Mutex<Option<Pid>>>,
}

impl Signals {
    /// Those of a command that is stopped by a signal as any other: it runs nothing that has to be stopped first.
    pub(super) fn not_held() -> Self {
        Self { received: Arc::default(), target: Arc::default() }
    }

    pub(super) fn hold() -> Result<Self, Failure> {
        let signals = Self::not_held();
        let reason = |error| error::reason(&error);
        let origins =
            signals.register().map_err(|error| failed(format!("cannot handle signals: {}", reason(error))))?;
        let forwarding = signals.forward(origins).map_err(reason);
        forwarding.map_err(|reason| {
            failed(format!("cannot start the thread that handles signals: {reason}"))
                .hint("this user has as many processes and threads as allowed: raise `ulimit -u`")
        })?;
        Ok(signals)
    }

    fn register(&self) -> io::Result<SignalsInfo<WithOrigin>> {
        let ignored = ignored_signals();
        let held = [SIGHUP, SIGINT, SIGQUIT, SIGTERM].into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let held: Vec<_> = held.collect();
        // Set in the handler itself: the thread may be late to see a signal that the command died of.
        for signal in &held {
            flag::register_usize(*signal, Arc::clone(&self.received), usize::try_from(*signal).unwrap_or_default())?;
        }
        SignalsInfo::new(&held)
    }

    fn forward(&self, mut origins: SignalsInfo<WithOrigin>) -> io::Result<()> {
        let target = Arc::clone(&self.target);
        let forward = move || {
            for origin in origins.forever().filter(|origin| origin.process.is_some()) {
                send(&target, origin.signal);
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(forward).map(drop)
    }

    /// The last signal that arrived.
    pub(super) fn received(&self) -> Option<i32> {
        i32::try_from(self.received.load(Ordering::SeqCst)).ok().filter(|signal| *signal != 0)
    }

    /// Fails once a signal arrived: nothing is to be changed any more.
    pub(super) fn expect_none(&self) -> Result<(), Failure> {
        match self.received() {
            Some(signal) => Err(Failure::stopped(signal, format!("stopped by signal {signal}: nothing was changed"))),
            None => Ok(()),
        }
    }

    /// Waits for the child to end, and forwards signals to it until it has.
    pub(super) fn supervise(&self, mut child: Child) -> io::Result<ExitStatus> {
        let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
        *lock(&self.target) = Some(pid);
        // One that arrived before there was a child to have it.
        if let Some(signal) = self.received() {
            send(&self.target, signal);
        }
        // Dead, but not reaped: its number is still its own.
        while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        *lock(&self.target) = None;
        child.wait()
    }
}

fn lock(target: &Mutex<Option<Pid>>) -> MutexGuard<'_, Option<Pid>> {
    target.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child that is dead already needs no signal any more.
fn send(target: &Mutex<Option<Pid>>, signal: i32) {
    if let (Some(pid), Ok(signal)) = (*lock(target), Signal::try_from(signal)) {
        let _ = kill(pid, signal);
    }
}

/// The mask of signals that were ignored when txfs started; a handler would make them deadly for the command.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
