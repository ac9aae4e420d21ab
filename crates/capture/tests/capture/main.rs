//! Programs whose writes are captured: as the user who runs the tests, and, where that is root, as an ordinary one, too.

#![allow(clippy::unwrap_used)]

use std::fs::{self};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use nix::unistd::geteuid;
use tempfile::TempDir;
use txfs_capture::{Capture, Captured, Root, remove};

mod filter;
mod refused;
mod running;
mod written;

/// A project with an output `dist`, and a place for what is captured.
struct World {
    dir: TempDir,
    before: Vec<String>,
}

struct Outcome {
    status: ExitStatus,
    captured: Captured,
    stdout: String,
}

impl World {
    fn new() -> Self {
        Self::with(|dist| {
            fs::create_dir_all(dist.join("sub/deep")).unwrap();
            fs::write(dist.join("a"), "old a\n").unwrap();
            fs::write(dist.join("sub/b"), "old b\n").unwrap();
            fs::write(dist.join("sub/deep/c"), "old c\n").unwrap();
            symlink("a", dist.join("link")).unwrap();
        })
    }

    fn with(fill: impl FnOnce(&Path)) -> Self {
        let dir = TempDir::new().unwrap();
        for name in ["dist", "place", "place/stage"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fill(&dir.path().join("dist"));
        let before = tree(&dir.path().join("dist"));
        Self { dir, before }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn overlay(&self) -> Capture {
        Capture::overlay(&self.at("dist"), &self.at("place"), "stage").unwrap()
    }

    fn directory(&self) -> Capture {
        Capture::directory(&self.at("dist"), &self.at("place"), "stage").unwrap()
    }

    fn sh(&self, script: &str) -> Outcome {
        self.run(&self.overlay(), Command::new("sh").args(["-ec", script]))
    }

    fn run(&self, capture: &Capture, command: &mut Command) -> Outcome {
        let before = tree(&self.at("dist"));
        let command = command.current_dir(self.dir.path()).stdout(Stdio::piped());
        let (mut child, running) = capture.spawn(command).unwrap();
        let mut stdout = String::new();
        child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let status = child.wait().unwrap();
        let captured = running.end().unwrap();
        assert_eq!(tree(&self.at("dist")), before, "the output has changed");
        assert!(!captured.survived);
        Outcome { status, captured, stdout }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if !self.before.is_empty() {
            assert_eq!(tree(&self.at("dist")), self.before, "the output has changed");
        }
        remove(&self.at("place"), None).unwrap();
    }
}

impl Outcome {
    fn ok(self) -> Self {
        assert!(self.status.success(), "{:?}: {}", self.status, self.stdout);
        self
    }

    fn whole(&self) -> &Path {
        let Root::Whole(root) = &self.captured.root else { panic!("{:?}", self.captured) };
        root
    }

    fn upper(&self) -> &Path {
        let Root::Upper(root) = &self.captured.root else { panic!("{:?}", self.captured) };
        root
    }
}

/// Everything in a directory, with kind, mode, size and content.
fn tree(at: &Path) -> Vec<String> {
    fn walk(at: &Path, name: &str, lines: &mut Vec<String>) {
        let stat = fs::symlink_metadata(at).unwrap();
        let content = match () {
            () if stat.is_symlink() => fs::read_link(at).unwrap().display().to_string(),
            () if stat.is_file() => String::from_utf8_lossy(&fs::read(at).unwrap()).chars().take(100).collect(),
            () => String::new(),
        };
        lines.push(format!("{name} {:o} {content:?}", stat.mode()));
        if stat.is_dir() {
            let mut names: Vec<_> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            for below in names {
                let below = below.to_string_lossy().into_owned();
                walk(&at.join(&below), &format!("{name}/{below}"), lines);
            }
        }
    }
    let mut lines = Vec::new();
    if at.exists() {
        walk(at, ".", &mut lines);
    }
    lines
}

fn names(at: &Path) -> Vec<String> {
    tree(at).iter().skip(1).map(|line| line.split(' ').next().unwrap()[2..].to_owned()).collect()
}

/// All of the others once more, without root's rights.
#[test]
fn an_ordinary_user_has_the_same() {
    if !geteuid().is_root() {
        return;
    }
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let copy = dir.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let status = Command::new("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
        .arg(&copy)
        .args(["--test-threads", "2"])
        .env("TMPDIR", dir.path())
        .env("HOME", dir.path())
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(status.success());
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-aT").arg(from).arg(to).status().unwrap().success());
}
