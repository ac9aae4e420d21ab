//! Which directory the user means by what he calls the output.
//!
//! Invariant: a symbolic link is followed, as the shell would, and stays one; nothing is made.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fs::Fs;

/// The canonical path of an output, and whether it is there.
pub(crate) fn resolve<F: Fs>(fs: &F, out: &Path) -> Result<(PathBuf, bool)> {
    const LINKS_MAX: usize = 40;
    // Without a slash at the end, which would lead through a link before it can be read.
    let mut out: PathBuf = out.components().collect();
    for _ in 0..LINKS_MAX {
        match fs.resolve(&out) {
            Ok(path) => return Ok((path, true)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("find the output", &out)(error)),
        }
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        if let Ok(target) = fs.read_anchor_link(&out) {
            out = parent.join(target);
            continue;
        }
        let Some(name) = out.file_name() else {
            return Err(Error::NotAnOutput { path: out, what: "this names no directory".into() });
        };
        return match fs.resolve(&parent) {
            Ok(parent) => Ok((parent.join(name), false)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what = match parent == Path::new(".") {
                    true => "the current directory was removed: change to one that is there",
                    false => "the directory that is to hold the output is not there: make it first",
                };
                Err(Error::NotAnOutput { path: parent, what: what.into() })
            }
            Err(error) => Err(Error::io("find the directory of the output", parent)(error)),
        };
    }
    Err(Error::NotAnOutput { path: out, what: "too many symbolic links".into() })
}
