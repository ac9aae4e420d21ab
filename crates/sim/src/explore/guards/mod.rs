//! What strangers do: drift, foreign entries, other processes, and state that was exchanged. Each is met by a refusal.

use std::path::Path;
use txfs::fs::{Fs, Machine, RenameMode, Timestamp};

use crate::{Call, Config, Fault, Reuse, SimFs, Weakness, Without};
use txfs::{BeginOptions, Error, ErrorKind, Outcome, RecoverOptions, RelPath, Retention, Store};

use crate::explore::oracle::failed;
use crate::explore::tally::{Checked, Violation};
use crate::explore::world::{self, FILES, Marks, OUTPUT, STATE, Spec, World, Worlds};
mod modes;
mod past;
mod ways_out;

/// A check by its name.
pub type Guard = (&'static str, fn() -> Checked);

pub const ALL: [Guard; 31] = [
    ("first committer wins", first_committer_wins),
    ("of two producers at one path the first wins, and no other", of_two_producers_at_one_path_the_first_wins),
    ("drift is refused", drift_is_refused),
    ("foreign entries are not overwritten", foreign_entries_are_not_overwritten),
    ("a held lock is respected", a_held_lock_is_respected),
    ("a live transaction is left alone", a_live_transaction_is_left_alone),
    ("nobody waits for the dead", nobody_waits_for_the_dead),
    ("a detached transaction ends with its boot", a_detached_transaction_ends_with_its_boot),
    (
        "a stage that was open when a barrier failed is committed by nobody",
        a_stage_that_was_open_is_committed_by_nobody,
    ),
    ("a hard link does not lead into the output", a_hard_link_does_not_lead_into_the_output),
    ("what is not ours is rescued", what_is_not_ours_is_rescued),
    ("what was displaced is kept", what_was_displaced_is_kept),
    ("the proof of what was displaced outlives it", the_proof_of_what_was_displaced_outlives_it),
    ("what is pruned goes, and nothing else", what_is_pruned_goes_and_nothing_else),
    ("what is said to be kept is said through crashes", past::what_is_said_to_be_kept_is_said_through_crashes),
    ("what is kept can be gone back to after a crash", past::what_is_kept_can_be_gone_back_to_after_a_crash),
    ("a spliced journal is refused", a_spliced_journal_is_refused),
    ("an exchanged HEAD is refused", an_exchanged_head_is_refused),
    ("what cannot be recognized is refused", what_cannot_be_recognized_is_refused),
    ("a directory of somebody's is not taken for a staged one", a_directory_of_somebodys_is_not_taken_for_a_staged_one),
    (
        "a file that is rewritten while it is committed takes no reported commit back",
        a_file_that_is_rewritten_while_it_is_committed_takes_no_reported_commit_back,
    ),
    (
        "a file that is changed once it is published takes no reported commit back",
        a_file_that_is_changed_once_it_is_published_takes_no_reported_commit_back,
    ),
    (
        "a mode that is changed while it is committed takes no reported commit back",
        modes::a_mode_that_is_changed_while_it_is_committed_takes_no_reported_commit_back,
    ),
    (
        "a directory that was opened is closed with what is given up",
        modes::a_directory_that_was_opened_is_closed_with_what_is_given_up,
    ),
    ("a mode that a crash takes stops no recovery", modes::a_mode_that_a_crash_takes_stops_no_recovery),
    (
        "a stage that was not given to the group is made anew",
        modes::a_stage_that_was_not_given_to_the_group_is_made_anew,
    ),
    ("a HEAD that may not be durable is written anew", a_head_that_may_not_be_durable_is_written_anew),
    (
        "what somebody removes in the middle leaves a way out that loses nothing",
        ways_out::what_somebody_removes_in_the_middle_leaves_a_way_out_that_loses_nothing,
    ),
    (
        "a commit whose displaced entry is gone goes forward",
        ways_out::a_commit_whose_displaced_entry_is_gone_goes_forward,
    ),
    ("a way out that is interrupted is taken again", ways_out::a_way_out_that_is_interrupted_is_taken_again),
    ("what cannot be read is not given up unless nothing was begun", what_cannot_be_read_is_not_given_up),
];

fn fs() -> SimFs {
    let fs = SimFs::new(Config::new(Weakness::Btrfs));
    fs.put_file("/w/outside/file", b"outside", 0o644);
    fs
}

pub(super) fn open(fs: &SimFs) -> Checked<Store<SimFs>> {
    Store::open_with(&World::options(fs), OUTPUT).map_err(|error| failed("opening", &error))
}

fn publish(fs: &SimFs, spec: &[(&'static str, world::Node)]) -> Checked {
    let spec: Spec = spec.iter().copied().collect();
    world::publish(fs, &spec).map(drop).map_err(|error| failed("publishing", &error))
}

pub(super) fn ensure(holds: bool, what: impl std::fmt::Debug) -> Checked {
    if holds { Ok(()) } else { Err(Violation::new("guard", format!("{what:?}"))) }
}

fn first_committer_wins() -> Checked {
    let fs = fs();
    let store = open(&fs)?;
    let begin = || store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error));
    let (mut one, mut two) = (begin()?, begin()?);
    one.write("a", "1").and_then(|()| two.write("a", "2")).map_err(|error| failed("writing", &error))?;
    one.commit(&World::commit_options()).map_err(|error| failed("the first commit", &error))?;
    let second = two.commit(&World::commit_options());
    ensure(matches!(second, Err(Error::BaseMoved { .. })), second)
}

fn of_two_producers_at_one_path_the_first_wins() -> Checked {
    for (first, second, is_refused) in
        [("p/1", "p/2", false), ("p/1", "p/1", true), ("p", "p/1", true), ("p/1", "p", true)]
    {
        let fs = fs();
        publish(
            &fs,
            &[("a", FILES[0]), ("p", world::Node::Dir(0o755)), ("p/1", world::Node::Dir(0o755)), ("p/1/x", FILES[0])],
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

fn drift_is_refused() -> Checked {
    let fs = fs();
    publish(&fs, &[("a", FILES[0])])?;
    fs.put_file(format!("{OUTPUT}/a"), b"edited by hand", 0o644);
    let result = world::publish(&fs, &Spec::from([("a", FILES[1])]));
    ensure(result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict), result)
}

fn foreign_entries_are_not_overwritten() -> Checked {
    let fs = fs();
    fs.put_file(format!("{OUTPUT}/a"), b"foreign", 0o644);
    let result = world::publish(&fs, &Spec::from([("a", FILES[1])]));
    ensure(result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict), result)
}

fn a_held_lock_is_respected() -> Checked {
    let fs = fs();
    let store = open(&fs)?;
    let held = fs.open_anchor(STATE.as_ref()).and_then(|state| fs.try_lock(&state, b"lock"));
    let result = store.begin(BeginOptions::default()).map(drop);
    ensure(held.is_ok() && matches!(result, Err(Error::Busy { .. })), result)
}

fn a_live_transaction_is_left_alone() -> Checked {
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
fn nobody_waits_for_the_dead() -> Checked {
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

fn a_detached_transaction_ends_with_its_boot() -> Checked {
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
fn a_stage_that_was_open_is_committed_by_nobody() -> Checked {
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

fn a_hard_link_does_not_lead_into_the_output() -> Checked {
    let fs = fs();
    let store = open(&fs)?;
    let mut transaction = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?;
    fs.put_link("/w/outside/file", transaction.stage().join("a"));
    transaction.commit(&World::commit_options()).map_err(|error| failed("the commit", &error))?;
    fs.overwrite("/w/outside/file", b"CHANGED");
    let published = fs.entry(format!("{OUTPUT}/a"));
    ensure(published.as_ref().is_some_and(|entry| entry.content() == b"outside"), published)
}

fn what_is_not_ours_is_rescued() -> Checked {
    let fs = fs();
    publish(&fs, &[("a", FILES[0]), ("b", FILES[0])])?;
    publish(&fs, &[("a", FILES[1]), ("b", FILES[0])])?;
    // Somebody who still had the replaced file open wrote to it.
    fs.overwrite(format!("{STATE}/previous/2/stage/a"), b"precious");
    publish(&fs, &[("a", FILES[0]), ("b", FILES[1])])?;
    let rescued = open(&fs)?.sweep().map_err(|error| failed("sweeping", &error))?.rescued;
    let kept = rescued.iter().any(|path| fs.entry(path).is_some_and(|entry| entry.content() == b"precious"));
    ensure(kept, rescued)
}

/// Once a commit is settled no crash loses what it displaced, by an exchange, or by a link and a rename.
fn what_was_displaced_is_kept() -> Checked {
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
fn what_is_pruned_goes_and_nothing_else() -> Checked {
    for dirty in [0, world::CROWDED] {
        let fs = SimFs::new(Config { dirty, ..Config::new(Weakness::Posix) });
        fs.put_dir("/w", 0o755);
        publish(&fs, &[("a", FILES[0]), ("d", world::Node::Dir(0o755)), ("d/x", FILES[0]), ("b", FILES[0])])?;
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
fn the_proof_of_what_was_displaced_outlives_it() -> Checked {
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

/// A store whose machine stopped right after the commit point of its second generation.
fn after_commit_point(old: world::Node, new: world::Node) -> Checked<SimFs> {
    let mut world = Worlds::new(0, Some(Weakness::Ordered)).get(0);
    (world.old, world.new) = (Some(Spec::from([("a", old)])), Spec::from([("a", new)]));
    world.config = Config::new(Weakness::Ordered);
    (world.end, world.adopt, world.from) = (world::End::Commit, false, txfs::Basis::Empty);
    (world.bystander, world.foreign, world.settled) = (false, false, true);
    let fs = world.build();
    fs.record_crash_points();
    let _ = world.run(&fs, &mut Marks::default());
    let points = fs.crash_points();
    let named = |point: &&crate::CrashPoint| point.view().exists(format!("{STATE}/journal"));
    let point = points.iter().find(named).ok_or_else(|| Violation::new("guard", "no journal was named"))?;
    let state = point.killed();
    state.settle();
    Ok(state)
}

fn refuses(fs: &SimFs, allowed: Outcome) -> Checked {
    let before = fs.tree_hash(OUTPUT);
    let result = Store::open_with(&World::options(fs), OUTPUT).map(drop);
    let refused = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt && error.outcome() == allowed);
    ensure(refused && fs.tree_hash(OUTPUT) == before, result)
}

/// The frames of a file of the state directory, its header first.
fn frames(fs: &SimFs, name: &str) -> Vec<Vec<u8>> {
    const HEADER: usize = 16;
    let bytes = fs.entry(format!("{STATE}/{name}")).map(|entry| entry.content().to_vec()).unwrap_or_default();
    let mut frames = vec![bytes[..HEADER].to_vec()];
    let mut rest = &bytes[HEADER..];
    while let Some((length, _)) = rest.split_first_chunk::<4>() {
        let (frame, after) = rest.split_at(8 + u32::from_le_bytes(*length) as usize);
        frames.push(frame.to_vec());
        rest = after;
    }
    frames
}

fn a_spliced_journal_is_refused() -> Checked {
    let (fs, other) = (after_commit_point(FILES[0], FILES[1])?, after_commit_point(FILES[0], FILES[2])?);
    let mut journal = frames(&fs, "journal");
    journal[2] = frames(&other, "journal")[2].clone();
    fs.put_file(format!("{STATE}/journal"), &journal.concat(), 0o600);
    refuses(&fs, Outcome::Unchanged)
}

fn an_exchanged_head_is_refused() -> Checked {
    let (fs, other) = (after_commit_point(FILES[0], FILES[1])?, after_commit_point(FILES[2], FILES[1])?);
    for name in ["HEAD", "manifests/1"] {
        let entry = other.entry(format!("{STATE}/{name}")).expect("a generation was published");
        fs.put_file(format!("{STATE}/{name}"), entry.content(), 0o600);
    }
    refuses(&fs, Outcome::Unchanged)
}

fn what_cannot_be_recognized_is_refused() -> Checked {
    let fs = after_commit_point(FILES[0], FILES[1])?;
    let stages: Vec<RelPath> =
        fs.tree(STATE).into_keys().filter(|path| path.as_bytes().ends_with(b"stage/a")).collect();
    for stage in stages {
        fs.remove(format!("{STATE}/{stage}"));
    }
    refuses(&fs, Outcome::Unknown)
}

/// The name of a journal is lost, an operation is done, and what it displaced cannot be looked at: to undo the commit is no leave to
/// discard what may be the only copy.
fn what_cannot_be_read_is_not_given_up() -> Checked {
    let old = [("a/x", FILES[0]), ("b", FILES[0])];
    let mut world = World::plain(Config { uid: 1000, ..Config::new(Weakness::Ordered) }, None, Spec::new());
    let open = world::Node::Dir(0o755);
    world.old = Some(old.into_iter().chain([("a", open)]).collect());
    world.new = Spec::from([("a", open), ("a/n", FILES[1]), ("a/x", FILES[0]), ("b", FILES[1])]);
    let fs = world.build();
    fs.record_crash_points();
    world.run(&fs, &mut Marks::default()).map_err(|error| failed("the program", &error))?;
    let mut refused = 0;
    for point in fs.crash_points() {
        let state = point.killed();
        let names = ["journal", "HEAD.new"].map(|name| format!("{STATE}/{name}"));
        if names.iter().any(|name| state.entry(name).is_none()) {
            continue;
        }
        let journal = state.entry(&names[0]).map(|entry| entry.content().to_vec()).unwrap_or_default();
        state.remove(&names[0]);
        state.put_file(format!("{STATE}/journal.new"), &journal, 0o600);
        let begun = state.entry(format!("{OUTPUT}/a/n")).is_some();
        state.put_mode(format!("{OUTPUT}/a"), 0o000);
        let undone = Store::open_with(&World::options(&state).recover(false), OUTPUT)
            .and_then(|store| store.recover(RecoverOptions::default().undo(true)));
        state.put_mode(format!("{OUTPUT}/a"), 0o755);
        open_store_is_whole(&state, &world, begun.then_some(&undone))?;
        refused += usize::from(undone.is_err());
    }
    ensure(refused > 1, refused)
}

/// Whether the store is the old or the new generation; the old one is nowhere lost where a commit was begun that could not be looked at.
fn open_store_is_whole(fs: &SimFs, world: &World, begun: Option<&txfs::Result<txfs::Recovered>>) -> Checked {
    open(fs)?;
    let tree = fs.tree(OUTPUT);
    let is = |spec: &Spec| world::is_published(&tree, spec, false);
    let (old, new) = (world.old.as_ref().is_some_and(is), is(&world.new));
    ensure((old || new) && (begun.is_none() || begun.is_some_and(Result::is_err)), (begun, fs.describe()))
}

fn a_head_that_may_not_be_durable_is_written_anew() -> Checked {
    let fs = after_commit_point(FILES[0], FILES[1])?;
    fs.remove(format!("{STATE}/HEAD.new"));
    let trial = fs.fork();
    open(&trial)?;
    let written = trial.log().iter().position(|&call| call == Call::SyncFile);
    let written = written.ok_or_else(|| Violation::new("guard", "no HEAD was written"))? as u64 + 1;
    fs.fail_from(written, Fault::keeping(nix::errno::Errno::ENOSPC as i32));
    let failed = Store::open_with(&World::options(&fs), OUTPUT).map(drop);
    ensure(failed.is_err(), failed)?;
    fs.mend();
    fs.record_crash_points();
    open(&fs)?;
    fs.crash_points().iter().try_for_each(|point| point.states(256).try_for_each(|state| open(&state).map(drop)))
}

/// After a crash that lost a staged directory and kept the journal, somebody makes a directory where the other was to go, and the
/// file system gives it the same inode.
fn a_directory_of_somebodys_is_not_taken_for_a_staged_one() -> Checked {
    let fs = SimFs::new(Config { reuse: Reuse::Immediate, ..Config::new(Weakness::Posix) });
    fs.put_dir("/w", 0o755);
    publish(&fs, &[("a", FILES[0])])?;
    let store = open(&fs)?;
    fs.settle();
    let mut transaction = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?;
    let written = transaction.write("a", "1").and_then(|()| transaction.write("d/x", "x"));
    written.map_err(|error| failed("writing", &error))?;
    let ino = |fs: &SimFs, path: &Path| fs.look(|view| view.stat(path)).map(|stat| stat.ino);
    let staged = ino(&fs, &transaction.stage().join("d"));
    fs.record_crash_points();
    transaction.commit(&World::commit_options()).map_err(|error| failed("the commit", &error))?;
    let mut same = 0;
    for state in fs.crash_points().iter().flat_map(|point| point.states(512)) {
        let made = format!("{OUTPUT}/d");
        if state.entry(&made).is_none() && state.entry(format!("{STATE}/journal.new")).is_some() {
            state.put_dir(&made, 0o755);
            same += usize::from(ino(&state, Path::new(&made)) == staged);
        }
        // With a foreign entry in the way it may refuse, and then nothing is lost.
        let Ok(store) = Store::open_with(&World::options(&state), OUTPUT) else { continue };
        let head = store.head().map_err(|error| failed("reading HEAD", &error))?;
        let is_new = head.is_some_and(|head| head.info.generation == 2);
        ensure(!is_new || state.entry(format!("{OUTPUT}/d/x")).is_some(), state.describe())?;
    }
    ensure(same > 0, "no directory was given the number of the staged one")
}

/// A world with one published file, in which a change takes so many nanoseconds and gets the time of a tick that began before, as on Linux.
pub(super) fn ticking(weakness: Weakness, tick: u64) -> Checked<SimFs> {
    let fs = SimFs::new(Config { mtime_granularity: 4_000_000, tick, ..Config::new(weakness) });
    fs.put_dir("/w", 0o755);
    publish(&fs, &[("a", FILES[0])])?;
    Ok(fs)
}

/// At whichever call of the commit somebody rewrites a staged file that moves along with its directory, and syncs it later: the
/// commit is refused, or reported and then there after every crash. The file is as old as a tick, or was written within this one.
fn a_file_that_is_rewritten_while_it_is_committed_takes_no_reported_commit_back() -> Checked {
    let (mut refused, mut reported) = (0, 0);
    for (weakness, age) in [Weakness::Ordered, Weakness::Btrfs].into_iter().flat_map(|w| [(w, 0), (w, 10)]) {
        for n in 1.. {
            let fs = ticking(weakness, 100_000)?;
            let store = open(&fs)?;
            let mut transaction = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?;
            transaction.write("d/x", "as staged").map_err(|error| failed("writing", &error))?;
            fs.pause(std::time::Duration::from_millis(age));
            fs.settle();
            let before = fs.calls();
            fs.overwrite_at(before + n, transaction.stage().join("d/x"), b"rewritten");
            let result = transaction.commit(&World::commit_options());
            if before + n > fs.calls() {
                break;
            }
            if let Err(error) = result {
                ensure(error.outcome() == Outcome::Unchanged && error.to_string().contains("d/x"), error)?;
                refused += 1;
                continue;
            }
            reported += 1;
            let rewritten = fs.open_anchor(OUTPUT.as_ref()).and_then(|out| {
                let dir = fs.open_dir(&out, &RelPath::new("d").expect("a name is a path"))?;
                fs.open_write(&dir, b"x").and_then(|file| fs.sync_file(&file))
            });
            ensure(rewritten.is_ok(), rewritten)?;
            for state in fs.crash_states(512) {
                let head = open(&state)?.head().map_err(|error| failed("reading HEAD", &error))?;
                ensure(head.is_some_and(|head| head.info.generation == 2), (n, state.describe()))?;
            }
        }
    }
    ensure(refused > 0 && reported > 0, (refused, reported))
}

/// What somebody does to a published file.
#[derive(Debug, Clone, Copy)]
enum Doing {
    Rewrites,
    ChangesItsMode,
    SetsItsTimeBack,
    /// As an editor saves: another file, synced, takes its name.
    Replaces,
}

impl Doing {
    /// Does it, and syncs the file that has the name then.
    fn to(self, fs: &SimFs, published: &RelPath) -> std::io::Result<()> {
        let dir = fs.open_dir(&fs.open_anchor(OUTPUT.as_ref())?, &published.parent())?;
        let open = || fs.open_write(&dir, published.name());
        match self {
            Self::Rewrites => fs.overwrite_at(fs.calls() + 1, published.under(Path::new(OUTPUT)), b"rewritten"),
            Self::ChangesItsMode => fs.set_mode(&open()?, 0o600)?,
            Self::SetsItsTimeBack => fs.set_mtime(&open()?, Timestamp { seconds: 1, nanos: 0 })?,
            Self::Replaces => {
                let mut other = fs.create_file(&dir, b"saved", 0o644)?;
                fs.write(&mut other, b"saved")?;
                fs.sync_file(&other)?;
                fs.rename(&dir, b"saved", &dir, published.name(), RenameMode::Replace)?;
            }
        }
        fs.sync_file(&open()?)
    }
}

/// As soon as a commit is reported somebody changes and syncs a file that it published, alone or with its directory: the commit is there
/// after every crash, or recovery refuses to go on and loses nothing.
fn a_file_that_is_changed_once_it_is_published_takes_no_reported_commit_back() -> Checked {
    use Doing::*;
    let (mut kept, mut refused) = (0, 0);
    for weakness in [Weakness::Ordered, Weakness::Btrfs, Weakness::Posix] {
        for (age, path) in [0, 10].into_iter().flat_map(|age| ["x", "a", "d/x"].map(|path| (age, path))) {
            for doing in [Rewrites, ChangesItsMode, SetsItsTimeBack, Replaces] {
                let fs = ticking(weakness, 100)?;
                let store = open(&fs)?;
                let mut transaction = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?;
                transaction.write(path, "as staged").map_err(|error| failed("writing", &error))?;
                fs.pause(std::time::Duration::from_millis(age));
                fs.settle();
                transaction.commit(&World::commit_options()).map_err(|error| failed("its commit", &error))?;
                let done = doing.to(&fs, &RelPath::new(path).expect("a name is a path"));
                ensure(done.is_ok(), done)?;
                for state in fs.crash_states(4096) {
                    match open(&state).map(|store| store.head()) {
                        Ok(head) => {
                            let head = head.map_err(|error| failed("reading HEAD", &error))?;
                            let is_new = head.is_some_and(|head| head.info.generation == 2);
                            ensure(is_new, (weakness, age, path, doing, state.describe()))?;
                            kept += 1;
                        }
                        Err(_) => {
                            let is_kept = |name| state.entry(format!("{STATE}/{name}")).is_some();
                            ensure(["journal", "journal.new"].iter().any(is_kept), state.describe())?;
                            refused += 1;
                        }
                    }
                }
            }
        }
    }
    ensure(kept > 0 && refused > 0, (kept, refused))
}
