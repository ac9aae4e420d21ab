//! Giving a state directory to the group that is to share it, and to one user again.
//!
//! Invariants (journal-spec.md, "Shared stores"):
//! 1. The `store` file says it first, and the state directory itself is opened last: until then other members cannot get in, and
//!    whoever owns it goes on with it.
//! 2. Only what belongs to this user is changed.
//!
//! A crash inside leaves a part of the state as private as it was; its owner's next command gives away the rest.

use crate::error::{Error, Result};
use crate::fs::tree::{ROOT, Tree, Walked};
use crate::fs::{Fs, Kind};
use crate::path::RelPath;
use crate::store::layout::name;
use crate::store::output::Output;
use crate::store::probe::check_shareable;
use crate::store::sharing::{Access, give_dir, share_dir, share_entry};
use crate::store::store_file::{self, Capabilities};
use crate::store::trust::Sharing;

/// The group that is to share the store of an output: the one that the caller names, or that of the output, or of what will hold it.
///
/// # Errors
/// [`Error::CannotShare`] where this process does not belong to it, and so can give it nothing.
pub(crate) fn group_for<F: Fs>(output: &Output<F>, sharing: Sharing) -> Result<u32> {
    let group = match sharing.group {
        Some(group) => group,
        None => {
            let tree = output.open()?.unwrap_or_else(|| output.holder.clone());
            tree.fs.stat_dir(tree.root()).map_err(tree.io("read the attributes of", &RelPath::root()))?.gid
        }
    };
    let fs = &output.holder.fs;
    if fs.user() == ROOT
        || fs.belongs_to(group).map_err(Error::io("compare the groups of this process with that of", &output.path))?
    {
        return Ok(group);
    }
    let named = if sharing.group.is_some() { "" } else { ", whose directory it is" };
    let what = format!(
        "group {group}{named} cannot share it: user {} does not belong to that group: name another, or join it",
        fs.user()
    );
    Err(Error::CannotShare { path: output.path.clone(), what })
}

/// Gives a state directory to a group, and the output itself. Call with the store's lock held.
pub(crate) fn share<F: Fs>(
    state: Tree<F>,
    output: &Output<F>,
    capabilities: Capabilities,
    group: u32,
) -> Result<Tree<F>> {
    check_shareable(&state, capabilities)?;
    store_file::write(&state, capabilities, Some(group))?;
    let state = state.shared_with(Some(group));
    give_output(&state, output)?;
    give(&state)?;
    Ok(state)
}

/// Gives the output itself, if it is there, to the group that shares its state: what is in it is for commits to give.
pub(crate) fn give_output<F: Fs>(state: &Tree<F>, output: &Output<F>) -> Result<()> {
    let (Some(group), Some(output)) = (state.group(), output.open()?) else { return Ok(()) };
    give_dir(&output.fs, output.root(), group).map(drop).map_err(output.io("share", &RelPath::root()))
}

fn sync<F: Fs>(state: &Tree<F>) -> Result<()> {
    state.fs.sync_dir(state.root()).map_err(state.io("make durable", &RelPath::root()))
}

/// Gives all that is in a state directory, and then itself, to the group that shares it.
pub(crate) fn give<F: Fs>(state: &Tree<F>) -> Result<()> {
    let Some(group) = state.group() else { return Ok(()) };
    for entry in entries(state)? {
        let access = if is_content(&entry.path) { Access::Content } else { Access::State };
        share_entry(state, &entry, group, access)?;
    }
    // A crash that kept the mode of a shared one and lost what says so would leave a state that its owner does not believe.
    sync(state)?;
    share_dir(state, state.root()).map_err(state.io("share", &RelPath::root()))
}

/// Everything but what was found and is the user's, each directory before what is in it.
fn entries<F: Fs>(state: &Tree<F>) -> Result<Vec<Walked>> {
    let mut entries = Vec::new();
    state.walk(
        &RelPath::root(),
        |entry| entry.path.as_bytes() != name::RESCUED.as_bytes(),
        |entry| {
            entries.push(entry);
            Ok(())
        },
    )?;
    Ok(entries)
}

/// Whether a path of a state directory is of what was staged or displaced, rather than of txfs' own.
fn is_content(path: &RelPath) -> bool {
    path.components()
        .nth(2)
        .is_some_and(|part| [name::STAGE, name::REMOVED, name::KEPT].iter().any(|of| of.as_bytes() == part))
}

/// Gives a state directory to its owner alone. Call with the store's lock held.
///
/// # Errors
/// [`Error::CannotShare`] where something in it belongs to another user, who could not give it away.
pub(crate) fn unshare<F: Fs>(state: Tree<F>, capabilities: Capabilities) -> Result<Tree<F>> {
    let user = state.fs.user();
    if let Some(entry) = entries(&state)?.iter().find(|entry| entry.stat.uid != user) {
        let owned = state.owned_by(&entry.path, entry.stat.uid);
        let what = format!(
            "{} in it belongs to user {}, and nobody but the administrator can give it to user {user}: `{}`, and then take it back",
            entry.path,
            owned.owner,
            owned.take_over_all()
        );
        return Err(Error::CannotShare { path: state.at().to_path_buf(), what });
    }
    let root = RelPath::root();
    state.fs.set_dir_mode(state.root(), 0o700).map_err(state.io("change the mode of", &root))?;
    sync(&state)?;
    let state = state.shared_with(None);
    store_file::write(&state, capabilities, None)?;
    for Walked { path, stat } in entries(&state)? {
        let is_own = !path.components().skip(2).any(|_| true);
        if stat.kind == Some(Kind::Directory) && is_own {
            state.set_dir_mode(&path, 0o700)?;
        }
    }
    Ok(state)
}
