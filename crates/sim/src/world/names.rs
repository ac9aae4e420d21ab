//! Calls that change names: what Linux lets pass, what each changes in the live tree, and the effects that it leaves.
//!
//! Where several errors apply, the first that Linux would return is returned; `tests/kernel.rs` compares.

use nix::errno::Errno;
use txfs::fs::RenameMode;

use crate::config::Weakness;
use crate::world::effect::{EffectId, Part};
use crate::world::inode::{Body, Name, ROOT, Res, Slot, set_entry};
use crate::world::live::{Aux, SEARCH, WRITE, World};

impl World {
    /// A new entry; the mode is as given, the umask already taken off.
    pub(crate) fn create(&mut self, uid: u32, dir: Slot, name: &[u8], mode: u32, body: Body) -> Res<Slot> {
        self.enter(uid, dir, name)?;
        if self.lookup(dir, name).is_some() {
            return Err(Errno::EEXIST);
        }
        self.permit(uid, dir, WRITE | SEARCH)?;
        let is_dir = matches!(body, Body::Directory(_));
        let dev = self.inode(dir).dev;
        let (slot, after) = self.allocate(mode, uid, dev, body);
        let effect = self.record(vec![Part::new(dir, name, None, Some(slot))], after);
        self.set_entry(dir, name, Some(slot));
        if is_dir {
            self.aux(dir).nlink += 1;
            *self.aux(slot) = Aux { parent: dir, placed: effect, ..self.aux[slot as usize] };
        }
        Ok(slot)
    }

    pub(crate) fn link(&mut self, uid: u32, from: Slot, name: &[u8], to: Slot, new_name: &[u8]) -> Res<()> {
        if self.config.without.links {
            return Err(Errno::EPERM);
        }
        let slot = self.existing(uid, from, name)?;
        self.enter(uid, to, new_name)?;
        if self.lookup(to, new_name).is_some() {
            return Err(Errno::EEXIST);
        }
        if self.inode(slot).dev != self.inode(to).dev {
            return Err(Errno::EXDEV);
        }
        self.permit(uid, to, WRITE | SEARCH)?;
        if self.is_dir(slot) {
            return Err(Errno::EPERM);
        }
        self.tick();
        self.record(vec![Part::new(to, new_name, None, Some(slot))], Vec::new());
        self.set_entry(to, new_name, Some(slot));
        self.aux(slot).nlink += 1;
        Ok(())
    }

    pub(crate) fn unlink(&mut self, uid: u32, dir: Slot, name: &[u8]) -> Res<()> {
        let slot = self.existing(uid, dir, name)?;
        self.permit(uid, dir, WRITE | SEARCH)?;
        if self.is_dir(slot) {
            return Err(Errno::EISDIR);
        }
        self.tick();
        self.record(vec![Part::new(dir, name, Some(slot), None)], Vec::new());
        self.set_entry(dir, name, None);
        self.drop_name(dir, slot);
        Ok(())
    }

    pub(crate) fn rmdir(&mut self, uid: u32, dir: Slot, name: &[u8]) -> Res<()> {
        let slot = self.existing(uid, dir, name)?;
        self.permit(uid, dir, WRITE | SEARCH)?;
        if !self.is_dir(slot) {
            return Err(Errno::ENOTDIR);
        }
        self.not_mounted(slot, dir)?;
        if !self.inode(slot).entries().is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        self.tick();
        // The directory was empty: whatever emptied it is durable before it goes.
        let after = self.effects_in(slot);
        self.record(vec![Part::new(dir, name, Some(slot), None)], after);
        self.set_entry(dir, name, None);
        self.drop_name(dir, slot);
        Ok(())
    }

    fn not_mounted(&self, slot: Slot, dir: Slot) -> Res<()> {
        if self.inode(slot).dev == self.inode(dir).dev { Ok(()) } else { Err(Errno::EBUSY) }
    }

    /// One name of `slot`, in `dir`, is gone.
    fn drop_name(&mut self, dir: Slot, slot: Slot) {
        if self.is_dir(slot) {
            self.aux(slot).nlink = 0;
            self.aux(dir).nlink -= 1;
        } else {
            self.aux(slot).nlink -= 1;
        }
        self.free_if_unused(slot);
    }

    fn is_within(&self, slot: Slot, ancestor: Slot) -> bool {
        let mut at = slot;
        loop {
            if at == ancestor {
                return true;
            }
            if at == ROOT {
                return false;
            }
            at = self.aux[at as usize].parent;
        }
    }

    pub(crate) fn rename(
        &mut self,
        uid: u32,
        (from, name): (Slot, &[u8]),
        (to, new_name): (Slot, &[u8]),
        mode: RenameMode,
    ) -> Res<()> {
        let exchange = mode == RenameMode::Exchange;
        let without = self.config.without;
        if exchange && without.exchange || mode == RenameMode::NoReplace && without.no_replace {
            return Err(Errno::EINVAL);
        }
        let (source, target) = self.rename_ends(uid, (from, name), (to, new_name), mode)?;
        if target == Some(source) {
            return Ok(());
        }
        self.rename_allowed(uid, (from, source), (to, target), exchange)?;
        self.tick();
        self.rename_effects((from, name, source), (to, new_name, target), exchange);
        self.set_entry(to, new_name, Some(source));
        self.set_entry(from, name, target.filter(|_| exchange));
        if let Some(target) = target.filter(|_| !exchange) {
            self.drop_name(to, target);
        }
        if from != to {
            self.moved(source, from, to);
            if let Some(target) = target.filter(|_| exchange) {
                self.moved(target, to, from);
            }
        }
        Ok(())
    }

