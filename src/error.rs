//! What can go wrong, and what the caller then knows.
//!
//! Invariants:
//! 1. Every error says which path, what was being done, and, through [`Error::hint`], the way out where there is one.
//! 2. Every error has an [`Outcome`]: the output is unchanged, or the outcome is unknown until recovery has run. An error after
//!    the new generation is durable is not an error of the commit (see [`crate::Committed::warnings`]).

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::path::{RelPath, Shown, Word};

/// The result of everything that can fail here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What is known of the output after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// This call changed nothing in the output. Where the state directory cannot be used ([`ErrorKind::Corrupt`]) an earlier commit
    /// may be unfinished all the same, and the output between two generations.
    Unchanged,
    /// The output is the old or the new generation, or between them until the next txfs command has recovered it.
    Unknown,
}

/// How an error is to be treated; one kind for each exit code of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An operation failed; the output is unchanged. Exit code 1.
    Failed,
    /// What was asked for makes no sense. Exit code 2.
    Usage,
    /// Another process holds a lock. Exit code 3.
    Busy,
    /// The output is not what the transaction assumed. Exit code 4.
    Conflict,
    /// A guard or a check refused. Exit code 5.
    Refused,
    /// The state directory is damaged, or not to be trusted. Exit code 6.
    Corrupt,
    /// The outcome is unknown until recovery has run. Exit code 7.
    Unknown,
    /// The caller wanted to stop; the output is unchanged. Exit code 128 + N, where signal N said so.
    Interrupted,
}

/// Any failure of txfs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action} {}: {}", Shown(path), Reason(source))]
    Io {
        /// What was being done, as in "cannot …".
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The request itself cannot be carried out.
    #[error("{}: {what}", Shown(path))]
    Usage {
        /// What the request was about.
        path: PathBuf,
        /// What is wrong with it, and the way out.
        what: String,
    },
    /// The file system lacks something that safety needs.
    #[error("{}: {what}", Shown(path))]
    Unsupported {
        /// Where it is missing.
        path: PathBuf,
        /// What is missing, and why it is needed.
        what: String,
    },
    /// Another process holds the lock.
    #[error("{} is held by another txfs process{}", Shown(path), waited_for(waited))]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long was waited for it.
        waited: Duration,
    },
    /// The caller wanted to stop ([`LinuxFs::interrupted_by`](crate::fs::LinuxFs::interrupted_by)).
    #[error("{}: stopped before anything was changed", Shown(path))]
    Interrupted {
        /// What would have been next.
        path: PathBuf,
    },
    /// Another transaction was committed since this one began (G10).
    #[error("{}: generation {current} was committed since this transaction began on generation {base}", Shown(output))]
    BaseMoved {
        /// The output.
        output: PathBuf,
        /// The generation that the transaction began on.
        base: u64,
        /// The generation that is current now.
        current: u64,
    },
    /// Conflicts, guards or checks stand against the commit; every one is listed.
    #[error("{}: {}", Shown(output), Problems(problems))]
    Refused {
        /// The output.
        output: PathBuf,
        /// Why; never empty.
        problems: Vec<Problem>,
    },
    /// A file of the state directory is damaged or contradicts the others.
    #[error("{} cannot be used: {what}", Shown(path))]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The state directory may have been written by somebody else (G9).
    #[error("{} is not trusted: {what}", Shown(path))]
    Untrusted {
        /// The state directory, or a file in it.
        path: PathBuf,
        /// Why it is not trusted.
        what: String,
    },
    /// Recovery found entries that are neither as before the commit nor as after it (G7). Nothing was touched.
    #[error("{}: {} neither as before the interrupted commit of generation {generation} nor as after it: {paths}", Shown(output), if paths.total == 1 { "an entry is" } else { "entries are" })]
    Unrecognized {
        /// The output.
        output: PathBuf,
        /// The generation whose commit was interrupted.
        generation: u64,
        /// The entries.
        paths: Paths,
    },
    /// An operation failed while the commit was being applied; everything was undone (G8).
    #[error("{source}; rolled back, the output is unchanged")]
    RolledBack {
        /// The failure that made the commit roll back.
        source: Box<Error>,
    },
    /// The stage could not be made durable, and Linux forgets such an error once it has told it: the stage was discarded (P3).
    #[error("{source}; the stage was discarded, the output is unchanged")]
    StageLost {
        /// The failure.
        source: Box<Error>,
    },
    /// Recovery could not carry out a commit that was made, and may have been reported.
    #[error("{source}; the commit of generation {generation} has passed its commit point and could not be finished")]
    Unfinished {
        /// The failure.
        source: Box<Error>,
        /// The output.
        output: PathBuf,
        /// The generation that it leads to.
        generation: u64,
    },
    /// A barrier or the undoing itself failed: only recovery can tell whether the commit happened.
    #[error("{source}; whether the commit happened is unknown")]
    OutcomeUnknown {
        /// The failure.
        source: Box<Error>,
        /// The output.
        output: PathBuf,
    },
}

