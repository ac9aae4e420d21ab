//! What a commit does to an output, seen from outside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use txfs_testing as common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use common::read;
use common::tree::{Node, snapshot};
use tempfile::TempDir;
use txfs::{
    Basis, BeginOptions, CommitOptions, Committed, Error, ErrorKind, Problem, RecoverOptions, RecoveredCommit, Store,
};

/// Publishes exactly these files.
fn publish(store: &Store, files: &[(&str, &str)]) -> txfs::Result<Committed> {
    publish_with(store, files, &CommitOptions::default())
}

fn publish_with(store: &Store, files: &[(&str, &str)], options: &CommitOptions<'_>) -> txfs::Result<Committed> {
    let mut transaction = store.begin(BeginOptions::default())?;
    for (path, content) in files {
        transaction.write(path, content)?;
    }
    transaction.commit(options)
}

fn scratch() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("dist");
    (dir, out)
}

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
fn of_many_staged_files_those_are_kept_that_hold_what_was_displaced() {
    const FILES: usize = 1500;
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let build = |differ: usize, version: &str| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for n in 0..FILES {
            let content = if n % (FILES / differ) == 0 { version } else { "same" };
            transaction.write(format!("{}/{}/{n}", n % 7, n % 11), content).unwrap();
        }
        let ro = transaction.stage().join("3/5");
        fs::set_permissions(ro, fs::Permissions::from_mode(0o555)).unwrap();
        let committed = transaction.commit(&CommitOptions::default()).unwrap();
        assert!(store.sweep().unwrap().rescued.is_empty());
        committed.generation
    };
    let left = |generation: u64| {
        let nodes = snapshot(&store.state().join(format!("previous/{generation}")));
        let displaced = nodes.into_values().filter_map(|node| match node {
            Node::File { content, .. } if !content.starts_with(b"txfs") => Some(content),
            _ => None,
        });
        displaced.collect::<Vec<_>>()
    };
    assert_eq!(build(1, "one"), 1);
    assert!(left(1).is_empty(), "nothing was displaced");
    assert_eq!(build(3, "two"), 2);
    let displaced = left(2);
    assert_eq!(displaced.len(), 3);
    assert_eq!(displaced.iter().filter(|content| *content == b"one").count(), 1);
    assert_eq!(build(FILES, "three"), 3);
    assert_eq!((left(2).len(), left(3).len()), (0, FILES));
    assert_eq!(build(FILES, "three"), 3, "nothing differs");
    assert_eq!((left(3).len(), fs::read_dir(store.state().join("tx")).unwrap().count()), (FILES, 0));
    assert!(!store.state().join("trash").exists());
    assert!(store.verify().unwrap().is_empty());
}

#[test]
fn a_hard_linked_staged_file_gets_an_inode_of_its_own() {
    let (dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let outside = dir.path().join("outside");
    fs::write(&outside, "shared").unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fs::hard_link(&outside, transaction.stage().join("f")).unwrap();
    transaction.commit(&CommitOptions::default()).unwrap();
    fs::write(&outside, "changed").unwrap();
    assert_eq!(read(&out, "f"), "shared");
    assert_eq!(fs::metadata(out.join("f")).unwrap().nlink(), 1);
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
        return common::skip("an immutable file", "chattr +i needs root and a file system with attributes");
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

#[test]
fn a_large_source_that_is_published_as_it_is_is_told_from_one_that_is_not() {
    const FILES: usize = 600;
    let (dir, out) = scratch();
    let source = dir.path().join("source");
    for n in 0..FILES {
        let file = source.join(format!("{}/{n}", n % 7));
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "content").unwrap();
    }
    let store = Store::open(&out).unwrap();
    let publish_source = |whole: bool| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        let copied = if whole { transaction.copy_from(&source) } else { transaction.copy_differing_from(&source) };
        copied.unwrap();
        let planned = transaction.plan(&CommitOptions::default()).unwrap();
        let committed = transaction.commit(&CommitOptions::default());
        committed.map(|committed| {
            assert_eq!(planned.summary, committed.plan.summary);
            (committed.changed, committed.plan.summary, committed.totals)
        })
    };
    assert!(publish_source(false).unwrap().0);
    let unchanged = publish_source(false).unwrap();
    assert_eq!((unchanged.0, unchanged.1.unchanged), (false, FILES as u64 + 7));
    assert_eq!(publish_source(true).unwrap(), unchanged, "as when every file is read");

    fs::remove_file(out.join("3/3")).unwrap();
    let put_back = publish_source(false).unwrap();
    assert_eq!(put_back, (true, unchanged.1, unchanged.2));
    assert_eq!(read(&out, "3/3"), "content");
    fs::write(out.join("3/3"), "drifted").unwrap();
    assert_eq!(publish_source(false).unwrap_err().kind(), ErrorKind::Conflict);
    fs::remove_file(out.join("3/3")).unwrap();
    assert!(publish_source(false).unwrap().0);

    fs::remove_file(source.join("4/4")).unwrap();
    assert_eq!(publish_source(false).unwrap().1.removed, 1);
    fs::write(source.join("4/new"), "new").unwrap();
    assert_eq!(publish_source(false).unwrap().1.added, 1);
    fs::rename(&out, dir.path().join("elsewhere")).unwrap();
    assert_eq!(publish_source(false).unwrap().1.added, 0, "what is put back is not new");
    assert_eq!(read(&out, "4/new"), "new");
}

