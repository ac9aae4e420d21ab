//! `txfs rollback`.

use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{BeginOptions, Store};

use crate::publishing::conclude::{self, Done};
use crate::publishing::hooks::{self, AfterHook, Hooks};
use crate::publishing::options::{PublishOptions, Removals};
use crate::settings::keys::{Given, Settings, take};
use crate::store::context::Context;
use crate::store::generation::name_the_list;
use crate::talk::error::{DONE, Failure};

/// Publish an earlier generation again: the one before the current one, or any that is kept
///
/// It becomes a new generation, with a number of its own: going back twice is going forward again. Only what differs is touched.
/// What the generation after it took over or published over comes back too, and all of it with its attributes, owner and group, as
/// far as you may give them. `txfs log` lists what is kept: one generation, unless --keep or --keep-for said otherwise.
#[derive(Args)]
pub(crate) struct RollbackArgs {
    /// The directory that is published
    out: PathBuf,
    /// Publish generation N again, instead of the one before the current one
    #[arg(long, value_name = "N")]
    to: Option<u64>,
    /// Publish over entries that somebody else changed
    #[arg(long)]
    allow_drift: bool,
    /// Give what comes back the time of the commit instead of its own, for clients that compare times: they may take what is older
    /// than what they have for unchanged
    #[arg(long)]
    touch: bool,
    /// Change nothing: print what would change as `txfs diff` does, and exit as the commit would
    #[arg(long)]
    dry_run: bool,
    /// Keep TEXT with the generation; `status` shows it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    after: AfterHook,
}

impl RollbackArgs {
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// What the command line does not say is as the file says.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>) {
        take!(settings, given; allow_drift => self.allow_drift, touch => self.touch);
        self.after.take(settings, given);
    }

    /// Whether it runs other commands.
    pub(crate) fn runs_any(&self) -> bool {
        self.after.is_any()
    }
}

pub(crate) fn run(context: &Context, args: &RollbackArgs) -> Result<u8, Failure> {
    let store = context.expect(&args.out)?;
    if args.dry_run {
        return preview(context, args, &store);
    }
    let mut transaction = context.begin(&store, BeginOptions::default())?;
    let generation = match args.to {
        Some(to) => {
            transaction.copy_generation(to).map(|()| to).map_err(|error| name_the_list(context, &store, error))?
        }
        None => transaction.copy_previous()?,
    };
    let message = args.message.clone().unwrap_or_else(|| format!("rollback to generation {generation}"));
    let options = PublishOptions::of_an_old_generation(message, args.allow_drift, args.touch, false);
    if let Done::Committed(committed) =
        conclude::conclude(context, &store, &mut transaction, &options, &Removals::default())?
    {
        let (committed, message) = (&*committed, args.message.as_deref());
        let (store, hooks) = (&store, &Hooks::after_alone(&args.after));
        hooks::Done { context, store, committed, hooks, touch: args.touch, message, print_number: true }.conclude()?;
    }
    Ok(DONE)
}

/// What going back would change. Nothing is written.
fn preview(context: &Context, args: &RollbackArgs, store: &Store) -> Result<u8, Failure> {
    let base = store.head()?.map_or(0, |head| head.info.generation);
    let options = PublishOptions::of_an_old_generation(String::new(), args.allow_drift, args.touch, true);
    let options = options.for_library();
    let plan = match args.to {
        Some(to) => store.preview_generation(to, &options).map_err(|error| name_the_list(context, store, error))?,
        None => store.preview_previous(&options)?,
    };
    context.signals.release()?;
    conclude::tell_rehearsed(context, store.output(), base, &plan, Vec::new()).map(|()| DONE)
}
