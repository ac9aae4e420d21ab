//! Explores crash states of commit and recovery on the simulator, until there are enough of them or a guarantee does not hold.
//!
//! ```sh
//! cargo run --release -p txfs-sim --example explore -- --states 10000000
//! ```

#![allow(clippy::unwrap_used, reason = "a program that fails stops")]

use std::process::ExitCode;
use std::time::Duration;

use txfs_sim::{Weakness, explore};

/// A fifth of the time of worlds in memory is theirs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
explore [--states N] [--minutes M] [--seed N] [--weakness ordered|btrfs|posix] [--threads N]
        [--world N] [--worlds N] [--skim yes]

  --states    stop after so many distinct crash states (default 10000000), those of the telling worlds included
  --minutes   fail after so many minutes without so many states (default: never)
  --world     explore this world alone
  --worlds    explore so many worlds and stop
  --skim      next to nothing of each world, to see many";

fn main() -> ExitCode {
    let Some(mut options) = options() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    if options.worlds == (0, None) {
        let report = explore::explore_telling(explore::Effort::TELLING.taking_access(), None);
        println!("The worlds that told of bugs:\n{report}\n");
        if let Some(violation) = report.violation {
            println!("{violation}");
            return ExitCode::FAILURE;
        }
        options.states = options.states.saturating_sub(report.tally.distinct);
        options.time = options.time.saturating_sub(report.took);
    }
    let report = explore::explore(&options);
    println!("{report}");
    if let Some(violation) = report.violation {
        println!("\n{violation}");
        return ExitCode::FAILURE;
    }
    if report.tally.distinct < options.states && report.took >= options.time {
        println!("  OUT OF TIME before there were {} distinct states more", explore::tally::grouped(options.states));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn options() -> Option<explore::Options> {
    let mut options = explore::Options { states: 10_000_000, progress: true, ..explore::Options::endless() };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next()?;
        let number = value.replace('_', "").parse::<u64>();
        match name.as_str() {
            "--states" => options.states = number.ok()?,
            "--minutes" => options.time = Duration::from_secs(60 * number.ok()?),
            "--seed" => options.seed = number.ok()?,
            "--threads" => options.threads = number.ok()? as usize,
            "--world" => {
                let world = number.ok()?;
                options.worlds = (world, Some(world + 1));
            }
            "--worlds" => options.worlds.1 = Some(number.ok()?),
            "--skim" => options.effort = explore::Effort::SKIM.taking_access(),
            "--weakness" => {
                options.weakness = Some(match value.as_str() {
                    "ordered" => Weakness::Ordered,
                    "btrfs" => Weakness::Btrfs,
                    "posix" => Weakness::Posix,
                    _ => return None,
                });
            }
            _ => return None,
        }
    }
    Some(options)
}
