//! The table of recovery, row for row: which journal lies there, by its generation and its base, and what becomes of it.

use std::fs;
use std::os::unix::fs::symlink;

use txfs::{ErrorKind, Head, OpenOptions, RecoverOptions, RecoveredCommit, Store};
use txfs_testing::forge::{self, begin, info};
use txfs_testing::tree::snapshot;
use txfs_testing::{publish, read};

use super::{Scene, exchange, recover, replace, third};

#[test]
fn no_journal_is_clean() {
    let scene = Scene::new();
    scene.plant("journal.new", "half");
    scene.plant("HEAD.new", "half");
    assert_eq!(recover(&scene).unwrap(), None);
    // On btrfs both can survive the transaction that they belonged to.
    let left = |name: &str| txfs_testing::state_of(&scene.out).join(name).exists();
    assert!(!left("journal.new") && !left("HEAD.new"), "what means nothing is removed");
    scene.begin_and_commit().unwrap();
}

/// It was durable before it got its name: whatever cut it, what it says may be half done.
#[test]
fn a_torn_journal_is_refused_whether_or_not_something_was_begun() {
    for begun in [false, true] {
        let scene = Scene::new();
        let operations = replace(&scene);
        let whole = forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations);
        if begun {
            exchange(&scene);
        }
        let mut longer = whole.clone();
        longer[17] ^= 0x10;
        for name in ["journal", "journal.undo"] {
            for cut in [0, 7, 16, 30, whole.len() - 40, whole.len() - 1] {
                let mut torn = whole[..cut].to_vec();
                scene.plant(name, &torn);
                scene.refused(&format!("{name} cut at {cut}"));
                torn.resize(whole.len() + 100, 0);
                scene.plant(name, &torn);
                scene.refused(&format!("{name} with zeros from {cut}"));
            }
            scene.plant(name, &longer);
            scene.refused(&format!("{name} whose first record says that it is longer"));
            fs::remove_file(scene.state.join(name)).unwrap();
        }
    }
}

#[test]
fn a_damaged_journal_is_refused() {
    let scene = Scene::new();
    let operations = replace(&scene);
    let whole = forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations);
    for at in [0, 9, 20, 40, whole.len() / 2] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x40;
        scene.plant("journal", damaged);
        scene.refused(&format!("byte {at}"));
    }
    let mut longer = whole.clone();
    longer.push(1);
    scene.plant("journal", longer);
    scene.refused("bytes after its end");
}

#[test]
fn a_journal_on_its_base_is_rolled_forward() {
    let scene = Scene::new();
    let operations = replace(&scene);
    let head = third(&scene);
    scene.plant("journal", forge::journal(&begin(7, Some(&scene.head), head.clone()), &operations));
    assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::RolledForward { generation: 3, operations: 1 }));
    assert_eq!(read(&scene.out, "a"), "3");
    assert_eq!(scene.open().unwrap().head().unwrap(), Some(head));
    assert_eq!(read(&scene.state, "previous/3/stage/a"), "2");
}

#[test]
fn a_journal_at_its_generation_is_finished_under_either_name() {
    for (name, applied) in [("journal", true), ("journal", false), ("journal.new", true), ("journal.new", false)] {
        let scene = Scene::new();
        let operations = replace(&scene);
        let head = third(&scene);
        scene.plant(name, forge::journal(&begin(7, Some(&scene.head), head.clone()), &operations));
        scene.plant("HEAD", forge::head(&head));
        let expected = if applied {
            exchange(&scene);
            RecoveredCommit::Settled { generation: 3 }
        } else {
            RecoveredCommit::RolledForward { generation: 3, operations: 1 }
        };
        assert_eq!(recover(&scene).unwrap(), Some(expected));
        assert_eq!(read(&scene.out, "a"), "3");
        assert!(scene.state.join("previous/3/journal").exists() && !scene.state.join(name).exists());
    }
}

#[test]
fn a_journal_at_its_generation_leaves_alone_what_was_changed_since() {
    type Change = fn(&Scene);
    let cases: [(&str, Change); 5] = [
        ("edited", |scene| fs::write(scene.out.join("a"), "edited").unwrap()),
        ("removed", |scene| fs::remove_file(scene.out.join("a")).unwrap()),
        ("replaced", |scene| {
            fs::remove_file(scene.out.join("a")).unwrap();
            symlink("../outside/victim", scene.out.join("a")).unwrap();
        }),
        ("a link on the way", |scene| {
            fs::rename(scene.out.join("d"), scene.outside().join("d")).unwrap();
            symlink("../outside/d", scene.out.join("d")).unwrap();
        }),
        ("put where something was removed", |scene| {
            fs::create_dir(scene.out.join("old")).unwrap();
            fs::write(scene.out.join("old/y"), "mine").unwrap();
        }),
    ];
    for (what, change) in cases {
        for undo in [false, true] {
            let scene = Scene::unsettled();
            change(&scene);
            let before = scene.trees();
            let store = Store::find(&OpenOptions::default(), &scene.out).unwrap().unwrap();
            let recovered = if undo {
                store.recover(RecoverOptions::default().undo(true))
            } else {
                store.recover(RecoverOptions::default())
            };
            let recovered = recovered.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(recovered.commit, Some(RecoveredCommit::Settled { generation: 2 }), "{what}");
            assert_eq!(scene.trees(), before, "{what}");
            assert!(store.recover(RecoverOptions::default()).unwrap().commit.is_none(), "{what}");
            assert!(scene.state.join("previous/2/journal").exists(), "{what}");
            let foreign = what == "put where something was removed";
            assert_eq!(store.verify().unwrap().is_empty(), foreign, "{what}: it is drift");
        }
    }
}