impl Error {
    /// Names the failed system call and the path; for `map_err`.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { action, path: path.into(), source }
    }

    pub(crate) fn corrupt(path: impl Into<PathBuf>, what: impl fmt::Display) -> Error {
        Error::Corrupt { path: path.into(), what: what.to_string() }
    }

    /// How this error is to be treated.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Io { .. } | Error::Unsupported { .. } | Error::RolledBack { .. } | Error::StageLost { .. } => {
                ErrorKind::Failed
            }
            Error::Usage { .. } => ErrorKind::Usage,
            Error::Busy { .. } => ErrorKind::Busy,
            Error::Interrupted { .. } => ErrorKind::Interrupted,
            Error::BaseMoved { .. } => ErrorKind::Conflict,
            Error::Refused { problems, .. } if problems.iter().any(Problem::is_conflict) => ErrorKind::Conflict,
            Error::Refused { .. } => ErrorKind::Refused,
            Error::Corrupt { .. } | Error::Untrusted { .. } | Error::Unrecognized { .. } => ErrorKind::Corrupt,
            Error::Unfinished { .. } | Error::OutcomeUnknown { .. } => ErrorKind::Unknown,
        }
    }

    /// What is known of the output.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::Unfinished { .. } | Error::OutcomeUnknown { .. } | Error::Unrecognized { .. } => Outcome::Unknown,
            _ => Outcome::Unchanged,
        }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Busy { .. } => Some("try again later, or wait longer with --lock-timeout".into()),
            Error::BaseMoved { .. } => {
                Some("begin a new transaction and build again".into())
            }
            Error::Refused { problems, .. } => {
                let mut hints: Vec<_> = problems.iter().filter_map(Problem::hint).collect();
                hints.dedup();
                (!hints.is_empty()).then(|| hints.join("; "))
            }
            Error::Corrupt { .. } => {
                Some("nothing was touched; the output may be between two generations: look with `txfs journal`; then restore the file, or move the whole state directory away and publish anew with --adopt".into())
            }
            Error::Unrecognized { output, .. } => Some(format!(
                "nothing was touched; put these entries back as they were, or run `txfs recover --skip-unknown {}` to leave them as they are and finish the rest",
                Word(output)
            )),
            Error::Unfinished { output, .. } => Some(format!(
                "run `txfs recover {0}` once the cause is mended, or `txfs recover --undo {0}` to go back to the generation before",
                Word(output)
            )),
            Error::OutcomeUnknown { output, .. } => {
                Some(format!("run `txfs recover {}` once the cause is mended", Word(output)))
            }
            Error::RolledBack { source } => source.hint(),
            Error::StageLost { .. } => Some("begin a new transaction and build again".into()),
            Error::Io { source, .. } => way_out(source).map(Into::into),
            _ => None,
        }
    }
}

/// The numbers of errors that have no [`io::ErrorKind`] of their own; every Linux has the same.
mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENFILE: i32 = 23;
    pub(super) const EMFILE: i32 = 24;
}

