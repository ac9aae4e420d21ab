//! `txfs cat`.

use std::path::PathBuf;

use clap::Args;

use crate::store::context::Context;
use crate::store::generation;
use crate::talk::error::{DONE, Failure, usage};

/// Print a file of the current generation, or of an earlier one that is kept
///
/// What is printed is what was published, byte for byte: where somebody has changed the file since, this fails.
#[derive(Args)]
pub(crate) struct CatArgs {
    /// The directory that is published
    out: PathBuf,
    /// The file, by its path in OUT
    path: PathBuf,
    /// Of generation N
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
}

pub(crate) fn run(context: &Context, args: &CatArgs) -> Result<u8, Failure> {
    if context.ui.json {
        return Err(usage("`cat` prints the file itself: leave out --json"));
    }
    let (_, snapshot) = generation::find(context, &args.out, args.generation)?;
    let mut data = context.ui.data();
    data.bytes(&snapshot.read(&args.path)?)?;
    data.finish().map(|()| DONE)
}
