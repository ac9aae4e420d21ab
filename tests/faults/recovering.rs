//! Calls that fail while a commit is recovered or undone: it is whole, or said to be unfinished.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use txfs::{Basis, BeginOptions, Error, ErrorKind, OpenOptions, Outcome, RecoverOptions, RecoveredCommit, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::snapshot;
use txfs_testing::{lenient, publish, read, scratch, state_of};

use super::{OLD, armed, cut_short, expected, fill, left, publish_old, recovers_to};

#[test]
fn recovery_that_meets_an_error_is_whole_or_says_so() {
    let [old, new] = expected();
    let mut seen = [0; 3];
    for undoing in [false, true] {
        for call in ["stat", "open_dir", "list", "read", "boot"] {
            for n in 0.. {
                let (_dir, out) = scratch();
                publish(&Store::open(&out).unwrap(), &OLD).unwrap();
                cut_short(&out, BeginOptions::default(), 2, undoing);
                let fired = Arc::new(AtomicBool::new(false));
                let (count, met) = (AtomicUsize::new(0), fired.clone());
                let kernel = Faulty::new(move |asked| {
                    let this = *asked == Call::Read(call) && count.fetch_add(1, Ordering::SeqCst) == n;
                    met.fetch_or(this, Ordering::SeqCst);
                    this.then_some(Errno::EIO)
                });
                let recovered = Store::open_with(&OpenOptions::with(kernel), &out);
                if !fired.load(Ordering::SeqCst) {
                    break;
                }
                let now = snapshot(&out);
                match recovered {
                    Ok(_) if now == new => seen[0] += 1,
                    Ok(_) => {
                        assert_eq!(now, old, "{call} {n}: recovered, and neither old nor new");
                        seen[1] += 1;
                    }
                    Err(_) => seen[2] += 1,
                }
                Store::open(&out).unwrap();
                let now = snapshot(&out);
                assert!(now == old || now == new && !undoing, "{call} {n}: {now:?}");
            }
        }
    }
    println!("rolled forward, back, failed: {seen:?}");
    assert!(seen.iter().all(|seen| *seen > 5), "{seen:?}");
}

#[test]
fn a_commit_that_recovery_cannot_carry_out_is_unfinished_until_it_can_or_is_undone() {
    let [old, new] = expected();
    for undo in [false, true] {
        let (_dir, out) = scratch();
        publish_old(&Store::open(&out).unwrap());
        cut_short(&out, BeginOptions::default(), 2, false);
        let kernel =
            Faulty::new(|call| matches!(call, Call::Rename { name, .. } if name == b"z.html").then_some(Errno::EACCES));
        for _ in 0..2 {
            let error = Store::open_with(&OpenOptions::with(kernel.clone()), &out).unwrap_err();
            assert!(matches!(error, Error::Unfinished { generation: 2, .. }), "{error}");
            assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unknown, Outcome::Unknown), "{error}");
            let hint = error.hint().unwrap();
            assert!(hint.contains("recover ") && hint.contains("RecoverOptions::undo"), "{hint}");
            // Whoever made it may have been told of success: nothing is undone that was not asked for.
            assert_eq!((read(&out, "b"), read(&out, "z.html")), ("new!".into(), "old".into()));
            assert_eq!(left(&out, &["journal", "journal.undo"]), ["journal"]);
        }
        let store = Store::open_with(&OpenOptions::default().recover(false), &out).unwrap();
        let recovered = if undo {
            store.recover(RecoverOptions::default().undo(true))
        } else {
            store.recover(RecoverOptions::default())
        }
        .unwrap();
        if undo {
            assert_eq!(recovered.commit, Some(RecoveredCommit::RolledBack { generation: 2 }));
        } else {
            let forward = matches!(recovered.commit, Some(RecoveredCommit::RolledForward { generation: 2, .. }));
            assert!(forward, "{recovered:?}");
        }
        recovers_to(&out, if undo { &old } else { &new }, &format!("undo: {undo}"));
    }
}

