//! Whose new entries are: what the directories of the output give, and not those around the stage.
#![allow(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use txfs_testing::{Scratch, is_root, skip};

const GROUP: u32 = 4242;
const OTHER: u32 = 4343;

fn txfs(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("sh");
    command.args(["-c", "umask 002; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_txfs")]).args(arguments);
    command.current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

#[track_caller]
fn done(dir: &Path, arguments: &[&str]) -> String {
    let output = txfs(dir, arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

fn make(path: &Path, group: u32, mode: u32) {
    fs::create_dir(path).unwrap();
    chown(path, None, Some(group)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Group, and whether the set-gid bit is there.
fn given(path: &Path) -> (u32, bool) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.gid(), found.mode() & 0o2000 != 0)
}

fn needs_root(test: &str) -> bool {
    if !is_root() {
        skip(test, "giving groups away needs root");
    }
    is_root()
}

const BUILD: &str = "cd \"$TXFS_STAGE\" && mkdir -p docs new && touch a docs/b new/c && ln -s a link";

/// An output that was set up for a group, with a directory in it for another: by each way to fill a stage.
#[test]
fn what_is_published_gets_the_group_that_the_output_gives() {
    if !needs_root("set-gid output") {
        return;
    }
    for way in ["run", "publish", "begin"] {
        let dir = Scratch::new();
        let (out, src) = (dir.path().join("out"), dir.path().join("src"));
        make(&out, GROUP, 0o2775);
        make(&out.join("docs"), OTHER, 0o2775);
        fs::create_dir(&src).unwrap();
        let built = Command::new("sh").args(["-c", &format!("umask 002; {BUILD}")]).env("TXFS_STAGE", &src).status();
        assert!(built.unwrap().success());
        match way {
            "run" => drop(done(dir.path(), &["run", "out", "--", "sh", "-c", BUILD])),
            "publish" => {
                done(dir.path(), &["publish", "out", "src"]);
                // What is as it was published stays so, whoever looks.
                let again = done(dir.path(), &["publish", "out", "src", "--checksum"]);
                assert!(again.contains("unchanged"), "{again}");
                let differs = txfs(dir.path(), &["diff", "out", "src", "--exit-code"]);
                assert!(differs.status.success(), "{differs:?}");
            }
            _ => {
                let begun = txfs(dir.path(), &["begin", "out"]);
                let stage = String::from_utf8_lossy(&begun.stdout).trim_end().to_owned();
                // A tool puts a directory of its own in the place of the stage.
                fs::set_permissions(src.join("docs"), fs::Permissions::from_mode(0o2775)).unwrap();
                fs::remove_dir(&stage).unwrap();
                fs::rename(&src, &stage).unwrap();
                done(dir.path(), &["commit", &stage]);
            }
        }
        for (path, expected) in [
            ("a", (GROUP, false)),
            ("link", (GROUP, false)),
            ("docs", (OTHER, true)),
            ("docs/b", (OTHER, false)),
            ("new", (GROUP, true)),
            ("new/c", (GROUP, false)),
        ] {
            assert_eq!(given(&out.join(path)), expected, "{way}: {path}");
        }
        done(dir.path(), &["verify", "out"]);
    }
}

/// What the directory around the output gives is not for what is in it.
#[test]
fn what_is_published_does_not_get_the_group_of_the_place_beside_it() {
    if !needs_root("set-gid parent") {
        return;
    }
    let dir = Scratch::new();
    let parent = dir.path().join("parent");
    make(&parent, GROUP, 0o2775);
    make(&parent.join("out"), 0, 0o775);
    done(&parent, &["run", "out", "--", "sh", "-c", BUILD]);
    assert_eq!(given(&parent.join("out/a")), (nix::unistd::getegid().as_raw(), false));
    assert_eq!(given(&parent.join("out/new")), (nix::unistd::getegid().as_raw(), false));
    // A new output is made in it.
    done(&parent, &["run", "made", "--", "sh", "-c", BUILD]);
    assert_eq!([given(&parent.join("made")), given(&parent.join("made/new"))], [(GROUP, true); 2]);
}

fn has_acl(path: &Path) -> bool {
    let shown = Command::new("getfacl").args(["-c", "--omit-header"]).arg(path).output().unwrap();
    String::from_utf8_lossy(&shown.stdout).contains("user:4244:")
}

#[test]
fn what_is_published_gets_the_default_acl_of_the_output() {
    let dir = Scratch::new();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let set = |path: &Path| {
        Command::new("setfacl").args(["-d", "-m", "u:4244:rwx"]).arg(path).status().is_ok_and(|set| set.success())
    };
    if !set(&out) {
        return skip("default ACL", "setfacl is not there, or the file system has no ACLs");
    }
    done(dir.path(), &["run", "out", "--", "sh", "-c", BUILD]);
    assert!(has_acl(&out.join("a")) && has_acl(&out.join("new/c")));
    // One that only a directory in it has: given to a copy, and said of what a tool made.
    let plain = dir.path().join("plain");
    fs::create_dir_all(plain.join("docs")).unwrap();
    fs::set_permissions(plain.join("docs"), fs::Permissions::from_mode(0o775)).unwrap();
    assert!(set(&plain.join("docs")));
    let warned = done(dir.path(), &["run", "plain", "--", "sh", "-c", BUILD]);
    assert!(warned.contains("plain/docs") && warned.contains("setfacl"), "{warned}");
    fs::create_dir_all(dir.path().join("src/docs")).unwrap();
    fs::set_permissions(dir.path().join("src/docs"), fs::Permissions::from_mode(0o775)).unwrap();
    fs::write(dir.path().join("src/docs/copied"), "x").unwrap();
    let warned = done(dir.path(), &["publish", "plain", "src", "--max-removed", "100"]);
    assert!(!warned.contains("setfacl") && has_acl(&plain.join("docs/copied")), "{warned}");
}
