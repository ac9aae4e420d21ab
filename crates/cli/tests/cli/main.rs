//! What the command `txfs` does, seen through the binary.
#![allow(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use txfs_testing as common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::faulty::{Call, Faulty};
use fs2::FileExt;
use nix::errno::Errno;
use serde_json::Value;
use tempfile::TempDir;
use txfs::{OpenOptions, Outcome, Store};

/// A directory to work in, with the output `dist`.
struct Scratch(TempDir);

/// How a command ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, path: &str) -> String {
        let path = self.at(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_txfs"));
        command.args(args).current_dir(self.0.path()).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    fn txfs<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        Ended::from(self.command(args).output().unwrap())
    }

    fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// `txfs run dist ARGS -- sh -c SCRIPT`.
    fn run(&self, args: &[&str], script: &str) -> Ended {
        self.txfs([&["run", "dist"], args, &["--", "sh", "-c", script]].concat())
    }

    fn begin(&self, args: &[&str]) -> PathBuf {
        let begun = self.txfs([&["begin", "dist"], args].concat()).expect(0);
        PathBuf::from(begun.out.strip_suffix('\n').unwrap())
    }

    /// Publishes exactly these files.
    fn publish(&self, files: &[(&str, &str)]) {
        let _ = fs::remove_dir_all(self.at("src"));
        files.iter().for_each(|(path, content)| self.write(&format!("src/{path}"), content));
        self.txfs(["publish", "dist", "src", "--max-removed", "100"]).expect(0);
    }

    fn transactions(&self) -> usize {
        fs::read_dir(self.at(".dist.txfs/tx")).map_or(0, Iterator::count)
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "`{text}` is not in: {}", self.err);
        self
    }

    #[track_caller]
    fn says_nothing(self) -> Self {
        assert_eq!(self.err, "");
        self
    }

    /// Every line as JSON.
    #[track_caller]
    fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        let objects: Vec<Value> = self.out.lines().map(parse).collect();
        assert!(objects.iter().all(|object| object["v"] == 1), "{}", self.out);
        objects
    }
}

#[track_caller]
fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// Whether this process, and so every child of it, ignores the signal.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (signal - 1)) != 0
}

/// Of a command that has to end now, and that writes little.
#[track_caller]
fn end(mut child: Child) -> Ended {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("waited in vain for its end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ended::from(child.wait_with_output().unwrap())
}

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
fn run_publishes_what_its_command_wrote() {
    let dir = Scratch::new();
    let ran = dir.run(
        &["-m", "first"],
        "echo out; echo one > {stage}/a; echo two > $TXFS_STAGE/b; echo $TXFS_OUTPUT > {stage}/c",
    );
    let ran = ran.expect(0).says("published generation 1 of dist: 3 paths added");
    assert_eq!(ran.out, "out\n", "stdout is the command's");
    assert_eq!((dir.read("dist/a").as_str(), dir.read("dist/b").as_str()), ("one\n", "two\n"));
    assert_eq!(dir.read("dist/c").trim_end(), dir.at("dist").to_str().unwrap());
    let ran = dir.run(&["--json", "--max-removed", "70"], "printf talk; echo two > {stage}/a").expect(0).says("talk");
    let ran = ran.json();
    assert_eq!(
        (ran.len(), &ran[0]["generation"], &ran[0]["modified"], &ran[0]["removed"]),
        (1, &2.into(), &1.into(), &2.into())
    );
    assert_eq!(ran[0]["changed"], true);
}

#[test]
fn run_passes_the_status_of_a_failing_command_through() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    dir.run(&[], "echo broken > {stage}/a; exit 42")
        .expect(42)
        .says("exited with status 42: txfs changed nothing in dist");
    dir.run(&[], "kill -9 $$").expect(137).says("killed by signal 9");
    dir.txfs(["run", "dist", "--", "no-such-command"]).expect(127).says("txfs changed nothing in dist");
    dir.txfs(["run", "dist", "--", "./src/a"]).expect(126).says("txfs changed nothing in dist");
    assert_eq!((dir.read("dist/a").as_str(), dir.transactions()), ("a", 0));
    for code in [1, 2, 3, 125] {
        let failed = dir.run(&["--json"], &format!("exit {code}")).expect(code);
        assert_eq!((&failed.json()[0]["code"], &failed.json()[0]["error"]), (&code.into(), &"command".into()));
    }
    dir.txfs(["run", "dist", "--", "false"]).expect(1).says("`false` exited with status 1");
}

#[test]
fn failures_of_run_itself_are_told_from_those_of_its_command() {
    let dir = Scratch::new();
    dir.txfs(["run", "none/dist", "--", "true"]).expect(125);
    let refused = dir.run(&["--remove", "x", "--json"], "echo > {stage}/x").expect(125);
    assert_eq!((&refused.json()[0]["code"], &refused.json()[0]["error"]), (&125.into(), &"usage".into()));
    dir.run(&[], "true").expect(5).says("the stage was discarded");
    for args in [&["dist", "true"][..], &["--max-removed", "101", "dist", "--", "true"], &["--explode", "dist"]] {
        dir.txfs([&["run"], args].concat()).expect(125).says("error: ");
    }
    let message = [OsStr::new("run"), OsStr::new("-m"), OsStr::from_bytes(b"\xff"), OsStr::new("dist")];
    dir.txfs(message).expect(125).says("error: invalid UTF-8");
    assert_eq!(dir.transactions(), 0);
}

#[test]
fn a_run_whose_command_wrote_nothing_says_where_to_write() {
    let dir = Scratch::new();
    let unaware =
        dir.txfs(["run", "dist", "--stage", "--", "true"]).expect(5).says("--allow-empty").says("$TXFS_STAGE");
    assert!(
        unaware.err.contains("hint: no argument contains {stage}, and the command wrote no file"),
        "{}",
        unaware.err
    );
    let told =
        dir.txfs(["run", "dist", "--", "ls", "{stage}"]).expect(5).says("the command wrote no file to its stage");
    assert!(told.err.contains("--allow-empty") && !told.err.contains("no argument"), "{}", told.err);
    assert_eq!(told.err.matches("--allow-empty").count(), 1, "{}", told.err);
    dir.txfs(["run", "dist", "--allow-empty", "--", "true"]).expect(0);
}

#[test]
fn the_way_out_of_a_refused_run_does_not_need_the_stage_that_is_gone() {
    let dir = Scratch::new();
    for (script, way_out) in [
        ("mkfifo {stage}/x", "have the command not make them"),
        ("mkdir {stage}/.txfs; echo > {stage}/.txfs/a", "leave them out"),
        ("echo > {stage}/a; echo > {stage}/A", "have the command rename one of each"),
    ] {
        let refused = dir.run(&[], &format!("echo > {{stage}}/b; {script}")).expect(5).says(way_out);
        let hints: Vec<_> = refused.err.lines().filter(|line| line.starts_with("hint: ")).collect();
        assert_eq!(hints.len(), 2, "{hints:?}");
        assert_eq!(hints[1], "hint: the stage was discarded: txfs changed nothing in dist");
        assert!(!hints[0].contains("from the stage"), "{hints:?}");
    }
    assert_eq!(dir.transactions(), 0);
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

#[test]
fn a_signal_reaches_the_command_and_nothing_is_committed() {
    for (name, status) in [("-TERM", 143), ("-INT", 130), ("-HUP", 129), ("-QUIT", 131)] {
        if is_ignored(status - 128) {
            println!("{name} is ignored here, as in a background job: not tried");
            continue;
        }
        let dir = Scratch::new();
        let trapped = &name[1..];
        let script = format!(
            "trap 'echo caught; touch {{stage}}/x; exit 0' {trapped}; touch ready; for i in $(seq 2000); do sleep 0.01; done"
        );
        let child = dir.start(["run", "dist", "--", "sh", "-c", &script]);
        wait_for("the command", || dir.at("ready").exists());
        signal(&child, name);
        let ended = end(child).expect(status).says("txfs changed nothing in dist");
        assert_eq!((ended.out.as_str(), dir.at("dist").exists(), dir.transactions()), ("caught\n", false, 0));
    }
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
fn a_signal_reaches_the_check_and_nothing_is_committed() {
    let tidy = "trap 'touch caught; exit 0' TERM; touch ready; for i in $(seq 2000); do sleep 0.01; done";
    let slow = "touch ready; exec sleep 20";
    for (check, dry_run) in [(tidy, false), (slow, false), (slow, true)] {
        let check = check.replace("ready", "$TXFS_OUTPUT/../ready").replace("caught", "$TXFS_OUTPUT/../caught");
        let mut options = vec!["--check", &check, "--check", "touch $TXFS_OUTPUT/../next"];
        options.extend(dry_run.then_some("--dry-run"));
        let dir = Scratch::new();
        dir.publish(&[("a", "a")]);
        dir.write("src/a", "new");
        let stage = dir.begin(&[]);
        fs::write(stage.join("a"), "new").unwrap();
        for command in [&["run", "dist"][..], &["publish", "dist", "src"], &["commit", stage.to_str().unwrap()]] {
            let mut args = [command, &options].concat();
            if command[0] == "run" {
                args.extend(["--", "sh", "-c", "echo new > {stage}/a"]);
            }
            let _ = fs::remove_file(dir.at("ready"));
            let child = dir.start(&args);
            wait_for("the check", || dir.at("ready").exists());
            signal(&child, "-TERM");
            let ended = end(child).expect(143).says("error: stopped by signal 15: nothing was changed");
            assert_eq!(ended.err.contains("the transaction stays open"), command[0] == "commit", "{}", ended.err);
            assert_eq!((ended.out.as_str(), dir.read("dist/a").as_str(), dir.transactions()), ("", "a", 1), "{args:?}");
        }
        assert_eq!(dir.at("caught").exists(), check.contains("trap"), "the check can tidy up");
        assert!(!dir.at("next").exists(), "no other check begins");
    }
}

/// `args`, under strace, which sends a signal at the `nth` rename.
fn signalled_at_rename(dir: &Scratch, signal: &str, nth: usize, args: &[&str]) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "renames", "-e", "trace=renameat2,renameat"]);
    strace.args(["-e", &format!("inject=renameat2,renameat:signal={signal}:when={nth}")]);
    strace.arg(env!("CARGO_BIN_EXE_txfs")).args(args).current_dir(dir.at("")).stdin(Stdio::null());
    strace
}

