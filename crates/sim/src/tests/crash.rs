//! What a crash leaves: every fact measured on real file systems (evidence.md, "File system semantics"), and the rules.

use super::*;

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
fn on_btrfs_an_fsynced_file_may_take_its_name_ahead_of_earlier_ones() {
    for (weakness, ahead) in [(Weakness::Ordered, false), (Weakness::Btrfs, true), (Weakness::Posix, true)] {
        let fs = SimFs::new(Config::new(weakness));
        let root = open(&fs, "/");
        fs.make_symlink(&root, b"a", b"x").unwrap();
        let b = write_new(&fs, &root, "b", b"x");
        fs.make_symlink(&root, b"c", b"x").unwrap();
        let late = weakness == Weakness::Posix;
        assert_eq!(names(fs.crash_states(1000)).contains(&vec!["b".to_string()]), late, "{weakness:?}");
        fs.sync_file(&b).unwrap();
        fs.make_symlink(&root, b"d", b"x").unwrap();
        let found = names(fs.crash_states(1000));
        let has = |state: &[&str]| found.contains(&state.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!((has(&["b"]), has(&["b", "c"]), has(&["b", "d"])), (ahead, late, late), "{weakness:?}");
        assert!(has(&["a", "b", "c", "d"]));
    }
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
fn large_worlds_are_sampled_within_bounds() {
    let fs = SimFs::new(Config::default());
    for dir in 0..10 {
        fs.put_dir(format!("/w/{dir}"), 0o755);
        let dir = open(&fs, &format!("/w/{dir}"));
        for i in 0..50 {
            drop(write_new(&fs, &dir, &format!("f{i}"), &vec![b'x'; 20_000]));
        }
    }
    let mut states = fs.crash_states(100);
    let count = states.by_ref().take(300).count();
    assert!(!states.exhaustive());
    assert_eq!((count, states.returned()), (300, 300), "the extremes come beyond the limit");
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
