//! Reads a manifest: one path, a range, or all of it, and no more of the file than that takes.
//!
//! Invariants (journal-spec.md, "Manifest and HEAD"):
//! 1. Every node is held against the digest that names it before anything in it is believed; HEAD or a journal names the root.
//! 2. Nothing is written here, and what is read may be appended to meanwhile: what is named does not change.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::iter::Peekable;
use std::path::PathBuf;
use std::sync::Arc;

use super::node::{Directories, FILE_MAX, NODE_MAX, Node, Subtree};
use super::{Entry, Totals};
use crate::error::{Error, Result};
use crate::format::frame::{Format, HEADER_LEN, check_header};
use crate::format::identity::{Digest, Object};
use crate::fs::stream::Stream;
use crate::fs::{Fs, Kind};
use crate::path::RelPath;

pub(super) const MANIFEST: Format = Format { magic: *b"txfsmani", version: 1 };

/// Read with the header: a small manifest is all there.
const FIRST: usize = 4096;

/// Bytes of leaves that are kept in memory, as they are in the file: what a change of many files touches, or all of a small output.
/// Reading everything does not fill it.
const LEAVES_MAX: u64 = 3 << 20;

/// Read at once where one node follows the other: about what one inner node names.
const AHEAD: usize = 64 << 10;

/// What a generation publishes, as its manifest says.
pub(crate) struct Inventory<F: Fs> {
    source: Option<Source<F>>,
    root: Arc<Node>,
    at: Option<Subtree>,
    totals: Totals,
    inner: RefCell<HashMap<Digest, Arc<Node>>>,
    /// The leaves used last: scan, plan and writer look for the same paths, one after the other.
    leaves: RefCell<Leaves>,
    /// The leaf that had the last answer: paths are looked for in order, mostly.
    last: RefCell<Option<Arc<Node>>>,
}

/// Leaves by their digests.
#[derive(Default)]
struct Leaves {
    nodes: HashMap<Digest, Arc<Node>>,
    /// How many bytes they have in the file.
    bytes: u64,
}

impl Leaves {
    fn remember(&mut self, at: &Subtree, leaf: &Arc<Node>) {
        if self.nodes.contains_key(&at.digest) {
            return;
        }
        if self.bytes >= LEAVES_MAX {
            *self = Self::default();
        }
        self.bytes += u64::from(at.length);
        self.nodes.insert(at.digest, leaf.clone());
    }
}

/// The file that holds the nodes.
struct Source<F: Fs> {
    stream: Stream<F>,
    path: PathBuf,
    window: RefCell<Window>,
}

/// The part of the file that was read last.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
    /// Where the node ends that was read last.
    end: u64,
}

impl<F: Fs> Inventory<F> {
    /// That of generation 0: nothing.
    pub(crate) fn nothing() -> Self {
        Self::of(None, Arc::new(Node::Leaf(Vec::new())), None)
    }

    fn of(source: Option<Source<F>>, root: Arc<Node>, at: Option<Subtree>) -> Self {
        let totals = root.totals();
        Self {
            source,
            root,
            at,
            totals,
            inner: RefCell::default(),
            leaves: RefCell::default(),
            last: RefCell::default(),
        }
    }

    /// Opens the manifest whose root is the node `at` of a file, which `path` calls for messages.
    pub(crate) fn open(stream: Stream<F>, path: PathBuf, at: Subtree) -> Result<Self> {
        let source = Source { stream, path, window: RefCell::default() };
        source.check_header()?;
        let root = source.load(&at)?;
        Ok(Self::of(Some(source), Arc::new(root), Some(at)))
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Its root, as HEAD names it; `None` for nothing.
    pub(super) fn at(&self) -> Option<&Subtree> {
        self.at.as_ref()
    }

    pub(super) fn root(&self) -> Arc<Node> {
        self.root.clone()
    }

    /// What is published at `path`.
    pub(crate) fn get(&self, path: &RelPath) -> Result<Option<Object>> {
        let find = |entries: &[Entry]| {
            let found = entries.binary_search_by(|entry| entry.path.cmp(path));
            found.ok().map(|i| entries[i].object)
        };
        if let Some(Node::Leaf(entries)) = self.last.borrow().as_deref()
            && let [first, .., last] = &entries[..]
            && first.path <= *path
            && *path <= last.path
        {
            return Ok(find(entries));
        }
        let mut node = self.root.clone();
        loop {
            let child = match &*node {
                Node::Leaf(entries) => {
                    let found = find(entries);
                    *self.last.borrow_mut() = Some(node);
                    return Ok(found);
                }
                Node::Inner { children, .. } => match children.partition_point(|child| child.first <= *path) {
                    0 => return Ok(None),
                    after => after - 1,
                },
            };
            node = self.child(&node, child)?;
        }
    }

    /// Every entry, ascending; each is held against its directory.
    pub(crate) fn entries(&self) -> Entries<'_, F> {
        let mut entries = self.from(&RelPath::root());
        entries.directories = Some(Directories::default());
        entries
    }

