//! The live side of a simulated world: inodes, handles, permission, and what Linux answers to calls that only look.
//!
//! Invariants:
//! 1. A slot names one inode for as long as anything (a name, a handle, an effect that is not durable) can refer to it.
//!    Slots are internal; what callers see is the inode number, which is reused as [`Reuse`] says.
//! 2. `disk` has an inode for every slot from its creation on; it is on the disk only if a durable name leads to it.
//! 3. Every change goes through `persist.rs`, which records it as an effect that a crash may lose.

use crate::config::{Config, Reuse};
use crate::world::effect::{Effect, EffectId};
use crate::world::inode::{Body, Cached, Inode, Name, ROOT, Res, Slot, Table, edit, position};
use crate::world::numbers::{FIRST_INO, Inos};
use nix::errno::Errno;
use std::sync::Arc;
use txfs::RelPath;
use txfs::fs::{Stat, Timestamp};

/// The longest name, in bytes, as on Linux.
const NAME_MAX: usize = 255;

/// Symbolic links followed before ELOOP.
const MAX_LINKS: usize = 40;

/// The start of simulated time, in seconds since 1970.
const EPOCH: i64 = 1_700_000_000;

pub(crate) const READ: u32 = 4;

pub(crate) const WRITE: u32 = 2;

pub(crate) const SEARCH: u32 = 1;

/// What the live side knows of a slot beside its inode.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Aux {
    /// The directory that holds this directory.
    pub(crate) parent: Slot,
    /// As `st_nlink`; 0 for a removed directory.
    pub(crate) nlink: u32,
    /// Open handles.
    pub(crate) opens: u32,
    /// The effect that put this directory where it is.
    pub(crate) placed: EffectId,
    /// The last effect on the names in this directory.
    pub(crate) last: EffectId,
    /// The last effect on the attributes.
    pub(crate) meta: EffectId,
}

