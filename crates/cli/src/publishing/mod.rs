//! What all have in common that publish: `commit`, `run`, `publish` and `rollback`.
//!
//! - [`options`]: how to commit, and what becomes of what is not published; [`source`]: the directory to copy.
//! - [`conclude`] runs the [`checks`] and commits, or says what a commit would do.
//! - [`hooks`] runs what follows a commit. [`report`] tells of it, [`changes`] path for path and [`summary`] in numbers.
//! - [`left`] says what to do with what was built and not published.

pub(crate) mod changes;
pub(crate) mod checks;
pub(crate) mod conclude;
pub(crate) mod hooks;
pub(crate) mod left;
pub(crate) mod options;
pub(crate) mod report;
pub(crate) mod source;
pub(crate) mod summary;
