//! From the commit point on: one journaled commit is made, carried out, settled, and repaired after a crash (journal-spec.md,
//! "Commit", "Barriers", "Apply", "Evidence", "Recovery").
//!
//! | room | holds |
//! |---|---|
//! | [`barrier`] | barrier 1, the commit point, and barrier 2: what has to be on the medium before what follows |
//! | [`apply`] | the operations of a journal, forward and back, each by one rename |
//! | [`carry_out`] | operations and HEAD, for a commit and for recovery |
//! | [`settle`] | a commit that is durable: its journal retired, what it displaced kept, what nothing names removed |
//! | [`displaced_dirs`] | directories that were displaced, made anew, so that nobody watches them any more |
//! | [`history`] | what is known of the generations that are kept |
//! | [`prune`] | freeing what was displaced before the next commit would |
//! | [`recover`] | what a crash left: the decision, and the evidence that it rests on |
//!
//! Invariants: G1, G3, G7 and G8; each room names what it holds of them.

pub(crate) mod apply;
pub(crate) mod barrier;
pub(crate) mod carry_out;
pub(crate) mod displaced_dirs;
pub(crate) mod history;
pub(crate) mod prune;
pub(crate) mod recover;
pub(crate) mod settle;
