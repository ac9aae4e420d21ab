//! A second look at what moves along with staged directories, while its commit is prepared and made durable.
//!
//! Invariants (journal-spec.md, "Evidence"):
//! 1. What is committed is what was digested. What an operation moves by itself is looked at when it is moved.
//! 2. Whoever changes any of it after the second look leaves a later time than anything had that is committed, by which recovery
//!    knows that somebody else did. So does whoever changes what is moved by itself once that is reported.
//!
//! Nothing is changed here but a time of the transaction's directory, so a crash inside changes nothing.

use std::io;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::identity::Object;
use crate::format::journal::record::Operation;
use crate::format::manifest::writer::Edit;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Timestamp};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::store::transaction_dir::{COPY, STAGE, part};

/// Microseconds that are waited for the kernel's clock for files to go on, one after the other: its ticks are of 1 to 10 ms.
const PAUSES: [u64; 6] = [500, 1000, 2000, 4000, 8000, 8000];

/// What there is to look at, and when it was changed last.
pub(crate) struct SecondLook<'a, F: Fs> {
    transaction: Tree<F>,
    /// How the manifest changes, ascending. What is below a directory that moves is in it.
    edits: &'a [Edit],
    /// The directories that move, none below another.
    directories: Vec<(RelPath, Object)>,
    last_change: Timestamp,
}

impl<'a, F: Fs> SecondLook<'a, F> {
    /// At what was staged in `transaction`, of which nothing was changed after `last_change`.
    pub(crate) fn at(
        transaction: &Tree<F>,
        edits: &'a [Edit],
        operations: &[Operation],
        last_change: Timestamp,
    ) -> Self {
        let moved = operations.iter().filter_map(Operation::moved_in);
        let directories = moved.filter(|(_, object)| object.kind == Kind::Directory);
        let directories = directories.map(|(path, object)| (path.clone(), *object)).collect();
        Self { transaction: transaction.clone(), edits, directories, last_change }
    }

    /// Looks once more at everything.
    ///
    /// # Errors
    /// Something was changed or removed since it was digested.
    pub(crate) fn take(&self) -> Result<()> {
        self.wait_for_later_time()?;
        if self.directories.is_empty() || left_out(Mutant::SecondLook) {
            return Ok(());
        }
        let stage = self.transaction.below(&part(STAGE))?;
        self.directories.iter().try_for_each(|(path, object)| {
            expect_same(&stage, path, object)?;
            let below = &self.edits[self.edits.partition_point(|edit| edit.path <= *path)..];
            let below = below.iter().take_while(|edit| path.is_root() || edit.path.is_below(path));
            let mut entries = below.filter_map(|edit| Some((&edit.path, edit.object.as_ref()?)));
            entries.try_for_each(|(path, object)| expect_same(&stage, path, object))
        })
    }

    /// Until whatever is written to gets a later time than what is committed has. A change of a directory of our own tells: what is
    /// changed after it gets no earlier time. On Linux before 6.13 that takes a tick of a clock, if anything was written within
    /// this one. Since then its own file systems have a finer clock for what was looked at before it is changed again: the second
    /// change gets a time of that, and so no other change an earlier one.
    fn wait_for_later_time(&self) -> Result<()> {
        let (fs, dir, root) = (&self.transaction.fs, self.transaction.root(), RelPath::root());
        let io = || self.transaction.io("change the attributes of", &root);
        let before = fs.stat_dir(dir).map_err(io())?;
        let copy = part(COPY);
        let change = || match before.uid == fs.user() {
            true => fs.set_dir_mode(dir, before.mode),
            // It is another member's, whose mode only he can set.
            false => fs.create_file(dir, copy.as_bytes(), 0o600).and_then(|_| fs.remove_file(dir, copy.as_bytes())),
        };
        let is_later = || {
            let changed = change().and_then(|()| fs.stat_dir(dir)).map_err(io())?;
            Ok::<_, Error>(changed.ctime > self.last_change || left_out(Mutant::WaitForTick))
        };
        if is_later()? || is_later()? {
            return Ok(());
        }
        for pause in PAUSES {
            fs.pause(Duration::from_micros(pause));
            if is_later()? {
                return Ok(());
            }
        }
        // A clock that was set back is not waited for.
        Ok(())
    }
}

fn expect_same<F: Fs>(stage: &Tree<F>, path: &RelPath, object: &Object) -> Result<()> {
    if stage.stat(path)?.is_some_and(|stat| object.is_untouched(&stat)) {
        return Ok(());
    }
    let changed = io::Error::other("it was changed after it was read: wait until the build has finished");
    Err(stage.io("publish", path)(changed))
}
