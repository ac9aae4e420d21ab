//! `txfs rollback`.

use std::path::PathBuf;

use clap::Args;
use txfs::BeginOptions;

use super::Context;
use super::commit::{self, Done, PublishOptions, Removals};
use super::error::{DONE, Failure};

/// Publish the generation before the current one again
///
/// It becomes a new generation, with a number of its own: going back twice is going forward again. Only what differs is touched.
/// What the current generation took over or published over comes back too, and all of it with its attributes, owner and group, as
/// far as you may give them. No generation before that one is kept.
#[derive(Args)]
pub(super) struct RollbackArgs {
    /// The directory that is published
    out: PathBuf,
    /// Publish over entries that somebody else changed
    #[arg(long)]
    allow_drift: bool,
    /// Change nothing: print what would change as `txfs diff` does, and exit as the commit would
    #[arg(long)]
    dry_run: bool,
    /// Keep TEXT with the generation; `status` shows it
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
}

pub(super) fn run(context: &Context, args: &RollbackArgs) -> Result<u8, Failure> {
    let store = context.expect(&args.out)?;
    let mut transaction = store.begin(BeginOptions::default())?;
    let generation = transaction.copy_previous()?;
    let message = args.message.clone().unwrap_or_else(|| format!("rollback to generation {generation}"));
    let options = PublishOptions::of_an_old_generation(message, args.allow_drift, args.dry_run);
    match commit::conclude(context, &store, &mut transaction, &options, &Removals::default())? {
        Done::Committed(committed) => commit::report(context, &store, &committed, true),
        Done::DryRun => transaction.abort()?,
    }
    Ok(DONE)
}
