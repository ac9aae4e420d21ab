//! Commits a transaction, or says what a commit would do.

use std::ffi::OsStr;
use std::path::Path;

use txfs::{ChangeKind, Committed, Error, Plan, Problem, RelPath, Store, Transaction};

use crate::publishing::changes;
use crate::publishing::checks::{name_of, run_check};
use crate::publishing::hooks::{self, Hooks};
use crate::publishing::options::{PublishOptions, Removals};
use crate::publishing::report;
use crate::publishing::summary::{Restored, Summary};
use crate::store::context::Context;
use crate::talk::error::Failure;

/// What came of committing.
pub(crate) enum Done {
    Committed(Box<Committed>),
    /// The commit could have gone ahead.
    DryRun,
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
    if options.is_dry_run() {
        return rehearse(options, context, store, transaction).map(|()| Done::DryRun);
    }
    signals.expect_none()?;
    options.remember_kept(store)?;
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

/// As the commit would, without changing anything.
fn rehearse(
    options: &PublishOptions,
    context: &Context,
    store: &Store,
    transaction: &Transaction,
) -> Result<(), Failure> {
    let signals = &context.signals;
    let stage = transaction.stage();
    let failed = |check: &OsStr| {
        let result = run_check(check, &stage, store.output(), signals).err()?;
        Some(Problem::Check { check: name_of(check), result })
    };
    let problems: Vec<_> = options.checks().filter_map(failed).collect();
    signals.expect_none()?;
    let plan = transaction.plan(&options.for_library())?;
    signals.release()?;
    tell_rehearsed(context, store.output(), transaction.base(), &plan, problems)
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
    changes::print(&context.ui, output, Some(base).filter(|base| *base > 0), plan, &[])?;
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

/// Tells of a commit that is done, and runs what is to follow it.
pub(crate) fn after(
    context: &Context,
    store: &Store,
    committed: &Committed,
    hooks: &Hooks,
    publish: &PublishOptions,
    print_number: bool,
) -> Result<(), Failure> {
    let (touch, message) = (publish.touches(), publish.message());
    hooks::Done { context, store, committed, hooks, touch, message, print_number }.conclude()
}
