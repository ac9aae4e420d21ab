//! Stores as other versions of txfs left them, one of each version of each file: opened, recovered, gone back in, and carried on in
//! today's format. `stores/make.sh` says what is in them.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Scratch, is_root, lenient, publish, read, skip};
use txfs::{BeginOptions, OpenOptions, RecoverOptions, RecoveredCommit, Store};

const JOURNALS: [&str; 2] = ["journal-1", "journal-2"];

fn unpack(name: &str) -> (Scratch, PathBuf) {
    let dir = common::fast_scratch();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/older/stores").join(name).with_extension("tgz");
    let unpacked = Command::new("tar").arg("-C").arg(dir.path()).arg("-xpzf").arg(&archive).status().unwrap();
    assert!(unpacked.success(), "{}", archive.display());
    let out = dir.path().join("dist");
    (dir, out)
}

/// What `stores/make.sh` published.
fn assert_is(out: &Path, word: &str, target: &str) {
    let others = ["one", "two", "three"].into_iter().filter(|other| *other != word);
    assert_eq!(read(out, "index.html"), word);
    assert_eq!(read(out, "sub/deep/a"), format!("{word} deep"));
    assert_eq!(read(out, &format!("only-{word}")), format!("only {word}"));
    assert_eq!((read(out, "same.txt"), read(out, "dir-kept/x")), ("same".into(), "kept".into()));
    assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new(target));
    others.for_each(|other| assert!(!out.join(format!("only-{other}")).exists(), "{other} in {word}"));
    assert_eq!(out.join("dir-one").exists(), word == "one");
}

/// The version in the header of a file of the state.
fn version(path: PathBuf) -> u32 {
    u32::from_le_bytes(fs::read(path).unwrap()[8..12].try_into().unwrap())
}

/// One can go on with the store, and everything is written as today from then on.
fn assert_goes_on(store: &Store) {
    let next = store.head().unwrap().unwrap().info.generation + 1;
    publish(store, &[("index.html", "today"), ("sub/deep/a", "one deep")]).unwrap();
    assert_eq!(store.head().unwrap().unwrap().info.generation, next);
    assert!(store.verify().unwrap().is_empty());
    assert!(store.sweep().unwrap().done && store.transactions().unwrap().is_empty());
    assert_eq!(version(store.state().join(format!("previous/{next}/journal"))), 2);
}

#[test]
fn a_settled_store_is_read_and_gone_back_in_and_carried_on() {
    for name in JOURNALS {
        let (_dir, out) = unpack(&format!("{name}-settled"));
        let store = Store::open(&out).unwrap();
        let head = store.head().unwrap().unwrap();
        assert_eq!((head.info.generation, head.info.message.as_deref()), (2, Some("second")), "{name}");
        assert!(store.verify().unwrap().is_empty(), "{name}");
        assert_is(&out, "two", "same.txt");
        let generations: Vec<_> = store.history().unwrap().iter().map(|generation| generation.number).collect();
        assert_eq!(generations, [2, 1], "{name}");
        let mut back = store.begin(BeginOptions::default()).unwrap();
        assert_eq!(back.copy_previous().unwrap(), 1, "{name}");
        let committed = back.commit(&lenient()).unwrap();
        assert!(committed.warnings.is_empty() && committed.rescued.is_empty(), "{name}: {committed:?}");
        assert_is(&out, "one", "index.html");
        assert_goes_on(&store);
    }
}

/// What was restored from a copy has other inode numbers than its journal names: files and links are told by their content.
#[test]
fn a_commit_that_a_kill_interrupted_is_finished_or_undone() {
    for name in JOURNALS {
        for killed in [3, 5] {
            for undo in [false, true] {
                let name = format!("{name}-killed-{killed}");
                let (_dir, out) = unpack(&name);
                let store = Store::find(&OpenOptions::default(), &out).unwrap().unwrap();
                let (word, target, expected) = match undo {
                    true => ("two", "same.txt", RecoveredCommit::RolledBack { generation: 3 }),
                    false => ("three", "index.html", RecoveredCommit::RolledForward { generation: 3, operations: 0 }),
                };
                let recovered = store.recover(RecoverOptions::default().undo(undo)).unwrap();
                let commit = recovered.commit.unwrap();
                assert_eq!(std::mem::discriminant(&commit), std::mem::discriminant(&expected), "{name}: {commit:?}");
                assert!(recovered.rescued.is_empty() && recovered.warnings.is_empty(), "{name}: {recovered:?}");
                assert_is(&out, word, target);
                assert!(store.verify().unwrap().is_empty(), "{name}");
                assert_goes_on(&store);
            }
        }
    }
}

/// `meta` of versions 1 and 2, `retention` of version 1.
#[test]
fn transactions_that_were_open_are_taken_up() {
    let (_dir, out) = unpack("journal-2-open");
    let store = Store::open(&out).unwrap();
    assert_eq!(store.retention().unwrap().generations, 3);
    let open = store.transactions().unwrap();
    assert_eq!(open.len(), 2, "{open:?}");
    let (part, whole): (Vec<_>, Vec<_>) = open.iter().partition(|transaction| transaction.at.is_some());
    let versions = [whole[0], part[0]].map(|open| version(store.state().join(format!("tx/{}/meta", open.id))));
    assert_eq!(versions, [1, 2]);
    store.resume(part[0].id).unwrap().commit(&lenient()).unwrap();
    assert_eq!((read(&out, "index.html"), read(&out, "docs/page.html")), ("one".into(), "part".into()));
    store.resume(whole[0].id).unwrap().abort().unwrap();
    assert_goes_on(&store);
}

/// `store` of version 2; that of version 1 is in all others.
#[test]
fn a_shared_store_is_shared_still() {
    if !is_root() {
        return skip("a shared store", "needs root, to give it to a group");
    }
    let (_dir, out) = unpack("journal-2-shared");
    let store = Store::open_with(&OpenOptions::default().shared(Some(4242)), &out).unwrap();
    assert_eq!((version(store.state().join("store")), store.shared_with()), (2, Some(4242)));
    assert_goes_on(&store);
}
