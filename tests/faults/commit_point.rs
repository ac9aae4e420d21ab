//! Calls that fail before the commit point, or at it: nothing is published, or nobody can tell, and the caller is told which.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use txfs::{Barriers, BeginOptions, Error, OpenOptions, Outcome, RecoverOptions, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::snapshot;
use txfs_testing::{change_a_byte, lenient, publish, read, scratch, state_of};

use super::{
    Medium, OF_A_COMMIT, OLD, armed, assert_taken_back, begin_new, expected, fill, left, noting, nth, publish_old,
    recovers_to,
};

#[test]
fn a_staged_file_that_grows_while_it_is_read_refuses_the_commit_until_the_build_has_finished() {
    let (_dir, out) = scratch();
    let grows: Arc<Mutex<Option<PathBuf>>> = Arc::default();
    let growing = grows.clone();
    let kernel = Faulty::new(move |call| {
        if let (Call::Read("read"), Some(path)) = (call, &*growing.lock().unwrap()) {
            let longer = [fs::read(path).unwrap(), b"more".to_vec()].concat();
            fs::write(path, longer).unwrap();
        }
        None
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish_old(&store);
    let mut transaction = begin_new(&store, BeginOptions::default());
    let growing = transaction.stage().join("by-a-tool");
    fs::write(&growing, "the beginning").unwrap();
    *grows.lock().unwrap() = Some(growing);
    let error = transaction.commit(&lenient()).unwrap_err();
    let said = format!("{error:?}");
    assert!(said.contains("by-a-tool") && said.contains("is being written to"), "{said}");
    assert_eq!(read(&out, "a"), "old");
    *grows.lock().unwrap() = None;
    transaction.commit(&lenient()).unwrap();
    assert!(read(&out, "by-a-tool").starts_with("the beginningmore"));
}

#[test]
fn a_failed_barrier_at_the_commit_point_takes_the_journal_back_and_discards_the_stage() {
    let (_dir, out) = scratch();
    let (kernel, arm, calls) = noting(0, |call| *call == Call::SyncFs);
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish_old(&store);
    let before = snapshot(&out);
    let mut transaction = begin_new(&store, BeginOptions::default());
    arm.store(true, Ordering::SeqCst);
    let error = transaction.commit(&lenient()).unwrap_err();
    assert!(matches!(error, Error::StageLost { .. }), "{error}");
    assert_eq!((error.outcome(), snapshot(&out)), (Outcome::Unchanged, before.clone()));
    assert_eq!(left(&out, &OF_A_COMMIT), [""; 0]);
    ["HEAD.new", "meta"].iter().for_each(|then| assert_taken_back(&calls.lock().unwrap(), &out, then));
    assert!(transaction.commit(&lenient()).is_err(), "an fsync is never retried");
    assert!(!transaction.stage().exists());
    drop(transaction);
    let store = Store::open_with(&OpenOptions::default().recover(false), &out).unwrap();
    assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing());
    assert_eq!(snapshot(&out), before);
}

#[test]
fn a_journal_that_does_not_get_its_name_is_taken_back_and_can_be_committed_again() {
    let [old, new] = expected();
    let (_dir, out) = scratch();
    let named = |call: &Call| matches!(call, Call::Rename { new_name, .. } if new_name == b"journal");
    let (kernel, arm, calls) = noting(0, named);
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish_old(&store);
    let mut transaction = begin_new(&store, BeginOptions::default());
    arm.store(true, Ordering::SeqCst);
    let error = transaction.commit(&lenient()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert_eq!((error.outcome(), snapshot(&out)), (Outcome::Unchanged, old));
    assert_eq!(left(&out, &OF_A_COMMIT), [""; 0]);
    assert_taken_back(&calls.lock().unwrap(), &out, "HEAD.new");
    transaction.commit(&lenient()).unwrap();
    assert_eq!(snapshot(&out), new);
}

#[test]
fn a_journal_that_cannot_be_taken_back_is_an_unknown_outcome_and_recovery_asks_the_medium() {
    let [old, new] = expected();
    let remove = |call: &Call| matches!(call, Call::RemoveFile { name } if name == b"journal.new");
    let sync = |call: &Call| matches!(call, Call::SyncDir { .. });
    type Fails = fn(&Call) -> bool;
    let cases: [(Fails, &[&str], Medium, _); 3] = [
        (remove, &["journal.new"], Medium::Whole, &new),
        (remove, &["journal.new"], Medium::Lacks, &old),
        // Gone it is, and may come back.
        (sync, &[], Medium::Whole, &old),
    ];
    for (fails, stays, medium, expected) in cases {
        let what = format!("{stays:?} stays, {medium:?}");
        let (_dir, out) = scratch();
        let failed = AtomicBool::new(false);
        let (kernel, arm) = armed(move |call| {
            let barrier = *call == Call::SyncFs && !failed.swap(true, Ordering::SeqCst);
            (barrier || failed.load(Ordering::SeqCst) && fails(call)).then_some(Errno::EIO)
        });
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        publish_old(&store);
        let mut transaction = begin_new(&store, BeginOptions::default());
        arm.store(true, Ordering::SeqCst);
        let error = transaction.commit(&lenient()).unwrap_err();
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{what}: {error}");
        assert_eq!((error.outcome(), snapshot(&out)), (Outcome::Unknown, old.clone()), "{what}");
        assert_eq!(left(&out, &["journal.new", "journal"]), stays, "{what}");
        assert!(transaction.commit(&lenient()).is_err(), "{what}: it belongs to recovery");
        let stage = transaction.stage();
        drop(transaction);
        drop(store);
        if medium == Medium::Lacks {
            change_a_byte(&stage.join("fresh/y"));
        }
        recovers_to(&out, expected, &what);
    }
}

#[test]
fn an_unknown_outcome_keeps_what_recovery_needs_when_the_transaction_is_dropped() {
    let [old, new] = expected();
    // The commit point is passed, an operation fails, and so does undoing: every barrier and rename from there on.
    let (_dir, out) = scratch();
    let failing = Arc::new(AtomicBool::new(false));
    let (seen, undo) = (failing.clone(), b"journal.undo".to_vec());
    let (kernel, arm) = armed(move |call| match call {
        Call::Rename { name, .. } if name == b"z.html" => Some(Errno::EIO),
        Call::Rename { new_name, .. } if *new_name == undo => {
            seen.store(true, Ordering::SeqCst);
            None
        }
        Call::Rename { .. } | Call::SyncFs if seen.load(Ordering::SeqCst) => Some(Errno::EIO),
        _ => None,
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish(&store, &OLD).unwrap();
    arm.store(true, Ordering::SeqCst);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    let error = transaction.commit(&lenient()).unwrap_err();
    assert!(failing.load(Ordering::SeqCst) && error.outcome() == Outcome::Unknown, "{error}");
    drop(transaction);
    let store = Store::open(&out).unwrap();
    assert_eq!(snapshot(&out), old, "rolled back");
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    transaction.commit(&lenient()).unwrap();
    assert_eq!(snapshot(&out), new);
}

/// Every changing call of a commit fails once, with each of a few errors. Then the outcome is what was said, the same
/// transaction can be committed where it is still open, and recovery leaves exactly the old or the new generation.
#[test]
fn whichever_call_fails_the_caller_is_told_the_truth() {
    [Barriers::Whole, Barriers::Single].into_iter().for_each(whichever_call_fails);
}

fn whichever_call_fails(barriers: Barriers) {
    let [old, new] = expected();
    let (mut fired, mut committed, mut unchanged, mut unknown) = (0, 0, 0, 0);
    for errno in [Errno::EIO, Errno::ENOSPC, Errno::EACCES, Errno::EROFS] {
        for n in 0.. {
            let (_dir, out) = scratch();
            let hit = Arc::new(AtomicBool::new(false));
            let (count, seen) = (AtomicUsize::new(0), hit.clone());
            let (kernel, arm) = armed(move |_| {
                let this = count.fetch_add(1, Ordering::SeqCst) == n;
                seen.fetch_or(this, Ordering::SeqCst);
                this.then_some(errno)
            });
            let store = Store::open_with(&OpenOptions::with(kernel).barriers(barriers), &out).unwrap();
            publish(&store, &OLD).unwrap();
            let mut transaction = store.begin(BeginOptions::default()).unwrap();
            fill(&mut transaction);
            arm.store(true, Ordering::SeqCst);
            let result = transaction.commit(&lenient());
            arm.store(false, Ordering::SeqCst);
            let at = format!("{errno} at call {n}: {result:?}");
            match &result {
                Ok(_) => {
                    committed += 1;
                    assert_eq!(snapshot(&out), new, "{at}");
                }
                Err(error) if error.outcome() == Outcome::Unchanged => {
                    unchanged += 1;
                    assert_eq!(snapshot(&out), old, "{at}");
                    if !matches!(error, Error::StageLost { .. }) {
                        transaction.commit(&lenient()).unwrap_or_else(|error| panic!("{at}: again: {error}"));
                        assert_eq!(snapshot(&out), new, "again after {at}");
                    }
                }
                Err(_) => unknown += 1,
            }
            drop(transaction);
            let store = Store::open(&out).unwrap_or_else(|error| panic!("{at}: {error}"));
            let after = snapshot(&out);
            assert!(after == old || after == new, "{at}: {after:?}");
            assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing(), "{at}");
            publish(&store, &[("next", "n")]).unwrap_or_else(|error| panic!("{at}: next: {error}"));
            assert_eq!((fs::read_dir(&out).unwrap().count(), read(&out, "next")), (1, "n".into()));
            if !hit.load(Ordering::SeqCst) {
                break;
            }
            fired += 1;
        }
    }
    println!("{barriers:?}, {fired} failures: {committed} committed, {unchanged} unchanged, {unknown} unknown");
    assert!(fired >= 100, "{fired}");
}

#[test]
fn a_refused_commit_leaves_the_stage_as_it_was() {
    let (_dir, out) = scratch();
    let (kernel, arm) =
        nth(0, |call| matches!(call, Call::Rename { name, .. } if name == b"journal.new"), Errno::ENOSPC);
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish(&store, &OLD).unwrap();
    arm.store(true, Ordering::SeqCst);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    transaction.commit(&lenient()).unwrap_err();
    assert_eq!(fs::metadata(transaction.stage().join("fresh")).unwrap().mode() & 0o7777, 0o555);
}

/// Barrier 1 fails, and so does making durable that the journal is gone. The transaction is a detached one.
#[test]
fn a_stage_whose_barrier_failed_cannot_be_committed_again_where_its_journal_could_not_be_withdrawn() {
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &[("a", "old")]).unwrap();
    Store::open(&out).unwrap();
    let armed = Arc::new(AtomicBool::new(false));
    let on = armed.clone();
    let kernel = Faulty::new(move |call| {
        (on.load(Ordering::SeqCst) && matches!(call, Call::SyncFs | Call::SyncDir { .. })).then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
    let id = transaction.id();
    transaction.write("a", "new").unwrap();
    armed.store(true, Ordering::SeqCst);
    assert_eq!(transaction.commit(&lenient()).unwrap_err().outcome(), Outcome::Unknown);
    drop(transaction);
    let store = Store::open(&out).unwrap();
    assert_eq!(read(&out, "a"), "old");
    assert!(store.resume(id).is_err(), "an fsync is never retried: the kernel forgets the error");
}

/// Recovery finds that the medium lacks something and removes the journal; then it fails, or is killed.
#[test]
fn a_stage_that_the_medium_lacks_cannot_be_committed_again_wherever_discarding_it_failed() {
    for n in 0.. {
        let (_dir, out) = scratch();
        publish(&Store::open(&out).unwrap(), &[("a", "old")]).unwrap();
        let dead = AtomicBool::new(false);
        let kernel = Faulty::new(move |call| {
            dead.fetch_or(matches!(call, Call::Rename { name, .. } if name == b"journal.new"), Ordering::SeqCst);
            dead.load(Ordering::SeqCst).then_some(Errno::EIO)
        });
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
        let id = transaction.id();
        transaction.write("a", "new").unwrap();
        transaction.commit(&lenient()).unwrap_err();
        change_a_byte(&transaction.stage().join("a"));
        drop(transaction);
        let count = AtomicUsize::new(0);
        let kernel = Faulty::new(move |call| {
            let changes = !matches!(call, Call::Read(_));
            (changes && count.fetch_add(1, Ordering::SeqCst) >= n).then_some(Errno::EIO)
        });
        let store = Store::open_with(&OpenOptions::with(kernel).recover(false), &out).unwrap();
        let done = store.recover(RecoverOptions::default()).is_ok_and(|recovered| recovered.warnings.is_empty());
        let store = Store::open(&out).unwrap();
        assert!(store.resume(id).is_err(), "dead at call {n}: the damaged stage is open");
        if done {
            break;
        }
    }
}

/// The settled journal cannot be moved (a warning); the commit goes on, and at its own failure takes that journal away.
#[test]
fn the_journal_of_the_commit_before_is_never_lost_by_the_next_commit() {
    for named in [false, true] {
        let (_dir, out) = scratch();
        let armed = Arc::new(AtomicBool::new(false));
        let on = armed.clone();
        let kernel = Faulty::new(move |call| {
            let Call::Rename { name, .. } = call else { return None };
            let fails = name == b"journal" || !named && name == b"journal.new";
            (on.load(Ordering::SeqCst) && fails).then_some(Errno::EIO)
        });
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        publish(&store, &[("a", "1"), ("gone", "1")]).unwrap();
        publish(&store, &[("a", "2")]).unwrap();
        armed.store(true, Ordering::SeqCst);
        let result = publish(&store, &[("a", "3")]);
        armed.store(false, Ordering::SeqCst);
        let what = format!("named: {named}: {:?}", result.map(|committed| committed.generation));
        let store = Store::open(&out).unwrap();
        for content in ["4", "5"] {
            publish(&store, &[("a", content)]).unwrap();
        }
        assert!(!state_of(&out).join("rescued").exists(), "{what}: what is ours was moved aside as somebody else's");
    }
}

/// A look for `journal.new` after everything was carried out.
#[test]
fn an_error_that_says_unchanged_is_not_told_after_recovery_has_changed_the_output() {
    for n in 0.. {
        let (_dir, out) = scratch();
        publish(&Store::open(&out).unwrap(), &[("a", "old"), ("b", "old")]).unwrap();
        let dead = AtomicBool::new(false);
        let kernel = Faulty::new(move |call| {
            dead.fetch_or(matches!(call, Call::Rename { name, .. } if name == b"b"), Ordering::SeqCst);
            dead.load(Ordering::SeqCst).then_some(Errno::EIO)
        });
        publish(&Store::open_with(&OpenOptions::with(kernel), &out).unwrap(), &[("a", "new"), ("b", "new")])
            .unwrap_err();
        let (count, hit) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
        let met = hit.clone();
        let kernel = Faulty::new(move |call| {
            let this = *call == Call::Read("stat") && count.fetch_add(1, Ordering::SeqCst) == n;
            met.fetch_or(this, Ordering::SeqCst);
            this.then_some(Errno::EIO)
        });
        let recovered = Store::open_with(&OpenOptions::with(kernel).recover(false), &out)
            .and_then(|store| store.recover(RecoverOptions::default()));
        if let Err(error) = recovered {
            let unchanged = read(&out, "b") == "old";
            assert!(
                unchanged || error.outcome() == Outcome::Unknown,
                "stat {n}: {error}, and the output is the new one"
            );
        }
        if !hit.load(Ordering::SeqCst) {
            break;
        }
    }
}

/// What was committed is in a directory that is the output no more: that is no success.
#[test]
fn an_output_that_is_replaced_while_it_is_published_is_not_reported_as_published() {
    for replace in [false, true] {
        let (_dir, out) = scratch();
        let away = out.with_extension("away");
        let (from, to) = (out.clone(), away.clone());
        let (kernel, arm) = armed(move |call| {
            let is_last = matches!(call, Call::Rename { name, .. } if name == b"z.html");
            if is_last && !to.exists() {
                fs::rename(&from, &to).unwrap();
                if replace {
                    fs::create_dir(&from).unwrap();
                }
            }
            None
        });
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        publish_old(&store);
        let mut transaction = begin_new(&store, BeginOptions::default());
        arm.store(true, Ordering::SeqCst);
        let error = transaction.commit(&lenient()).unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
        assert!(error.to_string().contains("moved or replaced while it was published"), "{error}");
        assert_eq!(read(&away, "z.html"), "new!");
    }
}
