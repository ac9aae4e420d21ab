//! What a stage is to those who build and check in it, seen through the binary: as the output will be, as far as that can be had.
#![allow(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use txfs_testing as common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::Scratch;

struct Project(Scratch);

impl Project {
    fn new() -> Self {
        Self(Scratch::new())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(path)
    }

    fn output(&self, program: &str, dir: &Path, args: &[&str]) -> Output {
        let mut command = Command::new(program);
        // Neither the user's settings nor a repository around the scratch directory.
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CEILING_DIRECTORIES", self.at("").parent().unwrap());
        command.args(args).current_dir(dir).stdin(Stdio::null()).output().unwrap()
    }

    #[track_caller]
    fn txfs(&self, args: &[&str]) -> String {
        let output = self.output(env!("CARGO_BIN_EXE_txfs"), &self.at(""), args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn begin(&self) -> PathBuf {
        PathBuf::from(self.txfs(&["begin", "dist"]).trim_end())
    }

    fn git(&self, args: &[&str]) -> String {
        let output = self.output("git", &self.at(""), args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

/// Of a store that is new, and of one that said `*` once.
#[test]
fn git_ignores_all_of_the_state_while_a_stage_is_open() {
    if !is_installed("git") {
        return;
    }
    for said_once in [false, true] {
        let project = Project::new();
        project.git(&["init", "-q"]);
        fs::write(project.at("src"), "content").unwrap();
        let stage = project.begin();
        if said_once {
            fs::write(project.at(".dist.txfs/.gitignore"), "*\n").unwrap();
            project.begin();
        }
        fs::create_dir(stage.join("sub")).unwrap();
        fs::write(stage.join("sub/page"), "staged").unwrap();
        fs::write(stage.join(".hidden"), "staged").unwrap();
        assert_eq!(project.git(&["status", "--porcelain", "--untracked-files=all"]), "?? src\n");
        assert_eq!(project.git(&["clean", "-nd"]), "Would remove src\n");
        project.git(&["add", "-A"]);
        assert_eq!(project.git(&["diff", "--cached", "--name-only"]), "src\n");
        fs::remove_file(stage.join(".hidden")).unwrap();
        project.txfs(&["commit", stage.to_str().unwrap()]);
        assert_eq!(project.git(&["status", "--porcelain", "--untracked-files=all"]), "A  src\n?? dist/sub/page\n");
    }
}

/// ripgrep, fd, ruff and typos hold the path of each entry against the ignore files of every directory above.
#[test]
fn what_honours_ignore_files_sees_the_stage() {
    let project = Project::new();
    fs::create_dir(project.at(".git")).unwrap();
    project.begin();
    let ignore = project.at(".dist.txfs/.gitignore");
    assert_eq!(fs::read_to_string(&ignore).unwrap(), "/*\n");
    fs::write(&ignore, "*\n").unwrap();
    let stage = project.begin();
    assert_eq!(fs::read_to_string(&ignore).unwrap(), "/*\n", "an older store hides its stages");
    fs::write(stage.join("page"), "BROKEN").unwrap();
    fs::create_dir(stage.join("sub")).unwrap();
    fs::write(stage.join("sub/page"), "BROKEN").unwrap();
    if is_installed("rg") {
        let found = project.output("rg", &stage, &["-c", "--sort=path", "BROKEN"]);
        assert_eq!(String::from_utf8(found.stdout).unwrap(), "page:1\nsub/page:1\n");
    }
}

#[test]
fn an_ignore_file_that_the_user_wrote_or_removed_is_left_alone() {
    let project = Project::new();
    project.begin();
    let ignore = project.at(".dist.txfs/.gitignore");
    for said in ["#\n", "", "*\n!lock\n"] {
        fs::write(&ignore, said).unwrap();
        project.begin();
        assert_eq!(fs::read_to_string(&ignore).unwrap(), said);
    }
    fs::remove_file(&ignore).unwrap();
    project.begin();
    assert!(!ignore.exists());
}

/// As a bundler does that is told to write to the stage: source maps, and links.
const BUILD: &str = r#"cd "$TXFS_STAGE" && mkdir -p js && printf '{"sources":["../../../../../src/a.ts"]}' > js/a.js.map
ln -s ../../../../src link && echo fine > page && printf '"%s/page"' "$TXFS_STAGE" > absolute"#;

#[test]
fn what_names_the_stage_or_leads_out_of_it_is_warned_of_where_it_is_published_or_would_be() {
    let project = Project::new();
    fs::create_dir(project.at("src")).unwrap();
    fs::write(project.at("src/a.ts"), "").unwrap();
    let txfs = |args: &[&str]| {
        let output = project.output(env!("CARGO_BIN_EXE_txfs"), &project.at(""), args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    let is_told = |said: &str| {
        said.contains("1 entry that is published names the stage, which is gone after the commit: absolute")
            && said.contains("2 entries with relative paths that lead out of the stage")
            && said.contains(": js/a.js.map, link")
    };
    let run = ["run", "dist", "--dry-run", "--", "sh", "-c", BUILD];
    let [_, said] = txfs(&run);
    assert!(is_told(&said), "{said}");
    let stage = project.begin();
    let mut build = Command::new("sh");
    assert!(build.args(["-c", BUILD]).env("TXFS_STAGE", &stage).status().unwrap().success());
    let [_, said] = txfs(&["diff", "dist"]);
    assert!(is_told(&said) && said.contains("txfs publish "), "{said}");
    let [json, said] = txfs(&["commit", "--json", stage.to_str().unwrap()]);
    assert!(is_told(&said), "{said}");
    assert!(json.contains(r#""warnings":["1 entry that is published names the stage"#), "{json}");
    // What is published already has been warned of; a check may mend it.
    let [_, said] = txfs(&["run", "dist", "--", "sh", "-c", BUILD]);
    assert!(!is_told(&said) && said.contains(": absolute"), "{said}");
    let mend = r#"grep -rlIF "$TXFS_STAGE" . | xargs -r sed -i "s|$TXFS_STAGE|$TXFS_OUTPUT|g""#;
    let [_, said] = txfs(&["run", "dist", "--check", mend, "--", "sh", "-c", BUILD]);
    assert!(!said.contains("warning"), "{said}");
    let published = project.at("dist");
    assert_eq!(fs::read_to_string(published.join("absolute")).unwrap(), format!("\"{}/page\"", published.display()));
}

/// From a directory beside the output relative paths lead to the same.
#[test]
fn a_build_beside_the_output_is_published_without_a_warning() {
    let project = Project::new();
    fs::create_dir(project.at("src")).unwrap();
    fs::create_dir(project.at("dist.new")).unwrap();
    fs::write(project.at("src/a.ts"), "").unwrap();
    fs::write(project.at("dist.new/a.js.map"), "../src/a.ts").unwrap();
    let args = ["publish", "dist", "dist.new"];
    let output = project.output(env!("CARGO_BIN_EXE_txfs"), &project.at(""), &args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !said.contains("warning"), "{said}");
}

/// The one that was overtaken names itself, too, when it is published as a copy.
#[test]
fn a_copy_of_a_stage_is_looked_at_for_the_stage_that_it_was() {
    let project = Project::new();
    let stage = project.begin();
    fs::write(stage.join("absolute"), stage.as_os_str().as_encoded_bytes()).unwrap();
    let output =
        project.output(env!("CARGO_BIN_EXE_txfs"), &project.at(""), &["publish", "dist", stage.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("names the stage"), "{said}");
}
