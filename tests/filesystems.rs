//! The same behaviour on every file system that txfs is for: the one of the temporary directory, ext4, xfs and btrfs in loop
//! images, tmpfs, and overlayfs.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use common::faulty::{Call, Faulty};
use common::mounts::{self, Mount};
use common::suite::{self, Ground};
use common::{kernels, lenient, publish, read, skip};
use nix::errno::Errno;
use txfs::fs::LinuxFs;
use txfs::{Basis, BeginOptions, CommitOptions, Error, ErrorKind, OpenOptions, Place, Problem, RecoverOptions, Store};

fn run_suite(name: &str, dir: &std::path::Path, sparse: bool, levels: usize) {
    let started = std::time::Instant::now();
    let ground = Ground { dir: dir.to_path_buf(), options: OpenOptions::default(), exchange: true, sparse, levels };
    let behaviours = suite::run(&ground);
    println!("{name}: {behaviours} behaviours in {:.1} s", started.elapsed().as_secs_f32());
}

fn on(kind: &str) {
    let mount = match mounts::mount(kind) {
        Ok(mount) => mount,
        Err(why) => return skip(kind, &why),
    };
    let dir = mount.path().join("suite");
    fs::create_dir(&dir).unwrap();
    let levels = if kind == "tmpfs" { 2000 } else { 250 };
    run_suite(kind, &dir, ["xfs", "tmpfs"].contains(&kind), levels);
    fs::remove_dir_all(&dir).unwrap();
    mount_point_as_output(&mount);
}

/// Nothing can be renamed between a mount point and its siblings, so the state directory is inside, and no part of the output.
fn mount_point_as_output(mount: &Mount) {
    let out = mount.path();
    for content in ["one", "two"] {
        let store = Store::open(out).unwrap();
        assert_eq!((store.place(), store.state()), (Place::Inside, out.join(".txfs").as_path()));
        let committed = publish(&store, &[("a/b", content), ("c", "c")]).unwrap();
        assert!(committed.warnings.is_empty(), "{:?}", committed.warnings);
        assert_eq!(read(out, "a/b"), content);
        assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing());
    }
    let store = Store::open(out).unwrap();
    publish(&store, &[]).unwrap();
    assert!(!out.join("c").exists() && out.join(".txfs/HEAD").exists());
    // A stage cannot publish over the state directory.
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write(".txfs/HEAD", "mine").unwrap();
    assert!(matches!(transaction.commit(&lenient()).unwrap_err(), Error::Refused { .. }));
}

#[test]
fn on_the_file_system_of_the_temporary_directory() {
    let dir = common::Scratch::new();
    run_suite("temporary directory", dir.path(), false, 500);
}

#[test]
fn on_ext4() {
    on("ext4");
}

#[test]
fn on_xfs() {
    on("xfs");
}

#[test]
fn on_btrfs() {
    on("btrfs");
}

#[test]
fn on_tmpfs() {
    on("tmpfs");
}

#[test]
fn on_overlayfs() {
    on("overlayfs");
}

