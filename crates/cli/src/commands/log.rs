//! `txfs log`.

use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{Changes, Generation, Shown};

use crate::store::context::{Context, nothing_published};
use crate::talk::error::{DONE, Failure};
use crate::talk::json::Object;
use crate::talk::output::Ui;
use crate::talk::text::{size, time};

/// List the generations: the current one, and those that can be gone back to
///
/// The newest comes first. `txfs rollback --to NUMBER` publishes one of them again; --keep and --keep-for of `run`, `commit`, `publish` and
/// `prune` say how many are kept.
#[derive(Args)]
pub(crate) struct LogArgs {
    /// The directory that is published
    out: PathBuf,
    /// List the last N alone
    #[arg(short = 'n', value_name = "N")]
    limit: Option<usize>,
}

pub(crate) fn run(context: &Context, args: &LogArgs) -> Result<u8, Failure> {
    let Some(store) = context.find(&args.out)? else {
        context.ui.say(nothing_published(&context.ui, &args.out));
        print(&context.ui, &context.locate(&args.out)?, &[])?;
        return Ok(DONE);
    };
    let history = store.history()?;
    let listed = &history[..args.limit.unwrap_or(history.len()).min(history.len())];
    print(&context.ui, store.output(), listed)?;
    Ok(DONE)
}

fn print(ui: &Ui, output: &Path, generations: &[Generation]) -> Result<(), Failure> {
    let mut data = ui.data();
    if ui.json {
        for generation in generations {
            data.object(object(output, generation))?;
        }
        let object = Object::new().output(output).field("generations", generations.len());
        return ui.result(data, object.field("held_bytes", generations.iter().map(|one| one.held).sum::<u64>()));
    }
    for generation in generations {
        data.line(line(generation))?;
    }
    data.finish()
}

fn line(generation: &Generation) -> String {
    let committed = generation.committed.map_or_else(|| "?".to_owned(), |committed| time(committed.seconds));
    let Changes { added, modified, removed, .. } = generation.changes.unwrap_or_default();
    let changes = match generation.changes {
        Some(_) => format!("+{added} ~{modified} -{removed}"),
        None => "?".to_owned(),
    };
    let message = generation.message.as_ref().map(|message| format!("  {}", Shown(Path::new(message))));
    let held = if generation.held > 0 { format!("  holds {}", size(generation.held)) } else { String::new() };
    format!("{:>6}  {committed:<20}  {changes:<14}{}{held}", generation.number, message.unwrap_or_default())
        .trim_end()
        .to_owned()
}

fn object(output: &Path, generation: &Generation) -> Object {
    let totals = generation.totals;
    let object = Object::new().output(output).field("generation", generation.number);
    let object = object.field("committed", generation.committed.map(|committed| time(committed.seconds)));
    let object = object.field("message", generation.message.clone());
    let object =
        object.field("files", totals.map(|totals| totals.files)).field("bytes", totals.map(|totals| totals.bytes));
    let changes = generation.changes;
    let object = object.field("added_entries", changes.map(|changes| changes.added));
    let object = object.field("modified_entries", changes.map(|changes| changes.modified));
    object.field("removed_entries", changes.map(|changes| changes.removed)).field("held_bytes", generation.held)
}
