//! What comes back: all that the generation before had, what it took over too; what is foreign stays.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use txfs::{BeginOptions, CommitOptions, Store};
use txfs_testing::tree::snapshot;
use txfs_testing::{Random, lenient, publish, read, scratch, set_mode};

use super::roll_back;

#[test]
fn the_generation_before_comes_back_and_going_back_again_goes_forward() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let commit = |fill: &dyn Fn(&Path)| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill(&transaction.stage());
        transaction.commit(&lenient()).unwrap();
    };
    commit(&|stage| {
        fs::create_dir_all(stage.join("stale/deep/.txfs")).unwrap();
        fs::create_dir_all(stage.join("becomes-file")).unwrap();
        fs::create_dir_all(stage.join("closed/sub")).unwrap();
        for file in
            ["same", "changes", "stale/deep/x", "stale/deep/.txfs/y", "becomes-file/z", "becomes-dir", "closed/sub/a"]
        {
            fs::write(stage.join(file), "one").unwrap();
        }
        symlink("same", stage.join("link")).unwrap();
        set_mode(&stage.join("stale/deep"), 0o500);
        set_mode(&stage.join("changes"), 0o640);
        set_mode(&stage.join("closed/sub"), 0o555);
        set_mode(&stage.join("closed"), 0o555);
    });
    let (first, inode) = (snapshot(&out), fs::metadata(out.join("same")).unwrap().ino());
    commit(&|stage| {
        fs::create_dir_all(stage.join("becomes-dir/deep")).unwrap();
        fs::create_dir_all(stage.join("closed/sub")).unwrap();
        fs::create_dir_all(stage.join("fresh")).unwrap();
        fs::write(stage.join("same"), "one").unwrap();
        for file in ["changes", "becomes-file", "becomes-dir/deep/z", "closed/sub/a", "fresh/f"] {
            fs::write(stage.join(file), "two").unwrap();
        }
        symlink("changes", stage.join("link")).unwrap();
    });
    let second = snapshot(&out);
    for (round, expected) in [&first, &second, &first, &second].into_iter().enumerate() {
        let committed = roll_back(&store).unwrap();
        assert_eq!(committed.generation, round as u64 + 3);
        assert_eq!(&snapshot(&out), expected, "{round}");
        assert_eq!(store.verify().unwrap(), []);
        assert_eq!(fs::metadata(out.join("same")).unwrap().ino(), inode, "what is the same is not touched");
    }
}

#[test]
fn the_mode_of_a_directory_below_another_comes_back() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let commit = |modes: [u32; 3]| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for file in ["d/e/f/x", "d/e/g", "d/h"] {
            transaction.write(file, "same").unwrap();
        }
        for (dir, mode) in ["d/e/f", "d/e", "d"].into_iter().zip(modes) {
            set_mode(&transaction.stage().join(dir), mode);
        }
        transaction.commit(&lenient()).unwrap();
        snapshot(&out)
    };
    for modes in [[0o700, 0o755, 0o755], [0o755, 0o700, 0o755], [0o500, 0o555, 0o755], [0o755, 0o755, 0o555]] {
        let (first, second) = (commit([0o755; 3]), commit(modes));
        for expected in [&first, &second] {
            roll_back(&store).unwrap();
            assert_eq!(&snapshot(&out), expected, "{modes:?}");
        }
    }
}

/// Each step down takes as long as the one before: in a tree of so many levels whatever takes longer with each would take minutes.
#[test]
fn a_deep_tree_goes_comes_back_and_is_taken_apart_in_seconds() {
    const LEVELS: usize = 2_000;
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let deep = vec!["d"; LEVELS].join("/");
    let commit = |files: &[&str]| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        files.iter().for_each(|file| transaction.write(file, *file).unwrap());
        transaction.commit(&lenient()).unwrap()
    };
    let began = std::time::Instant::now();
    let leaf = format!("{deep}/leaf");
    commit(&["a", &leaf]);
    let first = store.head().unwrap().unwrap().totals;
    commit(&["a"]);
    for _ in 0..3 {
        roll_back(&store).unwrap();
    }
    assert_eq!(store.head().unwrap().unwrap().totals, first);
    assert_eq!(store.verify().unwrap(), []);
    // Every one of them stays for what is foreign at the bottom.
    fs::write(out.join(&deep).join("foreign"), "mine").unwrap();
    commit(&["a"]);
    assert_eq!(read(&out.join(&deep), "foreign"), "mine");
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

