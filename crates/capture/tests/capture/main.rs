//! Programs whose writes are captured: as the user who runs the tests, and, where that is root, as an ordinary one, too.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid, getpgrp};
use tempfile::TempDir;
use txfs_capture::{Capture, Captured, Change, Error, Gate, Linger, Root, changes, flatten, probe, remove};

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

fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success();
    if !found {
        eprintln!("{program} is not here");
    }
    found
}

fn compile(world: &World, flags: &[&str], source: &str) -> Option<PathBuf> {
    let (from, to) = (world.at("program.c"), world.at("program"));
    fs::write(&from, source).unwrap();
    let built = Command::new("cc").args(flags).arg("-o").arg(&to).arg(&from).output();
    match built {
        Ok(built) if built.status.success() => Some(to),
        other => {
            eprintln!("cannot compile: {other:?}");
            None
        }
    }
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

#[test]
fn what_is_written_goes_elsewhere() {
    let world = World::new();
    let outcome = world.sh("cat dist/sub/b > before
         echo appended >> dist/a
         : > dist/sub/b
         echo new > dist/new
         mkdir dist/made; echo 1 > dist/made/1
         ln dist/new dist/made/hard
         ln -sf sub dist/link
         chmod 600 dist/sub/deep/c
         cat dist/a");
    assert_eq!(outcome.stdout, "old a\nappended\n");
    let upper = outcome.ok().upper().to_path_buf();
    assert_eq!(fs::read_to_string(world.at("before")).unwrap(), "old b\n");
    assert_eq!(flatten(&upper).unwrap(), Vec::<PathBuf>::new());
    assert_eq!(
        names(&upper),
        ["a", "link", "made", "made/1", "made/hard", "new", "sub", "sub/b", "sub/deep", "sub/deep/c"]
    );
    assert_eq!(fs::read_to_string(upper.join("a")).unwrap(), "old a\nappended\n");
    assert_eq!(fs::metadata(upper.join("sub/deep/c")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(upper.join("new")).unwrap().nlink(), 2);
    assert_eq!(xattr::list(upper.join("a")).unwrap().count(), 0, "the overlay's attributes are gone");
    assert_eq!(xattr::list(upper.join("sub")).unwrap().count(), 0);
}

#[test]
fn what_is_removed_is_told() {
    let world = World::new();
    let outcome = world
        .sh("rm dist/a; rm -r dist/sub; mkdir dist/sub; echo 1 > dist/sub/n; rm dist/link; echo 2 > dist/link")
        .ok();
    let mut told: Vec<_> = changes(outcome.upper()).unwrap().map(Result::unwrap).collect();
    told.sort_by_key(|change| format!("{change:?}"));
    let path = PathBuf::from;
    assert_eq!(
        told,
        [
            Change::Removed(path("a")),
            Change::Replaced(path("sub")),
            Change::Written(path("link")),
            Change::Written(path("sub/n")),
        ]
    );
    assert_eq!(flatten(outcome.upper()).unwrap(), [path("a"), path("sub")]);
    assert_eq!(names(outcome.upper()), ["link", "sub", "sub/n"]);
    assert_eq!(flatten(outcome.upper()).unwrap(), Vec::<PathBuf>::new(), "it is an ordinary directory now");
}

/// What a program sees of an output that it has removed.
const LOOKS: &str = r#"
import os, sys, errno
def gone(what, act, *also):
    try: act()
    except OSError as error:
        assert error.errno in (errno.ENOENT,) + also, (what, error)
    else: raise AssertionError(what)
gone("stat", lambda: os.stat("dist"))
gone("lstat", lambda: os.lstat("./dist/"))
gone("open path", lambda: os.open("dist", os.O_PATH))
gone("list", lambda: os.listdir("dist"))
gone("chdir", lambda: os.chdir("dist"))
gone("rmdir", lambda: os.rmdir("dist"))
gone("create", lambda: open("dist/x", "w"), errno.EROFS)
gone("look below", lambda: os.stat("dist/a"))
gone("make below", lambda: os.mkdir("dist/x"), errno.EROFS)
gone("rename", lambda: os.rename("dist", "other"))
assert not os.access("dist", os.F_OK) and not os.access(os.path.abspath("dist"), os.F_OK)
assert not os.path.exists("dist") and not os.path.isdir("dist")
"#;

#[test]
fn a_removed_output_is_not_there() {
    if !has("python3") {
        return;
    }
    for ghost in [true, false] {
        let world = World::new();
        let script =
            format!("import shutil; shutil.rmtree('dist')\n{LOOKS}\nos.mkdir('dist', 0o750); open('dist/n', 'w')");
        let capture = if ghost { world.overlay() } else { world.overlay().without_ghost() };
        let outcome = world.run(&capture, Command::new("python3").args(["-c", &script])).ok();
        assert_eq!(names(outcome.whole()), ["n"]);
        assert_eq!(fs::metadata(outcome.whole()).unwrap().mode() & 0o777, 0o750);
    }
}

#[test]
fn programs_remove_the_output_and_make_it_anew() {
    let scripts = [
        ("sh", "-ec", "rm -rf dist && mkdir dist && echo 1 > dist/n"),
        ("sh", "-ec", "rm -rf dist; mkdir -p dist/ ; echo 1 > dist/n"),
        ("sh", "-ec", "rm -rf ./dist/; test ! -e dist; [ -d dist ] || mkdir dist; echo 1 > dist/n"),
        ("sh", "-ec", "mkdir t; echo 1 > t/n; rm -rf dist; cp -r t dist"),
        ("sh", "-ec", "mkdir t; echo 1 > t/n; rm -rf dist; mv t dist; test ! -e t"),
        ("sh", "-ec", "mkdir t; echo 1 > t/n; rm -rf dist; mv -T t dist; test ! -e t"),
        ("sh", "-ec", "mkdir t; echo 1 > t/n; rm -rf dist; cp -a t/. dist/"),
        ("sh", "-ec", "mv dist old; test ! -e dist; test -e old/sub/deep/c; mkdir dist; echo 1 > dist/n; rm -rf old"),
        ("sh", "-ec", "w=$PWD; cd dist/sub; rm -rf \"$w/dist\"; mkdir \"$w/dist\"; echo 1 > \"$w/dist/n\""),
        (
            "sh",
            "-ec",
            "for i in 1 2 3; do rm -rf dist; mkdir dist; mkdir t; mv dist d2; mv d2 dist; echo 1 > dist/n; rmdir t; done",
        ),
        (
            "sh",
            "-ec",
            "for i in 1 2 3; do rm -rf dist; mkdir t; echo 1 > t/n; mv t dist; mv dist old; mv old dist; done; test ! -e old",
        ),
        (
            "python3",
            "-c",
            "import os,shutil\nshutil.rmtree('dist'); os.makedirs('dist'); open('dist/n','w').write('1')",
        ),
        (
            "python3",
            "-c",
            "import os,shutil\nos.mkdir('t'); open('t/n','w').write('1'); shutil.rmtree('dist'); os.rename('t','dist')",
        ),
        (
            "python3",
            "-c",
            "import os,shutil\nos.mkdir('t'); open('t/n','w').write('1'); shutil.rmtree('dist'); shutil.copytree('t','dist')",
        ),
        (
            "python3",
            "-c",
            "import os,shutil\nos.mkdir('t'); open('t/n','w').write('1'); shutil.rmtree('dist'); shutil.move('t','dist')",
        ),
        (
            "node",
            "-e",
            "const fs=require('fs'); fs.rmSync('dist',{recursive:true}); if(!fs.existsSync('dist')) fs.mkdirSync('dist'); fs.writeFileSync('dist/n','1')",
        ),
        (
            "node",
            "-e",
            "const fs=require('fs'); fs.rmSync('dist',{recursive:true}); fs.mkdirSync('t'); fs.writeFileSync('t/n','1'); fs.renameSync('t','dist')",
        ),
        (
            "node",
            "-e",
            "const fs=require('fs'); fs.rmSync('dist',{recursive:true}); fs.mkdirSync('t'); fs.writeFileSync('t/n','1'); fs.cpSync('t','dist',{recursive:true})",
        ),
    ];
    for (program, flag, script) in scripts.into_iter().filter(|(program, ..)| has(program)) {
        for (ghost, overlay) in [(true, true), (false, true), (true, false)] {
            let world = World::new();
            let capture = if overlay { world.overlay() } else { world.directory() };
            if !overlay {
                copy(&world.at("dist"), &world.at("place/stage"));
            }
            let capture = if ghost { capture } else { capture.without_ghost() };
            let outcome = world.run(&capture, Command::new(program).args([flag, script]));
            assert!(outcome.status.success(), "{script} (overlay {overlay}, ghost {ghost}): {:?}", outcome.captured);
            assert_eq!(names(outcome.whole()), ["n"], "{script} (overlay {overlay}, ghost {ghost})");
        }
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-aT").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn an_output_that_is_removed_or_moved_away_for_good_is_nothing() {
    for script in ["rm -rf dist", "mv dist elsewhere", "rm -rf dist; mkdir dist; rmdir dist"] {
        let world = World::new();
        assert_eq!(world.sh(script).ok().captured.root, Root::Nothing, "{script}");
    }
}

#[test]
fn what_the_kernel_would_refuse_is_refused() {
    if !has("python3") {
        return;
    }
    let script = r#"
import os, errno
def fails(errno_, act):
    try: act()
    except OSError as error: assert error.errno == errno_, (errno_, error)
    else: raise AssertionError(errno_)
fails(errno.ENOTEMPTY, lambda: os.rmdir("dist"))
fails(errno.EEXIST, lambda: os.mkdir("dist"))
os.mkdir("t"); open("f", "w").close()
fails(errno.ENOTEMPTY, lambda: os.rename("t", "dist"))
fails(errno.EISDIR, lambda: os.rename("f", "dist"))
fails(errno.EXDEV, lambda: os.rename("dist", "away"))
fails(errno.ENOTEMPTY, lambda: os.rename("dist/sub", "dist"))
# Names that only look like it.
os.mkdir("dist/dist"); os.rename("dist/dist", "dist/dist2"); os.rmdir("dist/dist2")
os.mkdir("t/dist"); os.rename("t/dist", "t/x"); os.mkdir("t/dist"); os.rmdir("t/dist")
"#;
    let world = World::new();
    world.run(&world.overlay(), Command::new("python3").args(["-c", script])).ok();
}

#[test]
fn directories_that_were_there_before_are_renamed_by_copying_or_in_a_captured_directory() {
    if !has("python3") {
        return;
    }
    let rename = "import os; os.rename('dist/sub', 'dist/moved')";
    let world = World::new();
    let outcome = world.sh("mv dist/sub dist/moved").ok();
    assert_eq!(flatten(outcome.upper()).unwrap(), [PathBuf::from("sub")]);
    assert_eq!(names(outcome.upper()), ["moved", "moved/b", "moved/deep", "moved/deep/c"]);
    let world = World::new();
    assert!(!world.run(&world.overlay(), Command::new("python3").args(["-c", rename])).status.success(), "EXDEV");
    let world = World::new();
    copy(&world.at("dist"), &world.at("place/stage"));
    let outcome = world.run(&world.directory(), Command::new("python3").args(["-c", rename])).ok();
    assert_eq!(names(outcome.whole()), ["a", "link", "moved", "moved/b", "moved/deep", "moved/deep/c"]);
}

#[test]
fn an_output_that_is_not_there_is_not_there_until_it_is_made() {
    for script in [
        "test ! -e dist; mkdir dist; echo 1 > dist/n",
        "mkdir t; echo 1 > t/n; cp -r t dist",
        "mkdir t; echo 1 > t/n; mv t dist",
        "mkdir -p dist/x; rmdir dist/x; echo 1 > dist/n",
        "rm -rf dist; mkdir dist; rm -rf dist dist; rm -f dist; mkdir dist; echo 1 > dist/n",
    ] {
        let world = World::with(|_| {});
        fs::remove_dir(world.at("dist")).unwrap();
        let outcome = world.run(&world.directory(), Command::new("sh").args(["-ec", script])).ok();
        assert_eq!(names(outcome.whole()), ["n"], "{script}");
        assert!(!world.at("dist").exists());
        fs::create_dir(world.at("dist")).unwrap();
    }
    let world = World::with(|_| {});
    fs::remove_dir(world.at("dist")).unwrap();
    let outcome = world.run(&world.directory(), &mut Command::new("true")).ok();
    assert_eq!(outcome.captured.root, Root::Nothing);
    assert!(!world.at("dist").exists());
    let missing = world.directory().spawn(&mut Command::new("/nonexistent/program"));
    assert!(matches!(missing, Err(Error::Command(_))));
    assert!(!world.at("dist").exists());
    fs::create_dir(world.at("dist")).unwrap();
}

/// But to who changes its mode or time, links to it, or opens it as a file: nobody does who did not look before.
#[test]
fn what_is_not_there_is_told_as_what_was_never_there() {
    if !has("python3") {
        return;
    }
    let script = r#"
import errno, os
def calls(name):
    yield 'stat', lambda: os.stat(name)
    yield 'lstat', lambda: os.lstat(name)
    yield 'access', lambda: os.access(name, os.R_OK) or os.stat(name)
    yield 'unlink', lambda: os.unlink(name)
    yield 'unlinkat', lambda: os.unlink(name, dir_fd=-100)
    yield 'rmdir', lambda: os.rmdir(name)
    yield 'rename', lambda: os.rename(name, 'other')
    yield 'chdir', lambda: os.chdir(name)
    yield 'list', lambda: os.listdir(name)
    yield 'open as a directory', lambda: os.open(name, os.O_RDONLY | os.O_DIRECTORY)
    yield 'open as a path', lambda: os.open(name, os.O_PATH)
    yield 'open below', lambda: os.open(name + '/n', os.O_WRONLY | os.O_CREAT)
    yield 'stat below', lambda: os.stat(name + '/n')
    yield 'mkdir below', lambda: os.mkdir(name + '/n')
    yield 'unlink below', lambda: os.unlink(name + '/n')
def told(call):
    try: call()
    except OSError as error: return errno.errorcode[error.errno]
    return 'done'
for (what, there), (_, never) in zip(calls('dist'), calls('none')):
    there, never = told(there), told(never)
    if there != never: print(what, there, never)
"#;
    for began in ["there", "absent"] {
        let world = World::with(|_| {});
        if began == "absent" {
            fs::remove_dir(world.at("dist")).unwrap();
        }
        let removed = format!("import os, shutil\nif os.path.exists('dist'): shutil.rmtree('dist')\n{script}");
        let outcome = world.run(&world.directory(), Command::new("python3").args(["-c", &removed])).ok();
        assert_eq!(outcome.stdout, "", "an output that was {began}");
        let _ = fs::create_dir(world.at("dist"));
    }
}

#[test]
fn rsync_and_cp_do_what_they_do() {
    let world = World::new();
    fs::create_dir_all(world.at("new/sub")).unwrap();
    fs::write(world.at("new/sub/b"), "new b").unwrap();
    if has("rsync") {
        let outcome = world.sh("rsync -a --delete new/ dist/; find dist -type f").ok();
        assert_eq!(outcome.stdout, "dist/sub/b\n");
    }
    let world = World::new();
    let outcome = world.sh("cp -a dist/. copy; cp -a copy dist/again; find dist -type f | sort").ok();
    assert_eq!(
        outcome.stdout,
        "dist/a\ndist/again/a\ndist/again/sub/b\ndist/again/sub/deep/c\ndist/sub/b\ndist/sub/deep/c\n"
    );
}

#[test]
fn files_of_all_kinds_go_through() {
    if !has("python3") {
        return;
    }
    let world = World::with(|dist| {
        fs::write(dist.join("mapped"), vec![b'x'; 10_000]).unwrap();
        fs::write(dist.join("h1"), "linked").unwrap();
        fs::hard_link(dist.join("h1"), dist.join("h2")).unwrap();
        fs::create_dir(dist.join("group")).unwrap();
        fs::set_permissions(dist.join("group"), fs::Permissions::from_mode(0o2775)).unwrap();
        let sparse = File::create(dist.join("sparse")).unwrap();
        sparse.set_len(64 << 20).unwrap();
        sparse.write_all_at(b"end", (64 << 20) - 3).unwrap();
    });
    let script = r#"
import os, mmap
with open("dist/mapped", "r+b") as f:
    m = mmap.mmap(f.fileno(), 0); m[5000:5003] = b"new"; m.flush(); m.close()
open("dist/h1", "a").write("+")
os.makedirs("dist/group/made"); open("dist/group/made/f", "w").close()
assert os.stat("dist/group/made").st_mode & 0o2000
with open("dist/sparse", "r+b") as f: f.seek(1 << 20); f.write(b"mid")
with open("dist/hole", "wb") as f: f.seek(1 << 30); f.write(b"x")
deep = os.open("dist", os.O_PATH)
for i in range(40):
    os.mkdir("d" * 200, dir_fd=deep); deep = os.open("d" * 200, os.O_PATH, dir_fd=deep)
os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=deep))
for name in (b"a\nb", b"\xff\xfe", b"a b", b"-rf", b"'\"", b"x" * 255, b"comma,colon:"):
    open(b"dist/" + name, "w").close()
"#;
    let outcome = world.run(&world.overlay(), Command::new("python3").args(["-c", script])).ok();
    let upper = outcome.upper();
    assert_eq!(flatten(upper).unwrap(), Vec::<PathBuf>::new());
    let mapped = fs::read(upper.join("mapped")).unwrap();
    assert_eq!(&mapped[4999..5004], b"xnewx");
    assert_eq!(fs::read_to_string(upper.join("h1")).unwrap(), "linked+");
    assert!(!upper.join("h2").exists());
    assert_ne!(fs::metadata(upper.join("group/made")).unwrap().mode() & 0o2000, 0);
    assert_eq!(
        fs::metadata(upper.join("group/made/f")).unwrap().gid(),
        fs::metadata(world.at("dist/group")).unwrap().gid()
    );
    let hole = fs::metadata(upper.join("hole")).unwrap();
    assert!(hole.blocks() < 1000 && hole.len() > 1 << 30);
    assert!(changes(upper).unwrap().all(|change| change.is_ok()));
    assert!(upper.join("comma,colon:").exists());
    // Deeper than a path may be long.
    assert!(Command::new("rm").arg("-rf").arg(upper).status().unwrap().success());
    fs::create_dir(upper).unwrap();
}

#[test]
fn odd_names_of_the_output_itself_are_no_matter() {
    for name in ["a,b:c\\d", "a b\nc", "-rf", "\u{202e}x", &"n".repeat(255)] {
        let world = World::with(|_| {});
        let out = world.at(name);
        fs::create_dir(&out).unwrap();
        fs::write(out.join("f"), "old").unwrap();
        for script in ["echo new > \"$1/n\"; cat \"$1/f\"", "rm -rf -- \"$1\"; mkdir -- \"$1\"; echo new > \"$1/n\""] {
            let capture = Capture::overlay(&out, &world.at("place"), "stage").unwrap();
            let outcome = world.run(&capture, Command::new("sh").args(["-ec", script, "sh"]).arg(&out)).ok();
            assert_eq!(names(&out), ["f"]);
            match &outcome.captured.root {
                Root::Upper(root) | Root::Whole(root) => assert!(root.join("n").exists()),
                other => panic!("{other:?}"),
            }
            remove(&world.at("place"), None).unwrap();
        }
    }
}

#[test]
fn the_command_runs_as_it_would() {
    let world = World::new();
    let script = "id -u; id -g; pwd; echo $MARK; ulimit -n; umask; cut -d' ' -f5 /proc/self/stat; test -t 0 || echo no";
    let run = |command: &mut Command| {
        let command = command.args(["-c", script]).env("MARK", "here").stdin(Stdio::null());
        command.current_dir(world.at("dist/sub")).stdout(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
    };
    let bare = String::from_utf8(run(&mut Command::new("sh")).stdout).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("MARK", "here").stdin(Stdio::null()).current_dir(world.at("dist/sub"));
    let (child, running) = world.overlay().spawn(command.stdout(Stdio::piped())).unwrap();
    let output = child.wait_with_output().unwrap();
    running.end().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), bare);
    assert!(bare.contains(&format!("{}\nno\n", getpgrp())), "{bare}");
    // It is in the output as it is captured.
    let mut command = Command::new("sh");
    command.args(["-ec", "echo 1 > here; rm b"]).current_dir(world.at("dist/sub"));
    let (mut child, running) = world.overlay().spawn(&mut command).unwrap();
    assert!(child.wait().unwrap().success());
    let captured = running.end().unwrap();
    assert!(matches!(captured.root, Root::Upper(upper) if upper.join("sub/here").exists()));
}

#[test]
fn how_it_ends_is_how_it_ends() {
    let world = World::new();
    assert_eq!(world.sh("exit 7").status.code(), Some(7));
    assert_eq!(world.sh("kill -TERM $$").status.signal(), Some(Signal::SIGTERM as i32));
    assert_eq!(world.sh("kill -KILL $$").status.signal(), Some(Signal::SIGKILL as i32));
    let missing = world.overlay().spawn(&mut Command::new("/nonexistent/program"));
    assert!(matches!(missing, Err(Error::Command(error)) if error.kind() == std::io::ErrorKind::NotFound));
}

#[test]
fn signals_reach_the_command() {
    let world = World::new();
    let script = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut command = Command::new("sh");
    let (mut child, running) = world.overlay().spawn(command.args(["-c", script]).stdout(Stdio::piped())).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).unwrap();
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "got\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    running.end().unwrap();
}