#[test]
fn a_commit_that_has_begun_runs_to_its_end_whatever_signal_arrives() {
    if Command::new("strace").arg("-V").output().is_err() {
        return common::skip("a signal in the middle of a commit", "there is no strace");
    }
    let fill = |dir: &Scratch, at: &str, content: &str| {
        ["a", "b", "c", "d"].iter().for_each(|name| dir.write(&format!("{at}/{name}"), content));
    };
    for command in ["publish", "commit", "rollback", "run"] {
        let (mut stopped, mut committed) = (0, 0);
        for nth in 1.. {
            let dir = Scratch::new();
            ["first", "old"].iter().for_each(|content| {
                fill(&dir, "src", content);
                dir.txfs(["publish", "dist", "src"]).expect(0);
            });
            fill(&dir, "src", "new");
            let args = match command {
                "publish" => vec!["publish", "dist", "src"],
                "commit" => {
                    fs::rename(dir.at("src"), dir.begin(&[])).unwrap();
                    vec!["commit", "dist"]
                }
                "rollback" => vec!["rollback", "dist"],
                _ => vec!["run", "dist", "--", "sh", "-c", "cp src/* {stage}"],
            };
            let ended = Ended::from(signalled_at_rename(&dir, "TERM", nth, &args).output().unwrap());
            let content: Vec<_> = ["a", "b", "c", "d"].map(|name| dir.read(&format!("dist/{name}"))).into();
            let old = content.iter().all(|content| content == "old");
            assert!(old || content.iter().all(|each| *each == content[0]), "{command}, {nth}: {content:?}");
            if !dir.read("renames").contains("SIGTERM") {
                break;
            }
            if old {
                let ended = ended.expect(143).says("error: stopped by signal 15: nothing was changed");
                assert_eq!(ended.err.contains("the transaction stays open"), command == "commit", "{}", ended.err);
                assert_eq!(dir.transactions(), usize::from(command == "commit"), "{command}, {nth}");
                stopped += 1;
            } else {
                ended.expect(0).says("published generation 3");
                committed += 1;
            }
        }
        println!("{command}: stopped {stopped} times, committed {committed} times");
        assert!(committed > 3, "{command}");
    }
}

#[test]
fn recovery_that_has_begun_runs_to_its_end_whatever_signal_arrives() {
    if Command::new("strace").arg("-V").output().is_err() {
        return common::skip("a signal in the middle of a recovery", "there is no strace");
    }
    for (command, status) in [("status", 143), ("verify", 143), ("recover", 0)] {
        let mut signalled = 0;
        for nth in 1.. {
            let dir = Scratch::new();
            dir.publish(&[("a", "old"), ("b", "old"), ("c", "old")]);
            ["a", "b", "c"].iter().for_each(|name| dir.write(&format!("src/{name}"), "new"));
            let killed = signalled_at_rename(&dir, "KILL", 3, &["publish", "dist", "src"]).output().unwrap();
            assert!(!killed.status.success());
            let ended = Ended::from(signalled_at_rename(&dir, "TERM", nth, &[command, "dist"]).output().unwrap());
            let content = ["a", "b", "c"].map(|name| dir.read(&format!("dist/{name}")));
            if !dir.read("renames").contains("SIGTERM") {
                break;
            }
            assert_eq!(content, ["new", "new", "new"], "{command}, {nth}");
            ended.expect(status).says("finished the interrupted commit of generation 2");
            signalled += 1;
        }
        assert!(signalled > 1, "{command}");
    }
}

#[test]
fn whoever_waits_for_a_lock_is_stopped_by_a_signal() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    dir.write("src/a", "new");
    let stage = dir.begin(&[]);
    let lock = fs::File::open(dir.at(".dist.txfs/lock")).unwrap();
    FileExt::lock_exclusive(&lock).unwrap();
    let stage = stage.to_str().unwrap();
    let commands =
        [&["publish", "dist", "src"][..], &["begin", "dist"], &["commit", stage], &["run", "dist", "--", "true"]];
    for args in commands {
        let child = dir.start([&["--lock-timeout", "600"], args].concat());
        std::thread::sleep(Duration::from_millis(200));
        signal(&child, "-TERM");
        end(child).expect(143).says("error: stopped by signal 15: nothing was changed");
    }
    drop(lock);
    assert_eq!((dir.read("dist/a").as_str(), dir.transactions()), ("a", 1));
}

#[test]
fn a_file_larger_than_allowed_is_an_error_with_its_path() {
    let dir = Scratch::new();
    dir.write("src/big", &"x".repeat(200_000));
    let limited = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -f 100; {script}"), env!("CARGO_BIN_EXE_txfs")]);
        Ended::from(shell.current_dir(dir.at("")).output().unwrap())
    };
    limited("exec \"$0\" publish dist src").expect(1).says("/big: File too large");
    assert!(!dir.at("dist").exists());
    let of_command = "exec \"$0\" run dist -- sh -c 'exec head -c 200000 /dev/zero > {stage}/big'";
    limited(of_command).expect(128 + 25).says("killed by signal 25");
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let dir = Scratch::new();
    let script = "trap '' HUP; exec \"$0\" run dist -- sh -c 'touch ready; until test -e go || ! test -e ready; do sleep 0.01; done; echo > {stage}/x'";
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_txfs")]).current_dir(dir.0.path());
    let child = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("the command", || dir.at("ready").exists());
    signal(&child, "-HUP");
    dir.write("go", "");
    end(child).expect(0).says("published generation 1");
}

#[test]
fn overlapping_runs_conflict_and_the_second_stage_is_kept() {
    let dir = Scratch::new();
    let slow = "echo slow > {stage}/a; touch ready; until test -e go || ! test -e ready; do sleep 0.01; done";
    let child = dir.start(["run", "dist", "--", "sh", "-c", slow]);
    wait_for("the command", || dir.at("ready").exists());
    let status = dir.txfs(["status", "dist", "--json"]).expect(0).json();
    assert_eq!(status[0]["transactions"][0]["live"], true);
    dir.txfs(["commit", "dist"]).expect(2).says("no open transaction except 1 transaction in use by other processes");
    dir.run(&[], "echo fast > {stage}/a").expect(0);
    dir.write("go", "");
    let ended = end(child).expect(4).says("generation 1 was committed since").says("txfs abort");
    assert_eq!(dir.read("dist/a"), "fast\n");
    let status = dir.txfs(["status", "dist", "--json"]).expect(0).json();
    let open = &status[0]["transactions"][0];
    let stage = PathBuf::from(open["stage"].as_str().unwrap());
    assert!(ended.err.contains(open["transaction"].as_str().unwrap()));
    assert_eq!(open["live"], false);
    assert_eq!(fs::read_to_string(stage.join("a")).unwrap(), "slow\n");
    dir.txfs(["diff", "dist"]).expect(0).says("generation 1 was committed since");
    dir.txfs([OsStr::new("commit"), stage.as_os_str()]).expect(4).says("txfs publish dist");
    dir.txfs([OsStr::new("publish"), OsStr::new("dist"), stage.as_os_str()]).expect(0);
    assert_eq!(dir.read("dist/a"), "slow\n");
}

