//! The ways out that messages of recovery name, seen through the binary: they are pasted, and work.
#![allow(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use txfs_testing as common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use common::faulty::{Call, Faulty};
use common::{Scratch, lenient, publish, skip};
use nix::errno::Errno;
use txfs::{BeginOptions, OpenOptions, Store};

struct Said {
    code: Option<i32>,
    err: String,
}

fn sh(dir: &Path, script: &str) -> Said {
    let binary = Path::new(env!("CARGO_BIN_EXE_txfs"));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(dir).env("PATH", path).stdin(Stdio::null());
    let output = command.output().unwrap();
    Said { code: output.status.code(), err: String::from_utf8(output.stderr).unwrap() }
}

/// The commands between backquotes in a message.
fn commands(err: &str) -> Vec<&str> {
    err.split('`').skip(1).step_by(2).filter(|command| command.starts_with("txfs ")).collect()
}

/// A process was killed after some operations of a commit, and somebody removed a directory of the output.
fn cut_short(dir: &Path) {
    let out = dir.join("dist");
    let store = Store::open(&out).unwrap();
    publish(&store, &[("d/a", "1"), ("d/b", "1"), ("z", "1")]).unwrap();
    fs::write(out.join("d/foreign"), "mine").unwrap();
    let moves = AtomicUsize::new(0);
    let kernel = Faulty::new(move |call| {
        let is_move =
            matches!(call, Call::Rename { name, .. } if !name.starts_with(b"journal") && !name.starts_with(b"HEAD"));
        let before = if is_move { moves.fetch_add(1, Ordering::SeqCst) } else { moves.load(Ordering::SeqCst) };
        (before >= 2).then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    for (path, content) in [("d/a", "two"), ("d/b", "two"), ("d/n", "two"), ("z", "two")] {
        transaction.write(path, content).unwrap();
    }
    transaction.commit(&lenient()).unwrap_err();
    drop(transaction);
    fs::remove_dir_all(out.join("d")).unwrap();
}

#[test]
fn each_way_out_that_a_refusal_names_works_when_it_is_pasted() {
    let mut pasted = 0;
    for which in 0.. {
        let dir = Scratch::new();
        cut_short(dir.path());
        let refused = sh(dir.path(), "txfs recover dist");
        assert_eq!(refused.code, Some(6), "{}", refused.err);
        let Some(&command) = commands(&refused.err).get(which) else { break };
        let said = sh(dir.path(), command);
        assert_eq!(said.code, Some(0), "{command}: {}", said.err);
        assert!(said.err.contains("left as found") && said.err.contains("rescued"), "{command}: {}", said.err);
        let z = fs::read_to_string(dir.path().join("dist/z")).unwrap();
        assert_eq!(z, if command.contains("--undo") { "1" } else { "two" }, "{command}");
        let again =
            sh(dir.path(), "mkdir src src/d; echo 3 > src/d/a; txfs publish --allow-drift --max-removed 100 dist src");
        assert_eq!(again.code, Some(0), "{command}: {}", again.err);
        pasted += 1;
    }
    assert_eq!(pasted, 2);
}

/// As after a conflict: a build may have taken an hour.
#[test]
fn run_keeps_a_stage_whose_commit_was_rolled_back_for_an_error() {
    if !common::is_root() {
        // Nobody else makes a file immutable.
        return;
    }
    let dir = Scratch::new();
    let build = |content: &str| format!(r#"txfs run -q dist -- sh -c 'echo {content} > "$TXFS_STAGE/i"'"#);
    assert_eq!(sh(dir.path(), &build("1")).code, Some(0));
    if sh(dir.path(), "chattr +i dist/i").code != Some(0) {
        return skip("run_keeps_a_stage_whose_commit_was_rolled_back_for_an_error", "no file can be made immutable");
    }
    let failed = sh(dir.path(), &build("an-hour"));
    sh(dir.path(), "chattr -i dist/i");
    assert_eq!(failed.code, Some(125), "{}", failed.err);
    assert!(failed.err.contains("the stage is kept at"), "{}", failed.err);
    let commit = commands(&failed.err).into_iter().find(|command| command.starts_with("txfs commit ")).unwrap();
    let committed = sh(dir.path(), commit);
    assert_eq!(committed.code, Some(0), "{commit}: {}", committed.err);
    assert_eq!(fs::read_to_string(dir.path().join("dist/i")).unwrap(), "an-hour\n");
}
