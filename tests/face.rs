//! What the library looks like to a program: what can be moved into a thread, kept in a struct, and used beside something else.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use common::{publish, scratch};
use txfs::{
    Basis, BeginOptions, CommitOptions, Ended, Error, HandedOut, NothingBefore, OpenOptions, Phase, Problem, Progress,
    Snapshot, StagedFile, Store, Transaction,
};

fn content(out: &Path, path: &str) -> String {
    fs::read_to_string(out.join(path)).unwrap()
}

#[test]
fn what_a_program_holds_can_go_to_another_thread_and_lives_as_long_as_it_likes() {
    const fn moves<T: Send + 'static>() {}
    const fn is_shared<T: Send + Sync + Clone + 'static>() {}
    const {
        is_shared::<Store>();
        moves::<Transaction>();
        moves::<StagedFile>();
        moves::<HandedOut>();
        moves::<Snapshot>();
        moves::<Error>();
    }
}

#[test]
fn a_transaction_outlives_the_handle_that_began_it() {
    struct Job {
        transaction: Transaction,
    }
    let (_dir, out) = scratch();
    let mut job = Job { transaction: Store::open(&out).unwrap().begin(BeginOptions::default()).unwrap() };
    job.transaction.write("a", "1").unwrap();
    let committed = thread::spawn(move || job.transaction.commit(&CommitOptions::default())).join().unwrap();
    assert_eq!(committed.unwrap().generation, 1);
    assert_eq!(content(&out, "a"), "1");
}

#[test]
fn handles_of_one_store_see_the_same_commits() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let other = store.clone();
    publish(&store, &[("a", "1")]).unwrap();
    publish(&other, &[("a", "2")]).unwrap();
    assert_eq!(store.head().unwrap().unwrap().info.generation, 2);
    assert!(store.sweep().unwrap().done);
}

#[test]
fn several_threads_write_into_one_transaction() {
    let (_dir, out) = scratch();
    let mut transaction = Store::open(&out).unwrap().begin(BeginOptions::default()).unwrap();
    let files: Vec<_> = (0..8).map(|n| (n, transaction.create(format!("dir{}/{n}", n % 2)).unwrap())).collect();
    thread::scope(|scope| {
        for (n, mut file) in files {
            scope.spawn(move || {
                for _ in 0..100 {
                    write!(file, "{n} ").unwrap();
                }
                file.finish().unwrap();
            });
        }
    });
    assert_eq!(transaction.commit(&CommitOptions::default()).unwrap().totals.files, 8);
    for n in 0..8 {
        assert_eq!(content(&out, &format!("dir{}/{n}", n % 2)), format!("{n} ").repeat(100));
    }
    assert!(Store::open(&out).unwrap().verify().unwrap().is_empty());
}

#[test]
fn a_file_that_another_thread_still_writes_is_not_published() {
    let (_dir, out) = scratch();
    let mut transaction = Store::open(&out).unwrap().begin(BeginOptions::default()).unwrap();
    transaction.write("a", "whole").unwrap();
    let mut half = transaction.create("b").unwrap();
    write!(half, "half").unwrap();
    let refused = transaction.commit(&CommitOptions::default()).unwrap_err();
    assert!(matches!(&refused, Error::Refused { problems, .. } if matches!(problems[..], [Problem::Unfinished(_)])));
    write!(half, ", and the rest").unwrap();
    half.finish().unwrap();
    transaction.commit(&CommitOptions::default()).unwrap();
    assert_eq!(content(&out, "b"), "half, and the rest");
}

#[test]
fn a_file_that_was_written_anew_is_not_ended_by_the_one_before() {
    let (_dir, out) = scratch();
    let mut transaction = Store::open(&out).unwrap().begin(BeginOptions::default()).unwrap();
    let mut before = transaction.create("a").unwrap();
    write!(before, "before").unwrap();
    let mut after = transaction.create("a").unwrap();
    write!(after, "aft").unwrap();
    before.finish().unwrap();
    let refused = transaction.commit(&CommitOptions::default()).unwrap_err();
    assert!(matches!(&refused, Error::Refused { problems, .. } if matches!(problems[..], [Problem::Unfinished(_)])));
    write!(after, "er").unwrap();
    after.finish().unwrap();
    transaction.commit(&CommitOptions::default()).unwrap();
    assert_eq!(content(&out, "a"), "after");
    assert!(Store::open(&out).unwrap().verify().unwrap().is_empty());
}