#[test]
fn what_outlives_the_command_is_ended_or_waited_for() {
    let world = World::new();
    let began = Instant::now();
    let outcome = world.sh("(setsid sh -c 'sleep 60; echo late > dist/late' >/dev/null 2>&1 &)").ok();
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(!outcome.captured.outlived.is_empty());
    assert!(!outcome.upper().join("late").exists());
    // One that does not want to.
    let script =
        "(setsid sh -c 'trap \"\" TERM; touch ready; sleep 60; sleep 60; echo late > dist/late' >/dev/null 2>&1 &)
                  while ! test -e ready; do sleep 0.01; done";
    assert!(world.sh(script).ok().captured.outlived.contains(&"sh".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(40));
    remove(&world.at("place"), None).unwrap();
    let waiting = world.overlay().linger(Linger::Wait);
    let script = "(setsid sh -c 'sleep 0.3; echo late > dist/late' >/dev/null 2>&1 &)";
    let outcome = world.run(&waiting, Command::new("sh").args(["-c", script])).ok();
    assert!(outcome.captured.outlived.is_empty());
    assert!(outcome.upper().join("late").exists());
}

/// Processes that were begun for the world by [`a_caller_that_is_killed`].
fn running_in(world: &World) -> Vec<String> {
    let mark = format!("CAPTURE_CALLER={}\0", world.dir.path().display());
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let is_marked = |pid: &String| {
        let environ = fs::read(format!("/proc/{pid}/environ"));
        environ.is_ok_and(|environ| environ.windows(mark.len()).any(|window| window == mark.as_bytes()))
    };
    pids.filter(is_marked).collect()
}

/// Not a test of its own: a caller that can be killed.
#[test]
fn a_caller_that_is_killed() {
    let Some(dir) = std::env::var_os("CAPTURE_CALLER").map(PathBuf::from) else { return };
    let script = format!(
        "cd {}; while :; do rm -rf dist; mkdir dist; (sleep 50 & echo 1 > dist/n); mkdir t; mv t dist/t; mv dist old; mkdir dist; rm -rf old; done",
        dir.display()
    );
    let capture = Capture::overlay(&dir.join("dist"), &dir.join("place"), "stage").unwrap();
    let (mut child, running) = capture.spawn(Command::new("sh").args(["-ec", &script])).unwrap();
    fs::write(dir.join("began"), "").unwrap();
    child.wait().unwrap();
    assert!(matches!(running.end(), Err(Error::Killed)));
}

#[test]
fn a_kill_at_any_moment_leaves_the_output_and_no_process() {
    let seconds = std::env::var("TXFS_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(4);
    let end = Instant::now() + Duration::from_secs(seconds);
    for round in 0_u64.. {
        if Instant::now() > end && round > 10 {
            break;
        }
        let world = World::new();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "a_caller_that_is_killed"])
            .env("CAPTURE_CALLER", world.dir.path())
            .stdout(Stdio::null());
        let mut caller = command.spawn().unwrap();
        while round % 3 != 0 && !world.at("began").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(round * 7919 % 40_000));
        if round % 3 == 2 {
            // The keeper instead.
            let children = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
                let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
                let comm = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
                let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.to_owned();
                (comm.trim() == "txfs-capture" && parent == caller.id().to_string()).then_some(pid)
            });
            children.for_each(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default());
        } else {
            caller.kill().unwrap();
        }
        caller.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            // A new process may have a lower number than the one that began it, and be missed once.
            let left = [running_in(&world), running_in(&world)].concat();
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "round {round}: {left:?} run still");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(tree(&world.at("dist")), world.before);
        remove(&world.at("place"), None).unwrap();
        assert_eq!(fs::read_dir(world.at("place")).unwrap().count(), 1, "only the stage is left");
    }
}

