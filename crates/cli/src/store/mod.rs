//! The store of an output, from the command line to the library.
//!
//! - [`context`]: what every command is given, and how it comes to its store.
//! - [`handle`]: the transaction that the user means; [`stage`]: what a stage's path tells; [`generation`]: one by its number.
//! - [`opened`] and [`past`]: what is said of a store; [`group`]: with whom it is shared.

pub(crate) mod context;
pub(crate) mod generation;
pub(crate) mod group;
pub(crate) mod handle;
pub(crate) mod opened;
pub(crate) mod past;
pub(crate) mod stage;
