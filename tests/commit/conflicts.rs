//! What stands against a commit: another one, what is foreign, what somebody changed, and a stage that lacks too much.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use txfs::{Basis, BeginOptions, CommitOptions, Error, ErrorKind, Problem, RecoverOptions, Store};
use txfs_testing::read;

use super::{publish, publish_with, scratch};

#[test]
fn foreign_entries_stay_and_those_in_the_way_are_a_conflict() {
    let (_dir, out) = scratch();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("CNAME"), "mine").unwrap();
    fs::write(out.join("index.html"), "mine too").unwrap();
    let store = Store::open(&out).unwrap();
    let error = publish(&store, &[("index.html", "new")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(
        matches!(&error, Error::Refused { problems, .. } if matches!(&problems[0], Problem::Foreign(p) if p.total == 1))
    );
    assert_eq!(read(&out, "index.html"), "mine too");
    let adopt = {
        let mut options = CommitOptions::default();
        options.adopt = true;
        options
    };
    publish_with(&store, &[("index.html", "new")], &adopt).unwrap();
    assert_eq!(read(&out, "index.html"), "new");
    assert_eq!(read(&out, "CNAME"), "mine");
}

#[test]
fn a_stale_directory_with_foreign_content_stays_without_what_was_published() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("d/ours", "o"), ("d/sub/ours", "o"), ("keep", "k"), ("k2", "k")]).unwrap();
    fs::write(out.join("d/theirs"), "t").unwrap();
    publish(&store, &[("keep", "k"), ("k2", "k")]).unwrap();
    assert_eq!(read(&out, "d/theirs"), "t");
    assert!(!out.join("d/ours").exists() && !out.join("d/sub").exists());
}

#[test]
fn drift_is_a_conflict_and_what_is_missing_is_put_back() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "a"), ("b", "b")]).unwrap();
    fs::write(out.join("a"), "edited").unwrap();
    let error = publish(&store, &[("a", "a2"), ("b", "b")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let drift = {
        let mut options = CommitOptions::default();
        options.allow_drift = true;
        options
    };
    fs::remove_file(out.join("b")).unwrap();
    let committed = publish_with(&store, &[("a", "a2"), ("b", "b")], &drift).unwrap();
    assert_eq!((read(&out, "a"), read(&out, "b")), ("a2".into(), "b".into()));
    assert_eq!(committed.plan.restored.total, 1);
    fs::remove_dir_all(&out).unwrap();
    publish(&store, &[("a", "a2"), ("b", "b")]).unwrap();
    assert_eq!(read(&out, "b"), "b");
}

#[test]
fn first_committer_wins() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let mut first = store.begin(BeginOptions::default()).unwrap();
    let mut second = store.begin(BeginOptions::default()).unwrap();
    first.write("x", "first").unwrap();
    second.write("x", "second").unwrap();
    first.commit(&CommitOptions::default()).unwrap();
    let error = second.commit(&CommitOptions::default()).unwrap_err();
    assert!(matches!(error, Error::BaseMoved { base: 0, current: 1, .. }), "{error}");
    let stage = second.keep().unwrap();
    assert_eq!(read(&stage, "x"), "second");
    assert_eq!(store.recover(RecoverOptions::default()).unwrap().discarded, []);
    assert_eq!(read(&out, "x"), "first");
}

/// What a change puts back is not to be open to those to whom it was closed.
#[test]
fn a_change_does_not_put_back_a_directory_with_another_mode() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    ["a/b/1", "c"].iter().for_each(|path| transaction.write(path, "1").unwrap());
    fs::set_permissions(transaction.stage().join("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
    transaction.commit(&CommitOptions::default()).unwrap();
    for gone in ["a/b", "a"] {
        fs::remove_dir_all(out.join(gone)).unwrap();
        let mut transaction = store.begin(BeginOptions::default().from(Basis::Current)).unwrap();
        transaction.write("a/b/2", "2").unwrap();
        let error = transaction.commit(&CommitOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        fs::set_permissions(transaction.stage().join("a/b"), fs::Permissions::from_mode(0o700)).unwrap();
        transaction.commit(&CommitOptions::default()).unwrap();
        assert_eq!(fs::metadata(out.join("a/b")).unwrap().permissions().mode() & 0o7777, 0o700);
    }
}

#[test]
fn an_empty_and_a_shrunken_stage_are_refused() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    assert_eq!(publish(&store, &[]).unwrap_err().kind(), ErrorKind::Refused);
    publish(&store, &[("1", ""), ("2", ""), ("3", ""), ("4", "")]).unwrap();
    assert_eq!(publish(&store, &[("1", "")]).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(publish(&store, &[]).unwrap_err().kind(), ErrorKind::Refused);
    publish(&store, &[("1", ""), ("5", ""), ("6", ""), ("7", "")]).unwrap();
    let empty = {
        let mut options = CommitOptions::default();
        options.allow_empty = true;
        options
    };
    publish_with(&store, &[], &empty).unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}
