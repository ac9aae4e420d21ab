//! What commits displaced, and the proof of it.

use txfs::{BeginOptions, ErrorKind, RecoverOptions, Retention};

use crate::explore::guards::ground::{ensure, open, publish};
use crate::explore::oracle::failed;
use crate::explore::spec::{self, FILES, Spec};
use crate::explore::tally::Checked;
use crate::explore::world::{self, OUTPUT, STATE};
use crate::{Config, Fault, SimFs, Weakness, Without};

/// Once a commit is settled no crash loses what it displaced, by an exchange, or by a link and a rename.
pub(super) fn what_was_displaced_is_kept() -> Checked {
    let linked = Without { exchange: true, ..Without::default() };
    for (dirty, without) in
        [0, world::CROWDED].into_iter().flat_map(|dirty| [(dirty, Without::default()), (dirty, linked)])
    {
        let fs = SimFs::new(Config { dirty, without, ..Config::new(Weakness::Posix) });
        fs.put_dir("/w", 0o755);
        publish(&fs, &[("a", FILES[0]), ("b", FILES[0])])?;
        let store = open(&fs)?;
        let second = Spec::from([("a", FILES[1])]);
        world::publish_in(&fs, &store, &second).map_err(|error| failed("publishing", &error))?;
        store.recover(RecoverOptions::default()).map_err(|error| failed("settling", &error))?;
        let replaced = if without.exchange { "removed/0" } else { "stage/a" };
        for state in fs.crash_states(1024) {
            open(&state)?;
            for kept in [replaced, "removed/1"] {
                let entry = state.entry(format!("{STATE}/previous/2/{kept}"));
                ensure(entry.is_some(), (kept, state.describe()))?;
            }
        }
    }
    Ok(())
}

/// Whatever interrupts pruning: what is published stays, nothing of txfs' own is taken for somebody's, and the next commit works.
pub(super) fn what_is_pruned_goes_and_nothing_else() -> Checked {
    for dirty in [0, world::CROWDED] {
        let fs = SimFs::new(Config { dirty, ..Config::new(Weakness::Posix) });
        fs.put_dir("/w", 0o755);
        publish(&fs, &[("a", FILES[0]), ("d", spec::Node::Dir(0o755)), ("d/x", FILES[0]), ("b", FILES[0])])?;
        publish(&fs, &[("a", FILES[1]), ("b", FILES[0])])?;
        open(&fs)?.sweep().map_err(|error| failed("sweeping", &error))?;
        fs.settle();
        let reference = fs.fork();
        reference.record_crash_points();
        let store = open(&reference)?;
        let opened = reference.calls();
        let pruned = store.prune(Retention::generations(0)).map_err(|error| failed("pruning", &error))?;
        ensure(pruned.files == 2 && pruned.rescued.is_empty(), &pruned)?;
        let published = reference.tree_hash(OUTPUT);
        for state in reference.crash_points().iter().flat_map(|point| point.states(64)) {
            goes_on(&state, published)?;
        }
        for call in opened + 1..=reference.calls() {
            let state = fs.fork();
            let store = open(&state)?;
            state.fail_at(call, Fault::new(nix::errno::Errno::EIO as i32));
            let rescued = store.prune(Retention::generations(0)).map_or_else(|_| Vec::new(), |pruned| pruned.rescued);
            ensure(rescued.is_empty(), (call, rescued))?;
            drop(store);
            goes_on(&state, published)?;
        }
    }
    Ok(())
}

fn goes_on(fs: &SimFs, published: u64) -> Checked {
    let store = open(fs)?;
    let rescued = store.sweep().map_err(|error| failed("sweeping", &error))?.rescued;
    ensure(rescued.is_empty() && fs.tree_hash(OUTPUT) == published, (rescued, fs.describe()))?;
    let begun = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?;
    let gone_back = { begun }.copy_previous();
    ensure(gone_back.as_ref().map_or_else(|error| error.kind() == ErrorKind::Usage, |before| *before == 1), gone_back)?;
    for node in [FILES[2], FILES[0]] {
        let committed = world::publish_in(fs, &store, &Spec::from([("a", node)]));
        let committed = committed.map_err(|error| failed("the next commit", &error))?;
        ensure(committed.rescued.is_empty() && committed.warnings.is_empty(), committed)?;
        let rescued = store.sweep().map_err(|error| failed("sweeping", &error))?.rescued;
        ensure(rescued.is_empty(), rescued)?;
    }
    Ok(())
}

/// The journal of a generation says what it displaced: a crash must not bring that back and not the journal.
pub(super) fn the_proof_of_what_was_displaced_outlives_it() -> Checked {
    for dirty in [0, world::CROWDED] {
        let fs = SimFs::new(Config { dirty, ..Config::new(Weakness::Posix) });
        fs.put_dir("/w", 0o755);
        let store = open(&fs)?;
        for node in [FILES[0], FILES[1], FILES[0], FILES[1]] {
            let published = world::publish_in(&fs, &store, &Spec::from([("a", node)]));
            published.map_err(|error| failed("publishing", &error))?;
        }
        fs.record_crash_points();
        store.begin(BeginOptions::default()).map(drop).map_err(|error| failed("begin", &error))?;
        for state in fs.crash_points().iter().flat_map(|point| point.states(64)) {
            let rescued = open(&state)?.sweep().map_err(|error| failed("sweeping", &error))?.rescued;
            ensure(rescued.is_empty(), (rescued, state.describe()))?;
        }
    }
    Ok(())
}
