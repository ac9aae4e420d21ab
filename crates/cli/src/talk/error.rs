//! What went wrong, as an exit code, a message and the way out. Every [`ErrorKind`] gets its code here and nowhere else.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use txfs::{Error, ErrorKind, Outcome, Problem};

use crate::talk::json::Object;
use crate::talk::ways_out;

pub(crate) const DONE: u8 = 0;
pub(crate) const USAGE: u8 = 2;
pub(crate) const BUSY: u8 = 3;
pub(crate) const CONFLICT: u8 = 4;
pub(crate) const CORRUPT: u8 = 6;
/// `diff --exit-code` found changes.
pub(crate) const DIFFERS: u8 = 8;
/// txfs itself failed in `run`; the status of its command is passed through.
pub(crate) const RUN_FAILED: u8 = 125;
/// What JSON calls the failure of the command that `run` ran: its exit code is that command's.
const OF_COMMAND: &str = "command";
/// What follows a commit failed: that stands.
pub(crate) const AFTER: u8 = 9;
/// What JSON calls that.
const OF_AFTER: &str = "after";
/// What JSON calls a failure because of a signal to txfs.
const STOPPED: &str = "stopped";
/// Whoever read stdout stopped; what the shell makes of SIGPIPE.
pub(crate) const CLOSED: u8 = 141;

/// The exit code of a kind of error, and its name for programs.
fn classify(kind: ErrorKind) -> (u8, &'static str) {
    match kind {
        ErrorKind::Failed => (1, "failed"),
        ErrorKind::Usage => (USAGE, "usage"),
        ErrorKind::Busy => (BUSY, "busy"),
        ErrorKind::Conflict => (CONFLICT, "conflict"),
        ErrorKind::Refused => (5, "refused"),
        ErrorKind::Corrupt => (CORRUPT, "corrupt"),
        ErrorKind::Unknown => (7, "unknown"),
        // The signal's number is added where it is known.
        ErrorKind::Interrupted => (killed_by(0), STOPPED),
        _ => (1, "failed"),
    }
}

/// Why a command ends with another exit code than 0.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    word: &'static str,
    /// Empty when there is nothing to say.
    message: Box<str>,
    hints: Vec<String>,
    /// Where what was built is kept.
    stage: Option<Box<Path>>,
    /// The library's error, where it is one.
    source: Option<Box<Error>>,
    /// Where entries were moved before it failed.
    rescued: Vec<PathBuf>,
    /// What became of a commit that was done, and the generation that is published now.
    stands: Option<Box<(Stands, u64)>>,
}

/// What became of a commit whose command failed all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stands {
    /// It stands.
    Committed,
    /// What was before was published again.
    TakenBack,
}

impl Failure {
    /// The command ends with `code`, and whoever has to know has been told.
    pub(crate) fn silent(code: u8) -> Self {
        Self {
            code,
            word: "failed",
            message: Box::default(),
            hints: Vec::new(),
            stage: None,
            source: None,
            rescued: Vec::new(),
            stands: None,
        }
    }

    /// `message` is why the command ends with `code`.
    pub(crate) fn with_code(code: u8, message: String) -> Self {
        Self { message: message.into(), ..Self::silent(code) }
    }

    /// What follows the commit of `generation` failed.
    pub(crate) fn of_after(message: String, generation: u64) -> Self {
        let failure = Self { word: OF_AFTER, ..Self::with_code(AFTER, message) };
        Self { stands: Some(Box::new((Stands::Committed, generation))), ..failure }
    }

    /// The same failure in other words, of a command that had committed; `generation` is published now.
    pub(crate) fn saying(self, message: String, stands: Stands, generation: u64) -> Self {
        Self { message: message.into(), hints: Vec::new(), stands: Some(Box::new((stands, generation))), ..self }
    }

    /// This failure is why `before` could not be mended: `generation` is published.
    pub(crate) fn because_of(self, before: &str, generation: u64) -> Self {
        let message = format!("{before}: {}", self.message);
        match self.is_unknown() {
            true => Self { message: message.into(), ..self },
            false => {
                let Self { hints, rescued, .. } = self;
                Self { hints, rescued, ..Self::of_after(message, generation) }
            }
        }
    }

    fn is_unknown(&self) -> bool {
        self.source().is_some_and(|error| error.outcome() == Outcome::Unknown)
    }

    /// The command that `run` ran ended with `code`.
    pub(crate) fn of_command(code: u8, message: String) -> Self {
        Self { word: OF_COMMAND, ..Self::with_code(code, message) }
    }

    /// txfs was told to stop, as by ^C, and did before it changed anything.
    pub(crate) fn stopped(signal: i32, message: String) -> Self {
        Self { word: STOPPED, ..Self::with_code(killed_by(signal), message) }
    }

