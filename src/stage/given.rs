//! What tools made in a stage, and directories of the output would have given something else: a group, or a default ACL.
//!
//! Invariant: only entries of the stage are changed, before they are scanned for the last time.
//!
//! A crash inside leaves a stage in which some entries have their group: the next commit gives it to the others.

use std::collections::BTreeMap;

use crate::error::{Error, Paths, Result};
use crate::format::journal::record::Operation;
use crate::fs::tree::{Tree, Walked};
use crate::fs::{Attribute, Fs, Kind, Stat};
use crate::path::RelPath;

const SET_GID: u32 = 0o2000;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Whether anything was changed.
    pub(crate) changed: bool,
    /// Directories of the output that would have given what could not be given.
    pub(crate) withheld: Paths,
}

/// What a directory of the output gives that the staged one does not.
#[derive(Clone, Copy, Default)]
struct Missing {
    group: Option<u32>,
    acl: bool,
}

/// Gives what `operations` move into `output` the group that it would have got there.
pub(crate) fn give<F: Fs>(stage: &Tree<F>, output: &Tree<F>, operations: &[Operation]) -> Result<Given> {
    let mut given = Given::default();
    let mut missing: BTreeMap<RelPath, Missing> = BTreeMap::new();
    for (path, _) in operations.iter().filter_map(Operation::moved_in).filter(|(path, _)| !path.is_root()) {
        let parent = path.parent();
        let Missing { group, .. } = match missing.get(&parent) {
            Some(missing) => *missing,
            None => {
                let found = compare(stage, output, &parent);
                if found.acl {
                    given.withheld.push(parent.clone());
                }
                missing.insert(parent.clone(), found);
                found
            }
        };
        let Some(group) = group else { continue };
        match give_group(stage, path, group) {
            Ok(changed) => given.changed |= changed,
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                if let Some(Missing { group, acl }) = missing.get_mut(&parent)
                    && group.take().is_some()
                    && !*acl
                {
                    given.withheld.push(parent);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(given)
}

/// What cannot be looked at gives nothing: whether it can be published is for others to say.
fn compare<F: Fs>(stage: &Tree<F>, output: &Tree<F>, dir: &RelPath) -> Missing {
    let (Ok(live), Ok(staged)) = (output.dir(dir), stage.dir(dir)) else { return Missing::default() };
    let fs = &stage.fs;
    let (Ok(model), Ok(made)) = (fs.stat_dir(&live), fs.stat_dir(&staged)) else { return Missing::default() };
    let given = |stat: &Stat| (stat.mode & SET_GID != 0).then_some(stat.gid);
    let acl = |dir: &F::Dir| fs.attribute(dir, Attribute::DefaultAcl).unwrap_or_default();
    // In a shared store all that is staged is its group's, and stays so.
    let group = given(&model).filter(|_| given(&model) != given(&made) && stage.group().is_none());
    let wanted = acl(&live);
    Missing { group, acl: wanted.is_some() && wanted != acl(&staged) }
}

fn give_group<F: Fs>(stage: &Tree<F>, path: &RelPath, group: u32) -> Result<bool> {
    let mut entries = Vec::new();
    if let Some(stat) = stage.stat(path)? {
        entries.push(Walked { path: path.clone(), stat });
        if stat.is_dir() {
            stage.walk(
                path,
                |_| true,
                |entry| {
                    entries.push(entry);
                    Ok(())
                },
            )?;
        }
    }
    let mut changed = false;
    for Walked { path, stat } in entries {
        if stat.gid != group {
            let owned = stage.parent(&path).and_then(|dir| stage.fs.set_link_owner(&dir, path.name(), None, group));
            owned.map_err(stage.io("change the group of", &path))?;
            changed = true;
        }
        if stat.kind == Some(Kind::Directory) && stat.mode & SET_GID == 0 {
            stage.set_dir_mode(&path, stat.mode | SET_GID)?;
            changed = true;
        }
    }
    Ok(changed)
}
