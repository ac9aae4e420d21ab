//! What file systems lack: of what no build may rest on, the user learns before anything is built.
#![allow(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use txfs_testing::mounts::{self, Mount};
use txfs_testing::{Scratch, is_root, skip};

const USER: u32 = 65534;

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

/// A view of a directory of everybody's, through bindfs with this option, where that is installed.
fn view(option: &str) -> Option<(Scratch, Mount, PathBuf)> {
    let dir = Scratch::new();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let [below, at] = ["below", "view"].map(|name| dir.path().join(name));
    for at in [&below, &at] {
        fs::create_dir(at).unwrap();
        fs::set_permissions(at, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mounted = Command::new("bindfs").arg(option).args([&below, &at]).stderr(Stdio::null()).status();
    if !is_root() || !mounted.as_ref().is_ok_and(|status| status.success()) {
        skip("bindfs", &format!("{mounted:?}"));
        return None;
    }
    fs::copy(binary(), dir.path().join("txfs")).unwrap();
    let mount = Mount::of(&at);
    Some((dir, mount, at))
}

/// As an ordinary user.
fn of_a_user(dir: &Path, at: &Path, arguments: &[&str]) -> Ended {
    ended(Command::new(dir.join("txfs")).args(arguments).current_dir(at).uid(USER).gid(USER))
}

fn names(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_file_system_that_is_of_no_use_is_refused_before_the_build_each_time_and_nothing_is_left() {
    for (option, cause) in [
        ("--chmod-deny", "refuses to change a mode"),
        ("--chmod-ignore", "says that it changed a mode, and did not"),
        ("--force-user=daemon", "gives to user 1 what user 65534 makes"),
        ("--create-as-mounter", "gives to user 0 what user 65534 makes"),
    ] {
        let Some((dir, _mount, at)) = view(option) else { return };
        for options in [&[][..], &["--stage"], &["--state", ".other.txfs"]] {
            let run = [&["run", "o"], options, &["--", "touch", "BUILT"]].concat();
            of_a_user(dir.path(), &at, &run).expect(125).says(cause).says_nothing_of("chown");
            assert_eq!(names(&at), [] as [&Path; 0], "{option} {options:?}");
        }
    }
    // What changes modes, if not all of them, is none of these.
    let Some((dir, _mount, at)) = view("--chmod-filter=g-w") else { return };
    of_a_user(dir.path(), &at, &["run", "o", "--stage", "--", "sh", "-c", PAGE]).expect(0);
}

#[track_caller]
fn btrfs(arguments: &[&str], at: &Path) {
    assert!(Command::new("btrfs").arg("-q").args(arguments).arg(at).status().unwrap().success());
}

#[track_caller]
fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap().success());
}

const OPTIONS: [&[&str]; 4] = [&[], &["--stage"], &["--stage", "--adopt"], &["--stage", "--adopt-all"]];

/// Nothing can be moved into it, whatever is allowed.
#[test]
fn a_subvolume_or_mount_in_an_output_stands_against_a_commit_with_the_true_way_out() {
    let Some(mount) = mounted("btrfs", mounts::mount("btrfs")) else { return };
    let Some(other) = mounted("tmpfs", mounts::mount("tmpfs")) else { return };
    let (dir, out) = (mount.path(), mount.path().join("site"));
    fs::create_dir(&out).unwrap();
    fs::create_dir(out.join("mounted")).unwrap();
    btrfs(&["subvolume", "create"], &out.join("sub"));
    let _other = mounts::bind(other.path(), &out.join("mounted")).unwrap();
    for name in ["sub", "mounted"] {
        fs::write(out.join(name).join("mine"), "mine").unwrap();
        let script = format!("mkdir -p \"$TXFS_STAGE/{name}\"; cd \"$TXFS_STAGE\"; echo 1 > {name}/x; echo 1 > i");
        for options in OPTIONS {
            let run = [&["run", "site"], options, &["--", "sh", "-c", &script]].concat();
            let refused = txfs(dir, &run).expect(4).says("subvolumes, or mounts, are in the way").says(name);
            refused.says_nothing_of("--adopt");
            assert!(!out.join("i").exists() && !out.join(name).join("x").exists());
        }
    }
    // Beside it everything is published, and what is foreign in it stays.
    let build = |script: &str, options: &[&str]| {
        let script = format!("cd \"$TXFS_STAGE\"; {script}");
        txfs(
            dir,
            &[&["run", "site", "--stage", "--max-removed", "100"], options, &["--", "sh", "-c", &script]].concat(),
        )
    };
    build("mkdir d; echo 1 > d/a; echo 1 > i", &[]).expect(0);
    btrfs(&["subvolume", "create"], &out.join("d/own"));
    fs::write(out.join("d/own/mine"), "mine").unwrap();
    build("echo 2 > i", &["--adopt-all"]).expect(0).says("stay").says("d/own");
    assert!(!out.join("d/a").exists());
    for kept in ["d/own/mine", "sub/mine", "mounted/mine"] {
        assert_eq!(fs::read_to_string(out.join(kept)).unwrap(), "mine");
    }
    // One that took the place of what was published.
    build("mkdir e; echo 1 > e/a; echo 1 > i", &[]).expect(0);
    fs::rename(out.join("e"), dir.join("e")).unwrap();
    btrfs(&["subvolume", "create"], &out.join("e"));
    copy(&dir.join("e"), &out.join("e"));
    for script in ["mkdir e; echo 2 > e/a; echo 2 > i", "echo 2 > i", "echo 2 > e; echo 2 > i"] {
        for options in [&[][..], &["--allow-drift", "--adopt-all"]] {
            build(script, options).expect(4).says("subvolumes, or mounts, are in the way");
        }
    }
    assert_eq!(fs::read_to_string(out.join("i")).unwrap(), "1\n");
}

/// What was published with the state beside it is not forgotten for what is mounted in its place.
#[test]
fn an_output_whose_place_is_taken_by_a_volume_gets_no_second_state_unasked() {
    let Some(volume) = mounted("ext4", mounts::mount("ext4")) else { return };
    let Some(mount) = mounted("btrfs", mounts::mount("btrfs")) else { return };
    let (dir, out) = (mount.path(), mount.path().join("www"));
    let subvolume = || {
        fs::rename(&out, dir.join("old")).unwrap();
        btrfs(&["subvolume", "create"], &out);
        copy(&dir.join("old"), &out);
        None
    };
    let volume = || {
        copy(&out, volume.path());
        Some(mounts::bind(volume.path(), &out).unwrap())
    };
    for take_place in [&volume as &dyn Fn() -> Option<Mount>, &subvolume] {
        build(dir, "www", &[]).expect(0);
        let _mount = take_place();
        build(dir, "www", &[]).expect(125).says(".www.txfs").says("--state");
        txfs(dir, &["status", "www"]).expect(2);
        assert!(!out.join(".txfs").exists());
        build(dir, "www", &["--state", "www/.txfs", "--adopt-all"]).expect(0);
        build(dir, "www", &[]).expect(0);
        assert!(out.join(".txfs/HEAD").exists());
    }
}
