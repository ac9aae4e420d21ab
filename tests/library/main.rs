//! What a caller of the library can do wrong, or meet, and what txfs says then.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::faulty::{Call, Faulty};
use common::mounts;
use common::tree::snapshot;
use common::{Scratch, bytes, lenient, mode, publish, read, scratch, set_mode, skip, state_of};
use fs2::FileExt;
use nix::errno::Errno;
use txfs::fs::LinuxFs;
use txfs::{
    Basis, BeginOptions, CommitOptions, Committed, Error, ErrorKind, Exclude, OpenOptions, Outcome, Problem,
    RecoverOptions, Store, Transaction,
};

type Alter = fn(&mut Transaction, &Path) -> txfs::Result<()>;

/// Every way to change a transaction.
const CHANGES: [(&str, Alter); 6] = [
    ("write", |transaction, _| transaction.write("page.html", "third")),
    ("create", |transaction, _| transaction.create("page.html").map(drop)),
    ("symlink", |transaction, _| transaction.symlink("page.html", "elsewhere")),
    ("make_dir", |transaction, _| transaction.make_dir("dir")),
    ("remove", |transaction, _| transaction.remove("page.html")),
    ("copy_from", |transaction, other| transaction.copy_from(other)),
];

#[test]
fn a_transaction_that_is_over_cannot_change_what_its_commit_displaced() {
    let (dir, out) = scratch();
    let other = dir.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("page.html"), "other").unwrap();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("page.html", "first")]).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("page.html", "second").unwrap();
    assert!(transaction.is_open());
    transaction.commit(&CommitOptions::default()).unwrap();
    assert!(!transaction.is_open());
    let before = snapshot(store.state());
    for (name, change) in CHANGES {
        let error = change(&mut transaction, &other).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{name}: {error}");
    }
    let refused = [
        transaction.copy_differing_from(&other).unwrap_err(),
        transaction.plan(&lenient()).unwrap_err(),
        transaction.commit(&lenient()).unwrap_err(),
        transaction.keep().unwrap_err(),
    ];
    for error in refused {
        assert!(error.to_string().ends_with("this transaction is over: begin a new one"), "{error}");
    }
    assert_eq!(snapshot(store.state()), before);
    assert!(store.sweep().unwrap().rescued.is_empty());
    assert_eq!(read(&out, "page.html"), "second");
}

#[test]
fn a_file_that_was_not_finished_is_not_published() {
    type Mend = fn(&mut Transaction) -> txfs::Result<()>;
    let mends: [(&str, Mend); 3] = [
        ("write", |transaction| transaction.write("dir/page.html", "whole")),
        ("finish", |transaction| {
            let mut file = transaction.create("dir/page.html")?;
            file.write_all(b"whole").unwrap();
            file.finish()
        }),
        ("remove", |transaction| transaction.remove("dir")),
    ];
    for (name, mend) in mends {
        let (_dir, out) = scratch();
        let store = Store::open(&out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write("index.html", "whole").unwrap();
        let mut file = transaction.create("dir/page.html").unwrap();
        file.write_all(b"ha").unwrap();
        drop(file);
        let plan = transaction.plan(&CommitOptions::default()).unwrap();
        assert!(matches!(&plan.problems[..], [Problem::Unfinished(paths)] if paths.total == 1), "{:?}", plan.problems);
        let error = transaction.commit(&CommitOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().ends_with("files of the stage were not finished: dir/page.html"), "{error}");
        mend(&mut transaction).unwrap();
        transaction.commit(&CommitOptions::default()).unwrap();
        let published = fs::read(out.join("dir/page.html")).ok();
        assert_eq!(published, (name != "remove").then(|| b"whole".to_vec()), "{name}");
    }
}

#[test]
fn sweeping_says_whether_it_was_done() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one")]).unwrap();
    let lock = fs::File::open(store.state().join("lock")).unwrap();
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
    assert!(!store.sweep().unwrap().done);
    assert!(store.state().join("journal").exists());
    drop(held);
    assert!(store.sweep().unwrap().done);
    assert!(!store.state().join("journal").exists());
}