#[test]
fn a_capture_inside_a_capture_is_refused() {
    if std::env::var_os("CAPTURE_CALLER").is_some() {
        return;
    }
    if let Some(dir) = std::env::var_os("CAPTURE_INNER").map(PathBuf::from) {
        let capture = Capture::directory(&dir.join("other"), &dir.join("place2"), "stage").unwrap();
        let error = capture.spawn(&mut Command::new("true")).unwrap_err();
        assert!(matches!(&error, Error::Refused(refusal) if refusal.gate == Gate::Nested), "{error}");
        let found = probe(&dir.join("other"), &dir.join("place2")).unwrap();
        assert_eq!(found.directory.unwrap_err().gate, Gate::Nested);
        return;
    }
    if !geteuid().is_root() {
        return;
    }
    let world = World::new();
    fs::create_dir_all(world.at("place2/stage")).unwrap();
    fs::create_dir(world.at("other")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_capture_inside_a_capture_is_refused"]).env("CAPTURE_INNER", world.dir.path());
    world.run(&world.overlay(), &mut command).ok();
}

#[test]
fn an_output_with_mounts_below_is_refused_and_each_probe_leaves_nothing() {
    let world = World::new();
    let found = probe(&world.at("dist"), &world.at("place")).unwrap();
    assert!(found.overlay.is_ok() && found.directory.is_ok(), "{found:?}");
    assert_eq!(found.rootless, !geteuid().is_root());
    assert!(probe(&world.at("none"), &world.at("place")).unwrap().directory.is_ok());
    assert_eq!(names(&world.at("place")), ["stage"]);
    if !geteuid().is_root() {
        return;
    }
    let at = world.at("dist/sub");
    let mount = |program: &str, arguments: &[&str]| {
        assert!(Command::new(program).args(arguments).arg(&at).status().unwrap().success());
    };
    mount("mount", &["-t", "tmpfs", "none"]);
    let refused = world.overlay().spawn(&mut Command::new("true"));
    let gate = probe(&world.at("dist"), &world.at("place")).unwrap().overlay.unwrap_err().gate;
    mount("umount", &[]);
    let Err(Error::Refused(refusal)) = refused else { panic!() };
    assert_eq!(refusal.gate, Gate::MountsBelow(fs::canonicalize(&at).unwrap()));
    assert_eq!(gate, refusal.gate);
}

#[test]
fn a_place_that_cannot_take_an_overlay_is_told_before_anything_runs() {
    if !geteuid().is_root() {
        return;
    }
    // An overlay itself.
    let world = World::new();
    let outer = World::new();
    fs::create_dir(outer.at("dist2")).unwrap();
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(world.at(name)).unwrap();
    }
    let text = format!("lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work", world.dir.path().display());
    let mounted =
        Command::new("mount").args(["-t", "overlay", "overlay", "-o", &text]).arg(world.at("merged")).status().unwrap();
    assert!(mounted.success());
    let out = world.at("merged/out");
    fs::create_dir_all(world.at("merged/place/stage")).unwrap();
    fs::create_dir(&out).unwrap();
    let found = probe(&out, &world.at("merged/place")).unwrap();
    let spawned = Capture::overlay(&out, &world.at("merged/place"), "stage").unwrap().spawn(&mut Command::new("true"));
    remove(&world.at("merged/place"), None).unwrap();
    assert!(Command::new("umount").arg(world.at("merged")).status().unwrap().success());
    assert_eq!(found.overlay.unwrap_err().gate, Gate::Upper);
    assert!(found.directory.is_ok());
    assert!(matches!(spawned, Err(Error::Refused(refusal)) if refusal.gate == Gate::Upper));
}

