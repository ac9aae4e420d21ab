//! Directories that a commit displaced, made anew: what was in them stays, and no watcher knows them any more.
//!
//! Whoever watches a directory of the output, by inotify, goes on watching it when it is displaced, as a rule under the name that it
//! had. When it is emptied, a generation later, the kernel tells him so; and by then something else may be at that name, whose files he
//! would take for gone. So it is emptied while the name leads nowhere: before anything can be committed after it.
//!
//! Invariants (journal-spec.md, "Layout"):
//! 1. It is done after a commit was settled, when no recovery asks for the inodes of what it displaced, and by whoever sweeps: before
//!    the next transaction begins.
//! 2. Everything is at one of two places at every instant, where the commit left it or in `kept/I`, and whoever looks for what
//!    operation I displaced looks at both.
//! 3. Of a directory all comes back but its inode and its times: owner, group, attributes, mode.
//!
//! A crash inside leaves some of it at either place; whoever sweeps next goes on.

use crate::error::{Error, Result};
use crate::format::identity::Object;
use crate::format::manifest::inventory::Inventory;
use crate::fs::tree::{Named, Tree};
use crate::fs::{Fs, Kind, RenameMode, Stat};
use crate::path::RelPath;
use crate::stage::copy::Source;
use crate::store::layout::make_dir;
use crate::store::transaction_dir::{KEPT, part};

/// Makes a directory that was displaced anew in `previous`, the directory of its transaction, if it is there.
///
/// # Errors
/// Something cannot be moved. What was displaced is all there.
pub(crate) fn make_anew<F: Fs>(previous: &Tree<F>, moved: &Moving<'_, F>) -> Result<()> {
    if previous.stat(moved.from)?.is_some_and(|stat| stat.is_dir()) {
        make_dir(previous, &part(KEPT))?;
        Moved { previous, moved, directories: Vec::new() }.all()?;
    }
    Ok(())
}

/// A directory that was displaced.
pub(crate) struct Moving<'a, F: Fs> {
    pub(crate) from: &'a RelPath,
    pub(crate) to: &'a RelPath,
    /// Where it was in the output, and what was published there.
    pub(crate) original: &'a RelPath,
    pub(crate) old: &'a Object,
    /// All that was published.
    pub(crate) before: &'a Inventory<F>,
}

/// One on its way.
struct Moved<'a, F: Fs> {
    previous: &'a Tree<F>,
    moved: &'a Moving<'a, F>,
    /// Itself and each directory below, and the mode that it is to have.
    directories: Vec<(RelPath, u32)>,
}

impl<F: Fs> Moved<'_, F> {
    fn all(mut self) -> Result<()> {
        let Self { previous, moved: &Moving { from, to, old, .. }, .. } = self;
        self.directory(&RelPath::root(), old.mode)?;
        let tree = previous.below(from)?;
        tree.walk_names(
            &RelPath::root(),
            |_| true,
            |Named { path, kind }| match kind {
                Some(Kind::Directory) => self.directory(&path, self.mode(&path)?),
                _ => self.entry(&path.within(from), &path.within(to)),
            },
        )?;
        // Modes and attributes come last: into a closed directory nothing can be moved.
        for (path, mode) in self.directories.iter().rev() {
            let to = path.within(to);
            Source::published(previous).liken_dir(&path.within(from), previous, &to)?;
            self.set_mode(&to, *mode)?;
        }
        let mut emptied = self.directories.iter().rev().map(|(path, _)| path.within(from));
        emptied.try_for_each(|path| previous.remove_entry(&path, Kind::Directory))
    }

    /// One that another member made, who was interrupted, every member can use as it is; the journal and the manifest say its mode.
    fn set_mode(&self, to: &RelPath, mode: u32) -> Result<()> {
        let previous = self.previous;
        let is_anothers = |stat: Stat| stat.uid != previous.fs.user();
        if previous.group().is_some() && previous.stat(to)?.is_some_and(is_anothers) {
            return Ok(());
        }
        previous.set_dir_mode(to, mode)
    }

    /// The mode that a directory has; an attempt that was interrupted may have opened it.
    fn mode(&self, path: &RelPath) -> Result<u32> {
        let found = self.previous.stat(&path.within(self.moved.from))?.map_or(0o700, |stat| stat.mode);
        let published = match self.moved.before.get(&path.within(self.moved.original)) {
            Err(Error::Corrupt { .. }) => None,
            published => published?.map(|object| object.mode),
        };
        Ok(published.filter(|published| published | 0o700 == found).unwrap_or(found))
    }

    fn directory(&mut self, path: &RelPath, mode: u32) -> Result<()> {
        let (from, to) = (path.within(self.moved.from), path.within(self.moved.to));
        make_dir(self.previous, &to)?;
        for opened in [&from, &to] {
            self.previous.make_writable(opened)?;
        }
        self.directories.push((path.clone(), mode));
        Ok(())
    }

    fn entry(&self, from: &RelPath, to: &RelPath) -> Result<()> {
        let previous = self.previous;
        match previous.stat(to)?.zip(previous.stat(from)?) {
            None => {}
            // A crash can leave both names of a rename, and renaming one to the other would do nothing.
            Some((there, here)) if there.is_same_entry(&here) => return previous.remove_entry(from, Kind::File),
            Some(_) => return Err(previous.io("move", from)(std::io::ErrorKind::AlreadyExists.into())),
        }
        let moved = previous.parent(from).and_then(|source| {
            // The tree keeps one directory open, and both are asked for all the time.
            let target = previous.fs.open_dir(previous.root(), &to.parent())?;
            previous.fs.rename(&source, from.name(), &target, to.name(), RenameMode::Replace)
        });
        moved.map_err(previous.io("move", from))
    }
}
