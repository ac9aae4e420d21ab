//! What a stage needs when it becomes the output, where there is none yet.
//!
//! Invariant: nothing but the stage's root is changed, and that before it is scanned: its mode is part of what is committed.
//!
//! A crash inside leaves a stage that nobody commits, or a commit that does the same again.

use crate::error::Result;
use crate::fs::Fs;
use crate::fs::tree::Tree;
use crate::path::RelPath;
use crate::store::output::Output;
use crate::store::transaction_dir::{REMOVED, part};

/// Makes the stage of `transaction` fit to be `output`.
pub(crate) fn dress<F: Fs>(transaction: &Tree<F>, stage: &Tree<F>, output: &Output<F>) -> Result<()> {
    output.mark_as_output(stage.root());
    open_as_umask_says(transaction, stage)
}

/// A directory for temporary files is its maker's alone (`mktemp -d`, in whatever language), and nobody means the output by that: a
/// tool may have put such a one in the place of its stage, and a source may be one. A mode that lets a group or others do anything was
/// chosen. What the umask said when the transaction began tells the directory beside the stage.
fn open_as_umask_says<F: Fs>(transaction: &Tree<F>, stage: &Tree<F>) -> Result<()> {
    let root = RelPath::root();
    let Some(staged) = stage.stat(&root)? else { return Ok(()) };
    let Some(beside) = transaction.stat(&part(REMOVED))? else { return Ok(()) };
    if staged.mode & 0o077 != 0 || beside.mode & 0o077 == 0 {
        return Ok(());
    }
    stage.set_dir_mode(&root, beside.mode)
}
