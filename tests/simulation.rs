//! A slice of the exploration of crashes, and what strangers do, on the simulator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use proptest::prelude::*;
use txfs::fs::sim::{Config, SimFs, Weakness};
use txfs::{BeginOptions, ErrorKind, Kind, Store};

mod explore;

use explore::world::{OUTPUT, Spec, World, drawn, is_published, publish};
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
fn the_worlds_that_told_of_bugs_tell_of_none() {
    let report = explore::explore_telling(Effort::TELLING_SLICE);
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

/// A step in the life of a store.
#[derive(Debug, Clone)]
enum Step {
    Commit(u64),
    Abort(u64),
    /// The machine stops this far (of 1000) into a commit, and one of the states that it can leave is what it finds.
    Crash(u64, u64, usize),
    /// A stranger writes to one of the published files.
    Drift(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u64>().prop_map(Step::Commit),
        any::<u64>().prop_map(Step::Abort),
        (any::<u64>(), 0..1000u64, 0..16usize).prop_map(|(tree, at, state)| Step::Crash(tree, at, state)),
        any::<usize>().prop_map(Step::Drift),
    ]
}

/// A store and what has to be published in it.
struct Model {
    fs: SimFs,
    published: Option<Spec>,
    drifted: bool,
}

impl Model {
    fn is(&self, spec: Option<&Spec>) -> bool {
        let tree = self.fs.tree(OUTPUT);
        spec.map_or(tree.is_empty(), |spec| is_published(&tree, spec, false))
    }

    fn commit(&mut self, spec: Spec) {
        let before = self.fs.tree_hash(OUTPUT);
        match publish(&self.fs, &spec) {
            Ok(_) => (self.published, self.drifted) = (Some(spec), false),
            Err(error) => {
                assert!(self.drifted && error.kind() == ErrorKind::Conflict, "{error}");
                assert_eq!(self.fs.tree_hash(OUTPUT), before);
            }
        }
    }

    fn abort(&self, spec: &Spec) {
        let store = Store::open_with(&World::options(&self.fs), OUTPUT).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        explore::world::fill(&self.fs, &mut transaction, spec).unwrap();
        transaction.abort().unwrap();
    }

    fn crash(&mut self, spec: Spec, at: u64, state: usize) {
        let trial = self.fs.fork();
        let _ = publish(&trial, &spec);
        let crashed = self.fs.fork();
        crashed.crash_at(1 + trial.calls() * at / 1000);
        let _ = publish(&crashed, &spec);
        let states: Vec<SimFs> = crashed.crash_states(16).collect();
        self.fs = states[state % states.len()].clone();
        Store::open_with(&World::options(&self.fs), OUTPUT).unwrap();
        if !self.drifted && self.is(Some(&spec)) {
            self.published = Some(spec);
        }
    }

    fn drift(&mut self, which: usize) {
        let tree = self.fs.tree(OUTPUT);
        let files: Vec<_> = tree.iter().filter(|(_, entry)| entry.kind == Some(Kind::File)).collect();
        if let Some((path, entry)) = files.get(which % files.len().max(1)) {
            self.fs.put_file(format!("{OUTPUT}/{path}"), b"by hand", entry.mode);
            self.drifted = true;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commits_aborts_crashes_and_drift_follow_the_model(steps in prop::collection::vec(step(), 1..8)) {
        let fs = SimFs::new(Config::new(Weakness::Btrfs));
        fs.put_dir("/w", 0o755);
        let mut model = Model { fs, published: None, drifted: false };
        for step in steps {
            match step {
                Step::Commit(tree) => model.commit(drawn(tree)),
                Step::Abort(tree) => model.abort(&drawn(tree)),
                Step::Crash(tree, at, state) => model.crash(drawn(tree), at, state),
                Step::Drift(which) => model.drift(which),
            }
            prop_assert!(model.drifted || model.is(model.published.as_ref()), "{:?}", model.published);
        }
    }
}
