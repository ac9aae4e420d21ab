//! How a command runs and ends: what outlives it, and what a kill of its caller leaves.

use std::fs::{self};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgrp};
use txfs_capture::{Capture, Error, Linger, Root, remove};

use super::{World, tree};

#[test]
fn the_command_runs_as_it_would() {
    let world = World::new();
    let script = "id -u; id -g; pwd; echo $MARK; ulimit -n; umask; cut -d' ' -f5 /proc/self/stat; test -t 0 || echo no";
    let run = |command: &mut Command| {
        let command = command.args(["-c", script]).env("MARK", "here").stdin(Stdio::null());
        command.current_dir(world.at("dist/sub")).stdout(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
    };
    let bare = String::from_utf8(run(&mut Command::new("sh")).stdout).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("MARK", "here").stdin(Stdio::null()).current_dir(world.at("dist/sub"));
    let (child, running) = world.overlay().spawn(command.stdout(Stdio::piped())).unwrap();
    let output = child.wait_with_output().unwrap();
    running.end().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), bare);
    assert!(bare.contains(&format!("{}\nno\n", getpgrp())), "{bare}");
    // It is in the output as it is captured.
    let mut command = Command::new("sh");
    command.args(["-ec", "echo 1 > here; rm b"]).current_dir(world.at("dist/sub"));
    let (mut child, running) = world.overlay().spawn(&mut command).unwrap();
    assert!(child.wait().unwrap().success());
    let captured = running.end().unwrap();
    assert!(matches!(captured.root, Root::Upper(upper) if upper.join("sub/here").exists()));
}

#[test]
fn how_it_ends_is_how_it_ends() {
    let world = World::new();
    assert_eq!(world.sh("exit 7").status.code(), Some(7));
    assert_eq!(world.sh("kill -TERM $$").status.signal(), Some(Signal::SIGTERM as i32));
    assert_eq!(world.sh("kill -KILL $$").status.signal(), Some(Signal::SIGKILL as i32));
    let missing = world.overlay().spawn(&mut Command::new("/nonexistent/program"));
    assert!(matches!(missing, Err(Error::Command(error)) if error.kind() == std::io::ErrorKind::NotFound));
}

#[test]
fn signals_reach_the_command() {
    let world = World::new();
    let script = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut command = Command::new("sh");
    let (mut child, running) = world.overlay().spawn(command.args(["-c", script]).stdout(Stdio::piped())).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).unwrap();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "got\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    running.end().unwrap();
}

#[test]
fn what_outlives_the_command_is_ended_or_waited_for() {
    let world = World::new();
    let began = Instant::now();
    let outcome = world.sh("(setsid sh -c 'sleep 60; echo late > dist/late' >/dev/null 2>&1 &)").ok();
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(!outcome.captured.outlived.is_empty());
    assert!(!outcome.upper().join("late").exists());
    // One that does not want to.
    let script =
        "(setsid sh -c 'trap \"\" TERM; touch ready; sleep 60; sleep 60; echo late > dist/late' >/dev/null 2>&1 &)
                  while ! test -e ready; do sleep 0.01; done";
    assert!(world.sh(script).ok().captured.outlived.contains(&"sh".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(40));
    remove(&world.at("place"), None).unwrap();
    let waiting = world.overlay().linger(Linger::Wait);
    let script = "(setsid sh -c 'sleep 0.3; echo late > dist/late' >/dev/null 2>&1 &)";
    let outcome = world.run(&waiting, Command::new("sh").args(["-c", script])).ok();
    assert!(outcome.captured.outlived.is_empty());
    assert!(outcome.upper().join("late").exists());
}

/// Processes that were begun for the world by [`a_caller_that_is_killed`].
fn running_in(world: &World) -> Vec<String> {
    let mark = format!("CAPTURE_CALLER={}\0", world.dir.path().display());
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_marked = |pid: &String| {
        let environ = fs::read(format!("/proc/{pid}/environ"));
        environ.is_ok_and(|environ| environ.windows(mark.len()).any(|window| window == mark.as_bytes()))
    };
    pids.filter(is_marked).collect()
}

/// Not a test of its own: a caller that can be killed.
#[test]
fn a_caller_that_is_killed() {
    let Some(dir) = std::env::var_os("CAPTURE_CALLER").map(PathBuf::from) else { return };
    let script = format!(
        "cd {}; while :; do rm -rf dist; mkdir dist; (sleep 50 & echo 1 > dist/n); mkdir t; mv t dist/t; mv dist old; mkdir dist; rm -rf old; done",
        dir.display()
    );
    let capture = Capture::overlay(&dir.join("dist"), &dir.join("place"), "stage").unwrap();
    let (mut child, running) = capture.spawn(Command::new("sh").args(["-ec", &script])).unwrap();
    fs::write(dir.join("began"), "").unwrap();
    child.wait().unwrap();
    assert!(matches!(running.end(), Err(Error::Killed)));
}

#[test]
fn a_kill_at_any_moment_leaves_the_output_and_no_process() {
    let seconds = std::env::var("TXFS_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(4);
    let end = Instant::now() + Duration::from_secs(seconds);
    for round in 0_u64.. {
        if Instant::now() > end && round > 10 {
            break;
        }
        let world = World::new();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "running::a_caller_that_is_killed"])
            .env("CAPTURE_CALLER", world.dir.path())
            .stdout(Stdio::null());
        let mut caller = command.spawn().unwrap();
        while round % 3 != 0 && !world.at("began").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(round * 7919 % 40_000));
        if round % 3 == 2 {
            // The keeper instead.
            let children = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.to_owned();
                (comm.trim() == "txfs-capture" && parent == caller.id().to_string()).then_some(pid)
            });
            children.for_each(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default());
        } else {
            caller.kill().unwrap();
        }
        caller.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            // A new process may have a lower number than the one that began it, and be missed once.
            let left = [running_in(&world), running_in(&world)].concat();
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "round {round}: {left:?} run still");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(tree(&world.at("dist")), world.before);
        remove(&world.at("place"), None).unwrap();
        assert_eq!(fs::read_dir(world.at("place")).unwrap().count(), 1, "only the stage is left");
    }
}

#[test]
fn many_threads_write_at_once() {
    let world = World::new();
    let script = "for i in 1 2 3 4; do (for j in 1 2 3 4 5 6 7 8 9; do mkdir -p dist/d$i/$j; echo $j > dist/d$i/$j/f; mv dist/d$i/$j dist/d$i/m$j; done) & done; wait; find dist/d? -type f | wc -l";
    assert_eq!(world.sh(script).ok().stdout.trim(), "36");
}