    /// Every entry at or after `path`, ascending.
    pub(crate) fn from(&self, path: &RelPath) -> Entries<'_, F> {
        let mut entries = Entries { inventory: self, way: Vec::new(), directories: None, failed: None };
        entries.seek(|before| before < path);
        entries
    }

    /// The entry at `path`, if there is one, and everything below it. Below the root each is held against its directory.
    pub(crate) fn range(&self, path: &RelPath) -> impl Iterator<Item = Result<Entry>> + use<'_, F> {
        let path = path.clone();
        let entries = if path.is_root() { self.entries() } else { self.from(&path) };
        entries.take_while(move |entry| {
            entry.as_ref().map_or(true, |entry| entry.path == path || entry.path.is_below(&path))
        })
    }

    /// What is published directly in the directory `dir`, and not further below.
    pub(crate) fn children(&self, dir: &RelPath) -> Result<Vec<Entry>> {
        let mut entries = self.from(dir);
        let mut children = Vec::new();
        while let Some(entry) = entries.next().transpose()? {
            if entry.path == *dir {
                continue;
            }
            if !entry.path.is_below(dir) {
                break;
            }
            if entry.object.kind == Kind::Directory {
                let below = entry.path.clone();
                entries.seek(|path| *path <= below || path.is_below(&below));
            }
            children.push(entry);
        }
        Ok(children)
    }

    /// The child of an inner node, checked against what its parent says of it, and remembered.
    pub(super) fn child(&self, parent: &Node, index: usize) -> Result<Arc<Node>> {
        let child = self.passing_child(parent, index)?;
        if let Node::Inner { level: 1, children } = parent {
            self.leaves.borrow_mut().remember(&children[index].node, &child);
        }
        Ok(child)
    }

    /// As [`Inventory::child`]; of leaves that are passed on the way through all none is remembered.
    fn passing_child(&self, parent: &Node, index: usize) -> Result<Arc<Node>> {
        let (Node::Inner { level, children }, Some(source)) = (parent, &self.source) else {
            unreachable!("only an inner node has children, and only a file has inner nodes");
        };
        let child = &children[index];
        let node = match self.remembered(&child.node) {
            Some(node) => node,
            None => self.load(source, &child.node)?,
        };
        let next = children.get(index + 1).map(|next| &next.first);
        let fits = node.level() + 1 == *level
            && node.first() == Some(&child.first)
            && next.is_none_or(|next| last(&node).is_none_or(|last| last < next));
        if fits { Ok(node) } else { Err(source.contradiction(&child.node)) }
    }

    /// Reads every node that lies at or behind the byte `from` of the file, from the medium, and holds it against its digest.
    pub(crate) fn check_from(&self, from: u64) -> Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        let Stream { fs, file } = &source.stream;
        fs.drop_cached(file).map_err(Error::io("read", &source.path))?;
        *source.window.borrow_mut() = Window::default();
        let mut pending: Vec<Arc<Node>> =
            self.at.iter().map(|at| source.load(at).map(Arc::new)).collect::<Result<_>>()?;
        while let Some(node) = pending.pop() {
            let Node::Inner { children, .. } = &*node else { continue };
            for (index, child) in children.iter().enumerate() {
                if child.node.offset >= from {
                    pending.push(self.child(&node, index)?);
                }
            }
        }
        Ok(())
    }

    fn remembered(&self, at: &Subtree) -> Option<Arc<Node>> {
        let leaf = self.leaves.borrow().nodes.get(&at.digest).cloned();
        leaf.or_else(|| self.inner.borrow().get(&at.digest).cloned())
    }

    fn load(&self, source: &Source<F>, at: &Subtree) -> Result<Arc<Node>> {
        let node = Arc::new(source.load(at)?);
        if node.totals() != at.totals {
            return Err(source.contradiction(at));
        }
        if node.level() > 0 {
            self.inner.borrow_mut().insert(at.digest, node.clone());
        }
        Ok(node)
    }

    fn without_its_directory(&self) -> Error {
        match &self.source {
            Some(source) => Error::corrupt(&source.path, "an entry without its directory"),
            None => unreachable!("nothing has no entries"),
        }
    }
}

/// The largest path that the node itself names.
fn last(node: &Node) -> Option<&RelPath> {
    match node {
        Node::Leaf(entries) => entries.last().map(|entry| &entry.path),
        Node::Inner { children, .. } => children.last().map(|child| &child.first),
    }
}

impl<F: Fs> Source<F> {
    fn check_header(&self) -> Result<()> {
        let mut first = vec![0; FIRST];
        let got = self.fill(0, &mut first)?;
        first.truncate(got);
        let mut header = [0; HEADER_LEN];
        let got = got.min(HEADER_LEN);
        header[..got].copy_from_slice(&first[..got]);
        *self.window.borrow_mut() = Window { start: 0, bytes: first, end: 0 };
        check_header(&header, got, MANIFEST).map_err(|damage| Error::corrupt(&self.path, damage))
    }

