//! Copying extended attributes, ACLs among them, as far as this user may set them.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use xattr::{FileExt as _, XAttrs};

use super::{of_proc, proc_name};
use crate::fs::Attribute;

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
            let names = xattr::list_deref(&named).map_err(|error| match error.raw_os_error() {
                Some(errno) => of_proc(Errno::from_raw_os_error(errno)),
                None => error,
            });
            set(names, get, &to)
        }
        names => set(names, |name| open.get_xattr(name), &to),
    }
}

fn name(which: Attribute) -> &'static str {
    match which {
        Attribute::Mark => "user.txfs.state",
        Attribute::DefaultAcl => "system.posix_acl_default",
        Attribute::AccessAcl => "system.posix_acl_access",
        Attribute::Label => "security.selinux",
    }
}

/// [`Fs::attribute`](crate::fs::Fs::attribute).
pub(super) fn get(dir: &OwnedFd, which: Attribute) -> io::Result<Option<Vec<u8>>> {
    match File::from(dir.try_clone()?).get_xattr(name(which)) {
        Err(error) if is(&error, &[Errno::OPNOTSUPP]) => Ok(None),
        // It could only be opened to be searched.
        Err(error) if is(&error, &[Errno::BADF]) => match xattr::get_deref(proc_name(dir), name(which)) {
            Err(error) if is(&error, &[Errno::OPNOTSUPP, Errno::ACCESS, Errno::NOENT]) => Ok(None),
            value => value,
        },
        value => value,
    }
}

/// [`Fs::set_attribute`](crate::fs::Fs::set_attribute).
pub(super) fn put(dir: &OwnedFd, which: Attribute, value: Option<&[u8]>) -> io::Result<()> {
    let dir = File::from(dir.try_clone()?);
    match value {
        Some(value) => dir.set_xattr(name(which), value),
        None => match dir.remove_xattr(name(which)) {
            Err(error) if is(&error, &[Errno::NODATA, Errno::OPNOTSUPP]) => Ok(()),
            result => result,
        },
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
