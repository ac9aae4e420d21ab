//! The records of a journal. The order of variants and fields IS the disk format (postcard is not self-describing).

use serde::{Deserialize, Serialize};

use crate::format::identity::{Digest, Object};
use crate::format::manifest::{Extent, Head};
use crate::fs::Timestamp;
use crate::path::RelPath;

/// The number of a transaction: random, and the name of its directory in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TransactionId(pub u64);

impl std::fmt::Display for TransactionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl std::str::FromStr for TransactionId {
    type Err = std::num::ParseIntError;

    /// What [`Display`](std::fmt::Display) writes, with or without the zeros in front.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// The first record: which commit this is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The transaction whose stage is being published.
    pub transaction: TransactionId,
    /// The generation that it began on; 0 when nothing had been published.
    pub base: u64,
    /// The digest of the root of the base's manifest; zeros when there was none.
    pub base_manifest: Digest,
    /// Where that root is; zeros when there was none.
    pub base_extent: Extent,
    /// What HEAD says once the commit is done.
    pub head: Head,
    /// When a staged entry was changed last, in content or attributes (the latest `ctime`): what has a later one was changed by somebody
    /// else since.
    pub last_change: Timestamp,
}

/// One change of the output. Each is a reversible rename or a change of a directory's mode.
///
/// `i` below is the operation's index in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation {
    /// A directory's mode changes.
    SetMode {
        /// The directory; the root is the output itself.
        path: RelPath,
        /// The mode before.
        from: u32,
        /// The mode after.
        to: u32,
    },
    /// `stage/path` moves to `output/path`, where nothing is; a directory moves with everything in it.
    Add {
        /// Where; the root is the output itself.
        path: RelPath,
        /// What is added.
        new: Object,
    },
    /// `stage/path` and `output/path` change places.
    Replace {
        /// Where.
        path: RelPath,
        /// What was there.
        old: Object,
        /// What is there afterwards.
        new: Object,
    },
    /// `output/path` moves to `removed/i`.
    Remove {
        /// Where.
        path: RelPath,
        /// What was there.
        old: Object,
    },
    /// An empty directory goes, on file systems that cannot rename it.
    RemoveDirectory {
        /// Where.
        path: RelPath,
        /// Its mode, to make it again.
        mode: u32,
    },
}

impl Operation {
    /// The path that it changes.
    pub fn path(&self) -> &RelPath {
        match self {
            Operation::SetMode { path, .. }
            | Operation::Add { path, .. }
            | Operation::Replace { path, .. }
            | Operation::Remove { path, .. }
            | Operation::RemoveDirectory { path, .. } => path,
        }
    }

    /// What it moves out of the stage, and where to.
    pub(crate) fn moved_in(&self) -> Option<(&RelPath, &Object)> {
        match self {
            Operation::Add { path, new } | Operation::Replace { path, new, .. } => Some((path, new)),
            _ => None,
        }
    }

    /// What it takes out of its place in the output and keeps, and where it was.
    pub(crate) fn displaced(&self) -> Option<(&RelPath, &Object)> {
        match self {
            Operation::Replace { path, old, .. } | Operation::Remove { path, old } => Some((path, old)),
            _ => None,
        }
    }

    /// Whether it takes something out of the output and puts nothing in its place.
    pub(crate) fn takes_away(&self) -> bool {
        matches!(self, Operation::Remove { .. } | Operation::RemoveDirectory { .. })
    }

    /// Whether it moves nothing, and changes the mode of a directory that stays.
    pub(crate) fn is_mode(&self) -> bool {
        matches!(self, Operation::SetMode { .. })
    }

    /// The verb for it.
    pub fn word(&self) -> &'static str {
        match self {
            Operation::SetMode { .. } => "set-mode",
            Operation::Add { .. } => "add",
            Operation::Replace { .. } => "replace",
            Operation::Remove { .. } => "remove",
            Operation::RemoveDirectory { .. } => "remove-directory",
        }
    }
}

/// A record of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The first.
    Begin(Box<Begin>),
    /// One intent. `output` is always 0: room for several outputs in one transaction.
    Operation {
        /// Which output.
        output: u16,
        /// What is to be done.
        operation: Operation,
    },
    /// The last; without it the journal is no commit.
    Commit {
        /// How many operations there are.
        operations: u64,
        /// BLAKE3 of every byte before this record's frame.
        digest: Digest,
    },
}
