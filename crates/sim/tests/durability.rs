//! What is durable besides what a commit moves: in every state that a crash can leave on the simulated file system.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use txfs::fs::{Fs, RenameMode};
use txfs::{Barriers, BeginOptions, CommitOptions, Committed, Error, OpenOptions, Store};
use txfs_sim::{Call, Config, Fault, SimFs, Weakness};

const OUT: &str = "/w/dist";

const ALL: [(Weakness, Barriers); 6] = [
    (Weakness::Ordered, Barriers::Whole),
    (Weakness::Ordered, Barriers::Single),
    (Weakness::Btrfs, Barriers::Whole),
    (Weakness::Btrfs, Barriers::Single),
    (Weakness::Posix, Barriers::Whole),
    (Weakness::Posix, Barriers::Single),
];

fn world(weakness: Weakness) -> SimFs {
    let fs = SimFs::new(Config::new(weakness));
    fs.put_dir(OUT, 0o755);
    fs
}

fn open(fs: &SimFs, barriers: Barriers) -> Store<SimFs> {
    Store::open_with(&OpenOptions::with(fs.clone()).barriers(barriers), OUT).unwrap()
}

fn lenient<'a>() -> CommitOptions<'a> {
    CommitOptions::default().max_removed(100).allow_empty(true).adopt(true)
}

fn publish(store: &Store<SimFs>, files: &[(&str, &str)]) -> txfs::Result<Committed> {
    let mut transaction = store.begin(BeginOptions::default())?;
    files.iter().try_for_each(|(path, content)| transaction.write(path, content))?;
    transaction.commit(&lenient())
}

/// A generation that no crash can take back any more.
fn published(fs: &SimFs, barriers: Barriers, files: &[(&str, &str)]) {
    let store = open(fs, barriers);
    publish(&store, files).unwrap();
    store.sweep().unwrap();
    fs.settle();
}

/// Somebody makes a file in the output, and leaves it to the kernel to write it down.
fn write_into_output(fs: &SimFs, name: &str, content: &str) {
    let dir = fs.open_anchor(Path::new(OUT)).unwrap();
    let mut file = fs.create_file(&dir, b".new", 0o644).unwrap();
    assert_eq!(fs.write(&mut file, content.as_bytes()).unwrap(), content.len());
    fs.rename(&dir, b".new", &dir, name.as_bytes(), RenameMode::Replace).unwrap();
}

/// Recovers every state that a crash can leave now, and looks for these files of the output.
fn assert_durable(fs: &SimFs, files: &[(&str, &str)]) {
    for state in fs.crash_states(20_000) {
        open(&state, Barriers::Chosen);
        for (path, content) in files {
            let entry = state.entry(Path::new(OUT).join(path));
            let found = entry.as_ref().map(|entry| entry.content());
            assert_eq!(found, Some(content.as_bytes()), "{path}\n{}", state.describe());
        }
    }
}

#[test]
fn what_is_taken_over_as_it_lies_there_is_durable() {
    for (weakness, barriers) in ALL {
        let fs = world(weakness);
        published(&fs, barriers, &[("a", "one")]);
        write_into_output(&fs, "theirs", "theirs");
        let store = open(&fs, barriers);
        publish(&store, &[("a", "two"), ("theirs", "theirs")]).unwrap();
        assert_durable(&fs, &[("a", "two"), ("theirs", "theirs")]);
        store.sweep().unwrap();
        assert_durable(&fs, &[("a", "two"), ("theirs", "theirs")]);
    }
}

#[test]
fn what_somebody_wrote_anew_with_the_same_content_is_durable() {
    for (weakness, barriers) in ALL {
        for (a, changed) in [("two", true), ("one", false)] {
            let fs = world(weakness);
            published(&fs, barriers, &[("a", "one"), ("b", "same")]);
            write_into_output(&fs, "b", "same");
            let committed = publish(&open(&fs, barriers), &[("a", a), ("b", "same")]).unwrap();
            assert_eq!(committed.changed, changed);
            assert_durable(&fs, &[("a", a), ("b", "same")]);
        }
    }
}

/// The kernel tells an open file description of an error once, and all transactions of a store ask through the same one.
#[test]
fn an_error_of_a_barrier_concerns_every_stage_that_was_open() {
    for barriers in [Barriers::Whole, Barriers::Single] {
        let fs = world(Weakness::Ordered);
        published(&fs, barriers, &[("a", "one")]);
        let store = open(&fs, barriers);
        let begin = || store.begin(BeginOptions::default()).unwrap();
        let (mut one, mut two) = (begin(), begin());
        one.write("a", "from one").unwrap();
        two.write("a", "from two").unwrap();
        fs.fail_at(fs.calls() + first_barrier(&fs, barriers), Fault::new(nix::errno::Errno::EIO as i32));
        for transaction in [&mut one, &mut two] {
            let error = transaction.commit(&lenient()).unwrap_err();
            assert!(matches!(error, Error::StageLost { .. }), "{error}");
        }
        assert_eq!(fs.fired(), 1);
        publish(&store, &[("a", "three")]).unwrap();
        assert_durable(&fs, &[("a", "three")]);
    }
}

