//! `txfs recover`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{RecoverOptions, Recovered, RecoveredCommit};

use crate::store::context::Context;
use crate::store::opened;
use crate::talk::error::{DONE, Failure};
use crate::talk::json::Object;
use crate::talk::output::Ui;

/// Finish or undo what a crash interrupted
///
/// Every other command but `journal` does this too, before anything else. Says in one line on stderr what it did; silent when
/// there was nothing to do. Where nothing has been published yet it says so and exits with 0, so that it can run at boot.
#[derive(Args)]
pub(crate) struct RecoverArgs {
    /// The directory that is published
    out: PathBuf,
    /// Leave alone what is neither as before the interrupted commit nor as after it, and finish the rest; with --undo, undo the rest
    #[arg(long)]
    skip_unknown: bool,
    /// Undo a commit that has passed its commit point but cannot be finished
    #[arg(long)]
    undo: bool,
}

pub(crate) fn run(context: &Context, args: &RecoverArgs) -> Result<u8, Failure> {
    let Some(store) = context.open(&context.options(), &args.out)? else {
        let output = context.ui.name(&args.out);
        context.ui.say(format_args!("there is nothing to recover: txfs has nothing for {output}"));
        print(&context.ui, &context.locate(&args.out)?, None, &Recovered::default())?;
        return Ok(DONE);
    };
    let recovered = store.recover(RecoverOptions::default().undo(args.undo).skip_unknown(args.skip_unknown))?;
    opened::tell_recovered(&context.ui, &store, &recovered);
    let generation = if context.ui.json { store.head()?.map(|head| head.info.generation) } else { None };
    print(&context.ui, store.output(), generation, &recovered)?;
    Ok(DONE)
}

/// `generation` is the one that is published now.
fn print(ui: &Ui, output: &Path, generation: Option<u64>, recovered: &Recovered) -> Result<(), Failure> {
    if !ui.json {
        return Ok(());
    }
    let (commit, of, operations) = match recovered.commit {
        None => (None, None, None),
        Some(RecoveredCommit::RolledForward { generation, operations }) => {
            (Some("rolled-forward"), Some(generation), Some(operations))
        }
        Some(RecoveredCommit::RolledBack { generation }) => (Some("rolled-back"), Some(generation), None),
        Some(RecoveredCommit::Settled { generation }) => (Some("settled"), Some(generation), None),
        Some(_) => (Some("discarded"), None, None),
    };
    let discarded: Vec<_> = recovered.discarded.iter().map(ToString::to_string).collect();
    let rescued = recovered.rescued.iter().map(|path| path.as_os_str().as_bytes());
    let object = Object::new().output(output).field("generation", generation);
    let object = object.field("commit", commit).field("commit_generation", of).field("operations", operations);
    let object = object.field("discarded", discarded).paths("rescued", rescued);
    let object = object.relatives("skipped", &recovered.skipped.first);
    ui.result(ui.data(), object.field("skipped_total", recovered.skipped.total))
}
