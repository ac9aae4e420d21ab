//! Recovery of a journal that has not got its name: it is a commit if all that it names is there as it says, or anything of it was begun.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use txfs::fs::Timestamp;
use txfs::{Begin, ErrorKind, OpenOptions, Operation, RecoverOptions, RecoveredCommit, Store};
use txfs_testing::forge::{self, begin, info, object, path};
use txfs_testing::tree::snapshot;
use txfs_testing::{change_a_byte, publish, read};

use super::{Scene, entry, exchange, recover, replace, third, third_of};

/// Nothing of the transaction is left, and HEAD is the second generation's; the next commit goes through.
#[track_caller]
fn is_over(scene: &Scene, what: &str) {
    let left = |name: &str| scene.state.join(name).exists();
    assert!(!left("tx/0000000000000007") && !left("journal.new") && !left("journal") && !left("HEAD.new"), "{what}");
    assert_eq!(snapshot(&scene.out), scene.before, "{what}");
    assert_eq!(scene.open().unwrap().head().unwrap().as_ref(), Some(&scene.head), "{what}");
    scene.begin_and_commit().unwrap_or_else(|error| panic!("{what}: {error}"));
}

#[test]
fn a_journal_without_its_name_that_is_not_valid_is_no_commit() {
    let scene = Scene::new();
    let operations = replace(&scene);
    let whole = forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations);
    let cuts = [0, 7, 16, 30, whole.len() - 40, whole.len() - 1].map(|cut| whole[..cut].to_vec());
    let zeros = [16, 30, whole.len() - 40].map(|at| [&whole[..at], &vec![0; whole.len() - at]].concat());
    let flipped = [0, 9, 20, 40, whole.len() / 2, whole.len() - 1].map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        bytes
    });
    let longer = [&whole[..], &[1]].concat();
    for (index, bytes) in cuts.into_iter().chain(zeros).chain(flipped).chain([longer]).enumerate() {
        let scene = Scene::new();
        replace(&scene);
        third(&scene);
        scene.plant("journal.new", bytes);
        scene.plant("HEAD.new", "half");
        assert_eq!(recover(&scene).unwrap(), None, "{index}");
        is_over(&scene, &index.to_string());
    }
}

/// A commit with a file, a link and a closed directory in it, whose journal has not got its name.
fn intend(scene: &Scene) -> PathBuf {
    // Nothing that a test does is later: it stands for what a crash leaves.
    intend_at(scene, Timestamp { seconds: 1 << 40, nanos: 0 })
}

/// The same, where what was staged was changed last at `last_change`.
fn intend_at(scene: &Scene, last_change: Timestamp) -> PathBuf {
    let transaction = scene.transaction(&[("a", "3"), ("n/sub/y", "y"), ("n/x", "x")]);
    let stage = transaction.join("stage");
    symlink("a", stage.join("l")).unwrap();
    fs::set_permissions(stage.join("n"), fs::Permissions::from_mode(0o555)).unwrap();
    let staged = |name: &str| object(&stage.join(name));
    let kept = ["d", "d/x", "d/z", "d/z/deep"].map(|name| entry(name, object(&scene.out.join(name))));
    let new = ["l", "n", "n/sub", "n/sub/y", "n/x"].map(|name| entry(name, staged(name)));
    let entries: Vec<_> = [entry("a", staged("a"))].into_iter().chain(kept).chain(new).collect();
    let (manifest, head) = forge::manifest(&info(3), &entries, None);
    scene.plant("manifests/3", manifest);
    let operations = [
        Operation::Add { path: path("l"), new: staged("l") },
        Operation::Add { path: path("n"), new: staged("n") },
        Operation::Replace { path: path("a"), old: object(&scene.out.join("a")), new: staged("a") },
        Operation::SetMode { path: path("n"), from: 0o755, to: 0o555 },
    ];
    let begin = Begin { last_change, ..begin(7, Some(&scene.head), head) };
    scene.plant("journal.new", forge::journal(&begin, &operations));
    transaction
}