/// What can be done about an error of the operating system.
fn way_out(error: &io::Error) -> Option<&'static str> {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => {
            Some("free some space, or inodes, and try again")
        }
        (io::ErrorKind::CrossesDevices, _) => {
            Some("a file system is mounted there: unmount it, or publish that directory by itself")
        }
        (io::ErrorKind::ResourceBusy, _) => Some("something is mounted there, as `findmnt` shows: unmount it"),
        (_, Some(errno::EPERM)) => Some(
            "is it immutable (see `lsattr`), or somebody else's in a directory with the sticky bit (`ls -ld` shows a `t`)?",
        ),
        (_, Some(errno::EMFILE)) => Some("raise `ulimit -n`"),
        (_, Some(errno::ENFILE)) => Some("raise `sysctl fs.file-max`"),
        _ => None,
    }
}

/// One reason why a commit is refused before anything changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// Entries that txfs did not publish are where new ones are to go (G6).
    Foreign(Paths),
    /// Foreign directories or special files are in the way, or foreign entries in a directory that would have to go; nothing
    /// allows that.
    ForeignDirectory(Paths),
    /// Published entries were changed behind txfs' back.
    Drift(Paths),
    /// The output is gone, and the commit would change only a part of what was published in it.
    OutputGone,
    /// The stage has no file in it.
    EmptyStage,
    /// The new generation is drastically smaller than the current one.
    Shrunken {
        /// Files that would be removed.
        removed: u64,
        /// Files that would be added.
        added: u64,
        /// Files of the current generation.
        files: u64,
        /// The limit that is exceeded, in percent.
        limit: u8,
    },
    /// Paths that are one and the same where case is not distinguished.
    CaseCollision(Paths),
    /// Stale paths, and new ones that lead to the same entries of the output: it does not distinguish case.
    CaseRename(Paths),
    /// Entries of the stage that are neither file, directory nor symbolic link.
    UnsupportedKind(Paths),
    /// State directories of txfs in the stage: of this output by the name, of others by what they hold.
    ReservedName(Paths),
    /// Files of the stage that were created through the library and not finished.
    Unfinished(Paths),
    /// A file system without `RENAME_EXCHANGE` cannot change a directory into something else without a gap.
    NeedsExchange(Paths),
    /// A check of the user's failed.
    Check {
        /// The check as the user gave it.
        check: String,
        /// How it failed.
        result: String,
    },
}

