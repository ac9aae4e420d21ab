//! The model against the kernel, against what real file systems were seen to leave, and against itself.

use std::collections::{BTreeSet, HashSet};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex};

use nix::errno::Errno;
use proptest::prelude::*;

use super::*;
use crate::fs::{Fs, LinuxFs, RenameMode, Timestamp};
use crate::path::RelPath;

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
            let files = tree.iter().filter(|(_, entry)| entry.kind != Some(crate::fs::Kind::Directory));
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

// ---- against the kernel

/// Choices of one operation, taken modulo what there is to choose from.
type Choices = (u8, u8, u8, u8, u8, u8);

const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
const FILE_MODES: [u32; 4] = [0o644, 0o600, 0o755, 0o400];
const DIR_MODES: [u32; 5] = [0o755, 0o700, 0o755, 0o500, 0o300];

fn show<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?}", error.raw_os_error().map(Errno::from_raw)),
    }
}

fn shown_stat(stat: crate::fs::Stat) -> String {
    // What a directory counts as size and links is the file system's own affair.
    let (links, size) = if stat.is_dir() { (0, 0) } else { (stat.nlink, stat.size) };
    format!("{:?} {:o} links {links} size {size}", stat.kind, stat.mode)
}

/// Performs one operation and says what came of it; opened directories join `dirs`.
fn perform<F: Fs>(fs: &F, dirs: &mut Vec<F::Dir>, (kind, d1, n1, d2, n2, x): Choices) -> String {
    let name = |n: u8| NAMES[usize::from(n) % NAMES.len()];
    let (at, to) = (usize::from(d1) % dirs.len(), usize::from(d2) % dirs.len());
    let (n1, n2) = (name(n1), name(n2));
    let (dir, other) = (&dirs[at], &dirs[to]);
    let x = usize::from(x);
    match kind % 24 {
        0 => {
            let result =
                fs.create_file(dir, n1, FILE_MODES[x % 4]).and_then(|mut file| fs.write(&mut file, &vec![7; x]));
            format!("create {at} {n1:?}: {}", show(result))
        }
        1..=3 => format!("mkdir {at} {n1:?}: {}", show(fs.make_dir(dir, n1, DIR_MODES[x % 5]))),
        4 => format!("symlink {at} {n1:?}: {}", show(fs.make_symlink(dir, n1, n2))),
        5 => format!("link {at} {n1:?} {to} {n2:?}: {}", show(fs.link(dir, n1, other, n2))),
        6..=12 => {
            let mode = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange][x % 3];
            format!("rename {at} {n1:?} {to} {n2:?} {mode:?}: {}", show(fs.rename(dir, n1, other, n2, mode)))
        }
        13 => format!("unlink {at} {n1:?}: {}", show(fs.remove_file(dir, n1))),
        14 => format!("rmdir {at} {n1:?}: {}", show(fs.remove_dir(dir, n1))),
        15 | 16 => {
            let mut path = RelPath::new(n1).unwrap();
            if x % 2 == 0 {
                path = path.join(n2).unwrap();
            }
            let opened = fs.open_dir(dir, &path);
            let result = show(
                opened.as_ref().map(drop).map_err(|error| io::Error::from_raw_os_error(error.raw_os_error().unwrap())),
            );
            dirs.extend(opened);
            format!("open {at} {path}: {result}")
        }
        17 => {
            let listed = fs.list(dir).map(|listed| {
                let mut listed: Vec<_> = listed.into_iter().map(|entry| (entry.name, entry.kind)).collect();
                listed.sort_by(|a, b| a.0.cmp(&b.0));
                listed
            });
            format!("list {at}: {}", show(listed))
        }
        18 => format!("stat {at} {n1:?}: {}", show(fs.stat(dir, n1).map(shown_stat))),
        19 => format!("readlink {at} {n1:?}: {}", show(fs.read_link(dir, n1))),
        20 => {
            let read = fs.open_file(dir, n1).and_then(|mut file| {
                let mut buffer = [0; 300];
                let n = fs.read(&mut file, &mut buffer)?;
                Ok((buffer[..n].to_vec(), shown_stat(fs.stat_file(&file)?), show(fs.write(&mut file, b"x"))))
            });
            format!("read {at} {n1:?}: {}", show(read))
        }
        21 => {
            let result = fs.open_write(dir, n1).and_then(|mut file| {
                fs.write(&mut file, &vec![9; x])?;
                fs.set_mtime(&file, Timestamp { seconds: 5, nanos: 7 })?;
                fs.set_mode(&file, FILE_MODES[x % 4])?;
                Ok((fs.stat_file(&file)?.mtime, show(fs.sync_file(&file))))
            });
            format!("write {at} {n1:?}: {}", show(result))
        }
        22 => format!("chmod {at}: {}", show(fs.set_dir_mode(dir, DIR_MODES[x % 3]))),
        _ => format!("sync {at}: {} {}", show(fs.sync_dir(dir)), shown_stat(fs.stat_dir(dir).unwrap())),
    }
}

