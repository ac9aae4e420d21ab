//! `txfs log`.

use std::path::{Path, PathBuf};

use clap::Args;
use txfs::Generation;

use crate::store::context::{Context, nothing_published};
use crate::store::past;
use crate::talk::error::{DONE, Failure};
use crate::talk::json::Object;
use crate::talk::output::Ui;

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
            data.object(past::object(output, generation))?;
        }
        let object = Object::new().output(output).field("generations", generations.len());
        return ui.result(data, object.field("held_bytes", generations.iter().map(|one| one.held).sum::<u64>()));
    }
    for generation in generations {
        data.line(past::line(generation))?;
    }
    data.finish()
}
