//! Doors for the fuzz targets to what is private: the codecs of journal, manifest and HEAD. No part of the interface.

use crate::frame::Damage;
use crate::journal::reader;
use crate::journal::record::{Begin, Operation};
use crate::journal::writer;
use crate::manifest::{Digest, Head, Manifest};

/// How reading a file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read<T> {
    /// It is whole and valid.
    Whole(T),
    /// It ends early.
    Torn,
    /// It is damaged, or none of ours.
    Refused,
}

impl<T> Read<T> {
    fn from<U>(result: Result<U, Damage>, whole: impl FnOnce(U) -> T) -> Self {
        match result {
            Ok(value) => Read::Whole(whole(value)),
            Err(Damage::Torn { .. }) => Read::Torn,
            Err(_) => Read::Refused,
        }
    }
}

/// Reads a journal that is to be acted upon.
pub fn read_journal(bytes: &[u8]) -> Read<(Begin, Vec<Operation>)> {
    Read::from(reader::read(bytes).map_err(|partial| partial.damage), |journal| (journal.begin, journal.operations))
}

/// Writes a journal.
pub fn write_journal(begin: Begin, operations: &[Operation]) -> Vec<u8> {
    writer::write(Vec::new(), begin, operations).expect("memory takes every journal that was read")
}

/// Reads a manifest.
pub fn read_manifest(bytes: &[u8]) -> Read<(Manifest, Digest)> {
    Read::from(Manifest::read(bytes), |read| read)
}

/// Writes a manifest.
pub fn write_manifest(manifest: &Manifest) -> (Digest, Vec<u8>) {
    manifest.write(Vec::new()).expect("memory takes every manifest that was read")
}

/// Reads HEAD.
pub fn read_head(bytes: &[u8]) -> Read<Head> {
    Read::from(Head::read(bytes), |head| head)
}

/// Writes HEAD.
pub fn write_head(head: &Head) -> Vec<u8> {
    head.encode().expect("memory takes every HEAD that was read")
}
