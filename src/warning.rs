//! What is no reason to refuse a commit, and is most likely not what the user wants.

use std::fmt;
use std::path::PathBuf;

use crate::error::Paths;

/// What a commit does, or would do, that deserves a look.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Entries of the output that txfs did not publish, and that stay although such entries were to be taken over: no commit
    /// removes them.
    Stays {
        /// Which; what is in a repository (`.git`) is not counted.
        paths: Paths,
        /// Whether all was to be taken over, and not only what was in the way.
        all: bool,
    },
    /// What is published names the stage, which goes with the commit: in a file's content, as a link's target, or as its own name.
    NamesStage {
        /// The stage.
        stage: PathBuf,
        /// Which.
        paths: Paths,
    },
    /// Relative paths in files, or the targets of links, that lead out of the stage to where they lead to from there alone.
    RelativeToStage {
        /// The output.
        output: PathBuf,
        /// Which.
        paths: Paths,
    },
    /// Files whose content changes, and neither size nor time: clients that compare these do not notice.
    LooksUnchanged {
        /// Which.
        paths: Paths,
    },
}

impl Warning {
    /// A short name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Warning::Stays { .. } => "stays",
            Warning::NamesStage { .. } => "names-stage",
            Warning::RelativeToStage { .. } => "relative-to-stage",
            Warning::LooksUnchanged { .. } => "looks-unchanged",
        }
    }

    /// The paths that it is about.
    pub fn paths(&self) -> &Paths {
        match self {
            Warning::Stays { paths, .. }
            | Warning::NamesStage { paths, .. }
            | Warning::RelativeToStage { paths, .. }
            | Warning::LooksUnchanged { paths } => paths,
        }
    }

    /// The way out.
    pub fn hint(&self) -> String {
        match self {
            Warning::Stays { all: true, .. } => "remove by hand what is not wanted: only files, directories and links are taken over".into(),
            Warning::Stays { all: false, .. } => {
                "`CommitOptions::adopt_all` takes over all that lies in the output, and removes what the build does not make".into()
            }
            Warning::NamesStage { .. } => {
                "have the build write relative paths; or put the output's in their place, as in a check (`CommitOptions::check`)".into()
            }
            Warning::RelativeToStage { .. } => {
                "have the build write to a directory beside the output, from where they lead to the same, and publish that, by `Transaction::copy_from`".into()
            }
            Warning::LooksUnchanged { .. } => "`CommitOptions::touch` gives what is published the time of the commit".into(),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = self.paths();
        match self {
            Warning::Stays { .. } => {
                let entries = if paths.total == 1 {
                    "entry that txfs did not publish stays"
                } else {
                    "entries that txfs did not publish stay"
                };
                write!(f, "{} {entries}, and no commit removes what is not its own: {paths}", paths.total)
            }
            Warning::NamesStage { .. } => {
                let (is, names) = if paths.total == 1 { ("is", "names") } else { ("are", "name") };
                let entries = count(paths.total);
                write!(f, "{entries} that {is} published {names} the stage, which is gone after the commit: {paths}")
            }
            Warning::RelativeToStage { .. } => {
                write!(
                    f,
                    "{} with relative paths that lead out of the stage, and elsewhere from where it is published: {paths}",
                    count(paths.total)
                )
            }
            Warning::LooksUnchanged { .. } => {
                let files =
                    if paths.total == 1 { "file has other content, and" } else { "files have other content, and" };
                let total = paths.total;
                write!(f, "{total} {files} size and time of before, by which clients do not notice the change: {paths}")
            }
        }
    }
}

fn count(entries: u64) -> String {
    if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") }
}
