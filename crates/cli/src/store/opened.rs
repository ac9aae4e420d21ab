//! What is said of a store when it is opened: what its recovery did, and what a loss of power can take from it.

use txfs::{Recovered, RecoveredCommit, Store};

use crate::talk::output::Ui;
use crate::talk::text::count;

/// Says in one line what recovery did, if it did anything.
pub(crate) fn tell_recovered(ui: &Ui, store: &Store, recovered: &Recovered) {
    if !recovered.is_nothing() {
        tell_done(ui, store, recovered);
    }
    if !recovered.skipped.is_empty() {
        let (skipped, output) = (&recovered.skipped, ui.name(store.output()));
        let paths = count(skipped.total, "path");
        ui.warn(format_args!("{paths} of {output} left as found, and no longer as published: {skipped}"));
    }
    recovered.warnings.iter().for_each(|warning| ui.warn_of(warning));
}

fn tell_done(ui: &Ui, store: &Store, recovered: &Recovered) {
    let mut parts: Vec<_> = recovered.commit.iter().map(|commit| describe(*commit)).collect();
    if !recovered.discarded.is_empty() {
        parts.push(format!("discarded {}", count(recovered.discarded.len() as u64, "unfinished transaction")));
    }
    let line = format!("txfs: recovered {}: {}", ui.name(store.output()), parts.join("; "));
    match ui.describe_rescued(&recovered.rescued) {
        None => ui.say(line),
        Some(moved) => ui.warn(format_args!("{line}{}{moved}", if parts.is_empty() { "" } else { "; " })),
    }
}

fn describe(commit: RecoveredCommit) -> String {
    match commit {
        RecoveredCommit::RolledForward { generation, operations } => {
            format!("finished the interrupted commit of generation {generation} ({})", count(operations, "operation"))
        }
        RecoveredCommit::RolledBack { generation } => {
            format!("rolled back the interrupted commit of generation {generation}")
        }
        RecoveredCommit::Settled { generation } => {
            format!("tidied up after the commit of generation {generation}, which was complete")
        }
        RecoveredCommit::Discarded => "discarded a commit that had not changed anything yet".to_owned(),
        _ => "settled an interrupted commit".to_owned(),
    }
}

/// Says what a loss of power can take, before anything is built.
pub(crate) fn warn_of_weaknesses(ui: &Ui, store: &Store) {
    for weakness in store.weaknesses().into_iter().filter(|weakness| weakness.loses_commits()) {
        ui.warn(format_args!("{}: {weakness}", ui.name(store.output())));
    }
}
