//! Calls that fail after the commit point: the commit stands, and what is left to do is done later.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::errno::Errno;
use txfs::{Barriers, BeginOptions, Error, OpenOptions, RecoverOptions, RecoveredCommit, Store, TransactionId};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::snapshot;
use txfs_testing::{lenient, publish, read, scratch, state_of};

use super::{OLD, armed, begin_new, expected, fill, left, nth, publish_old};

/// What settles the commit before it: each is given the number of a transaction that was open before that commit.
type Settler = fn(&Store<Faulty>, TransactionId) -> txfs::Result<()>;

#[test]
fn a_failed_barrier_after_a_commit_is_an_error_of_whatever_settles_it_and_the_commit_stands() {
    let [_, new] = expected();
    let settlers: [(&str, Settler); 5] = [
        ("begin", |store, _| store.begin(BeginOptions::default()).map(drop)),
        ("sweep", |store, _| store.sweep().map(drop)),
        ("recover", |store, _| store.recover(RecoverOptions::default()).map(drop)),
        ("abort", |store, other| store.resume(other)?.abort()),
        ("undo", |store, _| store.recover(RecoverOptions::default().undo(true)).map(drop)),
    ];
    for (what, settle) in settlers {
        // The store that made the commit, and another one that looks at all of it.
        for own in [true, false] {
            let what = format!("{what}, own: {own}");
            let (_dir, out) = scratch();
            let (kernel, arm) = nth(0, |call| *call == Call::SyncFs, Errno::EIO);
            let store = Store::open_with(&OpenOptions::with(kernel.clone()), &out).unwrap();
            publish_old(&store);
            let other = begin_new(&store, BeginOptions::default().detached(true)).id();
            begin_new(&store, BeginOptions::default()).commit(&lenient()).unwrap();
            let store =
                if own { store } else { Store::open_with(&OpenOptions::with(kernel).recover(false), &out).unwrap() };
            arm.store(true, Ordering::SeqCst);
            let error = settle(&store, other).expect_err(&what);
            arm.store(false, Ordering::SeqCst);
            assert!(error.to_string().contains("cannot make durable"), "{what}: {error}");
            assert!(!own || matches!(error, Error::Io { .. }), "{what}: {error}");
            assert_eq!(snapshot(&out), new, "{what}");
            assert_eq!(left(&out, &["journal", "previous/2/journal"]), ["journal"], "{what}");
            assert!(store.verify().unwrap().is_empty(), "{what}");
            assert_eq!(read(&state_of(&out), "previous/2/stage/a"), "old", "{what}: the next commit may still need it");
            let recovered = store.recover(RecoverOptions::default()).unwrap();
            assert_eq!(recovered.commit, Some(RecoveredCommit::Settled { generation: 2 }), "{what}");
            // Its stage was open when the barrier failed.
            assert_eq!(recovered.discarded, [other], "{what}");
            assert!(recovered.rescued.is_empty() && recovered.warnings.is_empty(), "{what}: {recovered:?}");
            assert_eq!(snapshot(&out), new, "{what}");
            assert_eq!(left(&out, &["journal", "previous/2/journal"]), ["previous/2/journal"], "{what}");
        }
    }
}

/// Every changing call after a commit fails, or is the last one of a process that is killed: the commit stands.
#[test]
fn whichever_call_of_settling_fails_the_commit_stands() {
    let [_, new] = expected();
    let mut fired = 0;
    for (barriers, dies) in [(Barriers::Whole, false), (Barriers::Single, false), (Barriers::Single, true)] {
        for n in 0.. {
            let what = format!("{barriers:?}, dies: {dies}, call {n}");
            let (_dir, out) = scratch();
            let hit = Arc::new(AtomicBool::new(false));
            let (count, seen) = (AtomicUsize::new(0), hit.clone());
            let (kernel, arm) = armed(move |_| {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let this = number == n || dies && number > n;
                seen.fetch_or(this, Ordering::SeqCst);
                this.then_some(Errno::EIO)
            });
            let store = Store::open_with(&OpenOptions::with(kernel).barriers(barriers), &out).unwrap();
            publish_old(&store);
            begin_new(&store, BeginOptions::default()).commit(&lenient()).unwrap();
            arm.store(true, Ordering::SeqCst);
            let settled = store.sweep();
            arm.store(false, Ordering::SeqCst);
            assert_eq!(snapshot(&out), new, "{what}: {settled:?}");
            assert_eq!(left(&out, &["journal", "previous/2/journal"]).len(), 1, "{what}: {settled:?}");
            drop(store);
            let store = Store::open(&out).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(left(&out, &["journal", "previous/2/journal"]), ["previous/2/journal"], "{what}");
            assert!(snapshot(&out) == new && store.verify().unwrap().is_empty(), "{what}");
            assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing(), "{what}");
            publish(&store, &[("next", "n")]).unwrap_or_else(|error| panic!("{what}: next: {error}"));
            if !hit.load(Ordering::SeqCst) {
                break;
            }
            fired += 1;
        }
    }
    assert!(fired > 50, "{fired}");
}

