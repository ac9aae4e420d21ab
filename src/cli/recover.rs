//! `txfs recover`, and the line in which every other command says what recovery did.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;
use txfs::{Recovered, RecoveredCommit, Store};

use super::error::{DONE, Failure};
use super::output::{Object, Ui};
use super::{Context, commit, count};

/// Finish or undo what a crash interrupted
///
/// Every other command but `journal` does this too, before anything else. Says in one line on stderr what it did; silent when
/// there was nothing to do. Where nothing has been published yet it says so and exits with 0, so that it can run at boot.
#[derive(Args)]
pub(super) struct RecoverArgs {
    /// The directory that is published
    out: PathBuf,
    /// Leave alone what is neither as before the interrupted commit nor as after it, and finish the rest
    #[arg(long)]
    skip_unknown: bool,
    /// Undo a commit that has passed its commit point but cannot be finished
    #[arg(long, conflicts_with = "skip_unknown")]
    undo: bool,
}

pub(super) fn run(context: &Context, args: &RecoverArgs) -> Result<u8, Failure> {
    let Some(store) = context.open(&context.options(), &args.out)? else {
        let output = context.ui.name(&args.out);
        context.ui.say(format_args!("there is nothing to recover: txfs has nothing for {output}"));
        print(&context.ui, None, &Recovered::default())?;
        return Ok(DONE);
    };
    let recovered = match (args.skip_unknown, args.undo) {
        (true, _) => store.recover_skipping_unknown()?,
        (_, true) => store.recover_undoing()?,
        _ => store.recover()?,
    };
    tell(&context.ui, &store, &recovered);
    print(&context.ui, Some(&store), &recovered)?;
    Ok(DONE)
}

/// Says in one line what recovery did, if it did anything.
pub(super) fn tell(ui: &Ui, store: &Store, recovered: &Recovered) {
    if !recovered.is_nothing() {
        tell_done(ui, store, recovered);
    }
    if !recovered.skipped.is_empty() {
        let (skipped, output) = (&recovered.skipped, ui.name(store.output()));
        let paths = count(skipped.total, "path");
        ui.warn(format_args!("{paths} of {output} left as found, and no longer as published: {skipped}"));
    }
    recovered.warnings.iter().for_each(|warning| ui.warn(warning));
}

fn tell_done(ui: &Ui, store: &Store, recovered: &Recovered) {
    let mut parts: Vec<_> = recovered.commit.iter().map(|commit| describe(*commit)).collect();
    if !recovered.discarded.is_empty() {
        parts.push(format!("discarded {}", count(recovered.discarded.len() as u64, "unfinished transaction")));
    }
    let line = format!("txfs: recovered {}: {}", ui.name(store.output()), parts.join("; "));
    match commit::describe_rescued(ui, &recovered.rescued) {
        None => ui.say(line),
        Some(moved) => ui.warn(format_args!("{line}{}{moved}", if parts.is_empty() { "" } else { "; " })),
    }
}

fn describe(commit: RecoveredCommit) -> String {
    match commit {
        RecoveredCommit::RolledForward { generation, operations } => {
            format!("finished the interrupted commit of generation {generation} ({})", count(operations, "operation"))
        }
        RecoveredCommit::RolledBack { generation } => {
            format!("rolled back the interrupted commit of generation {generation}")
        }
        RecoveredCommit::Settled { generation } => {
            format!("tidied up after the commit of generation {generation}, which was complete")
        }
        RecoveredCommit::Discarded => "discarded a commit that had not changed anything yet".to_owned(),
        _ => "settled an interrupted commit".to_owned(),
    }
}

fn print(ui: &Ui, store: Option<&Store>, recovered: &Recovered) -> Result<(), Failure> {
    if !ui.json {
        return Ok(());
    }
    let mut object = Object::new();
    if let Some(store) = store {
        object = object.path("output", store.output().as_os_str().as_bytes());
    }
    object = match recovered.commit {
        None => object.field("commit", serde_json::Value::Null),
        Some(RecoveredCommit::RolledForward { generation, operations }) => {
            object.field("commit", "rolled-forward").field("generation", generation).field("operations", operations)
        }
        Some(RecoveredCommit::RolledBack { generation }) => {
            object.field("commit", "rolled-back").field("generation", generation)
        }
        Some(RecoveredCommit::Settled { generation }) => {
            object.field("commit", "settled").field("generation", generation)
        }
        Some(_) => object.field("commit", "discarded"),
    };
    let discarded: Vec<_> = recovered.discarded.iter().map(ToString::to_string).collect();
    let rescued = recovered.rescued.iter().map(|path| path.as_os_str().as_bytes());
    let mut data = ui.data();
    let warnings: Vec<_> = recovered.warnings.iter().map(ToString::to_string).collect();
    let skipped = recovered.skipped.first.iter().map(|path| path.as_bytes());
    let object = object.field("discarded", discarded).paths("rescued", rescued).paths("skipped", skipped);
    data.object(object.field("skipped_total", recovered.skipped.total).field("warnings", warnings))?;
    data.finish()
}
