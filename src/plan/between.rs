//! What readers see change from one generation to another.

use std::cmp::Ordering;

use super::{Change, ChangeKind};
use crate::error::Result;
use crate::format::manifest::Entry;
use crate::format::manifest::inventory::Inventory;
use crate::fs::Fs;
use crate::fs::compiled::{compiled, same_ref};
use crate::store::snapshot::Snapshot;

impl<F: Fs> Snapshot<F> {
    /// What differs from another generation, path for path and in order of the tree: what is here and not there is added. `None` stands for
    /// nothing, as before the first generation. It costs what differs, and a look at the inner nodes of both manifests.
    ///
    /// ```
    /// use txfs::{BeginOptions, ChangeKind, CommitOptions, Store};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let store = Store::open(dir.path().join("dist"))?;
    /// let mut snapshots = Vec::new();
    /// for text in ["one", "two"] {
    ///     let mut transaction = store.begin(BeginOptions::default())?;
    ///     transaction.write("about.html", "About")?;
    ///     transaction.write("index.html", text)?;
    ///     transaction.commit(&CommitOptions::default())?;
    ///     snapshots.push(store.snapshot()?);
    /// }
    /// let changes = snapshots[1].changes_since(Some(&snapshots[0]))?;
    /// assert_eq!(changes.len(), 1);
    /// assert_eq!((changes[0].kind, changes[0].path.as_bytes()), (ChangeKind::Modified, &b"index.html"[..]));
    /// assert_eq!(snapshots[0].changes_since(None)?.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// A manifest cannot be read, or is damaged.
    pub fn changes_since(&self, before: Option<&Self>) -> Result<Vec<Change>> {
        compiled!(F, (
            now: &Snapshot = same_ref(self),
            before: Option<&Snapshot> = before.map(same_ref)
        ) -> Result<Vec<Change>> {
            now.changes_between(before)
        });
        self.changes_between(before)
    }

    fn changes_between(&self, before: Option<&Self>) -> Result<Vec<Change>> {
        let nothing = Inventory::nothing();
        between(before.map_or(&nothing, Self::inventory), self.inventory())
    }
}

/// What readers see change from one inventory to another.
pub(crate) fn between<F: Fs>(before: &Inventory<F>, now: &Inventory<F>) -> Result<Vec<Change>> {
    let [now, before] = now.apart_from(before)?;
    Ok(merge(before, now))
}

fn merge(before: Vec<Entry>, now: Vec<Entry>) -> Vec<Change> {
    let (mut before, mut now) = (before.into_iter().peekable(), now.into_iter().peekable());
    let mut changes = Vec::new();
    loop {
        let first = match (before.peek(), now.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.path.cmp(&new.path),
        };
        let old = if first.is_le() { before.next() } else { None };
        let new = if first.is_ge() { now.next() } else { None };
        let change = match (old, new) {
            (old, Some(new)) => ChangeKind::between(old.as_ref().map(|old| &old.object), &new.object)
                .map(|kind| Change { kind, path: new.path, entry: new.object.kind }),
            (Some(old), None) => Some(Change { kind: ChangeKind::Removed, path: old.path, entry: old.object.kind }),
            (None, None) => None,
        };
        changes.extend(change);
    }
}
