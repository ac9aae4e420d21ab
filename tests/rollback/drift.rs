//! What somebody changed is nobody's generation: neither the one before, nor a copy of the current one.

use std::fs;
use std::path::Path;

use txfs::{Basis, BeginOptions, Error, ErrorKind, OpenOptions, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::{lenient, publish, read, scratch, set_mode};

use super::roll_back;

#[test]
fn what_somebody_changed_just_before_the_commit_that_was_allowed_to_drop_it_comes_back() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("stale/a", "one"), ("b", "one")]).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("b", "two").unwrap();
    // By then what is staged is older than any tick.
    std::thread::sleep(std::time::Duration::from_millis(40));
    fs::write(out.join("b"), "drifted").unwrap();
    fs::write(out.join("stale/a"), "drifted").unwrap();
    transaction.commit(&lenient().allow_drift(true)).unwrap();
    roll_back(&store).unwrap();
    assert_eq!((read(&out, "b"), read(&out, "stale/a")), ("drifted".into(), "drifted".into()));
}

#[test]
fn a_stage_that_is_kept_takes_nothing_that_somebody_changed_for_the_generation_before() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("same", "same")]).unwrap();
    publish(&store, &[("a", "two"), ("same", "same")]).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.copy_previous().unwrap();
    fs::write(out.join("same"), "edited").unwrap();
    let refused = transaction.keep().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert!(refused.to_string().contains("same"), "{refused}");
    assert_eq!(store.transactions().unwrap(), []);
}

#[test]
fn a_copy_of_the_current_generation_has_nothing_that_somebody_changed_unless_that_is_allowed() {
    type Change = fn(&Path);
    let changes: [(Change, &[&str]); 5] = [
        (|out| fs::write(out.join("a"), "edited").unwrap(), &["a"]),
        (|out| fs::remove_file(out.join("d/b")).unwrap(), &["d/b"]),
        (|out| set_mode(&out.join("d/b"), 0o600), &["d/b"]),
        (|out| fs::remove_dir_all(out.join("d")).unwrap(), &["d", "d/b", "d/c"]),
        (
            |out| {
                fs::remove_file(out.join("a")).unwrap();
                fs::create_dir(out.join("a")).unwrap();
            },
            &["a"],
        ),
    ];
    for (change, expected) in changes {
        let (_dir, out) = scratch();
        let store = Store::open(&out).unwrap();
        publish(&store, &[("a", "one"), ("d/b", "one"), ("d/c", "one")]).unwrap();
        // As after a backup was put back: other inodes, and the same content.
        fs::copy(out.join("d/c"), out.join("d/copy")).unwrap();
        fs::rename(out.join("d/copy"), out.join("d/c")).unwrap();
        let options = BeginOptions::default().from(Basis::Copy);
        store.begin(options.clone()).unwrap().abort().unwrap();
        change(&out);
        let Err(Error::Refused { problems, .. }) = store.begin(options.clone()).map(drop) else {
            panic!("{expected:?}")
        };
        let paths = problems[0].paths().unwrap().first.iter().map(ToString::to_string);
        assert_eq!(paths.collect::<Vec<_>>(), expected);
        assert_eq!(store.transactions().unwrap(), []);
        let transaction = store.begin(options.allow_drift(true)).unwrap();
        assert_eq!(transaction.copied_drift(), problems[0].paths().unwrap());
    }
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one")]).unwrap();
    fs::remove_dir_all(&out).unwrap();
    let refused = store.begin(BeginOptions::default().from(Basis::Copy)).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
}

#[test]
fn what_is_edited_while_the_current_generation_is_copied_is_not_in_the_copy() {
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &[("a", "one"), ("b", "one")]).unwrap();
    let edited = out.join("b");
    let edits = Faulty::new(move |call: &Call| {
        if *call == Call::Read("copy_content") {
            fs::write(&edited, "edited").unwrap();
        }
        None
    });
    let store = Store::open_with(&OpenOptions::with(edits), &out).unwrap();
    let refused = store.begin(BeginOptions::default().from(Basis::Copy)).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
}
