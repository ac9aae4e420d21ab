//! Options that several commands have.

pub(crate) mod at;
pub(crate) mod exclude;
pub(crate) mod retention;
pub(crate) mod wait;
