//! `txfs commit`, and what `run` and `publish` share with it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use clap::Args;
use txfs::{
    Basis, ChangeKind, CommitOptions, Committed, Error, Plan, Problem, RelPath, Shown, Store, Transaction,
    TransactionId,
};

use super::error::{DONE, Failure, usage};
use super::output::{Object, Ui};
use super::signals::Signals;
use super::{Context, count, diff, error, handle};

/// Publish a transaction's stage: all of it, durably, or nothing
///
/// Prints the number of the generation that is published now. When nothing differs from what is published, nothing is written
/// and the number is the current one. When the commit is refused, the output is unchanged and the transaction stays open.
#[derive(Args)]
pub(super) struct CommitArgs {
    /// The transaction's stage, or the output while exactly one transaction is open on it
    #[arg(value_name = "STAGE|OUT")]
    transaction: PathBuf,
    #[command(flatten)]
    publish: PublishOptions,
    #[command(flatten)]
    removals: Removals,
}

/// How to commit; shared by `commit`, `run` and `publish`.
#[derive(Args)]
pub(super) struct PublishOptions {
    /// Run CMD by `sh -c` in the stage first, with TXFS_STAGE and TXFS_OUTPUT set; refuse when it fails (repeatable)
    #[arg(long, value_name = "CMD")]
    check: Vec<OsString>,
    /// Publish even a stage without any file
    #[arg(long)]
    allow_empty: bool,
    /// Refuse to lose more than this many percent of the published files
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = percent, allow_negative_numbers = true)]
    max_removed: u8,
    /// Take over files and links in the way that txfs did not publish; they are kept as the previous generation
    #[arg(long)]
    adopt: bool,
    /// Publish over entries that somebody else changed
    #[arg(long)]
    allow_drift: bool,
    /// Publish paths that differ only by case
    #[arg(long)]
    allow_case_collisions: bool,
    /// Change nothing: print what would change as `txfs diff` does, and exit as the commit would
    #[arg(long)]
    dry_run: bool,
    /// Keep TEXT with the generation; `status` shows it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
}

/// What a change takes away; shared by `commit` and `run`.
#[derive(Args, Default)]
pub(super) struct Removals {
    /// Stop publishing PATH and what is below it; for transactions begun with `--from current` (repeatable)
    #[arg(long, value_name = "PATH")]
    remove: Vec<PathBuf>,
}

/// What came of committing.
pub(super) enum Done {
    Committed(Box<Committed>),
    /// The commit could have gone ahead.
    DryRun,
}

impl CommitArgs {
    pub(super) fn has_checks(&self) -> bool {
        self.publish.has_checks()
    }
}

