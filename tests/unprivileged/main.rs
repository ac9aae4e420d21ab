//! What root never notices: permissions that stand in the way, and state that belongs to somebody else.
//!
//! The tests run this program again as another user; what that user does is in [`scenes`].

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::faulty::{Call, Faulty};
use common::tree::without_state;
use common::{lenient, mode, publish, read, set_mode, state_of};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;
use txfs::fs::LinuxFs;
use txfs::fs::linux::Without;
use txfs::{
    Barriers, BeginOptions, Error, ErrorKind, OpenOptions, Outcome, Place, RecoverOptions, RecoveredCommit, Store,
};

const USER: u32 = 65534;

/// A directory of the unprivileged user's.
fn ground() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    let ground = dir.path().join("ground");
    fs::create_dir(&ground).unwrap();
    chown(&ground, Some(USER), Some(USER)).unwrap();
    (dir, ground)
}

/// Runs a scene as the unprivileged user.
#[track_caller]
fn as_user(scene: &str, ground: &Path) {
    // The test program itself may lie where that user cannot read it.
    let program = ground.parent().unwrap().join("program");
    if !program.exists() {
        // Copied by another process: a descriptor of ours that is open for writing could be inherited by a child that another
        // test starts at that moment, and a program that somebody may write to cannot be run.
        let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status();
        assert!(copied.unwrap().success());
        set_mode(&program, 0o755);
    }
    let output = Command::new(&program)
        .args(["--exact", "scenes", "--nocapture", "--test-threads=1"])
        .env("TXFS_SCENE", scene)
        .env("TXFS_GROUND", ground)
        .env("TMPDIR", ground)
        .current_dir("/")
        .uid(USER)
        .gid(USER)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{scene}: {}", String::from_utf8_lossy(&text));
}

fn needs_root(test: &str) -> bool {
    if !common::is_root() {
        common::skip(test, "becoming another user needs root");
    }
    common::is_root()
}

