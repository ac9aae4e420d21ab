//! The directory whose content is to be published as a copy.

use std::io;
use std::path::{Path, PathBuf};

use txfs::Shown;

use crate::talk::error::{Failure, cannot, usage};
use crate::talk::output::Ui;

/// The canonical path of a directory whose content is to be published.
pub(crate) fn resolve_directory(given: &Path) -> Result<PathBuf, Failure> {
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

/// Says which directories are left out of a copy: they may be content that only has such a name.
pub(crate) fn warn_of_states(ui: &Ui, left_out: &[PathBuf]) {
    const SHOWN: usize = 5;
    for path in left_out.iter().take(SHOWN) {
        ui.warn(format_args!("{} is left out: the name is that of a state directory of txfs", ui.name(path)));
    }
    if left_out.len() > SHOWN {
        let more = left_out.len() - SHOWN;
        ui.warn(format_args!("{more} more directories are left out that have the name of a state directory of txfs"));
    }
}
