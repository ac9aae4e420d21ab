//! The rooms of a package, one a file, and who needs whom: by a path, and by a method that is given to a type elsewhere.
//!
//! A path leads to the room in which what it names is defined: what a room exports again, or imports for those inside it, is not its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::source::{Code, code, sources};

/// Who needs whom. Both by the paths of their modules; the top is called by the name of its file.
pub(crate) type Needs = BTreeMap<String, BTreeSet<String>>;

/// A file, by its module.
struct Room {
    lines: Vec<Code>,
    /// The functions and methods that are called in it.
    called: BTreeSet<String>,
    /// What its `use` lines lead to, by the name that it has here.
    imports: BTreeMap<String, String>,
}

/// The rooms of a package by the paths of their modules; that of the top is empty.
pub(crate) struct Rooms {
    rooms: BTreeMap<String, Room>,
    top: String,
}

/// Methods whose names types of the standard library have, too: not every call is one of ours.
const OF_STD: &[&str] = &["get", "insert", "is_empty", "len", "next", "push", "remove", "skip", "sync_all", "take"];

/// A method and the type that it is given to: the room that defines the type, the type, and the method.
type Method<'a> = (String, &'a str, &'a str);

impl Rooms {
    /// Those of a package without its tests.
    pub(crate) fn of(package: &str) -> Self {
        let files = sources(package).into_iter();
        let files = files.filter(|(path, _)| !path.iter().any(|name| name == "tests.rs" || name == "tests"));
        let files: Vec<_> = files.map(|(path, text)| (name(&path), code(&text))).collect();
        let top = if files.iter().any(|(name, _)| name == "main") { "main" } else { "lib" };
        Self::new(top, files)
    }

    fn new(top: &str, files: Vec<(String, Vec<Code>)>) -> Self {
        let room = |(name, lines): (String, Vec<Code>)| {
            let imports = lines.iter().filter(|line| line.is_use);
            let imports = imports.filter_map(|line| Some((line.name.clone()?, line.text.clone()))).collect();
            let called = lines.iter().flat_map(|line| called(&line.text)).map(str::to_owned).collect();
            (if name == top { String::new() } else { name }, Room { lines, called, imports })
        };
        Self { rooms: files.into_iter().map(room).collect(), top: top.to_owned() }
    }

    /// Who needs whom.
    pub(crate) fn needs(&self) -> Needs {
        let mut needs = Needs::new();
        for (this, room) in &self.rooms {
            let paths = room.lines.iter().flat_map(|line| paths(line).map(|path| (path, line.is_use)));
            let homes = paths.filter_map(|(path, is_use)| self.home(this, path, is_use)).map(|(home, _)| home);
            needs.insert(this.clone(), homes.filter(|home| home != this).collect());
        }
        for (from, to) in self.calls() {
            needs.get_mut(&from).unwrap().insert(to);
        }
        let named = |room: String| if room.is_empty() { self.top.clone() } else { room };
        needs.into_iter().map(|(room, others)| (named(room), others.into_iter().map(named).collect())).collect()
    }

    /// The path from the top that one leads to that stands in a room; `None` for another package's.
    fn absolute(&self, room: &str, path: &str, is_use: bool) -> Option<Vec<String>> {
        let here = || room.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let mut names = path.split("::").peekable();
        let mut absolute = match *names.peek()? {
            "crate" => Vec::new(),
            "self" | "super" => here(),
            first if is_use || path.contains("::") => {
                let inside = [here(), vec![first.to_owned()]].concat();
                return self.rooms.contains_key(&inside.join("::")).then(|| {
                    let rest = names.skip(1).map(str::to_owned);
                    inside.into_iter().chain(rest).collect()
                });
            }
            _ => return None,
        };
        for name in names {
            match name {
                "crate" | "self" | "" => {}
                "super" => drop(absolute.pop()),
                name => absolute.push(name.to_owned()),
            }
        }
        Some(absolute)
    }

