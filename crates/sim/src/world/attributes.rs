//! Calls that change attributes: who may, and the effects that they leave.

use nix::errno::Errno;
use txfs::fs::Timestamp;

use crate::world::inode::{Res, Slot};
use crate::world::live::World;

impl World {
    pub(crate) fn set_mode(&mut self, uid: u32, slot: Slot, mode: u32) -> Res<()> {
        self.permit_owner(uid, slot)?;
        self.tick();
        self.live_mut(slot).mode = mode & 0o7777;
        self.record_meta(slot, false);
        Ok(())
    }

    /// Groups are not modelled: whoever owns an inode may give it to any.
    pub(crate) fn set_owner(&mut self, uid: u32, slot: Slot, owner: Option<u32>) -> Res<()> {
        self.permit_owner(uid, slot)?;
        if uid != 0 && owner.is_some_and(|owner| owner != uid) {
            return Err(Errno::EPERM);
        }
        self.tick();
        let inode = self.live_mut(slot);
        inode.uid = owner.unwrap_or(inode.uid);
        if !inode.is_dir() {
            inode.mode &= !0o6000;
        }
        self.record_meta(slot, false);
        Ok(())
    }

    pub(crate) fn set_mtime(&mut self, uid: u32, slot: Slot, mtime: Timestamp) -> Res<()> {
        self.permit_owner(uid, slot)?;
        self.tick();
        self.live_mut(slot).mtime = mtime;
        self.record_meta(slot, false);
        Ok(())
    }
}
