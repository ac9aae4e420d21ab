//! What stands against a commit, and what would change: guards, checks, dry runs and `diff`.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::Scratch;

#[test]
fn a_check_sees_the_stage_and_refuses() {
    let dir = Scratch::new();
    let good = "test \"$PWD\" = \"$TXFS_STAGE\" && test -s a && test -n \"$TXFS_OUTPUT\" && echo talk";
    let ran = dir.run(&["--check", good, "--json"], "echo a > {stage}/a").expect(0).says("talk");
    assert_eq!(ran.json().len(), 1, "a check's stdout is no data");
    dir.run(&["--check", "true", "--check", "exit 3"], "echo b > {stage}/a")
        .expect(5)
        .says("check `exit 3` exited with status 3");
    dir.run(&["--check", "exit 3", "--dry-run"], "echo b > {stage}/a").expect(5).says("check `exit 3`");
    assert_eq!((dir.read("dist/a").as_str(), dir.transactions()), ("a\n", 0));
}

#[test]
fn each_guard_is_lifted_by_its_own_option_alone() {
    let dir = Scratch::new();
    let files: Vec<_> = (0..10).map(|i| i.to_string()).collect();
    let files: Vec<_> = files.iter().map(|name| (name.as_str(), "")).collect();
    dir.publish(&files);
    files[1..].iter().for_each(|(name, _)| fs::remove_file(dir.at("src").join(name)).unwrap());
    let refused = ["publish", "dist", "src", "--allow-empty", "--max-removed", "20", "--adopt", "--allow-drift"];
    dir.txfs(refused).expect(5).says("--max-removed 100");
    fs::remove_file(dir.at("src/0")).unwrap();
    dir.txfs(["publish", "dist", "src", "--max-removed", "100"]).expect(5).says("--allow-empty");
    assert_eq!(fs::read_dir(dir.at("dist")).unwrap().count(), 10);
    dir.txfs(["publish", "dist", "src", "--allow-empty"]).expect(0);
}

#[test]
fn a_dry_run_changes_nothing() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a"), ("b", "b"), ("c", "c")]);
    let stage = dir.begin(&[]);
    fs::write(stage.join("a"), "new").unwrap();
    let refused = dir.txfs(["commit", "dist", "--dry-run"]).expect(5).says("--max-removed");
    assert_eq!(refused.out, "M a\nD b\nD c\n");
    let dry =
        dir.txfs(["commit", "dist", "--dry-run", "--max-removed", "100", "--json"]).expect(0).says("generation 2");
    let objects = dry.json();
    assert_eq!((&objects[0]["change"], &objects[0]["path"]), (&"modified".into(), &"a".into()));
    assert_eq!((&objects[3]["summary"], &objects[3]["removed"]), (&true.into(), &2.into()));
    assert_eq!((dir.read("dist/a").as_str(), dir.transactions()), ("a", 1));
}

/// Every entry below a directory, with what tells whether it was changed: inode, mode, size, modification and change time.
fn footprint(dir: &Path) -> BTreeMap<PathBuf, (u64, u32, u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(path) = pending.pop() {
        let at = fs::symlink_metadata(&path).unwrap();
        if at.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let nanos = |seconds: i64, nanos: i64| seconds * 1_000_000_000 + nanos;
        let changed = (nanos(at.mtime(), at.mtime_nsec()), nanos(at.ctime(), at.ctime_nsec()));
        found.insert(path, (at.ino(), at.mode(), at.size(), changed.0, changed.1));
    }
    found
}

