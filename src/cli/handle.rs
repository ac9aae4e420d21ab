//! What a user calls a transaction: its stage's path, or its output while only one transaction is open on it.

use std::path::{Path, PathBuf};

use txfs::fs::LinuxFs;
use txfs::{Basis, Error, OpenTransaction, Shown, Store, TransactionId};

use super::error::{Failure, usage};
use super::output::Ui;
use super::{Context, count};

/// How many open transactions are named where there should be one.
const SHOWN: usize = 5;

/// The transaction that `handle` means, with its recovered store.
pub(super) fn find(context: &Context, handle: &Path) -> Result<(Store, TransactionId), Failure> {
    if let Some((output, id)) = parse(handle)? {
        return Ok((context.expect(&output)?, id));
    }
    if is_stage(handle) {
        let name = context.ui.name(handle);
        return Err(usage(format!("{name}: there is no such transaction: it was committed or aborted")));
    }
    if let Some(stage) = stage_around(handle)? {
        let stage = context.ui.name(&stage);
        return Err(usage(format!("{}: that is inside a stage: the handle is {stage}", Shown(handle))));
    }
    let store = context.expect(handle)?;
    let open = only(context, &store)?;
    Ok((store, open.id))
}

/// The one open transaction that nobody is at work on.
pub(super) fn only(context: &Context, store: &Store) -> Result<OpenTransaction, Failure> {
    let (live, mut open): (Vec<_>, Vec<_>) = store.transactions()?.into_iter().partition(|open| open.live);
    let output = context.ui.name(store.output());
    match (open.pop(), open.is_empty(), live.len() as u64) {
        (Some(one), true, _) => Ok(one),
        (None, _, 0) => Err(usage(format!("{output} has no open transaction"))
            .hint(format!("`txfs begin {}` begins one", context.ui.word(store.output())))),
        (None, _, live) => Err(usage(format!(
            "{output} has no open transaction except {} in use by other processes",
            count(live, "transaction")
        ))),
        (Some(last), false, _) => {
            open.push(last);
            let shown: Vec<_> = open.iter().take(SHOWN).map(|open| context.ui.name(&open.stage)).collect();
            let more = match open.len() - shown.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let word = context.ui.word(store.output());
            Err(usage(format!("{output} has {} open transactions: {}{more}", open.len(), shown.join(", "))).hint(format!(
                "name one by its stage's path; `txfs status {word}` lists them, `txfs abort --all {word}` discards them"
            )))
        }
    }
}

/// The output and the transaction that a stage belongs to.
pub(super) fn parse(stage: &Path) -> Result<Option<(PathBuf, TransactionId)>, Error> {
    let fs = LinuxFs::new();
    if let Some(found) = Store::parse_stage(&fs, stage)? {
        return Ok(Some(found));
    }
    // `.`, `..` and links say only where they lead what they name.
    match stage.canonicalize() {
        Ok(path) => Store::parse_stage(&fs, &path),
        Err(_) => Ok(None),
    }
}

/// The stage that a path leads into.
fn stage_around(path: &Path) -> Result<Option<PathBuf>, Error> {
    let Ok(path) = path.canonicalize() else { return Ok(None) };
    for above in path.ancestors().skip(1) {
        if Store::parse_stage(&LinuxFs::new(), above)?.is_some() {
            return Ok(Some(above.to_path_buf()));
        }
    }
    Ok(None)
}

/// A stage is no output: a store would be made for it inside the state of another.
pub(super) fn refuse_as_output(ui: &Ui, out: &Path) -> Result<(), Failure> {
    let Some((output, _)) = parse(out)? else { return Ok(()) };
    let output = ui.name(&output);
    Err(usage(format!("{} is not an output: it is the stage of a transaction on {output}", Shown(out)))
        .hint(format!("use {output} instead")))
}

/// Whether a path that leads nowhere has the shape of a stage's: `….txfs/tx/ID/stage`.
fn is_stage(path: &Path) -> bool {
    let names: Vec<_> = path.iter().rev().take(4).map(|name| name.as_encoded_bytes()).collect();
    let is_id = |name: &[u8]| name.len() == 16 && name.iter().all(u8::is_ascii_hexdigit);
    matches!(names[..], [b"stage", id, b"tx", state] if is_id(id) && state.ends_with(b".txfs"))
}

/// What to do with a transaction that stays open although another commit came first; `again` is how to make the same change to
/// that generation.
pub(super) fn overtaken(ui: &Ui, store: &Store, from: Basis, stage: &Path, again: &str) -> String {
    let (output, at, stage) = (ui.word(store.output()), ui.name(stage), ui.word(stage));
    let way_out = match from {
        Basis::Current => again.to_owned(),
        _ => format!("`txfs publish {output} {stage}` publishes it over that generation"),
    };
    format!("the stage is kept at {at}: {way_out}, `txfs abort {stage}` discards it")
}

/// What to do with a stage that is kept until what stands in its way is gone; `options` are those that say what is published.
pub(super) fn kept(ui: &Ui, stage: &Path, options: &str) -> String {
    let (at, stage) = (ui.name(stage), ui.word(stage));
    format!("the stage is kept at {at}: `txfs commit {stage}{options}` tries again, `txfs abort {stage}` discards it")
}

/// What to do with a transaction that stays open because its commit was refused; `options` as in [`kept`].
pub(super) fn still_open(ui: &Ui, stage: &Path, options: &str) -> String {
    let stage = ui.word(stage);
    format!("the transaction stays open: `txfs commit {stage}{options}` tries again, `txfs abort {stage}` discards it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_known_by_its_shape_even_when_it_is_gone() {
        assert!(is_stage(Path::new("/srv/.dist.txfs/tx/00ff00ff00ff00ff/stage")));
        assert!(is_stage(Path::new("dist/.txfs/tx/00ff00ff00ff00ff/stage/")));
        assert!(!is_stage(Path::new("/srv/stage")));
        assert!(!is_stage(Path::new("/srv/.dist.txfs/tx/notes/stage")));
    }
}
