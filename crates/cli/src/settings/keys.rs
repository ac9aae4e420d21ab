//! What `txfs.toml` says of one output: the options of the command, by their names there.
//!
//! Invariants:
//! 1. A key is the long name of an option, and means the same; `command` and `source` stand for arguments.
//! 2. What cannot be meant is an error that says which line it is in: an unknown key names the nearest one.

use std::ffi::OsString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Every key that an output may have.
pub(crate) const KEYS: &[&str] = &[
    "command",
    "source",
    "state",
    "from",
    "stage",
    "capture",
    "wait-children",
    "wait",
    "checksum",
    "check",
    "exclude",
    "verify-live",
    "verify-live-timeout",
    "after",
    "after-timeout",
    "allow-empty",
    "max-removed",
    "adopt",
    "adopt-all",
    "allow-drift",
    "allow-case-collisions",
    "touch",
    "keep-failed",
    "keep",
    "keep-for",
];

/// Options that are on or off, by their name in the code, and what turns off on the command line what the file turns
/// on.
pub(crate) const FLAGS: &[(&str, &str, &str)] = &[
    ("stage", "no_stage", "no-stage"),
    ("wait_children", "no_wait_children", "no-wait-children"),
    ("wait", "no_wait", "no-wait"),
    ("checksum", "no_checksum", "no-checksum"),
    ("allow_empty", "no_allow_empty", "no-allow-empty"),
    ("adopt", "no_adopt", "no-adopt"),
    ("adopt_all", "no_adopt_all", "no-adopt-all"),
    ("allow_drift", "no_allow_drift", "no-allow-drift"),
    ("allow_case_collisions", "no_allow_case_collisions", "no-allow-case-collisions"),
    ("touch", "no_touch", "no-touch"),
    ("keep_failed", "no_keep_failed", "no-keep-failed"),
];

/// What the file says of one output.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    /// The directory of the file: relative paths begin there, and commands of the file run there.
    pub(crate) dir: PathBuf,
    pub(crate) command: Option<Vec<OsString>>,
    pub(crate) src: Option<PathBuf>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) from: Option<FromChoice>,
    pub(crate) stage: Option<bool>,
    pub(crate) capture: Option<CaptureChoice>,
    pub(crate) wait_children: Option<bool>,
    pub(crate) wait: Option<Duration>,
    pub(crate) checksum: Option<bool>,
    pub(crate) check: Option<Vec<OsString>>,
    pub(crate) exclude: Option<Vec<Pattern>>,
    pub(crate) verify_live: Option<Vec<OsString>>,
    pub(crate) verify_live_timeout: Option<Duration>,
    pub(crate) after: Option<Vec<OsString>>,
    pub(crate) after_timeout: Option<Duration>,
    pub(crate) allow_empty: Option<bool>,
    pub(crate) max_removed: Option<u8>,
    pub(crate) adopt: Option<bool>,
    pub(crate) adopt_all: Option<bool>,
    pub(crate) allow_drift: Option<bool>,
    pub(crate) allow_case_collisions: Option<bool>,
    pub(crate) touch: Option<bool>,
    pub(crate) keep_failed: Option<bool>,
    pub(crate) keep: Option<u64>,
    pub(crate) keep_for: Option<Duration>,
}

/// Where something is wrong, and what.
pub(crate) type Wrong = (Range<usize>, String);

type Value<'i> = Spanned<DeValue<'i>>;

impl Settings {
    pub(crate) fn read(dir: &Path, table: &DeTable<'_>) -> Result<Self, Wrong> {
        let mut settings = Self { dir: dir.to_path_buf(), ..Self::default() };
        for (key, value) in table {
            if !settings.set(key.get_ref(), value)? {
                return Err((key.span(), unknown(key.get_ref(), KEYS)));
            }
        }
        settings.expect_no_contradiction(table)?;
        Ok(settings)
    }

