//! Other processes: at work, waiting, or dead.

use txfs::fs::Fs;
use txfs::{BeginOptions, Error, RecoverOptions};

use crate::explore::guards::ground::{ensure, fs, open, publish};
use crate::explore::oracle::failed;
use crate::explore::spec::{self, FILES};
use crate::explore::tally::{Checked, Violation};
use crate::explore::world::{STATE, World};
use crate::{Call, Fault};

pub(super) fn first_committer_wins() -> Checked {
    let fs = fs();
    let store = open(&fs)?;
    let begin = || store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error));
    let (mut one, mut two) = (begin()?, begin()?);
    one.write("a", "1").and_then(|()| two.write("a", "2")).map_err(|error| failed("writing", &error))?;
    one.commit(&World::commit_options()).map_err(|error| failed("the first commit", &error))?;
    let second = two.commit(&World::commit_options());
    ensure(matches!(second, Err(Error::BaseMoved { .. })), second)
}

pub(super) fn of_two_producers_at_one_path_the_first_wins() -> Checked {
    for (first, second, is_refused) in
        [("p/1", "p/2", false), ("p/1", "p/1", true), ("p", "p/1", true), ("p/1", "p", true)]
    {
        let fs = fs();
        publish(
            &fs,
            &[("a", FILES[0]), ("p", spec::Node::Dir(0o755)), ("p/1", spec::Node::Dir(0o755)), ("p/1/x", FILES[0])],
        )?;
        let store = open(&fs)?;
        let begin = |at| store.begin(BeginOptions::default().at(at)).map_err(|error| failed("begin", &error));
        let (mut one, mut two) = (begin(first)?, begin(second)?);
        one.write("y", "1").and_then(|()| two.write("y", "2")).map_err(|error| failed("writing", &error))?;
        one.commit(&World::commit_options()).map_err(|error| failed("the first commit", &error))?;
        let result = two.commit(&World::commit_options());
        ensure(is_refused == matches!(result, Err(Error::BaseMoved { .. })), (first, second, &result))?;
        ensure(is_refused || result.is_ok(), result)?;
    }
    Ok(())
}

pub(super) fn a_held_lock_is_respected() -> Checked {
    let fs = fs();
    let store = open(&fs)?;
    let held = fs.open_anchor(STATE.as_ref()).and_then(|state| fs.try_lock(&state, b"lock"));
    let result = store.begin(BeginOptions::default()).map(drop);
    ensure(held.is_ok() && matches!(result, Err(Error::Busy { .. })), result)
}

pub(super) fn a_live_transaction_is_left_alone() -> Checked {
    let fs = fs();
    let store = open(&fs)?;
    let mut live = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?;
    live.write("a", "1").map_err(|error| failed("writing", &error))?;
    let stage = live.stage();
    let other = open(&fs)?;
    other.recover(RecoverOptions::default()).map_err(|error| failed("recovery", &error))?;
    other.sweep().map_err(|error| failed("sweeping", &error))?;
    drop(other.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?);
    ensure(fs.entry(stage.join("a")).is_some(), "the stage of a live process is gone")?;
    live.commit(&World::commit_options()).map(drop).map_err(|error| failed("its commit", &error))
}

/// Of two processes one builds, and the other waits for it, and both are killed at whichever call. Who comes next begins at once; and who
/// has to wait after that takes away what they left in the queue.
pub(super) fn nobody_waits_for_the_dead() -> Checked {
    let waiting = || BeginOptions::default().wait(std::time::Duration::ZERO);
    let fs = fs();
    let store = open(&fs)?;
    fs.record_crash_points();
    let live = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?;
    let behind = store.begin(waiting()).map(drop);
    ensure(matches!(behind, Err(Error::Waited { .. })), behind)?;
    let mut left = 0;
    for point in fs.crash_points() {
        let state = point.killed();
        let queue = |n: u64| state.entry(format!("{STATE}/queue/{n}")).is_some();
        left += usize::from(queue(1));
        let store = open(&state)?;
        let next = store.begin(waiting()).map_err(|error| failed("beginning after the dead", &error))?;
        let behind = store.begin(waiting()).map(drop);
        ensure(matches!(behind, Err(Error::Waited { .. })), behind)?;
        ensure(!queue(1) && !queue(2), "what the dead left stays in the queue")?;
        next.abort().map_err(|error| failed("aborting", &error))?;
    }
    drop(live);
    ensure(left > 0, "nobody was killed in the queue")
}

pub(super) fn a_detached_transaction_ends_with_its_boot() -> Checked {
    let fs = fs();
    let store = open(&fs)?;
    let detached = store.begin(BeginOptions::default().detached(true)).map_err(|error| failed("begin", &error))?;
    drop(detached);
    ensure(store.transactions().is_ok_and(|open| open.len() == 1), "it is kept until then")?;
    fs.settle();
    let after = fs.crash_states(1).next().expect("there is always a state");
    let open = open(&after)?.transactions();
    ensure(open.as_ref().is_ok_and(Vec::is_empty), open)
}

/// The kernel told the process whose barrier failed; it tells no other.
pub(super) fn a_stage_that_was_open_is_committed_by_nobody() -> Checked {
    let fs = fs();
    let begin = || {
        let store = open(&fs)?;
        let begun = store.begin(BeginOptions::default().detached(true));
        let mut transaction = begun.map_err(|error| failed("begin", &error))?;
        transaction.write("a", "staged").map_err(|error| failed("writing", &error))?;
        Ok::<_, Box<Violation>>(transaction.id())
    };
    let commit = |id| {
        let store = open(&fs)?;
        let resumed = store.resume(id);
        Ok::<_, Box<Violation>>(resumed.and_then(|mut transaction| transaction.commit(&World::commit_options())))
    };
    let (one, other) = (begin()?, begin()?);
    let trial = fs.fork();
    let logged = trial.log().len();
    let committed = open(&trial)?.resume(one).and_then(|mut transaction| transaction.commit(&World::commit_options()));
    committed.map_err(|error| failed("its commit", &error))?;
    let barrier = trial.log()[logged..].iter().position(|call| *call == Call::SyncFs).expect("a commit has a barrier");
    fs.fail_at(fs.calls() + 1 + barrier as u64, Fault::dropping_pages(nix::errno::Errno::EIO as i32));
    for id in [one, other] {
        let committed = commit(id)?;
        ensure(committed.is_err(), committed)?;
    }
    ensure(fs.fired() == 1, fs.fired())?;
    let later = commit(begin()?)?;
    ensure(later.is_ok(), later)
}
