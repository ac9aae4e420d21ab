//! [`Fs`] for [`SimFs`], and the handles: what the `world` answers, counted and watched.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use txfs::RelPath;
use txfs::fs::sealed::Sealed;
use txfs::fs::{Fs, Holder, Listed, Machine, RenameMode, Stat, Timestamp};

use crate::call::Call;
use crate::sim::simfs::{Calling, Shared, SimFs};
use crate::world::effect::Barrier;
use crate::world::inode::{Body, FileBody, Name, Res, Slot};
use crate::world::live::{READ, World};
use crate::world::view::View;

/// An open directory of a simulated world.
pub struct SimDir {
    shared: Arc<Shared>,
    slot: Slot,
    /// Whether its user might not read it, so that it was opened to be searched only, as with O_PATH.
    path_only: bool,
}

/// An open file of a simulated world.
pub struct SimFile {
    shared: Arc<Shared>,
    slot: Slot,
    at: usize,
    writable: bool,
    description: u64,
}

impl Drop for SimDir {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        if !inner.control.crashed {
            inner.world.release(self.slot);
        }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        if !inner.control.crashed {
            inner.world.unlock(self.description);
            inner.world.release(self.slot);
        }
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn below(view: View<'_>, dir: Slot, name: &[u8]) -> String {
    format!("{}/{}", view.path_of(dir).trim_end_matches('/'), shown(name))
}

impl SimFs {
    /// The slot of a directory of this world.
    fn at(&self, dir: &SimDir) -> io::Result<Slot> {
        if Arc::ptr_eq(&self.shared, &dir.shared) { Ok(dir.slot) } else { Err(Errno::EBADF.into()) }
    }

    fn of_file(&self, file: &SimFile) -> io::Result<Slot> {
        if Arc::ptr_eq(&self.shared, &file.shared) { Ok(file.slot) } else { Err(Errno::EBADF.into()) }
    }

    /// A call on a name in a directory.
    fn on_name<T>(
        &self,
        call: Call,
        at: &SimDir,
        name: &[u8],
        act: impl FnOnce(&mut World, Slot) -> Res<T>,
    ) -> io::Result<T> {
        let dir = self.at(at)?;
        let detail = |view: View<'_>| below(view, dir, name);
        self.call(Calling { call, detail, barrier: None }, |world| act(world, dir))
    }

    /// A call on an inode that is open.
    fn on_slot<T>(&self, call: Call, slot: Slot, act: impl FnOnce(&mut World) -> Res<T>) -> io::Result<T> {
        let barrier = match call {
            Call::SyncFile => Some(Barrier::File(slot)),
            Call::SyncDir => Some(Barrier::Dir(slot)),
            Call::SyncFs => Some(Barrier::Fs(slot)),
            _ => None,
        };
        self.call(Calling { call, detail: |view: View<'_>| view.path_of(slot), barrier }, act)
    }

    fn on_path<T>(&self, call: Call, path: &Path, act: impl FnOnce(&mut World, &[u8]) -> Res<T>) -> io::Result<T> {
        let detail = |_: View<'_>| path.display().to_string();
        self.call(Calling { call, detail, barrier: None }, |world| act(world, path.as_os_str().as_bytes()))
    }

    fn dir(&self, (slot, path_only): (Slot, bool)) -> SimDir {
        SimDir { shared: self.shared.clone(), slot, path_only }
    }

    /// An open directory, and whether it can only be searched.
    fn held_dir(&self, world: &mut World, slot: Slot) -> (Slot, bool) {
        world.hold(slot);
        (slot, world.permit(self.uid, slot, READ).is_err())
    }

    fn file(&self, (slot, description): (Slot, u64), writable: bool) -> SimFile {
        SimFile { shared: self.shared.clone(), slot, at: 0, writable, description }
    }
}

fn held(world: &mut World, slot: Slot) -> (Slot, u64) {
    world.hold(slot);
    (slot, world.description())
}

fn absolute(way: &[(Name, Slot)]) -> PathBuf {
    let mut path = PathBuf::from("/");
    path.extend(way.iter().map(|(name, _)| std::ffi::OsStr::from_bytes(name)));
    path
}

/// What was opened to be searched only cannot be synced, and says so without a number, as [`txfs::fs::LinuxFs`] does.
fn expect_syncable(dir: &SimDir) -> io::Result<()> {
    if dir.path_only {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "Permission denied"));
    }
    Ok(())
}

impl Sealed for SimFs {}

impl Fs for SimFs {
    type Dir = SimDir;
    type File = SimFile;
    type Lock = SimFile;

