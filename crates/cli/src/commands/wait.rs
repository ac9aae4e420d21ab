//! `txfs wait`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use txfs::Watch;

use crate::settings::values::seconds;
use crate::store::context::Context;
use crate::talk::error::{BUSY, DONE, Failure};
use crate::talk::json::Object;

/// Wait until a generation is committed, and print its number
///
/// Generations that a build or a commit did not come to make are none. OUT need not have been published yet.
#[derive(Args)]
pub(crate) struct WaitArgs {
    /// The directory that is published
    out: PathBuf,
    /// For a generation after N, which may be there already; otherwise for the next one
    #[arg(long, value_name = "N")]
    after: Option<u64>,
    /// Exit with 3 when there is none within so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    timeout: Option<Duration>,
}

pub(crate) fn run(context: &Context, args: &WaitArgs) -> Result<u8, Failure> {
    // What a crash interrupted is a generation once it is recovered.
    context.find(&args.out)?;
    let mut watch = Watch::new(&context.options(), &args.out, args.after)?;
    let after = watch.after();
    let Some(mut last) = watch.next_within(args.timeout.unwrap_or(Duration::MAX))? else {
        return Err(timed_out(context, watch.output(), after, args.timeout.unwrap_or_default()));
    };
    while let Some(later) = watch.next_within(Duration::ZERO)? {
        last = later;
    }
    let mut data = context.ui.data();
    if context.ui.json {
        context.ui.result(data, Object::new().output(watch.output()).field("generation", last.number))?;
        return Ok(DONE);
    }
    data.line(last.number)?;
    data.finish().map(|()| DONE)
}

fn timed_out(context: &Context, output: &Path, after: u64, limit: Duration) -> Failure {
    let (output, limit) = (context.ui.name(output), limit.as_secs_f64());
    Failure::with_code(BUSY, format!("{output}: no generation after {after} was committed within {limit} s"))
}
