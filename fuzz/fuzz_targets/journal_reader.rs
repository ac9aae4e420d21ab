//! Any bytes as a journal: no panic, no false commit, and a torn tail told from corruption.
#![no_main]

use libfuzzer_sys::fuzz_target;
use txfs::fuzzing::{self, Read};
use txfs::{Digest, JournalDump, Record};

fuzz_target!(|input: &[u8]| {
    check(input);
    // Checksums keep mutations out of the records: the same bytes as frames, too.
    check(&framed(input));
});

fn check(bytes: &[u8]) {
    let dump = JournalDump::read(bytes);
    let read = fuzzing::read_journal(bytes);
    assert_eq!(dump.damage.is_none(), matches!(read, Read::Whole(_)));
    let Read::Whole((begin, operations)) = read else { return };
    // A commit is what its own writer would have written, byte for byte, and nothing else is one.
    assert_eq!(begin.base + 1, begin.head.info.generation);
    assert_eq!(dump.records.len(), operations.len() + 2);
    let (offset, last) = dump.records.last().expect("a journal has records");
    let Record::Commit { operations: count, digest } = last else { panic!("the last record is {last:?}") };
    assert_eq!((*count, *digest), (operations.len() as u64, Digest::of(&bytes[..*offset as usize])));
    let written = fuzzing::write_journal(begin, &operations);
    assert_eq!(fuzzing::read_journal(&written), fuzzing::read_journal(bytes));
    for cut in [written.len() - 1, written.len() / 2, 17, 3] {
        assert_eq!(fuzzing::read_journal(&written[..cut]), Read::Torn, "cut at {cut}");
    }
    let mut flipped = written.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    assert!(!matches!(fuzzing::read_journal(&flipped), Read::Whole(_)));
}

/// Takes the bytes for payloads, each after a byte that is its length, and frames them as a journal with a right commit record.
fn framed(mut input: &[u8]) -> Vec<u8> {
    let mut file = b"txfsjrnl\x01\0\0\0".to_vec();
    file.extend(crc32fast::hash(&file).to_le_bytes());
    let frame = |file: &mut Vec<u8>, payload: &[u8]| {
        let length = (payload.len() as u32).to_le_bytes();
        file.extend(length);
        file.extend(crc32fast::hash(&[&length, payload].concat()).to_le_bytes());
        file.extend(payload);
    };
    let mut frames = 0u64;
    while let [length, rest @ ..] = input {
        let (payload, rest) = rest.split_at(rest.len().min(*length as usize));
        if !payload.is_empty() {
            frame(&mut file, payload);
            frames += 1;
        }
        input = rest;
    }
    let commit = Record::Commit { operations: frames.saturating_sub(1), digest: Digest::of(&file) };
    frame(&mut file, &postcard::to_stdvec(&commit).expect("a record"));
    file
}
