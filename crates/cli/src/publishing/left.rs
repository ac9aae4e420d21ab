//! What to do with a stage that stays because it was not published, in one sentence.

use std::path::Path;

use txfs::{Basis, Error, Left, Problem, RelPath, Store};

use crate::options::at;
use crate::talk::error::Failure;
use crate::talk::output::Ui;
use crate::talk::text::count;

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
    let replaced = (left.replaced > 0).then(|| "it replaces the one that was kept before".to_owned());
    let others = others_open(ui, store, &left.stage, 1);
    let said: Vec<_> = replaced.into_iter().chain(others).collect();
    (!said.is_empty()).then(|| said.join("; "))
}

/// That other transactions are open that no process is at work on, if there are at least so many: each is a whole stage.
pub(crate) fn others_open(ui: &Ui, store: &Store, stage: &Path, least: u64) -> Option<String> {
    let open = store.transactions().unwrap_or_default();
    let others = open.iter().filter(|open| !open.live && open.stage != stage).count() as u64;
    (others >= least).then(|| {
        let (open, output) = (count(others, "other transaction"), ui.word(store.output()));
        let are = if others == 1 { "is" } else { "are" };
        format!("{open} of {output} {are} open: `txfs abort --all {output}` discards all")
    })
}

/// What to do with a transaction that stays open because its commit was refused; `options` as in [`kept`].
pub(crate) fn still_open(ui: &Ui, stage: &Path, options: &str) -> String {
    let stage = ui.word(stage);
    format!("the transaction stays open: `txfs commit {stage}{options}` tries again, `txfs abort {stage}` discards it")
}
