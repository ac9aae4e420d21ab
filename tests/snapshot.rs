//! Reading a generation back, while it is current and after it.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::faulty::{Call, Faulty};
use common::{lenient, publish, scratch};
use txfs::{BeginOptions, Digest, Error, ErrorKind, Kind, OpenOptions, Snapshot, Store};

fn open(snapshot: &Snapshot, path: &str) -> txfs::Result<String> {
    let mut text = String::new();
    snapshot.open(path)?.read_to_string(&mut text).unwrap();
    Ok(text)
}

fn is_gone<T>(read: txfs::Result<T>) -> bool {
    matches!(read, Err(error @ Error::NotAsPublished { .. }) if error.kind() == ErrorKind::Conflict)
}

#[test]
fn a_snapshot_lists_and_reads_what_was_published() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let empty = store.snapshot().unwrap();
    assert_eq!((empty.generation(), empty.entries().count(), empty.info()), (0, 0, None));
    assert!(matches!(empty.read("a"), Err(Error::NotPublished { generation: 0, .. })));
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("dir/a", "content").unwrap();
    transaction.symlink("link", "dir/a").unwrap();
    transaction.commit(&lenient().message("first")).unwrap();
    let snapshot = store.snapshot().unwrap();
    fs::write(out.join("foreign"), "not published").unwrap();
    let listed: Vec<_> = snapshot.entries().map(|entry| entry.unwrap()).collect();
    let of = |path: &str| listed.iter().find(|entry| entry.path.to_string() == path).unwrap().object;
    assert_eq!(listed.len(), 3);
    assert_eq!((of("dir").kind, of("link").kind), (Kind::Directory, Kind::Symlink));
    assert_eq!((of("dir/a").size, of("dir/a").digest), (7, Digest::of(b"content")));
    assert_eq!(snapshot.get("dir/a").unwrap(), Some(of("dir/a")));
    assert_eq!(snapshot.info().unwrap().message.as_deref(), Some("first"));
    assert_eq!((snapshot.generation(), snapshot.totals().files), (1, 2));
    assert_eq!(
        (open(&snapshot, "dir/a").unwrap().as_str(), &*snapshot.read("dir/a").unwrap()),
        ("content", &b"content"[..])
    );
    assert_eq!(snapshot.read_link("link").unwrap(), Path::new("dir/a"));
    for path in ["dir", "link", "foreign", "dir/b"] {
        assert!(matches!(snapshot.open(path), Err(Error::NotPublished { generation: 1, .. })), "{path}");
    }
    assert!(matches!(snapshot.read_link("dir/a"), Err(Error::NotPublished { .. })));
    assert!(matches!(snapshot.read("../a"), Err(Error::NoPath { .. })));
}

#[test]
fn a_snapshot_of_before_reads_what_is_still_there_and_nothing_else() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("same", "1"), ("replaced", "1"), ("removed", "1"), ("dir/gone", "1")]).unwrap();
    let before = store.snapshot().unwrap();
    let mut held = before.open("removed").unwrap();
    publish(&store, &[("same", "1"), ("replaced", "2"), ("dir", "a file now")]).unwrap();
    assert!(store.sweep().unwrap().done);
    assert_eq!(open(&before, "same").unwrap(), "1");
    for path in ["replaced", "removed", "dir/gone"] {
        assert!(is_gone(before.open(path)) && is_gone(before.read(path)), "{path}");
    }
    let mut text = String::new();
    held.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), before.generation(), before.entries().count()), ("1", 1, 5));
    assert_eq!(open(&store.snapshot().unwrap(), "replaced").unwrap(), "2");
}

#[test]
fn what_somebody_else_changed_is_not_handed_out() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("changed", "old"), ("quietly", "old"), ("copied", "old"), ("kind", "old"), ("pipe", "old")])
        .unwrap();
    let snapshot = store.snapshot().unwrap();
    fs::write(out.join("changed"), "new!").unwrap();
    let quietly = fs::File::options().write(true).open(out.join("quietly")).unwrap();
    let time = quietly.metadata().unwrap().modified().unwrap();
    std::io::Write::write_all(&mut &quietly, b"new").unwrap();
    quietly.set_modified(time).unwrap();
    fs::rename(out.join("copied"), out.join("before")).unwrap();
    fs::copy(out.join("before"), out.join("copied")).unwrap();
    fs::remove_file(out.join("kind")).unwrap();
    symlink("changed", out.join("kind")).unwrap();
    fs::remove_file(out.join("pipe")).unwrap();
    nix::unistd::mkfifo(&out.join("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    for path in ["changed", "kind", "pipe"] {
        assert!(is_gone(snapshot.open(path)) && is_gone(snapshot.read(path)), "{path}");
    }
    assert!(is_gone(snapshot.read("quietly")));
    assert!(is_gone(snapshot.open("copied")));
    assert_eq!(snapshot.read("copied").unwrap(), b"old");
    fs::remove_dir_all(&out).unwrap();
    assert!(is_gone(snapshot.read("copied")));
    assert!(is_gone(store.snapshot().unwrap().read("copied")));
}

/// At every call of a commit another process looks: what it reads is of the generation that it has.
#[test]
fn a_reader_beside_a_commit_gets_its_own_generation_or_an_error() {
    let (_dir, out) = scratch();
    let reader = Store::open(&out).unwrap();
    let tree = |generation: &str| {
        let text = |name: &str| format!("{name} of {generation}");
        let mut tree: BTreeMap<String, String> = ["a", "b", "d/c"].map(|name| (name.to_owned(), text(name))).into();
        tree.insert(format!("only/{generation}"), text("only"));
        tree.insert("same".to_owned(), "same".to_owned());
        tree
    };
    let publish = |store: &Store<Faulty>, generation: &str| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        tree(generation).iter().for_each(|(path, text)| transaction.write(path, text).unwrap());
        transaction.commit(&lenient()).unwrap();
    };
    let expected = [BTreeMap::new(), tree("one"), tree("two"), tree("three")];
    let (read, gone, is_on) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let counts = Arc::new((read, gone, is_on));
    let (looked, held) = (counts.clone(), Mutex::new(None::<Snapshot>));
    let kernel = Faulty::new(move |_: &Call| {
        if !looked.2.load(Ordering::SeqCst) {
            return None;
        }
        let now = reader.snapshot().unwrap();
        let mut held = held.lock().unwrap();
        for snapshot in held.iter().chain([&now]) {
            let generation = usize::try_from(snapshot.generation()).unwrap();
            for (path, text) in &expected[generation] {
                let whole = snapshot.read(path).map(|bytes| String::from_utf8(bytes).unwrap());
                for got in [open(snapshot, path), whole] {
                    match got {
                        Ok(got) => {
                            assert_eq!(&got, text, "{path} of {generation}");
                            looked.0.fetch_add(1, Ordering::SeqCst);
                        }
                        Err(Error::NotAsPublished { .. }) => drop(looked.1.fetch_add(1, Ordering::SeqCst)),
                        Err(error) => panic!("{path} of {generation}: {error}"),
                    }
                }
            }
        }
        held.get_or_insert(now);
        None
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish(&store, "one");
    counts.2.store(true, Ordering::SeqCst);
    publish(&store, "two");
    publish(&store, "three");
    let (read, gone) = (counts.0.load(Ordering::SeqCst), counts.1.load(Ordering::SeqCst));
    println!("{read} read, {gone} gone");
    assert!(read > 1000 && gone > 100, "{read} {gone}");
}
