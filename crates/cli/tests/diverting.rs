//! Which way of diverting `txfs run` takes where an overlay would fail the command in the middle of its work.

#![allow(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

mod project;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Command, Stdio};

use project::{Ended, Project};

const USER: u32 = 65534;
/// A group that the user belongs to besides.
const GROUP: u32 = 33;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// As the user, who belongs to both groups, with txfs where that user may run it.
fn as_user(project: &Project, script: &str) -> Ended {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={USER}"), &format!("--regid={USER}"), &format!("--groups={GROUP}"), "sh", "-ec"]);
    let path = format!("{}:{}", project.at("").display(), std::env::var("PATH").unwrap_or_default());
    command.arg(script).env("PATH", path).current_dir(project.at("")).stdin(Stdio::null());
    Ended(command.output().unwrap())
}

fn writable_to_all() -> Project {
    let project = Project::new();
    fs::set_permissions(project.at(""), fs::Permissions::from_mode(0o777)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_txfs"), project.at("txfs")).unwrap();
    project
}

/// As where a web server's group is to read what is published.
#[test]
fn what_belongs_to_another_group_of_the_user_can_be_changed() {
    if !is_root() {
        println!("to be another user needs root");
        return;
    }
    let project = writable_to_all();
    fs::create_dir(project.at("dist")).unwrap();
    chown(project.at("dist"), Some(USER), Some(GROUP)).unwrap();
    fs::set_permissions(project.at("dist"), fs::Permissions::from_mode(0o2775)).unwrap();
    as_user(
        &project,
        "txfs run dist -- sh -c 'mkdir -p dist/d; echo 1 > dist/d/f; echo 1 > dist/d/g; echo 1 > dist/h'",
    )
    .is(0);
    as_user(&project, "txfs run dist -- sh -ec 'echo 2 > dist/d/f; mkdir dist/d/e; mv dist/d/g dist/d/e; rm dist/h'")
        .is(0);
    assert_eq!((project.read("dist/d/f"), project.read("dist/d/e/g")), ("2\n".to_owned(), "1\n".to_owned()));
    assert!(!project.at("dist/h").exists());
    let status = as_user(&project, "txfs status -v dist").is(0);
    let told = String::from_utf8_lossy(&status.0.stdout).into_owned();
    assert!(
        told.contains("diverting:    by a copy; not by an overlay: ") && told.contains("dist/d is another"),
        "{told}"
    );
    // Who insists is told before anything runs.
    let refused = as_user(&project, "txfs run dist --capture overlay -- touch ran").is(125);
    refused.says("dist/d is another").says("--capture copy");
    assert!(!project.at("ran").exists());
}

#[test]
fn a_directory_of_another_user_in_the_output_is_told_of_by_the_commit_and_not_to_the_command() {
    if !is_root() {
        println!("to be another user needs root");
        return;
    }
    let project = writable_to_all();
    as_user(&project, "txfs run dist -- sh -c 'mkdir dist; echo 1 > dist/a'").is(0);
    fs::create_dir(project.at("dist/shared")).unwrap();
    fs::set_permissions(project.at("dist/shared"), fs::Permissions::from_mode(0o1777)).unwrap();
    as_user(
        &project,
        "txfs run dist -- sh -ec 'echo 2 > dist/a; mkdir -p dist/shared; echo 1 > dist/shared/n; touch built'",
    )
    .is(4);
    assert!(project.at("built").exists());
}

/// Until Linux 6.6 a tmpfs has none for an ordinary user either.
#[test]
fn a_file_system_without_attributes_gets_no_overlay() {
    let project = Project::new();
    let ram = project.at("ram");
    fs::create_dir(&ram).unwrap();
    if !is_root() || !Command::new("mount").args(["-t", "ramfs", "none"]).arg(&ram).status().unwrap().success() {
        println!("a ramfs cannot be mounted");
        return;
    }
    let mounted = Mounted(ram);
    fs::set_permissions(&mounted.0, fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(project.at(""), fs::Permissions::from_mode(0o777)).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_txfs"), project.at("txfs")).unwrap();
    let build = "txfs run OUT -- sh -c 'mkdir -p OUT/d; echo 1 > OUT/d/a; echo 1 > OUT/b; echo 1 > OUT/c'";
    let change = "txfs run OUT -- sh -ec 'rm -r OUT/d; mkdir OUT/d; echo 2 > OUT/d/n'";
    let as_root = |script: &str| {
        let path = format!("{}:{}", project.at("").display(), std::env::var("PATH").unwrap_or_default());
        Ended(Command::new("sh").args(["-ec", script]).env("PATH", path).current_dir(project.at("")).output().unwrap())
    };
    for (out, run) in
        [("ram/user", &(|script: &str| as_user(&project, script)) as &dyn Fn(&str) -> Ended), ("ram/root", &as_root)]
    {
        run(&build.replace("OUT", out)).is(0);
        run(&change.replace("OUT", out)).is(0);
        assert_eq!(project.names(&format!("{out}/d")), ["n"], "{out}");
    }
}

/// A change says nothing of the rest: the command has to have the whole.
#[test]
fn what_lies_in_the_output_is_taken_over_with_what_a_command_leaves_in_a_copy() {
    let project = Project::published();
    for path in ["dist/foreign", "dist/old/page"] {
        project.write(path, "x");
    }
    project.run(&["--adopt"], "echo c > dist/c").is(0).says("--adopt-all takes over all that lies in the output");
    project.run(&["--adopt-all"], "test -e dist/a; rm dist/b; echo d > dist/d").is(0);
    assert_eq!(project.names("dist"), ["a", "c", "d"]);
    assert_eq!(project.read("dist/c"), "c\n");
    // Without a state all of it is foreign.
    fs::remove_dir_all(project.at(".dist.txfs")).unwrap();
    project.run(&["--adopt-all"], "for f in a b c; do echo $f > dist/$f; done").is(0);
    assert_eq!(project.names("dist"), ["a", "b", "c"]);
}

struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
