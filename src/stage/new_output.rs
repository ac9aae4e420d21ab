//! What a stage needs when it becomes the output, where there is none yet.
//!
//! Invariant: nothing but the root of the stage, or of what it replaces alone, is changed, and that before it is scanned: its mode is part of what is committed.
//!
//! A crash inside leaves a stage that nobody commits, or a commit that does the same again.

use crate::error::Result;
use crate::format::identity::Object;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind};
use crate::path::RelPath;
use crate::store::output::Output;
use crate::store::transaction_dir::{REMOVED, part};

/// Makes the stage of `transaction` fit to be `output`.
pub(crate) fn dress<F: Fs>(transaction: &Tree<F>, stage: &Tree<F>, output: &Output<F>) -> Result<()> {
    output.mark_as_output(stage.root());
    open_as_umask_says(transaction, stage)
}

/// Gives what is staged at a path alone the mode that a new output would get, or the one that is `published` there.
pub(crate) fn dress_place<F: Fs>(transaction: &Tree<F>, place: &Tree<F>, published: Option<&Object>) -> Result<()> {
    let root = RelPath::root();
    match published.filter(|published| published.kind == Kind::Directory) {
        None => open_as_umask_says(transaction, place),
        Some(published) if is_private(place)? => place.set_dir_mode(&root, published.mode),
        Some(_) => Ok(()),
    }
}

/// A directory for temporary files is its maker's alone (`mktemp -d`, in whatever language), and nobody means the output by that: a
/// tool may have put such a one in the place of its stage, and a source may be one. A mode that lets a group or others do anything was
/// chosen. What the umask said when the transaction began tells the directory beside the stage.
fn open_as_umask_says<F: Fs>(transaction: &Tree<F>, stage: &Tree<F>) -> Result<()> {
    let root = RelPath::root();
    let Some(beside) = transaction.stat(&part(REMOVED))? else { return Ok(()) };
    if beside.mode & 0o077 == 0 || !is_private(stage)? {
        return Ok(());
    }
    stage.set_dir_mode(&root, beside.mode)
}

fn is_private<F: Fs>(stage: &Tree<F>) -> Result<bool> {
    Ok(stage.stat(&RelPath::root())?.is_some_and(|staged| staged.mode & 0o077 == 0))
}
