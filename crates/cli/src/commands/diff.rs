//! `txfs diff`.

use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{Basis, CommitOptions, OpenTransaction, Plan, Shown, Store};

use crate::options::exclude::Excludes;
use crate::publishing::changes;
use crate::publishing::report;
use crate::publishing::source;
use crate::publishing::summary::{Restored, Summary};
use crate::settings::keys::{Given, Settings, take};
use crate::store::context::Context;
use crate::store::generation;
use crate::store::handle;
use crate::store::stage;
use crate::talk::error::{DIFFERS, DONE, Failure, usage};

/// Print what a commit would change, or what changed between two generations
///
/// One line for each path: A added, M content modified, m mode modified, T kind of entry modified, D removed. What would
/// prevent the commit is said on stderr. Besides recovering, nothing is written, and an open transaction stays as it is. A directory is taken as
/// `txfs publish` would copy it.
#[derive(Args)]
pub(crate) struct DiffArgs {
    /// The directory that is published
    out: PathBuf,
    /// What would be published: a transaction's stage or any other directory; the one open transaction unless given
    #[arg(value_name = "STAGE|DIR")]
    stage: Option<PathBuf>,
    /// What changed since generation N: until the current one, or --to
    #[arg(long, value_name = "N", conflicts_with_all = ["stage", "exclude"])]
    from: Option<u64>,
    /// Until generation N: since the one before it, or --from
    #[arg(long, value_name = "N", conflicts_with_all = ["stage", "exclude"])]
    to: Option<u64>,
    #[command(flatten)]
    excludes: Excludes,
    /// Exit with 8 if there are changes
    #[arg(long)]
    exit_code: bool,
}

impl DiffArgs {
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// What the command line does not say is as the file says.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>) {
        take!(settings, given; exclude => self.excludes.exclude);
    }
}

pub(crate) fn run(context: &Context, args: &DiffArgs) -> Result<u8, Failure> {
    if args.from.is_some() || args.to.is_some() {
        return between(context, args);
    }
    let store = context.expect(&args.out)?;
    let options = args
        .excludes
        .for_library()
        .map_or_else(CommitOptions::default, |exclude| CommitOptions::default().exclude(exclude));
    let (plan, notes) = match &args.stage {
        None => of_transaction(&store, &handle::only(context, &store)?, &options)?,
        Some(stage) => match find_transaction(context, &store, stage)? {
            Some(open) => of_transaction(&store, &open, &options)?,
            None => (of_directory(context, &store, stage, &options)?, Vec::new()),
        },
    };
    report::warn(&context.ui, &plan);
    let current = store.head()?.map(|head| head.info.generation);
    changes::print(&context.ui, store.output(), current, &plan, &notes)?;
    notes.iter().for_each(|note| context.ui.problem(note));
    plan.problems.iter().for_each(|problem| context.ui.problem(problem));
    let restored = &plan.restored;
    if restored.is_empty() {
        context.ui.detail(Summary(&plan));
    } else {
        let output = context.ui.name(store.output());
        context.ui.say(format_args!("a commit would put back {}", Restored(&output, restored)));
    }
    Ok(if args.exit_code && !(plan.changes.is_empty() && restored.is_empty()) { DIFFERS } else { DONE })
}

/// What changed from one generation to another.
fn between(context: &Context, args: &DiffArgs) -> Result<u8, Failure> {
    let (store, now) = generation::find(context, &args.out, args.to)?;
    let from = args.from.unwrap_or_else(|| now.generation().saturating_sub(1));
    let before = match from {
        0 => None,
        from => Some(store.at(from).map_err(|error| generation::name_the_list(context, &store, error))?),
    };
    let found = now.changes_since(before.as_ref())?;
    changes::print_between(&context.ui, store.output(), (from, now.generation()), &found)?;
    Ok(if args.exit_code && !found.is_empty() { DIFFERS } else { DONE })
}

/// The open transaction whose stage a path is; `None` for any other directory.
fn find_transaction(context: &Context, store: &Store, stage: &Path) -> Result<Option<OpenTransaction>, Failure> {
    let Some((output, id)) = stage::parse(stage)? else { return Ok(None) };
    if output != store.output() {
        let (stage, output) = (Shown(stage), context.ui.name(&output));
        return Err(usage(format!("{stage} is a stage of {output}")));
    }
    Ok(store.transactions()?.into_iter().find(|open| open.id == id))
}

/// As `txfs publish` would copy it.
fn of_directory(context: &Context, store: &Store, dir: &Path, options: &CommitOptions<'_>) -> Result<Plan, Failure> {
    source::resolve_directory(dir)?;
    let preview = store.preview_copy(dir, false, options)?;
    source::warn_of_states(&context.ui, &preview.left_out);
    Ok(preview.plan)
}

/// A stage that is a whole generation is looked at without taking the transaction up: its process may be at work.
fn of_transaction(
    store: &Store,
    open: &OpenTransaction,
    options: &CommitOptions<'_>,
) -> Result<(Plan, Vec<String>), Failure> {
    if open.from == Some(Basis::Current) {
        return Ok((store.resume(open.id)?.plan(options)?, Vec::new()));
    }
    let plan = store.preview(&open.stage, options)?;
    let current = store.head()?.map_or(0, |head| head.info.generation);
    let overtaken =
        |base| format!("generation {current} was committed since this transaction began on generation {base}");
    let base = if store.is_overtaken(open.id)? { open.base } else { None };
    Ok((plan, base.map(overtaken).into_iter().collect()))
}
