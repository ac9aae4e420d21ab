//! What a commit changes: what it names, all at once or not at all.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use txfs::{Basis, BeginOptions, CommitOptions, Error, ErrorKind, RecoverOptions, RecoveredCommit, Store};
use txfs_testing::read;

use super::{publish, scratch};

#[test]
fn the_first_commit_makes_the_output() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    assert!(!out.exists());
    let committed = publish(&store, &[("index.html", "one"), ("a/b/c.txt", "deep")]).unwrap();
    assert_eq!((committed.generation, committed.changed), (1, true));
    assert_eq!(read(&out, "index.html"), "one");
    assert_eq!(read(&out, "a/b/c.txt"), "deep");
}

#[test]
fn a_commit_is_over_with_its_journal_in_place_and_is_settled_by_what_comes_after_it() {
    type Settler = fn(&Store, &Path);
    let settlers: [(&str, Settler); 4] = [
        ("sweep", |store, _| assert!(store.sweep().unwrap().rescued.is_empty())),
        ("begin", |store, _| drop(store.begin(BeginOptions::default()).unwrap())),
        ("recover", |store, _| {
            assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing(), "nobody has to be told")
        }),
        ("open", |_, out| drop(Store::open(out).unwrap())),
    ];
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let state = store.state().to_path_buf();
    for (generation, (what, settle)) in (1..).zip(settlers) {
        let retired = state.join(format!("previous/{generation}/journal"));
        publish(&store, &[("a", what)]).unwrap();
        assert!(state.join("journal").exists() && !retired.exists(), "{what}");
        assert!(!state.join("journal.new").exists() && !state.join("HEAD.new").exists(), "{what}");
        assert_eq!(store.head().unwrap().unwrap().info.generation, generation, "{what}");
        assert_eq!((read(&out, "a").as_str(), fs::read_dir(state.join("tx")).unwrap().count()), (what, 0));
        assert!(store.verify().unwrap().is_empty(), "{what}");
        settle(&store, &out);
        assert!(!state.join("journal").exists() && retired.exists(), "{what}");
        assert!(store.recover(RecoverOptions::default()).unwrap().commit.is_none(), "{what}: once");
        assert_eq!(store.head().unwrap().unwrap().info.generation, generation, "{what}");
        assert_eq!(read(&out, "a"), what);
    }
}

#[test]
fn additions_replacements_and_removals_are_one_commit() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("keep", "k"), ("change", "old"), ("gone", "g"), ("gone-dir/x", "x"), ("dir/y", "y")]).unwrap();
    let before = fs::metadata(out.join("keep")).unwrap();
    let committed = publish(&store, &[("keep", "k"), ("change", "new"), ("dir/z", "z"), ("new/deep/n", "n")]).unwrap();
    assert_eq!(committed.generation, 2);
    assert_eq!(read(&out, "change"), "new");
    assert_eq!(read(&out, "new/deep/n"), "n");
    assert!(!out.join("gone").exists() && !out.join("gone-dir").exists() && !out.join("dir/y").exists());
    let after = fs::metadata(out.join("keep")).unwrap();
    assert_eq!(
        (before.ino(), before.mtime_nsec()),
        (after.ino(), after.mtime_nsec()),
        "G5: what did not change is not touched"
    );
    let summary = committed.plan.summary;
    assert_eq!((summary.added, summary.changed, summary.unchanged), (4, 1, 2), "{:?}", committed.plan.changes);
}

#[test]
fn a_commit_without_changes_writes_nothing_to_the_output() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "a"), ("d/b", "b")]).unwrap();
    let before: Vec<_> =
        ["", "a", "d", "d/b"].iter().map(|p| fs::metadata(out.join(p)).unwrap().ctime_nsec()).collect();
    let committed = publish(&store, &[("a", "a"), ("d/b", "b")]).unwrap();
    assert_eq!((committed.generation, committed.changed), (1, false));
    let after: Vec<_> = ["", "a", "d", "d/b"].iter().map(|p| fs::metadata(out.join(p)).unwrap().ctime_nsec()).collect();
    assert_eq!(before, after);
}

#[test]
fn a_path_may_change_its_kind() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("file-to-dir", "f"), ("dir-to-file/x/y", "y"), ("file-to-link", "l")]).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("file-to-dir/inner", "i").unwrap();
    transaction.write("dir-to-file", "now a file").unwrap();
    transaction.symlink("file-to-link", "dir-to-file").unwrap();
    transaction.commit(&CommitOptions::default()).unwrap();
    assert_eq!(read(&out, "file-to-dir/inner"), "i");
    assert_eq!(read(&out, "dir-to-file"), "now a file");
    assert_eq!(fs::read_link(out.join("file-to-link")).unwrap(), Path::new("dir-to-file"));
    publish(&store, &[("file-to-dir", "f"), ("dir-to-file/x/y", "y"), ("file-to-link", "l")]).unwrap();
    assert_eq!(read(&out, "dir-to-file/x/y"), "y");
    assert_eq!(read(&out, "file-to-link"), "l");
}