#[test]
fn a_file_that_is_finished_after_it_was_removed_stays_away() {
    let (_dir, out) = scratch();
    let mut transaction = Store::open(&out).unwrap().begin(BeginOptions::default()).unwrap();
    transaction.write("a", "1").unwrap();
    let file = transaction.create("dir/b").unwrap();
    transaction.remove("dir").unwrap();
    file.finish().unwrap();
    assert_eq!(transaction.commit(&CommitOptions::default()).unwrap().totals.entries, 1);
}

/// A handle that knows nothing of it would close to the others what it makes.
#[test]
fn a_store_that_is_in_use_is_not_given_to_others() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "1")]).unwrap();
    let transaction = store.begin(BeginOptions::default()).unwrap();
    let error = store.clone().share(None).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    transaction.abort().unwrap();
    let error = store.clone().unshare().unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    assert_eq!(store.unshare().unwrap().shared_with(), None);
}

/// What a program may want to tell apart it need not read out of a text.
#[test]
fn a_request_that_cannot_be_met_is_told_by_its_kind() {
    let (dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let begin = || store.begin(BeginOptions::default()).unwrap();
    assert!(matches!(begin().copy_previous(), Err(Error::NothingBefore { why: NothingBefore::First, .. })));
    assert!(matches!(begin().write("../a", ""), Err(Error::NoPath { .. })));
    let at = store.begin(BeginOptions::default().at("../a"));
    assert!(matches!(at, Err(Error::NoPlace { .. })));
    let mut transaction = begin();
    transaction.write("a", "1").unwrap();
    transaction.commit(&CommitOptions::default()).unwrap();
    assert!(matches!(transaction.write("b", "2"), Err(Error::TransactionOver { .. })));
    let closed = store.resume(transaction.id());
    assert!(matches!(closed, Err(Error::NoTransaction { why: Ended::Closed, .. })));
    let mut removed = begin();
    fs::remove_dir_all(removed.stage()).unwrap();
    assert!(matches!(removed.copy_from(dir.path()), Err(Error::StageGone { .. })));
    let mut change = store.begin(BeginOptions::default().from(Basis::Current)).unwrap();
    assert!(matches!(change.copy_previous(), Err(Error::Usage { .. })));
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(Store::open(dir.path().join("file")), Err(Error::NotAnOutput { .. })));
    let moved = Store::open_with(&OpenOptions::default().state(dir.path().join("other")), &out);
    assert!(matches!(moved, Err(Error::StateElsewhere { .. })));
    assert!(matches!(store.clone().share(None), Err(Error::InUse { .. })));
}

#[test]
fn a_file_gets_the_mode_that_is_said_whatever_the_umask_is() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let modes = [("script", 0o755), ("open", 0o666), ("secret", 0o400), ("set-uid", 0o4755)];
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    for (path, mode) in modes {
        transaction.write_with_mode(path, "content", mode).unwrap();
    }
    let mut half = transaction.create_with_mode("half", 0o600).unwrap();
    write!(half, "a key").unwrap();
    assert_eq!(mode(&transaction.stage().join("half")) & 0o077, 0);
    half.finish().unwrap();
    assert!(matches!(transaction.create_with_mode("a", 0o100_644), Err(Error::Usage { .. })));
    transaction.commit(&CommitOptions::default()).unwrap();
    for (path, expected) in modes.into_iter().chain([("half", 0o600)]) {
        assert_eq!(mode(&out.join(path)), expected, "{path}");
    }
    let recorded = store.snapshot().unwrap().get("script").unwrap().unwrap().mode;
    assert_eq!(recorded, 0o755);
    // The same again changes nothing, and another mode alone is a change.
    let again = |mode: u32| {
        let mut transaction = store.begin(BeginOptions::default().from(Basis::Current)).unwrap();
        transaction.write_with_mode("script", "content", mode).unwrap();
        transaction.commit(&CommitOptions::default()).unwrap().changed
    };
    assert_eq!((again(0o755), again(0o700)), (false, true));
    assert_eq!(mode(&out.join("script")), 0o700);
}

