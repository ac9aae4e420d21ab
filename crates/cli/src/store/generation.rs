//! A generation that the user names by its number.

use std::path::Path;

use txfs::{ErrorKind, Snapshot, Store};

use crate::store::context::{Context, nothing_published};
use crate::talk::error::{Failure, usage};

/// The store, and the generation that is asked for.
pub(crate) fn find(context: &Context, out: &Path, generation: Option<u64>) -> Result<(Store, Snapshot), Failure> {
    let Some(store) = context.find(out)? else { return Err(usage(nothing_published(&context.ui, out))) };
    let snapshot = match generation {
        Some(generation) => store.at(generation).map_err(|error| name_the_list(context, &store, error))?,
        None => store.snapshot()?,
    };
    if snapshot.generation() == 0 {
        return Err(usage(nothing_published(&context.ui, out)));
    }
    Ok((store, snapshot))
}

/// Says where it is told what can be gone back to.
pub(crate) fn name_the_list(context: &Context, store: &Store, error: txfs::Error) -> Failure {
    let is_of_usage = error.kind() == ErrorKind::Usage;
    let failure = Failure::from(error);
    match is_of_usage {
        true => failure.hint(format!("`txfs log {}` lists what can be gone back to", context.ui.word(store.output()))),
        false => failure,
    }
}
