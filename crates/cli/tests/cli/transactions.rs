//! `begin`, `commit`, `abort` and `rollback`: what is printed, and what a user may call a transaction.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Ended, Scratch, end, wait_for};

#[test]
fn begin_prints_the_stage_alone_and_commit_the_generation() {
    let dir = Scratch::new();
    let begun = dir.txfs(["begin", "dist"]).expect(0);
    assert_eq!((begun.out.lines().count(), begun.err.as_str()), (1, ""));
    let stage = PathBuf::from(begun.out.trim_end());
    assert!(stage.is_absolute() && stage.is_dir());
    fs::write(stage.join("index.html"), "one").unwrap();
    assert!(!dir.at("dist").exists(), "G2");
    let committed = dir.txfs([OsStr::new("commit"), stage.as_os_str()]).expect(0);
    assert_eq!(committed.out, "1\n");
    assert_eq!(committed.err, "published generation 1 of dist: 1 path added\n");
    assert_eq!(dir.read("dist/index.html"), "one");
    dir.txfs([OsStr::new("commit"), stage.as_os_str()]).expect(2).says("no such transaction");
}

#[test]
fn a_commit_without_changes_says_so_and_keeps_the_number() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    let again = dir.txfs(["publish", "dist", "src"]).expect(0);
    assert_eq!((again.out.as_str(), again.err.as_str()), ("1\n", "dist is unchanged: generation 1\n"));
    assert_eq!(dir.txfs(["-q", "publish", "dist", "src"]).expect(0).err, "");
}

#[test]
fn a_message_that_is_not_kept_is_said_to_be_dropped() {
    let dir = Scratch::new();
    dir.publish(&[("a", "1")]);
    dir.txfs(["publish", "dist", "src", "-m", "a\nb"]).expect(0).says("the message `a\\nb` is not kept");
    dir.run(&["-q", "--message", "two"], "echo -n 1 > {stage}/a").expect(0).says("the message `two` is not kept");
    let stage = dir.begin(&[]);
    dir.write("src/a", "1");
    fs::copy(dir.at("src/a"), stage.join("a")).unwrap();
    let said = dir.txfs([OsStr::new("commit"), stage.as_os_str(), OsStr::new("-mthree")]).expect(0);
    said.says("the message `three` is not kept");
    assert!(!dir.txfs(["publish", "dist", "src"]).expect(0).err.contains("message"));
    dir.write("src/a", "2");
    assert!(!dir.txfs(["publish", "dist", "src", "-m", "kept"]).expect(0).err.contains("is not kept"));
    assert!(dir.txfs(["status", "dist"]).expect(0).out.contains("kept"));
}

#[test]
fn the_output_names_its_only_transaction() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    dir.txfs(["commit", "dist"]).expect(2).says("no open transaction");
    let stage = dir.begin(&[]);
    fs::write(stage.join("b"), "b").unwrap();
    let other = dir.begin(&[]);
    let refused = dir.txfs(["commit", "dist"]).expect(2).says("2 open transactions");
    let others: Vec<PathBuf> = (0..5).map(|_| dir.begin(&[])).collect();
    let many = dir.txfs(["commit", "dist"]).expect(2).says("7 open transactions").says(" and 2 more");
    assert_eq!(many.err.matches("/stage").count(), 5, "{}", many.err);
    many.says("`txfs status dist` lists them, `txfs abort --all dist` discards them");
    others.iter().for_each(|stage| drop(dir.txfs([OsStr::new("abort"), stage.as_os_str()]).expect(0)));
    assert!(
        [&stage, &other]
            .iter()
            .all(|stage| refused.err.contains(stage.parent().unwrap().file_name().unwrap().to_str().unwrap()))
    );
    dir.txfs([OsStr::new("abort"), other.as_os_str()]).expect(0).says("dist is unchanged");
    assert_eq!(dir.txfs(["commit", "dist"]).expect(0).out, "2\n");
}

