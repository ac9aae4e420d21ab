//! What is durable and what is not: effects, the order that a crash respects between them, and barriers.
//!
//! Every change becomes an [`Effect`] that waits for a barrier. A crash leaves any subset of the waiting effects that is
//! closed under [`Effect::waits_for`]; the [`Weakness`] decides which effects wait for which:
//!
//! | | `Ordered` | `Btrfs` | `Posix` |
//! |---|---|---|---|
//! | names in one directory | one order for the whole file system | in order, but those of an fsynced file may go ahead | any subset; changes of one name in order |
//! | names in different directories | same | independent | independent |
//! | attributes of one inode | same | in order | in order |
//! | rename within a directory, any exchange | one effect | one effect | one effect |
//! | rename of a directory to another directory | one effect | one effect | one effect |
//! | rename of another entry to another directory | one effect | two: removal waits for insertion | as btrfs |
//!
//! An exchange between directories is one effect because btrfs, the weakest known, falls back to a full commit for the fsync of
//! either directory. A directory never has two names on any of them, so its move is one effect too.
//!
//! Invariants:
//! 1. Effects only ever wait for earlier ones, so a prefix is always closed.
//! 2. Changes of one name in one directory are in order: what is durable is the name's latest durable change.
//! 3. Nothing that is only moved is lost: the removal of the source waits for the insertion, and for all that puts the
//!    destination's directory where it is; the removal of a directory waits for all that emptied it.
//! 4. File content is no effect: it may reach the disk block by block at any time (`crash/pieces.rs`).

use std::sync::Arc;

use txfs::fs::Timestamp;

use crate::call::Lost;
use crate::config::{Reuse, Weakness};
use crate::world::effect::{Barrier, Change, Effect, EffectId, Part, close, last_of_name, replay};
use crate::world::inode::{Blob, Body, Inode, Res, Slot, Write};
use crate::world::live::World;

impl World {
    /// Records changes of names as one effect that waits for `after` and for what the world's weakness adds.
    pub(crate) fn record(&mut self, parts: Vec<Part>, mut after: Vec<EffectId>) -> EffectId {
        let mut order = Vec::new();
        match self.config.weakness {
            Weakness::Ordered => order.extend(self.pending.last().map(|effect| effect.id)),
            Weakness::Btrfs => {
                for part in &parts {
                    let last = self.aux[part.dir as usize].last;
                    order.push(last);
                    if let Some(effect) = self.find_effect(last).filter(|effect| effect.ahead) {
                        order.extend(&effect.order);
                    }
                }
            }
            Weakness::Posix => {
                for part in &parts {
                    after.extend(last_of_name(&self.pending, part));
                }
            }
        }
        let id = self.next_effect;
        for part in &parts {
            self.aux[part.dir as usize].last = id;
        }
        self.push(after, order, self.written_now(), Change::Names(parts))
    }

    fn find_effect(&self, id: EffectId) -> Option<&Effect> {
        let at = self.pending.binary_search_by_key(&id, |effect| effect.id).ok()?;
        Some(&self.pending[at])
    }

    fn push(
        &mut self,
        mut after: Vec<EffectId>,
        mut order: Vec<EffectId>,
        mtime: Timestamp,
        change: Change,
    ) -> EffectId {
        let id = self.next_effect;
        self.next_effect += 1;
        for waits in [&mut after, &mut order] {
            waits.sort_unstable();
            waits.dedup();
            waits.retain(|&id| self.find_effect(id).is_some());
        }
        self.pending.push(Arc::new(Effect { id, after, order, ahead: false, abandoned: false, mtime, change }));
        id
    }

    /// On btrfs, the fsync of a file logs its own names and not their neighbours: they may go ahead of earlier names.
    fn let_ahead(&mut self, slot: Slot) {
        for at in 0..self.pending.len() {
            let Change::Names(parts) = &self.pending[at].change else { continue };
            if self.pending[at].ahead || !self.pending[at].mentions(slot) {
                continue;
            }
            let same_name: Vec<EffectId> =
                parts.iter().filter_map(|part| last_of_name(&self.pending[..at], part)).collect();
            let effect = Arc::make_mut(&mut self.pending[at]);
            effect.ahead = true;
            effect.after.extend(same_name);
            let (id, order) = (effect.id, effect.order.clone());
            for later in &mut self.pending[at + 1..] {
                if later.order.contains(&id) {
                    Arc::make_mut(later).order.extend(&order);
                }
            }
        }
    }

