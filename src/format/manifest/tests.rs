//! Manifests on real files: any sequence of edits, and every damage.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::inventory::Inventory;
use super::node::{Child, Node, Subtree};
use super::writer::{Edit, append, appends, write_whole};
use super::*;
use crate::fs::stream::Stream;
use crate::fs::{Fs, LinuxFs};

fn object(kind: Kind, ino: u64) -> Object {
    Object { kind, mode: 0o644, size: 3, digest: Digest::of(b"abc"), ino, mtime: Timestamp { seconds: 1, nanos: 2 } }
}

fn path(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

fn entry(at: &str, kind: Kind) -> Entry {
    Entry { path: path(at), object: object(kind, 7) }
}

/// A directory with manifests, and the current one.
struct Files {
    dir: tempfile::TempDir,
    fanout: usize,
    /// The file and the root of the current one.
    current: Option<(u64, Subtree)>,
    next: u64,
}

impl Files {
    fn new(fanout: usize) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), fanout, current: None, next: 1 }
    }

    fn stream(&self, file: u64, make: bool) -> (Stream<LinuxFs>, std::path::PathBuf) {
        let fs = LinuxFs::new();
        let dir = fs.open_anchor(self.dir.path()).unwrap();
        let name = file.to_string();
        let open =
            if make { fs.create_file(&dir, name.as_bytes(), 0o600) } else { fs.open_write(&dir, name.as_bytes()) };
        (Stream { fs, file: open.unwrap() }, self.dir.path().join(name))
    }

    fn inventory(&self) -> Inventory<LinuxFs> {
        let Some((file, root)) = self.current else { return Inventory::nothing() };
        let (stream, path) = self.stream(file, false);
        Inventory::open(stream, path, root).unwrap()
    }

    fn edit(&mut self, edits: &[Edit]) {
        let base = self.inventory();
        self.current = Some(match self.current {
            Some((file, _)) if appends(&base, edits.len()) => {
                let (stream, path) = self.stream(file, false);
                (file, append(&base, edits, self.fanout, stream, path).unwrap())
            }
            _ => {
                let (stream, path) = self.stream(self.next, true);
                (self.next, write_whole(&base, edits.iter().cloned(), self.fanout, stream, path).unwrap())
            }
        });
        self.next += 1;
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join(self.current.unwrap().0.to_string())
    }
}

fn all(inventory: &Inventory<LinuxFs>) -> Vec<Entry> {
    inventory.entries().map(Result::unwrap).collect()
}

fn edits(entries: &[Entry]) -> Vec<Edit> {
    entries.iter().map(|entry| Edit { path: entry.path.clone(), object: Some(entry.object) }).collect()
}

/// A hundred directories with ten files each.
fn large() -> Vec<Entry> {
    let mut entries = Vec::new();
    for directory in 0..100 {
        entries.push(entry(&format!("d{directory:02}"), Kind::Directory));
        entries.extend((0..10).map(|file| entry(&format!("d{directory:02}/{file}"), Kind::File)));
    }
    entries
}

#[test]
fn a_manifest_reads_back_whole_and_by_path() {
    let mut files = Files::new(4);
    files.edit(&edits(&large()));
    let inventory = files.inventory();
    assert_eq!(all(&inventory), large());
    assert_eq!(inventory.totals(), Totals::of(&large()));
    for entry in large() {
        assert_eq!(inventory.get(&entry.path).unwrap(), Some(entry.object));
    }
    for missing in ["a", "d00/99", "d00/0/x", "d005", "z"] {
        assert_eq!(inventory.get(&path(missing)).unwrap(), None, "{missing}");
    }
    let below: Vec<Entry> = inventory.range(&path("d42")).map(Result::unwrap).collect();
    assert_eq!(below, large()[42 * 11..43 * 11]);
    let top = inventory.children(&RelPath::root()).unwrap();
    assert_eq!(top.len(), 100);
    assert_eq!(inventory.children(&path("d99")).unwrap().len(), 10);
}