#[test]
fn a_journal_without_its_name_on_its_base_is_rolled_forward_when_all_that_it_names_is_there() {
    for kept in ["nothing", "a directory that was opened to be moved", "the place among what was displaced"] {
        let scene = Scene::new();
        let transaction = intend(&scene);
        // Whoever carries out a commit begins and ends so, and a crash may keep that alone.
        match kept {
            "nothing" => {}
            "a directory that was opened to be moved" => {
                fs::set_permissions(transaction.join("stage/n"), fs::Permissions::from_mode(0o755)).unwrap();
            }
            _ => fs::rename(&transaction, scene.state.join("previous/3")).unwrap(),
        }
        let operations = 4;
        assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::RolledForward { generation: 3, operations }));
        assert_eq!((read(&scene.out, "a"), read(&scene.out, "l")), ("3".into(), "3".into()));
        assert_eq!((read(&scene.out, "n/x"), read(&scene.out, "n/sub/y")), ("x".into(), "y".into()));
        assert_eq!(fs::metadata(scene.out.join("n")).unwrap().mode() & 0o7777, 0o555);
        assert_eq!(read(&scene.state, "previous/3/stage/a"), "2");
        assert!(scene.state.join("previous/3/journal").exists() && !scene.state.join("journal.new").exists());
        let store = scene.open().unwrap();
        assert_eq!(store.head().unwrap().unwrap().info.generation, 3);
        assert!(store.verify().unwrap().is_empty());
    }
}

/// Anything that a crash may leave of it, of which nobody was told.
#[test]
fn a_journal_without_its_name_on_its_base_is_discarded_when_anything_that_it_names_is_not_as_it_says() {
    type Change = fn(&Path);
    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fn in_closed(directory: &Path, change: impl FnOnce(&Path)) {
        mode(directory, 0o755);
        change(directory);
        mode(directory, 0o555);
    }
    fn remade(path: &Path) {
        let (content, modified) = (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap());
        fs::rename(path, path.with_extension("old")).unwrap();
        fs::write(path, content).unwrap();
        fs::remove_file(path.with_extension("old")).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    }
    let cases: [(&str, Change); 17] = [
        ("a byte of a file", |tx| change_a_byte(&tx.join("stage/a"))),
        ("a byte of a file in a directory", |tx| change_a_byte(&tx.join("stage/n/sub/y"))),
        ("an entry too few", |tx| in_closed(&tx.join("stage/n"), |n| fs::remove_file(n.join("x")).unwrap())),
        ("nothing in a directory", |tx| fs::remove_file(tx.join("stage/n/sub/y")).unwrap()),
        ("no file", |tx| fs::remove_file(tx.join("stage/a")).unwrap()),
        ("a shorter file", |tx| {
            let file = fs::File::options().write(true).open(tx.join("stage/a")).unwrap();
            let modified = file.metadata().unwrap().modified().unwrap();
            file.set_len(0).unwrap();
            file.set_modified(modified).unwrap();
        }),
        ("a file of another time", |tx| {
            let file = fs::File::options().write(true).open(tx.join("stage/a")).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }),
        ("another file with the same content", |tx| remade(&tx.join("stage/a"))),
        ("another mode", |tx| mode(&tx.join("stage/a"), 0o600)),
        ("another mode in a directory", |tx| mode(&tx.join("stage/n/x"), 0o600)),
        ("another mode of a directory", |tx| mode(&tx.join("stage/n"), 0o550)),
        ("another link", |tx| {
            fs::remove_file(tx.join("stage/l")).unwrap();
            symlink("b", tx.join("stage/l")).unwrap();
        }),
        ("no stage", |tx| {
            mode(&tx.join("stage/n"), 0o755);
            fs::remove_dir_all(tx.join("stage")).unwrap();
        }),
        ("no place for what goes", |tx| fs::remove_dir(tx.join("removed")).unwrap()),
        ("no manifest", |tx| fs::remove_file(tx.join("../../manifests/3")).unwrap()),
        ("a byte of the manifest", |tx| change_a_byte(&tx.join("../../manifests/3"))),
        ("a shorter manifest", |tx| {
            let manifest = fs::File::options().write(true).open(tx.join("../../manifests/3")).unwrap();
            manifest.set_len(manifest.metadata().unwrap().len() - 1).unwrap();
        }),
    ];
    for (what, change) in cases {
        let scene = Scene::new();
        change(&intend(&scene));
        assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::Discarded), "{what}");
        is_over(&scene, what);
    }
    let scene = Scene::new();
    let transaction = intend(&scene);
    fs::rename(&transaction, scene.dir.path().join("elsewhere")).unwrap();
    assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::Discarded), "no transaction");
    is_over(&scene, "no transaction");
}

