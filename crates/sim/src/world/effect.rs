//! Effects: changes that wait for a barrier, each with those that are durable if it is.
//!
//! Which wait for which is decided where they are recorded, in `persist.rs`.

use std::sync::Arc;

use txfs::fs::Timestamp;

use crate::world::inode::{Inode, Name, ROOT, Slot, Table, Write, edit, set_entry};

/// Counts from 1; 0 is none.
pub(crate) type EffectId = u32;

/// One name in one directory leads elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) dir: Slot,
    pub(crate) name: Name,
    pub(crate) old: Option<Slot>,
    pub(crate) new: Option<Slot>,
}

impl Part {
    pub(crate) fn new(dir: Slot, name: &[u8], old: Option<Slot>, new: Option<Slot>) -> Self {
        Self { dir, name: name.into(), old, new }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Change {
    Names(Vec<Part>),
    /// The attributes of an inode as they are after it.
    Meta {
        slot: Slot,
        mode: u32,
        uid: u32,
        mtime: Timestamp,
        ctime: Timestamp,
        /// It is only the time that a write left.
        of_write: bool,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Effect {
    pub(crate) id: EffectId,
    /// Effects that are durable if this one is, because nothing may be lost; those no longer pending are.
    pub(crate) after: Vec<EffectId>,
    /// As `after`, but only because the file system keeps them in order.
    pub(crate) order: Vec<EffectId>,
    /// A barrier on its file may take it ahead of `order`. What comes later in the directory does not overtake `order`.
    pub(crate) ahead: bool,
    /// Its barrier failed: no later barrier waits for it.
    pub(crate) abandoned: bool,
    pub(crate) mtime: Timestamp,
    pub(crate) change: Change,
}

impl Effect {
    /// The effects that are durable if this one is.
    pub(crate) fn waits_for(&self) -> impl Iterator<Item = EffectId> {
        let order = if self.ahead { &[][..] } else { &self.order };
        self.after.iter().chain(order).copied()
    }

    pub(crate) fn mentions(&self, slot: Slot) -> bool {
        match &self.change {
            Change::Names(parts) => parts.iter().any(|part| part.old == Some(slot) || part.new == Some(slot)),
            Change::Meta { slot: of, .. } => *of == slot,
        }
    }

    pub(crate) fn names_in(&self, dir: Slot) -> bool {
        matches!(&self.change, Change::Names(parts) if parts.iter().any(|part| part.dir == dir))
    }

    pub(crate) fn names(&self, dir: Slot, name: &[u8]) -> bool {
        matches!(&self.change, Change::Names(parts)
            if parts.iter().any(|part| part.dir == dir && part.name.as_ref() == name))
    }

    pub(crate) fn is_meta_of(&self, of: Slot) -> bool {
        matches!(&self.change, Change::Meta { slot, .. } if *slot == of)
    }

    /// The directory or inode that it changes: enough to tell the file system.
    pub(crate) fn place(&self) -> Slot {
        match &self.change {
            Change::Names(parts) => parts.first().map_or(ROOT, |part| part.dir),
            Change::Meta { slot, .. } => *slot,
        }
    }

    /// The inodes that it changes; one can come twice.
    pub(crate) fn places(&self) -> impl Iterator<Item = Slot> {
        let (parts, meta) = match &self.change {
            Change::Names(parts) => (&parts[..], None),
            Change::Meta { slot, .. } => (&[][..], Some(*slot)),
        };
        parts.iter().map(|part| part.dir).chain(meta)
    }

    /// Makes it so in `table`.
    pub(crate) fn apply(&self, table: &mut Table) {
        for slot in self.places() {
            if let Some(inode) = table[slot as usize].as_mut() {
                self.apply_to(slot, edit(inode));
            }
        }
    }

    /// Makes it so in the inode of `slot`.
    pub(crate) fn apply_to(&self, slot: Slot, inode: &mut Inode) {
        match &self.change {
            Change::Names(parts) => {
                for part in parts.iter().filter(|part| part.dir == slot) {
                    // Out of order as effects may come: a directory's time only goes on.
                    let mtime = inode.mtime.max(self.mtime);
                    set_entry(inode, &part.name, part.new, mtime);
                }
            }
            Change::Meta { mode, uid, mtime, ctime, .. } => {
                (inode.mode, inode.uid, inode.ctime) = (*mode, *uid, *ctime);
                inode.mtime = if inode.is_dir() { inode.mtime.max(*mtime) } else { *mtime };
            }
        }
    }
}

/// The last effect on the name that `part` changes.
pub(crate) fn last_of_name(pending: &[Arc<Effect>], part: &Part) -> Option<EffectId> {
    pending.iter().rev().find(|effect| effect.names(part.dir, &part.name)).map(|effect| effect.id)
}

/// A barrier and what it was called on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Barrier {
    File(Slot),
    Dir(Slot),
    Fs(Slot),
}

/// Adds to the chosen effects all that they wait for.
pub(crate) fn close(pending: &[Arc<Effect>], chosen: &mut [bool]) {
    for at in (0..pending.len()).rev() {
        if chosen[at] {
            for id in pending[at].waits_for() {
                if let Ok(before) = pending.binary_search_by_key(&id, |effect| effect.id) {
                    chosen[before] = true;
                }
            }
        }
    }
}

/// The disk's content after `writes` have reached it.
pub(crate) fn replay(disk: &[u8], writes: &[Write], block: usize) -> Vec<u8> {
    let mut bytes = disk.to_vec();
    for write in writes {
        if bytes.len() < write.size {
            bytes.resize(write.size, 0);
        }
        // A write that ends inside the last block of a longer file carries the rest of that block too.
        debug_assert!(write.at.is_multiple_of(block));
        bytes[write.at..write.at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
    bytes
}
