//! Files that a reader can keep in mind.

use super::source::sources;

/// Lines that a file may have, and the sentence in its head with which one has more.
const MOST: usize = 500;
const EXCUSE: &str = "This file is better whole: ";

/// Files that are still longer, and say nothing of it. No name comes to this list.
const LONG: &[&str] = &[
    "src/error.rs",
    "src/path.rs",
    "src/plan/merge.rs",
    "src/protocol/apply/mod.rs",
    "src/protocol/barrier.rs",
    "src/protocol/recover/mod.rs",
    "src/protocol/settle.rs",
    "src/stage/copy.rs",
    "src/store/output.rs",
    "src/transaction/begin.rs",
    "src/transaction/commit.rs",
    "src/transaction/fill.rs",
];

/// Why a file may be longer, as its head says.
fn excuse(text: &str) -> Option<&str> {
    let head = text.lines().take_while(|line| line.starts_with("//!"));
    head.filter_map(|line| line.split_once(EXCUSE)).map(|(_, why)| why).find(|why| !why.is_empty())
}

#[test]
fn no_file_scrolls_unless_its_head_says_why() {
    let mut files = 0;
    for place in ["src", "tests", "crates", "benches", "examples", "fuzz", "proof"] {
        for (path, text) in sources(place) {
            let name = format!("{place}/{}", path.display());
            let lines = text.lines().count();
            let may = lines <= MOST || excuse(&text).is_some() || LONG.contains(&&*name);
            assert!(may, "{name} has {lines} lines: split it, or say in its head why it is better whole");
            files += 1;
        }
    }
    assert!(files > 200, "{files} files");
}

#[test]
fn an_excuse_stands_in_the_head_and_gives_a_reason() {
    assert_eq!(
        excuse("//! A table.\n//! This file is better whole: it is one table.\n\nfn f() {}"),
        Some("it is one table.")
    );
    assert_eq!(excuse("//! A table.\n\n//! This file is better whole: it is one table."), None);
    assert_eq!(excuse("//! This file is better whole: "), None);
}
