//! Directories that are published again and again: every change is noticed, whatever times it was given, and what has not changed is
//! not read.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use common::faulty::{Call, Faulty};
use common::tree::snapshot;
use common::{Random, Scratch, lenient, read, state_of};
use txfs::fs::Fs;
use txfs::{BeginOptions, OpenOptions, Store};

fn scratch() -> (Scratch, PathBuf, PathBuf) {
    let dir = common::fast_scratch();
    let (out, source) = (dir.path().join("dist"), dir.path().join("source"));
    (dir, out, source)
}

/// Writes a file as a tool does that gives everything one time.
fn write_clamped(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
}

/// Until what is changed has another ctime than what was.
fn tick() {
    std::thread::sleep(Duration::from_millis(30));
}

fn publish<F: Fs>(store: &Store<F>, source: &Path) -> bool {
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.copy_differing_from(source).unwrap();
    transaction.commit(&lenient()).unwrap().changed
}

#[test]
fn a_change_of_the_same_size_with_the_same_time_is_published() {
    let (_dir, out, source) = scratch();
    let store = Store::open(&out).unwrap();
    for round in 0..6 {
        ["a", "d/b", "d/e/c"].iter().for_each(|name| write_clamped(&source.join(name), &format!("v={round}")));
        // Also when it was written a moment before, or after, the one that was published.
        if round % 2 == 0 {
            tick();
        }
        assert!(publish(&store, &source), "{round}");
        assert_eq!(snapshot(&out), snapshot(&source), "{round}");
        assert!(!publish(&store, &source), "{round}");
    }
}

#[test]
fn what_was_made_before_the_last_publication_is_published_when_it_comes() {
    let (dir, out, source) = scratch();
    let store = Store::open(&out).unwrap();
    let other = dir.path().join("other");
    for (at, content) in [(&source, "one"), (&other, "two")] {
        ["a", "sub/deep/b", "sub/c"].iter().for_each(|name| write_clamped(&at.join(name), content));
    }
    tick();
    assert!(publish(&store, &source));
    // Another directory, of the same names, sizes and times.
    assert!(publish(&store, &other));
    assert_eq!(read(&out, "sub/deep/b"), "two");
    assert!(publish(&store, &source));
    tick();
    // A part of it takes the place of another: of what is in it nothing tells that it was moved.
    fs::rename(source.join("sub"), dir.path().join("away")).unwrap();
    fs::rename(other.join("sub"), source.join("sub")).unwrap();
    assert!(publish(&store, &source));
    assert_eq!(snapshot(&out), snapshot(&source));
    // And a file.
    fs::rename(other.join("a"), source.join("a")).unwrap();
    assert!(publish(&store, &source));
    assert_eq!(snapshot(&out), snapshot(&source));
}

/// A kernel that counts the files that are opened to be read.
fn counting() -> (Faulty, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let kernel = Faulty::new(move |call| {
        counted.fetch_add(usize::from(*call == Call::Read("open_file")), Ordering::SeqCst);
        None
    });
    (kernel, count)
}

#[test]
fn what_has_not_changed_is_not_read() {
    let (_dir, out, source) = scratch();
    let (kernel, count) = counting();
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let reads = |what: &str, expected: std::ops::Range<usize>| {
        let before = count.load(Ordering::SeqCst);
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        let begun = count.load(Ordering::SeqCst);
        transaction.copy_differing_from(&source).unwrap();
        let read = count.load(Ordering::SeqCst) - begun;
        transaction.commit(&lenient()).unwrap();
        assert!(expected.contains(&read), "{what}: {read} files were opened, and {} to begin", begun - before);
    };
    (0..200).for_each(|n| write_clamped(&source.join(format!("d{}/f{n}", n % 7)), &n.to_string()));
    tick();
    // HEAD, the manifest and what is known are read each time.
    reads("all is new", 200..210);
    reads("nothing changed", 0..10);
    (0..5).for_each(|n| write_clamped(&source.join(format!("d{n}/f{n}")), &(n + 1).to_string()));
    tick();
    reads("five changed", 5..20);
    reads("nothing changed since", 0..10);
    // Restored from somewhere: other inodes, and other times.
    let copy = source.with_file_name("copy");
    assert!(std::process::Command::new("cp").arg("-r").arg(&source).arg(&copy).status().unwrap().success());
    fs::remove_dir_all(&source).unwrap();
    fs::rename(&copy, &source).unwrap();
    tick();
    reads("all is restored", 200..210);
    reads("nothing changed since", 0..10);
    // Whatever became of what is known, nothing is believed that is not.
    let known = state_of(&out).join("sources");
    let mut bytes = fs::read(&known).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&known, bytes).unwrap();
    reads("what is known is damaged", 200..210);
    reads("nothing changed since", 0..10);
    fs::remove_file(&known).unwrap();
    reads("what is known is gone", 200..210);
    // Written within the tick of the clock in which it is published, it might be written to again, and tell nothing of it.
    write_clamped(&source.join("d0/f0"), "x");
    reads("one was just written", 1..10);
    tick();
    reads("and is read once more", 1..10);
    reads("and then no more", 0..10);
}

#[test]
fn what_a_preview_finds_and_what_is_published_are_the_same() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let (dir, out, source) = scratch();
        let store = Store::open(&out).unwrap();
        let names = ["a", "b", "d/a", "d/b", "d/e/a"];
        write_clamped(&source.join("always"), "always");
        for step in 0..8 {
            for _ in 0..1 + random.below(3) {
                let path = source.join(names[random.below(5) as usize]);
                match random.below(6) {
                    0 => drop(fs::remove_file(&path)),
                    1 => {
                        let moved = dir.path().join("moved");
                        write_clamped(&moved, ["one", "two"][random.below(2) as usize]);
                        fs::create_dir_all(path.parent().unwrap()).unwrap();
                        fs::rename(moved, &path).unwrap();
                    }
                    _ => write_clamped(&path, ["one", "two", "six", "three"][random.below(4) as usize]),
                }
            }
            if random.below(2) == 0 {
                tick();
            }
            let plan = store.preview_copy(&source, true, &lenient()).unwrap().plan;
            assert_eq!(store.preview_copy(&source, false, &lenient()).unwrap().plan.changes, plan.changes);
            assert_eq!(publish(&store, &source), !plan.changes.is_empty(), "{seed}, {step}: {:?}", plan.changes);
            assert_eq!(snapshot(&out), snapshot(&source), "{seed}, {step}");
            if random.below(3) == 0 && step > 0 {
                let mut transaction = store.begin(BeginOptions::default()).unwrap();
                if transaction.copy_previous().is_ok() {
                    transaction.commit(&lenient()).unwrap();
                }
            }
        }
    }
}
