//! Calls that fail while a commit is under way: what the caller is told is the truth, and recovery finds everything it needs.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::faulty::{Call, Faulty};
use common::tree::{Node, snapshot};
use common::{Scratch, lenient, publish, read, state_of};
use nix::errno::Errno;
use txfs::fs::linux::Without;
use txfs::fs::{Fs, LinuxFs};
use txfs::{Barriers, BeginOptions, Error, From, OpenOptions, Outcome, Store, Transaction};

fn scratch() -> (Scratch, PathBuf) {
    let dir = common::fast_scratch();
    let out = dir.path().join("dist");
    (dir, out)
}

/// A rule that is off until it is armed.
fn armed(rule: impl Fn(&Call) -> Option<Errno> + Send + Sync + 'static) -> (Faulty, Arc<AtomicBool>) {
    let arm = Arc::new(AtomicBool::new(false));
    let on = arm.clone();
    (Faulty::new(move |call| if on.load(Ordering::SeqCst) { rule(call) } else { None }), arm)
}

fn nth(n: usize, which: impl Fn(&Call) -> bool + Send + Sync + 'static, errno: Errno) -> (Faulty, Arc<AtomicBool>) {
    let count = AtomicUsize::new(0);
    armed(move |call| (which(call) && count.fetch_add(1, Ordering::SeqCst) == n).then_some(errno))
}

const OLD: [(&str, &str); 4] = [("a", "old"), ("b", "old"), ("stale/x", "old"), ("z.html", "old")];
const NEW: [(&str, &str); 4] = [("a", "new!"), ("b", "new!"), ("fresh/y", "new!"), ("z.html", "new!")];

/// Fills a stage; the directory is read-only, so that modes have to be opened and closed on the way.
fn fill<F: Fs>(transaction: &mut Transaction<'_, F>) {
    for (path, content) in NEW {
        transaction.write(path, content).unwrap();
    }
    set_mode(&transaction.stage().join("fresh"), 0o555);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The trees before and after, as they are without any failure.
fn expected() -> [BTreeMap<Vec<u8>, Node>; 2] {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &OLD).unwrap();
    let old = snapshot(&out);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    transaction.commit(&lenient()).unwrap();
    [old, snapshot(&out)]
}

#[test]
fn a_failed_barrier_before_the_commit_point_discards_the_stage() {
    let (_dir, out) = scratch();
    let (kernel, arm) = nth(0, |call| *call == Call::SyncFs, Errno::EIO);
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish(&store, &OLD).unwrap();
    let before = snapshot(&out);
    arm.store(true, Ordering::SeqCst);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    let error = transaction.commit(&lenient()).unwrap_err();
    assert!(matches!(error, Error::StageLost { .. }), "{error}");
    assert_eq!((error.outcome(), snapshot(&out)), (Outcome::Unchanged, before));
    assert!(transaction.commit(&lenient()).is_err(), "an fsync is never retried");
    assert!(!transaction.stage().exists());
}

#[test]
fn a_failed_barrier_at_the_commit_point_takes_the_journal_back() {
    let (_dir, out) = scratch();
    let (kernel, arm) = nth(0, |call| matches!(call, Call::SyncDir { .. }), Errno::EIO);
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish(&store, &OLD).unwrap();
    let before = snapshot(&out);
    arm.store(true, Ordering::SeqCst);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    let error = transaction.commit(&lenient()).unwrap_err();
    assert_eq!((error.outcome(), snapshot(&out)), (Outcome::Unchanged, before), "{error}");
    assert!(!state_of(&out).join("journal").exists());
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

#[test]
fn a_failed_last_barrier_is_an_unknown_outcome_and_keeps_what_was_displaced() {
    let (_dir, out) = scratch();
    let (kernel, arm) = nth(1, |call| *call == Call::SyncFs, Errno::EIO);
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish(&store, &OLD).unwrap();
    arm.store(true, Ordering::SeqCst);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    let error = transaction.commit(&lenient()).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown, "{error}");
    drop(transaction);
    Store::open(&out).unwrap();
    assert_eq!(read(&out, "a"), "new!");
    assert_eq!(read(&state_of(&out), "previous/2/stage/a"), "old", "the next commit may still need it");
}

#[test]
fn directories_that_cannot_be_renamed_are_taken_apart() {
    let (_dir, out) = scratch();
    let (kernel, arm) = armed(|call| match call {
        Call::Rename { name, directory: true, .. } if name.starts_with(b"stale") => Some(Errno::EXDEV),
        _ => None,
    });
    let [_, new] = expected();
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish(&store, &OLD).unwrap();
    arm.store(true, Ordering::SeqCst);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    transaction.commit(&lenient()).unwrap();
    assert_eq!(snapshot(&out), new, "modes included");
}

