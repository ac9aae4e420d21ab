//! What a journal names is looked for as it says, and nobody's later doing is evidence against it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use txfs::{
    Basis, BeginOptions, Error, ErrorKind, OpenOptions, Outcome, RecoverOptions, Recovered, RecoveredCommit, Store,
    Transaction,
};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::snapshot;
use txfs_testing::{lenient, mode, publish, read, scratch, set_mode};

/// A kernel that does nothing more from the instant at which the commit point was passed.
fn dying() -> Faulty {
    let dead = AtomicBool::new(false);
    Faulty::new(move |call| {
        if matches!(call, Call::Rename { name, .. } if name == b"journal.new") {
            dead.store(true, Ordering::SeqCst);
        }
        dead.load(Ordering::SeqCst).then_some(Errno::EIO)
    })
}

/// Commits what `fill` stages up to the commit point, and returns the stage that is left behind.
fn interrupted(out: &Path, from: Basis, fill: impl FnOnce(&mut Transaction<Faulty>)) -> PathBuf {
    let store = Store::open_with(&OpenOptions::with(dying()), out).unwrap();
    let mut transaction = store.begin(BeginOptions::default().from(from)).unwrap();
    let stage = transaction.stage();
    fill(&mut transaction);
    let error = transaction.commit(&lenient()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
    assert!(store.state().join("journal.new").exists());
    stage
}

fn recovered(out: &Path) -> txfs::Result<Recovered> {
    Store::open_with(&OpenOptions::default().recover(false), out).unwrap().recover(RecoverOptions::default())
}

fn assert_rolled_forward(recovered: &Recovered) {
    let commit = recovered.commit;
    assert!(matches!(commit, Some(RecoveredCommit::RolledForward { generation: 2, .. })), "{commit:?}");
}

/// A staged file with a second name elsewhere.
fn link(stage: &Path, path: &str, content: &str) {
    let other = stage.parent().unwrap().join("elsewhere");
    fs::create_dir_all(stage.join(path).parent().unwrap()).unwrap();
    fs::write(&other, content).unwrap();
    fs::hard_link(&other, stage.join(path)).unwrap();
}

#[test]
fn a_change_into_a_directory_that_somebody_removed_stands() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a/x", "old"), ("a/other", "old"), ("a/deep/er", "old"), ("top", "old")]).unwrap();
    drop(store);
    fs::remove_dir_all(out.join("a")).unwrap();
    interrupted(&out, Basis::Current, |transaction| {
        transaction.write("a/x", "new").unwrap();
        transaction.write("top", "new").unwrap();
    });
    assert_rolled_forward(&recovered(&out).unwrap());
    assert_eq!((read(&out, "a/x"), read(&out, "top")), ("new".into(), "new".into()));
    // What the change did not name is as it was: missing.
    assert!(!out.join("a/other").exists());
}

#[test]
fn what_is_added_to_a_staged_directory_late_is_moved_aside_and_the_commit_stands() {
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &[("top", "old")]).unwrap();
    let stage = interrupted(&out, Basis::Empty, |transaction| {
        transaction.write("new/deep/x", "new").unwrap();
        transaction.write("top", "new").unwrap();
    });
    fs::write(stage.join("new/late"), "late").unwrap();
    fs::create_dir_all(stage.join("new/deep/more/still")).unwrap();
    fs::write(stage.join("new/deep/more/still/later"), "later").unwrap();
    let recovered = recovered(&out).unwrap();
    assert_rolled_forward(&recovered);
    assert_eq!((read(&out, "new/deep/x"), read(&out, "top")), ("new".into(), "new".into()));
    assert!(!out.join("new/late").exists() && !out.join("new/deep/more").exists());
    let aside: Vec<String> =
        recovered.rescued.iter().map(|path| fs::read_to_string(path).unwrap_or_default()).collect();
    assert_eq!(aside, ["", "late"]);
    assert_eq!(read(&recovered.rescued[0], "still/later"), "later");
    assert_eq!(Store::open(&out).unwrap().verify().unwrap(), []);
}

#[test]
fn what_was_staged_and_is_not_there_was_never_durable() {
    type Lose = fn(&Path);
    let losses: [(&str, Lose); 4] = [
        ("a file that moves along", |stage| fs::remove_file(stage.join("new/deep/x")).unwrap()),
        ("a directory that moves along", |stage| fs::remove_dir_all(stage.join("new/deep")).unwrap()),
        ("a file that moves", |stage| fs::remove_file(stage.join("top")).unwrap()),
        ("content", |stage| txfs_testing::change_a_byte(&stage.join("new/deep/x"))),
    ];
    for (name, lose) in losses {
        let (_dir, out) = scratch();
        publish(&Store::open(&out).unwrap(), &[("top", "old")]).unwrap();
        let before = snapshot(&out);
        let stage = interrupted(&out, Basis::Empty, |transaction| {
            transaction.write("new/deep/x", "new").unwrap();
            transaction.write("top", "new").unwrap();
        });
        lose(&stage);
        let recovered = recovered(&out).unwrap();
        assert!(matches!(recovered.commit, Some(RecoveredCommit::Discarded)), "{name}: {recovered:?}");
        assert_eq!(snapshot(&out), before, "{name}");
    }
}

