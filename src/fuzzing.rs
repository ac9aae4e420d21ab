//! Doors for the fuzz targets to what is private: the codecs of journal, manifest and HEAD. No part of the interface.

use crate::format::frame::Damage;
use crate::format::journal::reader;
use crate::format::journal::record::{Begin, Operation};
use crate::format::journal::writer;
use crate::format::manifest::node::Node;
use crate::format::manifest::{Head, encode};
use crate::path::RelPath;

/// How reading a file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read<T> {
    /// It is whole and valid.
    Whole(T),
    /// It ends early.
    Torn,
    /// It is damaged, or none of ours.
    Refused,
}

impl<T> Read<T> {
    fn from<U>(result: Result<U, Damage>, whole: impl FnOnce(U) -> T) -> Self {
        match result {
            Ok(value) => Read::Whole(whole(value)),
            Err(Damage::Torn { .. }) => Read::Torn,
            Err(_) => Read::Refused,
        }
    }
}

/// Reads a journal that is to be acted upon.
pub fn read_journal(bytes: &[u8]) -> Read<(Begin, Vec<Operation>)> {
    Read::from(reader::read(bytes), |journal| (journal.begin, journal.operations))
}

/// Writes a journal.
pub fn write_journal(begin: Begin, operations: &[Operation]) -> Vec<u8> {
    writer::write(Vec::new(), begin, operations).expect("memory takes every journal that was read")
}

/// A node of a manifest, as its bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestNode(Node);

impl ManifestNode {
    /// The paths that it names, of entries or of children.
    pub fn paths(&self) -> Vec<RelPath> {
        match &self.0 {
            Node::Leaf(entries) => entries.iter().map(|entry| entry.path.clone()).collect(),
            Node::Inner { children, .. } => children.iter().map(|child| child.first.clone()).collect(),
        }
    }
}

/// Reads a node of a manifest.
pub fn read_node(bytes: &[u8]) -> Read<ManifestNode> {
    Node::read(bytes).map_or(Read::Refused, |node| Read::Whole(ManifestNode(node)))
}

/// Writes a node of a manifest.
pub fn write_node(node: &ManifestNode) -> Vec<u8> {
    encode(&node.0).expect("memory takes every node that was read")
}

/// Reads HEAD.
pub fn read_head(bytes: &[u8]) -> Read<Head> {
    Read::from(Head::read(bytes), |head| head)
}

/// Writes HEAD.
pub fn write_head(head: &Head) -> Vec<u8> {
    head.encode().expect("memory takes every HEAD that was read")
}
