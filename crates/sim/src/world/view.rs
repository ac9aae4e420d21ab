//! Looking at a world without calling it: what oracles use.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use crate::world::live::{Blob, Body, Inode, ROOT, Slot, World};
use txfs::RelPath;
use txfs::fs::{Kind, Stat, Timestamp};

/// What is at a path.
#[derive(Debug, Clone)]
pub struct Entry {
    /// `None` for what is neither file, directory nor symbolic link.
    pub kind: Option<Kind>,
    /// Permission bits.
    pub mode: u32,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    None,
    File(Arc<Blob>),
    Symlink(Arc<[u8]>),
}

impl Entry {
    /// The bytes of a file, the target of a symbolic link, nothing of anything else.
    pub fn content(&self) -> &[u8] {
        match &self.content {
            Content::None => b"",
            Content::File(blob) => blob.bytes(),
            Content::Symlink(target) => target,
        }
    }

    fn of(inode: &Inode) -> Self {
        let content = match &inode.body {
            Body::File(file) => Content::File(file.content.clone()),
            Body::Symlink(target) => Content::Symlink(target.clone()),
            _ => Content::None,
        };
        Self { kind: inode.kind(), mode: inode.mode, content }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.mode == other.mode && self.content() == other.content()
    }
}

impl Eq for Entry {}

/// Everything at and below a path, which itself is the root; empty where there is nothing.
pub type Tree = BTreeMap<RelPath, Entry>;

/// A look at the live tree of a world, as an after-call hook gets it. Symbolic links are never followed.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(crate) world: &'a World,
}

impl View<'_> {
    pub(crate) fn find(&self, path: &Path) -> Option<Slot> {
        let names = path.as_os_str().as_bytes().split(|&b| b == b'/').filter(|name| !name.is_empty());
        names.into_iter().try_fold(ROOT, |dir, name| self.world.lookup(dir, name))
    }

    /// What is at an absolute path.
    pub fn entry(&self, path: impl AsRef<Path>) -> Option<Entry> {
        self.find(path.as_ref()).map(|slot| Entry::of(self.world.inode(slot)))
    }

    /// What `lstat` would say of an absolute path.
    pub fn stat(&self, path: impl AsRef<Path>) -> Option<Stat> {
        self.find(path.as_ref()).map(|slot| self.world.stat(slot))
    }

    /// Whether anything is at an absolute path.
    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.find(path.as_ref()).is_some()
    }

    /// Everything at and below an absolute path.
    pub fn tree(&self, path: impl AsRef<Path>) -> Tree {
        let mut tree = Tree::new();
        let Some(root) = self.find(path.as_ref()) else { return tree };
        let mut todo = vec![(RelPath::root(), root)];
        while let Some((path, slot)) = todo.pop() {
            let inode = self.world.inode(slot);
            for (name, child) in inode.entries() {
                // A name in a world passed the checks of a name.
                if let Ok(path) = path.join(name) {
                    todo.push((path, *child));
                }
            }
            tree.insert(path, Entry::of(inode));
        }
        tree
    }

    /// A hash of what [`View::tree`] returns, without building it.
    pub fn tree_hash(&self, path: impl AsRef<Path>) -> u64 {
        self.find(path.as_ref()).map_or(0, |slot| hash_tree(&self.world.live, slot))
    }

    /// A hash of everything that a process could see: names, kinds, modes, owners, contents, inode numbers and times.
    pub fn hash(&self) -> u64 {
        hash_names(&self.world.live, ROOT)
    }

    /// The absolute path of an inode that has one, for messages.
    pub(crate) fn path_of(&self, slot: Slot) -> String {
        let mut names: Vec<String> = Vec::new();
        let mut at = slot;
        while at != ROOT {
            let parent = self.world.aux.get(at as usize).map_or(ROOT, |aux| aux.parent);
            let entries = self.world.find(parent).map_or(&[][..], |inode| inode.entries());
            match entries.iter().find(|&&(_, child)| child == at) {
                Some((name, _)) => names.push(String::from_utf8_lossy(name).into_owned()),
                None => {
                    names.push(format!("(removed #{at})"));
                    break;
                }
            }
            at = parent;
        }
        names.reverse();
        format!("/{}", names.join("/"))
    }
}

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// One step of a hash: a folded multiplication.
pub(crate) fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ 0xa076_1d64_78bd_642f) * u128::from(word.rotate_left(17) ^ SEED | 1);
    (product as u64) ^ ((product >> 64) as u64) ^ word.wrapping_mul(0xe703_7ed1_a0b4_28db) ^ hash.rotate_left(29)
}

pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = mix(SEED, bytes.len() as u64);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        hash = mix(hash, u64::from_le_bytes(chunk.try_into().expect("chunks of eight")));
    }
    let mut rest = [0; 8];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    mix(hash, u64::from_le_bytes(rest))
}

/// Hashes what a tree below `slot` publishes: no identities, no times.
fn hash_tree(table: &[Option<Arc<Inode>>], slot: Slot) -> u64 {
    let Some(inode) = &table[slot as usize] else { return 0 };
    let hash = mix(SEED, u64::from(inode.mode) << 8 | inode.kind().map_or(7, |kind| kind as u64));
    match &inode.body {
        Body::File(file) => mix(hash, file.content.hash()),
        Body::Symlink(target) => mix(hash, hash_bytes(target)),
        Body::Directory(entries) => {
            entries.iter().fold(hash, |hash, (name, child)| mix(mix(hash, hash_bytes(name)), hash_tree(table, *child)))
        }
        Body::Other => hash,
    }
}

/// Hashes all that a process can see at and below `slot`: the sum, over every name, of the hash of its inode. A directory's
/// inode tells which number is behind which name, so equal sums mean equal trees; and a sum can be changed in one place
/// (`sketch.rs`).
pub(crate) fn hash_names(table: &[Option<Arc<Inode>>], slot: Slot) -> u64 {
    let Some(inode) = &table[slot as usize] else { return 0 };
    let below = inode.entries().iter().map(|&(_, child)| hash_names(table, child));
    below.fold(hash_inode(table, inode), u64::wrapping_add)
}

/// Hashes one inode, and for a directory which inode numbers its names lead to.
pub(crate) fn hash_inode(table: &[Option<Arc<Inode>>], inode: &Inode) -> u64 {
    inode.hash.get(|| match &inode.body {
        Body::File(file) => hash_file(hash_attributes(inode), &file.content),
        Body::Symlink(target) => mix(hash_attributes(inode), hash_bytes(target)),
        Body::Directory(entries) => {
            let number = |slot: Slot| table[slot as usize].as_ref().map_or(0, |inode| inode.ino);
            let each = entries.iter().map(|(name, child)| mix(hash_bytes(name), number(*child)));
            mix(hash_attributes(inode), each.fold(0, u64::wrapping_add))
        }
        Body::Other => hash_attributes(inode),
    })
}

/// The hash of a file with these attributes and this content.
pub(crate) fn hash_file(attributes: u64, content: &Blob) -> u64 {
    mix(attributes, content.hash())
}

pub(crate) fn hash_attributes(inode: &Inode) -> u64 {
    let hash = mix(SEED, u64::from(inode.mode) << 8 | inode.kind().map_or(7, |kind| kind as u64));
    let hash = mix(hash, inode.ino << 8 ^ inode.dev << 56 ^ u64::from(inode.uid));
    let time = |time: Timestamp| (time.seconds as u64) << 30 ^ u64::from(time.nanos);
    mix(mix(hash, time(inode.mtime)), time(inode.ctime))
}

/// A fast [`Hasher`] of words.
#[derive(Default)]
pub(crate) struct Folded(u64);

impl Hasher for Folded {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = mix(self.0, hash_bytes(bytes));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = mix(self.0, word);
    }

    fn write_usize(&mut self, word: usize) {
        self.0 = mix(self.0, word as u64);
    }
}
