//! `txfs run` of a command that names no stage: what it writes to the output is diverted, and becomes the stage (G14).
//!
//! The transaction's own directory takes what is written, and dies with it: what a kill leaves the next txfs command removes.

use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;

use txfs::{Basis, Error, Problem, Shown, Store, Transaction};
use txfs_capture::{Capture, Captured, Error as CaptureError, Gate, Linger, Refusal, Root, Running, Stage};

use crate::publishing::checks::{check_command, ended, name_of};
use crate::publishing::options::PublishOptions;
use crate::running::tool::{Prepared, is_anything_built};
use crate::store::context::Context;
use crate::store::stage;
use crate::talk::error::{Failure, failed};

/// A way to divert what a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// An overlay: what is written is a change.
    Overlay,
    /// The command sees a copy.
    Copy,
    /// It sees an empty directory, or none where there is none.
    Empty,
}

impl Way {
    /// What its stage stands for.
    pub(crate) fn basis(self) -> Basis {
        match self {
            Way::Overlay => Basis::Current,
            Way::Copy => Basis::Copy,
            Way::Empty => Basis::Empty,
        }
    }
}

/// Of some ways, those that there are: nothing can be seen, or copied, of an output that is not there.
pub(crate) fn possible(store: &Store, ways: Vec<Way>) -> Vec<Way> {
    match store.output().symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => vec![Way::Empty],
        _ => ways,
    }
}

/// A command that is to be captured.
pub(crate) struct Capturing<'a> {
    pub(crate) context: &'a Context,
    pub(crate) store: &'a Store,
    pub(crate) publish: &'a PublishOptions,
    /// Whether processes that outlive the command are waited for.
    pub(crate) waits: bool,
    /// Whether what it made is wanted, too, where it failed.
    pub(crate) keeps_failed: bool,
    pub(crate) way: Way,
}

/// What came of it.
pub(crate) enum Outcome {
    /// The stage has what the command made of the output.
    Captured {
        /// How to commit it.
        publish: PublishOptions,
    },
    /// The command or a check failed, and the stage has what there is.
    Failed(Failure),
    /// This way is shut; nothing ran.
    Refused(Failure),
}

