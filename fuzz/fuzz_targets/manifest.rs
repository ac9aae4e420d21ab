//! Any bytes as a manifest or HEAD: read or refused, and what is read is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use txfs::Digest;
use txfs::fuzzing::{self, Read};

fuzz_target!(|input: &[u8]| {
    check(input);
    check(&framed(b"txfsmani", input));
    check(&framed(b"txfshead", input));
});

fn check(bytes: &[u8]) {
    if let Read::Whole((manifest, digest)) = fuzzing::read_manifest(bytes) {
        assert_eq!(digest, Digest::of(bytes));
        for pair in manifest.entries.windows(2) {
            assert!(pair[0].path < pair[1].path);
        }
        let (digest, written) = fuzzing::write_manifest(&manifest);
        assert_eq!(fuzzing::read_manifest(&written), Read::Whole((manifest, digest)));
        assert_eq!(fuzzing::read_manifest(&written[..written.len() - 1]), Read::Torn);
    }
    if let Read::Whole(head) = fuzzing::read_head(bytes) {
        assert_eq!(fuzzing::read_head(&fuzzing::write_head(&head)), Read::Whole(head));
    }
}

/// Takes the bytes for payloads, each after a byte that is its length, and frames them.
fn framed(magic: &[u8; 8], mut input: &[u8]) -> Vec<u8> {
    let mut file = [&magic[..], &[1, 0, 0, 0]].concat();
    file.extend(crc32fast::hash(&file).to_le_bytes());
    while let [length, rest @ ..] = input {
        let (payload, rest) = rest.split_at(rest.len().min(*length as usize));
        let length = (payload.len() as u32).to_le_bytes();
        file.extend(length);
        file.extend(crc32fast::hash(&[&length, payload].concat()).to_le_bytes());
        file.extend(payload);
        input = rest;
    }
    file
}
