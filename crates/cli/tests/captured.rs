//! `txfs run` of commands that know nothing of txfs: as the user who runs the tests, and, where that is root, as an ordinary one, too.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use txfs_testing::is_root;

use project::{Ended, Project, wait_for};

mod project;

/// With a generation of four files.
fn published() -> Project {
    let project = Project::new();
    project.build(&[], "mkdir -p dist/d/e; for f in a b d/c d/e/f; do echo $f > dist/$f; done").is(0);
    project
}

/// What is looked at where the command is captured.
trait Captured {
    /// `txfs run dist OPTIONS -- sh -ec SCRIPT`, with all guards.
    fn build(&self, options: &[&str], script: &str) -> Ended;

    /// Every path of the output with its mode and content.
    fn tree(&self) -> Vec<String>;

    fn is_clean(&self);
}

impl Captured for Project {
    fn build(&self, options: &[&str], script: &str) -> Ended {
        self.txfs([&["run", "dist"], options, &["--", "sh", "-ec", script]].concat())
    }

    fn tree(&self) -> Vec<String> {
        tree(&self.at("dist"))
    }

    fn is_clean(&self) {
        let state = self.at(".dist.txfs");
        assert_eq!(fs::read_dir(state.join("tx")).unwrap().count(), 0, "a transaction is left");
        self.txfs(["verify", "dist"]).is(0);
    }
}

fn tree(at: &Path) -> Vec<String> {
    fn walk(at: &Path, name: &str, lines: &mut Vec<String>) {
        let stat = fs::symlink_metadata(at).unwrap();
        let content = if stat.is_file() { fs::read_to_string(at).unwrap() } else { String::new() };
        lines.push(format!("{name} {:o} {}", stat.mode() & 0o7777, content.trim()));
        if stat.is_dir() {
            let mut names: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            for below in names {
                walk(&at.join(&below), &format!("{name}/{}", below.display()), lines);
            }
        }
    }
    let mut lines = Vec::new();
    if at.exists() {
        walk(at, ".", &mut lines);
    }
    lines
}