/// A container image with a published output in it: its directories are of the lower layer, and cannot be renamed.
#[test]
fn an_output_of_an_overlayfs_lower_layer_is_replaced_piece_by_piece() {
    let mount = mounts::overlay(|lower| {
        let store = Store::open(lower.join("dist")).unwrap();
        let files = [("keep", "k"), ("change", "old"), ("stale/1", "1"), ("stale/sub/2", "2"), ("dir/y", "y")];
        publish(&store, &files).unwrap();
    });
    let mount = match mount {
        Ok(mount) => mount,
        Err(why) => return skip("overlayfs lower layer", &why),
    };
    let out = mount.path().join("dist");
    let store = Store::open(&out).unwrap();
    assert_eq!(store.head().unwrap().unwrap().info.generation, 1);
    let kept = fs::metadata(out.join("keep")).unwrap().mtime_nsec();
    for round in ["one", "two", "three"] {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for (path, content) in [("keep", "k"), ("change", round), ("dir/z", round), ("ro/f", round)] {
            transaction.write(path, content).unwrap();
        }
        transaction.write(format!("new-{round}/n"), "n").unwrap();
        for path in ["ro", &format!("new-{round}")] {
            fs::set_permissions(transaction.stage().join(path), fs::Permissions::from_mode(0o555)).unwrap();
        }
        let committed = transaction.commit(&lenient()).unwrap();
        assert!(committed.warnings.is_empty() && committed.rescued.is_empty(), "{committed:?}");
        assert_eq!((read(&out, "change"), read(&out, "dir/z")), (round.into(), round.into()));
        assert!(!out.join("stale").exists() && !out.join("dir/y").exists());
        for path in ["ro", &format!("new-{round}")] {
            assert_eq!(fs::metadata(out.join(path)).unwrap().mode() & 0o7777, 0o555, "{path} in round {round}");
        }
        assert_eq!(fs::read_dir(&out).unwrap().count(), 5);
        assert!(store.verify().unwrap().is_empty());
    }
    assert_eq!(fs::metadata(out.join("keep")).unwrap().mtime_nsec(), kept);
}

/// A directory of the lower layer that becomes a file cannot be exchanged: that is found by whoever plans the commit, and refused with
/// its cause.
#[test]
fn a_lower_layer_directory_that_becomes_a_file_is_refused_with_its_cause() {
    let mount = mounts::overlay(|lower| {
        let store = Store::open(lower.join("dist")).unwrap();
        publish(&store, &[("d/inner", "i"), ("e/x", "x"), ("z", "old")]).unwrap();
    });
    let mount = match mount {
        Ok(mount) => mount,
        Err(why) => return skip("overlayfs lower layer", &why),
    };
    let out = mount.path().join("dist");
    let store = Store::open(&out).unwrap();
    let before = common::tree::snapshot(&out);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    for (path, content) in [("d", "a file"), ("e/x", "x"), ("z", "new"), ("a", "added")] {
        transaction.write(path, content).unwrap();
    }
    let is_told = |problems: &[Problem]| matches!(problems, [Problem::LowerLayer(paths)] if paths.total == 1 && paths.first[0].as_bytes() == b"d");
    assert!(is_told(&transaction.plan(&lenient()).unwrap().problems));
    let refused = transaction.commit(&lenient()).unwrap_err();
    assert!(matches!(&refused, Error::Refused { problems, .. } if is_told(problems)), "{refused}");
    assert_eq!(common::tree::snapshot(&out), before);
    // As the hint says.
    publish(&store, &[("e/x", "x"), ("z", "new")]).unwrap();
    publish(&store, &[("d", "a file"), ("e/x", "x"), ("z", "new")]).unwrap();
    assert_eq!((read(&out, "d"), read(&out, "z")), ("a file".into(), "new".into()));
    // And what this layer made changes its kind.
    publish(&store, &[("d/inner", "i"), ("e/x", "x")]).unwrap();
    publish(&store, &[("d", "again"), ("e/x", "x")]).unwrap();
    assert_eq!(read(&out, "d"), "again");
    assert!(store.verify().unwrap().is_empty());
}

