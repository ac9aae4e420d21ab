//! What a commit would change, asked without a transaction.
//!
//! Invariant: nothing is written, and no lock is taken; so it can be asked where nothing can be written, and of an output that has no
//! store yet.

use std::path::{Path, PathBuf};

use crate::error::{Error, Paths, Problem, Result};
use crate::fs::Fs;
use crate::fs::compiled::{compiled, same_ref};
use crate::fs::tree::Tree;
use crate::options::CommitOptions;
use crate::path::RelPath;
use crate::plan::live::Published;
use crate::plan::{Plan, Scope, Stale};
use crate::stage::copy::{self, Owner};
use crate::stage::scan::{self, Known, Reach, States};
use crate::stage::shared;
use crate::stage::sources::Sources;
use crate::store::layout::{name, state_path};
use crate::store::output::Output;
use crate::store::shared_state;
use crate::store::transaction_dir;
use crate::store::{OpenOptions, Store};
use crate::transaction::planning::{make_plan, rules};

/// What publishing a copy of a directory would change.
#[derive(Debug)]
#[non_exhaustive]
pub struct Preview {
    /// The plan of the commit.
    pub plan: Plan,
    /// State directories of txfs in the directory, which would not be copied.
    pub left_out: Vec<PathBuf>,
    /// Files whose copies would lack a set-id bit.
    pub without_set_id: Paths,
}

impl<F: Fs> Store<F> {
    /// What a commit of the directory `source` would change, whether it is a stage of txfs or any other. Nothing is written, and
    /// the checks of `options` do not run.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// use std::fs;
    /// use txfs::{CommitOptions, Store};
    ///
    /// fs::create_dir(dir.path().join("site"))?;
    /// fs::write(dir.path().join("site/index.html"), "<h1>Hello</h1>")?;
    /// let plan = Store::open(dir.path().join("dist"))?.preview(&dir.path().join("site"), &CommitOptions::default())?;
    /// assert_eq!(plan.summary.added, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The directory, or the output, cannot be read.
    pub fn preview(&self, source: &Path, options: &CommitOptions<'_>) -> Result<Plan> {
        compiled!(F, (
            this: &Store = same_ref(self),
            source: &Path = source,
            options: &CommitOptions<'_> = options
        ) -> Result<Plan> {
            this.preview_any(source, options)
        });
        self.preview_any(source, options)
    }

    fn preview_any(&self, source: &Path, options: &CommitOptions<'_>) -> Result<Plan> {
        let head = self.head()?;
        let id = Self::parse_stage_on(&self.fs, source)?.map(|(_, id)| id);
        let at = id.map_or(Ok(None), |id| self.read_meta(id))?.map(|meta| meta.at()).unwrap_or_default();
        let stage = match id.filter(|_| !at.is_root()) {
            Some(id) => self.state.below(&transaction_dir::stage_path(id, &RelPath::root()))?,
            None => Tree::open(&self.fs, source)?.shared_with(self.state.group()),
        };
        let published = Published::open(self, head, at.clone())?;
        let traces = id.map(|id| self.traces(id));
        let excluded = options.exclude.clone().map(|excluded| excluded.below(at.as_path()));
        let reach = Reach { states: States::Refuse, excluded: excluded.as_ref(), at: &at, vacated: false };
        let mut staged = scan::scan(&stage, &Known::new(), published.inventory(), None, reach, traces.as_ref(), None)?;
        shared::expect_modes(&mut staged.entries, stage.group());
        let rules = rules(options, self.capabilities().exchange, Stale::Whole, stage.group());
        Ok(make_plan(&self.output.path, &stage, staged, &published, Scope::Whole, rules)?.plan)
    }

    /// As [`Store::preview`], of the copy that [`Transaction::copy_differing_from`](crate::Transaction::copy_differing_from) makes of
    /// `source`, which does not read what is known to be as published; or, where `checksum` says so, the one that
    /// [`Transaction::copy_from`](crate::Transaction::copy_from) makes.
    ///
    /// # Errors
    /// As [`Store::preview`].
    pub fn preview_copy(&self, source: &Path, checksum: bool, options: &CommitOptions<'_>) -> Result<Preview> {
        compiled!(F, (
            this: &Store = same_ref(self),
            source: &Path = source,
            checksum: bool = checksum,
            options: &CommitOptions<'_> = options
        ) -> Result<Preview> {
            this.preview_copy_any(source, checksum, options)
        });
        self.preview_copy_any(source, checksum, options)
    }

