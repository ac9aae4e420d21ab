//! What `txfs run` runs.

pub(crate) mod captured;
pub(crate) mod diverting;
pub(crate) mod tool;