/// What the other user does; nothing where nobody asked.
#[test]
fn scenes() {
    let Ok(scene) = std::env::var("TXFS_SCENE") else { return };
    let ground = PathBuf::from(std::env::var_os("TXFS_GROUND").unwrap());
    let out = ground.join("dist");
    assert!(!common::is_root());
    match &*scene {
        "read-only" => read_only(&out),
        "first" => drop(publish(&Store::open(&out).unwrap(), &[("a/x", "1"), ("b/y", "1"), ("c", "1")]).unwrap()),
        "denied" => denied(&out),
        "interrupted" => interrupted(&out),
        "unfinished" => unfinished(&out),
        "inside" => inside(&out),
        "refused" => {
            let error = Store::open(&out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            println!("{error}");
        }
        "unlisted" => unlisted(&out),
        "piecewise" => piecewise_rollback(&out),
        "unreadable" => unreadable(&out),
        "unsyncable" => unsyncable(&out),
        "put back" => put_back(&ground),
        "linked" => linked(&out),
        "few threads" => few_threads(&out),
        "program" => program(&out),
        "program back" => program_back(&out),
        "written into" => written_into(&out),
        "written anew" => written_anew(&out),
        other => panic!("no such scene: {other}"),
    }
}

/// Read-only files and directories, nested, are published, changed, and removed by their owner.
fn read_only(out: &Path) {
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
fn denied(out: &Path) {
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
fn interrupted(out: &Path) {
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
fn unfinished(out: &Path) {
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
fn inside(out: &Path) {
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
fn written_anew(out: &Path) {
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
fn piecewise_rollback(out: &Path) {
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
fn unsyncable(out: &Path) {
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
fn unreadable(out: &Path) {
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
fn put_back(ground: &Path) {
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
fn linked(out: &Path) {
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
fn program(out: &Path) {
    let store = Store::open(out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("program", "1").unwrap();
    transaction.symlink("link", "1").unwrap();
    set_mode(&transaction.stage().join("program"), 0o4750);
    transaction.commit(&lenient()).unwrap();
}

/// It belongs to root since then, and to a group that this user is in; and so does the link.
fn program_back(out: &Path) {
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
fn written_into(out: &Path) {
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
fn few_threads(out: &Path) {
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

#[test]
fn what_is_missing_is_put_back_where_the_source_is_read_only() {
    if needs_root("what is missing is put back") {
        let (_dir, ground) = ground();
        as_user("put back", &ground);
    }
}

#[test]
fn what_cannot_be_read_is_synced_after_it_was_opened() {
    if needs_root("a directory that cannot be read") {
        let (_dir, ground) = ground();
        as_user("linked", &ground);
    }
}

#[test]
fn a_commit_needs_no_second_thread() {
    if needs_root("no second thread") {
        let (_dir, ground) = ground();
        as_user("few threads", &ground);
    }
}

#[test]
fn a_copy_has_the_group_of_its_original_where_it_cannot_have_the_owner() {
    if needs_root("the group of a copy") {
        let (_dir, ground) = ground();
        // Whatever is made here gets a group that the user is not in.
        chown(&ground, Some(USER), Some(7)).unwrap();
        set_mode(&ground, 0o2775);
        as_user("program", &ground);
        for path in ["program", "link"] {
            lchown(ground.join("dist").join(path), Some(0), Some(USER)).unwrap();
        }
        set_mode(&ground.join("dist/program"), 0o4750);
        as_user("program back", &ground);
    }
}

#[test]
fn what_is_written_into_a_read_only_directory_leaves_it_read_only() {
    if needs_root("read-only directories that are written into") {
        let (_dir, ground) = ground();
        as_user("written into", &ground);
    }
}

#[test]
fn read_only_directories_are_published_changed_and_removed_by_their_owner() {
    if needs_root("read-only directories") {
        let (_dir, ground) = ground();
        as_user("read-only", &ground);
    }
}

#[test]
fn what_cannot_be_opened_to_be_synced_by_itself_is_synced_with_everything() {
    if needs_root("what cannot be opened") {
        let (_dir, ground) = ground();
        as_user("unsyncable", &ground);
    }
}

#[test]
fn a_denied_operation_rolls_back() {
    if needs_root("denied operation") {
        let (_dir, ground) = ground();
        as_user("first", &ground);
        chown(ground.join("dist/b"), Some(0), Some(0)).unwrap();
        as_user("denied", &ground);
        assert_eq!(read(&ground, "dist/b/y"), "1");
        chown(ground.join("dist/b"), Some(USER), Some(USER)).unwrap();
        // An immutable entry is denied even where the directory is one's own.
        let chattr = |flag: &str| Command::new("chattr").arg(flag).arg(ground.join("dist/b")).status();
        if chattr("+i").is_ok_and(|status| status.success()) {
            as_user("denied", &ground);
            chattr("-i").unwrap();
        }
        as_user("first", &ground);
    }
}

#[test]
fn a_commit_that_is_denied_when_it_is_recovered_is_unfinished_and_can_be_undone() {
    if needs_root("denied recovery") {
        let (_dir, ground) = ground();
        as_user("first", &ground);
        as_user("interrupted", &ground);
        chown(ground.join("dist/b"), Some(0), Some(0)).unwrap();
        as_user("unfinished", &ground);
        chown(ground.join("dist/b"), Some(USER), Some(USER)).unwrap();
        as_user("first", &ground);
    }
}

#[test]
fn where_nothing_can_be_made_beside_the_output_the_state_is_inside() {
    if needs_root("unwritable parent") {
        let (_dir, ground) = ground();
        fs::create_dir(ground.join("dist")).unwrap();
        chown(ground.join("dist"), Some(USER), Some(USER)).unwrap();
        chown(&ground, Some(0), Some(0)).unwrap();
        as_user("inside", &ground);
    }
}

#[test]
fn state_of_somebody_else_is_refused() {
    if needs_root("foreign state") {
        // Of root's, to the user; and of the user's, to root.
        let (_dir, ground) = ground();
        publish(&Store::open(ground.join("dist")).unwrap(), &[("a", "1")]).unwrap();
        as_user("refused", &ground);
        chown(state_of(&ground.join("dist")), Some(USER), Some(USER)).unwrap();
        let before = without_state(&ground);
        let error = Store::open(ground.join("dist")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        // The directory is theirs now, the files in it are not.
        as_user("refused", &ground);
        assert_eq!(without_state(&ground), before);
    }
}

#[test]
fn state_that_others_may_write_to_is_refused() {
    if needs_root("writable state") {
        for bits in [0o770, 0o722, 0o777, 0o1777] {
            let (_dir, ground) = ground();
            as_user("first", &ground);
            set_mode(&state_of(&ground.join("dist")), bits);
            as_user("refused", &ground);
        }
    }
}

#[test]
fn a_directory_planted_where_the_state_goes_is_refused() {
    if needs_root("planted state") {
        let (_dir, ground) = ground();
        let state = state_of(&ground.join("dist"));
        fs::create_dir(&state).unwrap();
        chown(&state, Some(USER + 1), None).unwrap();
        as_user("refused", &ground);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    }
}

#[test]
fn a_read_only_directory_that_was_taken_apart_comes_back() {
    if needs_root("piecewise") {
        let (_dir, ground) = ground();
        as_user("piecewise", &ground);
    }
}

#[test]
fn a_file_in_a_closed_directory_of_the_stage_can_be_written_anew() {
    if needs_root("written anew") {
        let (_dir, ground) = ground();
        as_user("written anew", &ground);
    }
}

#[test]
fn what_cannot_be_read_cannot_be_published() {
    if needs_root("unreadable") {
        let (_dir, ground) = ground();
        as_user("unreadable", &ground);
    }
}

#[test]
fn recovery_gets_by_what_it_cannot_move_aside() {
    if needs_root("recovery_gets_by_what_it_cannot_move_aside") {
        let (_dir, ground) = ground();
        as_user("unlisted", &ground);
    }
}

/// Something that is not to be published lies in a closed directory that moves.
fn unlisted(out: &Path) {
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
