//! What a crash can leave of a world.

pub(crate) mod choices;
pub(crate) mod sketch;