#[test]
fn drift_keeps_the_stage_of_a_run_until_it_is_allowed() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    dir.write("dist/a", "edited");
    dir.run(&[], "echo new > {stage}/a").expect(4).says("a").says("--allow-drift").says("txfs commit");
    assert_eq!(dir.read("dist/a"), "edited");
    dir.txfs(["commit", "dist", "--allow-drift"]).expect(0);
    assert_eq!(dir.read("dist/a"), "new\n");
}

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
fn what_the_last_commit_displaced_can_be_freed() {
    let dir = Scratch::new();
    dir.txfs(["prune", "dist"]).expect(0).says("nothing has been published to dist by txfs");
    assert_eq!(fs::read_dir(dir.at("")).unwrap().count(), 0);
    dir.publish(&[("a", "12345"), ("b", "b")]);
    dir.txfs(["prune", "dist"]).expect(0).says("there is nothing to free");
    dir.publish(&[("a", "2"), ("b", "b")]);
    let dry = dir.txfs(["rollback", "dist", "--dry-run"]).expect(0);
    assert_eq!(dry.out, "M a\n");
    dir.txfs(["prune", "dist"]).expect(0).says("freed 5 bytes in 1 file that commits to dist displaced");
    assert_eq!((dir.read("dist/a"), dir.transactions()), ("2".to_owned(), 0));
    dir.txfs(["rollback", "dist"]).expect(2).says("generation 1 was pruned: what generation 2 displaced was freed");
    let again = dir.txfs(["prune", "dist", "--json"]).expect(0).json();
    assert_eq!((&again[0]["generation"], &again[0]["freed_bytes"]), (&2.into(), &0.into()));
    dir.publish(&[("a", "3"), ("b", "b")]);
    dir.txfs(["rollback", "dist"]).expect(0);
    assert_eq!(dir.read("dist/a"), "2");
}

#[test]
fn a_failed_or_refused_build_is_kept_if_that_is_wanted() {
    let dir = Scratch::new();
    let stage_of = |ended: &Ended| PathBuf::from(ended.json().last().unwrap()["stage"].as_str().unwrap());
    let run = |args: &[&str], script: &str| {
        dir.txfs([&["--json", "run", "dist"], args, &["--", "sh", "-c", script]].concat())
    };
    // The build fails, half way; txfs passes its status on.
    assert_eq!(run(&[], "echo 1 > {stage}/a; exit 7").expect(7).json()[0]["stage"], Value::Null);
    assert_eq!(dir.transactions(), 0);
    let failed =
        run(&["--keep-failed"], "echo half > {stage}/a; exit 7").expect(7).says("the stage is kept at .dist.txfs/tx/");
    let stage = stage_of(&failed);
    assert_eq!(fs::read_to_string(stage.join("a")).unwrap(), "half\n");
    // A check refuses; the stage of before is replaced.
    let refused = run(&["--keep-failed", "--check", "false"], "echo whole > {stage}/a").expect(5);
    let refused = refused.says("publishes it all the same").says("it replaces the one that was kept before");
    assert!(!stage.exists() && dir.transactions() == 1);
    let stage = stage_of(&refused);
    assert!(dir.txfs(["status", "dist"]).expect(0).out.contains("kept, built and not published"));
    dir.txfs([OsStr::new("commit"), stage.as_os_str()]).expect(0);
    assert_eq!(dir.read("dist/a"), "whole\n");
    // A guard refuses, a command that cannot be run builds nothing, and `publish` keeps its copy, too.
    let empty = run(&["--keep-failed"], "mkdir {stage}/d").expect(5).says("tries again");
    fs::write(stage_of(&empty).join("d/x"), "x").unwrap();
    dir.txfs(["run", "dist", "--keep-failed", "--stage", "--", "./none"]).expect(127);
    // What is diverted is no stage that could be kept.
    dir.txfs(["run", "dist", "--keep-failed", "--", "./none"]).expect(125).says("by --stage");
    assert_eq!(dir.transactions(), 1);
    dir.write("src/a", "2");
    let copy = dir.txfs(["publish", "dist", "src", "--keep-failed", "--check", "test -e b", "--json"]).expect(5);
    assert_eq!(fs::read_to_string(stage_of(&copy).join("a")).unwrap(), "2");
    assert!(!stage_of(&empty).exists());
    dir.txfs(["run", "dist", "--keep-failed", "--dry-run", "--", "true"]).expect(125);
    dir.txfs([OsStr::new("abort"), stage_of(&copy).as_os_str()]).expect(0);
    assert_eq!(dir.transactions(), 0);
}

/// A job that meets the same conflict every hour.
#[test]
fn kept_stages_do_not_pile_up() {
    let dir = Scratch::new();
    dir.run(&[], "echo 1 > {stage}/a").expect(0);
    fs::write(dir.at("dist/a"), "edited").unwrap();
    let by_hand = dir.begin(&[]);
    for time in 0..3 {
        let refused = dir.run(&[], "echo 2 > {stage}/a; echo > {stage}/b").expect(4).says("the stage is kept at");
        assert_eq!((dir.transactions(), refused.err.contains("it replaces the one")), (2, time > 0));
        refused.says("1 other transaction of dist is open: `txfs abort --all dist` discards all");
    }
    assert!(by_hand.exists());
    dir.txfs(["abort", "--all", "dist"]).expect(0);
    assert_eq!(dir.transactions(), 0);
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
fn status_tells_of_the_generation_and_of_open_transactions() {
    let dir = Scratch::new();
    let nothing = dir.txfs(["status", "dist"]).expect(0);
    assert_eq!(nothing.out, "nothing has been published to dist by txfs\n");
    assert_eq!(dir.txfs(["status", "dist", "--json"]).json()[0]["generation"], Value::Null);
    dir.write("src/a", "12345");
    dir.txfs(["publish", "dist", "src", "-m", "two\nlines"]).expect(0);
    let stage = dir.begin(&["--from", "current"]);
    let status = dir.txfs(["status", "dist"]).expect(0);
    for text in ["1 file, 5 bytes", "two\\nlines", "in-place", "(beside the output)", "a change, on generation 1"] {
        assert!(status.out.contains(text), "{text} in {}", status.out);
    }
    let status = &dir.txfs(["status", "dist", "--json"]).expect(0).json()[0];
    assert_eq!(
        (&status["generation"], &status["bytes"], &status["message"]),
        (&1.into(), &5.into(), &"two\nlines".into())
    );
    assert_eq!(status["transactions"][0]["stage"], stage.to_str().unwrap());
    assert!(status["capabilities"]["exchange"].is_boolean());
}

#[test]
fn recover_is_silent_when_there_is_nothing_to_do() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    let recovered = dir.txfs(["recover", "dist"]).expect(0);
    assert_eq!((recovered.out.as_str(), recovered.err.as_str()), ("", ""));
    assert_eq!(dir.txfs(["recover", "dist", "--json"]).expect(0).json()[0]["commit"], Value::Null);
}

#[test]
fn recover_says_where_txfs_has_nothing_and_does_not_fail() {
    let dir = Scratch::new();
    let recovered = dir.txfs(["recover", "typo"]).expect(0);
    let said = "there is nothing to recover: txfs has nothing for typo\n";
    assert_eq!((recovered.out.as_str(), recovered.err.as_str()), ("", said));
    assert_eq!(dir.txfs(["recover", "-q", "typo"]).expect(0).err, "");
    assert_eq!(dir.txfs(["recover", "typo", "--json"]).expect(0).json()[0]["commit"], Value::Null);
    assert!(!dir.at(".typo.txfs").exists());
}

#[test]
fn a_commit_that_was_not_settled_is_settled_in_silence() {
    for command in [&["recover", "dist"][..], &["recover", "dist", "--undo"], &["status", "-q", "dist"]] {
        let dir = Scratch::new();
        common::publish(&Store::open(dir.at("dist")).unwrap(), &[("a", "a")]).unwrap();
        assert!(dir.at(".dist.txfs/journal").exists());
        assert_eq!(dir.txfs(command).expect(0).err, "", "{command:?}");
        assert!(!dir.at(".dist.txfs/journal").exists() && dir.at(".dist.txfs/previous/1/journal").exists());
        assert_eq!(dir.read("dist/a"), "a");
    }
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    let left = |name: &str| dir.at(".dist.txfs").join(name).exists();
    assert!(!left("journal") && left("previous/1/journal"), "a command settles what it committed before it ends");
}