#[test]
fn calls_that_get_past_a_filter_do_not_exist() {
    let world = World::new();
    let source = r#"
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    char room[256] = {0};
    long ring = syscall(425, 8, room);
    if (ring != -1 || errno != ENOSYS) return 1;
#ifdef __x86_64__
    if (syscall(0x40000000 | 84, "dist") != -1 || errno != ENOSYS) return 2;
#endif
    return 0;
}"#;
    let Some(program) = compile(&world, &["-O1"], source) else { return };
    world.run(&world.overlay(), &mut Command::new(program)).ok();
}

#[cfg(target_arch = "x86_64")]
#[test]
fn programs_of_32_bits_are_answered_too() {
    let source = r#"
static int call(int nr, const void *a, int b) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(nr), "b"(a), "c"(b) : "memory");
    return result;
}
void _start(void) {
    int code = 0;
    call(10, "dist/f", 0);                 /* unlink */
    if (call(40, "dist", 0) != 0) code = 1;      /* rmdir */
    if (call(33, "dist", 0) != -2) code = 2;     /* access */
    if (call(40, "dist", 0) != -2) code = 3;
    if (call(39, "dist", 0755) != 0) code = 4;   /* mkdir */
    if (call(38, "dist", (int)"away") != 0) code = 5; /* rename */
    if (call(38, "away", (int)"dist") != 0) code = 6;
    if (call(425, (void *)8, 0) != -38) code = 7;
    call(39, "dist/made", 0755);
    call(1, (void *)code, 0);
}"#;
    let world = World::with(|dist| fs::write(dist.join("f"), "x").unwrap());
    let Some(program) = compile(
        &world,
        &["-m32", "-nostdlib", "-static", "-fno-stack-protector", "-fno-pie", "-no-pie", "-O1"],
        source,
    ) else {
        return;
    };
    if Command::new(&program).current_dir("/nonexistent").status().is_ok() {
        return;
    }
    let outcome = world.run(&world.overlay(), &mut Command::new(program)).ok();
    assert_eq!(names(outcome.whole()), ["made"]);
}

