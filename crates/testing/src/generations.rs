//! Generations whose every file carries the generation's number, and readers that notice a missing, half or mixed one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use txfs::Transaction;
use txfs::fs::Fs;

use crate::tree::Node;

const LINE: usize = 20;
const LINES: usize = 150;

/// Paths that lead to a whole file in every generation, whatever kinds the entries on the way are.
pub const ALWAYS: [&str; 6] = ["index.html", "a.css", "d/one", "d/e/two", "link-or-file", "changing/kind/three"];

/// What every file of a generation holds: its number, over and over, so that half a file shows.
pub fn content(generation: u64) -> Vec<u8> {
    format!("{generation:019}\n").repeat(LINES).into_bytes()
}

/// Reads a path as a web server would, and says which generation it is of.
pub fn look(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(bytes.len(), LINE * LINES, "{}: half a file", path.display());
    let first = &bytes[..LINE];
    assert!(bytes.chunks(LINE).all(|chunk| chunk == first), "{}: two generations in one file", path.display());
    std::str::from_utf8(&first[..LINE - 1]).unwrap().parse().unwrap()
}

/// What a generation consists of: path to mode and content, `None` for a directory; links by their target.
pub enum Item {
    File(u32),
    Directory(u32),
    Link(&'static str),
}

/// The entries of a generation, directories before what is in them. `exchange`: directories may change places with other kinds.
pub fn items(generation: u64, exchange: bool) -> BTreeMap<String, Item> {
    let odd = generation % 2 == 1;
    let mut items = BTreeMap::new();
    let mut put = |path: &str, item| {
        items.insert(path.to_owned(), item);
    };
    for file in ["index.html", "a.css", "d/one", "d/e/two"] {
        put(file, Item::File(0o644));
    }
    put("d", Item::Directory(0o755));
    put("d/e", Item::Directory(if odd { 0o555 } else { 0o700 }));
    put("link-or-file", if odd { Item::Link("a.css") } else { Item::File(0o600) });
    put("changing", Item::Directory(0o755));
    // Whoever follows a link takes two steps, and a commit can come between: what the link leads to is there before it, and stays for
    // a generation longer.
    let (leads, led) = (generation % 4 == 1, generation % 4 == 2);
    if exchange && (leads || led) {
        put("elsewhere", Item::Directory(0o555));
        put("elsewhere/three", Item::File(0o444));
    }
    if exchange && leads {
        put("changing/kind", Item::Link("../elsewhere"));
    } else {
        put("changing/kind", Item::Directory(0o555));
        put("changing/kind/three", Item::File(0o644));
    }
    // Directories that come and go as a whole, read-only ones among them.
    let own = format!("own-{}", generation % 3);
    put(&own, Item::Directory(0o755));
    for i in 0..4 {
        put(&format!("{own}/{i}"), Item::File(0o644));
    }
    put(&format!("{own}/sub"), Item::Directory(0o555));
    put(&format!("{own}/sub/x"), Item::File(0o644));
    items
}

/// The whole output as it has to be.
pub fn expected(generation: u64, exchange: bool) -> BTreeMap<Vec<u8>, Node> {
    let node = |item| match item {
        Item::File(mode) => Node::File { mode, content: content(generation) },
        Item::Directory(mode) => Node::Directory { mode },
        Item::Link(target) => Node::Symlink { target: target.into() },
    };
    let mut nodes: BTreeMap<_, _> =
        items(generation, exchange).into_iter().map(|(path, item)| (path.into_bytes(), node(item))).collect();
    nodes.insert(Vec::new(), Node::Directory { mode: 0o755 });
    nodes
}

/// Stages a generation.
pub fn stage<F: Fs>(transaction: &mut Transaction<F>, generation: u64, exchange: bool) -> txfs::Result<()> {
    let items = items(generation, exchange);
    for (path, item) in &items {
        match item {
            Item::File(_) => transaction.write(path, content(generation))?,
            Item::Directory(_) => transaction.make_dir(path)?,
            Item::Link(target) => transaction.symlink(path, target)?,
        }
    }
    let stage = transaction.stage();
    for (path, item) in items.iter().rev() {
        if let Item::File(mode) | Item::Directory(mode) = item {
            fs::set_permissions(stage.join(path), fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
    Ok(())
}

/// Looks at every path that is always there, once; `last` holds what was seen before, for no path may go back.
pub fn look_around(out: &Path, last: &mut [u64; ALWAYS.len()]) {
    for (path, last) in ALWAYS.iter().zip(last) {
        let generation = look(&out.join(path));
        assert!(generation >= *last, "{path} went back from {last} to {generation}");
        *last = generation;
    }
}
