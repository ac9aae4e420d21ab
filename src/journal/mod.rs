//! The journal: the write-ahead log of one commit. [`record`] says what is in it, [`format`](self::format) how the file starts,
//! [`writer`] and [`reader`] how it gets there and back.
//!
//! ```text
//! journal = header Begin Operation* Commit
//! ```
//!
//! Invariants (journal-spec.md, "Journal"):
//! 1. A journal is complete and durable before it gets the name `journal`; getting that name durably is the commit point.
//! 2. It is never changed afterwards. Rolling back is said by renaming it to `journal.undo`, which needs no free space and
//!    cannot be torn; a settled journal is moved to `previous/N/journal`, where it says what was displaced.
//! 3. It is valid only if its last record is a commit record that counts the operations and digests every byte before it,
//!    and if its operations do not contradict each other.

pub(crate) mod format;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod writer;
