//! Writes a manifest: as a change to the one before it, at the end of its file; or whole, to a file of its own.
//!
//! Invariants (journal-spec.md, "Manifest and HEAD"):
//! 1. What a committed manifest names is never written again: nodes are appended, each append from a block of its own, so that
//!    not even a torn write of a block can reach them.
//! 2. A change writes the leaves that it touches and the nodes above them: its cost is that of the change.
//! 3. What nothing names takes no more than a fixed share of the file; otherwise the manifest is written whole.
//!
//! A crash inside leaves bytes behind the end of what is named, which the next append writes over, or a file that nothing names.

use std::io;
use std::iter::Peekable;
use std::path::PathBuf;

use super::inventory::{Inventory, MANIFEST};
use super::node::{Child, FILE_MAX, NODE_MAX, Node, Subtree};
use super::{Entry, encode};
use crate::error::{Error, Result};
use crate::format::frame::HEADER_LEN;
use crate::format::identity::{Digest, Object};
use crate::fs::Fs;
use crate::fs::stream::Stream;
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;

/// Entries of a leaf, and children of an inner node, at most: a kilobyte or so. More make a small change write and decode more,
/// fewer make the tree deeper; of 8 to 32 this was among the fastest for 10 and for 100 changes of 10,000 entries.
pub(crate) const FANOUT: usize = 16;

/// An append begins at a multiple of this: the block that a file system writes as one.
const BLOCK: u64 = 4096;

/// Bytes collected before they are written.
const BUFFER: usize = 1 << 20;

/// Bytes that nothing names which are let be, beside twice what is named.
const SLACK: u64 = 256 << 10;

/// A path whose entry is to be another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) path: RelPath,
    /// What it is to be; `None` where it goes.
    pub(crate) object: Option<Object>,
}

/// Whether so many edits are to be appended to the file that holds `base`; otherwise the manifest is written whole.
pub(crate) fn appends<F: Fs>(base: &Inventory<F>, edits: usize) -> bool {
    let Some(at) = base.at() else { return false };
    let limit = at.stored.saturating_mul(3).saturating_add(SLACK).min(FILE_MAX);
    (edits as u64) < base.totals().entries / 2 && at.end() <= limit
}

/// Writes the manifest that `edits`, ascending, make of `base` to the end of its file, and returns its root.
pub(crate) fn append<F: Fs>(
    base: &Inventory<F>,
    edits: &[Edit],
    fanout: usize,
    file: Stream<F>,
    path: PathBuf,
) -> Result<Subtree> {
    let end = if left_out(Mutant::ManifestAppended) { 0 } else { base.at().map_or(0, Subtree::end).min(FILE_MAX) };
    let offset = end.next_multiple_of(BLOCK).max(HEADER_LEN as u64);
    let mut writer = Writer { out: Out::new(file, path, offset), fanout };
    let children = writer.update(base, &base.root(), edits)?;
    writer.finish(base.root().level(), children)
}

/// Writes the manifest that `edits`, ascending, make of `base` to a new file, and returns its root.
pub(crate) fn write_whole<F: Fs>(
    base: &Inventory<F>,
    edits: impl Iterator<Item = Edit>,
    fanout: usize,
    file: Stream<F>,
    path: PathBuf,
) -> Result<Subtree> {
    let mut writer = Writer { out: Out::new(file, path, 0), fanout };
    writer.out.put(&MANIFEST.header())?;
    let (mut leaf, mut leaves) = (Vec::with_capacity(fanout), Vec::new());
    for entry in Edited::new(base.entries(), edits) {
        leaf.push(entry?);
        if leaf.len() == fanout {
            leaves.push(writer.node(Node::Leaf(std::mem::replace(&mut leaf, Vec::with_capacity(fanout))))?);
        }
    }
    if !leaf.is_empty() {
        leaves.push(writer.node(Node::Leaf(leaf))?);
    }
    writer.finish(0, leaves)
}

struct Writer<F: Fs> {
    out: Out<F>,
    fanout: usize,
}

impl<F: Fs> Writer<F> {
    /// Writes what `edits` make of `node`, and returns the nodes of its level that take its place.
    fn update(&mut self, base: &Inventory<F>, node: &Node, mut edits: &[Edit]) -> Result<Vec<Child>> {
        match node {
            Node::Leaf(entries) => {
                let entries = Edited::new(entries.iter().cloned().map(Ok), edits.iter().cloned());
                let entries = entries.collect::<Result<Vec<_>>>()?;
                self.split(entries, Node::Leaf)
            }
            Node::Inner { level, children } => {
                let mut updated = Vec::with_capacity(children.len());
                for (index, child) in children.iter().enumerate() {
                    let mine = match children.get(index + 1) {
                        Some(next) => edits.partition_point(|edit| edit.path < next.first),
                        None => edits.len(),
                    };
                    let (here, rest) = edits.split_at(mine);
                    edits = rest;
                    if here.is_empty() {
                        updated.push(child.clone());
                    } else {
                        updated.extend(self.update(base, &*base.child(node, index)?, here)?);
                    }
                }
                self.split(updated, |children| Node::Inner { level: *level, children })
            }
        }
    }

