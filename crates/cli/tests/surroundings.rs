//! What the command needs of the machine around it: neither /dev nor /proc, nor a current directory that is still there.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn txfs(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_txfs")).args(arguments).current_dir(dir).output().unwrap()
}

#[track_caller]
fn text(output: &Output) -> String {
    String::from_utf8([&*output.stdout, &*output.stderr].concat()).unwrap()
}

/// As in a chroot: an empty directory is all that is left of /dev and /proc.
#[test]
fn every_command_works_without_dev_and_proc() {
    if !txfs_testing::is_root() {
        return txfs_testing::skip("without /dev and /proc", "mounting needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("src")).unwrap();
    fs::write(dir.path().join("src/a"), "one").unwrap();
    let bare = |command: &str| {
        let script = format!(
            "mount --make-rprivate / && mount -t tmpfs none /dev && mount -t tmpfs none /proc && exec \"$TXFS\" {command}"
        );
        let mut shell = Command::new("unshare");
        shell.args(["-m", "sh", "-c", &script]).env("TXFS", env!("CARGO_BIN_EXE_txfs")).current_dir(dir.path());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{command}: {}", text(&output));
        output
    };
    bare("publish dist src --check 'cat; test -e a'");
    bare("run dist -- sh -c 'echo two > \"$TXFS_STAGE/a\"'");
    bare("begin dist --from copy");
    bare("commit dist");
    bare("rollback dist");
    bare("verify dist");
    let status = text(&bare("status dist"));
    assert!(status.contains("generation:   3"), "{status}");
    assert_eq!(txfs_testing::read(dir.path(), "dist/a"), "one");
}

#[test]
fn a_current_directory_that_was_removed_is_named_as_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let from_nowhere = |command: &str| {
        let script = format!("mkdir gone && cd gone && rmdir ../gone && exec \"$TXFS\" {command}");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).env("TXFS", env!("CARGO_BIN_EXE_txfs")).current_dir(&root);
        shell.output().unwrap()
    };
    let refused = from_nowhere("status dist");
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused).contains("the current directory was removed"), "{}", text(&refused));
    let named = root.join("dist");
    let run = from_nowhere(&format!("run '{}' -- sh -c 'echo 1 > \"$TXFS_STAGE/a\"' 2>/dev/null", named.display()));
    assert!(run.status.success(), "{}", text(&run));
    let status = text(&txfs(&root, &["status", "dist"]));
    assert!(status.contains("generation:   1"), "{status}");
}
