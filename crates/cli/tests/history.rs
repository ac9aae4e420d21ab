//! `txfs log`, and going back further than by one generation.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::process::Stdio;
use std::time::Duration;

mod project;

use project::Project;

/// Generations 1 to `last`, of which `n` has the file `n`, and `a` with as many bytes.
fn published(last: usize, options: &[&str]) -> Project {
    let project = Project::new();
    for n in 1..=last {
        project.source(&["a"], &"x".repeat(n));
        project.write(&format!("src/{n}"), "");
        project.publish(&[options, &["-m", &format!("build {n}")]].concat()).is(0);
    }
    project
}

fn numbers(project: &Project) -> Vec<u64> {
    let objects = project.txfs(["log", "dist", "--json"]).is(0).json();
    objects[..objects.len() - 1].iter().map(|object| object["generation"].as_u64().unwrap()).collect()
}

#[test]
fn what_is_kept_is_listed_and_can_be_gone_back_to() {
    let project = published(5, &["--keep", "3"]);
    assert_eq!(numbers(&project), [5, 4, 3, 2]);
    let listed = project.txfs(["log", "dist", "-n", "2"]).is(0);
    let lines: Vec<String> = listed.out().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].trim_start().starts_with("5  20") && lines[0].contains("+1 ~1 -1"), "{}", lines[0]);
    assert!(lines[1].ends_with("build 4  holds 3 bytes"), "{}", lines[1]);
    let going = project.txfs(["rollback", "dist", "--to", "2", "--dry-run"]).is(0);
    assert_eq!(going.out(), "A 2\nD 5\nM a\n");
    project.txfs(["rollback", "dist", "--to", "2"]).is(0);
    assert_eq!(fs::read_to_string(project.at("dist/a")).unwrap(), "xx");
    assert!(project.at("dist/2").exists() && !project.at("dist/5").exists());
    assert_eq!(numbers(&project), [6, 5, 4, 3]);
}

#[test]
fn what_changed_between_two_generations_is_told() {
    let project = published(4, &["--keep", "3"]);
    let diff = |args: &[&str]| project.txfs([&["diff", "dist"], args].concat());
    assert_eq!(diff(&["--from", "1"]).is(0).out(), "D 1\nA 4\nM a\n");
    assert_eq!(diff(&["--to", "3"]).is(0).out(), "D 2\nA 3\nM a\n");
    assert_eq!(diff(&["--from", "4", "--to", "2", "--exit-code"]).is(8).out(), "A 2\nD 4\nM a\n");
    assert_eq!(diff(&["--from", "0", "--to", "1"]).is(0).out(), "A 1\nA a\n");
    assert_eq!(diff(&["--from", "4", "--exit-code"]).is(0).out(), "");
    let objects = diff(&["--from", "1", "--json"]).is(0).json();
    let summary = objects.last().unwrap();
    let counts = ["from", "generation", "added", "changed", "removed"].map(|field| summary[field].as_u64().unwrap());
    assert_eq!((objects.len(), counts), (4, [1, 4, 1, 1, 1]));
    diff(&["--from", "9"]).is(2).says("`txfs log dist` lists what can be gone back to");
    project.txfs(["publish", "dist", "src", "--keep", "1"]).is(0);
    project.txfs(["prune", "dist", "--keep", "1"]).is(0);
    diff(&["--from", "1"]).is(2).says("generation 1 is not kept any more");
}

#[test]
fn one_that_is_not_kept_is_refused_with_the_way_to_the_list() {
    let project = published(3, &[]);
    let refused = project.txfs(["rollback", "dist", "--to", "1"]).is(2);
    refused.says("generation 1 is not kept any more").says("hint: `txfs log dist` lists what can be gone back to");
    assert_eq!(fs::read_to_string(project.at("dist/a")).unwrap(), "xxx");
}

#[test]
fn the_file_says_how_much_is_kept_and_the_command_line_wins() {
    let project = Project::new();
    project.write("txfs.toml", "[output.dist]\nkeep = 2\nkeep-for = \"0s\"\n");
    for n in 1..=4 {
        project.source(&["a"], &"x".repeat(n));
        project.publish(&[]).is(0);
    }
    assert_eq!(numbers(&project), [4, 3, 2]);
    project.source(&["a"], "xxxxx");
    project.publish(&["--keep", "0"]).is(0);
    project.txfs(["prune", "dist", "--keep", "0"]).is(0);
    assert_eq!(numbers(&project), [5]);
    project.write("txfs.toml", "[output.dist]\nkeep-for = \"7\"\n");
    project.publish(&[]).is(2).says("txfs.toml:2: this is not an age");
}