#[test]
fn what_recovery_rescued_when_a_transaction_begins_is_told_with_its_commit() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("a", "one").unwrap();
    let id = transaction.id().to_string();
    transaction.commit(&CommitOptions::default()).unwrap();
    // As a crash can leave it; and something lies where settling puts what the commit displaced.
    fs::rename(store.state().join("previous/1"), store.state().join("tx").join(id)).unwrap();
    fs::create_dir(store.state().join("previous/1")).unwrap();
    fs::write(store.state().join("previous/1/note"), "not txfs'").unwrap();

    let store = Store::open_with(&OpenOptions::default().recover(false), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("a", "two").unwrap();
    let rescued = transaction.commit(&CommitOptions::default()).unwrap().rescued;
    assert_eq!(rescued.len(), 1, "{rescued:?}");
    assert_eq!(read(&rescued[0], "note"), "not txfs'");
}

#[test]
fn a_store_is_shared_by_threads_and_a_transaction_moves_between_them() {
    fn can_be_sent<T: Send>(value: T) -> T {
        value
    }
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let mut transaction = can_be_sent(store.begin(BeginOptions::default()).unwrap());
    let options = can_be_sent(CommitOptions::default().check("a file", |stage| match stage.join("a").exists() {
        true => Ok(()),
        false => Err("is missing".into()),
    }));
    std::thread::scope(|scope| {
        let committing = scope.spawn(move || {
            transaction.write("a", "one").unwrap();
            transaction.commit(&options).unwrap().generation
        });
        let looking = scope.spawn(|| store.head().unwrap().map_or(0, |head| head.info.generation));
        assert!(looking.join().unwrap() <= 1);
        assert_eq!(committing.join().unwrap(), 1);
    });
    assert_eq!(read(&out, "a"), "one");
}

#[test]
fn the_state_of_an_output_is_no_content_of_another() {
    let (dir, out) = scratch();
    let project = dir.path().join("project");
    let inner = project.join("site");
    fs::create_dir(&project).unwrap();
    publish(&Store::open(&inner).unwrap(), &[("index.html", "inner")]).unwrap();
    // By that name alone it may be anybody's.
    fs::create_dir(project.join(".notes.txfs")).unwrap();
    fs::write(project.join(".notes.txfs/note"), "mine").unwrap();

    let store = Store::open(&out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.copy_from(&project).unwrap();
    assert!(!transaction.stage().join(".site.txfs").exists());
    transaction.commit(&CommitOptions::default()).unwrap();
    assert_eq!((read(&out, "site/index.html"), read(&out, ".notes.txfs/note")), ("inner".into(), "mine".into()));

    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("deep/.site.txfs/store", "taken along by a tool").unwrap();
    let error = transaction.commit(&CommitOptions::default()).unwrap_err();
    let Error::Refused { problems, .. } = &error else { panic!("{error}") };
    assert!(matches!(&problems[..], [Problem::ReservedName(_), ..]), "{error}");
    assert!(error.to_string().contains("deep/.site.txfs"), "{error}");
}

#[test]
fn an_output_cannot_be_inside_the_state_of_another() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one")]).unwrap();
    let transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
    let stage = transaction.stage();
    let before = snapshot(store.state());
    for inside in [store.state().to_path_buf(), store.state().join("previous"), stage.clone(), stage.join("new")] {
        let error = Store::open(&inside).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.to_string().ends_with("where txfs keeps the state of another output"), "{error}");
    }
    assert_eq!(snapshot(store.state()), before);
}

#[test]
fn an_output_whose_name_leaves_no_room_for_its_state_beside_it_has_it_inside() {
    let (dir, _) = scratch();
    let out = dir.path().join(bytes(&[b'x'; 250]));
    let error = Store::open(&out).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    assert!(error.to_string().contains("its name is too long"), "{error}");
    fs::create_dir(&out).unwrap();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one")]).unwrap();
    assert_eq!((read(&out, "a"), store.state()), ("one".into(), &*out.join(".txfs")));
}

#[test]
fn a_transaction_that_cannot_begin_leaves_nothing() {
    for call in [b"lock", b"meta"] {
        let (_dir, out) = scratch();
        publish(&Store::open(&out).unwrap(), &[("a", "one")]).unwrap();
        let full = Faulty::new(move |asked| {
            matches!(asked, Call::CreateFile { name } if name == call).then_some(Errno::ENOSPC)
        });
        let store = Store::open_with(&OpenOptions::with(full), &out).unwrap();
        let error = store.begin(BeginOptions::default().from(Basis::Empty)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed, "{error}");
        assert_eq!(fs::read_dir(state_of(&out).join("tx")).unwrap().count(), 0, "{error}");
        assert!(Store::open(&out).unwrap().recover(RecoverOptions::default()).unwrap().is_nothing());
    }
}