    /// Whether there is such a key.
    fn set(&mut self, key: &str, value: &Value<'_>) -> Result<bool, Wrong> {
        match key {
            "command" => self.command = Some(command(value)?),
            "source" => self.src = Some(self.dir.join(text(value)?)),
            "state" => self.state = Some(self.dir.join(text(value)?)),
            "from" => self.from = Some(choice(value)?),
            "stage" => self.stage = Some(flag(value)?),
            "capture" => self.capture = Some(choice(value)?),
            "wait-children" => self.wait_children = Some(flag(value)?),
            "wait" => self.wait = wait(value)?,
            "checksum" => self.checksum = Some(flag(value)?),
            "check" => self.check = Some(commands(value)?),
            "exclude" => self.exclude = Some(patterns(value)?),
            "verify-live" => self.verify_live = Some(commands(value)?),
            "verify-live-timeout" => self.verify_live_timeout = Some(seconds(value)?),
            "after" => self.after = Some(commands(value)?),
            "after-timeout" => self.after_timeout = Some(seconds(value)?),
            "allow-empty" => self.allow_empty = Some(flag(value)?),
            "max-removed" => self.max_removed = Some(percent(value)?),
            "adopt" => self.adopt = Some(flag(value)?),
            "adopt-all" => self.adopt_all = Some(flag(value)?),
            "allow-drift" => self.allow_drift = Some(flag(value)?),
            "allow-case-collisions" => self.allow_case_collisions = Some(flag(value)?),
            "touch" => self.touch = Some(flag(value)?),
            "keep-failed" => self.keep_failed = Some(flag(value)?),
            "keep" => self.keep = Some(whole_number(value)?),
            "keep-for" => self.keep_for = Some(age(value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn expect_no_contradiction(&self, table: &DeTable<'_>) -> Result<(), Wrong> {
        if self.stage == Some(true) && (self.capture.is_some() || self.wait_children == Some(true)) {
            let span = table.get("stage").map_or(0..0, Spanned::span);
            return Err((
                span,
                "`stage` is for what is not captured: leave it out, or `capture` and `wait-children`".into(),
            ));
        }
        Ok(())
    }
}

/// Takes from the file what the command line does not say.
macro_rules! take {
    ($settings:ident, $given:ident; $($field:ident => $target:expr),* $(,)?) => {
        $(if let Some(value) = $settings.$field.clone().filter(|_| !$given.has(stringify!($field))) {
            $target = value.into();
        })*
    };
}
pub(crate) use take;

use crate::settings::glob::{self, Pattern};
use crate::settings::placeholder::{self, find_placeholder};
use crate::settings::values::{CaptureChoice, FromChoice};

/// What the command line says.
pub(crate) struct Given<'m>(pub(crate) &'m ArgMatches);

impl Given<'_> {
    /// Whether it says that an option is on or off, or has a value.
    pub(crate) fn has(&self, id: &str) -> bool {
        let is_said =
            |id: &str| self.0.try_contains_id(id).is_ok() && self.0.value_source(id) == Some(ValueSource::CommandLine);
        is_said(id) || FLAGS.iter().any(|(flag, no, _)| *flag == id && is_said(no))
    }
}

/// Adds what turns off on the command line what the file turns on.
pub(crate) fn with_negations(command: clap::Command) -> clap::Command {
    let names: Vec<_> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |mut command| {
            for (flag, no, long) in FLAGS {
                if command.get_arguments().any(|argument| argument.get_id() == *flag) {
                    let negation = clap::Arg::new(*no).long(*long).action(clap::ArgAction::SetTrue).hide(true);
                    command = command.arg(negation.overrides_with(*flag));
                }
            }
            command
        })
    })
}

/// Says that there is no such key.
pub(crate) fn unknown(key: &str, known: &[&str]) -> String {
    let near = known.iter().map(|known| (strsim::jaro_winkler(key, known), known));
    match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((likeness, nearest)) if likeness > 0.7 => format!("there is no key `{key}`: did you mean `{nearest}`?"),
        _ => format!("there is no key `{key}`: there are {}", known.join(", ")),
    }
}

fn wrong<T>(value: &Value<'_>, expected: &str) -> Result<T, Wrong> {
    Err((value.span(), format!("this is to be {expected}, and is a {}", value.get_ref().type_str())))
}

fn text(value: &Value<'_>) -> Result<String, Wrong> {
    match value.get_ref().as_str() {
        Some("") => Err((value.span(), "this is empty".to_owned())),
        Some(text) if text.contains('\0') => Err((value.span(), "this has a NUL".to_owned())),
        Some(text) => Ok(text.to_owned()),
        None => wrong(value, "a text"),
    }
}

/// One text, or a list of them.
fn texts(value: &Value<'_>) -> Result<Vec<(Range<usize>, String)>, Wrong> {
    match value.get_ref() {
        DeValue::Array(values) => values.iter().map(|value| Ok((value.span(), text(value)?))).collect(),
        DeValue::String(_) => Ok(vec![(value.span(), text(value)?)]),
        _ => wrong(value, "a text, or a list of them"),
    }
}

fn commands(value: &Value<'_>) -> Result<Vec<OsString>, Wrong> {
    Ok(texts(value)?.into_iter().map(|(_, text)| text.into()).collect())
}

fn patterns(value: &Value<'_>) -> Result<Vec<Pattern>, Wrong> {
    texts(value)?.into_iter().map(|(span, text)| glob::parse(&text).map_err(|what| (span, what))).collect()
}

