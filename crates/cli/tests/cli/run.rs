//! `run`: what becomes of what its command wrote, and of a stage that was not published.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fs2::FileExt;
use serde_json::Value;

use super::{Ended, Scratch, end, signal, wait_for};

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
    dir.txfs(["run", "dist", "--keep-failed", "--", "./none"]).expect(127);
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
        return txfs_testing::skip("an_edit_made_during_a_build_is_built_by_the_next_make", "there is no make");
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
fn a_command_does_not_wait_for_its_own_run() {
    let dir = Scratch::new();
    let begun = Instant::now();
    let script = format!("'{}' commit \"$TXFS_STAGE\"", env!("CARGO_BIN_EXE_txfs"));
    dir.run(&[], &script).expect(2).says("whoever runs this command commits that stage");
    assert!(begun.elapsed() < Duration::from_secs(8));
}