#[test]
fn a_stage_is_a_handle_by_whatever_path() {
    let dir = Scratch::new();
    let stage = dir.begin(&[]);
    fs::create_dir(stage.join("below")).unwrap();
    fs::write(stage.join("a"), "a").unwrap();
    std::os::unix::fs::symlink(&stage, dir.at("link")).unwrap();
    let within = |from: &Path, args: &[&str]| Ended::from(dir.command(args).current_dir(from).output().unwrap());
    let output = dir.at("dist");
    let output = output.to_str().unwrap();
    within(&stage, &["diff", "--exit-code", output, "."]).expect(8);
    within(&stage, &["commit", "--dry-run", "."]).expect(0);
    within(&stage.join("below"), &["commit", "--dry-run", ".."]).expect(0);
    for (from, handle) in [(&stage, "below"), (&stage.join("below"), "."), (&dir.at(""), "link/a")] {
        let refused = within(from, &["commit", handle]).expect(2);
        refused.says(&format!("{handle}: that is inside a stage: the handle is ")).says("/stage\n");
    }
    within(&dir.at(""), &["commit", "link"]).expect(0);
    let stage = dir.begin(&["--from", "current"]);
    fs::write(stage.join("b"), "b").unwrap();
    assert_eq!(within(&stage, &["diff", output, "."]).expect(0).out, "A b\n", "a change, not a whole generation");
    within(&stage, &["abort", "."]).expect(0);
    assert_eq!(dir.transactions(), 0);
}

#[test]
fn a_stage_is_no_output() {
    let dir = Scratch::new();
    let stage = dir.begin(&[]);
    for command in ["status", "verify", "diff", "journal", "recover", "begin"] {
        let refused = dir.txfs([OsStr::new(command), stage.as_os_str()]).expect(2);
        let refused =
            refused.says("is not an output: it is the stage of a transaction on dist").says("use dist instead");
        assert_eq!(refused.out, "", "{command}");
        let refused = Ended::from(dir.command([command, "."]).current_dir(&stage).output().unwrap());
        refused.expect(2).says("is not an output");
    }
    assert_eq!(dir.transactions(), 1);
}

#[test]
fn nothing_is_shortened_below_the_root() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    let output = dir.at("dist");
    let verified = dir.command([OsStr::new("verify"), output.as_os_str()]).current_dir("/").output().unwrap();
    let expected = format!("{} is as published: generation 1\n", output.display());
    assert_eq!(Ended::from(verified).expect(0).err, expected);
}

#[test]
fn rollback_publishes_the_generation_before() {
    let scratch = Scratch::new();
    scratch.txfs(["rollback", "dist"]).expect(2).says("nothing has been published to dist by txfs");
    scratch.publish(&[("index.html", "one"), ("stale.css", "one")]);
    scratch.txfs(["rollback", "dist"]).expect(2).says("there is no generation to go back to");
    scratch.publish(&[("index.html", "two"), ("a", "two"), ("b", "two"), ("c", "two"), ("d", "two")]);

    let shown = scratch.txfs(["rollback", "dist", "--dry-run"]).expect(0);
    assert_eq!(shown.out, "D a\nD b\nD c\nD d\nM index.html\nA stale.css\n");
    assert_eq!((scratch.read("dist/index.html"), scratch.transactions()), ("two".to_owned(), 0));

    // Most of the files go: they have not been there before.
    let gone_back = scratch.txfs(["rollback", "dist"]).expect(0);
    assert_eq!(gone_back.out, "3\n");
    assert_eq!((scratch.read("dist/index.html"), scratch.read("dist/stale.css")), ("one".to_owned(), "one".to_owned()));
    scratch.txfs(["verify", "dist"]).expect(0);
    let status = scratch.txfs(["status", "dist"]).expect(0);
    assert!(status.out.contains("rollback to generation 1"), "{}", status.out);

    fs::write(scratch.at("dist/index.html"), "edited").unwrap();
    scratch.txfs(["rollback", "dist"]).expect(4).says("published entries were changed by somebody else: index.html");
    assert_eq!(scratch.transactions(), 0);
    scratch.txfs(["rollback", "dist", "--allow-drift", "-m", "forward"]).expect(0);
    assert_eq!((scratch.read("dist/index.html"), scratch.read("dist/d")), ("two".to_owned(), "two".to_owned()));
}

#[test]
fn abort_discards_the_stage() {
    let dir = Scratch::new();
    let stage = dir.begin(&[]);
    let aborted = dir.txfs(["abort", "dist", "--json"]).expect(0).json();
    assert_eq!(aborted[0]["output"], dir.at("dist").to_str().unwrap());
    assert!(!stage.exists() && !dir.at("dist").exists());
}

