//! Making a store: the directories that every store has, what its file system can do, and the `store` file that says so.
//!
//! Invariants (journal-spec.md, "Layout"):
//! 1. A directory of that name without a `store` file that holds anything unknown is not ours, and is refused.
//! 2. The `store` file is durable before anything else is made beside it.
//!
//! A crash inside leaves a part of a store, which the next opening completes.

use std::io::{self, Write};

use crate::error::{Error, Result, move_away};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Listed, RenameMode, Stat, Weakness, is_unsupported};
use crate::mutant::{Mutant, left_out};
use crate::path::{RESERVED, RelPath};
use crate::store::layout::{DIRECTORIES, JOURNALS, make_dir, name, state_path, write_ignore, write_new};
use crate::store::output::{Output, Place};
use crate::store::store_file::{Capabilities, write};

/// A directory that is not a store yet may hold only what making one leaves behind.
pub(crate) fn check_unclaimed<F: Fs>(state: &Tree<F>) -> Result<()> {
    let listed = state.fs.list(state.root()).map_err(state.io("list", &RelPath::root()))?;
    let made_first = [name::STORE, name::STORE_NEW, name::LOCK, name::IGNORE, name::MANIFESTS, name::TRANSACTIONS];
    let made_first = [&made_first[..], &[name::PREVIOUS, name::PROBE, name::OUTPUT, name::PATH_NEW]].concat();
    let unknown = listed.iter().find(|entry| !made_first.iter().any(|known| known.as_bytes() == &*entry.name));
    let claimed = listed.iter().any(|entry| &*entry.name == name::STORE.as_bytes());
    let Some(unknown) = unknown.filter(|_| !claimed).map(|entry| entry.name.escape_ascii()) else { return Ok(()) };
    let ours = [&JOURNALS[..], &[name::HEAD]].concat();
    let is_ours = listed.iter().any(|entry| ours.iter().any(|ours| ours.as_bytes() == &*entry.name));
    if is_ours {
        // What an interrupted commit left would be left for ever.
        let what = "it is missing: restore it, or copy that of another output on the same file system";
        return Err(state.corrupt(&state_path(name::STORE), what));
    }
    let away = move_away(state.at());
    let what = format!("it holds `{unknown}` and no store: it is not a state directory of txfs; {away}");
    Err(Error::Untrusted { path: state.at().to_path_buf(), what })
}

/// Fills a new state directory; the `store` file comes last, and says that it is complete.
pub(crate) fn initialize<F: Fs>(state: &Tree<F>, output: &Output<F>, group: Option<u32>) -> Result<Capabilities> {
    for directory in DIRECTORIES {
        make_dir(state, &state_path(directory))?;
    }
    write_ignore(state)?;
    if state.fs.weaknesses(state.root()).contains(&Weakness::Fat) {
        return Err(fat(state));
    }
    let capabilities = probe(state)?;
    check_able(state, capabilities)?;
    if group.is_some() {
        check_shareable(state, capabilities)?;
    }
    check_reach(state, output)?;
    write(state, capabilities, group)?;
    // And before anything else is made in it: a directory that holds more than this and no store is not taken for ours. Once for
    // all commits it is a syncfs: the directories that lead to the store may have been made just now.
    if !left_out(Mutant::StoreNameBarrier) {
        state.fs.sync_fs(state.root()).map_err(state.io("make durable", &RelPath::root()))?;
    }
    Ok(capabilities)
}

/// Takes away a store in which nothing is, and says whether it did. Call with the store's lock held.
pub(crate) fn uninitialize<F: Fs>(holder: &Tree<F>, name: &RelPath, state: &Tree<F>) -> Result<bool> {
    let files = [name::STORE, name::IGNORE, name::LOCK, name::OUTPUT, name::PATH_NEW].map(state_path);
    let directories = [&DIRECTORIES[..], &[name::TRASH, name::QUEUE, name::HANDED]]
        .concat()
        .into_iter()
        .map(state_path)
        .collect::<Vec<_>>();
    for entry in state.fs.list(state.root()).map_err(state.io("list", &RelPath::root()))? {
        let path = state_path_of(state, &entry.name)?;
        let is_empty_directory = || Ok(directories.contains(&path) && list(state, &path)?.is_empty());
        if !files.contains(&path) && !is_empty_directory()? {
            return Ok(false);
        }
    }
    // In the order in which a part of it is still one of a store that is being made. A directory goes only if it is empty.
    state.remove_entry(&files[0], Kind::File)?;
    directories.iter().try_for_each(|path| state.remove_entry(path, Kind::Directory))?;
    files[1..].iter().try_for_each(|path| state.remove_entry(path, Kind::File))?;
    holder.remove_entry(name, Kind::Directory).map(|()| true)
}

