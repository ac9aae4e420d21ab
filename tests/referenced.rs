//! What a transaction takes from the current generation without staging it, together with whatever else is done to it.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::faulty::{Call, Faulty};
use common::{Scratch, fast_scratch, lenient, publish, read};
use nix::errno::Errno;
use txfs::{BeginOptions, CommitOptions, ErrorKind, OpenOptions, Outcome, Problem, Store, Transaction};

/// An output that is a copy of a source.
struct World {
    _dir: Scratch,
    out: PathBuf,
    source: PathBuf,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = fast_scratch();
        let (out, source) = (dir.path().join("dist"), dir.path().join("src"));
        fs::create_dir_all(source.join("d")).unwrap();
        for name in ["a", "b", "d/x", "d/y"] {
            fs::write(source.join(name), name).unwrap();
        }
        let store = Store::open(&out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.copy_from(&source).unwrap();
        transaction.commit(&lenient()).unwrap();
        drop(transaction);
        Self { _dir: dir, out, source, store }
    }

    /// A transaction in which everything is taken from the current generation.
    fn referencing(&self) -> Transaction {
        let mut transaction = self.store.begin(BeginOptions::default()).unwrap();
        transaction.copy_differing_from(&self.source).unwrap();
        transaction
    }
}

#[test]
fn a_file_may_be_written_where_a_directory_was() {
    let world = World::new();
    let mut transaction = world.referencing();
    transaction.write("d", "a file now").unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!(read(&world.out, "d"), "a file now");
    assert_eq!(world.store.verify().unwrap(), []);
    publish(&world.store, &[("a", "later")]).unwrap();
}

#[test]
fn what_is_removed_is_not_published() {
    let world = World::new();
    let mut transaction = world.referencing();
    transaction.remove("b").unwrap();
    transaction.commit(&lenient()).unwrap();
    assert!(!world.out.join("b").exists() && world.out.join("a").exists());
}

#[test]
fn what_is_written_besides_is_published_instead() {
    let world = World::new();
    let mut transaction = world.referencing();
    transaction.write("a", "stamped").unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!((read(&world.out, "a"), read(&world.out, "b")), ("stamped".into(), "b".into()));
}

#[test]
fn what_is_written_while_going_back_is_published_instead() {
    let world = World::new();
    publish(&world.store, &[("a", "2"), ("b", "b")]).unwrap();
    let mut transaction = world.store.begin(BeginOptions::default()).unwrap();
    transaction.copy_previous().unwrap();
    transaction.write("b", "rolled back").unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!((read(&world.out, "a"), read(&world.out, "b")), ("a".into(), "rolled back".into()));
}

#[test]
fn a_stage_that_is_kept_has_everything_in_it() {
    let world = World::new();
    let mut transaction = world.referencing();
    transaction.write("a", "stamped").unwrap();
    let stage = transaction.stage();
    transaction.keep().unwrap();
    assert_eq!((read(&stage, "a"), read(&stage, "d/x")), ("stamped".into(), "d/x".into()));
}

