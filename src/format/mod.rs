//! The bytes on disk: frames, and the two files that are made of them or of nodes (journal-spec.md, "Frames", "Journal", "Manifest
//! and HEAD").
//!
//! | room | holds |
//! |---|---|
//! | [`identity`] | what is recorded of an entry, and whether something is that entry |
//! | [`frame`] | header, length, checksum: what torn and corrupt mean |
//! | [`journal`] | the records of one commit, their writer and their reader |
//! | [`manifest`] | the inventory of a generation as a copy-on-write tree, and HEAD, which names it |
//!
//! Invariants:
//! 1. Nothing here opens a file: the rooms above hand over streams and bytes.
//! 2. What is decoded was checked: a path stays in its output, a digest is that of the bytes, a list ends where its bytes end.

pub(crate) mod frame;
pub(crate) mod identity;
pub(crate) mod journal;
pub(crate) mod manifest;
