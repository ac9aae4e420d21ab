//! `txfs prune`.

use std::path::PathBuf;

use clap::Args;
use txfs::{Pruned, Retention, Store};

use crate::options::retention::Kept;
use crate::store::context::{Context, nothing_published};
use crate::talk::error::{DONE, Failure};
use crate::talk::json::Object;
use crate::talk::output::Ui;
use crate::talk::text::count;

/// Free what commits displaced, but for what --keep and --keep-for keep
///
/// Without these nothing is kept: no generation before the current one can then be gone back to. What is published stays as it is.
/// Without this command what is not kept any more goes with the next commit.
#[derive(Args)]
pub(crate) struct PruneArgs {
    /// The directory that is published
    out: PathBuf,
    #[command(flatten)]
    kept: Kept,
}

pub(crate) fn run(context: &Context, args: &PruneArgs) -> Result<u8, Failure> {
    let Some(store) = context.find(&args.out)? else {
        context.ui.say(nothing_published(&context.ui, &args.out));
        print(context, &context.locate(&args.out)?, &Pruned::default())?;
        return Ok(DONE);
    };
    args.kept.remember(&store)?;
    let pruned = store.prune(args.kept.said().unwrap_or(Retention::generations(0)))?;
    tell(&context.ui, &store, &pruned)?;
    print(context, store.output(), &pruned)?;
    Ok(DONE)
}

fn tell(ui: &Ui, store: &Store, pruned: &Pruned) -> Result<(), Failure> {
    let output = ui.name(store.output());
    match (pruned.files, pruned.generation) {
        (0, _) => ui.say(format_args!("there is nothing to free: no commit to {output} displaced what is still kept")),
        (files, generation) => {
            let (files, bytes) = (count(files, "file"), count(pruned.bytes, "byte"));
            ui.say(format_args!("freed {bytes} in {files} that commits to {output} displaced"));
            let oldest = store.history()?.last().map(|oldest| oldest.number).or(generation).unwrap_or_default();
            ui.say(format_args!("generation {oldest} of {output} can not be gone back from any more"));
        }
    }
    ui.rescued(&pruned.rescued);
    pruned.warnings.iter().for_each(|warning| ui.warn_of(warning));
    Ok(())
}

fn print(context: &Context, output: &std::path::Path, pruned: &Pruned) -> Result<(), Failure> {
    if !context.ui.json {
        return Ok(());
    }
    let object = Object::new().output(output).field("generation", pruned.generation);
    let object = object.field("freed_files", pruned.files).field("freed_bytes", pruned.bytes);
    let rescued = pruned.rescued.iter().map(|path| std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
    context.ui.result(context.ui.data(), object.paths("rescued", rescued))
}
