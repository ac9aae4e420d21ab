//! The rules of the source that no compiler holds: who may talk to the system, which way imports go, how a module starts.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The wings of the library from the bottom up; a wing imports only from the lines above its own.
const WINGS: &[&[&str]] = &[
    &["mutant", "options", "path", "progress", "threads"],
    &["holder"],
    &["error"],
    &["warning"],
    &["fs"],
    &["format"],
    &["store"],
    &["stage"],
    &["plan"],
    &["protocol"],
    &["transaction"],
    &["fuzzing", "verify"],
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

/// Where the code of the packages lies that ship or prove.
const PACKAGES: &[&str] = &["src", "crates/capture/src", "crates/cli/src", "crates/sim/src"];

const UNIT_TESTS: &str = "#[cfg(test)]";

/// A line of code; of a `use` that names several things, one of them.
#[derive(Debug)]
struct Code {
    number: usize,
    text: String,
    is_use: bool,
}

/// The code of a file up to its unit tests, which end it, without comments.
fn code(text: &str) -> Vec<Code> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    let mut lines =
        lines.take_while(|(_, line)| *line != UNIT_TESTS).filter(|(_, line)| !line.trim_start().starts_with("//"));
    let mut code = Vec::new();
    while let Some((number, line)) = lines.next() {
        let Some(first) = used(line) else {
            code.push(Code { number, text: line.to_owned(), is_use: false });
            continue;
        };
        let mut tree = first.to_owned();
        while !tree.contains(';') {
            tree.push_str(lines.next().unwrap().1);
        }
        let (tree, _) = tree.split_once(';').unwrap();
        code.extend(expand(tree).into_iter().map(|text| Code { number, text, is_use: true }));
    }
    code
}

/// What comes after the `use` or the `extern crate` that a line begins with.
fn used(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line =
        ["pub ", "pub(crate) ", "pub(super) "].iter().find_map(|public| line.strip_prefix(public)).unwrap_or(line);
    line.strip_prefix("use ").or_else(|| line.strip_prefix("extern crate "))
}

