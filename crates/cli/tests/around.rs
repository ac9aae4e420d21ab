//! What stands around a commit: what is left out of it, what checks it once it is live, and what follows it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use project::{Ended, Project, signal, wait_for};
use serde_json::Value;

mod project;

const MAPS: [&str; 4] = ["--exclude", "*.map", "--exclude", "cache/"];

#[test]
fn what_is_excluded_is_not_published_however_it_was_built() {
    let project = Project::new();
    let made = "echo 1 > a; echo 1 > a.map; mkdir -p d cache; echo 1 > d/b; echo 1 > d/b.map; echo 1 > cache/c";
    // In a stage, captured from nothing, captured over what is there, and as a copy of it.
    for (options, script) in [
        (&["--stage"][..], format!("cd \"$TXFS_STAGE\"; {made}")),
        (&[], format!("mkdir -p dist; cd dist; {made}")),
        (&["--capture", "copy"], format!("mkdir -p dist; cd dist; {made}")),
    ] {
        project.run(&[&MAPS, options].concat(), &script).is(0);
        assert_eq!((project.names("dist"), project.names("dist/d")), (vec!["a".into(), "d".into()], vec!["b".into()]));
        project.txfs(["verify", "dist"]).is(0);
    }
    fs::remove_dir_all(project.at("dist")).unwrap();
    fs::remove_dir_all(project.at(".dist.txfs")).unwrap();
    project.run(&MAPS, &format!("mkdir -p dist; cd dist; {made}")).is(0);
    assert_eq!(project.names("dist"), ["a", "d"]);
    let stage = project.txfs(["begin", "dist"]).is(0).out();
    let filled = Command::new("sh").args(["-ec", made]).current_dir(stage.trim()).status().unwrap();
    assert!(filled.success());
    let seen = project.txfs([&["diff", "dist", "--exit-code"], &MAPS[..]].concat()).is(0);
    assert_eq!(seen.out(), "", "a diff sees what the commit would");
    project.txfs([&["commit", "dist"], &MAPS[..]].concat()).is(0).says("unchanged");
    project.source(&["a", "a.map", "d/b", "d/b.map", "cache/c"], "1\n");
    assert_eq!(project.txfs([&["diff", "dist", "src"], &MAPS[..]].concat()).is(0).out(), "");
    for options in [&["--dry-run"][..], &[], &["--checksum"], &["--check", "test ! -e a.map"]] {
        project.publish(&[&MAPS, options].concat()).is(0).says("unchanged");
    }
}

#[test]
fn what_is_excluded_now_and_was_published_goes() {
    let all = ["a", "a.map", "cache/c", "d/b"];
    for published in [&["--checksum"][..], &[]] {
        let project = Project::new();
        project.source(&all, "1");
        project.publish(&[]).is(0);
        project.publish(&[&MAPS, published, &["--dry-run"]].concat()).is(0).says("3 paths removed");
        project.publish(&[&MAPS, published].concat()).is(0).says("3 paths removed");
        assert_eq!(project.names("dist"), ["a", "d"]);
        project.publish(published).is(0).says("3 paths added");
    }
    // What a captured command leaves is the whole, too.
    let project = Project::new();
    project.source(&all, "1");
    project.publish(&[]).is(0);
    project.run(&MAPS, "echo 2 > dist/a").is(0).says("1 path changed, 3 removed");
    assert_eq!(project.names("dist"), ["a", "d"]);
    // A change says nothing of what it does not name.
    project.publish(&[]).is(0);
    let stage = project.txfs(["begin", "dist", "--from", "current"]).is(0).out();
    fs::write(PathBuf::from(stage.trim()).join("b.map"), "2").unwrap();
    project.txfs([&["commit", "dist"], &MAPS[..]].concat()).is(0).says("unchanged");
    assert_eq!(project.names("dist"), ["a", "a.map", "cache", "d"]);
}