fn list<F: Fs>(state: &Tree<F>, path: &RelPath) -> Result<Vec<Listed>> {
    state.dir(path).and_then(|dir| state.fs.list(&dir)).map_err(state.io("list", path))
}

fn state_path_of<F: Fs>(state: &Tree<F>, name: &[u8]) -> Result<RelPath> {
    RelPath::root().join(name).map_err(|error| Error::corrupt(state.at(), error))
}

/// Tries again what the file system can do, where it has not done what it could before: a store can be copied to another one. Call
/// with the store's lock held. `None` when it can do the same as ever.
pub(crate) fn probe_again<F: Fs>(state: &Tree<F>, known: Capabilities) -> Result<Option<Capabilities>> {
    let capabilities = probe(state)?;
    if capabilities == known {
        return Ok(None);
    }
    check_able(state, capabilities)?;
    if state.group().is_some() {
        check_shareable(state, capabilities)?;
    }
    write(state, capabilities, state.group())?;
    Ok(Some(capabilities))
}

fn fat<F: Fs>(state: &Tree<F>) -> Error {
    let what = format!("{}; publish to a directory on ext4, xfs, btrfs or tmpfs", Weakness::Fat);
    Error::Unsupported { path: state.at().to_path_buf(), what }
}

fn check_able<F: Fs>(state: &Tree<F>, capabilities: Capabilities) -> Result<()> {
    let (flag, danger) = match capabilities {
        Capabilities { links: true, .. } | Capabilities { exchange: true, no_replace: true, .. } => return Ok(()),
        Capabilities { no_replace: false, .. } => {
            ("RENAME_NOREPLACE", "an entry cannot be added without the risk of overwriting another")
        }
        _ => ("RENAME_EXCHANGE", "an entry cannot be replaced without being missing for a moment"),
    };
    Err(Error::Unsupported {
        path: state.at().to_path_buf(),
        what: format!(
            "its file system has neither {flag} nor hard links, so {danger}; use ext4, xfs, btrfs, tmpfs or overlayfs"
        ),
    })
}

/// Without either flag entries get second names for a moment, and the kernel lets only the owner of a file give it one
/// (`fs.protected_hardlinks`).
pub(crate) fn check_shareable<F: Fs>(state: &Tree<F>, capabilities: Capabilities) -> Result<()> {
    if capabilities.exchange && capabilities.no_replace {
        return Ok(());
    }
    let what = "its file system lacks RENAME_EXCHANGE or RENAME_NOREPLACE, without which one user cannot publish over the files of \
                another: a shared store needs ext4, xfs, btrfs, tmpfs or overlayfs";
    Err(Error::Unsupported { path: state.at().to_path_buf(), what: what.into() })
}

/// Whether what is made is its maker's, and closed to others where that was asked for. Call with a state directory made just now.
pub(crate) fn check_kept<F: Fs>(state: &Tree<F>) -> Result<()> {
    let root = RelPath::root();
    let stat = state.fs.stat_dir(state.root()).map_err(state.io("read the attributes of", &root))?;
    let user = state.fs.user();
    let what = match stat {
        Stat { uid, .. } if uid != user => format!(
            "its file system gives to user {uid} what user {user} makes, so that nobody can tell whose the state is: mount it with \
             `uid={user}`, or without mapping users, or publish to a directory on ext4, xfs or btrfs"
        ),
        Stat { mode, .. } if mode & 0o022 != 0 => format!(
            "its file system keeps no modes: a directory that was made with mode 0700 has {mode:04o}, so that others could write to \
             the state. Mount it so that it keeps them (`permissions` of ntfs-3g, `metadata` of drvfs) or with `umask=022`, or \
             publish to a directory on ext4, xfs or btrfs"
        ),
        _ => return Ok(()),
    };
    Err(Error::Unsupported { path: state.at().to_path_buf(), what })
}

/// Tries what the file system can do, in a directory of its own.
fn probe<F: Fs>(state: &Tree<F>) -> Result<Capabilities> {
    let path = state_path(name::PROBE);
    state.remove(&path)?;
    make_dir(state, &path)?;
    let probe = state.below(&path)?;
    let capabilities = Probe { dir: &probe }.run()?;
    state.remove(&path)?;
    Ok(capabilities)
}