/// What each synced inode was, in order, and the renames between.
fn synced_one_by_one(out: &Path, fill: impl FnOnce(&mut Transaction<'_, Faulty>)) -> (Vec<Call>, PathBuf) {
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
    let stage = transaction.stage();
    arm.store(true, Ordering::SeqCst);
    transaction.commit(&lenient()).unwrap();
    arm.store(false, Ordering::SeqCst);
    (std::mem::take(&mut *calls.lock().unwrap()), stage)
}

fn ino(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).ino()
}

#[test]
fn one_by_one_everything_that_the_journal_names_is_synced_before_it_has_its_name() {
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &OLD).unwrap();
    let state = state_of(&out);
    let mut directories = vec![ino(&state.join("manifests")), ino(&state.join("tx"))];
    let (calls, _) = synced_one_by_one(&out, |transaction| {
        fill(transaction);
        let stage = transaction.stage();
        let transaction = stage.parent().unwrap();
        directories.extend([ino(&stage), ino(&stage.join("fresh")), ino(transaction)]);
    });
    let named = |call: &Call| matches!(call, Call::Rename { new_name, .. } if new_name == b"journal");
    let (before, after) = calls.split_at(calls.iter().position(named).unwrap());
    let files: Vec<u64> = ["a", "b", "fresh/y", "z.html"].map(|path| ino(&out.join(path))).into();
    let own = ["HEAD", "manifests/2", "previous/2/journal"].map(|path| ino(&state.join(path)));
    for ino in files.into_iter().chain(own) {
        assert!(before.contains(&Call::SyncFile { ino }), "{before:?}");
    }
    for ino in directories {
        assert!(before.contains(&Call::SyncDir { ino }), "{before:?}");
    }
    assert_eq!(before.len(), 7 + 5, "nothing else: {before:?}");
    assert_eq!(after[1], Call::SyncDir { ino: ino(&state) }, "barrier 2");
    let applied = after.iter().rposition(|call| matches!(call, Call::Rename { new_name, .. } if new_name == b"HEAD"));
    let settled = |call: &Call| matches!(call, Call::Rename { new_name, .. } if new_name == b"2");
    let last = &after[applied.unwrap() + 1..after.iter().position(settled).unwrap()];
    let previous = state.join("previous/2");
    let ends = [
        state.clone(),
        out.parent().unwrap().to_path_buf(),
        out.clone(),
        out.join("fresh"),
        previous.join("stage"),
        previous.join("removed"),
    ];
    for end in &ends {
        assert!(last.contains(&Call::SyncDir { ino: ino(end) }), "{}: {last:?}", end.display());
    }
    assert_eq!(last.len(), ends.len(), "nothing else: {last:?}");
}

