//! The state directory: what lies in it, by which names, and what is believed of it.
//!
//! ```text
//! .dist.txfs/            beside dist; or dist/.txfs where dist is a mount point or its parent cannot be written
//!     store              what the file system can do, and the group that shares it; it says that the directory is txfs'
//!     store.new, probe/  the same while a store is being made
//!     output             the output's path, where the user chose the place of the state; path.new while it is written
//!     .gitignore         `/*`
//!     lock               held by whoever changes anything, never unlinked
//!     journal[.new|.undo]  a commit that is not settled | being written | being undone
//!     HEAD[.new]         the current generation
//!     manifests/K        inventories of generation K and of those after it, until one begins a file of its own
//!     tx/ID/             an open transaction
//!     queue/N            held by a process that waits for the builds before its own
//!     previous/N/        what generation N displaced, with its journal
//!     handed/ID[.lock]   for the commands that run after a commit: what it changed
//!     trash/ID           a transaction that had nothing to publish
//!     sources[.new]      which files of directories that were published have which content
//!     rescued/N[.I]      what txfs found among it, or in a stage, and could not prove to be its own
//! ```
//!
//! Invariant (journal-spec.md, "Layout" and "Security"): the files that are read from a state directory belong to the effective user,
//! or to the group that shares it; otherwise they are refused (G9).

use std::io::{self, Write};
use std::path::Path;

use crate::error::{Error, Result, begin_anew};
use crate::format::frame::Damage;
use crate::fs::stream::Stream;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, RenameMode, Stat, found};
use crate::path::{RESERVED, RelPath, Shown, Word};
use crate::store::sharing::{self, is_open_to, is_unfinished};

/// The name of each part of the state directory.
pub(crate) mod name {
    pub(crate) const STORE: &str = "store";
    pub(crate) const STORE_NEW: &str = "store.new";
    pub(crate) const LOCK: &str = "lock";
    pub(crate) const IGNORE: &str = ".gitignore";
    pub(crate) const IGNORE_NEW: &str = ".gitignore.new";
    pub(crate) const JOURNAL: &str = "journal";
    pub(crate) const JOURNAL_NEW: &str = "journal.new";
    pub(crate) const JOURNAL_UNDO: &str = "journal.undo";
    pub(crate) const HEAD: &str = "HEAD";
    pub(crate) const HEAD_NEW: &str = "HEAD.new";
    pub(crate) const MANIFESTS: &str = "manifests";
    pub(crate) const TRANSACTIONS: &str = "tx";
    pub(crate) const QUEUE: &str = "queue";
    pub(crate) const PREVIOUS: &str = "previous";
    pub(crate) const TRASH: &str = "trash";
    pub(crate) const HANDED: &str = "handed";
    pub(crate) const RESCUED: &str = "rescued";
    pub(crate) const PROBE: &str = "probe";
    pub(crate) const RETENTION: &str = "retention";
    pub(crate) const RETENTION_NEW: &str = "retention.new";
    pub(crate) const OUTPUT: &str = "output";
    pub(crate) const ELSEWHERE: &str = "elsewhere";
    pub(crate) const PATH_NEW: &str = "path.new";
    pub(crate) const SOURCES: &str = "sources";
    pub(crate) const SOURCES_NEW: &str = "sources.new";
    /// In `tx/ID` and `previous/N`, as what follows: what was staged.
    pub(crate) const STAGE: &str = "stage";
    /// What was taken out of the output.
    pub(crate) const REMOVED: &str = "removed";
    /// Of that the directories, once it is settled.
    pub(crate) const KEPT: &str = "kept";
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
    let holds =
        |file: &str| path.join(file.as_bytes()).is_ok_and(|file| tree.stat(&file).is_ok_and(|found| found.is_some()));
    kind == Some(Kind::Directory) && is_state_name(path.name()) && (holds(name::STORE) || holds(name::ELSEWHERE))
}

/// As [`is_state`]; what is no directory and has the name is content by mistake.
pub(crate) fn is_state_dir<F: Fs>(tree: &Tree<F>, path: &RelPath, kind: Option<Kind>) -> bool {
    kind == Some(Kind::Directory) && is_state(tree, path, kind)
}

/// The directories of a complete store are there, and are directories. One that is gone had nothing in it, if nothing is under way:
/// there are tools that remove empty directories, and archives that leave them out. Otherwise what needs something of it tells; but what
/// was staged by a commit that is under way may still be put back.
pub(crate) fn check_layout<F: Fs>(state: &Tree<F>, output: &Path) -> Result<()> {
    for directory in DIRECTORIES {
        let path = state_path(directory);
        match state.stat(&path)? {
            Some(stat) if stat.is_dir() => {}
            Some(_) => {
                return Err(Error::not_a_directory(path.under(state.at())));
            }
            None if directory == name::TRANSACTIONS && !is_at_rest(state)? => return Err(lost(state, &path, output)),
            None => make_dir(state, &path)?,
        }
    }
    Ok(())
}