#[test]
fn what_cannot_be_published_may_be_excluded() {
    let project = Project::new();
    project.source(&["a"], "1");
    assert!(Command::new("mkfifo").arg(project.at("src/pipe")).status().unwrap().success());
    project.publish(&[]).is(5);
    project.publish(&["--exclude", "pipe", "--dry-run"]).is(0);
    project.publish(&["--exclude", "pipe"]).is(0);
    project.run(&["--stage", "--exclude", "/pipe"], "echo 2 > \"$TXFS_STAGE/a\"; mkfifo \"$TXFS_STAGE/pipe\"").is(0);
    project.run(&["--exclude", "/pipe"], "echo 3 > dist/a; mkfifo dist/pipe").is(0);
    assert_eq!(project.names("dist"), ["a"]);
    project.run(&["--exclude", "[", "--stage"], "true").is(125).says("invalid value '['");
}

#[test]
fn checks_of_a_stage_see_it_without_what_is_excluded_and_so_is_what_they_leave() {
    let project = Project::new();
    let script = "echo 1 > \"$TXFS_STAGE/a\"; echo 1 > \"$TXFS_STAGE/a.map\"";
    project.run(&["--exclude", "*.map", "--check", "test ! -e a.map && echo > report.map"], script).is(0);
    assert_eq!(project.names("dist"), ["a"]);
}

#[test]
fn closed_directories_may_hold_what_is_excluded() {
    let project = Project::new();
    let script = "mkdir \"$TXFS_STAGE/d\"; cd \"$TXFS_STAGE/d\"; echo 1 > a; echo 1 > a.map; chmod 555 .";
    project.run(&["--exclude", "*.map"], script).is(0);
    assert_eq!(project.names("dist/d"), ["a"]);
    assert!(fs::metadata(project.at("dist/d")).unwrap().permissions().readonly());
}

#[test]
fn what_follows_a_commit_is_told_what_changed() {
    let project = Project::published();
    let after = "echo \"$TXFS_GENERATION $TXFS_OUTPUT $PWD\" > told; cat \"$TXFS_CHANGES\" >> told; cat dist/a >> told";
    project.source(&["a", "c"], "2");
    let ran = project.publish(&["--after", after, "--json"]).is(0);
    assert_eq!(ran.json().len(), 1);
    let told = project.read("told");
    let lines: Vec<_> = told.lines().collect();
    let (output, project_dir) = (project.at("dist"), project.at(""));
    let dir = project_dir.to_str().unwrap().trim_end_matches('/');
    assert_eq!(lines[0], format!("2 {} {dir}", output.display()));
    let changes: Vec<Value> = lines[1..4].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let changes: Vec<_> =
        changes.iter().map(|it| (it["letter"].as_str().unwrap(), it["path"].as_str().unwrap())).collect();
    assert_eq!((changes, lines[4]), (vec![("M", "a"), ("D", "b"), ("A", "c")], "2"));
    // Every command that publishes has it, and none where nothing changed.
    let after = "echo \"$TXFS_GENERATION\" >> log; echo \"$TXFS_CHANGES\" > changes";
    project.publish(&["--after", after]).is(0);
    project.publish(&["--after", after, "--dry-run"]).is(0);
    assert!(!project.at("log").exists());
    project.run(&["--after", after], "echo 3 > dist/a").is(0);
    project.txfs(["begin", "dist", "--from", "current"]).is(0);
    project.txfs(["commit", "dist", "--remove", "a", "--allow-empty", "--after", after]).is(0);
    project.txfs(["rollback", "dist", "--after", after, "--after", after]).is(0);
    assert_eq!(project.read("log"), "3\n4\n5\n5\n");
    assert!(!PathBuf::from(project.read("changes").trim()).exists(), "the file of changes is left");
}

#[test]
fn a_commit_stands_when_what_follows_it_fails() {
    let project = Project::published();
    project.source(&["a"], "2");
    let failed = project.publish(&["--after", "exit 3", "--after", "touch ran", "--json"]).is(9);
    let objects = failed.json();
    assert_eq!(objects[0]["generation"], 2);
    let error = objects.last().unwrap();
    assert_eq!((&error["error"], &error["code"], &error["outcome"]), (&"after".into(), &9.into(), &"committed".into()));
    assert_eq!(error["generation"], 2);
    failed.says("generation 2 of dist is published, but `exit 3` exited with status 3").says("hint: the commit stands");
    assert!(project.at("ran").exists());
    assert_eq!((project.read("dist/a"), project.generation()), ("2".into(), 2));
    assert_eq!(project.run(&["--after", "kill -9 $$"], "echo 3 > dist/a").is(9).says("killed by signal 9").out(), "");
    assert_eq!(project.generation(), 3);
}

