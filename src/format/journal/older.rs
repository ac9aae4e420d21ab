//! The records of journals that older programs wrote (journal-spec.md, "Versioning"). They are read, and never written: the next commit
//! writes a journal of today.
//!
//! A crash leaves what the reader finds: nothing is written here.

use serde::Deserialize;

use crate::format::identity::Digest;
use crate::format::journal::record::{Begin, Operation, Record, TransactionId};
use crate::format::manifest::{Extent, Head};

/// A record of version 1.
#[derive(Deserialize)]
pub(super) enum Record1 {
    Begin(Box<Begin1>),
    Operation { output: u16, operation: Operation },
    Commit { operations: u64, digest: Digest },
}

/// The first record of version 1: it does not say when what was staged was changed last.
#[derive(Deserialize)]
pub(super) struct Begin1 {
    transaction: TransactionId,
    base: u64,
    base_manifest: Digest,
    base_extent: Extent,
    head: Head,
}

impl Record1 {
    pub(super) fn upgrade(self) -> Record {
        match self {
            Self::Begin(begin) => Record::Begin(Box::new(begin.upgrade())),
            Self::Operation { output, operation } => Record::Operation { output, operation },
            Self::Commit { operations, digest } => Record::Commit { operations, digest },
        }
    }
}

impl Begin1 {
    fn upgrade(self) -> Begin {
        let Self { transaction, base, base_manifest, base_extent, head } = self;
        // Its writer took the time of the commit, which came after the last change of all that it names.
        let last_change = head.info.committed;
        Begin { transaction, base, base_manifest, base_extent, head, last_change }
    }
}
