//! `txfs commit`, and what `run` and `publish` share with it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use clap::Args;
use txfs::{
    Basis, ChangeKind, CommitOptions, Committed, Error, Exclude, Plan, Problem, RelPath, Shown, Store, Transaction,
    TransactionId,
};

use crate::Context;
use crate::commands::diff;
use crate::error;
use crate::error::{DONE, Failure, usage};
use crate::handle;
use crate::options::at;
use crate::options::exclude::Excludes;
use crate::options::retention::Kept;
use crate::output::Ui;
use crate::publishing::hooks;
use crate::publishing::hooks::Hooks;
use crate::publishing::report;
use crate::publishing::report::{Restored, Summary};
use crate::settings::{Given, Settings, take};
use crate::signals::Signals;

/// Publish a transaction's stage: all of it, durably, or nothing
///
/// Prints the number of the generation that is published now. When nothing differs from what is published, nothing is written
/// and the number is the current one. When the commit is refused, the output is unchanged and the transaction stays open.
#[derive(Args)]
pub(crate) struct CommitArgs {
    /// The transaction's stage, or the output while exactly one transaction is open on it
    #[arg(value_name = "STAGE|OUT")]
    transaction: PathBuf,
    #[command(flatten)]
    publish: PublishOptions,
    #[command(flatten)]
    hooks: Hooks,
    #[command(flatten)]
    removals: Removals,
}

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

/// What came of committing.
pub(crate) enum Done {
    Committed(Box<Committed>),
    /// The commit could have gone ahead.
    DryRun,
}

impl CommitArgs {
    pub(crate) fn transaction(&self) -> &Path {
        &self.transaction
    }

    /// What the command line does not say is as the file says.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>) {
        self.publish.take(settings, given);
        self.hooks.take(settings, given);
    }

    /// Whether it runs other commands.
    pub(crate) fn runs_any(&self) -> bool {
        self.publish.has_checks() || self.hooks.is_any()
    }
}

pub(crate) fn run(context: &Context, args: &CommitArgs) -> Result<u8, Failure> {
    let (store, id) = handle::find(context, &args.transaction)?;
    refuse_own_stage(context, &args.transaction, id)?;
    let mut transaction = store.resume(id)?;
    let stage = transaction.stage();
    match conclude(context, &store, &mut transaction, &args.publish, &args.removals) {
        Ok(Done::Committed(committed)) => {
            let (hooks, publish) = (&args.hooks, &args.publish);
            after(context, &store, &committed, hooks, publish, true)?;
        }
        Ok(Done::DryRun) => {}
        Err(failure) => {
            let removals = args.removals.again(&context.ui);
            return Err(keep_open(&context.ui, &store, &transaction, &stage, failure, &removals));
        }
    }
    Ok(DONE)
}

/// What `txfs run` runs would wait for its own end.
fn refuse_own_stage(context: &Context, given: &Path, id: TransactionId) -> Result<(), Failure> {
    let Some(stage) = std::env::var_os("TXFS_STAGE") else { return Ok(()) };
    match handle::parse(Path::new(&stage))? {
        Some((_, own)) if own == id => {
            let given = context.ui.name(given);
            Err(usage(format!("{given}: whoever runs this command commits that stage, once the command has succeeded")))
        }
        _ => Ok(()),
    }
}

/// Tells of a commit that is done, and runs what is to follow it.
pub(crate) fn after(
    context: &Context,
    store: &Store,
    committed: &Committed,
    hooks: &Hooks,
    publish: &PublishOptions,
    print_number: bool,
) -> Result<(), Failure> {
    let (touch, message) = (publish.touch, publish.message());
    hooks::Done { context, store, committed, hooks, touch, message, print_number }.conclude()
}

