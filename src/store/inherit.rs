//! What a directory gives to whatever is made in it: its group, by the set-gid bit; a default ACL; a security label.
//!
//! Invariant: what is staged gets what it would have got in the output, and not what the place of the stage gives. Only directories of
//! a stage are changed here, before anything is made in them.

use std::io;

use crate::fs::{Attribute, Fs};

const SET_GID: u32 = 0o2000;

/// Has the directory `to` give what `from` gives. An error says what it cannot give.
pub(crate) fn inherit<F: Fs>(fs: &F, from: &F::Dir, to: &F::Dir) -> io::Result<()> {
    let (model, made) = (fs.stat_dir(from)?, fs.stat_dir(to)?);
    let group = match model.mode & SET_GID {
        0 if made.mode & SET_GID == 0 => made.gid,
        0 => fs.group(),
        _ => model.gid,
    };
    let given = if group == made.gid { Ok(()) } else { fs.set_dir_owner(to, None, group) };
    if (model.mode ^ made.mode) & SET_GID != 0 && given.is_ok() {
        fs.set_dir_mode(to, made.mode & !SET_GID | model.mode & SET_GID)?;
    }
    inherit_attribute(fs, Attribute::DefaultAcl, from, to)?;
    // A label is given where that is allowed, and is a matter of the machine's policy where it is not.
    let _ = inherit_attribute(fs, Attribute::Label, from, to);
    given
}

fn inherit_attribute<F: Fs>(fs: &F, which: Attribute, from: &F::Dir, to: &F::Dir) -> io::Result<()> {
    let value = fs.attribute(from, which)?;
    if fs.attribute(to, which)? == value { Ok(()) } else { fs.set_attribute(to, which, value.as_deref()) }
}