#[test]
fn a_store_at_rest_that_is_damaged_is_not_opened() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("HEAD garbled", |state| fs::write(state.join("HEAD"), "garbage").unwrap()),
        ("HEAD gone", |state| fs::remove_file(state.join("HEAD")).unwrap()),
        ("manifest gone", |state| fs::remove_file(state.join("manifests/1")).unwrap()),
        ("manifest cut", |state| fs::write(state.join("manifests/1"), "").unwrap()),
    ];
    for (name, damage) in damages {
        let (_dir, out) = scratch();
        let store = Store::open(&out).unwrap();
        publish(&store, &[("a", "one")]).unwrap();
        assert!(store.sweep().unwrap().done);
        damage(store.state());
        for recovered in [
            store.recover(RecoverOptions::default()),
            store.recover(RecoverOptions::default().undo(true)),
            store.recover(RecoverOptions::default().skip_unknown(true)),
        ] {
            assert_eq!(recovered.unwrap_err().kind(), ErrorKind::Corrupt, "{name}");
        }
        assert_eq!(Store::open(&out).unwrap_err().kind(), ErrorKind::Corrupt, "{name}");
        assert_eq!(read(&out, "a"), "one");
    }
}

#[test]
fn a_file_that_was_written_here_is_read_again_where_its_time_cannot_tell() {
    let (_dir, out) = scratch();
    let store = Store::open_with(&OpenOptions::with(Faulty::coarse()), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("a", "old").unwrap();
    let path = transaction.stage().join("a");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "new").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!(read(&out, "a"), "new");
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn a_dangling_link_with_a_slash_is_the_output_that_it_leads_to() {
    let (dir, _) = scratch();
    fs::create_dir(dir.path().join("t")).unwrap();
    symlink("t/real", dir.path().join("link")).unwrap();
    let store = Store::open(dir.path().join("link/")).unwrap();
    assert_eq!(store.output(), dir.path().canonicalize().unwrap().join("t/real"));
    publish(&store, &[("a", "one")]).unwrap();
    assert_eq!(read(&dir.path().join("link"), "a"), "one");
}

#[test]
fn an_output_that_is_made_by_copying_has_the_mode_of_its_source() {
    for bits in [0o750, 0o755, 0o701, 0o777] {
        let (dir, out) = scratch();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("a"), "one").unwrap();
        set_mode(&source, bits);
        let store = Store::open(&out).unwrap();
        for copy in [Transaction::copy_from, Transaction::copy_differing_from] {
            let mut transaction = store.begin(BeginOptions::default()).unwrap();
            copy(&mut transaction, &source).unwrap();
            transaction.commit(&lenient()).unwrap();
            assert_eq!(mode(&out), bits);
        }
    }
}

/// What a directory is given that is made here.
fn as_umask_says(dir: &Path) -> u32 {
    let probe = dir.join("as-umask-says");
    fs::create_dir(&probe).unwrap();
    let bits = mode(&probe);
    fs::remove_dir(probe).unwrap();
    bits
}

/// `mktemp -d` and its like make a directory for its maker alone, which says nothing of who is to read what is published.
#[test]
fn a_new_output_does_not_get_the_mode_of_a_temporary_directory() {
    for bits in [0o700, 0o500] {
        let (dir, out) = scratch();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("a"), "one").unwrap();
        set_mode(&source, bits);
        let store = Store::open(&out).unwrap();
        for copy in [Transaction::copy_from, Transaction::copy_differing_from] {
            let mut transaction = store.begin(BeginOptions::default()).unwrap();
            copy(&mut transaction, &source).unwrap();
            transaction.commit(&lenient()).unwrap();
            assert_eq!(mode(&out), as_umask_says(dir.path()));
            fs::remove_dir_all(&out).unwrap();
        }
        // A tool puts a directory of its own in the place of its stage.
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fs::remove_dir(transaction.stage()).unwrap();
        // An ordinary user may not move a directory that they may not write to.
        set_mode(&source, 0o700);
        fs::rename(&source, transaction.stage()).unwrap();
        set_mode(&transaction.stage(), bits);
        transaction.commit(&lenient()).unwrap();
        assert_eq!(mode(&out), as_umask_says(dir.path()));
        // Whoever wants it otherwise says so to the output.
        set_mode(&out, 0o700);
        publish(&store, &[("a", "two")]).unwrap();
        assert_eq!(mode(&out), 0o700);
    }
}

