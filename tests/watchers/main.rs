//! What those see who watch the output. Whatever a commit does, and whatever becomes of it: what a watcher is told last of a path
//! that is there has to be that it is there, and of one that is gone that it is gone. What is in a directory that appears has to be
//! found by whoever looks into it then.

#![allow(clippy::unwrap_used)]

mod events;
mod tools;

use txfs_testing as common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::faulty::{Call, Faulty};
use common::tree::snapshot;
use common::{lenient, scratch, set_mode};
use events::{Named, Watcher};
use nix::errno::Errno;
use txfs::fs::linux::Without;
use txfs::fs::{Fs, LinuxFs};
use txfs::{BeginOptions, Error, OpenOptions, RecoverOptions, RecoveredCommit, Store, Transaction};

const WITHOUT: [Without; 3] = [
    Without { exchange: false, no_replace: false, links: false, openat2: false },
    Without { exchange: true, no_replace: false, links: false, openat2: false },
    Without { exchange: false, no_replace: true, links: false, openat2: false },
];

/// Fills a stage with one of two generations, between which everything happens that can. Without RENAME_EXCHANGE no directory
/// becomes something else.
fn fill(stage: &Path, second: bool, exchange: bool) {
    let write = |path: &str| {
        let path = stage.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, if second { "two" } else { "one" }).unwrap();
    };
    fs::create_dir_all(stage.join("same")).unwrap();
    fs::write(stage.join("same/x"), "same").unwrap();
    ["replaced", "keep/replaced", "keep/index.html"].into_iter().for_each(write);
    symlink(if second { "replaced" } else { "same/x" }, stage.join("link")).unwrap();
    let others = match second {
        false => ["removed", "keep/removed", "stale/deep/x", "stale/y", "both/one/x"],
        true => ["added", "keep/added", "fresh/deep/x", "fresh/y", "both/two/x"],
    };
    others.into_iter().for_each(write);
    if exchange {
        let turned =
            if second { ["turns", "returns/x", "returns/deep/y"] } else { ["turns/x", "turns/deep/y", "returns"] };
        turned.into_iter().for_each(write);
    }
    set_mode(&stage.join("keep"), if second { 0o750 } else { 0o555 });
    set_mode(&stage.join(if second { "fresh/deep" } else { "stale/deep" }), 0o555);
}

fn begin<F: Fs>(store: &Store<F>, second: bool) -> Transaction<F> {
    let transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&transaction.stage(), second, store.capabilities().exchange);
    transaction
}

/// A store with the first generation, and somebody who watches it.
fn watched<F: Fs>(options: &OpenOptions<F>, out: &Path) -> (Store<F>, Watcher) {
    let store = Store::open_with(options, out).unwrap();
    begin(&store, false).commit(&lenient()).unwrap();
    store.sweep().unwrap();
    let watcher = Watcher::of(out);
    (store, watcher)
}

/// Goes back to the generation before, or forward again.
fn change_places<F: Fs>(store: &Store<F>) {
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.copy_previous().unwrap();
    transaction.commit(&lenient()).unwrap();
}

#[test]
fn watchers_know_what_is_there_after_each_commit_each_way_back_and_each_sweep() {
    for without in WITHOUT {
        let (_dir, out) = scratch();
        let (store, mut watcher) = watched(&OpenOptions::with(LinuxFs::without(without)), &out);
        begin(&store, true).commit(&lenient()).unwrap();
        watcher.assert_knows("committed");
        store.sweep().unwrap();
        watcher.assert_knows("swept");
        for round in 0..4 {
            change_places(&store);
            watcher.assert_knows(&format!("changed places {round}"));
            store.sweep().unwrap();
            watcher.assert_knows(&format!("changed places and swept {round}"));
        }
    }
}

/// Commits the second generation, and says what failed; `None` where nothing did.
fn fail(store: &Store<Faulty>, arm: &AtomicBool) -> Option<Error> {
    let mut transaction = begin(store, true);
    arm.store(true, Ordering::SeqCst);
    let result = transaction.commit(&lenient());
    arm.store(false, Ordering::SeqCst);
    drop(transaction);
    result.err()
}

/// A kernel on which the rename after `n` others fails, and with `dead` every change after it.
fn failing(without: Without, n: usize, dead: bool) -> (Faulty, Arc<AtomicBool>) {
    let (arm, count) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    let armed = arm.clone();
    let rule = move |call: &Call| {
        if !armed.load(Ordering::SeqCst) || matches!(call, Call::Read(_)) {
            return None;
        }
        let renames = matches!(call, Call::Rename { .. }) && {
            count.fetch_add(1, Ordering::SeqCst);
            true
        };
        let failed = count.load(Ordering::SeqCst);
        (renames && failed == n + 1 || dead && failed > n).then_some(Errno::EIO)
    };
    (Faulty::on(LinuxFs::without(without), rule), arm)
}

