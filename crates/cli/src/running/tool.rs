//! The command that `txfs run` runs: how it is told where to write to, and what its end means.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

use txfs::{Shown, Store};

use crate::publishing::checks::ended;
use crate::settings::placeholder::replace_stage;
use crate::signals::Signals;
use crate::store::context::Context;
use crate::talk::error::{self, Failure, failed, killed_by, usage};
use crate::talk::output::Ui;
use crate::talk::text::reason;

const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// A command, and how to tell of it.
pub(crate) struct Prepared {
    pub(crate) command: Command,
    /// The command, for people.
    pub(crate) name: String,
    /// That txfs changed nothing.
    pub(crate) nothing: String,
}

impl Prepared {
    /// `stage` is where it is to write to.
    pub(crate) fn new(context: &Context, store: &Store, words: &[OsString], stage: &Path) -> Result<Self, Failure> {
        let words: Vec<_> = words.iter().map(|word| replace_stage(word, stage)).collect();
        let Some((program, arguments)) = words.split_first() else {
            return Err(usage("there is no command to run"));
        };
        let mut command = Command::new(program);
        command.args(arguments).env("TXFS_STAGE", stage).env("TXFS_OUTPUT", store.output());
        if context.ui.json {
            // Whoever reads an object does not expect what a build says of itself before it.
            command.stdout(io::stderr());
        }
        let name = Shown(Path::new(program)).to_string();
        Ok(Self { command, name, nothing: changed_nothing(&context.ui, store) })
    }

    pub(crate) fn not_run(&self, error: &io::Error) -> Failure {
        let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
        let (name, reason, nothing) = (&self.name, reason(error), &self.nothing);
        Failure::with_code(code, format!("cannot run `{name}`: {reason}: {nothing}"))
    }

    /// Waits for it; an error says why what it made is not to be published.
    pub(crate) fn wait(&self, signals: &Signals, child: Child) -> Result<(), Failure> {
        let (name, nothing) = (&self.name, &self.nothing);
        let status = signals
            .supervise(child)
            .map_err(|error| failed(format!("cannot wait for `{name}`: {}", reason(&error))))?;
        match (exit_code(status), signals.received()) {
            (0, None) => Ok(()),
            (0, Some(signal)) => Err(Failure::stopped(
                signal,
                format!("stopped by signal {signal}, although `{name}` finished: {nothing}"),
            )),
            (code, _) => Err(Failure::of_command(code, format!("`{name}` {}: {nothing}", ended(status)))),
        }
    }
}

/// The command itself may have written to the output, whatever txfs did.
pub(crate) fn changed_nothing(ui: &Ui, store: &Store) -> String {
    format!("txfs changed nothing in {}", ui.name(store.output()))
}

/// Whether a command that failed wrote anything.
pub(crate) fn is_anything_built(stage: &Path) -> bool {
    std::fs::read_dir(stage).is_ok_and(|mut entries| entries.next().is_some())
}

fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(error::RUN_FAILED),
        (None, signal) => killed_by(signal.unwrap_or_default()),
    }
}
