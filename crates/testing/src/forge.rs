//! Forges files of a state directory with valid headers and checksums over any payload: what somebody who knows the format
//! could plant. Written from the specification, not with the engine's own writer.

use std::path::Path;

use serde::Serialize;
use txfs::fs::{Kind, Timestamp};
use txfs::{Begin, Digest, Entry, Extent, Head, Info, Object, Operation, Record, RelPath, Totals, TransactionId};

pub const JOURNAL: &[u8; 8] = b"txfsjrnl";
pub const JOURNAL_VERSION: u32 = 2;
pub const MANIFEST: &[u8; 8] = b"txfsmani";
pub const HEAD: &[u8; 8] = b"txfshead";
pub const STORE: &[u8; 8] = b"txfsstor";
pub const META: &[u8; 8] = b"txfstran";

/// The header of a kind of file.
pub fn header(magic: &[u8; 8], version: u32) -> Vec<u8> {
    let mut header = magic.to_vec();
    header.extend(version.to_le_bytes());
    header.extend(crc32fast::hash(&header).to_le_bytes());
    header
}

/// Appends a frame of any payload.
pub fn frame(file: &mut Vec<u8>, payload: &[u8]) {
    let length = (payload.len() as u32).to_le_bytes();
    file.extend(length);
    file.extend(crc32fast::hash(&[&length, payload].concat()).to_le_bytes());
    file.extend(payload);
}

/// Appends a frame of a record.
pub fn record(file: &mut Vec<u8>, record: &impl Serialize) {
    frame(file, &postcard::to_stdvec(record).unwrap());
}

/// A journal with a right commit record over whatever is in it.
pub fn journal(begin: &Begin, operations: &[Operation]) -> Vec<u8> {
    let records: Vec<Vec<u8>> = operations
        .iter()
        .map(|operation| postcard::to_stdvec(&Record::Operation { output: 0, operation: operation.clone() }).unwrap())
        .collect();
    journal_of(begin, &records)
}

/// As [`journal`], of payloads that need not even be records.
pub fn journal_of(begin: &Begin, operations: &[Vec<u8>]) -> Vec<u8> {
    let mut file = header(JOURNAL, JOURNAL_VERSION);
    record(&mut file, &Record::Begin(Box::new(begin.clone())));
    operations.iter().for_each(|payload| frame(&mut file, payload));
    let digest = Digest::of(&file);
    record(&mut file, &Record::Commit { operations: operations.len() as u64, digest });
    file
}

/// The payload of an operation on a path that no [`RelPath`] can hold: `SetMode`, the simplest that has one.
pub fn raw_set_mode(path: &[u8]) -> Vec<u8> {
    // Record::Operation, output 0, Operation::SetMode, path, from, to.
    let mut payload = vec![1, 0, 0];
    payload.extend(postcard::to_stdvec(&path.len()).unwrap());
    payload.extend(path);
    payload.extend(postcard::to_stdvec(&0o755u32).unwrap());
    payload.extend(postcard::to_stdvec(&0o777u32).unwrap());
    payload
}

/// The payload of an addition at a path that no [`RelPath`] can hold.
pub fn raw_add(path: &[u8], object: &Object) -> Vec<u8> {
    let mut payload = vec![1, 0, 1];
    payload.extend(postcard::to_stdvec(&path.len()).unwrap());
    payload.extend(path);
    payload.extend(postcard::to_stdvec(object).unwrap());
    payload
}

/// HEAD.
pub fn head(head: &Head) -> Vec<u8> {
    let mut file = header(HEAD, 1);
    record(&mut file, head);
    file
}

/// A node of a manifest, as the specification has it.
#[derive(Serialize)]
enum Node<'a> {
    Leaf(&'a [Entry]),
}

/// A manifest of one leaf, with right totals, unless others are given; and the HEAD that names it.
pub fn manifest(info: &Info, entries: &[Entry], totals: Option<Totals>) -> (Vec<u8>, Head) {
    let totals = totals.unwrap_or_else(|| totals_of(entries));
    let root = postcard::to_stdvec(&Node::Leaf(entries)).unwrap();
    let file = [header(MANIFEST, 1), root.clone()].concat();
    let length = root.len() as u32;
    let extent = Extent { file: info.generation, offset: 16, length, stored: length.into() };
    (file, Head { info: info.clone(), manifest: Digest::of(&root), totals, extent })
}

fn totals_of(entries: &[Entry]) -> Totals {
    let files = entries.iter().filter(|entry| entry.object.kind == Kind::File);
    Totals {
        entries: entries.len() as u64,
        files: entries.iter().filter(|entry| entry.object.kind != Kind::Directory).count() as u64,
        bytes: files.fold(0, |sum: u64, entry| sum.saturating_add(entry.object.size)),
    }
}

/// What a manifest says of a generation.
pub fn info(generation: u64) -> Info {
    Info { generation, committed: Timestamp::default(), message: None }
}

/// A path that is valid.
pub fn path(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

/// An object that is nowhere.
pub fn nothing(kind: Kind) -> Object {
    Object { kind, mode: 0o644, size: 1, digest: Digest::of(b"?"), ino: 1, mtime: Timestamp::default() }
}

/// The object that lies at a path now.
pub fn object(at: &Path) -> Object {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(at).unwrap();
    let (kind, digest) = if metadata.is_dir() {
        (Kind::Directory, Digest::default())
    } else if metadata.is_symlink() {
        (Kind::Symlink, Digest::of(std::fs::read_link(at).unwrap().as_os_str().as_bytes()))
    } else {
        (Kind::File, Digest::of(&std::fs::read(at).unwrap()))
    };
    let directory = kind == Kind::Directory;
    Object {
        kind,
        mode: metadata.mode() & 0o7777,
        size: if directory { 0 } else { metadata.size() },
        digest,
        ino: metadata.ino(),
        mtime: if directory {
            Timestamp::default()
        } else {
            Timestamp { seconds: metadata.mtime(), nanos: metadata.mtime_nsec() as u32 }
        },
    }
}

/// The first record of a journal from `base` to the next generation.
pub fn begin(transaction: u64, base: Option<&Head>, head: Head) -> Begin {
    Begin {
        transaction: TransactionId(transaction),
        base: base.map_or(0, |base| base.info.generation),
        base_manifest: base.map(|base| base.manifest).unwrap_or_default(),
        base_extent: base.map(|base| base.extent).unwrap_or_default(),
        last_change: Timestamp::default(),
        head,
    }
}
