//! What a program that txfs starts gets of it: nothing of the state directory. A lock would be held for as long as that program
//! lives, or a daemon that it leaves behind.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Prints where its descriptors lead to.
const LIST: &str = "for descriptor in /proc/self/fd/*; do readlink $descriptor || :; done";

#[test]
fn a_program_that_txfs_starts_has_none_of_its_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_txfs"));
    command.args(["run", "dist", "--allow-empty", "--check", LIST, "--", "sh", "-c", LIST]);
    let output = command.current_dir(&root).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // A check prints to stderr.
    for (whose, printed) in [("the command", output.stdout), ("the check", output.stderr)] {
        let printed = String::from_utf8(printed).unwrap();
        let descriptors: Vec<PathBuf> = printed.lines().map(PathBuf::from).collect();
        assert!(descriptors.contains(&PathBuf::from("/dev/null")), "{whose}: {printed}");
        assert!(!descriptors.iter().any(|at| at.starts_with(&root)), "{whose}: {printed}");
    }
}
