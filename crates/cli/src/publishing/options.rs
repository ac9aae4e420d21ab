//! The options of all that publish: how to commit, what goes, and what becomes of what is not published.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use clap::Args;
use txfs::{Basis, CommitOptions, Exclude, RelPath, Shown, Store, Transaction};

use crate::options::exclude::Excludes;
use crate::options::retention::Kept;
use crate::settings::keys::{Given, Settings, take};
use crate::settings::values::percent;
use crate::talk::error::{Failure, usage};
use crate::talk::output::Ui;

/// How to commit; shared by `commit`, `run` and `publish`.
#[derive(Args, Clone)]
pub(crate) struct PublishOptions {
    /// Run CMD by `sh -c` in the stage first, with TXFS_STAGE and TXFS_OUTPUT set; refuse when it fails (repeatable)
    #[arg(long, value_name = "CMD")]
    check: Vec<OsString>,
    #[command(flatten)]
    excludes: Excludes,
    /// Publish even a stage without any file
    #[arg(long)]
    allow_empty: bool,
    /// Refuse to lose more than this many percent of the published files
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = percent, allow_negative_numbers = true)]
    max_removed: u8,
    /// Take over files and links in the way that txfs did not publish; they are kept as the previous generation
    #[arg(long)]
    adopt: bool,
    /// Take over all that lies in OUT: what is not staged goes, and is kept as the previous generation; `.git` stays
    #[arg(long)]
    adopt_all: bool,
    /// Publish over entries that somebody else changed
    #[arg(long)]
    allow_drift: bool,
    /// Publish paths that differ only by case
    #[arg(long)]
    allow_case_collisions: bool,
    /// Give the files that are published the time of the commit, for clients that compare times
    #[arg(long)]
    touch: bool,
    #[command(flatten)]
    kept: Kept,
    /// Change nothing: print what would change as `txfs diff` does, and exit as the commit would
    #[arg(long)]
    dry_run: bool,
    /// Keep TEXT with the generation; `status` shows it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
}

impl PublishOptions {
    /// What the command line does not say is as the file says.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>) {
        take!(settings, given;
            check => self.check,
            exclude => self.excludes.exclude,
            allow_empty => self.allow_empty,
            max_removed => self.max_removed,
            adopt => self.adopt,
            adopt_all => self.adopt_all,
            allow_drift => self.allow_drift,
            allow_case_collisions => self.allow_case_collisions,
            touch => self.touch,
        );
        self.kept.take(settings, given);
    }

    /// For a generation that was published once: it may be as small as it was then.
    pub(crate) fn of_an_old_generation(message: String, allow_drift: bool, touch: bool, dry_run: bool) -> Self {
        Self {
            check: Vec::new(),
            excludes: Excludes::default(),
            allow_empty: true,
            max_removed: 100,
            adopt: false,
            adopt_all: false,
            allow_drift,
            allow_case_collisions: true,
            touch,
            kept: Kept::default(),
            dry_run,
            message: Some(message),
        }
    }

    /// Everything but the checks.
    pub(crate) fn for_library(&self) -> CommitOptions<'_> {
        let options = CommitOptions::default()
            .adopt(self.adopt)
            .adopt_all(self.adopt_all)
            .allow_drift(self.allow_drift)
            .allow_case_collisions(self.allow_case_collisions)
            .allow_empty(self.allow_empty)
            .max_removed(self.max_removed)
            .touch(self.touch);
        let options = match self.exclude() {
            Some(exclude) => options.exclude(exclude),
            None => options,
        };
        match &self.message {
            Some(message) => options.message(message),
            None => options,
        }
    }

    /// What is not to be published.
    pub(crate) fn exclude(&self) -> Option<Exclude> {
        self.excludes.for_library()
    }

    pub(crate) fn has_checks(&self) -> bool {
        !self.check.is_empty()
    }

    /// The same for a stage that has been checked.
    pub(crate) fn checked(&self) -> Self {
        Self { check: Vec::new(), ..self.clone() }
    }

    pub(crate) fn touches(&self) -> bool {
        self.touch
    }

    /// Has the store remember how much of the past is to be kept.
    pub(crate) fn remember_kept(&self, store: &Store) -> Result<(), Failure> {
        self.kept.remember(store)
    }

    pub(crate) fn adopts_all(&self) -> bool {
        self.adopt_all
    }

    pub(crate) fn allows_drift(&self) -> bool {
        self.allow_drift
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// The message that the user gave.
    pub(crate) fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    pub(crate) fn checks(&self) -> impl Iterator<Item = &OsStr> {
        self.check.iter().map(OsString::as_os_str)
    }
}