#[test]
fn a_commit_that_cannot_be_carried_out_says_so_until_it_is_undone_on_request() {
    let dir = Scratch::new();
    dir.publish(&[("a", "old"), ("stale/x", "old")]);
    // A directory that cannot be moved is taken apart; the process dies when it is to be removed.
    let dead = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| {
        dead.fetch_or(matches!(call, Call::RemoveDir { name } if name == b"stale"), Ordering::SeqCst);
        match call {
            _ if dead.load(Ordering::SeqCst) => Some(Errno::EIO),
            Call::Rename { name, directory: true, .. } if name == b"stale" => Some(Errno::EXDEV),
            _ => None,
        }
    });
    let store = Store::open_with(&OpenOptions::with(kernel), dir.at("dist")).unwrap();
    assert_eq!(common::publish(&store, &[("a", "new")]).unwrap_err().outcome(), Outcome::Unknown);
    drop(store);
    dir.write("dist/stale/mine", "mine");
    for command in [&["recover", "dist"][..], &["status", "dist"], &["begin", "dist"], &["publish", "dist", "src"]] {
        let refused = dir.txfs(command).expect(7).says("dist/stale").says("the commit of generation 2 has passed");
        assert!(refused.err.contains("hint: ") && refused.err.contains("txfs recover --undo "), "{}", refused.err);
        assert_eq!((dir.read("dist/a").as_str(), dir.at("dist/stale/x").exists()), ("new", false));
    }
    let object = &dir.txfs(["recover", "dist", "--json"]).expect(7).json()[0];
    assert_eq!((&object["error"], &object["code"]), (&"unknown".into(), &7.into()));
    let undone = dir.txfs(["recover", "dist", "--undo", "--json"]).expect(0);
    let undone = undone.says("txfs: recovered dist: rolled back the interrupted commit of generation 2");
    assert_eq!(
        (&undone.json()[0]["commit"], &undone.json()[0]["commit_generation"]),
        (&"rolled-back".into(), &2.into())
    );
    let now = ["a", "stale/x", "stale/mine"].map(|path| dir.read(&format!("dist/{path}")));
    assert_eq!(now, ["old", "old", "mine"]);
    assert_eq!(dir.txfs(["recover", "dist", "--undo"]).expect(0).err, "");
    dir.txfs(["verify", "dist"]).expect(0);
    dir.publish(&[("a", "newer"), ("stale/x", "old")]);
    assert_eq!(dir.read("dist/a"), "newer");
}

#[test]
fn a_killed_run_is_recovered_by_the_next_command_in_one_line() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    let script = "touch {stage}/x ready; until test -e go || ! test -e ready; do sleep 0.01; done";
    let child = dir.start(["run", "dist", "--", "sh", "-c", script]);
    wait_for("the command", || dir.at("ready").exists());
    signal(&child, "-KILL");
    dir.write("go", "");
    end(child);
    let status = dir.txfs(["status", "dist"]).expect(0);
    assert_eq!(status.err, "txfs: recovered dist: discarded 1 unfinished transaction\n");
    assert_eq!((dir.txfs(["status", "dist"]).err.as_str(), dir.read("dist/a").as_str()), ("", "a"));
}

#[test]
fn a_commit_killed_at_any_moment_is_recovered_by_the_next_command() {
    let dir = Scratch::new();
    let fill = |content: &str| (0..400).for_each(|i| dir.write(&format!("src/{i}"), content));
    let mut seen = Vec::new();
    for (i, content) in ["one", "two", "three", "four", "five", "six"].into_iter().enumerate() {
        fill(content);
        let mut child = dir.start(["publish", "dist", "src"]);
        // Before the commit point, and after it.
        let journal = dir.at([".dist.txfs/journal.new", ".dist.txfs/journal"][i % 2]);
        wait_for("the journal", || journal.exists() || child.try_wait().unwrap().is_some());
        std::thread::sleep(Duration::from_micros(350 * i as u64));
        let _ = child.kill();
        child.wait().unwrap();
        let status = dir.txfs(["status", "dist"]).expect(0);
        assert!(status.err.lines().count() <= 1, "{}", status.err);
        assert!(status.err.is_empty() || status.err.starts_with("txfs: recovered dist: "), "{}", status.err);
        seen.push(status.err);
        if dir.at("dist").exists() {
            let first = dir.read("dist/0");
            assert!((0..400).all(|i| dir.read(&format!("dist/{i}")) == first), "G1");
        }
        dir.txfs(["verify", "dist"]).expect(0);
    }
    println!("{seen:#?}");
}

#[test]
fn journal_shows_a_settled_journal_and_damaged_ones() {
    let dir = Scratch::new();
    assert_eq!(dir.txfs(["journal", "dist"]).expect(0).err, "dist has no journal\n");
    dir.publish(&[("a", "old"), ("gone", "g")]);
    dir.publish(&[("a", "new"), ("b", "b")]);
    let all = dir.txfs(["journal", "dist"]).expect(0).out;
    let dump = all.split("\n\n").find(|dump| dump.contains("/previous/2/journal")).unwrap();
    let position = |text: &str| dump.find(text).unwrap_or_else(|| panic!("{text} in {dump}"));
    assert!(position("begin   generation 2 from 1") < position("#0     add"));
    assert!(position("#1     replace           a  file 0644 3 B blake3") < position("#2     remove            gone"));
    assert!(position("commit  3 operations") < position("valid commit of generation 2"));
    let objects = dir.txfs(["journal", "--file", ".dist.txfs/previous/2/journal", "--json"]).expect(0).json();
    assert_eq!((&objects[2]["operation"], &objects[2]["path"]), (&"replace".into(), &"a".into()));
    assert_eq!((&objects[2]["old"]["size"], &objects[0]["offset"]), (&3.into(), &16.into()));
    assert!(dir.txfs(["journal", "dist", "--json"]).json().len() >= objects.len());

    let journal = fs::read(dir.at(".dist.txfs/previous/2/journal")).unwrap();
    fs::write(dir.at("cut"), &journal[..journal.len() - 3]).unwrap();
    let cut = dir.txfs(["journal", "--file", "cut"]).expect(0);
    assert!(cut.out.contains("#1     replace") && cut.out.contains("torn: it ends early, at byte"), "{}", cut.out);
    let mut flipped = journal;
    flipped[40] ^= 1;
    fs::write(dir.at("flipped"), &flipped).unwrap();
    assert!(dir.txfs(["journal", "--file", "flipped"]).expect(6).out.contains("corrupt: "));
    assert_eq!(dir.txfs(["journal", "--file", "flipped", "--json"]).json()[0]["verdict"], "corrupt");
    dir.txfs(["journal", "--file", "none"]).expect(1).says("cannot read none");
    dir.txfs(["journal", "--file", "dist"]).expect(1).says("cannot read dist: Is a directory");
    dir.txfs(["journal"]).expect(2);
}

#[test]
fn verify_finds_what_was_changed_behind_txfs() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a"), ("b", "b"), ("c", "c")]);
    assert_eq!(dir.txfs(["verify", "dist"]).expect(0).out, "");
    dir.write("dist/a", "x");
    fs::remove_file(dir.at("dist/b")).unwrap();
    assert_eq!(dir.txfs(["verify", "dist"]).expect(4).out, "content a\nmissing b\n");
    let objects = dir.txfs(["verify", "dist", "--json"]).expect(4).json();
    assert_eq!((&objects[1]["finding"], &objects[2]["findings"]), (&"missing".into(), &2.into()));
    // As a disk does that loses bits.
    let time = fs::metadata(dir.at("dist/c")).unwrap().modified().unwrap();
    dir.write("dist/c", "z");
    fs::File::options().write(true).open(dir.at("dist/c")).unwrap().set_modified(time).unwrap();
    let found = dir.txfs(["verify", "dist"]).expect(4).says("hint: what is missing comes back");
    assert_eq!(found.out, "content a\nmissing b\ncontent c\n");
    ["dist/a", "dist/c"].into_iter().for_each(|path| fs::remove_file(dir.at(path)).unwrap());
    dir.txfs(["publish", "dist", "src"]).expect(0).says("put back");
    dir.txfs(["verify", "dist"]).expect(0);
    assert_eq!(dir.txfs(["-q", "verify", "dist"]).expect(0).err, "");
}

#[test]
fn verify_says_where_nothing_has_been_published() {
    let dir = Scratch::new();
    let [verified, compared] = ["verify", "diff"].map(|command| dir.txfs([command, "typo"]).expect(2).err);
    assert!(verified.starts_with("error: nothing has been published to typo by txfs\n"), "{verified}");
    assert_eq!(verified, compared);
    dir.begin(&[]);
    let verified = dir.txfs(["verify", "dist"]).expect(0);
    assert_eq!((verified.out.as_str(), verified.err.as_str()), ("", "nothing has been published to dist by txfs\n"));
    let object = &dir.txfs(["verify", "dist", "--json"]).expect(0).json()[0];
    assert_eq!((&object["generation"], &object["findings"]), (&Value::Null, &0.into()));
}

