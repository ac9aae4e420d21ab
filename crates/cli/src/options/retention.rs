//! How much of the past is kept; shared by `run`, `commit`, `publish` and `prune`.

use std::time::Duration;

use clap::Args;
use txfs::{Retention, Store};

use crate::settings::keys::{Given, Settings, take};
use crate::settings::values::age;
use crate::talk::error::Failure;

#[derive(Args, Clone, Default)]
pub(crate) struct Kept {
    /// Keep the N generations before the current one to go back to, from now on; one, unless this was said
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keep: Option<u64>,
    /// Keep what was published within AGE, too, whatever its number: 90s, 30m, 12h, 7d or 4w
    #[arg(long, value_name = "AGE", value_parser = age)]
    keep_for: Option<Duration>,
}

impl Kept {
    /// What the command line does not say is as the file says.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>) {
        take!(settings, given; keep => self.keep, keep_for => self.keep_for);
    }

    /// What was said, if anything was.
    pub(crate) fn said(&self) -> Option<Retention> {
        let generations = self.keep.or(self.keep_for.map(|_| Retention::default().generations))?;
        let retention = Retention::generations(generations);
        Some(self.keep_for.map_or(retention, |age| retention.and_within(age)))
    }

    /// Has the store remember it.
    pub(crate) fn remember(&self, store: &Store) -> Result<(), Failure> {
        match self.said() {
            Some(retention) => Ok(store.set_retention(retention)?),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_without_it() {
        let said = |keep, keep_for| Kept { keep, keep_for }.said();
        let week = Duration::from_secs(604_800);
        assert_eq!(said(None, None), None);
        assert_eq!(said(Some(5), None), Some(Retention::generations(5)));
        assert_eq!(said(None, Some(week)), Some(Retention::generations(1).and_within(week)));
        assert_eq!(said(Some(0), Some(week)), Some(Retention::generations(0).and_within(week)));
    }
}