#[test]
fn a_change_leaves_alone_what_it_does_not_name() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a/1", "1"), ("a/2", "2"), ("b", "b"), ("c/x", "x")]).unwrap();
    fs::set_permissions(out.join("a"), fs::Permissions::from_mode(0o750)).unwrap();
    let mut transaction = store.begin(BeginOptions::default().from(Basis::Current)).unwrap();
    transaction.write("a/1", "changed").unwrap();
    transaction.remove("c").unwrap();
    let error = transaction.commit(&CommitOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "the mode of a drifted: {error}");
    fs::set_permissions(out.join("a"), fs::Permissions::from_mode(0o755)).unwrap();
    transaction.commit(&CommitOptions::default()).unwrap();
    assert_eq!((read(&out, "a/1"), read(&out, "a/2"), read(&out, "b")), ("changed".into(), "2".into(), "b".into()));
    assert!(!out.join("c").exists());
}

#[test]
fn read_only_files_and_directories_are_published_and_replaced() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    for content in ["one", "two"] {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write("ro/file", content).unwrap();
        transaction.write("ro/sub/file", content).unwrap();
        for (path, mode) in [("ro/file", 0o444), ("ro/sub/file", 0o400), ("ro/sub", 0o500), ("ro", 0o555)] {
            fs::set_permissions(transaction.stage().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        transaction.commit(&CommitOptions::default()).unwrap();
        assert_eq!(read(&out, "ro/sub/file"), content);
        let mode = |path: &str| fs::metadata(out.join(path)).unwrap().mode() & 0o7777;
        assert_eq!([mode("ro"), mode("ro/sub"), mode("ro/file"), mode("ro/sub/file")], [0o555, 0o500, 0o444, 0o400]);
    }
    publish(&store, &[("a", "a"), ("b", "b")]).unwrap();
    assert!(!out.join("ro").exists());
    publish(&store, &[("a", "a2"), ("b", "b")]).unwrap();
}

#[test]
fn a_symlinked_output_stays_a_link() {
    let (dir, out) = scratch();
    symlink("releases/1", &out).unwrap();
    fs::create_dir(dir.path().join("releases")).unwrap();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("x", "1")]).unwrap();
    assert!(fs::symlink_metadata(&out).unwrap().is_symlink());
    assert_eq!(read(dir.path(), "releases/1/x"), "1");
    assert!(dir.path().join("releases/.1.txfs").is_dir());
}

#[test]
fn dropping_an_open_transaction_aborts_it() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let stage = {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write("x", "1").unwrap();
        transaction.stage()
    };
    assert!(!stage.exists() && !out.exists());
    assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing());
}

#[test]
fn a_rebuilt_stage_root_is_found_again() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    let stage = transaction.stage();
    fs::remove_dir_all(&stage).unwrap();
    let error = transaction.commit(&CommitOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    fs::create_dir(&stage).unwrap();
    fs::write(stage.join("x"), "1").unwrap();
    transaction.commit(&CommitOptions::default()).unwrap();
    assert_eq!(read(&out, "x"), "1");
}

#[test]
fn an_error_while_applying_rolls_back() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "1"), ("b", "1"), ("c", "1")]).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    for path in ["a", "b", "c", "d"] {
        transaction.write(path, "2").unwrap();
    }
    // A check runs before the plan, so a thread has to interfere later; an immutable file fails in the middle instead.
    let immutable = std::process::Command::new("chattr").arg("+i").arg(out.join("b")).status();
    if !immutable.is_ok_and(|status| status.success()) {
        return txfs_testing::skip("an immutable file", "chattr +i needs root and a file system with attributes");
    }
    let result = transaction.commit(&CommitOptions::default());
    std::process::Command::new("chattr").arg("-i").arg(out.join("b")).status().unwrap();
    let error = result.unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert!(error.to_string().contains("dist/b"), "{error}");
    for path in ["a", "b", "c"] {
        assert_eq!(read(&out, path), "1");
    }
    assert!(!out.join("d").exists());
    transaction.commit(&CommitOptions::default()).unwrap();
    assert_eq!(read(&out, "d"), "2");
    assert!(!matches!(
        store.recover(RecoverOptions::default()).unwrap().commit,
        Some(RecoveredCommit::RolledForward { .. })
    ));
}