    /// Writes nodes of about the same size with `items`: as few as can hold them.
    fn split<T>(&mut self, items: Vec<T>, node: impl Fn(Vec<T>) -> Node) -> Result<Vec<Child>> {
        let mut nodes = items.len().div_ceil(self.fanout);
        let mut written = Vec::with_capacity(nodes);
        let mut items = items.into_iter();
        while nodes > 0 {
            let share = items.len().div_ceil(nodes);
            written.push(self.node(node(items.by_ref().take(share).collect()))?);
            nodes -= 1;
        }
        Ok(written)
    }

    fn node(&mut self, node: Node) -> Result<Child> {
        let first = node.first().cloned().unwrap_or_default();
        let bytes = encode(&node).map_err(Error::io("write", &self.out.path))?;
        if bytes.len() > NODE_MAX as usize {
            let large = io::Error::new(io::ErrorKind::InvalidInput, "a record is larger than the format allows");
            return Err(Error::io("write", &self.out.path)(large));
        }
        let below: u64 = match &node {
            Node::Leaf(_) => 0,
            Node::Inner { children, .. } => children.iter().fold(0, |sum, child| child.node.stored.saturating_add(sum)),
        };
        let offset = self.out.put(&bytes)?;
        let length = bytes.len() as u32;
        let stored = below.saturating_add(u64::from(length));
        Ok(Child { first, node: Subtree { offset, length, stored, digest: Digest::of(&bytes), totals: node.totals() } })
    }

    /// Writes the levels above nodes of one level, up to the root, which comes last in the file.
    fn finish(mut self, mut level: u8, mut nodes: Vec<Child>) -> Result<Subtree> {
        while nodes.len() > 1 {
            level += 1;
            nodes = self.split(nodes, |children| Node::Inner { level, children })?;
        }
        let root = match nodes.pop() {
            Some(root) => root,
            None => self.node(Node::Leaf(Vec::new()))?,
        };
        self.out.flush()?;
        Ok(root.node)
    }
}

/// Entries with edits made to them, both ascending.
struct Edited<I: Iterator<Item = Result<Entry>>, E: Iterator<Item = Edit>> {
    entries: Peekable<I>,
    edits: Peekable<E>,
}

impl<I: Iterator<Item = Result<Entry>>, E: Iterator<Item = Edit>> Edited<I, E> {
    fn new(entries: I, edits: E) -> Self {
        Self { entries: entries.peekable(), edits: edits.peekable() }
    }
}

impl<I: Iterator<Item = Result<Entry>>, E: Iterator<Item = Edit>> Iterator for Edited<I, E> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            let Some(edit) = self.edits.peek() else { return self.entries.next() };
            let is_after = |entry: &Result<Entry>| entry.as_ref().is_ok_and(|entry| entry.path > edit.path);
            match self.entries.peek() {
                Some(Ok(entry)) if entry.path == edit.path => drop(self.entries.next()),
                Some(entry) if !is_after(entry) => return self.entries.next(),
                _ => {}
            }
            let edit = self.edits.next()?;
            if let Some(object) = edit.object {
                return Some(Ok(Entry { path: edit.path, object }));
            }
        }
    }
}

/// The file, from an offset on.
struct Out<F: Fs> {
    file: Stream<F>,
    path: PathBuf,
    /// Where the first byte of the buffer goes.
    offset: u64,
    buffer: Vec<u8>,
}

impl<F: Fs> Out<F> {
    fn new(file: Stream<F>, path: PathBuf, offset: u64) -> Self {
        Self { file, path, offset, buffer: Vec::new() }
    }

    /// Adds bytes and returns where they start.
    fn put(&mut self, bytes: &[u8]) -> Result<u64> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        let offset = self.offset + self.buffer.len() as u64;
        self.buffer.extend_from_slice(bytes);
        Ok(offset)
    }

    fn flush(&mut self) -> Result<()> {
        let Stream { fs, file } = &self.file;
        let mut rest = &self.buffer[..];
        while !rest.is_empty() {
            match fs.write_at(file, self.offset, rest) {
                Ok(0) => return Err(Error::io("write", &self.path)(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    rest = &rest[n..];
                    self.offset += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("write", &self.path)(error)),
            }
        }
        self.buffer.clear();
        Ok(())
    }
}
