//! Guards of modes that somebody changes while something is committed, or has not given them yet.

use txfs::fs::Fs;
use txfs::{Basis, BeginOptions, Outcome, RelPath};

use crate::{Config, SimFs, Stranger, Weakness};

use super::guards::{ensure, open, ticking};
use super::oracle::failed;
use super::tally::Checked;
use super::world::{CROWDED, FILES, MEMBERS, Marks, Node, OUTPUT, STATE, World};

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
