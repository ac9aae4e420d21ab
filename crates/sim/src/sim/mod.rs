//! A world as the file system of a process.
//!
//! - [`simfs`]: the file system, and what becomes of each call; [`handle`]: the calls, and what they open.
//! - [`build`] makes a world, [`watch`] looks at it, [`disturb`] makes calls fail, or another process ([`stranger`]) come in between.
//! - [`crashes`]: what a crash leaves.

mod build;
pub(crate) mod crashes;
mod disturb;
pub(crate) mod handle;
pub(crate) mod simfs;
pub(crate) mod stranger;
mod watch;
