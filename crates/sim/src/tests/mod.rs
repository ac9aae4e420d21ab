//! What one call does, faults and watching; and what the tests beside this one share.

mod crash;
mod kernel;
mod properties;

use std::collections::{BTreeSet, HashSet};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use proptest::prelude::*;

use super::*;
use txfs::RelPath;
use txfs::fs::{Fs, LinuxFs, Machine, RenameMode, Timestamp};

const WEAKNESSES: [Weakness; 3] = [Weakness::Ordered, Weakness::Btrfs, Weakness::Posix];

fn p(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

fn errno<T>(result: io::Result<T>) -> Errno {
    Errno::from_raw(result.err().unwrap().raw_os_error().unwrap())
}

fn open(fs: &SimFs, path: &str) -> SimDir {
    fs.open_anchor(Path::new(path)).unwrap()
}

fn write_new(fs: &SimFs, dir: &SimDir, name: &str, bytes: &[u8]) -> SimFile {
    let mut file = fs.create_file(dir, name.as_bytes(), 0o644).unwrap();
    assert_eq!(fs.write(&mut file, bytes).unwrap(), bytes.len());
    file
}

fn rename(fs: &SimFs, from: &SimDir, name: &str, to: &SimDir, new: &str) {
    fs.rename(from, name.as_bytes(), to, new.as_bytes(), RenameMode::Replace).unwrap();
}

/// D1/a and D2/b, durable.
fn two_dirs(config: Config) -> (SimFs, SimDir, SimDir) {
    let fs = SimFs::new(config);
    fs.put_file("/D1/a", b"A", 0o644);
    fs.put_file("/D2/b", b"B", 0o644);
    let (one, two) = (open(&fs, "/D1"), open(&fs, "/D2"));
    (fs, one, two)
}

/// Names below the root without their directories, for each state, sorted.
fn names(states: impl Iterator<Item = SimFs>) -> BTreeSet<Vec<String>> {
    states
        .map(|world| {
            let tree = world.tree("/");
            let files = tree.iter().filter(|(_, entry)| entry.kind != Some(txfs::fs::Kind::Directory));
            files.map(|(path, _)| path.to_string()).collect()
        })
        .collect()
}

fn set(states: &[&[&str]]) -> BTreeSet<Vec<String>> {
    states.iter().map(|names| names.iter().map(ToString::to_string).collect()).collect()
}

/// The contents that `/w/f` can have after a crash now; `None` where it is not there.
fn contents(fs: &SimFs, path: &str) -> BTreeSet<Option<Vec<u8>>> {
    let states = fs.crash_states(100_000);
    assert!(states.exhaustive());
    states.map(|world| world.entry(path).map(|entry| entry.content().to_vec())).collect()
}

#[test]
fn paths_of_the_users_follow_links() {
    let fs = SimFs::new(Config::default());
    fs.put_file("/srv/site/page", b"x", 0o644);
    fs.put_symlink("/home/link", "../srv/./site");
    fs.put_symlink("/home/absolute", "/srv/site/");
    fs.put_symlink("/home/loop", "loop");
    fs.put_symlink("/home/gone", "nowhere");
    for path in ["/home/link", "/home/absolute", "/srv/site", "/home/link/../site"] {
        assert_eq!(fs.resolve(path.as_ref()).unwrap(), Path::new("/srv/site"), "{path}");
    }
    assert_eq!(errno(fs.resolve("/home/loop".as_ref())), Errno::ELOOP);
    assert_eq!(errno(fs.resolve("/home/gone".as_ref())), Errno::ENOENT);
    assert_eq!(errno(fs.resolve("/srv/site/page/x".as_ref())), Errno::ENOTDIR);
    assert_eq!(fs.read_anchor_link("/home/link".as_ref()).unwrap(), Path::new("../srv/./site"));
    assert_eq!(fs.read_anchor_link("/srv".as_ref()).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(fs.read_anchor_link("/no".as_ref()).unwrap_err().kind(), ErrorKind::NotFound);
    let dir = open(&fs, "/home/link");
    assert!(fs.stat(&dir, b"page").is_ok());
    assert_eq!(errno(fs.open_anchor("/srv/site/page".as_ref())), Errno::ENOTDIR);
    assert_eq!(errno(fs.open_dir(&open(&fs, "/"), &p("home/link/x"))), Errno::ELOOP);
}

#[test]
fn a_mount_is_not_crossed_nor_moved() {
    let fs = SimFs::new(Config::default());
    fs.put_dir("/w/d", 0o755);
    fs.put_mount("/w/d/mnt");
    fs.put_file("/w/d/mnt/f", b"x", 0o644);
    fs.put_file("/w/d/g", b"y", 0o644);
    let w = open(&fs, "/w");
    let d = fs.open_dir(&w, &p("d")).unwrap();
    assert_eq!(errno(fs.open_dir(&w, &p("d/mnt"))), Errno::EXDEV);
    let mnt = open(&fs, "/w/d/mnt");
    assert_ne!(fs.stat_dir(&mnt).unwrap().dev, fs.stat_dir(&d).unwrap().dev);
    assert_eq!(errno(fs.rename(&d, b"mnt", &d, b"x", RenameMode::Replace)), Errno::EBUSY);
    assert_eq!(errno(fs.rename(&d, b"g", &mnt, b"g", RenameMode::Replace)), Errno::EXDEV);
    assert_eq!(errno(fs.link(&d, b"g", &mnt, b"g")), Errno::EXDEV);
    assert_eq!(errno(fs.remove_dir(&d, b"mnt")), Errno::EBUSY);
    rename(&fs, &w, "d", &w, "e");
    assert!(fs.entry("/w/e/mnt/f").is_some(), "a directory takes the mounts below it along");

    // A barrier on one file system leaves the other alone.
    fs.settle();
    fs.remove_file(&mnt, b"f").unwrap();
    fs.remove_file(&d, b"g").unwrap();
    fs.sync_fs(&mnt).unwrap();
    assert_eq!(names(fs.crash_states(10)), set(&[&[], &["w/e/g"]]));
}

#[test]
fn permission_is_asked_of_users_but_not_of_root() {
    let fs = SimFs::new(Config { uid: 1000, ..Config::default() });
    fs.put_file("/w/closed/f", b"x", 0o644);
    fs.put_dir("/w/open", 0o755);
    fs.put_mode("/w/closed", 0o555);
    let (w, closed, other) = (open(&fs, "/w"), open(&fs, "/w/closed"), open(&fs, "/w/open"));
    assert_eq!(errno(fs.create_file(&closed, b"g", 0o644)), Errno::EACCES);
    assert_eq!(errno(fs.remove_file(&closed, b"f")), Errno::EACCES);
    assert_eq!(errno(fs.rename(&w, b"closed", &other, b"c", RenameMode::NoReplace)), Errno::EACCES);
    rename(&fs, &w, "closed", &w, "moved");
    fs.put_mode("/w/moved", 0o300);
    // What may not be read is opened to be searched, and cannot be listed or synced.
    let searched = fs.open_dir(&w, &p("moved")).unwrap();
    assert_eq!(errno(fs.list(&searched)), Errno::EACCES);
    assert!(fs.sync_dir(&searched).is_err_and(|error| error.raw_os_error().is_none()));
    assert!(fs.stat(&searched, b"f").is_ok());
    let root = fs.as_user(0);
    assert!(root.open_dir(&w, &p("moved")).is_ok_and(|dir| root.list(&dir).is_ok() && root.sync_dir(&dir).is_ok()));
    assert_eq!((fs.user(), root.user()), (1000, 0));
    fs.put_owner("/w/open", 7);
    assert_eq!(errno(fs.set_dir_mode(&other, 0o777)), Errno::EPERM);
    assert_eq!(fs.stat_dir(&other).unwrap().uid, 7);
}

#[test]
fn an_entry_is_given_away_by_root_alone_and_a_crash_can_lose_that() {
    let fs = SimFs::new(Config { uid: 1000, ..Config::default() });
    fs.put_file("/w/f", b"x", 0o4755);
    fs.put_dir("/w/d", 0o2755);
    let (w, d, root) = (open(&fs, "/w"), open(&fs, "/w/d"), fs.as_user(0));
    let (file, _) = fs.open_file(&w, b"f").unwrap();
    assert_eq!(errno(fs.set_owner(&file, Some(7), 7)), Errno::EPERM);
    fs.set_owner(&file, None, 7).unwrap();
    fs.set_dir_owner(&d, Some(1000), 7).unwrap();
    let of = |name: &[u8]| fs.stat(&w, name).map(|stat| (stat.uid, stat.mode)).unwrap();
    assert_eq!([of(b"f"), of(b"d")], [(1000, 0o755), (1000, 0o2755)], "a file loses set-id bits");
    fs.settle();
    root.set_link_owner(&w, b"f", Some(7), 7).unwrap();
    root.set_dir_owner(&d, Some(8), 7).unwrap();
    assert_eq!((of(b"f").0, of(b"d").0), (7, 8));
    assert_eq!(errno(fs.set_owner(&file, None, 7)), Errno::EPERM, "it is somebody else's now");
    let owner = |fs: &SimFs| fs.stat(&open(fs, "/w"), b"f").unwrap().uid;
    let left: BTreeSet<u32> = fs.crash_states(100).map(|state| owner(&state)).collect();
    assert_eq!(left, BTreeSet::from([1000, 7]));
    root.sync_file(&file).unwrap();
    assert!(fs.crash_states(100).all(|state| owner(&state) == 7));
}

#[test]
fn features_can_be_denied() {
    let without = Without { exchange: true, no_replace: true, links: true, ..Without::default() };
    let (fs, one, two) = two_dirs(Config { without, ..Config::default() });
    assert_eq!(errno(fs.rename(&one, b"a", &two, b"b", RenameMode::Exchange)), Errno::EINVAL);
    assert_eq!(errno(fs.rename(&one, b"a", &two, b"c", RenameMode::NoReplace)), Errno::EINVAL);
    assert_eq!(errno(fs.link(&one, b"a", &two, b"c")), Errno::EPERM);
    rename(&fs, &one, "a", &two, "c");
}

#[test]
fn locks_belong_to_descriptions_and_die_with_them_and_with_the_world() {
    let fs = SimFs::new(Config::default());
    fs.put_file("/lock", b"", 0o600);
    let root = open(&fs, "/");
    let lock = |fs: &SimFs| fs.try_lock(&open(fs, "/"), b"lock").unwrap();
    let is_held = |fs: &SimFs| fs.lock_holder(&open(fs, "/"), b"lock").unwrap().is_some();
    assert!(!is_held(&fs));
    let (first, stat) = lock(&fs).unwrap();
    assert_eq!(stat.ino, fs.stat(&root, b"lock").unwrap().ino);
    assert!(lock(&fs).is_none() && lock(&fs.clone()).is_none() && is_held(&fs));
    let after = fs.crash_states(1).next().unwrap();
    assert!(!is_held(&after) && lock(&after).is_some());
    assert!(lock(&fs.fork()).is_some());
    assert_eq!(errno(after.stat_file(&first)), Errno::EBADF, "a handle is of one world");
    drop(first);
    assert!(lock(&fs).is_some());
}

#[test]
fn an_open_file_outlives_its_name_and_its_number_comes_back_after_it() {
    let fs = SimFs::new(Config { reuse: Reuse::Immediate, ..Config::default() });
    let root = open(&fs, "/");
    let mut file = write_new(&fs, &root, "f", b"content");
    let ino = fs.stat_file(&file).unwrap().ino;
    fs.remove_file(&root, b"f").unwrap();
    assert_eq!(fs.stat_file(&file).unwrap().nlink, 0);
    assert_eq!(fs.write(&mut file, b"!").unwrap(), 1);
    let other = fs.create_file(&root, b"g", 0o644).unwrap();
    assert_ne!(fs.stat_file(&other).unwrap().ino, ino);
    drop(file);
    let again = fs.create_file(&root, b"h", 0o644).unwrap();
    assert_eq!(fs.stat_file(&again).unwrap().ino, ino);
}

#[test]
fn inode_numbers_are_reused_as_configured() {
    for (reuse, unsynced, synced) in
        [(Reuse::Never, false, false), (Reuse::WhenDurable, false, true), (Reuse::Immediate, true, true)]
    {
        let (fs, one, _) = two_dirs(Config { reuse, ..Config::default() });
        let old = fs.stat(&one, b"a").unwrap().ino;
        fs.remove_file(&one, b"a").unwrap();
        let new = write_new(&fs, &one, "n", b"");
        assert_eq!(fs.stat_file(&new).unwrap().ino == old, unsynced, "{reuse:?}");
        for world in fs.crash_states(1000) {
            let inos: Vec<u64> = [b"a", b"n"]
                .iter()
                .filter_map(|name| world.stat(&open(&world, "/D1"), *name).ok())
                .map(|stat| stat.ino)
                .collect();
            assert!(inos.len() < 2 || inos[0] != inos[1], "one number, two files");
        }
        fs.remove_file(&one, b"n").unwrap();
        drop(new);
        fs.sync_dir(&one).unwrap();
        let next = write_new(&fs, &one, "m", b"");
        assert_eq!(fs.stat_file(&next).unwrap().ino == old, synced, "{reuse:?}");
    }
}

#[test]
fn faults_strike_where_they_are_put() {
    let (fs, one, _) = two_dirs(Config::default());
    fs.record_trace();
    let next = fs.calls() + 1;
    fs.fail_at(next, Fault::new(Errno::ENOSPC as i32));
    fs.fail_at(next + 1, Fault::after(Errno::EIO as i32));
    assert_eq!(errno(fs.make_dir(&one, b"d", 0o755)), Errno::ENOSPC);
    assert!(fs.entry("/D1/d").is_none());
    assert_eq!(errno(fs.make_dir(&one, b"d", 0o755)), Errno::EIO);
    assert!(fs.entry("/D1/d").is_some(), "it took effect all the same");
    fs.fail_from(next + 2, Fault::new(Errno::EROFS as i32));
    assert!(fs.stat(&one, b"a").is_ok(), "reading goes on");
    assert_eq!(errno(fs.remove_file(&one, b"a")), Errno::EROFS);
    fs.mend();
    fs.remove_file(&one, b"a").unwrap();
    assert_eq!(fs.fired(), 3);
    let trace = fs.trace();
    assert_eq!(trace[0], format!("{next} MakeDir /D1/d = ENOSPC"));
    assert_eq!(trace.last().unwrap(), &format!("{} RemoveFile /D1/a = ok", next + 4));
    for call in fs.log() {
        assert!(possible_errors(call).contains(&(Errno::EIO as i32)), "{call:?}");
    }
}

#[test]
fn a_hook_sees_the_tree_after_every_call() {
    let (fs, one, two) = two_dirs(Config::default());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    fs.after_each_call(move |view, event| {
        sink.lock().unwrap().push((event.call, event.changed, view.exists("/D1/a"), view.tree_hash("/D2")));
    });
    rename(&fs, &one, "a", &two, "a");
    fs.stat(&two, b"a").unwrap();
    rename(&fs, &two, "a", &one, "a");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    assert_eq!(
        seen.iter().map(|&(_, changed, there, _)| (changed, there)).collect::<Vec<_>>(),
        [(true, false), (false, false), (true, true)]
    );
    assert_eq!(seen[0].3, seen[1].3);
    assert_ne!(seen[1].3, seen[2].3);
    assert_eq!(fs.tree("/D2").len(), 2);
}

#[test]
fn writes_can_be_short_and_times_coarse() {
    let fs = SimFs::new(Config { short_write: Some(2), mtime_granularity: 1_000_000_000, ..Config::default() });
    let root = open(&fs, "/");
    let mut file = fs.create_file(&root, b"f", 0o644).unwrap();
    assert_eq!(fs.write(&mut file, b"abc").unwrap(), 2);
    let before = fs.stat_file(&file).unwrap().mtime;
    assert_eq!(fs.write(&mut file, b"c").unwrap(), 1);
    assert_eq!(fs.stat_file(&file).unwrap().mtime, before);
    fs.pause(std::time::Duration::from_secs(2));
    fs.write(&mut file, b"d").unwrap();
    assert!(fs.stat_file(&file).unwrap().mtime > before);
    assert!(fs.now() > before);
    assert_eq!((fs.unique().unwrap(), fs.unique().unwrap()), (1, 2));
}

#[test]
fn a_fork_goes_its_own_way() {
    let (fs, one, _) = two_dirs(Config::default());
    fs.remove_file(&one, b"a").unwrap();
    let fork = fs.fork();
    assert_eq!(fork.hash(), fs.hash());
    assert_eq!(fork.crash_states(10).count(), 2, "pending effects are copied");
    fork.sync_dir(&open(&fork, "/D1")).unwrap();
    assert_eq!((fork.crash_states(10).count(), fs.crash_states(10).count()), (1, 2));
    fs.make_dir(&one, b"d", 0o755).unwrap();
    assert!(fork.entry("/D1/d").is_none());
}
