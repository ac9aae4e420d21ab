//! Copying extended attributes, ACLs among them, as far as this user may set them.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use xattr::{FileExt as _, XAttrs};

use super::proc_name;

/// [`Fs::copy_attributes`](crate::fs::Fs::copy_attributes).
pub(super) fn copy(from: &File, to: &File) -> io::Result<()> {
    set(from.list_xattr(), |name| from.get_xattr(name), to)
}

/// [`Fs::copy_dir_attributes`](crate::fs::Fs::copy_dir_attributes).
pub(super) fn copy_of_dir(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let (open, to) = (File::from(from.try_clone()?), File::from(to.try_clone()?));
    match open.list_xattr() {
        Err(error) if is(&error, &[Errno::BADF]) => {
            let named = proc_name(from);
            // Without leave to read the directory some of its attributes may not be read either.
            let get = |name: &OsStr| match xattr::get_deref(&named, name) {
                Err(error) if is(&error, &[Errno::ACCESS]) => Ok(None),
                value => value,
            };
            set(xattr::list_deref(&named), get, &to)
        }
        names => set(names, |name| open.get_xattr(name), &to),
    }
}

/// Sets the extended attributes of `names` as far as this user may.
fn set(names: io::Result<XAttrs>, get: impl Fn(&OsStr) -> io::Result<Option<Vec<u8>>>, to: &File) -> io::Result<()> {
    let names = match names {
        Err(error) if is(&error, &[Errno::OPNOTSUPP]) => return Ok(()),
        names => names?,
    };
    for name in names {
        let Some(value) = get(&name)? else { continue };
        match to.set_xattr(&name, &value) {
            // `trusted.*` and `security.*` belong to the administrator: what this user may not set is left out.
            Err(error) if is(&error, &[Errno::PERM, Errno::OPNOTSUPP]) => {}
            result => result?,
        }
    }
    Ok(())
}

fn is(error: &io::Error, errnos: &[Errno]) -> bool {
    error.raw_os_error().is_some_and(|errno| errnos.contains(&Errno::from_raw_os_error(errno)))
}
