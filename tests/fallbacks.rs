//! File systems that lack a rename flag, hard links or openat2: the same behaviour by other means, and a refusal where safety
//! would be lost. No means may let a path be missing, or half written, for a single instant.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::suite::{self, Ground};
use common::{lenient, publish};
use txfs::fs::LinuxFs;
use txfs::fs::linux::Without;
use txfs::{BeginOptions, Error, ErrorKind, OpenOptions, Store};

fn run_suite(without: Without) {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions::with(LinuxFs::without(without));
    let ground = Ground { dir: dir.path().into(), options, exchange: !without.exchange, sparse: false, levels: 200 };
    println!("{without:?}: {} behaviours", suite::run(&ground));
}

#[test]
fn without_exchange() {
    run_suite(Without { exchange: true, ..Without::default() });
}

#[test]
fn without_no_replace() {
    run_suite(Without { no_replace: true, ..Without::default() });
}

#[test]
fn without_exchange_and_no_replace() {
    run_suite(Without { exchange: true, no_replace: true, ..Without::default() });
}

#[test]
fn without_links() {
    run_suite(Without { links: true, ..Without::default() });
}

#[test]
fn without_openat2() {
    run_suite(Without { openat2: true, ..Without::default() });
}

#[test]
fn a_file_system_without_what_safety_needs_is_refused_and_nothing_is_left_half_made() {
    for (without, named) in [
        (Without { exchange: true, links: true, ..Without::default() }, "RENAME_EXCHANGE"),
        (Without { no_replace: true, links: true, ..Without::default() }, "RENAME_NOREPLACE"),
        (Without { exchange: true, no_replace: true, links: true, openat2: true }, "RENAME_NOREPLACE"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("dist");
        for _ in 0..2 {
            let error = Store::open_with(&OpenOptions::with(LinuxFs::without(without)), &out).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }) && error.kind() == ErrorKind::Failed, "{error}");
            assert!(error.to_string().contains(named), "{error}");
            assert!(!out.exists());
        }
        // On a file system that can, the store is made after all.
        publish(&Store::open(&out).unwrap(), &[("a", "a")]).unwrap();
    }
}

const READERS: usize = 2;
const SIZE: usize = 3000;

/// What every file of a generation holds: its number, over and over, so that half a file shows.
fn content(generation: u64) -> Vec<u8> {
    format!("{generation:019}\n").repeat(SIZE / 20).into_bytes()
}

/// Reads a path as a web server would, and says which generation it is of.
fn look(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(bytes.len(), content(0).len(), "{}: half a file", path.display());
    let first = &bytes[..20];
    assert!(bytes.chunks(20).all(|chunk| chunk == first), "{}: two generations in one file", path.display());
    std::str::from_utf8(&first[..19]).unwrap().parse().unwrap()
}

/// Readers poll paths that exist in every generation while they are replaced, and while their neighbours come and go.
fn no_path_is_ever_missing(without: Without, exchange: bool) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("dist");
    let store = Store::open_with(&OpenOptions::with(LinuxFs::without(without)), &out).unwrap();
    let always = ["index.html", "a.css", "d/one", "d/e/two", "link-or-file", "changing/kind/three"];
    let commit = |generation: u64| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for path in &always[..4] {
            transaction.write(path, content(generation)).unwrap();
        }
        // These change their kind with each generation, and the path leads to a whole file all the same.
        let odd = generation % 2 == 1;
        if odd {
            transaction.symlink("link-or-file", "a.css").unwrap();
        } else {
            transaction.write("link-or-file", content(generation)).unwrap();
        }
        if odd && exchange {
            transaction.write("elsewhere/three", content(generation)).unwrap();
            transaction.symlink("changing/kind", "../elsewhere").unwrap();
        } else {
            transaction.write("changing/kind/three", content(generation)).unwrap();
        }
        transaction.write(format!("comes-and-goes-{generation}/x"), content(generation)).unwrap();
        transaction.commit(&lenient()).unwrap();
    };
    commit(0);
    let (stop, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut commits = 0;
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let mut last = [0; 6];
                while !stop.load(Ordering::Relaxed) {
                    for (path, last) in always.iter().zip(&mut last) {
                        let generation = look(&out.join(path));
                        assert!(generation >= *last, "{path} went back from {last} to {generation}");
                        *last = generation;
                        looks.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let started = std::time::Instant::now();
        while started.elapsed().as_secs_f32() < 1.5 || commits < 10 {
            commits += 1;
            commit(commits);
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{without:?}: {} looks during {commits} commits", looks.load(Ordering::Relaxed));
}

#[test]
fn no_path_is_ever_missing_or_half_written() {
    no_path_is_ever_missing(Without::default(), true);
}

#[test]
fn no_path_is_ever_missing_or_half_written_without_exchange() {
    no_path_is_ever_missing(Without { exchange: true, ..Without::default() }, false);
}

#[test]
fn no_path_is_ever_missing_or_half_written_without_any_flag() {
    no_path_is_ever_missing(Without { exchange: true, no_replace: true, openat2: true, links: false }, false);
}

#[test]
fn no_path_is_ever_missing_or_half_written_without_links() {
    no_path_is_ever_missing(Without { links: true, ..Without::default() }, true);
}