#[test]
fn names_of_any_bytes_stay_on_one_line() {
    let dir = Scratch::new();
    fs::create_dir(dir.at("src")).unwrap();
    let name = OsString::from_vec(b"new\nline\xff".to_vec());
    fs::write(dir.at("src").join(&name), "x").unwrap();
    dir.txfs(["publish", "dist", "src"]).expect(0);
    fs::write(dir.at("dist").join(&name), "drift").unwrap();
    assert_eq!(dir.txfs(["verify", "dist"]).expect(4).out, "content new\\nline\\xff\n");
    let finding = &dir.txfs(["verify", "dist", "--json"]).json()[0];
    assert_eq!((&finding["path"], &finding["path_bytes"]), (&"new\nline\u{fffd}".into(), &"6e65770a6c696e65ff".into()));
    fs::write(dir.at("src").join(&name), "y").unwrap();
    let refused = dir.txfs(["publish", "dist", "src"]).expect(4).says("new\\nline\\xff");
    assert!(
        refused.err.lines().all(|line| line.starts_with("error: ") || line.starts_with("hint: ")),
        "{}",
        refused.err
    );
    let missing = OsString::from_vec(b"no\nsuch\xfe".to_vec());
    let refused = dir.txfs([OsStr::new("commit"), &missing]).expect(2).says("no\\nsuch\\xfe");
    assert!(
        refused.err.lines().all(|line| line.starts_with("error: ") || line.starts_with("hint: ")),
        "{}",
        refused.err
    );
}

/// What JSON each command prints: the fields of its last object, in order; and that a field has one type wherever it stands.
#[test]
fn every_command_prints_the_json_that_the_reference_has() {
    const COMMITTED: &str = "v output generation changed added modified removed unchanged restored restored_total files bytes rescued warnings";
    const STATUS: &str = "v output generation committed message manifest entries files bytes gone committing transactions publish_mode shared state place rescued_files rescued_bytes capabilities past diverting warnings";
    const RECOVERED: &str =
        "v output generation commit commit_generation operations discarded rescued skipped skipped_total warnings";
    const SUMMARY: &str =
        "v summary output generation added modified removed unchanged restored restored_total operations warnings";
    const VERIFIED: &str = "v output generation findings warnings";
    const JOURNALS: &str = "v output journals corrupt warnings";
    const ABORTED: &str = "v output discarded warnings";
    const ERROR: &str = "v error code message hints outcome generation rescued stage warnings";
    const REFUSED: &str = "v error code message hints outcome generation rescued stage problems warnings";
    const SHARED: &str = "v output shared warnings";
    const LOGGED: &str = "v output generations held_bytes warnings";
    const PRUNED: &str = "v output generation freed_files freed_bytes rescued warnings";
    let dir = Scratch::new();
    let seen = RefCell::new(Fields::default());
    let run = |args: &[&str], code: i32, fields: &str| -> Vec<Value> {
        let objects = dir.txfs([&["--json"], args].concat()).expect(code).json();
        objects.iter().for_each(|object| seen.borrow_mut().note(object));
        let last = objects.last().unwrap_or_else(|| panic!("{args:?}: no object"));
        let has: Vec<_> = last.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected: Vec<_> = fields.split(' ').collect();
        expected.sort_unstable();
        assert_eq!(has, expected, "{args:?}: {last}");
        assert!(
            last.get("output").is_none_or(|output| output.is_null() || *output == *dir.at("dist").to_str().unwrap())
        );
        objects
    };
    // Nothing has been published.
    run(&["status", "dist"], 0, STATUS);
    run(&["recover", "dist"], 0, RECOVERED);
    run(&["journal", "dist"], 0, JOURNALS);
    run(&["abort", "--all", "dist"], 0, ABORTED);
    run(&["prune", "dist"], 0, PRUNED);
    run(&["log", "dist"], 0, LOGGED);
    run(&["verify", "dist"], 2, ERROR);
    run(&["commit"], 2, ERROR);
    run(&["run", "dist", "--", "false"], 1, ERROR);
    run(&["log", "dist"], 0, LOGGED);
    run(&["verify", "dist"], 0, VERIFIED);
    dir.write("src/a", "1");
    dir.write("src/d/b", "1");
    run(&["publish", "dist", "src", "--dry-run"], 0, SUMMARY);
    run(&["publish", "dist", "src", "-m", "one"], 0, COMMITTED);
    let unchanged = run(&["publish", "dist", "src", "-m", "two", "-v"], 0, COMMITTED);
    assert_eq!((unchanged.len(), &unchanged[0]["warnings"].as_array().unwrap().len()), (1, &1));
    // Every path that changed, if that is asked for.
    let changed = run(
        &[
            "-v",
            "run",
            "dist",
            "--",
            "sh",
            "-c",
            "echo 2 > {stage}/a; mkfifo {stage}/f && rm {stage}/f; echo > {stage}/c",
        ],
        0,
        COMMITTED,
    );
    let paths = |objects: &[Value]| -> Vec<String> {
        let path = |object: &Value| Some(format!("{} {}", object["change"].as_str()?, object["path"].as_str()?));
        objects.iter().filter_map(path).collect()
    };
    assert_eq!(paths(&changed), ["modified a", "added c", "removed d", "removed d/b"]);
    assert!(
        dir.txfs(["-v", "publish", "dist", "src", "--json"])
            .expect(0)
            .says("published")
            .err
            .lines()
            .all(|line| !line.starts_with("M "))
    );
    assert_eq!(paths(&run(&["-v", "rollback", "dist"], 0, COMMITTED)), paths(&changed));
    run(&["rollback", "dist", "--dry-run"], 0, SUMMARY);
    // A transaction, by hand.
    let stage = run(&["begin", "dist"], 0, "v output stage transaction at base from warnings")[0]["stage"]
        .as_str()
        .unwrap()
        .to_owned();
    fs::write(Path::new(&stage).join("a"), "3").unwrap();
    run(&["status", "dist"], 0, STATUS);
    run(&["diff", "dist"], 0, SUMMARY);
    run(&["diff", "dist", "src", "--exit-code"], 8, SUMMARY);
    run(&["commit", "dist", "--dry-run", "--max-removed", "0"], 5, REFUSED);
    run(&["commit", "dist", "-v", "--max-removed", "100"], 0, COMMITTED);
    run(&["begin", "dist", "--from", "current"], 0, "v output stage transaction at base from warnings");
    run(&["abort", "dist"], 0, "v output transaction stage aborted discarded warnings");
    run(&["begin", "dist"], 0, "v output stage transaction at base from warnings");
    assert_eq!(run(&["abort", "--all", "dist"], 0, ABORTED).len(), 2);
    run(&["run", "dist", "--check", "false", "--", "sh", "-c", "echo > {stage}/a"], 5, REFUSED);
    run(&["journal", "dist"], 0, JOURNALS);
    let journal =
        fs::read_dir(dir.at(".dist.txfs/previous")).unwrap().map(|entry| entry.unwrap().path().join("journal"));
    let journal = journal.max().unwrap();
    run(&["journal", "--file", journal.to_str().unwrap()], 0, JOURNALS);
    fs::remove_file(dir.at("dist/a")).unwrap();
    run(&["verify", "dist"], 4, VERIFIED);
    run(&["publish", "dist", "src", "--max-removed", "100"], 0, COMMITTED);
    run(&["recover", "dist"], 0, RECOVERED);
    run(&["run", "dist", "--keep-failed", "--", "sh", "-c", "echo > {stage}/a; exit 3"], 3, ERROR);
    run(&["status", "dist"], 0, STATUS);
    run(&["prune", "dist"], 0, PRUNED);
    run(&["share", "dist"], 0, SHARED);
    run(&["status", "dist"], 0, STATUS);
    run(&["share", "dist", "--off"], 0, SHARED);
    run(&["init", "dist"], 0, "v file outputs ignored_by warnings");
    let seen = seen.into_inner();
    let reference = include_str!("../../../../docs/reference/json.md");
    let of_records = [
        "journal",
        "v",
        "offset",
        "index",
        "participant",
        "operation",
        "operations",
        "old",
        "new",
        "base_manifest",
        "digest",
        "size",
        "mode",
        "mtime_seconds",
        "mtime_nanos",
        "ino",
        "old_mode",
        "new_mode",
        "exchange",
        "no_replace",
        "links",
    ];
    for name in seen.0.keys().filter(|name| !of_records.contains(&name.as_str())) {
        assert!(reference.contains(&format!("`{name}`")), "the reference does not tell of `{name}`");
    }
}

