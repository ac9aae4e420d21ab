//! What stands against going back: what is missing, damaged, or was changed since.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use txfs::{Basis, BeginOptions, Error, ErrorKind, OpenOptions, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::snapshot;
use txfs_testing::{lenient, publish, read, scratch};

use super::roll_back;

#[test]
fn going_back_is_refused_where_it_cannot_be_done() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let refused = |kind: ErrorKind, text: &str| {
        let before = out.exists().then(|| snapshot(&out));
        let error = roll_back(&store).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(out.exists().then(|| snapshot(&out)), before);
    };
    refused(ErrorKind::Usage, "there is no generation to go back to");
    publish(&store, &[("a", "one"), ("b", "one"), ("c", "one")]).unwrap();
    refused(ErrorKind::Usage, "there is no generation to go back to");

    // What was missing when the second generation came was displaced by nothing.
    fs::remove_file(out.join("b")).unwrap();
    publish(&store, &[("a", "two"), ("b", "two"), ("c", "one")]).unwrap();
    refused(ErrorKind::Usage, "generation 1 cannot be put together again, for this was missing already: b");

    publish(&store, &[("a", "three"), ("b", "two"), ("c", "one")]).unwrap();
    store.sweep().unwrap();
    fs::write(store.state().join("previous/3/stage/a"), "tampered with").unwrap();
    refused(ErrorKind::Corrupt, "it was changed since it was displaced");

    publish(&store, &[("a", "four"), ("b", "two"), ("c", "one")]).unwrap();
    fs::write(out.join("c"), "drift").unwrap();
    refused(ErrorKind::Conflict, "published entries were changed by somebody else: c");
    let mut change = store.begin(BeginOptions::default().from(Basis::Current)).unwrap();
    assert_eq!(change.copy_previous().unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn what_is_missing_anywhere_of_the_generation_before_refuses_going_back() {
    type Lose = fn(&Path, &Path);
    let losses: [(&str, Lose, Lose); 2] = [
        ("same", |_, _| {}, |out, _| fs::remove_file(out.join("same")).unwrap()),
        ("stale/x", |out, _| fs::remove_file(out.join("stale/x")).unwrap(), |_, _| {}),
    ];
    for (lost, before, after) in losses {
        let (dir, out) = scratch();
        let store = Store::open(&out).unwrap();
        publish(&store, &[("a", "one"), ("same", "same"), ("stale/x", "x"), ("stale/y", "y")]).unwrap();
        before(&out, dir.path());
        publish(&store, &[("a", "two"), ("same", "same")]).unwrap();
        after(&out, dir.path());
        let error = roll_back(&store).unwrap_err();
        assert!(error.kind() == ErrorKind::Usage && error.to_string().contains(lost), "{error}");
        assert_eq!(read(&out, "a"), "two");
    }
}

#[test]
fn a_damaged_journal_of_what_was_displaced_is_said_to_be_damaged() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one")]).unwrap();
    publish(&store, &[("a", "two")]).unwrap();
    store.sweep().unwrap();
    txfs_testing::change_a_byte(&txfs_testing::state_of(&out).join("previous/2/journal"));
    assert_eq!(roll_back(&store).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(read(&out, "a"), "two");
}

#[test]
fn drift_is_not_published_as_the_generation_before() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("same", "same")]).unwrap();
    publish(&store, &[("a", "two"), ("same", "same")]).unwrap();
    fs::write(out.join("same"), "defaced").unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    let result = transaction.copy_previous().and_then(|_| transaction.commit(&lenient().allow_drift(true)).map(|_| ()));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!((read(&out, "a"), read(&out, "same")), ("two".into(), "defaced".into()));
}

/// Somebody has a file open that was displaced with its directory.
#[test]
fn what_was_written_to_a_displaced_file_is_not_the_generation_before() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("stale/x", "x"), ("stale/y", "y")]).unwrap();
    let mut log = fs::File::options().append(true).open(out.join("stale/x")).unwrap();
    publish(&store, &[("a", "two")]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    log.write_all(b" late").unwrap();
    assert_eq!(roll_back(&store).unwrap_err().kind(), ErrorKind::Corrupt);
}

/// What is copied is swept meanwhile.
#[test]
fn another_commit_that_comes_first_is_what_going_back_tells_of() {
    let (_dir, out) = scratch();
    for content in ["one", "two"] {
        publish(&Store::open(&out).unwrap(), &[("a", content), ("b", content)]).unwrap();
    }
    let (armed, at) = (AtomicBool::new(true), out.clone());
    let kernel = Faulty::new(move |call| {
        if matches!(call, Call::CreateFile { name } if name == b"a") && armed.swap(false, Ordering::SeqCst) {
            let store = Store::open(&at).unwrap();
            for content in ["three", "four"] {
                publish(&store, &[("a", content), ("b", content)]).unwrap();
            }
            store.sweep().unwrap();
        }
        None
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    let error = transaction.copy_previous().unwrap_err();
    assert!(matches!(error, Error::BaseMoved { base: 2, current: 4, .. }), "{error}");
}