#[test]
fn any_two_generations_change_places() {
    let names = ["a", "b", "d/a", "d/b", "d/e/a", "d/e/b", "f", "g/h", "i"];
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let (_dir, out) = scratch();
        let store = Store::open(&out).unwrap();
        let mut generation = |content: &str| {
            let mut transaction = store.begin(BeginOptions::default()).unwrap();
            transaction.write("always", "1").unwrap();
            for name in names {
                match random.below(4) {
                    0 => transaction.write(name, content).unwrap(),
                    1 => transaction.write(name, "same").unwrap(),
                    2 => transaction.symlink(name, content).unwrap(),
                    _ => {}
                }
            }
            if random.below(3) == 0 {
                // A directory where a file may have been, and the other way round.
                transaction.remove("f").unwrap();
                transaction.write("f/x", content).unwrap();
            }
            transaction.commit(&lenient()).unwrap();
        };
        generation("one");
        let first = snapshot(&out);
        generation("two");
        let second = snapshot(&out);
        if first == second {
            continue;
        }
        roll_back(&store).unwrap();
        assert_eq!(snapshot(&out), first, "seed {seed}");
        roll_back(&store).unwrap();
        assert_eq!(snapshot(&out), second, "seed {seed}");
        assert_eq!(store.verify().unwrap(), []);
    }
}

#[test]
fn what_was_taken_over_comes_back_and_what_is_foreign_stays() {
    let (_dir, out) = scratch();
    fs::create_dir(&out).unwrap();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("ours", "one")]).unwrap();
    fs::write(out.join("theirs"), "theirs").unwrap();
    fs::write(out.join("CNAME"), "example.org").unwrap();
    let mut options = CommitOptions::default();
    options.adopt = true;
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("ours", "two").unwrap();
    transaction.write("theirs", "taken over").unwrap();
    transaction.commit(&options).unwrap();
    roll_back(&store).unwrap();
    let now = ["ours", "theirs", "CNAME"].map(|path| read(&out, path));
    assert_eq!(now, ["one", "theirs", "example.org"]);
}

#[test]
fn what_was_put_into_a_displaced_directory_is_not_published() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("stale/x", "x"), ("stale/deep/y", "y")]).unwrap();
    let first = snapshot(&out);
    publish(&store, &[("a", "two")]).unwrap();
    store.sweep().unwrap();
    let displaced = fs::read_dir(txfs_testing::state_of(&out).join("previous/2/kept")).unwrap();
    fs::write(displaced.last().unwrap().unwrap().path().join("late"), "late").unwrap();
    roll_back(&store).unwrap();
    assert_eq!(snapshot(&out), first);
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn what_was_taken_over_as_it_lay_there_stays() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one")]).unwrap();
    fs::write(out.join("CNAME"), "example.org").unwrap();
    fs::create_dir(out.join("uploads")).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("a", "two").unwrap();
    transaction.write("CNAME", "example.org").unwrap();
    transaction.make_dir("uploads").unwrap();
    transaction.commit(&lenient().adopt(true)).unwrap();
    roll_back(&store).unwrap();
    assert_eq!((read(&out, "a"), read(&out, "CNAME")), ("one".into(), "example.org".into()));
    assert!(out.join("uploads").is_dir());
}

#[test]
fn what_the_first_generation_took_over_comes_back() {
    let (_dir, out) = scratch();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("index.html"), "mine").unwrap();
    fs::write(out.join("foreign"), "mine").unwrap();
    let store = Store::open(&out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("index.html", "published").unwrap();
    transaction.write("new", "published").unwrap();
    transaction.commit(&lenient().adopt(true)).unwrap();
    drop(transaction);
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    assert_eq!(transaction.copy_previous().unwrap(), 0);
    transaction.commit(&lenient()).unwrap();
    assert_eq!((read(&out, "index.html"), read(&out, "foreign")), ("mine".into(), "mine".into()));
    assert!(!out.join("new").exists());
    drop(transaction);
    roll_back(&store).unwrap();
    assert_eq!((read(&out, "index.html"), read(&out, "new")), ("published".into(), "published".into()));
}