#[test]
fn a_small_change_is_appended_at_a_block_of_its_own_and_leaves_what_was_there() {
    let mut files = Files::new(4);
    files.edit(&edits(&large()));
    let before = std::fs::read(files.path()).unwrap();
    let old = files.inventory();
    files.edit(&[
        Edit { path: path("d07/3"), object: Some(object(Kind::File, 9)) },
        Edit { path: path("d07/4"), object: None },
    ]);
    let after = std::fs::read(files.path()).unwrap();
    let grown = before.len().next_multiple_of(4096);
    assert_eq!(after[..before.len()], before, "what is named is not written again");
    assert!(after.len() > grown && after[before.len()..grown].iter().all(|&byte| byte == 0));
    assert!(after.len() - grown < 5 * 1024, "{} bytes for one leaf and those above it", after.len() - grown);
    assert_eq!(files.inventory().get(&path("d07/3")).unwrap().unwrap().ino, 9);
    assert_eq!(files.inventory().get(&path("d07/4")).unwrap(), None);
    assert_eq!(files.inventory().totals().entries, 1099);
    assert_eq!(all(&old), large(), "a reader of the one before is not disturbed");
}

#[test]
fn what_nothing_names_any_more_is_left_behind_in_time() {
    let mut files = Files::new(4);
    files.edit(&edits(&large()));
    let first = files.path();
    let mut largest = 0;
    for round in 0..2000 {
        let path = path(&format!("d{:02}/{}", round * 37 % 100, round % 10));
        files.edit(&[Edit { path, object: Some(object(Kind::File, 100 + round)) }]);
        largest = largest.max(files.path().metadata().unwrap().len());
    }
    assert_ne!(files.path(), first, "it was written whole again");
    let (_, root) = files.current.unwrap();
    assert!(largest < 3 * root.stored + (256 << 10) + (64 << 10), "{largest} bytes for {}", root.stored);
}

/// A file with some nodes, the last of which is the root.
fn forge(nodes: &[Node]) -> (tempfile::TempDir, std::path::PathBuf, Subtree) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("1");
    let mut bytes = inventory::MANIFEST.header().to_vec();
    let mut root = None;
    for node in nodes {
        let encoded = encode(node).unwrap();
        root = Some(named(bytes.len(), node));
        bytes.extend(encoded);
    }
    std::fs::write(&path, bytes).unwrap();
    (dir, path, root.unwrap())
}

fn named(offset: usize, node: &Node) -> Subtree {
    let bytes = encode(node).unwrap();
    let length = bytes.len() as u32;
    let (offset, stored) = (offset as u64, u64::from(length));
    Subtree { offset, length, stored, digest: Digest::of(&bytes), totals: node.totals() }
}

fn open(path: &Path, root: Subtree) -> crate::Result<Vec<Entry>> {
    let fs = LinuxFs::new();
    let dir = fs.open_anchor(path.parent().unwrap()).unwrap();
    let (file, _) = fs.open_file(&dir, b"1").unwrap();
    let inventory = Inventory::open(Stream { fs, file }, path.to_path_buf(), root)?;
    inventory.entries().collect()
}

#[test]
fn entries_out_of_order_twice_reserved_or_without_their_directory_are_refused() {
    for bad in [
        vec![entry("b", Kind::File), entry("a", Kind::File)],
        vec![entry("a", Kind::File), entry("a", Kind::File)],
        vec![entry(".txfs", Kind::Directory)],
        vec![entry("a/b", Kind::File)],
        vec![entry("a", Kind::File), entry("a/b", Kind::File)],
        vec![entry("a", Kind::Directory), entry("a/b/c", Kind::File)],
    ] {
        let (_dir, path, root) = forge(&[Node::Leaf(bad.clone())]);
        assert!(matches!(open(&path, root), Err(crate::Error::Corrupt { .. })), "{bad:?}");
    }
}

