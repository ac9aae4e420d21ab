//! Stages by their paths: of which transaction one is, and that none is taken for an output.

use std::path::{Path, PathBuf};

use txfs::{Error, OpenOptions, Shown, Store, TransactionId};

use crate::talk::error::{Failure, usage};
use crate::talk::output::Ui;

/// Names the output whose writes are diverted, for what runs there.
pub(crate) const CAPTURED: &str = "TXFS_CAPTURED";

/// The output and the transaction that a stage belongs to.
pub(crate) fn parse(stage: &Path) -> Result<Option<(PathBuf, TransactionId)>, Error> {
    let options = OpenOptions::default();
    if let Some(found) = Store::parse_stage(&options, stage)? {
        return Ok(Some(found));
    }
    // `.`, `..` and links say only where they lead what they name.
    match stage.canonicalize() {
        Ok(path) => Store::parse_stage(&options, path),
        Err(_) => Ok(None),
    }
}

/// The stage that a path leads into.
pub(crate) fn stage_around(path: &Path) -> Result<Option<PathBuf>, Error> {
    let Ok(path) = path.canonicalize() else { return Ok(None) };
    for above in path.ancestors().skip(1) {
        if Store::parse_stage(&OpenOptions::default(), above)?.is_some() {
            return Ok(Some(above.to_path_buf()));
        }
    }
    Ok(None)
}

/// Whether a path that leads nowhere has the shape of a stage's: `….txfs/tx/ID/stage`.
pub(crate) fn is_stage(path: &Path) -> bool {
    let names: Vec<_> = path.iter().rev().take(4).map(|name| name.as_encoded_bytes()).collect();
    let is_id = |name: &[u8]| name.len() == 16 && name.iter().all(u8::is_ascii_hexdigit);
    matches!(names[..], [b"stage", id, b"tx", state] if is_id(id) && state.ends_with(b".txfs"))
}

/// Whether a path has the shape of one below a stage's, as those of transactions with `--at` are, and that transaction is over.
pub(crate) fn is_in_stage_of_the_past(path: &Path) -> bool {
    let is_over = |stage: &Path| stage.parent().is_some_and(|transaction| transaction.symlink_metadata().is_err());
    path.ancestors().skip(1).any(|above| is_stage(above) && is_over(above))
}

/// A stage is no output: a store would be made for it inside the state of another.
pub(crate) fn refuse_as_output(ui: &Ui, out: &Path) -> Result<(), Failure> {
    refuse_captured(ui, out)?;
    let Some((output, _)) = parse(out)? else { return Ok(()) };
    let output = ui.name(&output);
    Err(usage(format!("{} is not an output: it is the stage of a transaction on {output}", Shown(out)))
        .hint(format!("use {output} instead")))
}

/// What is written to a captured output goes to a stage: a commit to it would be one of nothing, to a generation that nobody sees.
fn refuse_captured(ui: &Ui, out: &Path) -> Result<(), Failure> {
    let same = |captured: &Path| match (out.canonicalize(), captured.canonicalize()) {
        (Ok(out), Ok(captured)) => out == captured,
        _ => std::path::absolute(out).is_ok_and(|out| out == captured),
    };
    match std::env::var_os(CAPTURED) {
        Some(captured) if same(Path::new(&captured)) => {
            let out = ui.name(out);
            Err(usage(format!("{out}: this command runs in `txfs run {out}`, which publishes what is written there"))
                .hint("leave it to that, or have `txfs run --stage` run the command"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_known_by_its_shape_even_when_it_is_gone() {
        assert!(is_stage(Path::new("/srv/.dist.txfs/tx/00ff00ff00ff00ff/stage")));
        assert!(is_stage(Path::new("dist/.txfs/tx/00ff00ff00ff00ff/stage/")));
        assert!(is_in_stage_of_the_past(Path::new("dist/.txfs/tx/00ff00ff00ff00ff/stage/preview/1")));
        assert!(!is_in_stage_of_the_past(Path::new("dist/.txfs/tx/00ff00ff00ff00ff/preview/1")));
        assert!(!is_stage(Path::new("/srv/stage")));
        assert!(!is_stage(Path::new("/srv/.dist.txfs/tx/notes/stage")));
    }
}
