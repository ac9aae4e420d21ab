//! Tools that people watch directories with. `.ci/run` installs them, and says by TXFS_WATCHERS where; elsewhere those that are there are
//! used, and the others are skipped, which is said.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use txfs::{BeginOptions, Store};
use txfs_testing as common;
use txfs_testing::lenient;
use txfs_testing::tree::snapshot;

use crate::events::Told;
use crate::{change_places, fill, scratch};

/// A tool takes its time to tell.
const PATIENCE: Duration = Duration::from_secs(30);

/// What else it tells after it told the last thing that happened.
const REST: Duration = Duration::from_secs(1);

fn installed() -> PathBuf {
    std::env::var_os("TXFS_WATCHERS").map_or_else(|| PathBuf::from("."), PathBuf::from)
}

fn python() -> PathBuf {
    let own = installed().join("venv/bin/python");
    if own.exists() { own } else { PathBuf::from("python3") }
}

fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/watchers").join(name)
}

/// A child that goes with the test.
struct Tool(Child);

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A tool that tells, line by line, what it sees.
struct Teller {
    _tool: Tool,
    lines: Receiver<String>,
    told: Told,
    root: PathBuf,
    ended: usize,
}

impl Teller {
    fn start(mut command: Command, root: &Path) -> Self {
        let told = Told::of(root);
        let mut tool = Tool(command.arg(root).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
        let (sender, lines) = channel();
        let output = BufReader::new(tool.0.stdout.take().unwrap());
        std::thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            lines.take_while(|line| sender.send(line.clone()).is_ok()).for_each(drop);
        });
        let mut teller = Self { _tool: tool, lines, told, root: root.into(), ended: 0 };
        teller.wait_for("ready");
        teller
    }

    fn wait_for(&mut self, wanted: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("not told: {wanted}"));
            self.take(&line);
            if line.starts_with(wanted) {
                return;
            }
        }
    }

    fn take(&mut self, line: &str) {
        match line.split_once(' ') {
            Some(("there", path)) => self.told.note(path.into(), true),
            Some(("gone", path)) => self.told.note(path.into(), false),
            _ => {}
        }
    }

    fn assert_knows(&mut self, when: &str) {
        self.ended += 1;
        let end = format!("end{}", self.ended);
        fs::write(self.root.join(&end), "").unwrap();
        self.wait_for(&format!("there {end}"));
        while let Ok(line) = self.lines.recv_timeout(REST) {
            self.take(&line);
        }
        self.told.assert_right(&self.root, when);
    }
}

/// Publishes, goes back and forward again, and sweeps each time.
fn tell(command: Command, changes_kind: bool) {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    let commit = |second| {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill(&transaction.stage(), second, changes_kind);
        transaction.commit(&lenient()).unwrap();
        store.sweep().unwrap();
    };
    commit(false);
    let mut teller = Teller::start(command, &out.canonicalize().unwrap());
    commit(true);
    teller.assert_knows("committed");
    for round in 0..3 {
        change_places(&store);
        store.sweep().unwrap();
        teller.assert_knows(&format!("changed places {round}"));
    }
}

#[test]
fn watchdog_knows_what_is_there() {
    if !succeeds(Command::new(python()).args(["-c", "import watchdog.observers"])) {
        return common::skip("watchdog", "there is no watchdog for python3, see .ci/run");
    }
    let mut command = Command::new(python());
    command.arg(script("with_watchdog.py"));
    tell(command, true);
}

#[test]
fn watchfiles_knows_what_is_there() {
    if !succeeds(Command::new(python()).args(["-c", "import watchfiles"])) {
        return common::skip("watchfiles", "there is no watchfiles for python3, see .ci/run");
    }
    let mut command = Command::new(python());
    command.arg(script("with_watchfiles.py"));
    tell(command, true);
}

/// Of a file that becomes a directory in one instant chokidar tells that it changed, and no more.
#[test]
fn chokidar_knows_what_is_there() {
    let installed = installed();
    let chokidar = installed.canonicalize().unwrap_or(installed).join("node_modules/chokidar");
    if !chokidar.exists() || !succeeds(Command::new("node").arg("--version")) {
        return common::skip("chokidar", "there is no node, or no chokidar for it, see .ci/run");
    }
    let mut command = Command::new("node");
    command.arg(script("with_chokidar.mjs")).env("CHOKIDAR", chokidar);
    tell(command, false);
}

#[test]
fn a_mirror_that_lsyncd_keeps_is_like_the_output() {
    for tool in [&["lsyncd", "-version"][..], &["rsync", "--version"]] {
        if !succeeds(Command::new(tool[0]).args(&tool[1..])) {
            return common::skip("lsyncd", "there is no lsyncd, or no rsync, see .ci/run");
        }
    }
    if !common::is_root() {
        return common::skip("lsyncd", "an ordinary user's mirror changes nothing in a directory of mode 555");
    }
    for layer in ["direct", "rsync"] {
        let (dir, out) = scratch();
        let (mirror, settings) = (dir.path().join("mirror"), dir.path().join("lsyncd.lua"));
        fs::create_dir(&mirror).unwrap();
        let store = Store::open(&out).unwrap();
        let commit = |second| {
            let mut transaction = store.begin(BeginOptions::default()).unwrap();
            fill(&transaction.stage(), second, true);
            // By itself lsyncd copies a link that was replaced to where the link before it leads.
            fs::remove_file(transaction.stage().join("link")).unwrap();
            transaction.commit(&lenient()).unwrap();
            store.sweep().unwrap();
        };
        commit(false);
        let (from, to) = (out.display(), mirror.display());
        let text = format!(
            "settings {{ nodaemon = true, insist = true }}\n\
             sync {{ default.{layer}, source = \"{from}\", target = \"{to}\", delay = 0 }}\n"
        );
        fs::write(&settings, text).unwrap();
        let _lsyncd = Tool(Command::new("lsyncd").arg(&settings).stdout(Stdio::null()).spawn().unwrap());
        assert_becomes_like(&mirror, &out, layer);
        commit(true);
        assert_becomes_like(&mirror, &out, layer);
        for _ in 0..3 {
            change_places(&store);
            store.sweep().unwrap();
            assert_becomes_like(&mirror, &out, layer);
        }
    }
}

/// Names and contents: modes of directories are not all mirrored.
fn assert_becomes_like(mirror: &Path, out: &Path, layer: &str) {
    let names = |tree: &Path| {
        let whole = snapshot(tree).into_iter().map(|(path, node)| {
            let kind = format!("{node:?}").split(' ').next().unwrap().to_owned();
            let content = fs::read(tree.join(std::str::from_utf8(&path).unwrap())).ok();
            (path, kind, content)
        });
        whole.collect::<HashSet<_>>()
    };
    let end = Instant::now() + PATIENCE;
    while names(mirror) != names(out) {
        assert!(Instant::now() < end, "{layer}: {:?}\n{:?}", snapshot(mirror), snapshot(out));
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(REST);
    assert!(names(mirror) == names(out), "{layer}: and then {:?}", snapshot(mirror));
}
