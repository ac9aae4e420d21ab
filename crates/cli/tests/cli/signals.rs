//! A signal ends a command only while nothing was changed, and what txfs runs has it too.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use fs2::FileExt;

use super::{Ended, Scratch, end, signal, wait_for};

/// Whether this process, and so every child of it, ignores the signal.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << (signal - 1)) != 0
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
        return txfs_testing::skip("a signal in the middle of a commit", "there is no strace");
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
        return txfs_testing::skip("a signal in the middle of a recovery", "there is no strace");
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
