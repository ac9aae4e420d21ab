//! The command line.

use std::path::{Path, PathBuf};

use txfs::Barriers;

use crate::replay::Setting;
use crate::variant::{VARIANTS, Variant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Replay,
    Model,
    Faults,
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) fs: Vec<String>,
    pub(crate) images: Option<usize>,
    pub(crate) seed: u64,
    pub(crate) world: u64,
    pub(crate) check: Option<PathBuf>,
    barriers: Option<Barriers>,
    workers: usize,
    keep: PathBuf,
    skip: Vec<Part>,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let keep = PathBuf::from("target/replay");
        let mut options = Self {
            fs: Vec::new(),
            images: None,
            seed: 0,
            world: 0,
            check: None,
            barriers: None,
            workers: 4,
            keep,
            skip: Vec::new(),
        };
        while let Some(option) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{option} needs a number, not `{value}`"));
            match option.as_str() {
                "--fs" if VARIANTS.iter().any(|variant| variant.name == value) => options.fs.push(value),
                "--fs" => {
                    let known: Vec<_> = VARIANTS.iter().map(|variant| variant.name).collect();
                    return Err(format!("no such file system: `{value}`; known are {}", known.join(", ")));
                }
                "--images" => options.images = Some(number()? as usize),
                "--seed" => options.seed = number()?,
                "--world" => options.world = number()?,
                "--workers" => options.workers = number()?.max(1) as usize,
                "--barriers" => options.barriers = Some(barriers(&value)?),
                "--check" => options.check = Some(value.into()),
                "--keep" => options.keep = value.into(),
                #[cfg(feature = "mutants")]
                "--leave-out" => {
                    let mutants = txfs::mutant::Mutant::ALL;
                    let found = mutants.iter().find(|(mutant, _)| format!("{mutant:?}") == value);
                    let (mutant, what) = found.ok_or_else(|| format!("no such mutant: `{value}`"))?;
                    println!("left out: {what}");
                    txfs::mutant::leave_out(Some(*mutant));
                }
                "--skip" => options.skip.push(match value.as_str() {
                    "replay" => Part::Replay,
                    "model" => Part::Model,
                    "faults" => Part::Faults,
                    _ => return Err(format!("no such part: `{value}`")),
                }),
                _ => return Err(format!("no such option: `{option}`")),
            }
        }
        Ok(options)
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.fs.is_empty() || self.fs.iter().any(|wanted| wanted == name)
    }

    /// How the commits of a world are made durable: of every two that are not told, one each way.
    pub(crate) fn barriers(&self, index: u64) -> Barriers {
        self.barriers.unwrap_or(if index.is_multiple_of(2) { Barriers::Chosen } else { Barriers::Single })
    }

    pub(crate) fn skips(&self, part: Part) -> bool {
        self.skip.contains(&part)
    }

    pub(crate) fn setting<'a>(&'a self, variant: &'a Variant, memory: &'a Path, scratch: &'a Path) -> Setting<'a> {
        Setting { variant, memory, scratch, workers: self.workers, keep: &self.keep, seed: self.seed }
    }
}

fn barriers(value: &str) -> Result<Barriers, String> {
    match value {
        // Nobody has anything dirty here.
        "whole" => Ok(Barriers::Chosen),
        "single" => Ok(Barriers::Single),
        _ => Err(format!("--barriers is whole or single, not `{value}`")),
    }
}
