//! `txfs publish`.

use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{BeginOptions, Problem, Shown, Transaction};

use super::commit::{self, Done, PublishOptions, Removals};
use super::error::{DONE, Failure, cannot, usage};
use super::output::Ui;
use super::{Context, count};

/// Publish a copy of a directory
///
/// SRC is copied, larger files by reflink where the file system can, and committed. Entries of OUT that txfs did not publish stay. Files that are
/// published already with the same size, time and mode are neither read nor copied, unless --checksum or --check is given.
/// State directories of txfs in SRC are left out, with a warning, and set-id bits are dropped where the copy has another owner or group. Prints
/// the number of the generation that is published now.
#[derive(Args)]
pub(super) struct PublishArgs {
    /// The directory that is published; it need not exist
    out: PathBuf,
    /// The directory whose content is to be published
    src: PathBuf,
    /// Read and compare every file of SRC, also those whose size, time and mode are as published
    #[arg(long)]
    checksum: bool,
    #[command(flatten)]
    publish: PublishOptions,
}

impl PublishArgs {
    pub(super) fn has_checks(&self) -> bool {
        self.publish.has_checks()
    }
}

pub(super) fn run(context: &Context, args: &PublishArgs) -> Result<u8, Failure> {
    let source = resolve_directory(&args.src)?;
    // Before anything is made.
    if let Some(output) = locate(&args.out) {
        refuse_overlap(&source, &output, args)?;
    }
    let store = context.make(&args.out)?;
    refuse_overlap(&source, store.output(), args)?;
    let mut transaction = store.begin(BeginOptions::default())?;
    if transaction.stage().starts_with(&source) {
        return Err(usage(format!("{} holds txfs' own state directory", Shown(&args.src))));
    }
    fill(&context.ui, &mut transaction, &source, args)?;
    let done = commit::conclude(context, &store, &mut transaction, &args.publish, &Removals::default());
    match done.map_err(|failure| match failure.source() {
        Some(txfs::Error::BaseMoved { .. }) => failure.hint("try again"),
        _ => failure,
    })? {
        Done::Committed(committed) => commit::report(context, &store, &committed, true),
        Done::DryRun => transaction.abort()?,
    }
    Ok(DONE)
}

/// The canonical path of a directory whose content is to be published.
pub(super) fn resolve_directory(given: &Path) -> Result<PathBuf, Failure> {
    let is_not = |what: &str| usage(format!("{} {what}", Shown(given)));
    let path = given.canonicalize().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => is_not("does not exist"),
        io::ErrorKind::NotADirectory => is_not("is not a directory"),
        _ => cannot("open the directory", given, error),
    })?;
    match path.metadata().map_err(|error| cannot("read the attributes of", given, error))?.is_dir() {
        true => Ok(path),
        false => Err(is_not("is not a directory")),
    }
}

fn fill(ui: &Ui, transaction: &mut Transaction<'_>, source: &Path, args: &PublishArgs) -> Result<(), Failure> {
    // A check is to see all that would be published.
    let copied = match args.checksum || args.has_checks() {
        true => transaction.copy_from(source),
        false => transaction.copy_differing_from(source),
    };
    copied.map_err(|error| Failure::from(error).with_ways_out(way_out))?;
    warn_of_states(ui, transaction.left_out());
    let without = transaction.without_set_id();
    if !without.is_empty() {
        let files = count(without.total, "file");
        ui.warn(format_args!("set-id bits of {files} with another owner or group are not published: {without}"));
    }
    Ok(())
}

/// What is to be done about the directory that is copied. `None` where the library says it well.
fn way_out(problem: &Problem) -> Option<String> {
    match problem {
        Problem::UnsupportedKind(_) => {
            Some("remove them from SRC: only files, directories and symlinks are published".to_owned())
        }
        _ => None,
    }
}

/// Says which directories are left out of a copy: they may be content that only has such a name.
pub(super) fn warn_of_states(ui: &Ui, left_out: &[PathBuf]) {
    for path in left_out {
        ui.warn(format_args!("{} is left out: the name is that of a state directory of txfs", ui.name(path)));
    }
}

/// Where the output is or would be; `None` where the library can say better why it cannot be.
fn locate(out: &Path) -> Option<PathBuf> {
    match out.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Some(parent.canonicalize().ok()?.join(out.file_name()?))
        }
        result => result.ok(),
    }
}

fn refuse_overlap(source: &Path, output: &Path, args: &PublishArgs) -> Result<(), Failure> {
    let (src, out) = (Shown(&args.src), Shown(&args.out));
    if source == output {
        return Err(usage(format!("{src} and {out} are one directory")).hint(
            "a build that writes into its output can be run as `txfs run OUT -- CMD`, writing to {stage} instead",
        ));
    }
    if source.starts_with(output) {
        return Err(usage(format!("{src} is inside {out}, which it is to replace")));
    }
    if output.starts_with(source) {
        return Err(usage(format!("{out} is inside {src}, of which it is to be a copy")));
    }
    Ok(())
}
