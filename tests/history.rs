//! The past: what is kept of it, going back to any of it, and what is known of it.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::tree::snapshot;
use common::{Scratch, fast_scratch};
use proptest::prelude::*;
use txfs::{BeginOptions, CommitOptions, Error, Kind, OpenOptions, Retention, Snapshot, Store, Watch};

/// What a generation publishes: files by content, and directories, which have none.
type Tree = BTreeMap<String, Option<String>>;

fn scratch(keep: u64) -> (Scratch, PathBuf, Store) {
    let dir = fast_scratch();
    let out = dir.path().join("dist");
    let store = Store::open(&out).unwrap();
    store.set_retention(Retention::generations(keep)).unwrap();
    (dir, out, store)
}

fn write(at: &Path, tree: &Tree) {
    for (path, content) in tree {
        let path = at.join(path);
        match content {
            Some(content) => {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            None => fs::create_dir_all(path).unwrap(),
        }
    }
}

fn read(at: &Path) -> Tree {
    fn walk(at: &Path, name: &str, tree: &mut Tree) {
        for entry in fs::read_dir(at).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{name}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{path}/"), tree);
                tree.insert(path, None);
            } else {
                tree.insert(path, Some(fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    let mut tree = Tree::new();
    if at.exists() {
        walk(at, "", &mut tree);
    }
    tree
}

/// What a snapshot has, read in both ways.
fn contents(snapshot: &Snapshot) -> Tree {
    let mut tree = Tree::new();
    for entry in snapshot.entries() {
        let entry = entry.unwrap();
        let path = entry.path.as_path();
        let content = (entry.object.kind == Kind::File).then(|| {
            let mut text = String::new();
            snapshot.open(path).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(snapshot.read(path).unwrap(), text.as_bytes());
            text
        });
        tree.insert(path.to_str().unwrap().to_owned(), content);
    }
    tree
}

fn options() -> CommitOptions<'static> {
    CommitOptions::default().allow_empty(true).max_removed(100)
}

fn publish(store: &Store, tree: &Tree) -> u64 {
    let transaction = store.begin(BeginOptions::default()).unwrap();
    write(&transaction.stage(), tree);
    let mut transaction = transaction;
    transaction.commit(&options()).unwrap().generation
}

fn files(files: &[(&str, &str)]) -> Tree {
    files.iter().map(|(path, content)| ((*path).to_owned(), Some((*content).to_owned()))).collect()
}

fn go_back(store: &Store, to: u64) -> txfs::Result<u64> {
    let preview = store.sweep().and_then(|_| store.preview_generation(to, &options()));
    let mut transaction = store.begin(BeginOptions::default())?;
    transaction.copy_generation(to)?;
    let plan = transaction.plan(&options())?;
    assert_eq!(preview.unwrap().summary, plan.summary, "what was said of going back is not what it does");
    Ok(transaction.commit(&options())?.generation)
}

#[test]
fn any_generation_that_is_kept_can_be_gone_back_to() {
    let (_dir, out, store) = scratch(4);
    let generations = [
        files(&[("a", "1"), ("d/x", "x"), ("d/y", "y")]),
        files(&[("a", "2"), ("d", "a file now")]),
        files(&[("a", "2"), ("b", "3")]),
        files(&[("a", "4"), ("d/x", "x again"), ("b", "3")]),
        files(&[("b/c", "5")]),
    ];
    let trees: Vec<Tree> = generations
        .iter()
        .map(|tree| {
            publish(&store, tree);
            read(&out)
        })
        .collect();
    for (to, made, expected) in [(1, 6, 0), (5, 7, 4), (4, 8, 3), (6, 9, 0)] {
        assert_eq!(go_back(&store, to).unwrap(), made);
        assert_eq!(read(&out), trees[expected], "generation {to}");
        assert_eq!(store.verify().unwrap(), []);
    }
    let history: Vec<u64> = store.history().unwrap().iter().map(|generation| generation.number).collect();
    assert_eq!(history, [9, 8, 7, 6, 5]);
}

#[test]
fn one_that_is_not_kept_is_named_and_nothing_is_changed() {
    let (_dir, out, store) = scratch(2);
    for content in ["1", "2", "3", "4", "5"] {
        publish(&store, &files(&[("a", content)]));
    }
    for (to, expected) in [
        (1, "generation 1 is not kept any more"),
        (2, "generation 2 is not kept any more"),
        (5, "generation 5 cannot be gone back to: generation 5 is what is published"),
        (9, "generation 9 cannot be gone back to: generation 5 is what is published"),
    ] {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        let error = transaction.copy_generation(to).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
    assert_eq!(read(&out), files(&[("a", "5")]));
    assert_eq!(go_back(&store, 3).unwrap(), 6);
    assert_eq!(read(&out), files(&[("a", "3")]));
}

#[test]
fn what_is_kept_is_as_was_said_last_and_survives_the_process() {
    let (_dir, out, store) = scratch(3);
    for content in ["1", "2", "3", "4", "5"] {
        publish(&store, &files(&[("a", content)]));
    }
    let numbers = |store: &Store| store.history().unwrap().iter().map(|one| one.number).collect::<Vec<_>>();
    let again = Store::open(&out).unwrap();
    assert_eq!(again.retention().unwrap(), Retention::generations(3));
    again.sweep().unwrap();
    assert_eq!(numbers(&again), [5, 4, 3, 2]);
    again.set_retention(Retention::default()).unwrap();
    again.sweep().unwrap();
    assert_eq!(numbers(&again), [5, 4]);
    // What is gone does not come back by saying that more is to be kept.
    again.set_retention(Retention::generations(9)).unwrap();
    assert_eq!(numbers(&again), [5, 4]);
    let mut transaction = again.begin(BeginOptions::default()).unwrap();
    let error = transaction.copy_generation(3).unwrap_err().to_string();
    assert!(error.ends_with("generation 3 is not kept any more"), "{error}");
    drop(transaction);
    assert_eq!(go_back(&again, 4).unwrap(), 6);
}

#[test]
fn what_was_published_within_an_age_is_kept_whatever_its_number() {
    let (_dir, _out, store) = scratch(0);
    store.set_retention(Retention::generations(0).and_within(Duration::from_secs(3600))).unwrap();
    for content in ["1", "2", "3", "4"] {
        publish(&store, &files(&[("a", content)]));
    }
    assert_eq!(store.history().unwrap().len(), 4);
    assert_eq!(go_back(&store, 1).unwrap(), 5);
    store.set_retention(Retention::generations(1).and_within(Duration::ZERO)).unwrap();
    store.sweep().unwrap();
    assert_eq!(store.history().unwrap().len(), 2);
}

#[test]
fn what_cannot_be_made_out_of_what_was_said_keeps_everything() {
    let (_dir, out, store) = scratch(3);
    for content in ["1", "2", "3"] {
        publish(&store, &files(&[("a", content)]));
    }
    store.sweep().unwrap();
    let said = store.state().join("retention");
    let whole = fs::read(&said).unwrap();
    fs::write(&said, &whole[..whole.len() - 1]).unwrap();
    let before = snapshot(&store.state().join("previous"));
    let error = store.sweep().unwrap_err();
    assert!(matches!(error, Error::RetentionUnknown { .. }), "{error}");
    assert_eq!(snapshot(&store.state().join("previous")), before);
    fs::write(&said, whole).unwrap();
    assert_eq!(go_back(&Store::open(out).unwrap(), 1).unwrap(), 4);
}

#[test]
fn history_says_what_each_commit_did_and_what_it_holds() {
    let (_dir, _out, store) = scratch(2);
    publish(&store, &files(&[("a", "12345"), ("b", "1")]));
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("a", "123").unwrap();
    transaction.commit(&options().message("second")).unwrap();
    let history = store.history().unwrap();
    assert_eq!(history.iter().map(|one| one.number).collect::<Vec<_>>(), [2, 1]);
    assert_eq!(history[0].message.as_deref(), Some("second"));
    let changes = history[0].changes.unwrap();
    assert_eq!((changes.added, changes.modified, changes.removed), (0, 1, 1));
    assert_eq!(history[0].held, 6);
    assert_eq!(history[1].totals.unwrap().files, 2);
    assert_eq!(history[1].held, 0);
}

#[test]
fn a_generation_that_is_kept_can_be_read_as_it_was() {
    let (_dir, out, store) = scratch(3);
    let generations = [
        files(&[("a", "1"), ("d/x", "x"), ("same", "s")]),
        files(&[("a", "2"), ("d", "a file now"), ("same", "s")]),
        files(&[("b", "3"), ("same", "s")]),
        files(&[("a", "4"), ("d/x", "x again"), ("same", "s")]),
    ];
    let was: Vec<Tree> = generations
        .iter()
        .map(|tree| {
            publish(&store, tree);
            read(&out)
        })
        .collect();
    store.sweep().unwrap();
    for (generation, was) in (1..).zip(&was) {
        let snapshot = store.at(generation).unwrap();
        assert_eq!(snapshot.generation(), generation);
        assert_eq!(&contents(&snapshot), was, "generation {generation}");
    }
    for generation in [0, 9] {
        assert!(matches!(store.at(generation), Err(Error::NothingBefore { .. })), "{generation}");
    }
    store.prune(Retention::generations(1)).unwrap();
    assert!(matches!(store.at(2), Err(Error::NothingBefore { .. })));
    assert_eq!(store.at(3).unwrap().read("b").unwrap(), b"3");
}

#[test]
fn modes_of_directories_and_files_come_back_from_any_generation() {
    let (_dir, out, store) = scratch(5);
    let publish = |file: u32, directory: u32, content: &str| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        let stage = transaction.stage();
        write(&stage, &files(&[("d/x", content), ("d/e/y", "y")]));
        fs::set_permissions(stage.join("d/x"), fs::Permissions::from_mode(file)).unwrap();
        fs::set_permissions(stage.join("d"), fs::Permissions::from_mode(directory)).unwrap();
        transaction.commit(&options()).unwrap();
    };
    publish(0o644, 0o755, "1");
    publish(0o600, 0o750, "1");
    publish(0o644, 0o700, "2");
    let mode = |path: &str| out.join(path).metadata().unwrap().permissions().mode() & 0o777;
    for (to, file, directory) in [(2, 0o600, 0o750), (1, 0o644, 0o755)] {
        go_back(&store, to).unwrap();
        assert_eq!((mode("d/x"), mode("d")), (file, directory), "generation {to}");
        assert_eq!(store.verify().unwrap(), []);
    }
}

type Differences = Vec<(String, char)>;

fn changes(now: &Snapshot, before: Option<&Snapshot>) -> Differences {
    let changes = now.changes_since(before).unwrap();
    changes.iter().map(|change| (change.path.to_string(), change.kind.letter())).collect()
}

/// What two trees differ in, as one would say it who sees both; by the paths' components, as the tree has them.
fn differences(old: &Tree, new: &Tree) -> Differences {
    let mut paths: Vec<&String> = old.keys().chain(new.keys()).collect();
    paths.sort_by_key(|path| path.split('/').collect::<Vec<_>>());
    paths.dedup();
    let letter = |path: &String| match (old.get(path), new.get(path)) {
        (None, _) => Some('A'),
        (_, None) => Some('D'),
        (Some(old), Some(new)) if old.is_some() != new.is_some() => Some('T'),
        (Some(old), Some(new)) => (old != new).then_some('M'),
    };
    paths.into_iter().filter_map(|path| Some((path.clone(), letter(path)?))).collect()
}

#[test]
fn what_changed_among_many_is_told_without_what_did_not() {
    let (_dir, _out, store) = scratch(9);
    let many: Tree = (0..5000).map(|n| (format!("d{}/f{n}", n % 50), Some(n.to_string()))).collect();
    let mut changed = many.clone();
    changed.insert("d7/f7".into(), Some("another".into()));
    changed.insert("d0/new".into(), Some("new".into()));
    changed.remove("d49/f4999");
    publish(&store, &many);
    publish(&store, &changed);
    publish(&store, &many);
    store.sweep().unwrap();
    let [one, two, three] = [1, 2, 3].map(|generation| store.at(generation).unwrap());
    let expected =
        [("d0/new", 'A'), ("d49/f4999", 'D'), ("d7/f7", 'M')].map(|(path, letter)| (path.to_owned(), letter));
    assert_eq!(changes(&two, Some(&one)), expected);
    assert_eq!(changes(&three, Some(&one)), []);
    assert_eq!(changes(&one, None).len(), 5050);
}

fn trees() -> impl Strategy<Value = Vec<Tree>> {
    let tree = proptest::collection::btree_map("[ab](/[ab]){0,2}", "[12]", 0..6).prop_map(|map| {
        let mut tree = Tree::new();
        for (path, content) in map {
            // A path is a file or a directory.
            let clashes = tree
                .keys()
                .any(|other: &String| other.starts_with(&format!("{path}/")) || path.starts_with(&format!("{other}/")));
            if !clashes {
                tree.insert(path, Some(content));
            }
        }
        tree
    });
    proptest::collection::vec(tree, 2..7)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn going_back_to_a_generation_is_what_it_was(trees in trees(), back in 1..6_usize) {
        let (_dir, out, store) = scratch(9);
        let mut was: BTreeMap<u64, Tree> = BTreeMap::new();
        for tree in &trees {
            let generation = publish(&store, tree);
            was.insert(generation, read(&out));
        }
        let current = *was.keys().last().unwrap();
        store.sweep().unwrap();
        for (generation, tree) in &was {
            let snapshot = store.at(*generation).unwrap();
            prop_assert_eq!(&contents(&snapshot), tree);
            let copy = common::fast_scratch();
            snapshot.copy_to(copy.path()).unwrap();
            prop_assert_eq!(&read(copy.path()), tree);
        }
        for (now, tree) in &was {
            for (before, old) in &was {
                let [now, before] = [now, before].map(|generation| store.at(*generation).unwrap());
                prop_assert_eq!(changes(&now, Some(&before)), differences(old, tree));
            }
            prop_assert_eq!(changes(&store.at(*now).unwrap(), None), differences(&Tree::new(), tree));
        }
        let to = current.saturating_sub(back as u64).max(1);
        if to < current {
            let made = go_back(&store, to).unwrap();
            prop_assert_eq!(&read(&out), &was[&to]);
            prop_assert_eq!(store.verify().unwrap(), []);
            // And forward again.
            if made > current {
                go_back(&store, current).unwrap();
                prop_assert_eq!(&read(&out), &was[&current]);
            }
        }
    }
}

#[test]
fn what_was_written_to_in_place_and_given_its_time_again_is_not_taken_for_what_was_published() {
    let (_dir, out, store) = scratch(1);
    publish(&store, &files(&[("a", "good"), ("b", "b")]));
    let file = fs::OpenOptions::new().write(true).open(out.join("a")).unwrap();
    let was = file.metadata().unwrap().modified().unwrap();
    std::io::Write::write_all(&mut &file, b"bad!").unwrap();
    file.set_modified(was).unwrap();
    publish(&store, &files(&[("a", "new"), ("b", "b")]));
    let error = go_back_plainly(&store).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains("its content was changed"), "{error}");
    assert_eq!(read(&out), files(&[("a", "new"), ("b", "b")]));
}

fn go_back_plainly(store: &Store) -> txfs::Result<u64> {
    store.begin(BeginOptions::default())?.copy_previous()
}

#[test]
fn every_generation_is_told_of_once_while_others_are_committed() {
    let (_dir, out, store) = scratch(1);
    let mut watch = Watch::new(&OpenOptions::default(), &out, None).unwrap();
    let publishing = std::thread::spawn(move || {
        for n in 1..=60_usize {
            let transaction = store.begin(BeginOptions::default()).unwrap();
            write(&transaction.stage(), &files(&[("a", &"x".repeat(n))]));
            let mut transaction = transaction;
            // One in three is not committed.
            if n % 3 > 0 {
                transaction.commit(&options()).unwrap();
            }
        }
        store
    });
    let mut told = Vec::new();
    while told.len() < 40 {
        let generation = watch.next_within(Duration::from_secs(20)).unwrap().expect("there are more to come");
        told.push(generation.number);
    }
    let store = publishing.join().unwrap();
    assert_eq!(told, (1..=40).collect::<Vec<_>>());
    assert_eq!(watch.next_within(Duration::from_millis(300)).unwrap(), None);
    // The state is gone, and another begins to count anew.
    fs::remove_dir_all(store.state()).unwrap();
    fs::remove_dir_all(&out).unwrap();
    publish(&Store::open(&out).unwrap(), &files(&[("a", "anew")]));
    assert_eq!(watch.next().unwrap().unwrap().number, 1);
}
