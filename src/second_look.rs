//! A second look at what moves along with staged directories, while its commit is prepared and made durable.
//!
//! Invariants (journal-spec.md, "Evidence"):
//! 1. What is committed is what was digested. What an operation moves by itself is looked at when it is moved.
//! 2. No file that is committed has a later time than the commit, unless its time has yet to come; and whoever changes any of it
//!    after the second look leaves a later one. By that recovery knows that somebody else did.
//!
//! Nothing is changed here, so a crash inside changes nothing.

use std::io;
use std::time::Duration;

use crate::error::Result;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Timestamp};
use crate::journal::record::Operation;
use crate::manifest::Object;
use crate::manifest::writer::Edit;
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::txdir::{STAGE, part};

/// More than a tick of the kernel's clock for files, which is of 1 to 10 ms, and than what a file system cuts off of a time that has
/// fractions of a second. So long is waited, at most, for that clock to go on.
const TICK: Duration = Duration::from_millis(20);

/// The time of a commit. It is not before what it commits was changed last, which `ctime` says: a tool may have set the time of a file
/// back since, and a crash can lose that. Other than that it lies far enough back for every file system to give what is written from now
/// on a later one, without anybody being waited for.
pub(crate) fn time_of_commit<F: Fs>(
    fs: &F,
    edits: &[Edit],
    operations: &[Operation],
    last_change: Timestamp,
) -> Timestamp {
    let (now, begin) = (fs.now(), fs.file_time().earlier(TICK));
    let moved = operations.iter().filter_map(Operation::moved_in).map(|(_, object)| object);
    let committed = edits.iter().filter_map(|edit| edit.object.as_ref()).chain(moved);
    // A tool may set times that are still to come: they tell nothing.
    let times = committed.map(|object| object.mtime).filter(|time| *time <= now && !left_out(Mutant::TimeOfFiles));
    let last_change = Some(last_change).filter(|time| *time <= now && !left_out(Mutant::TimeOfChanges));
    times.chain(last_change).fold(begin, Timestamp::max)
}

/// What there is to look at, and the time of the commit.
pub(crate) struct SecondLook<'a, F: Fs> {
    transaction: Tree<F>,
    /// How the manifest changes, ascending. What is below a directory that moves is in it.
    edits: &'a [Edit],
    /// The directories that move, none below another.
    directories: Vec<(RelPath, Object)>,
    committed: Timestamp,
}

impl<'a, F: Fs> SecondLook<'a, F> {
    /// `None` where nothing moves along with anything.
    pub(crate) fn at(
        transaction: &Tree<F>,
        edits: &'a [Edit],
        operations: &[Operation],
        committed: Timestamp,
    ) -> Option<Self> {
        let moved = operations.iter().filter_map(Operation::moved_in);
        let directories = moved.filter(|(_, object)| object.kind == Kind::Directory);
        let directories: Vec<_> = directories.map(|(path, object)| (path.clone(), *object)).collect();
        let nothing = directories.is_empty() || left_out(Mutant::SecondLook);
        (!nothing).then(|| Self { transaction: transaction.clone(), edits, directories, committed })
    }

    /// Looks once more at everything.
    ///
    /// # Errors
    /// Something was changed or removed since it was digested.
    pub(crate) fn take(&self) -> Result<()> {
        self.wait_for_tick();
        let stage = self.transaction.below(&part(STAGE))?;
        self.directories.iter().try_for_each(|(path, object)| {
            expect_same(&stage, path, object)?;
            let below = &self.edits[self.edits.partition_point(|edit| edit.path <= *path)..];
            let below = below.iter().take_while(|edit| path.is_root() || edit.path.is_below(path));
            let mut entries = below.filter_map(|edit| Some((&edit.path, edit.object.as_ref()?)));
            entries.try_for_each(|(path, object)| expect_same(&stage, path, object))
        })
    }

    /// Until what is written gets a later time than the commit's; as a rule that is so already.
    fn wait_for_tick(&self) {
        let (fs, step) = (&self.transaction.fs, TICK / 20);
        let mut waited = Duration::ZERO;
        // A clock that was set back is not waited for.
        while fs.file_time() <= self.committed && waited < TICK {
            fs.pause(step);
            waited += step;
        }
    }
}

fn expect_same<F: Fs>(stage: &Tree<F>, path: &RelPath, object: &Object) -> Result<()> {
    if stage.stat(path)?.is_some_and(|stat| object.is(&stat) && object.mode == stat.mode) {
        return Ok(());
    }
    let changed = io::Error::other("it was changed after it was read: wait until the build has finished");
    Err(stage.io("publish", path)(changed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::linux::LinuxFs;
    use crate::manifest::Digest;

    /// The time of a commit of a file with this mtime, which was changed at no other.
    fn committing(fs: &LinuxFs, mtime: Timestamp) -> Timestamp {
        let object = Object { kind: Kind::File, mode: 0o644, size: 1, digest: Digest::default(), ino: 1, mtime };
        let path = RelPath::new("a").expect("a name is a path");
        let by_edit = time_of_commit(fs, &[Edit { path: path.clone(), object: Some(object) }], &[], mtime);
        let by_operation = time_of_commit(fs, &[], &[Operation::Add { path, new: object }], mtime);
        assert!(by_edit <= by_operation);
        by_edit
    }

    #[test]
    fn files_from_before_this_tick_are_committed_in_time_for_whoever_writes_now() {
        let fs = LinuxFs::new();
        let tick = fs.file_time();
        let committed = committing(&fs, tick.earlier(Duration::from_secs(1)));
        assert!(tick.earlier(TICK) <= committed && committed < fs.file_time());
    }

    #[test]
    fn a_file_that_was_written_just_now_is_not_later_than_its_commit() {
        let fs = LinuxFs::new();
        let now = fs.now();
        assert!(committing(&fs, now) >= now);
    }

    #[test]
    fn earlier_borrows_from_the_second_before() {
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        assert_eq!(at(5, 0).earlier(Duration::from_nanos(1)), at(4, 999_999_999));
        assert_eq!(at(5, 7).earlier(Duration::new(2, 7)), at(3, 0));
        assert_eq!(at(i64::MIN, 0).earlier(TICK), at(i64::MIN, 980_000_000));
    }

    #[test]
    fn a_file_whose_time_was_set_back_just_now_is_not_later_than_its_commit() {
        let fs = LinuxFs::new();
        let now = fs.now();
        assert_eq!(time_of_commit(&fs, &[], &[], now), now);
    }

    #[test]
    fn a_time_that_is_still_to_come_tells_nothing() {
        let fs = LinuxFs::new();
        let now = fs.now();
        assert!(committing(&fs, Timestamp { seconds: now.seconds + 1000, ..now }) < fs.now());
    }
}
