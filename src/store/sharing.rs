//! What each member of the group that shares a store has to be able to do, as modes: write to every directory of the state, of the
//! stages and of what is published, and read every file (journal-spec.md, "Shared stores").
//!
//! Invariants:
//! 1. Modes and group are set explicitly: no umask takes from them what another member needs.
//! 2. A file with another name somewhere else is left alone (G9).
//! 3. No ACL gives others what the modes of a state deny.
//!
//! A crash inside leaves a directory with nothing in it, or a file, that other members cannot use: they may remove it.

use std::io;

use crate::error::Result;
use crate::fs::tree::{ROOT, Tree, Walked, is_absent};
use crate::fs::{Attribute, Fs, Kind, Stat};
use crate::path::RelPath;

/// What a member has to be able to do in a directory, whose group goes to what is made in it.
const DIRECTORY: u32 = 0o2770;

/// What a member has to be able to do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// With one of the state: to write to it.
    State,
    /// With one that is published, was, or will be: to read it.
    Content,
}

impl Access {
    fn bits(self) -> u32 {
        match self {
            Access::State => 0o660,
            Access::Content => 0o040,
        }
    }
}

/// In a directory that has it only its owner moves what is another's.
const STICKY: u32 = 0o1000;

/// The mode of a state directory that is shared.
pub(crate) const STATE_MODE: u32 = DIRECTORY;

/// The mode that what has this one is staged and published with.
pub(crate) fn content_mode(kind: Kind, mode: u32) -> u32 {
    match kind {
        Kind::Directory => (mode | DIRECTORY) & !STICKY,
        Kind::File => mode | Access::Content.bits(),
        Kind::Symlink => mode,
    }
}

/// Whether every member may make, move and remove entries in a directory.
pub(crate) fn is_open_to(stat: &Stat, group: u32) -> bool {
    stat.gid == group && stat.mode & 0o070 == 0o070 && stat.mode & STICKY == 0
}

/// Whether a file of a shared state was made, and whoever made it was killed before it was given to the group: nothing is in it yet.
pub(crate) fn is_unfinished(stat: &Stat) -> bool {
    stat.size == 0 && stat.mode & Access::State.bits() != Access::State.bits()
}

/// Whether every member may read a file.
pub(crate) fn is_readable_by(stat: &Stat, group: u32) -> bool {
    let needed = if stat.gid == group { Access::Content.bits() } else { 0o004 };
    stat.mode & needed != 0
}

/// Gives a directory to the group. Says whether it was another's, or had another mode.
pub(crate) fn give_dir<F: Fs>(fs: &F, dir: &F::Dir, group: u32) -> io::Result<bool> {
    let stat = fs.stat_dir(dir)?;
    let mode = content_mode(Kind::Directory, stat.mode);
    if stat.gid != group {
        fs.set_dir_owner(dir, None, group)?;
    }
    if stat.mode != mode {
        fs.set_dir_mode(dir, mode)?;
    }
    let opened = open_acl(fs, dir)?;
    Ok(stat.gid != group || stat.mode != mode || opened)
}

/// Where a directory has an ACL, its mode says what that lets the most of all do, and the ACL itself what its group may.
fn open_acl<F: Fs>(fs: &F, dir: &F::Dir) -> io::Result<bool> {
    let Some(mut acl) = fs.attribute(dir, Attribute::AccessAcl)? else { return Ok(false) };
    match group_entry(&mut acl) {
        Some(permissions) if *permissions & 7 != 7 => *permissions |= 7,
        _ => return Ok(false),
    }
    fs.set_attribute(dir, Attribute::AccessAcl, Some(&acl)).map(|()| true)
}

/// What an ACL gives to the group of its entry: it is a version (u32) and entries of tag (u16), permissions (u16) and number (u32).
fn group_entry(acl: &mut [u8]) -> Option<&mut u8> {
    const OF_GROUP: [u8; 2] = 4u16.to_le_bytes();
    let entries = acl.get_mut(4..)?.chunks_exact_mut(8);
    entries.into_iter().find(|entry| entry[..2] == OF_GROUP).map(|entry| &mut entry[2])
}