#[test]
fn a_copy_lends_nobody_the_rights_of_its_new_owner() {
    if !common::is_root() {
        return common::skip("set-id bits", "giving a file to another user needs root");
    }
    for (owner, group, expected) in [(65534, 65534, 0o755), (0, 65534, 0o4755), (65534, 0, 0o2755), (0, 0, 0o6755)] {
        let (dir, out) = scratch();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        let file = source.join("program");
        fs::write(&file, "x").unwrap();
        chown(&file, Some(owner), Some(group)).unwrap();
        set_mode(&file, 0o6755);
        let store = Store::open(&out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        // A staged file with another name is copied, too.
        let staged = transaction.stage().join("linked");
        fs::hard_link(&file, &staged).unwrap();
        transaction.copy_from(&source).unwrap();
        transaction.commit(&lenient()).unwrap();
        for name in ["program", "linked"] {
            assert_eq!(mode(&out.join(name)), expected, "{name} of {owner}:{group}");
        }
    }
}

#[test]
fn a_copy_has_the_attributes_of_directories_and_belongs_to_whoever_copies() {
    let dir = Scratch::new();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("d/sub")).unwrap();
    fs::write(source.join("d/file"), "one").unwrap();
    if let Err(error) = xattr::set(source.join("d"), "user.origin", b"d") {
        return common::skip("attributes of directories", &error.to_string());
    }
    let acl = common::acl(65534);
    for dir in ["", "d"] {
        xattr::set(source.join(dir), "system.posix_acl_default", &acl).unwrap();
    }
    xattr::set(source.join("d/sub"), "system.posix_acl_access", &acl).unwrap();
    set_mode(&source.join("d/sub"), 0o550);
    if common::is_root() {
        for path in ["d", "d/sub", "d/file"] {
            chown(source.join(path), Some(65534), Some(65534)).unwrap();
        }
    }
    for name in ["whole", "differing"] {
        let out = dir.path().join(name);
        let store = Store::open(&out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        match name {
            "whole" => transaction.copy_from(&source).unwrap(),
            _ => transaction.copy_differing_from(&source).unwrap(),
        }
        transaction.commit(&lenient()).unwrap();
        for (path, attribute) in [
            ("", "system.posix_acl_default"),
            ("d", "system.posix_acl_default"),
            ("d", "user.origin"),
            ("d/sub", "system.posix_acl_access"),
            ("d/file", "system.posix_acl_access"),
        ] {
            let of = |root: &Path| xattr::get(root.join(path), attribute).unwrap();
            assert_eq!(of(&out), of(&source), "{name} {path} {attribute}");
        }
        for path in ["d", "d/sub", "d/file"] {
            assert_eq!(fs::metadata(out.join(path)).unwrap().uid(), nix::unistd::geteuid().as_raw(), "{path}");
            assert_eq!(mode(&out.join(path)), mode(&source.join(path)), "{path}");
        }
    }
}

#[test]
fn a_directory_that_is_only_written_into_keeps_its_mode() {
    let (dir, out) = scratch();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("d/sub")).unwrap();
    for (path, bits) in [("d/sub", 0o2711), ("d", 0o700)] {
        fs::write(source.join(path).join("file"), "one").unwrap();
        set_mode(&source.join(path), bits);
    }
    let store = Store::open(&out).unwrap();
    for content in ["one", "two"] {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.copy_differing_from(&source).unwrap();
        transaction.write("d/sub/new", content).unwrap();
        transaction.commit(&lenient()).unwrap();
        assert_eq!([mode(&out.join("d")), mode(&out.join("d/sub"))], [0o700, 0o2711], "{content}");
    }
    // The same where everything but what differs is taken from the current generation.
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.copy_previous().unwrap();
    transaction.make_dir("d/sub/empty").unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!([mode(&out.join("d")), mode(&out.join("d/sub"))], [0o700, 0o2711]);
    assert_eq!((read(&out, "d/sub/new"), read(&out, "d/file")), ("one".into(), "one".into()));
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn what_cannot_be_swept_does_not_keep_the_rest_from_going() {
    let (_dir, out) = scratch();
    let stuck =
        Faulty::new(|call| matches!(call, Call::RemoveFile { name } if name == b"stuck").then_some(Errno::EPERM));
    let store = Store::open_with(&OpenOptions::with(stuck), &out).unwrap();
    publish(&store, &[("stuck", "one"), ("a", "one")]).unwrap();
    // Nothing is new: its stage goes to the trash, and cannot go from there.
    publish(&store, &[("stuck", "one"), ("a", "one")]).unwrap();
    for generation in 2..6 {
        let mut transaction = store.begin(BeginOptions::default().from(Basis::Current)).unwrap();
        transaction.write("a", format!("{generation}")).unwrap();
        assert_eq!(transaction.commit(&lenient()).unwrap().generation, generation);
        assert!(store.sweep().is_err());
    }
    common::assert_only_the_last_is_kept(&out);
}

#[test]
fn a_state_directory_is_its_owners_alone() {
    let (_dir, beside) = scratch();
    let mut outputs = vec![beside];
    // In a mount point it is inside.
    let mount = mounts::mount("tmpfs");
    match &mount {
        Ok(mount) => outputs.push(mount.path().to_path_buf()),
        Err(why) => skip("a state directory in a mount point", why),
    }
    for out in outputs {
        let store = Store::open(&out).unwrap();
        assert_eq!(fs::metadata(store.state()).unwrap().mode() & 0o7777, 0o700, "{}", store.state().display());
    }
}

/// Somebody removes the lock's file, and somebody else makes it anew and holds it, in the moment after it was locked here.
#[test]
fn a_lock_is_that_of_the_file_that_has_its_name() {
    let (_dir, out) = scratch();
    // Settled, it is opened without the lock.
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "a")]).unwrap();
    store.sweep().unwrap();
    let lock = state_of(&out).join("lock");
    let held: Arc<Mutex<Option<fs::File>>> = Arc::default();
    let (theirs, at) = (held.clone(), lock.clone());
    let kernel = Faulty::new(move |call| {
        let mut theirs = theirs.lock().unwrap();
        if *call == Call::Read("locked") && theirs.is_none() {
            fs::remove_file(&at).unwrap();
            let made = fs::File::create_new(&at).unwrap();
            made.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
            assert!(FileExt::try_lock_exclusive(&made).is_ok());
            *theirs = Some(made);
        }
        None
    });
    let options = OpenOptions::with(kernel).lock_timeout(Duration::ZERO);
    let store = Store::open_with(&options, &out).unwrap();
    assert!(held.lock().unwrap().is_none());
    let error = store.begin(BeginOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(held.lock().unwrap().is_some());
}

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

