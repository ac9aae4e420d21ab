//! `txfs export`.

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{Entry, Kind, Object as Recorded, Snapshot, Store};

use super::error::{DONE, Failure, cannot, usage};
use super::output::Object;
use super::rollback::name_the_list;
use super::{Context, count, nothing_published};

/// Copy the current generation, or an earlier one that is kept, to a new directory
///
/// With modes and times as they were published, whatever lies in OUT now. It is no transaction: when it fails, DIR has a part of it.
#[derive(Args)]
pub(super) struct ExportArgs {
    /// The directory that is published
    out: PathBuf,
    /// Where to: a directory that is not there yet, or is empty
    dir: PathBuf,
    /// Generation N
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
}

/// The store, and the generation that is asked for.
pub(super) fn find(context: &Context, out: &Path, generation: Option<u64>) -> Result<(Store, Snapshot), Failure> {
    let Some(store) = context.find(out)? else { return Err(usage(nothing_published(&context.ui, out))) };
    let snapshot = match generation {
        Some(generation) => store.at(generation).map_err(|error| name_the_list(context, &store, error))?,
        None => store.snapshot()?,
    };
    if snapshot.generation() == 0 {
        return Err(usage(nothing_published(&context.ui, out)));
    }
    Ok((store, snapshot))
}

pub(super) fn run(context: &Context, args: &ExportArgs) -> Result<u8, Failure> {
    let (store, snapshot) = find(context, &args.out, args.generation)?;
    make(&args.dir)?;
    let mut directories = Vec::new();
    let mut files = 0_u64;
    for entry in snapshot.entries() {
        let Entry { path, object, .. } = entry?;
        context.signals.expect_none()?;
        let to = path.under(&args.dir);
        match object.kind {
            Kind::Directory if path.is_root() => {}
            Kind::Directory => fs::create_dir(&to).map_err(|error| cannot("make the directory", &to, error))?,
            Kind::File => copy(&mut snapshot.open(path.as_path())?, &to, &object)?,
            Kind::Symlink => {
                let target = snapshot.read_link(path.as_path())?;
                symlink(target, &to).map_err(|error| cannot("make the link", &to, error))?;
            }
        }
        files += u64::from(object.kind != Kind::Directory);
        if object.kind == Kind::Directory {
            directories.push((to, object.mode));
        }
    }
    // From the bottom: one that may not be written to can be filled until then.
    for (directory, mode) in directories.iter().rev() {
        let set = fs::set_permissions(directory, Permissions::from_mode(mode & 0o777));
        set.map_err(|error| cannot("set the mode of", directory, error))?;
    }
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

fn copy(from: &mut File, to: &Path, object: &Recorded) -> Result<(), Failure> {
    fill(from, to, object).map_err(|error| cannot("write", to, error))
}

fn fill(from: &mut File, to: &Path, object: &Recorded) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    if io::copy(from, &mut file)? != object.size {
        return Err(io::Error::other("it was changed while it was copied"));
    }
    file.set_times(FileTimes::new().set_modified(object.mtime.into()))?;
    // No right of a new owner's goes along.
    file.set_permissions(Permissions::from_mode(object.mode & 0o777))
}