    fn open_anchor(&self, path: &Path) -> io::Result<SimDir> {
        let opened = self.on_path(Call::OpenAnchor, path, |world, path| {
            let (slot, _) = world.walk(self.uid, path, true)?;
            if !world.is_dir(slot) {
                return Err(Errno::ENOTDIR);
            }
            Ok(self.held_dir(world, slot))
        })?;
        Ok(self.dir(opened))
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.on_path(Call::Resolve, path, |world, path| Ok(absolute(&world.walk(self.uid, path, true)?.1)))
    }

    fn read_anchor_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.on_path(Call::ReadAnchorLink, path, |world, path| {
            let (slot, _) = world.walk(self.uid, path, false)?;
            match &world.inode(slot).body {
                Body::Symlink(target) => Ok(PathBuf::from(std::ffi::OsStr::from_bytes(target))),
                _ => Err(Errno::EINVAL),
            }
        })
    }

    fn open_dir(&self, at: &SimDir, path: &RelPath) -> io::Result<SimDir> {
        let opened = self.on_name(Call::OpenDir, at, path.as_bytes(), |world, dir| {
            let slot = world.open_dir(self.uid, dir, path)?;
            Ok(self.held_dir(world, slot))
        })?;
        Ok(self.dir(opened))
    }

    fn open_file(&self, at: &SimDir, name: &[u8]) -> io::Result<(SimFile, Stat)> {
        let (opened, stat) = self.on_name(Call::OpenFile, at, name, |world, dir| {
            let slot = world.open_file(self.uid, dir, name, false)?;
            Ok((held(world, slot), world.stat(slot)))
        })?;
        Ok((self.file(opened, false), stat))
    }

    fn open_write(&self, at: &SimDir, name: &[u8]) -> io::Result<SimFile> {
        let opened = self.on_name(Call::OpenWrite, at, name, |world, dir| {
            let slot = world.open_file(self.uid, dir, name, true)?;
            Ok(held(world, slot))
        })?;
        Ok(self.file(opened, true))
    }

    fn create_file(&self, at: &SimDir, name: &[u8], mode: u32) -> io::Result<SimFile> {
        let opened = self.on_name(Call::CreateFile, at, name, |world, dir| {
            let mode = mode & 0o7777 & !world.config.umask;
            let slot = world.create(self.uid, dir, name, mode, Body::File(FileBody::default()))?;
            Ok(held(world, slot))
        })?;
        Ok(self.file(opened, true))
    }

    fn stat(&self, at: &SimDir, name: &[u8]) -> io::Result<Stat> {
        self.on_name(Call::Stat, at, name, |world, dir| Ok(world.stat(world.existing(self.uid, dir, name)?)))
    }

    fn stat_dir(&self, dir: &SimDir) -> io::Result<Stat> {
        let slot = self.at(dir)?;
        self.on_slot(Call::StatDir, slot, |world| Ok(world.stat(slot)))
    }

    fn stat_file(&self, file: &SimFile) -> io::Result<Stat> {
        let slot = self.of_file(file)?;
        self.on_slot(Call::StatFile, slot, |world| Ok(world.stat(slot)))
    }

    fn list(&self, dir: &SimDir) -> io::Result<Vec<Listed>> {
        let slot = self.at(dir)?;
        self.on_slot(Call::List, slot, |world| {
            let listed = |(name, slot): &(Name, Slot)| {
                let kind = world.inode(*slot).kind();
                Listed { name: name.as_ref().into(), kind }
            };
            Ok(world.list(self.uid, slot)?.iter().map(listed).collect())
        })
    }

    fn read_link(&self, at: &SimDir, name: &[u8]) -> io::Result<Vec<u8>> {
        self.on_name(Call::ReadLink, at, name, |world, dir| world.read_link(self.uid, dir, name))
    }

    fn read(&self, file: &mut SimFile, buffer: &mut [u8]) -> io::Result<usize> {
        let slot = self.of_file(file)?;
        let n = self.on_slot(Call::Read, slot, |world| world.read(slot, file.at, buffer))?;
        file.at += n;
        Ok(n)
    }

    fn write(&self, file: &mut SimFile, bytes: &[u8]) -> io::Result<usize> {
        let n = self.write_at(file, file.at as u64, bytes)?;
        file.at += n;
        Ok(n)
    }