#[test]
fn watchers_know_what_is_there_after_a_commit_that_was_undone() {
    for without in WITHOUT {
        let mut undone = 0;
        for n in 0.. {
            let (_dir, out) = scratch();
            let (kernel, arm) = failing(without, n, false);
            let (store, mut watcher) = watched(&OpenOptions::with(kernel), &out);
            let Some(error) = fail(&store, &arm) else { break };
            undone += usize::from(matches!(error, Error::RolledBack { .. }));
            watcher.assert_knows(&format!("rename {n} failed"));
        }
        println!("{without:?}: {undone} undone");
        assert!(undone > 10);
    }
}

#[test]
fn watchers_know_what_is_there_after_recovery_either_way() {
    for without in WITHOUT {
        let mut recovered = [0, 0];
        'next: for n in 0.. {
            for undo in [false, true] {
                let (_dir, out) = scratch();
                let (kernel, arm) = failing(without, n, true);
                let (store, mut watcher) = watched(&OpenOptions::with(kernel), &out);
                if fail(&store, &arm).is_none() {
                    break 'next;
                }
                drop(store);
                let store =
                    Store::open_with(&OpenOptions::with(LinuxFs::without(without)).recover(false), &out).unwrap();
                let commit = if undo {
                    store.recover(RecoverOptions::default().undo(true))
                } else {
                    store.recover(RecoverOptions::default())
                }
                .unwrap()
                .commit;
                recovered[usize::from(undo)] += usize::from(matches!(
                    (undo, commit),
                    (false, Some(RecoveredCommit::RolledForward { .. }))
                        | (true, Some(RecoveredCommit::RolledBack { .. }))
                ));
                watcher.assert_knows(&format!("killed at rename {n}, recovered, undo: {undo}"));
                store.sweep().unwrap();
                change_places_if_possible(&store);
                watcher.assert_knows(&format!("killed at rename {n}, recovered, undo: {undo}, and went on"));
            }
        }
        println!("{without:?}: {recovered:?} recovered forward and back");
        assert!(recovered.iter().all(|times| *times > 10));
    }
}

fn change_places_if_possible<F: Fs>(store: &Store<F>) {
    begin(store, false).commit(&lenient()).unwrap();
    store.sweep().unwrap();
    begin(store, true).commit(&lenient()).unwrap();
    store.sweep().unwrap();
}

/// Of a plain rename a watcher is told that its target came. So it is, last, of an exchange.
#[test]
fn fanotify_tells_of_a_replaced_file_last_that_it_came() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    common::publish(&store, &[("a", "1"), ("gone", "1")]).unwrap();
    let Some(named) = Named::of(&out) else {
        return common::skip("fanotify", "the kernel, or this user, has no fanotify that tells names");
    };
    common::publish(&store, &[("a", "2"), ("new", "1")]).unwrap();
    store.sweep().unwrap();
    let told = named.told();
    println!("{told:?}");
    let last = |name: &str| told.iter().rfind(|(told, _)| told == name).map(|(_, there)| *there);
    assert_eq!([last("a"), last("new"), last("gone")], [Some(true), Some(true), Some(false)], "{told:?}");
}

/// Directories that were displaced are made anew when their commit is swept, so that nobody watches them any more.
#[test]
fn a_sweep_that_is_cut_short_at_any_call_loses_nothing_of_what_was_displaced() {
    for n in 0.. {
        let (_dir, out) = scratch();
        let (count, arm) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
        let armed = arm.clone();
        let kernel = Faulty::new(move |call| {
            let counts = armed.load(Ordering::SeqCst) && !matches!(call, Call::Read(_));
            (counts && count.fetch_add(1, Ordering::SeqCst) >= n).then_some(Errno::EIO)
        });
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        begin(&store, false).commit(&lenient()).unwrap();
        let first = snapshot(&out);
        begin(&store, true).commit(&lenient()).unwrap();
        store.recover(RecoverOptions::default()).unwrap();
        let second = snapshot(&out);
        arm.store(true, Ordering::SeqCst);
        let swept = store.sweep();
        arm.store(false, Ordering::SeqCst);
        drop(store);
        let store = Store::open(&out).unwrap();
        for expected in [&first, &second, &first] {
            change_places(&store);
            assert_eq!(&snapshot(&out), expected, "{n}");
        }
        store.sweep().unwrap();
        assert!(!common::state_of(&out).join("rescued").exists(), "{n}");
        if swept.is_ok() {
            println!("cut short at each of {n} calls");
            assert!(n > 20);
            return;
        }
    }
}
