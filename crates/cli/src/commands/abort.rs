//! `txfs abort`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{Error, OpenTransaction, Store, TransactionId};

use crate::store::context::{Context, nothing_published};
use crate::store::handle;
use crate::talk::error::{DONE, Failure};
use crate::talk::json::Object;

/// Discard a transaction and its stage; the output stays as it is
///
/// With --all every open transaction of OUT is discarded, and the path of each one's stage printed; those that another process is
/// at work on are named on stderr and left.
#[derive(Args)]
pub(crate) struct AbortArgs {
    /// The transaction's stage, or the output while exactly one transaction is open on it
    #[arg(value_name = "STAGE|OUT")]
    transaction: PathBuf,
    /// Discard every open transaction of OUT; none is no error
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(context: &Context, args: &AbortArgs) -> Result<u8, Failure> {
    if args.all {
        abort_all(context, &args.transaction)?
    } else {
        abort_one(context, &args.transaction)?
    }
    Ok(DONE)
}

fn abort_one(context: &Context, handle: &Path) -> Result<(), Failure> {
    let (store, id) = handle::find(context, handle)?;
    let transaction = store.resume(id)?;
    let stage = transaction.stage();
    transaction.abort().map_err(|error| match error {
        Error::Io { .. } => Failure::from(error)
            .hint("the transaction is over: the next txfs command removes what is left of its stage"),
        error => error.into(),
    })?;
    context.ui.rescued(&store.take_rescued());
    context.ui.say(format_args!("aborted: {} is unchanged", context.ui.name(store.output())));
    if !context.ui.json {
        return Ok(());
    }
    let object = item(&store, id, &stage, true);
    context.ui.result(context.ui.data(), object.field("discarded", vec![id.to_string()]))
}

fn abort_all(context: &Context, out: &Path) -> Result<(), Failure> {
    let Some(store) = context.find(out)? else {
        context.ui.say(nothing_published(&context.ui, out));
        return summarize(context, &context.locate(out)?, Vec::new());
    };
    let open = store.transactions()?;
    if open.is_empty() {
        context.ui.say(format_args!("{} has no open transaction", context.ui.name(store.output())));
    }
    // Nobody reading stdout is no reason to keep the rest.
    let (mut printed, mut discarded) = (Ok(()), Vec::new());
    for open in open {
        let aborted = abort_idle(context, &store, &open)?;
        discarded.extend(aborted.then(|| open.id.to_string()));
        printed = printed.and_then(|()| print(context, &store, &open, aborted));
    }
    printed.and_then(|()| summarize(context, store.output(), discarded))
}

fn summarize(context: &Context, output: &Path, discarded: Vec<String>) -> Result<(), Failure> {
    if !context.ui.json {
        return Ok(());
    }
    context.ui.result(context.ui.data(), Object::new().output(output).field("discarded", discarded))
}

/// Whether the transaction was discarded; says so where a process is at work on it.
fn abort_idle(context: &Context, store: &Store, open: &OpenTransaction) -> Result<bool, Failure> {
    let stage = context.ui.name(&open.stage);
    let in_use = || context.ui.warn(format_args!("{stage} is left: another process is at work on it"));
    if open.live {
        in_use();
        return Ok(false);
    }
    match store.resume(open.id) {
        Ok(transaction) => {
            transaction.abort()?;
            context.ui.rescued(&store.take_rescued());
        }
        Err(Error::Busy { .. }) => {
            in_use();
            return Ok(false);
        }
        // Another process was first.
        Err(Error::NoTransaction { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

fn print(context: &Context, store: &Store, open: &OpenTransaction, aborted: bool) -> Result<(), Failure> {
    let mut data = context.ui.data();
    if context.ui.json {
        data.object(item(store, open.id, &open.stage, aborted))?;
    } else if aborted {
        data.raw(&open.stage)?;
    }
    data.finish()
}

fn item(store: &Store, id: TransactionId, stage: &Path, aborted: bool) -> Object {
    let object = Object::new().output(store.output()).field("transaction", id.to_string());
    object.path("stage", stage.as_os_str().as_bytes()).field("aborted", aborted)
}
