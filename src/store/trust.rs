//! Whose state is believed.
//!
//! | the state directory belongs to | its mode | it is believed |
//! |---|---|---|
//! | this user | closed to the writing of others | always |
//! | this user | that of a shared one, whose group is the one that its `store` names | always |
//! | another user | the same | if this process belongs to the group, and the caller said that such stores are to be used |
//! | anything else | | never |
//!
//! Invariants (journal-spec.md, "Security"):
//! 1. Nobody is made to use a state that another user put there: what it says can move everything in the output.
//! 2. What is read to decide it is read without being followed.

use std::path::Path;

use crate::error::{AnotherUser, Error, Owned, Result};
use crate::fs::tree::{ROOT, Tree};
use crate::fs::{Attribute, Fs, Machine, Stat};
use crate::path::{RelPath, Word};
use crate::store::sharing::STATE_MODE;
use crate::store::store_file::claimed_group;

/// The caller wants a store that a group shares: to use one of another user's, or to make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sharing {
    /// The group, if the caller named one.
    pub(crate) group: Option<u32>,
}

impl Sharing {
    fn is_of(self, group: u32) -> bool {
        self.group.is_none_or(|wanted| wanted == group)
    }
}

/// Refuses a state directory that somebody else may have written to who is not trusted; notes the group whose members are.
pub(crate) fn trusted<F: Fs>(state: Tree<F>, output: &Path, sharing: Option<Sharing>) -> Result<Tree<F>> {
    let stat = stat(&state)?;
    let is_own = stat.uid == state.fs.user();
    if is_own && stat.mode & 0o022 == 0 {
        // Also where sharing it was interrupted.
        return Ok(state);
    }
    let group = claimed_group(&state);
    let has_acl = state.fs.attribute(state.root(), Attribute::AccessAcl);
    let has_acl = has_acl.map_err(state.io("read the ACL of", &RelPath::root()))?.is_some();
    let is_shared = group == Some(stat.gid) && stat.mode == STATE_MODE && !has_acl;
    if is_own {
        return if is_shared {
            Ok(state.shared_with(group))
        } else {
            Err(open_to_others(&state, &stat, group, has_acl))
        };
    }
    let belongs =
        state.fs.belongs_to(stat.gid).map_err(state.io("compare this process with the group of", &RelPath::root()))?;
    let what = match sharing {
        _ if stat.mode != STATE_MODE => return Err(another_user(&state.fs, state.at(), &stat, output)),
        _ if !belongs => not_a_member(&state.fs, &stat),
        None => return Err(shares(state.at(), &stat)),
        Some(_) if !is_shared => unclaimed(&stat, has_acl),
        Some(sharing) if !sharing.is_of(stat.gid) => {
            format!("user {} shares it with group {}, which is another than was named", stat.uid, stat.gid)
        }
        Some(_) => return Ok(state.shared_with(group)),
    };
    Err(Error::Untrusted { path: state.at().to_path_buf(), what })
}

fn stat<F: Fs>(state: &Tree<F>) -> Result<Stat> {
    state.fs.stat_dir(state.root()).map_err(state.io("read the attributes of", &RelPath::root()))
}

fn open_to_others<F: Fs>(state: &Tree<F>, stat: &Stat, group: Option<u32>, has_acl: bool) -> Error {
    let (path, mode) = (state.at().to_path_buf(), stat.mode);
    let (word, acl) = (Word(&path), if has_acl { ", and an ACL" } else { "" });
    let as_shared = group.map(|group| {
        format!(", or if group {group} is to share it, `setfacl -b {word}; chgrp {group} {word} && chmod 2770 {word}`")
    });
    let what = format!(
        "others may write to it (mode {mode:04o}{acl}): if you know its content, `chmod 700 {word}`{}",
        as_shared.unwrap_or_default()
    );
    Error::Untrusted { path, what }
}

fn unclaimed(stat: &Stat, has_acl: bool) -> String {
    let (owner, group) = (stat.uid, stat.gid);
    let why = match has_acl {
        true => "an ACL gives it to others, too".to_owned(),
        false => format!("its `store` does not say that group {group} shares it"),
    };
    format!(
        "user {owner} gave it the mode of a shared one, and {why}: ask user {owner} for it; if nobody knows of it, remove it"
    )
}

fn shares(state: &Path, stat: &Stat) -> Error {
    let why = Box::new(AnotherUser::Shares { owner: stat.uid, group: stat.gid });
    Error::OfAnotherUser { path: state.to_path_buf(), why }
}

fn not_a_member(machine: &impl Machine, Stat { uid: owner, gid: group, .. }: &Stat) -> String {
    let user = machine.user();
    let way_out = match user {
        ROOT => format!("run txfs as a member, as by `sudo -u '#{owner}'`"),
        _ => format!(
            "have the administrator add this user, as by `usermod -aG`, and log in anew; or run txfs as its owner, by `sudo -u \
             '#{owner}'`"
        ),
    };
    format!(
        "user {owner} shares it with group {group}, to which this process of user {user} does not belong: {way_out}"
    )
}

/// A state directory, or a signpost, of another user's that is not for this one: most likely somebody published once by `sudo`, or without it. The
/// way back names both what has to be given back, the state and the output.
pub(crate) fn another_user<F: Fs>(fs: &F, path: &Path, stat: &Stat, output: &Path) -> Error {
    let (owner, user, group) = (stat.uid, fs.user(), fs.group());
    if stat.mode == STATE_MODE {
        // It says itself that a group shares it; what is wrong with it is for its members to find.
        return match fs.belongs_to(stat.gid) {
            Ok(true) => shares(path, stat),
            _ => Error::Untrusted { path: path.to_path_buf(), what: not_a_member(fs, stat) },
        };
    }
    let mut trees = Vec::new();
    // A state inside the output is given back with it.
    if !path.starts_with(output) {
        trees.push(path.to_path_buf());
    }
    if fs.open_anchor(output).is_ok() {
        trees.push(output.to_path_buf());
    }
    let owned = Owned { path: path.to_path_buf(), owner, user: (user, group), trees };
    let why = Box::new(AnotherUser::Owns { owned, output: output.to_path_buf() });
    Error::OfAnotherUser { path: path.to_path_buf(), why }
}