fn dump<F: Fs>(fs: &F, dir: &F::Dir, at: &str, into: &mut Vec<String>) {
    let Ok(listed) = fs.list(dir) else { return into.push(format!("{at}: closed")) };
    let mut names: Vec<_> = listed.into_iter().map(|entry| entry.name).collect();
    names.sort();
    for name in names {
        let path = format!("{at}/{}", String::from_utf8_lossy(&name));
        into.push(format!("{path} {}", show(fs.stat(dir, &name).map(shown_stat))));
        if let Ok(dir) = fs.open_dir(dir, &RelPath::new(&name).unwrap()) {
            dump(fs, &dir, &path, into);
        }
    }
}

fn outcome<F: Fs>(fs: &F, root: &Path, choices: &[Choices]) -> Vec<String> {
    let mut dirs = vec![fs.open_anchor(root).unwrap()];
    let mut said: Vec<String> = choices.iter().map(|&choices| perform(fs, &mut dirs, choices)).collect();
    dump(fs, &dirs[0], "", &mut said);
    said
}

fn kernel_cases() -> u32 {
    std::env::var("TXFS_SIM_KERNEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 3000, ..ProptestConfig::with_cases(kernel_cases()) })]

    /// As another user than root, this compares the permission checks too.
    #[test]
    fn answers_are_the_kernels(choices in proptest::collection::vec(any::<Choices>(), 1..120)) {
        let real = tempfile::tempdir().unwrap();
        let linux = LinuxFs::new();
        let sim = SimFs::new(Config { uid: linux.user(), ..Config::default() });
        let kernel = outcome(&linux, real.path(), &choices);
        let model = outcome(&sim, Path::new("/"), &choices);
        prop_assert_eq!(kernel, model);
    }
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
    assert_eq!(errno(fs.open_dir(&w, &p("moved"))), Errno::EACCES);
    let root = fs.as_user(0);
    assert!(root.open_dir(&w, &p("moved")).is_ok());
    assert_eq!((fs.user(), root.user()), (1000, 0));
    fs.set_owner("/w/open", 7);
    assert_eq!(errno(fs.set_dir_mode(&other, 0o777)), Errno::EPERM);
    assert_eq!(fs.stat_dir(&other).unwrap().uid, 7);
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
    let first = fs.open_write(&root, b"lock").unwrap();
    let second = fs.clone().open_write(&root, b"lock").unwrap();
    assert!(fs.try_lock(&first).unwrap());
    assert!(fs.try_lock(&first).unwrap());
    assert!(!fs.try_lock(&second).unwrap());
    let after = fs.crash_states(1).next().unwrap();
    let third = after.open_write(&open(&after, "/"), b"lock").unwrap();
    assert!(after.try_lock(&third).unwrap());
    let fork = fs.fork();
    let fourth = fork.open_write(&open(&fork, "/"), b"lock").unwrap();
    assert!(fork.try_lock(&fourth).unwrap());
    assert_eq!(errno(after.stat_file(&first)), Errno::EBADF, "a handle is of one world");
    drop(first);
    assert!(fs.try_lock(&second).unwrap());
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

// ---- what was seen of real file systems: evidence.md, "File system semantics"

#[test]
fn evidence_1_renames_in_different_directories_persist_out_of_order() {
    for (weakness, lost) in [(Weakness::Ordered, false), (Weakness::Btrfs, true), (Weakness::Posix, true)] {
        let (fs, one, two) = two_dirs(Config::new(weakness));
        rename(&fs, &one, "a", &one, "a2");
        rename(&fs, &two, "b", &two, "b2");
        fs.sync_dir(&two).unwrap();
        let mut expected = set(&[&["D1/a2", "D2/b2"]]);
        if lost {
            expected.extend(set(&[&["D1/a", "D2/b2"]]));
        }
        assert_eq!(names(fs.crash_states(100)), expected, "{weakness:?}");
    }
}

#[test]
fn evidence_2_a_rename_between_directories_can_leave_both_names() {
    for weakness in [Weakness::Btrfs, Weakness::Posix] {
        let (fs, one, two) = two_dirs(Config::new(weakness));
        rename(&fs, &one, "a", &two, "a");
        assert_eq!(
            names(fs.crash_states(100)),
            set(&[&["D1/a", "D2/b"], &["D1/a", "D2/a", "D2/b"], &["D2/a", "D2/b"]]),
        );
        fs.sync_dir(&two).unwrap();
        let states: Vec<SimFs> = fs.crash_states(100).collect();
        assert_eq!(names(states.iter().cloned()), set(&[&["D1/a", "D2/a", "D2/b"], &["D2/a", "D2/b"]]));
        let both = states.iter().find(|world| world.entry("/D1/a").is_some()).unwrap();
        let (one, two) = (open(both, "/D1"), open(both, "/D2"));
        let (source, target) = (both.stat(&one, b"a").unwrap(), both.stat(&two, b"a").unwrap());
        assert_eq!((source.nlink, source.ino), (2, target.ino));
        // Redoing the rename succeeds and does nothing.
        rename(both, &one, "a", &two, "a");
        assert!(both.entry("/D1/a").is_some());
    }
    // One journal: all or nothing. And the barrier on the source brings the destination along everywhere.
    let (fs, one, two) = two_dirs(Config::new(Weakness::Ordered));
    rename(&fs, &one, "a", &two, "a");
    assert_eq!(names(fs.crash_states(100)), set(&[&["D1/a", "D2/b"], &["D2/a", "D2/b"]]));
    for weakness in WEAKNESSES {
        let (fs, one, two) = two_dirs(Config::new(weakness));
        rename(&fs, &one, "a", &two, "a");
        fs.sync_dir(&one).unwrap();
        assert_eq!(names(fs.crash_states(100)), set(&[&["D2/a", "D2/b"]]), "{weakness:?}");
    }
}

#[test]
fn evidence_3_without_a_barrier_on_the_file_there_is_neither_old_nor_new() {
    for weakness in WEAKNESSES {
        let fs = SimFs::new(Config::new(weakness));
        fs.put_file("/w/f", b"old", 0o644);
        let w = open(&fs, "/w");
        let file = write_new(&fs, &w, "tmp", b"newer");
        rename(&fs, &w, "tmp", &w, "f");
        fs.sync_dir(&w).unwrap();
        let left = |list: &[&[u8]]| list.iter().map(|bytes| Some(bytes.to_vec())).collect::<BTreeSet<_>>();
        assert_eq!(contents(&fs, "/w/f"), left(&[b"", b"newer", b"\0\0\0\0\0"]), "{weakness:?}");
        fs.sync_file(&file).unwrap();
        assert_eq!(contents(&fs, "/w/f"), left(&[b"newer"]), "{weakness:?}");
    }
}

#[test]
fn evidence_4_the_second_fsync_after_a_failed_one_lies() {
    for (fault, expected) in [(Fault::new(Errno::EIO as i32), "old"), (Fault::keeping(Errno::EIO as i32), "new")] {
        let fs = SimFs::new(Config::default());
        fs.put_file("/f", b"old", 0o644);
        let root = open(&fs, "/");
        let mut file = fs.open_write(&root, b"f").unwrap();
        fs.write(&mut file, b"new").unwrap();
        fs.fail_at(fs.calls() + 1, fault);
        assert_eq!(errno(fs.sync_file(&file)), Errno::EIO);
        fs.sync_file(&file).unwrap();
        fs.sync_fs(&root).unwrap();
        assert_eq!(fs.entry("/f").unwrap().content(), b"new", "the page cache has it");
        assert_eq!(contents(&fs, "/f"), BTreeSet::from([Some(expected.into())]));
        assert_eq!(fs.fired(), 1);
    }
}

#[test]
fn names_whose_barrier_failed_are_awaited_by_no_later_one() {
    let (fs, one, _) = two_dirs(Config::default());
    rename(&fs, &one, "a", &one, "a2");
    fs.fail_at(fs.calls() + 1, Fault::new(Errno::EIO as i32));
    assert_eq!(errno(fs.sync_dir(&one)), Errno::EIO);
    fs.sync_dir(&one).unwrap();
    assert_eq!(names(fs.crash_states(100)), set(&[&["D1/a", "D2/b"], &["D1/a2", "D2/b"]]));
    // What comes after it in the same directory takes it along.
    fs.remove_file(&one, b"a2").unwrap();
    fs.sync_dir(&one).unwrap();
    assert_eq!(names(fs.crash_states(100)), set(&[&["D2/b"]]));
}

#[test]
fn a_block_written_anew_after_a_failed_barrier_goes_alone() {
    let fs = SimFs::new(Config { block: 4, ..Config::default() });
    fs.put_file("/f", b"aaaabbbb", 0o644);
    let root = open(&fs, "/");
    let mut file = fs.open_write(&root, b"f").unwrap();
    fs.write(&mut file, b"AAAABBBB").unwrap();
    fs.fail_at(fs.calls() + 1, Fault::new(Errno::EIO as i32));
    assert!(fs.sync_file(&file).is_err());
    let mut again = fs.open_write(&root, b"f").unwrap();
    fs.write(&mut again, b"XX").unwrap();
    fs.sync_file(&again).unwrap();
    // The page goes whole, with what was dropped of it; the other page stays old.
    assert_eq!(contents(&fs, "/f"), BTreeSet::from([Some(b"XXAAbbbb".to_vec())]));
}

// ---- what a crash leaves

#[test]
fn barriers_persist_what_they_are_called_on_and_no_more() {
    let fs = SimFs::new(Config::default());
    let root = open(&fs, "/");
    let file = write_new(&fs, &root, "f", b"x");
    fs.sync_file(&file).unwrap();
    assert_eq!(names(fs.crash_states(100)), set(&[&[], &["f"]]), "a file's barrier does not cover its name");
    fs.make_dir(&root, b"d", 0o755).unwrap();
    let d = fs.open_dir(&root, &p("d")).unwrap();
    fs.make_symlink(&d, b"l", b"to").unwrap();
    fs.sync_dir(&root).unwrap();
    assert_eq!(names(fs.crash_states(100)), set(&[&["f"], &["d/l", "f"]]), "a directory can come back empty");
    fs.sync_fs(&root).unwrap();
    assert_eq!(fs.crash_states(100).count(), 1);
    assert_eq!(fs.entry("/d/l").unwrap().content(), b"to");
}

#[test]
fn a_name_in_a_directory_that_was_not_persisted_is_gone_but_a_moved_file_is_not() {
    for weakness in WEAKNESSES {
        let (fs, one, _) = two_dirs(Config::new(weakness));
        let root = open(&fs, "/");
        fs.make_dir(&root, b"new", 0o755).unwrap();
        let new = fs.open_dir(&root, &p("new")).unwrap();
        rename(&fs, &one, "a", &new, "a");
        fs.sync_dir(&new).unwrap();
        for world in fs.crash_states(1000) {
            assert!(world.entry("/D1/a").is_some() || world.entry("/new/a").is_some(), "{}", world.describe());
        }
        fs.sync_dir(&one).unwrap();
        assert_eq!(names(fs.crash_states(1000)), set(&[&["D2/b", "new/a"]]), "{weakness:?}");
    }
}

#[test]
fn modes_and_times_are_lost_in_order_or_not_at_all() {
    for lose_metadata in [true, false] {
        let fs = SimFs::new(Config { lose_metadata, ..Config::default() });
        fs.put_file("/f", b"x", 0o644);
        let root = open(&fs, "/");
        let file = fs.open_write(&root, b"f").unwrap();
        fs.set_mode(&file, 0o600).unwrap();
        fs.set_mtime(&file, Timestamp { seconds: 1, nanos: 0 }).unwrap();
        let states: BTreeSet<(u32, bool)> = fs
            .crash_states(100)
            .map(|world| world.look(|view| view.stat("/f").unwrap()))
            .map(|stat| (stat.mode, stat.mtime.seconds == 1))
            .collect();
        let whole = BTreeSet::from([(0o600, true)]);
        let all = BTreeSet::from([(0o644, false), (0o600, false), (0o600, true)]);
        assert_eq!(states, if lose_metadata { all } else { whole.clone() });
        fs.sync_file(&file).unwrap();
        let stat = fs.crash_states(100).map(|world| world.look(|view| view.stat("/f").unwrap())).next().unwrap();
        assert_eq!(BTreeSet::from([(stat.mode, stat.mtime.seconds == 1)]), whole);
    }
}

#[test]
fn content_tears_at_blocks() {
    let fs = SimFs::new(Config { block: 2, lose_metadata: false, ..Config::default() });
    fs.put_file("/f", b"aabb", 0o644);
    let root = open(&fs, "/");
    let mut file = fs.open_write(&root, b"f").unwrap();
    fs.write(&mut file, b"AABBCC").unwrap();
    let found = contents(&fs, "/f");
    // Size 4: two blocks of old, new or zero. Size 6: the same, and a third that is new or zero.
    assert_eq!(found.len(), 9 + 18);
    for content in [&b"aabb"[..], b"AAbb", b"aaBB", b"\0\0BB", b"AABBCC", b"aabb\0\0", b"aa\0\0CC"] {
        assert!(found.contains(&Some(content.to_vec())), "{content:?}");
    }
}

#[test]
fn the_number_of_states_is_what_the_rules_say() {
    // Two creations in one directory and one in another: prefixes of 2 and of 1, any subset, or one order for all.
    for (weakness, expected) in [(Weakness::Ordered, 4), (Weakness::Btrfs, 6), (Weakness::Posix, 8)] {
        let (fs, one, two) = two_dirs(Config::new(weakness));
        fs.make_symlink(&one, b"x", b"1").unwrap();
        fs.make_symlink(&one, b"y", b"2").unwrap();
        fs.make_symlink(&two, b"z", b"3").unwrap();
        assert_eq!(names(fs.crash_states(100)).len(), expected, "{weakness:?}");
        let states = fs.crash_states(expected);
        assert!(states.exhaustive());
        assert_eq!(states.count(), expected);
        assert!(!fs.crash_states(expected - 1).exhaustive());
    }
}

#[test]
fn an_exchange_is_never_half_done() {
    for weakness in WEAKNESSES {
        let (fs, one, two) = two_dirs(Config::new(weakness));
        fs.rename(&one, b"a", &two, b"b", RenameMode::Exchange).unwrap();
        let states: BTreeSet<_> = fs
            .crash_states(10)
            .map(|world| {
                (world.entry("/D1/a").unwrap().content().to_vec(), world.entry("/D2/b").unwrap().content().to_vec())
            })
            .collect();
        assert_eq!(states, BTreeSet::from([(b"A".to_vec(), b"B".to_vec()), (b"B".to_vec(), b"A".to_vec())]));
    }
}

#[test]
fn samples_are_repeatable_and_hold_the_extremes() {
    let build = || {
        let fs = SimFs::new(Config::new(Weakness::Posix));
        fs.put_dir("/w", 0o755);
        fs.put_file("/w/base", b"x", 0o644);
        let w = open(&fs, "/w");
        for i in 0..40 {
            drop(write_new(&fs, &w, &format!("f{i:02}"), &vec![b'x'; 3000]));
        }
        fs
    };
    let fs = build();
    let mut states = fs.crash_states(500);
    assert!(!states.exhaustive());
    let worlds: Vec<SimFs> = states.by_ref().collect();
    assert!(worlds.len() >= 500, "{}", worlds.len());
    let hashes: HashSet<u64> = worlds.iter().map(SimFs::hash).collect();
    assert_eq!(hashes.len(), worlds.len());
    let again: HashSet<u64> = build().crash_states(500).map(|world| world.hash()).collect();
    assert_eq!(hashes, again);
    let trees: Vec<Tree> = worlds.iter().map(|world| world.tree("/w")).collect();
    assert!(trees.iter().any(|tree| tree.len() == 2), "nothing durable");
    assert!(trees.contains(&fs.tree("/w")), "everything durable");
    for i in 0..40 {
        let name = p(&format!("f{i:02}"));
        assert!(trees.iter().any(|tree| tree.len() == 41 && !tree.contains_key(&name)), "only {name} missing");
        assert!(trees.iter().any(|tree| tree.len() == 3 && tree.contains_key(&name)), "{name} alone");
        let torn = |tree: &Tree| tree.get(&name).is_some_and(|entry| entry.content().contains(&0));
        assert!(trees.iter().any(torn), "{name} torn");
    }
}

#[test]
fn a_recorded_point_leaves_what_a_crash_there_leaves() {
    let run = |fs: &SimFs| -> io::Result<()> {
        let root = fs.open_anchor("/".as_ref())?;
        let mut file = fs.create_file(&root, b"tmp", 0o644)?;
        fs.write(&mut file, b"new")?;
        fs.sync_file(&file)?;
        fs.rename(&root, b"tmp", &root, b"f", RenameMode::Replace)?;
        fs.sync_dir(&root)
    };
    let build = || {
        let fs = SimFs::new(Config::default());
        fs.put_file("/f", b"old", 0o644);
        fs
    };
    let recorded = build();
    recorded.record_crash_points();
    run(&recorded).unwrap();
    assert_eq!(recorded.log().len(), 6);
    assert_eq!(recorded.changes(), [2, 3, 4, 5, 6]);
    let points = recorded.crash_points();
    assert_eq!(points.iter().map(CrashPoint::call).collect::<Vec<_>>(), [0, 2, 3, 4, 5, 6]);
    let mut total = 0;
    for point in points {
        let crashed = build();
        crashed.crash_at(point.call() + 1);
        assert_eq!(run(&crashed).is_err(), point.call() < 6);
        assert_eq!(crashed.crashed(), point.call() < 6);
        let hashes = |states: CrashStates| states.map(|world| world.hash()).collect::<BTreeSet<_>>();
        assert_eq!(hashes(point.states(1000)), hashes(crashed.crash_states(1000)));
        for world in point.states(1000) {
            total += 1;
            assert!([&b"old"[..], b"new"].contains(&world.entry("/f").unwrap().content()));
        }
    }
    println!("{total} states of a sound replacement");
}

#[test]
fn nothing_changes_a_crashed_world() {
    let (fs, one, _) = two_dirs(Config::default());
    let file = write_new(&fs, &one, "n", b"x");
    fs.remove_file(&one, b"n").unwrap();
    fs.crash_at(fs.calls() + 1);
    assert_eq!(errno(fs.make_dir(&one, b"d", 0o755)), Errno::EIO);
    let states = |fs: &SimFs| fs.crash_states(100).map(|world| world.hash()).collect::<BTreeSet<_>>();
    let (hash, before) = (fs.hash(), states(&fs));
    drop(file);
    drop(one);
    assert_eq!((fs.hash(), states(&fs)), (hash, before));
    assert!(fs.crashed());
}

// ---- faults and watching

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

// ---- against itself

/// A world with some durable content, changed at random without any barrier that fails.
fn changed(weakness: Weakness, choices: &[Choices], only_moves: bool) -> SimFs {
    let fs = SimFs::new(Config { reuse: Reuse::Never, lose_metadata: !only_moves, ..Config::new(weakness) });
    for path in ["/a/a/a", "/a/b", "/b/c/d", "/c", "/d/a"] {
        fs.put_file(path, path.as_bytes(), 0o644);
    }
    let mut dirs: Vec<SimDir> = ["/", "/a", "/a/a", "/b", "/b/c", "/d"].iter().map(|path| open(&fs, path)).collect();
    for &(kind, d1, n1, d2, n2, x) in choices {
        let moves = [1, 6, 6, 6, 6, 6, 15, 23];
        let kind = if only_moves { moves[usize::from(kind) % moves.len()] } else { kind };
        // No entry is replaced where entries are only moved.
        let x = if only_moves && kind == 6 { 1 + x % 2 } else { x };
        perform(&fs, &mut dirs, (kind, d1, n1, d2, n2, x));
        for dir in 6..dirs.len().max(6) {
            debug_assert!(fs.stat_dir(&dirs[dir]).is_ok());
        }
    }
    fs
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn what_is_only_moved_is_never_lost(choices in proptest::collection::vec(any::<Choices>(), 1..30)) {
        for weakness in WEAKNESSES {
            let fs = changed(weakness, &choices, true);
            for world in fs.crash_states(300) {
                let contents: BTreeSet<Vec<u8>> = world.tree("/").values().map(|entry| entry.content().to_vec()).collect();
                for path in ["/a/a/a", "/a/b", "/b/c/d", "/c", "/d/a"] {
                    prop_assert!(contents.contains(path.as_bytes()), "{path} is lost:\n{}", world.describe());
                }
            }
        }
    }

    #[test]
    fn a_weaker_world_leaves_all_that_a_stronger_one_leaves(choices in proptest::collection::vec(any::<Choices>(), 1..16)) {
        let states = |weakness| {
            let states = changed(weakness, &choices, false).crash_states(3000);
            states.exhaustive().then(|| states.map(|world| world.hash()).collect::<BTreeSet<_>>())
        };
        let [ordered, btrfs, posix] = WEAKNESSES.map(states);
        if let (Some(ordered), Some(btrfs)) = (&ordered, &btrfs) {
            prop_assert!(ordered.is_subset(btrfs));
        }
        if let (Some(btrfs), Some(posix)) = (&btrfs, &posix) {
            prop_assert!(btrfs.is_subset(posix));
        }
    }

    #[test]
    fn a_barrier_on_everything_leaves_one_state_that_is_the_live_one(choices in proptest::collection::vec(any::<Choices>(), 1..60)) {
        for weakness in WEAKNESSES {
            let fs = changed(weakness, &choices, false);
            let everything = fs.crash_states(2).any(|world| world.tree_hash("/") == fs.tree_hash("/"));
            prop_assert!(everything || fs.crash_states(2).exhaustive());
            fs.sync_fs(&open(&fs, "/")).unwrap();
            let states: Vec<u64> = fs.crash_states(10).map(|world| world.hash()).collect();
            prop_assert_eq!(states, vec![fs.hash()]);
        }
    }

    #[test]
    fn every_recorded_state_survives_a_second_crash_as_it_is(choices in proptest::collection::vec(any::<Choices>(), 1..20)) {
        let fs = changed(Weakness::Posix, &choices, false);
        for world in fs.crash_states(20) {
            let again: Vec<u64> = world.crash_states(10).map(|world| world.hash()).collect();
            prop_assert_eq!(again, vec![world.hash()]);
        }
    }
}

/// `cargo test --release --features sim sim_speed -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn sim_speed() {
    let fs = SimFs::new(Config::default());
    for i in 0..10 {
        fs.put_file(format!("/out/d{}/f{i}", i % 3), &[b'x'; 200], 0o644);
    }
    fs.put_dir("/.out.txfs/tx", 0o700);
    // About what a small commit does: two files staged, a journal, three operations, HEAD, settling.
    let commit = |fs: &SimFs| -> io::Result<()> {
        let (out, state) = (fs.open_anchor("/out".as_ref())?, fs.open_anchor("/.out.txfs".as_ref())?);
        let stage = fs.open_dir(&state, &p("tx"))?;
        for name in [&b"f0"[..], b"f1", b"journal.new"] {
            let mut file = fs.create_file(&stage, name, 0o644)?;
            fs.write(&mut file, &[b'y'; 300])?;
        }
        fs.sync_fs(&stage)?;
        fs.rename(&stage, b"journal.new", &state, b"journal", RenameMode::Replace)?;
        fs.sync_dir(&state)?;
        let (d0, d1) = (fs.open_dir(&out, &p("d0"))?, fs.open_dir(&out, &p("d1"))?);
        fs.rename(&stage, b"f0", &d0, b"f0", RenameMode::Exchange)?;
        fs.rename(&stage, b"f1", &d1, b"f1", RenameMode::Exchange)?;
        fs.rename(&d1, b"f4", &stage, b"f4", RenameMode::NoReplace)?;
        [&d0, &d1, &stage].into_iter().try_for_each(|dir| fs.sync_dir(dir))?;
        fs.remove_file(&state, b"journal")?;
        fs.sync_dir(&state)
    };
    let start = std::time::Instant::now();
    let rounds = 20_000u64;
    for _ in 0..rounds {
        commit(&fs.fork()).unwrap();
    }
    println!("{:.0} forks with a commit of 30 calls per minute", rounds as f64 * 60.0 / start.elapsed().as_secs_f64());
    let start = std::time::Instant::now();
    let (mut states, mut distinct) = (0u64, HashSet::new());
    for round in 0..200 {
        let fork = fs.fork();
        fork.record_crash_points();
        commit(&fork).unwrap();
        for point in fork.crash_points() {
            for world in point.states(1_000_000) {
                states += 1;
                if round == 0 {
                    distinct.insert(world.hash());
                }
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{states} crash states ({} distinct a commit) at {:.0} per minute",
        distinct.len(),
        states as f64 * 60.0 / seconds
    );
}