    /// The pending effects on names in `dir`.
    pub(crate) fn effects_in(&self, dir: Slot) -> Vec<EffectId> {
        self.pending.iter().filter(|effect| effect.names_in(dir)).map(|effect| effect.id).collect()
    }

    /// Records the attributes of `slot` as they are now.
    pub(crate) fn record_meta(&mut self, slot: Slot, of_write: bool) {
        let ctime = self.written_now();
        self.live_mut(slot).ctime = ctime;
        let Inode { mode, uid, mtime, .. } = *self.inode(slot);
        if !self.config.lose_metadata {
            let inode = self.disk_mut(slot);
            (inode.mode, inode.uid, inode.mtime, inode.ctime) = (mode, uid, mtime, ctime);
            return;
        }
        let ordered = self.config.weakness == Weakness::Ordered;
        let last = self.aux[slot as usize].meta;
        if of_write && let Ok(at) = self.pending.binary_search_by_key(&last, |effect| effect.id) {
            let is_last = at + 1 == self.pending.len();
            if let Change::Meta { of_write: true, .. } = &self.pending[at].change
                && (is_last || !ordered)
            {
                if let Change::Meta { mtime: m, ctime: c, .. } = &mut Arc::make_mut(&mut self.pending[at]).change {
                    (*m, *c) = (mtime, ctime);
                }
                return;
            }
        }
        let after = if ordered { self.pending.last().map_or(0, |effect| effect.id) } else { last };
        let id = self.push(Vec::new(), vec![after], mtime, Change::Meta { slot, mode, uid, mtime, ctime, of_write });
        self.aux(slot).meta = id;
    }

