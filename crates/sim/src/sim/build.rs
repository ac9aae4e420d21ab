//! Building a world: no call is counted, and the result is durable at once, as is everything before it.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;

use crate::sim::simfs::SimFs;
use crate::world::inode::{Body, FileBody, Name, ROOT, Res, Slot};
use crate::world::live::World;

impl SimFs {
    /// Makes the file at `path` anew, and the directories above it where they are missing (mode 0755).
    pub fn put_file(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) {
        self.put(path.as_ref(), |world, uid, dir, name| {
            world.remove_all(dir, name);
            let slot = world.create(0, dir, name, mode, Body::File(FileBody::default()))?;
            world.live_mut(slot).uid = uid;
            world.disk_mut(slot).uid = uid;
            world.write(slot, 0, bytes)
        });
    }

    /// Makes a directory, or gives the one at `path` the mode.
    pub fn put_dir(&self, path: impl AsRef<Path>, mode: u32) {
        self.put(path.as_ref(), |world, uid, dir, name| {
            let slot = make_dir(world, uid, dir, name)?;
            world.set_mode(0, slot, mode)
        });
    }

    /// Makes a symbolic link anew.
    pub fn put_symlink(&self, path: impl AsRef<Path>, target: impl AsRef<[u8]>) {
        self.put(path.as_ref(), |world, _, dir, name| {
            world.remove_all(dir, name);
            world.create(0, dir, name, 0o777, Body::Symlink(target.as_ref().into())).map(drop)
        });
    }

    /// Makes something that is neither file, directory nor symbolic link.
    pub fn put_other(&self, path: impl AsRef<Path>) {
        self.put(path.as_ref(), |world, _, dir, name| {
            world.remove_all(dir, name);
            world.create(0, dir, name, 0o644, Body::Other).map(drop)
        });
    }

    /// Makes an empty directory that is the root of another file system.
    pub fn put_mount(&self, path: impl AsRef<Path>) {
        self.put(path.as_ref(), |world, uid, dir, name| {
            world.remove_all(dir, name);
            let slot = make_dir(world, uid, dir, name)?;
            world.mount(slot);
            Ok(())
        });
    }

    /// Makes `new` a second name of the file at `path`.
    pub fn put_link(&self, path: impl AsRef<Path>, new: impl AsRef<Path>) {
        let (old_dir, old_name) = self.place(path.as_ref());
        self.put(new.as_ref(), |world, _, dir, name| {
            world.remove_all(dir, name);
            world.link(0, old_dir, &old_name, dir, name)
        });
    }

    /// Overwrites a file from its start, the inode staying the same.
    pub fn overwrite(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.put(path.as_ref(), |world, _, dir, name| {
            let slot = world.lookup(dir, name).ok_or(Errno::ENOENT)?;
            world.write(slot, 0, bytes)
        });
    }

    /// Gives an entry to another user.
    pub fn put_owner(&self, path: impl AsRef<Path>, uid: u32) {
        self.put(path.as_ref(), |world, _, dir, name| {
            let slot = world.lookup(dir, name).ok_or(Errno::ENOENT)?;
            world.set_owner(0, slot, Some(uid))
        });
    }

    /// Sets the permission bits of an entry.
    pub fn put_mode(&self, path: impl AsRef<Path>, mode: u32) {
        self.put(path.as_ref(), |world, _, dir, name| {
            let slot = world.lookup(dir, name).ok_or(Errno::ENOENT)?;
            world.set_mode(0, slot, mode)
        });
    }

    /// Removes an entry with everything below it; nothing there is no error.
    pub fn remove(&self, path: impl AsRef<Path>) {
        self.put(path.as_ref(), |world, _, dir, name| {
            world.remove_all(dir, name);
            Ok(())
        });
    }

    /// Everything so far is durable, as after an orderly shutdown; not counted as a call.
    pub fn settle(&self) {
        self.shared.lock().world.settle_all();
    }

    fn put(&self, path: &Path, act: impl FnOnce(&mut World, u32, Slot, &[u8]) -> Res<()>) {
        let (dir, name) = self.place(path);
        let mut inner = self.shared.lock();
        let uid = self.uid;
        let result = act(&mut inner.world, uid, dir, &name);
        assert!(result.is_ok(), "cannot build {}: {result:?}", path.display());
        inner.world.settle_all();
    }

    /// The directory that holds `path`, made where it is missing, and the name.
    fn place(&self, path: &Path) -> (Slot, Name) {
        let mut inner = self.shared.lock();
        let names: Vec<Name> = path.iter().map(|name| name.as_bytes().into()).collect();
        let (name, dirs) = names.split_last().expect("a path to build at is not empty");
        let dir = dirs
            .iter()
            .filter(|name| name.as_ref() != b"/")
            .try_fold(ROOT, |dir, name| make_dir(&mut inner.world, self.uid, dir, name));
        (dir.expect("a path to build at leads through directories"), name.clone())
    }
}

fn make_dir(world: &mut World, uid: u32, dir: Slot, name: &[u8]) -> Res<Slot> {
    match world.lookup(dir, name) {
        Some(slot) if world.is_dir(slot) => Ok(slot),
        Some(_) => Err(Errno::ENOTDIR),
        None => {
            let slot = world.create(0, dir, name, 0o755, Body::Directory(Vec::new()))?;
            world.live_mut(slot).uid = uid;
            world.disk_mut(slot).uid = uid;
            Ok(slot)
        }
    }
}
