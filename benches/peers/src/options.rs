//! The command line.

use std::path::PathBuf;

use crate::image;
use crate::measure::Outcome;
use crate::work::CASES;

pub(crate) struct Options {
    pub(crate) images: Vec<String>,
    pub(crate) dir: PathBuf,
    /// Where `txfs` and `fstx` are.
    pub(crate) tools: PathBuf,
    pub(crate) rounds: usize,
    /// Files of the large tree; the one that is replaced has a tenth.
    pub(crate) files: usize,
    cases: Vec<String>,
    peers: Vec<String>,
}

pub(crate) enum Wanted {
    Help,
    Run(Options),
}

pub(crate) const HELP: &str =
    "Compares txfs with other ways to publish a directory. As root; benches/peers/run installs what it needs.

  --on FS        in loop images of these: ext4 (unless said otherwise), xfs, btrfs or all, separated by commas
  --case CASE    only this: fresh, change, replaced, nothing; may be repeated
  --peer WORD    only those with this word in their names; may be repeated
  --rounds N     run each so often (5)
  --files N      the size of the tree (10000)
  --dir DIR      where the images lie (target)
  --tools DIR    where `txfs` and `fstx` are (target/tools/bin)";

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Outcome<Wanted> {
        let mut options = Self {
            images: Vec::new(),
            dir: "target".into(),
            tools: "target/tools/bin".into(),
            rounds: 5,
            files: 10_000,
            cases: Vec::new(),
            peers: Vec::new(),
        };
        while let Some(option) = arguments.next() {
            if option == "--help" || option == "-h" {
                return Ok(Wanted::Help);
            }
            let value = arguments.next().ok_or_else(|| format!("{option} needs a value"))?;
            options.set(&option, value)?;
        }
        if options.images.is_empty() {
            options.images.push("ext4".into());
        }
        options.tools = options.tools.canonicalize()?;
        Ok(Wanted::Run(options))
    }

    fn set(&mut self, option: &str, value: String) -> Outcome<()> {
        match option {
            "--on" if value == "all" => self.images.extend(image::KINDS.map(str::to_owned)),
            "--on" => self
                .images
                .extend(value.split(',').map(|kind| known(kind, &image::KINDS)).collect::<Outcome<Vec<_>>>()?),
            "--case" => self.cases.push(known(&value, &CASES.map(|case| case.name))?),
            "--peer" => self.peers.push(value),
            "--rounds" => self.rounds = value.parse::<usize>()?.max(1),
            "--files" => self.files = value.parse::<usize>()?.max(1_000),
            "--dir" => self.dir = value.into(),
            "--tools" => self.tools = value.into(),
            _ => return Err(format!("no such option: `{option}`; there is --help").into()),
        }
        Ok(())
    }

    pub(crate) fn wants_case(&self, name: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|case| case == name)
    }

    pub(crate) fn wants_peer(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|word| name.contains(word))
    }
}

fn known(name: &str, names: &[&str]) -> Outcome<String> {
    match names.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(format!("no such thing: `{name}`; there are {}", names.join(", ")).into()),
    }
}
