//! What all commands that publish share.

pub(crate) mod hooks;
pub(crate) mod report;
