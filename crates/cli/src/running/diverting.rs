//! What `txfs status` says of diverting: whether this machine can, tried out beside the output as `txfs run` does it.

use std::fmt::Display;

use serde_json::Value;
use txfs::Store;
use txfs_capture::{Probe, Refusal, probe};

use crate::talk::json::Object;

/// The ways that work here, and what keeps the others from working.
pub(crate) struct Diverting {
    overlay: Result<(), String>,
    copy: Result<(), String>,
}

impl Diverting {
    /// Tries it out in the state directory, which is on the file system that takes what is diverted.
    pub(crate) fn of(store: &Store) -> Self {
        match store.try_out(|place| probe(store.output(), place)) {
            Ok(Ok(Probe { overlay, directory, .. })) => {
                let told = |refusal: Refusal| format!("{refusal}; {}", refusal.way_out());
                Self { overlay: overlay.map_err(told), copy: directory.map_err(told) }
            }
            Ok(Err(error)) => Self::unknown(&error),
            Err(error) => Self::unknown(&error),
        }
    }

    fn unknown(error: &dyn Display) -> Self {
        Self { overlay: Err(error.to_string()), copy: Err(error.to_string()) }
    }

    /// For people: one line.
    pub(crate) fn line(&self) -> String {
        match (&self.overlay, &self.copy) {
            (Ok(()), _) => "by an overlay".to_owned(),
            (Err(why), Ok(())) => format!("by a copy; not by an overlay: {why}"),
            (Err(_), Err(why)) => format!("not here, but `{{stage}}` works: {why}"),
        }
    }

    pub(crate) fn object(&self) -> Object {
        let why = |result: &Result<(), String>| result.as_ref().err().map_or(Value::Null, |why| why.as_str().into());
        let object = Object::part().field("overlay", self.overlay.is_ok()).field("copy", self.copy.is_ok());
        object.field("no_overlay", why(&self.overlay)).field("no_copy", why(&self.copy))
    }
}
