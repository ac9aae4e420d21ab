//! A caller that wants to stop: nothing is changed, or everything.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::errno::Errno;
use txfs::fs::LinuxFs;
use txfs::{Basis, BeginOptions, Committed, Error, ErrorKind, OpenOptions, Outcome, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::snapshot;
use txfs_testing::{lenient, publish, scratch};

/// The kernel, whose caller wants to stop from the n-th call on that `counts`; and how many of them were made.
fn stopped_at(n: usize, counts: fn(&Call) -> bool) -> (Faulty, Arc<AtomicUsize>) {
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let counted = calls.clone();
    let kernel = LinuxFs::new().interrupted_by(stop.clone());
    let faulty = Faulty::on(kernel, move |call| {
        if counts(call) && counted.fetch_add(1, Ordering::SeqCst) == n {
            stop.store(true, Ordering::SeqCst);
        }
        None
    });
    (faulty, calls)
}

type Publish = fn(&Store<Faulty>, &Path) -> txfs::Result<Committed>;

/// Every way to fill a stage that takes long.
const FILLINGS: [(&str, Publish); 4] = [
    ("copy_from", |store, other| {
        let mut transaction = store.begin(BeginOptions::default())?;
        transaction.copy_from(other)?;
        transaction.commit(&lenient())
    }),
    ("copy_differing_from", |store, other| {
        let mut transaction = store.begin(BeginOptions::default())?;
        transaction.copy_differing_from(other)?;
        transaction.commit(&lenient())
    }),
    ("copy_previous", |store, _| {
        let mut transaction = store.begin(BeginOptions::default())?;
        transaction.copy_previous()?;
        transaction.commit(&lenient())
    }),
    ("a copy of the current generation", |store, other| {
        let mut transaction = store.begin(BeginOptions::default().from(Basis::Copy))?;
        fs::copy(other.join("a"), transaction.stage().join("a")).unwrap();
        transaction.commit(&lenient())
    }),
];

#[test]
fn whenever_the_caller_wants_to_stop_nothing_is_changed_or_everything() {
    let (dir, _) = scratch();
    let other = dir.path().join("other");
    fs::create_dir_all(other.join("dir")).unwrap();
    ["a", "b", "dir/c", "dir/d"].iter().for_each(|path| fs::write(other.join(path), "third").unwrap());
    for (name, publish_in) in FILLINGS {
        let (mut stopped, mut committed) = (0, 0);
        for n in (0..).step_by(5) {
            let out = dir.path().join(format!("{name} {n}"));
            let store = Store::open(&out).unwrap();
            publish(&store, &[("a", "first"), ("b", "first"), ("gone", "first")]).unwrap();
            publish(&store, &[("a", "second"), ("b", "second"), ("dir/c", "second")]).unwrap();
            store.sweep().unwrap();
            let before = snapshot(&out);
            let (faulty, calls) = stopped_at(n, |_| true);
            let result =
                Store::open_with(&OpenOptions::with(faulty), &out).and_then(|store| publish_in(&store, &other));
            match result {
                Ok(_) => {
                    assert_ne!(snapshot(&out), before, "{name}, {n}");
                    committed += 1;
                }
                Err(error) => {
                    assert_eq!(
                        (error.kind(), error.outcome()),
                        (ErrorKind::Interrupted, Outcome::Unchanged),
                        "{error}"
                    );
                    assert_eq!(snapshot(&out), before, "{name}, {n}");
                    assert_eq!(committed, 0, "{name}, {n}: after the commit point nobody asks");
                    stopped += 1;
                }
            }
            assert!(store.transactions().unwrap().is_empty());
            publish(&store, &[("a", "next")]).unwrap();
            if calls.load(Ordering::SeqCst) <= n {
                break;
            }
        }
        assert!(stopped > 0 && committed > 1, "{name}");
        println!("{name}: stopped {stopped} times, committed {committed} times");
    }
}

#[test]
fn nobody_copies_or_reads_on_when_the_caller_wants_to_stop() {
    let (dir, _) = scratch();
    let source = dir.path().join("source");
    fs::create_dir(&source).unwrap();
    (0..500).for_each(|i| fs::write(source.join(i.to_string()), "content").unwrap());
    let interrupted = |result: txfs::Result<()>| assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
    for threads in [1, 4] {
        let out = dir.path().join(format!("copied by {threads}"));
        Store::open(&out).unwrap();
        let (faulty, created) = stopped_at(20, |call| call.is("create_file"));
        let store = Store::open_with(&OpenOptions::with(faulty.threads(threads)), &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        interrupted(transaction.copy_from(&source));
        assert!(created.load(Ordering::SeqCst) <= 21 + threads, "{threads}: {created:?}");
        assert!(transaction.is_open());

        let out = dir.path().join(format!("read by {threads}"));
        Store::open(&out).unwrap();
        let (faulty, read) = stopped_at(100, |call| *call == Call::Read("read"));
        let store = Store::open_with(&OpenOptions::with(faulty.threads(threads)), &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        (0..500).for_each(|i| fs::write(transaction.stage().join(i.to_string()), "content").unwrap());
        interrupted(transaction.commit(&lenient()).map(drop));
        assert!(read.load(Ordering::SeqCst) <= 101 + threads, "{threads}: {read:?}");
        assert!(transaction.is_open() && !out.exists());
    }
    let out = dir.path().join("large");
    Store::open(&out).unwrap();
    let (faulty, read) = stopped_at(20, |call| *call == Call::Read("read"));
    let store = Store::open_with(&OpenOptions::with(faulty), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fs::File::create(transaction.stage().join("large")).unwrap().set_len(100 << 20).unwrap();
    interrupted(transaction.commit(&lenient()).map(drop));
    assert_eq!(read.load(Ordering::SeqCst), 21);
}

#[test]
fn a_copy_that_fails_names_the_file_that_is_to_blame() {
    for (errno, blamed) in [(Errno::EIO, "other/a"), (Errno::ENOSPC, "stage/a"), (Errno::EFBIG, "stage/a")] {
        let (dir, out) = scratch();
        let other = dir.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("a"), "content").unwrap();
        let faulty = Faulty::new(move |call| (*call == Call::Read("copy_content")).then_some(errno));
        let store = Store::open_with(&OpenOptions::with(faulty), &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        let error = transaction.copy_from(&other).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if path.ends_with(blamed)), "{error}");
    }
}

#[test]
fn the_last_time_to_stop_a_commit_is_before_its_journal_is_written() {
    for (name, stops) in [("HEAD.new", true), ("journal.new", false)] {
        let (_dir, out) = scratch();
        let store = Store::open(&out).unwrap();
        let head: fn(&Call) -> bool = |call| matches!(call, Call::CreateFile { name } if name == b"HEAD.new");
        let journal: fn(&Call) -> bool = |call| matches!(call, Call::CreateFile { name } if name == b"journal.new");
        let (faulty, _) = stopped_at(0, if stops { head } else { journal });
        let stoppable = Store::open_with(&OpenOptions::with(faulty), &out).unwrap();
        let mut transaction = stoppable.begin(BeginOptions::default()).unwrap();
        transaction.write("a", "content").unwrap();
        let kind = transaction.commit(&lenient()).err().map(|error| error.kind());
        assert_eq!(kind, stops.then_some(ErrorKind::Interrupted), "{name}");
        assert_eq!((transaction.is_open(), out.exists()), (stops, !stops), "{name}");
        let left = ["HEAD.new", "journal.new"].iter().any(|left| store.state().join(left).exists());
        assert!(!left, "{name}");
    }
}
