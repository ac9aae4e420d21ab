//! `--wait`: other builds of the output before this one.

use std::time::Duration;

use clap::Args;
use txfs::{BeginOptions, Store};

use crate::settings::keys::{Given, Settings, take};
use crate::settings::values::{FOREVER, limit};
use crate::store::context::Context;
use crate::talk::error::{Failure, usage};

/// Shared by all that build.
#[derive(Args)]
pub(crate) struct WaitArgs {
    /// Wait for other builds of OUT before this one begins, in the order of coming, so that the newest wins; at most so long
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = FOREVER, value_parser = limit)]
    wait: Option<Duration>,
}

impl WaitArgs {
    /// What the command line does not say is as the file says.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>) {
        take!(settings, given; wait => self.wait);
    }

    /// These options, and whether to wait.
    pub(crate) fn on(&self, context: &Context, store: &Store, options: BeginOptions) -> Result<BeginOptions, Failure> {
        let Some(limit) = self.wait else { return Ok(options) };
        refuse_within_itself(context, store)?;
        Ok(options.wait(limit))
    }
}

/// A build that begins another one of its own output would wait for itself.
fn refuse_within_itself(context: &Context, store: &Store) -> Result<(), Failure> {
    let Some(stage) = std::env::var_os("TXFS_STAGE") else { return Ok(()) };
    let parsed = Store::parse_stage(&context.options(), &stage)?;
    let is_of_this = |id| store.transactions().is_ok_and(|open| open.iter().any(|open| open.id == id && open.live));
    match parsed {
        Some((output, id)) if output == store.output() && is_of_this(id) => {
            Err(usage("--wait would wait for the build that runs this command: leave it out, or end that build first"))
        }
        _ => Ok(()),
    }
}