#[test]
fn pruning_keeps_what_it_is_told_and_says_what_it_freed() {
    let project = published(5, &["--keep", "9"]);
    let pruned = project.txfs(["prune", "dist", "--keep", "2"]).is(0);
    pruned.says("freed 3 bytes in 4 files").says("generation 3 of dist can not be gone back from any more");
    assert_eq!(numbers(&project), [5, 4, 3]);
    let status = project.txfs(["status", "dist"]);
    assert!(status.out().contains("past:         2 generations to go back to, 7 bytes held"), "{}", status.out());
}

#[test]
fn nothing_published_has_no_past() {
    let project = Project::new();
    let listed = project.txfs(["log", "dist"]).is(0);
    assert_eq!(listed.out(), "");
    listed.says("nothing has been published");
}

#[test]
fn a_generation_can_be_read_and_copied_whatever_lies_there_now() {
    let project = published(3, &["--keep", "3"]);
    assert_eq!(project.txfs(["cat", "dist", "a", "--generation", "2"]).is(0).out(), "xx");
    assert_eq!(project.txfs(["cat", "dist", "a"]).is(0).out(), "xxx");
    project.txfs(["cat", "dist", "none"]).is(2);
    project.write("dist/a", "by somebody");
    project.txfs(["cat", "dist", "a"]).is(4);
    let copied = project.txfs(["export", "dist", "old", "--generation", "1"]).is(0);
    copied.says("copied generation 1 of dist to old: 2 files");
    assert_eq!((project.names("old"), project.read("old/a")), (vec!["1".to_owned(), "a".to_owned()], "x".to_owned()));
    project.txfs(["export", "dist", "old"]).is(2).says("old is not empty: name a directory that is not there yet");
    let refused = project.txfs(["export", "dist", "other", "--generation", "9"]).is(2);
    refused.says("hint: `txfs log dist` lists what can be gone back to");
    assert!(!project.at("other").exists());
    project.txfs(["cat", "nothing", "a"]).is(2).says("nothing has been published");
}

#[test]
fn damage_to_what_was_said_keeps_the_past_and_is_mended_by_saying_it_again() {
    let project = published(3, &["--keep", "5"]);
    project.write(".dist.txfs/retention", "torn");
    project
        .txfs(["log", "dist"])
        .is(6)
        .says("so all of it is")
        .says("hint: say it again, as by `txfs publish --keep 5`");
    project.txfs(["status", "dist"]).is(0).says("what is to be kept of the past cannot be made out");
    project.publish(&["--keep", "5"]).is(0);
    assert_eq!(numbers(&project), [3, 2, 1]);
}

#[test]
fn each_generation_is_told_of_once_and_nothing_else_is() {
    let project = Project::new();
    let watching =
        project.command(["watch", "dist", "-n", "4", "--json", "--after", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let late = project.command(["wait", "dist", "--after", "3"]).stdout(Stdio::piped()).spawn().unwrap();
    // As a rule both look before anything is published.
    std::thread::sleep(Duration::from_millis(500));
    for n in 1..=4 {
        project.source(&["a", "same"], "same");
        project.write("src/a", &"x".repeat(n));
        project.publish(&["-m", &format!("build {n}")]).is(0);
        // A build that fails, and one that changes nothing.
        project.run(&[], "exit 1").is(1);
        project.publish(&[]).is(0);
    }
    let output = watching.wait_with_output().unwrap();
    assert!(output.status.success());
    let told: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> = told.iter().map(|object| object["generation"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert_eq!(told[3]["message"], "build 4");
    assert_eq!(told[3]["changes"].as_array().unwrap().len(), 1);
    assert_eq!(told[3]["changes"][0]["path"], "a");
    assert_eq!(String::from_utf8(late.wait_with_output().unwrap().stdout).unwrap(), "4\n");
    // What came before is told of when it is asked for.
    let again = project.txfs(["watch", "dist", "-n", "2", "--after", "2"]).is(0);
    let lines: Vec<_> = again.out().lines().map(|line| line.trim_start()[..1].to_owned()).collect();
    assert_eq!(lines, ["3", "4"]);
}

#[test]
fn waiting_ends_with_the_generation_or_the_time() {
    let project = published(2, &[]);
    assert_eq!(project.txfs(["wait", "dist", "--after", "1"]).is(0).out(), "2\n");
    project.txfs(["wait", "dist", "--timeout", "0.2"]).is(3).says("no generation after 2 was committed within 0.2 s");
    project.txfs(["wait", "elsewhere", "--timeout", "0"]).is(3);
}
