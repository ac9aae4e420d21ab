//! `--at`, seen through the binary: several producers, one output.
#![allow(clippy::unwrap_used)]

mod project;

use std::fs;
use std::path::PathBuf;

use project::Project;
use serde_json::Value;

/// With a build of some files.
fn with_build(files: &[&str]) -> Project {
    let project = Project::new();
    fs::create_dir(project.at("build")).unwrap();
    for path in files {
        project.write(&format!("build/{path}"), path.rsplit('/').next().unwrap());
    }
    project
}

fn is_published(project: &Project, path: &str) -> bool {
    project.at("site").join(path).symlink_metadata().is_ok()
}

#[test]
fn each_producer_publishes_at_its_path_and_takes_it_away_again() {
    let project = with_build(&["index.html", "d/page"]);
    project.txfs(["publish", "site", "build", "--at", "main"]).is(0);
    project.txfs(["publish", "site", "build", "--at", "preview/123"]).is(0);
    // Nothing differs.
    assert_eq!(project.txfs(["publish", "site", "build", "--at", "preview/123"]).is(0).out(), "2\n");
    project.txfs(["run", "site", "--at", "docs/v2", "--", "sh", "-c", "echo page > {stage}/page"]).is(0);
    let with_variable = "test -d \"$TXFS_STAGE\" && cp -r build/. \"$TXFS_STAGE\"";
    project.txfs(["run", "site", "--at", "docs/v3", "--", "sh", "-c", with_variable]).is(0);
    for path in ["main/index.html", "preview/123/d/page", "docs/v2/page", "docs/v3/d/page"] {
        assert!(is_published(&project, path), "{path}");
    }
    let removed = project.txfs(["publish", "site", "--at", "preview/123", "--remove", "--json", "-v"]).is(0).json();
    assert_eq!((&removed[0]["path"], &removed[0]["change"]), (&"preview/123".into(), &"removed".into()));
    assert!(!is_published(&project, "preview/123") && is_published(&project, "main/index.html"));
    project.txfs(["publish", "site", "--at", "preview/123", "--remove"]).is(2).says("nothing is published there");
    project.txfs(["publish", "site", "--remove"]).is(2).says("--at");
    project.txfs(["publish", "site", "build", "--at", "main", "--remove"]).is(2);
    project.txfs(["verify", "site"]).is(0);
}

#[test]
fn the_second_to_commit_follows_the_first_unless_their_paths_overlap() {
    let project = with_build(&["page"]);
    project.txfs(["publish", "site", "build", "--at", "main"]).is(0);
    let begin = |at: &str| project.txfs(["begin", "site", "--at", at]).is(0).out().trim_end().to_owned();
    let (one, two, again) = (begin("preview/1"), begin("preview/2"), begin("preview/1"));
    for stage in [&one, &two, &again] {
        assert!(stage.contains("/stage/preview/"), "{stage}");
        fs::write(PathBuf::from(stage).join("page"), "1").unwrap();
    }
    let status = project.txfs(["status", "site", "--json"]).is(0).json();
    let open: Vec<_> = status[0]["transactions"].as_array().unwrap().iter().map(|open| open["at"].clone()).collect();
    assert!(open.contains(&"preview/1".into()) && open.contains(&"preview/2".into()), "{open:?}");
    assert!(project.txfs(["status", "site"]).is(0).out().contains("at preview/2"));
    assert_eq!(project.txfs(["commit", &one]).is(0).out(), "2\n");
    let diff = project.txfs(["diff", "site", &two]).is(0);
    assert_eq!(diff.out(), "A preview/2\nA preview/2/page\n");
    assert!(!String::from_utf8_lossy(&diff.0.stderr).contains("was committed since"), "{diff:?}");
    assert_eq!(project.txfs(["commit", &two]).is(0).out(), "3\n");
    project.txfs(["diff", "site", &again]).is(0).says("was committed since");
    let refused = project.txfs(["commit", &again]).is(4);
    refused.says("stage/preview/1 --at preview/1` publishes it over");
    project.txfs(["publish", "site", &again, "--at", "preview/1"]).is(0);
    project.txfs(["abort", &again]).is(0);
    for over in [&one, &two, &again] {
        project.txfs(["commit", over]).is(2).says("there is no such transaction");
    }
}

#[test]
fn a_stage_at_a_path_is_a_handle_and_what_is_around_it_is_none() {
    let project = with_build(&["page"]);
    let begun = project.txfs(["begin", "site", "--at", "preview/1", "--json"]).is(0).json();
    assert_eq!(begun[0]["at"], "preview/1");
    let stage = PathBuf::from(begun[0]["stage"].as_str().unwrap());
    fs::create_dir(stage.join("d")).unwrap();
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    project.txfs(["commit", &text(stage.join("d"))]).is(2).says("stage/preview/1/d: that is inside a stage");
    project.txfs(["commit", &text(stage.join("d/.."))]).is(5).says("no file");
    project.txfs(["begin", &text(stage.clone())]).is(2).says("is the stage of a transaction");
    fs::write(stage.with_file_name("beside"), "").unwrap();
    fs::write(stage.join("page"), "1").unwrap();
    let refused = project.txfs(["commit", "site", "--json"]).is(5).json();
    assert_eq!(refused[0]["problems"][0]["problem"], "outside-of-path", "{refused:?}");
    fs::remove_file(stage.with_file_name("beside")).unwrap();
    // What a tool removes and makes anew is the same place.
    fs::remove_dir_all(&stage).unwrap();
    project.txfs(["commit", &text(stage.clone())]).is(2).says("the stage is gone");
    fs::create_dir(&stage).unwrap();
    fs::write(stage.join("page"), "2").unwrap();
    project.txfs(["commit", &text(stage)]).is(0);
    assert!(is_published(&project, "preview/1/page"));
}

