//! Guards of the past: what was said to be kept is kept through crashes, and can be gone back to.

use std::collections::BTreeMap;

use txfs::{BeginOptions, Retention, Store};

use crate::explore::guards::ground::{ensure, open};
use crate::explore::oracle::failed;
use crate::explore::spec::{FILES, Node, Spec};
use crate::explore::tally::Checked;
use crate::explore::world::{self, CROWDED, OUTPUT, World};
use crate::{Config, SimFs, Weakness};

/// What the generations publish: a file that each replaces, a directory that comes, changes its kind and comes again, and one that stays.
fn generations() -> Vec<Spec> {
    let same = ("same", FILES[0]);
    let specs: [&[(&'static str, Node)]; 5] = [
        &[same, ("a", FILES[0]), ("d", Node::Dir(0o755)), ("d/x", FILES[0])],
        &[same, ("a", FILES[1]), ("d", FILES[0])],
        &[same, ("a", FILES[0]), ("d", Node::Dir(0o555)), ("d/y", FILES[1])],
        &[same, ("b", FILES[1])],
        &[same, ("a", FILES[1]), ("b", FILES[0])],
    ];
    specs.into_iter().map(|spec| spec.iter().copied().collect()).collect()
}

const KEEP: u64 = 3;

/// Once what is to be kept was said, no crash lets less be kept; and where it strikes before that, what was said before counts.
pub(super) fn what_is_said_to_be_kept_is_said_through_crashes() -> Checked {
    for dirty in [0, CROWDED] {
        let fs = SimFs::new(Config { dirty, ..Config::new(Weakness::Posix) });
        fs.put_dir("/w", 0o755);
        world::publish(&fs, &generations()[0]).map_err(|error| failed("publishing", &error))?;
        open(&fs)?.sweep().map_err(|error| failed("sweeping", &error))?;
        fs.settle();
        let wanted = Retention::generations(KEEP);
        for (before, after) in [(Retention::default(), wanted), (wanted, Retention::generations(0))] {
            let store = open(&fs)?;
            store.set_retention(before).map_err(|error| failed("saying it first", &error))?;
            fs.settle();
            let said = fs.fork();
            said.record_crash_points();
            let store = open(&said)?;
            store.set_retention(after).map_err(|error| failed("saying it", &error))?;
            for state in said.crash_points().iter().flat_map(|point| point.states(64)) {
                let found = open(&state)?.retention().map_err(|error| failed("reading it", &error))?;
                ensure(found == before || found == after, (found, state.describe()))?;
            }
            for state in said.crash_states(64) {
                let found = open(&state)?.retention().map_err(|error| failed("reading it", &error))?;
                ensure(found == after, (found, state.describe()))?;
            }
        }
    }
    Ok(())
}

/// Whatever interrupts publishing, sweeping and going back: every generation that is kept is as it was, and nothing is rescued.
pub(super) fn what_is_kept_can_be_gone_back_to_after_a_crash() -> Checked {
    for dirty in [0, CROWDED] {
        let fs = SimFs::new(Config { dirty, ..Config::new(Weakness::Posix) });
        fs.put_dir("/w", 0o755);
        let store = open(&fs)?;
        store.set_retention(Retention::generations(KEEP)).map_err(|error| failed("saying it", &error))?;
        let mut was = BTreeMap::new();
        for spec in &generations()[..4] {
            world::publish_in(&fs, &store, spec).map_err(|error| failed("publishing", &error))?;
            was.insert(was.len() as u64 + 1, fs.tree_hash(OUTPUT));
        }
        store.sweep().map_err(|error| failed("sweeping", &error))?;
        drop(store);
        fs.settle();
        let reference = fs.fork();
        reference.record_crash_points();
        let store = open(&reference)?;
        world::publish_in(&reference, &store, &generations()[4]).map_err(|error| failed("publishing", &error))?;
        was.insert(5, reference.tree_hash(OUTPUT));
        go_back(&store, 2)?;
        was.insert(6, reference.tree_hash(OUTPUT));
        ensure(was[&6] == was[&2], "going back makes another generation of it")?;
        store.sweep().map_err(|error| failed("sweeping", &error))?;
        for state in reference.crash_points().iter().flat_map(|point| point.states(4)) {
            is_all_there(&state, &was)?;
        }
    }
    Ok(())
}

fn go_back(store: &Store<SimFs>, to: u64) -> Checked {
    let begun = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error));
    let mut transaction = begun?;
    transaction.copy_generation(to).map_err(|error| failed("putting it together", &error))?;
    let committed = transaction.commit(&World::commit_options()).map_err(|error| failed("going back", &error))?;
    ensure(committed.rescued.is_empty() && committed.warnings.is_empty(), committed)
}

/// The current generation is one of these, and each of those before it that are kept can be gone back to.
fn is_all_there(fs: &SimFs, was: &BTreeMap<u64, u64>) -> Checked {
    let current =
        open(fs)?.head().map_err(|error| failed("reading HEAD", &error))?.map_or(0, |head| head.info.generation);
    ensure(was.get(&current) == Some(&fs.tree_hash(OUTPUT)), (current, fs.describe()))?;
    for to in current.saturating_sub(KEEP).max(1)..current {
        let state = fs.fork();
        let store = open(&state)?;
        let rescued = store.sweep().map_err(|error| failed("sweeping", &error))?.rescued;
        ensure(rescued.is_empty(), (rescued, state.describe()))?;
        go_back(&store, to)?;
        ensure(state.tree_hash(OUTPUT) == was[&to], (current, to, state.describe()))?;
    }
    Ok(())
}