/// What a file system says that it did, and what it did: both are looked at. Files are told apart by their sizes here, for by their inode
/// numbers txfs tells them later.
struct Probe<'a, F: Fs> {
    dir: &'a Tree<F>,
}

const ONE: &str = "one";
const TWO: &str = "two";
const THREE: &str = "three";
const FOUR: &str = "four";
const DIRECTORY: &str = "directory";

impl<F: Fs> Probe<'_, F> {
    fn run(&self) -> Result<Capabilities> {
        let exchange = self.exchanges()?;
        let no_replace = self.refuses_to_replace()?;
        self.keeps_inodes()?;
        let links = self.links()?;
        if !links && !self.symlinks()? {
            return Err(fat(self.dir));
        }
        self.sets_modes()?;
        Ok(Capabilities { exchange, no_replace, links })
    }

    /// Makes a file of so many bytes.
    fn make(&self, name: &str, size: usize) -> Result<u64> {
        write_new(self.dir, &state_path(name), |mut file| file.write_all(&b"txfs"[..size]))?;
        Ok(self.look(name)?.map_or(0, |stat| stat.ino))
    }

    fn look(&self, name: &str) -> Result<Option<Stat>> {
        self.dir.stat(&state_path(name))
    }

    /// Renames, and says whether the file system has that call.
    fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<bool> {
        let dir = self.dir.root();
        let renamed = self.dir.fs.rename(dir, from.as_bytes(), dir, to.as_bytes(), mode);
        supported(renamed).map_err(self.dir.io("probe renaming in", &RelPath::root()))
    }

    fn is(&self, name: &str, size: u64, inode: u64) -> Result<bool> {
        match self.look(name)? {
            Some(stat) if stat.size == size && stat.ino == inode => Ok(true),
            Some(stat) if stat.size == size => Err(self.changes_inodes()),
            _ => Ok(false),
        }
    }

    /// Whether modes can be set: what is closed has to be opened to be removed, and what is published to get the mode that was built.
    fn sets_modes(&self) -> Result<()> {
        let (fs, directory) = (&self.dir.fs, state_path(DIRECTORY));
        make_dir(self.dir, &directory)?;
        self.sets_mode(DIRECTORY, 0o700, |mode| fs.set_dir_mode(&*self.dir.dir(&directory)?, mode))?;
        self.make(ONE, 1)?;
        let (file, _) = self.dir.open_file(&state_path(ONE))?;
        self.sets_mode(ONE, 0o600, |mode| fs.set_mode(&file, mode))
    }

    /// A file system that keeps no modes at all, and shows one for everything, shows none that differs from what is recorded.
    fn sets_mode(&self, name: &str, asked: u32, set: impl Fn(u32) -> io::Result<()>) -> Result<()> {
        // The kernel takes the set-id bits of a group that this user is not in.
        let shown = || self.look(name).map(|stat| stat.map_or(0, |stat| stat.mode & 0o777));
        let made = shown()?;
        for mode in [made & !0o222, made] {
            match set(mode) {
                Err(error) if is_unsupported(&error) => return Err(self.without_modes("refuses to change a mode")),
                set => set.map_err(self.dir.io("probe the modes in", &RelPath::root()))?,
            }
            if made & 0o700 == asked && shown()? != mode {
                return Err(self.without_modes("says that it changed a mode, and did not"));
            }
        }
        Ok(())
    }

    fn without_modes(&self, what: &str) -> Error {
        Error::Unsupported {
            path: self.dir.at().to_path_buf(),
            what: format!(
                "its file system {what}, so that txfs could not publish what was built as it was built, nor remove what is closed: mount \
                 it so that it changes modes, or publish to a directory on ext4, xfs, btrfs or tmpfs"
            ),
        }
    }

    fn exchanges(&self) -> Result<bool> {
        let (one, two) = (self.make(ONE, 1)?, self.make(TWO, 2)?);
        Ok(self.rename(ONE, TWO, RenameMode::Exchange)? && self.is(ONE, 2, two)? && self.is(TWO, 1, one)?)
    }

    fn refuses_to_replace(&self) -> Result<bool> {
        let (one, _) = (self.make(ONE, 1)?, self.make(TWO, 2)?);
        if !self.rename(ONE, THREE, RenameMode::NoReplace)? || !self.is(THREE, 1, one)? {
            return Ok(false);
        }
        let dir = self.dir.root();
        let refused = self.dir.fs.rename(dir, TWO.as_bytes(), dir, THREE.as_bytes(), RenameMode::NoReplace);
        Ok(refused.is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists))
    }

    fn keeps_inodes(&self) -> Result<()> {
        let one = self.make(ONE, 1)?;
        self.rename(ONE, THREE, RenameMode::Replace)?;
        match self.is(THREE, 1, one)? {
            true => Ok(()),
            false => Err(Error::Unsupported {
                path: self.dir.at().to_path_buf(),
                what: "its file system says that it renamed a file, and did not".into(),
            }),
        }
    }

    fn links(&self) -> Result<bool> {
        let one = self.make(ONE, 1)?;
        let linked = self.dir.fs.link(self.dir.root(), ONE.as_bytes(), self.dir.root(), FOUR.as_bytes());
        let linked = supported(linked).map_err(self.dir.io("probe linking in", &RelPath::root()))?;
        // One that shows the two names of a file as two files is of no use: which is which could not be told.
        Ok(linked && self.look(FOUR)?.is_some_and(|stat| stat.ino == one))
    }

    /// What has neither kind of link is a FAT, by whatever name and driver.
    fn symlinks(&self) -> Result<bool> {
        let made = self.dir.fs.make_symlink(self.dir.root(), b"link", b"target");
        supported(made).map_err(self.dir.io("probe linking in", &RelPath::root()))
    }

    fn changes_inodes(&self) -> Error {
        Error::Unsupported {
            path: self.dir.at().to_path_buf(),
            what: "its file system gives a file another inode number when it is renamed, by which txfs tells what it published: \
                   publish to the file system below it, or to ext4, xfs, btrfs, tmpfs or overlayfs"
                .into(),
        }
    }
}

