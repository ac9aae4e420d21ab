//! One output and its state directory: found, checked, locked and opened (journal-spec.md, "Layout", "Locking", "Security").
//!
//! | room | holds |
//! |---|---|
//! | [`layout`] | the names in a state directory, and whether it can be trusted |
//! | [`sharing`] | what every member of a group can use that shares a store |
//! | [`store_file`] | what a store says of itself: what its file system can do, and which group shares it |
//! | [`trust`] | whose state is believed |
//! | [`output`] | where an output is, and where its state belongs |
//! | [`resolve`] | which directory the user means |
//! | [`whereabouts`] | what is written down at the output and at its state for those who look for the other |
//! | [`inherit`] | what a directory gives to what is made in it |
//! | [`lock`] | the lock of a store, and those of its transactions |
//! | [`probe`] | making a store, and what its file system can do |
//! | [`shared_state`] | giving a state to a group |
//! | [`open`] | the store itself, and the files that every part of the engine reads and writes |
//! | [`current`] | the current generation: HEAD, and the manifest that it names |
//! | [`transaction_dir`] | `tx/ID`: what is in it, and whether its transaction lives |
//! | [`retention`] | what is kept of the past |
//! | [`displaced`] | where a commit put what it displaced |
//! | [`handed_out`] | files for the commands that run after a commit |
//! | [`snapshot`] | a generation, to be read back |
//! | [`trial`] | a directory to try something out in |
//! | [`rescue`] | moving aside what is not txfs' own, and telling of it |
//! | [`lost_stages`] | ending what was staged before a barrier that failed |
//!
//! Invariants:
//! 1. Nothing of a state directory is used before it was found trustworthy and complete.
//! 2. A lock dies with its process, and no live transaction is ended by another process (G10).

pub(crate) mod current;
pub(crate) mod displaced;
pub(crate) mod handed_out;
pub(crate) mod inherit;
pub(crate) mod layout;
pub(crate) mod lock;
pub(crate) mod lost_stages;
pub(crate) mod open;
pub(crate) mod output;
pub(crate) mod probe;
pub(crate) mod rescue;
pub(crate) mod resolve;
pub(crate) mod retention;
pub(crate) mod shared_state;
pub(crate) mod sharing;
pub(crate) mod snapshot;
pub(crate) mod store_file;
pub(crate) mod transaction_dir;
mod trial;
pub(crate) mod trust;
pub(crate) mod whereabouts;

pub(crate) use open::FailedBarriers;
pub use open::{Barriers, OpenOptions, Store};
