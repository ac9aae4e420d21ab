//! Sharing a store that is there with a group, and taking it back.
//!
//! Invariants (journal-spec.md, "Shared stores"):
//! 1. The modes of what is published change by a commit, while one user alone still has the store: the manifest says what is there.
//! 2. Of what is published only what belongs to this user is given to the group; what is not published stays as it is.
//!
//! A crash inside leaves a store of one user, whose output may be the group's already; or a shared one, of which the state is given
//! by its owner's next command.

use crate::error::{Error, Result};
use crate::format::manifest::Entry;
use crate::fs::compiled::{compiled, same};
use crate::fs::tree::{ROOT, Tree};
use crate::fs::{Fs, Kind, Stat};
use crate::options::CommitOptions;
use crate::path::RelPath;
use crate::protocol::recover::Manner;
use crate::protocol::settle;
use crate::stage::copy::{Looks, NewDirs, Source};
use crate::store::current::Current;
use crate::store::probe::check_shareable;
use crate::store::sharing::{content_mode, is_readable_by};
use crate::store::transaction_dir::Basis;
use crate::store::trust::Sharing;
use crate::store::{Store, shared_state};
use crate::transaction::BeginOptions;

impl<F: Fs> Store<F> {
    /// Shares the store with a group, each of whose members may publish then, abort, recover and go back: `group`, or that of the output.
    /// Where directories of the output are closed to it, or files, a commit opens them. A store that the group shares already stays as it is.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use txfs::{OpenOptions, Store};
    ///
    /// let store = Store::open(dir.path().join("dist"))?.share(None)?;
    /// assert!(store.shared_with().is_some());
    /// // Another member of the group:
    /// let store = Store::open_with(&OpenOptions::default().shared(None), dir.path().join("dist"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error::InUse`]; [`Error::SharedAlready`] with another group; [`Error::CannotShare`] where it is another user's, or this process does not belong to the group;
    /// [`Error::Unsupported`] where the file system lacks what sharing needs; those of [`Store::recover`] and of a commit.
    pub fn share(self, group: Option<u32>) -> Result<Self> {
        compiled!(F, (this: Store = same(self), group: Option<u32> = group) -> Result<Store> { this.share_any(group) });
        self.share_any(group)
    }

    fn share_any(mut self, group: Option<u32>) -> Result<Self> {
        self.alone()?;
        if let Some(shared) = self.shared_with() {
            return match group {
                Some(group) if group != shared => {
                    Err(Error::SharedAlready { output: self.output.path.clone(), group: shared })
                }
                _ => Ok(self),
            };
        }
        let group = shared_state::group_for(&self.output, Sharing { group })?;
        check_shareable(&self.state, self.capabilities())?;
        self.open_output(group)?;
        let lock = self.lock()?;
        // What is not settled yet another user may have to settle.
        let recovered = self.recover_locked(&lock, Manner::PLAIN)?;
        if let Some(warning) = recovered.warnings.into_iter().next() {
            return Err(warning);
        }
        let state = shared_state::share(self.state.clone(), &self.output, self.capabilities(), group)?;
        self.with_state(state)
    }

    /// Takes the store back from the group that shares it: nobody but its owner publishes any more. What is published keeps its modes, its
    /// owners and its group.
    ///
    /// # Errors
    /// [`Error::InUse`]; [`Error::CannotShare`] where it is another user's, or something in it that another member made; those of [`Store::recover`].
    pub fn unshare(self) -> Result<Self> {
        compiled!(F, (this: Store = same(self)) -> Result<Store> { this.unshare_any() });
        self.unshare_any()
    }

    fn unshare_any(mut self) -> Result<Self> {
        self.alone()?;
        if self.shared_with().is_none() {
            return Ok(self);
        }
        let owner = self.state_owner()?;
        if owner != self.fs.user() {
            let what = format!("its state belongs to user {owner}, who alone can take it back");
            return Err(Error::CannotShare { path: self.output.path.clone(), what });
        }
        let lock = self.lock()?;
        self.recover_locked(&lock, Manner::PLAIN)?;
        settle::sweep(&self)?;
        let state = shared_state::unshare(self.state.clone(), self.capabilities())?;
        self.with_state(state)
    }

    fn state_owner(&self) -> Result<u32> {
        let stat = self.fs.stat_dir(self.state.root());
        Ok(stat.map_err(self.state.io("read the attributes of", &RelPath::root()))?.uid)
    }

    /// Gives what is published to the group, and commits the modes that this takes.
    fn open_output(&self, group: u32) -> Result<()> {
        let Some(output) = self.output.open()? else { return Ok(()) };
        let mut transaction = self.begin(BeginOptions::default().from(Basis::Current))?;
        let Current { inventory: published, .. } = transaction.current()?;
        let stage = transaction.stage_tree()?;
        let mut opening =
            Opening { live: &output, stage: &stage, made: NewDirs::new(&stage), group, last: RelPath::root() };
        for entry in published.entries() {
            opening.entry(&entry?)?;
        }
        opening.made.close()?;
        transaction.set_captured(Some(&[]))?;
        let options = CommitOptions::default().allow_empty(true).max_removed(100);
        transaction.commit(&options).map(drop)
    }
}

/// What is published, on its way to the group.
struct Opening<'a, F: Fs> {
    live: &'a Tree<F>,
    stage: &'a Tree<F>,
    made: NewDirs<'a, F>,
    group: u32,
    /// The directory that was staged last.
    last: RelPath,
}

impl<F: Fs> Opening<'_, F> {
    fn entry(&mut self, Entry { path, object }: &Entry) -> Result<()> {
        let Some(stat) = self.live.stat(path)?.filter(|stat| stat.kind == Some(object.kind)) else { return Ok(()) };
        if stat.gid != self.group {
            self.give(path, &stat).map_err(self.live.io("share", path))?;
        }
        let mode = content_mode(object.kind, object.mode);
        // What somebody else changed is for him to open.
        if mode == object.mode || object.mode != stat.mode {
            return Ok(());
        }
        let live = Source::published(self.live);
        let last = std::mem::replace(&mut self.last, path.clone());
        for above in path.ancestors_not_of(&last) {
            let mode = self.live.stat(&above)?.map_or(0o755, |stat| stat.mode);
            self.made.make(above.clone(), content_mode(Kind::Directory, mode), live, above)?;
        }
        match object.kind {
            Kind::Directory => self.made.make(path.clone(), mode, live, path.clone()),
            Kind::File => live.copy_file(path, Looks { mode, ..Looks::of(&stat) }, self.stage, path),
            Kind::Symlink => Ok(()),
        }
    }

    fn give(&self, path: &RelPath, stat: &Stat) -> std::io::Result<()> {
        let fs = &self.live.fs;
        let is_own = stat.uid == fs.user() || fs.user() == ROOT;
        match stat.kind {
            Some(Kind::Directory) => fs.set_dir_owner(&*self.live.dir(path)?, None, self.group),
            // The kernel would take the set-id bits, and with another name it is more than what is published.
            Some(Kind::File)
                if stat.mode & 0o6000 == 0 && stat.nlink == 1 && (is_own || !is_readable_by(stat, self.group)) =>
            {
                let (file, _) = fs.open_file(&*self.live.parent(path)?, path.name())?;
                fs.set_owner(&file, None, self.group)
            }
            _ => Ok(()),
        }
    }
}
