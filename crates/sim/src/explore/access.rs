//! What a user may not read, search or write: another process takes access away, from an entry of the output or of a stage, and
//! gives it back when a recovery says that it cannot go on.
//!
//! 1. A commit that meets it is refused before anything is changed, or succeeds, or is undone; and what it reports is true.
//! 2. A recovery that meets it succeeds, or fails and loses nothing: it does not say "unchanged" of an output between two generations,
//!    and with access given back the next one comes to what is allowed.
//!
//! Left out, since recovery refuses there until it is told to undo: after a crash, access to a staged file that is a copy of one with other
//! names. The crash may have taken its time, which was set back; whoever changes its mode then makes it look as if it was written to later.

use std::path::{Path, PathBuf};

use txfs::Kind;

use super::oracle::{Generation, Oracle};
use super::random::Random;
use super::world::{OUTPUT, STATE};
use crate::{SimFs, Stranger, View};

/// What is left to the owner of a directory: one of reading, searching and writing is not among it.
const DIRECTORIES: [u32; 6] = [0o500, 0o300, 0o600, 0o000, 0o555, 0o400];

/// The same of a file that nobody may read.
const FILES: [u32; 2] = [0o000, 0o200];

/// An entry from which access was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closed {
    ino: u64,
    pub(super) mode: u32,
    was: u32,
    /// It is the output itself.
    pub(super) is_output: bool,
}

impl Closed {
    /// An entry of the output, or of what a transaction has staged or taken out, and what becomes of it.
    pub(super) fn drawn(view: View<'_>, random: &mut Random, staged_files: bool) -> Option<(PathBuf, Self)> {
        let entries = places(view).into_iter().filter_map(|path| {
            let stat = view.stat(&path)?;
            let may = match stat.kind? {
                Kind::Directory => true,
                Kind::File => staged_files || path.starts_with(OUTPUT),
                Kind::Symlink => false,
            };
            may.then_some((path, stat))
        });
        let entries: Vec<_> = entries.collect();
        let (path, stat) = entries.get(random.below(entries.len() as u64) as usize)?.clone();
        let modes = if stat.is_dir() { &DIRECTORIES[..] } else { &FILES[..] };
        let mode = modes[random.below(modes.len() as u64) as usize];
        let is_output = path == Path::new(OUTPUT);
        (mode != stat.mode).then_some((path, Self { ino: stat.ino, mode, was: stat.mode, is_output }))
    }

    pub(super) fn take(self, fs: &SimFs, path: &Path) {
        fs.stranger_now(path, &Stranger::SetsMode(self.mode));
    }

    /// Where the entry is now, if nobody has given it access again. (Its owner opens a directory to change what is in it.)
    pub(super) fn place(self, fs: &SimFs) -> Option<PathBuf> {
        let is_it = |view: View<'_>, path: &PathBuf| {
            let stat = view.stat(path).filter(|stat| stat.ino == self.ino);
            let is_opened = |stat: &txfs::fs::Stat| stat.mode == self.mode | if stat.is_dir() { 0o700 } else { 0o600 };
            stat.is_some_and(|stat| stat.mode == self.mode || is_opened(&stat))
        };
        fs.look(|view| places(view).into_iter().find(|path| is_it(view, path)))
    }

    /// Gives its owner all access, as the hints say.
    pub(super) fn open_to_owner(self, fs: &SimFs) {
        let Some(place) = self.place(fs) else { return };
        let is_dir = fs.look(|view| view.stat(&place)).is_some_and(|stat| stat.is_dir());
        let mode = self.mode | if is_dir { 0o700 } else { 0o600 };
        fs.stranger_now(place, &Stranger::SetsMode(mode));
    }

    /// Gives everything back: the mode that the entry had; or one that it is published with, where recovery or a crash had taken that. Of
    /// the generation that `head` says, where it does.
    pub(super) fn give_back(self, fs: &SimFs, oracle: &Oracle, head: Option<Generation>) {
        let Some(place) = self.place(fs) else { return };
        // Which one is found out beside: a crash of the recovery that follows would bring back what was only tried.
        let tried = fs.fork();
        let is_it = |mode: &u32| {
            tried.stranger_now(&place, &Stranger::SetsMode(*mode));
            let found = oracle.generation(&tried).ok();
            found.is_some() && (head.is_none() || found == head || found == Some(Generation::Either))
        };
        let modes = if place.starts_with(OUTPUT) { self.modes_at(&place, oracle) } else { Vec::new() };
        let mode = modes.into_iter().find(is_it).unwrap_or(self.was);
        fs.stranger_now(&place, &Stranger::SetsMode(mode));
    }

    /// The modes that an entry of the output may be meant to have: as it is, as it was, and as it is published in either generation.
    pub(super) fn modes_at(self, place: &Path, oracle: &Oracle) -> Vec<u32> {
        let mut modes = vec![self.mode, self.was];
        modes.extend(oracle.modes_of(place));
        modes
    }
}

/// The output and what is in it; and what the directories of transactions hold.
fn places(view: View<'_>) -> Vec<PathBuf> {
    let below = |root: &str| view.tree(root).into_keys().map(|path| path.under(Path::new(root))).collect::<Vec<_>>();
    let mut places = below(OUTPUT);
    let is_of_transaction = |path: &PathBuf| {
        let part = path.strip_prefix(STATE).ok().and_then(|path| path.components().nth(2));
        part.is_some_and(|part| ["stage", "removed"].iter().any(|name| part.as_os_str() == *name))
    };
    for directory in ["tx", "previous"] {
        places.extend(below(&format!("{STATE}/{directory}")).into_iter().filter(is_of_transaction));
    }
    places
}
