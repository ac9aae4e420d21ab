//! The state directory: what lies in it, by which names, and what is believed of it.
//!
//! ```text
//! .dist.txfs/            beside dist; or dist/.txfs where dist is a mount point or its parent cannot be written
//!     store              what the file system can do; its presence says that the directory is txfs'
//!     store.new, probe/  the same while a store is being made
//!     .gitignore         `*`
//!     lock               flock'd by whoever changes anything, never unlinked
//!     journal[.new|.undo]  a commit that is not settled | being written | being undone
//!     HEAD[.new]         the current generation
//!     manifests/K        inventories of generation K and of those after it, until one begins a file of its own
//!     tx/ID/             an open transaction
//!     previous/N/        what generation N displaced, with its journal
//!     trash/ID           a transaction that had nothing to publish
//!     rescued/N[.I]      what txfs found among it, or in a stage, and could not prove to be its own
//! ```
//!
//! Invariant (journal-spec.md, "Layout" and "Security"): the state directory and the files that are read from it belong to the
//! effective user, and nobody else may write to it; otherwise everything is refused (G9).

use std::io;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::frame::Damage;
use crate::fs::stream::Stream;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, found};
use crate::path::{RESERVED, RelPath};

/// The name of each part of the state directory.
pub(crate) mod name {
    pub(crate) const STORE: &str = "store";
    pub(crate) const STORE_NEW: &str = "store.new";
    pub(crate) const LOCK: &str = "lock";
    pub(crate) const IGNORE: &str = ".gitignore";
    pub(crate) const JOURNAL: &str = "journal";
    pub(crate) const JOURNAL_NEW: &str = "journal.new";
    pub(crate) const JOURNAL_UNDO: &str = "journal.undo";
    pub(crate) const HEAD: &str = "HEAD";
    pub(crate) const HEAD_NEW: &str = "HEAD.new";
    pub(crate) const MANIFESTS: &str = "manifests";
    pub(crate) const TRANSACTIONS: &str = "tx";
    pub(crate) const PREVIOUS: &str = "previous";
    pub(crate) const TRASH: &str = "trash";
    pub(crate) const RESCUED: &str = "rescued";
    pub(crate) const PROBE: &str = "probe";
}

/// Whether a directory of this name may be the state of an output: `.txfs`, or `.NAME.txfs`.
pub(crate) fn is_state_name(name: &[u8]) -> bool {
    name == RESERVED || (name.starts_with(b".") && name.ends_with(RESERVED) && name.len() > RESERVED.len() + 1)
}

/// The directories that every store has.
pub(crate) const DIRECTORIES: [&str; 3] = [name::MANIFESTS, name::TRANSACTIONS, name::PREVIOUS];

/// The path of a part of the state directory.
pub(crate) fn state_path(name: &str) -> RelPath {
    RelPath::new(name).expect("the names of the layout are valid")
}

/// The path of something in one of the state directory's directories.
pub(crate) fn numbered(directory: &str, name: impl std::fmt::Display) -> RelPath {
    state_path(directory).join(name.to_string().as_bytes()).expect("numbers are valid names")
}

pub(crate) fn manifest_path(generation: u64) -> RelPath {
    numbered(name::MANIFESTS, generation)
}

/// The directory of what a generation displaced.
pub(crate) fn previous_path(generation: u64) -> RelPath {
    numbered(name::PREVIOUS, generation)
}

/// Whether this is the state directory of some output: a build that copies the directory around its output takes it for content.
pub(crate) fn is_state<F: Fs>(tree: &Tree<F>, path: &RelPath, kind: Option<Kind>) -> bool {
    if path.as_bytes() == RESERVED {
        return true;
    }
    let holds_store = |store: &RelPath| tree.stat(store).is_ok_and(|found| found.is_some());
    kind == Some(Kind::Directory)
        && is_state_name(path.name())
        && path.join(name::STORE.as_bytes()).is_ok_and(|store| holds_store(&store))
}

/// As [`is_state`]; what is no directory and has the name is content by mistake.
pub(crate) fn is_state_dir<F: Fs>(tree: &Tree<F>, path: &RelPath, kind: Option<Kind>) -> bool {
    kind == Some(Kind::Directory) && is_state(tree, path, kind)
}

