//! What a crash can leave of the content of an unsynced file: each block old, zero, or as it was after any write since the last
//! barrier; the size old or as after any of those writes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::world::effect::replay;
use crate::world::inode::{Blob, Body, Slot, Write};
use crate::world::live::World;

/// Contents of one unsynced file that are told apart at most; beyond it they are sampled.
pub(crate) const FILE_STATES: usize = 256;

/// The same for all unsynced files together, where they are many.
pub(crate) const ALL_FILE_STATES: usize = 4096;

/// Bytes that those contents may take in memory together.
pub(crate) const ALL_FILE_BYTES: usize = 64 << 20;

/// The contents that a crash can leave in one unsynced file: first nothing of it, then all of it, then the others.
pub(crate) struct FileStates {
    pub(crate) slot: Slot,
    pub(crate) contents: Vec<Arc<Blob>>,
    pub(crate) complete: bool,
}

pub(crate) const NOTHING: usize = 0;

pub(crate) const EVERYTHING: usize = 1;

/// What can be in the file of `slot` after a crash; `None` when it has no unsynced write.
pub(crate) fn file_states(base: &World, slot: Slot, random: &mut Random) -> Option<FileStates> {
    let Body::File(live) = &base.find(slot)?.body else { return None };
    let Body::File(disk) = &base.disk[slot as usize].as_ref()?.body else { return None };
    if live.writes.is_empty() {
        return None;
    }
    let pieces = Pieces::new(disk.content.bytes(), &live.writes, base.config.block);
    let everything = replay(disk.content.bytes(), &live.writes, base.config.block);
    let files = base.dirty.len().max(1);
    let most = (ALL_FILE_BYTES / files / (everything.len() + 1)).min(ALL_FILE_STATES / files).clamp(6, FILE_STATES);
    let mut contents = vec![disk.content.clone(), Arc::new(Blob::new(everything))];
    let mut seen: HashSet<u64> = contents.iter().map(|blob| blob.hash()).collect();
    let mut add = |bytes: Vec<u8>| {
        let blob = Blob::new(bytes);
        if seen.insert(blob.hash()) {
            contents.push(Arc::new(blob));
        }
        contents.len()
    };
    let complete = pieces.count().is_some_and(|count| count <= 4 * most);
    if complete {
        pieces.each(|bytes| {
            add(bytes);
        });
    } else {
        for bytes in pieces.typical(random, most / 2) {
            add(bytes);
        }
        for _ in 0..2 * most {
            if add(pieces.random(random)) >= most {
                break;
            }
        }
    }
    Some(FileStates { slot, contents, complete })
}

/// The sizes and blocks that can be combined into a file's content.
pub(crate) struct Pieces<'a> {
    block: usize,
    disk: &'a [u8],
    sizes: Vec<usize>,
    /// For each block written: what it may hold, the oldest first; zeros are always among it.
    blocks: Vec<(usize, Vec<&'a [u8]>)>,
}

impl<'a> Pieces<'a> {
    fn new(disk: &'a [u8], writes: &'a [Write], block: usize) -> Self {
        let mut sizes = vec![disk.len()];
        let mut blocks: BTreeMap<usize, Vec<&[u8]>> = BTreeMap::new();
        for write in writes {
            if !sizes.contains(&write.size) {
                sizes.push(write.size);
            }
            for (i, bytes) in write.bytes.chunks(block).enumerate() {
                let at = write.at / block + i;
                let old = disk.chunks(block).nth(at).unwrap_or_default();
                let versions = blocks.entry(at).or_insert_with(|| vec![old]);
                if versions.last() != Some(&bytes) {
                    versions.push(bytes);
                }
            }
        }
        let zeroed = |(at, mut versions): (usize, Vec<&'a [u8]>)| {
            if !versions.iter().any(|bytes| is_zero(bytes)) {
                versions.push(&[]);
            }
            (at, versions)
        };
        Self { block, disk, sizes, blocks: blocks.into_iter().map(zeroed).collect() }
    }

    fn count(&self) -> Option<usize> {
        let blocks = self.blocks.iter().map(|(_, versions)| versions.len());
        blocks.chain([self.sizes.len()]).try_fold(1usize, usize::checked_mul)
    }

    /// The content with `size` and, for each block written, the version that `version` chooses.
    fn build(&self, size: usize, mut version: impl FnMut(usize) -> usize) -> Vec<u8> {
        let mut content = self.disk.to_vec();
        content.resize(size, 0);
        for (i, (at, versions)) in self.blocks.iter().enumerate() {
            let Some(rest) = content.get_mut(at * self.block..) else { continue };
            let place = rest.len().min(self.block);
            let bytes = versions[version(i)];
            let n = bytes.len().min(place);
            rest[..n].copy_from_slice(&bytes[..n]);
            rest[n..place].fill(0);
        }
        content
    }

    fn each(&self, mut visit: impl FnMut(Vec<u8>)) {
        for &size in &self.sizes {
            let mut versions = vec![0; self.blocks.len()];
            loop {
                visit(self.build(size, |i| versions[i]));
                let more = (0..versions.len()).any(|i| {
                    versions[i] = (versions[i] + 1) % self.blocks[i].1.len();
                    versions[i] != 0
                });
                if !more {
                    break;
                }
            }
        }
    }

    /// The version of a block after the last write.
    fn newest(&self, i: usize) -> usize {
        let versions = &self.blocks[i].1;
        // The zeros that were put last, unless the last write left nothing but zeros.
        versions.len() - if versions.last().is_some_and(|bytes| bytes.is_empty()) { 2 } else { 1 }
    }

    /// The failures most often seen, and single blocks lost or alone there.
    fn typical(&self, random: &mut Random, most: usize) -> Vec<Vec<u8>> {
        let whole = *self.sizes.iter().max().unwrap_or(&0);
        let zero = |i: usize| self.blocks[i].1.iter().position(|bytes| is_zero(bytes)).unwrap_or(0);
        let mut typical =
            vec![self.build(whole, |_| 0), self.build(whole, zero), self.build(self.disk.len(), |i| self.newest(i))];
        typical.extend(self.sizes.iter().take(most / 4).map(|&size| self.build(size, |i| self.newest(i))));
        let count = self.blocks.len();
        let mut ones: Vec<usize> = vec![0, count - 1];
        if count <= most / 3 {
            ones = (0..count).collect();
        } else {
            ones.extend((2..most / 3).map(|_| random.below(count)));
        }
        for one in ones {
            typical.push(self.build(whole, |i| if i == one { 0 } else { self.newest(i) }));
            typical.push(self.build(whole, |i| if i == one { zero(i) } else { self.newest(i) }));
            typical.push(self.build(whole, |i| if i == one { self.newest(i) } else { 0 }));
        }
        typical.truncate(most.max(6));
        typical
    }

    fn random(&self, random: &mut Random) -> Vec<u8> {
        let size = self.sizes[random.below(self.sizes.len())];
        self.build(size, |i| random.below(self.blocks[i].1.len()))
    }
}

pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// A small generator of pseudo-random numbers (splitmix64): the same on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }
}
