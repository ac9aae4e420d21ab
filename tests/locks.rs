//! Locks are those of processes: what other threads of the program start has no part in them, and who waits is told for whom.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use txfs::{BeginOptions, ErrorKind, OpenOptions, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::{Scratch, state_of};

const ROUNDS: usize = 250;

/// Runs `work` while two other threads start children without a pause.
fn beside_children(work: impl FnOnce()) {
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // It ends the threads also when `work` panics.
        let _done = Done(&done);
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
        }
        work();
    });
}

#[test]
fn a_transaction_that_nobody_works_on_is_not_live_while_other_threads_start_children() {
    let dir = Scratch::new();
    let out = dir.path().join("out");
    let store = Store::open(&out).unwrap();
    beside_children(|| {
        let wrong = (0..ROUNDS).filter(|_| {
            let transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
            let id = transaction.id();
            assert!(store.transactions().unwrap()[0].live);
            drop(transaction);
            let seen_live = store.transactions().unwrap()[0].live;
            store.resume(id).unwrap().abort().unwrap();
            seen_live
        });
        assert_eq!(wrong.count(), 0, "of {ROUNDS} rounds");
    });
}

#[test]
fn opening_a_store_recovers_it_while_other_threads_start_children() {
    let dir = Scratch::new();
    let out = dir.path().join("out");
    let store = Store::open(&out).unwrap();
    // What a process leaves that dies while it fills a stage.
    let live = store.begin(BeginOptions::default()).unwrap();
    let (transactions, dead) = (state_of(&out).join("tx"), "000000000000dead");
    let left = transactions.join(dead);
    beside_children(|| {
        let wrong = (0..ROUNDS).filter(|_| {
            copy(live.stage().parent().unwrap(), &left);
            Store::open(&out).unwrap();
            left.exists()
        });
        assert_eq!(wrong.count(), 0, "of {ROUNDS} rounds");
    });
    live.abort().unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.join("stage")).unwrap();
    fs::write(to.join("lock"), "").unwrap();
    fs::copy(from.join("meta"), to.join("meta")).unwrap();
}

#[test]
fn who_looks_does_not_find_another_who_looks() {
    let dir = Scratch::new();
    let out = dir.path().join("out");
    let store = Store::open(&out).unwrap();
    drop(store.begin(BeginOptions::default().detached(true)).unwrap());
    let looks = || (0..ROUNDS).filter(|_| store.transactions().unwrap()[0].live).count();
    let wrong = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(looks)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(wrong, 0, "of {} looks", 4 * ROUNDS);
}

#[test]
fn a_wait_lasts_as_long_as_was_said_however_long_each_of_its_tries_takes() {
    let dir = Scratch::new();
    let out = dir.path().join("out");
    let other = Store::open(&out).unwrap();
    let live = other.begin(BeginOptions::default()).unwrap();
    let limit = Duration::from_millis(600);
    let slow = Faulty::new(|call| {
        if matches!(call, Call::Read("try_lock" | "lock_holder")) {
            std::thread::sleep(Duration::from_millis(300));
        }
        None
    });
    let store = Store::open_with(&OpenOptions::with(slow).lock_timeout(limit).recover(false), &out).unwrap();
    // With such tries between them 6 pauses of 100 ms would take 3.6 s, and 60 of 10 ms 18 s.
    let waits = |what: &str, begin: &dyn Fn() -> ErrorKind, at_most: f64| {
        let begun = Instant::now();
        assert_eq!(begin(), ErrorKind::Busy, "{what}");
        let waited = begun.elapsed();
        assert!(waited >= limit && waited.as_secs_f64() < at_most, "{what}: {waited:?}");
    };
    let begin = |options: BeginOptions| store.begin(options).map(drop).unwrap_err().kind();
    waits("behind a build", &|| begin(BeginOptions::default().wait(limit)), 2.7);
    let held = std::fs::File::open(state_of(&out).join("lock")).unwrap();
    held.lock().unwrap();
    waits("for the lock", &|| begin(BeginOptions::default()), 4.0);
    drop(held);
    live.abort().unwrap();
}
