//! What file systems lack: of what no build may rest on, the user learns before anything is built.
#![allow(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use txfs_testing::mounts::{self, Mount};
use txfs_testing::skip;

struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ended {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "`{text}` is not in: {}", self.err);
        self
    }

    #[track_caller]
    fn says_nothing_of(self, text: &str) -> Self {
        assert!(!self.err.contains(text), "`{text}` is in: {}", self.err);
        self
    }
}

fn ended(command: &mut Command) -> Ended {
    let output = command.stdin(Stdio::null()).output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn binary() -> PathBuf {
    std::env::var_os("TXFS_BINARY").unwrap_or(env!("CARGO_BIN_EXE_txfs").into()).into()
}

fn txfs(dir: &Path, arguments: &[&str]) -> Ended {
    ended(Command::new(binary()).args(arguments).current_dir(dir))
}

/// Builds one page.
fn build(dir: &Path, out: &str, options: &[&str]) -> Ended {
    txfs(dir, &[&["run", out], options, &["--stage", "--", "sh", "-c", PAGE]].concat())
}

const PAGE: &str = "echo one > \"$TXFS_STAGE/index.html\"";

#[track_caller]
fn mounted(name: &str, mount: Result<Mount, String>) -> Option<Mount> {
    mount.inspect_err(|why| skip(name, why)).ok()
}

/// What is written to an overlay is as durable as its upper layer is.
#[test]
fn an_overlay_is_said_to_lose_commits_where_its_mount_or_its_upper_layer_does() {
    let Some(without) = mounted("ext2", mounts::mount("ext2")) else { return };
    let Some(with) = mounted("ext4", mounts::mount("ext4")) else { return };
    let volatile = mounts::overlay_over(with.path(), "volatile", "volatile");
    let Some(volatile) = mounted("a volatile overlay", volatile) else { return };
    let Some(over) = mounted("an overlay", mounts::overlay_over(without.path(), "with, comma", "index=off")) else {
        return;
    };
    let Some(plain) = mounted("an overlay", mounts::overlay_over(with.path(), "plain", "index=off")) else { return };
    for (mount, cause) in [(&volatile, "does not wait for the disk"), (&over, "no journal")] {
        build(mount.path(), "site", &[]).expect(0).says(cause);
        let status = txfs(mount.path(), &["status", "site"]).expect(0).out;
        assert!(status.contains(cause), "{status}");
    }
    build(plain.path(), "site", &[]).expect(0).says_nothing_of("loss of power");
    assert!(!txfs(plain.path(), &["status", "site"]).expect(0).out.contains("beware"));
}
