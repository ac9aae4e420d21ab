//! What was moved aside, and what became of a stage, is told.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use txfs::{BeginOptions, Error, OpenOptions, Outcome, RecoveredCommit, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::snapshot;
use txfs_testing::{lenient, publish, read, scratch, state_of};

use super::{Manner, contents, recover};

/// Something of a displaced generation is not what was displaced, and something else of it cannot be removed.
#[test]
fn what_was_moved_aside_is_told_of_by_an_error_too() {
    let (_dir, out) = scratch();
    let kernel = Faulty::new(|call| match call {
        Call::RemoveFile { name } if name == b"immutable" => Some(Errno::EPERM),
        _ => None,
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let generation = |n: u8| publish(&store, &[("a", &format!("a {n}")), ("immutable", &format!("i {n}"))]).unwrap();
    (1..3).for_each(|n| drop(generation(n)));
    store.sweep().unwrap();
    fs::write(state_of(&out).join("previous/2/stage/a"), "written to after it was displaced").unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("a", "a 3").unwrap();
    transaction.write("immutable", "i 3").unwrap();
    assert!(transaction.commit(&lenient()).unwrap().rescued.is_empty(), "the generation before is kept");
    let error = store.sweep().unwrap_err();
    let text = error.to_string();
    let (rescued, cause) = error.into_parts();
    assert!(matches!(cause, Error::Io { .. }), "{cause}");
    assert_eq!(rescued.len(), 1, "{text}");
    assert!(text.contains(&*rescued[0].to_string_lossy()) && text.contains("cannot remove"), "{text}");
    assert_eq!(fs::read_to_string(&rescued[0]).unwrap(), "written to after it was displaced");
    assert!(store.take_rescued().is_empty(), "it is told of once");
}

/// Nobody may ever commit the transaction whose beginning moved something aside.
#[test]
fn what_was_moved_aside_by_a_transaction_that_is_dropped_can_be_asked_for() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    for n in 1..4 {
        publish(&store, &[("a", &format!("a {n}"))]).unwrap();
        if n == 2 {
            store.sweep().unwrap();
            fs::write(state_of(&out).join("previous/2/stage/a"), "written to after it was displaced").unwrap();
        }
    }
    drop(store.begin(BeginOptions::default()).unwrap());
    assert_eq!(store.take_rescued().len(), 1);
}

#[test]
fn a_stage_whose_commit_was_rolled_back_can_be_committed_again_and_one_that_is_not_whole_is_moved_aside() {
    for removes in [false, true] {
        let (dir, out) = scratch();
        let staged = Arc::new(std::sync::Mutex::new(PathBuf::new()));
        let (at, failed) = (staged.clone(), AtomicBool::new(false));
        let kernel = Faulty::new(move |call| {
            let this =
                matches!(call, Call::Rename { name, .. } if name == b"w.html") && !failed.swap(true, Ordering::SeqCst);
            if this && removes {
                fs::remove_dir_all(at.lock().unwrap().join("d")).unwrap();
            }
            this.then_some(Errno::EIO)
        });
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        publish(&store, &[("d/old", "1"), ("a", "1")]).unwrap();
        let old = snapshot(&out);
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for path in ["d/old", "d/new", "w.html"] {
            transaction.write(path, if path == "d/old" { "1" } else { "built" }).unwrap();
        }
        *staged.lock().unwrap() = transaction.stage();
        let error = transaction.commit(&lenient()).unwrap_err();
        assert_eq!((error.outcome(), snapshot(&out)), (Outcome::Unchanged, old), "{error}");
        let (rescued, cause) = error.into_parts();
        assert!(matches!(cause, Error::RolledBack { .. }), "{cause}");
        assert_eq!((transaction.is_open(), rescued.len()), (!removes, usize::from(removes)));
        if removes {
            drop(transaction);
            assert!(contents(dir.path()).contains(&b"built"[..]), "what was built is kept");
            publish(&store, &[("d/old", "1"), ("w.html", "built")]).unwrap();
        } else {
            transaction.commit(&lenient()).unwrap();
            assert_eq!(read(&out, "d/new"), "built");
        }
    }
}

#[test]
fn an_undone_removal_whose_stage_is_lost_leaves_nothing_to_be_moved_aside() {
    let (_scratch, out) = scratch();
    publish(&Store::open(&out).unwrap(), &[("a", "a 1"), ("x", "x 1")]).unwrap();
    let dead = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| {
        let is_after = dead.load(Ordering::SeqCst);
        // What is removed goes to `removed/I`, and then nothing has an effect any more.
        if matches!(call, Call::Rename { name, .. } if name == b"x") {
            dead.store(true, Ordering::SeqCst);
        }
        is_after.then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
    transaction.write("a", "a 1").unwrap();
    let stage = transaction.stage();
    assert_eq!(transaction.commit(&lenient()).unwrap_err().outcome(), Outcome::Unknown);
    assert!(!out.join("x").exists());
    fs::remove_dir_all(&stage).unwrap();
    let recovered = recover(&out, Manner { undo: true, skip: false }).unwrap();
    assert_eq!(recovered.commit, Some(RecoveredCommit::RolledBack { generation: 2 }));
    assert_eq!((read(&out, "x"), recovered.rescued), ("x 1".to_owned(), vec![]));
    // A full build whose stage is gone would remove everything: it is not to be committed.
    assert!(!stage.parent().unwrap().exists());
}