#[test]
fn a_stale_journal_of_an_earlier_generation_is_settled() {
    let scene = Scene::new();
    let stale = fs::read(scene.state.join("previous/2/journal")).unwrap();
    let store = scene.open().unwrap();
    for content in ["3", "4"] {
        publish(&store, &[("a", content)]).unwrap();
        store.recover(RecoverOptions::default()).unwrap();
        let before = scene.trees();
        scene.plant("journal", &stale);
        assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::Settled { generation: 2 }));
        assert_eq!(scene.trees(), before);
        assert!(store.verify().unwrap().is_empty());
    }
}

#[test]
fn the_settled_journal_of_the_current_generation_changes_nothing_when_it_comes_back() {
    let scene = Scene::new();
    let settled = fs::read(scene.state.join("previous/2/journal")).unwrap();
    scene.plant("journal", settled);
    assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::Settled { generation: 2 }));
    assert_eq!(snapshot(&scene.out), scene.before);
    scene.begin_and_commit().unwrap();
}

#[test]
fn an_undo_journal_on_its_base_is_undone() {
    for applied in [true, false] {
        let scene = Scene::new();
        let operations = replace(&scene);
        scene.plant("journal.undo", forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations));
        if applied {
            exchange(&scene);
        }
        assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::RolledBack { generation: 3 }));
        assert_eq!(snapshot(&scene.out), scene.before);
        scene.begin_and_commit().unwrap();
    }
}

#[test]
fn an_undo_journal_of_an_earlier_generation_is_dropped() {
    let scene = Scene::new();
    let stale = fs::read(scene.state.join("previous/2/journal")).unwrap();
    let store = scene.open().unwrap();
    publish(&store, &[("a", "3")]).unwrap();
    store.recover(RecoverOptions::default()).unwrap();
    let before = scene.trees();
    scene.plant("journal.undo", stale);
    assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::Discarded));
    assert_eq!(scene.trees(), before);
}

#[test]
fn an_undo_journal_at_its_generation_is_refused() {
    let scene = Scene::new();
    let settled = fs::read(scene.state.join("previous/2/journal")).unwrap();
    scene.plant("journal.undo", settled);
    scene.refused("undoing what is committed");
}

#[test]
fn a_journal_of_another_base_is_refused() {
    for name in ["journal", "journal.new", "journal.undo"] {
        let scene = Scene::new();
        let operations = replace(&scene);
        let other = Head { manifest: txfs::Digest::of(b"other"), ..scene.head.clone() };
        scene.plant(name, forge::journal(&begin(7, Some(&other), third(&scene)), &operations));
        scene.refused("another manifest");
        let later = Head { info: info(9), ..scene.head.clone() };
        let next = Head { info: info(10), ..scene.head.clone() };
        scene.plant(name, forge::journal(&begin(7, Some(&later), next), &operations));
        scene.refused("a generation from the future");
        scene.plant(name, forge::journal(&begin(7, None, Head { info: info(1), ..scene.head.clone() }), &[]));
        // An earlier generation: whatever it was, it is over.
        scene.harmless("the first generation again").unwrap();
    }
}

#[test]
fn a_lost_head_is_refused() {
    let scene = Scene::new();
    fs::remove_file(scene.state.join("HEAD")).unwrap();
    let before = scene.trees();
    let error = scene.begin_and_commit().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(scene.trees(), before);
}

#[test]
fn of_two_journals_the_one_to_undo_counts_for_good() {
    let scene = Scene::new();
    let operations = replace(&scene);
    let journal = forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations);
    scene.plant("journal", &journal);
    scene.plant("journal.undo", &journal);
    assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::RolledBack { generation: 3 }));
    assert_eq!(snapshot(&scene.out), scene.before);
    assert_eq!(scene.open().unwrap().head().unwrap().unwrap().info.generation, 2);
}

#[test]
fn what_fits_neither_side_is_refused_and_can_be_skipped() {
    let scene = Scene::new();
    let operations = replace(&scene);
    scene.plant("journal", forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations));
    fs::write(scene.out.join("a"), "somebody else's").unwrap();
    scene.refused("a foreign entry in the way");
    let store = Store::find(&OpenOptions::default(), &scene.out).unwrap().unwrap();
    store.recover(RecoverOptions::default().skip_unknown(true)).unwrap();
    assert_eq!(read(&scene.out, "a"), "somebody else's");
    assert_eq!(store.head().unwrap().unwrap().info.generation, 3);
}