    /// Names the signal because of which the library stopped.
    pub(crate) fn of_signal(self, received: Option<i32>) -> Self {
        match (self.source(), received) {
            (Some(Error::Interrupted { .. }), Some(signal)) => {
                Self { code: killed_by(signal), message: stopped_by(signal).into(), ..self }
            }
            _ => self,
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.word == STOPPED
    }

    /// The arguments make no sense, as clap says in paragraphs: what is wrong, and how they would.
    pub(crate) fn of_arguments(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let on_one_line = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join(" ");
        let mut paragraphs = text.split("\n\n").map(str::trim).filter(|text| !text.is_empty()).map(on_one_line);
        let message = paragraphs.next().unwrap_or_default();
        let failure = usage(message.strip_prefix("error: ").unwrap_or(&message));
        paragraphs.fold(failure, Self::hint)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// What was built is kept there.
    pub(crate) fn kept_at(self, stage: PathBuf) -> Self {
        Self { stage: Some(stage.into_boxed_path()), ..self }
    }

    pub(crate) fn source(&self) -> Option<&Error> {
        self.source.as_deref()
    }

    /// Puts other ways out of what was refused in the place of the library's, where `own` knows them.
    pub(crate) fn with_ways_out(mut self, own: impl Fn(&Problem) -> Option<String>) -> Self {
        let Some(error @ Error::Refused { problems, .. }) = self.source() else { return self };
        let mut hints: Vec<_> =
            problems.iter().filter_map(|problem| own(problem).or_else(|| ways_out::of_problem(problem))).collect();
        hints.dedup();
        let replaced = ways_out::of_error(error);
        self.hints.retain(|hint| Some(hint) != replaced.as_ref());
        self.hints.splice(0..0, hints);
        self
    }

    /// The same failure in `run`, where the codes 1 and 2 are left to its command.
    pub(crate) fn of_run(mut self) -> Self {
        if matches!(self.code, 1 | USAGE) && self.word != OF_COMMAND {
            self.code = RUN_FAILED;
        }
        self
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }

    /// What to say of it; empty where whoever has to know has been told.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn hints(&self) -> &[String] {
        &self.hints
    }

    /// Where entries were moved before it failed.
    pub(crate) fn rescued(&self) -> &[PathBuf] {
        &self.rescued
    }

    /// The failure for programs.
    pub(crate) fn object(&self) -> Object {
        let hints = self.hints.clone();
        let object = Object::new().field("error", self.word).field("code", self.code);
        let object = object.field("message", &*self.message).field("hints", hints);
        let outcome = match self.stands.as_deref() {
            Some((Stands::Committed, _)) => "committed",
            Some((Stands::TakenBack, _)) => "taken-back",
            None if self.is_unknown() => "unknown",
            None => "unchanged",
        };
        let object = object.field("outcome", outcome).field("generation", self.stands.as_ref().map(|stands| stands.1));
        let rescued = self.rescued.iter().map(|path| path.as_os_str().as_bytes());
        let object = object.paths("rescued", rescued);
        let object = match &self.stage {
            Some(stage) => object.path("stage", stage.as_os_str().as_bytes()),
            None => object.field("stage", Value::Null),
        };
        match self.source() {
            Some(Error::Refused { problems, .. }) => object.parts("problems", problems.iter().map(problem)),
            _ => object,
        }
    }
}

/// A problem as a part of a JSON object.
pub(crate) fn problem(problem: &Problem) -> Object {
    describe(Object::part(), problem)
}

/// Adds what a problem is to a JSON object.
pub(crate) fn describe(object: Object, problem: &Problem) -> Object {
    let object = object.field("problem", problem.code()).field("message", problem.to_string());
    match problem.paths() {
        Some(paths) => object.relatives("paths", &paths.first).field("total", paths.total),
        None => object,
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (rescued, error) = error.into_parts();
        let (code, word) = classify(error.kind());
        // What to do with the stage of a transaction that came too late, only the command knows.
        let hint = match &error {
            Error::BaseMoved { .. } => None,
            error => ways_out::of_error(error),
        };
        let (message, hints) = (ways_out::message(&error).into(), hint.into_iter().collect());
        Self { code, word, message, hints, stage: None, source: Some(Box::new(error)), rescued, stands: None }
    }
}

/// The request makes no sense.
pub(crate) fn usage(message: impl Into<String>) -> Failure {
    Failure { word: "usage", ..Failure::with_code(USAGE, message.into()) }
}

/// Something failed that is no error of the library's.
pub(crate) fn failed(message: impl Into<String>) -> Failure {
    Failure::with_code(1, message.into())
}

/// The status that a shell gives a command that a signal killed.
pub(crate) fn killed_by(signal: i32) -> u8 {
    u8::try_from(signal).map_or(u8::MAX, |signal| signal.saturating_add(128))
}

/// What stopped txfs, for people.
pub(crate) fn stopped_by(signal: i32) -> String {
    format!("stopped by signal {signal}: nothing was changed")
}

/// A system call of the command itself failed; worded as the library does.
pub(crate) fn cannot(action: &'static str, path: &Path, source: std::io::Error) -> Failure {
    Error::Io { action, path: path.to_path_buf(), source, whose: None }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_exit_code_that_the_help_promises() {
        use ErrorKind::{Busy, Conflict, Corrupt, Failed, Refused, Unknown, Usage};
        for (code, kind) in (1..).zip([Failed, Usage, Busy, Conflict, Refused, Corrupt, Unknown]) {
            assert_eq!(classify(kind).0, code, "{kind:?}");
        }
    }
}