    /// The room in which what a path names is defined, and what is left of the path there.
    fn home(&self, room: &str, path: &str, is_use: bool) -> Option<(String, Vec<String>)> {
        let absolute = self.absolute(room, path, is_use)?;
        let ends = (0..=absolute.len()).rev().map(|end| (absolute[..end].join("::"), &absolute[end..]));
        let (home, rest) = ends.into_iter().find(|(room, _)| self.rooms.contains_key(room))?;
        match rest.first().and_then(|name| self.rooms[&home].imports.get(name)) {
            Some(import) if home != room || import != path => {
                let path = [std::slice::from_ref(import), &rest[1..]].concat().join("::");
                self.home(&home, &path, true)
            }
            _ => Some((home, rest.to_vec())),
        }
    }

    /// The room that defines a type that is called so in a room.
    fn type_home(&self, room: &str, name: &str) -> Option<String> {
        match self.rooms[room].imports.get(name) {
            Some(path) => self.home(room, path, true).map(|(home, _)| home),
            None => Some(room.to_owned()),
        }
    }

    /// From which room to which the methods lead that a type is given elsewhere than where it is defined, so that no `use` shows it:
    /// `self.method(…)` where the type is implemented, `Type::method(…)`, `value.method(…)` where the value is called as its
    /// type, and any `.method(…)` whose name nothing else has. A room and those inside it may share a type.
    fn calls(&self) -> BTreeSet<(String, String)> {
        let mut methods = BTreeMap::<Method<'_>, BTreeSet<&str>>::new();
        let mut names = BTreeMap::<&str, BTreeSet<(&str, Option<&str>)>>::new();
        for (room, Room { lines, .. }) in &self.rooms {
            for (line, of) in with_type(lines) {
                let Some(method) = method(line) else { continue };
                names.entry(method).or_default().insert((room, of.map(|of| of.name)));
                if let Some((of, home)) =
                    of.filter(|of| !of.by_a_trait).and_then(|of| Some((of, self.type_home(room, of.name)?)))
                {
                    methods.entry((home, of.name, method)).or_default().insert(room);
                }
            }
        }
        let mut calls = BTreeSet::new();
        for ((type_home, of, method), homes) in methods.iter().filter(|(_, homes)| homes.len() == 1) {
            let home = *homes.first().unwrap();
            let is_given_elsewhere = home != type_home && names[method].len() == 1 && !OF_STD.contains(method);
            let others = self.rooms.iter().filter(|(room, other)| *room != home && other.called.contains(*method));
            for (room, Room { lines, .. }) in others {
                let is_meant = || self.type_home(room, of).as_ref() == Some(type_home);
                let is_known = is_meant() || !methods.keys().any(|(other, name, _)| name == of && other != type_home);
                let named = format!("{of}::{method}(");
                let valued = format!("{}.{method}(", snake(of));
                let own = [format!("self.{method}("), format!("Self::{method}(")];
                let any = format!(".{method}(");
                let is_called = with_type(lines).any(|(line, current)| {
                    is_known && (has(line, &named) || has(line, &valued))
                        || is_meant()
                            && current.is_some_and(|current| current.name == *of)
                            && own.iter().any(|call| has(line, call))
                        || is_given_elsewhere && line.contains(&any)
                });
                if is_called && !is_inside(room, home) && !is_inside(home, room) {
                    calls.insert((room.clone(), home.to_owned()));
                }
            }
        }
        calls
    }
}

/// The module that a file is.
fn name(path: &Path) -> String {
    let path = path.with_extension("");
    let names: Vec<_> = path.iter().map(|name| name.to_str().unwrap()).filter(|name| *name != "mod").collect();
    names.join("::")
}

/// The paths that a line has.
fn paths(line: &Code) -> impl Iterator<Item = &str> {
    let paths = line.text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    paths.map(|path| path.trim_end_matches(':')).filter(|path| !path.is_empty() && (line.is_use || path.contains("::")))
}

