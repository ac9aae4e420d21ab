//! A barrier that fails: each stage that it was to make durable is lost, and no other.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use txfs::{Barriers, Basis, BeginOptions, Error, OpenOptions, RecoverOptions, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::{lenient, publish, read, scratch};

#[test]
fn an_early_barrier_that_fails_loses_the_stage_whatever_fails_besides() {
    const FILES: usize = 2000;
    let (_dir, out) = scratch();
    let (armed, synced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_armed, has_synced) = (armed.clone(), synced.clone());
    // The kernel tells once; and one of the files that are read after it has told cannot be read.
    let kernel = Faulty::new(move |call| match call {
        _ if !is_armed.load(Ordering::SeqCst) => None,
        Call::SyncFs => (!has_synced.swap(true, Ordering::SeqCst)).then_some(Errno::EIO),
        Call::Read("read") => has_synced.load(Ordering::SeqCst).then_some(Errno::EIO),
        _ => None,
    });
    let store = Store::open_with(&OpenOptions::with(kernel.threads(2)), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    for n in 0..FILES {
        fs::write(transaction.stage().join(format!("f{n}")), n.to_string()).unwrap();
    }
    armed.store(true, Ordering::SeqCst);
    let error = transaction.commit(&lenient()).unwrap_err();
    armed.store(false, Ordering::SeqCst);
    assert!(synced.load(Ordering::SeqCst), "{error}");
    assert!(matches!(error, Error::StageLost { .. }), "{error}");
    assert!(!transaction.is_open());
}

#[test]
fn an_early_barrier_that_fails_alone_loses_the_stage_although_the_barrier_after_it_is_passed() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "old")]).unwrap();
    for from in [Basis::Empty, Basis::Current] {
        let own = std::thread::current().id();
        let (failed, passed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (has_failed, has_passed) = (failed.clone(), passed.clone());
        let kernel = Faulty::new(move |call| {
            let early = *call == Call::SyncFs && std::thread::current().id() != own;
            has_failed.fetch_or(early, Ordering::SeqCst);
            has_passed.fetch_or(*call == Call::SyncFs && !early, Ordering::SeqCst);
            early.then_some(Errno::EIO)
        });
        let faulty = Store::open_with(&OpenOptions::with(kernel.threads(2)), &out).unwrap();
        let mut transaction = faulty.begin(BeginOptions::default().from(from)).unwrap();
        transaction.write("a", "new").unwrap();
        let error = transaction.commit(&lenient()).unwrap_err();
        let seen = [&failed, &passed].map(|flag| flag.load(Ordering::SeqCst));
        assert!(matches!(error, Error::StageLost { .. }), "{from:?}: {error}");
        assert_eq!((seen, transaction.is_open()), ([true; 2], false), "{from:?}");
        drop(transaction);
        assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing(), "{from:?}");
        assert_eq!((read(&out, "a"), store.verify().unwrap().len()), ("old".into(), 0), "{from:?}");
    }
}

