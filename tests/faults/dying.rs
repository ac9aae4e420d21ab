//! A process that dies at any call: recovery leaves one of two generations, whatever the file system lacks.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::errno::Errno;
use txfs::fs::linux::Without;
use txfs::fs::{Fs, LinuxFs};
use txfs::{BeginOptions, Error, OpenOptions, RecoverOptions, Store, Transaction};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::{Node, snapshot};
use txfs_testing::{lenient, publish, read, scratch, set_mode};

use super::armed;

/// A generation with everything in it that takes more than one operation: read-only directories that stay, come, go, and change
/// their kind.
fn fill_rich<F: Fs>(transaction: &mut Transaction<F>, new: bool, kinds: bool) {
    let content = if new { "new!" } else { "old" };
    for path in ["a", "ro/x", "ro/sub/y", "z.html"] {
        transaction.write(path, content).unwrap();
    }
    let (own, modes) = match new {
        false => {
            (["stale/1", "stale/sub/2"], [("stale/sub", 0o500), ("stale", 0o555), ("ro/sub", 0o555), ("ro", 0o500)])
        }
        true => {
            (["fresh/1", "fresh/sub/2"], [("fresh/sub", 0o500), ("fresh", 0o555), ("ro/sub", 0o550), ("ro", 0o555)])
        }
    };
    own.iter().for_each(|path| transaction.write(path, content).unwrap());
    if kinds {
        let (directory, file) = if new { ("to-dir", "to-file") } else { ("to-file", "to-dir") };
        transaction.write(format!("{directory}/inner"), content).unwrap();
        transaction.write(file, content).unwrap();
        set_mode(&transaction.stage().join(directory), 0o555);
    }
    modes.into_iter().for_each(|(path, bits)| set_mode(&transaction.stage().join(path), bits));
}

/// The rich trees before and after, as they are without any failure.
fn expected_rich(kinds: bool) -> [BTreeMap<Vec<u8>, Node>; 2] {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    [false, true].map(|new| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill_rich(&mut transaction, new, kinds);
        transaction.commit(&lenient()).unwrap();
        snapshot(&out)
    })
}

/// From one call on nothing works any more, as for a process that was killed; then another one recovers.
fn dies_at_every_call(without: Without, piecewise: bool) {
    let kinds = !without.exchange;
    let [old, new] = expected_rich(kinds);
    let (mut back, mut forward) = (0, 0);
    for n in 0.. {
        let (_dir, out) = scratch();
        let (count, arm) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
        let on = arm.clone();
        let kernel = Faulty::on(LinuxFs::without(without), move |call| match call {
            _ if !on.load(Ordering::SeqCst) => None,
            Call::Rename { name, directory: true, .. } if piecewise && name == b"stale" => Some(Errno::EXDEV),
            _ => (count.fetch_add(1, Ordering::SeqCst) >= n).then_some(Errno::EIO),
        });
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill_rich(&mut transaction, false, kinds);
        transaction.commit(&lenient()).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill_rich(&mut transaction, true, kinds);
        arm.store(true, Ordering::SeqCst);
        let result = transaction.commit(&lenient());
        drop(transaction);
        let store = Store::open_with(&OpenOptions::with(LinuxFs::without(without)), &out)
            .unwrap_or_else(|error| panic!("dead at call {n}: {result:?}: {error}"));
        let after = snapshot(&out);
        assert!(after == old || after == new, "dead at call {n}: {result:?}: {after:?}");
        if result.is_ok() {
            assert_eq!(after, new, "dead at call {n}: acknowledged and lost");
        }
        *(if after == new { &mut forward } else { &mut back }) += 1;
        assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing(), "dead at call {n}");
        assert!(store.verify().unwrap().is_empty(), "dead at call {n}");
        publish(&store, &[("next", "n")]).unwrap_or_else(|error| panic!("dead at call {n}: next: {error}"));
        assert_eq!((fs::read_dir(&out).unwrap().count(), read(&out, "next")), (1, "n".into()));
        if result.is_ok_and(|committed| committed.warnings.is_empty()) {
            break;
        }
    }
    println!("{without:?}, piecewise {piecewise}: {back} times the old generation, {forward} times the new one");
    assert!(back > 10 && forward > 10);
}

/// A stage that outlives its process means the same when it is committed again.
#[test]
fn a_detached_transaction_whose_commit_was_interrupted_is_committed_again() {
    let [old, new] = expected_rich(true);
    let (mut again, mut done) = (0, 0);
    for n in 0.. {
        let (_dir, out) = scratch();
        let count = AtomicUsize::new(0);
        let (kernel, arm) = armed(move |_| (count.fetch_add(1, Ordering::SeqCst) >= n).then_some(Errno::EIO));
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill_rich(&mut transaction, false, true);
        transaction.commit(&lenient()).unwrap();
        let mut transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
        let id = transaction.id();
        fill_rich(&mut transaction, true, true);
        arm.store(true, Ordering::SeqCst);
        let result = transaction.commit(&lenient());
        drop(transaction);
        let store = Store::open(&out).unwrap_or_else(|error| panic!("dead at call {n}: {result:?}: {error}"));
        match store.resume(id) {
            Ok(mut transaction) => {
                assert_eq!(snapshot(&out), old, "dead at call {n}: {result:?}");
                transaction.commit(&lenient()).unwrap();
                again += 1;
            }
            Err(_) => done += 1,
        }
        let lost = matches!(result, Err(Error::StageLost { .. })) && snapshot(&out) == old;
        assert!(lost || snapshot(&out) == new, "dead at call {n}: {result:?}: {:?}", snapshot(&out));
        if result.is_ok_and(|committed| committed.warnings.is_empty()) {
            break;
        }
    }
    println!("{again} times committed again, {done} times it was over");
    assert!(again > 5 && done > 10);
}

#[test]
fn a_process_that_dies_at_any_call_is_recovered() {
    dies_at_every_call(Without::default(), false);
}

#[test]
fn a_process_that_dies_at_any_call_is_recovered_without_exchange() {
    dies_at_every_call(Without { exchange: true, ..Without::default() }, false);
}

#[test]
fn a_process_that_dies_at_any_call_is_recovered_without_any_flag() {
    dies_at_every_call(Without { exchange: true, no_replace: true, ..Without::default() }, false);
}

#[test]
fn a_process_that_dies_at_any_call_is_recovered_where_directories_are_taken_apart() {
    dies_at_every_call(Without::default(), true);
}