/// What is not in the stage would not be published any more.
#[test]
fn a_stage_is_not_kept_that_lacks_something() {
    let world = World::new();
    let transaction = world.referencing();
    fs::remove_file(world.source.join("b")).unwrap();
    assert_eq!(transaction.keep().unwrap_err().kind(), ErrorKind::Failed);
    publish(&world.store, &[("a", "2"), ("b", "b")]).unwrap();
    let mut transaction = world.store.begin(BeginOptions::default()).unwrap();
    transaction.copy_previous().unwrap();
    fs::remove_file(world.out.join("b")).unwrap();
    assert_eq!(transaction.keep().unwrap_err().kind(), ErrorKind::Failed);
    let mut transaction = world.store.begin(BeginOptions::default()).unwrap();
    fs::write(world.out.join("b"), "b").unwrap();
    transaction.copy_previous().unwrap();
    fs::remove_dir_all(&world.out).unwrap();
    assert_eq!(transaction.keep().unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(world.store.transactions().unwrap(), []);
}

/// To whoever took it up what was not staged would be stale.
#[test]
fn what_takes_something_unstaged_is_not_left_open() {
    for goes_back in [false, true] {
        let world = World::new();
        publish(&world.store, &[("a", "2"), ("b", "b"), ("d/x", "d/x"), ("d/y", "d/y")]).unwrap();
        let mut transaction = world.store.begin(BeginOptions::default().detached(true)).unwrap();
        let id = transaction.id();
        if goes_back {
            transaction.copy_previous().unwrap();
        } else {
            transaction.copy_differing_from(&world.source).unwrap();
        }
        drop(transaction);
        assert!(world.store.resume(id).is_err(), "{goes_back}");
        let mut transaction = world.store.begin(BeginOptions::default().detached(true)).unwrap();
        let id = transaction.id();
        transaction.copy_previous().unwrap();
        transaction.keep().unwrap();
        world.store.resume(id).unwrap().commit(&lenient()).unwrap();
        assert_eq!((read(&world.out, "a"), read(&world.out, "b")), ("a".into(), "b".into()));
    }
}

/// What another commit has done, and will take back, is not of the current generation.
#[test]
fn a_stage_is_not_kept_with_half_of_another_commit() {
    let world = World::new();
    publish(&world.store, &[("a", "a"), ("b", "b"), ("c", "c")]).unwrap();
    let mut transaction = world.store.begin(BeginOptions::default()).unwrap();
    transaction.copy_previous().unwrap();
    let (half_is_done, half) = mpsc::channel();
    let (keeps, kept) = mpsc::channel();
    let (half_is_done, kept) = (Mutex::new(half_is_done), Mutex::new(kept));
    let kernel = Faulty::new(move |call| {
        let Call::Rename { name, .. } = call else { return None };
        if name != b"b" {
            return None;
        }
        // Only the first time: it is undone then.
        half_is_done.lock().unwrap().send(()).ok()?;
        let _ = kept.lock().unwrap().recv_timeout(Duration::from_millis(300));
        Some(Errno::EIO)
    });
    let out = world.out.clone();
    let other = std::thread::spawn(move || {
        let store = Store::open_with(&OpenOptions::with(kernel), out).unwrap();
        publish(&store, &[("a", "half"), ("b", "half"), ("c", "c")]).unwrap_err().outcome()
    });
    half.recv().unwrap();
    drop(half);
    let stage = transaction.keep().unwrap();
    let _ = keeps.send(());
    assert_eq!(other.join().unwrap(), Outcome::Unchanged);
    assert_eq!((read(&stage, "a"), read(&stage, "b")), ("a".into(), "b".into()));
}

/// The second source would make what was taken for the first be forgotten, and go.
#[test]
fn a_transaction_is_filled_from_one_source() {
    let world = World::new();
    let mut transaction = world.referencing();
    assert_eq!(transaction.copy_differing_from(&world.source).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(transaction.copy_previous().unwrap_err().kind(), ErrorKind::Usage);
    transaction.commit(&lenient()).unwrap();
    assert_eq!(read(&world.out, "a"), "a");
}

#[test]
fn a_copy_that_failed_is_made_again_by_the_next_attempt() {
    let World { _dir, out, source, store } = World::new();
    drop(store);
    for name in ["b", "d/y"] {
        fs::remove_file(out.join(name)).unwrap();
    }
    fs::write(source.join("a"), "changed").unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let is_full = full.clone();
    let kernel = Faulty::new(move |call| {
        let copies = matches!(call, Call::CreateFile { name } if name == b"y");
        (copies && is_full.swap(false, Ordering::SeqCst)).then_some(Errno::ENOSPC)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.copy_differing_from(&source).unwrap();
    full.store(true, Ordering::SeqCst);
    assert_eq!(transaction.commit(&CommitOptions::default()).unwrap_err().kind(), ErrorKind::Failed);
    transaction.commit(&CommitOptions::default()).unwrap();
    for (name, content) in [("a", "changed"), ("b", "b"), ("d/x", "d/x"), ("d/y", "d/y")] {
        assert_eq!(read(&out, name), content);
    }
}

/// It is neither published without it nor forgotten.
#[test]
fn what_is_neither_published_any_more_nor_in_the_source_refuses_the_commit() {
    let world = World::new();
    let mut transaction = world.referencing();
    for dir in [&world.out, &world.source] {
        fs::remove_file(dir.join("d/x")).unwrap();
    }
    let error = transaction.commit(&lenient()).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unchanged, "{error}");
    assert!(error.to_string().contains("src/d/x"), "{error}");
    fs::write(world.source.join("d/x"), "again").unwrap();
    // Another than was copied, of which the rest may be no part.
    assert_eq!(source_changes(&transaction.commit(&lenient()).unwrap_err()), ["d/x"]);
    drop(transaction);
    world.referencing().commit(&lenient()).unwrap();
    assert_eq!((read(&world.out, "d/x"), read(&world.out, "d/y")), ("again".into(), "d/y".into()));
    assert_eq!(world.store.verify().unwrap(), []);
}

/// The paths that somebody changed while they were being published.
fn source_changes(error: &txfs::Error) -> Vec<String> {
    let txfs::Error::Refused { problems, .. } = error else { panic!("{error}") };
    let paths = problems.iter().map(|problem| match problem {
        Problem::SourceChanged { paths, .. } => paths,
        other => panic!("{other}"),
    });
    paths.flat_map(|paths| paths.first.iter().map(ToString::to_string)).collect()
}

#[test]
fn a_source_that_is_changed_before_the_commit_is_refused_with_what_changed() {
    type Change = fn(&std::path::Path);
    let changes: [(Change, &[&str]); 5] = [
        (|source| fs::write(source.join("b"), "c").unwrap(), &["b"]),
        (|source| fs::remove_dir_all(source.join("d")).unwrap(), &["d", "d/x", "d/y"]),
        (|source| fs::write(source.join("d/new"), "new").unwrap(), &["d/new"]),
        (|source| fs::rename(source.join("a"), source.join("c")).unwrap(), &["a", "c"]),
        (
            |source| {
                fs::remove_dir_all(source).unwrap();
                fs::create_dir(source).unwrap();
            },
            &["a", "b", "d", "d/x", "d/y"],
        ),
    ];
    for (change, expected) in changes {
        for copies_all in [false, true] {
            let world = World::new();
            let mut transaction = world.store.begin(BeginOptions::default()).unwrap();
            fs::write(world.source.join("a"), "changed").unwrap();
            match copies_all {
                true => transaction.copy_from(&world.source).unwrap(),
                false => transaction.copy_differing_from(&world.source).unwrap(),
            }
            // As a tool does that writes a file beside the one that it is to replace.
            fs::write(world.source.join("d/temporary"), "").unwrap();
            fs::remove_file(world.source.join("d/temporary")).unwrap();
            change(&world.source);
            let refused = transaction.commit(&lenient()).unwrap_err();
            assert_eq!((refused.kind(), refused.outcome()), (ErrorKind::Refused, Outcome::Unchanged));
            assert_eq!(source_changes(&refused), expected);
            assert!(transaction.is_open());
            drop(transaction);
            assert_eq!(read(&world.out, "a"), "a");
            assert_eq!(world.store.transactions().unwrap(), []);
            // And nothing of it is in the way of the next.
            fs::create_dir_all(&world.source).unwrap();
            let mut transaction = world.referencing();
            transaction.write("other", "file").unwrap();
            transaction.commit(&lenient()).unwrap();
        }
    }
}

#[test]
fn what_goes_from_a_source_while_it_is_copied_is_named() {
    let world = World::new();
    fs::write(world.source.join("d/x"), "changed").unwrap();
    let source = world.source.clone();
    let fs_that_sees = Faulty::new(move |call: &Call| {
        if *call == Call::Read("copy_content") {
            let _ = fs::remove_dir_all(source.join("d"));
        }
        None
    });
    let store = Store::open_with(&OpenOptions::with(fs_that_sees), &world.out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fs::write(world.source.join("a"), "changed").unwrap();
    let result = transaction.copy_differing_from(&world.source).and_then(|()| transaction.commit(&lenient()));
    assert!(source_changes(&result.unwrap_err()).iter().any(|path| path.starts_with('d')));
}
