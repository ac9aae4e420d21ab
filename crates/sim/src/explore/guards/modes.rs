//! Guards of modes that somebody changes while something is committed, or has not given them yet.

use txfs::fs::{Fs, Machine};
use txfs::{Basis, BeginOptions, Outcome, RecoverOptions, RelPath, Store};

use crate::explore::guards::ground::{ensure, open, ticking};
use crate::explore::oracle::failed;
use crate::explore::spec::{self, FILES, Node, Spec};
use crate::explore::tally::{Checked, Violation};
use crate::explore::world::{self, CROWDED, MEMBERS, Marks, OUTPUT, STATE, World};
use crate::{Config, SimFs, Stranger, Weakness};

/// At whichever call of the commit somebody changes the mode of a staged file, and syncs it later: the commit is refused, or reported and
/// then there after every crash.
pub(super) fn a_mode_that_is_changed_while_it_is_committed_takes_no_reported_commit_back() -> Checked {
    let (mut refused, mut reported) = (0, 0);
    for (weakness, path) in
        [Weakness::Ordered, Weakness::Btrfs].into_iter().flat_map(|w| ["x", "a", "d/x"].map(|p| (w, p)))
    {
        for n in 1.. {
            let fs = ticking(weakness, 100_000)?;
            let store = open(&fs)?;
            let mut transaction = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?;
            transaction.write(path, "as staged").map_err(|error| failed("writing", &error))?;
            fs.settle();
            let before = fs.calls();
            fs.stranger_at(before + n, transaction.stage().join(path), Stranger::SetsMode(0o600));
            let result = transaction.commit(&World::commit_options());
            if before + n > fs.calls() {
                break;
            }
            if let Err(error) = result {
                ensure(error.outcome() == Outcome::Unchanged && error.to_string().contains(path), error)?;
                refused += 1;
                continue;
            }
            reported += 1;
            let path = RelPath::new(path).expect("a name is a path");
            let synced = fs.open_anchor(OUTPUT.as_ref()).and_then(|out| {
                let dir = fs.open_dir(&out, &path.parent())?;
                fs.open_write(&dir, path.name()).and_then(|file| fs.sync_file(&file))
            });
            ensure(synced.is_ok(), synced)?;
            for state in fs.crash_states(512) {
                let head = open(&state)?.head().map_err(|error| failed("reading HEAD", &error))?;
                ensure(head.is_some_and(|head| head.info.generation == 2), (n, path.to_string(), state.describe()))?;
            }
        }
    }
    ensure(refused > 0 && reported > 0, (refused, reported))
}

/// One member of a group makes a stage anew that a crash took, and is killed before he has given it to the group: the other goes on.
pub(super) fn a_stage_that_was_not_given_to_the_group_is_made_anew() -> Checked {
    let old = [("a", FILES[0]), ("d", Node::Dir(0o555))];
    let new = [("a", FILES[0]), ("d", Node::Dir(0o755)), ("d/x", FILES[1])];
    let config = Config { dirty: CROWDED, ..Config::new(Weakness::Posix) };
    let mut world = World::plain(config, Some(old.into_iter().collect()), new.into_iter().collect()).shared();
    world.from = Basis::Current;
    let fs = world.build();
    fs.record_crash_points();
    world.run(&fs, &mut Marks::default()).map_err(|error| failed("the program", &error))?;
    let stages = [format!("{STATE}/previous/2/stage"), format!("{STATE}/tx/0000000000000002/stage")];
    let is_gone = |state: &SimFs| stages.iter().all(|stage| state.entry(stage).is_none());
    let mut states = 0;
    for point in fs.crash_points() {
        for state in
            point.states(64).filter(|state| is_gone(state) && state.entry(format!("{STATE}/journal")).is_some())
        {
            let other = state.as_user(MEMBERS[1]);
            other.record_crash_points();
            open(&other)?;
            for state in other.crash_points().iter().flat_map(|point| point.states(16)) {
                states += 1;
                open(&state).map(drop).map_err(|violation| violation.after(state.describe()))?;
            }
        }
    }
    ensure(states > 100, states)
}

/// Somebody changes the mode of a directory of the output right before a commit, and a crash takes that: recovery comes to one of both
/// generations by itself, and a commit that was reported has the modes that it was reported with.
pub(super) fn a_mode_that_a_crash_takes_stops_no_recovery() -> Checked {
    let (mut before, mut after) = (0, 0);
    for weakness in [Weakness::Ordered, Weakness::Btrfs, Weakness::Posix] {
        for dirty in [0, CROWDED] {
            for case in 0..8 {
                let [closed, changes, was_changed] = [1, 2, 4].map(|bit| case & bit != 0);
                let told =
                    |v: Box<Violation>| v.after(format!("{weakness:?} {dirty} {closed} {changes} {was_changed}"));
                let counts = mode_is_taken(weakness, dirty, [closed, changes, was_changed]).map_err(told)?;
                (before, after) = (before + counts[0], after + counts[1]);
            }
        }
    }
    ensure(before > 100 && after > 100, (before, after))
}

