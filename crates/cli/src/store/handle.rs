//! What a user calls a transaction: its stage's path, or its output while only one transaction is open on it.

use std::path::Path;

use txfs::{OpenTransaction, Shown, Store, TransactionId};

use crate::store::context::Context;
use crate::store::stage;
use crate::talk::error::{Failure, usage};
use crate::talk::text::count;

/// How many open transactions are named where there should be one.
const SHOWN: usize = 5;

/// The transaction that `handle` means, with its recovered store.
pub(crate) fn find(context: &Context, handle: &Path) -> Result<(Store, TransactionId), Failure> {
    if let Some((output, id)) = stage::parse(handle)? {
        return Ok((context.expect(&output)?, id));
    }
    if stage::is_stage(handle) || stage::is_in_stage_of_the_past(handle) {
        let name = context.ui.name(handle);
        return Err(usage(format!("{name}: there is no such transaction: it was committed or aborted")));
    }
    if let Some(stage) = stage::stage_around(handle)? {
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