#[test]
fn a_manifest_in_a_file_of_its_own_is_read_from_its_beginning() {
    let (_dir, out) = scratch();
    let few: Vec<_> = (10..20).map(|i| (i.to_string(), "old")).collect();
    let few: Vec<_> = few.iter().map(|(name, content)| (name.as_str(), *content)).collect();
    publish(&Store::open(&out).unwrap(), &few).unwrap();
    let before = snapshot(&out);
    interrupted(&out, Basis::Empty, |transaction| {
        (10..99).for_each(|i| transaction.write(i.to_string(), "new").unwrap());
    });
    // In the first of its nodes, as far from its beginning as what the base has in its own file.
    let manifest = txfs_testing::state_of(&out).join("manifests/2");
    let mut bytes = fs::read(&manifest).unwrap();
    bytes[100] ^= 1;
    fs::write(&manifest, bytes).unwrap();
    let recovered = recovered(&out).unwrap();
    assert!(matches!(recovered.commit, Some(RecoveredCommit::Discarded)), "{recovered:?}");
    assert_eq!(snapshot(&out), before);
}

#[test]
fn a_file_that_is_written_to_after_the_commit_point_does_not_take_the_commit_back() {
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &[("top", "old")]).unwrap();
    let stage = interrupted(&out, Basis::Empty, |transaction| {
        transaction.write("new/x", "new").unwrap();
        transaction.write("top", "new").unwrap();
    });
    // The kernel's clock for files may be a few milliseconds behind.
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(stage.join("new/x"), "edited by somebody").unwrap();
    assert_rolled_forward(&recovered(&out).unwrap());
    assert_eq!((read(&out, "new/x"), read(&out, "top")), ("edited by somebody".into(), "new".into()));

    // What is moved by itself has to be what was intended: then recovery refuses, and discards nothing.
    let stage = interrupted(&out, Basis::Current, |transaction| transaction.write("top", "newer").unwrap());
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(stage.join("top"), "edited by somebody").unwrap();
    let error = recovered(&out).unwrap_err();
    assert!(matches!(error, Error::Unrecognized { .. }), "{error}");
    assert_eq!(read(&stage, "top"), "edited by somebody");
}

#[test]
fn a_mode_that_is_changed_later_makes_no_commit_of_a_torn_file() {
    type Lose = fn(&Path);
    // The content that a crash leaves, the time of the file being lost with it, and what becomes of the commit.
    let cases: [(&str, Lose, bool); 3] = [
        ("a shorter content", |file| fs::write(file, "n").unwrap(), false),
        ("a content of zeros", |file| fs::write(file, "\0\0\0").unwrap(), false),
        ("all of it", |_| {}, true),
    ];
    for (name, lose, is_kept) in cases {
        for moved in ["new/x", "top"] {
            let (_dir, out) = scratch();
            publish(&Store::open(&out).unwrap(), &[("top", "old")]).unwrap();
            let before = snapshot(&out);
            let stage = interrupted(&out, Basis::Empty, |transaction| {
                transaction.write("new/x", "new").unwrap();
                transaction.write("top", "new").unwrap();
            });
            // The kernel's clock for files may be a few milliseconds behind.
            std::thread::sleep(std::time::Duration::from_millis(20));
            let file = stage.join(moved);
            lose(&file);
            let of_file = fs::File::options().write(true).open(&file).unwrap();
            of_file.set_modified(std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1)).unwrap();
            set_mode(&file, 0o640);
            set_mode(&file, 0o644);
            let recovered = recovered(&out).unwrap();
            if is_kept {
                assert_rolled_forward(&recovered);
                assert_eq!(read(&out, moved), "new", "{name}");
            } else {
                assert!(matches!(recovered.commit, Some(RecoveredCommit::Discarded)), "{name}, {moved}: {recovered:?}");
                assert_eq!(snapshot(&out), before, "{name}, {moved}");
            }
        }
    }
}

#[test]
fn a_link_in_a_closed_directory_keeps_the_mode_that_is_published() {
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &[("top", "old")]).unwrap();
    interrupted(&out, Basis::Empty, |transaction| {
        let stage = transaction.stage();
        link(&stage, "new/d/a", "a");
        fs::write(stage.join("top"), "new").unwrap();
        set_mode(&stage.join("new/d"), 0o555);
    });
    assert_rolled_forward(&recovered(&out).unwrap());
    assert_eq!((read(&out, "new/d/a"), mode(&out.join("new/d"))), ("a".into(), 0o555));
    assert_eq!(Store::open(&out).unwrap().verify().unwrap(), []);
    set_mode(&out.join("new/d"), 0o755);
}

