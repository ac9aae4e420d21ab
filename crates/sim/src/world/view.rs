//! Looking at a world without calling it: what oracles use.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use txfs::RelPath;
use txfs::fs::{Kind, Stat};

use crate::world::hashes::{hash_names, hash_tree};
use crate::world::inode::{Blob, Body, Inode, ROOT, Slot};
use crate::world::live::World;

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