#[test]
fn abort_all_discards_what_no_process_is_at_work_on() {
    let dir = Scratch::new();
    dir.txfs(["abort", "--all", "dist"]).expect(0).says("nothing has been published to dist by txfs");
    dir.publish(&[("a", "a")]);
    let none = dir.txfs(["abort", "--all", "dist"]).expect(0).says("dist has no open transaction");
    assert_eq!(none.out, "");
    let script = "touch ready; until test -e go || ! test -e ready; do sleep 0.01; done";
    let child = dir.start(["run", "dist", "--stage", "--", "sh", "-c", script]);
    wait_for("the command", || dir.at("ready").exists());
    let mut stages = [dir.begin(&[]), dir.begin(&["--from", "current"])];
    stages.sort();
    let aborted =
        dir.txfs(["abort", "--all", "dist"]).expect(0).says("/stage is left: another process is at work on it");
    assert_eq!(aborted.out.lines().map(PathBuf::from).collect::<Vec<_>>(), stages);
    assert_eq!(dir.transactions(), 1);
    let stages = [dir.begin(&[]), dir.begin(&[])];
    let objects = dir.txfs(["abort", "dist", "--all", "--json"]).expect(0).json();
    assert!(objects.iter().all(|object| object["output"] == dir.at("dist").to_str().unwrap()));
    // The one that is left, two that are discarded, and the result.
    assert_eq!((objects.len(), dir.transactions()), (4, 1));
    assert!(stages.iter().all(|stage| {
        let is_it = |object: &&Value| object["stage"] == *stage.to_str().unwrap();
        let object = objects.iter().find(is_it).unwrap();
        let id = object["transaction"].as_str().unwrap();
        object["aborted"] == true && objects[3]["discarded"].as_array().unwrap().iter().any(|discarded| discarded == id)
    }));
    assert_eq!(objects.iter().filter(|object| object["aborted"] == false).count(), 1);
    let [one, other] = [dir.begin(&[]), dir.begin(&[])];
    dir.txfs([OsStr::new("abort"), OsStr::new("--all"), one.as_os_str()]).expect(2).says("is not an output");
    assert!(one.exists() && other.exists());
    dir.write("go", "");
    end(child).expect(5);
    assert_eq!(dir.read("dist/a"), "a");
}

#[test]
fn abort_all_of_nothing_is_no_error() {
    let dir = Scratch::new();
    dir.txfs(["abort", "--all", "dist"]).expect(0).says("nothing has been published to dist by txfs");
    assert_eq!(fs::read_dir(dir.at("")).unwrap().count(), 0);
    dir.publish(&[("a", "1")]);
    dir.txfs(["abort", "--all", "dist"]).expect(0).says("dist has no open transaction");
    dir.txfs(["abort", "dist"]).expect(2);
    dir.txfs(["abort", "none"]).expect(2);
}

#[test]
fn a_refused_commit_leaves_the_transaction_open_and_says_how_to_go_on() {
    let dir = Scratch::new();
    let stage = dir.begin(&[]);
    let refused = dir.txfs(["commit", "dist"]).expect(5).says("the stage has no file in it").says("--allow-empty");
    assert!(refused.err.contains("txfs abort") && refused.out.is_empty());
    fs::write(stage.join("a"), "a").unwrap();
    dir.txfs(["commit", "dist"]).expect(0);
}

#[test]
fn a_change_keeps_what_it_does_not_name() {
    let dir = Scratch::new();
    dir.publish(&[("keep", "k"), ("old/x", "x"), ("old/y", "y")]);
    let stage = dir.begin(&["--from", "current"]);
    fs::write(stage.join("new"), "n").unwrap();
    let dry = dir.txfs(["commit", "dist", "--remove", "old/x", "--dry-run"]).expect(0);
    assert_eq!(dry.out, "A new\nD old/x\n");
    assert_eq!(dir.txfs(["diff", "dist"]).expect(0).out, "A new\n");
    dir.txfs(["commit", "dist", "--remove", "new"]).expect(2).says("it is in the stage");
    dir.txfs(["commit", "dist", "--remove", "../x"]).expect(2);
    dir.txfs(["commit", "dist", "--remove", "."]).expect(2).says("that is all of the output");
    let committed = dir.txfs(["commit", "dist", "--remove", "./old/", "--remove", "nothing"]).expect(0);
    committed.says("--remove nothing: nothing was published there");
    assert_eq!(dir.read("dist/keep"), "k");
    assert!(dir.at("dist/new").exists() && !dir.at("dist/old").exists());
    dir.begin(&[]);
    dir.txfs(["commit", "dist", "--remove", "keep"]).expect(2).says("whole new generation");
}

