//! A transaction that its process keeps is, to whoever takes it up, what it was.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use txfs_testing as common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use common::read;
use tempfile::TempDir;
use txfs::{Basis, BeginOptions, CommitOptions, Error, ErrorKind, Problem, Store, Transaction};

/// With a generation of `a`, `b`, `d/1` and `d/e/2`.
fn published() -> (TempDir, PathBuf, Store) {
    let dir = TempDir::new().unwrap();
    let out = dir.path().join("out");
    let store = Store::open(&out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    ["a", "b", "d/1", "d/e/2"].iter().for_each(|path| transaction.write(path, path).unwrap());
    transaction.commit(&CommitOptions::default()).unwrap();
    (dir, out, store)
}

fn begin_change(store: &Store) -> Transaction {
    store.begin(BeginOptions::default().from(Basis::Current)).unwrap()
}

/// As another process would.
fn take_up(out: &Path, stage: &Path) -> txfs::Result<Transaction> {
    let (output, id) = Store::parse_stage(&txfs::OpenOptions::default(), stage)?.unwrap();
    assert_eq!(output, out.canonicalize().unwrap());
    Store::open(out)?.resume(id)
}

fn commit(mut transaction: Transaction) -> txfs::Result<()> {
    transaction.commit(&CommitOptions::default().max_removed(100)).map(drop)
}

#[test]
fn what_a_change_removes_is_removed_by_whoever_takes_it_up() {
    let (_dir, out, store) = published();
    let mut change = begin_change(&store);
    change.write("n", "n").unwrap();
    change.remove("d/e").unwrap();
    change.remove("b").unwrap();
    let stage = change.keep().unwrap();
    // Older programs, which would publish a part of it, refuse it.
    assert_eq!(fs::read(stage.with_file_name("meta")).unwrap()[8], 3);
    let plan = take_up(&out, &stage).unwrap().plan(&CommitOptions::default()).unwrap();
    assert_eq!((plan.summary.added, plan.summary.removed), (1, 3));
    // And kept again, with something else besides.
    let mut again = take_up(&out, &stage).unwrap();
    again.remove("d/1").unwrap();
    assert_eq!(again.keep().unwrap(), stage);
    commit(take_up(&out, &stage).unwrap()).unwrap();
    assert!(!out.join("b").exists() && !out.join("d/e").exists() && !out.join("d/1").exists());
    assert_eq!((read(&out, "a"), read(&out, "n")), ("a".to_owned(), "n".to_owned()));
    assert!(store.verify().unwrap().is_empty());
}

#[test]
fn a_change_at_a_path_is_kept_with_what_it_removes() {
    let (_dir, out, store) = published();
    let mut change = store.begin(BeginOptions::default().from(Basis::Current).at("d")).unwrap();
    change.remove("1").unwrap();
    let stage = change.keep().unwrap();
    assert!(stage.ends_with("stage/d"));
    commit(take_up(&out, &stage).unwrap()).unwrap();
    assert!(!out.join("d/1").exists() && out.join("d/e/2").exists() && out.join("a").exists());
}

/// Its directories have the modes that they are to have, and what looks like a mistake of the build is one still.
#[test]
fn what_was_captured_is_taken_up_as_what_was_captured() {
    let (_dir, out, store) = published();
    let captured = |removed: &[&str]| {
        let mut change = begin_change(&store);
        fs::create_dir(change.stage().join("d")).unwrap();
        fs::set_permissions(change.stage().join("d"), fs::Permissions::from_mode(0o711)).unwrap();
        let removed: Vec<_> = removed.iter().map(PathBuf::from).collect();
        change.set_captured(Some(&removed)).unwrap();
        change.leave().unwrap().stage
    };
    let stage = captured(&["a", "b", "d"]);
    let mut emptied = take_up(&out, &stage).unwrap();
    match emptied.commit(&CommitOptions::default()).unwrap_err() {
        Error::Refused { problems, .. } => assert!(matches!(problems[..], [Problem::EmptyStage]), "{problems:?}"),
        error => panic!("{error}"),
    }
    drop(emptied);
    let left = begin_change(&store);
    assert_eq!(left.leave().unwrap().replaced, 1);
    commit(take_up(&out, &captured(&[])).unwrap()).unwrap();
    assert_eq!(fs::metadata(out.join("d")).unwrap().permissions().mode() & 0o7777, 0o711);
    commit(take_up(&out, &captured(&["d/e", "b"])).unwrap()).unwrap();
    assert!(!out.join("d/e").exists() && !out.join("b").exists() && out.join("d/1").exists());
}

/// A part of a change is another one.
#[test]
fn a_change_whose_removals_are_damaged_is_refused() {
    for damage in [None, Some(0), Some(20), Some(30)] {
        let (_dir, out, store) = published();
        let mut change = begin_change(&store);
        change.remove("a").unwrap();
        change.remove("b").unwrap();
        let stage = change.keep().unwrap();
        let gone = stage.with_file_name("gone");
        let whole = fs::read(&gone).unwrap();
        match damage {
            None => fs::remove_file(&gone).unwrap(),
            Some(length) => fs::write(&gone, &whole[..length]).unwrap(),
        }
        let error = take_up(&out, &stage).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        fs::write(&gone, whole).unwrap();
        commit(take_up(&out, &stage).unwrap()).unwrap();
        assert!(!out.join("a").exists() && !out.join("b").exists());
    }
}