    fn read_at(&self, file: &SimFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let slot = self.of_file(file)?;
        let at = usize::try_from(offset).map_err(|_| Errno::EINVAL)?;
        self.on_slot(Call::Read, slot, |world| world.read(slot, at, buffer))
    }

    fn write_at(&self, file: &SimFile, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let slot = self.of_file(file)?;
        let at = usize::try_from(offset).map_err(|_| Errno::EFBIG)?;
        self.on_slot(Call::Write, slot, |world| {
            if !file.writable {
                return Err(Errno::EBADF);
            }
            let n = bytes.len().min(world.config.short_write.unwrap_or(usize::MAX));
            world.write(slot, at, &bytes[..n])?;
            Ok(n)
        })
    }

    fn copy_content(&self, from: &mut SimFile, to: &mut SimFile) -> io::Result<()> {
        let (source, slot) = (self.of_file(from)?, self.of_file(to)?);
        let n = self.on_slot(Call::CopyContent, slot, |world| {
            if !to.writable {
                return Err(Errno::EBADF);
            }
            let Body::File(file) = &world.inode(source).body else { return Err(Errno::EINVAL) };
            let bytes = file.content.bytes().get(from.at..).unwrap_or_default().to_vec();
            world.write(slot, to.at, &bytes)?;
            Ok(bytes.len())
        })?;
        from.at += n;
        to.at += n;
        Ok(())
    }

    fn copy_attributes(&self, from: &SimFile, to: &SimFile) -> io::Result<()> {
        self.of_file(from)?;
        self.on_slot(Call::CopyAttributes, self.of_file(to)?, |_| Ok(()))
    }

    fn copy_dir_attributes(&self, from: &SimDir, to: &SimDir) -> io::Result<()> {
        self.at(from)?;
        self.on_slot(Call::CopyAttributes, self.at(to)?, |_| Ok(()))
    }

    fn set_owner(&self, file: &SimFile, owner: Option<u32>, _: u32) -> io::Result<()> {
        let slot = self.of_file(file)?;
        self.on_slot(Call::SetOwner, slot, |world| world.set_owner(self.uid, slot, owner))
    }

    fn set_dir_owner(&self, dir: &SimDir, owner: Option<u32>, _: u32) -> io::Result<()> {
        let slot = self.at(dir)?;
        if dir.path_only {
            return Err(Errno::EBADF.into());
        }
        self.on_slot(Call::SetOwner, slot, |world| world.set_owner(self.uid, slot, owner))
    }

    fn set_link_owner(&self, at: &SimDir, name: &[u8], owner: Option<u32>, _: u32) -> io::Result<()> {
        self.on_name(Call::SetOwner, at, name, |world, dir| {
            let slot = world.existing(self.uid, dir, name)?;
            world.set_owner(self.uid, slot, owner)
        })
    }

    fn set_mode(&self, file: &SimFile, mode: u32) -> io::Result<()> {
        let slot = self.of_file(file)?;
        self.on_slot(Call::SetMode, slot, |world| world.set_mode(self.uid, slot, mode))
    }

    fn set_dir_mode(&self, dir: &SimDir, mode: u32) -> io::Result<()> {
        let slot = self.at(dir)?;
        self.on_slot(Call::SetDirMode, slot, |world| world.set_mode(self.uid, slot, mode))
    }

    fn set_mtime(&self, file: &SimFile, mtime: Timestamp) -> io::Result<()> {
        let slot = self.of_file(file)?;
        self.on_slot(Call::SetMtime, slot, |world| world.set_mtime(self.uid, slot, mtime))
    }

    fn make_dir(&self, at: &SimDir, name: &[u8], mode: u32) -> io::Result<()> {
        self.on_name(Call::MakeDir, at, name, |world, dir| {
            let mode = mode & 0o1777 & !world.config.umask | world.inode(dir).mode & 0o2000;
            world.create(self.uid, dir, name, mode, Body::Directory(Vec::new())).map(drop)
        })
    }

    fn make_symlink(&self, at: &SimDir, name: &[u8], target: &[u8]) -> io::Result<()> {
        self.on_name(Call::MakeSymlink, at, name, |world, dir| {
            if target.is_empty() {
                return Err(Errno::ENOENT);
            }
            world.create(self.uid, dir, name, 0o777, Body::Symlink(target.into())).map(drop)
        })
    }

