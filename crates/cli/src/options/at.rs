//! `--at`: only what is below one path of the output is replaced, so that several producers share it.

use std::path::PathBuf;

use clap::Args;
use txfs::{BeginOptions, RelPath};

use crate::talk::output::Ui;

/// Shared by all that build.
#[derive(Args)]
pub(crate) struct AtArgs {
    /// Replace only PATH in OUT: the stage is what is to lie there, and guards count below it. Another commit conflicts only if it changed
    /// something there
    #[arg(long, value_name = "PATH")]
    at: Option<PathBuf>,
}

impl AtArgs {
    pub(crate) fn is_given(&self) -> bool {
        self.at.is_some()
    }

    /// These options, and where.
    pub(crate) fn on(&self, options: BeginOptions) -> BeginOptions {
        match &self.at {
            Some(path) => options.at(path),
            None => options,
        }
    }
}

/// The option to say when it is to be there again.
pub(crate) fn again(ui: &Ui, at: &RelPath) -> String {
    if at.is_root() { String::new() } else { format!(" --at {}", ui.word(at.as_path())) }
}
