//! Barriers of one `fsync` for each thing: what they cover, and what becomes of a commit of which one fails.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use txfs::{Barriers, BeginOptions, Error, OpenOptions, Outcome, RecoverOptions, Store, Transaction};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::snapshot;
use txfs_testing::{lenient, read, scratch, state_of};

use super::{OF_A_COMMIT, armed, begin_new, fill, ino, left, nth, publish_old};

/// What each synced inode was, in order, and the renames between: of a commit, and of settling it.
fn synced_one_by_one(out: &Path, fill: impl FnOnce(&mut Transaction<Faulty>)) -> [Vec<Call>; 2] {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let seen = calls.clone();
    let (kernel, arm) = armed(move |call| {
        let told = matches!(call, Call::SyncFile { .. } | Call::SyncDir { .. } | Call::SyncFs | Call::Rename { .. });
        if told {
            seen.lock().unwrap().push(call.clone());
        }
        None
    });
    let store = Store::open_with(&OpenOptions::with(kernel).barriers(Barriers::Single), out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    arm.store(true, Ordering::SeqCst);
    transaction.commit(&lenient()).unwrap();
    let committed = std::mem::take(&mut *calls.lock().unwrap());
    store.recover(RecoverOptions::default()).unwrap();
    arm.store(false, Ordering::SeqCst);
    let settled = std::mem::take(&mut *calls.lock().unwrap());
    [committed, settled]
}

fn is_sync(call: &Call) -> bool {
    matches!(call, Call::SyncFile { .. } | Call::SyncDir { .. } | Call::SyncFs)
}

#[test]
fn one_by_one_all_that_the_journal_names_is_synced_before_it_has_its_name_and_what_was_done_before_it_is_retired() {
    let (_dir, out) = scratch();
    publish_old(&Store::open(&out).unwrap());
    let state = state_of(&out);
    let mut directories = vec![ino(&state), ino(&state.join("manifests")), ino(&state.join("tx"))];
    let [committed, settled] = synced_one_by_one(&out, |transaction| {
        fill(transaction);
        let stage = transaction.stage();
        let transaction = stage.parent().unwrap();
        directories.extend([ino(&stage), ino(&stage.join("fresh")), ino(transaction)]);
    });
    let named = |call: &Call| matches!(call, Call::Rename { new_name, .. } if new_name == b"journal");
    let (before, after) = committed.split_at(committed.iter().position(named).unwrap());
    let files: Vec<u64> = ["a", "b", "fresh/y", "z.html"].map(|path| ino(&out.join(path))).into();
    let own = ["HEAD", "manifests/2", "previous/2/journal"].map(|path| ino(&state.join(path)));
    for ino in files.into_iter().chain(own) {
        assert!(before.contains(&Call::SyncFile { ino }), "{before:?}");
    }
    for ino in directories {
        assert!(before.contains(&Call::SyncDir { ino }), "{before:?}");
    }
    assert_eq!(before.len(), 7 + 6, "nothing else: {before:?}");
    assert!(!after.iter().any(is_sync), "the caller waits for one barrier: {after:?}");
    let applied = after.iter().position(|call| matches!(call, Call::Rename { new_name, .. } if new_name == b"HEAD"));
    let shelved = after.iter().position(|call| matches!(call, Call::Rename { new_name, .. } if new_name == b"2"));
    assert!(applied.unwrap() < shelved.unwrap(), "{after:?}");
    let (retired, synced) = settled.split_last().unwrap();
    assert!(named(retired), "what comes last retires the journal: {settled:?}");
    let previous = state.join("previous/2");
    let ends = [
        state.clone(),
        out.parent().unwrap().to_path_buf(),
        out.clone(),
        out.join("fresh"),
        previous.join("stage"),
        previous.join("removed"),
        state.join("previous"),
        state.join("tx"),
    ];
    for end in &ends {
        assert!(synced.contains(&Call::SyncDir { ino: ino(end) }), "{}: {synced:?}", end.display());
    }
    assert_eq!(synced.len(), ends.len(), "nothing else: {synced:?}");
}

#[test]
fn an_error_of_any_fsync_before_the_commit_point_discards_the_stage() {
    let mut fired = 0;
    for n in 0.. {
        let (_dir, out) = scratch();
        publish_old(&Store::open(&out).unwrap());
        let before = snapshot(&out);
        let (count, named) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (kernel, arm) = armed(move |call| {
            named.fetch_or(matches!(call, Call::Rename { .. }), Ordering::SeqCst);
            let hit = is_sync(call) && !named.load(Ordering::SeqCst) && count.fetch_add(1, Ordering::SeqCst) == n;
            hit.then_some(Errno::EIO)
        });
        let options = OpenOptions::with(kernel).barriers(Barriers::Single);
        let store = Store::open_with(&options, &out).unwrap();
        let mut transaction = begin_new(&store, BeginOptions::default());
        arm.store(true, Ordering::SeqCst);
        let Err(error) = transaction.commit(&lenient()) else { break };
        assert!(matches!(error, Error::StageLost { .. }), "fsync {n}: {error}");
        assert_eq!((error.outcome(), snapshot(&out)), (Outcome::Unchanged, before), "fsync {n}");
        assert!(!transaction.stage().exists(), "fsync {n}");
        assert_eq!(left(&out, &OF_A_COMMIT), [""; 0], "fsync {n}");
        fired += 1;
    }
    assert_eq!(fired, 13);
}

#[test]
fn an_error_of_any_fsync_after_the_operations_is_an_error_of_settling_and_the_journal_stays() {
    let mut fired = 0;
    for n in 0.. {
        let (_dir, out) = scratch();
        publish_old(&Store::open(&out).unwrap());
        let (kernel, arm) = nth(n, is_sync, Errno::EIO);
        let options = OpenOptions::with(kernel).barriers(Barriers::Single);
        let store = Store::open_with(&options, &out).unwrap();
        begin_new(&store, BeginOptions::default()).commit(&lenient()).unwrap();
        arm.store(true, Ordering::SeqCst);
        let Err(error) = store.begin(BeginOptions::default()) else { break };
        assert!(matches!(error, Error::Io { .. }), "fsync {n}: {error}");
        assert_eq!(left(&out, &["journal", "previous/2/journal"]), ["journal"], "fsync {n}");
        assert!(Store::open(&out).unwrap().verify().unwrap().is_empty(), "fsync {n}");
        assert_eq!(read(&out, "a"), "new!", "fsync {n}");
        fired += 1;
    }
    assert_eq!(fired, 8);
}
