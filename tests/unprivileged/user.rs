//! What the other user does: the scenes, each named by the test that has it played.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use txfs::fs::LinuxFs;
use txfs::fs::linux::Without;
use txfs::{
    Barriers, BeginOptions, Error, ErrorKind, OpenOptions, Outcome, Place, RecoverOptions, RecoveredCommit, Store,
};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::without_state;
use txfs_testing::{lenient, mode, publish, read, set_mode, state_of};

use super::USER;

/// Read-only files and directories, nested, are published, changed, and removed by their owner.
pub(super) fn read_only(out: &Path) {
    let store = Store::open(out).unwrap();
    for (round, bits) in [0o555, 0o500, 0o550, 0o555].into_iter().enumerate() {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for path in ["ro/file".into(), "ro/sub/file".into(), "keep".into(), format!("ro/new-{round}/deep/file")] {
            transaction.write(path, format!("{round}")).unwrap();
        }
        let stage = transaction.stage();
        let new = format!("ro/new-{round}");
        set_mode(&stage.join("ro/file"), 0o400);
        for path in [&format!("{new}/deep"), &new, "ro/sub", "ro"] {
            set_mode(&stage.join(path), bits);
        }
        set_mode(&stage, 0o555);
        let committed = transaction.commit(&lenient()).unwrap();
        assert!(committed.warnings.is_empty() && committed.rescued.is_empty(), "{committed:?}");
        assert_eq!(read(out, "ro/sub/file"), format!("{round}"));
        assert_eq!(read(out, &format!("{new}/deep/file")), format!("{round}"));
        for path in [&format!("{new}/deep"), &new, "ro/sub", "ro"] {
            assert_eq!(mode(&out.join(path)), bits, "{path}");
        }
        assert_eq!(fs::read_dir(out.join("ro")).unwrap().count(), 3, "the directory of the last round is gone");
        assert!(store.verify().unwrap().is_empty());
    }
    for content in ["x", "y", "z"] {
        let committed = publish(&store, &[("ro", content)]).unwrap();
        assert!(committed.warnings.is_empty() && committed.rescued.is_empty(), "{committed:?}");
        assert_eq!(read(out, "ro"), content);
    }
    publish(&store, &[("ro/file", "again")]).unwrap();
}

/// `b` belongs to root: what is in it cannot be replaced.
pub(super) fn denied(out: &Path) {
    let store = Store::open(out).unwrap();
    let before = without_state(out);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    for (path, content) in [("a/x", "2"), ("b/y", "2"), ("c", "2"), ("n/new", "2")] {
        transaction.write(path, content).unwrap();
    }
    set_mode(&transaction.stage().join("n"), 0o555);
    for _ in 0..2 {
        let error = transaction.commit(&lenient()).unwrap_err();
        assert!(matches!(error, Error::RolledBack { .. }), "{error}");
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Failed, Outcome::Unchanged));
        assert!(error.to_string().contains("dist/b"), "{error}");
        assert_eq!(without_state(out), before);
    }
    assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing());
    assert!(store.verify().unwrap().is_empty());
}

/// A commit whose process dies when `b` is to change.
pub(super) fn interrupted(out: &Path) {
    let dead = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| {
        dead.fetch_or(matches!(call, Call::Rename { name, .. } if name == b"y"), Ordering::SeqCst);
        dead.load(Ordering::SeqCst).then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), out).unwrap();
    let error = publish(&store, &[("a/x", "2"), ("b/y", "2"), ("c", "2")]).unwrap_err();
    assert_eq!((error.outcome(), read(out, "a/x")), (Outcome::Unknown, "2".into()), "{error}");
}

/// `b` belongs to root since then: the commit can be undone, and not carried out.
pub(super) fn unfinished(out: &Path) {
    let store = Store::open_with(&OpenOptions::default().recover(false), out).unwrap();
    for _ in 0..2 {
        let error = store.recover(RecoverOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Unfinished { generation: 2, .. }), "{error}");
        assert!(
            error.to_string().contains("dist/b") && error.hint().unwrap().contains("RecoverOptions::undo"),
            "{error}"
        );
        assert_eq!((error.kind(), error.outcome()), (ErrorKind::Unknown, Outcome::Unknown));
        assert_eq!((read(out, "a/x"), read(out, "b/y")), ("2".into(), "1".into()));
    }
    assert!(matches!(store.begin(BeginOptions::default()), Err(Error::Unfinished { .. })));
    let undone = store.recover(RecoverOptions::default().undo(true)).unwrap();
    assert_eq!(undone.commit, Some(RecoveredCommit::RolledBack { generation: 2 }));
    assert_eq!(["a/x", "b/y", "c"].map(|path| read(out, path)), ["1", "1", "1"]);
    assert!(store.verify().unwrap().is_empty() && store.recover(RecoverOptions::default()).unwrap().is_nothing());
}

