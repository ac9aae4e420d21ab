//! The manifest: the sorted inventory of what a generation publishes; and HEAD, which names the current one.
//!
//! ```text
//! manifests/N = header Info Entries* End          HEAD = header Head
//! ```
//!
//! Invariants (journal-spec.md, "Manifest"):
//! 1. Entries are strictly ascending in order of the tree; each has an owned directory above it, or the root.
//! 2. HEAD holds the BLAKE3 digest of the manifest's bytes: a manifest that HEAD does not name is not current.
//! 3. No device number is stored, for none survives a reboot: descent never crosses a mount, so the device is the store's.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::frame::{Damage, Format, FrameReader, FrameWriter};
use crate::fs::{Kind, Stat, Timestamp};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;

const MANIFEST: Format = Format { magic: *b"txfsmani", version: 1 };
const HEAD: Format = Format { magic: *b"txfshead", version: 1 };

/// Entries per frame: large enough to make the frame's cost vanish, small enough to stream.
const ENTRIES_PER_FRAME: usize = 512;

/// A BLAKE3 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// What is at a path: what it is, and which inode it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// File, directory or symbolic link.
    pub kind: Kind,
    /// Permission bits, `07777`.
    pub mode: u32,
    /// Bytes of a file or of a link's target; 0 for a directory.
    pub size: u64,
    /// BLAKE3 of a file's content or of a link's target; zeros for a directory.
    pub digest: Digest,
    /// The inode number.
    pub ino: u64,
    /// Time of the last change; zero for a directory, whose time is not its own.
    pub mtime: Timestamp,
}

impl Object {
    /// The object that `stat` describes, of a given content.
    pub(crate) fn new(kind: Kind, stat: &Stat, digest: Digest) -> Self {
        let (size, mtime) = match kind {
            Kind::Directory => (0, Timestamp::default()),
            Kind::File | Kind::Symlink => (stat.size, stat.mtime),
        };
        Self { kind, mode: stat.mode, size, digest, ino: stat.ino, mtime }
    }

    /// Whether `stat` is this very inode, unchanged as far as its size and time tell. The mode is not asked.
    pub(crate) fn is(&self, stat: &Stat) -> bool {
        let same_inode = Some(self.kind) == stat.kind && (self.ino == stat.ino || left_out(Mutant::IdentityInode));
        let kind_is_all = self.kind == Kind::Directory || left_out(Mutant::IdentitySizeAndTime);
        same_inode && (kind_is_all || (self.size == stat.size && self.mtime == stat.mtime))
    }

    /// Whether both publish the same: kind, mode and content, whichever inode holds it.
    pub(crate) fn publishes_same(&self, other: &Object) -> bool {
        self.kind == other.kind && self.mode == other.mode && self.same_content(other)
    }

    /// Whether both have the same content, whatever their modes.
    pub(crate) fn same_content(&self, other: &Object) -> bool {
        self.kind == other.kind && self.size == other.size && self.digest == other.digest
    }
}

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

    /// The totals of some entries.
    pub(crate) fn of(entries: &[Entry]) -> Self {
        let mut totals = Totals::default();
        entries.iter().for_each(|entry| totals.count(&entry.object));
        totals
    }
}

/// The variants' order is the disk format.
#[derive(Serialize, Deserialize)]
enum Record {
    Info(Info),
    Entries(Vec<Entry>),
    End(Totals),
}

#[derive(Serialize)]
enum RecordRef<'a> {
    Info(&'a Info),
    Entries(&'a [Entry]),
    End(Totals),
}

/// A manifest in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Number, time and message.
    pub info: Info,
    /// Every entry, ascending.
    pub entries: Vec<Entry>,
}

impl Manifest {
    /// Writes it and returns the digest of what was written.
    pub(crate) fn write<W: Write>(&self, out: W) -> io::Result<(Digest, W)> {
        let mut writer = FrameWriter::new(out, MANIFEST)?;
        let mut put = |record: RecordRef<'_>| writer.frame(&encode(&record)?);
        put(RecordRef::Info(&self.info))?;
        for chunk in self.entries.chunks(ENTRIES_PER_FRAME) {
            put(RecordRef::Entries(chunk))?;
        }
        put(RecordRef::End(Totals::of(&self.entries)))?;
        let digest = Digest(writer.digest());
        Ok((digest, writer.finish()?))
    }

    /// Reads and validates a manifest and returns it with its digest.
    pub(crate) fn read(input: impl Read) -> Result<(Manifest, Digest), Damage> {
        let mut reader = FrameReader::new(input, MANIFEST)?;
        let info = match next_record(&mut reader)? {
            Some((_, Record::Info(info))) => info,
            Some((offset, _)) => return Err(Damage::corrupt(offset, "a first record that is not the info record")),
            None => return Err(Damage::Torn { offset: reader.offset() }),
        };
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            match next_record(&mut reader)? {
                None => return Err(Damage::Torn { offset: reader.offset() }),
                Some((_, Record::Entries(mut more))) => entries.append(&mut more),
                Some((offset, Record::End(totals))) => {
                    check_entries(&entries, totals).map_err(|what| Damage::corrupt(offset, what))?;
                    break;
                }
                Some((offset, Record::Info(_))) => return Err(Damage::corrupt(offset, "a second info record")),
            }
        }
        let digest = Digest(reader.digest());
        match reader.next_frame()? {
            None => Ok((Manifest { info, entries }, digest)),
            Some(_) => Err(Damage::corrupt(reader.offset(), "bytes after the end record")),
        }
    }
}

