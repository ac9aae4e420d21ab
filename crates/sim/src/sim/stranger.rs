//! What another process does between two calls of the one that is watched. A crash can lose it as anything else.

use std::path::{Path, PathBuf};

use crate::world::live::{Body, FileBody, Slot, World};
use crate::{SimFs, View};

/// What another process does to an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stranger {
    /// Overwrites the file from its start, the inode staying the same.
    Overwrites(Vec<u8>),
    /// Removes it with everything below it.
    Removes,
    /// Puts a file in its place.
    PutsFile(Vec<u8>),
    /// Puts a symbolic link in its place.
    PutsLink(Vec<u8>),
    /// Changes its mode.
    SetsMode(u32),
}

/// What is to be done, when, and what went with it.
#[derive(Default)]
pub(crate) struct Strangers {
    plans: Vec<(u64, PathBuf, Stranger)>,
    taken: Vec<Vec<u8>>,
}

impl Strangers {
    /// Does what is to be done before the call of this number. What is not there any more is left alone.
    pub(crate) fn act(&mut self, world: &mut World, number: u64) {
        for (_, path, stranger) in self.plans.iter().filter(|(n, ..)| *n == number) {
            let Some((dir, slot)) = place(world, path) else { continue };
            if matches!(stranger, Stranger::Removes | Stranger::PutsFile(_) | Stranger::PutsLink(_)) {
                let tree = View { world }.tree(path);
                self.taken.extend(tree.values().map(|entry| entry.content().to_vec()));
            }
            stranger.act(world, dir, slot, path);
        }
    }
}

impl Stranger {
    fn act(&self, world: &mut World, dir: Slot, slot: Slot, path: &Path) {
        use std::os::unix::ffi::OsStrExt;
        let name = path.file_name().map(OsStrExt::as_bytes).unwrap_or_default();
        let (mode, body) = match self {
            Self::Overwrites(bytes) => {
                let written = world.write(slot, 0, bytes);
                assert!(written.is_ok(), "cannot write to {}: {written:?}", path.display());
                return;
            }
            Self::SetsMode(mode) => {
                let set = world.set_mode(0, slot, *mode);
                assert!(set.is_ok(), "cannot change the mode of {}: {set:?}", path.display());
                return;
            }
            Self::Removes => return world.remove_all(dir, name),
            Self::PutsFile(_) => (0o644, Body::File(FileBody::default())),
            Self::PutsLink(target) => (0o777, Body::Symlink(target.as_slice().into())),
        };
        world.remove_all(dir, name);
        let made = world.create(0, dir, name, mode, body);
        let filled = made.and_then(|slot| match self {
            Self::PutsFile(bytes) => world.write(slot, 0, bytes),
            _ => Ok(()),
        });
        assert!(filled.is_ok(), "cannot make {}: {filled:?}", path.display());
    }
}

fn place(world: &World, path: &Path) -> Option<(Slot, Slot)> {
    let view = View { world };
    Some((view.find(path.parent()?)?, view.find(path)?))
}

impl SimFs {
    /// Another process does something to an entry right before the `n`-th call, from 1, if it is there then.
    pub fn stranger_at(&self, n: u64, path: impl AsRef<Path>, stranger: Stranger) {
        self.shared.lock().control.strangers.plans.push((n, path.as_ref().to_path_buf(), stranger));
    }

    /// Another process does something to an entry now, if it is there.
    pub fn stranger_now(&self, path: impl AsRef<Path>, stranger: &Stranger) {
        let world = &mut self.shared.lock().world;
        if let Some((dir, slot)) = place(world, path.as_ref()) {
            stranger.act(world, dir, slot, path.as_ref());
        }
    }

    /// Somebody overwrites a file right before the `n`-th call, from 1, if it is there then; a crash can lose that.
    pub fn overwrite_at(&self, n: u64, path: impl AsRef<Path>, bytes: &[u8]) {
        self.stranger_at(n, path, Stranger::Overwrites(bytes.to_vec()));
    }

    /// The contents of files and links that other processes removed, or put something in the place of.
    pub fn taken(&self) -> Vec<Vec<u8>> {
        self.shared.lock().control.strangers.taken.clone()
    }
}