    fn link(&self, from: &SimDir, name: &[u8], to: &SimDir, new_name: &[u8]) -> io::Result<()> {
        let (from, to) = (self.at(from)?, self.at(to)?);
        let detail = |view: View<'_>| format!("{} as {}", below(view, from, name), below(view, to, new_name));
        let calling = Calling { call: Call::Link, detail, barrier: None };
        self.call(calling, |world| world.link(self.uid, from, name, to, new_name))
    }

    fn rename(&self, from: &SimDir, name: &[u8], to: &SimDir, new_name: &[u8], mode: RenameMode) -> io::Result<()> {
        let (from, to) = (self.at(from)?, self.at(to)?);
        let detail = |view: View<'_>| format!("{} to {} {mode:?}", below(view, from, name), below(view, to, new_name));
        let calling = Calling { call: Call::Rename, detail, barrier: None };
        self.call(calling, |world| world.rename(self.uid, (from, name), (to, new_name), mode))
    }

    fn remove_file(&self, at: &SimDir, name: &[u8]) -> io::Result<()> {
        self.on_name(Call::RemoveFile, at, name, |world, dir| world.unlink(self.uid, dir, name))
    }

    fn remove_dir(&self, at: &SimDir, name: &[u8]) -> io::Result<()> {
        self.on_name(Call::RemoveDir, at, name, |world, dir| world.rmdir(self.uid, dir, name))
    }

    fn sync_file(&self, file: &SimFile) -> io::Result<()> {
        let slot = self.of_file(file)?;
        self.on_slot(Call::SyncFile, slot, |world| {
            world.sync_file(slot);
            Ok(())
        })
    }

    fn sync_dir(&self, dir: &SimDir) -> io::Result<()> {
        let slot = self.at(dir)?;
        expect_syncable(dir)?;
        self.on_slot(Call::SyncDir, slot, |world| {
            world.sync_dir(slot);
            Ok(())
        })
    }

    fn drop_cached(&self, file: &SimFile) -> io::Result<()> {
        let slot = self.of_file(file)?;
        self.on_slot(Call::DropCached, slot, |world| {
            world.drop_cached(slot);
            Ok(())
        })
    }

    fn sync_fs(&self, dir: &SimDir) -> io::Result<()> {
        let slot = self.at(dir)?;
        expect_syncable(dir)?;
        self.on_slot(Call::SyncFs, slot, |world| {
            world.sync_fs(slot);
            Ok(())
        })
    }

    fn try_lock(&self, at: &SimDir, name: &[u8]) -> io::Result<Option<(SimFile, Stat)>> {
        let file = self.open_write(at, name)?;
        let locked = self.on_slot(Call::TryLock, file.slot, |world| Ok(world.try_lock(file.slot, file.description)))?;
        if !locked {
            return Ok(None);
        }
        let stat = self.stat_file(&file)?;
        Ok(Some((file, stat)))
    }

    fn lock_holder(&self, at: &SimDir, name: &[u8]) -> io::Result<Option<Holder>> {
        let file = self.open_write(at, name)?;
        self.on_slot(Call::LockHolder, file.slot, |world| Ok(world.is_locked(file.slot).then(Holder::default)))
    }

    fn syncs_in_turn(&self, _: &SimDir) -> bool {
        self.shared.lock().world.config.in_turn
    }

    fn changes_in_turn(&self, _: &SimDir) -> bool {
        true
    }
}

impl Machine for SimFs {
    fn dirty(&self) -> io::Result<u64> {
        Ok(self.shared.lock().world.config.dirty)
    }

    fn user(&self) -> u32 {
        self.uid
    }

    fn group(&self) -> u32 {
        self.uid
    }

    fn belongs_to(&self, group: u32) -> io::Result<bool> {
        Ok(group == self.uid || group == 0 && self.members().contains(&self.uid))
    }

    fn now(&self) -> Timestamp {
        self.shared.lock().world.now()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.shared.lock().world.clock)
    }

    fn boot(&self) -> io::Result<String> {
        Ok(self.shared.lock().world.boot.to_string())
    }

    fn unique(&self) -> io::Result<u64> {
        self.call(Calling { call: Call::Unique, detail: |_: View<'_>| String::new(), barrier: None }, |world| {
            world.unique += 1;
            Ok(world.unique)
        })
    }

    fn parallelism(&self) -> usize {
        1
    }

    fn pause(&self, duration: Duration) {
        self.shared.lock().world.clock += duration.as_nanos() as u64;
    }

    fn is_interrupted(&self) -> bool {
        false
    }
}