#[test]
fn a_dry_run_of_an_output_that_is_not_there_leaves_nothing_behind() {
    let dir = Scratch::new();
    dir.write("src/a", "1");
    dir.write("src/.git.txfs/store", "");
    let before = footprint(&dir.at(""));
    let added = dir.txfs(["publish", "--dry-run", "dist", "src"]).expect(0).says("would publish generation 1 of dist");
    assert!(added.says("src/.git.txfs is left out").out == "A a\n" && footprint(&dir.at("")) == before);
    // What is already there, and is not txfs'.
    for (args, code, said) in [
        (&["publish", "--dry-run", "src/../dist/", "src"][..], 0, "generation 1"),
        (&["publish", "--dry-run", "none/dist", "src"], 2, "make it first"),
        (&["publish", "--dry-run", "src/a", "src"], 2, ""),
        (&["publish", "--dry-run", "dist", "none"], 2, "does not exist"),
        (&["status", "dist"], 0, ""),
        (&["journal", "dist"], 0, ""),
        (&["recover", "dist"], 0, ""),
        (&["verify", "dist"], 2, ""),
        (&["diff", "dist", "src"], 2, ""),
        (&["rollback", "dist", "--dry-run"], 2, ""),
        (&["commit", "dist", "--dry-run"], 2, ""),
        (&["abort", "--all", "dist"], 0, ""),
    ] {
        dir.txfs(args).expect(code).says(said);
        assert_eq!(footprint(&dir.at("")), before, "{args:?}");
    }
    // What needs a stage to run in takes away what it made: whatever comes of it.
    let names = || fs::read_dir(dir.at("")).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    for (args, code) in [
        (&["publish", "--dry-run", "dist", "src", "--check", "test -e a"][..], 0),
        (&["publish", "--dry-run", "dist", "src", "--check", "false"], 5),
        (&["run", "--dry-run", "dist", "--", "sh", "-c", "echo > {stage}/b"], 0),
        (&["run", "--dry-run", "dist", "--", "false"], 1),
        (&["run", "--dry-run", "dist", "--", "true"], 5),
    ] {
        dir.txfs(args).expect(code);
        assert_eq!(names(), ["src"], "{args:?}");
    }
    // What another process has begun meanwhile is kept.
    let begin = format!("'{}' begin dist", env!("CARGO_BIN_EXE_txfs"));
    dir.txfs(["run", "--dry-run", "dist", "--", "sh", "-c", &format!("{begin}; echo > {{stage}}/b")]).expect(0);
    assert_eq!(dir.transactions(), 1);
    // A foreign directory of that name is left as it is.
    dir.write("other/.txfs/notes", "mine");
    fs::create_dir(dir.at(".next.txfs")).unwrap();
    dir.write(".next.txfs/notes", "mine");
    dir.txfs(["publish", "--dry-run", "next", "src"]).expect(6);
    assert_eq!(dir.read(".next.txfs/notes"), "mine");
}

#[test]
fn what_only_looks_writes_nothing() {
    let dir = Scratch::new();
    dir.publish(&[("a", "1"), ("d/b", "1"), ("gone", "g")]);
    dir.publish(&[("a", "2"), ("d/b", "1")]);
    let stage = dir.begin(&["--from", "current"]);
    fs::write(stage.join("a"), "3").unwrap();
    dir.write("src/a", "4!");
    let before = footprint(&dir.at(""));
    for (args, code) in [
        (&["status", "dist"][..], 0),
        (&["diff", "dist"], 0),
        (&["diff", "dist", "src"], 0),
        (&["verify", "dist"], 0),
        (&["journal", "dist"], 0),
        (&["recover", "dist"], 0),
        (&["commit", "dist", "--dry-run", "--remove", "d"], 0),
        (&["publish", "dist", "src", "--dry-run"], 0),
        (&["publish", "dist", "src", "--dry-run", "--checksum"], 0),
        (&["rollback", "dist", "--dry-run"], 0),
    ] {
        dir.txfs(args).expect(code);
        assert_eq!(footprint(&dir.at("")), before, "{args:?}");
    }
}

/// What a dry run of `publish` says is what `publish` does, and what `diff` says.
#[test]
fn a_dry_run_says_what_is_done_then() {
    let dir = Scratch::new();
    dir.publish(&[("same", "s"), ("other", "old"), ("gone", "g"), ("d/x", "1")]);
    dir.write("src/other", "new");
    dir.write("src/added/y", "2");
    fs::remove_file(dir.at("src/gone")).unwrap();
    // By size and time it looks the same.
    txfs_testing::change_a_byte(&dir.at("src/same"));
    for args in [&["publish", "dist", "src"][..], &["publish", "dist", "src", "--checksum"]] {
        let dry = dir.txfs([args, &["--dry-run", "--json"]].concat()).expect(0).json();
        let mut done = dir.txfs([args, &["-v", "--json"]].concat()).expect(0).json();
        let changes =
            |objects: &[Value]| objects.iter().filter(|o| o.get("change").is_some()).cloned().collect::<Vec<_>>();
        assert_eq!(changes(&dry), changes(&done), "{args:?}");
        let (dry, done) = (&dry[dry.len() - 1], done.pop().unwrap());
        for count in ["added", "modified", "removed", "unchanged"] {
            assert_eq!(dry[count], done[count], "{args:?}: {count}");
        }
    }
}