#[test]
fn an_undoing_that_was_asked_for_and_dies_at_any_call_is_whole() {
    let [old, new] = expected();
    let (mut back, mut forward) = (0, 0);
    for n in 0.. {
        let (_dir, out) = scratch();
        publish_old(&Store::open(&out).unwrap());
        cut_short(&out, BeginOptions::default(), 3, false);
        let count = AtomicUsize::new(0);
        let (kernel, arm) = armed(move |_| (count.fetch_add(1, Ordering::SeqCst) >= n).then_some(Errno::EIO));
        let store = Store::open_with(&OpenOptions::with(kernel).recover(false), &out).unwrap();
        arm.store(true, Ordering::SeqCst);
        let undone = store.recover(RecoverOptions::default().undo(true));
        let intended = state_of(&out).join("journal.undo").exists();
        Store::open(&out).unwrap_or_else(|error| panic!("dead at call {n}: {undone:?}: {error}"));
        let after = snapshot(&out);
        // Until undoing is intended the commit is what it was: one that recovery carries out.
        let expected = if undone.is_ok() || intended { &old } else { &new };
        assert!(after == *expected || after == old, "dead at call {n}: {undone:?}: {after:?}");
        *(if after == old { &mut back } else { &mut forward }) += 1;
        recovers_to(&out, &after, &format!("dead at call {n}"));
        if undone.is_ok_and(|undone| undone.warnings.is_empty()) {
            break;
        }
    }
    assert!(back > 5 && forward > 5, "{back} times undone, {forward} times carried out");
}

#[test]
fn a_commit_that_was_undone_is_known_to_be_so() {
    let [old, _] = expected();
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &OLD).unwrap();
    let undone = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| match call {
        Call::Rename { name, .. } if name == b"z.html" && !undone.load(Ordering::SeqCst) => Some(Errno::EIO),
        Call::Rename { new_name, .. } if new_name == b"journal.undo" => {
            undone.store(true, Ordering::SeqCst);
            None
        }
        // What only tidies up.
        Call::RemoveFile { name } if name == b"HEAD.new" && undone.load(Ordering::SeqCst) => Some(Errno::EIO),
        _ => None,
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    assert_eq!(transaction.commit(&lenient()).unwrap_err().outcome(), Outcome::Unchanged);
    assert_eq!(snapshot(&out), old);
}

#[test]
fn a_commit_that_recovery_undid_can_be_committed_as_it_was_staged() {
    let [old, new] = expected();
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &OLD).unwrap();
    cut_short(&out, BeginOptions::default().detached(true), 2, true);
    let store = Store::open(&out).unwrap();
    assert_eq!(snapshot(&out), old);
    let open = store.transactions().unwrap().remove(0);
    store.resume(open.id).unwrap().commit(&lenient()).unwrap();
    assert_eq!(snapshot(&out), new, "the read-only directory too");
}

/// A commit that is taken back leaves its base current: nothing would tell that half of it had been copied.
#[test]
fn no_half_of_a_commit_is_copied_that_is_taken_back() {
    const FILES: [&str; 4] = ["a", "b", "c", "z"];
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &FILES.map(|path| (path, "old"))).unwrap();
    Store::open(&out).unwrap().sweep().unwrap();
    let (begins, begun) = std::sync::mpsc::channel();
    let (half_done, is_half_done) = std::sync::mpsc::channel();
    let (copied, is_copied) = std::sync::mpsc::channel();
    let (is_half_done, is_copied) = (Mutex::new(is_half_done), Mutex::new(is_copied));
    let first = AtomicBool::new(true);
    let copying = Faulty::new(move |call| {
        if matches!(call, Call::CreateFile { name } if name == b"a") && first.swap(false, Ordering::SeqCst) {
            begins.send(()).unwrap();
            // The other waits for the lock, or is half done.
            let _ = is_half_done.lock().unwrap().recv_timeout(std::time::Duration::from_millis(200));
        }
        None
    });
    let first = AtomicBool::new(true);
    let failing = Faulty::new(move |call| {
        let last = matches!(call, Call::Rename { name, .. } if name == b"z");
        (last && first.swap(false, Ordering::SeqCst)).then(|| {
            let _ = half_done.send(());
            is_copied.lock().unwrap().recv().unwrap();
            Errno::EIO
        })
    });
    let at = out.clone();
    let other = std::thread::spawn(move || {
        begun.recv().unwrap();
        let store = Store::open_with(&OpenOptions::with(failing).recover(false), &at).unwrap();
        let error = publish(&store, &FILES.map(|path| (path, "new"))).unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    });
    let store = Store::open_with(&OpenOptions::with(copying), &out).unwrap();
    let transaction = store.begin(BeginOptions::default().from(Basis::Copy)).unwrap();
    copied.send(()).unwrap();
    other.join().unwrap();
    assert_eq!(FILES.map(|path| read(&transaction.stage(), path)), ["old"; 4]);
}