#[test]
fn a_copy_begins_with_what_is_published() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a"), ("b", "b")]);
    let stage = dir.begin(&["--from", "copy"]);
    assert_eq!(fs::read_to_string(stage.join("a")).unwrap(), "a");
    fs::remove_file(stage.join("b")).unwrap();
    assert_eq!(dir.txfs(["diff", "dist"]).expect(0).out, "D b\n");
}

#[test]
fn a_change_that_was_overtaken_is_to_be_made_again() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    let stage = dir.begin(&["--from", "current"]);
    let slow = "echo b > {stage}/b; touch ready; until test -e go || ! test -e ready; do sleep 0.01; done";
    let child = dir.start(["run", "dist", "--from", "current", "--", "sh", "-c", slow]);
    wait_for("the command", || dir.at("ready").exists());
    dir.publish(&[("a", "new")]);
    dir.write("go", "");
    end(child).expect(4).says("run the same command again").says("txfs abort");
    fs::write(stage.join("c"), "c").unwrap();
    dir.txfs([OsStr::new("commit"), stage.as_os_str()])
        .expect(4)
        .says("`txfs begin dist --from current` begins it again");
}

#[test]
fn what_a_lost_state_had_published_can_be_taken_over() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    fs::remove_dir_all(dir.at(".dist.txfs")).unwrap();
    dir.write("src/a", "new");
    let lost = "its state directory was deleted since, --adopt takes them over";
    dir.txfs(["publish", "dist", "src"]).expect(4).says(lost);
    dir.run(&["--dry-run"], "echo > {stage}/a").expect(4).says(lost);
    dir.txfs(["publish", "dist", "src", "--adopt"]).expect(0);
    dir.write("dist/b", "mine");
    dir.write("src/b", "theirs");
    let refused = dir.txfs(["publish", "dist", "src"]).expect(4).says("--adopt");
    assert!(!refused.err.contains("state directory"), "{}", refused.err);
}

/// Nothing in a stage tells of them.
#[test]
fn who_is_told_to_commit_again_is_told_what_to_remove() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a"), ("b", "b"), ("it's", "c")]);
    dir.write("dist/theirs", "theirs");
    let removals = ["--from", "current", "--remove", "b", "--remove", "it's"];
    let refused = dir.run(&removals, "echo new > {stage}/theirs").expect(4);
    let again = refused.err.split_once("`txfs commit ").unwrap().1.split_once('`').unwrap().0.to_owned();
    let shell = |options: &str| {
        let mut shell = Command::new("sh");
        let line = format!("{} commit {again}{options}", env!("CARGO_BIN_EXE_txfs"));
        Ended::from(shell.arg("-c").arg(line).current_dir(dir.at("")).output().unwrap())
    };
    shell("").expect(4).says(&format!("`txfs commit {again}` tries again"));
    shell(" --adopt").expect(0);
    assert!(dir.at("dist/a").exists() && !dir.at("dist/b").exists() && !dir.at("dist/it's").exists());
}

#[test]
fn begin_prints_a_stage_of_any_bytes_as_it_is() {
    let dir = Scratch::new();
    let name = OsString::from_vec(b"out\xff".to_vec());
    let output = dir.command([OsStr::new("begin"), &name]).output().unwrap();
    assert!(output.status.success());
    let stage = Path::new(OsStr::from_bytes(output.stdout.strip_suffix(b"\n").unwrap()));
    fs::write(stage.join("a"), "a").unwrap();
    dir.txfs([OsStr::new("commit"), stage.as_os_str()]).expect(0);
    assert!(dir.0.path().join(&name).join("a").exists());
}