#[test]
fn diff_says_what_would_change_and_how() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = Scratch::new();
    dir.publish(&[("gone", "g"), ("content", "old"), ("kind", "file"), ("mode", "m"), ("same", "s")]);
    for (path, content) in [("content", "new"), ("mode", "m"), ("same", "s"), ("added", "a")] {
        dir.write(&format!("next/{path}"), content);
    }
    symlink("same", dir.at("next/kind")).unwrap();
    fs::set_permissions(dir.at("next/mode"), fs::Permissions::from_mode(0o755)).unwrap();
    let diff = dir.txfs(["diff", "dist", "next"]).expect(0);
    assert_eq!((diff.out.as_str(), diff.err.as_str()), ("A added\nM content\nD gone\nT kind\nm mode\n", ""));
    dir.txfs(["diff", "dist", "next", "--exit-code"]).expect(8);
    dir.txfs(["diff", "dist", "src", "--exit-code"]).expect(0);
    let objects = dir.txfs(["diff", "dist", "next", "--json"]).expect(0).json();
    let summary = objects.last().unwrap();
    assert_eq!((objects.len(), &summary["summary"], &summary["modified"]), (6, &true.into(), &3.into()));
    dir.txfs(["diff", "dist"]).expect(2).says("no open transaction");
    assert!(dir.txfs(["--color", "always", "diff", "dist", "next"]).out.contains("\x1b["));
}

#[test]
fn diff_names_what_stands_against_the_commit() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    dir.write("dist/foreign", "mine");
    dir.write("next/a", "a");
    dir.write("next/foreign", "theirs");
    let blocked = dir
        .txfs(["diff", "dist", "next", "--exit-code"])
        .expect(8)
        .says("problem: entries that txfs did not publish are in the way: foreign");
    assert_eq!(blocked.out, "A foreign\n");
    let objects = dir.txfs(["diff", "dist", "next", "--json"]).json();
    assert!(objects.iter().any(|object| object["problem"] == "foreign" && object["paths"][0] == "foreign"));
    dir.txfs(["publish", "dist", "next"]).expect(4).says("--adopt");
    dir.txfs(["publish", "dist", "next", "--adopt"]).expect(0);
    dir.write("dist/foreign", "edited");
    dir.write("next/foreign", "built anew");
    let blocked = dir.txfs(["diff", "dist", "next", "--exit-code"]).expect(8).says("changed by somebody else: foreign");
    assert_eq!(blocked.out, "M foreign\n");
    fs::create_dir(dir.at("dist/directory")).unwrap();
    dir.write("next/directory", "a file");
    let directory = "in the way, and cannot be taken over: directory";
    dir.txfs(["publish", "dist", "next"]).expect(4).says(directory).says("move away what cannot be taken over");
    fs::remove_file(dir.at("next/directory")).unwrap();
    let summary = dir.txfs(["diff", "dist", "next", "--json"]).json().pop().unwrap();
    assert_eq!((&summary["modified"], &summary["unchanged"]), (&1.into(), &1.into()));
}

#[test]
fn state_directories_are_left_out_of_a_copy_with_a_warning_and_diff_agrees() {
    let dir = Scratch::new();
    dir.write("src/other/a", "a");
    fs::create_dir(dir.at("src/inner")).unwrap();
    dir.txfs(["publish", "src/inner/out", "src/other"]).expect(0);
    for path in ["src/.txfs/notes", "src/sub/.txfs/content", "src/.content.txfs", "src/a"] {
        dir.write(path, "content");
    }
    let added = [".content.txfs", "a", "inner", "inner/out", "inner/out/a", "other", "other/a"];
    let added = [&added[..], &["sub", "sub/.txfs", "sub/.txfs/content"]].concat();
    let warnings = "warning: src/.txfs is left out: the name is that of a state directory of txfs\n\
                    warning: src/inner/.out.txfs is left out: the name is that of a state directory of txfs\n";
    let sorted = |text: &str| text.lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    dir.begin(&[]);
    let diff = dir.txfs(["diff", "dist", "src"]).expect(0);
    assert_eq!(sorted(&diff.err), sorted(warnings), "and no problem");
    assert_eq!(diff.out.lines().map(|line| line.strip_prefix("A ").unwrap()).collect::<Vec<_>>(), added);
    let published = dir.txfs(["-q", "publish", "dist", "src"]).expect(0);
    assert_eq!(sorted(&published.err), sorted(warnings));
    assert_eq!(dir.txfs(["diff", "dist", "src"]).expect(0).out, "");
    assert!(dir.at("dist/sub/.txfs/content").exists() && !dir.at("dist/.txfs").exists());
    assert!(dir.at("dist/inner/out/a").exists() && !dir.at("dist/inner/.out.txfs").exists());

    fs::remove_dir_all(dir.at("src/.txfs")).unwrap();
    dir.write("src/.txfs", "no directory");
    dir.txfs(["diff", "dist", "src"]).expect(0).says("problem: state directories of txfs in the stage: .txfs");
    dir.txfs(["publish", "dist", "src"]).expect(5).says(".txfs");
}

