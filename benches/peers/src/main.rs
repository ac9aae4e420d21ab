//! txfs beside other ways to publish a directory, on the same work; each with what it promises.
//!
//! ```sh
//! sudo benches/peers/run                   # installs the peers, measures on ext4, and prints the table
//! sudo benches/peers/run --on all          # on xfs and btrfs too
//! ```
//!
//! The work: a build has written a whole tree to a source directory, which is at rest, and the output is to become the same. The
//! time is that from there until the publisher returns. Who is told of the change alone gets it from memory, or as files of its
//! own. For `txfs commit` alone the build wrote to the stage, and has just done so: nothing of it has been written back.
//!
//! Every round runs every peer once, beginning with another one each time, with nothing dirty on the file system before; the
//! medians are printed. After each the output is looked at: a peer that did not publish what changed fails.

#[path = "../../commit/image.rs"]
mod image;
#[path = "../../commit/measure.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod measure;
mod options;
mod peer;
#[path = "../../commit/tree.rs"]
#[allow(dead_code, reason = "the other benchmark uses the rest")]
mod tree;
mod ways;
mod work;

use std::fs;
use std::process::ExitCode;

use measure::Outcome;
use options::{Options, Wanted};

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Outcome<()> {
    let options = match Options::parse(std::env::args().skip(1))? {
        Wanted::Help => {
            println!("{}", options::HELP);
            return Ok(());
        }
        Wanted::Run(options) => options,
    };
    fs::create_dir_all(&options.dir)?;
    image::be_alone()?;
    for kind in &options.images {
        let image = image::Image::mount(kind, &options.dir, false)?;
        println!("## {kind}\n");
        work::compare(image.path(), &options)?;
    }
    Ok(())
}