/// The type that each field has.
#[derive(Default)]
struct Fields(BTreeMap<String, (&'static str, String)>);

impl Fields {
    fn note(&mut self, value: &Value) {
        let Value::Object(fields) = value else { return };
        for (name, value) in fields {
            let kind = match value {
                Value::Null => continue,
                Value::Bool(_) => "a bool",
                Value::Number(_) => "a number",
                Value::String(_) => "a text",
                Value::Array(items) => {
                    items.iter().for_each(|item| self.note(item));
                    "a list"
                }
                Value::Object(_) => {
                    self.note(value);
                    "an object"
                }
            };
            let (known, first) = self.0.entry(name.clone()).or_insert_with(|| (kind, value.to_string()));
            assert_eq!(*known, kind, "`{name}` is {first} and {value}");
        }
    }
}

#[test]
fn no_name_shows_as_another() {
    let dir = Scratch::new();
    let name = "inv\u{202e}fdp.\u{2028}e\u{200b}x\u{9b}e";
    fs::create_dir(dir.at("empty")).unwrap();
    dir.write(&format!("src/{name}"), "1");
    dir.txfs(["publish", "dist", "src", "-m", name]).expect(0);
    dir.write(&format!("src/{name}"), "2");
    let hides = |text: &str| text.chars().any(|c| txfs::is_hidden(c) && c != '\n');
    let says = |args: &[&str], code: i32| {
        for json in [false, true] {
            let ended = dir.txfs(args.iter().copied().chain(json.then_some("--json"))).expect(code);
            assert!(!hides(&ended.out) && !hides(&ended.err), "{args:?}: {:?} {:?}", ended.out, ended.err);
            let objects = if json { ended.json() } else { Vec::new() };
            let is_there = |object: &Value| object.as_object().unwrap().values().any(|value| value == name);
            assert!(!json || objects.iter().any(is_there) || code > 1, "{args:?}: {}", ended.out);
            let shown = "inv\\u{202e}fdp.\\u{2028}e\\u{200b}x\\u{9b}e";
            assert!(json || (ended.out + &ended.err).contains(shown), "{args:?}");
        }
    };
    says(&["diff", "dist", "src"], 0);
    says(&["diff", "dist", "empty"], 0);
    says(&["status", "dist"], 0);
    says(&["journal", "dist"], 0);
    dir.write(&format!("dist/{name}"), "drift");
    says(&["verify", "dist"], 4);
    says(&["publish", "dist", "src"], 4);
    says(&["begin", &format!("no/{name}/dist")], 2);
    says(&["commit", name], 2);
    says(&["status", "dist", name], 2);
    says(&[name], 2);
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

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let dir = Scratch::new();
    dir.publish(&[("a/b", "x")]);
    for args in [
        &["publish", "dist", "dist"][..],
        &["publish", "dist", "dist/a"],
        &["publish", "src/a", "src"],
        &["publish", "dist", "src/a/b"],
        &["publish", "dist", ".dist.txfs"],
        &["commit", "src"],
        &["diff", "src", "dist"],
        &["commit"],
        &["explode"],
        &["status", "dist", "--lock-timeout", "soon"],
        &["begin", "dist", "--from", "nowhere"],
        &["begin", "dist", "-q", "-v"],
    ] {
        let refused = dir.txfs(args).expect(2);
        assert!(refused.err.starts_with("error: ") && refused.out.is_empty(), "{args:?}: {}", refused.err);
    }
    assert!(!dir.at(".src.txfs").exists() && !dir.at("src/.a.txfs").exists(), "a usage error makes nothing");
    assert_eq!(dir.transactions(), 0);
    let object = &dir.txfs(["publish", "dist", "dist", "--json"]).expect(2).json()[0];
    assert_eq!((&object["error"], &object["code"]), (&"usage".into(), &2.into()));
}

#[test]
fn arguments_that_make_no_sense_are_told_to_programs_too() {
    let dir = Scratch::new();
    for (args, code, said) in [
        (&["--json"][..], 2, "requires a subcommand"),
        (&["--json", "explode"], 2, "unrecognized subcommand 'explode'"),
        (&["status", "--json"], 2, "were not provided: <OUT>"),
        (&["commit", "dist", "--max-removed", "x", "--json"], 2, "not a whole number from 0 to 100"),
        (&["--lock-timeout", "9", "--json", "run"], 125, "were not provided: <OUT>"),
        (&["run", "--from", "nowhere", "dist", "--json", "--", "true"], 125, "invalid value 'nowhere'"),
    ] {
        let refused = dir.txfs(args).expect(code).says("error: ");
        let [object] = &refused.json()[..] else { panic!("{args:?}: {}", refused.out) };
        assert_eq!((&object["error"], &object["code"]), (&"usage".into(), &code.into()), "{args:?}");
        assert!(object["message"].as_str().unwrap().contains(said), "{args:?}: {object}");
        assert!(object["hints"].as_array().unwrap().contains(&"For more information, try '--help'.".into()));
    }
    assert_eq!(dir.txfs(["run", "dist", "--", "false", "--json"]).expect(1).out, "", "that is the command's");
    assert!(dir.txfs(["--json", "--help"]).expect(0).out.contains("Usage:"));
}

#[test]
fn numbers_that_are_none_are_refused_in_plain_words() {
    let dir = Scratch::new();
    for given in ["x", "101", "-1", "1.5"] {
        let given = format!("--max-removed={given}");
        dir.txfs(["publish", "dist", "src", &given]).expect(2).says("this is not a whole number from 0 to 100");
    }
    for (given, said) in
        [("soon", "not a number of seconds"), ("-1", "not a number"), ("nan", "not a number"), ("1e20", "longer")]
    {
        let given = format!("--lock-timeout={given}");
        dir.txfs(["status", "dist", &given]).expect(2).says(&format!("this is {said}"));
    }
}

#[test]
fn a_lock_that_is_held_makes_the_command_busy() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    let lock = fs::OpenOptions::new().write(true).open(dir.at(".dist.txfs/lock")).unwrap();
    FileExt::lock_exclusive(&lock).unwrap();
    dir.txfs(["publish", "dist", "src", "--lock-timeout", "0"])
        .expect(3)
        .says(&format!(".dist.txfs/lock is held by process {} (", std::process::id()));
    dir.txfs(["begin", "dist", "--lock-timeout", "0.05"]).expect(3).says("--lock-timeout");
    dir.txfs(["status", "dist"]).expect(0);
    // As while another process applies a commit.
    fs::write(dir.at(".dist.txfs/journal"), "").unwrap();
    let status = dir.txfs(["status", "dist"]).expect(0);
    assert!(status.out.contains("a commit is in progress"), "{}", status.out);
    assert_eq!(dir.txfs(["status", "dist", "--json"]).json()[0]["committing"], true);
    drop(lock);
    dir.txfs(["status", "dist"]).expect(6).says("journal cannot be used: it ends early");
    fs::rename(dir.at(".dist.txfs/journal"), dir.at(".dist.txfs/journal.new")).unwrap();
    dir.txfs(["status", "dist"]).expect(0);
}

#[test]
fn a_run_that_finds_the_lock_held_keeps_its_stage() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    let script = "echo new > {stage}/a; touch ready; until test -e go || ! test -e ready; do sleep 0.01; done";
    let child = dir.start(["--lock-timeout", "0", "run", "dist", "--", "sh", "-c", script]);
    wait_for("the command", || dir.at("ready").exists());
    let lock = fs::OpenOptions::new().write(true).open(dir.at(".dist.txfs/lock")).unwrap();
    FileExt::lock_exclusive(&lock).unwrap();
    dir.write("go", "");
    end(child).expect(3).says("the stage is kept");
    drop(lock);
    dir.txfs(["commit", "dist"]).expect(0);
    assert_eq!(dir.read("dist/a"), "new\n");
}

#[test]
fn a_stage_that_could_not_be_discarded_is_not_said_to_be() {
    let dir = Scratch::new();
    let check = "touch ../../../../ready; until test -e ../../../../go; do sleep 0.01; done; exit 1";
    let child = dir.start(["--lock-timeout", "0", "run", "dist", "--check", check, "--", "touch", "{stage}/a"]);
    wait_for("the check", || dir.at("ready").exists());
    let lock = fs::OpenOptions::new().write(true).open(dir.at(".dist.txfs/lock")).unwrap();
    FileExt::lock_exclusive(&lock).unwrap();
    dir.write("go", "");
    let refused = end(child).expect(5).says("the stage could not be discarded, the next txfs command tries again");
    let refused = refused.says("hint: txfs changed nothing in dist\n");
    assert!(!refused.err.contains("the stage was discarded"), "{}", refused.err);
}

#[test]
fn a_command_that_replaces_its_stage_is_told_so() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    for replace in ["touch {stage}", "ln -s $PWD/src {stage}"] {
        let refused = dir.run(&["--check", "false"], &format!("rmdir {{stage}}; {replace}")).expect(125);
        refused.says("the command put something else in the place of its stage: txfs changed nothing in dist");
        assert_eq!((dir.transactions(), dir.read("src/a").as_str()), (0, "a"));
    }
    dir.run(&[], "rmdir {stage}; mkdir {stage}; echo new > {stage}/a").expect(0);
}

#[test]
fn errors_of_the_system_have_a_way_out() {
    for (errno, way_out) in [
        (Errno::ENOSPC, "free some space, or inodes"),
        (Errno::EDQUOT, "free some space, or inodes"),
        (Errno::EMFILE, "raise `ulimit -n`"),
        (Errno::ENFILE, "raise `sysctl fs.file-max`"),
        (Errno::EPERM, "is it immutable (see `lsattr`), or somebody else's in a directory with the sticky bit"),
        (Errno::EBUSY, "something is mounted there, as `findmnt` shows"),
        (Errno::EXDEV, "a file system is mounted there: unmount it, or publish that directory by itself"),
    ] {
        let source = std::io::Error::from_raw_os_error(errno as i32);
        let error = txfs::Error::Io { action: "rename", path: "a".into(), source, whose: None };
        let rolled_back = txfs::Error::RolledBack { source: Box::new(error) };
        assert!(rolled_back.hint().is_some_and(|hint| hint.contains(way_out)), "{errno}: {:?}", rolled_back.hint());
    }
    let dir = Scratch::new();
    let few = "ulimit -n 5; exec \"$0\" begin dist";
    let mut shell = Command::new("sh");
    shell.args(["-c", few, env!("CARGO_BIN_EXE_txfs")]).current_dir(dir.0.path());
    Ended::from(shell.output().unwrap()).expect(1).says("hint: raise `ulimit -n`");
}

