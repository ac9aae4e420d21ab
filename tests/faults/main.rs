//! Calls that fail while a commit is under way: what the caller is told is the truth, and recovery finds everything it needs.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::faulty::{Call, Faulty};
use common::tree::{Node, snapshot};
use common::{change_a_byte, lenient, publish, read, scratch, set_mode, state_of};
use nix::errno::Errno;
use txfs::fs::linux::Without;
use txfs::fs::{Fs, LinuxFs};
use txfs::{
    Barriers, Basis, BeginOptions, Error, ErrorKind, OpenOptions, Outcome, RecoverOptions, RecoveredCommit, Store,
    Transaction, TransactionId,
};

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
fn fill<F: Fs>(transaction: &mut Transaction<F>) {
    for (path, content) in NEW {
        transaction.write(path, content).unwrap();
    }
    set_mode(&transaction.stage().join("fresh"), 0o555);
}

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

/// Publishes the old tree and settles it: what fails afterwards is the next commit's.
fn publish_old<F: Fs>(store: &Store<F>) {
    publish(store, &OLD).unwrap();
    store.recover(RecoverOptions::default()).unwrap();
}

/// A transaction with the new tree in its stage.
fn begin_new<F: Fs>(store: &Store<F>, options: BeginOptions) -> Transaction<F> {
    let mut transaction = store.begin(options).unwrap();
    fill(&mut transaction);
    transaction
}

/// Which of these names the state directory has.
fn left<'a>(out: &Path, names: &[&'a str]) -> Vec<&'a str> {
    names.iter().copied().filter(|name| state_of(out).join(name).exists()).collect()
}

const OF_A_COMMIT: [&str; 4] = ["journal.new", "journal", "journal.undo", "HEAD.new"];

/// As [`nth`], and every call while it is armed is noted.
fn noting(
    n: usize,
    which: impl Fn(&Call) -> bool + Send + Sync + 'static,
) -> (Faulty, Arc<AtomicBool>, Arc<Mutex<Vec<Call>>>) {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (seen, count) = (calls.clone(), AtomicUsize::new(0));
    let (kernel, arm) = armed(move |call| {
        seen.lock().unwrap().push(call.clone());
        (which(call) && count.fetch_add(1, Ordering::SeqCst) == n).then_some(Errno::EIO)
    });
    (kernel, arm, calls)
}

/// That the journal is gone, durably, before `then` is.
fn assert_taken_back(calls: &[Call], out: &Path, then: &str) {
    let last = |wanted: Call| calls.iter().rposition(|call| *call == wanted).unwrap();
    let removed = |name: &str| last(Call::RemoveFile { name: name.into() });
    let durable = last(Call::SyncDir { ino: ino(&state_of(out)) });
    assert!(removed("journal.new") < durable && durable < removed(then), "{then}: {calls:?}");
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

/// What a crash, or an error that memory forgets, may have left on the medium of what the barrier was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Medium {
    Whole,
    /// A byte of a staged file is another.
    Lacks,
}

/// Holds recovery against one generation, and whether what is left of the transaction is gone.
fn recovers_to(out: &Path, tree: &BTreeMap<Vec<u8>, Node>, what: &str) {
    let store = Store::open(out).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(snapshot(out), *tree, "{what}");
    assert_eq!(left(out, &OF_A_COMMIT), [""; 0], "{what}");
    assert_eq!(fs::read_dir(state_of(out).join("tx")).unwrap().count(), 0, "{what}");
    assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing(), "{what}");
    publish(&store, &[("next", "n")]).unwrap_or_else(|error| panic!("{what}: next: {error}"));
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

