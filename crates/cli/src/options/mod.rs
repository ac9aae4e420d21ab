//! The options that several commands have, each with what it does.

pub(crate) mod at;
pub(crate) mod exclude;
pub(crate) mod from;
pub(crate) mod retention;
pub(crate) mod wait;
