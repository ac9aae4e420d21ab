//! What a user calls a transaction: its stage's path, or its output while only one transaction is open on it.

use std::path::{Path, PathBuf};

use txfs::{Basis, Error, Left, OpenOptions, OpenTransaction, Problem, RelPath, Shown, Store, TransactionId};

use crate::Context;
use crate::count;
use crate::error::{Failure, usage};
use crate::options::at;
use crate::output::Ui;

/// How many open transactions are named where there should be one.
const SHOWN: usize = 5;

/// The transaction that `handle` means, with its recovered store.
pub(crate) fn find(context: &Context, handle: &Path) -> Result<(Store, TransactionId), Failure> {
    if let Some((output, id)) = parse(handle)? {
        return Ok((context.expect(&output)?, id));
    }
    if is_stage(handle) || is_in_stage_of_the_past(handle) {
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
pub(crate) fn only(context: &Context, store: &Store) -> Result<OpenTransaction, Failure> {
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
fn stage_around(path: &Path) -> Result<Option<PathBuf>, Error> {
    let Ok(path) = path.canonicalize() else { return Ok(None) };
    for above in path.ancestors().skip(1) {
        if Store::parse_stage(&OpenOptions::default(), above)?.is_some() {
            return Ok(Some(above.to_path_buf()));
        }
    }
    Ok(None)
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

/// Names the output whose writes are diverted, for what runs there.
pub(crate) const CAPTURED: &str = "TXFS_CAPTURED";

/// Whether a path that leads nowhere has the shape of a stage's: `….txfs/tx/ID/stage`.
fn is_stage(path: &Path) -> bool {
    let names: Vec<_> = path.iter().rev().take(4).map(|name| name.as_encoded_bytes()).collect();
    let is_id = |name: &[u8]| name.len() == 16 && name.iter().all(u8::is_ascii_hexdigit);
    matches!(names[..], [b"stage", id, b"tx", state] if is_id(id) && state.ends_with(b".txfs"))
}

/// Whether a path has the shape of one below a stage's, as those of transactions with `--at` are, and that transaction is over.
fn is_in_stage_of_the_past(path: &Path) -> bool {
    let is_over = |stage: &Path| stage.parent().is_some_and(|transaction| transaction.symlink_metadata().is_err());
    path.ancestors().skip(1).any(|above| is_stage(above) && is_over(above))
}

/// What to do with a transaction that stays open although another commit came first; `again` is how to make the same change to
/// that generation.
pub(crate) fn overtaken(ui: &Ui, store: &Store, from: Basis, at: &RelPath, stage: &Path, again: &str) -> String {
    let option = at::again(ui, at);
    let (output, at, stage) = (ui.word(store.output()), ui.name(stage), ui.word(stage));
    let way_out = match from {
        Basis::Current => again.to_owned(),
        _ => format!("`txfs publish {output} {stage}{option}` publishes it over that generation"),
    };
    format!("the stage is kept at {at}: {way_out}, `txfs abort {stage}` discards it")
}

/// What to do with a stage that is kept although its build failed or was not published; `options` are those that say what is published.
pub(crate) fn kept(ui: &Ui, failure: &Failure, stage: &Path, options: &str) -> String {
    let (at, stage) = (ui.name(stage), ui.word(stage));
    let is_check = |problem: &Problem| matches!(problem, Problem::Check { .. });
    // Only what the command line asked for does not stand in the way of the next commit.
    let commits = match failure.source() {
        Some(Error::Refused { problems, .. }) if problems.iter().all(is_check) => "publishes it all the same",
        Some(_) => "tries again",
        None => "publishes it all the same",
    };
    format!("the stage is kept at {at}: `txfs commit {stage}{options}` {commits}, `txfs abort {stage}` discards it")
}

/// What is kept besides a stage that was left just now; `None` where that is nothing, and was nothing before.
pub(crate) fn kept_besides(ui: &Ui, store: &Store, left: &Left) -> Option<String> {
    let open = store.transactions().unwrap_or_default();
    let others = open.iter().filter(|open| !open.live && open.stage != left.stage).count() as u64;
    let replaced = (left.replaced > 0).then(|| "it replaces the one that was kept before".to_owned());
    let others = (others > 0).then(|| {
        let (open, output) = (count(others, "other transaction"), ui.word(store.output()));
        let are = if others == 1 { "is" } else { "are" };
        format!("{open} of {output} {are} open: `txfs abort --all {output}` discards all")
    });
    let said: Vec<_> = replaced.into_iter().chain(others).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// What to do with a transaction that stays open because its commit was refused; `options` as in [`kept`].
pub(crate) fn still_open(ui: &Ui, stage: &Path, options: &str) -> String {
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
        assert!(is_in_stage_of_the_past(Path::new("dist/.txfs/tx/00ff00ff00ff00ff/stage/preview/1")));
        assert!(!is_in_stage_of_the_past(Path::new("dist/.txfs/tx/00ff00ff00ff00ff/preview/1")));
        assert!(!is_stage(Path::new("/srv/stage")));
        assert!(!is_stage(Path::new("/srv/.dist.txfs/tx/notes/stage")));
    }
}