/// `closed`: the generation has the directory as the stranger left it. `changes`: something in it changes. `was_changed`: he gave it
/// another mode before, which is durable. How many crash states are the generation before, and the one after.
fn mode_is_taken(weakness: Weakness, dirty: u64, [closed, changes, was_changed]: [bool; 3]) -> Checked<[u64; 2]> {
    const CLOSED: u32 = 0o500;
    let fs = SimFs::new(Config { uid: 1000, dirty, ..Config::new(weakness) });
    fs.put_dir("/w", 0o755);
    let (open_dir, [nought, eleven, _]) = (Node::Dir(0o755), FILES);
    let old = [("a", nought), ("d", open_dir), ("d/x", nought)];
    world::publish(&fs, &old.into_iter().collect()).map_err(|error| failed("publishing", &error))?;
    let store = open(&fs)?;
    let mut transaction = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?;
    let mode = if closed { CLOSED } else { 0o755 };
    let new = [("a", eleven), ("d", Node::Dir(mode)), ("d/x", if changes { eleven } else { nought })];
    world::fill(&fs, &mut transaction, &new.into_iter().collect()).map_err(|error| failed("writing", &error))?;
    if was_changed {
        fs.pause(std::time::Duration::from_millis(50));
        fs.stranger_now(format!("{OUTPUT}/d"), &Stranger::SetsMode(0o711));
    }
    fs.settle();
    fs.stranger_now(format!("{OUTPUT}/d"), &Stranger::SetsMode(CLOSED));
    fs.record_crash_points();
    let mut options = World::commit_options();
    options.allow_drift = true;
    transaction.commit(&options).map_err(|error| failed("the commit", &error))?;
    let returned = fs.calls();
    let mut counts = [0; 2];
    let points = fs.crash_points();
    for (index, point) in points.iter().enumerate() {
        let is_reported = index + 1 == points.len() && point.call() <= returned;
        for state in point.states(16) {
            let head = open(&state).and_then(|store| store.head().map_err(|error| failed("reading HEAD", &error)));
            let head = head.map_err(|v| v.after(format!("{point:?}\n{}", state.describe())))?;
            let is_new = head.is_some_and(|head| head.info.generation == 2);
            counts[usize::from(is_new)] += 1;
            let [file, dir] = ["a", "d"].map(|path| state.entry(format!("{OUTPUT}/{path}")));
            let file = file.is_some_and(|entry| entry.content() == if is_new { b"eleven" } else { b"nought" });
            // What is published as it lies there no operation names: before it is durable a crash leaves drift.
            let is_found = closed && !changes && !is_reported;
            let dir = dir.is_some_and(|entry| !is_new || entry.mode == mode || is_found);
            ensure(file && dir && (is_new || !is_reported), (is_new, is_reported, point, state.describe()))?;
        }
    }
    Ok(counts)
}

/// A crash keeps that a directory was opened, and neither what was done in it nor the journal's name; and what is staged cannot be read.
/// Undone, the output is as before, with the directory's mode; also after a crash in the middle of that.
pub(super) fn a_directory_that_was_opened_is_closed_with_what_is_given_up() -> Checked {
    const CLOSED: (&str, Node) = ("d", Node::Dir(0o555));
    let (old, new) = (Spec::from([CLOSED, ("d/x", FILES[0])]), Spec::from([CLOSED, ("d/x", FILES[1])]));
    let is_opened = |state: &SimFs| {
        let is = |path: &str| state.entry(format!("{STATE}/{path}")).is_some();
        let mode = state.entry(format!("{OUTPUT}/d")).map(|entry| entry.mode);
        is("journal.new") && !is("journal") && is("HEAD.new") && mode == Some(0o755)
    };
    let mut undone = 0;
    for weakness in [Weakness::Btrfs, Weakness::Posix] {
        let world = World::plain(Config { uid: 1000, ..Config::new(weakness) }, Some(old.clone()), new.clone());
        let fs = world.build();
        fs.record_crash_points();
        world.run(&fs, &mut Marks::default()).map_err(|error| failed("the program", &error))?;
        for state in fs.crash_points().iter().flat_map(|point| point.states(256)).filter(is_opened) {
            for staged in state.tree(STATE).into_keys().filter(|path| path.as_bytes().ends_with(b"stage/d/x")) {
                let staged = format!("{STATE}/{staged}");
                state.put_mode(staged, 0o000);
            }
            if state.entry(format!("{OUTPUT}/d/x")).is_none_or(|entry| entry.content() != b"nought") {
                continue;
            }
            undone += 1;
            let is_old = |fs: &SimFs| spec::is_published(&fs.tree(OUTPUT), &old, false);
            let undo = |fs: &SimFs| {
                let opened = Store::open_with(&World::options(fs).recover(false), OUTPUT);
                let done = opened.and_then(|store| store.recover(RecoverOptions::default().undo(true)));
                done.map_err(|error| failed("undoing", &error)).map(drop)
            };
            let again = state.fork();
            again.record_crash_points();
            undo(&again)?;
            ensure(is_old(&again), (state.describe(), crate::explore::oracle::shown(&again.tree(OUTPUT))))?;
            for crashed in again.crash_points().iter().flat_map(|point| point.states(32)) {
                undo(&crashed)?;
                ensure(is_old(&crashed), (state.describe(), crashed.describe()))?;
            }
        }
    }
    ensure(undone > 3, undone)
}