/// A list of arguments; or a text, which a shell runs. What names `{stage}` is split at its blanks: no path is pasted
/// into a script.
fn command(value: &Value<'_>) -> Result<Vec<OsString>, Wrong> {
    let words: Vec<OsString> = match value.get_ref() {
        DeValue::String(script) if find_placeholder(script.as_bytes()).is_some() => {
            if let Some(special) = script.chars().find(|c| !placeholder::is_plain(*c)) {
                let what = format!(
                    "`{special}` makes this a script, into which {{stage}} would be pasted: say \"$TXFS_STAGE\" there, or a list of arguments"
                );
                return Err((value.span(), what));
            }
            script.split_whitespace().map(OsString::from).collect()
        }
        DeValue::String(_) => ["sh".into(), "-c".into(), text(value)?.into()].into(),
        DeValue::Array(_) => commands(value)?,
        _ => return wrong(value, "a text, or a list of arguments"),
    };
    if words.is_empty() { Err((value.span(), "this is empty".to_owned())) } else { Ok(words) }
}

fn flag(value: &Value<'_>) -> Result<bool, Wrong> {
    value.get_ref().as_bool().map_or_else(|| wrong(value, "true or false"), Ok)
}

fn choice<T: clap::ValueEnum>(value: &Value<'_>) -> Result<T, Wrong> {
    T::from_str(&text(value)?, false).map_err(|_| {
        let names = T::value_variants().iter().filter_map(clap::ValueEnum::to_possible_value);
        let names: Vec<_> = names.map(|name| format!("\"{}\"", name.get_name())).collect();
        (value.span(), format!("this is none of {}", names.join(", ")))
    })
}

fn number(value: &Value<'_>) -> Option<String> {
    match value.get_ref() {
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

fn seconds(value: &Value<'_>) -> Result<Duration, Wrong> {
    let Some(number) = number(value) else { return wrong(value, "a number of seconds") };
    crate::settings::values::seconds(&number).map_err(|what| (value.span(), what))
}

fn percent(value: &Value<'_>) -> Result<u8, Wrong> {
    let Some(number) = number(value) else { return wrong(value, "a whole number from 0 to 100") };
    crate::settings::values::percent(&number).map_err(|what| (value.span(), what))
}

fn whole_number(value: &Value<'_>) -> Result<u64, Wrong> {
    let number = number(value).and_then(|number| number.replace('_', "").parse().ok());
    number.map_or_else(|| wrong(value, "a whole number"), Ok)
}

fn age(value: &Value<'_>) -> Result<Duration, Wrong> {
    crate::settings::values::age(&text(value)?).map_err(|what| (value.span(), what))
}

/// Whether to wait, or how long.
fn wait(value: &Value<'_>) -> Result<Option<Duration>, Wrong> {
    match value.get_ref() {
        DeValue::Boolean(waits) => Ok(waits.then_some(Duration::MAX)),
        _ => seconds(value).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, Wrong> {
        Settings::read(Path::new("/project"), DeTable::parse(text).unwrap().get_ref())
    }

    #[test]
    fn every_key_is_known_and_none_is_forgotten() {
        for key in KEYS {
            let table = DeTable::parse("").unwrap();
            let set = Settings::default().set(key, &Spanned::new(0..0, DeValue::Boolean(true)));
            assert!(!matches!(set, Ok(false)), "{key}");
            drop(table);
        }
        assert!(read("").is_ok());
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        for (key, nearest) in
            [("exlude", "exclude"), ("max_removed", "max-removed"), ("verify", "verify-live"), ("comand", "command")]
        {
            let (span, what) = read(&format!("touch = true\n{key} = 1")).unwrap_err();
            assert_eq!(span.start, 13);
            assert!(what.contains(&format!("`{nearest}`")), "{what}");
        }
        assert!(read("zzz = 1").unwrap_err().1.contains("there are command, "));
    }

    #[test]
    fn a_text_is_run_by_a_shell_and_a_path_is_pasted_into_none() {
        let words = |text: &str| read(&format!("command = {text}")).unwrap().command.unwrap();
        assert_eq!(words("'a && b'"), ["sh", "-c", "a && b"]);
        assert_eq!(words("'mdbook build -d {stage}'"), ["mdbook", "build", "-d", "{stage}"]);
        assert_eq!(words("['a b', '{stage}']"), ["a b", "{stage}"]);
        assert!(read("command = 'cp x \"{stage}\"'").unwrap_err().1.contains("$TXFS_STAGE"));
        assert!(read("command = []").is_err() && read("command = ''").is_err());
    }

    #[test]
    fn what_has_another_type_is_said_to() {
        for text in [
            "touch = 1",
            "max-removed = 101",
            "max-removed = 1.5",
            "after-timeout = -1",
            "after-timeout = 'x'",
            "check = 1",
            "from = 'x'",
            "exclude = ['[']",
            "stage = true\ncapture = 'copy'",
            "source = ''",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
        let settings =
            read("wait = true\nafter-timeout = 1.5\ncheck = 'x'\nmax-removed = 7\nsource = 'build'").unwrap();
        assert_eq!((settings.wait, settings.after_timeout), (Some(Duration::MAX), Some(Duration::from_millis(1500))));
        assert_eq!((settings.max_removed, settings.src), (Some(7), Some("/project/build".into())));
    }
}