/// A type that a line belongs to the implementation of.
#[derive(Clone, Copy)]
struct Implemented<'a> {
    name: &'a str,
    by_a_trait: bool,
}

/// The type that a line begins to implement.
fn implemented(line: &str) -> Option<Implemented<'_>> {
    let rest = line.strip_prefix("impl")?;
    let mut depth = 0;
    let generics = |c| {
        depth += i32::from(c == '<') - i32::from(c == '>');
        depth > 0 || c == '>' || c == ' '
    };
    let rest = rest.trim_start_matches(generics);
    let (rest, by_a_trait) = rest.split_once(" for ").map_or((rest, false), |(_, of)| (of, true));
    let path = &rest[..rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len())];
    let name = path.rsplit("::").next().filter(|name| !name.is_empty())?;
    Some(Implemented { name, by_a_trait })
}

/// Each line of a room with the type that it helps to implement.
fn with_type(lines: &[Code]) -> impl Iterator<Item = (&str, Option<Implemented<'_>>)> {
    let mut current = None;
    lines.iter().map(move |line| {
        match &*line.text {
            "}" => current = None,
            text => current = implemented(text).or(current),
        }
        (&*line.text, current)
    })
}

/// The method that a line begins, as those are indented.
fn method(line: &str) -> Option<&str> {
    let (before, rest) = line.strip_prefix("    ")?.split_once("fn ")?;
    let is_plain = |word: &str| word.starts_with("pub") || word == "const" || word.ends_with(')');
    let is_method = !before.starts_with(' ') && before.split_whitespace().all(is_plain);
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
    is_method.then(|| &rest[..end])
}

