//! Which files a commit reads, copies or leaves: told by their inodes and times.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use txfs::{BeginOptions, CommitOptions, ErrorKind, Store};
use txfs_testing::read;
use txfs_testing::tree::{Node, snapshot};

use super::{publish, scratch};

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
    let displaced = txfs_testing::state_of(&out).join("previous/2");
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
    fs::write(txfs_testing::state_of(&out).join("previous/3/stage/a"), "won").unwrap();
    publish(&store, &[("a", "four"), ("b", "two")]).unwrap();
    let swept = store.sweep().unwrap();
    assert_eq!((swept.rescued.len(), fs::read_to_string(&swept.rescued[0]).unwrap()), (1, "won".to_owned()));
    assert_eq!(store.rescued().unwrap().files, 1);
}