#[test]
fn a_change_names_what_goes_as_the_stage_does() {
    let project = with_build(&["x", "d/y"]);
    project.txfs(["publish", "site", "build", "--at", "a"]).is(0);
    let begin = || project.txfs(["begin", "site", "--at", "a", "--from", "current"]).is(0).out().trim_end().to_owned();
    let stage = begin();
    project.txfs(["commit", &stage, "--remove", "."]).is(2).says("--remove` takes it away");
    let committed = project.txfs(["commit", &stage, "--remove", "d", "--remove", "none"]).is(0);
    committed.says("--remove a/none: nothing was published there");
    assert!(!is_published(&project, "a/d") && is_published(&project, "a/x"));
    let copy = project.txfs(["begin", "site", "--at", "a", "--from", "copy"]).is(0).out();
    assert!(PathBuf::from(copy.trim_end()).join("x").is_file());
}

#[test]
fn a_dry_run_at_a_path_leaves_nothing_behind() {
    let project = with_build(&["page"]);
    let args = ["publish", "site", "build", "--at", "preview/1", "--dry-run"];
    let dry = project.txfs(args).is(0);
    assert_eq!(dry.out(), "A preview\nA preview/1\nA preview/1/page\n");
    assert!(!project.at("site").exists() && !project.at(".site.txfs").exists());
    project.txfs(args[..5].to_vec()).is(0);
    let dry = project.txfs(["publish", "site", "--at", "preview/1", "--remove", "--dry-run"]).is(0);
    assert_eq!(dry.out(), "D preview/1\nD preview/1/page\n");
    assert!(is_published(&project, "preview/1/page"));
    assert_eq!(project.txfs(["status", "site", "--json"]).is(0).json()[0]["transactions"], Value::Array(Vec::new()));
}

#[test]
fn guards_and_excludes_are_those_of_the_path() {
    let project = with_build(&["page", "app.map", "d/app.map"]);
    for _ in 0..2 {
        project.txfs(["publish", "site", "build", "--at", "a", "--exclude", "/app.map"]).is(0);
        assert!(is_published(&project, "a/d/app.map") && !is_published(&project, "a/app.map"));
    }
    project.txfs(["run", "site", "--at", "b", "--exclude", "/d/", "--", "cp", "-r", "build/.", "{stage}"]).is(0);
    assert!(is_published(&project, "b/app.map") && !is_published(&project, "b/d"));
    fs::remove_dir_all(project.at("build")).unwrap();
    fs::create_dir(project.at("build")).unwrap();
    project.txfs(["publish", "site", "build", "--at", "a"]).is(5).says("no file");
    project.txfs(["publish", "site", "build", "--at", "a", "--allow-empty"]).is(0);
    assert!(is_published(&project, "a") && !is_published(&project, "a/page") && is_published(&project, "b/page"));
}

#[test]
fn what_cannot_be_a_path_is_refused_before_anything_runs() {
    let project = with_build(&["page"]);
    project.txfs(["publish", "site", "build", "--at", "a"]).is(0);
    for at in [".", "..", "/srv", "a/../b", ".txfs"] {
        project.txfs(["publish", "site", "build", "--at", at]).is(2).says("no place in the output");
    }
    project.txfs(["publish", "site", "build", "--at", "a/page/x"]).is(2).says("is no directory");
    let touch = project.at("ran");
    let ran = touch.to_str().unwrap();
    project.txfs(["run", "site", "--at", "b", "--", "touch", ran]).is(125).says("--at is for a stage");
    assert!(!touch.exists());
}

/// A directory for temporary files is nobody's idea of what is published, as for the whole output.
#[test]
fn what_comes_from_a_private_directory_gets_the_mode_that_a_directory_has_there() {
    use std::os::unix::fs::PermissionsExt;
    let project = with_build(&["page"]);
    let private = |mode| fs::set_permissions(project.at("build"), fs::Permissions::from_mode(mode)).unwrap();
    let mode = |path: &str| project.at(path).metadata().unwrap().permissions().mode() & 0o777;
    private(0o700);
    project.txfs(["publish", "site", "build", "--at", "p"]).is(0);
    assert_eq!(mode("site/p"), mode("site"));
    // One that was chosen is taken, and stays.
    private(0o750);
    project.txfs(["publish", "site", "build", "--at", "q"]).is(0);
    assert_eq!(mode("site/q"), 0o750);
    private(0o700);
    project.write("build/page", "another");
    for at in ["p", "q"] {
        project.txfs(["publish", "site", "build", "--at", at]).is(0);
    }
    assert_eq!((mode("site/p"), mode("site/q")), (mode("site"), 0o750));
}
