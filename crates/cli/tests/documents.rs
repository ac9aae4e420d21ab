//! README and the book: what they show happens, the commands that they name are there, and their links lead somewhere.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn documents() -> Vec<PathBuf> {
    let mut all = vec![root().join("README.md"), root().join("journal-spec.md")];
    let mut dirs = vec![root().join("docs")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => dirs.push(path),
                Some(extension) if extension == "md" => all.push(path),
                _ => {}
            }
        }
    }
    all.sort();
    all
}

/// A command that is shown, and the lines that are shown below it.
struct Shown {
    command: String,
    output: Vec<String>,
}

/// What the blocks of `console` after a heading show, or of the whole text.
fn shown(text: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    let mut is_console = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_console = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| is_console) {
            all.push(Shown { command: command.to_owned(), output: Vec::new() });
        } else if let Some(last) = all.last_mut().filter(|_| is_console) {
            last.output.push(line.to_owned());
        }
    }
    all
}

/// Runs commands as one shell does, in a directory, with txfs and some stand-ins to be found; returns what each said and how it ended.
fn run(dir: &Path, commands: &[Shown]) -> Vec<(Vec<String>, i32)> {
    let mark = "-- the test's own mark --";
    let mut script = String::new();
    for Shown { command, .. } in commands {
        writeln!(script, "{command}\necho \"{mark} $?\"").unwrap();
    }
    let path = format!("{}:{}:/usr/bin:/bin", dir.join("bin").display(), bin().display());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec 2>&1\n{script}")).current_dir(dir.join("home")).stdin(Stdio::null());
    let output = shell.env("PATH", path).env_remove("TXFS_STAGE").output().unwrap();
    let mut ran = vec![];
    let mut lines = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.strip_prefix(mark) {
            Some(code) => ran.push((std::mem::take(&mut lines), code.trim().parse().unwrap())),
            None => lines.push(line.to_owned()),
        }
    }
    assert_eq!(ran.len(), commands.len(), "the shell stopped: {output:?}");
    ran
}

fn bin() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_txfs")).parent().unwrap().to_owned()
}

fn scratch() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("home")).unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    dir
}

/// As the document has it: without the directory that the test is in.
fn plain(line: &str, dir: &Path) -> String {
    let home = format!("{}/", dir.join("home").canonicalize().unwrap().display());
    line.replace(&home, "")
}

fn happens(text: &str) {
    let (dir, shown) = (scratch(), shown(text));
    assert!(shown.len() > 5, "the document shows nothing");
    for (Shown { command, output }, (said, code)) in shown.iter().zip(run(dir.path(), &shown)) {
        let said: Vec<_> = said.iter().map(|line| plain(line, dir.path())).collect();
        assert_eq!(said, *output, "{command}: ended with {code}");
    }
}

fn part<'t>(text: &'t str, heading: &str) -> &'t str {
    let rest = text.split_once(heading).unwrap_or_else(|| panic!("there is no {heading}")).1;
    rest.split_once("\n## ").map_or(rest, |(part, _)| part)
}

#[test]
fn what_the_readme_shows_of_sixty_seconds_happens() {
    happens(part(&fs::read_to_string(root().join("README.md")).unwrap(), "## Sixty seconds\n"));
}

#[test]
fn what_the_tutorial_shows_happens() {
    happens(&fs::read_to_string(root().join("docs/tutorial.md")).unwrap());
}

/// Stands for whatever tool a recipe names: it makes what that would, where it is told to or where that does, as little as will do.
const TOOL: &str = "#!/bin/sh
told=
for to in \"$@\"; do
    to=${to#*=}
    case $to in */*) [ ! -d \"$to\" ] || { told=1; echo page > \"$to/index.html\"; } ;; esac
done
[ -z \"$told\" ] || exit 0
case ${0##*/} in
    npm) to=dist ;; npx) to=_site ;; hugo) to=public ;; mkdocs) to=site ;; sphinx-build) to=_build ;; doxygen) to=docs ;;
    cargo) to=target/doc ;; make) to=build ;; *) exit 0 ;;
esac
mkdir -p $to && echo page > $to/index.html
";

const TOOLS: [&str; 15] = [
    "npm",
    "npx",
    "hugo",
    "mkdocs",
    "mdbook",
    "sphinx-build",
    "cargo",
    "make",
    "htmltest",
    "curl",
    "render",
    "doxygen",
    "git",
    "nginx",
    "vite",
];

fn stand_in(at: &Path) {
    fs::write(at, TOOL).unwrap();
    fs::set_permissions(at, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn every_recipe_does_what_it_says_with_a_stand_in_for_its_tool() {
    let mut ran = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        let is_recipe = |shown: &Shown| {
            let command = shown.command.as_str();
            shown.output.is_empty() && ["txfs", "printf", "cargo doc"].iter().any(|start| command.starts_with(start))
        };
        let is_walked = document.ends_with("docs/tutorial.md");
        let is_readme = document == root().join("README.md");
        let text = if is_readme { part(&text, "## Recipes\n") } else { &text };
        let mut recipes: Vec<_> = shown(text).into_iter().filter(is_recipe).filter(|_| !is_walked).collect();
        let dir = scratch();
        TOOLS.iter().for_each(|tool| stand_in(&dir.path().join("bin").join(tool)));
        ["render", "purge-cdn"].iter().for_each(|tool| stand_in(&dir.path().join("home").join(tool)));
        let home = dir.path().join("home");
        fs::create_dir_all(home.join("srv")).unwrap();
        if is_readme || document.ends_with("docs/guide/deploy.md") {
            fs::create_dir_all(home.join("build")).unwrap();
            fs::write(home.join("build/index.html"), "page").unwrap();
        }
        if is_readme {
            fs::create_dir_all(home.join("target/doc")).unwrap();
            fs::write(home.join("target/doc/index.html"), "page").unwrap();
        }
        let package = "{ \"scripts\": { \"build\": \"vite build\" }, \"devDependencies\": { \"vite\": \"7\" } }";
        fs::write(home.join("package.json"), package).unwrap();
        for recipe in &mut recipes {
            recipe.command = recipe.command.replace("/srv/", "srv/");
        }
        for (Shown { command, .. }, (said, code)) in recipes.iter().zip(run(dir.path(), &recipes)) {
            assert_eq!(code, 0, "{}: {command}: {said:#?}", document.display());
            ran += 1;
        }
    }
    assert!(ran > 10, "{ran} recipes");
}

/// The anchor of a heading, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || "- _".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut links = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(link, _)| link)) {
            if link.contains("://") || link.contains(' ') || link.contains('`') {
                continue;
            }
            let (path, wanted) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { document.clone() } else { document.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link}", document.display());
            if !wanted.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let has = text.lines().any(|line| line.starts_with('#') && anchor(line) == wanted);
                assert!(has || text.contains(&format!("id=\"{wanted}\"")), "{}: {link}", document.display());
            }
            links += 1;
        }
    }
    assert!(links > 20, "{links} links");
}

#[test]
fn the_book_has_every_page() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let decisions = fs::read_to_string(docs.join("design/README.md")).unwrap();
    for page in documents() {
        let Ok(name) = page.strip_prefix(&docs) else { continue };
        let in_book = summary.contains(&format!("({})", name.display()));
        let in_design =
            name.strip_prefix("design").is_ok_and(|name| decisions.contains(&format!("({})", name.display())));
        assert!(in_book || in_design || name == Path::new("SUMMARY.md"), "{}", name.display());
    }
}
