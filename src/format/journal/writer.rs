//! Writes a journal, once it is certain that the reader will read it. A crash inside leaves `journal.new`: torn, it is no commit;
//! whole, the evidence decides (`evidence.rs`).

use std::io::{self, Write};

use super::JOURNAL;
use super::record::{Begin, Operation, Record};
use super::rules;
use crate::format::frame::{FrameWriter, PAYLOAD_MAX};
use crate::format::identity::Digest;
use crate::format::manifest::encode;

/// A record is no longer than its path and this.
const BESIDE_PATH: usize = 512;

/// Whether the reader will take it for a commit.
///
/// # Errors
/// It would not: txfs itself would be wrong.
pub(crate) fn check(begin: &Begin, operations: &[Operation]) -> io::Result<()> {
    rules::check_begin(begin).map_err(|what| refused(&format!("with {what}")))?;
    expect_short(&Record::Begin(Box::new(begin.clone())))?;
    rules::check_operations(operations.iter()).map_err(|(index, what)| {
        let operation = &operations[index];
        refused(&format!("with {what} ({} {})", operation.word(), operation.path()))
    })?;
    let long = operations.iter().filter(|operation| operation.path().as_bytes().len() > PAYLOAD_MAX - BESIDE_PATH);
    long.cloned().try_for_each(|operation| expect_short(&Record::Operation { output: 0, operation }))
}

fn expect_short(record: &Record) -> io::Result<()> {
    if encode(record)?.len() > PAYLOAD_MAX {
        return Err(refused("with a record that is longer than 16 MiB"));
    }
    Ok(())
}

fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no recovery could read a journal {what}"))
}

/// Writes the whole journal of a commit to `out`; the caller makes it durable.
///
/// # Errors
/// Those of [`check`], before anything is written; and those of `out`.
pub(crate) fn write<W: Write>(out: W, begin: Begin, operations: &[Operation]) -> io::Result<W> {
    check(&begin, operations)?;
    put(out, begin, operations)
}

/// [`write`] without [`check`], which comes before.
pub(crate) fn put<W: Write>(out: W, begin: Begin, operations: &[Operation]) -> io::Result<W> {
    let mut writer = FrameWriter::new(out, JOURNAL)?;
    writer.frame(&encode(&Record::Begin(Box::new(begin)))?)?;
    for operation in operations {
        writer.frame(&encode(&Record::Operation { output: 0, operation: operation.clone() })?)?;
    }
    let commit = Record::Commit { operations: operations.len() as u64, digest: Digest(writer.digest()) };
    writer.frame(&encode(&commit)?)?;
    writer.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::identity::Object;
    use crate::format::journal::reader::read;
    use crate::format::journal::record::TransactionId;
    use crate::format::manifest::{Extent, Head, Info, Totals};
    use crate::fs::{Kind, Timestamp};
    use crate::path::RelPath;
    use proptest::prelude::*;

    fn begin(base: u64, generation: u64, message: Option<String>) -> Begin {
        let info = Info { generation, committed: Timestamp::default(), message };
        let (digest, extent) = (Digest::of(b"m"), Extent::default());
        let head = Head { info, manifest: digest, totals: Totals::default(), extent };
        let (transaction, last_change) = (TransactionId(1), Timestamp::default());
        Begin { transaction, base, base_manifest: digest, base_extent: extent, head, last_change }
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let path = "(|(a|b|\\.txfs)(/[ab]){0,2})";
        let path = path.prop_map(|path: String| RelPath::new(&path).unwrap_or_default());
        let mode = prop_oneof![8 => Just(0o755), 1 => Just(0o170_755)];
        (0..5, path, mode.clone(), mode).prop_map(|(which, path, mode, to)| {
            let (kind, mtime) = (Kind::File, Timestamp::default());
            let old = Object { kind, mode, size: 1, digest: Digest::of(b"x"), ino: 5, mtime };
            let new = Object { mode: to, ..old };
            match which {
                0 => Operation::SetMode { path, from: mode, to },
                1 => Operation::Add { path, new },
                2 => Operation::Replace { path, old, new },
                3 => Operation::Remove { path, old },
                _ => Operation::RemoveDirectory { path, mode },
            }
        })
    }

    fn reads(begin: &Begin, operations: &[Operation]) -> bool {
        put(Vec::new(), begin.clone(), operations).is_ok_and(|bytes| read(&bytes[..]).is_ok())
    }

    proptest! {
        #[test]
        fn what_the_writer_accepts_the_reader_reads_and_what_one_refuses_the_other_refuses(
            base in prop_oneof![8 => Just(3), 1 => Just(u64::MAX)],
            generation in prop_oneof![8 => Just(4_u64), 1 => Just(5), 1 => Just(0)],
            operations in prop::collection::vec(operation(), 0..5),
        ) {
            let begin = begin(base, generation, None);
            let mut written = Vec::new();
            let accepted = write(&mut written, begin.clone(), &operations).is_ok();
            prop_assert_eq!(accepted, reads(&begin, &operations));
            prop_assert!(accepted || written.is_empty(), "nothing is written of what is refused");
        }
    }

    #[test]
    fn a_record_that_no_frame_holds_is_refused_before_anything_is_written() {
        let path = |length: usize| RelPath::new("d/".repeat(length / 2) + "d").unwrap();
        let remove = |length| Operation::RemoveDirectory { path: path(length), mode: 0 };
        for length in [PAYLOAD_MAX - 10_000, PAYLOAD_MAX - 8, PAYLOAD_MAX - 6, PAYLOAD_MAX, PAYLOAD_MAX + 10_000] {
            let (begin, operations) = (begin(3, 4, None), [remove(length)]);
            let accepted = check(&begin, &operations).is_ok();
            assert_eq!(accepted, reads(&begin, &operations), "{length}");
        }
        let message = |length| begin(3, 4, Some("m".repeat(length)));
        for length in [PAYLOAD_MAX - 10_000, PAYLOAD_MAX - 100, PAYLOAD_MAX] {
            assert_eq!(check(&message(length), &[]).is_ok(), reads(&message(length), &[]), "{length}");
        }
        assert!(check(&message(PAYLOAD_MAX), &[]).is_err() && check(&message(PAYLOAD_MAX - 10_000), &[]).is_ok());
    }
}
