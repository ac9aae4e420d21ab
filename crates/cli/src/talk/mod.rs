//! What the command says.
//!
//! - [`output`]: data on stdout, talk on stderr.
//! - [`error`]: what went wrong, as an exit code, a message and the [`ways_out`].
//! - [`json`] and [`text`]: how it is written.

pub(crate) mod error;
pub(crate) mod json;
pub(crate) mod output;
pub(crate) mod text;
pub(crate) mod ways_out;
