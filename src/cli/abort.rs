//! `txfs abort`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{Error, OpenTransaction, Store, TransactionId};

use super::error::{DONE, Failure};
use super::output::{Data, Object};
use super::{Context, handle};

/// Discard a transaction and its stage; the output stays as it is
///
/// With --all every open transaction of OUT is discarded, and the path of each one's stage printed; those that another process is
/// at work on are named on stderr and left.
#[derive(Args)]
pub(super) struct AbortArgs {
    /// The transaction's stage, or the output while exactly one transaction is open on it
    #[arg(value_name = "STAGE|OUT")]
    transaction: PathBuf,
    /// Discard every open transaction of OUT; none is no error
    #[arg(long)]
    all: bool,
}

pub(super) fn run(context: &Context, args: &AbortArgs) -> Result<u8, Failure> {
    if args.all {
        abort_all(context, &args.transaction)?
    } else {
        abort_one(context, &args.transaction)?
    }
    Ok(DONE)
}

fn abort_one(context: &Context, handle: &Path) -> Result<(), Failure> {
    let (store, id) = handle::find(context, handle)?;
    store.resume(id)?.abort()?;
    context.ui.say(format_args!("aborted: {} is unchanged", context.ui.name(store.output())));
    let mut data = context.ui.data();
    if context.ui.json {
        print_json(&mut data, &store, id)?;
    }
    data.finish()
}

fn abort_all(context: &Context, out: &Path) -> Result<(), Failure> {
    let store = context.expect(out)?;
    let open = store.transactions()?;
    if open.is_empty() {
        context.ui.say(format_args!("{} has no open transaction", context.ui.name(store.output())));
    }
    // Nobody reading stdout is no reason to keep the rest.
    let mut printed = Ok(());
    for open in open {
        if abort_idle(context, &store, &open)? {
            printed = printed.and_then(|()| print(context, &store, &open));
        }
    }
    printed
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
        Ok(transaction) => transaction.abort()?,
        Err(Error::Busy { .. }) => {
            in_use();
            return Ok(false);
        }
        // Another process was first.
        Err(Error::Usage { .. }) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

fn print(context: &Context, store: &Store, open: &OpenTransaction) -> Result<(), Failure> {
    let mut data = context.ui.data();
    if context.ui.json {
        print_json(&mut data, store, open.id)?;
    } else {
        data.raw(&open.stage)?;
    }
    data.finish()
}

fn print_json(data: &mut Data, store: &Store, id: TransactionId) -> Result<(), Failure> {
    let object = Object::new().field("aborted", id.to_string());
    data.object(object.path("output", store.output().as_os_str().as_bytes()))
}