/// The paths of a tree of imports, without what they are called here.
fn expand(tree: &str) -> Vec<String> {
    let Some((before, rest)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap().trim().trim_start_matches("::");
        let end = ["::*", "::self"].iter().find_map(|end| path.strip_suffix(end));
        return vec![end.unwrap_or(path).to_owned()];
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
fn module(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.strip_suffix(".rs").unwrap_or(first).to_owned()
}

fn floor(module: &str) -> Option<usize> {
    WINGS.iter().position(|wing| wing.contains(&module))
}

/// Every `crate::module` that a line names.
fn named(line: &str) -> Vec<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    line.split("crate::").skip(1).map(name).filter(|name| !name.is_empty()).collect()
}

/// Whether a line leads to a crate or a module of the system; a `use` does so, too, where it names what that is in.
fn leads_to(code: &Code, system: &str) -> bool {
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
fn leaves_its_module(path: &Path, code: &Code) -> bool {
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

#[test]
fn every_module_says_what_it_is_for() {
    for package in PACKAGES {
        for (path, text) in sources(package) {
            assert!(text.starts_with("//! "), "{package}/{} does not start with `//! `", path.display());
        }
    }
}

/// Otherwise the rules below would not see what follows them.
#[test]
fn unit_tests_end_a_file() {
    for (path, text) in PACKAGES.iter().flat_map(|package| sources(package)) {
        let mut rest = text.lines().skip_while(|line| *line != UNIT_TESTS).skip(1);
        let last = match rest.next() {
            None | Some("mod tests;") => rest.next(),
            Some("mod tests {") => rest.skip_while(|line| *line != "}").nth(1),
            Some(other) => Some(other),
        };
        assert_eq!(last, None, "{}: what follows {UNIT_TESTS} is more than a module of tests", path.display());
    }
}

#[test]
fn only_the_system_call_layer_names_the_system() {
    const SYSTEM: [&str; 7] = ["nix", "std::fs", "rustix", "libc", "std::os::unix::fs", "fs2", "xattr"];
    for (path, text) in sources("src").into_iter().filter(|(path, _)| !path.ends_with("tests.rs")) {
        let forbidden = match &*module(&path) {
            "fs" => &[],
            _ => &SYSTEM[..],
        };
        for code in code(&text) {
            let at = format!("src/{}:{}: {}", path.display(), code.number, code.text);
            assert!(!forbidden.iter().any(|system| leads_to(&code, system)), "{at}");
        }
    }
}

#[test]
fn imports_go_downward() {
    let mut imports = 0;
    for (path, text) in sources("src") {
        let this = module(&path);
        let Some(own) = floor(&this) else {
            assert!(this == "lib", "src/{}: give it a place in WINGS", path.display());
            continue;
        };
        for code in code(&text) {
            let at = format!("src/{}:{}", path.display(), code.number);
            assert!(!leaves_its_module(&path, &code), "{at}: `{}` does not say of which module", code.text);
            for other in named(&code.text) {
                // What lib.rs exports again is named by its module inside the library.
                let Some(theirs) = floor(&other) else {
                    let exported = other.starts_with(char::is_uppercase);
                    assert!(exported, "{at}: crate::{other} is no wing");
                    continue;
                };
                imports += 1;
                assert!(theirs < own || this == other, "{at}: `{this}` imports `{other}`, which is not below it");
            }
        }
    }
    println!("{imports} imports");
    assert!(imports > 50);
}

/// The rooms of a package, each by the path of its module, with the rooms that it needs: by `crate::`, by `super::`, and by the
/// methods of a type that several rooms add to ([`calls`]).
fn rooms(package: &str) -> BTreeMap<String, BTreeSet<String>> {
    let name = |path: &Path| {
        let path = path.with_extension("");
        let names: Vec<_> = path.iter().map(|name| name.to_str().unwrap()).filter(|name| *name != "mod").collect();
        names.join("::")
    };
    let files: Vec<_> = sources(package).into_iter().filter(|(path, _)| !path.ends_with("tests.rs")).collect();
    let all: BTreeSet<_> = files.iter().map(|(path, _)| name(path)).collect();
    let of = |path: &str| {
        let parts: Vec<_> = path.split("::").collect();
        (1..=parts.len()).rev().map(|end| parts[..end].join("::")).find(|room| all.contains(room))
    };
    let path_at = |rest: &str| {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
        rest[..end].trim_end_matches(':').to_owned()
    };
    let mut rooms = BTreeMap::new();
    for (path, text) in &files {
        let this = name(path);
        let mut imports = BTreeSet::new();
        for code in code(text) {
            for (start, up) in [("crate::", false), ("super::", true)] {
                let parts = code.text.split(start).skip(1);
                let inside = if up { this.rsplit_once("::").map_or("", |(parent, _)| parent) } else { "" };
                let full = parts.map(|rest| format!("{inside}::{}", path_at(rest)).trim_start_matches("::").to_owned());
                imports.extend(full.filter_map(|path| of(&path)).filter(|room| *room != this));
            }
        }
        rooms.insert(this, imports);
    }
    let text = |(path, text): &(PathBuf, String)| (name(path), code(text));
    for (from, to) in calls(&files.iter().map(text).collect::<Vec<_>>()) {
        rooms.get_mut(&from).unwrap().insert(to);
    }
    rooms
}

/// The type that a line begins to implement, other than by a trait.
fn implemented(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("impl").filter(|_| !line.contains(" for "))?;
    let mut depth = 0;
    let rest = rest.trim_start_matches(|c| {
        depth += i32::from(c == '<') - i32::from(c == '>');
        depth > 0 || c == '>' || c == ' '
    });
    let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
    Some(&rest[..end]).filter(|name| !name.is_empty())
}

/// Each line of a room with the type that it helps to implement.
fn with_type(lines: &[Code]) -> impl Iterator<Item = (&str, Option<&str>)> {
    let mut current = None;
    lines.iter().map(move |line| {
        match &*line.text {
            "}" => current = None,
            text => current = implemented(text).or(current),
        }
        (&*line.text, current)
    })
}

/// From which room to which the methods lead that several rooms give to one type, so that no `use` shows it: `self.method(…)` where
/// the type is implemented, `Type::method(…)`, and `store.method(…)` of a `Store`, wherever it is. A room and those inside it may
/// share a type.
fn calls(rooms: &[(String, Vec<Code>)]) -> BTreeSet<(String, String)> {
    let mut methods = BTreeMap::<(&str, &str), BTreeSet<&str>>::new();
    for (room, lines) in rooms {
        for (line, of) in with_type(lines) {
            let method = line.split_once("fn ").filter(|(before, _)| {
                before.starts_with("    ") && ["", "pub", "pub(crate)", "pub(super)"].contains(&before.trim())
            });
            if let Some((of, (_, rest))) = of.zip(method) {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap();
                methods.entry((of, &rest[..end])).or_default().insert(room);
            }
        }
    }
    let mut calls = BTreeSet::new();
    for ((of, method), homes) in methods.iter().filter(|(_, homes)| homes.len() == 1) {
        let home = homes.first().unwrap();
        let is_inside = |room: &str, other: &str| room.strip_prefix(other).is_some_and(|rest| rest.starts_with("::"));
        for (room, lines) in rooms.iter().filter(|(room, _)| room != home) {
            let named = [format!("{of}::{method}("), format!("{}.{method}(", of.to_lowercase())];
            let own = [format!("self.{method}("), format!("Self::{method}(")];
            let is_called = with_type(lines).any(|(line, current)| {
                named.iter().any(|call| line.contains(call))
                    || current == Some(of) && own.iter().any(|call| line.contains(call))
            });
            if is_called && !is_inside(room, home) && !is_inside(home, room) {
                calls.insert((room.clone(), (*home).to_owned()));
            }
        }
    }
    calls
}

#[test]
fn a_call_of_a_method_that_another_room_gave_to_the_type_is_found() {
    let room = |name: &str, text: &str| (name.to_owned(), code(text));
    let found = calls(&[
        room("open", "impl<F: Fs> Store<F> {\n    pub(crate) fn head(&self) {\n    }\n}"),
        room("recover", "impl<F: Fs> Store<F> {\n    pub fn recover(&self) {\n        self.head();\n    }\n}"),
        room("commit", "fn commit(store: &Store) {\n    store.recover();\n}"),
        room("other", "impl Other {\n    fn go(&self) {\n        self.head();\n    }\n}"),
        room("open::part", "impl<F: Fs> Store<F> {\n    fn part(&self) {\n        self.head();\n    }\n}"),
    ]);
    let pairs: Vec<_> = found.iter().map(|(from, to)| (&**from, &**to)).collect();
    assert_eq!(pairs, [("commit", "recover"), ("recover", "open")]);
}

/// A way from a room back to itself, if there is one.
fn circle(rooms: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn search<'a>(
        room: &'a str,
        rooms: &'a BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(from) = way.iter().position(|before| *before == room) {
            return Some(way[from..].iter().chain([&room]).map(|&room| room.to_owned()).collect());
        }
        if !done.insert(room) {
            return None;
        }
        way.push(room);
        let found = rooms[room].iter().find_map(|next| search(next, rooms, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    rooms.keys().find_map(|room| search(room, rooms, &mut Vec::new(), &mut done))
}

#[test]
fn no_room_is_reached_from_itself() {
    let rooms = rooms("src");
    let imports: usize = rooms.values().map(BTreeSet::len).sum();
    println!("{} rooms, {imports} imports", rooms.len());
    assert!(imports > rooms.len());
    assert_eq!(circle(&rooms), None);
    let wing = |room: &str| room.split("::").next().unwrap().to_owned();
    for (room, other) in rooms.iter().flat_map(|(room, others)| others.iter().map(move |other| (room, other))) {
        let [own, theirs] = [room, other].map(|room| wing(room));
        assert!(own == theirs || own == "lib" || floor(&theirs) < floor(&own), "{room} needs {other}");
    }
}

#[test]
fn a_circle_is_found() {
    let rooms = |pairs: &[(&str, &str)]| {
        let mut rooms = BTreeMap::<_, BTreeSet<_>>::new();
        for (from, to) in pairs {
            rooms.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            rooms.entry((*to).to_owned()).or_default();
        }
        rooms
    };
    assert_eq!(circle(&rooms(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
    assert_eq!(circle(&rooms(&[("a", "b"), ("b", "c"), ("c", "b")])).unwrap(), ["b", "c", "b"]);
}

/// The command has processes and signals to deal with, and nothing else of the system.
#[test]
fn the_command_leaves_files_to_the_library() {
    for (path, text) in sources("crates/cli/src") {
        for code in code(&text) {
            for system in ["rustix", "libc", "std::os::unix::fs", "fs2", "xattr"] {
                let at = format!("crates/cli/src/{}:{}: {}", path.display(), code.number, code.text);
                assert!(!leads_to(&code, system), "{at}");
            }
        }
    }
}
