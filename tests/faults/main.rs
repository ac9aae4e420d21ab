//! Calls that fail while a commit is under way: what the caller is told is the truth, and recovery finds everything it needs.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use txfs::fs::Fs;
use txfs::{BeginOptions, OpenOptions, Outcome, RecoverOptions, Store, Transaction};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::{Node, snapshot};
use txfs_testing::{lenient, publish, scratch, set_mode, state_of};

mod commit_point;
mod dying;
mod looking;
mod one_by_one;
mod recovering;
mod settling;
mod unnamed;

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

fn first(calls: &[Call], wanted: impl Fn(&Call) -> bool) -> usize {
    calls.iter().position(wanted).unwrap_or_else(|| panic!("{calls:?}"))
}

fn ino(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).ino()
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