fn check_entries(entries: &[Entry], totals: Totals) -> Result<(), &'static str> {
    if Totals::of(entries) != totals {
        return Err("totals that are not those of the entries");
    }
    let mut above: Vec<&RelPath> = Vec::new();
    for (i, entry) in entries.iter().enumerate() {
        if entry.path.is_root() || (i > 0 && entries[i - 1].path >= entry.path) {
            return Err("entries that are not in ascending order");
        }
        if entry.path.is_reserved() {
            return Err("an entry of the state directory");
        }
        while above.last().is_some_and(|dir| !entry.path.is_below(dir)) {
            above.pop();
        }
        if above.last().map_or(RelPath::root(), |dir| (*dir).clone()) != entry.path.parent() {
            return Err("an entry without its directory");
        }
        if entry.object.kind == Kind::Directory {
            above.push(&entry.path);
        }
    }
    Ok(())
}

fn next_record<R: Read>(reader: &mut FrameReader<R>) -> Result<Option<(u64, Record)>, Damage> {
    let offset = reader.offset();
    let Some(payload) = reader.next_frame()? else { return Ok(None) };
    decode(&payload).map(|record| Some((offset, record))).map_err(|what| Damage::corrupt(offset, what))
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

/// The current generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Number, time and message.
    pub info: Info,
    /// The digest of `manifests/N`.
    pub manifest: Digest,
    /// How much it publishes.
    pub totals: Totals,
}

impl Head {
    /// The whole file.
    pub(crate) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut writer = FrameWriter::new(Vec::new(), HEAD)?;
        writer.frame(&encode(self)?)?;
        writer.finish()
    }

    pub(crate) fn read(input: impl Read) -> Result<Head, Damage> {
        let mut reader = FrameReader::new(input, HEAD)?;
        let payload = reader.next_frame()?.ok_or(Damage::Torn { offset: reader.offset() })?;
        let head = decode(&payload).map_err(|what| Damage::corrupt(reader.offset(), what))?;
        match reader.next_frame()? {
            None => Ok(head),
            Some(_) => Err(Damage::corrupt(reader.offset(), "bytes after the record")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn object(kind: Kind) -> Object {
        Object {
            kind,
            mode: 0o644,
            size: 3,
            digest: Digest::of(b"abc"),
            ino: 7,
            mtime: Timestamp { seconds: 1, nanos: 2 },
        }
    }

    fn manifest(paths: &[(&str, Kind)]) -> Manifest {
        let entries = paths
            .iter()
            .map(|&(path, kind)| Entry { path: RelPath::new(path).unwrap(), object: object(kind) })
            .collect();
        Manifest { info: Info { generation: 3, committed: Timestamp::default(), message: Some("m".into()) }, entries }
    }

    fn read_back(manifest: &Manifest) -> Result<(Manifest, Digest), Damage> {
        Manifest::read(&manifest.write(Vec::new()).unwrap().1[..])
    }

    #[test]
    fn a_manifest_reads_back_with_its_digest() {
        let written = manifest(&[("a", Kind::Directory), ("a/b", Kind::File), ("c", Kind::Symlink)]);
        let (digest, bytes) = written.write(Vec::new()).unwrap();
        assert_eq!(digest, Digest::of(&bytes));
        assert_eq!(Manifest::read(&bytes[..]).unwrap(), (written, digest));
    }

    #[test]
    fn entries_out_of_order_twice_or_without_their_directory_are_refused() {
        for bad in [
            manifest(&[("b", Kind::File), ("a", Kind::File)]),
            manifest(&[("a", Kind::File), ("a", Kind::File)]),
            manifest(&[("a/b", Kind::File)]),
            manifest(&[("a", Kind::File), ("a/b", Kind::File)]),
            manifest(&[("a", Kind::Directory), ("a/b/c", Kind::File)]),
        ] {
            assert!(matches!(read_back(&bad), Err(Damage::Corrupt { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_manifest_cut_anywhere_is_refused() {
        let bytes = manifest(&[("a", Kind::File), ("b", Kind::File)]).write(Vec::new()).unwrap().1;
        for cut in 0..bytes.len() {
            assert!(matches!(Manifest::read(&bytes[..cut]), Err(Damage::Torn { .. })), "cut at {cut}");
        }
    }

    #[test]
    fn head_reads_back() {
        let info = Info { generation: 9, committed: Timestamp { seconds: -1, nanos: 5 }, message: None };
        let head = Head { info, manifest: Digest::of(b"x"), totals: Totals::default() };
        assert_eq!(Head::read(&head.encode().unwrap()[..]).unwrap(), head);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut file = MANIFEST.header().to_vec();
            file.extend(&bytes);
            let _ = Manifest::read(&file[..]);
            let _ = Head::read(&bytes[..]);
        }
    }
}