/// Says what becomes of a detached transaction that was not committed.
fn keep_open(
    ui: &Ui,
    store: &Store,
    transaction: &Transaction,
    stage: &Path,
    failure: Failure,
    removals: &str,
) -> Failure {
    match failure.source() {
        Some(_) if !transaction.is_open() => failure,
        _ if failure.is_stopped() => failure.hint(handle::still_open(ui, stage, removals)),
        None | Some(Error::StageLost { .. } | Error::OutcomeUnknown { .. }) => failure,
        Some(Error::BaseMoved { .. }) => {
            let (output, at) = (ui.word(store.output()), transaction.at());
            let again = format!("`txfs begin {output}{} --from current` begins it again", at::again(ui, &at));
            failure.hint(handle::overtaken(ui, store, transaction.from(), &at, stage, &again))
        }
        Some(_) => failure.hint(handle::still_open(ui, stage, removals)),
    }
}

/// Commits the transaction, or says what a commit would do.
pub(crate) fn conclude(
    context: &Context,
    store: &Store,
    transaction: &mut Transaction,
    options: &PublishOptions,
    removals: &Removals,
) -> Result<Done, Failure> {
    let result = commit_or_rehearse(context, store, transaction, options, removals);
    result.map_err(|failure| if transaction.base() == 0 { ask_for_lost_state(failure) } else { failure })
}

/// To a store that was made anew, what the one before it published is foreign.
pub(crate) fn ask_for_lost_state(failure: Failure) -> Failure {
    match failure.source() {
        Some(Error::Refused { problems, .. })
            if problems.iter().any(|problem| matches!(problem, Problem::Foreign(_))) =>
        {
            failure
                .hint("if txfs published them and its state directory was deleted since, --adopt takes them over again, and --adopt-all the whole output: what the build no longer makes goes then")
        }
        _ => failure,
    }
}

fn commit_or_rehearse(
    context: &Context,
    store: &Store,
    transaction: &mut Transaction,
    options: &PublishOptions,
    removals: &Removals,
) -> Result<Done, Failure> {
    let signals = &context.signals;
    let removals = removals.apply(transaction)?;
    if options.dry_run {
        return options.rehearse(context, store, transaction).map(|()| Done::DryRun);
    }
    signals.expect_none()?;
    options.kept.remember(store)?;
    let commit = options.checks().fold(options.for_library(), |commit, check| {
        commit.check(name_of(check), move |stage| run_check(check, stage, store.output(), signals))
    });
    let committed = transaction.commit(&commit).map_err(|error| match error {
        // A check that is told to stop refuses.
        Error::Refused { .. } => signals.expect_none().err().unwrap_or_else(|| error.into()),
        error => error.into(),
    })?;
    for path in removals.iter().filter(|path| !is_removed(&committed.plan, path)) {
        context.ui.warn(format_args!("--remove {path}: nothing was published there"));
    }
    Ok(Done::Committed(Box::new(committed)))
}

fn is_removed(plan: &Plan, path: &RelPath) -> bool {
    let removed = plan.changes.iter().filter(|change| change.kind == ChangeKind::Removed);
    removed.map(|change| &change.path).any(|removed| removed == path || removed.is_below(path))
}

impl Removals {
    pub(crate) fn is_empty(&self) -> bool {
        self.remove.is_empty()
    }

    /// The options to say when it is tried again: nothing in the stage tells of them.
    pub(crate) fn again(&self, ui: &Ui) -> String {
        self.remove.iter().map(|path| format!(" --remove {}", ui.word(path))).collect()
    }

    fn apply(&self, transaction: &mut Transaction) -> Result<Vec<RelPath>, Failure> {
        let mut removals = Vec::new();
        for given in &self.remove {
            let said = |what: &str| usage(format!("--remove {}: {what}", Shown(given)));
            if transaction.from() != Basis::Current {
                return Err(said(
                    "this transaction is the whole new generation: what is not in its stage is removed anyway",
                ));
            }
            let at = transaction.at();
            let path: PathBuf = given.components().filter(|part| *part != std::path::Component::CurDir).collect();
            if path.as_os_str().is_empty() && !at.is_root() {
                let output = "`txfs publish OUT --at PATH --remove` takes it away";
                return Err(said(&format!("that is all that this transaction is about: {output}")));
            }
            if path.as_os_str().is_empty() {
                return Err(said("that is all of the output: publish an empty stage with --allow-empty instead"));
            }
            let path = RelPath::from_path(&path).map_err(|error| {
                said(&format!("{error}; say it relative to {}", if at.is_root() { "the output" } else { "the stage" }))
            })?;
            // Otherwise it would go from the stage, even for a dry run.
            if path.under(&transaction.stage()).symlink_metadata().is_ok() {
                return Err(said("it is in the stage: what is staged is published, so remove it there"));
            }
            transaction.remove(path.as_path())?;
            removals.extend(RelPath::from_path(path.under(at.as_path())));
        }
        Ok(removals)
    }
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

