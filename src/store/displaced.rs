//! Where a commit put what it displaced: in `previous/N`, by paths of the output.

use std::collections::BTreeMap;

use crate::format::identity::Object;
use crate::fs::Fs;
use crate::fs::tree::Tree;
use crate::path::RelPath;

/// What a generation displaced.
pub(crate) struct Displaced<F: Fs> {
    /// `previous/N`.
    pub(crate) tree: Tree<F>,
    /// Where each path of the output lies in `tree`, and what was there.
    pub(crate) places: BTreeMap<RelPath, (RelPath, Object)>,
}

impl<F: Fs> Displaced<F> {
    /// Where a path lies that was displaced, by itself or with a directory.
    pub(crate) fn place(&self, path: &RelPath) -> Option<RelPath> {
        let (above, (place, _)) = path.nearest(|until| self.places.range(..=until).next_back())?;
        Some(path.seen_from(above).map_or_else(|| place.clone(), |rest| rest.within(place)))
    }
}