/// What a listener was told, by phase: the first and the last `done`, and the `total` at the end.
fn told(events: &[Progress]) -> Vec<(Phase, u64, u64)> {
    let mut phases = Vec::new();
    for event in events {
        match (event.done, phases.last_mut()) {
            (0, last) => {
                assert!(last.is_none_or(|(_, done, total)| done == total), "{events:?}");
                phases.push((event.phase, 0, event.total.unwrap_or(u64::MAX)));
            }
            (_, Some((phase, done, total))) => {
                assert!(*phase == event.phase && *done < event.done, "{events:?}");
                (*done, *total) = (event.done, event.total.unwrap_or(u64::MAX));
            }
            (_, None) => panic!("{events:?}"),
        }
    }
    phases
}

#[test]
fn whoever_wants_to_know_is_told_how_far_it_has_come() {
    let (dir, out) = scratch();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("dir")).unwrap();
    (0..200).for_each(|n| fs::write(source.join(format!("dir/{n}")), format!("{n}")).unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = heard.clone();
    let options = OpenOptions::default().on_progress(move |progress| listener.lock().unwrap().push(*progress));
    let store = Store::open_with(&options, &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.copy_from(&source).unwrap();
    transaction.commit(&CommitOptions::default()).unwrap();
    let copied = heard.lock().unwrap().drain(..).collect::<Vec<_>>();
    assert!(copied.iter().any(|event| event.done > 0 && event.done < 201), "{copied:?}");
    let expected = [(Phase::Copy, 201, 201), (Phase::Scan, 201, 201), (Phase::Barrier, 1, 1), (Phase::Apply, 1, 1)];
    assert_eq!(told(&copied), expected);
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(told(&heard.lock().unwrap().drain(..).collect::<Vec<_>>()), [(Phase::Verify, 201, 201)]);
    store.begin(BeginOptions::default().from(Basis::Copy)).unwrap().abort().unwrap();
    assert_eq!(told(&heard.lock().unwrap().drain(..).collect::<Vec<_>>()), [(Phase::Copy, 201, 201)]);
}

#[test]
fn a_listener_that_panics_is_a_crash_that_is_recovered() {
    for phase in [Phase::Scan, Phase::Barrier, Phase::Apply] {
        for at_end in [false, true] {
            let (_dir, out) = scratch();
            publish(&Store::open(&out).unwrap(), &[("a", "old"), ("b", "old")]).unwrap();
            let options = OpenOptions::default().on_progress(move |progress| {
                let is_end = progress.total == Some(progress.done);
                assert!(progress.phase != phase || is_end != at_end, "it panics");
            });
            let store = Store::open_with(&options, &out).unwrap();
            let panicked = thread::spawn(move || {
                let mut transaction = store.begin(BeginOptions::default()).unwrap();
                ["a", "b"].iter().for_each(|path| transaction.write(path, "new").unwrap());
                transaction.commit(&CommitOptions::default())
            });
            assert!(panicked.join().is_err(), "{phase:?}");
            let store = Store::open(&out).unwrap();
            let generation = store.snapshot().unwrap().generation();
            let content = ["a", "b"].map(|path| content(&out, path));
            assert_eq!(content, if generation == 1 { ["old", "old"] } else { ["new", "new"] }, "{phase:?}");
            assert!(store.verify().unwrap().is_empty() && store.transactions().unwrap().is_empty());
            assert_eq!(generation, publish(&store, &[("a", "newer")]).unwrap().generation - 1);
        }
    }
}
