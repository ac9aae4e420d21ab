//! The `store` file: what a store says of itself.
//!
//! Invariants (journal-spec.md, "Layout"):
//! 1. It is durable before it has its name: a torn one would look like damage after a crash.
//! 2. A store that no group shares has version 1, which older programs read, and a shared one version 2, which they refuse.
//!
//! A crash inside leaves the one that was there, or the new one.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::format::frame::{Damage, Format};
use crate::format::manifest::{encode_one, read_one};
use crate::fs::stream::Stream;
use crate::fs::tree::Tree;
use crate::fs::{Fs, RenameMode};
use crate::mutant::{Mutant, left_out};
use crate::store::layout::{damaged, name, open_trusted, state_path, write_new};

const MAGIC: [u8; 8] = *b"txfsstor";
/// Longer than any that is valid.
const SIZE_MAX: u64 = 4096;

const OF_ONE: Format = Format { magic: MAGIC, version: 1 };
const SHARED: Format = Format { magic: MAGIC, version: 2 };

/// What the file system of a store can do, found out by doing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// `RENAME_EXCHANGE`: two names change places in one instant.
    pub exchange: bool,
    /// `RENAME_NOREPLACE`: a rename that refuses to replace.
    pub no_replace: bool,
    /// Hard links.
    pub links: bool,
}

/// What version 2 says.
#[derive(Serialize, Deserialize)]
struct Shared {
    capabilities: Capabilities,
    group: u32,
}

/// Writes what a store says of itself, and with which group it is shared.
pub(crate) fn write<F: Fs>(state: &Tree<F>, capabilities: Capabilities, group: Option<u32>) -> Result<()> {
    let (new, store) = (state_path(name::STORE_NEW), state_path(name::STORE));
    write_new(state, &new, |mut stream| {
        let bytes = match group {
            None => encode_one(&capabilities, OF_ONE),
            Some(group) => encode_one(&Shared { capabilities, group }, SHARED),
        };
        stream.write_all(&bytes?)?;
        if left_out(Mutant::StoreFileBarrier) { Ok(()) } else { stream.fs.sync_file(&stream.file) }
    })?;
    // That a crash may keep this and lose the directories made before it does no harm: nothing was in them, and they are made again.
    let dir = state.root();
    state.fs.rename(dir, new.name(), dir, store.name(), RenameMode::Replace).map_err(state.io("rename", &new))
}

/// What a store says of itself, and which group shares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) capabilities: Capabilities,
    pub(crate) group: Option<u32>,
}

/// What a store says of itself; `None` where there is none.
pub(crate) fn read<F: Fs>(state: &Tree<F>) -> Result<Option<Said>> {
    let path = state_path(name::STORE);
    let Some(stream) = open_trusted(state, &path)? else { return Ok(None) };
    decode(stream).map(Some).map_err(|damage| damaged(state, &path, damage))
}

/// The group that a state directory says it is shared with, whoever wrote that: `None` also where it cannot be made out.
pub(crate) fn claimed_group<F: Fs>(state: &Tree<F>) -> Option<u32> {
    let (file, _) = state.fs.open_file(state.root(), name::STORE.as_bytes()).ok()?;
    decode(Stream { fs: state.fs.clone(), file }).ok()?.group
}

fn decode<F: Fs>(stream: Stream<F>) -> Result<Said, Damage> {
    let mut bytes = Vec::new();
    stream.take(SIZE_MAX).read_to_end(&mut bytes)?;
    match read_one::<Shared>(&*bytes, SHARED) {
        Ok(Shared { capabilities, group }) => Ok(Said { capabilities, group: Some(group) }),
        Err(Damage::Version { version: 1, .. }) => {
            read_one(&*bytes, OF_ONE).map(|capabilities| Said { capabilities, group: None })
        }
        Err(damage) => Err(damage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::LinuxFs;

    fn directory() -> (tempfile::TempDir, Tree<LinuxFs>) {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::open(&LinuxFs::new(), dir.path()).unwrap();
        (dir, tree)
    }

    #[test]
    fn a_store_of_one_user_has_version_1_and_a_shared_one_says_its_group() {
        let (dir, state) = directory();
        let capabilities = Capabilities { exchange: true, no_replace: true, links: false };
        for (group, version) in [(None, 1), (Some(70_000), 2), (None, 1)] {
            write(&state, capabilities, group).unwrap();
            assert_eq!(read(&state).unwrap(), Some(Said { capabilities, group }));
            assert_eq!(claimed_group(&state), group);
            let bytes = std::fs::read(dir.path().join("store")).unwrap();
            assert_eq!(bytes[8], version);
        }
    }

    #[test]
    fn what_is_torn_or_of_a_later_version_is_refused_and_claims_nothing() {
        let (dir, state) = directory();
        let at = dir.path().join("store");
        write(&state, Capabilities { exchange: true, no_replace: true, links: true }, Some(1)).unwrap();
        let whole = std::fs::read(&at).unwrap();
        let mut later = Format { magic: MAGIC, version: 3 }.header().to_vec();
        later.extend(&whole[later.len()..]);
        for bytes in (0..whole.len()).map(|end| whole[..end].to_vec()).chain([later, [&whole[..], b"x"].concat()]) {
            std::fs::write(&at, bytes).unwrap();
            assert!(read(&state).is_err());
            assert_eq!(claimed_group(&state), None);
        }
    }
}