    /// As the commit would, without changing anything.
    fn rehearse(&self, context: &Context, store: &Store, transaction: &Transaction) -> Result<(), Failure> {
        let signals = &context.signals;
        let stage = transaction.stage();
        let failed = |check: &OsStr| {
            let result = run_check(check, &stage, store.output(), signals).err()?;
            Some(Problem::Check { check: name_of(check), result })
        };
        let problems: Vec<_> = self.checks().filter_map(failed).collect();
        signals.expect_none()?;
        let plan = transaction.plan(&self.for_library())?;
        signals.release()?;
        tell_rehearsed(context, store.output(), transaction.base(), &plan, problems)
    }
}

/// Tells what a commit would do to the generation `base`; `problems` are of its checks.
pub(crate) fn tell_rehearsed(
    context: &Context,
    output: &Path,
    base: u64,
    plan: &Plan,
    mut problems: Vec<Problem>,
) -> Result<(), Failure> {
    report::warn(&context.ui, plan);
    diff::print(&context.ui, output, Some(base).filter(|base| *base > 0), plan, &[])?;
    // A commit whose check fails looks no further.
    if problems.is_empty() {
        problems.clone_from(&plan.problems);
    }
    if !problems.is_empty() {
        return Err(Error::Refused { output: output.to_path_buf(), problems }.into());
    }
    let (output, next, summary) = (context.ui.name(output), base + 1, Summary(plan));
    match plan.is_empty() {
        true if plan.restored.is_empty() => context.ui.say(format_args!("dry run: {output} would be unchanged")),
        true => {}
        false => context.ui.say(format_args!("dry run: would publish generation {next} of {output}: {summary}")),
    }
    if !plan.restored.is_empty() {
        context.ui.say(format_args!("dry run: would put back {}", Restored(&output, &plan.restored)));
    }
    Ok(())
}

pub(crate) fn percent(text: &str) -> Result<u8, String> {
    let percent = text.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| "this is not a whole number from 0 to 100".to_owned())
}

pub(crate) fn name_of(check: &OsStr) -> String {
    Shown(Path::new(check)).to_string()
}

/// The command that a check is.
pub(crate) fn check_command(check: &OsStr, stage: &Path, output: &Path) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(check).current_dir(stage).env("TXFS_STAGE", stage).env("TXFS_OUTPUT", output);
    // Its stdout goes to stderr: ours carries data.
    command.stdout(io::stderr()).stdin(no_input());
    command
}

/// Whether a check passes, and no signal asked for txfs to stop by the time it has ended.
fn run_check(check: &OsStr, stage: &Path, output: &Path, signals: &Signals) -> Result<(), String> {
    let mut command = check_command(check, stage, output);
    let stopped = |signal| format!("was stopped by signal {signal}");
    if let Some(signal) = signals.received() {
        return Err(stopped(signal));
    }
    let spawned = command.spawn().map(|mut check| {
        drop(check.stdin.take());
        check
    });
    match (spawned.and_then(|check| signals.supervise(check)), signals.received()) {
        (_, Some(signal)) => Err(stopped(signal)),
        (Ok(status), None) if status.success() => Ok(()),
        (Ok(status), None) => Err(ended(status)),
        (Err(error), None) => Err(format!("could not be run: {}", error::reason(&error))),
    }
}

/// Nothing to read. A chroot may have no /dev: there it is a pipe, of which nobody holds the other end.
pub(crate) fn no_input() -> Stdio {
    if Path::new("/dev/null").exists() { Stdio::null() } else { Stdio::piped() }
}

/// How a command ended that did not succeed.
pub(crate) fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended without a status".to_owned(),
    }
}
