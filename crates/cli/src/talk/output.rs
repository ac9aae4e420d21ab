//! Data on stdout, talk on stderr.
//!
//! Invariants:
//! 1. A message is one line. Paths in it are escaped ([`Shown`]), so that no name can forge a line.
//! 2. With JSON every command that succeeds prints an object. The last one is its result, those before it are what it lists; where it
//!    fails the last one is the error. A field means the same in every object, and has one type, or is null.
//! 3. Whoever reads stdout may stop at any time: that ends the command quietly, as SIGPIPE would ([`error::CLOSED`]). Nobody
//!    reading stderr changes nothing.

use std::cell::RefCell;
use std::fmt::{self, Display};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use txfs::{Shown, Waiting, Word};

use crate::talk::error::{self, Failure};
use crate::talk::json::Object;
use crate::talk::text::reason;
use crate::talk::ways_out;

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ColorChoice {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Style {
    fn code(self) -> u8 {
        match self {
            Style::Red => 31,
            Style::Green => 32,
            Style::Yellow => 33,
            Style::Cyan => 36,
        }
    }
}

/// How this command talks.
pub(crate) struct Ui {
    pub(crate) json: bool,
    quiet: bool,
    pub(crate) verbose: bool,
    color_data: bool,
    color_talk: bool,
    current_dir: Option<PathBuf>,
    /// What people were warned of, for the result's object.
    warnings: RefCell<Vec<String>>,
}

impl Ui {
    pub(crate) fn new(json: bool, quiet: bool, verbose: bool, color: ColorChoice) -> Self {
        let wanted = |terminal: bool| match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        Self {
            json,
            quiet,
            verbose,
            color_data: wanted(io::stdout().is_terminal()),
            color_talk: wanted(io::stderr().is_terminal()),
            // Everything is below the root: nothing would be shorter for it than by a slash, and look relative.
            current_dir: std::env::current_dir().ok().filter(|dir| dir.parent().is_some()),
            warnings: RefCell::default(),
        }
    }

    /// Data for stdout; nothing is certain to be written before [`Data::finish`].
    pub(crate) fn data(&self) -> Data {
        Data { out: BufWriter::new(io::stdout().lock()), color: self.color_data }
    }

    /// A path for people: relative where it is below the current directory.
    pub(crate) fn name(&self, path: &Path) -> String {
        Shown(self.shorten(path)).to_string()
    }

    /// As [`Ui::name`], for a command that is to be pasted into a shell.
    pub(crate) fn word(&self, path: &Path) -> String {
        Word(self.shorten(path)).to_string()
    }

    fn shorten<'a>(&self, path: &'a Path) -> &'a Path {
        let relative = self.current_dir.as_ref().and_then(|dir| path.strip_prefix(dir).ok());
        relative.filter(|path| !path.as_os_str().is_empty()).unwrap_or(path)
    }

    /// What was done.
    pub(crate) fn say(&self, text: impl Display) {
        if !self.quiet {
            self.talk(text);
        }
    }

    /// Tells of entries that were moved aside, if any were.
    pub(crate) fn rescued(&self, rescued: &[PathBuf]) {
        if let Some(moved) = self.describe_rescued(rescued) {
            self.warn(moved);
        }
    }

    /// Says in one line what became of entries that txfs does not delete because they are not those that it recorded.
    pub(crate) fn describe_rescued(&self, rescued: &[PathBuf]) -> Option<String> {
        let directory = self.name(rescued.first()?.parent()?);
        let entries = if let [_] = rescued { "1 entry".to_owned() } else { format!("{} entries", rescued.len()) };
        Some(format!(
            "moved {entries} to {directory}, not being what txfs recorded, as after its state was copied or somebody changed \
             it: delete there what is not wanted"
        ))
    }

    /// Says what is waited for: of locks, which are held for moments as a rule, to whoever sits and wonders, or wants to know more.
    pub(crate) fn teller(&self) -> impl Fn(&Waiting) + Send + Sync + 'static {
        let (quiet, watched) = (self.quiet, self.verbose || io::stderr().is_terminal());
        move |waiting| {
            if !quiet && (watched || !matches!(waiting, Waiting::Lock { .. })) {
                let _ = io::stderr().write_all(format!("txfs: {}\n", ways_out::waiting(waiting)).as_bytes());
            }
        }
    }

    /// More than most want to know.
    pub(crate) fn detail(&self, text: impl Display) {
        if self.verbose {
            self.talk(text);
        }
    }

    pub(crate) fn warn(&self, text: impl Display) {
        self.talk(format_args!("{} {text}", self.label("warning:", Style::Yellow)));
        if self.json {
            self.warnings.borrow_mut().push(text.to_string());
        }
    }

    /// Prints the object that a command ends with, with what people were warned of before.
    pub(crate) fn result(&self, mut data: Data, object: Object) -> Result<(), Failure> {
        data.object(object.field("warnings", self.warnings.take()))?;
        data.finish()
    }

    /// What failed and does not end the command, with the way out.
    pub(crate) fn warn_of(&self, error: &txfs::Error) {
        self.warn(error);
        ways_out::of_error(error).iter().for_each(|hint| self.advise(hint));
    }

    /// Tells of what went wrong after everything was done.
    pub(crate) fn warn_of_failure(&self, failure: &Failure) {
        self.rescued(failure.rescued());
        if !failure.message().is_empty() {
            self.warn(failure.message());
        }
    }

    /// Tells why the command fails, and returns its exit code.
    pub(crate) fn fail(&self, failure: &Failure) -> u8 {
        self.rescued(failure.rescued());
        if failure.message().is_empty() {
            return failure.code();
        }
        self.error(failure.message());
        failure.hints().iter().for_each(|hint| self.hint(hint));
        self.fail_for_programs(failure)
    }

    /// As [`Ui::fail`], for whoever reads JSON, where people were told.
    pub(crate) fn fail_for_programs(&self, failure: &Failure) -> u8 {
        if self.json {
            // The exit code says it too, should nobody read this.
            let _ = self.result(self.data(), failure.object());
        }
        failure.code()
    }

    pub(crate) fn problem(&self, text: impl Display) {
        self.talk(format_args!("{} {text}", self.label("problem:", Style::Yellow)));
    }

    pub(crate) fn error(&self, text: impl Display) {
        self.talk(format_args!("{} {text}", self.label("error:", Style::Red)));
    }

    pub(crate) fn hint(&self, text: impl Display) {
        self.talk(format_args!("{} {text}", self.label("hint:", Style::Cyan)));
    }

    /// A way out of what was said and is no error.
    pub(crate) fn advise(&self, text: impl Display) {
        if !self.quiet {
            self.hint(text);
        }
    }

    fn label(&self, text: &'static str, style: Style) -> Painted<'static> {
        Painted { text, style, color: self.color_talk }
    }

    /// One write for each line, so that lines of several processes do not mix.
    fn talk(&self, text: impl Display) {
        let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
    }
}

