//! What is said of a commit that is done, or that would be done.
//!
//! Invariant: nothing here can fail the commit any more.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use txfs::{Committed, Paths, Plan, Shown, Store};

use crate::Context;
use crate::commands::diff;
use crate::count;
use crate::error::Failure;
use crate::output::{Object, Ui};
use crate::ways_out;

/// Tells people of a commit. `message` is the one that the user gave.
pub(crate) fn tell(ui: &Ui, store: &Store, committed: &Committed, message: Option<&str>) {
    let generation = committed.generation;
    let output = ui.name(store.output());
    if !ui.json {
        let changes = committed.plan.changes.iter();
        changes.for_each(|change| ui.detail(format_args!("{} {}", change.kind.letter(), change.path)));
    }
    match (committed.changed, generation) {
        (true, _) => {
            ui.say(format_args!("published generation {generation} of {output}: {}", Summary(&committed.plan)))
        }
        (false, 0) => ui.say(format_args!("{output} is unchanged: nothing has been published")),
        (false, _) => ui.say(format_args!("{output} is unchanged: generation {generation}")),
    }
    if let Some(message) = message.filter(|_| !committed.changed) {
        let message = Shown(Path::new(message));
        ui.warn(format_args!("the message `{message}` is not kept: nothing changed, so there is no new generation"));
    }
    if !committed.plan.restored.is_empty() {
        ui.warn(format_args!("put back {}", Restored(&output, &committed.plan.restored)));
    }
    warn(ui, &committed.plan);
    ui.rescued(&committed.rescued);
    for warning in &committed.warnings {
        ui.warn(format_args!("generation {generation} is published, but {warning}"));
        ways_out::of_error(warning).iter().for_each(|hint| ui.advise(hint));
    }
}

/// Prints the commit's result, and frees the space that it left.
pub(crate) fn end(context: &Context, store: &Store, committed: &Committed, print_number: bool) {
    let ui = &context.ui;
    if let Err(failure) = print(ui, store, committed, print_number) {
        // The commit stands, whether or not somebody reads its number.
        failure.as_warning(ui);
    }
    sweep(ui, store);
}

/// Says what deserves a look in what is, or would be, published.
pub(crate) fn warn(ui: &Ui, plan: &Plan) {
    for warning in &plan.warnings {
        ui.warn(warning);
        ui.advise(ways_out::of_warning(warning));
    }
}

/// Frees the space that the commit left, now that everybody knows of it.
pub(crate) fn sweep(ui: &Ui, store: &Store) {
    match store.sweep() {
        Ok(swept) => {
            ui.rescued(&swept.rescued);
            swept.warnings.iter().for_each(|warning| ui.warn_of(warning));
        }
        Err(error) => {
            let (rescued, error) = error.into_parts();
            ui.rescued(&rescued);
            ui.warn(format_args!("what the commit left could not be removed, the next one tries again: {error}"));
        }
    }
}

fn print(ui: &Ui, store: &Store, committed: &Committed, print_number: bool) -> Result<(), Failure> {
    let mut data = ui.data();
    if ui.json {
        if ui.verbose {
            committed.plan.changes.iter().try_for_each(|change| data.object(diff::change_object(change)))?;
        }
        let object = Object::new().output(store.output());
        let published = Some(committed.generation).filter(|generation| *generation > 0);
        let object = object.field("generation", published).field("changed", committed.changed);
        let object = summary_fields(object, &committed.plan);
        let object = object.field("files", committed.totals.files).field("bytes", committed.totals.bytes);
        let rescued = committed.rescued.iter().map(|path| path.as_os_str().as_bytes());
        return ui.result(data, object.paths("rescued", rescued));
    }
    if print_number {
        data.line(committed.generation)?;
    }
    data.finish()
}

/// What somebody else removed and a commit puts back, for people: the output itself, or paths in it.
pub(crate) struct Restored<'a>(pub(crate) &'a str, pub(crate) &'a Paths);

impl std::fmt::Display for Restored<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(output, paths) = self;
        match paths.first.first() {
            Some(path) if path.is_root() => write!(f, "{output}, which somebody else had removed"),
            _ => write!(f, "what somebody else had removed from {output}: {paths}"),
        }
    }
}

/// How many paths a plan changes, and what it puts back, for a JSON object.
pub(crate) fn summary_fields(object: Object, plan: &Plan) -> Object {
    let (summary, restored) = (plan.summary, &plan.restored);
    let object = object.field("added", summary.added).field("modified", summary.changed);
    let object = object.field("removed", summary.removed).field("unchanged", summary.unchanged);
    object.relatives("restored", &restored.first).field("restored_total", restored.total)
}

/// How many paths a plan changes, for people: the directories among them too, which are no files.
pub(crate) struct Summary<'a>(pub(crate) &'a Plan);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let summary = self.0.summary;
        let counts = [
            (summary.added, "added"),
            (summary.changed, "changed"),
            (summary.removed, "removed"),
            (summary.unchanged, "unchanged"),
        ];
        let mut counts = counts.into_iter().filter(|(n, _)| *n > 0);
        let Some((first, what)) = counts.next() else { return f.write_str("nothing") };
        write!(f, "{} {what}", count(first, "path"))?;
        counts.try_for_each(|(n, what)| write!(f, ", {n} {what}"))
    }
}