    fn preview_copy_any(&self, source: &Path, checksum: bool, options: &CommitOptions<'_>) -> Result<Preview> {
        let head = self.head()?;
        let published = Published::open(self, head, RelPath::root())?;
        let (made, group, output) = (self.made_here()?, self.state.group(), &self.output);
        let look = Look { store: Some(self), source, quick: !checksum, made, group, output };
        look.examine(&self.fs, &published, options, self.capabilities().exchange)
    }

    /// As [`Store::preview_copy`], for an output that has no store: none is made. What only making one tells, as what the file system
    /// can do, is not known.
    ///
    /// # Errors
    /// As [`Store::preview`]; [`Error::NotAnOutput`], [`Error::StateElsewhere`].
    pub fn preview_first(
        open: &OpenOptions<F>,
        out: impl AsRef<Path>,
        source: &Path,
        options: &CommitOptions<'_>,
    ) -> Result<Preview> {
        Self::preview_first_any(open, out.as_ref(), source, options)
    }

    fn preview_first_any(
        open: &OpenOptions<F>,
        out: &Path,
        source: &Path,
        options: &CommitOptions<'_>,
    ) -> Result<Preview> {
        compiled!(F, (
            open: &OpenOptions = same_ref(open),
            out: &Path = out,
            source: &Path = source,
            options: &CommitOptions<'_> = options
        ) -> Result<Preview> {
            Store::preview_unpublished(open, out, source, options)
        });
        Self::preview_unpublished(open, out, source, options)
    }

    fn preview_unpublished(
        open: &OpenOptions<F>,
        out: &Path,
        source: &Path,
        options: &CommitOptions<'_>,
    ) -> Result<Preview> {
        let output = Output::locate(&open.fs, out, open.state.as_deref(), open.sharing)?;
        let beside = open.fs.stat_dir(output.holder.root());
        let beside = beside.map_err(Error::io("read the attributes of", output.holder.at()))?;
        let gid = if beside.mode & 0o2000 != 0 { beside.gid } else { open.fs.group() };
        let made = Owner { uid: open.fs.user(), gid };
        let group = open.sharing.map(|sharing| shared_state::group_for(&output, sharing)).transpose()?;
        let look = Look { store: None, source, quick: false, made, group, output: &output };
        look.examine(&open.fs, &Published::nothing(&output)?, options, true)
    }

    /// Whose a file is that this user makes in the state directory, in which stages are.
    fn made_here(&self) -> Result<Owner> {
        let lock = state_path(name::LOCK);
        let missing = || self.state.io("read the attributes of", &lock)(std::io::ErrorKind::NotFound.into());
        Ok(Owner { uid: self.fs.user(), gid: self.state.stat(&lock)?.ok_or_else(missing)?.gid })
    }
}

/// A look at a directory that would be copied.
struct Look<'a, F: Fs> {
    /// The store, if there is one.
    store: Option<&'a Store<F>>,
    source: &'a Path,
    /// Whether what is known to be as published is not read.
    quick: bool,
    /// Whose a file of the copy is.
    made: Owner,
    /// The group that shares the store, or will.
    group: Option<u32>,
    output: &'a Output<F>,
}

impl<F: Fs> Look<'_, F> {
    fn examine(self, fs: &F, published: &Published<F>, options: &CommitOptions<'_>, exchange: bool) -> Result<Preview> {
        let stage = Tree::open(fs, self.source)?.shared_with(self.group);
        let sources = self.store.filter(|_| self.quick).map(Sources::read);
        let traces = match self.store {
            Some(store) => Store::parse_stage_on(fs, self.source)?.map(|(_, id)| store.traces(id)),
            None => None,
        };
        let (excluded, at) = (options.exclude.as_ref(), &RelPath::root());
        let reach = Reach { states: States::LeaveOut, excluded, at, vacated: false };
        let mut staged =
            scan::scan(&stage, &Known::new(), published.inventory(), None, reach, traces.as_ref(), sources)?;
        let without_set_id = {
            let (entries, output) = (&mut staged.entries, self.output.open()?);
            copy::expect_modes(&stage, entries, self.made, output.as_ref(), &self.output.holder)?
        };
        shared::expect_modes(&mut staged.entries, self.group);
        // The copy will be this user's.
        staged.problems.retain(|problem| !matches!(problem, Problem::NotOurs { .. }));
        let left_out = std::mem::take(&mut staged.left_out);
        let left_out = left_out.iter().map(|path: &RelPath| path.under(self.source)).collect();
        let rules = rules(options, exchange, Stale::Whole, self.group);
        let plan = make_plan(&self.output.path, &stage, staged, published, Scope::Whole, rules)?.plan;
        Ok(Preview { plan, left_out, without_set_id })
    }
}
