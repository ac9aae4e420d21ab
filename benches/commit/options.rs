//! The command line.

use std::ops::Range;
use std::path::PathBuf;

use crate::image;
use crate::measure::Outcome;

pub(crate) struct Options {
    pub(crate) dir: PathBuf,
    /// File systems to make images of; none: measure in `dir` itself.
    pub(crate) images: Vec<String>,
    /// Whether to measure a tree of a million files too.
    pub(crate) million: bool,
    cases: Vec<String>,
    files: Vec<usize>,
    rounds: usize,
}

pub(crate) enum Wanted {
    Help(String),
    Run(Options),
}

/// Trees of more files than this are measured in half as many rounds: making them takes longer than measuring.
const LARGE: usize = 20_000;

/// What takes milliseconds is measured so many times as often.
const SHORT: usize = 5;

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>, known: &[&str]) -> Outcome<Wanted> {
        let dir = PathBuf::from("target/bench");
        let mut options =
            Self { dir, images: Vec::new(), million: false, cases: Vec::new(), files: Vec::new(), rounds: 7 };
        while let Some(option) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{option} needs a value"));
            match option.as_str() {
                // Cargo says so to every benchmark.
                "--bench" => {}
                "--help" | "-h" => return Ok(Wanted::Help(help(known))),
                "--case" => options.cases.push(one_of(value()?, known)?),
                "--dir" => options.dir = value()?.into(),
                "--files" => options.files.push(number(&value()?)?),
                "--million" => options.million = true,
                "--on" => options.images.extend(file_systems(&value()?)?),
                "--rounds" => options.rounds = number(&value()?)?.max(1),
                _ => return Err(format!("no such option: `{option}`; there is --help").into()),
            }
        }
        Ok(Wanted::Run(options))
    }

    pub(crate) fn wants(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|wanted| wanted == case)
    }

    /// The sizes of the trees to measure.
    pub(crate) fn sizes(&self, default: &[usize]) -> Vec<usize> {
        if self.files.is_empty() { default.to_vec() } else { self.files.clone() }
    }

    /// The rounds in which something short is measured, where a tree that is made once serves all of them.
    pub(crate) fn short_rounds(&self) -> Range<usize> {
        0..SHORT * self.rounds
    }

    /// The rounds in which a tree of so many files is measured.
    pub(crate) fn rounds(&self, files: usize) -> Range<usize> {
        0..if files > LARGE { self.rounds.div_ceil(2) } else { self.rounds }
    }
}

fn number(text: &str) -> Outcome<usize> {
    text.replace('_', "").parse().map_err(|_| format!("this is no number: `{text}`").into())
}

fn one_of(name: String, known: &[&str]) -> Outcome<String> {
    match known.contains(&name.as_str()) {
        true => Ok(name),
        false => Err(format!("no such case: `{name}`; there are {}", known.join(", ")).into()),
    }
}

fn file_systems(names: &str) -> Outcome<Vec<String>> {
    if names == "all" {
        return Ok(image::KINDS.map(str::to_owned).to_vec());
    }
    let known = |name: &str| match image::KINDS.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(format!("no such file system: `{name}`; there are {} and all", image::KINDS.join(", ")).into()),
    };
    names.split(',').map(known).collect()
}

fn help(known: &[&str]) -> String {
    format!(
        "Measures durable commits beside the floor that no durable publication can go below.

  --case CASE    only this; may be repeated. There are {}
  --on FS        make loop images of these file systems and measure in them, as root: ext4,xfs,btrfs or all.
                 They are mounted where no other process sees them, and go with this process, however it ends
  --dir DIR      where to measure, or where the images lie (target/bench)
  --files N      trees of this size instead of those that belong to a case; may be repeated
  --rounds N     measure each case so often (7): large trees half, what is short five times as often
  --million      also change 10 files of a million, and tell the memory that such a tree takes. Takes minutes, and 10 GB in DIR",
        known.join(", ")
    )
}
