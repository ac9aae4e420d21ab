//! A directory with an output, for tests of the command.

#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub, reason = "each test uses a part of it")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A directory to work in, with the output `dist`.
pub struct Project(pub TempDir);

#[derive(Debug)]
pub struct Ended(pub Output);

impl Project {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// With a first generation of `a` and `b`.
    pub fn published() -> Self {
        let project = Self::new();
        project.source(&["a", "b"], "1");
        project.publish(&[]).is(0);
        project
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(path)
    }

    pub fn write(&self, path: &str, content: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Gives `src` these files, and no others.
    pub fn source(&self, paths: &[&str], content: &str) {
        let _ = fs::remove_dir_all(self.at("src"));
        paths.iter().for_each(|path| self.write(&format!("src/{path}"), content));
    }

    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let binary = std::env::var_os("TXFS_BINARY").unwrap_or(env!("CARGO_BIN_EXE_txfs").into());
        let mut command = Command::new(binary);
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    pub fn txfs<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ended {
        Ended(self.command(arguments).output().unwrap())
    }

    pub fn publish(&self, options: &[&str]) -> Ended {
        self.txfs([&["publish", "dist", "src", "--max-removed", "100"], options].concat())
    }

    /// `txfs run dist OPTIONS -- sh -ec SCRIPT`.
    pub fn run(&self, options: &[&str], script: &str) -> Ended {
        self.txfs([&["run", "dist", "--max-removed", "100"], options, &["--", "sh", "-ec", script]].concat())
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// What is in a directory, apart from what is in its directories.
    pub fn names(&self, path: &str) -> Vec<String> {
        let names = fs::read_dir(self.at(path)).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn generation(&self) -> u64 {
        self.txfs(["status", "dist", "--json"]).is(0).json().pop().unwrap()["generation"].as_u64().unwrap()
    }
}

impl Ended {
    #[track_caller]
    pub fn is(self, code: i32) -> Self {
        let told = String::from_utf8_lossy(&self.0.stderr);
        assert_eq!(self.0.status.code(), Some(code), "{:?}: {told}", self.0.status);
        assert!(!told.contains("panicked"), "{told}");
        self
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        let told = String::from_utf8_lossy(&self.0.stderr).into_owned();
        assert!(told.contains(text), "`{text}` is not in: {told}");
        self
    }

    /// Where it says that what was built is kept.
    #[track_caller]
    pub fn stage(&self) -> String {
        let told = String::from_utf8_lossy(&self.0.stderr).into_owned();
        let kept = told.split_once("the stage is kept at ").and_then(|(_, rest)| rest.split_once(": "));
        kept.unwrap_or_else(|| panic!("{told}")).0.to_owned()
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    pub fn json(&self) -> Vec<Value> {
        self.out().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[track_caller]
pub fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn signal(child: &Child, signal: &str) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}
