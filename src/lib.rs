//! Crash-safe, all-or-nothing publication of a directory tree.
mod apply;
mod error;
mod frame;
pub mod fs;
mod inspect;
mod journal;
mod lock;
mod manifest;
mod path;
mod plan;
mod recover;
mod settle;
mod stage;
mod store;
mod transaction;
mod txdir;

pub use error::{Error, ErrorKind, Outcome, Paths, Problem, Result};
pub use fs::Kind;
pub use inspect::{Finding, FindingKind, JournalDump};
pub use journal::record::{Begin, Operation, Record, TransactionId};
pub use manifest::{Digest, Entry, Head, Info, Manifest, Object, Totals};
pub use path::{PathError, RelPath};
pub use plan::{Change, ChangeKind, Plan, Summary};
pub use recover::{Recovered, RecoveredCommit};
pub use store::{Capabilities, OpenOptions, Place, Store};
pub use transaction::{BeginOptions, CommitOptions, Committed, OpenTransaction, StagedFile, Transaction};
pub use txdir::From;
