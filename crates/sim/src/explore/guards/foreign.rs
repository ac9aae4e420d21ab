//! What somebody put or changed in the output or a stage.

use std::path::Path;

use txfs::{BeginOptions, ErrorKind, Store};

use crate::explore::guards::ground::{ensure, fs, open, publish};
use crate::explore::oracle::failed;
use crate::explore::spec::{FILES, Spec};
use crate::explore::tally::Checked;
use crate::explore::world::{self, OUTPUT, STATE, World};
use crate::{Config, Reuse, SimFs, Weakness};

pub(super) fn drift_is_refused() -> Checked {
    let fs = fs();
    publish(&fs, &[("a", FILES[0])])?;
    fs.put_file(format!("{OUTPUT}/a"), b"edited by hand", 0o644);
    let result = world::publish(&fs, &Spec::from([("a", FILES[1])]));
    ensure(result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict), result)
}

pub(super) fn foreign_entries_are_not_overwritten() -> Checked {
    let fs = fs();
    fs.put_file(format!("{OUTPUT}/a"), b"foreign", 0o644);
    let result = world::publish(&fs, &Spec::from([("a", FILES[1])]));
    ensure(result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Conflict), result)
}

pub(super) fn a_hard_link_does_not_lead_into_the_output() -> Checked {
    let fs = fs();
    let store = open(&fs)?;
    let mut transaction = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?;
    fs.put_link("/w/outside/file", transaction.stage().join("a"));
    transaction.commit(&World::commit_options()).map_err(|error| failed("the commit", &error))?;
    fs.overwrite("/w/outside/file", b"CHANGED");
    let published = fs.entry(format!("{OUTPUT}/a"));
    ensure(published.as_ref().is_some_and(|entry| entry.content() == b"outside"), published)
}

pub(super) fn what_is_not_ours_is_rescued() -> Checked {
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

/// After a crash that lost a staged directory and kept the journal, somebody makes a directory where the other was to go, and the
/// file system gives it the same inode.
pub(super) fn a_directory_of_somebodys_is_not_taken_for_a_staged_one() -> Checked {
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
