//! What `txfs run` runs.
//!
//! - [`tool`]: the command, told where to write to.
//! - [`captured`]: a command whose writes to the output are diverted; [`diverting`]: whether they can be here.

pub(crate) mod captured;
pub(crate) mod diverting;
pub(crate) mod tool;