/// What a line calls.
fn called(line: &str) -> impl Iterator<Item = &str> {
    let ends = line.match_indices('(').map(|(end, _)| &line[..end]);
    ends.map(|call| call.rsplit(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap())
}

/// Whether a line has a call that nothing longer ends with.
fn has(line: &str, call: &str) -> bool {
    let mut places = line.match_indices(call);
    places.any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// What a value of a type is called by its type.
fn snake(of: &str) -> String {
    let mut snake = String::new();
    for c in of.chars() {
        if c.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake
}

/// Whether a room is in the folder of another.
pub(crate) fn is_inside(room: &str, other: &str) -> bool {
    !other.is_empty() && room.strip_prefix(other).is_some_and(|rest| rest.starts_with("::"))
}

/// The wings of a package, each a top module with what is inside it.
pub(crate) fn wings(rooms: &Needs) -> Needs {
    let wing = |room: &str| room.split("::").next().unwrap().to_owned();
    let mut wings = Needs::new();
    for (room, others) in rooms {
        let others = others.iter().map(|other| wing(other)).filter(|other| *other != wing(room));
        wings.entry(wing(room)).or_default().extend(others);
    }
    wings
}

/// A way from a room back to itself, if there is one.
pub(crate) fn circle(rooms: &Needs) -> Option<Vec<String>> {
    fn search<'a>(
        room: &'a str,
        rooms: &'a Needs,
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

fn of_files(files: &[(&str, &str)]) -> Needs {
    Rooms::new("lib", files.iter().map(|(name, text)| ((*name).to_owned(), code(text))).collect()).needs()
}

fn pairs(needs: &Needs) -> Vec<(&str, &str)> {
    needs.iter().flat_map(|(from, to)| to.iter().map(|to| (&**from, &**to))).collect()
}

#[test]
fn no_spelling_of_a_path_gets_past_the_rules() {
    for (room, text, expected) in [
        ("a", "use crate::b::c::C;", "b::c"),
        ("a", "use crate::{b::{self}};", "b"),
        ("a", "let c = crate::b::c::new();", "b::c"),
        ("b::c", "use super::super::a::A;", "a"),
        ("b::c", "use super::B;", "b"),
        ("b::c", "fn b() -> super::B {", "b"),
        ("b", "use c::C;", "b::c"),
        ("b", "    self::c::new()", "b::c"),
        ("b", "    c::new()", "b::c"),
        ("a", "use crate::Top;", "lib"),
        ("lib", "pub use b::c::C;", "b::c"),
    ] {
        let mut files = vec![("lib", ""), ("a", ""), ("b", ""), ("b::c", "")];
        files.iter_mut().find(|(name, _)| *name == room).unwrap().1 = text;
        assert_eq!(pairs(&of_files(&files)), [(room, expected)], "{text}");
    }
}

#[test]
fn what_is_exported_again_is_not_of_the_room_that_does_so() {
    let files = [
        ("lib", "pub use a::A as Renamed;\npub use a::B;\nuse std::path::Path;"),
        ("a", "use super::Path;"),
        ("b", "use crate::{B, Renamed};"),
    ];
    assert_eq!(pairs(&of_files(&files)), [("b", "a"), ("lib", "a")]);
}

#[test]
fn a_call_of_a_method_that_another_room_gave_to_the_type_is_found() {
    let needs = of_files(&[
        ("lib", ""),
        ("open", "pub struct Store;\nimpl<F: Fs> Store<F> {\n    pub(crate) fn head(&self) {\n    }\n}"),
        (
            "recover",
            "use crate::open::Store;\nimpl<F: Fs> Store<F> {\n    pub fn recover(&self) {\n        self.head();\n    }\n}",
        ),
        ("commit", "fn commit(store: &Store) {\n    store.recover();\n}"),
        ("named", "fn commit(what: &mut Thing) {\n    what.any.recover();\n}"),
        (
            "by_a_trait",
            "use crate::open::Store;\nimpl Drop for Store {\n    fn drop(&mut self) {\n        self.recover();\n    }\n}",
        ),
        ("other", "struct Other;\nimpl Other {\n    fn go(&self) {\n        self.head();\n    }\n}"),
        (
            "open::part",
            "use super::Store;\nimpl<F: Fs> Store<F> {\n    fn part(&self) {\n        self.head();\n    }\n}",
        ),
    ]);
    let by_use = [("by_a_trait", "open"), ("open::part", "open"), ("recover", "open")];
    let by_call: Vec<_> = pairs(&needs).into_iter().filter(|pair| !by_use.contains(pair)).collect();
    assert_eq!(by_call, [("by_a_trait", "recover"), ("commit", "recover"), ("named", "recover")]);
}

/// As in a simulator and the explorer on it, where both have a world.
#[test]
fn types_that_have_one_name_are_told_apart() {
    let needs = of_files(&[
        ("lib", ""),
        ("world", "pub struct World;\nimpl World {\n    pub fn step(&mut self) {\n    }\n}"),
        ("explore::world", "pub struct World;\nimpl World {\n    pub fn next(&self) {\n        self.step();\n    }\n}"),
        ("explore", "use self::world::World;\nfn go(world: &World) {\n    World::step(world);\n}"),
    ]);
    assert_eq!(pairs(&needs), [("explore", "explore::world")]);
}

#[test]
fn a_circle_is_found() {
    let rooms = |pairs: &[(&str, &str)]| {
        let mut rooms = Needs::new();
        for (from, to) in pairs {
            rooms.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            rooms.entry((*to).to_owned()).or_default();
        }
        rooms
    };
    assert_eq!(circle(&rooms(&[("a", "b"), ("a", "c"), ("b", "c")])), None);
    assert_eq!(circle(&rooms(&[("a", "b"), ("b", "c"), ("c", "b")])).unwrap(), ["b", "c", "b"]);
    let of_wings = wings(&rooms(&[("a::x", "b::x"), ("b::y", "a::y")]));
    assert_eq!(circle(&of_wings).unwrap(), ["a", "b", "a"]);
}
