//! A slice of the exploration of crashes, and what strangers do, on the simulator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

mod explore;

use explore::{Effort, Options, explore};

#[test]
fn no_crash_kill_or_error_leaves_anything_between_two_generations() {
    let options = Options {
        seed: 0,
        weakness: None,
        effort: Effort::SLICE,
        worlds: (0, None),
        states: u64::MAX,
        time: Duration::from_secs(10),
        threads: 2,
        progress: false,
    };
    let report = explore(&options);
    println!("{report}");
    if let Some(violation) = report.violation {
        panic!("{violation}");
    }
}

#[test]
fn what_strangers_do_is_refused() {
    for (name, guard) in explore::guards::ALL {
        if let Err(violation) = guard() {
            panic!("{name}: {violation}");
        }
    }
}
