//! What a user reads: arguments, names and errors of the system, each on a line and with a way out.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use fs2::FileExt;
use nix::errno::Errno;
use serde_json::Value;

use super::{Ended, Scratch};

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
    if !txfs_testing::is_root() {
        return txfs_testing::skip("no thread for signals", "becoming another user needs root");
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
