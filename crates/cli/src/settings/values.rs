//! What the values mean that options have, on the command line and in `txfs.toml`.

use std::time::Duration;

use txfs::Basis;

/// What `--from` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FromChoice {
    /// The whole new generation: what is not staged is removed
    Empty,
    /// A change: what is not staged stays; see `commit --remove`
    Current,
    /// As `empty`, and the stage begins as a copy of the current generation; other commands wait while it is copied
    Copy,
}

impl FromChoice {
    pub(crate) fn basis(self) -> Basis {
        match self {
            FromChoice::Empty => Basis::Empty,
            FromChoice::Current => Basis::Current,
            FromChoice::Copy => Basis::Copy,
        }
    }
}

/// The word of `--from` for what a stage begins with.
pub(crate) fn from_word(from: Basis) -> &'static str {
    match from {
        Basis::Empty => "empty",
        Basis::Current => "current",
        Basis::Copy => "copy",
    }
}

/// What `--capture` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CaptureChoice {
    /// As the machine can
    Auto,
    /// By an overlay
    Overlay,
    /// By a copy
    Copy,
}

/// Seconds, with or without a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if seconds >= 0.0 => {
            Duration::try_from_secs_f64(seconds).map_err(|_| "this is longer than txfs can wait".to_owned())
        }
        _ => Err("this is not a number of seconds".to_owned()),
    }
}

/// The word for no limit, which is what `--wait` alone means.
pub(crate) const FOREVER: &str = "forever";

/// How long to wait for other builds: seconds, or without an end.
pub(crate) fn limit(text: &str) -> Result<Duration, String> {
    if text == FOREVER { Ok(Duration::MAX) } else { seconds(text) }
}

/// A whole number and its unit.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let wrong = || "this is not an age, as 90s, 30m, 12h, 7d or 4w".to_owned();
    let (number, unit) = text.split_at(text.trim_end_matches(char::is_alphabetic).len());
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "this is longer than txfs can tell".to_owned())
}

/// Of a hundred.
pub(crate) fn percent(text: &str) -> Result<u8, String> {
    let percent = text.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| "this is not a whole number from 0 to 100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_a_fraction_but_no_sign() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(seconds("-1").is_err() && seconds("soon").is_err() && seconds("inf").is_err());
    }

    #[test]
    fn an_age_is_a_number_and_its_unit() {
        for (text, seconds) in
            [("90s", 90), ("30m", 1_800), ("12h", 43_200), ("7d", 604_800), ("4w", 2_419_200), ("0d", 0)]
        {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)));
        }
        for text in ["", "7", "d", "-1d", "1.5h", "7 d", "7y", "18446744073709551615w"] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
