//! Writes a journal. A crash inside leaves `journal.new`: torn, it is no commit; whole, the evidence decides (`evidence.rs`).

use std::io::{self, Write};

use super::JOURNAL;
use super::record::{Begin, Operation, Record};
use crate::frame::FrameWriter;
use crate::manifest::{Digest, encode};

/// Writes the whole journal of a commit to `out`; the caller makes it durable.
pub(crate) fn write<W: Write>(out: W, begin: Begin, operations: &[Operation]) -> io::Result<W> {
    let mut writer = FrameWriter::new(out, JOURNAL)?;
    writer.frame(&encode(&Record::Begin(Box::new(begin)))?)?;
    for operation in operations {
        writer.frame(&encode(&Record::Operation { output: 0, operation: operation.clone() })?)?;
    }
    let commit = Record::Commit { operations: operations.len() as u64, digest: Digest(writer.digest()) };
    writer.frame(&encode(&commit)?)?;
    writer.finish()
}
