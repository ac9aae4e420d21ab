//! A transaction from begin to commit (journal-spec.md, "Commit").
//!
//! | room | holds |
//! |---|---|
//! | [`queue`] | waiting for the builds before |
//! | [`access`] | whether this user may add to the output at all |
//! | [`at`] | transactions that replace only what is below a path |
//! | [`begin`] | transactions that are open: begun, taken up, kept, ended |
//! | [`layer`] | bringing one along that an earlier layer of an image holds |
//! | [`place`] | where in stage and output lies what it is about |
//! | [`fill`] | writing to the stage through the library |
//! | [`staged_file`] | a file that is being written to it, and what is known of those that were |
//! | [`borrowed`] | files of the output that a stage takes over as they lie there |
//! | [`restage`] | going back: a stage made from what a commit displaced |
//! | [`export`] | a generation, copied to where the user wants it |
//! | [`receiver`] | who is told what that stage has: the stage, or a list |
//! | [`touch`] | the time of a commit for what it publishes |
//! | [`commit`] | plan, guards, the commit point, and what follows it |
//! | [`planning`] | the plan of a commit, with a transaction or without |
//! | [`share`] | giving a store to a group, and taking it back |
//! | [`preview`] | what a commit would change, where nothing may be written |
//!
//! Invariants:
//! 1. Nothing in the output changes before the commit point (G2).
//! 2. A transaction commits only on the generation that it began on, or on one that agrees with that in all that it replaces (G10).

mod access;
pub(crate) mod at;
pub(crate) mod begin;
pub(crate) mod begin_options;
pub(crate) mod borrowed;
pub(crate) mod commit;
mod export;
pub(crate) mod fill;
mod layer;
pub(crate) mod place;
pub(crate) mod planning;
pub(crate) mod preview;
pub(crate) mod queue;
mod receiver;
pub(crate) mod restage;
pub(crate) mod share;
pub(crate) mod staged_file;
pub(crate) mod touch;

pub use begin::{Left, OpenTransaction, Transaction};
pub use begin_options::BeginOptions;