#[test]
fn an_error_of_any_fsync_before_the_commit_point_discards_the_stage() {
    let mut fired = 0;
    for n in 0.. {
        let (_dir, out) = scratch();
        publish(&Store::open(&out).unwrap(), &OLD).unwrap();
        let before = snapshot(&out);
        let (count, named) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (kernel, arm) = armed(move |call| {
            named.fetch_or(matches!(call, Call::Rename { .. }), Ordering::SeqCst);
            let sync = matches!(call, Call::SyncFile { .. } | Call::SyncDir { .. } | Call::SyncFs);
            let hit = sync && !named.load(Ordering::SeqCst) && count.fetch_add(1, Ordering::SeqCst) == n;
            hit.then_some(Errno::EIO)
        });
        let options = OpenOptions::with(kernel).barriers(Barriers::Single);
        let store = Store::open_with(&options, &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill(&mut transaction);
        arm.store(true, Ordering::SeqCst);
        let Err(error) = transaction.commit(&lenient()) else { break };
        assert!(matches!(error, Error::StageLost { .. }), "fsync {n}: {error}");
        assert_eq!((error.outcome(), snapshot(&out)), (Outcome::Unchanged, before), "fsync {n}");
        assert!(!transaction.stage().exists() && !state_of(&out).join("journal").exists());
        fired += 1;
    }
    assert_eq!(fired, 12);
}

#[test]
fn an_error_of_any_fsync_after_the_operations_is_an_unknown_outcome() {
    let mut fired = 0;
    for n in 0.. {
        let (_dir, out) = scratch();
        publish(&Store::open(&out).unwrap(), &OLD).unwrap();
        let (count, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (kernel, arm) = armed(move |call| {
            done.fetch_or(matches!(call, Call::Rename { new_name, .. } if new_name == b"HEAD"), Ordering::SeqCst);
            let sync = matches!(call, Call::SyncDir { .. } | Call::SyncFs) && done.load(Ordering::SeqCst);
            (sync && count.fetch_add(1, Ordering::SeqCst) == n).then_some(Errno::EIO)
        });
        let options = OpenOptions::with(kernel).barriers(Barriers::Single);
        let store = Store::open_with(&options, &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill(&mut transaction);
        arm.store(true, Ordering::SeqCst);
        let Err(error) = transaction.commit(&lenient()) else { break };
        assert_eq!(error.outcome(), Outcome::Unknown, "fsync {n}: {error}");
        drop(transaction);
        assert!(Store::open(&out).unwrap().verify().unwrap().is_empty());
        assert_eq!(read(&out, "a"), "new!");
        fired += 1;
    }
    assert_eq!(fired, 6);
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
            assert!(store.recover().unwrap().is_nothing(), "{at}");
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

/// A generation with everything in it that takes more than one operation: read-only directories that stay, come, go, and change
/// their kind.
fn fill_rich<F: Fs>(transaction: &mut Transaction<'_, F>, new: bool, kinds: bool) {
    let content = if new { "new!" } else { "old" };
    for path in ["a", "ro/x", "ro/sub/y", "z.html"] {
        transaction.write(path, content).unwrap();
    }
    let (own, modes) = match new {
        false => {
            (["stale/1", "stale/sub/2"], [("stale/sub", 0o500), ("stale", 0o555), ("ro/sub", 0o555), ("ro", 0o500)])
        }
        true => {
            (["fresh/1", "fresh/sub/2"], [("fresh/sub", 0o500), ("fresh", 0o555), ("ro/sub", 0o550), ("ro", 0o555)])
        }
    };
    own.iter().for_each(|path| transaction.write(path, content).unwrap());
    if kinds {
        let (directory, file) = if new { ("to-dir", "to-file") } else { ("to-file", "to-dir") };
        transaction.write(format!("{directory}/inner"), content).unwrap();
        transaction.write(file, content).unwrap();
        set_mode(&transaction.stage().join(directory), 0o555);
    }
    modes.into_iter().for_each(|(path, bits)| set_mode(&transaction.stage().join(path), bits));
}

/// The rich trees before and after, as they are without any failure.
fn expected_rich(kinds: bool) -> [BTreeMap<Vec<u8>, Node>; 2] {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    [false, true].map(|new| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill_rich(&mut transaction, new, kinds);
        transaction.commit(&lenient()).unwrap();
        snapshot(&out)
    })
}

/// From one call on nothing works any more, as for a process that was killed; then another one recovers.
fn dies_at_every_call(without: Without, piecewise: bool) {
    let kinds = !without.exchange;
    let [old, new] = expected_rich(kinds);
    let (mut back, mut forward) = (0, 0);
    for n in 0.. {
        let (_dir, out) = scratch();
        let (count, arm) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
        let on = arm.clone();
        let kernel = Faulty::on(LinuxFs::without(without), move |call| match call {
            _ if !on.load(Ordering::SeqCst) => None,
            Call::Rename { name, directory: true, .. } if piecewise && name == b"stale" => Some(Errno::EXDEV),
            _ => (count.fetch_add(1, Ordering::SeqCst) >= n).then_some(Errno::EIO),
        });
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill_rich(&mut transaction, false, kinds);
        transaction.commit(&lenient()).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill_rich(&mut transaction, true, kinds);
        arm.store(true, Ordering::SeqCst);
        let result = transaction.commit(&lenient());
        drop(transaction);
        let store = Store::open_with(&OpenOptions::with(LinuxFs::without(without)), &out)
            .unwrap_or_else(|error| panic!("dead at call {n}: {result:?}: {error}"));
        let after = snapshot(&out);
        assert!(after == old || after == new, "dead at call {n}: {result:?}: {after:?}");
        if result.is_ok() {
            assert_eq!(after, new, "dead at call {n}: acknowledged and lost");
        }
        *(if after == new { &mut forward } else { &mut back }) += 1;
        assert!(store.recover().unwrap().is_nothing(), "dead at call {n}");
        assert!(store.verify().unwrap().is_empty(), "dead at call {n}");
        publish(&store, &[("next", "n")]).unwrap_or_else(|error| panic!("dead at call {n}: next: {error}"));
        assert_eq!((fs::read_dir(&out).unwrap().count(), read(&out, "next")), (1, "n".into()));
        if result.is_ok_and(|committed| committed.warnings.is_empty()) {
            break;
        }
    }
    println!("{without:?}, piecewise {piecewise}: {back} times the old generation, {forward} times the new one");
    assert!(back > 10 && forward > 10);
}

/// A stage that outlives its process means the same when it is committed again.
#[test]
fn a_detached_transaction_whose_commit_was_interrupted_is_committed_again() {
    let [old, new] = expected_rich(true);
    let (mut again, mut done) = (0, 0);
    for n in 0.. {
        let (_dir, out) = scratch();
        let count = AtomicUsize::new(0);
        let (kernel, arm) = armed(move |_| (count.fetch_add(1, Ordering::SeqCst) >= n).then_some(Errno::EIO));
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill_rich(&mut transaction, false, true);
        transaction.commit(&lenient()).unwrap();
        let mut transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
        let id = transaction.id();
        fill_rich(&mut transaction, true, true);
        arm.store(true, Ordering::SeqCst);
        let result = transaction.commit(&lenient());
        drop(transaction);
        let store = Store::open(&out).unwrap_or_else(|error| panic!("dead at call {n}: {result:?}: {error}"));
        match store.resume(id) {
            Ok(mut transaction) => {
                assert_eq!(snapshot(&out), old, "dead at call {n}: {result:?}");
                transaction.commit(&lenient()).unwrap();
                again += 1;
            }
            Err(_) => done += 1,
        }
        let lost = matches!(result, Err(Error::StageLost { .. })) && snapshot(&out) == old;
        assert!(lost || snapshot(&out) == new, "dead at call {n}: {result:?}: {:?}", snapshot(&out));
        if result.is_ok_and(|committed| committed.warnings.is_empty()) {
            break;
        }
    }
    println!("{again} times committed again, {done} times it was over");
    assert!(again > 5 && done > 10);
}

#[test]
fn a_process_that_dies_at_any_call_is_recovered() {
    dies_at_every_call(Without::default(), false);
}

#[test]
fn a_process_that_dies_at_any_call_is_recovered_without_exchange() {
    dies_at_every_call(Without { exchange: true, ..Without::default() }, false);
}

#[test]
fn a_process_that_dies_at_any_call_is_recovered_without_any_flag() {
    dies_at_every_call(Without { exchange: true, no_replace: true, ..Without::default() }, false);
}

#[test]
fn a_process_that_dies_at_any_call_is_recovered_where_directories_are_taken_apart() {
    dies_at_every_call(Without::default(), true);
}

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
            common::assert_only_the_last_is_kept(&out);
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
    for (from, call) in [(From::Empty, "remove_file"), (From::Copy, "create_file"), (From::Copy, "write")] {
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
                From::Copy => {
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

#[test]
fn a_stage_that_cannot_be_looked_for_is_not_said_to_be_gone() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let transaction = store.begin(BeginOptions::default()).unwrap().keep().unwrap();
    let kernel = Faulty::new(|call| (*call == Call::Read("resolve")).then_some(Errno::EIO));
    assert!(matches!(Store::parse_stage(&kernel, &transaction), Err(Error::Io { .. })));
    assert!(Store::parse_stage(&LinuxFs::new(), &transaction).unwrap().is_some());
    let gone = out.with_file_name(".other.txfs/tx/00ff00ff00ff00ff/stage");
    assert!(Store::parse_stage(&LinuxFs::new(), &gone).unwrap().is_none());
}

/// A commit of the new tree that was cut short: at the `moves`-th move nothing has an effect any more, as if the process were
/// gone; with `undoing`, that move fails, and it is gone after one was undone.
fn cut_short(out: &Path, options: BeginOptions, moves: usize, undoing: bool) {
    let (seen, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let dead = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| {
        let of_state = |name: &[u8]| [&b"journal"[..], b"journal.new", b"HEAD.new"].contains(&name);
        if let Call::Rename { name, .. } = call
            && !of_state(name)
        {
            let move_number = seen.fetch_add(1, Ordering::SeqCst);
            if undoing && move_number == moves && !failed.swap(true, Ordering::SeqCst) {
                return Some(Errno::EIO);
            }
            dead.fetch_or(move_number == moves + 2 * usize::from(undoing), Ordering::SeqCst);
        }
        dead.load(Ordering::SeqCst).then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), out).unwrap();
    let mut transaction = store.begin(options).unwrap();
    fill(&mut transaction);
    assert_eq!(transaction.commit(&lenient()).unwrap_err().outcome(), Outcome::Unknown);
}

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
fn a_transaction_with_nothing_to_publish_is_over_wherever_its_stage_stays() {
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &OLD).unwrap();
    let (kernel, arm) = nth(0, |call| matches!(call, Call::Rename { name, .. } if name.len() == 16), Errno::EIO);
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
    OLD.iter().for_each(|(path, content)| transaction.write(path, content).unwrap());
    arm.store(true, Ordering::SeqCst);
    assert!(!transaction.commit(&lenient()).unwrap().changed);
    drop(transaction);
    assert!(store.transactions().unwrap().is_empty());
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

#[test]
fn a_probe_that_is_denied_says_nothing_about_the_file_system() {
    let (_dir, out) = scratch();
    let (kernel, arm) = nth(0, |call| matches!(call, Call::Rename { name, .. } if name == b"one"), Errno::EACCES);
    arm.store(true, Ordering::SeqCst);
    assert!(Store::open_with(&OpenOptions::with(kernel), &out).is_err());
    assert!(Store::open(&out).unwrap().capabilities().exchange);
}