#[test]
fn where_no_thread_can_be_started_run_says_so() {
    if !common::is_root() {
        return common::skip("no thread for signals", "becoming another user needs root");
    }
    // Nobody else's processes count.
    const USER: u32 = 54_321;
    let dir = Scratch::new();
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_txfs")).arg(dir.at("txfs")).status().unwrap().success());
    std::os::unix::fs::chown(dir.at(""), Some(USER), Some(USER)).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -u 1 2>/dev/null || ulimit -p 1; exec ./txfs run dist -- true"]).uid(USER).gid(USER);
    let refused = Ended::from(shell.current_dir(dir.at("")).output().unwrap()).expect(125);
    refused.says("cannot start the thread that handles signals: ").says("hint: ").says("raise `ulimit -u`");
}

#[test]
fn a_damaged_journal_is_refused_and_status_shows_what_it_can() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    fs::write(dir.at(".dist.txfs/journal"), "this is no journal at all").unwrap();
    let status = dir.txfs(["status", "dist"]).expect(6).says("cannot be used").says("hint: ");
    assert!(status.out.contains("generation:   1"), "{}", status.out);
    dir.txfs(["begin", "dist"]).expect(6);
    assert!(dir.txfs(["journal", "dist"]).expect(6).out.contains("corrupt: "));
    assert_eq!(dir.read("dist/a"), "a");
}

#[test]
fn a_closed_pipe_is_no_reason_to_panic() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    fs::create_dir(dir.at("next")).unwrap();
    (0..5000).for_each(|i| fs::write(dir.at("next").join(format!("{i:0100}")), "").unwrap());
    let closed = |args: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Ended::from(dir.command(args).stdout(writer).output().unwrap())
    };
    for args in [&["diff", "dist", "next"][..], &["status", "dist"], &["begin", "dist"]] {
        assert_eq!(closed(args).expect(141).err, "", "{args:?}");
    }
    assert_eq!(dir.transactions(), 0, "nobody learned of the stage");
    // The commit stands.
    assert_eq!(closed(&["-q", "publish", "dist", "next"]).expect(0).err, "");
    let silent = dir.command(["publish", "dist", "none"]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(silent.code(), Some(2));
}

#[test]
fn help_and_version_are_data() {
    let dir = Scratch::new();
    let help = dir.txfs(["--help"]).expect(0);
    assert!(help.out.contains("Exit codes:") && help.err.is_empty());
    assert!(dir.txfs(["run", "--help"]).expect(0).out.contains("mdbook"));
    for (command, takes_away) in [("commit", true), ("run", true), ("publish", true), ("rollback", false)] {
        assert_eq!(dir.txfs([command, "--help"]).expect(0).out.contains("--remove"), takes_away, "{command}");
    }
    dir.txfs(["journal"]).expect(2).says("--file");
    for args in [["--max-removed", "-1"], ["--lock-timeout", "-1"]] {
        dir.txfs([&["publish", "dist", "src"], &args[..]].concat()).expect(2).says("this is not a");
    }
    assert!(dir.txfs(["--version"]).expect(0).out.starts_with("txfs "));
}

