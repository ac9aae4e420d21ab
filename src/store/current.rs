//! The current generation: HEAD, and the manifest that it names; and the next ones, written.
//!
//! Invariants (journal-spec.md, "Manifest and HEAD"):
//! 1. HEAD and its manifest are read, handed on and believed together: [`Current`] has both.
//! 2. A manifest is written beside what is current, or behind its end; HEAD alone makes it current.

use crate::error::{Error, Result};
use crate::format::journal::record::Begin;
use crate::format::manifest::inventory::Inventory;
use crate::format::manifest::node::Subtree;
use crate::format::manifest::writer::Edit;
use crate::format::manifest::{self, Extent, Head, Info};
use crate::fs::Fs;
use crate::fs::stream::Stream;
use crate::path::RelPath;
use crate::store::Store;
use crate::store::layout::{manifest_path, name, open_trusted, state_path};

/// What is published now.
pub(crate) struct Current<F: Fs> {
    head: Option<Head>,
    pub(crate) inventory: Inventory<F>,
}

impl<F: Fs> Current<F> {
    /// Generation 0: nothing has been published.
    pub(crate) fn nothing() -> Self {
        Self { head: None, inventory: Inventory::nothing() }
    }

    /// What was current then.
    pub(crate) fn then(head: Head, inventory: Inventory<F>) -> Self {
        Self { head: Some(head), inventory }
    }

    /// Its number.
    pub(crate) fn generation(&self) -> u64 {
        self.head().map_or(0, |head| head.info.generation)
    }

    /// `None` of generation 0.
    pub(crate) fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }
}

impl<F: Fs> Store<F> {
    /// The current generation; `None` when nothing has been published.
    ///
    /// # Errors
    /// HEAD cannot be read, or is damaged.
    pub fn head(&self) -> Result<Option<Head>> {
        let path = state_path(name::HEAD);
        let Some(stream) = open_trusted(&self.state, &path)? else { return Ok(None) };
        Head::read(stream).map(Some).map_err(|damage| self.damaged(&path, damage))
    }

    /// The current generation, and what it publishes.
    pub(crate) fn current(&self) -> Result<Current<F>> {
        self.current_of(self.head()?)
    }

    /// The same, of a HEAD that was read.
    pub(crate) fn current_of(&self, head: Option<Head>) -> Result<Current<F>> {
        let Some(head) = head else { return Ok(Current::nothing()) };
        let inventory = self.inventory(&head)?;
        Ok(Current { head: Some(head), inventory })
    }

    /// What the generation `head` publishes.
    pub(crate) fn inventory(&self, head: &Head) -> Result<Inventory<F>> {
        let inventory = self.open_manifest(head.extent, head.root())?;
        if inventory.totals() != head.totals {
            let path = manifest_path(head.extent.file).under(self.state.at());
            return Err(Error::corrupt(path, "its totals are not those that HEAD gives"));
        }
        Ok(inventory)
    }

    /// What the generation publishes that a journal begins on.
    pub(crate) fn base_inventory(&self, begin: &Begin) -> Result<Inventory<F>> {
        if begin.base == 0 {
            return Ok(Inventory::nothing());
        }
        self.open_manifest(begin.base_extent, begin.base_extent.root(begin.base_manifest))
    }

    fn open_manifest(&self, extent: Extent, root: Subtree) -> Result<Inventory<F>> {
        let path = manifest_path(extent.file);
        let at = path.under(self.state.at());
        match open_trusted(&self.state, &path)? {
            Some(stream) => Inventory::open(stream, at, root),
            None => Err(Error::corrupt(at, "it is missing")),
        }
    }

    /// Applies `edits` (`count` of them, ascending) to the manifest of `base`, writes the result, and returns the HEAD that names it; nothing
    /// is durable yet.
    pub(crate) fn write_manifest(
        &self,
        base: &Current<F>,
        count: usize,
        edits: impl Iterator<Item = Edit>,
        info: Info,
    ) -> Result<Head> {
        let Current { head, inventory } = base;
        let (file, root) = match head {
            Some(head) if manifest::writer::appends(inventory, count) => {
                let edits: Vec<Edit> = edits.collect();
                let path = manifest_path(head.extent.file);
                let stream = self.open_to_append(&path)?;
                let at = path.under(self.state.at());
                (head.extent.file, manifest::writer::append(inventory, &edits, self.fanout, stream, at)?)
            }
            _ => {
                let path = manifest_path(info.generation);
                let at = path.under(self.state.at());
                let stream = self.write_new(&path, Ok)?;
                (info.generation, manifest::writer::write_whole(inventory, edits, self.fanout, stream, at)?)
            }
        };
        Ok(Head::new(info, file, &root))
    }

    fn open_to_append(&self, path: &RelPath) -> Result<Stream<F>> {
        let file = self.state.parent(path).and_then(|dir| self.fs.open_write(&dir, path.name()));
        Ok(Stream { fs: self.fs.clone(), file: file.map_err(self.state.io("write", path))? })
    }
}
