//! What another process does between two calls of the one that is watched. A crash can lose it as anything else.

use std::path::{Path, PathBuf};

use crate::world::inode::{Body, FileBody, Slot};
use crate::world::live::World;
use crate::world::view::View;

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
    pub(crate) plans: Vec<(u64, PathBuf, Stranger)>,
    pub(crate) taken: Vec<Vec<u8>>,
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
    pub(crate) fn act(&self, world: &mut World, dir: Slot, slot: Slot, path: &Path) {
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

pub(crate) fn place(world: &World, path: &Path) -> Option<(Slot, Slot)> {
    let view = View { world };
    Some((view.find(path.parent()?)?, view.find(path)?))
}