/// `RUN txfs begin`, and `RUN txfs commit` in a later layer: the transaction comes along, with all that was staged, under the same path.
#[test]
fn a_stage_of_an_overlayfs_lower_layer_is_copied_to_this_one_and_committed_or_aborted() {
    let mut stages = Vec::new();
    let mount = mounts::overlay(|lower| {
        let store = Store::open(lower.join("dist")).unwrap();
        publish(&store, &[("a", "1"), ("d/x", "1")]).unwrap();
        // The first without a directory that would have to move.
        for (path, from) in [("a", Basis::Empty), ("new/y", Basis::Current), ("d/x", Basis::Copy)] {
            let begin = BeginOptions::default().detached(true).from(from);
            let mut transaction = store.begin(begin).unwrap();
            transaction.write(path, "2!").unwrap();
            let stage = transaction.stage();
            std::os::unix::fs::symlink("a", stage.join("link")).unwrap();
            fs::set_permissions(stage.join(path), fs::Permissions::from_mode(0o640)).unwrap();
            fs::set_permissions(stage.join(path).parent().unwrap(), fs::Permissions::from_mode(0o750)).unwrap();
            stages.push((transaction.id(), stage.strip_prefix(lower).unwrap().to_path_buf()));
        }
    });
    let mount = match mount {
        Ok(mount) => mount,
        Err(why) => return skip("overlayfs lower layer", &why),
    };
    let store = Store::open(mount.path().join("dist")).unwrap();
    store.resume(stages[2].0).unwrap().abort().unwrap();
    let mut transaction = store.resume(stages[0].0).unwrap();
    let checked = CommitOptions::default().check("it is wanted", |_| Err("it is not".into()));
    let refused = transaction.commit(&checked).unwrap_err();
    assert_eq!((refused.kind(), transaction.is_open()), (ErrorKind::Refused, true), "{refused}");
    let begun = fs::metadata(transaction.stage().join("a")).unwrap().ino();
    // It is in this layer now: it is not copied again, and whoever knows its path finds it there.
    drop(transaction);
    assert_eq!(store.transactions().unwrap().len(), 2);
    assert_eq!(store.transactions().unwrap().iter().filter(|open| open.id == stages[0].0).count(), 1);
    assert_eq!(fs::metadata(mount.path().join(&stages[0].1).join("a")).unwrap().ino(), begun);
    let committed = store.resume(stages[0].0).unwrap().commit(&lenient()).unwrap();
    assert!(committed.warnings.is_empty() && committed.rescued.is_empty(), "{committed:?}");
    let out = store.output();
    assert_eq!((read(out, "a"), out.join("d").exists()), ("2!".into(), false));
    assert_eq!(fs::metadata(out.join("a")).unwrap().ino(), begun);
    assert_eq!(fs::metadata(out.join("a")).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("a"));
    // The other began on a generation that is not the current one any more; its stage is what it was all the same.
    let moved = store.resume(stages[1].0).unwrap().commit(&lenient()).unwrap_err();
    assert!(matches!(moved, Error::BaseMoved { .. }), "{moved}");
    let stage = mount.path().join(&stages[1].1);
    assert_eq!((read(&stage, "new/y"), fs::metadata(stage.join("new")).unwrap().mode() & 0o7777), ("2!".into(), 0o750));
    store.resume(stages[1].0).unwrap().abort().unwrap();
    assert!(store.verify().unwrap().is_empty());
    assert!(store.transactions().unwrap().is_empty() && store.sweep().unwrap().done);
}

