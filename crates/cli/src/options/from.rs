//! `--from`: what a stage begins with, and what stands against that.

use txfs::{Error, Problem, Transaction};

use crate::talk::error::Failure;
use crate::talk::output::Ui;

/// What is to be done where there is nothing to begin from as it was published.
pub(crate) fn of_begin(error: Error) -> Failure {
    Failure::from(error).with_ways_out(|problem| match problem {
        Problem::Drift(_) => Some(
            "copy what you want to keep elsewhere and publish over it with --allow-drift and without `--from copy`; or begin with what lies there by --allow-drift"
                .to_owned(),
        ),
        Problem::OutputGone => Some("publish the whole, without `--from copy`".to_owned()),
        _ => None,
    })
}

/// Says what a stage is a copy of that was never published so.
pub(crate) fn warn_of_drift(ui: &Ui, transaction: &Transaction) {
    let drift = transaction.copied_drift();
    if !drift.is_empty() {
        ui.warn(format_args!("the stage begins with what somebody else changed, and without what is gone: {drift}"));
    }
}
