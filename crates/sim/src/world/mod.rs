//! One file system with its live and its durable side.
//!
//! - [`inode`]: what each side has; [`effect`]: what is on the live side and not yet on the durable one.
//! - [`live`]: what a process finds, by which [`numbers`]; [`persist`]: how a change becomes durable, and in which order.
//! - [`names`] and [`attributes`]: the calls that change something.
//! - [`view`] looks on, and [`hashes`] tells what it sees apart.

pub(crate) mod attributes;
pub(crate) mod effect;
pub(crate) mod hashes;
pub(crate) mod inode;
pub(crate) mod live;
pub(crate) mod names;
pub(crate) mod numbers;
pub(crate) mod persist;
pub(crate) mod view;