/// One file system with its live and its durable side.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) config: Arc<Config>,
    pub(crate) live: Arc<Table>,
    pub(crate) disk: Arc<Table>,
    pub(crate) aux: Vec<Aux>,
    pub(crate) pending: Vec<Arc<Effect>>,
    pub(crate) next_effect: EffectId,
    /// Files with writes since their last barrier; may name one that is gone.
    pub(crate) dirty: Vec<Slot>,
    /// Counts every change of the live tree or of what a crash can leave.
    pub(crate) version: u64,
    pub(crate) clock: u64,
    pub(crate) unique: u64,
    /// Counts the crashes.
    pub(crate) boot: u64,
    pub(crate) inos: Option<Inos>,
    next_ino: u64,
    pub(crate) free_slots: Vec<Slot>,
    locks: Vec<(Slot, u64)>,
    next_description: u64,
    pub(crate) mounts: u64,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let root = Inode {
            ino: 2,
            dev: 1,
            mode: 0o755,
            uid: config.uid,
            mtime: Timestamp { seconds: EPOCH, nanos: 0 },
            ctime: Timestamp { seconds: EPOCH, nanos: 0 },
            body: Body::Directory(Vec::new()),
            hash: Cached::default(),
        };
        let table = Arc::new(vec![Some(Arc::new(root))]);
        Self::from_table(Arc::new(config), table, vec![Aux { nlink: 2, ..Aux::default() }])
    }

    fn from_table(config: Arc<Config>, table: Arc<Table>, aux: Vec<Aux>) -> Self {
        Self {
            config,
            live: table.clone(),
            disk: table,
            aux,
            pending: Vec::new(),
            next_effect: 1,
            dirty: Vec::new(),
            version: 0,
            clock: 0,
            unique: 0,
            boot: 0,
            inos: None,
            next_ino: FIRST_INO,
            free_slots: Vec::new(),
            locks: Vec::new(),
            next_description: 0,
            mounts: 0,
        }
    }

    /// The world that a reboot finds when `table` is what the disk holds.
    pub(crate) fn rebooted(&self, table: Table, aux: Vec<Aux>) -> Self {
        let free_slots = (0..table.len()).filter(|&slot| table[slot].is_none()).map(|slot| slot as Slot).collect();
        let mut world = Self::from_table(self.config.clone(), Arc::new(table), aux);
        world.free_slots = free_slots;
        world.clock = self.clock;
        world.unique = self.unique;
        world.boot = self.boot + 1;
        world.next_ino = self.next_ino;
        world.mounts = self.mounts;
        world
    }

    /// The same world with no process that uses it: without handles, locks, and files that were unlinked while open.
    pub(crate) fn abandoned(&self) -> Self {
        let mut world = self.clone();
        world.locks.clear();
        for slot in 0..world.aux.len() {
            world.aux[slot].opens = 0;
            if world.aux[slot].nlink == 0 && world.live[slot].is_some() {
                world.free_if_unused(slot as Slot);
            }
        }
        world
    }

    // ---- inodes

    pub(crate) fn find(&self, slot: Slot) -> Option<&Arc<Inode>> {
        self.live.get(slot as usize)?.as_ref()
    }

    /// The inode behind a name or an open handle: there by invariant 1.
    pub(crate) fn inode(&self, slot: Slot) -> &Inode {
        self.find(slot).expect("a slot that a name or handle refers to has its inode")
    }

    pub(crate) fn live_mut(&mut self, slot: Slot) -> &mut Inode {
        inode_mut(&mut self.live, slot)
    }

    pub(crate) fn disk_mut(&mut self, slot: Slot) -> &mut Inode {
        inode_mut(&mut self.disk, slot)
    }

    pub(crate) fn aux(&mut self, slot: Slot) -> &mut Aux {
        &mut self.aux[slot as usize]
    }

    pub(crate) fn is_dir(&self, slot: Slot) -> bool {
        self.inode(slot).is_dir()
    }

    pub(crate) fn now(&self) -> Timestamp {
        stamp(self.clock)
    }

    /// Time goes on, and this is what the file system writes down of it.
    pub(crate) fn tick(&mut self) -> Timestamp {
        self.version += 1;
        self.clock += self.config.tick;
        self.written_now()
    }

    /// The current time as the file system writes it down.
    pub(crate) fn written_now(&self) -> Timestamp {
        stamp(self.clock - self.clock % self.config.mtime_granularity.max(1))
    }

    pub(crate) fn lookup(&self, dir: Slot, name: &[u8]) -> Option<Slot> {
        let entries = self.inode(dir).entries();
        position(entries, name).ok().map(|i| entries[i].1)
    }

    /// A new inode on both sides, and the effects that its creation has to wait for because its number was another's.
    pub(crate) fn allocate(&mut self, mode: u32, uid: u32, dev: u64, body: Body) -> (Slot, Vec<EffectId>) {
        let mtime = self.tick();
        let (ino, after) = self.allocate_ino();
        let is_dir = matches!(body, Body::Directory(_));
        let inode = Arc::new(Inode { ino, dev, mode, uid, mtime, ctime: mtime, body, hash: Cached::default() });
        let aux = Aux { nlink: if is_dir { 2 } else { 1 }, ..Aux::default() };
        let slot = match self.free_slots.pop() {
            Some(slot) => slot,
            None => {
                self.aux.push(aux);
                Arc::make_mut(&mut self.live).push(None);
                (self.aux.len() - 1) as Slot
            }
        };
        let disk = Arc::make_mut(&mut self.disk);
        if disk.len() <= slot as usize {
            disk.resize(slot as usize + 1, None);
        }
        disk[slot as usize] = Some(inode.clone());
        Arc::make_mut(&mut self.live)[slot as usize] = Some(inode);
        self.aux[slot as usize] = aux;
        (slot, after)
    }

    fn allocate_ino(&mut self) -> (u64, Vec<EffectId>) {
        if self.config.reuse == Reuse::Never {
            self.next_ino += 1;
            return (self.next_ino - 1, Vec::new());
        }
        let mut inos = self.take_inos();
        let ino = inos.lowest();
        inos.mark(ino);
        self.next_ino = self.next_ino.max(ino + 1);
        let mut after = Vec::new();
        if inos.freed.iter().any(|&(number, _)| number == ino) {
            let of: Vec<Slot> =
                inos.freed.iter().filter(|&&(number, _)| number == ino).map(|&(_, slot)| slot).collect();
            after.extend(self.pending.iter().filter(|effect| of.iter().any(|&s| effect.mentions(s))).map(|e| e.id));
        }
        self.inos = Some(inos);
        (ino, after)
    }

    /// The numbers in use, counted when they are first needed.
    fn take_inos(&mut self) -> Inos {
        self.inos.take().unwrap_or_else(|| {
            let mut inos = Inos::default();
            (0..FIRST_INO).for_each(|ino| inos.mark(ino));
            self.live.iter().flatten().for_each(|inode| inos.mark(inode.ino));
            inos
        })
    }

    /// Frees the inode once neither a name nor a handle is left.
    pub(crate) fn free_if_unused(&mut self, slot: Slot) {
        let aux = self.aux[slot as usize];
        if aux.nlink > 0 || aux.opens > 0 || self.find(slot).is_none() {
            return;
        }
        if self.config.reuse != Reuse::Never {
            let mut inos = self.take_inos();
            let ino = self.inode(slot).ino;
            let awaited = self.pending.iter().any(|effect| effect.mentions(slot));
            if awaited {
                inos.freed.push((ino, slot));
            }
            if !awaited || self.config.reuse == Reuse::Immediate {
                inos.clear(ino);
            }
            self.inos = Some(inos);
        }
        Arc::make_mut(&mut self.live)[slot as usize] = None;
    }

    // ---- handles and locks

    pub(crate) fn hold(&mut self, slot: Slot) {
        self.aux(slot).opens += 1;
    }

    pub(crate) fn release(&mut self, slot: Slot) {
        let aux = self.aux(slot);
        aux.opens = aux.opens.saturating_sub(1);
        self.free_if_unused(slot);
    }

    pub(crate) fn description(&mut self) -> u64 {
        self.next_description += 1;
        self.next_description
    }

    pub(crate) fn try_lock(&mut self, slot: Slot, description: u64) -> bool {
        match self.locks.iter().find(|&&(locked, _)| locked == slot) {
            Some(&(_, holder)) => holder == description,
            None => {
                self.locks.push((slot, description));
                true
            }
        }
    }

    pub(crate) fn is_locked(&self, slot: Slot) -> bool {
        self.locks.iter().any(|&(locked, _)| locked == slot)
    }

    pub(crate) fn unlock(&mut self, description: u64) {
        self.locks.retain(|&(_, holder)| holder != description);
    }

    // ---- permission

    pub(crate) fn permit(&self, uid: u32, slot: Slot, want: u32) -> Res<()> {
        let inode = self.inode(slot);
        let bits = match inode.uid == uid {
            true => inode.mode >> 6,
            false if self.config.members.contains(&uid) => inode.mode >> 3,
            false => inode.mode,
        };
        if uid == 0 || bits & want == want { Ok(()) } else { Err(Errno::EACCES) }
    }

    pub(crate) fn permit_owner(&self, uid: u32, slot: Slot) -> Res<()> {
        if uid == 0 || self.inode(slot).uid == uid { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// What every call that names an entry checks of the directory and the name first.
    pub(crate) fn enter(&self, uid: u32, dir: Slot, name: &[u8]) -> Res<()> {
        self.permit(uid, dir, SEARCH)?;
        match name {
            b"" => return Err(Errno::ENOENT),
            b"." | b".." => return Err(Errno::EINVAL),
            _ if name.contains(&b'/') || name.contains(&0) => return Err(Errno::EINVAL),
            _ if name.len() > NAME_MAX => return Err(Errno::ENAMETOOLONG),
            _ => {}
        }
        if self.is_removed(dir) { Err(Errno::ENOENT) } else { Ok(()) }
    }

    fn is_removed(&self, dir: Slot) -> bool {
        self.aux[dir as usize].nlink == 0
    }

    pub(crate) fn existing(&self, uid: u32, dir: Slot, name: &[u8]) -> Res<Slot> {
        self.enter(uid, dir, name)?;
        self.lookup(dir, name).ok_or(Errno::ENOENT)
    }

    // ---- looking

    pub(crate) fn stat(&self, slot: Slot) -> Stat {
        let inode = self.inode(slot);
        let size = match &inode.body {
            Body::File(file) => file.content.bytes().len() as u64,
            Body::Symlink(target) => target.len() as u64,
            Body::Directory(_) => 4096,
            Body::Other => 0,
        };
        Stat {
            kind: inode.kind(),
            mode: inode.mode,
            uid: inode.uid,
            gid: 0,
            nlink: self.aux[slot as usize].nlink.into(),
            dev: inode.dev,
            ino: inode.ino,
            size,
            mtime: inode.mtime,
            ctime: inode.ctime,
        }
    }

    pub(crate) fn list(&self, uid: u32, dir: Slot) -> Res<&[(Name, Slot)]> {
        self.permit(uid, dir, SEARCH | READ)?;
        // Of a removed directory the kernel says ENOENT, which glibc's readdir turns into the end.
        Ok(self.inode(dir).entries())
    }

    pub(crate) fn read_link(&self, uid: u32, dir: Slot, name: &[u8]) -> Res<Vec<u8>> {
        match &self.inode(self.existing(uid, dir, name)?).body {
            Body::Symlink(target) => Ok(target.to_vec()),
            _ => Err(Errno::EINVAL),
        }
    }

    pub(crate) fn open_dir(&self, uid: u32, at: Slot, path: &RelPath) -> Res<Slot> {
        let mut dir = at;
        let mut rest = path.components().peekable();
        self.permit(uid, dir, SEARCH)?;
        while let Some(name) = rest.next() {
            let next = self.existing(uid, dir, name)?;
            let inode = self.inode(next);
            match inode.body {
                Body::Directory(_) if inode.dev != self.inode(dir).dev => return Err(Errno::EXDEV),
                Body::Directory(_) => dir = next,
                // The last component is not followed (O_NOFOLLOW) and is no directory; one on the way would be followed.
                Body::Symlink(_) if rest.peek().is_some() => return Err(Errno::ELOOP),
                _ => return Err(Errno::ENOTDIR),
            }
        }
        Ok(dir)
    }

    pub(crate) fn open_file(&self, uid: u32, dir: Slot, name: &[u8], write: bool) -> Res<Slot> {
        let slot = self.existing(uid, dir, name)?;
        match self.inode(slot).body {
            Body::Symlink(_) => return Err(Errno::ELOOP),
            Body::Directory(_) if write => return Err(Errno::EISDIR),
            _ => {}
        }
        self.permit(uid, slot, if write { READ | WRITE } else { READ })?;
        match self.inode(slot).body {
            Body::File(_) => Ok(slot),
            _ => Err(Errno::EINVAL),
        }
    }

    /// The entry at a path of the user's and its canonical path; links are followed, the last one if `follow`.
    pub(crate) fn walk(&self, uid: u32, path: &[u8], follow: bool) -> Res<(Slot, Vec<(Name, Slot)>)> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let mut todo: Vec<Name> = path.rsplit(|&b| b == b'/').map(Into::into).collect();
        let mut way: Vec<(Name, Slot)> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            let here = way.last().map_or(ROOT, |&(_, slot)| slot);
            if name.is_empty() || name.as_ref() == b"." || name.as_ref() == b".." {
                if !self.is_dir(here) {
                    return Err(Errno::ENOTDIR);
                }
                if name.as_ref() == b".." {
                    way.pop();
                }
                continue;
            }
            if !self.is_dir(here) {
                return Err(Errno::ENOTDIR);
            }
            let slot = self.existing(uid, here, &name)?;
            match &self.inode(slot).body {
                Body::Symlink(target) if follow || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::ELOOP);
                    }
                    if target.first() == Some(&b'/') {
                        way.clear();
                    }
                    todo.extend(target.rsplit(|&b| b == b'/').map(Name::from));
                }
                _ => way.push((name, slot)),
            }
        }
        Ok((way.last().map_or(ROOT, |&(_, slot)| slot), way))
    }

    pub(crate) fn read(&self, slot: Slot, at: usize, buffer: &mut [u8]) -> Res<usize> {
        let Body::File(file) = &self.inode(slot).body else { return Err(Errno::EISDIR) };
        let rest = file.content.bytes().get(at..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    /// Makes an empty directory the root of a file system of its own.
    pub(crate) fn mount(&mut self, slot: Slot) {
        self.mounts += 1;
        let dev = 1 + self.mounts;
        self.live_mut(slot).dev = dev;
        self.disk_mut(slot).dev = dev;
    }
}

fn inode_mut(table: &mut Arc<Table>, slot: Slot) -> &mut Inode {
    let inode = Arc::make_mut(table)[slot as usize].as_mut();
    edit(inode.expect("a slot that a name, a handle or an effect refers to has its inode"))
}

fn stamp(clock: u64) -> Timestamp {
    Timestamp { seconds: EPOCH + (clock / 1_000_000_000) as i64, nanos: (clock % 1_000_000_000) as u32 }
}
