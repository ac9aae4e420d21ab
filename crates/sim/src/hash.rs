//! Hashes of words and bytes: fast, and the same on every machine.

use std::hash::Hasher;

pub(crate) const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

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

/// For sets of what is a hash already.
#[derive(Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = mix(self.0, byte.into()));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
