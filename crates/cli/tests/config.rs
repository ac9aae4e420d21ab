//! `txfs.toml`, and `txfs init`, which writes one.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::Command;

use project::{Ended, Project};

mod project;

const BUILD: &str = "[output.dist]\ncommand = 'mkdir -p dist && echo $((1 + 1)) > dist/a && pwd > dist/b'\n";

fn configured(text: &str) -> Project {
    let project = Project::new();
    project.write("txfs.toml", text);
    project
}

/// As from a directory of the project.
fn within(project: &Project, dir: &str, arguments: &[&str]) -> Ended {
    fs::create_dir_all(project.at(dir)).unwrap();
    let mut command = project.command(arguments.iter().copied());
    Ended(command.current_dir(project.at(dir)).output().unwrap())
}

#[test]
fn run_needs_no_more_than_the_output() {
    let project = configured(BUILD);
    project.txfs(["run", "dist"]).is(0).says("2 paths added");
    assert_eq!(project.read("dist/a"), "2\n");
    // From anywhere below, in the directory of the file.
    within(&project, "deep/er", &["run", "../../dist"]).is(0).says("unchanged");
    assert_eq!(project.read("dist/b").trim(), project.at("").to_str().unwrap().trim_end_matches('/'));
    // The command line wins.
    within(&project, "deep", &["run", "../dist", "--", "sh", "-c", "pwd > ../dist/b"]).is(0);
    assert!(project.read("dist/b").trim().ends_with("/deep"));
    project.txfs(["--no-config", "run", "dist"]).is(125).says("there is no command to run");
    project.txfs(["run", "other"]).is(125).says("txfs.toml says nothing of other: it is for dist");
    let nowhere = Project::new();
    nowhere.txfs(["run", "dist"]).is(125).says("there is no command to run");
    nowhere.txfs(["run", "dist", "--config", "txfs.toml"]).is(125).says("cannot read");
    let named = project.at("txfs.toml");
    nowhere.txfs(["run", project.at("dist").to_str().unwrap(), "--config", named.to_str().unwrap()]).is(0);
}

#[test]
fn a_stage_and_a_list_of_arguments_can_be_said() {
    let project = configured("[output.dist]\ncommand = ['cp', '-r', 'src/.', '{stage}']\nexclude = '*.map'\n");
    project.source(&["a", "a.map"], "1");
    project.txfs(["run", "dist"]).is(0);
    assert_eq!(project.names("dist"), ["a"]);
    project.write("txfs.toml", "[output.dist]\ncommand = 'cp -r src/. {stage}'\n");
    project.txfs(["run", "dist"]).is(0);
    assert_eq!(project.names("dist"), ["a", "a.map"]);
}

#[test]
fn every_command_that_publishes_goes_by_the_file() {
    let text = "
[output.dist]
source = 'src'
exclude = ['*.map']
check = ['test -e a']
after = './after'
max-removed = 10
touch = true
";
    let project = configured(text);
    project.write("after", "#!/bin/sh\necho $TXFS_GENERATION >> log\n");
    fs::set_permissions(project.at("after"), fs::Permissions::from_mode(0o755)).unwrap();
    project.source(&["a", "b", "a.map"], "1");
    within(&project, "deep", &["publish", "../dist"]).is(0);
    assert_eq!((project.names("dist"), project.read("log")), (vec!["a".into(), "b".into()], "1\n".into()));
    assert_eq!(project.txfs(["diff", "dist", "src"]).is(0).out(), "");
    project.source(&["b"], "1");
    project.txfs(["publish", "dist"]).is(5).says("test -e a");
    project.txfs(["publish", "dist", "--check", "true"]).is(5).says("--max-removed");
    project.txfs(["publish", "dist", "--check", "true", "--max-removed", "60", "--after", "true"]).is(0);
    assert_eq!(project.read("log"), "1\n");
    let stage = project.txfs(["begin", "dist"]).is(0).out();
    fs::write(project.at("new"), "").unwrap();
    let stage = stage.trim();
    fs::write(format!("{stage}/a"), "2").unwrap();
    fs::write(format!("{stage}/b.map"), "2").unwrap();
    project.txfs(["commit", stage, "--check", "false"]).is(5);
    project.txfs(["commit", stage, "--max-removed", "100"]).is(0);
    project.txfs(["rollback", "dist"]).is(0);
    assert_eq!((project.names("dist"), project.read("log")), (vec!["b".into()], "1\n3\n4\n".into()));
}

#[test]
fn what_is_on_in_the_file_is_turned_off_on_the_command_line() {
    let project = configured("[output.dist]\nsource = 'src'\nadopt = true\nwait = true\nkeep-failed = true\n");
    project.source(&["a"], "new");
    project.write("dist/a", "old");
    project.txfs(["publish", "dist", "--no-adopt"]).is(4);
    project.txfs(["publish", "dist", "--no-adopt", "--adopt", "--dry-run"]).is(0);
    project.txfs(["publish", "dist", "--no-wait"]).is(0);
    project.txfs(["publish", "dist", "--check", "false", "--no-keep-failed"]).is(5);
    let kept = project.txfs(["publish", "dist", "--check", "false"]).is(5).says("the stage is kept");
    drop(kept);
    let project =
        configured("[output.dist]\nstage = true\ncommand = 'mkdir -p \"$TXFS_STAGE\" && echo 1 > \"$TXFS_STAGE/a\"'\n");
    project.txfs(["run", "dist", "--capture", "copy"]).is(0);
    project.txfs(["run", "dist", "--no-stage"]).is(0);
}

