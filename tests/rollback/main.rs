//! Going back to the generation before.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::faulty::{Call, Faulty};
use common::tree::snapshot;
use common::{Random, Scratch, lenient, publish, read, scratch, set_mode};
use txfs::{Basis, BeginOptions, CommitOptions, Committed, Error, ErrorKind, OpenOptions, RecoverOptions, Store};

/// Goes back, and holds what was said of that before to what came of it.
fn roll_back(store: &Store) -> txfs::Result<Committed> {
    store.recover(RecoverOptions::default()).unwrap();
    // What it moves aside is not of interest here.
    let _ = store.sweep();
    drop(store.take_rescued());
    let before = snapshot(store.state());
    let preview = store.preview_previous(&lenient());
    assert_eq!(snapshot(store.state()), before);
    let mut transaction = store.begin(BeginOptions::default())?;
    let done = transaction.copy_previous().and_then(|_| transaction.commit(&lenient()));
    match (preview, &done) {
        (Ok(plan), Ok(Committed { plan: done, .. })) => {
            assert_eq!((&plan.changes, plan.summary, &plan.restored), (&done.changes, done.summary, &done.restored));
            assert_eq!((plan.operations(), &plan.warnings), (done.operations(), &done.warnings));
            assert!(plan.problems.is_empty());
        }
        (Ok(plan), Err(Error::Refused { problems, .. })) => assert_eq!(&plan.problems, problems),
        (Err(said), Err(done)) => assert_eq!(said.to_string(), done.to_string()),
        (preview, done) => panic!("{preview:?}, and then {done:?}"),
    }
    done
}

#[test]
fn the_generation_before_comes_back_and_going_back_again_goes_forward() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let commit = |fill: &dyn Fn(&Path)| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill(&transaction.stage());
        transaction.commit(&lenient()).unwrap();
    };
    commit(&|stage| {
        fs::create_dir_all(stage.join("stale/deep/.txfs")).unwrap();
        fs::create_dir_all(stage.join("becomes-file")).unwrap();
        fs::create_dir_all(stage.join("closed/sub")).unwrap();
        for file in
            ["same", "changes", "stale/deep/x", "stale/deep/.txfs/y", "becomes-file/z", "becomes-dir", "closed/sub/a"]
        {
            fs::write(stage.join(file), "one").unwrap();
        }
        symlink("same", stage.join("link")).unwrap();
        set_mode(&stage.join("stale/deep"), 0o500);
        set_mode(&stage.join("changes"), 0o640);
        set_mode(&stage.join("closed/sub"), 0o555);
        set_mode(&stage.join("closed"), 0o555);
    });
    let (first, inode) = (snapshot(&out), fs::metadata(out.join("same")).unwrap().ino());
    commit(&|stage| {
        fs::create_dir_all(stage.join("becomes-dir/deep")).unwrap();
        fs::create_dir_all(stage.join("closed/sub")).unwrap();
        fs::create_dir_all(stage.join("fresh")).unwrap();
        fs::write(stage.join("same"), "one").unwrap();
        for file in ["changes", "becomes-file", "becomes-dir/deep/z", "closed/sub/a", "fresh/f"] {
            fs::write(stage.join(file), "two").unwrap();
        }
        symlink("changes", stage.join("link")).unwrap();
    });
    let second = snapshot(&out);
    for (round, expected) in [&first, &second, &first, &second].into_iter().enumerate() {
        let committed = roll_back(&store).unwrap();
        assert_eq!(committed.generation, round as u64 + 3);
        assert_eq!(&snapshot(&out), expected, "{round}");
        assert_eq!(store.verify().unwrap(), []);
        assert_eq!(fs::metadata(out.join("same")).unwrap().ino(), inode, "what is the same is not touched");
    }
}

#[test]
fn the_mode_of_a_directory_below_another_comes_back() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let commit = |modes: [u32; 3]| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for file in ["d/e/f/x", "d/e/g", "d/h"] {
            transaction.write(file, "same").unwrap();
        }
        for (dir, mode) in ["d/e/f", "d/e", "d"].into_iter().zip(modes) {
            set_mode(&transaction.stage().join(dir), mode);
        }
        transaction.commit(&lenient()).unwrap();
        snapshot(&out)
    };
    for modes in [[0o700, 0o755, 0o755], [0o755, 0o700, 0o755], [0o500, 0o555, 0o755], [0o755, 0o755, 0o555]] {
        let (first, second) = (commit([0o755; 3]), commit(modes));
        for expected in [&first, &second] {
            roll_back(&store).unwrap();
            assert_eq!(&snapshot(&out), expected, "{modes:?}");
        }
    }
}