/// A program that changes the path of a call while it waits for an answer.
#[test]
fn who_races_the_supervisor_reaches_nothing_more() {
    let source = r#"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
static char path[8] = "dist";
static volatile int stop;
static void *flip(void *unused) {
    while (!stop) { memcpy(path, "keep", 5); memcpy(path, "dist", 5); }
    return unused;
}
int main(void) {
    pthread_t thread;
    pthread_create(&thread, 0, flip, 0);
    for (int i = 0; i < 300; i++) {
        rmdir(path); mkdir(path, 0700); rename(path, "moved"); rename("moved", path); rename(path, "keep/x");
        rename("keep/x", "dist");
    }
    stop = 1;
    pthread_join(thread, 0);
    return 0;
}"#;
    for overlay in [true, false] {
        let world = World::with(|_| {});
        fs::create_dir(world.at("keep")).unwrap();
        fs::write(world.at("keep/file"), "kept").unwrap();
        let Some(program) = compile(&world, &["-O1", "-pthread"], source) else { return };
        let capture = if overlay { world.overlay() } else { world.directory() };
        world.run(&capture, &mut Command::new(program)).ok();
        // The program may move `keep` itself, with or without a capture.
        let kept = |at: &str| fs::read_to_string(world.at(at).join("file")).is_ok_and(|text| text == "kept");
        let places = ["keep", "moved", "place/stage"].map(str::to_owned).into_iter();
        let mut places = places.chain((1..4000).map(|number| format!("place/root-{number}")));
        assert!(places.any(|at| kept(&at)));
    }
}

