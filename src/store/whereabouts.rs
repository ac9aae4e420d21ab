//! How an output and a state directory that is not in it find each other: what is written down at either.
//!
//! | what | where | says |
//! |---|---|---|
//! | mark | an extended attribute of the output | the output's inode number, and the path of its state |
//! | signpost | `.NAME.txfs` beside the output, where the user chose another place for the state | the path of the state |
//! | record | the file `output` in such a state | the path of the output |
//!
//! Invariants:
//! 1. A mark counts on the very directory alone that it was made for: a copy of an output has another inode number.
//! 2. A signpost is believed as a state directory is, if nobody else may write to it; a mark is a hint for messages, and leads to a
//!    state only if its record leads back.
//! 3. Nothing is deleted by what is written here, and no commit depends on it.
//!
//! A crash inside leaves one of them out, which the next command that makes or begins writes anew.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use crate::error::{Error, Result};
use crate::fs::tree::Tree;
use crate::fs::{Attribute, Fs, Kind, RenameMode, found};
use crate::path::RelPath;
use crate::store::layout::{make_dir, name, open_trusted, state_path, write_new};
use crate::store::sharing::{STATE_MODE, share_dir};
use crate::store::trust::trusted;

/// The longest path that is read from one of them; longer than the kernel takes.
const PATH_MAX: u64 = 8192;

/// The state's path that an output is marked with, if the mark was made for this very directory.
pub(crate) fn read_mark<F: Fs>(fs: &F, output: &F::Dir) -> Option<PathBuf> {
    // What cannot be read marks nothing: it is no more than a hint.
    let value = fs.attribute(output, Attribute::Mark).ok()??;
    let space = value.iter().position(|&byte| byte == b' ')?;
    let inode: u64 = std::str::from_utf8(&value[..space]).ok()?.parse().ok()?;
    let path = Path::new(OsStr::from_bytes(&value[space + 1..]));
    let is_its_own = fs.stat_dir(output).is_ok_and(|stat| stat.ino == inode);
    (is_its_own && path.is_absolute()).then(|| path.to_path_buf())
}

/// Marks an output with its state's path, unless it is marked so.
pub(crate) fn set_mark<F: Fs>(fs: &F, output: &F::Dir, state: &Path) -> io::Result<()> {
    if read_mark(fs, output).as_deref() == Some(state) {
        return Ok(());
    }
    let inode = fs.stat_dir(output)?.ino;
    let value = [inode.to_string().as_bytes(), b" ", state.as_os_str().as_bytes()].concat();
    fs.set_attribute(output, Attribute::Mark, Some(&value))
}

/// What a signpost beside an output says.
pub(crate) struct Signpost {
    /// Where it leads to.
    pub(crate) state: PathBuf,
    /// Whether nobody but this user can have written it.
    pub(crate) is_own: bool,
}

/// Reads a signpost beside an output; `None` where it is no signpost. What one of another user's says, who shares his store, has to be
/// confirmed.
pub(crate) fn read_signpost<F: Fs>(holder: &Tree<F>, sibling: &RelPath, output: &Path) -> Result<Option<Signpost>> {
    let Some(mut post) = holder.find_below(sibling)? else { return Ok(None) };
    let found = post.stat(&state_path(name::ELSEWHERE));
    let stat = post.fs.stat_dir(post.root()).map_err(post.io("read the attributes of", &RelPath::root()))?;
    let is_shared = stat.mode == STATE_MODE;
    match found {
        Ok(None) => return Ok(None),
        // What another user does not let this one look into is for its owner, or his group, and said to be so by whoever uses it.
        Err(_) if stat.uid != post.fs.user() => return Ok(None),
        found => drop(found?),
    }
    post = if is_shared { post.shared_with(Some(stat.gid)) } else { trusted(post, output, None)? };
    let state = read_path(&post, name::ELSEWHERE)?.map(|path| normal(&holder.at().join(path)));
    Ok(state.map(|state| Signpost { state, is_own: !is_shared }))
}

/// Whether it is a signpost that is beside an output.
pub(crate) fn is_signpost<F: Fs>(holder: &Tree<F>, sibling: &RelPath) -> Result<bool> {
    let Some(post) = holder.find_below(sibling)? else { return Ok(false) };
    Ok(post.stat(&state_path(name::ELSEWHERE))?.is_some())
}

/// Puts up a signpost that leads to the state.
pub(crate) fn write_signpost<F: Fs>(holder: &Tree<F>, sibling: &RelPath, state: &Tree<F>, by: Way) -> Result<()> {
    make_dir(holder, sibling)?;
    let post = holder.below(sibling)?.shared_with(state.group());
    share_dir(&post, post.root()).map_err(post.io("share", &RelPath::root()))?;
    write_new(&post, &state_path(name::IGNORE), |mut file| file.write_all(b"*\n"))?;
    write_path(&post, name::ELSEWHERE, &by.path(holder.at(), state.at()))
}

