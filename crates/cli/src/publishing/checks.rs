//! Commands that txfs runs beside the one that builds: checks of a stage.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use txfs::Shown;

use crate::signals::Signals;
use crate::talk::text::reason;

pub(crate) fn name_of(check: &OsStr) -> String {
    Shown(Path::new(check)).to_string()
}

/// The command that a check is.
pub(crate) fn check_command(check: &OsStr, stage: &Path, output: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(check).current_dir(stage).env("TXFS_STAGE", stage).env("TXFS_OUTPUT", output);
    // Its stdout goes to stderr: ours carries data.
    command.stdout(io::stderr()).stdin(no_input());
    command
}

/// Whether a check passes, and no signal asked for txfs to stop by the time it has ended.
pub(crate) fn run_check(check: &OsStr, stage: &Path, output: &Path, signals: &Signals) -> Result<(), String> {
    let mut command = check_command(check, stage, output);
    let stopped = |signal| format!("was stopped by signal {signal}");
    if let Some(signal) = signals.received() {
        return Err(stopped(signal));
    }
    let spawned = command.spawn().map(|mut check| {
        drop(check.stdin.take());
        check
    });
    match (spawned.and_then(|check| signals.supervise(check)), signals.received()) {
        (_, Some(signal)) => Err(stopped(signal)),
        (Ok(status), None) if status.success() => Ok(()),
        (Ok(status), None) => Err(ended(status)),
        (Err(error), None) => Err(format!("could not be run: {}", reason(&error))),
    }
}

/// Nothing to read. A chroot may have no /dev: there it is a pipe, of which nobody holds the other end.
pub(crate) fn no_input() -> Stdio {
    if Path::new("/dev/null").exists() { Stdio::null() } else { Stdio::piped() }
}

/// How a command ended that did not succeed.
pub(crate) fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended without a status".to_owned(),
    }
}
