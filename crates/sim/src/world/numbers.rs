//! The inode numbers in use.

use crate::world::inode::Slot;

/// The lowest inode number handed out, as on ext4.
pub(crate) const FIRST_INO: u64 = 11;

#[derive(Debug, Clone, Default)]
pub(crate) struct Inos {
    used: Vec<u64>,
    /// Freed in the live tree, while effects that name the slot are still pending.
    pub(crate) freed: Vec<(u64, Slot)>,
}

impl Inos {
    pub(crate) fn mark(&mut self, ino: u64) {
        let word = (ino / 64) as usize;
        if self.used.len() <= word {
            self.used.resize(word + 1, 0);
        }
        self.used[word] |= 1 << (ino % 64);
    }

    pub(crate) fn clear(&mut self, ino: u64) {
        if let Some(word) = self.used.get_mut((ino / 64) as usize) {
            *word &= !(1 << (ino % 64));
        }
    }

    pub(crate) fn lowest(&self) -> u64 {
        let free = self.used.iter().position(|&word| word != u64::MAX);
        match free {
            Some(word) => word as u64 * 64 + u64::from(self.used[word].trailing_ones()),
            None => self.used.len() as u64 * 64,
        }
    }
}