/// Whatever somebody did after the commit tells nothing of what was durable before.
#[test]
fn what_somebody_changed_later_is_no_evidence_against_a_journal_without_its_name() {
    type Change = fn(&Path);
    fn at(file: &Path, seconds: u64) {
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
    }
    let cases: [(&str, Change); 6] = [
        ("nothing", |_| ()),
        ("its content", |tx| fs::write(tx.join("stage/n/sub/y"), "written to").unwrap()),
        ("its mode", |tx| fs::set_permissions(tx.join("stage/n/x"), fs::Permissions::from_mode(0o600)).unwrap()),
        ("the mode of a directory", |tx| {
            fs::set_permissions(tx.join("stage/n/sub"), fs::Permissions::from_mode(0o700)).unwrap();
        }),
        ("its time", |tx| at(&tx.join("stage/n/x"), 1)),
        ("the file that has its name", |tx| {
            let (file, saved) = (tx.join("stage/n/sub/y"), tx.join("stage/n/sub/y.tmp"));
            fs::write(&saved, "saved by an editor").unwrap();
            at(&saved, 1);
            fs::rename(saved, file).unwrap();
        }),
    ];
    for (what, change) in cases {
        let scene = Scene::new();
        let transaction = intend_at(&scene, Timestamp { seconds: 1, nanos: 0 });
        change(&transaction);
        let left = |name: &str| {
            let file = transaction.join("stage/n").join(name);
            (fs::read(&file).unwrap(), fs::metadata(file).unwrap().mode())
        };
        let expected = ["x", "sub/y"].map(left);
        let recovered = recover(&scene).unwrap();
        assert!(matches!(recovered, Some(RecoveredCommit::RolledForward { .. })), "{what}: {recovered:?}");
        let file = |name: &str| scene.out.join("n").join(name);
        let published =
            ["x", "sub/y"].map(file).map(|file| (fs::read(&file).unwrap(), fs::metadata(file).unwrap().mode()));
        assert_eq!(published, expected, "{what}");
    }
    // Content that is other and as old, as far as anybody can tell, is what a crash leaves.
    let scene = Scene::new();
    change_a_byte(&intend_at(&scene, Timestamp { seconds: 1, nanos: 0 }).join("stage/n/sub/y"));
    assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::Discarded));
}

#[test]
fn a_journal_without_its_name_is_rolled_forward_when_an_operation_was_begun() {
    // What has moved is not in the stage any more, and content alone would tell against it.
    let begun: [fn(&Scene); 2] = [exchange, |scene| {
        fs::rename(scene.state.join("tx/0000000000000007/stage/l"), scene.out.join("l")).unwrap();
    }];
    for begin in begun {
        let scene = Scene::new();
        intend(&scene);
        begin(&scene);
        let operations = 3;
        assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::RolledForward { generation: 3, operations }));
        assert_eq!((read(&scene.out, "a"), read(&scene.out, "n/x")), ("3".into(), "x".into()));
        assert!(scene.open().unwrap().verify().unwrap().is_empty());
    }
}