#[test]
fn a_stage_of_a_lower_layer_is_whole_and_can_be_committed_whichever_call_fails_while_it_is_copied() {
    let (mut failed, mut open_twice) = (0, 0);
    for n in 0.. {
        let mut id = None;
        let mount = mounts::overlay(|lower| {
            let store = Store::open(lower.join("dist")).unwrap();
            publish(&store, &[("a", "1")]).unwrap();
            let mut transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
            for path in ["a", "new/y", "new/z/z"] {
                transaction.write(path, "2!").unwrap();
            }
            id = Some(transaction.id());
        });
        let mount = match mount {
            Ok(mount) => mount,
            Err(why) => return skip("overlayfs lower layer", &why),
        };
        let out = mount.path().join("dist");
        let (left, armed) = (Arc::new(AtomicUsize::new(n)), Arc::new(AtomicBool::new(false)));
        let (counting, is_armed) = (left.clone(), armed.clone());
        let kernel = Faulty::new(move |call| {
            let counts = is_armed.load(SeqCst) && !matches!(call, Call::Read(_));
            let fails = counts && counting.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_err();
            // Once alone.
            fails.then(|| counting.store(usize::MAX, SeqCst)).map(|()| Errno::EIO)
        });
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        let mut transaction = store.resume(id.unwrap()).unwrap();
        armed.store(true, SeqCst);
        // When the copy is made the check ends it: what a commit does is shown elsewhere.
        let result = transaction.commit(&CommitOptions::default().check("copied", |_| Err("it is".into())));
        armed.store(false, SeqCst);
        let error = result.unwrap_err();
        assert_eq!(error.outcome(), txfs::Outcome::Unchanged, "{error}");
        drop((transaction, store));
        let store = Store::open(&out).unwrap();
        let open = store.transactions().unwrap();
        assert!(!open.is_empty(), "call {n}: nothing is left of what was built: {error}");
        open_twice += usize::from(open.len() > 1);
        for transaction in &open {
            assert_eq!(read(&transaction.stage, "new/z/z"), "2!", "call {n}: {error}");
            assert_eq!(read(&transaction.stage, "a"), "2!", "call {n}: {error}");
        }
        let committed = store.resume(open[0].id).unwrap().commit(&lenient()).unwrap();
        assert!(committed.warnings.is_empty() && committed.rescued.is_empty(), "call {n}: {committed:?}");
        assert_eq!((read(&out, "a"), read(&out, "new/z/z")), ("2!".into(), "2!".into()));
        if left.load(SeqCst) < usize::MAX / 2 {
            println!("{failed} calls failed in turn; {open_twice} times a copy stayed beside the original");
            assert!(failed > 20);
            return;
        }
        failed += 1;
    }
}

/// What is mounted read-only can be looked at, also while a transaction is open on it.
#[test]
fn a_read_only_mount_can_be_looked_at() {
    let mount = match mounts::mount("tmpfs") {
        Ok(mount) => mount,
        Err(why) => return skip("read-only mount", &why),
    };
    let out = mount.path().join("dist");
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one")]).unwrap();
    store.sweep().unwrap();
    let mut open = store.begin(txfs::BeginOptions::default().detached(true)).unwrap();
    open.write("a", "two").unwrap();
    drop(open);
    // One whose process died before anybody was told of it.
    std::fs::create_dir(store.state().join("tx/0000000000000001")).unwrap();
    std::fs::write(store.state().join("tx/0000000000000001/lock"), "").unwrap();
    drop(store);
    let remount = |option: &str| {
        let done = std::process::Command::new("mount").args(["-o", option]).arg(mount.path()).status().unwrap();
        assert!(done.success());
    };
    remount("remount,ro");
    let store = Store::find(&txfs::OpenOptions::default(), &out).unwrap().unwrap();
    store.recover(RecoverOptions::default()).unwrap();
    assert_eq!(store.verify().unwrap(), []);
    assert_eq!(store.head().unwrap().unwrap().info.generation, 1);
    assert!(!store.transactions().unwrap().is_empty());
    remount("remount,rw");
}

