//! The manifest: the sorted inventory of what a generation publishes; and HEAD, which names the current one.
//!
//! ```text
//! manifests/K = header node*           HEAD = header Head
//! ```
//!
//! A manifest is a copy-on-write B-tree whose nodes are named by place and digest ([`node`]). [`inventory`] reads as much of it
//! as is asked for; [`writer`] appends what a commit changes to the file, or writes a new one. So a small change to a large
//! tree costs what the change costs. The structure is that of Rodeh, "B-trees, Shadowing, and Clones" (2008), without reference
//! counts: a file goes as a whole when no kept generation is in it.
//!
//! Invariants (journal-spec.md, "Manifest and HEAD"):
//! 1. Entries are strictly ascending in order of the tree; each has an owned directory above it, or the root.
//! 2. HEAD holds the place and the BLAKE3 digest of the root node, and each node those of its children: a manifest that HEAD
//!    does not name is not current, and what is damaged is not believed.
//! 3. No device number is stored, for none survives a reboot: descent never crosses a mount, so the device is the store's.

use std::io::{self, Read};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::format::frame::{Damage, Format, FrameReader, FrameWriter};
use crate::format::identity::{Digest, Object};
use crate::fs::{Kind, Timestamp};
use crate::path::RelPath;

mod difference;
pub(crate) mod inventory;
pub(crate) mod node;
pub(crate) mod writer;

use node::Subtree;

const HEAD: Format = Format { magic: *b"txfshead", version: 1 };

/// One entry of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is published.
    pub path: RelPath,
    /// What is published there.
    pub object: Object,
}

/// What a manifest says of its generation as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The generation's number: 1, 2, 3…
    pub generation: u64,
    /// When it was committed.
    pub committed: Timestamp,
    /// What the user said about it.
    pub message: Option<String>,
}

/// How much a generation publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Entries of every kind.
    pub entries: u64,
    /// Files and symbolic links.
    pub files: u64,
    /// Bytes in files.
    pub bytes: u64,
}

impl Totals {
    fn count(&mut self, object: &Object) {
        self.entries += 1;
        self.files += u64::from(object.kind != Kind::Directory);
        // What a damaged or hostile manifest adds up to need not fit.
        self.bytes = self.bytes.saturating_add(if object.kind == Kind::File { object.size } else { 0 });
    }

    /// The totals of two parts together.
    pub(crate) fn plus(self, other: &Totals) -> Self {
        Self {
            entries: self.entries.saturating_add(other.entries),
            files: self.files.saturating_add(other.files),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// The totals of some entries.
    pub(crate) fn of(entries: &[Entry]) -> Self {
        let mut totals = Totals::default();
        entries.iter().for_each(|entry| totals.count(&entry.object));
        totals
    }
}

/// Encodes a record's payload.
pub(crate) fn encode<T: Serialize>(record: &T) -> io::Result<Vec<u8>> {
    postcard::to_stdvec(record).map_err(io::Error::other)
}

/// Decodes a payload; every byte has to be used.
pub(crate) fn decode<'a, T: Deserialize<'a>>(payload: &'a [u8]) -> Result<T, &'static str> {
    match postcard::take_from_bytes(payload) {
        Ok((record, [])) => Ok(record),
        Ok(_) => Err("a record with bytes left over"),
        Err(_) => Err("a record that cannot be decoded"),
    }
}

/// The whole of a file of one record.
pub(crate) fn encode_one<T: Serialize>(record: &T, format: Format) -> io::Result<Vec<u8>> {
    let mut writer = FrameWriter::new(Vec::new(), format)?;
    writer.frame(&encode(record)?)?;
    writer.finish()
}

/// Reads a file of one record; whatever follows it is corruption.
pub(crate) fn read_one<T: DeserializeOwned>(input: impl Read, format: Format) -> Result<T, Damage> {
    let mut reader = FrameReader::new(input, format)?;
    let offset = reader.offset();
    let payload = reader.next_frame()?.ok_or(Damage::Torn { offset })?;
    let record = decode(&payload).map_err(|what| Damage::corrupt(offset, what))?;
    let end = reader.offset();
    match reader.next_frame() {
        Ok(None) => Ok(record),
        Err(Damage::Io(error)) => Err(error.into()),
        _ => Err(Damage::corrupt(end, "bytes after the record")),
    }
}

/// The current generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number, time and message.
    pub info: Info,
    /// The digest of the root of its manifest.
    pub manifest: Digest,
    /// How much it publishes.
    pub totals: Totals,
    /// Where the root of its manifest is.
    pub extent: Extent,
}

/// Where the root of a manifest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Extent {
    /// The file, `manifests/K`: K is the generation that began it.
    pub file: u64,
    /// Where the root starts, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u32,
    /// Bytes of all its nodes.
    pub stored: u64,
}

impl Extent {
    /// Where the root ends, and with it what the file says of this generation.
    pub(crate) fn end(&self) -> u64 {
        self.root(Digest::default()).end()
    }

    /// The root that is there, where its totals do not matter.
    pub(crate) fn root(&self, digest: Digest) -> Subtree {
        let Extent { offset, length, stored, .. } = *self;
        Subtree { offset, length, stored, digest, totals: Totals::default() }
    }
}

impl Head {
    /// The generation that `info` tells of, with the manifest whose root is a node of `file`.
    pub(crate) fn new(info: Info, file: u64, root: &Subtree) -> Self {
        let Subtree { offset, length, stored, digest, totals } = *root;
        Self { info, manifest: digest, totals, extent: Extent { file, offset, length, stored } }
    }

    /// The root of its manifest.
    pub(crate) fn root(&self) -> Subtree {
        Subtree { totals: self.totals, ..self.extent.root(self.manifest) }
    }

    /// The whole file.
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        encode_one(self, HEAD)
    }

    pub(crate) fn read(input: impl Read) -> Result<Head, Damage> {
        read_one(input, HEAD)
    }
}

#[cfg(test)]
mod tests;