fn lost<F: Fs>(state: &Tree<F>, path: &RelPath, output: &Path) -> Error {
    let at = path.under(state.at());
    let what = format!(
        "it is missing, and a commit of {} is under way that needs what was in it: put it back; or, where it is lost, make it anew by \
         `mkdir -m 700 {}`, and recover: that says what can still be done",
        Shown(output),
        Word(&at)
    );
    Error::Lost { path: at, what }
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

/// Opens a file of the state directory that belongs to this user, or to the group that shares it, and is a file.
pub(crate) fn open_trusted<F: Fs>(state: &Tree<F>, path: &RelPath) -> Result<Option<Stream<F>>> {
    let Some(named) = state.stat(path)? else { return Ok(None) };
    let at = path.under(state.at());
    if named.kind != Some(Kind::File) {
        let what = format!("it is not a regular file: put the file back, or {}", begin_anew(&at));
        return Err(Error::Untrusted { path: at, what });
    }
    // In a shared state only members of the group could make one that is the group's.
    let is_members = state.group() == Some(named.gid) && named.mode & 0o002 == 0;
    if named.uid != state.fs.user() && !is_members {
        let owned = state.owned_by(path, named.uid);
        let what =
            format!("it belongs to user {}, but this is user {}: `{}`", owned.owner, owned.user.0, owned.take_over());
        return Err(Error::Untrusted { path: at, what });
    }
    if state.group().is_some() && named.uid != state.fs.user() && is_unfinished(&named) {
        return Ok(None);
    }
    // Who takes no lock looks at what may go meanwhile.
    let opened = found(state.parent(path).and_then(|dir| state.fs.open_file(&dir, path.name())));
    Ok(opened.map_err(state.io("read", path))?.map(|(file, _)| Stream { fs: state.fs.clone(), file }))
}

/// Makes a directory of the state; one that is there already is no error.
pub(crate) fn make_dir<F: Fs>(state: &Tree<F>, path: &RelPath) -> Result<()> {
    let made = state.parent(path).and_then(|dir| match state.group() {
        Some(group) => sharing::make_dir(&state.fs, &dir, path.name(), group),
        None => state.fs.make_dir(&dir, path.name(), 0o700),
    });
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(state.io("make the directory", path)(error)),
        _ => Ok(()),
    }
}

/// Makes a directory of a shared state anew that another member had not given to the group when he was killed: nothing is in it. Says
/// whether it was such a one.
pub(crate) fn mend_dir<F: Fs>(state: &Tree<F>, path: &RelPath) -> Result<bool> {
    let Some(group) = state.group() else { return Ok(false) };
    let is_closed = state.stat(path)?.is_some_and(|stat| stat.is_dir() && !is_open_to(&stat, group));
    if is_closed {
        state.forget();
        make_dir(state, path)?;
    }
    Ok(is_closed)
}

/// git ignores each entry of the state directory with all that is in it. `*` would say the same to git; but tools that read
/// ignore files themselves (ripgrep, ruff, typos) hold every name against the patterns of all directories above, and a check that
/// runs in a stage would see none of it, and pass.
const IGNORED: &[u8] = b"/*\n";

/// What it said before.
const IGNORED_ONCE: &[u8] = b"*\n";

pub(crate) fn write_ignore<F: Fs>(state: &Tree<F>) -> Result<()> {
    write_new(state, &state_path(name::IGNORE), |mut file| file.write_all(IGNORED))
}

/// Lets checks see what is staged also where the store is an older one. What the user made of the file stays.
pub(crate) fn renew_ignore<F: Fs>(state: &Tree<F>) -> Result<()> {
    let (ignore, new) = (state_path(name::IGNORE), state_path(name::IGNORE_NEW));
    let is_file = |stat: &Stat| stat.kind == Some(Kind::File) && stat.size == IGNORED_ONCE.len() as u64;
    if !state.stat(&ignore)?.as_ref().is_some_and(is_file) {
        return Ok(());
    }
    let (file, _) = state.open_file(&ignore)?;
    let mut said = [0; IGNORED_ONCE.len()];
    let read = state.fs.read_at(&file, 0, &mut said).map_err(state.io("read", &ignore))?;
    if &said[..read] != IGNORED_ONCE {
        return Ok(());
    }
    // At no time is it missing: git would list everything.
    write_new(state, &new, |mut file| file.write_all(IGNORED))?;
    let dir = state.root();
    state.fs.rename(dir, new.name(), dir, ignore.name(), RenameMode::Replace).map_err(state.io("rename", &new))
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
        sharing::share_file(state, &file)?;
        fill(Stream { fs: state.fs.clone(), file })
    });
    result.map_err(state.io("write", path))
}