/// Gives a file of the state to the group, or one of a stage or of what is published.
fn give_file<F: Fs>(fs: &F, file: &F::File, group: u32, access: Access) -> io::Result<bool> {
    let stat = fs.stat_file(file)?;
    let mode = stat.mode | access.bits();
    if stat.nlink > 1 {
        return Ok(false);
    }
    if stat.gid != group {
        // Which takes the set-id bits; the one of a group would lend the rights of another now.
        fs.set_owner(file, None, group)?;
    }
    let wanted = if stat.gid != group { mode & !0o2000 } else { mode };
    if stat.mode != mode || stat.gid != group && wanted & 0o6000 != 0 {
        fs.set_mode(file, wanted)?;
    }
    Ok(stat.gid != group || stat.mode != mode)
}

/// Gives a file that was made in a state to the group that shares it, if one does.
pub(crate) fn share_file<F: Fs>(state: &Tree<F>, file: &F::File) -> io::Result<()> {
    match state.group() {
        Some(group) => give_file(&state.fs, file, group, Access::State).map(drop),
        None => Ok(()),
    }
}

/// The same of a directory.
pub(crate) fn share_dir<F: Fs>(state: &Tree<F>, dir: &F::Dir) -> io::Result<()> {
    let Some(group) = state.group() else { return Ok(()) };
    strip(&state.fs, dir)?;
    give_dir(&state.fs, dir, group).map(drop)
}

/// Takes ACLs from a directory of a state, which came from the directory around it: what they give to others, or withhold from the group,
/// no mode shows.
pub(crate) fn strip<F: Fs>(fs: &F, dir: &F::Dir) -> io::Result<()> {
    for acl in [Attribute::DefaultAcl, Attribute::AccessAcl] {
        if fs.attribute(dir, acl)?.is_some() {
            fs.set_attribute(dir, acl, None)?;
        }
    }
    Ok(())
}

/// Makes a directory that every member can use; one that is there already and can be used is no error.
pub(crate) fn make_dir<F: Fs>(fs: &F, at: &F::Dir, name: &[u8], group: u32) -> io::Result<()> {
    let make = || fs.make_dir(at, name, 0o700);
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let there = fs.stat(at, name)?;
            if is_open_to(&there, group) || !there.is_dir() {
                return Ok(());
            }
            if there.uid != fs.user() {
                // Its maker was killed before it was given to the group, so nothing is in it; otherwise it stays.
                fs.remove_dir(at, name)?;
                make()?;
            }
        }
        made => made?,
    }
    let name = RelPath::new(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    give_dir(fs, &fs.open_dir(at, &name)?, group).map(drop)
}

/// Gives what is met in `tree` to the group, if it is this user's. Says whether anything was changed.
pub(crate) fn share_entry<F: Fs>(
    tree: &Tree<F>,
    Walked { path, stat }: &Walked,
    group: u32,
    access: Access,
) -> Result<bool> {
    let (fs, user) = (&tree.fs, tree.fs.user());
    if stat.uid != user && user != ROOT {
        return Ok(false);
    }
    let given = match stat.kind {
        Some(Kind::Directory) => tree.dir(path).and_then(|dir| {
            if access == Access::State {
                strip(fs, &dir)?;
            }
            give_dir(fs, &dir, group)
        }),
        Some(Kind::File) if stat.gid != group || stat.mode & access.bits() != access.bits() => {
            tree.parent(path).and_then(|dir| {
                let (file, _) = fs.open_file(&dir, path.name())?;
                give_file(fs, &file, group, access)
            })
        }
        _ => Ok(false),
    };
    tree.forget_at(path);
    match given {
        // It went meanwhile.
        Err(error) if is_absent(&error) => Ok(false),
        given => given.map_err(tree.io("share", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_acl_gives_to_the_group_is_found() {
        // u::rwx u:5:rwx g::r-x m::rwx o::---
        let entries: [(u16, u16, u32); 5] = [(1, 7, !0), (2, 7, 5), (4, 5, !0), (16, 7, !0), (32, 0, !0)];
        let mut acl = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            acl.extend([&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat());
        }
        assert_eq!(group_entry(&mut acl), Some(&mut 5));
        for end in 0..20 {
            assert_eq!(group_entry(&mut acl[..end]), None, "{end}");
        }
    }

    #[test]
    fn modes_are_added_to_and_others_keep_what_the_umask_says() {
        let modes = |kind, mode| content_mode(kind, mode);
        assert_eq!(modes(Kind::Directory, 0o755), 0o2775);
        assert_eq!(modes(Kind::Directory, 0o1500), 0o2770);
        assert_eq!(modes(Kind::File, 0o4711), 0o4751);
        assert_eq!(modes(Kind::Symlink, 0o777), 0o777);
    }
}