pub(super) fn run(context: &Context, args: &CommitArgs) -> Result<u8, Failure> {
    let (store, id) = handle::find(context, &args.transaction)?;
    refuse_own_stage(context, &args.transaction, id)?;
    let mut transaction = store.resume(id)?;
    let stage = transaction.stage();
    match conclude(context, &store, &mut transaction, &args.publish, &args.removals) {
        Ok(Done::Committed(committed)) => report(context, &store, &committed, true),
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

/// Says what becomes of a detached transaction that was not committed.
fn keep_open(
    ui: &Ui,
    store: &Store,
    transaction: &Transaction<'_>,
    stage: &Path,
    failure: Failure,
    removals: &str,
) -> Failure {
    match failure.source() {
        _ if failure.is_stopped() => failure.hint(handle::still_open(ui, stage, removals)),
        None | Some(Error::StageLost { .. } | Error::OutcomeUnknown { .. }) => failure,
        Some(Error::BaseMoved { .. }) => {
            let again = format!("`txfs begin {} --from current` begins it again", ui.word(store.output()));
            failure.hint(handle::overtaken(ui, store, transaction.from(), stage, &again))
        }
        Some(_) => failure.hint(handle::still_open(ui, stage, removals)),
    }
}

/// Commits the transaction, or says what a commit would do.
pub(super) fn conclude(
    context: &Context,
    store: &Store,
    transaction: &mut Transaction<'_>,
    options: &PublishOptions,
    removals: &Removals,
) -> Result<Done, Failure> {
    let result = commit_or_rehearse(context, store, transaction, options, removals);
    result.map_err(|failure| if transaction.base() == 0 { ask_for_lost_state(failure) } else { failure })
}

/// To a store that was made anew, what the one before it published is foreign.
fn ask_for_lost_state(failure: Failure) -> Failure {
    match failure.source() {
        Some(Error::Refused { problems, .. })
            if problems.iter().any(|problem| matches!(problem, Problem::Foreign(_))) =>
        {
            failure
                .hint("if txfs published them and its state directory was deleted since, --adopt takes them over again")
        }
        _ => failure,
    }
}

fn commit_or_rehearse(
    context: &Context,
    store: &Store,
    transaction: &mut Transaction<'_>,
    options: &PublishOptions,
    removals: &Removals,
) -> Result<Done, Failure> {
    let signals = &context.signals;
    let removals = removals.apply(transaction)?;
    if options.dry_run {
        return options.rehearse(context, store, transaction).map(|()| Done::DryRun);
    }
    signals.expect_none()?;
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
    /// The options to say when it is tried again: nothing in the stage tells of them.
    pub(super) fn again(&self, ui: &Ui) -> String {
        self.remove.iter().map(|path| format!(" --remove {}", ui.word(path))).collect()
    }

    fn apply(&self, transaction: &mut Transaction<'_>) -> Result<Vec<RelPath>, Failure> {
        let mut removals = Vec::new();
        for given in &self.remove {
            let said = |what: &str| usage(format!("--remove {}: {what}", Shown(given)));
            if transaction.from() != Basis::Current {
                return Err(said(
                    "this transaction is the whole new generation: what is not in its stage is removed anyway",
                ));
            }
            let path: PathBuf = given.components().filter(|part| *part != std::path::Component::CurDir).collect();
            if path.as_os_str().is_empty() {
                return Err(said("that is all of the output: publish an empty stage with --allow-empty instead"));
            }
            let path =
                RelPath::from_path(&path).map_err(|error| said(&format!("{error}; say it relative to the output")))?;
            // Otherwise it would go from the stage, even for a dry run.
            if path.under(&transaction.stage()).symlink_metadata().is_ok() {
                return Err(said("it is in the stage: what is staged is published, so remove it there"));
            }
            transaction.remove(path.as_path())?;
            removals.push(path);
        }
        Ok(removals)
    }
}

impl PublishOptions {
    /// For a generation that was published once: it may be as small as it was then.
    pub(super) fn of_an_old_generation(message: String, allow_drift: bool, dry_run: bool) -> Self {
        Self {
            check: Vec::new(),
            allow_empty: true,
            max_removed: 100,
            adopt: false,
            allow_drift,
            allow_case_collisions: true,
            dry_run,
            message: Some(message),
        }
    }

    /// Everything but the checks.
    fn for_library(&self) -> CommitOptions<'_> {
        let options = CommitOptions::default()
            .adopt(self.adopt)
            .allow_drift(self.allow_drift)
            .allow_case_collisions(self.allow_case_collisions)
            .allow_empty(self.allow_empty)
            .max_removed(self.max_removed);
        match &self.message {
            Some(message) => options.message(message),
            None => options,
        }
    }

    pub(super) fn has_checks(&self) -> bool {
        !self.check.is_empty()
    }

    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    fn checks(&self) -> impl Iterator<Item = &OsStr> {
        self.check.iter().map(OsString::as_os_str)
    }

    /// As the commit would, without changing anything.
    fn rehearse(&self, context: &Context, store: &Store, transaction: &Transaction<'_>) -> Result<(), Failure> {
        let signals = &context.signals;
        let stage = transaction.stage();
        let failed = |check: &OsStr| {
            let result = run_check(check, &stage, store.output(), signals).err()?;
            Some(Problem::Check { check: name_of(check), result })
        };
        let mut problems: Vec<_> = self.checks().filter_map(failed).collect();
        signals.expect_none()?;
        let plan = transaction.plan(&self.for_library())?;
        signals.release()?;
        diff::print(&context.ui, &plan, &[])?;
        // A commit whose check fails looks no further.
        if problems.is_empty() {
            problems.clone_from(&plan.problems);
        }
        if !problems.is_empty() {
            return Err(Error::Refused { output: store.output().to_path_buf(), problems }.into());
        }
        let (output, next) = (context.ui.name(store.output()), transaction.base() + 1);
        let summary = Summary(&plan);
        match plan.is_empty() {
            true if plan.restored.is_empty() => context.ui.say(format_args!("dry run: {output} would be unchanged")),
            true => {}
            false => context.ui.say(format_args!("dry run: would publish generation {next} of {output}: {summary}")),
        }
        if !plan.restored.is_empty() {
            let restored = &plan.restored;
            context
                .ui
                .say(format_args!("dry run: would put back what somebody else removed from {output}: {restored}"));
        }
        Ok(())
    }
}

fn percent(text: &str) -> Result<u8, String> {
    let percent = text.parse().ok().filter(|percent| *percent <= 100);
    percent.ok_or_else(|| "this is not a whole number from 0 to 100".to_owned())
}

fn name_of(check: &OsStr) -> String {
    Shown(Path::new(check)).to_string()
}

/// Whether a check passes, and no signal asked for txfs to stop by the time it has ended.
fn run_check(check: &OsStr, stage: &Path, output: &Path, signals: &Signals) -> Result<(), String> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(check).current_dir(stage).env("TXFS_STAGE", stage).env("TXFS_OUTPUT", output);
    // Its stdout goes to stderr: ours carries data.
    command.stdin(Stdio::null()).stdout(io::stderr());
    let stopped = |signal| format!("was stopped by signal {signal}");
    if let Some(signal) = signals.received() {
        return Err(stopped(signal));
    }
    match (command.spawn().and_then(|check| signals.supervise(check)), signals.received()) {
        (_, Some(signal)) => Err(stopped(signal)),
        (Ok(status), None) if status.success() => Ok(()),
        (Ok(status), None) => Err(ended(status)),
        (Err(error), None) => Err(format!("could not be run: {}", error::reason(&error))),
    }
}

