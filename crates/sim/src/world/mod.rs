//! One file system with its live and its durable side.

pub(crate) mod live;
pub(crate) mod names;
pub(crate) mod persist;
pub(crate) mod view;