/// What becomes of what was built and not published; shared by `run` and `publish`.
#[derive(Args)]
pub(crate) struct Keeping {
    /// Keep the stage of a build that failed or was refused, to look at it; it can be committed all the same. The next that is kept replaces it
    #[arg(long, conflicts_with = "dry_run")]
    keep_failed: bool,
}

impl Keeping {
    /// What the command line does not say is as the file says; a dry run keeps nothing.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>, publish: &PublishOptions) {
        take!(settings, given; keep_failed => self.keep_failed);
        self.keep_failed &= !publish.dry_run;
    }

    pub(crate) fn keeps_failed(&self) -> bool {
        self.keep_failed
    }
}

/// What a change takes away; shared by `commit` and `run`.
#[derive(Args, Default)]
pub(crate) struct Removals {
    /// Stop publishing PATH and what is below it; for transactions begun with `--from current` (repeatable). Of one begun with --at it is
    /// relative to that
    #[arg(long, value_name = "PATH")]
    remove: Vec<PathBuf>,
}

impl Removals {
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty()
    }

    /// The options to say when it is tried again: nothing in the stage tells of them.
    pub(crate) fn again(&self, ui: &Ui) -> String {
        self.remove.iter().map(|path| format!(" --remove {}", ui.word(path))).collect()
    }

    /// Their paths, of a transaction from `from`, which is about a path if `is_at`; an error says which makes no sense there.
    pub(crate) fn parse(&self, from: Basis, is_at: bool) -> Result<Vec<RelPath>, Failure> {
        self.remove.iter().map(|given| parse(given, from, is_at)).collect()
    }

    /// Takes away what was said from what is to be published, and returns its paths in the output.
    pub(crate) fn apply(&self, transaction: &mut Transaction) -> Result<Vec<RelPath>, Failure> {
        let at = transaction.at();
        let mut removals = Vec::new();
        for (path, given) in self.parse(transaction.from(), !at.is_root())?.iter().zip(&self.remove) {
            // Otherwise it would go from the stage, even for a dry run.
            if path.under(&transaction.stage()).symlink_metadata().is_ok() {
                return Err(of_removal(given, "it is in the stage: what is staged is published, so remove it there"));
            }
            transaction.remove(path.as_path())?;
            removals.extend(RelPath::from_path(path.under(at.as_path())));
        }
        Ok(removals)
    }
}

fn parse(given: &Path, from: Basis, is_at: bool) -> Result<RelPath, Failure> {
    let said = |what: &str| of_removal(given, what);
    if from != Basis::Current {
        return Err(said("this transaction is the whole new generation: what is not in its stage is removed anyway"));
    }
    let path: PathBuf = given.components().filter(|part| *part != Component::CurDir).collect();
    if path.as_os_str().is_empty() {
        return Err(said(match is_at {
            true => "that is all that this transaction is about: `txfs publish OUT --at PATH --remove` takes it away",
            false => "that is all of the output: publish an empty stage with --allow-empty instead",
        }));
    }
    let relative = if is_at { "the stage" } else { "the output" };
    RelPath::from_path(&path).map_err(|error| said(&format!("{error}; say it relative to {relative}")))
}

fn of_removal(given: &Path, what: &str) -> Failure {
    usage(format!("--remove {}: {what}", Shown(given)))
}