/// Each step down takes as long as the one before: in a tree of so many levels whatever takes longer with each would take minutes.
#[test]
fn a_deep_tree_goes_comes_back_and_is_taken_apart_in_seconds() {
    const LEVELS: usize = 2_000;
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let deep = vec!["d"; LEVELS].join("/");
    let commit = |files: &[&str]| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        files.iter().for_each(|file| transaction.write(file, *file).unwrap());
        transaction.commit(&lenient()).unwrap()
    };
    let began = std::time::Instant::now();
    let leaf = format!("{deep}/leaf");
    commit(&["a", &leaf]);
    let first = store.head().unwrap().unwrap().totals;
    commit(&["a"]);
    for _ in 0..3 {
        roll_back(&store).unwrap();
    }
    assert_eq!(store.head().unwrap().unwrap().totals, first);
    assert_eq!(store.verify().unwrap(), []);
    // Every one of them stays for what is foreign at the bottom.
    fs::write(out.join(&deep).join("foreign"), "mine").unwrap();
    commit(&["a"]);
    assert_eq!(read(&out.join(&deep), "foreign"), "mine");
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

#[test]
fn any_two_generations_change_places() {
    let names = ["a", "b", "d/a", "d/b", "d/e/a", "d/e/b", "f", "g/h", "i"];
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let (_dir, out) = scratch();
        let store = Store::open(&out).unwrap();
        let mut generation = |content: &str| {
            let mut transaction = store.begin(BeginOptions::default()).unwrap();
            transaction.write("always", "1").unwrap();
            for name in names {
                match random.below(4) {
                    0 => transaction.write(name, content).unwrap(),
                    1 => transaction.write(name, "same").unwrap(),
                    2 => transaction.symlink(name, content).unwrap(),
                    _ => {}
                }
            }
            if random.below(3) == 0 {
                // A directory where a file may have been, and the other way round.
                transaction.remove("f").unwrap();
                transaction.write("f/x", content).unwrap();
            }
            transaction.commit(&lenient()).unwrap();
        };
        generation("one");
        let first = snapshot(&out);
        generation("two");
        let second = snapshot(&out);
        if first == second {
            continue;
        }
        roll_back(&store).unwrap();
        assert_eq!(snapshot(&out), first, "seed {seed}");
        roll_back(&store).unwrap();
        assert_eq!(snapshot(&out), second, "seed {seed}");
        assert_eq!(store.verify().unwrap(), []);
    }
}

#[test]
fn what_was_taken_over_comes_back_and_what_is_foreign_stays() {
    let (_dir, out) = scratch();
    fs::create_dir(&out).unwrap();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("ours", "one")]).unwrap();
    fs::write(out.join("theirs"), "theirs").unwrap();
    fs::write(out.join("CNAME"), "example.org").unwrap();
    let mut options = CommitOptions::default();
    options.adopt = true;
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("ours", "two").unwrap();
    transaction.write("theirs", "taken over").unwrap();
    transaction.commit(&options).unwrap();
    roll_back(&store).unwrap();
    let now = ["ours", "theirs", "CNAME"].map(|path| read(&out, path));
    assert_eq!(now, ["one", "theirs", "example.org"]);
}

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
    common::change_a_byte(&common::state_of(&out).join("previous/2/journal"));
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

#[test]
fn what_was_put_into_a_displaced_directory_is_not_published() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("stale/x", "x"), ("stale/deep/y", "y")]).unwrap();
    let first = snapshot(&out);
    publish(&store, &[("a", "two")]).unwrap();
    store.sweep().unwrap();
    let displaced = fs::read_dir(common::state_of(&out).join("previous/2/kept")).unwrap();
    fs::write(displaced.last().unwrap().unwrap().path().join("late"), "late").unwrap();
    roll_back(&store).unwrap();
    assert_eq!(snapshot(&out), first);
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn what_was_taken_over_as_it_lay_there_stays() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one")]).unwrap();
    fs::write(out.join("CNAME"), "example.org").unwrap();
    fs::create_dir(out.join("uploads")).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("a", "two").unwrap();
    transaction.write("CNAME", "example.org").unwrap();
    transaction.make_dir("uploads").unwrap();
    transaction.commit(&lenient().adopt(true)).unwrap();
    roll_back(&store).unwrap();
    assert_eq!((read(&out, "a"), read(&out, "CNAME")), ("one".into(), "example.org".into()));
    assert!(out.join("uploads").is_dir());
}

