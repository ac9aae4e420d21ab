//! A node of a manifest: what writer and reader share.
//!
//! ```text
//! leaf  = entries, ascending                     level 0
//! inner = children, ascending by their first     level of its children + 1
//! ```
//!
//! A node is named by its place in the file and by the BLAKE3 digest of its bytes, so that whoever trusts the name can trust
//! the node, and through it everything below: a Merkle tree (Merkle, 1987), written as a copy-on-write B-tree.

use serde::{Deserialize, Serialize};

use super::{Entry, Totals, decode};
use crate::format::identity::Digest;
use crate::fs::Kind;
use crate::path::RelPath;

/// Levels of a tree: more than any number of entries can need, so that a hostile file cannot lead the reader round in circles.
pub(crate) const LEVELS_MAX: u8 = 32;

/// The largest node that is read, in bytes: what a damaged length can ask for.
pub(crate) const NODE_MAX: u32 = 16 << 20;

/// No file is longer, in bytes; what a damaged place can ask for.
pub(crate) const FILE_MAX: u64 = 1 << 50;

/// The variants' order is the disk format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Node {
    Leaf(Vec<Entry>),
    Inner { level: u8, children: Vec<Child> },
}

/// One node as its parent, or HEAD, names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subtree {
    /// Where its bytes start in the file.
    pub(crate) offset: u64,
    /// How many there are.
    pub(crate) length: u32,
    /// Bytes of this node and of every node below it.
    pub(crate) stored: u64,
    /// BLAKE3 of its bytes.
    pub(crate) digest: Digest,
    /// Of the entries below it.
    pub(crate) totals: Totals,
}

impl Subtree {
    /// Where its bytes end.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.length))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Child {
    /// The path of the first entry below it.
    pub(crate) first: RelPath,
    pub(crate) node: Subtree,
}

impl Node {
    /// 0 for a leaf.
    pub(crate) fn level(&self) -> u8 {
        match self {
            Node::Leaf(_) => 0,
            Node::Inner { level, .. } => *level,
        }
    }

    /// The path of the first entry below it.
    pub(crate) fn first(&self) -> Option<&RelPath> {
        match self {
            Node::Leaf(entries) => entries.first().map(|entry| &entry.path),
            Node::Inner { children, .. } => children.first().map(|child| &child.first),
        }
    }

    pub(crate) fn totals(&self) -> Totals {
        match self {
            Node::Leaf(entries) => Totals::of(entries),
            Node::Inner { children, .. } => {
                children.iter().fold(Totals::default(), |sum, child| sum.plus(&child.node.totals))
            }
        }
    }

    /// Decodes a node whose bytes have the digest by which it is named, and checks it in itself.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let node: Node = decode(bytes)?;
        match &node {
            Node::Leaf(entries) => check_leaf(entries)?,
            Node::Inner { level, children } => {
                if !(1..LEVELS_MAX).contains(level) || children.is_empty() {
                    return Err("a node of an impossible level");
                }
                if children.windows(2).any(|pair| pair[0].first >= pair[1].first) {
                    return Err("nodes that are not in ascending order");
                }
            }
        }
        Ok(node)
    }
}

fn check_leaf(entries: &[Entry]) -> Result<(), &'static str> {
    for (i, entry) in entries.iter().enumerate() {
        if entry.path.is_root() || (i > 0 && entries[i - 1].path >= entry.path) {
            return Err("entries that are not in ascending order");
        }
        if entry.path.is_reserved() {
            return Err("an entry of the state directory");
        }
    }
    Ok(())
}

/// Holds each entry's directory against the entries before it, in order of the tree.
#[derive(Debug, Default)]
pub(crate) struct Directories(Vec<RelPath>);

impl Directories {
    /// Notes the next entry; `false` where its directory is not among those before it.
    pub(crate) fn note(&mut self, entry: &Entry) -> bool {
        while self.0.last().is_some_and(|dir| !entry.path.is_below(dir)) {
            self.0.pop();
        }
        let parent = self.0.last().map_or(&b""[..], |dir| dir.as_bytes());
        let fits = parent == entry.path.parent_bytes();
        if entry.object.kind == Kind::Directory {
            self.0.push(entry.path.clone());
        }
        fits
    }
}
