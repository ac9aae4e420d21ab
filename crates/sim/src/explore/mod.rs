//! The crash proof: explores what crashes, kills and errors make of the real commit and the real recovery, on the simulator.
//!
//! A *world* (`world.rs`, `spec.rs`; `worlds.rs` lists them) is a published tree, a tree to be published, and a file system with its
//! weaknesses. Each is explored by running its program once and looking at every call of it (`calls.rs`): every state that a crash there
//! can leave is recovered, and crashes inside that recovery, to depth 3 (`crashes.rs`); the process is killed there; every error that the
//! call can return is put into it (`faults.rs`), and where its user is not root access is taken from what it needs (`access.rs`).
//! `oracle.rs` says what then has to hold. `model.rs` lives through sequences of such programs, and `guards` meets what strangers do.

#![allow(missing_docs, clippy::unwrap_used, reason = "a proof that cannot go on stops")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Weakness;

mod access;
mod calls;
mod crashes;
mod effort;
mod explorer;
mod faults;
pub mod guards;
pub mod model;
pub mod oracle;
pub mod random;
pub mod spec;
pub mod tally;
pub mod world;
pub mod worlds;

use self::world::World;
use self::worlds::Worlds;
pub use effort::Effort;
pub use tally::{Report, Tally, Violation};

/// What is explored, and when that is enough.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub seed: u64,
    pub weakness: Option<Weakness>,
    pub effort: Effort,
    /// The first world, and one after the last; `None` goes on without end.
    pub worlds: (u64, Option<u64>),
    /// Enough distinct crash states.
    pub states: u64,
    pub time: Duration,
    pub threads: usize,
    pub progress: bool,
}

impl Options {
    /// All worlds of seed 0 in full, as long as nothing is found.
    pub fn endless() -> Self {
        Self {
            seed: 0,
            weakness: None,
            effort: Effort::FULL,
            worlds: (0, None),
            states: u64::MAX,
            time: Duration::MAX,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            progress: false,
        }
    }
}

/// Explores until it is enough, or a guarantee does not hold.
pub fn explore(options: &Options) -> Report {
    let worlds = Worlds::new(options.seed, options.weakness);
    let (first, end) = options.worlds;
    let world = |at: u64| Some(first + at).filter(|&number| end.is_none_or(|end| number < end)).map(|n| worlds.get(n));
    explore_each(&world, options)
}

/// Explores the telling worlds alone, or the one of this number.
pub fn explore_telling(effort: Effort, only: Option<u64>) -> Report {
    let worlds = Worlds::new(0, None).telling();
    let worlds: Vec<World> = worlds.into_iter().filter(|world| only.is_none_or(|only| world.number == only)).collect();
    let world = |at: u64| worlds.get(usize::try_from(at).ok()?).cloned();
    explore_each(&world, &Options { effort, ..Options::endless() })
}

/// Explores one world after the other until there are no more, it is enough, or a guarantee does not hold.
fn explore_each(world: &(dyn Fn(u64) -> Option<World> + Sync), options: &Options) -> Report {
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let total = Mutex::new((Tally::default(), None));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let Some(world) = world(next.fetch_add(1, Ordering::Relaxed)) else { break };
            let mut tally = Tally::default();
            let found = explore_one(&world, options.effort, options.seed, &mut tally);
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

/// A panic of the engine is a violation like any other.
fn explore_one(world: &World, effort: Effort, seed: u64, tally: &mut Tally) -> Option<Box<Violation>> {
    let explored = catch_unwind(AssertUnwindSafe(|| calls::explore(world, effort, tally)));
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