#[test]
fn an_ordinary_user_has_the_same() {
    if !is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for (from, to) in [(std::env::current_exe().unwrap(), "tests"), (env!("CARGO_BIN_EXE_txfs").into(), "txfs")] {
        fs::copy(from, dir.path().join(to)).unwrap();
        fs::set_permissions(dir.path().join(to), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let status = Command::new("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
        .arg(dir.path().join("tests"))
        .args(["--test-threads", "2"])
        .env("TMPDIR", dir.path())
        .env("HOME", dir.path())
        .env("TXFS_BINARY", dir.path().join("txfs"))
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn what_a_command_makes_of_the_output_is_published() {
    let project = published();
    let kept = fs::metadata(project.at("dist/d/e/f")).unwrap().ino();
    project
        .build(&[], "cat dist/a >> dist/b; rm dist/d/c; echo new > dist/n; chmod 600 dist/a; chmod 700 dist/d")
        .is(0);
    let tree = project.tree();
    assert_eq!(
        tree[1..],
        ["./a 600 a", "./b 644 b\na", "./d 700 ", "./d/e 755 ", "./d/e/f 644 d/e/f", "./n 644 new"].map(str::to_owned)
    );
    assert_eq!(fs::metadata(project.at("dist/d/e/f")).unwrap().ino(), kept, "what did not change is not touched");
    for path in ["dist/a", "dist/d", "dist/b"] {
        assert_eq!(xattrs(&project.at(path)), "", "{path}");
    }
    project.is_clean();
}

fn xattrs(path: &Path) -> String {
    let script = "import os, sys; print(' '.join(os.listxattr(sys.argv[1])), end='')";
    Command::new("python3")
        .args(["-c", script])
        .arg(path)
        .output()
        .map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn the_output_may_be_removed_and_made_anew_moved_onto_and_moved_away() {
    for script in [
        "rm -rf dist; mkdir dist; echo 1 > dist/a; echo n > dist/n; echo m > dist/m",
        "mkdir t; echo 1 > t/a; echo n > t/n; echo m > t/m; rm -rf dist; mv t dist",
        "mkdir t; echo 1 > t/a; echo n > t/n; echo m > t/m; rm -rf dist; cp -r t dist; rm -r t",
        "mv dist old; mkdir dist; echo 1 > dist/a; echo n > dist/n; echo m > dist/m; rm -r old",
        "rm -r dist/*; echo 1 > dist/a; echo n > dist/n; echo m > dist/m",
    ] {
        for options in [&[][..], &["--capture", "overlay"], &["--capture", "copy"], &["--from", "copy"]] {
            let project = published();
            project.build(options, script).is(0);
            assert_eq!(
                project.tree()[1..],
                ["./a 644 1", "./m 644 m", "./n 644 n"].map(str::to_owned),
                "{script} {options:?}"
            );
            assert_eq!(project.generation(), 2);
            project.is_clean();
            assert_eq!(fs::read_dir(project.at("")).unwrap().count(), 2, "{script}: the output and its state");
        }
    }
}

#[test]
fn nothing_changes_where_the_command_fails_or_changes_nothing() {
    let project = published();
    let before = project.tree();
    for (script, code) in [
        ("rm -rf dist; mkdir dist; echo 1 > dist/n; exit 7", 7),
        ("rm -rf dist; exit 1", 1),
        ("echo x > dist/a; kill -9 $$", 137),
        ("true", 0),
        ("cat dist/a > t; cat t > dist/a; rm t", 0),
        ("rm -rf dist; cp -r .keep dist", 0),
    ] {
        let _ = fs::remove_dir_all(project.at(".keep"));
        assert!(
            Command::new("cp").arg("-r").arg(project.at("dist")).arg(project.at(".keep")).status().unwrap().success()
        );
        project.build(&[], script).is(code);
        assert_eq!(project.tree(), before, "{script}");
        assert_eq!(project.generation(), 1);
        project.is_clean();
    }
}

#[test]
fn readers_outside_see_nothing_until_the_commit_and_the_command_its_own() {
    let project = published();
    let script = "rm -rf dist; mkdir dist; echo new > dist/a; echo 1 > dist/1; echo 2 > dist/2; touch ready; until test -e go || ! test -e ready; do sleep 0.01; done; cat dist/a";
    let before = project.tree();
    let child = project.command(["run", "dist", "--", "sh", "-ec", script]).stdout(Stdio::piped()).spawn().unwrap();
    wait_for("ready", || project.at("ready").exists());
    assert_eq!(project.tree(), before);
    fs::write(project.at("go"), "").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"new\n");
    assert_eq!(project.tree()[1..], ["./1 644 1", "./2 644 2", "./a 644 new"].map(str::to_owned));
}

#[test]
fn the_command_finds_the_output_by_its_variables_and_may_begin_with_nothing() {
    let project = published();
    fs::write(
        project.at("build"),
        "#!/bin/sh\nset -e\necho 1 > \"$TXFS_STAGE/n\"\ntest \"$TXFS_STAGE\" = \"$TXFS_OUTPUT\"\n",
    )
    .unwrap();
    fs::set_permissions(project.at("build"), fs::Permissions::from_mode(0o755)).unwrap();
    project.txfs(["run", "dist", "--", "./build"]).is(0);
    assert!(project.tree().contains(&"./n 644 1".to_owned()) && project.tree().contains(&"./a 644 a".to_owned()));
    let script = "test -z \"$(ls -A dist)\"; for f in 1 2 3; do echo $f > dist/$f; done";
    project.build(&["--from", "empty", "--max-removed", "100"], script).is(0);
    assert_eq!(project.tree()[1..], ["./1 644 1", "./2 644 2", "./3 644 3"].map(str::to_owned));
    // A stage is empty, and elsewhere.
    project.txfs(["run", "dist", "--stage", "--max-removed", "100", "--", "./build"]).is(1);
    project.build(&["--max-removed", "100"], "echo 1 > {stage}/1; test ! -e {stage}/2").is(0);
    assert_eq!(project.tree()[1..], ["./1 644 1".to_owned()]);
}

#[test]
fn a_build_that_lost_its_files_is_refused() {
    let project = published();
    let before = project.tree();
    project.build(&[], "rm -rf dist/*").is(5).says("the command left no file in the output");
    project.build(&[], "rm -rf dist").is(5).says("the command left no file in the output");
    project.build(&[], "rm -rf dist; mkdir dist; echo a > dist/a").is(5).says("--max-removed");
    project.build(&[], "rm -rf dist/a dist/d").is(5).says("--max-removed");
    assert_eq!(project.tree(), before);
    project.is_clean();
    project.build(&["--max-removed", "100"], "rm -rf dist/a dist/d").is(0);
    project.build(&["--allow-empty"], "rm -rf dist/*").is(0);
    assert_eq!(project.tree().len(), 1);
}

#[test]
fn an_output_that_is_not_there_is_made_by_the_first_commit() {
    let project = Project::new();
    project.build(&[], "test ! -e dist; exit 3").is(3);
    assert!(!project.at("dist").exists());
    project.build(&[], "true").is(5).says("the command left no file in the output");
    assert!(!project.at("dist").exists());
    project.build(&[], "mkdir t; echo 1 > t/n; cp -r t dist").is(0);
    assert_eq!(project.tree()[1..], ["./n 644 1".to_owned()]);
    fs::remove_dir_all(project.at("dist")).unwrap();
    project.build(&[], "test ! -e dist; mkdir dist; echo 1 > dist/n").is(0);
    assert_eq!(project.tree()[1..], ["./n 644 1".to_owned()]);
}

#[test]
fn checks_see_the_output_as_a_whole() {
    let project = published();
    let check = "test -s a && test -s n && test ! -e b && echo $TXFS_STAGE > checked";
    project.build(&["--check", check], "echo n > dist/n; rm dist/b").is(0);
    assert!(project.tree().iter().any(|line| line.starts_with("./checked 644 ")));
    let before = project.tree();
    project.build(&["--check", "test -e b", "--check", "true"], "echo m > dist/m").is(5).says("check `test -e b`");
    project.build(&["--dry-run", "--check", "test -e m"], "echo m > dist/m").is(0).says("would publish");
    assert_eq!(project.tree(), before);
    project.is_clean();
}

#[test]
fn what_outlives_the_command_is_ended_or_waited_for() {
    let project = published();
    let script = "(setsid sh -c 'sleep 0.5; echo late > dist/late' > /dev/null 2>&1 &)";
    project.build(&[], script).is(0).says("ended what outlived `sh`: ");
    assert!(!project.at("dist/late").exists());
    project.build(&["--wait-children"], script).is(0);
    assert!(project.at("dist/late").exists());
}

#[test]
fn a_rename_of_a_published_directory_is_served_by_a_copy() {
    let project = published();
    let script = "import os; os.rename('dist/d', 'dist/moved')";
    if project.txfs(["run", "dist", "--", "python3", "-c", script]).0.status.code() == Some(127) {
        return;
    }
    assert!(project.at("dist/d").exists());
    project.txfs(["run", "dist", "--capture", "copy", "--", "python3", "-c", script]).is(0);
    assert!(project.at("dist/moved/e/f").exists() && !project.at("dist/d").exists());
}

#[test]
fn txfs_inside_the_command_leaves_the_captured_output_alone_and_is_no_second_capture() {
    let project = published();
    let binary = project.command([]).get_program().to_str().unwrap().to_owned();
    let inner = |words: &str| project.build(&[], &format!("{binary} {words}"));
    let before = project.tree();
    fs::create_dir(project.at("src")).unwrap();
    inner("publish dist src").is(2).says("this command runs in `txfs run");
    inner("status ./dist/").is(2);
    inner("run other -- sh -c 'mkdir other; echo 1 > other/n'").is(125).says("another capture").says("--stage");
    assert!(!project.at("other").exists());
    // Named by its arguments the stage would be the outer one's.
    fs::write(project.at("build"), "echo 1 > \"$TXFS_STAGE/n\"\n").unwrap();
    inner("run other --stage -- sh build").is(0);
    assert_eq!(fs::read_to_string(project.at("other/n")).unwrap(), "1\n");
    assert_eq!(project.tree(), before);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_runs() {
    let project = published();
    for options in [
        &["--remove", "a"][..],
        &["--stage", "--capture", "auto"],
        &["--from", "empty", "--capture", "copy"],
        &["--adopt-all", "--capture", "overlay"],
        &["--adopt-all", "--from", "current"],
        &["--stage", "--adopt-all", "--from", "current"],
        &["--stage", "--remove", "a"],
        &["--stage", "--from", "copy", "--remove", "a"],
        &["--stage", "--from", "current", "--remove", "../a"],
        &["--stage", "--from", "current", "--remove", "."],
        &["--stage", "--from", "current", "--at", "d", "--remove", "."],
    ] {
        project.build(options, "touch ran").is(125);
        assert!(!project.at("ran").exists(), "{options:?}");
    }
    project.txfs(["run", "dist", "--", "/nonexistent/program"]).is(127);
    project.is_clean();
}

/// Whatever the command did to the output, and whatever is in the way.
#[test]
fn what_met_a_conflict_is_kept_and_is_published_once_that_is_gone() {
    for options in [&[][..], &["--capture", "copy"]] {
        let project = published();
        fs::write(project.at("dist/n"), "foreign").unwrap();
        let script = "rm -rf dist/d; rm dist/b; mkdir dist/d; echo c > dist/d/c; chmod 711 dist/d; echo n > dist/n";
        let stage = project.build(options, script).is(4).says("in the way: n").stage();
        let before = project.tree();
        project.txfs(["diff", "dist"]).is(0);
        project.txfs(["commit", &stage]).is(4);
        assert_eq!(project.tree(), before);
        fs::remove_file(project.at("dist/n")).unwrap();
        project.txfs(["commit", &stage]).is(0);
        assert_eq!(project.tree()[1..], ["./a 644 a", "./d 711 ", "./d/c 644 c", "./n 644 n"].map(str::to_owned));
        project.is_clean();
    }
}

#[test]
fn what_somebody_else_changed_costs_no_build() {
    for build in ["rm dist/b", "rm -rf dist/*; echo b > dist/b; echo c > dist/c"] {
        let project = published();
        fs::write(project.at("dist/a"), "theirs").unwrap();
        let stage = project.build(&["--max-removed", "100"], &format!("{build}; echo hour > dist/a")).is(4).stage();
        project.txfs(["commit", &stage, "--allow-drift", "--max-removed", "100"]).is(0);
        assert!(project.tree().contains(&"./a 644 hour".to_owned()), "{build}");
        project.is_clean();
    }
}

#[test]
fn what_another_generation_overtook_is_kept() {
    let project = published();
    let script = "rm dist/b; echo hour > dist/a; touch ready; until test -e go; do sleep 0.01; done";
    let run = project.command(["run", "dist", "--", "sh", "-ec", script]).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("ready", || project.at("ready").exists());
    project.txfs(["run", "dist", "--stage", "--from", "current", "--", "sh", "-c", "echo 1 > $TXFS_STAGE/1"]).is(0);
    fs::write(project.at("go"), "").unwrap();
    let stage = Ended(run.wait_with_output().unwrap()).is(4).says("generation 2 was committed since").stage();
    assert_eq!(fs::read_to_string(project.at(&stage).join("a")).unwrap(), "hour\n");
}

/// As a file system that fails does it.
#[test]
fn what_a_failing_disk_took_back_is_kept() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("no strace");
        return;
    }
    for which in [1, 2] {
        let project = published();
        let script = "rm dist/b dist/d/c; echo hour > dist/a";
        let inject = format!("inject=renameat2:error=EIO:when={which}");
        // txfs alone is traced: the command has a supervisor of its calls already.
        let mut command = Command::new("strace");
        command.args(["-o", "/dev/null", "-e", "trace=renameat2", "-e", &inject]);
        command.arg(project.command([]).get_program()).args(["run", "dist", "--", "sh", "-ec", script]);
        let ended = Ended(command.current_dir(project.0.path()).output().unwrap());
        let stage = ended.is(125).says("rolled back, the output is unchanged").stage();
        project.txfs(["commit", &stage]).is(0);
        let rest = ["./a 644 hour", "./d 755 ", "./d/e 755 ", "./d/e/f 644 d/e/f"].map(str::to_owned);
        assert_eq!(project.tree()[1..], rest);
        project.is_clean();
    }
}

#[test]
fn what_failed_is_kept_where_that_was_said() {
    let rest = ["./a 644 hour", "./d 755 ", "./d/c 644 d/c"].map(str::to_owned);
    for options in [&["--keep-failed"][..], &["--keep-failed", "--capture", "copy"]] {
        let project = published();
        let before = project.tree();
        let script = "rm -r dist/b dist/d/e; echo hour > dist/a";
        let stage =
            project.build(options, &format!("{script}; exit 7")).is(7).says("publishes it all the same").stage();
        assert_eq!(project.tree(), before);
        project.txfs(["commit", &stage]).is(0);
        assert_eq!(project.tree()[1..], rest);
        project.is_clean();
    }
    let project = published();
    let script = "rm -r dist/b dist/d/e; echo hour > dist/a";
    let checked = project.build(&["--keep-failed", "--check", "test -e b"], script).is(5).says("check `test -e b`");
    project.txfs(["commit", &checked.stage()]).is(0);
    assert_eq!(project.tree()[1..], rest);
    // What changed nothing, and what did not run, is nothing to keep.
    let nothing = project.build(&["--keep-failed"], "exit 3").is(3);
    assert!(!String::from_utf8_lossy(&nothing.0.stderr).contains("kept at"));
    project.txfs(["run", "dist", "--keep-failed", "--", "/nonexistent/program"]).is(127);
    project.is_clean();
    // Nor does a file that says it for all builds keep this one from running.
    fs::write(project.at("txfs.toml"), "[output.dist]\nkeep-failed = true\n").unwrap();
    project.build(&[], "rm dist/d/c; exit 7").is(7).stage();
    project.build(&[], "rm dist/d/c; echo 1 > dist/d/1").is(0);
}

/// Killed at any moment, txfs leaves the old generation or the new one, and no process.
#[test]
fn a_kill_at_any_moment_leaves_the_old_generation_or_the_new_one() {
    let seconds = std::env::var("TXFS_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(5);
    let end = Instant::now() + Duration::from_secs(seconds);
    let project = Project::new();
    project.build(&[], "mkdir -p dist/x; for f in 1 2 3 x/4; do echo > dist/$f; done").is(0);
    let mut finished = 0_u32;
    for round in 0_u64.. {
        if round >= 30 && Instant::now() > end {
            break;
        }
        let before = project.tree();
        let script = match round % 3 {
            0 => format!("rm -rf dist; mkdir -p dist/x; for f in 1 2 3 x/4; do echo {round} > dist/$f; done"),
            1 => format!("mkdir -p t/x; for f in 1 2 3 x/4; do echo {round} > t/$f; done; rm -rf dist; mv t dist"),
            _ => format!(
                "for f in 1 2 3; do echo {round} > dist/$f; done; rm -rf dist/x; mkdir dist/x; echo {round} > dist/x/4"
            ),
        };
        let mut command = project.command(["run", "dist", "--max-removed", "100", "--", "sh", "-ec", &script]);
        let mut child = command.env("TXFS_ROUND", project.at("")).stderr(Stdio::null()).spawn().unwrap();
        // Up to a little more than it takes.
        std::thread::sleep(Duration::from_micros(round * 7_919 % 90_000));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(status.signal().is_some() || status.success());
        finished += u32::from(status.success());
        wait_for("the end", || running_in(&project).is_empty());
        project.txfs(["recover", "dist"]).is(0);
        let new: Vec<_> = ["./1", "./2", "./3", "./x/4"].map(|path| format!("{path} 644 {round}")).into();
        let tree = project.tree();
        let is_new = new.iter().all(|line| tree.contains(line)) && tree.len() == 6;
        assert!(tree == before || is_new, "round {round}: {before:?} became {tree:?}");
        project.is_clean();
        let _ = fs::remove_dir_all(project.at("t"));
    }
    println!("{finished} runs were finished before they were killed");
}

fn running_in(project: &Project) -> Vec<String> {
    let mark = format!("TXFS_ROUND={}\0", project.at("").display());
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_marked = |pid: &String| {
        let environ = fs::read(format!("/proc/{pid}/environ"));
        environ.is_ok_and(|environ| environ.windows(mark.len()).any(|window| window == mark.as_bytes()))
    };
    pids.filter(is_marked).collect()
}

#[test]
fn status_says_what_can_be_diverted_here_and_why_not() {
    let project = published();
    let names = || {
        let listed = fs::read_dir(project.at(".dist.txfs")).unwrap();
        listed.map(|entry| entry.unwrap().file_name()).collect::<std::collections::BTreeSet<_>>()
    };
    let before = names();
    let status = project.txfs(["status", "dist", "-v"]).is(0).out();
    assert!(status.contains("diverting:    by a"), "{status}");
    assert_eq!(names(), before, "something is left of trying it out");
    // A process tree has one supervisor of calls.
    let txfs = std::env::var("TXFS_BINARY").unwrap_or(env!("CARGO_BIN_EXE_txfs").into());
    let inside = project.txfs(["run", "other", "--from", "empty", "--", &txfs, "status", "dist", "-v"]).out();
    assert!(inside.contains("diverting:    not here") && inside.contains("another capture"), "{inside}");
}
