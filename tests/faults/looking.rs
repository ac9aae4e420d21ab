//! Calls that fail while something is only looked at: nothing is taken for gone, open or damaged because of that.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::errno::Errno;
use txfs::{Basis, BeginOptions, Error, OpenOptions, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::{Node, snapshot};
use txfs_testing::{publish, scratch, state_of};

use super::{NEW, OLD, armed, fill, nth};

#[test]
fn what_cannot_be_read_for_an_instant_is_neither_damaged_nor_somebody_elses() {
    const LIMIT: usize = 200;
    // Sweeping reads HEAD, the journals of what two commits displaced and the manifest before them; and lists all of it.
    for call in ["read", "list"] {
        let mut failed = 0;
        for n in 0..LIMIT {
            let (_dir, out) = scratch();
            publish(&Store::open(&out).unwrap(), &OLD).unwrap();
            let store = Store::open(&out).unwrap();
            publish(&store, &NEW).unwrap();
            let (kernel, arm) = nth(n, move |asked| *asked == Call::Read(call), Errno::EIO);
            let faulty = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
            arm.store(true, Ordering::SeqCst);
            let swept = faulty.sweep();
            arm.store(false, Ordering::SeqCst);
            assert!(!state_of(&out).join("rescued").exists(), "{call} {n}");
            match swept {
                Ok(_) => {}
                Err(Error::Io { .. }) => failed += 1,
                Err(error) => panic!("{call} {n}: {error}"),
            }
            store.sweep().unwrap();
            txfs_testing::assert_only_the_last_is_kept(&out);
        }
        assert!((3..LIMIT).contains(&failed), "{call} failed {failed} times");
    }
}

#[test]
fn a_transaction_outlives_a_look_at_the_boot_that_fails() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
    let id = transaction.id();
    drop(transaction);
    for errno in [Errno::EIO, Errno::EMFILE, Errno::ENOENT, Errno::EACCES] {
        let kernel = Faulty::new(move |call| (*call == Call::Read("boot")).then_some(errno));
        match Store::open_with(&OpenOptions::with(kernel), &out).and_then(|store| store.resume(id).map(drop)) {
            Ok(()) | Err(Error::Io { .. }) => {}
            Err(error) => panic!("{errno}: {error}"),
        }
        assert_eq!(store.transactions().unwrap().len(), 1, "{errno}");
    }
}

#[test]
fn a_part_of_a_stage_is_never_found_open() {
    // Removing a stage, and filling one with a copy, fail at each step; dropping the failed copy fails, too.
    for (from, call) in [(Basis::Empty, "remove_file"), (Basis::Copy, "create_file"), (Basis::Copy, "write")] {
        let mut failed = 0;
        for n in 0..12 {
            let (_dir, out) = scratch();
            publish(&Store::open(&out).unwrap(), &OLD).unwrap();
            Store::open(&out).unwrap().sweep().unwrap();
            let count = AtomicUsize::new(0);
            let (kernel, arm) = armed(move |asked| {
                let dead = count.load(Ordering::SeqCst) > n;
                let counted = asked.is(call) && count.fetch_add(1, Ordering::SeqCst) == n;
                (dead || counted).then_some(Errno::EIO)
            });
            let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
            let result = match from {
                Basis::Copy => {
                    arm.store(true, Ordering::SeqCst);
                    store.begin(BeginOptions::default().from(from).detached(true)).map(drop)
                }
                _ => {
                    let mut transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
                    fill(&mut transaction);
                    arm.store(true, Ordering::SeqCst);
                    transaction.abort()
                }
            };
            arm.store(false, Ordering::SeqCst);
            failed += usize::from(result.is_err());
            drop(store);
            let store = Store::open(&out).unwrap();
            for open in store.transactions().unwrap() {
                let staged = snapshot(&open.stage).values().filter(|node| matches!(node, Node::File { .. })).count();
                assert_eq!(staged, 4, "{call} {n}: a part of a stage is open");
            }
        }
        assert!((2..12).contains(&failed), "{call} failed {failed} times");
    }
}

/// Whoever lists transactions takes no lock.
#[test]
fn a_transaction_that_ends_while_it_is_listed_is_no_error() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "a")]).unwrap();
    let stage = store.begin(BeginOptions::default()).unwrap().keep().unwrap();
    let (meta, armed) = (stage.with_file_name("meta"), Arc::new(AtomicBool::new(false)));
    let (ends, listing) = (meta.clone(), armed.clone());
    let kernel = Faulty::new(move |call| {
        if *call == Call::Read("open_file") && listing.load(Ordering::SeqCst) {
            let _ = fs::remove_file(&ends);
        }
        None
    });
    let store = Store::find(&OpenOptions::with(kernel), &out).unwrap().unwrap();
    armed.store(true, Ordering::SeqCst);
    assert_eq!(store.transactions().unwrap(), []);
    assert!(!meta.exists());
}

#[test]
fn a_stage_that_cannot_be_looked_for_is_not_said_to_be_gone() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let transaction = store.begin(BeginOptions::default()).unwrap().keep().unwrap();
    let kernel = Faulty::new(|call| (*call == Call::Read("resolve")).then_some(Errno::EIO));
    assert!(matches!(Store::parse_stage(&OpenOptions::with(kernel), &transaction), Err(Error::Io { .. })));
    assert!(Store::parse_stage(&OpenOptions::default(), &transaction).unwrap().is_some());
    let gone = out.with_file_name(".other.txfs/tx/00ff00ff00ff00ff/stage");
    assert!(Store::parse_stage(&OpenOptions::default(), &gone).unwrap().is_none());
}

#[test]
fn making_a_store_can_be_tried_again_wherever_it_failed() {
    for call in ["create_file", "make_dir", "write", "remove_file"] {
        for n in 0..12 {
            let (_dir, out) = scratch();
            let (kernel, arm) = nth(n, move |asked| asked.is(call), Errno::EIO);
            arm.store(true, Ordering::SeqCst);
            let _ = Store::open_with(&OpenOptions::with(kernel), &out);
            publish(&Store::open(&out).unwrap_or_else(|error| panic!("{call} {n}: {error}")), &OLD).unwrap();
        }
    }
}

#[test]
fn a_probe_that_is_denied_says_nothing_about_the_file_system() {
    let (_dir, out) = scratch();
    let (kernel, arm) = nth(0, |call| matches!(call, Call::Rename { name, .. } if name == b"one"), Errno::EACCES);
    arm.store(true, Ordering::SeqCst);
    assert!(Store::open_with(&OpenOptions::with(kernel), &out).is_err());
    assert!(Store::open(&out).unwrap().capabilities().exchange);
}