fn supported(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if is_unsupported(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether entries can be moved between state and output, in both directions: project quotas, subvolumes and layers can forbid it where
/// the device is the same. It is tried with entries of the name that no commit publishes and no scan enters.
fn check_reach<F: Fs>(state: &Tree<F>, output: &Output<F>) -> Result<()> {
    let there = match (output.place, output.open()?) {
        _ if !state.fs.may_refuse_moves() => return Ok(()),
        (Place::Inside, _) | (Place::Beside, None) => return Ok(()),
        (_, Some(output)) => output,
        // The stage will become the output.
        (_, None) => output.holder.clone(),
    };
    let path = state_path(name::PROBE);
    state.remove(&path)?;
    make_dir(state, &path)?;
    let here = state.below(&path)?;
    let moved = Reach { here: &here, there: &there }.try_all();
    state.remove(&path)?;
    match moved {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            Err(Error::OutOfReach { path: state.at().to_path_buf(), output: output.path.clone() })
        }
        // Whatever else stands against it is no matter of places.
        _ => Ok(()),
    }
}

struct Reach<'a, F: Fs> {
    here: &'a Tree<F>,
    there: &'a Tree<F>,
}

impl<F: Fs> Reach<'_, F> {
    fn try_all(&self) -> io::Result<()> {
        let (fs, here, there) = (&self.here.fs, self.here.root(), self.there.root());
        if fs.stat(there, RESERVED).is_ok() {
            self.clear();
        }
        let go = || {
            fs.make_dir(here, b"made-here", 0o700)?;
            fs.rename(here, b"made-here", there, RESERVED, RenameMode::NoReplace).or_else(|error| {
                if is_unsupported(&error) {
                    fs.rename(here, b"made-here", there, RESERVED, RenameMode::Replace)
                } else {
                    Err(error)
                }
            })?;
            fs.rename(there, RESERVED, here, b"made-here", RenameMode::Replace)?;
            drop(fs.create_file(here, b"file", 0o600)?);
            fs.rename(here, b"file", there, RESERVED, RenameMode::Replace)?;
            fs.rename(there, RESERVED, here, b"file", RenameMode::Replace)?;
            fs.make_dir(there, RESERVED, 0o700)?;
            fs.rename(there, RESERVED, here, b"made-there", RenameMode::Replace)
        };
        go().inspect_err(|_| self.clear())
    }

    /// Takes away what a probe left: nothing is in it. A state that is there is not empty.
    fn clear(&self) {
        let (fs, there) = (&self.there.fs, self.there.root());
        let _ = match fs.stat(there, RESERVED) {
            Ok(stat) if stat.is_dir() => fs.remove_dir(there, RESERVED),
            Ok(stat) if stat.kind == Some(Kind::File) && stat.size == 0 => fs.remove_file(there, RESERVED),
            _ => Ok(()),
        };
    }
}
