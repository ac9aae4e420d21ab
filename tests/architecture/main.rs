//! The rules of the source that no compiler holds: who may talk to the system, which way imports go, how a module starts.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use rooms::{Rooms, circle, is_inside, wings};
use source::{UNIT_TESTS, code, leads_to, leaves_its_module, module, named, sources};

mod rooms;
mod size;
mod source;

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
    &["fuzzing", "verify", "watch"],
];

/// Where the code of the packages lies that ship or prove.
const PACKAGES: &[&str] = &["src", "crates/capture/src", "crates/cli/src", "crates/sim/src", "crates/testing/src"];

fn floor(module: &str) -> Option<usize> {
    WINGS.iter().position(|wing| wing.contains(&module))
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

#[test]
fn no_room_is_reached_from_itself() {
    for package in PACKAGES {
        let mut rooms = Rooms::of(package).needs();
        // There the file of a folder still names what is inside it, and is named from there.
        if *package == "src" {
            rooms.iter_mut().for_each(|(room, others)| others.retain(|other| !is_inside(other, room)));
        }
        let needs: usize = rooms.values().map(BTreeSet::len).sum();
        println!("{package}: {} rooms, {needs} needs", rooms.len());
        assert!(needs > 0, "{package}: no needs are found");
        assert_eq!(circle(&rooms), None, "{package}");
        assert_eq!(circle(&wings(&rooms)), None, "{package}: its wings");
    }
}

#[test]
fn what_a_room_of_the_library_needs_is_in_a_wing_below() {
    let rooms = Rooms::of("src").needs();
    let wing = |room: &str| room.split("::").next().unwrap().to_owned();
    for (room, other) in rooms.iter().flat_map(|(room, others)| others.iter().map(move |other| (room, other))) {
        let [own, theirs] = [room, other].map(|room| wing(room));
        assert!(own == theirs || own == "lib" || floor(&theirs) < floor(&own), "{room} needs {other}");
    }
}

/// What several of them do is in the rooms below them.
#[test]
fn no_command_needs_another() {
    let commands = Rooms::of("crates/cli/src").needs();
    let command = |room: &str| room.strip_prefix("commands::").map(|rest| rest.split("::").next().unwrap().to_owned());
    for (room, others) in &commands {
        let Some(this) = command(room) else { continue };
        for other in others {
            assert!(command(other).is_none_or(|other| other == this), "{room} needs {other}");
        }
    }
    assert!(commands.keys().filter_map(|room| command(room)).collect::<BTreeSet<_>>().len() > 10);
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