#[test]
fn what_is_excluded_is_neither_published_nor_kept_nor_shown_to_a_check_and_a_change_leaves_it() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let all = [("a.js", "1"), ("a.js.map", "1"), ("cache/x", "1"), ("d/cache", "a file")];
    publish(&store, &all).unwrap();
    let options = || {
        lenient().exclude(Exclude::new(|path, is_directory| {
            path.extension().is_some_and(|extension| extension == "map") || is_directory && path.ends_with("cache")
        }))
    };
    let begin = |from: Basis| {
        let mut transaction = store.begin(BeginOptions::default().from(from)).unwrap();
        all.iter().for_each(|(path, _)| transaction.write(path, "2!").unwrap());
        transaction
    };
    // Of a change it says nothing.
    let change = begin(Basis::Current);
    let planned = change.plan(&options()).unwrap();
    assert!(change.stage().join("a.js.map").exists(), "a plan changes nothing");
    let mut change = change;
    let committed = change.commit(&options()).unwrap();
    assert_eq!((planned.summary, committed.plan.summary.changed), (committed.plan.summary, 2));
    assert_eq!(
        (read(&out, "a.js"), read(&out, "a.js.map"), read(&out, "cache/x")),
        ("2!".into(), "1".into(), "1".into())
    );
    // Of a whole generation it is no part.
    let mut whole = begin(Basis::Empty);
    let sees = |stage: &Path| match stage.join("cache").exists() || stage.join("a.js.map").exists() {
        true => Err("it is there".to_owned()),
        false => Ok(()),
    };
    let committed = whole.commit(&options().check("sees nothing of it", sees)).unwrap();
    assert_eq!((committed.plan.summary.removed, committed.totals.files), (3, 2));
    assert!(!out.join("a.js.map").exists() && !out.join("cache").exists() && out.join("d/cache").exists());
    assert!(store.verify().unwrap().is_empty());
}
