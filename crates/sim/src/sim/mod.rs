//! A world as the file system of a process.

pub(crate) mod handle;
pub(crate) mod stranger;
