//! Freeing what commits displaced, and bounding what builds leave behind.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::tree::snapshot;
use common::{lenient, publish, read, scratch, state_of};
use txfs::{BeginOptions, ErrorKind, Retention, Store};

fn go_back(store: &Store) -> txfs::Result<u64> {
    store.begin(BeginOptions::default())?.copy_previous()
}

fn kept(out: &Path, generation: u64) -> Vec<String> {
    let names = fs::read_dir(state_of(out).join(format!("previous/{generation}"))).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_the_last_commit_displaced_is_freed_and_cannot_be_gone_back_to() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    assert_eq!(store.prune(Retention::generations(0)).unwrap().generation, None);
    publish(&store, &[("a", "1"), ("gone/deep/x", "12345"), ("same", "s")]).unwrap();
    fs::set_permissions(out.join("gone/deep"), fs::Permissions::from_mode(0o755)).unwrap();
    publish(&store, &[("a", "2"), ("same", "s")]).unwrap();
    let before = snapshot(&out);
    assert_eq!(
        store.prune(Retention::generations(1)).unwrap().files,
        1,
        "the copy of `same` in the stage, and nothing that can be gone back to"
    );
    assert_eq!(go_back(&store).unwrap(), 1);
    let pruned = store.prune(Retention::generations(0)).unwrap();
    assert_eq!((pruned.generation, pruned.files, pruned.bytes), (Some(2), 2, 6));
    assert!(pruned.rescued.is_empty() && pruned.warnings.is_empty());
    assert_eq!((kept(&out, 2), snapshot(&out)), (vec!["journal".to_owned(), "pruned".to_owned()], before));
    let refused = go_back(&store).unwrap_err();
    assert!(refused.kind() == ErrorKind::Usage && refused.to_string().contains("was pruned"), "{refused}");
    assert_eq!(store.prune(Retention::generations(0)).unwrap().files, 0);
    // The next commit can be gone back from as ever.
    publish(&store, &[("a", "3"), ("same", "s")]).unwrap();
    assert_eq!(go_back(&store).unwrap(), 2);
    publish(&store, &[("a", "4"), ("same", "s")]).unwrap();
    store.sweep().unwrap();
    common::assert_only_the_last_is_kept(&out);
    assert!(store.verify().unwrap().is_empty());
}

#[test]
fn what_only_added_can_be_gone_back_from_after_pruning() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "1")]).unwrap();
    publish(&store, &[("a", "1"), ("b", "2")]).unwrap();
    store.sweep().unwrap();
    assert_eq!(store.prune(Retention::generations(0)).unwrap().files, 0);
    assert_eq!(go_back(&store).unwrap(), 1);
}

#[test]
fn what_is_not_known_is_not_freed() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "1"), ("d/x", "1")]).unwrap();
    publish(&store, &[("a", "2")]).unwrap();
    store.sweep().unwrap();
    // Somebody who had the file open went on writing, and somebody put a file into a directory that was displaced.
    let previous = state_of(&out).join("previous/2");
    fs::write(previous.join("stage/a"), "precious").unwrap();
    let dir = fs::read_dir(previous.join("kept")).or_else(|_| fs::read_dir(previous.join("removed"))).unwrap();
    fs::write(dir.map(|entry| entry.unwrap().path()).next().unwrap().join("mine"), "mine").unwrap();
    let pruned = store.prune(Retention::generations(0)).unwrap();
    assert_eq!((pruned.rescued.len(), pruned.files), (2, 0), "{pruned:?}");
    let rescued: Vec<_> =
        pruned.rescued.iter().map(|path| if path.is_dir() { path.join("mine") } else { path.clone() }).collect();
    let mut texts: Vec<_> = rescued.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    texts.sort();
    assert_eq!(texts, ["mine", "precious"]);
}

/// Stopped at any point, as by a crash of which the mark may have been kept or not.
#[test]
fn a_half_done_pruning_is_finished_or_found_as_it_is() {
    for marked in [true, false] {
        let (_dir, out) = scratch();
        let store = Store::open(&out).unwrap();
        publish(&store, &[("a", "1"), ("b", "1"), ("d/x", "1")]).unwrap();
        publish(&store, &[("a", "2"), ("b", "2")]).unwrap();
        store.sweep().unwrap();
        let previous = state_of(&out).join("previous/2");
        if marked {
            fs::write(previous.join("pruned"), "").unwrap();
        }
        fs::remove_file(previous.join("stage/a")).unwrap();
        let store = Store::open(&out).unwrap();
        let refused = go_back(&store).unwrap_err().to_string();
        assert_eq!(refused.contains("was pruned"), marked, "{refused}");
        assert_eq!(kept(&out, 2).contains(&"stage".to_owned()), !marked);
        publish(&store, &[("a", "3"), ("b", "2")]).unwrap();
        assert!(store.sweep().unwrap().rescued.is_empty());
        assert_eq!((read(&out, "a"), store.verify().unwrap().len()), ("3".to_owned(), 0));
    }
}

#[test]
fn what_builds_leave_is_bounded() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let by_hand = store.begin(BeginOptions::default().detached(true)).unwrap();
    let (mine, id) = (by_hand.stage(), by_hand.id());
    drop(by_hand);
    let leave = |content: &str| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write("a", content).unwrap();
        transaction.leave().unwrap()
    };
    let one = leave("1");
    assert_eq!((one.replaced, one.stage.exists()), (0, true));
    // While somebody works on it, it is not replaced.
    let open = |stage: &Path| store.transactions().unwrap().into_iter().find(|open| open.stage == stage).unwrap();
    let held = store.resume(open(&one.stage).id).unwrap();
    let two = leave("2");
    assert_eq!((two.replaced, one.stage.exists(), open(&two.stage).left), (0, true, true));
    drop(held);
    let three = leave("3");
    assert_eq!((three.replaced, one.stage.exists(), two.stage.exists()), (2, false, false));
    assert!(mine.exists() && !open(&mine).left);
    let mut three = store.resume(open(&three.stage).id).unwrap();
    three.commit(&lenient()).unwrap();
    store.sweep().unwrap();
    assert_eq!((read(&out, "a"), kept(&out, 1).contains(&"left".to_owned())), ("3".to_owned(), false));
    store.resume(id).unwrap().abort().unwrap();
}