#[test]
fn children_that_are_not_what_their_parent_says_are_refused() {
    let leaves = [Node::Leaf(vec![entry("a", Kind::File)]), Node::Leaf(vec![entry("b", Kind::File)])];
    let offset = 16 + encode(&leaves[0]).unwrap().len();
    let child = |first: &str, node: Subtree| Child { first: path(first), node };
    let right = [child("a", named(16, &leaves[0])), child("b", named(offset, &leaves[1]))];
    let wrong_totals = Subtree { totals: Totals::default(), ..right[1].node };
    let wrong_place = Subtree { offset: right[0].node.offset, ..right[1].node };
    let past_the_end = Subtree { offset: u64::MAX - 5, ..right[1].node };
    let too_long = Subtree { length: u32::MAX, ..right[1].node };
    let inner = |level, children: &[Child]| Node::Inner { level, children: children.to_vec() };
    let [first, second] = right.clone();
    let cases = [
        (true, inner(1, &right)),
        (false, inner(2, &right)),
        (false, inner(0, &right)),
        (false, inner(200, &right)),
        (false, inner(1, &[])),
        (false, inner(1, &[second.clone(), first.clone()])),
        (false, inner(1, &[first.clone(), child("aa", second.node)])),
        (false, inner(1, &[first.clone(), child("c", second.node)])),
        (false, inner(1, &[first.clone(), child("b", wrong_totals)])),
        (false, inner(1, &[first.clone(), child("b", wrong_place)])),
        (false, inner(1, &[first.clone(), child("b", past_the_end)])),
        (false, inner(1, &[first, child("b", too_long)])),
    ];
    for (good, root) in cases {
        let (_dir, path, at) = forge(&[leaves[0].clone(), leaves[1].clone(), root.clone()]);
        let read = open(&path, at);
        assert!(
            if good { read.is_ok() } else { matches!(read, Err(crate::Error::Corrupt { .. })) },
            "{root:?}: {read:?}"
        );
    }
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let leaf = Node::Leaf(vec![entry("a", Kind::Directory), entry("a/b", Kind::File)]);
    let (_dir, path, root) = forge(&[leaf]);
    let whole = std::fs::read(&path).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, flipped).unwrap();
        assert!(matches!(open(&path, root), Err(crate::Error::Corrupt { .. })), "bit {bit}");
    }
    for cut in 0..whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        assert!(matches!(open(&path, root), Err(crate::Error::Corrupt { .. })), "cut at {cut}");
    }
}

#[test]
fn head_reads_back() {
    let info = Info { generation: 9, committed: Timestamp { seconds: -1, nanos: 5 }, message: None };
    let extent = Extent { file: 3, offset: 16, length: 5, stored: 5 };
    let head = Head { info, manifest: Digest::of(b"x"), totals: Totals::default(), extent };
    assert_eq!(Head::read(&head.encode().unwrap()[..]).unwrap(), head);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Node::read(&bytes);
        let _ = Head::read(&bytes[..]);
    }

    /// Any sequence of edits, appended or written whole, in trees of any depth, is what a map makes of it.
    #[test]
    fn edits_do_what_they_do_to_a_map(
        fanout in 2..6usize,
        rounds in proptest::collection::vec(proptest::collection::btree_map("[a-d]{1,3}", any::<bool>(), 0..30), 1..12),
    ) {
        let mut files = Files::new(fanout);
        let mut map = BTreeMap::new();
        for (round, edits) in rounds.iter().enumerate() {
            let mut sorted = Vec::new();
            for (name, stays) in edits {
                let object = stays.then(|| object(Kind::File, round as u64));
                match object {
                    Some(object) => drop(map.insert(path(name), object)),
                    None => drop(map.remove(&path(name))),
                }
                sorted.push(Edit { path: path(name), object });
            }
            sorted.sort_by(|a, b| a.path.cmp(&b.path));
            files.edit(&sorted);
            let inventory = files.inventory();
            let expected: Vec<Entry> =
                map.iter().map(|(path, object)| Entry { path: path.clone(), object: *object }).collect();
            prop_assert_eq!(&all(&inventory), &expected);
            prop_assert_eq!(inventory.totals(), Totals::of(&expected));
            for name in edits.keys() {
                prop_assert_eq!(inventory.get(&path(name)).unwrap(), map.get(&path(name)).copied());
            }
        }
    }
}

/// A reader would refuse it, and with it the generation.
#[test]
fn a_node_that_is_too_large_to_be_read_is_not_written() {
    let files = Files::new(writer::FANOUT);
    // So deep that a leaf's paths alone are more than a node may have.
    let directory = vec!["d".repeat(255); (node::NODE_MAX as usize / writer::FANOUT) / 256 + 1].join("/");
    let edits = (10..26).map(|n| Edit { path: path(&format!("{directory}/{n}")), object: Some(object(Kind::File, n)) });
    let (stream, at) = files.stream(1, true);
    let error = write_whole(&Inventory::nothing(), edits, files.fanout, stream, at).unwrap_err();
    assert!(error.to_string().contains("larger than the format allows"), "{error}");
}