#[test]
fn a_barrier_that_fails_while_the_stage_is_written_loses_it() {
    const FILES: usize = 600;
    let own = std::thread::current().id();
    for (fails, keeps) in [(false, false), (true, false), (true, true)] {
        let (_dir, out) = scratch();
        let (writing, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (is_writing, has_begun) = (writing.clone(), begun.clone());
        let kernel = Faulty::new(move |call| {
            let ahead =
                *call == Call::SyncFs && is_writing.load(Ordering::SeqCst) && std::thread::current().id() != own;
            has_begun.fetch_or(ahead, Ordering::SeqCst);
            (ahead && fails).then_some(Errno::EIO)
        });
        let store = Store::open_with(&OpenOptions::with(kernel.threads(2)), &out).unwrap();
        let mut other = store.begin(BeginOptions::default()).unwrap();
        other.write("x", "x").unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        writing.store(true, Ordering::SeqCst);
        for n in 0..FILES {
            transaction.write(format!("d{}/f{n}", n % 7), n.to_string()).unwrap();
        }
        let written = std::time::Instant::now();
        while !begun.load(Ordering::SeqCst) {
            assert!(written.elapsed().as_secs() < 60, "nothing was begun ahead");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        writing.store(false, Ordering::SeqCst);
        if keeps {
            let stage = transaction.stage();
            // Whoever took it up would not be told again.
            assert!(matches!(transaction.keep(), Err(Error::StageLost { .. })));
            assert!(!stage.exists());
            // Its own pages may be among those that were lost.
            assert!(matches!(other.commit(&lenient()), Err(Error::StageLost { .. })));
            continue;
        }
        match transaction.commit(&lenient()) {
            Ok(committed) => assert_eq!((fails, committed.totals.files), (false, FILES as u64)),
            Err(error) => assert!(fails && matches!(error, Error::StageLost { .. }), "{error}"),
        }
        assert_eq!((transaction.is_open(), out.exists()), (false, !fails));
    }
}

/// Whoever took it up would be told of nothing.
#[test]
fn a_stage_that_cannot_be_made_durable_is_not_kept() {
    let (_dir, out) = scratch();
    let armed = Arc::new(AtomicBool::new(false));
    let fails = armed.clone();
    let kernel = Faulty::new(move |call| (*call == Call::SyncFs && fails.load(Ordering::SeqCst)).then_some(Errno::EIO));
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("a", "a").unwrap();
    let stage = transaction.stage();
    armed.store(true, Ordering::SeqCst);
    assert!(matches!(transaction.keep(), Err(Error::StageLost { .. })));
    assert!(!stage.exists());
}

#[test]
fn a_stage_that_was_begun_after_a_barrier_failed_is_not_lost_with_those_before() {
    let (_dir, out) = scratch();
    let armed = Arc::new(AtomicBool::new(false));
    let fails = armed.clone();
    let kernel = Faulty::new(move |call| (*call == Call::SyncFs && fails.load(Ordering::SeqCst)).then_some(Errno::EIO));
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let mut before = store.begin(BeginOptions::default()).unwrap();
    before.write("a", "before").unwrap();
    armed.store(true, Ordering::SeqCst);
    assert!(matches!(publish(&store, &[("a", "a")]), Err(Error::StageLost { .. })));
    armed.store(false, Ordering::SeqCst);
    let mut after = store.begin(BeginOptions::default()).unwrap();
    after.write("a", "after").unwrap();
    assert!(matches!(before.commit(&lenient()), Err(Error::StageLost { .. })));
    after.commit(&lenient()).unwrap();
    assert_eq!(read(&out, "a"), "after");
}

/// The writer may go on for hours, and another process is told of nothing.
#[test]
fn a_barrier_that_fails_while_a_stage_is_written_ends_the_others_at_once() {
    let own = std::thread::current().id();
    let (_dir, out) = scratch();
    let writing = Arc::new(AtomicBool::new(false));
    let is_writing = writing.clone();
    let kernel = Faulty::new(move |call| {
        let ahead = *call == Call::SyncFs && is_writing.load(Ordering::SeqCst) && std::thread::current().id() != own;
        ahead.then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel.threads(2)), &out).unwrap();
    let open = store.begin(BeginOptions::default().detached(true)).unwrap().id();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    writing.store(true, Ordering::SeqCst);
    for n in 0..600 {
        transaction.write(n.to_string(), n.to_string()).unwrap();
    }
    let written = std::time::Instant::now();
    while Store::open(&out).unwrap().resume(open).is_ok() {
        assert!(written.elapsed().as_secs() < 60, "it can be taken up");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Its process ends when it is copied, and whoever takes it up is told of nothing.
#[test]
fn a_copy_is_not_left_open_when_a_barrier_failed_meanwhile() {
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &[("a", "a")]).unwrap();
    let at = out.clone();
    let kernel = Faulty::new(move |call| {
        if *call == Call::Read("copy_content") {
            let fails = Arc::new(AtomicBool::new(false));
            let failing = fails.clone();
            let kernel = Faulty::new(move |call| {
                (*call == Call::SyncFs && failing.load(Ordering::SeqCst)).then_some(Errno::EIO)
            });
            let other = Store::open_with(&OpenOptions::with(kernel), &at).unwrap();
            let open = other.transactions().unwrap();
            assert_eq!(open.len(), 2);
            let detached = open.iter().find(|open| !open.live).unwrap().id;
            let transaction = other.resume(detached).unwrap();
            fails.store(true, Ordering::SeqCst);
            assert!(matches!(transaction.keep(), Err(Error::StageLost { .. })));
        }
        None
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let detached = BeginOptions::default().detached(true);
    drop(store.begin(detached.clone()).unwrap());
    let copied = store.begin(detached.from(Basis::Copy));
    assert!(matches!(copied, Err(Error::StageLost { .. })), "{copied:?}");
    drop(copied);
    assert_eq!(store.transactions().unwrap(), []);
}

/// Also one that comes after a commit, whichever way it is passed.
#[test]
fn a_barrier_2_that_fails_concerns_every_stage_that_is_open() {
    for barriers in [Barriers::Whole, Barriers::Single] {
        let (_dir, out) = scratch();
        let armed = Arc::new(AtomicBool::new(false));
        let fails = armed.clone();
        let kernel = Faulty::new(move |call| {
            let is_barrier = matches!(call, Call::SyncDir { .. } | Call::SyncFs);
            (is_barrier && fails.load(Ordering::SeqCst)).then_some(Errno::EIO)
        });
        let store = Store::open_with(&OpenOptions::with(kernel).barriers(barriers), &out).unwrap();
        publish(&store, &[("a", "one")]).unwrap();
        let open = store.begin(BeginOptions::default().detached(true)).unwrap().id();
        publish(&store, &[("a", "two")]).unwrap();
        armed.store(true, Ordering::SeqCst);
        store.sweep().unwrap_err();
        assert!(Store::open(&out).unwrap().resume(open).is_err(), "{barriers:?}");
    }
}