#[test]
fn what_takes_too_long_is_ended_with_all_that_it_started() {
    let project = Project::published();
    project.source(&["a"], "2");
    let slow = "trap '' TERM; sleep 600 & echo $! > pid; wait; sleep 600";
    project.publish(&["--after", slow, "--after-timeout", "1"]).is(9).says("took longer than 1 s, and was ended");
    let pid = project.read("pid");
    let is_there = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    wait_for("its child to end", || !is_there());
    project.source(&["a"], "3");
    project
        .publish(&["--verify-live", "sleep 600", "--verify-live-timeout", "0.2"])
        .is(5)
        .says("took longer than 0.2 s");
    assert_eq!(project.read("dist/a"), "2");
}

#[test]
fn what_does_not_pass_live_is_taken_back() {
    let project = Project::published();
    let live = "test \"$(cat a)\" = 1 && test -e b && test \"$TXFS_GENERATION\" -gt 0";
    project.source(&["a"], "2");
    let failed = project.publish(&["--verify-live", live, "--after", "touch ran", "--json"]).is(5);
    assert_eq!(failed.json().len(), 1, "nothing is said to be published");
    let error = &failed.json()[0];
    assert_eq!(
        (&error["error"], &error["outcome"], &error["generation"]),
        (&"refused".into(), &"taken-back".into(), &3.into())
    );
    assert_eq!(error["problems"][0]["problem"], "check");
    failed.says("published generation 2 of dist").says("generation 1 is published again, as generation 3");
    assert_eq!((project.names("dist"), project.read("dist/a")), (vec!["a".into(), "b".into()], "1".into()));
    assert!(!project.at("ran").exists(), "nothing new is published");
    project.txfs(["verify", "dist"]).is(0);
    project.run(&["--verify-live", live], "rm dist/b").is(5);
    project.run(&["--verify-live", live], "echo c > dist/c").is(0);
    assert_eq!((project.names("dist"), project.generation()), (vec!["a".into(), "b".into(), "c".into()], 6));
}

#[test]
fn a_first_generation_that_does_not_pass_is_gone_again() {
    let project = Project::new();
    project.source(&["a", "d/b"], "1");
    project.publish(&["--verify-live", "false"]).is(5).says("what it published is gone again, as generation 2");
    assert_eq!(project.names("dist"), Vec::<String>::new());
    // What was there before and was taken over stays.
    let project = Project::new();
    project.source(&["a", "b"], "1");
    project.write("dist/a", "1");
    project.write("dist/b", "mine");
    project.publish(&["--adopt", "--verify-live", "false"]).is(5);
    assert_eq!((project.names("dist"), project.read("dist/b")), (vec!["a".into(), "b".into()], "mine".into()));
    let project = Project::new();
    project.source(&["a"], "1");
    project.write("dist/a", "1");
    project.publish(&["--adopt", "--verify-live", "false"]).is(5);
    assert_eq!(project.names("dist"), ["a"]);
}

#[test]
fn nothing_is_taken_back_when_another_commit_came_first() {
    let project = Project::published();
    project.source(&["a", "b"], "2");
    let binary = env!("CARGO_BIN_EXE_txfs");
    let other = format!("cd .. && mkdir other && echo 3 > other/a && {binary} publish dist other 2>&1 && false");
    let failed = project.publish(&["--verify-live", &other, "--json"]).is(5).says("another commit came since");
    assert_eq!((&failed.json()[0]["outcome"], &failed.json()[0]["generation"]), (&"committed".into(), &2.into()));
    assert_eq!((project.generation(), project.read("dist/a")), (3, "3\n".into()));
}

#[test]
fn what_cannot_be_taken_back_stands_and_is_said_to() {
    let project = Project::published();
    project.source(&["a"], "2");
    // Somebody changed what is published.
    let failed = project.publish(&["--verify-live", "echo drift > a; false", "--json"]).is(9);
    assert_eq!((&failed.json()[0]["error"], &failed.json()[0]["outcome"]), (&"after".into(), &"committed".into()));
    failed.says("could not be taken back: it is published").says("`txfs rollback dist` goes back");
    assert_eq!((project.generation(), project.read("dist/a")), (2, "drift\n".into()));
}

