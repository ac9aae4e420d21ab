//! File systems that lack a rename flag, hard links or openat2: the same behaviour by other means, and a refusal where safety
//! would be lost. No means may let a path be missing, or half written, for a single instant.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::faulty::Faulty;
use common::generations::{self, ALWAYS};
use common::suite::{self, Ground};
use common::tree::snapshot;
use common::{lenient, publish, read};
use txfs::fs::linux::Without;
use txfs::fs::{LinuxFs, RenameMode};
use txfs::{BeginOptions, Error, ErrorKind, OpenOptions, Store};

fn run_suite(without: Without) {
    let dir = common::fast_scratch();
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
        let dir = common::fast_scratch();
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

/// A store that was copied to another file system along with its output.
#[test]
fn a_store_finds_out_that_its_file_system_cannot_do_what_the_one_before_could() {
    for (without, able) in [
        (Without { exchange: true, ..Without::default() }, true),
        (Without { no_replace: true, ..Without::default() }, true),
        (Without { exchange: true, no_replace: true, ..Without::default() }, true),
        (Without { exchange: true, links: true, ..Without::default() }, false),
    ] {
        let dir = common::fast_scratch();
        let out = dir.path().join("dist");
        publish(&Store::open(&out).unwrap(), &[("a", "old"), ("stale", "old")]).unwrap();
        let options = OpenOptions::with(LinuxFs::without(without));
        let store = Store::open_with(&options, &out).unwrap();
        let published = publish(&store, &[("a", "new"), ("b", "new")]);
        if able {
            published.unwrap();
            assert!(!store.capabilities().exchange || !store.capabilities().no_replace);
            assert_eq!(Store::open_with(&options, &out).unwrap().capabilities(), store.capabilities());
            assert_eq!(read(&out, "a"), "new");
        } else {
            assert!(matches!(published, Err(Error::Unsupported { .. })), "{published:?}");
            assert_eq!(read(&out, "a"), "old");
        }
        assert_eq!(store.verify().unwrap(), []);
    }
}

/// Readers poll paths that exist in every generation while they are replaced, and while their neighbours come and go.
fn no_path_is_ever_missing(without: Without, exchange: bool) {
    const READERS: usize = 2;
    let dir = common::fast_scratch();
    let out = dir.path().join("dist");
    let store = Store::open_with(&OpenOptions::with(LinuxFs::without(without)), &out).unwrap();
    let commit = |generation: u64| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        generations::stage(&mut transaction, generation, exchange).unwrap();
        assert_eq!(transaction.commit(&lenient()).unwrap().generation, generation);
    };
    commit(1);
    let (stop, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut commits = 1;
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let mut last = Default::default();
                while !stop.load(Ordering::Relaxed) {
                    generations::look_around(&out, &mut last);
                    looks.fetch_add(ALWAYS.len() as u64, Ordering::Relaxed);
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
    assert_eq!(snapshot(&out), generations::expected(commits, exchange));
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

/// Both inodes are looked at: what a file system says of a rename is not what it did.
#[test]
fn a_rename_that_is_said_to_be_done_and_was_not_is_none() {
    for mode in [RenameMode::Exchange, RenameMode::NoReplace] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("dist");
        let store = Store::open_with(&OpenOptions::with(Faulty::lying(mode)), &out).unwrap();
        let able = store.capabilities();
        assert_eq!((able.exchange, able.no_replace), (mode != RenameMode::Exchange, mode != RenameMode::NoReplace));
        publish(&store, &[("a", "one"), ("b", "b")]).unwrap();
        publish(&store, &[("a", "two"), ("c", "c")]).unwrap();
        assert_eq!(read(&out, "a"), "two");
        assert!(store.verify().unwrap().is_empty());
    }
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions::with(Faulty::lying(RenameMode::Replace));
    let refused = Store::open_with(&options, dir.path().join("dist")).unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_file_system_that_is_refused_keeps_no_half_made_state() {
    let dir = tempfile::tempdir().unwrap();
    let without = Without { exchange: true, no_replace: true, links: true, ..Without::default() };
    let options = OpenOptions::with(LinuxFs::without(without));
    let refused = Store::open_with(&options, dir.path().join("dist")).unwrap_err();
    assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