/// The scripts that the book and `txfs begin --help` show, with stand-ins for what they build with.
#[test]
fn the_scripts_that_are_shown_end_as_what_they_do() {
    let dir = Scratch::new();
    let txfs = env!("CARGO_BIN_EXE_txfs");
    let build =
        "echo \"$$\" > \"$2/index.html\"; [ \"$BUILD\" != slow ] || { > started; exec sleep 0.3; }; exit \"$BUILD\"";
    for (tool, script) in [
        ("txfs", format!("exec '{txfs}' \"$@\"")),
        ("render", build.to_owned()),
        ("hugo", build.to_owned()),
        ("git", "echo 1234567".to_owned()),
    ] {
        dir.write(&format!("bin/{tool}"), &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(dir.at(&format!("bin/{tool}")), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", dir.at("bin").display(), std::env::var("PATH").unwrap());
    let shell_of = |name: &str, errexit: &str, script: &str, build: &str| {
        let mut shell = Command::new(name);
        shell.args([errexit, "-c", script]).current_dir(dir.at("")).env("PATH", &path).env("BUILD", build);
        shell
    };
    let shell = |errexit: &str, script: &str, build: &str| {
        Ended::from(shell_of("sh", errexit, script, build).output().unwrap())
    };
    let guide = include_str!("../../../../docs/guide/deploy.md");
    let deploy = guide.split("## A deploy script\n\n```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let help = dir.txfs(["begin", "--help"]).expect(0).out;
    let example = help.split("in one line):\n").nth(1).unwrap();
    for script in [deploy.replace("/srv/www", "dist"), example.to_owned()] {
        for errexit in ["+e", "-e"] {
            for (build, succeeds) in [("0", true), ("3", false)] {
                let before = dir.txfs(["status", "dist", "--json"]).out;
                let ended = shell(errexit, &script, build);
                assert_eq!(
                    ended.code == 0,
                    succeeds,
                    "sh {errexit}, build {build}: {} {}\n{script}",
                    ended.code,
                    ended.err
                );
                assert_eq!(dir.txfs(["status", "dist", "--json"]).out != before, succeeds);
                assert_eq!(dir.transactions(), 0, "{script}");
            }
        }
        // Where nothing can be begun there is nothing to abort either.
        let ended = shell("+e", &script.replace("begin dist", "begin none/dist"), "0");
        assert!(ended.code != 0 && ended.err.matches("error:").count() == 1, "{} {}", ended.code, ended.err);
        // Whichever shell, and whichever signal: nothing stays open, and nothing is published.
        for (name, signalled) in
            [("dash", "-TERM"), ("dash", "-INT"), ("bash", "-TERM"), ("bash", "-HUP"), ("sh", "-INT")]
        {
            let before = dir.txfs(["status", "dist", "--json"]).out;
            let Ok(child) = shell_of(name, "+e", &script, "slow").stderr(Stdio::null()).spawn() else { continue };
            wait_for("the build", || fs::remove_file(dir.at("started")).is_ok());
            signal(&child, signalled);
            assert_ne!(end(child).code, 0, "{name} {signalled}");
            assert_eq!(dir.txfs(["status", "dist", "--json"]).out, before, "{name} {signalled}");
        }
    }
}

/// The Makefile that the book shows, with a stand-in for mdbook.
#[test]
fn an_edit_made_during_a_build_is_built_by_the_next_make() {
    if Command::new("make").arg("--version").output().is_err() {
        return common::skip("an_edit_made_during_a_build_is_built_by_the_next_make", "there is no make");
    }
    let dir = Scratch::new();
    let guide = include_str!("../../../../docs/guide/tools.md");
    let recipe = guide.split("```make\n").nth(1).unwrap().split("```").next().unwrap();
    dir.write("Makefile", recipe);
    dir.write("book/a", "1");
    let build = "cp book/* \"$4\"; [ ! -e edit ] || { sleep 0.05; cat edit > book/a; rm edit; }; [ ! -e fail ]";
    for (tool, script) in
        [("mdbook", build.to_owned()), ("txfs", format!("exec '{}' \"$@\"", env!("CARGO_BIN_EXE_txfs")))]
    {
        dir.write(&format!("bin/{tool}"), &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(dir.at(&format!("bin/{tool}")), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", dir.at("bin").display(), std::env::var("PATH").unwrap());
    let make = || Ended::from(Command::new("make").current_dir(dir.at("")).env("PATH", &path).output().unwrap());
    dir.write("edit", "2");
    make().expect(0);
    assert_eq!((dir.read("site/a"), dir.read("book/a")), ("1".to_owned(), "2".to_owned()));
    make().expect(0);
    assert_eq!(dir.read("site/a"), "2");
    make().expect(0).says_nothing();
    std::thread::sleep(Duration::from_millis(20));
    dir.write("book/a", "3");
    dir.write("fail", "");
    make().expect(2);
    assert_eq!(dir.read("site/a"), "2");
    fs::remove_file(dir.at("fail")).unwrap();
    make().expect(0);
    assert_eq!(dir.read("site/a"), "3");
}

#[test]
fn diff_knows_which_set_id_bits_publish_drops() {
    if !common::is_root() {
        return common::skip("set-id bits", "giving a file to another user needs root");
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

/// Three generations of three files, copied to another place: each inode is another.
fn copied_elsewhere(dir: &Scratch) {
    ["one", "two", "three"].iter().for_each(|content| dir.publish(&[("a", content), ("b", content), ("c", content)]));
    fs::create_dir(dir.at("elsewhere")).unwrap();
    let mut copy = Command::new("cp");
    copy.args(["-a", "dist", ".dist.txfs", "elsewhere"]).current_dir(dir.at(""));
    assert!(copy.status().unwrap().success());
    dir.write("src/a", "four");
}

#[test]
fn a_copied_store_knows_what_it_displaced_by_its_content() {
    let dir = Scratch::new();
    copied_elsewhere(&dir);
    let ended = dir.txfs(["publish", "elsewhere/dist", "src"]).expect(0);
    assert_eq!(ended.err.matches("warning: ").count(), 0, "{}", ended.err);
    assert!(!dir.at("elsewhere/.dist.txfs/rescued").exists());
    assert!(!dir.txfs(["status", "elsewhere/dist"]).expect(0).out.contains("rescued"));
}

#[test]
fn what_is_not_what_was_displaced_is_told_in_one_line_and_by_status_until_it_is_deleted() {
    let dir = Scratch::new();
    copied_elsewhere(&dir);
    let stage = dir.at("elsewhere/.dist.txfs/previous/3/stage");
    ["a", "b", "c"].iter().for_each(|name| fs::write(stage.join(name), "mine").unwrap());
    let ended = dir.txfs(["publish", "elsewhere/dist", "src"]).expect(0);
    let moved = "warning: moved 3 entries to elsewhere/.dist.txfs/rescued, not being what txfs recorded";
    assert_eq!(ended.err.matches("warning: ").count(), 1, "{}", ended.err);
    ended.says(moved).says("delete there what is not wanted");
    assert_eq!(fs::read_dir(dir.at("elsewhere/.dist.txfs/rescued")).unwrap().count(), 3);
    let status = dir.txfs(["status", "elsewhere/dist"]).expect(0).out;
    let rescued = status.lines().find(|line| line.starts_with("rescued: ")).unwrap();
    assert!(
        rescued.contains(" 3 files, 12 bytes in ") && rescued.contains("delete there what is not wanted"),
        "{rescued}"
    );
    let json = dir.txfs(["status", "elsewhere/dist", "--json"]).expect(0).json();
    assert_eq!((&json[0]["rescued_files"], &json[0]["rescued_bytes"]), (&3.into(), &12.into()));
    fs::remove_dir_all(dir.at("elsewhere/.dist.txfs/rescued")).unwrap();
    assert!(!dir.txfs(["status", "elsewhere/dist"]).expect(0).out.contains("rescued"));
}

#[test]
fn a_directory_that_is_none_is_a_wrong_argument_everywhere() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    for (source, what) in
        [("none", "none does not exist"), ("src/a", "src/a is not a directory"), ("src/a/b", "is not a")]
    {
        for args in
            [&["publish", "dist", source][..], &["publish", "--dry-run", "dist", source], &["diff", "dist", source]]
        {
            dir.txfs(args).expect(2).says(what);
        }
    }
}

#[test]
fn an_output_that_is_gone_is_shown_and_put_back() {
    let dir = Scratch::new();
    dir.publish(&[("a", "old"), ("b", "b")]);
    dir.publish(&[("a", "new"), ("b", "b")]);
    assert_eq!(dir.txfs(["status", "dist", "--json"]).expect(0).json()[0]["gone"], false);
    fs::remove_dir_all(dir.at("dist")).unwrap();
    assert!(dir.txfs(["status", "dist"]).expect(0).out.contains("the output is gone"));
    assert_eq!(dir.txfs(["status", "dist", "--json"]).expect(0).json()[0]["gone"], true);
    for args in [
        &["rollback", "dist"][..],
        &["run", "dist", "--from", "current", "--dry-run", "--", "sh", "-c", "echo > {stage}/c"],
    ] {
        dir.txfs(args).expect(4).says("dist: it is gone").says("`txfs publish`");
    }
    let dry = dir.txfs(["publish", "dist", "src", "--dry-run"]).expect(0);
    dry.says("dry run: would put back dist, which somebody else had removed\n");
    assert!(!dir.at("dist").exists());
    dir.txfs(["publish", "dist", "src"]).expect(0).says("put back dist, which somebody else had removed\n");
    assert_eq!((dir.read("dist/a"), dir.read("dist/b")), ("new".to_owned(), "b".to_owned()));
    dir.txfs(["rollback", "dist"]).expect(0);
}

#[test]
fn a_command_in_a_hint_can_be_pasted() {
    let dir = Scratch::new();
    for out in ["my site", "-none", "it's"] {
        let word = match out {
            "-none" => "./-none".to_owned(),
            "it's" => r"'it'\''s'".to_owned(),
            _ => format!("'{out}'"),
        };
        dir.txfs(["status", "--", out]).expect(0);
        dir.txfs(["verify", "--", out]).expect(2).says(&format!("`txfs begin {word}` begins"));
        let begun = dir.txfs(["begin", "--", out]).expect(0);
        let refused = dir.txfs(["commit", begun.out.trim_end()]).expect(5);
        let hint = refused.err.lines().find(|line| line.contains("`txfs abort")).unwrap();
        let command = hint.split('`').find(|part| part.starts_with("txfs abort")).unwrap();
        let script = format!("\"$0\" {}", command.strip_prefix("txfs ").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_txfs")]).current_dir(dir.at(""));
        Ended::from(shell.output().unwrap()).expect(0).says("aborted");
    }
}

#[test]
fn what_is_skipped_on_request_is_named() {
    let dir = Scratch::new();
    dir.publish(&[("a", "old"), ("b", "old"), ("c", "old")]);
    let dead = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| {
        let is_dead = dead.load(Ordering::SeqCst);
        dead.fetch_or(matches!(call, Call::Rename { name, .. } if name == b"a"), Ordering::SeqCst);
        is_dead.then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), dir.at("dist")).unwrap();
    assert_eq!(
        common::publish(&store, &[("a", "new"), ("b", "new"), ("c", "new")]).unwrap_err().outcome(),
        Outcome::Unknown
    );
    drop(store);
    dir.write("dist/b", "somebody else's");
    let hint = format!("run `txfs recover --skip-unknown {}` to leave them", dir.at("dist").display());
    dir.txfs(["recover", "dist"]).expect(6).says("hint: nothing was touched").says(&hint);
    let recovered = dir.txfs(["recover", "--skip-unknown", "dist", "--json"]).expect(0);
    let recovered = recovered.says("warning: 1 path of dist left as found, and no longer as published: b\n").json();
    assert_eq!((&recovered[0]["skipped"][0], &recovered[0]["skipped_total"]), (&"b".into(), &1.into()));
    let now = ["a", "b", "c"].map(|path| dir.read(&format!("dist/{path}")));
    assert_eq!(now, ["new", "somebody else's", "new"]);
}

#[test]
fn what_is_no_file_where_the_state_has_one_is_not_trusted() {
    for (name, way_out) in [("lock", "move it away"), ("HEAD", "move the whole state directory away")] {
        let dir = Scratch::new();
        dir.publish(&[("a", "a")]);
        let file = dir.at(".dist.txfs").join(name);
        for make in ["mkdir", "ln -s a"] {
            fs::rename(&file, dir.at("aside")).unwrap();
            let mut shell = Command::new("sh");
            assert!(shell.args(["-c", &format!("{make} \"$0\"")]).arg(&file).status().unwrap().success());
            let refused = dir.txfs(["publish", "dist", "src"]).expect(6);
            refused.says(&format!("{name} is not trusted: it is not a regular file")).says(way_out);
            assert!(Command::new("rm").arg("-r").arg(&file).status().unwrap().success());
            fs::rename(dir.at("aside"), &file).unwrap();
        }
        dir.txfs(["publish", "dist", "src"]).expect(0);
    }
}

#[test]
fn a_head_that_is_missing_is_not_said_to_be_none() {
    let dir = Scratch::new();
    dir.publish(&[("a", "a")]);
    assert!(dir.txfs(["status", "dist"]).expect(0).out.contains("generation:   1\n"));
    fs::remove_file(dir.at(".dist.txfs/HEAD")).unwrap();
    let refused = dir.txfs(["status", "dist"]).expect(6).says("HEAD");
    assert!(refused.out.contains("generation:   unknown\n"), "{}", refused.out);
}

#[test]
fn a_command_does_not_wait_for_its_own_run() {
    let dir = Scratch::new();
    let begun = Instant::now();
    let script = format!("'{}' commit \"$TXFS_STAGE\"", env!("CARGO_BIN_EXE_txfs"));
    dir.run(&[], &script).expect(2).says("whoever runs this command commits that stage");
    assert!(begun.elapsed() < Duration::from_secs(8));
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
