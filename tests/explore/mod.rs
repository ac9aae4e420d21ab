//! The crash proof: explores what crashes, kills and errors make of the real commit and the real recovery, on the simulator.
//!
//! A *world* (`world.rs`) is a published tree, a tree to be published, and a file system with its weaknesses. Each is explored
//! (`explorer.rs`) by running its program once and looking at every call of it: every state that a crash there can leave is
//! recovered, and crashes inside that recovery, to depth 3; the process is killed there; every error that the call can return
//! is put into it. `oracle.rs` says what then has to hold. `model.rs` lives through sequences of such programs.

#![allow(dead_code, reason = "the test, the explorer and the mutants each use a part of it")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use txfs::fs::sim::Weakness;

pub(crate) mod explorer;
pub(crate) mod guards;
pub(crate) mod model;
pub(crate) mod oracle;
pub(crate) mod tally;
pub(crate) mod world;

pub(crate) use explorer::Effort;
pub(crate) use tally::{Report, Tally, Violation};
use world::{World, Worlds};

/// What is explored, and when that is enough.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) weakness: Option<Weakness>,
    pub(crate) effort: Effort,
    /// The first world, and one after the last; `None` goes on without end.
    pub(crate) worlds: (u64, Option<u64>),
    /// Enough distinct crash states.
    pub(crate) states: u64,
    pub(crate) time: Duration,
    pub(crate) threads: usize,
    pub(crate) progress: bool,
}

/// Explores until it is enough, or a guarantee does not hold.
pub(crate) fn explore(options: &Options) -> Report {
    let began = Instant::now();
    let worlds = Worlds::new(options.seed, options.weakness);
    let next = AtomicU64::new(options.worlds.0);
    let stop = AtomicBool::new(false);
    let total = Mutex::new((Tally::default(), None));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if options.worlds.1.is_some_and(|end| number >= end) {
                break;
            }
            let mut tally = Tally::default();
            let found = explore_world(&worlds, number, options, &mut tally);
            let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            total.0.add(&tally);
            let enough = total.0.distinct >= options.states || began.elapsed() >= options.time;
            stop.fetch_or(enough || found.is_some(), Ordering::Relaxed);
            if total.1.is_none() {
                total.1 = found;
            }
            if options.progress && total.0.worlds.is_multiple_of(100) {
                eprintln!(
                    "{} distinct, {} worlds, {:?}",
                    tally::grouped(total.0.distinct),
                    total.0.worlds,
                    began.elapsed()
                );
            }
        }
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..options.threads).map(|_| scope.spawn(work)).collect();
        work();
        others.into_iter().for_each(|thread| thread.join().expect("a panic of the engine is caught"));
    });
    let (tally, violation) = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    Report { tally, took: began.elapsed(), violation }
}

/// Explores the telling worlds alone, or the one of this number.
pub(crate) fn explore_telling(effort: Effort, only: Option<u64>) -> Report {
    let began = Instant::now();
    let mut tally = Tally::default();
    let worlds = Worlds::new(0, None).telling();
    let mut worlds = worlds.iter().filter(|world| only.is_none_or(|only| world.number == only));
    let violation = worlds.find_map(|world| explore_one(world, effort, 0, &mut tally));
    Report { tally, took: began.elapsed(), violation }
}

fn explore_world(worlds: &Worlds, number: u64, options: &Options, tally: &mut Tally) -> Option<Box<Violation>> {
    explore_one(&worlds.get(number), options.effort, options.seed, tally)
}

/// A panic of the engine is a violation like any other.
fn explore_one(world: &World, effort: Effort, seed: u64, tally: &mut Tally) -> Option<Box<Violation>> {
    let explored = catch_unwind(AssertUnwindSafe(|| explorer::explore(world, effort, tally)));
    let mut violation = match explored {
        Ok(Ok(())) => return None,
        Ok(Err(violation)) => violation,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Violation::new("no panic", text.unwrap_or_default())
        }
    };
    violation.world = format!("{world:#?}");
    (violation.number, violation.seed) = (world.number, seed);
    Some(violation)
}
