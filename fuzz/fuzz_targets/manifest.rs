//! Any bytes as a node of a manifest, or as HEAD: read or refused, and what is read is written back the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use txfs::fuzzing::{self, Read};

fuzz_target!(|input: &[u8]| {
    if let Read::Whole(node) = fuzzing::read_node(input) {
        let paths = node.paths();
        assert!(paths.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(fuzzing::read_node(&fuzzing::write_node(&node)), Read::Whole(node));
    }
    check(input);
    check(&framed(b"txfshead", input));
});

fn check(bytes: &[u8]) {
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
