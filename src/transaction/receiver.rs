//! Who receives a generation that is put together again: a stage, or a list of what the stage would have.
//!
//! Invariant: both are told the same, so that what is said of going back is what is done then. The list changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::format::identity::Object;
use crate::format::manifest::Entry;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Stat};
use crate::path::RelPath;
use crate::stage::copy::{Looks, NewDirs, Source};
use crate::stage::digest;

/// What is told where each entry comes from.
pub(super) trait Receiver<'a, F: Fs> {
    /// A directory of that mode, like the one at `original`. One that was named before stays as it is.
    fn dir(&mut self, path: RelPath, mode: u32, from: &'a Tree<F>, original: RelPath) -> Result<()>;
    /// The file or link at `place`, which was recorded as `old`.
    fn entry(&mut self, path: &RelPath, old: &Object, from: &'a Tree<F>, place: &RelPath) -> Result<()>;
}

/// A stage.
pub(super) struct Staging<'a, F: Fs> {
    stage: &'a Tree<F>,
    made: NewDirs<'a, F>,
}

impl<'a, F: Fs> Staging<'a, F> {
    pub(super) fn new(stage: &'a Tree<F>) -> Self {
        Self { stage, made: NewDirs::new(stage) }
    }

    /// When all is there.
    pub(super) fn close(&mut self) -> Result<()> {
        self.made.close()
    }
}

impl<'a, F: Fs> Receiver<'a, F> for Staging<'a, F> {
    fn dir(&mut self, path: RelPath, mode: u32, from: &'a Tree<F>, original: RelPath) -> Result<()> {
        self.made.make(path, mode, Source::published(from), original)
    }

    fn entry(&mut self, path: &RelPath, old: &Object, from: &'a Tree<F>, place: &RelPath) -> Result<()> {
        if old.kind == Kind::Symlink {
            return Source::published(from).copy_symlink(place, self.stage, path);
        }
        let looks = Looks { mode: old.mode, ..Looks::of(&look(from, place)?) };
        Source::published(from).copy_file(place, looks, self.stage, path)
    }
}

/// A list.
#[derive(Default)]
pub(super) struct Noting {
    entries: BTreeMap<RelPath, Object>,
}

impl Noting {
    pub(super) fn paths(&self) -> BTreeSet<RelPath> {
        self.entries.keys().cloned().collect()
    }

    /// Ascending.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries.into_iter().map(|(path, object)| Entry { path, object }).collect()
    }

    fn note(&mut self, path: RelPath, object: Object) {
        self.entries.entry(path).or_insert(object);
    }
}

impl<'a, F: Fs> Receiver<'a, F> for Noting {
    fn dir(&mut self, path: RelPath, mode: u32, _: &'a Tree<F>, _: RelPath) -> Result<()> {
        self.note(path, directory(mode));
        Ok(())
    }

    fn entry(&mut self, path: &RelPath, old: &Object, from: &'a Tree<F>, place: &RelPath) -> Result<()> {
        let found = as_it_is(from, place, old, &look(from, place)?)?;
        let mode = if old.kind == Kind::File { old.mode } else { found.mode };
        self.note(path.clone(), Object { mode, ..found });
        Ok(())
    }
}

/// A directory that a stage would have: it has no inode yet. Nobody asks for that where a plan is only told.
fn directory(mode: u32) -> Object {
    let (size, digest, ino, mtime) = Default::default();
    Object { kind: Kind::Directory, mode, size, digest, ino, mtime }
}

fn look<F: Fs>(tree: &Tree<F>, path: &RelPath) -> Result<Stat> {
    let gone = || tree.io("read the attributes of", path)(std::io::ErrorKind::NotFound.into());
    tree.stat(path)?.ok_or_else(gone)
}

/// What a copy of it would be; what is as it was recorded is not read.
fn as_it_is<F: Fs>(tree: &Tree<F>, path: &RelPath, recorded: &Object, stat: &Stat) -> Result<Object> {
    tree.check_interrupt(path)?;
    match stat.kind {
        Some(Kind::Directory) => Ok(Object::directory(stat)),
        Some(kind) if kind == recorded.kind && recorded.is(stat) => Ok(Object::new(kind, stat, recorded.digest)),
        Some(kind) => digest::object(tree, path, kind, stat),
        None => Err(Error::UnsupportedKind { path: path.under(tree.at()) }),
    }
}
