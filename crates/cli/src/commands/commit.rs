//! `txfs commit`.

use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{Error, Store, Transaction, TransactionId};

use crate::options::at;
use crate::publishing::conclude::{self, Done};
use crate::publishing::hooks::Hooks;
use crate::publishing::left;
use crate::publishing::options::{PublishOptions, Removals};
use crate::settings::keys::{Given, Settings};
use crate::store::context::Context;
use crate::store::handle;
use crate::store::stage;
use crate::talk::error::{DONE, Failure, usage};
use crate::talk::output::Ui;

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
    match conclude::conclude(context, &store, &mut transaction, &args.publish, &args.removals) {
        Ok(Done::Committed(committed)) => {
            let (hooks, publish) = (&args.hooks, &args.publish);
            conclude::after(context, &store, &committed, hooks, publish, true)?;
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
    match stage::parse(Path::new(&stage))? {
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
    transaction: &Transaction,
    stage: &Path,
    failure: Failure,
    removals: &str,
) -> Failure {
    let failure = match failure.source() {
        Some(_) if !transaction.is_open() => failure,
        _ if failure.is_stopped() => failure.hint(left::still_open(ui, stage, removals)),
        None | Some(Error::StageLost { .. } | Error::OutcomeUnknown { .. }) => failure,
        Some(Error::BaseMoved { .. }) => {
            let (output, at) = (ui.word(store.output()), transaction.at());
            let again = format!("`txfs begin {output}{} --from current` begins it again", at::again(ui, &at));
            failure.hint(left::overtaken(ui, store, transaction.from(), &at, stage, &again))
        }
        Some(_) => failure.hint(left::still_open(ui, stage, removals)),
    };
    left::others_open(ui, store, stage, 1).into_iter().fold(failure, Failure::hint)
}
