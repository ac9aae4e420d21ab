//! `txfs watch`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use txfs::{Change, Generation, Store, Watch};

use crate::publishing::changes::change_part;
use crate::store::context::Context;
use crate::store::past;
use crate::talk::error::{DONE, Failure};

/// Print a line for each generation that is committed
///
/// None for anything else, none twice, and none is left out: where several are committed at once each has its line. A line is as `txfs log`
/// has it; with --json it has the paths that changed, as far as that is still known. OUT need not have been published yet.
#[derive(Args)]
pub(crate) struct WatchArgs {
    /// The directory that is published
    out: PathBuf,
    /// Begin with the generation after N, which may be there already
    #[arg(long, value_name = "N")]
    after: Option<u64>,
    /// Exit after so many lines
    #[arg(short = 'n', value_name = "COUNT")]
    count: Option<usize>,
}

pub(crate) fn run(context: &Context, args: &WatchArgs) -> Result<u8, Failure> {
    // What a crash interrupted is a generation once it is recovered.
    context.find(&args.out)?;
    let watch = Watch::new(&context.options(), &args.out, args.after)?;
    let output = watch.output().to_path_buf();
    for generation in watch.take(args.count.unwrap_or(usize::MAX)) {
        print(context, &output, &generation?)?;
    }
    Ok(DONE)
}

fn print(context: &Context, output: &Path, generation: &Generation) -> Result<(), Failure> {
    // Each is read as soon as it is written.
    let mut data = context.ui.data();
    if context.ui.json {
        let changed = changes(context, output, generation.number);
        let object = past::object(output, generation);
        let object = match changed {
            Some(changes) => object.parts("changes", changes.iter().map(change_part)),
            None => object.field("changes", Value::Null),
        };
        data.object(object)?;
    } else {
        data.line(past::line(generation))?;
    }
    data.finish()
}

/// What a generation changed; `None` where that is not known any more.
fn changes(context: &Context, output: &Path, number: u64) -> Option<Vec<Change>> {
    let store = Store::find(&context.options(), output).ok()??;
    store.changes_of(number).ok()?
}