#[test]
fn a_refused_commit_gives_a_closed_directory_its_mode_back() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    let stage = transaction.stage();
    link(&stage, "d/a", "a");
    fs::write(stage.join("d/A"), "A").unwrap();
    set_mode(&stage.join("d"), 0o555);
    assert_eq!(transaction.commit(&lenient()).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(mode(&stage.join("d")), 0o555);
    let mut options = lenient();
    options.allow_case_collisions = true;
    transaction.commit(&options).unwrap();
    assert_eq!(mode(&out.join("d")), 0o555);
    assert_eq!(store.verify().unwrap(), []);
    set_mode(&out.join("d"), 0o755);
}

#[test]
fn a_damaged_manifest_of_the_base_takes_no_commit_back() {
    let old = ["a/x", "a/y", "b", "c", "d", "e", "f"].map(|path| (path, "old"));
    for removed in [false, true] {
        let (_dir, out) = scratch();
        let store = Store::open(&out).unwrap();
        publish(&store, &old).unwrap();
        drop(store);
        if removed {
            fs::remove_dir_all(out.join("a")).unwrap();
        }
        let stage = interrupted(&out, Basis::Current, |transaction| transaction.write("a/x", "new").unwrap());
        // The root of the first generation follows the header; that of the second is appended behind it.
        let manifest = txfs_testing::state_of(&out).join("manifests/1");
        let mut bytes = fs::read(&manifest).unwrap();
        bytes[20] ^= 1;
        fs::write(&manifest, bytes).unwrap();
        match removed {
            // Nothing is missing in the stage that it could explain.
            false => assert_rolled_forward(&recovered(&out).unwrap()),
            true => {
                assert_eq!(recovered(&out).unwrap_err().kind(), ErrorKind::Corrupt);
                assert_eq!(read(&stage, "a/x"), "new");
            }
        }
    }
}

#[test]
fn what_is_changed_after_it_was_read_refuses_the_commit_until_the_build_has_finished() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("new/x", |stage| fs::write(stage.join("new/x"), "rewritten").unwrap()),
        ("new/deep", |stage| set_mode(&stage.join("new/deep"), 0o750)),
        ("new/deep/y", |stage| fs::remove_file(stage.join("new/deep/y")).unwrap()),
    ];
    for (path, change) in changes {
        let (_dir, out) = scratch();
        publish(&Store::open(&out).unwrap(), &[("top", "old")]).unwrap();
        let staged: Arc<Mutex<Option<PathBuf>>> = Arc::default();
        let to_change = staged.clone();
        let kernel = Faulty::new(move |call| {
            if matches!(call, Call::CreateFile { name } if name == b"journal.new")
                && let Some(stage) = to_change.lock().unwrap().take()
            {
                change(&stage);
            }
            None
        });
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write("new/x", "new").unwrap();
        transaction.write("new/deep/y", "new").unwrap();
        *staged.lock().unwrap() = Some(transaction.stage());
        let error = transaction.commit(&lenient()).unwrap_err();
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Failed, Outcome::Unchanged), "{error}");
        let said = format!("{error:?}");
        assert!(said.contains(path) && said.contains("changed after it was read"), "{said}");
        assert_eq!(read(&out, "top"), "old");
        assert!(!out.join("new").exists() && !store.state().join("journal.new").exists());
        transaction.commit(&lenient()).unwrap();
        assert_eq!(store.verify().unwrap(), []);
    }
}

#[test]
fn what_somebody_wrote_and_recovery_was_told_to_leave_is_moved_aside() {
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &[("top", "old"), ("same", "old")]).unwrap();
    let stage = interrupted(&out, Basis::Empty, |transaction| {
        transaction.write("same", "old").unwrap();
        transaction.write("top", "new").unwrap();
        transaction.write("added", "new").unwrap();
    });
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(stage.join("added"), "edited by somebody").unwrap();
    assert!(matches!(recovered(&out).unwrap_err(), Error::Unrecognized { .. }));
    let store = Store::open_with(&OpenOptions::default().recover(false), &out).unwrap();
    let recovered = store.recover(RecoverOptions::default().skip_unknown(true)).unwrap();
    store.sweep().unwrap();
    let [aside] = &recovered.rescued[..] else { panic!("{recovered:?}") };
    assert_eq!((fs::read_to_string(aside).unwrap(), read(&out, "top")), ("edited by somebody".into(), "new".into()));
}

#[test]
fn a_directory_that_names_an_entry_twice_makes_no_journal_that_recovery_refuses() {
    let (_dir, out) = scratch();
    let store = Store::open_with(&OpenOptions::with(Faulty::naming_twice()), &out).unwrap();
    for content in ["old", "new"] {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for path in ["a", "d/x", "d/deep/y"] {
            transaction.write(path, content).unwrap();
        }
        assert_eq!(transaction.commit(&lenient()).unwrap().totals.entries, 5);
    }
    drop(store);
    recovered(&out).unwrap();
    assert_eq!((read(&out, "d/deep/y"), read(&out, "a")), ("new".into(), "new".into()));
    assert_eq!(Store::open(&out).unwrap().verify().unwrap(), []);
}
