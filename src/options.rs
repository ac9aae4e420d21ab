//! What a commit may do, and the checks that it has to pass.

use std::fmt;
use std::path::Path;

/// A check that runs on the stage before anything is published: its name, and what it found wrong.
pub(crate) type Check<'a> = (String, Box<dyn Fn(&Path) -> Result<(), String> + Send + 'a>);

/// What a commit may do. The default refuses whatever looks like a mistake.
#[non_exhaustive]
pub struct CommitOptions<'a> {
    /// Kept with the generation.
    pub message: Option<String>,
    /// Take over files and links that txfs did not publish, where new ones are to go. They are kept as the previous generation.
    pub adopt: bool,
    /// Publish over entries that somebody else changed.
    pub allow_drift: bool,
    /// Publish paths that differ only by case.
    pub allow_case_collisions: bool,
    /// Publish nothing: every file goes.
    pub allow_empty: bool,
    /// Refuse when the commit loses more than this many percent of the files; 50 by default. At 100 only the guard against an empty
    /// stage is left.
    pub max_removed: u8,
    pub(crate) checks: Vec<Check<'a>>,
}

impl Default for CommitOptions<'_> {
    fn default() -> Self {
        Self {
            message: None,
            adopt: false,
            allow_drift: false,
            allow_case_collisions: false,
            allow_empty: false,
            max_removed: 50,
            checks: Vec::new(),
        }
    }
}

impl fmt::Debug for CommitOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitOptions")
            .field("message", &self.message)
            .field("adopt", &self.adopt)
            .field("allow_drift", &self.allow_drift)
            .field("allow_case_collisions", &self.allow_case_collisions)
            .field("allow_empty", &self.allow_empty)
            .field("max_removed", &self.max_removed)
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

    /// Adds a check that sees the stage before anything is published, and may refuse it by saying why. Checks run in the order in
    /// which they were added, all of them, before the store's lock is taken; what they write to the stage is published too.
    #[must_use = "this returns the changed options"]
    pub fn check(mut self, name: impl Into<String>, check: impl Fn(&Path) -> Result<(), String> + Send + 'a) -> Self {
        self.checks.push((name.into(), Box::new(check)));
        self
    }
}
