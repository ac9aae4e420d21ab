//! Making a store: the directories that every store has, what its file system can do, and the `store` file that says so.
//!
//! Invariants (journal-spec.md, "Layout"):
//! 1. A directory of that name without a `store` file that holds anything unknown is not ours, and is refused.
//! 2. The `store` file is durable before anything else is made beside it.
//!
//! A crash inside leaves a part of a store, which the next opening completes.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::frame::Format;
use crate::fs::tree::Tree;
use crate::fs::{Fs, RenameMode, is_unsupported};
use crate::layout::{DIRECTORIES, JOURNALS, damaged, make_dir, name, open_trusted, state_path, write_new};
use crate::manifest::{encode_one, read_one};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;

const STORE: Format = Format { magic: *b"txfsstor", version: 1 };

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

/// A directory that is not a store yet may hold only what making one leaves behind.
pub(crate) fn check_unclaimed<F: Fs>(state: &Tree<F>) -> Result<()> {
    let listed = state.fs.list(state.root()).map_err(state.io("list", &RelPath::root()))?;
    let made_first = [name::STORE, name::STORE_NEW, name::LOCK, name::IGNORE, name::MANIFESTS, name::TRANSACTIONS];
    let made_first = [&made_first[..], &[name::PREVIOUS, name::PROBE]].concat();
    let unknown = listed.iter().find(|entry| !made_first.iter().any(|known| known.as_bytes() == &*entry.name));
    let claimed = listed.iter().any(|entry| &*entry.name == name::STORE.as_bytes());
    let Some(unknown) = unknown.filter(|_| !claimed).map(|entry| entry.name.escape_ascii()) else { return Ok(()) };
    let ours = [&JOURNALS[..], &[name::HEAD]].concat();
    let is_ours = listed.iter().any(|entry| ours.iter().any(|ours| ours.as_bytes() == &*entry.name));
    if is_ours {
        // What an interrupted commit left would be left for ever.
        let what = "it is missing: restore it, or copy that of another output on the same file system";
        return Err(state.corrupt(&state_path(name::STORE), what));
    }
    let what = format!("it holds `{unknown}` and no store: it is not a state directory of txfs; move it away");
    Err(Error::Untrusted { path: state.at().to_path_buf(), what })
}

/// Fills a new state directory; the `store` file comes last, and says that it is complete.
pub(crate) fn initialize<F: Fs>(state: &Tree<F>) -> Result<Capabilities> {
    for directory in DIRECTORIES {
        make_dir(state, &state_path(directory))?;
    }
    write_new(state, &state_path(name::IGNORE), |mut file| file.write_all(b"*\n"))?;
    let capabilities = probe(state)?;
    check_able(state, capabilities)?;
    write_capabilities(state, capabilities)?;
    // And before anything else is made in it: a directory that holds more than this and no store is not taken for ours. Once for
    // all commits it is a syncfs: the directories that lead to the store may have been made just now.
    if !left_out(Mutant::StoreNameBarrier) {
        state.fs.sync_fs(state.root()).map_err(state.io("make durable", &RelPath::root()))?;
    }
    Ok(capabilities)
}

/// Tries again what the file system can do, where it has not done what it could before: a store can be copied to another one. Call
/// with the store's lock held. `None` when it can do the same as ever.
pub(crate) fn probe_again<F: Fs>(state: &Tree<F>, known: Capabilities) -> Result<Option<Capabilities>> {
    let capabilities = probe(state)?;
    if capabilities == known {
        return Ok(None);
    }
    check_able(state, capabilities)?;
    write_capabilities(state, capabilities)?;
    Ok(Some(capabilities))
}

fn check_able<F: Fs>(state: &Tree<F>, capabilities: Capabilities) -> Result<()> {
    let (flag, danger) = match capabilities {
        Capabilities { links: true, .. } | Capabilities { exchange: true, no_replace: true, .. } => return Ok(()),
        Capabilities { no_replace: false, .. } => {
            ("RENAME_NOREPLACE", "an entry cannot be added without the risk of overwriting another")
        }
        _ => ("RENAME_EXCHANGE", "an entry cannot be replaced without being missing for a moment"),
    };
    Err(Error::Unsupported {
        path: state.at().to_path_buf(),
        what: format!(
            "its file system has neither {flag} nor hard links, so {danger}; use ext4, xfs, btrfs, tmpfs or overlayfs"
        ),
    })
}

/// Writes the `store` file, which says that everything else is there.
fn write_capabilities<F: Fs>(state: &Tree<F>, capabilities: Capabilities) -> Result<()> {
    let (new, store) = (state_path(name::STORE_NEW), state_path(name::STORE));
    write_new(state, &new, |mut stream| {
        stream.write_all(&encode_one(&capabilities, STORE)?)?;
        // Durable before it has its name: a torn `store` file would look like damage after a crash.
        if left_out(Mutant::StoreFileBarrier) { Ok(()) } else { stream.fs.sync_file(&stream.file) }
    })?;
    // That a crash may keep this and lose the directories made before it does no harm: nothing was in them, and they are made again.
    let dir = state.root();
    state.fs.rename(dir, new.name(), dir, store.name(), RenameMode::Replace).map_err(state.io("rename", &new))
}

/// Tries what the file system can do, in a directory of its own.
fn probe<F: Fs>(state: &Tree<F>) -> Result<Capabilities> {
    let path = state_path(name::PROBE);
    state.remove(&path)?;
    make_dir(state, &path)?;
    let (one, two, three) = (path.join(b"one"), path.join(b"two"), path.join(b"three"));
    let (one, two, three) = match (one, two, three) {
        (Ok(one), Ok(two), Ok(three)) => (one, two, three),
        _ => unreachable!("these are valid names"),
    };
    write_new(state, &one, |_| Ok(()))?;
    write_new(state, &two, |_| Ok(()))?;
    let dir = state.dir(&path).map_err(state.io("open the directory", &path))?;
    let fs = &state.fs;
    let rename = |from: &RelPath, to: &RelPath, mode| fs.rename(&dir, from.name(), &dir, to.name(), mode);
    let exchange = supported(rename(&one, &two, RenameMode::Exchange)).map_err(state.io("probe renaming in", &path))?;
    let no_replace =
        supported(rename(&one, &three, RenameMode::NoReplace)).map_err(state.io("probe renaming in", &path))?;
    let links = supported(fs.link(&dir, two.name(), &dir, b"four")).map_err(state.io("probe linking in", &path))?;
    state.remove(&path)?;
    Ok(Capabilities { exchange, no_replace, links })
}

fn supported(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if is_unsupported(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn read_capabilities<F: Fs>(state: &Tree<F>) -> Result<Option<Capabilities>> {
    let path = state_path(name::STORE);
    let Some(stream) = open_trusted(state, &path)? else { return Ok(None) };
    read_one(stream, STORE).map(Some).map_err(|damage| damaged(state, &path, damage))
}