/// How a command ended that did not succeed.
pub(super) fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended without a status".to_owned(),
    }
}

/// Tells of a commit that is done. Nothing here can fail it any more.
pub(super) fn report(context: &Context, store: &Store, committed: &Committed, print_number: bool) {
    let (ui, generation) = (&context.ui, committed.generation);
    let output = ui.name(store.output());
    for change in &committed.plan.changes {
        ui.detail(format_args!("{} {}", change.kind.letter(), change.path));
    }
    match (committed.changed, generation) {
        (true, _) => {
            ui.say(format_args!("published generation {generation} of {output}: {}", Summary(&committed.plan)))
        }
        (false, 0) => ui.say(format_args!("{output} is unchanged: nothing has been published")),
        (false, _) => ui.say(format_args!("{output} is unchanged: generation {generation}")),
    }
    let restored = &committed.plan.restored;
    if !restored.is_empty() {
        ui.warn(format_args!("put back what somebody else had removed from {output}: {restored}"));
    }
    report_rescued(ui, &committed.rescued);
    for warning in &committed.warnings {
        ui.warn(format_args!("generation {generation} is published, but {warning}"));
    }
    if let Err(failure) = print(ui, store, committed, print_number) {
        // The commit stands, whether or not somebody reads its number.
        failure.as_warning(ui);
    }
    sweep(ui, store);
}

/// Frees the space that the commit left, now that everybody knows of it.
fn sweep(ui: &Ui, store: &Store) {
    match store.sweep() {
        Ok(swept) => {
            report_rescued(ui, &swept.rescued);
            swept.warnings.iter().for_each(|warning| ui.warn(warning));
        }
        Err(error) => {
            ui.warn(format_args!("what the commit left could not be removed, the next one tries again: {error}"))
        }
    }
}

fn report_rescued(ui: &Ui, rescued: &[PathBuf]) {
    if let Some(moved) = describe_rescued(ui, rescued) {
        ui.warn(moved);
    }
}

/// Says in one line what became of entries that txfs does not delete because they are not those that it recorded.
pub(super) fn describe_rescued(ui: &Ui, rescued: &[PathBuf]) -> Option<String> {
    let directory = ui.name(rescued.first()?.parent()?);
    let entries = if let [_] = rescued { "1 entry".to_owned() } else { format!("{} entries", rescued.len()) };
    Some(format!(
        "moved {entries} to {directory}, not being what txfs recorded, as after its state was copied or somebody changed it: \
         delete there what is not wanted"
    ))
}

fn print(ui: &Ui, store: &Store, committed: &Committed, print_number: bool) -> Result<(), Failure> {
    let mut data = ui.data();
    if ui.json {
        let object = Object::new().path("output", store.output().as_os_str().as_bytes());
        let object = object.field("generation", committed.generation).field("changed", committed.changed);
        let object = summary_fields(object, &committed.plan);
        let object = object.field("files", committed.totals.files).field("bytes", committed.totals.bytes);
        let rescued = committed.rescued.iter().map(|path| path.as_os_str().as_bytes());
        let warnings: Vec<_> = committed.warnings.iter().map(ToString::to_string).collect();
        data.object(object.paths("rescued", rescued).field("warnings", warnings))?;
    } else if print_number {
        data.line(committed.generation)?;
    }
    data.finish()
}

/// How many paths a plan changes, for a JSON object.
pub(super) fn summary_fields(object: Object, plan: &Plan) -> Object {
    let summary = plan.summary;
    let object = object.field("added", summary.added).field("modified", summary.changed);
    object.field("removed", summary.removed).field("unchanged", summary.unchanged)
}

/// How many paths a plan changes, for people: the directories among them too, which are no files.
pub(super) struct Summary<'a>(pub(super) &'a Plan);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let summary = self.0.summary;
        let counts = [
            (summary.added, "added"),
            (summary.changed, "changed"),
            (summary.removed, "removed"),
            (summary.unchanged, "unchanged"),
        ];
        let mut counts = counts.into_iter().filter(|(n, _)| *n > 0);
        let Some((first, what)) = counts.next() else { return f.write_str("nothing") };
        write!(f, "{} {what}", count(first, "path"))?;
        counts.try_for_each(|(n, what)| write!(f, ", {n} {what}"))
    }
}