    /// The inodes of both names, in the order in which Linux finds fault with them.
    fn rename_ends(
        &self,
        uid: u32,
        (from, name): (Slot, &[u8]),
        (to, new_name): (Slot, &[u8]),
        mode: RenameMode,
    ) -> Res<(Slot, Option<Slot>)> {
        let exchange = mode == RenameMode::Exchange;
        self.permit(uid, from, SEARCH)?;
        self.permit(uid, to, SEARCH)?;
        if self.inode(from).dev != self.inode(to).dev {
            return Err(Errno::EXDEV);
        }
        let source = self.existing(uid, from, name)?;
        self.enter(uid, to, new_name)?;
        let target = self.lookup(to, new_name);
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (RenameMode::Exchange, None) => return Err(Errno::ENOENT),
            _ => {}
        }
        if self.is_within(to, source) {
            return Err(Errno::EINVAL);
        }
        if target.is_some_and(|target| self.is_within(from, target)) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        Ok((source, target))
    }

    fn rename_allowed(
        &self,
        uid: u32,
        (from, source): (Slot, Slot),
        (to, target): (Slot, Option<Slot>),
        exchange: bool,
    ) -> Res<()> {
        self.permit(uid, from, WRITE | SEARCH)?;
        self.permit(uid, to, WRITE | SEARCH)?;
        let is_dir = self.is_dir(source);
        if let Some(target) = target.filter(|_| !exchange) {
            match (is_dir, self.is_dir(target)) {
                (true, false) => return Err(Errno::ENOTDIR),
                (false, true) => return Err(Errno::EISDIR),
                _ => {}
            }
        }
        if from != to {
            // `..` of a directory that changes its parent is written.
            for slot in [Some(source), target.filter(|_| exchange)].into_iter().flatten() {
                if self.is_dir(slot) {
                    self.permit(uid, slot, WRITE)?;
                }
            }
        }
        self.not_mounted(source, from)?;
        if let Some(target) = target {
            self.not_mounted(target, to)?;
            if !exchange && !self.inode(target).entries().is_empty() {
                return Err(Errno::ENOTEMPTY);
            }
        }
        Ok(())
    }

    /// Records a rename as the effects that a crash can tell apart; see the module's table in `persist.rs`.
    fn rename_effects(
        &mut self,
        (from, name, source): (Slot, &[u8], Slot),
        (to, new_name, target): (Slot, &[u8], Option<Slot>),
        exchange: bool,
    ) {
        let insert = Part::new(to, new_name, target, Some(source));
        let remove = Part::new(from, name, Some(source), target.filter(|_| exchange));
        let mut after = Vec::new();
        if let Some(target) = target.filter(|&target| !exchange && self.is_dir(target)) {
            after.extend(self.effects_in(target));
        }
        let moves_dir = self.is_dir(source) || exchange && target.is_some_and(|target| self.is_dir(target));
        let placed = if from == to || exchange || moves_dir || self.config.weakness == Weakness::Ordered {
            if from != to {
                self.placement(to, &mut after);
                if exchange {
                    self.placement(from, &mut after);
                }
            }
            self.record(vec![remove, insert], after)
        } else {
            let inserted = self.record(vec![insert], after);
            // No real file system loses the entry: its source goes only once the destination is there to stay.
            let mut after = vec![inserted];
            self.placement(to, &mut after);
            self.record(vec![remove], after);
            inserted
        };
        for slot in [Some(source), target.filter(|_| exchange)].into_iter().flatten() {
            if self.is_dir(slot) {
                self.aux(slot).placed = placed;
            }
        }
    }

    fn moved(&mut self, slot: Slot, from: Slot, to: Slot) {
        if self.is_dir(slot) {
            self.aux(slot).parent = to;
            self.aux(from).nlink -= 1;
            self.aux(to).nlink += 1;
        }
    }

    /// The effects that put `dir` and every directory above it where they are.
    fn placement(&self, dir: Slot, after: &mut Vec<EffectId>) {
        let mut at = dir;
        while at != ROOT {
            let aux = self.aux[at as usize];
            if aux.placed != 0 {
                after.push(aux.placed);
            }
            at = aux.parent;
        }
    }

    /// Changes one name in the live tree.
    fn set_entry(&mut self, dir: Slot, name: &[u8], slot: Option<Slot>) {
        let mtime = self.written_now();
        set_entry(self.live_mut(dir), name, slot, mtime);
    }

    /// Removes whatever is at the entry, with everything below it.
    pub(crate) fn remove_all(&mut self, dir: Slot, name: &[u8]) {
        let Some(slot) = self.lookup(dir, name) else { return };
        if !self.is_dir(slot) {
            let _ = self.unlink(0, dir, name);
            return;
        }
        let names: Vec<Name> = self.inode(slot).entries().iter().map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.remove_all(slot, name));
        let _ = self.rmdir(0, dir, name);
    }
}