/// Kept, it would be committed by a process that is told of nothing. What is begun later is not concerned, whoever takes it up.
#[test]
fn a_stage_that_was_open_when_a_barrier_failed_is_not_kept() {
    let fs = world(Weakness::Ordered);
    published(&fs, Barriers::Whole, &[("a", "one")]);
    let store = open(&fs, Barriers::Whole);
    let begin = |content: &str| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write("a", content).unwrap();
        transaction
    };
    let (mut one, two) = (begin("from one"), begin("from two"));
    fs.fail_at(fs.calls() + first_barrier(&fs, Barriers::Whole), Fault::new(nix::errno::Errno::EIO as i32));
    one.commit(&lenient()).unwrap_err();
    let error = two.keep().unwrap_err();
    assert!(matches!(error, Error::StageLost { .. }), "{error}");
    assert_eq!(store.transactions().unwrap(), []);

    let three = begin("from three").keep().unwrap();
    let (_, id) = Store::parse_stage(&OpenOptions::with(fs.clone()), &three).unwrap().unwrap();
    store.resume(id).unwrap().commit(&lenient()).unwrap();
    assert_durable(&fs, &[("a", "from three")]);
}

/// Which call of a commit that changes `a` is its first barrier, from 1.
fn first_barrier(fs: &SimFs, barriers: Barriers) -> u64 {
    let trial = fs.fork();
    let store = open(&trial, barriers);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("a", "from one").unwrap();
    let before = trial.calls();
    transaction.commit(&lenient()).unwrap();
    let commit = &trial.log()[before as usize..];
    1 + commit.iter().position(|call| matches!(call, Call::SyncFs | Call::SyncFile)).unwrap() as u64
}

/// Whoever makes a store may be killed before its last barrier, and the next finds it complete.
#[test]
fn a_store_whose_making_was_interrupted_is_durable_with_its_first_commit() {
    for (weakness, barriers) in ALL {
        let trial = world(weakness);
        drop(open(&trial, barriers));
        let calls = trial.log();
        for (n, _) in calls.iter().enumerate().filter(|(_, call)| call.is_barrier()) {
            let fs = world(weakness);
            fs.fail_at(1 + n as u64, Fault::keeping(nix::errno::Errno::EIO as i32));
            Store::open_with(&OpenOptions::with(fs.clone()).barriers(barriers), OUT).unwrap_err();
            assert_eq!(fs.fired(), 1);
            fs.mend();
            publish(&open(&fs, barriers), &[("a", "one")]).unwrap();
            assert_durable(&fs, &[("a", "one")]);
        }
    }
}

/// The digest of a file that the library wrote is known, and is believed while the file looks the same.
#[test]
fn a_file_that_is_written_again_within_the_same_tick_is_published_as_it_is() {
    let config = Config { mtime_granularity: 4_000_000, tick: 20_000, ..Config::new(Weakness::Ordered) };
    let fs = SimFs::new(config);
    fs.put_dir(OUT, 0o755);
    let store = open(&fs, Barriers::Chosen);
    for round in 0..100 {
        let (old, new) = (format!("{:04}", 2 * round), format!("{:04}", 2 * round + 1));
        publish(&store, &[("a", &old)]).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write("a", &old).unwrap();
        let stage = fs.open_anchor(&transaction.stage()).unwrap();
        let mut file = fs.open_write(&stage, b"a").unwrap();
        fs.write(&mut file, new.as_bytes()).unwrap();
        transaction.commit(&lenient()).unwrap();
        assert_eq!(fs.entry(Path::new(OUT).join("a")).unwrap().content(), new.as_bytes());
    }
}

#[test]
fn after_any_crash_there_is_a_way_back_to_the_generation_before() {
    let mut went_back = 0;
    for (weakness, barriers) in ALL {
        let fs = world(weakness);
        fs.put_file(Path::new(OUT).join("theirs"), b"precious", 0o644);
        published(&fs, barriers, &[("a", "one")]);
        let store = open(&fs, barriers);
        fs.record_crash_points();
        publish(&store, &[("a", "two"), ("theirs", "taken over")]).unwrap();
        store.sweep().unwrap();
        for state in fs.crash_points().iter().flat_map(|point| point.states(100)) {
            let store = open(&state, Barriers::Chosen);
            store.sweep().unwrap();
            if store.head().unwrap().is_some_and(|head| head.info.generation == 2) {
                let mut transaction = store.begin(BeginOptions::default()).unwrap();
                assert_eq!(transaction.copy_previous().unwrap(), 1, "{}", state.describe());
                went_back += 1;
            }
        }
    }
    println!("went back in {went_back} states");
    assert!(went_back > 1000);
}