    pub(crate) fn write(&mut self, slot: Slot, at: usize, bytes: &[u8]) -> Res<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mtime = self.tick();
        let block = self.config.block;
        let inode = self.live_mut(slot);
        inode.mtime = mtime;
        let Body::File(file) = &mut inode.body else { return Ok(()) };
        let content = Arc::make_mut(&mut file.content).edit();
        let end = at + bytes.len();
        // A hole between the old end and the write is on no block.
        let first = at / block * block;
        if content.len() < end {
            content.resize(end, 0);
        }
        content[at..end].copy_from_slice(bytes);
        let last = content.len().min(end.div_ceil(block) * block);
        let write = Write { at: first, bytes: content[first..last].into(), size: content.len() };
        let was_clean = file.writes.is_empty();
        file.writes.push(write);
        if was_clean {
            self.dirty.push(slot);
        }
        self.record_meta(slot, true);
        Ok(())
    }

    // ---- barriers

    pub(crate) fn sync_file(&mut self, slot: Slot) {
        self.version += 1;
        self.write_back(slot);
        self.dirty.retain(|&dirty| dirty != slot);
        if self.config.weakness == Weakness::Btrfs {
            self.let_ahead(slot);
        }
        self.settle(|effect| effect.is_meta_of(slot));
    }

    pub(crate) fn sync_dir(&mut self, slot: Slot) {
        self.version += 1;
        self.settle(|effect| effect.names_in(slot) || effect.is_meta_of(slot));
    }

    /// Every change on the file system of `slot`.
    pub(crate) fn sync_fs(&mut self, slot: Slot) {
        self.version += 1;
        let dev = self.inode(slot).dev;
        for dirty in std::mem::take(&mut self.dirty) {
            match self.find(dirty) {
                Some(inode) if inode.dev != dev => self.dirty.push(dirty),
                Some(_) => self.write_back(dirty),
                None => {}
            }
        }
        if self.mounts > 0 {
            let table = self.disk.clone();
            let on_it = |slot: Slot| table[slot as usize].as_ref().is_some_and(|inode| inode.dev == dev);
            return self.settle(|effect| on_it(effect.place()));
        }
        self.settle(|_| true);
        if self.pending.is_empty() {
            self.recycle();
        }
    }

    /// Nothing refers to the slots of freed inodes any more.
    fn recycle(&mut self) {
        let disk = Arc::make_mut(&mut self.disk);
        for (slot, live) in self.live.iter().enumerate() {
            if live.is_none() && disk[slot].take().is_some() {
                self.free_slots.push(slot as Slot);
            }
        }
    }

    /// The content that the kernel still holds dirty is on the disk.
    fn write_back(&mut self, slot: Slot) {
        let block = self.config.block;
        let Some(inode) = self.find(slot) else { return };
        let Body::File(file) = &inode.body else { return };
        if file.writes.is_empty() {
            return;
        }
        let Body::File(live) = &mut self.live_mut(slot).body else { return };
        let writes = std::mem::take(&mut live.writes);
        let whole = (!live.diverged).then(|| live.content.clone());
        let Body::File(disk) = &mut self.disk_mut(slot).body else { return };
        disk.content = whole.unwrap_or_else(|| Arc::new(Blob::new(replay(disk.content.bytes(), &writes, block))));
    }

    /// Makes the chosen effects durable, and all that they wait for.
    fn settle(&mut self, choose: impl Fn(&Effect) -> bool) {
        let mut durable: Vec<bool> = self.pending.iter().map(|effect| !effect.abandoned && choose(effect)).collect();
        if !durable.contains(&true) {
            return;
        }
        close(&self.pending, &mut durable);
        let disk = Arc::make_mut(&mut self.disk);
        let mut at = 0;
        self.pending.retain(|effect| {
            let goes = durable[at];
            if goes {
                effect.apply(disk);
            }
            at += 1;
            !goes
        });
        if let Some(inos) = self.inos.as_mut().filter(|inos| !inos.freed.is_empty()) {
            let pending = &self.pending;
            let reusable = self.config.reuse == Reuse::WhenDurable;
            for (ino, slot) in std::mem::take(&mut inos.freed) {
                if pending.iter().any(|effect| effect.mentions(slot)) {
                    inos.freed.push((ino, slot));
                } else if reusable {
                    inos.clear(ino);
                }
            }
        }
    }

    /// A barrier failed, and the kernel forgot what it was to write: see [`Lost::Drop`].
    pub(crate) fn lose(&mut self, barrier: Barrier, lost: Lost) {
        if lost == Lost::Keep {
            return;
        }
        self.version += 1;
        let dev = match barrier {
            Barrier::Fs(slot) => Some(self.inode(slot).dev),
            _ => None,
        };
        for slot in std::mem::take(&mut self.dirty) {
            let hit = barrier == Barrier::File(slot) || self.find(slot).is_some_and(|inode| Some(inode.dev) == dev);
            if !hit {
                self.dirty.push(slot);
            } else if let Body::File(file) = &mut self.live_mut(slot).body {
                file.writes.clear();
                file.diverged = true;
            }
        }
        if lost == Lost::Pages {
            return;
        }
        let table = self.disk.clone();
        for effect in &mut self.pending {
            let hit = match barrier {
                Barrier::File(slot) => effect.is_meta_of(slot),
                Barrier::Dir(slot) => effect.names_in(slot) || effect.is_meta_of(slot),
                Barrier::Fs(_) => table[effect.place() as usize].as_ref().map(|inode| inode.dev) == dev,
            };
            if hit {
                Arc::make_mut(effect).abandoned = true;
            }
        }
    }

    /// Of a clean file the live side has what the disk has: where a barrier dropped pages, they show it now.
    pub(crate) fn drop_cached(&mut self, slot: Slot) {
        let Some(Body::File(disk)) = self.disk[slot as usize].as_ref().map(|inode| &inode.body) else { return };
        let on_disk = disk.content.clone();
        let Body::File(file) = &self.inode(slot).body else { return };
        if !file.writes.is_empty() || !file.diverged || file.content.bytes() == on_disk.bytes() {
            return;
        }
        let mut bytes = on_disk.bytes().to_vec();
        bytes.resize(file.content.bytes().len(), 0);
        let Body::File(file) = &mut self.live_mut(slot).body else { return };
        file.content = Arc::new(Blob::new(bytes));
    }

    /// Everything is durable, as after an orderly shutdown.
    pub(crate) fn settle_all(&mut self) {
        for slot in std::mem::take(&mut self.dirty) {
            self.write_back(slot);
        }
        for effect in &mut self.pending {
            Arc::make_mut(effect).abandoned = false;
        }
        self.settle(|_| true);
        self.recycle();
        self.version += 1;
    }
}
