//! `txfs.toml`, and what can be said there and on the command line.
//!
//! - [`config`] finds the file; [`keys`]: what it says of one output.
//! - [`values`]: what the values of keys and options mean; [`glob`]s, and the [`placeholder`] for the stage.

pub(crate) mod config;
pub(crate) mod glob;
pub(crate) mod keys;
pub(crate) mod placeholder;
pub(crate) mod values;
