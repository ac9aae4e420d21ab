//! What the fuzz targets share: a scratch store with a tree beside it that nobody may touch.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use txfs::fs::Fs;
use txfs::{BeginOptions, CommitOptions, RecoverOptions, Store};

/// Where scratch stores are made: in memory, where there is such a place.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a scratch directory")
}

/// An output with two generations, its state directory, and a neighbour.
pub struct Scene {
    pub dir: tempfile::TempDir,
    pub out: PathBuf,
    pub state: PathBuf,
    pub outside: PathBuf,
}

impl Scene {
    pub fn new() -> Self {
        let dir = scratch();
        let [out, state, outside] = ["dist", ".dist.txfs", "outside"].map(|name| dir.path().join(name));
        fs::create_dir(&outside).expect("a directory");
        fs::write(outside.join("victim"), "precious").expect("a file");
        Self { dir, out, state, outside }
    }

    /// With the two generations of [`OLD`] and [`NEW`] published.
    pub fn published() -> Self {
        let scene = Self::new();
        let store = Store::open(&scene.out).expect("a store");
        for files in [OLD, NEW] {
            publish(&store, files).expect("a commit");
        }
        store.recover(RecoverOptions::default()).expect("the last commit is settled");
        scene
    }
}

impl Default for Scene {
    fn default() -> Self {
        Self::new()
    }
}

pub const OLD: &[(&str, &str)] = &[("a", "1"), ("d/x", "1"), ("old/y", "1")];
pub const NEW: &[(&str, &str)] = &[("a", "2"), ("d/x", "2"), ("d/z", "2")];

/// Whatever is staged may be published.
pub fn lenient() -> CommitOptions<'static> {
    let mut options = CommitOptions::default();
    options.allow_empty = true;
    options.max_removed = 100;
    options.allow_case_collisions = true;
    options
}

pub fn publish(store: &Store, files: &[(&str, &str)]) -> txfs::Result<()> {
    let mut transaction = store.begin(BeginOptions::default())?;
    for (path, content) in files {
        transaction.write(path, content)?;
    }
    transaction.commit(&lenient()).map(drop)
}

/// One entry: its kind, mode and content or target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Directory(u32),
    File(u32, Vec<u8>),
    Link(PathBuf),
    Other,
}

/// Every entry below `root`, and `root` itself.
pub fn snapshot(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut nodes = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let mode = metadata.mode() & 0o7777;
        let node = if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).expect("a listing").map(|entry| entry.expect("an entry").path()));
            Node::Directory(mode)
        } else if metadata.is_file() {
            Node::File(mode, fs::read(&path).expect("a file"))
        } else if metadata.is_symlink() {
            Node::Link(fs::read_link(&path).expect("a link"))
        } else {
            Node::Other
        };
        nodes.insert(path.strip_prefix(root).expect("below the root").to_path_buf(), node);
    }
    nodes
}

/// A small tree out of any bytes: each entry takes three of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Directory(u32),
    File(u32, u8),
    Link(u8),
}

pub fn tree(bytes: &[u8]) -> BTreeMap<PathBuf, Item> {
    const NAMES: [&str; 4] = ["a", "b", "a.html", "B"];
    let mut items = BTreeMap::new();
    for entry in bytes.chunks_exact(3).take(12) {
        let names = [entry[0] & 3, entry[0] >> 2 & 3, entry[0] >> 4 & 3].map(|i| NAMES[i as usize]);
        let path: PathBuf = names[..1 + (entry[0] >> 6) as usize % 3].iter().collect();
        let bits = [0o755, 0o700, 0o555, 0o644][(entry[1] >> 2 & 3) as usize];
        let item = match entry[1] & 3 {
            0 => Item::Directory(bits | 0o500),
            1 => Item::Link(entry[2] & 3),
            _ => Item::File(bits & 0o644 | 0o400, entry[2] & 3),
        };
        // What is above it has to be a directory, and what is below it goes when it is none.
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            if !matches!(items.get(above), Some(Item::Directory(_))) {
                items.insert(above.to_path_buf(), Item::Directory(0o755));
            }
        }
        if !matches!(item, Item::Directory(_)) {
            items.retain(|other: &PathBuf, _| !other.starts_with(&path));
        }
        items.insert(path, item);
    }
    items
}

/// Writes a tree into a stage.
pub fn stage<F: Fs>(
    fs: &F,
    transaction: &mut txfs::Transaction<F>,
    tree: &BTreeMap<PathBuf, Item>,
) -> txfs::Result<()> {
    for (path, item) in tree {
        match item {
            Item::Directory(_) => transaction.make_dir(path)?,
            Item::File(_, content) => transaction.write(path, [*content].repeat(*content as usize))?,
            Item::Link(target) => transaction.symlink(path, format!("t{target}"))?,
        }
    }
    let stage = transaction.stage();
    for (path, item) in tree.iter().rev() {
        set_mode(fs, &stage.join(path), item).expect("a mode");
    }
    Ok(())
}

fn set_mode<F: Fs>(fs: &F, path: &Path, item: &Item) -> io::Result<()> {
    match (item, path.parent(), path.file_name()) {
        (Item::Directory(mode), ..) => fs.set_dir_mode(&fs.open_anchor(path)?, *mode),
        (Item::File(mode, _), Some(dir), Some(name)) => {
            let (file, _) = fs.open_file(&fs.open_anchor(dir)?, name.as_bytes())?;
            fs.set_mode(&file, *mode)
        }
        _ => Ok(()),
    }
}

/// The snapshot of a published tree.
pub fn published(tree: &BTreeMap<PathBuf, Item>, root: Node) -> BTreeMap<PathBuf, Node> {
    let node = |item: &Item| match item {
        Item::Directory(mode) => Node::Directory(*mode),
        Item::File(mode, content) => Node::File(*mode, [*content].repeat(*content as usize)),
        Item::Link(target) => Node::Link(format!("t{target}").into()),
    };
    let mut nodes: BTreeMap<_, _> = tree.iter().map(|(path, item)| (path.clone(), node(item))).collect();
    nodes.insert(PathBuf::new(), root);
    nodes
}