#[test]
fn what_is_wrong_in_the_file_is_said_with_its_line() {
    let project = Project::new();
    for (text, said) in [
        (
            "[output.dist]\ncommand = 'true'\nexlude = ['x']\n",
            "txfs.toml:3: there is no key `exlude`: did you mean `exclude`?",
        ),
        ("[outputs.dist]\n", "txfs.toml:1: there is no key `outputs`: did you mean `output`?"),
        ("\n[output.dist]\nmax-removed = 200\n", "txfs.toml:3: this is not a whole number from 0 to 100"),
        ("[output.dist]\ncheck = [1]\n", "txfs.toml:2: this is to be a text, and is a integer"),
        ("[output]\ndist = 1\n", "txfs.toml:2: this is to be a table"),
        ("[output.dist]\n\n[output.'./dist']\n", "txfs.toml:3: this is the output of another table"),
        ("[output.dist\n", "txfs.toml:1: "),
        ("[output.dist]\nfrom = 'nothing'\n", "txfs.toml:2: this is none of \"empty\", \"current\", \"copy\""),
    ] {
        project.write("txfs.toml", text);
        let refused = project.txfs(["run", "dist", "--json"]).is(125).says(said);
        assert_eq!(refused.json()[0]["error"], "usage", "{text}");
        project.txfs(["begin", "dist"]).is(2);
        project.txfs(["--no-config", "status", "dist"]).is(0);
        project.txfs(["recover", "dist"]).is(0);
    }
    fs::remove_file(project.at("txfs.toml")).unwrap();
    assert!(Command::new("mkfifo").arg(project.at("txfs.toml")).status().unwrap().success());
    project.txfs(["run", "dist"]).is(125).says("is no file");
}

#[test]
fn a_file_that_others_can_write_is_not_trusted() {
    let project = configured(BUILD);
    fs::set_permissions(project.at("txfs.toml"), fs::Permissions::from_mode(0o666)).unwrap();
    project.txfs(["run", "dist"]).is(125).says("may be written to by everybody").says("--no-config");
    let named = project.at("txfs.toml");
    project.txfs(["run", "dist", "--config", named.to_str().unwrap()]).is(0);
    if !txfs_testing::is_root() {
        return txfs_testing::skip("a txfs.toml of another user", "giving files away needs root");
    }
    let project = configured(BUILD);
    chown(project.at("txfs.toml"), Some(65534), None).unwrap();
    within(&project, "deep", &["run", "../dist"]).is(125).says("belongs to user 65534");
    let trusted = project.command(["run", "dist"]).env("SUDO_UID", "65534").output().unwrap();
    Ended(trusted).is(0);
    // Nor is a link of another user's to one's own.
    let project = configured(BUILD);
    fs::rename(project.at("txfs.toml"), project.at("mine.toml")).unwrap();
    symlink("mine.toml", project.at("txfs.toml")).unwrap();
    project.txfs(["run", "dist", "--dry-run"]).is(0);
    std::os::unix::fs::lchown(project.at("txfs.toml"), Some(65534), None).unwrap();
    project.txfs(["run", "dist"]).is(125).says("belongs to user 65534");
}

#[test]
fn init_writes_what_run_needs() {
    let project = Project::new();
    project.write("Makefile", "all:\n\tmkdir -p public && echo 1 > public/a\n");
    project.write("public/a", "0");
    project.write(".gitignore", "/public");
    project.write(".dockerignore", "x\r\n");
    project.write(".prettierignore", ".public.txfs\n");
    project.txfs(["init"]).is(0).says("wrote txfs.toml").says("added .public.txfs/ to .gitignore");
    assert_eq!(project.read(".gitignore"), "/public\n.public.txfs/\n");
    assert_eq!(project.read(".dockerignore"), "x\r\n.public.txfs/\r\n");
    assert_eq!(project.read(".prettierignore"), ".public.txfs\n");
    assert!(!project.at(".npmignore").exists());
    project.txfs(["run", "public", "--adopt"]).is(0);
    assert_eq!(project.read("public/a"), "1\n");
    // Nothing that is there is changed.
    let written = project.read("txfs.toml");
    project.txfs(["init"]).is(2).says("txfs.toml is there already: nothing was changed");
    assert_eq!(project.read("txfs.toml"), written);
    fs::remove_file(project.at("txfs.toml")).unwrap();
    let again = project.txfs(["init", "--json"]).is(0).json().pop().unwrap();
    assert_eq!(again["ignored_by"], serde_json::json!([]));
    assert_eq!(project.read(".gitignore"), "/public\n.public.txfs/\n");
}

#[test]
fn init_of_what_it_does_not_know_writes_what_is_said() {
    let project = Project::new();
    project.txfs(["init"]).is(2).says("name the directory");
    assert!(!project.at("txfs.toml").exists());
    fs::create_dir(project.at("www")).unwrap();
    project.txfs(["init", "www/html/"]).is(0).says("say there by `command` what makes www/html");
    project.txfs(["run", "www/html"]).is(125).says("there is no command to run");
    project.write("x", "1");
    project.txfs(["run", "www/html", "--", "sh", "-c", "mkdir -p www/html && cp x www/html"]).is(0);
}
