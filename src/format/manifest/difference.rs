//! In which entries two manifests may differ, without reading what they share.
//!
//! Generations share the nodes that did not change. A leaf of both has the same entries in both, so that only the leaves of one alone
//! are read.
//!
//! Nothing is written here.

use std::collections::HashSet;
use std::sync::Arc;

use super::inventory::Inventory;
use super::node::Node;
use super::{Digest, Entry};
use crate::error::Result;
use crate::fs::Fs;

/// A leaf, as the node names it that it is in; the root itself may be one.
enum Leaf {
    Root(Digest, Arc<Node>),
    Child(Digest, Arc<Node>, usize),
}

impl Leaf {
    fn digest(&self) -> Digest {
        match self {
            Self::Root(digest, _) | Self::Child(digest, ..) => *digest,
        }
    }
}

impl<F: Fs> Inventory<F> {
    /// Every entry of which the other may have another, or none, and those of the other, both ascending. It costs reading the inner nodes of
    /// both, and the leaves of one alone.
    pub(crate) fn apart_from(&self, other: &Self) -> Result<[Vec<Entry>; 2]> {
        let (own, others) = (self.list_leaves()?, other.list_leaves()?);
        let digests = |leaves: &[Leaf]| leaves.iter().map(Leaf::digest).collect::<HashSet<_>>();
        let (of_own, of_others) = (digests(&own), digests(&others));
        Ok([self.entries_of(own, &of_others)?, other.entries_of(others, &of_own)?])
    }

    fn list_leaves(&self) -> Result<Vec<Leaf>> {
        let root = self.root();
        if root.level() == 0 {
            return Ok(self.at().map(|at| Leaf::Root(at.digest, root.clone())).into_iter().collect());
        }
        let (mut leaves, mut pending) = (Vec::new(), vec![root]);
        while let Some(node) = pending.pop() {
            let Node::Inner { level, children } = &*node else { continue };
            if *level == 1 {
                let leaf =
                    |(index, child): (usize, &super::node::Child)| Leaf::Child(child.node.digest, node.clone(), index);
                leaves.extend(children.iter().enumerate().map(leaf));
                continue;
            }
            // The first is taken up first.
            for index in (0..children.len()).rev() {
                pending.push(self.child(&node, index)?);
            }
        }
        Ok(leaves)
    }

    fn entries_of(&self, leaves: Vec<Leaf>, shared: &HashSet<Digest>) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for leaf in leaves.into_iter().filter(|leaf| !shared.contains(&leaf.digest())) {
            let node = match leaf {
                Leaf::Root(_, node) => node,
                Leaf::Child(_, parent, index) => self.child(&parent, index)?,
            };
            if let Node::Leaf(of_leaf) = &*node {
                entries.extend(of_leaf.iter().cloned());
            }
        }
        Ok(entries)
    }
}