    /// Reads a node and holds it against its digest.
    fn load(&self, at: &Subtree) -> Result<Node> {
        let mut window = self.window.borrow_mut();
        let length = at.length as usize;
        if at.length > NODE_MAX || at.offset > FILE_MAX {
            return Err(self.corrupt(at.offset, "a node at an impossible place"));
        }
        let ahead = window.end == at.offset;
        window.end = at.end();
        let inside = |window: &Window| {
            let from = usize::try_from(at.offset.checked_sub(window.start)?).ok()?;
            (from.checked_add(length)? <= window.bytes.len()).then_some(from)
        };
        let from = match inside(&window) {
            Some(from) => from,
            None => {
                window.bytes.resize(if ahead { AHEAD.max(length) } else { length }, 0);
                window.start = at.offset;
                let got = self.fill(at.offset, &mut window.bytes)?;
                window.bytes.truncate(got);
                if got < length {
                    return Err(self.corrupt(at.offset, "the file ends inside a node"));
                }
                0
            }
        };
        let bytes = &window.bytes[from..from + length];
        if Digest::of(bytes) != at.digest {
            return Err(self.corrupt(at.offset, "a node that does not have the digest by which it is named"));
        }
        Node::read(bytes).map_err(|what| self.corrupt(at.offset, what))
    }

    /// Reads until `buffer` is full or the file ends.
    fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let Stream { fs, file } = &self.stream;
        let mut got = 0;
        while got < buffer.len() {
            match fs.read_at(file, offset + got as u64, &mut buffer[got..]) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.path)(error)),
            }
        }
        Ok(got)
    }

    fn contradiction(&self, at: &Subtree) -> Error {
        self.corrupt(at.offset, "a node that is not what its parent says")
    }

    fn corrupt(&self, offset: u64, what: &str) -> Error {
        Error::corrupt(&self.path, format!("{what}, at byte {offset}"))
    }
}

/// Entries of a manifest, ascending.
pub(crate) struct Entries<'a, F: Fs> {
    inventory: &'a Inventory<F>,
    /// The nodes from the root down to the next entry, each with the index of the child or entry that is next.
    way: Vec<(Arc<Node>, usize)>,
    directories: Option<Directories>,
    failed: Option<Error>,
}

impl<F: Fs> Entries<'_, F> {
    /// Goes to the first entry of whose path `before` does not hold; it holds of all paths up to one, and of none after.
    fn seek(&mut self, before: impl Fn(&RelPath) -> bool) {
        self.way.clear();
        let mut node = self.inventory.root();
        loop {
            let next = match &*node {
                Node::Leaf(entries) => {
                    let next = entries.partition_point(|entry| before(&entry.path));
                    return self.way.push((node, next));
                }
                // The first entry that is looked for may lie in the middle of the child before.
                Node::Inner { children, .. } => {
                    children.partition_point(|child| before(&child.first)).saturating_sub(1)
                }
            };
            let child = self.inventory.child(&node, next);
            self.way.push((node, next + 1));
            match child {
                Ok(child) => node = child,
                Err(error) => return self.failed = Some(error),
            }
        }
    }

    fn advance(&mut self) -> Result<Option<Entry>> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        while let Some((node, next)) = self.way.last_mut() {
            let (node, index) = (node.clone(), *next);
            *next += 1;
            match &*node {
                Node::Leaf(entries) if index < entries.len() => return Ok(Some(entries[index].clone())),
                Node::Inner { children, .. } if index < children.len() => {
                    let child = self.inventory.passing_child(&node, index)?;
                    self.way.push((child, 0));
                }
                _ => drop(self.way.pop()),
            }
        }
        Ok(None)
    }
}

impl<F: Fs> Iterator for Entries<'_, F> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let next = self.advance().and_then(|entry| {
            let fits = match (&entry, &mut self.directories) {
                (Some(entry), Some(directories)) => directories.note(entry),
                _ => true,
            };
            if fits { Ok(entry) } else { Err(self.inventory.without_its_directory()) }
        });
        if next.is_err() {
            self.way.clear();
        }
        next.transpose()
    }
}

/// Ascending entries, of which some are looked for, ascending too.
pub(crate) struct Cursor<I: Iterator<Item = Result<Entry>>>(Peekable<I>);

impl<I: Iterator<Item = Result<Entry>>> Cursor<I> {
    pub(crate) fn new(entries: I) -> Self {
        Self(entries.peekable())
    }

    /// The next entry, if it comes before `path`.
    pub(crate) fn next_before(&mut self, path: &RelPath) -> Result<Option<Entry>> {
        self.0.next_if(|entry| entry.as_ref().map_or(true, |entry| entry.path < *path)).transpose()
    }

    /// The entry at `path`; those before it are passed over.
    pub(crate) fn find(&mut self, path: &RelPath) -> Result<Option<Entry>> {
        while self.next_before(path)?.is_some() {}
        self.0.next_if(|entry| entry.as_ref().map_or(true, |entry| entry.path == *path)).transpose()
    }

    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        self.0.next().transpose()
    }
}
