//! Crash-safe, all-or-nothing publication of a directory tree.
mod error;
pub mod fs;
mod path;
pub use error::{Error, ErrorKind, Outcome, Paths, Problem, Result};
pub use path::{PathError, RelPath};