impl Problem {
    /// Whether the output, rather than the stage, is what stands against the commit.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Problem::Foreign(_) | Problem::ForeignDirectory(_) | Problem::Drift(_) | Problem::OutputGone)
    }

    /// The paths that it is about, if any.
    pub fn paths(&self) -> Option<&Paths> {
        match self {
            Problem::Foreign(paths)
            | Problem::ForeignDirectory(paths)
            | Problem::Drift(paths)
            | Problem::CaseCollision(paths)
            | Problem::CaseRename(paths)
            | Problem::UnsupportedKind(paths)
            | Problem::ReservedName(paths)
            | Problem::Unfinished(paths)
            | Problem::NeedsExchange(paths) => Some(paths),
            Problem::OutputGone | Problem::EmptyStage | Problem::Shrunken { .. } | Problem::Check { .. } => None,
        }
    }

    /// A short name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Problem::Foreign(_) => "foreign",
            Problem::ForeignDirectory(_) => "foreign-directory",
            Problem::Drift(_) => "drift",
            Problem::OutputGone => "output-gone",
            Problem::EmptyStage => "empty-stage",
            Problem::Shrunken { .. } => "shrunken",
            Problem::CaseCollision(_) => "case-collision",
            Problem::CaseRename(_) => "case-rename",
            Problem::UnsupportedKind(_) => "unsupported-kind",
            Problem::ReservedName(_) => "reserved-name",
            Problem::Unfinished(_) => "unfinished",
            Problem::NeedsExchange(_) => "needs-exchange",
            Problem::Check { .. } => "check",
        }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Problem::Foreign(_) => {
                "move them away, or take them over with --adopt (they are kept as the previous generation)".into()
            }
            Problem::ForeignDirectory(_) => "move away what cannot be taken over".into(),
            Problem::Drift(_) => {
                "keep the changes by copying them elsewhere, then publish over them with --allow-drift".into()
            }
            Problem::OutputGone => {
                "publish the whole, as by `txfs publish` or `txfs run`: what is gone comes back with it".into()
            }
            Problem::EmptyStage => "if nothing is to be published, use --allow-empty".into(),
            Problem::Shrunken { .. } => "if so much is to go, use --max-removed 100".into(),
            Problem::CaseCollision(_) => "rename one of each, or use --allow-case-collisions".into(),
            Problem::CaseRename(_) => "publish once without them, and then under the new name".into(),
            Problem::UnsupportedKind(_) => {
                "remove them from the stage: only files, directories and symlinks are published".into()
            }
            Problem::ReservedName(_) => {
                "leave them out: `.txfs`, and `.NAME.txfs` beside an output, are txfs' own and not content".into()
            }
            Problem::Unfinished(_) => "write them anew, or remove them".into(),
            Problem::NeedsExchange(_) => {
                "give them new names, or move the output to ext4, xfs, btrfs, tmpfs or overlayfs".into()
            }
            Problem::Check { .. } => return None,
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Foreign(paths) => write!(f, "entries that txfs did not publish are in the way: {paths}"),
            Problem::ForeignDirectory(paths) => {
                write!(f, "what txfs did not publish is in the way, and cannot be taken over: {paths}")
            }
            Problem::Drift(paths) => write!(f, "published entries were changed by somebody else: {paths}"),
            Problem::OutputGone => write!(f, "it is gone, and this would change only a part of it"),
            Problem::EmptyStage => write!(f, "the stage has no file in it"),
            Problem::Shrunken { removed, added, files, limit } => write!(
                f,
                "{removed} of {files} published files would go and only {added} come: a loss of more than {limit} %"
            ),
            Problem::CaseCollision(paths) => write!(f, "paths differ only by case: {paths}"),
            Problem::CaseRename(paths) => {
                write!(f, "the output does not distinguish case, and these are one entry there: {paths}")
            }
            Problem::UnsupportedKind(paths) => write!(f, "neither file, directory nor symlink: {paths}"),
            Problem::ReservedName(paths) => write!(f, "state directories of txfs in the stage: {paths}"),
            Problem::Unfinished(paths) => write!(f, "files of the stage were not finished: {paths}"),
            Problem::NeedsExchange(paths) => {
                write!(
                    f,
                    "this file system has no RENAME_EXCHANGE, so a directory cannot take another kind's place: {paths}"
                )
            }
            Problem::Check { check, result } => write!(f, "check `{check}` {result}"),
        }
    }
}

/// The first few of some paths, and how many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Paths {
    /// The first of them, in order of the tree.
    pub first: Vec<RelPath>,
    /// How many there are.
    pub total: u64,
}

impl Paths {
    const SHOWN: usize = 5;

    /// Counts `path`, and keeps it if it is among the first.
    pub(crate) fn push(&mut self, path: RelPath) {
        if self.first.len() < Self::SHOWN {
            self.first.push(path);
        }
        self.total += 1;
    }

    /// Adds others that come after these.
    pub(crate) fn append(&mut self, other: Paths) {
        let room = Self::SHOWN.saturating_sub(self.first.len());
        self.first.extend(other.first.into_iter().take(room));
        self.total += other.total;
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

impl FromIterator<RelPath> for Paths {
    fn from_iter<I: IntoIterator<Item = RelPath>>(paths: I) -> Self {
        let mut collected = Paths::default();
        paths.into_iter().for_each(|path| collected.push(path));
        collected
    }
}

impl fmt::Display for Paths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, path) in self.first.iter().enumerate() {
            write!(f, "{}{path}", if i == 0 { "" } else { ", " })?;
        }
        match self.total - self.first.len() as u64 {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

struct Problems<'a>(&'a [Problem]);

impl fmt::Display for Problems<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// The operating system's words without the number that Rust adds.
struct Reason<'a>(&'a io::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.split(" (os error").next().unwrap_or(&text))
    }
}

fn waited_for(waited: &Duration) -> String {
    if waited.is_zero() { String::new() } else { format!(" (waited {:.1} s)", waited.as_secs_f32()) }
}
