//! The journal: the write-ahead log of one commit. [`record`] says what is in it, [`writer`] and [`reader`] how it gets there and
//! back.
//!
//! ```text
//! journal = header Begin Operation* Commit
//! ```
//!
//! Invariants (journal-spec.md, "Journal"):
//! 1. A journal is written as `journal.new`, and is complete and durable, with all that it names, before it gets the name `journal`:
//!    that barrier is the commit point, and the name says that it was passed.
//! 2. It is never changed afterwards. Rolling back is said by renaming it to `journal.undo`, which needs no free space and
//!    cannot be torn; a settled journal is moved to `previous/N/journal`, where it says what was displaced.
//! 3. It is valid only if its last record is a commit record that counts the operations and digests every byte before it,
//!    and if its operations do not contradict each other. [`rules`] says that to the writer as to the reader.

use crate::format::frame::Format;

mod older;
pub(crate) mod reader;
pub(crate) mod record;
mod rules;
pub(crate) mod writer;

/// The header of a journal. The version is raised by every change of the meaning of any byte.
const JOURNAL: Format = Format { magic: *b"txfsjrnl", version: 2 };

/// The oldest version that is still read.
const OLDEST: u32 = 1;

#[cfg(test)]
mod tests {
    use super::record::{Begin, Operation, TransactionId};
    use super::writer;
    use crate::format::identity::{Digest, Object};
    use crate::format::manifest::{Extent, Head, Info, Totals};
    use crate::fs::{Kind, Timestamp};
    use crate::path::RelPath;

    /// The worked example of journal-spec.md.
    fn example() -> Vec<u8> {
        let mtime = Timestamp { seconds: 1_700_000_000, nanos: 5 };
        let page = |content: &[u8], ino| Object {
            kind: Kind::File,
            mode: 0o644,
            size: content.len() as u64,
            digest: Digest::of(content),
            ino,
            mtime,
        };
        let info = Info { generation: 2, committed: mtime, message: Some("hi".into()) };
        let totals = Totals { entries: 1, files: 1, bytes: 3 };
        let extent = Extent { file: 1, offset: 4096, length: 100, stored: 100 };
        let head = Head { info, manifest: Digest::of(b"manifest 2"), totals, extent };
        let begin = Begin {
            transaction: TransactionId(0xabcd),
            base: 1,
            base_manifest: Digest::of(b"manifest 1"),
            base_extent: Extent { offset: 16, ..extent },
            head,
            last_change: Timestamp { nanos: 4, ..mtime },
        };
        let operations = [
            Operation::Replace { path: RelPath::new("a").unwrap(), old: page(b"old", 11), new: page(b"new", 12) },
            Operation::Remove { path: RelPath::new("b/c").unwrap(), old: page(b"", 13) },
        ];
        writer::write(Vec::new(), begin, &operations).unwrap()
    }

    fn hexdump(bytes: &[u8]) -> String {
        let line = |(i, chunk): (usize, &[u8])| {
            let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
            let text: String =
                chunk.iter().map(|&b| if b.is_ascii_graphic() || b == b' ' { b as char } else { '.' }).collect();
            format!("{:04x}  {:<47}  {text}\n", i * 16, hex.join(" "))
        };
        bytes.chunks(16).enumerate().map(line).collect()
    }

    #[test]
    fn the_specification_shows_this_very_journal() {
        let specification = include_str!("../../../journal-spec.md");
        let dump = hexdump(&example());
        assert!(specification.contains(&dump), "journal-spec.md has to show:\n{dump}");
    }
}
