//! Snapshots of directory trees, to be compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// One entry of a tree.
#[derive(Clone, PartialEq, Eq)]
pub enum Node {
    Directory { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Symlink { target: Vec<u8> },
    Other { fifo: bool },
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Node::Directory { mode } => write!(f, "dir {mode:o}"),
            Node::File { mode, content } => {
                write!(f, "file {mode:o} {:?}", String::from_utf8_lossy(&content[..content.len().min(40)]))
            }
            Node::Symlink { target } => write!(f, "link {:?}", String::from_utf8_lossy(target)),
            Node::Other { fifo } => write!(f, "other {fifo}"),
        }
    }
}

/// Every entry below `root` by its relative path, the root itself as the empty path. Nothing where there is no root.
pub fn snapshot(root: &Path) -> BTreeMap<Vec<u8>, Node> {
    let mut nodes = BTreeMap::new();
    if fs::symlink_metadata(root).is_ok() {
        visit(root, root, &mut nodes);
    }
    nodes
}

/// As [`snapshot`], without txfs' state directories.
pub fn without_state(root: &Path) -> BTreeMap<Vec<u8>, Node> {
    let ours = |path: &[u8]| path.split(|&b| b == b'/').any(|name| name.starts_with(b".") && name.ends_with(b"txfs"));
    snapshot(root).into_iter().filter(|(path, _)| !ours(path)).collect()
}

fn visit(root: &Path, path: &Path, nodes: &mut BTreeMap<Vec<u8>, Node>) {
    let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mode = metadata.mode() & 0o7777;
    let kind = metadata.file_type();
    let node = if kind.is_dir() {
        let mut entries: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries.iter().for_each(|entry| visit(root, entry, nodes));
        Node::Directory { mode }
    } else if kind.is_file() {
        Node::File { mode, content: fs::read(path).unwrap() }
    } else if kind.is_symlink() {
        Node::Symlink { target: fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec() }
    } else {
        Node::Other { fifo: kind.is_fifo() }
    };
    nodes.insert(relative, node);
}