/// Text that is coloured where colour is wanted.
pub(crate) struct Painted<'a> {
    text: &'a str,
    style: Style,
    color: bool,
}

impl Display for Painted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.color {
            true => write!(f, "\x1b[1;{}m{}\x1b[0m", self.style.code(), self.text),
            false => f.write_str(self.text),
        }
    }
}

/// stdout.
pub(crate) struct Data {
    out: BufWriter<StdoutLock<'static>>,
    color: bool,
}

impl Data {
    pub(crate) fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        writeln!(self.out, "{text}").map_err(unwritable)
    }

    /// A path as it is, so that a shell can use it.
    pub(crate) fn raw(&mut self, path: &Path) -> Result<(), Failure> {
        self.out.write_all(path.as_os_str().as_bytes()).and_then(|()| self.out.write_all(b"\n")).map_err(unwritable)
    }

    /// The content of a file, as it is.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(unwritable)
    }

    pub(crate) fn object(&mut self, object: Object) -> Result<(), Failure> {
        writeln!(self.out, "{}", object.line()).map_err(unwritable)
    }

    pub(crate) fn paint<'a>(&self, text: &'a str, style: Style) -> Painted<'a> {
        Painted { text, style, color: self.color }
    }

    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        self.out.flush().map_err(unwritable)
    }
}

fn unwritable(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::silent(error::CLOSED),
        _ => error::failed(format!("cannot write to stdout: {}", reason(&error))),
    }
}
