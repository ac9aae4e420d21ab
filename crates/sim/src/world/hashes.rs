//! Hashes of inodes, and of the trees that they make.

use std::sync::Arc;

use txfs::fs::Timestamp;

use crate::hash::{SEED, hash_bytes, mix};
use crate::world::inode::{Blob, Body, Inode, Slot};

/// Hashes what a tree below `slot` publishes: no identities, no times.
pub(crate) fn hash_tree(table: &[Option<Arc<Inode>>], slot: Slot) -> u64 {
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
/// (`crash/sketch.rs`).
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