impl Capturing<'_> {
    /// Runs the command; an error says why there is nothing to publish, or to keep.
    pub(crate) fn run(&self, transaction: &mut Transaction, tool: &mut Prepared) -> Result<Outcome, Failure> {
        let capture = self.capture(&transaction.stage()).map_err(|error| self.failed(&error))?;
        tool.command.env(stage::CAPTURED, self.store.output());
        self.context.signals.expect_none()?;
        let (child, running) = match capture.spawn(&mut tool.command) {
            Ok(spawned) => spawned,
            Err(CaptureError::Command(error)) => return Err(tool.not_run(&error)),
            Err(CaptureError::Refused(refusal)) => return Ok(Outcome::Refused(self.refused(&refusal, tool))),
            Err(error) => return Err(self.failed(&error)),
        };
        let (captured, mut done) = self.wait(tool, child, running)?;
        let mut publish = self.publish.clone();
        if let Root::Upper(_) = captured.root {
            // What was not changed is not in the stage: what checks the output has to see it as a whole.
            done = done.and_then(|()| self.check(&capture));
            publish = publish.checked();
        }
        match done {
            Ok(()) => self.settle(captured, transaction).map(|_| Outcome::Captured { publish }),
            Err(failure) if !self.keeps_failed => Err(failure),
            Err(failure) => match self.settle(captured, transaction) {
                Ok(true) => Ok(Outcome::Failed(failure)),
                _ => Err(failure),
            },
        }
    }

    /// Makes of what was captured the stage. Whether there is anything in it.
    fn settle(&self, captured: Captured, transaction: &mut Transaction) -> Result<bool, Failure> {
        let removed = match captured.settle().map_err(|error| self.failed(&error))? {
            Stage::Change { removed } => Some(removed),
            _ => None,
        };
        transaction.set_captured(removed.as_deref())?;
        Ok(removed.is_some_and(|removed| !removed.is_empty()) || is_anything_built(&transaction.stage()))
    }

    fn capture(&self, stage: &Path) -> Result<Capture, CaptureError> {
        let output = self.store.output();
        let (place, name) = (stage.parent().unwrap_or(stage), stage.file_name().unwrap_or_default());
        let capture = match self.way {
            Way::Overlay => Capture::overlay(output, place, name)?,
            Way::Copy | Way::Empty => Capture::directory(output, place, name)?,
        };
        Ok(capture.linger(if self.waits { Linger::Wait } else { Linger::End }))
    }

    /// What was captured, and whether the command succeeded.
    fn wait(
        &self,
        tool: &Prepared,
        child: Child,
        running: Running,
    ) -> Result<(Captured, Result<(), Failure>), Failure> {
        let done = tool.wait(&self.context.signals, child);
        let captured = match running.end() {
            Ok(captured) if !captured.survived => captured,
            ended => {
                done?;
                let Captured { outlived, .. } = ended.map_err(|error| self.failed(&error))?;
                let (name, names, nothing) = (&tool.name, shown(&outlived), &tool.nothing);
                return Err(failed(format!("{names} outlived `{name}` and cannot be killed: {nothing}")));
            }
        };
        if done.is_ok() && !captured.outlived.is_empty() {
            let (name, names) = (&tool.name, shown(&captured.outlived));
            self.context
                .ui
                .warn(format_args!("ended what outlived `{name}`: {names}; --wait-children waits for it instead"));
        }
        Ok((captured, done))
    }

    /// Runs the checks where the command ran.
    fn check(&self, capture: &Capture) -> Result<(), Failure> {
        let failed = |check| {
            let result = self.run_check(capture, check).err()?;
            Some(Problem::Check { check: name_of(check), result })
        };
        let problems: Vec<_> = self.publish.checks().filter_map(failed).collect();
        self.context.signals.expect_none()?;
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::Refused { output: self.store.output().to_path_buf(), problems }.into())
    }

    fn run_check(&self, capture: &Capture, check: &OsStr) -> Result<(), String> {
        let output = self.store.output();
        let not_run = |error: &dyn Display| format!("could not be run: {error}");
        let spawned = capture.spawn(&mut check_command(check, output, output)).map_err(|error| not_run(&error))?;
        let status = self.context.signals.supervise(spawned.0).map_err(|error| not_run(&error));
        let captured = spawned.1.end().map_err(|error| not_run(&error));
        let status = status?;
        if !status.success() {
            return Err(ended(status));
        }
        match captured?.root {
            Root::Upper(_) => Ok(()),
            _ => Err("removed the output".to_owned()),
        }
    }

    fn failed(&self, error: &CaptureError) -> Failure {
        let output = self.context.ui.name(self.store.output());
        failed(format!("cannot divert what is written to {output}: {error}: txfs changed nothing in it"))
    }

    fn refused(&self, refusal: &Refusal, tool: &Prepared) -> Failure {
        let (ui, name) = (&self.context.ui, &tool.name);
        let output = ui.name(self.store.output());
        let failure = failed(format!(
            "`{name}` was not run: what it writes to {output} cannot be diverted here: {refusal}: {nothing}",
            nothing = tool.nothing
        ));
        if refusal.gate == Gate::Nested {
            return failure
                .hint("let the outer `txfs run` run it alone, or give it a stage: `txfs run OUT --stage -- CMD`");
        }
        let way_out = match refusal.gate {
            Gate::OfOthers(_) => "leave out --capture, or say `--capture copy`",
            _ => refusal.way_out(),
        };
        failure.hint(way_out).hint(
            "or have the command write to a stage: put {stage} where it is told where to write, or `txfs run OUT --stage -- CMD`, whose CMD writes to $TXFS_STAGE",
        )
    }
}

fn shown(names: &[String]) -> String {
    let names: Vec<_> = names.iter().map(|name| Shown(&PathBuf::from(name)).to_string()).collect();
    names.join(", ")
}