/// A commit of which everything is durable, and whose process dies before its journal has its name.
fn leave_intent(out: &Path, fill: impl FnOnce(&mut Transaction<Faulty>)) -> PathBuf {
    let dead = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| {
        dead.fetch_or(matches!(call, Call::Rename { name, .. } if name == b"journal.new"), Ordering::SeqCst);
        dead.load(Ordering::SeqCst).then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    assert_eq!(transaction.commit(&lenient()).unwrap_err().outcome(), Outcome::Unknown);
    assert_eq!(left(out, &OF_A_COMMIT), ["journal.new", "HEAD.new"]);
    transaction.stage()
}

#[test]
fn a_commit_whose_journal_has_no_name_is_carried_out_when_all_of_it_is_on_the_medium() {
    let [old, new] = expected();
    // The first generation is the stage itself, moved as one.
    for first in [false, true] {
        for medium in [Medium::Whole, Medium::Lacks] {
            let what = format!("first: {first}, {medium:?}");
            let (_dir, out) = scratch();
            if !first {
                publish_old(&Store::open(&out).unwrap());
            }
            let stage = leave_intent(&out, fill);
            if medium == Medium::Lacks {
                change_a_byte(&stage.join("fresh/y"));
            }
            let expected = match medium {
                Medium::Whole => &new,
                Medium::Lacks if first => &BTreeMap::new(),
                Medium::Lacks => &old,
            };
            recovers_to(&out, expected, &what);
        }
    }
}

#[test]
fn a_commit_whose_journal_has_no_name_is_discarded_when_what_it_appended_to_the_manifest_is_not_on_the_medium() {
    for damaged in ["nothing", "a leaf", "the root"] {
        let (_dir, out) = scratch();
        let fill = |content: &str, transaction: &mut Transaction<Faulty>| {
            (0..2000).for_each(|n| transaction.write(format!("{n:04}"), "same").unwrap());
            transaction.write("1000", content).unwrap();
        };
        let store = Store::open_with(&OpenOptions::with(Faulty::new(|_| None)), &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill("old", &mut transaction);
        transaction.commit(&lenient()).unwrap();
        store.recover(RecoverOptions::default()).unwrap();
        let manifest = state_of(&out).join("manifests/1");
        let before = fs::metadata(&manifest).unwrap().len();
        leave_intent(&out, |transaction| fill("new!", transaction));
        assert_eq!(fs::read_dir(manifest.parent().unwrap()).unwrap().count(), 1, "it was appended to");
        let mut bytes = fs::read(&manifest).unwrap();
        match damaged {
            // What is appended begins at a block of its own, and the root comes last.
            "a leaf" => bytes[before.next_multiple_of(4096) as usize] ^= 1,
            "the root" => *bytes.last_mut().unwrap() ^= 1,
            _ => {}
        }
        fs::write(&manifest, bytes).unwrap();
        let store = Store::open(&out).unwrap();
        let (generation, content) = if damaged == "nothing" { (2, "new!") } else { (1, "old") };
        assert_eq!(store.head().unwrap().unwrap().info.generation, generation, "{damaged}");
        assert_eq!(read(&out, "1000"), content, "{damaged}");
        assert!(store.verify().unwrap().is_empty(), "{damaged}");
    }
}

/// The calls of a recovery that meets no error.
fn recovering(out: &Path) -> Vec<Call> {
    let (kernel, arm, calls) = noting(usize::MAX, |_| true);
    let store = Store::open_with(&OpenOptions::with(kernel).recover(false), out).unwrap();
    arm.store(true, Ordering::SeqCst);
    store.recover(RecoverOptions::default()).unwrap();
    arm.store(false, Ordering::SeqCst);
    std::mem::take(&mut *calls.lock().unwrap())
}

fn first(calls: &[Call], wanted: impl Fn(&Call) -> bool) -> usize {
    calls.iter().position(wanted).unwrap_or_else(|| panic!("{calls:?}"))
}

#[test]
fn recovery_reads_all_that_a_journal_without_its_name_names_from_the_medium_before_it_acts() {
    let (_dir, out) = scratch();
    publish_old(&Store::open(&out).unwrap());
    let stage = leave_intent(&out, fill);
    let state = state_of(&out);
    let own = ["journal.new", "manifests/2"].map(|name| ino(&state.join(name)));
    let staged = ["a", "b", "fresh/y", "z.html"].map(|path| ino(&stage.join(path)));
    let calls = recovering(&out);
    let acts = first(&calls, |call| matches!(call, Call::Rename { .. } | Call::RemoveFile { .. }));
    let synced = first(&calls, |call| *call == Call::SyncFs);
    for ino in own.into_iter().chain(staged) {
        let read = first(&calls, |call| *call == Call::DropCached { ino });
        assert!(synced < read && read < acts, "what is dirty goes to the medium, and is read from there: {calls:?}");
    }
}

#[test]
fn what_is_no_commit_is_durably_gone_before_its_stage_goes() {
    let (_dir, out) = scratch();
    publish_old(&Store::open(&out).unwrap());
    leave_intent(&out, fill);
    let journal = state_of(&out).join("journal.new");
    let whole = fs::read(&journal).unwrap();
    fs::write(&journal, &whole[..whole.len() - 1]).unwrap();
    let calls = recovering(&out);
    ["HEAD.new", "meta"].iter().for_each(|then| assert_taken_back(&calls, &out, then));
}

#[test]
fn an_undoing_is_durably_intended_before_recovery_goes_on_with_it() {
    let (_dir, out) = scratch();
    publish_old(&Store::open(&out).unwrap());
    cut_short(&out, BeginOptions::default(), 2, true);
    let calls = recovering(&out);
    let confirmed = first(&calls, |call| *call == Call::SyncDir { ino: ino(&state_of(&out)) });
    assert!(confirmed < first(&calls, |call| matches!(call, Call::Rename { .. })), "{calls:?}");
}

#[test]
fn what_cannot_be_read_is_no_reason_to_discard_a_commit() {
    let [_, new] = expected();
    let mut failed = 0;
    for call in ["stat", "open_dir", "list", "read", "past the cache"] {
        for n in 0.. {
            let (_dir, out) = scratch();
            publish_old(&Store::open(&out).unwrap());
            leave_intent(&out, fill);
            let is_this = move |asked: &Call| match asked {
                Call::DropCached { .. } => call == "past the cache",
                asked => *asked == Call::Read(call),
            };
            let (kernel, arm) = nth(n, is_this, Errno::EIO);
            let store = Store::open_with(&OpenOptions::with(kernel).recover(false), &out).unwrap();
            arm.store(true, Ordering::SeqCst);
            let recovered = store.recover(RecoverOptions::default());
            arm.store(false, Ordering::SeqCst);
            failed += usize::from(recovered.is_err());
            recovers_to(&out, &new, &format!("{call} {n}: {recovered:?}"));
            if recovered.is_ok_and(|recovered| recovered.warnings.is_empty()) {
                break;
            }
        }
    }
    assert!(failed > 20, "{failed}");
}

#[test]
fn a_commit_that_cannot_be_read_and_has_not_begun_is_given_up_by_undoing_alone() {
    let [old, new] = expected();
    for undo in [false, true] {
        let (_dir, out) = scratch();
        publish_old(&Store::open(&out).unwrap());
        leave_intent(&out, fill);
        let kernel = Faulty::new(|call| matches!(call, Call::DropCached { .. }).then_some(Errno::EIO));
        let store = Store::open_with(&OpenOptions::with(kernel).recover(false), &out).unwrap();
        for options in [RecoverOptions::default(), RecoverOptions::default().skip_unknown(true)] {
            let refused = store.recover(options);
            // Nothing was moved, but a directory may have been opened.
            assert!(matches!(refused, Err(Error::OutcomeUnknown { .. })), "{refused:?}");
            assert_eq!((left(&out, &["journal.new"]), snapshot(&out)), (vec!["journal.new"], old.clone()));
        }
        if undo {
            assert_eq!(
                store.recover(RecoverOptions::default().undo(true)).unwrap().commit,
                Some(RecoveredCommit::Discarded)
            );
        }
        recovers_to(&out, if undo { &old } else { &new }, "given up by undoing alone");
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

/// What settles the commit before it: each is given the number of a transaction that was open before that commit.
type Settler = fn(&Store<Faulty>, TransactionId) -> txfs::Result<()>;

#[test]
fn a_failed_barrier_after_a_commit_is_an_error_of_whatever_settles_it_and_the_commit_stands() {
    let [_, new] = expected();
    let settlers: [(&str, Settler); 5] = [
        ("begin", |store, _| store.begin(BeginOptions::default()).map(drop)),
        ("sweep", |store, _| store.sweep().map(drop)),
        ("recover", |store, _| store.recover(RecoverOptions::default()).map(drop)),
        ("abort", |store, other| store.resume(other)?.abort()),
        ("undo", |store, _| store.recover(RecoverOptions::default().undo(true)).map(drop)),
    ];
    for (what, settle) in settlers {
        // The store that made the commit, and another one that looks at all of it.
        for own in [true, false] {
            let what = format!("{what}, own: {own}");
            let (_dir, out) = scratch();
            let (kernel, arm) = nth(0, |call| *call == Call::SyncFs, Errno::EIO);
            let store = Store::open_with(&OpenOptions::with(kernel.clone()), &out).unwrap();
            publish_old(&store);
            let other = begin_new(&store, BeginOptions::default().detached(true)).id();
            begin_new(&store, BeginOptions::default()).commit(&lenient()).unwrap();
            let store =
                if own { store } else { Store::open_with(&OpenOptions::with(kernel).recover(false), &out).unwrap() };
            arm.store(true, Ordering::SeqCst);
            let error = settle(&store, other).expect_err(&what);
            arm.store(false, Ordering::SeqCst);
            assert!(error.to_string().contains("cannot make durable"), "{what}: {error}");
            assert!(!own || matches!(error, Error::Io { .. }), "{what}: {error}");
            assert_eq!(snapshot(&out), new, "{what}");
            assert_eq!(left(&out, &["journal", "previous/2/journal"]), ["journal"], "{what}");
            assert!(store.verify().unwrap().is_empty(), "{what}");
            assert_eq!(read(&state_of(&out), "previous/2/stage/a"), "old", "{what}: the next commit may still need it");
            let recovered = store.recover(RecoverOptions::default()).unwrap();
            assert_eq!(recovered.commit, Some(RecoveredCommit::Settled { generation: 2 }), "{what}");
            // Its stage was open when the barrier failed.
            assert_eq!(recovered.discarded, [other], "{what}");
            assert!(recovered.rescued.is_empty() && recovered.warnings.is_empty(), "{what}: {recovered:?}");
            assert_eq!(snapshot(&out), new, "{what}");
            assert_eq!(left(&out, &["journal", "previous/2/journal"]), ["previous/2/journal"], "{what}");
        }
    }
}

/// Every changing call after a commit fails, or is the last one of a process that is killed: the commit stands.
#[test]
fn whichever_call_of_settling_fails_the_commit_stands() {
    let [_, new] = expected();
    let mut fired = 0;
    for (barriers, dies) in [(Barriers::Whole, false), (Barriers::Single, false), (Barriers::Single, true)] {
        for n in 0.. {
            let what = format!("{barriers:?}, dies: {dies}, call {n}");
            let (_dir, out) = scratch();
            let hit = Arc::new(AtomicBool::new(false));
            let (count, seen) = (AtomicUsize::new(0), hit.clone());
            let (kernel, arm) = armed(move |_| {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let this = number == n || dies && number > n;
                seen.fetch_or(this, Ordering::SeqCst);
                this.then_some(Errno::EIO)
            });
            let store = Store::open_with(&OpenOptions::with(kernel).barriers(barriers), &out).unwrap();
            publish_old(&store);
            begin_new(&store, BeginOptions::default()).commit(&lenient()).unwrap();
            arm.store(true, Ordering::SeqCst);
            let settled = store.sweep();
            arm.store(false, Ordering::SeqCst);
            assert_eq!(snapshot(&out), new, "{what}: {settled:?}");
            assert_eq!(left(&out, &["journal", "previous/2/journal"]).len(), 1, "{what}: {settled:?}");
            drop(store);
            let store = Store::open(&out).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(left(&out, &["journal", "previous/2/journal"]), ["previous/2/journal"], "{what}");
            assert!(snapshot(&out) == new && store.verify().unwrap().is_empty(), "{what}");
            assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing(), "{what}");
            publish(&store, &[("next", "n")]).unwrap_or_else(|error| panic!("{what}: next: {error}"));
            if !hit.load(Ordering::SeqCst) {
                break;
            }
            fired += 1;
        }
    }
    assert!(fired > 50, "{fired}");
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

fn ino(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).ino()
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

/// A generation with everything in it that takes more than one operation: read-only directories that stay, come, go, and change
/// their kind.
fn fill_rich<F: Fs>(transaction: &mut Transaction<F>, new: bool, kinds: bool) {
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
        assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing(), "dead at call {n}");
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

/// What was displaced may be the user's, and nothing else has it.
#[test]
fn what_a_commit_displaced_stays_where_it_cannot_be_shelved() {
    for detached in [false, true] {
        let (_dir, out) = scratch();
        publish(&Store::open(&out).unwrap(), &[("a", "a")]).unwrap();
        fs::write(out.join("theirs"), "precious").unwrap();
        let armed = Arc::new(AtomicBool::new(true));
        let full = armed.clone();
        let kernel = Faulty::new(move |call| {
            let shelves = matches!(call, Call::Rename { new_name, .. } if new_name == b"2");
            (shelves && full.load(Ordering::SeqCst)).then_some(Errno::ENOSPC)
        });
        let store = || Store::open_with(&OpenOptions::with(kernel.clone()), &out).unwrap();
        let committing = store();
        let mut transaction = committing.begin(BeginOptions::default().detached(detached)).unwrap();
        let id = transaction.id();
        transaction.write("theirs", "ours").unwrap();
        let committed = transaction.commit(&lenient().adopt(true)).unwrap();
        assert_eq!(committed.warnings.len(), 1);
        drop(transaction);
        assert_eq!(store().recover(RecoverOptions::default()).unwrap().discarded, []);
        assert!(store().resume(id).is_err(), "in its stage lies what was displaced");
        armed.store(false, Ordering::SeqCst);
        let store = store();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        assert_eq!(transaction.copy_previous().unwrap(), 1);
        transaction.commit(&lenient()).unwrap();
        assert_eq!((read(&out, "a"), read(&out, "theirs")), ("a".into(), "precious".into()));
    }
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

#[test]
fn one_entry_that_cannot_be_removed_keeps_nothing_else_that_was_displaced() {
    let (_dir, out) = scratch();
    let kernel = Faulty::new(|call| match call {
        Call::RemoveFile { name } if name == b"immutable" => Some(Errno::EPERM),
        _ => None,
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    publish(&store, &[("a", "0"), ("d/immutable", "x")]).unwrap();
    for n in 1..8 {
        publish(&store, &[("a", &n.to_string())]).unwrap();
    }
    assert!(store.sweep().is_err());
    let mut kept: Vec<_> =
        fs::read_dir(state_of(&out).join("previous")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    kept.sort();
    // The one with the entry; and the last, with the journal of the one before.
    assert_eq!(kept, ["2", "7", "8"]);
    assert_eq!(fs::read_dir(state_of(&out).join("previous/7")).unwrap().count(), 1);
}
