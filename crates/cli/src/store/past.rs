//! The past: how a generation is told of, and what it costs to keep them.

use std::path::Path;

use txfs::{Changes, Generation, Retention, Shown, Store};

use crate::talk::json::Object;
use crate::talk::output::Ui;
use crate::talk::text::{count, size, time};

/// What the past costs.
pub(crate) struct Past {
    generations: u64,
    bytes: u64,
}

impl Past {
    /// It is counted where more than usual is kept, or somebody wants to know: each entry that was displaced is looked at.
    pub(crate) fn of(ui: &Ui, store: &Store) -> Option<Self> {
        let is_usual = store.retention().map(|kept| kept == Retention::default());
        let history = match is_usual {
            Ok(true) if !ui.verbose => return None,
            Ok(_) => store.history(),
            Err(error) => Err(error),
        };
        let history = history.inspect_err(|error| ui.warn_of(error)).ok()?;
        let bytes = history.iter().map(|generation| generation.held).sum();
        Some(Self { generations: (history.len() as u64).saturating_sub(1), bytes })
    }

    pub(crate) fn line(&self) -> String {
        format!("{} to go back to, {} held", count(self.generations, "generation"), size(self.bytes))
    }

    pub(crate) fn object(&self) -> Object {
        Object::part().field("generations", self.generations).field("held_bytes", self.bytes)
    }
}

/// A generation, for people.
pub(crate) fn line(generation: &Generation) -> String {
    let committed = generation.committed.map_or_else(|| "?".to_owned(), |committed| time(committed.seconds));
    let Changes { added, modified, removed, .. } = generation.changes.unwrap_or_default();
    let changes = match generation.changes {
        Some(_) => format!("+{added} ~{modified} -{removed}"),
        None => "?".to_owned(),
    };
    let message = generation.message.as_ref().map(|message| format!("  {}", Shown(Path::new(message))));
    let held = if generation.held > 0 { format!("  holds {}", size(generation.held)) } else { String::new() };
    format!("{:>6}  {committed:<20}  {changes:<14}{}{held}", generation.number, message.unwrap_or_default())
        .trim_end()
        .to_owned()
}

/// A generation, for programs.
pub(crate) fn object(output: &Path, generation: &Generation) -> Object {
    let totals = generation.totals;
    let object = Object::new().output(output).field("generation", generation.number);
    let object = object.field("committed", generation.committed.map(|committed| time(committed.seconds)));
    let object = object.field("message", generation.message.clone());
    let object =
        object.field("files", totals.map(|totals| totals.files)).field("bytes", totals.map(|totals| totals.bytes));
    let changes = generation.changes;
    let object = object.field("added_entries", changes.map(|changes| changes.added));
    let object = object.field("modified_entries", changes.map(|changes| changes.modified));
    object.field("removed_entries", changes.map(|changes| changes.removed)).field("held_bytes", generation.held)
}
