//! Leaves out one step of the protocol after the other, and shows which check notices.
//!
//! ```sh
//! cargo run --release --features mutants --example mutants
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use txfs::mutant::{Mutant, leave_out};

#[path = "../tests/explore/mod.rs"]
mod explore;

/// Left out, these change nothing that is promised: a crash while a commit is undone is then rolled forward, and as long as the
/// undoing has not been reported the new generation is as right as the old one.
const AS_RIGHT_WITHOUT: [Mutant; 2] = [Mutant::UndoIntent, Mutant::UndoIntentBarrier];

fn main() -> ExitCode {
    // A mutant that panics is killed; its words are in the table.
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::args().nth(1);
    let began = Instant::now();
    let mut alive = 0;
    println!("| left out | noticed by | distinct crash states, s |\n|---|---|---|");
    for (mutant, what) in Mutant::ALL {
        if only.as_ref().is_some_and(|only| format!("{mutant:?}") != *only) {
            continue;
        }
        leave_out(Some(mutant));
        let (by, cost) = hunt();
        leave_out(None);
        let as_right = AS_RIGHT_WITHOUT.contains(&mutant);
        alive += u32::from(by.is_none() && !as_right);
        let nothing = if as_right { "nothing: as right without" } else { "NOTHING" };
        println!("| {what} | {} | {cost} |", by.unwrap_or_else(|| nothing.into()));
    }
    println!("{alive} of {} not noticed, {:.0} s", Mutant::ALL.len(), began.elapsed().as_secs_f32());
    if alive == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What notices that something is left out, and after how much.
fn hunt() -> (Option<String>, String) {
    for (name, guard) in explore::guards::ALL {
        let held = std::panic::catch_unwind(guard);
        if !matches!(held, Ok(Ok(()))) {
            return (Some(format!("guard: {name}")), "-".into());
        }
    }
    let began = Instant::now();
    let skim = |worlds| {
        explore::explore(&explore::Options {
            seed: 0,
            weakness: None,
            effort: explore::Effort::SKIM,
            worlds,
            states: u64::MAX,
            time: Duration::MAX,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            progress: false,
        })
    };
    let telling = || explore::explore_telling(explore::Effort::TELLING);
    let mut states = 0;
    let mut noticed = None;
    let suites: [&dyn Fn() -> explore::Report; 3] = [&|| skim((0, Some(20))), &telling, &|| skim((20, Some(120)))];
    for suite in suites {
        let report = suite();
        states += report.tally.distinct;
        noticed = report.violation.map(|violation| format!("{} (world {})", violation.check, violation.number));
        if noticed.is_some() {
            break;
        }
    }
    (noticed, format!("{}, {:.1}", explore::tally::grouped(states), began.elapsed().as_secs_f32()))
}