#[test]
fn directories_that_cannot_be_renamed_are_taken_apart() {
    let (_dir, out) = scratch();
    let (kernel, arm) = armed(|call| match call {
        Call::Rename { name, directory: true, .. } if name.starts_with(b"stale") => Some(Errno::EXDEV),
        _ => None,
    });
    let [_, new] = expected();
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish(&store, &OLD).unwrap();
    arm.store(true, Ordering::SeqCst);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    transaction.commit(&lenient()).unwrap();
    assert_eq!(snapshot(&out), new, "modes included");
}

/// What was displaced may be the user's, and nothing else has it.
#[test]
fn what_a_commit_displaced_stays_where_it_cannot_be_shelved() {
    for detached in [false, true] {
        let (_dir, out) = scratch();
        publish(&Store::open(&out).unwrap(), &[("a", "a")]).unwrap();
        fs::write(out.join("theirs"), "precious").unwrap();
        let armed = Arc::new(AtomicBool::new(true));
        let full = armed.clone();
        let kernel = Faulty::new(move |call| {
            let shelves = matches!(call, Call::Rename { new_name, .. } if new_name == b"2");
            (shelves && full.load(Ordering::SeqCst)).then_some(Errno::ENOSPC)
        });
        let store = || Store::open_with(&OpenOptions::with(kernel.clone()), &out).unwrap();
        let committing = store();
        let mut transaction = committing.begin(BeginOptions::default().detached(detached)).unwrap();
        let id = transaction.id();
        transaction.write("theirs", "ours").unwrap();
        let committed = transaction.commit(&lenient().adopt(true)).unwrap();
        assert_eq!(committed.warnings.len(), 1);
        drop(transaction);
        assert_eq!(store().recover(RecoverOptions::default()).unwrap().discarded, []);
        assert!(store().resume(id).is_err(), "in its stage lies what was displaced");
        armed.store(false, Ordering::SeqCst);
        let store = store();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        assert_eq!(transaction.copy_previous().unwrap(), 1);
        transaction.commit(&lenient()).unwrap();
        assert_eq!((read(&out, "a"), read(&out, "theirs")), ("a".into(), "precious".into()));
    }
}

#[test]
fn a_transaction_with_nothing_to_publish_is_over_wherever_its_stage_stays() {
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &OLD).unwrap();
    let (kernel, arm) = nth(0, |call| matches!(call, Call::Rename { name, .. } if name.len() == 16), Errno::EIO);
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
    OLD.iter().for_each(|(path, content)| transaction.write(path, content).unwrap());
    arm.store(true, Ordering::SeqCst);
    assert!(!transaction.commit(&lenient()).unwrap().changed);
    drop(transaction);
    assert!(store.transactions().unwrap().is_empty());
}

#[test]
fn one_entry_that_cannot_be_removed_keeps_nothing_else_that_was_displaced() {
    let (_dir, out) = scratch();
    let kernel = Faulty::new(|call| match call {
        Call::RemoveFile { name } if name == b"immutable" => Some(Errno::EPERM),
        _ => None,
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish(&store, &[("a", "0"), ("d/immutable", "x")]).unwrap();
    for n in 1..8 {
        publish(&store, &[("a", &n.to_string())]).unwrap();
    }
    assert!(store.sweep().is_err());
    let mut kept: Vec<_> =
        fs::read_dir(state_of(&out).join("previous")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    kept.sort();
    // The one with the entry; and the last, with the journal of the one before.
    assert_eq!(kept, ["2", "7", "8"]);
    assert_eq!(fs::read_dir(state_of(&out).join("previous/7")).unwrap().count(), 1);
}
