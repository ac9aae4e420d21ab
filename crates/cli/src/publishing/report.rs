//! What is said of a commit that is done, or that would be done.
//!
//! Invariant: nothing here can fail the commit any more.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use txfs::{Committed, Plan, Shown, Store};

use crate::publishing::changes;
use crate::publishing::summary::{Restored, Summary, summary_fields};
use crate::store::context::Context;
use crate::talk::error::Failure;
use crate::talk::json::Object;
use crate::talk::output::Ui;
use crate::talk::ways_out;

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
        ui.warn_of_failure(&failure);
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
            committed.plan.changes.iter().try_for_each(|change| data.object(changes::change_object(change)))?;
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