#[test]
fn what_the_first_generation_took_over_comes_back() {
    let (_dir, out) = scratch();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("index.html"), "mine").unwrap();
    fs::write(out.join("foreign"), "mine").unwrap();
    let store = Store::open(&out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("index.html", "published").unwrap();
    transaction.write("new", "published").unwrap();
    transaction.commit(&lenient().adopt(true)).unwrap();
    drop(transaction);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    assert_eq!(transaction.copy_previous().unwrap(), 0);
    transaction.commit(&lenient()).unwrap();
    assert_eq!((read(&out, "index.html"), read(&out, "foreign")), ("mine".into(), "mine".into()));
    assert!(!out.join("new").exists());
    drop(transaction);
    roll_back(&store).unwrap();
    assert_eq!((read(&out, "index.html"), read(&out, "new")), ("published".into(), "published".into()));
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

/// Mode, owner, group and extended attributes.
type Described = (u32, u32, u32, BTreeMap<OsString, Vec<u8>>);

/// Of everything in a directory what two entries with the same content can differ in.
fn described(root: &Path) -> BTreeMap<PathBuf, Described> {
    let describe = |path: &Path| {
        let stat = fs::symlink_metadata(path).unwrap();
        let attributes = xattr::list(path).unwrap().map(|name| {
            let value = xattr::get(path, &name).unwrap().unwrap();
            (name, value)
        });
        (stat.mode(), stat.uid(), stat.gid(), attributes.collect())
    };
    let paths = snapshot(root).into_keys().map(|path| PathBuf::from(String::from_utf8(path).unwrap()));
    paths.map(|path| (path.clone(), describe(&root.join(path)))).collect()
}

/// Files and directories with attributes, some of them in a directory that gives its own to whatever is made in it.
fn fill_with_attributes(stage: &Path) {
    fs::create_dir_all(stage.join("shared/sub")).unwrap();
    fs::create_dir_all(stage.join("closed/sub")).unwrap();
    fs::create_dir(stage.join("stays")).unwrap();
    for file in ["page", "shared/sub/page", "shared/page", "closed/sub/page", "stays/page"] {
        fs::write(stage.join(file), "one").unwrap();
        set_mode(&stage.join(file), 0o640);
    }
    symlink("page", stage.join("link")).unwrap();
    let acl = common::acl(65534);
    // Their owner is to get into directories.
    let mut acl_of_dirs = acl.clone();
    acl_of_dirs[4..].chunks_mut(8).for_each(|entry| entry[2] |= 1);
    for dir in ["shared", "closed", "closed/sub", "stays"] {
        xattr::set(stage.join(dir), "user.origin", dir.as_bytes()).unwrap();
        xattr::set(stage.join(dir), "system.posix_acl_default", &acl_of_dirs).unwrap();
    }
    xattr::set(stage.join("shared/page"), "system.posix_acl_access", &acl).unwrap();
    xattr::set(stage.join("shared/sub"), "system.posix_acl_access", &acl_of_dirs).unwrap();
    set_mode(&stage.join("shared"), 0o2775);
    for closed in ["closed/sub", "closed"] {
        set_mode(&stage.join(closed), 0o555);
    }
}

/// Publishes what `fill` makes: it is the same again in a stage that is a copy of it, and after it was replaced and gone back to.
fn assert_comes_back(out: &Path, fill: impl Fn(&Path)) {
    let store = Store::open(out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&transaction.stage());
    transaction.commit(&lenient()).unwrap();
    drop(transaction);
    let first = described(out);
    let copy = store.begin(BeginOptions::default().from(Basis::Copy)).unwrap();
    assert_eq!(described(&copy.stage()), first, "a copy of what is published");
    copy.abort().unwrap();
    publish(&store, &[("page", "two"), ("shared", "two"), ("stays/page", "two")]).unwrap();
    roll_back(&store).unwrap();
    assert_eq!(described(out), first, "gone back to");
    assert_eq!(store.verify().unwrap(), []);
}

fn disk_scratch(test: &str) -> Option<(Scratch, PathBuf)> {
    let dir = Scratch::new();
    if let Err(error) = xattr::set(dir.path(), "user.probe", b"1") {
        common::skip(test, &format!("{} has no extended attributes: {error}", dir.path().display()));
        return None;
    }
    let out = dir.path().join("dist");
    Some((dir, out))
}

#[test]
fn attributes_of_files_and_directories_come_back() {
    let Some((_dir, out)) = disk_scratch("attributes") else { return };
    assert_comes_back(&out, fill_with_attributes);
}

#[test]
fn owners_groups_and_set_id_bits_come_back() {
    if !common::is_root() {
        return common::skip("owners that come back", "giving a file to another user needs root");
    }
    let Some((_dir, out)) = disk_scratch("owners that come back") else { return };
    assert_comes_back(&out, |stage| {
        fill_with_attributes(stage);
        fs::write(stage.join("shared/program"), "one").unwrap();
        for (path, owner, group, mode) in [
            ("page", 0, 33, 0o640),
            ("shared/page", 33, 33, 0o600),
            ("shared/program", 65534, 33, 0o6755),
            ("shared/sub", 33, 0, 0o750),
            ("shared", 65534, 33, 0o3775),
            ("closed/sub", 0, 33, 0o550),
            ("stays", 33, 33, 0o2750),
        ] {
            chown(stage.join(path), Some(owner), Some(group)).unwrap();
            set_mode(&stage.join(path), mode);
        }
        lchown(stage.join("link"), Some(33), Some(65534)).unwrap();
    });
}

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
