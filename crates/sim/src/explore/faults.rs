//! The ways in which a call can fail, and what led there.

use nix::errno::Errno;

use super::world::OUTPUT;
use crate::{Call, CrashPoint, Fault, SimFs};

/// How long an error lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    Once,
    /// Until the program is over.
    Always,
    /// A file system that could not write its names stops: nothing works on it until the machine boots anew.
    UntilReboot,
}

/// The ways in which `call` can fail with `errno`.
pub(super) fn faults(call: Call, errno: i32) -> Vec<(Fault, Lasting)> {
    use Lasting::{Always, Once, UntilReboot};
    let fault = Fault::new(errno);
    if call.is_barrier() {
        let (keeping, pages) = (Fault::keeping(errno), Fault::dropping_pages(errno));
        let mut faults = vec![(keeping, Once), (pages, Once), (keeping, Always), (pages, Always), (fault, UntilReboot)];
        faults.retain(|(_, lasting)| *lasting == Once || errno != Errno::EINTR as i32);
        return faults;
    }
    // A call that is interrupted for ever is made again for ever.
    let pages = Fault::dropping_pages(errno);
    match errno == Errno::EINTR as i32 {
        true => vec![(fault, Once)],
        false => vec![(fault, Once), (pages, Always), (fault, UntilReboot)],
    }
}

/// The last calls up to `call`, and what each did.
pub(super) fn last_of(fs: &SimFs, call: u64) -> String {
    const SHOWN: usize = 60;
    let trace = fs.trace();
    let end = trace.len().min(call as usize);
    trace[end.saturating_sub(SHOWN)..end].iter().map(|line| format!("    {line}\n")).collect()
}

/// The last call after which the world is still as at this point.
pub(super) fn until(points: &[CrashPoint], index: usize) -> u64 {
    points.get(index + 1).map_or(u64::MAX, |next| next.call() - 1)
}

/// Where nothing may be made beside the output, its state is inside: another layout than the one that is looked at here.
pub(super) fn is_inside(fs: &SimFs) -> bool {
    fs.entry(format!("{OUTPUT}/.txfs")).is_some()
}
