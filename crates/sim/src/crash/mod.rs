//! What a crash can leave of a world.
//!
//! - [`choices`]: which of the waiting effects are durable, and what of the files without a barrier.
//! - [`subsets`] of the effects, and the [`pieces`] of a file.
//! - [`sketch`]: what a choice hashes to, before it is built.

pub(crate) mod choices;
pub(crate) mod pieces;
pub(crate) mod sketch;
pub(crate) mod subsets;
