//! What is staged, before the commit point (journal-spec.md, "Commit", P1).
//!
//! | room | holds |
//! |---|---|
//! | [`copy`] | copies into a stage: content, attributes, and what may be shared |
//! | [`digest`] | what a file is: its object, on several threads, with the disk at work meanwhile |
//! | [`exclude`] | what of a stage is not to be published |
//! | [`scan`] | the walk over a stage, and what it refuses |
//! | [`given`] | what directories of the output would have given to what tools made in a stage |
//! | [`new_output`] | what a stage needs that becomes the output |
//! | [`recheck`] | the second look at what moves along with a directory |
//! | [`traces`] | what names the stage in what is published |
//! | [`sources`] | what is known of files that were copied, so that they need not be read again |
//! | [`source_look`] | the second look at a directory that was copied |
//!
//! Invariant: nothing here touches the output (G2).

pub(crate) mod copy;
pub(crate) mod digest;
pub(crate) mod exclude;
pub(crate) mod given;
pub(crate) mod new_output;
pub(crate) mod recheck;
pub(crate) mod scan;
pub(crate) mod shared;
pub(crate) mod source_look;
pub(crate) mod sources;
pub(crate) mod traces;