#[test]
fn diff_knows_which_set_id_bits_publish_drops() {
    if !txfs_testing::is_root() {
        return txfs_testing::skip("set-id bits", "giving a file to another user needs root");
    }
    let dir = Scratch::new();
    for (name, owner, group) in [("mine", 0, 0), ("user", 54_321, 0), ("group", 0, 54_321)] {
        dir.write(&format!("src/{name}"), name);
        std::os::unix::fs::chown(dir.at("src").join(name), Some(owner), Some(group)).unwrap();
        fs::set_permissions(dir.at("src").join(name), fs::Permissions::from_mode(0o6755)).unwrap();
    }
    let dropped = "warning: set-id bits of 2 files with another owner or group are not published: group, user\n";
    for args in [&["publish", "dist", "src", "--dry-run"][..], &["publish", "dist", "src"]] {
        dir.txfs(args).expect(0).says(dropped);
    }
    dir.txfs(["diff", "--exit-code", "dist", "src"]).expect(0);
    assert_eq!(fs::metadata(dir.at("dist/mine")).unwrap().permissions().mode() & 0o7777, 0o6755);
}

#[test]
fn what_cannot_be_published_is_refused_by_whatever_would_publish_it() {
    let dir = Scratch::new();
    dir.write("src/a", "a");
    assert!(Command::new("mkfifo").arg(dir.at("src/pipe")).status().unwrap().success());
    for options in [&[][..], &["--dry-run"], &["--checksum"]] {
        let refused = dir.txfs([&["publish", "dist", "src"], options].concat()).expect(5);
        refused.says("dist: neither file, directory nor symlink: pipe").says("hint: remove them from SRC");
    }
    dir.run(&[], "mkfifo {stage}/pipe").expect(5).says("dist: neither file, directory nor symlink: pipe");
    assert_eq!((dir.at("dist").exists(), dir.transactions()), (false, 0));
}

#[test]
fn a_change_that_clients_do_not_notice_is_told_and_touch_makes_them_notice() {
    let dir = Scratch::new();
    let clamp = |content: &str| {
        ["a", "b"].iter().for_each(|name| dir.write(&format!("src/{name}"), content));
        for name in ["a", "b"] {
            let file = fs::File::options().write(true).open(dir.at("src").join(name)).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
    };
    let time = |name: &str| fs::metadata(dir.at("dist").join(name)).unwrap().modified().unwrap();
    clamp("v=1");
    assert!(!dir.txfs(["publish", "dist", "src"]).expect(0).err.contains("warning"));
    clamp("v=2");
    let told = "warning: 2 files have other content, and size and time of before";
    dir.txfs(["publish", "dist", "src", "--dry-run"])
        .expect(0)
        .says(told)
        .says("do not notice the change: a, b\n")
        .says("hint: --touch gives");
    dir.txfs(["publish", "dist", "src"]).expect(0).says(told).says("published generation 2");
    assert_eq!((dir.read("dist/a"), time("a")), ("v=2".into(), std::time::SystemTime::UNIX_EPOCH));
    clamp("v=3");
    let published = dir.txfs(["publish", "dist", "src", "--touch"]).expect(0).says("published generation 3");
    assert!(!published.err.contains("warning"), "{}", published.err);
    let third = time("a");
    assert!(third > std::time::SystemTime::UNIX_EPOCH);
    // What has another time than its source is not published again for that.
    dir.txfs(["publish", "dist", "src"]).expect(0).says("dist is unchanged: generation 3");
    dir.txfs(["rollback", "dist", "--touch"]).expect(0);
    assert_eq!(dir.read("dist/a"), "v=2");
    assert!(time("a") > third);
}
