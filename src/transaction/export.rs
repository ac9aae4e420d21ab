//! A generation, copied to where the user wants it.
//!
//! Invariants:
//! 1. What is copied is what was published, by identity or by content; otherwise the copy fails (G13).
//! 2. Only the directory of the user's is written to. It is no transaction: what fails leaves a part of it there.

use std::path::Path;

use crate::error::Result;
use crate::format::identity::Like;
use crate::format::manifest::{Entry, Totals};
use crate::fs::compiled::{compiled, same_ref};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind};
use crate::stage::digest;
use crate::store::snapshot::Snapshot;
use crate::transaction::receiver::{Receiver, Staging};

impl<F: Fs> Snapshot<F> {
    /// Copies all that the generation publishes into a directory of yours, which has to be there and to be empty: with modes, times and
    /// attributes, owner and group as far as this user may give them. Returns how much was copied. Nothing of it is made durable.
    ///
    /// # Errors
    /// As [`Snapshot::open`], of whatever is not as it was published; the directory cannot be written to. A part of the copy is there then.
    pub fn copy_to(&self, dir: impl AsRef<Path>) -> Result<Totals> {
        self.copy_to_any(dir.as_ref())
    }

    fn copy_to_any(&self, dir: &Path) -> Result<Totals> {
        compiled!(F, (snapshot: &Snapshot = same_ref(self), dir: &Path = dir) -> Result<Totals> {
            snapshot.copy_entries_to(dir)
        });
        self.copy_entries_to(dir)
    }

    fn copy_entries_to(&self, dir: &Path) -> Result<Totals> {
        let target = Tree::open(self.fs(), dir)?;
        let places = self.places()?;
        let mut staging = Staging::new(&target);
        for (Entry { path, object }, from, place) in &places {
            from.check_interrupt(place)?;
            let stat = from.stat(place)?.filter(|stat| stat.kind == Some(object.kind));
            let Some(stat) = stat else { return Err(self.not_as_published(path)) };
            if object.kind == Kind::Directory {
                staging.dir(path.clone(), object.mode, from, place.clone())?;
                continue;
            }
            if digest::find(from, place, object, &stat, Like::Content)?.is_none() {
                return Err(self.not_as_published(path));
            }
            staging.entry(path, object, from, place)?;
        }
        staging.close()?;
        Ok(self.totals())
    }
}
