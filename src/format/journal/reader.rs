//! Reads a journal from any bytes: never panics, never takes anything but a whole, consistent journal for a commit.

use std::io;

use super::older::Record1;
use super::record::{Begin, Operation, Record};
use super::rules;
use super::{JOURNAL, OLDEST};
use crate::format::frame::{Damage, FrameReader};
use crate::format::identity::Digest;
use crate::format::manifest::decode;
use crate::mutant::{Mutant, left_out};

/// A valid journal: a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Journal {
    pub(crate) begin: Begin,
    pub(crate) operations: Vec<Operation>,
}

/// Everything that could be read of a journal, valid or not.
#[derive(Debug)]
pub(crate) struct Dump {
    /// Every record up to the damage, with the offset of its frame.
    pub(crate) records: Vec<(u64, Record)>,
    /// Why reading stopped before a valid end; `None` for a journal that is a commit.
    pub(crate) damage: Option<Damage>,
}

/// Reads as much as there is.
pub(crate) fn dump(input: impl io::Read) -> Dump {
    let mut records = Vec::new();
    let damage = read_records(input, &mut records).err();
    Dump { records, damage }
}

fn read_records(input: impl io::Read, records: &mut Vec<(u64, Record)>) -> Result<(), Damage> {
    let mut reader = FrameReader::since(input, JOURNAL, OLDEST)?;
    loop {
        let offset = reader.offset();
        let digest = Digest(reader.digest());
        let Some(payload) = reader.next_frame()? else { return Err(Damage::Torn { offset }) };
        let record = decode_record(&payload, reader.version()).map_err(|what| Damage::corrupt(offset, what))?;
        check_position(&record, records.len(), digest).map_err(|what| Damage::corrupt(offset, what))?;
        let last = matches!(record, Record::Commit { .. });
        records.push((offset, record));
        if last {
            break;
        }
    }
    let offset = reader.offset();
    match reader.next_frame() {
        Ok(None) => check_all(records),
        Err(Damage::Io(error)) => Err(error.into()),
        _ => Err(Damage::corrupt(offset, "bytes after the commit record")),
    }
}

/// Reads whose journal it is; `None` where that cannot be read.
pub(crate) fn begin(input: impl io::Read) -> Result<Option<Begin>, Damage> {
    let mut reader = FrameReader::since(input, JOURNAL, OLDEST)?;
    let offset = reader.offset();
    let Some(payload) = reader.next_frame()? else { return Ok(None) };
    match decode_record(&payload, reader.version()).map_err(|what| Damage::corrupt(offset, what))? {
        Record::Begin(begin) => Ok(Some(*begin)),
        _ => Ok(None),
    }
}

fn decode_record(payload: &[u8], version: u32) -> Result<Record, &'static str> {
    match version {
        1 => decode::<Record1>(payload).map(Record1::upgrade),
        _ => decode(payload),
    }
}

fn check_position(record: &Record, before: usize, digest: Digest) -> Result<(), &'static str> {
    match record {
        Record::Begin(begin) if before == 0 => rules::check_begin(begin),
        Record::Begin(_) => Err("a second begin record"),
        _ if before == 0 => Err("a first record that is not a begin record"),
        Record::Operation { output: 0, .. } => Ok(()),
        Record::Operation { .. } => Err("an operation on an unknown output"),
        Record::Commit { operations, .. } if *operations != before as u64 - 1 => {
            Err("a commit record that counts other operations")
        }
        Record::Commit { digest: expected, .. } if *expected != digest && !left_out(Mutant::CommitDigest) => {
            Err("a commit record of another journal")
        }
        Record::Commit { .. } => Ok(()),
    }
}

fn check_all(records: &[(u64, Record)]) -> Result<(), Damage> {
    let operation = |(offset, record): &'_ (u64, Record)| match record {
        Record::Operation { .. } => Some(*offset),
        _ => None,
    };
    let operations = records.iter().filter_map(|(_, record)| match record {
        Record::Operation { operation, .. } => Some(operation),
        _ => None,
    });
    rules::check_operations(operations).map_err(|(index, what)| {
        let offset = records.iter().filter_map(operation).nth(index);
        Damage::corrupt(offset.unwrap_or_default(), what)
    })
}

/// A journal that was read, or why it is no commit.
pub(crate) type Read = Result<Journal, Damage>;

