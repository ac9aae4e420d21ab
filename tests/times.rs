//! The times of what is published, and clients that go by them.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{lenient, scratch, state_of};
use txfs::{BeginOptions, CommitOptions, Committed, Store, Timestamp, Warning};

/// Commits these files, each with the time of all builds.
fn publish(store: &Store, files: &[(&str, &str)], options: &CommitOptions<'_>) -> Committed {
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    for (path, content) in files {
        transaction.write(path, content).unwrap();
        let file = fs::File::options().write(true).open(transaction.stage().join(path)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    transaction.commit(options).unwrap()
}

fn time(out: &Path, path: &str) -> SystemTime {
    fs::metadata(out.join(path)).unwrap().modified().unwrap()
}

fn committed(store: &Store) -> SystemTime {
    store.head().unwrap().unwrap().info.committed.into()
}

#[test]
fn what_is_published_gets_the_time_of_the_commit_and_nothing_else_does() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let first = [("same", "same"), ("changes", "one"), ("d/same", "same"), ("d/changes", "one"), ("d/goes", "one")];
    publish(&store, &first, &lenient());
    assert_eq!(time(&out, "changes"), SystemTime::UNIX_EPOCH);
    let second =
        [("same", "same"), ("changes", "two"), ("d/same", "same"), ("d/changes", "two"), ("new/deep/f", "two")];
    publish(&store, &second, &lenient().touch(true));
    let now = committed(&store);
    for path in ["changes", "d/changes", "new/deep/f"] {
        assert_eq!(time(&out, path), now, "{path}");
    }
    for path in ["same", "d/same"] {
        assert_eq!(time(&out, path), SystemTime::UNIX_EPOCH, "{path}");
    }
    assert_eq!(store.verify().unwrap(), []);
    // It is known as what was published, by whatever comes next.
    assert!(!publish(&store, &second, &lenient().touch(true)).changed);
    assert!(publish(&store, &first, &lenient()).changed);
    assert!(store.sweep().unwrap().rescued.is_empty() && !state_of(&out).join("rescued").exists());
}

#[test]
fn an_output_that_is_new_gets_the_time_of_the_commit() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("d/b", "one")], &lenient().touch(true));
    assert_eq!([time(&out, "a"), time(&out, "d/b")], [committed(&store); 2]);
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn going_back_brings_the_old_times_or_new_ones() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("stale/b", "one")], &lenient());
    publish(&store, &[("a", "two")], &lenient().touch(true));
    let back = |touch| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.copy_previous().unwrap();
        transaction.commit(&lenient().touch(touch)).unwrap();
    };
    let second = time(&out, "a");
    back(false);
    assert_eq!([time(&out, "a"), time(&out, "stale/b")], [SystemTime::UNIX_EPOCH; 2]);
    back(false);
    assert_eq!(time(&out, "a"), second);
    std::thread::sleep(Duration::from_millis(20));
    back(true);
    assert_eq!([time(&out, "a"), time(&out, "stale/b")], [committed(&store); 2]);
    assert!(time(&out, "a") > second);
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn what_changes_and_does_not_look_so_is_named_unless_it_gets_another_time() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("d/b", "one"), ("longer", "one")], &lenient());
    let changed = [("a", "two"), ("d/b", "two"), ("longer", "three")];
    let committed = publish(&store, &changed, &lenient());
    let [Warning::LooksUnchanged { paths }] = &committed.plan.warnings[..] else { panic!("{:?}", committed.plan) };
    assert_eq!(paths.first.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a", "d/b"]);
    let changed = [("a", "six"), ("d/b", "two"), ("longer", "three")];
    assert!(publish(&store, &changed, &lenient().touch(true)).plan.warnings.is_empty());
    let epoch = Timestamp { seconds: 0, nanos: 0 };
    assert_ne!(time(&out, "a"), epoch.into());
}
