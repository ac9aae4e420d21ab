//! Transactions and what ends them: what is over changes nothing, what was not finished is not published, and what is left is told.

use std::fs;
use std::io::Write;
use std::path::Path;

use nix::errno::Errno;
use txfs::{
    Basis, BeginOptions, CommitOptions, ErrorKind, Exclude, OpenOptions, Problem, RecoverOptions, Store, Transaction,
};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::snapshot;
use txfs_testing::{lenient, publish, read, scratch, state_of};

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
    txfs_testing::assert_only_the_last_is_kept(&out);
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
