//! The rules of the source that no compiler holds: who may talk to the system, which way imports go, how a module starts.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the library from the bottom up; a module imports only from the lines above its own.
const LAYERS: &[&[&str]] = &[
    &["frame", "mutant", "options", "path", "threads"],
    &["error"],
    &["fs"],
    &["early_sync", "layout", "lock", "manifest"],
    &["copy", "digest", "initialize", "journal", "output"],
    &["fuzzing", "plan", "stage", "store"],
    &["published", "txdir"],
    &["failed_barrier"],
    &["apply", "barrier", "settle"],
    &["carry_out", "evidence", "inspect", "referenced", "second_look"],
    &["recover"],
    &["transaction"],
    &["fill"],
    &["commit", "rollback"],
];

fn sources(below: &str) -> Vec<(PathBuf, String)> {
    fn collect(dir: &Path, files: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path, text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(below);
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.iter_mut().for_each(|(path, _)| *path = path.strip_prefix(&root).unwrap().to_path_buf());
    files.sort();
    files
}

const UNIT_TESTS: &str = "#[cfg(test)]";

/// The code of a file up to its unit tests, which end it, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    lines.take_while(|(_, line)| *line != UNIT_TESTS).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The top module that a file belongs to.
fn module(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Every `crate::module` that a line names.
fn named(line: &str) -> Vec<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    line.split("crate::").skip(1).map(name).filter(|name| !name.is_empty()).collect()
}

/// Whether a line names `word`, and not a longer word that ends with it.
fn names(line: &str, word: &str) -> bool {
    let before = |at: usize| line[..at].chars().next_back();
    line.match_indices(word).any(|(at, _)| !before(at).is_some_and(|c| c.is_alphanumeric() || c == '_'))
}

#[test]
fn every_module_says_what_it_is_for() {
    for (path, text) in sources("src") {
        assert!(text.starts_with("//! "), "{} does not start with `//! `", path.display());
    }
}

/// Otherwise the rules below would not see what follows them.
#[test]
fn unit_tests_end_a_file() {
    for (path, text) in sources("src") {
        let mut rest = text.lines().skip_while(|line| *line != UNIT_TESTS).skip(1);
        let last = match rest.next() {
            None | Some("mod tests;") => rest.next(),
            Some("mod tests {") => rest.skip_while(|line| *line != "}").nth(1),
            Some(other) => Some(other),
        };
        assert_eq!(last, None, "src/{}: what follows {UNIT_TESTS} is more than a module of tests", path.display());
    }
}

#[test]
fn only_the_system_call_layer_names_the_system() {
    for (path, text) in sources("src").into_iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
        let module = module(&path);
        for (number, line) in code(&text) {
            let at = format!("src/{}:{number}: {line}", path.display());
            if module != "fs" && module != "cli" && module != "main" {
                for word in ["nix::", "rustix::", "libc::", "std::fs", "std::os::unix::fs", "fs2::", "xattr::"] {
                    assert!(!names(line, word), "{at}");
                }
            }
            // The command has processes and signals to deal with, and nothing else.
            if module == "cli" {
                for word in ["rustix::", "libc::", "std::os::unix::fs", "fs2::", "xattr::"] {
                    assert!(!names(line, word), "{at}");
                }
            }
        }
    }
}

#[test]
fn imports_go_downward() {
    let mut imports = 0;
    for (path, text) in sources("src") {
        let this = module(&path);
        let Some(own) = layer(&this) else {
            assert!(["lib", "main", "cli"].contains(&&*this), "src/{}: give it a place in LAYERS", path.display());
            continue;
        };
        for (number, line) in code(&text) {
            assert!(!line.contains("crate::{"), "src/{}:{number}: one line for each module", path.display());
            for other in named(line) {
                // What lib.rs exports again is named by its module inside the library.
                let Some(theirs) = layer(&other) else {
                    let exported = other.starts_with(char::is_uppercase);
                    assert!(exported, "src/{}:{number}: crate::{other} is no module of LAYERS", path.display());
                    continue;
                };
                imports += 1;
                assert!(
                    theirs < own || this == other,
                    "src/{}:{number}: `{this}` imports `{other}`, which is not below it",
                    path.display()
                );
            }
        }
    }
    println!("{imports} imports");
    assert!(imports > 50);
}

#[test]
fn the_command_uses_only_the_public_interface() {
    for (path, text) in sources("src") {
        if ["main", "cli"].contains(&&*module(&path)) {
            for (number, line) in code(&text) {
                for other in named(line) {
                    assert!(layer(&other).is_none(), "src/{}:{number}: {line}", path.display());
                }
            }
        }
    }
}
