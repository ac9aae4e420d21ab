//! The source as the rules read it: line for line, without comments and unit tests, and an import for each thing that a `use` names.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn sources(below: &str) -> Vec<(PathBuf, String)> {
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

pub(crate) const UNIT_TESTS: &str = "#[cfg(test)]";

/// A line of code; of a `use` that names several things, one of them.
#[derive(Debug)]
pub(crate) struct Code {
    pub(crate) number: usize,
    pub(crate) text: String,
    pub(crate) is_use: bool,
    /// What the thing that a `use` names is called here.
    pub(crate) name: Option<String>,
}

/// The code of a file up to its unit tests, which end it, without comments.
pub(crate) fn code(text: &str) -> Vec<Code> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    let mut lines =
        lines.take_while(|(_, line)| *line != UNIT_TESTS).filter(|(_, line)| !line.trim_start().starts_with("//"));
    let mut code = Vec::new();
    while let Some((number, line)) = lines.next() {
        let Some(first) = used(line) else {
            code.push(Code { number, text: line.to_owned(), is_use: false, name: None });
            continue;
        };
        let mut tree = first.to_owned();
        while !tree.contains(';') {
            tree.push_str(lines.next().unwrap().1);
        }
        let (tree, _) = tree.split_once(';').unwrap();
        code.extend(expand(tree).into_iter().map(|(text, name)| Code { number, text, is_use: true, name }));
    }
    code
}

/// What comes after the `use` or the `extern crate` that a line begins with.
pub(crate) fn used(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line =
        ["pub ", "pub(crate) ", "pub(super) "].iter().find_map(|public| line.strip_prefix(public)).unwrap_or(line);
    line.strip_prefix("use ").or_else(|| line.strip_prefix("extern crate "))
}

/// The paths of a tree of imports, each with what it is called here.
fn expand(tree: &str) -> Vec<(String, Option<String>)> {
    let Some((before, rest)) = tree.split_once('{') else {
        let (path, called) = tree.split_once(" as ").map_or((tree, None), |(path, called)| (path, Some(called.trim())));
        let path = path.trim().trim_start_matches("::");
        if let Some(all) = path.strip_suffix("::*") {
            return vec![(all.to_owned(), None)];
        }
        let path = path.strip_suffix("::self").unwrap_or(path);
        let called = called.unwrap_or_else(|| path.rsplit("::").next().unwrap());
        return vec![(path.to_owned(), Some(called.to_owned()))];
    };
    let inner = &rest[..rest.rfind('}').unwrap()];
    let mut depth = 0;
    let parts = inner.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts
        .filter(|part| !part.trim().is_empty())
        .flat_map(|part| expand(&format!("{}{}", before.trim(), part.trim())))
        .collect()
}

/// The top module that a file belongs to.
pub(crate) fn module(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

/// Every `crate::module` that a line names.
pub(crate) fn named(line: &str) -> Vec<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    line.split("crate::").skip(1).map(name).filter(|name| !name.is_empty()).collect()
}

/// Whether a line leads to a crate or a module of the system; a `use` does so, too, where it names what that is in.
pub(crate) fn leads_to(code: &Code, system: &str) -> bool {
    let within = |path: &str, place: &str| {
        path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    if code.is_use {
        return within(&code.text, system) || within(system, &code.text);
    }
    let before = |at: usize| code.text[..at].chars().next_back();
    let system = format!("{system}::");
    let mut places = code.text.match_indices(&system);
    places.any(|(at, _)| !before(at).is_some_and(|c| c.is_alphanumeric() || c == '_'))
}

/// Whether a line names what is outside the top module of its file other than by `crate::`.
pub(crate) fn leaves_its_module(path: &Path, code: &Code) -> bool {
    let depth = path.iter().filter(|name| *name != "mod.rs").count();
    let paths = code.text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    let mut up = paths.filter(|path| code.is_use || path.contains("::")).map(|path| {
        path.split("::").take_while(|name| ["self", "super"].contains(name)).filter(|name| *name == "super").count()
    });
    up.any(|up| up >= depth) || (code.is_use && code.text == "crate")
}

#[test]
fn no_spelling_of_an_import_gets_past_the_rules() {
    let leads = |text: &str, system: &str| code(text).iter().any(|code| leads_to(code, system));
    for (text, system) in [
        ("use std::{fs as files, io};", "std::fs"),
        ("use std::{\n    io,\n    fs::{self, File},\n};", "std::fs"),
        ("    use std::fs;", "std::fs"),
        ("use std as system;", "std::fs"),
        ("pub(crate) use std::*;", "std::fs"),
        ("use std::os::unix::{self, ffi::OsStrExt};", "std::os::unix::fs"),
        ("let file = ::std::fs::File::open(path)?;", "std::fs"),
        ("use rustix as sys;", "rustix"),
        ("use ::nix as sys;", "nix"),
        ("use {io, nix::errno::Errno};", "nix"),
        ("extern crate libc as c;", "libc"),
        ("nix::unistd::sync();", "nix"),
    ] {
        assert!(leads(text, system), "{text}");
    }
    for (text, system) in [
        ("use std::{ffi::OsStr, io};", "std::fs"),
        ("use std::os::unix::ffi::OsStrExt;", "std::os::unix::fs"),
        ("use crate::fs::Fs;", "std::fs"),
        ("unix::fs();", "nix"),
        ("// std::fs::File", "std::fs"),
    ] {
        assert!(!leads(text, system), "{text}");
    }
    let leaves = |path: &str, text: &str| code(text).iter().any(|code| leaves_its_module(Path::new(path), code));
    for (path, text) in [
        ("plan/order.rs", "use super::super::commit::Committed;"),
        ("plan/order.rs", "use super::{Planner, super::commit::Committed};"),
        ("plan/order.rs", "let committed = self::super::super::commit::new();"),
        ("plan/mod.rs", "use super::commit::Committed;"),
        ("lock.rs", "use super as top;"),
        ("lock.rs", "use crate as top;"),
        ("lock.rs", "use crate::{self as top};"),
    ] {
        assert!(leaves(path, text), "{path}: {text}");
    }
    for (path, text) in [
        ("plan/order.rs", "use super::{Planner, order};"),
        ("plan/mod.rs", "use self::order::rank;"),
        ("lock.rs", "pub(super) fn lock() {"),
    ] {
        assert!(!leaves(path, text), "{path}: {text}");
    }
    let modules: Vec<_> =
        code("use crate::{fs::Fs, commit::{self, Committed}};").iter().flat_map(|code| named(&code.text)).collect();
    assert_eq!(modules, ["fs", "commit", "commit"]);
}
