//! Inodes: what each side of a world has of a file, a directory or a link.
//!
//! Invariant: an inode is changed by [`edit`] alone, which forgets its hash.

use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use txfs::fs::{Kind, Timestamp};

use crate::hash::hash_bytes;

pub(crate) type Res<T> = Result<T, Errno>;

pub(crate) type Slot = u32;

pub(crate) type Name = Arc<[u8]>;

pub(crate) type Entries = Vec<(Name, Slot)>;

pub(crate) type Table = Vec<Option<Arc<Inode>>>;

pub(crate) const ROOT: Slot = 0;

/// Bytes with their hash, computed once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blob {
    bytes: Vec<u8>,
    hash: OnceLock<u64>,
}

impl Blob {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, hash: OnceLock::new() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn edit(&mut self) -> &mut Vec<u8> {
        self.hash = OnceLock::new();
        &mut self.bytes
    }

    pub(crate) fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| hash_bytes(&self.bytes))
    }
}

/// A hash that is computed when it is first wanted. A copy forgets it, for copies are made to be changed.
#[derive(Debug, Default)]
pub(crate) struct Cached(OnceLock<u64>);

impl Cached {
    pub(crate) fn get(&self, compute: impl FnOnce() -> u64) -> u64 {
        *self.0.get_or_init(compute)
    }
}

impl Clone for Cached {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FileBody {
    pub(crate) content: Arc<Blob>,
    /// What was written since the last barrier, in order; empty on the disk's side.
    pub(crate) writes: Vec<Write>,
    /// A failed barrier dropped pages: the disk no longer follows the content.
    pub(crate) diverged: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    File(FileBody),
    Directory(Entries),
    Symlink(Arc<[u8]>),
    /// A FIFO, say: nothing that txfs publishes.
    Other,
}

#[derive(Debug, Clone)]
pub(crate) struct Inode {
    pub(crate) ino: u64,
    pub(crate) dev: u64,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    /// Nanoseconds of the world's clock, or what [`txfs::fs::Fs::set_mtime`] said.
    pub(crate) mtime: Timestamp,
    /// When content or attributes were changed last. (Names do not count here; on Linux a rename does.)
    pub(crate) ctime: Timestamp,
    pub(crate) body: Body,
    /// See `hashes.rs`; forgotten by [`edit`].
    pub(crate) hash: Cached,
}

impl Inode {
    pub(crate) fn kind(&self) -> Option<Kind> {
        match self.body {
            Body::File(_) => Some(Kind::File),
            Body::Directory(_) => Some(Kind::Directory),
            Body::Symlink(_) => Some(Kind::Symlink),
            Body::Other => None,
        }
    }

    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    pub(crate) fn entries(&self) -> &[(Name, Slot)] {
        match &self.body {
            Body::Directory(entries) => entries,
            _ => &[],
        }
    }
}

pub(crate) fn position(entries: &[(Name, Slot)], name: &[u8]) -> Result<usize, usize> {
    entries.binary_search_by(|(n, _)| n.as_ref().cmp(name))
}

/// The inode, to be changed: the only way to change one.
pub(crate) fn edit(inode: &mut Arc<Inode>) -> &mut Inode {
    let inode = Arc::make_mut(inode);
    inode.hash = Cached::default();
    inode
}

pub(crate) fn set_entry(inode: &mut Inode, name: &[u8], slot: Option<Slot>, mtime: Timestamp) {
    inode.mtime = mtime;
    let Body::Directory(entries) = &mut inode.body else { return };
    match (position(entries, name), slot) {
        (Ok(i), Some(slot)) => entries[i].1 = slot,
        (Ok(i), None) => drop(entries.remove(i)),
        (Err(i), Some(slot)) => entries.insert(i, (name.into(), slot)),
        (Err(_), None) => {}
    }
}

/// A write since the last barrier: the whole blocks that it touched, as they were after it.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    /// A multiple of the block size.
    pub(crate) at: usize,
    pub(crate) bytes: Arc<[u8]>,
    /// The size of the file after it.
    pub(crate) size: usize,
}
