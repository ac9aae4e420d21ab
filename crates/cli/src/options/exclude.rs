//! `--exclude`: what a build makes and nobody wants published.

use std::path::Path;

use clap::Args;
use txfs::Exclude;

use crate::settings::glob::{self, Pattern};

/// Shared by all that publish, and by `diff`.
#[derive(Args, Clone, Default)]
pub(crate) struct Excludes {
    /// Do not publish what matches GLOB: it counts as not built, and goes from the stage; if it is published it is
    /// removed. As in .gitignore a GLOB without a slash is for names at any depth, one with a slash for paths from
    /// OUT, `dir/` for directories alone; `**` crosses slashes (repeatable)
    #[arg(long, value_name = "GLOB", value_parser = glob::parse)]
    pub(crate) exclude: Vec<Pattern>,
}

impl Excludes {
    /// `None` where nothing is excluded.
    pub(crate) fn for_library(&self) -> Option<Exclude> {
        let patterns = self.exclude.clone();
        let is_excluded =
            move |path: &Path, is_directory| patterns.iter().any(|pattern| pattern.matches(path, is_directory));
        (!self.exclude.is_empty()).then(|| Exclude::new(is_excluded))
    }
}
