//! What it costs to keep the past.

use txfs::{Retention, Store};

use crate::talk::json::Object;
use crate::talk::output::Ui;
use crate::talk::text::{count, size};

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
