//! What has to be measured in a process of its own: the command, or this program once more.

use std::path::Path;
use std::process::Command;

use crate::measure::Outcome;
use crate::{memory, recovery};

/// The command as it was built beside this program.
pub(crate) const TXFS: &str = env!("CARGO_BIN_EXE_txfs");

/// The first argument of this program in such a process.
pub(crate) const MARK: &str = "--in-child";

pub(crate) const KILLED_COMMIT: &str = "killed-commit";
pub(crate) const MEMORY: &str = "memory";

pub(crate) fn command(what: &str) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([MARK, what]);
    Ok(command)
}

pub(crate) fn run(arguments: &[String]) -> Outcome<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [KILLED_COMMIT, out, files, version, done] => {
            recovery::killed_commit(Path::new(out), files.parse()?, version.parse()?, done.parse()?)
        }
        [MEMORY, out, kind, files] => memory::commit(Path::new(out), kind, files.parse()?),
        _ => Err("this is only for the benchmark itself".into()),
    }
}
