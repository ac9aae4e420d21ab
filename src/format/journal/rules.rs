//! What makes a journal valid beyond its frames: the writer holds a commit against it before it writes a byte, the reader before
//! it believes one.
//!
//! Invariant (journal-spec.md, "Journal"): whatever the writer accepts the reader accepts; a journal that no recovery could read
//! would be a commit that is lost.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::record::{Begin, Operation};
use crate::path::RelPath;

/// A generation follows its base.
pub(super) fn check_begin(begin: &Begin) -> Result<(), &'static str> {
    if begin.base.checked_add(1) == Some(begin.head.info.generation) {
        Ok(())
    } else {
        Err("a generation that does not follow its base")
    }
}

/// No two operations move the same entry, and none works below an entry that another moves. An error comes with the number of its
/// operation.
pub(super) fn check_operations<'a>(
    operations: impl Iterator<Item = &'a Operation> + Clone,
) -> Result<(), (usize, &'static str)> {
    let mut moved: BTreeMap<&RelPath, usize> = BTreeMap::new();
    for (index, operation) in operations.clone().enumerate() {
        check_operation(operation).map_err(|what| (index, what))?;
        if !operation.is_mode() && moved.insert(operation.path(), index).is_some() {
            return Err((index, "two operations on one entry"));
        }
    }
    let whole = operations.filter(|operation| operation.moved_in().or(operation.displaced()).is_some());
    for path in whole.map(Operation::path) {
        // In order of the tree everything below a path follows it directly.
        let next = moved.range::<&RelPath, _>((Bound::Excluded(path), Bound::Unbounded)).next();
        if let Some((_, index)) = next.filter(|(below, _)| below.is_below(path)) {
            return Err((*index, "an operation below an entry that another moves"));
        }
    }
    Ok(())
}

fn check_operation(operation: &Operation) -> Result<(), &'static str> {
    let modes = match operation {
        Operation::SetMode { from, to, .. } => from | to,
        Operation::RemoveDirectory { mode, .. } => *mode,
        Operation::Add { new, .. } => new.mode,
        Operation::Replace { old, new, .. } => old.mode | new.mode,
        Operation::Remove { old, .. } => old.mode,
    };
    if modes & !0o7777 != 0 {
        return Err("a mode that no entry can have");
    }
    if operation.path().is_reserved() {
        return Err("an operation on the state directory");
    }
    let of_the_root = matches!(operation, Operation::SetMode { .. } | Operation::Add { .. });
    if operation.path().is_root() && !of_the_root {
        return Err("an operation that moves the output itself");
    }
    Ok(())
}