#[test]
fn what_a_source_has_as_published_is_not_copied_and_all_else_is() {
    let (dir, out) = scratch();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("d/e")).unwrap();
    fs::create_dir_all(source.join("alone/in")).unwrap();
    fs::write(source.join("alone/in/here"), "1").unwrap();
    for path in ["same", "d/same", "d/e/same", "d/e/changed", "d/e/touched"] {
        fs::write(source.join(path), "1").unwrap();
    }
    symlink("same", source.join("link")).unwrap();
    let store = Store::open(&out).unwrap();
    let publish_source = |adjust: &dyn Fn()| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.copy_differing_from(&source).unwrap();
        let staged: Vec<_> = ["same", "d/same", "d/e/same", "d/e/changed", "d/e/touched"]
            .into_iter()
            .filter(|path| transaction.stage().join(path).exists())
            .collect();
        adjust();
        (transaction.commit(&CommitOptions::default()), staged)
    };
    let (committed, staged) = publish_source(&|| {});
    assert_eq!((committed.unwrap().generation, staged.len()), (1, 5));
    let (committed, staged) = publish_source(&|| {});
    assert_eq!((committed.unwrap().changed, staged.len()), (false, 0));

    fs::write(source.join("d/e/changed"), "2").unwrap();
    fs::write(source.join("d/e/touched"), "1").unwrap();
    fs::write(source.join("d/new"), "n").unwrap();
    let before = fs::metadata(out.join("d/e/touched")).unwrap().ino();
    let (committed, staged) = publish_source(&|| {});
    let summary = committed.unwrap().plan.summary;
    assert_eq!((summary.added, summary.changed, summary.removed), (1, 1, 0));
    assert_eq!(staged, ["d/e/changed"]);
    assert_eq!((read(&out, "d/e/changed"), read(&out, "d/new")), ("2".into(), "n".into()));
    assert_eq!(fs::metadata(out.join("d/e/touched")).unwrap().ino(), before, "the same content is the same file");

    // What has gone from the output since it was compared is copied after all; with its directory, and with the output itself.
    publish_source(&|| fs::remove_file(out.join("d/e/same")).unwrap()).0.unwrap();
    assert_eq!(read(&out, "d/e/same"), "1");
    publish_source(&|| fs::remove_file(out.join("alone/in/here")).unwrap()).0.unwrap();
    assert_eq!(read(&out, "alone/in/here"), "1");
    publish_source(&|| fs::remove_dir_all(out.join("d")).unwrap()).0.unwrap();
    assert_eq!((read(&out, "d/e/same"), read(&out, "d/e/changed")), ("1".into(), "2".into()));
    publish_source(&|| fs::remove_dir_all(&out).unwrap()).0.unwrap();
    assert_eq!((read(&out, "d/e/same"), read(&out, "same")), ("1".into(), "1".into()));
    // What somebody edited is drift here too.
    fs::write(out.join("same"), "edited").unwrap();
    assert_eq!(publish_source(&|| {}).0.unwrap_err().kind(), ErrorKind::Conflict);
    assert!(store.verify().unwrap().iter().all(|finding| finding.path.as_bytes() == b"same"));
}

/// Whoever touches what is published changes its time and nothing else; and there are file systems whose inode numbers change.
#[test]
fn what_was_touched_before_it_was_displaced_is_nobodys_but_txfs_own() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let touch = |path: &str| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::now()).unwrap();
    };
    let another_inode = |path: &str| {
        fs::copy(path, format!("{path}.copy")).unwrap();
        fs::rename(format!("{path}.copy"), path).unwrap();
    };
    publish(&store, &[("a", "one"), ("b", "one"), ("stale/deep/x", "one"), ("stale/y", "one")]).unwrap();
    publish(&store, &[("a", "two"), ("b", "two")]).unwrap();
    store.sweep().unwrap();
    let displaced = common::state_of(&out).join("previous/2");
    let kept = fs::read_dir(displaced.join("kept")).unwrap().next().unwrap().unwrap().path();
    let at = |path: &Path| path.to_str().unwrap().to_owned();
    touch(&at(&displaced.join("stage/a")));
    another_inode(&at(&displaced.join("stage/b")));
    touch(&at(&kept.join("deep/x")));
    another_inode(&at(&kept.join("y")));
    publish(&store, &[("a", "three"), ("b", "two")]).unwrap();
    let swept = store.sweep().unwrap();
    assert!(swept.rescued.is_empty(), "{swept:?}");
    assert_eq!(store.rescued().unwrap().entries, 0);
    // Changed, it is somebody's: the same size is not enough.
    fs::write(common::state_of(&out).join("previous/3/stage/a"), "won").unwrap();
    publish(&store, &[("a", "four"), ("b", "two")]).unwrap();
    let swept = store.sweep().unwrap();
    assert_eq!((swept.rescued.len(), fs::read_to_string(&swept.rescued[0]).unwrap()), (1, "won".to_owned()));
    assert_eq!(store.rescued().unwrap().files, 1);
}