/// Nothing can be made beside the output.
pub(super) fn inside(out: &Path) {
    for content in ["1", "2"] {
        let store = Store::open(out).unwrap();
        assert_eq!((store.place(), store.state()), (Place::Inside, out.join(".txfs").as_path()));
        publish(&store, &[("a/b", content), ("c", "c")]).unwrap();
        assert_eq!(read(out, "a/b"), content);
    }
    // Without an output there is no place at all.
    let error = Store::open(out.with_file_name("other")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
}

/// A file in a closed directory of the stage is replaced, which stays closed.
pub(super) fn written_anew(out: &Path) {
    let store = Store::open(out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("d/a", "one").unwrap();
    set_mode(&transaction.stage().join("d"), 0o555);
    transaction.write("d/a", "two").unwrap();
    transaction.symlink("d/b", "a").unwrap();
    transaction.write("d/b", "three").unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!((read(out, "d/a"), read(out, "d/b"), mode(&out.join("d"))), ("two".into(), "three".into(), 0o555));
    set_mode(&out.join("d"), 0o755);
}

/// A stale read-only directory is taken apart, the commit fails later, and everything comes back.
pub(super) fn piecewise_rollback(out: &Path) {
    let kernel = Faulty::new(|call| match call {
        Call::Rename { name, directory: true, .. } if name == b"stale" => Some(Errno::EXDEV),
        Call::RemoveDir { name } if name == b"stale" => Some(Errno::EIO),
        _ => None,
    });
    let store = Store::open_with(&txfs::OpenOptions::with(kernel), out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    for path in ["stale/1", "stale/sub/2", "keep"] {
        transaction.write(path, "old").unwrap();
    }
    for path in ["stale/sub", "stale"] {
        set_mode(&transaction.stage().join(path), 0o555);
    }
    transaction.commit(&lenient()).unwrap();
    let before = without_state(out);
    let error = publish(&store, &[("keep", "new")]).unwrap_err();
    assert!(matches!(error, Error::RolledBack { .. }), "{error}");
    assert_eq!(without_state(out), before);
}

/// More files than a process may have open, and then a directory that may not be read: one `syncfs` needs neither.
pub(super) fn unsyncable(out: &Path) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, most).unwrap();
    for (content, expected) in [("1", [1, 0]), ("2", [1, 1])] {
        let whole = Arc::new(AtomicUsize::new(0));
        let seen = whole.clone();
        let kernel = Faulty::new(move |call| {
            seen.fetch_add(usize::from(*call == Call::SyncFs), Ordering::SeqCst);
            None
        });
        let store = Store::open_with(&OpenOptions::with(kernel).barriers(Barriers::Single), out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        whole.store(0, Ordering::SeqCst);
        (0..100).for_each(|n| transaction.write(format!("d/{n}"), content).unwrap());
        let committed = transaction.commit(&lenient()).unwrap();
        let at_commit = whole.swap(0, Ordering::SeqCst);
        store.recover(RecoverOptions::default()).unwrap();
        assert!(committed.warnings.is_empty(), "{committed:?}");
        assert_eq!([at_commit, whole.load(Ordering::SeqCst)], expected, "generation {content}");
        assert_eq!((read(out, "d/7"), store.verify().unwrap().len()), (content.into(), 0));
        // From here on the directory that holds the output may only be searched.
        set_mode(out.parent().unwrap(), 0o311);
    }
    set_mode(out.parent().unwrap(), 0o755);
}

/// What cannot be read cannot be published; nothing changes, and it is said which path it is.
pub(super) fn unreadable(out: &Path) {
    let store = Store::open(out).unwrap();
    publish(&store, &[("a", "1")]).unwrap();
    let cases = [("secret", 0o000), ("known", 0o000), ("known", 0o244), ("dir", 0o000), ("dir", 0o300)];
    for (path, bits) in cases {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write("a", "2").unwrap();
        let staged = transaction.stage().join(path);
        match path {
            "dir" => {
                fs::create_dir(&staged).unwrap();
                fs::write(staged.join("x"), "x").unwrap();
            }
            // The commit would not have to read it, but recovery may.
            "known" => transaction.write(path, "x").unwrap(),
            _ => fs::write(&staged, "x").unwrap(),
        }
        set_mode(&staged, bits);
        let error = transaction.commit(&lenient()).unwrap_err();
        assert!(error.to_string().contains(path), "{error}");
        assert_eq!((error.outcome(), read(out, "a")), (Outcome::Unchanged, "1".into()));
        transaction.abort().unwrap_or_else(|error| panic!("{path} {bits:o}: {error}"));
    }
    assert_eq!(fs::read_dir(state_of(out).join("tx")).unwrap().count(), 0);
}

/// What somebody removed is copied again, also into directories of the source that their owner may not write to.
pub(super) fn put_back(ground: &Path) {
    let (source, out) = (ground.join("source"), ground.join("dist"));
    fs::create_dir_all(source.join("d")).unwrap();
    fs::write(source.join("d/f"), "1").unwrap();
    fs::write(source.join("d/g"), "1").unwrap();
    set_mode(&source.join("d"), 0o555);
    let store = Store::open(&out).unwrap();
    let publish = || {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.copy_differing_from(&source).unwrap();
        transaction.commit(&lenient()).unwrap();
        assert_eq!((read(&out, "d/f"), mode(&out.join("d"))), ("1".into(), 0o555));
        assert_eq!(store.verify().unwrap(), []);
    };
    publish();
    set_mode(&out.join("d"), 0o755);
    fs::remove_file(out.join("d/f")).unwrap();
    set_mode(&out.join("d"), 0o555);
    publish();
    set_mode(&out.join("d"), 0o755);
    fs::remove_dir_all(&out).unwrap();
    publish();
    for dir in [source.join("d"), out.join("d")] {
        set_mode(&dir, 0o755);
    }
}

/// Without RENAME_NOREPLACE, into a directory that may be searched and written to, and not read.
pub(super) fn linked(out: &Path) {
    let without = LinuxFs::without(Without { no_replace: true, ..Without::default() });
    let store = Store::open_with(&OpenOptions::with(without), out).unwrap();
    publish(&store, &[("d/a", "1")]).unwrap();
    set_mode(&out.join("d"), 0o300);
    let mut transaction = store.begin(BeginOptions::default().from(txfs::Basis::Current)).unwrap();
    transaction.write("d/b", "2").unwrap();
    let mut options = lenient();
    options.allow_drift = true;
    transaction.commit(&options).unwrap();
    set_mode(&out.join("d"), 0o700);
    assert_eq!(read(out, "d/b"), "2");
}

/// A program that lends the rights of its owner, and then another in its place.
pub(super) fn program(out: &Path) {
    let store = Store::open(out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("program", "1").unwrap();
    transaction.symlink("link", "1").unwrap();
    set_mode(&transaction.stage().join("program"), 0o4750);
    transaction.commit(&lenient()).unwrap();
}

/// It belongs to root since then, and to a group that this user is in; and so does the link.
pub(super) fn program_back(out: &Path) {
    let store = Store::open(out).unwrap();
    let whose = |path: &str| {
        let stat = fs::symlink_metadata(out.join(path)).unwrap();
        (stat.uid(), stat.gid())
    };
    let copy = store.begin(BeginOptions::default().from(txfs::Basis::Copy)).unwrap();
    assert_eq!(mode(&copy.stage().join("program")), 0o750);
    copy.abort().unwrap();
    publish(&store, &[("program", "2")]).unwrap();
    assert_ne!(whose("program").1, USER, "what is made here gets another group");
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.copy_previous().unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!((read(out, "program"), mode(&out.join("program"))), ("1".into(), 0o750));
    assert_eq!([whose("program"), whose("link")], [(USER, USER); 2]);
}

/// Into directories that their owner may not write to, and that are taken from the current generation.
pub(super) fn written_into(out: &Path) {
    let store = Store::open(out).unwrap();
    for content in ["1", "2"] {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for path in ["ro/sub/file", "ro/file"] {
            transaction.write(path, "same").unwrap();
        }
        transaction.write("a", content).unwrap();
        for (dir, bits) in [("ro/sub", 0o500), ("ro", 0o555)] {
            set_mode(&transaction.stage().join(dir), bits);
        }
        transaction.commit(&lenient()).unwrap();
    }
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.copy_previous().unwrap();
    transaction.write("ro/sub/new", "new").unwrap();
    transaction.symlink("ro/link", "file").unwrap();
    transaction.make_dir("ro/dir/deep").unwrap();
    transaction.write("ro/dir/deep/new", "new").unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!([mode(&out.join("ro")), mode(&out.join("ro/sub"))], [0o555, 0o500]);
    assert_eq!(
        ["a", "ro/sub/file", "ro/sub/new", "ro/dir/deep/new"].map(|path| read(out, path)),
        ["1", "same", "new", "new"]
    );
    assert_eq!(store.verify().unwrap(), []);
}

/// Where the system has no more threads to give, those that there are do the work.
pub(super) fn few_threads(out: &Path) {
    let store = Store::open(out).unwrap();
    let files: Vec<_> = (0..1000).map(|n| format!("d{}/f{n}", n % 10)).collect();
    let publish = |content: &str| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for file in &files {
            let path = transaction.stage().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        transaction.commit(&lenient()).unwrap();
        assert_eq!(store.verify().unwrap(), []);
    };
    publish("1");
    let (_, most) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
    setrlimit(Resource::RLIMIT_NPROC, 1, most).unwrap();
    assert!(std::thread::Builder::new().spawn(|| ()).is_err(), "the limit does not hold here");
    publish("2");
}

/// Something that is not to be published lies in a closed directory that moves.
pub(super) fn unlisted(out: &Path) {
    publish(&Store::open(out).unwrap(), &[("top", "old")]).unwrap();
    let dead = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| {
        if matches!(call, Call::Rename { name, .. } if name == b"journal.new") {
            dead.store(true, Ordering::SeqCst);
        }
        dead.load(Ordering::SeqCst).then_some(Errno::EIO)
    });
    let stage = {
        let store = Store::open_with(&OpenOptions::with(kernel), out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write("top", "new").unwrap();
        transaction.write("new/closed/x", "new").unwrap();
        set_mode(&transaction.stage().join("new/closed"), 0o555);
        transaction.commit(&lenient()).unwrap_err();
        transaction.stage()
    };
    let closed = stage.join("new/closed");
    set_mode(&closed, 0o755);
    fs::write(closed.join("late"), "late").unwrap();
    set_mode(&closed, 0o555);
    let recovered = Store::open_with(&OpenOptions::default().recover(false), out)
        .unwrap()
        .recover(RecoverOptions::default())
        .unwrap();
    assert!(matches!(recovered.commit, Some(RecoveredCommit::RolledForward { generation: 2, .. })), "{recovered:?}");
    assert_eq!((read(out, "top"), read(out, "new/closed/x")), ("new".into(), "new".into()));
    assert_eq!((read(out, "new/closed/late"), mode(&out.join("new/closed"))), ("late".into(), 0o555));
    set_mode(&out.join("new/closed"), 0o755);
}

/// The output is closed while a commit is undone: what it held is to be taken out of it again, and that is what the user is told.
pub(super) fn closed_meanwhile(out: &Path) {
    publish(&Store::open(out).unwrap(), &[("a", "1")]).unwrap();
    let (armed, at) = (Arc::new(AtomicBool::new(false)), out.to_path_buf());
    let is_armed = armed.clone();
    let kernel = Faulty::new(move |call| {
        let fails = is_armed.load(Ordering::SeqCst) && matches!(call, Call::Rename { name, .. } if name == b"z");
        if fails {
            set_mode(&at, 0o555);
        }
        fails.then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    for path in ["a", "new", "z"] {
        transaction.write(path, "1").unwrap();
    }
    armed.store(true, Ordering::SeqCst);
    assert_eq!(transaction.commit(&lenient()).unwrap_err().outcome(), Outcome::Unknown);
    drop((transaction, store));
    let error = Store::open(out).unwrap_err();
    let (told, hint) = (error.to_string(), error.hint().unwrap());
    assert_eq!(error.outcome(), Outcome::Unknown, "{told}");
    assert!(told.contains("cannot remove") && told.contains("dist/new") && !told.contains("stage"), "{told}");
    assert!(told.contains("dist is closed to its owner by its mode"), "{told}");
    assert!(hint.contains(&format!("chmod u+rwX {}", out.display())), "{hint}");
    set_mode(out, 0o755);
    assert!(Store::open(out).unwrap().verify().unwrap().is_empty() && !out.join("new").exists());
}