#[test]
fn a_file_that_gave_way_to_a_directory_tells_of_a_commit_whatever_became_of_what_is_in_it() {
    let scene = Scene::new();
    let transaction = scene.transaction(&[("a/x", "3")]);
    let staged = |name: &str| object(&transaction.join("stage").join(name));
    let entries = ["a", "a/x"].map(|name| entry(name, staged(name)));
    let (manifest, head) = forge::manifest(&info(3), &entries, None);
    scene.plant("manifests/3", manifest);
    let operations = [Operation::Replace { path: path("a"), old: object(&scene.out.join("a")), new: staged("a") }];
    let begin = Begin { last_change: Timestamp { seconds: 1 << 40, nanos: 0 }, ..begin(7, Some(&scene.head), head) };
    scene.plant("journal.new", forge::journal(&begin, &operations));
    exchange(&scene);
    // Whoever did that had seen what was published.
    fs::remove_file(scene.out.join("a/x")).unwrap();
    let forward = RecoveredCommit::RolledForward { generation: 3, operations: 0 };
    assert_eq!(recover(&scene).unwrap(), Some(forward));
    assert!(scene.out.join("a").is_dir());
}

#[test]
fn a_removal_that_was_begun_tells_of_a_commit_and_the_same_content_elsewhere_does_not() {
    for begun in [false, true] {
        let scene = Scene::new();
        let transaction = scene.transaction(&[("b", "3")]);
        let operations = [
            Operation::Add { path: path("b"), new: object(&transaction.join("stage/b")) },
            Operation::Remove { path: path("a"), old: object(&scene.out.join("a")) },
        ];
        scene.plant("journal.new", forge::journal(&begin(7, Some(&scene.head), third_of(&scene, "b")), &operations));
        // Then what is left in the stage proves nothing either way.
        let removed = transaction.join("removed/1");
        if begun {
            fs::rename(scene.out.join("a"), removed).unwrap();
        } else {
            fs::write(removed, "2").unwrap();
            fs::remove_file(scene.out.join("a")).unwrap();
        }
        change_a_byte(&transaction.join("stage/b"));
        let expected = match begun {
            true => RecoveredCommit::RolledForward { generation: 3, operations: 1 },
            false => RecoveredCommit::Discarded,
        };
        assert_eq!(recover(&scene).unwrap(), Some(expected));
        assert_eq!(scene.out.join("b").exists(), begun);
    }
}

#[test]
fn a_journal_without_its_name_of_an_earlier_generation_goes() {
    let scene = Scene::new();
    let stale = fs::read(scene.state.join("previous/2/journal")).unwrap();
    let store = scene.open().unwrap();
    publish(&store, &[("a", "3")]).unwrap();
    store.recover(RecoverOptions::default()).unwrap();
    let before = scene.trees();
    scene.plant("journal.new", stale);
    assert_eq!(recover(&scene).unwrap(), None);
    assert_eq!(scene.trees(), before);
    assert!(!scene.state.join("journal.new").exists() && scene.state.join("previous/3/journal").exists());
    assert!(store.verify().unwrap().is_empty());
}

#[test]
fn a_journal_without_its_name_of_another_version_is_refused() {
    for version in [0, forge::JOURNAL_VERSION + 1] {
        let scene = Scene::new();
        let operations = replace(&scene);
        let mut journal = forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations);
        journal.splice(..16, forge::header(forge::JOURNAL, version));
        scene.plant("journal.new", journal);
        let before = snapshot(&scene.state);
        scene.refused(&format!("version {version}"));
        let store = Store::find(&OpenOptions::default(), &scene.out).unwrap().unwrap();
        for recovered in [
            store.recover(RecoverOptions::default()),
            store.recover(RecoverOptions::default().skip_unknown(true)),
            store.recover(RecoverOptions::default().undo(true)),
        ] {
            let error = recovered.unwrap_err();
            assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("version"), "{error}");
        }
        assert_eq!(snapshot(&scene.state), before, "what another version wrote that can still recover");
    }
}

#[test]
fn a_stale_journal_beside_one_without_its_name_is_settled_before_it() {
    let scene = Scene::new();
    let stale = fs::read(scene.state.join("previous/2/journal")).unwrap();
    intend(&scene);
    scene.plant("journal", stale);
    let forward = RecoveredCommit::RolledForward { generation: 3, operations: 4 };
    assert_eq!(recover(&scene).unwrap(), Some(forward));
    assert_eq!(read(&scene.out, "a"), "3");
    assert!(scene.state.join("previous/2/journal").exists() && scene.state.join("previous/3/journal").exists());
}
