//! A commit that cannot be finished is undone, however far it has come.

use std::fs;

use txfs::{Error, OpenOptions, Operation, RecoverOptions, RecoveredCommit, Store};
use txfs_testing::forge::{self, begin, info, object, path};
use txfs_testing::tree::snapshot;
use txfs_testing::{publish, read};

use super::{Scene, entry};

fn undo(scene: &Scene) -> txfs::Result<Option<RecoveredCommit>> {
    let store = Store::find(&OpenOptions::default(), &scene.out)?.unwrap();
    Ok(store.recover(RecoverOptions::default().undo(true))?.commit)
}

/// A journal that takes `old` apart and replaces `a`.
fn take_apart(scene: &mut Scene) -> Vec<Operation> {
    let store = scene.open().unwrap();
    publish(&store, &[("a", "3"), ("old/y", "3")]).unwrap();
    store.recover(RecoverOptions::default()).unwrap();
    scene.head = store.head().unwrap().unwrap();
    let transaction = scene.transaction(&[("a", "4")]);
    let at = |name: &str| object(&scene.out.join(name));
    let (y, mode) = (at("old/y"), at("old").mode);
    vec![
        Operation::Replace { path: path("a"), old: at("a"), new: object(&transaction.join("stage/a")) },
        Operation::Remove { path: path("old/y"), old: y },
        Operation::RemoveDirectory { path: path("old"), mode },
    ]
}

#[test]
fn what_is_in_the_way_of_a_commit_leaves_it_unfinished_until_it_is_gone_or_the_commit_is_undone() {
    for undone in [false, true] {
        let mut scene = Scene::new();
        let operations = take_apart(&mut scene);
        let before = snapshot(&scene.out);
        let entries = [entry("a", object(&scene.state.join("tx/0000000000000007/stage/a")))];
        let (manifest, head) = forge::manifest(&info(4), &entries, None);
        scene.plant("manifests/4", manifest);
        scene.plant("journal", forge::journal(&begin(7, Some(&scene.head), head), &operations));
        fs::write(scene.out.join("old/mine"), "mine").unwrap();
        for _ in 0..2 {
            let error = scene.begin_and_commit().unwrap_err();
            assert!(matches!(error, Error::Unfinished { generation: 4, .. }), "{error}");
            assert!(error.hint().unwrap().contains("RecoverOptions::undo"), "{error}");
            assert_eq!((read(&scene.out, "a"), read(&scene.out, "old/mine")), ("4".into(), "mine".into()));
            assert!(scene.state.join("journal").exists() && !scene.state.join("journal.undo").exists());
        }
        if undone {
            assert_eq!(undo(&scene).unwrap(), Some(RecoveredCommit::RolledBack { generation: 4 }));
            assert_eq!(read(&scene.out, "old/mine"), "mine");
            fs::remove_file(scene.out.join("old/mine")).unwrap();
            assert_eq!(snapshot(&scene.out), before);
            assert_eq!(scene.open().unwrap().head().unwrap().unwrap(), scene.head);
            publish(&scene.open().unwrap(), &[("a", "5")]).unwrap();
        } else {
            fs::remove_file(scene.out.join("old/mine")).unwrap();
            scene.open().unwrap();
            assert_eq!((read(&scene.out, "a"), scene.out.join("old").exists()), ("4".into(), false));
        }
    }
}

#[test]
fn a_commit_is_undone_however_far_it_has_come() {
    for (name, moved) in [("journal", false), ("journal", true), ("journal.new", false), ("journal.new", true)] {
        let scene = Scene::new();
        let transaction = scene.transaction(&[("a", "3"), ("n/x", "3")]);
        let staged = |name: &str| object(&transaction.join("stage").join(name));
        let operations = [
            Operation::Add { path: path("n"), new: staged("n") },
            Operation::Replace { path: path("a"), old: object(&scene.out.join("a")), new: staged("a") },
            Operation::Remove { path: path("d"), old: object(&scene.out.join("d")) },
        ];
        let entries = ["a", "n", "n/x"].map(|name| entry(name, staged(name)));
        let (manifest, head) = forge::manifest(&info(3), &entries, None);
        scene.plant("manifests/3", manifest);
        scene.plant(name, forge::journal(&begin(7, Some(&scene.head), head), &operations));
        if moved {
            fs::rename(transaction.join("stage/n"), scene.out.join("n")).unwrap();
        }
        assert_eq!(undo(&scene).unwrap(), Some(RecoveredCommit::RolledBack { generation: 3 }), "{name} {moved}");
        assert_eq!(snapshot(&scene.out), scene.before, "{name} {moved}");
        assert_eq!(scene.open().unwrap().head().unwrap().as_ref(), Some(&scene.head), "{name} {moved}");
        for left in ["journal", "journal.new", "journal.undo", "HEAD.new"] {
            assert!(!scene.state.join(left).exists(), "{name} {moved}: {left}");
        }
        scene.begin_and_commit().unwrap();
    }
}

#[test]
fn what_fits_neither_side_is_refused_all_the_same_and_nothing_is_touched() {
    for name in ["journal", "journal.new"] {
        let scene = Scene::new();
        let transaction = scene.transaction(&[("a", "3")]);
        let (old, new) = (object(&scene.out.join("a")), object(&transaction.join("stage/a")));
        let (manifest, head) = forge::manifest(&info(3), &[entry("a", new)], None);
        scene.plant("manifests/3", manifest);
        let operations = [Operation::Replace { path: path("a"), old, new }];
        scene.plant(name, forge::journal(&begin(7, Some(&scene.head), head), &operations));
        fs::write(scene.out.join("a"), "somebody else's").unwrap();
        let before = [snapshot(&scene.out), snapshot(&scene.state)];
        let error = undo(&scene).unwrap_err();
        assert!(matches!(&error, Error::Unrecognized { paths, .. } if paths.total == 1), "{name}: {error}");
        assert_eq!([snapshot(&scene.out), snapshot(&scene.state)], before, "{name}");
    }
}

#[test]
fn a_commit_that_is_done_is_only_finished() {
    let scene = Scene::unsettled();
    assert_eq!(undo(&scene).unwrap(), Some(RecoveredCommit::Settled { generation: 2 }));
    assert_eq!(snapshot(&scene.out), scene.before);
    assert_eq!(scene.open().unwrap().head().unwrap().as_ref(), Some(&scene.head));
    assert!(scene.state.join("previous/2/journal").exists() && !scene.state.join("journal").exists());
    assert_eq!(undo(&scene).unwrap(), None, "nothing is undone that has been settled");
    assert_eq!(snapshot(&scene.out), scene.before);
}
