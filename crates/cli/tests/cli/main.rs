//! What the command `txfs` does, seen through the binary.
#![allow(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

mod guards;
mod json;
mod recovery;
mod run;
mod signals;
mod transactions;
mod words;

/// A directory to work in, with the output `dist`.
struct Scratch(TempDir);

/// How a command ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, path: &str) -> String {
        let path = self.at(path);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_txfs"));
        command.args(args).current_dir(self.0.path()).env("LC_ALL", "C").stdin(Stdio::null());
        command
    }

    fn txfs<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Ended {
        Ended::from(self.command(args).output().unwrap())
    }

    fn start<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// `txfs run dist ARGS -- sh -c SCRIPT`.
    fn run(&self, args: &[&str], script: &str) -> Ended {
        self.txfs([&["run", "dist"], args, &["--", "sh", "-c", script]].concat())
    }

    fn begin(&self, args: &[&str]) -> PathBuf {
        let begun = self.txfs([&["begin", "dist"], args].concat()).expect(0);
        PathBuf::from(begun.out.strip_suffix('\n').unwrap())
    }

    /// Publishes exactly these files.
    fn publish(&self, files: &[(&str, &str)]) {
        let _ = fs::remove_dir_all(self.at("src"));
        files.iter().for_each(|(path, content)| self.write(&format!("src/{path}"), content));
        self.txfs(["publish", "dist", "src", "--max-removed", "100"]).expect(0);
    }

    fn transactions(&self) -> usize {
        fs::read_dir(self.at(".dist.txfs/tx")).map_or(0, Iterator::count)
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ended {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        assert!(!self.err.contains("panicked"), "{}", self.err);
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "`{text}` is not in: {}", self.err);
        self
    }

    #[track_caller]
    fn says_nothing(self) -> Self {
        assert_eq!(self.err, "");
        self
    }

    /// Every line as JSON.
    #[track_caller]
    fn json(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
        let objects: Vec<Value> = self.out.lines().map(parse).collect();
        assert!(objects.iter().all(|object| object["v"] == 1), "{}", self.out);
        objects
    }
}

#[track_caller]
fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// Of a command that has to end now, and that writes little.
#[track_caller]
fn end(mut child: Child) -> Ended {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("waited in vain for its end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ended::from(child.wait_with_output().unwrap())
}
