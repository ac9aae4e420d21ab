//! A slice of the exploration of crashes, and what strangers do, on the simulator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use proptest::prelude::*;

use txfs_sim::explore::model::{STEP, live};
use txfs_sim::explore::{Effort, Options, explore};

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
    assert!(report.tally.distinct >= 10_000, "a slice that shows little");
}

#[test]
fn the_worlds_that_told_of_bugs_tell_of_none() {
    let report = txfs_sim::explore::explore_telling(Effort::TELLING_SLICE, None);
    println!("{report}");
    if let Some(violation) = report.violation {
        panic!("{violation}");
    }
    assert!(report.tally.distinct >= 10_000, "worlds that tell little");
}

#[test]
fn what_strangers_do_is_refused() {
    for (name, guard) in txfs_sim::explore::guards::ALL {
        if let Err(violation) = guard() {
            panic!("{name}: {violation}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commits_aborts_crashes_errors_and_strangers_follow_the_model(
        kind in any::<u8>(),
        steps in prop::collection::vec(any::<[u8; STEP]>(), 1..10),
    ) {
        let mut bytes = vec![kind];
        bytes.extend(steps.concat());
        live(&bytes);
    }
}
