//! `{stage}` in the command that `txfs run` runs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

const PLACEHOLDER: &[u8] = b"{stage}";

/// Where the next `{stage}` stands.
pub(crate) fn find_placeholder(word: &[u8]) -> Option<usize> {
    word.windows(PLACEHOLDER.len()).position(|window| window == PLACEHOLDER)
}

/// Whether a character means itself to a shell, or parts words.
pub(crate) fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || " _-./:=,@%+{}".contains(c)
}

/// Every `{stage}` in an argument becomes the stage's path, byte for byte.
pub(crate) fn replace_stage(word: &OsStr, stage: &Path) -> OsString {
    let mut rest = word.as_bytes();
    let mut replaced = Vec::with_capacity(rest.len());
    while let Some(at) = find_placeholder(rest) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(stage.as_os_str().as_bytes());
        rest = &rest[at + PLACEHOLDER.len()..];
    }
    replaced.extend_from_slice(rest);
    OsString::from_vec(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_replaced_whatever_the_bytes_around_it() {
        let replace = |word: &[u8]| replace_stage(OsStr::from_bytes(word), Path::new("/s{stage}")).into_vec();
        assert_eq!(replace(b"-o={stage}/a:{stage}"), b"-o=/s{stage}/a:/s{stage}");
        assert_eq!(replace(b"\xff{stage}\xfe"), b"\xff/s{stage}\xfe");
        assert_eq!(replace(b"{stage"), b"{stage");
    }
}