#[test]
fn a_signal_ends_what_runs_after_a_commit_and_what_did_not_pass_is_taken_back() {
    for (hook, code, generation) in [("--verify-live", 5, 3), ("--after", 9, 2)] {
        let project = Project::published();
        project.source(&["a"], "2");
        let marker = project.at("begun");
        let slow = format!("touch {}; sleep 600", marker.display());
        let arguments = ["publish", "dist", "src", hook, &slow];
        let child = project.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("the hook", || marker.exists());
        signal(&child, "-TERM");
        Ended(child.wait_with_output().unwrap()).is(code).says("killed by signal 15");
        assert_eq!(project.generation(), generation, "{hook}");
    }
}

#[test]
fn what_runs_after_a_commit_leads_a_process_group_of_its_own() {
    let project = Project::published();
    project.source(&["a"], "2");
    project.publish(&["--after", "ps -o pgid= -p $$ > group; echo $$ > pid"]).is(0);
    assert_eq!(project.read("group").trim(), project.read("pid").trim());
}

#[test]
fn what_a_killed_process_left_for_what_it_ran_goes_with_the_next_commit_and_not_what_a_living_one_uses() {
    let project = Project::published();
    let handed = || fs::read_dir(project.at(".dist.txfs/handed")).map_or(0, Iterator::count);
    project.source(&["a"], "2");
    fs::create_dir(project.at("tmp")).unwrap();
    let after = "echo \"$TXFS_CHANGES\" > changes; echo $$ > pid; touch begun; exec sleep 600";
    let mut command = project.command(["publish", "dist", "src", "--after", after]);
    let mut child = command.env("TMPDIR", project.at("tmp")).spawn().unwrap();
    wait_for("the hook", || project.at("begun").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    Command::new("kill").arg("-9").arg(project.read("pid").trim()).status().unwrap();
    assert_eq!(fs::read_dir(project.at("tmp")).unwrap().count(), 0);
    assert!(PathBuf::from(project.read("changes").trim()).starts_with(project.at(".dist.txfs")));
    assert_eq!(handed(), 2);
    // Another commit, while what follows this one reads what changed.
    project.source(&["a", "c"], "3");
    let binary = env!("CARGO_BIN_EXE_txfs");
    let after = format!(
        "{binary} run -q dist -- sh -c 'echo 4 > dist/a' && {binary} recover dist && cat \"$TXFS_CHANGES\" > told"
    );
    project.publish(&["--after", &after]).is(0);
    assert!(project.read("told").contains("\"path\":\"c\""), "{}", project.read("told"));
    assert_eq!(handed(), 0);
}

#[test]
fn transactions_that_were_begun_and_forgotten_are_counted() {
    let project = Project::published();
    let name = project.names("dist").remove(0);
    project.write(&format!("dist/{name}"), "edited");
    let begin = || project.txfs(["begin", "dist"]).is(0);
    for others in 0..4 {
        let begun = begin();
        let (stage, warned) = (begun.out(), begun.err().contains("open: `txfs abort --all dist` discards all"));
        assert_eq!(warned, others >= 3, "{}", begun.err());
        fs::write(Path::new(stage.trim_end()).join(&name), "another").unwrap();
        let refused = project.txfs(["commit", stage.trim_end()]).is(4);
        let counted = format!("{others} other transaction");
        assert_eq!(refused.err().contains(&counted), others > 0, "{}", refused.err());
    }
    project.txfs(["abort", "--all", "dist"]).is(0);
    assert_eq!(begin().err(), "");
}

/// What `publish` puts back is a change, too.
#[test]
fn what_a_commit_would_put_back_is_a_difference() {
    let project = Project::new();
    project.source(&["a", "b"], "one");
    project.publish(&[]).is(0);
    fs::remove_file(project.at("dist/a")).unwrap();
    project.txfs(["diff", "--exit-code", "dist", "src"]).is(8).says("would put back").says("a");
    project.publish(&[]).is(0);
    project.txfs(["diff", "--exit-code", "dist", "src"]).is(0);
}
