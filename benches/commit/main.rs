//! What a durable commit costs, beside the floor that no durable publication can go below.
//!
//! ```sh
//! cargo bench -p txfs-cli --bench commit                          # in target/bench
//! sudo cargo bench -p txfs-cli --bench commit -- --on all         # on ext4, xfs and btrfs, in loop images that it makes and removes itself
//! cargo bench -p txfs-cli --bench commit -- --case change --case tail --rounds 21
//! ```
//!
//! Each case is measured in rounds. A round measures the case and its floor one after the other in the same place, the order
//! changing from round to round, with nothing dirty on the file system before either. Printed are the medians of the rounds,
//! their ratio, and the quartiles of the ratio of each round: where those are far apart the machine was busy with something else.
//! Machines differ and are shared: only the ratios mean anything elsewhere.
//!
//! In place means as tools write: what is there is truncated. Where files are replaced, the floor without that is told too.
//!
//! | case | is | floor |
//! |---|---|---|
//! | `fresh` | begin, a stage of new files written by a tool, commit | the files written in place, one `syncfs` |
//! | `replaced` | the same where every file was published before | the same |
//! | `change` | 10 and 100 files changed, 5 removed, as a change to the current generation; the commit | those written in place and removed, one `syncfs` |
//! | `command` | the CPU time of the command | none |
//! | `full` | everything staged anew by a tool, 10 files differ, or none; the commit | BLAKE3 of the stage on 2 threads, with no call that could be spared and as `std::fs` reads, and the 10 as above |
//! | `unchanged` | `publish` of a source in which nothing changed | `readdir` and `stat` of the source |
//! | `tail` | 200 commits of 10 files, quiet and with 200 MB/s written beside them; the barriers of a commit | the files written, synced and renamed one by one |
//! | `recovery` | rolling forward a commit that was killed | what applying takes when it is not |
//! | `memory` | the peak of a process that commits | none |

mod calls;
mod change;
mod child;
mod full;
mod image;
mod measure;
mod memory;
mod options;
mod recovery;
mod report;
mod tail;
mod tree;
mod unchanged;
mod whole;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use measure::Outcome;
use options::{Options, Wanted};

/// Where a case is measured, and how.
pub(crate) struct Place<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) options: &'a Options,
}

/// A group of measurements that can be asked for.
struct Case {
    name: &'static str,
    run: fn(&Place<'_>) -> Outcome<()>,
}

const CASES: [Case; 9] = [
    Case { name: "fresh", run: whole::fresh },
    Case { name: "replaced", run: whole::replaced },
    Case { name: "change", run: change::library },
    Case { name: "command", run: change::command },
    Case { name: "full", run: full::run },
    Case { name: "unchanged", run: unchanged::run },
    Case { name: "tail", run: tail::run },
    Case { name: "recovery", run: recovery::run },
    Case { name: "memory", run: memory::run },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((first, rest)) if first == child::MARK => child::run(rest),
        _ => start(arguments.into_iter()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: impl Iterator<Item = String>) -> Outcome<()> {
    let names = CASES.map(|case| case.name);
    let options = match Options::parse(arguments, &names)? {
        Wanted::Help(text) => {
            println!("{text}");
            return Ok(());
        }
        Wanted::Run(options) => options,
    };
    fs::create_dir_all(&options.dir)?;
    if options.images.is_empty() {
        let dir = options.dir.canonicalize()?;
        return measure(&Place { dir: &dir, options: &options });
    }
    image::be_alone()?;
    options.images.iter().try_for_each(|kind| {
        let image = image::Image::mount(kind, &options.dir, options.million)?;
        println!("## {kind}\n");
        measure(&Place { dir: image.path(), options: &options })
    })
}

fn measure(place: &Place<'_>) -> Outcome<()> {
    for case in CASES.iter().filter(|case| place.options.wants(case.name)) {
        println!("### {}\n", case.name);
        (case.run)(place)?;
        println!();
    }
    Ok(())
}

impl Place<'_> {
    /// An empty directory for what one round, or one row, needs.
    pub(crate) fn scratch(&self, name: &str) -> Outcome<measure::Scratch> {
        measure::Scratch::make(self.dir.join(name))
    }
}