/// Takes a signpost away, as far as it goes.
pub(crate) fn remove_signpost<F: Fs>(holder: &Tree<F>, sibling: &RelPath) {
    let Ok(Some(post)) = holder.find_below(sibling) else { return };
    for file in [name::ELSEWHERE, name::PATH_NEW, name::IGNORE] {
        let _ = post.remove_entry(&state_path(file), Kind::File);
    }
    let _ = holder.remove_entry(sibling, Kind::Directory);
}

/// How the way from one to the other is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the root: one of them moves, and the other stays.
    Absolute,
    /// As the user said it, from where both are: they move together.
    Relative,
}

impl Way {
    fn path(self, from: &Path, to: &Path) -> PathBuf {
        if self == Self::Absolute {
            return to.to_path_buf();
        }
        let shared = from.components().zip(to.components()).take_while(|(from, to)| from == to).count();
        let up = from.components().skip(shared).map(|_| Component::ParentDir);
        up.chain(to.components().skip(shared)).collect()
    }
}

/// The path of the output that a state was made for, where that is written in it by its owner, or by the group that shares it, for whoever
/// only wants to know which output that is.
pub(crate) fn output_of_state<F: Fs>(fs: &F, state: &Path) -> Option<PathBuf> {
    let state = Tree::open(fs, state).ok()?;
    let stat = fs.stat_dir(state.root()).ok()?;
    read_record(&state.shared_with((stat.mode == STATE_MODE).then_some(stat.gid))).ok()?
}

/// The path of the output that a state was made for, where that is written in it.
pub(crate) fn read_record<F: Fs>(state: &Tree<F>) -> Result<Option<PathBuf>> {
    record_from(state, state.at())
}

/// The same, as it reads at a place where the state was before.
pub(crate) fn record_from<F: Fs>(state: &Tree<F>, place: &Path) -> Result<Option<PathBuf>> {
    Ok(read_path(state, name::OUTPUT)?.map(|path| normal(&place.join(path))))
}

/// How the way to its output is written in a state; `None` where it is not.
pub(crate) fn way_of_record<F: Fs>(state: &Tree<F>) -> Result<Option<Way>> {
    let path = read_path(state, name::OUTPUT)?;
    Ok(path.map(|path| if path.is_absolute() { Way::Absolute } else { Way::Relative }))
}

pub(crate) fn write_record<F: Fs>(state: &Tree<F>, output: &Path, by: Way) -> Result<()> {
    write_path(state, name::OUTPUT, &by.path(state.at(), output))
}

fn read_path<F: Fs>(tree: &Tree<F>, file: &str) -> Result<Option<PathBuf>> {
    let path = state_path(file);
    let Some(stream) = open_trusted(tree, &path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    stream.take(PATH_MAX).read_to_end(&mut bytes).map_err(tree.io("read", &path))?;
    bytes.pop_if(|last| *last == b'\n');
    match bytes.is_empty() || bytes.contains(&0) {
        true => Err(tree.corrupt(&path, "it names no path")),
        false => Ok(Some(PathBuf::from(OsString::from_vec(bytes)))),
    }
}

fn write_path<F: Fs>(tree: &Tree<F>, file: &str, path: &Path) -> Result<()> {
    let (new, name) = (state_path(name::PATH_NEW), state_path(file));
    write_new(tree, &new, |mut stream| {
        stream.write_all(&[path.as_os_str().as_bytes(), b"\n"].concat())?;
        // Before it has its name: what names no path is damage.
        stream.fs.sync_file(&stream.file)
    })?;
    let dir = tree.root();
    tree.fs.rename(dir, new.name(), dir, name.name(), RenameMode::Replace).map_err(tree.io("rename", &new))
}

/// The path without `.` and `..`: what is written here leads through no symbolic link.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// The canonical path of what need not be there, nor the directories above it.
pub(crate) fn resolve_new<F: Fs>(fs: &F, path: &Path) -> Result<PathBuf> {
    match (fs.resolve(path), path.parent(), path.file_name()) {
        (Err(error), Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(resolve_new(fs, parent)?.join(name))
        }
        (resolved, ..) => resolved.map_err(Error::io("find the place of the state", path)),
    }
}

/// Makes a directory, and those above it, unless they are there.
pub(crate) fn make_dirs<F: Fs>(fs: &F, path: &Path) -> Result<()> {
    let opened = found(fs.open_anchor(path)).map_err(Error::io("open the directory", path))?;
    let (None, Some(parent), Some(name)) = (opened, path.parent(), path.file_name()) else { return Ok(()) };
    make_dirs(fs, parent)?;
    let made = fs.open_anchor(parent).and_then(|dir| fs.make_dir(&dir, name.as_bytes(), 0o777));
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::io("make the directory", path)(error)),
        _ => Ok(()),
    }
}
