//! `txfs share`.

use std::path::PathBuf;

use clap::Args;
use txfs::Store;

use crate::store::context::Context;
use crate::store::group;
use crate::talk::error::{DONE, Failure};
use crate::talk::json::Object;

/// Share the store of OUT with a group, each of whose members may then publish to it; or take it back
///
/// The members can then abort, recover, roll back and prune what any of them published, and say --shared for it each time. Directories
/// of OUT that txfs published are opened to the group, as by `chmod g+rwxs`, and files for reading, by a commit of their modes. Only the
/// owner of the state can share it, and take it back. `--shared` of begin, run and publish does the same.
#[derive(Args)]
pub(crate) struct ShareArgs {
    /// The directory that is published
    out: PathBuf,
    /// The group, by name or number; without it the group of OUT
    #[arg(long, value_name = "GROUP", value_parser = group::parse)]
    group: Option<u32>,
    /// Take it back: what is published keeps its modes and owners, and the state is its owner's alone
    #[arg(long, conflicts_with = "group")]
    off: bool,
}

pub(crate) fn run(context: &Context, args: &ShareArgs) -> Result<u8, Failure> {
    let store = context.expect(&args.out)?;
    let store = if args.off { take_back(context, store)? } else { group::share(&context.ui, store, args.group)? };
    if context.ui.json {
        let object = group::shared(Object::new().output(store.output()), Some(&store));
        context.ui.result(context.ui.data(), object)?;
    }
    Ok(DONE)
}

fn take_back(context: &Context, store: Store) -> Result<Store, Failure> {
    let was_shared = store.shared_with().is_some();
    let store = store.unshare()?;
    if was_shared {
        context.ui.say(format_args!("took {} back: only its owner publishes to it", context.ui.name(store.output())));
    }
    context.ui.rescued(&store.take_rescued());
    Ok(store)
}