/// A process that has given up rights has no directory moved for it.
#[test]
fn who_gave_up_rights_gets_no_help() {
    let source = r#"
#include <errno.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    unsigned long long attr[2] = {1 << 4, 0}; /* LANDLOCK_ACCESS_FS_REMOVE_DIR */
    mkdir("t", 0755);
    long ruleset = syscall(444, attr, 8, 0);
    if (ruleset < 0) return 77;
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (syscall(446, ruleset, 0)) return 77;
    if (rename("t", "dist") != -1 || errno != EXDEV) return 1;
    return 0;
}"#;
    let world = World::with(|_| {});
    let Some(program) = compile(&world, &["-O1"], source) else { return };
    let outcome = world.run(&world.overlay(), &mut Command::new(program));
    assert!(matches!(outcome.status.code(), Some(0 | 77)), "{:?}", outcome.status);
    assert!(world.at("t").exists());
}

#[test]
fn many_threads_write_at_once() {
    let world = World::new();
    let script = "for i in 1 2 3 4; do (for j in 1 2 3 4 5 6 7 8 9; do mkdir -p dist/d$i/$j; echo $j > dist/d$i/$j/f; mv dist/d$i/$j dist/d$i/m$j; done) & done; wait; find dist/d? -type f | wc -l";
    assert_eq!(world.sh(script).ok().stdout.trim(), "36");
}

#[test]
fn a_link_to_an_output_is_refused() {
    let world = World::new();
    symlink("dist", world.at("current")).unwrap();
    assert!(Capture::overlay(&world.at("current"), &world.at("place"), "stage").is_err());
    let mut file = File::create(world.at("file")).unwrap();
    file.write_all(b"x").unwrap();
    assert!(Capture::directory(&world.at("file"), &world.at("place"), "stage").is_err());
}
