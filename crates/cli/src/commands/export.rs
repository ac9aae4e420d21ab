//! `txfs export`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::store::context::Context;
use crate::store::generation;
use crate::talk::error::{DONE, Failure, cannot, usage};
use crate::talk::json::Object;
use crate::talk::text::count;

/// Copy the current generation, or an earlier one that is kept, to a new directory
///
/// With modes, times and attributes, and owners as far as you may give them. What is copied is what was published: where somebody has
/// changed it since, this fails. It is no transaction: when it fails, DIR has a part of it.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// The directory that is published
    out: PathBuf,
    /// Where to: a directory that is not there yet, or is empty
    dir: PathBuf,
    /// Generation N
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
}

pub(crate) fn run(context: &Context, args: &ExportArgs) -> Result<u8, Failure> {
    let (store, snapshot) = generation::find(context, &args.out, args.generation)?;
    make(&args.dir)?;
    let files = snapshot.copy_to(&args.dir)?.files;
    let (generation, dir) = (snapshot.generation(), context.ui.name(&args.dir));
    let output = context.ui.name(store.output());
    context.ui.say(format_args!("copied generation {generation} of {output} to {dir}: {}", count(files, "file")));
    if context.ui.json {
        let object = Object::new().output(store.output()).field("generation", generation).field("files", files);
        context.ui.result(context.ui.data(), object)?;
    }
    Ok(DONE)
}

/// Makes the directory; one that has something in it is not touched.
fn make(dir: &Path) -> Result<(), Failure> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_empty = fs::read_dir(dir).map_err(|error| cannot("list", dir, error))?.next().is_none();
            let what = || format!("{} is not empty: name a directory that is not there yet", txfs::Shown(dir));
            if is_empty { Ok(()) } else { Err(usage(what())) }
        }
        made => made.map_err(|error| cannot("make the directory", dir, error)),
    }
}
