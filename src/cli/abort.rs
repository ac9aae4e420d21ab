//! `txfs abort`.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;

use super::error::{DONE, Failure};
use super::output::Object;
use super::{Context, handle};

/// Discard a transaction and its stage; the output stays as it is
#[derive(Args)]
pub(super) struct AbortArgs {
    /// The transaction's stage, or the output while exactly one transaction is open on it
    #[arg(value_name = "STAGE|OUT")]
    transaction: PathBuf,
}

pub(super) fn run(context: &Context, args: &AbortArgs) -> Result<u8, Failure> {
    let (store, id) = handle::find(context, &args.transaction)?;
    handle::resume(context, &store, id)?.abort()?;
    context.ui.say(format_args!("aborted: {} is unchanged", context.ui.name(store.output())));
    if context.ui.json {
        let object = Object::new().field("aborted", id.to_string());
        let mut data = context.ui.data();
        data.object(object.path("output", store.output().as_os_str().as_bytes()))?;
        data.finish()?;
    }
    Ok(DONE)
}