/// Reads a journal that is to be acted upon.
pub(crate) fn read(input: impl io::Read) -> Read {
    let mut records = Vec::new();
    read_records(input, &mut records)?;
    let mut begin = None;
    let mut operations = Vec::with_capacity(records.len().saturating_sub(2));
    for (_, record) in records {
        match record {
            Record::Begin(record) => begin = Some(*record),
            Record::Operation { operation, .. } => operations.push(operation),
            Record::Commit { .. } => {}
        }
    }
    let begin = begin.expect("the first record of a journal that was read is a begin record");
    Ok(Journal { begin, operations })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::identity::Object;
    use crate::format::journal::record::TransactionId;
    use crate::format::journal::writer::put;
    use crate::format::manifest::{Extent, Head, Info, Totals};
    use crate::fs::{Kind, Timestamp};
    use crate::path::RelPath;

    fn object(kind: Kind) -> Object {
        Object { kind, mode: 0o644, size: 1, digest: Digest::of(b"x"), ino: 5, mtime: Timestamp::default() }
    }

    fn begin() -> Begin {
        let info = Info { generation: 4, committed: Timestamp::default(), message: None };
        let head = Head { info, manifest: Digest::of(b"m"), totals: Totals::default(), extent: Extent::default() };
        let base_extent = Extent::default();
        Begin {
            transaction: TransactionId(1),
            base: 3,
            base_manifest: Digest::of(b"b"),
            base_extent,
            head,
            last_change: Timestamp::default(),
        }
    }

    fn add(path: &str) -> Operation {
        Operation::Add { path: RelPath::new(path).unwrap(), new: object(Kind::File) }
    }

    fn remove(path: &str) -> Operation {
        Operation::Remove { path: RelPath::new(path).unwrap(), old: object(Kind::Directory) }
    }

    fn journal(operations: &[Operation]) -> Vec<u8> {
        put(Vec::new(), begin(), operations).unwrap()
    }

    fn damage(bytes: &[u8]) -> Damage {
        read(bytes).unwrap_err()
    }

    #[test]
    fn a_journal_reads_back() {
        let operations = [add("a"), remove("b")];
        let expected = Journal { begin: begin(), operations: operations.to_vec() };
        assert_eq!(read(&journal(&operations)[..]).unwrap(), expected);
    }

    #[test]
    fn a_journal_cut_at_any_byte_is_torn_and_never_a_commit() {
        let whole = journal(&[add("a"), remove("b")]);
        for cut in 0..whole.len() {
            assert!(matches!(damage(&whole[..cut]), Damage::Torn { .. }), "cut at {cut}: {}", damage(&whole[..cut]));
        }
    }

    #[test]
    fn a_journal_with_any_bit_flipped_is_never_a_commit() {
        let whole = journal(&[add("a"), remove("b")]);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&flipped[..]).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_zeroed_tail_is_torn() {
        let mut bytes = journal(&[add("a")]);
        let half = bytes.len() / 2;
        bytes[half..].fill(0);
        assert!(matches!(damage(&bytes), Damage::Torn { .. }));
    }

    #[test]
    fn bytes_after_the_commit_record_are_corruption() {
        let mut bytes = journal(&[add("a")]);
        bytes.push(0);
        assert!(matches!(damage(&bytes), Damage::Corrupt { .. }));
    }

    #[test]
    fn frames_of_another_journal_are_not_taken_for_this_one() {
        let (one, other) = (journal(&[add("a")]), journal(&[add("b")]));
        let mut mixed = one.clone();
        let difference = one.iter().zip(&other).position(|(a, b)| a != b).unwrap();
        let end_of_operation = one.len() - (crate::format::frame::FRAME_HEAD + 1 + 1 + 32);
        mixed[difference - 20..end_of_operation].copy_from_slice(&other[difference - 20..end_of_operation]);
        assert!(matches!(damage(&mixed), Damage::Corrupt { .. }));
    }

    #[test]
    fn overlapping_and_repeated_operations_are_refused() {
        for operations in [vec![add("a"), add("a")], vec![remove("a"), add("a/b")], vec![add("a/b"), remove("a")]] {
            assert!(matches!(damage(&journal(&operations)), Damage::Corrupt { .. }), "{operations:?}");
        }
        assert!(read(&journal(&[remove("a"), add("a.b"), add("ab")])[..]).is_ok());
    }

    #[test]
    fn moving_the_output_itself_is_refused() {
        let operation = Operation::Remove { path: RelPath::root(), old: object(Kind::Directory) };
        assert!(matches!(damage(&journal(&[operation])), Damage::Corrupt { .. }));
    }
}
