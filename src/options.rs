//! What a commit may do, and the checks that it has to pass.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A check that runs on the stage before anything is published: its name, and what it found wrong.
pub(crate) type Check<'a> = (String, Box<dyn Fn(&Path) -> Result<(), String> + Send + 'a>);

/// Says which entries of a stage are not to be published: by their path in the output, and whether they are
/// directories.
///
/// What is below a directory that is excluded is excluded with it.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let store = txfs::Store::open(directory.path().join("dist"))?;
/// let mut transaction = store.begin(txfs::BeginOptions::default())?;
/// transaction.write("app.js", "…")?;
/// transaction.write("app.js.map", "…")?;
/// transaction.write("cache/x", "…")?;
/// let exclude = txfs::Exclude::new(|path, is_directory| {
///     path.extension().is_some_and(|extension| extension == "map") || is_directory && path.ends_with("cache")
/// });
/// let committed = transaction.commit(&txfs::CommitOptions::default().exclude(exclude))?;
/// assert_eq!(committed.totals.entries, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Exclude(Arc<Predicate>);

type Predicate = dyn Fn(&Path, bool) -> bool + Send + Sync;

impl Exclude {
    /// Excludes that of which `excluded` is true. It is asked of an entry several times, by several threads.
    pub fn new(excluded: impl Fn(&Path, bool) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(excluded))
    }

    pub(crate) fn has(&self, path: &Path, is_directory: bool) -> bool {
        (self.0)(path, is_directory)
    }

    /// The same for paths that begin higher up, at `at`.
    pub(crate) fn below(self, at: &Path) -> Self {
        if at.as_os_str().is_empty() {
            return self;
        }
        let at = at.to_path_buf();
        Self::new(move |path, is_directory| {
            path.strip_prefix(&at).is_ok_and(|path| !path.as_os_str().is_empty() && self.has(path, is_directory))
        })
    }

    /// Whether a path is excluded, by itself or with a directory that it is in.
    pub(crate) fn covers(&self, path: &Path, is_directory: bool) -> bool {
        let mut above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
        above.any(|above| self.has(above, true)) || self.has(path, is_directory)
    }
}

impl fmt::Debug for Exclude {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exclude")
    }
}

/// What a commit may do. The default refuses whatever looks like a mistake.
#[non_exhaustive]
pub struct CommitOptions<'a> {
    /// Kept with the generation.
    pub message: Option<String>,
    /// Take over files and links that txfs did not publish, where new ones are to go. They are kept as the previous generation.
    pub adopt: bool,
    /// Take for published whatever lies in the output: as [`CommitOptions::adopt`], and what is not staged goes. Repositories (`.git`), state
    /// directories and what is neither file, directory nor link stay ([`Warning::Stays`](crate::Warning::Stays)).
    pub adopt_all: bool,
    /// Publish over entries that somebody else changed.
    pub allow_drift: bool,
    /// Publish paths that differ only by case.
    pub allow_case_collisions: bool,
    /// Publish nothing: every file goes.
    pub allow_empty: bool,
    /// Refuse when the commit loses more than this many percent of the files; 50 by default. At 100 only the guard against an empty
    /// stage is left.
    pub max_removed: u8,
    /// Give the files that are published the time of the commit, so that clients which compare times notice them.
    pub touch: bool,
    /// What of the stage is not to be published.
    pub exclude: Option<Exclude>,
    pub(crate) checks: Vec<Check<'a>>,
}

impl Default for CommitOptions<'_> {
    fn default() -> Self {
        Self {
            message: None,
            adopt: false,
            adopt_all: false,
            allow_drift: false,
            allow_case_collisions: false,
            allow_empty: false,
            max_removed: 50,
            touch: false,
            exclude: None,
            checks: Vec::new(),
        }
    }
}

impl fmt::Debug for CommitOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitOptions")
            .field("message", &self.message)
            .field("adopt", &self.adopt)
            .field("adopt_all", &self.adopt_all)
            .field("allow_drift", &self.allow_drift)
            .field("allow_case_collisions", &self.allow_case_collisions)
            .field("allow_empty", &self.allow_empty)
            .field("max_removed", &self.max_removed)
            .field("touch", &self.touch)
            .field("exclude", &self.exclude)
            .field("checks", &self.checks.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .finish()
    }
}

impl<'a> CommitOptions<'a> {
    /// Keeps a text with the generation.
    #[must_use = "this returns the changed options"]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Whether files and links are taken over that txfs did not publish, where new ones are to go.
    #[must_use = "this returns the changed options"]
    pub fn adopt(mut self, adopt: bool) -> Self {
        self.adopt = adopt;
        self
    }

    /// Whether whatever lies in the output counts as published: what is not staged goes.
    #[must_use = "this returns the changed options"]
    pub fn adopt_all(mut self, adopt_all: bool) -> Self {
        self.adopt_all = adopt_all;
        self
    }

    /// Whether entries are published over that somebody else changed.
    #[must_use = "this returns the changed options"]
    pub fn allow_drift(mut self, allow: bool) -> Self {
        self.allow_drift = allow;
        self
    }

    /// Whether paths are published that differ only by case.
    #[must_use = "this returns the changed options"]
    pub fn allow_case_collisions(mut self, allow: bool) -> Self {
        self.allow_case_collisions = allow;
        self
    }

    /// Whether nothing may be published: every file goes.
    #[must_use = "this returns the changed options"]
    pub fn allow_empty(mut self, allow: bool) -> Self {
        self.allow_empty = allow;
        self
    }

    /// How many percent of the files may go, at most, without others coming.
    #[must_use = "this returns the changed options"]
    pub fn max_removed(mut self, percent: u8) -> Self {
        self.max_removed = percent;
        self
    }

    /// Whether the files that are published get the time of the commit instead of their own. What is published already as it is
    /// staged is not touched.
    #[must_use = "this returns the changed options"]
    pub fn touch(mut self, touch: bool) -> Self {
        self.touch = touch;
        self
    }

    /// Leaves out of the commit what is excluded: it counts as not staged. So what was published of it is stale, and
    /// goes; but a change ([`Basis::Current`](crate::Basis::Current)) leaves it as it is. A commit removes it from
    /// the stage, before the checks run and after them.
    #[must_use = "this returns the changed options"]
    pub fn exclude(mut self, exclude: Exclude) -> Self {
        self.exclude = Some(exclude);
        self
    }

    /// Adds a check that sees the stage before anything is published, and may refuse it by saying why. Checks run in the order in
    /// which they were added, all of them, before the store's lock is taken; what they write to the stage is published too.
    #[must_use = "this returns the changed options"]
    pub fn check(mut self, name: impl Into<String>, check: impl Fn(&Path) -> Result<(), String> + Send + 'a) -> Self {
        self.checks.push((name.into(), Box::new(check)));
        self
    }
}