/// Refuses a state directory that somebody else may have written to.
pub(crate) fn check_trust<F: Fs>(state: &Tree<F>) -> Result<()> {
    let stat = state.fs.stat_dir(state.root()).map_err(state.io("read the attributes of", &RelPath::root()))?;
    let untrusted = |what: String| Err(Error::Untrusted { path: state.at().to_path_buf(), what });
    let user = state.fs.user();
    if stat.uid != user {
        return Err(another_user(state.at().to_path_buf(), stat.uid, user));
    }
    if stat.mode & 0o022 != 0 {
        return untrusted(format!(
            "others may write to it (mode {:04o}): `chmod 700` it if you know its content",
            stat.mode
        ));
    }
    Ok(())
}

pub(crate) fn another_user(path: PathBuf, owner: u32, user: u32) -> Error {
    let what = format!("it belongs to user {owner}, but this is user {user}: run txfs as its owner");
    Error::Untrusted { path, what }
}

/// The directories of a complete store are there, and are directories. One that is gone had nothing in it, if nothing is under way:
/// there are tools that remove empty directories, and archives that leave them out.
pub(crate) fn check_layout<F: Fs>(state: &Tree<F>) -> Result<()> {
    for directory in DIRECTORIES {
        let path = state_path(directory);
        match state.stat(&path)? {
            Some(stat) if stat.is_dir() => {}
            Some(_) => {
                let what = "it is not a directory: move it away".into();
                return Err(Error::Untrusted { path: path.under(state.at()), what });
            }
            None if is_at_rest(state)? && make_dir(state, &path).is_ok() => {}
            None => return Err(state.corrupt(&path, "it is missing")),
        }
    }
    Ok(())
}

/// The names of the journal of a commit that is not settled; where a crash left several, the first of them counts.
pub(crate) const JOURNALS: [&str; 3] = [name::JOURNAL_UNDO, name::JOURNAL, name::JOURNAL_NEW];

/// Whether no commit is under way, or waits to be settled.
fn is_at_rest<F: Fs>(state: &Tree<F>) -> Result<bool> {
    for journal in JOURNALS {
        if state.stat(&state_path(journal))?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Why a file of the state directory cannot be used: it could not be read, or what was read is wrong.
pub(crate) fn damaged<F: Fs>(state: &Tree<F>, path: &RelPath, damage: Damage) -> Error {
    match damage {
        Damage::Io(source) => state.io("read", path)(source),
        damage => state.corrupt(path, damage),
    }
}

/// Opens a file of the state directory that belongs to this user and is a file.
pub(crate) fn open_trusted<F: Fs>(state: &Tree<F>, path: &RelPath) -> Result<Option<Stream<F>>> {
    let Some(named) = state.stat(path)? else { return Ok(None) };
    let untrusted = |what: &str| Err(Error::Untrusted { path: path.under(state.at()), what: what.to_owned() });
    if named.kind != Some(Kind::File) {
        return untrusted(
            "it is not a regular file: put the file back, or move the whole state directory away and publish anew with --adopt",
        );
    }
    if named.uid != state.fs.user() {
        return untrusted("it belongs to another user");
    }
    // Who takes no lock looks at what may go meanwhile.
    let opened = found(state.parent(path).and_then(|dir| state.fs.open_file(&dir, path.name())));
    Ok(opened.map_err(state.io("read", path))?.map(|(file, _)| Stream { fs: state.fs.clone(), file }))
}

/// Makes a directory of the state; one that is there already is no error.
pub(crate) fn make_dir<F: Fs>(state: &Tree<F>, path: &RelPath) -> Result<()> {
    match state.parent(path).and_then(|dir| state.fs.make_dir(&dir, path.name(), 0o700)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(state.io("make the directory", path)(error)),
        _ => Ok(()),
    }
}

/// Creates a file of the state directory anew and fills it; not durable yet.
pub(crate) fn write_new<F: Fs, T>(
    state: &Tree<F>,
    path: &RelPath,
    fill: impl FnOnce(Stream<F>) -> io::Result<T>,
) -> Result<T> {
    state.remove_entry(path, Kind::File)?;
    let result = state.parent(path).and_then(|dir| {
        let file = state.fs.create_file(&dir, path.name(), 0o600)?;
        fill(Stream { fs: state.fs.clone(), file })
    });
    result.map_err(state.io("write", path))
}
