//! Data on stdout, talk on stderr.
//!
//! Invariants:
//! 1. A message is one line. Paths in it are escaped ([`Shown`]), so that no name can forge a line.
//! 2. Every JSON object stands on a line of its own and begins with `"v":1`. What a terminal would not show is written as `\uXXXX` there.
//! 3. With JSON every command that succeeds prints an object. The last one is its result, those before it are what it lists; where it
//!    fails the last one is the error. A field means the same in every object, and has one type, or is null.
//! 4. JSON has no bytes: a path `X` that is not UTF-8 is written lossily as `X`, with its exact bytes in hexadecimal as
//!    `X_bytes`. For a list both are lists.
//! 5. Whoever reads stdout may stop at any time: that ends the command quietly, as SIGPIPE would ([`error::CLOSED`]). Nobody
//!    reading stderr changes nothing.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::{self, Display, Write as _};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use txfs::{RelPath, Shown, Waiting, Word, is_hidden};

use crate::error::{self, Failure};
use crate::ways_out;

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
                let _ = io::stderr().write_all(format!("txfs: {waiting}\n").as_bytes());
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
        _ => error::failed(format!("cannot write to stdout: {}", error::reason(&error))),
    }
}

/// A JSON object that keeps the order of its fields.
pub(crate) struct Object {
    text: String,
}

impl Object {
    /// An object for a line of its own.
    pub(crate) fn new() -> Self {
        Self { text: "{\"v\":1".to_owned() }
    }

    /// An object inside another.
    pub(crate) fn part() -> Self {
        Self { text: "{".to_owned() }
    }

    pub(crate) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.put(name, value.into());
        self
    }

    /// The output that a command is about.
    pub(crate) fn output(self, output: &Path) -> Self {
        self.path("output", output.as_os_str().as_bytes())
    }

    /// Bytes that are a path; see invariant 4.
    pub(crate) fn path(mut self, name: &str, bytes: &[u8]) -> Self {
        self.put(name, String::from_utf8_lossy(bytes));
        if std::str::from_utf8(bytes).is_err() {
            self.put(&format!("{name}_bytes"), hexadecimal(bytes));
        }
        self
    }

    /// A path in the output, `.` for the output itself.
    pub(crate) fn relative(self, name: &str, path: &RelPath) -> Self {
        self.path(name, in_output(path))
    }

    /// Paths in the output.
    pub(crate) fn relatives(self, name: &str, paths: &[RelPath]) -> Self {
        self.paths(name, paths.iter().map(in_output))
    }

    pub(crate) fn paths<'a>(mut self, name: &str, paths: impl Iterator<Item = &'a [u8]>) -> Self {
        let paths: Vec<_> = paths.collect();
        let lossy: Vec<_> = paths.iter().map(|bytes| String::from_utf8_lossy(bytes)).collect();
        self.put(name, lossy);
        if paths.iter().any(|bytes| std::str::from_utf8(bytes).is_err()) {
            let exact: Vec<_> = paths.iter().map(|bytes| hexadecimal(bytes)).collect();
            self.put(&format!("{name}_bytes"), exact);
        }
        self
    }

    pub(crate) fn part_of(mut self, name: &str, part: Object) -> Self {
        self.name(name);
        self.text.push_str(&part.text);
        self.text.push('}');
        self
    }

    pub(crate) fn parts(mut self, name: &str, parts: impl Iterator<Item = Object>) -> Self {
        self.name(name);
        let parts: Vec<_> = parts.map(|part| part.text + "}").collect();
        let _ = write!(self.text, "[{}]", parts.join(","));
        self
    }

    /// The object as a line.
    pub(crate) fn line(&self) -> String {
        visible(&self.text).into_owned() + "}"
    }

    fn name(&mut self, name: &str) {
        let comma = if self.text.ends_with('{') { "" } else { "," };
        let _ = write!(self.text, "{comma}{}:", Value::from(name));
    }

    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.name(name);
        let _ = write!(self.text, "{}", value.into());
    }
}

/// JSON with every character of a string that does not show escaped; there are none outside of strings.
fn visible(json: &str) -> Cow<'_, str> {
    if !json.chars().any(is_hidden) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

fn in_output(path: &RelPath) -> &[u8] {
    if path.is_root() { b"." } else { path.as_bytes() }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub(crate) fn time(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant's days to civil: eras of 400 years that begin on 1 March, so that the leap day comes last.
    let day = days + 719_468;
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A size in binary units, for people.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return crate::count(bytes, "byte");
    }
    // Tenths, rounded down: no float, and no unit above the last.
    let (mut tenths, mut unit) = (u128::from(bytes) * 10 / 1024, 0);
    while tenths >= 10_240 && unit + 1 < units.len() {
        (tenths, unit) = (tenths / 1024, unit + 1);
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_binary_units() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1_048_576, "1.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(time(seconds), expected);
        }
    }

    #[test]
    fn objects_keep_their_order_and_every_byte() {
        let inner = Object::part().field("b", 1).field("a", Value::Null);
        let object = Object::new().path("z", b"ok\n").path("p", b"\xff").part_of("i", inner);
        let text = object.parts("l", [Object::part()].into_iter()).text + "}";
        assert_eq!(text, r#"{"v":1,"z":"ok\n","p":"�","p_bytes":"ff","i":{"b":1,"a":null},"l":[{}]}"#);
        serde_json::from_str::<Value>(&text).unwrap();
    }

    #[test]
    fn what_does_not_show_is_escaped_and_means_the_same() {
        let name = "a\u{202e}\u{9b}\u{7f}\u{e0041}b";
        let text = Object::new().path("p", name.as_bytes()).text + "}";
        let shown = visible(&text);
        assert_eq!(shown, r#"{"v":1,"p":"a\u202e\u009b\u007f\udb40\udc41b"}"#);
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["p"], name);
    }
}