/// What is mounted in the output is nobody's business: it is neither entered nor removed. A bind mount is on the same device.
#[test]
fn a_mount_in_the_output_is_not_crossed() {
    for kernel in kernels() {
        let dir = tempfile::tempdir().unwrap();
        let (out, elsewhere) = (dir.path().join("dist"), dir.path().join("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        publish(&store, &[("d/sub/precious", "mine"), ("keep", "k")]).unwrap();
        // To whoever looks through the mount it is what was published.
        fs::rename(out.join("d/sub/precious"), elsewhere.join("precious")).unwrap();
        let mount = match mounts::bind(&elsewhere, &out.join("d/sub")) {
            Ok(mount) => mount,
            Err(why) => return skip("bind mount", &why),
        };
        let before = common::tree::snapshot(&out);
        let error = publish(&store, &[("keep", "k2")]).unwrap_err();
        assert_eq!(error.outcome(), txfs::Outcome::Unchanged, "{error}");
        assert_eq!(common::tree::snapshot(&out), before, "{error}");
        drop(mount);
        publish(&store, &[("keep", "k3")]).unwrap();
        assert_eq!(read(&elsewhere, "precious"), "mine");
        assert!(!out.join("d").exists());
    }
}

/// A stage is removed with all that is in it, and not with what is mounted there.
#[test]
fn a_mount_in_a_stage_is_not_crossed() {
    for kernel in kernels() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("precious"), "p").unwrap();
        let store = Store::open_with(&OpenOptions::with(kernel), dir.path().join("dist")).unwrap();
        type End = fn(txfs::Transaction<LinuxFs>) -> txfs::Result<()>;
        let ends: [(&str, End); 3] = [
            ("abort", |transaction| transaction.abort()),
            ("drop", |transaction| {
                drop(transaction);
                Ok(())
            }),
            ("commit", |mut transaction| transaction.commit(&lenient()).map(drop)),
        ];
        for (end, finish) in ends {
            let mut transaction = store.begin(BeginOptions::default()).unwrap();
            transaction.write("d/a", "a").unwrap();
            let at = transaction.stage().join("d/mounted");
            fs::create_dir(&at).unwrap();
            let mount = match mounts::bind(&elsewhere, &at) {
                Ok(mount) => mount,
                Err(why) => return skip("bind mount", &why),
            };
            let result = finish(transaction);
            println!("{end}: {result:?}");
            assert!(result.is_err() || end == "drop", "{end}");
            assert_eq!(read(&elsewhere, "precious"), "p", "{end}");
            drop(mount);
        }
        assert!(!dir.path().join("dist").exists());
    }
}

/// What is published would be there only as long as the mount is.
#[test]
fn a_file_of_a_stage_that_is_a_mount_is_not_published() {
    for kernel in kernels() {
        let dir = tempfile::tempdir().unwrap();
        let (elsewhere, out) = (dir.path().join("elsewhere"), dir.path().join("dist"));
        fs::write(&elsewhere, "elsewhere").unwrap();
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.write("d/a", "a").unwrap();
        transaction.write("d/b", "b").unwrap();
        let mount = match mounts::bind(&elsewhere, &transaction.stage().join("d/a")) {
            Ok(mount) => mount,
            Err(why) => return skip("bind mount", &why),
        };
        let error = transaction.commit(&lenient()).unwrap_err();
        assert_eq!((error.outcome(), out.exists()), (txfs::Outcome::Unchanged, false), "{error}");
        drop(mount);
        transaction.commit(&lenient()).unwrap();
        assert_eq!(read(&out, "d/a"), "a");
        assert_eq!(read(dir.path(), "elsewhere"), "elsewhere");
    }
}

/// What a change removes lies beside its stage, and comes along.
#[test]
fn a_change_of_a_lower_layer_is_whole_when_its_commit_is_refused_in_this_one() {
    let mut id = None;
    let mount = mounts::overlay(|lower| {
        let store = Store::open(lower.join("dist")).unwrap();
        publish(&store, &[("a", "1"), ("b", "1")]).unwrap();
        let mut transaction = store.begin(BeginOptions::default().from(Basis::Current)).unwrap();
        transaction.write("a", "2!").unwrap();
        transaction.remove("b").unwrap();
        id = Some(transaction.id());
        transaction.keep().unwrap();
    });
    let mount = match mount {
        Ok(mount) => mount,
        Err(why) => return skip("overlayfs lower layer", &why),
    };
    let store = Store::open(mount.path().join("dist")).unwrap();
    let checked = CommitOptions::default().check("it is wanted", |_| Err("it is not".into()));
    store.resume(id.unwrap()).unwrap().commit(&checked).unwrap_err();
    store.resume(id.unwrap()).unwrap().commit(&lenient()).unwrap();
    assert_eq!((read(store.output(), "a"), store.output().join("b").exists()), ("2!".into(), false));
}
