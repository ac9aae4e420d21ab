//! What can go wrong, and what the caller then knows.
//!
//! Invariants:
//! 1. Every error says which path, what was being done, and, through [`Error::hint`], the way out where there is one.
//! 2. Every error has an [`Outcome`]: the output is unchanged, or the outcome is unknown until recovery has run. An error after
//!    the new generation is durable is not an error of the commit (see [`crate::Committed::warnings`]).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::holder::{Holder, Waiting};
use crate::path::{PathError, RelPath, Shown, Word};

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
    #[error("cannot {action} {}: {}{}", Shown(path), Reason(source), Whose(whose))]
    Io {
        /// What was being done, as in "cannot …".
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
        /// Whose it is, where it is not permitted because it is another user's.
        whose: Option<Box<Owned>>,
    },
    /// The calls of a program make no sense in that order, or with these options: it has to be changed.
    #[error("{}: {what}", Shown(path))]
    Usage {
        /// What the request was about.
        path: PathBuf,
        /// What is wrong with it, and the way out.
        what: String,
    },
    /// What the caller names as a path of the output cannot be one.
    #[error("{}: {source}", Shown(path))]
    NoPath {
        /// What was named.
        path: PathBuf,
        /// Why.
        source: PathError,
    },
    /// Nothing can be published there alone ([`BeginOptions::at`](crate::BeginOptions::at)).
    #[error("{}: {what}", Shown(path))]
    NoPlace {
        /// What was named.
        path: PathBuf,
        /// Why.
        what: &'static str,
    },
    /// What the caller names as the output cannot be one.
    #[error("{}: {what}", Shown(path))]
    NotAnOutput {
        /// What was named.
        path: PathBuf,
        /// Why.
        what: String,
    },
    /// The state of the output is not where it was, or not where it is to be ([`OpenOptions::state`](crate::OpenOptions::state)).
    #[error("{}: {why}", Shown(path))]
    StateElsewhere {
        /// The output, or the place that was chosen for the state.
        path: PathBuf,
        /// What is wrong.
        why: Box<Misplaced>,
    },
    /// No such transaction can be taken up ([`Store::resume`](crate::Store::resume)).
    #[error("{}: {why}", Shown(stage))]
    NoTransaction {
        /// Where its stage would be.
        stage: PathBuf,
        /// What became of it.
        why: Ended,
    },
    /// The transaction was committed, or a failure ended it.
    #[error("{}: this transaction is over: begin a new one", Shown(stage))]
    TransactionOver {
        /// Its stage.
        stage: PathBuf,
    },
    /// The tool that was to write to the stage removed it.
    #[error("{}: the stage is gone: the tool that was to write to it removed it", Shown(stage))]
    StageGone {
        /// Where it was.
        stage: PathBuf,
    },
    /// There is no generation to go back to ([`Transaction::copy_previous`](crate::Transaction::copy_previous)).
    #[error("{}: {why}", Shown(output))]
    NothingBefore {
        /// The output.
        output: PathBuf,
        /// Why.
        why: NothingBefore,
    },
    /// The generation that is read has nothing of this kind at the path ([`Snapshot`](crate::Snapshot)).
    #[error("{}: generation {generation} has no {what} there", Shown(path))]
    NotPublished {
        /// Where.
        path: PathBuf,
        /// The generation.
        generation: u64,
        /// What was asked for.
        what: &'static str,
    },
    /// What the generation that is read has at the path is not there any more ([`Snapshot`](crate::Snapshot)).
    #[error(
        "{}: it is not there as generation {generation} published it: it was replaced, removed or changed since",
        Shown(path)
    )]
    NotAsPublished {
        /// Where.
        path: PathBuf,
        /// The generation.
        generation: u64,
    },
    /// Something that is to be copied is neither file, directory nor symbolic link.
    #[error("{}: it is neither file, directory nor symlink, and only those are published", Shown(path))]
    UnsupportedKind {
        /// Which.
        path: PathBuf,
    },
    /// The store cannot be given to a group, or taken back from it ([`Store::share`](crate::Store::share)).
    #[error("{}: {what}", Shown(path))]
    CannotShare {
        /// The output, or the state directory.
        path: PathBuf,
        /// Why, and the way out.
        what: String,
    },
    /// A group shares the store already, and it is to be given to another.
    #[error("{}: group {group} shares it already: take it back first, by `Store::unshare`", Shown(output))]
    SharedAlready {
        /// The output.
        output: PathBuf,
        /// The group.
        group: u32,
    },
    /// What is to be done takes the only handle of the store, and there is a transaction, or another handle.
    #[error("{}: it is in use: drop its transactions, and other handles of its store, before", Shown(output))]
    InUse {
        /// The output.
        output: PathBuf,
    },
    /// What was published in a directory of the output could not be given what that directory gives. Only ever a warning.
    #[error(
        "{}: what was published there has neither the group nor the ACL that it gives: `chgrp` or `setfacl` it",
        Shown(path)
    )]
    NotInherited {
        /// The directory.
        path: PathBuf,
    },
    /// The file system lacks something that safety needs.
    #[error("{}: {what}", Shown(path))]
    Unsupported {
        /// Where it is missing.
        path: PathBuf,
        /// What is missing, and why it is needed.
        what: String,
    },
    /// Nothing can be moved between a state directory and its output.
    #[error(
        "{}: nothing can be moved between it and {}: they are on different file systems or mounts, or differ in their subvolume, project quota or layer",
        Shown(path),
        Shown(output)
    )]
    OutOfReach {
        /// Where the state would have been.
        path: PathBuf,
        /// The output.
        output: PathBuf,
    },
    /// Another process holds the lock.
    #[error("{} is held by {}{}", Shown(path), holder.clone().unwrap_or_default(), waited_for(waited))]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long was waited for it.
        waited: Duration,
        /// Who holds it, if that is known.
        holder: Option<Holder>,
    },
    /// Other builds took longer than was to be waited for them.
    #[error("still {waiting}{}", waited_for(waited))]
    Waited {
        /// What was waited for in the end.
        waiting: Waiting,
        /// How long.
        waited: Duration,
    },
    /// The caller wanted to stop ([`OpenOptions::interrupted_by`](crate::OpenOptions::interrupted_by)).
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
    /// What is to be kept of the past cannot be made out ([`Store::retention`](crate::Store::retention)); so all of it is kept.
    #[error("{}: what is to be kept of the past cannot be made out, so all of it is: {what}", Shown(path))]
    RetentionUnknown {
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
    /// The state directory is another user's.
    #[error("{} is not trusted: {why}", Shown(path))]
    OfAnotherUser {
        /// The state directory, or the signpost that leads to it.
        path: PathBuf,
        /// Whose, and the way out.
        why: Box<AnotherUser>,
    },
    /// A part of the state directory is gone that an interrupted commit needs. Nothing was touched.
    #[error("{} cannot be used: {what}", Shown(path))]
    Lost {
        /// What is gone.
        path: PathBuf,
        /// What it was for, and how to go on.
        what: String,
    },
    /// Recovery found entries that are neither as before the commit nor as after it (G7). Nothing was touched.
    #[error("{}: {} neither as before the interrupted commit of generation {generation} nor as after it: {paths}", Shown(output), if paths.total == 1 { "an entry is" } else { "entries are" })]
    Unrecognized {
        /// The output.
        output: PathBuf,
        /// The generation whose commit was interrupted.
        generation: u64,
        /// Whether it is being undone.
        undoing: bool,
        /// The entries.
        paths: Paths,
    },
    /// The call failed after it had moved entries aside that txfs found among its own and could not prove to be so.
    #[error("{source}; before that {}", Moved(rescued))]
    AfterRescue {
        /// The failure.
        source: Box<Error>,
        /// Where they are; never empty.
        rescued: Vec<PathBuf>,
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
        move |source| Error::Io { action, path: path.into(), source, whose: None }
    }

    pub(crate) fn corrupt(path: impl Into<PathBuf>, what: impl fmt::Display) -> Error {
        Error::Corrupt { path: path.into(), what: what.to_string() }
    }

    /// Something else is where a directory of txfs' own is to be.
    pub(crate) fn not_a_directory(path: PathBuf) -> Error {
        let what = format!("it is not a directory: {}", move_away(&path));
        Error::Untrusted { path, what }
    }

    /// The same error, telling of what was moved aside before it.
    pub(crate) fn after_rescue(self, rescued: Vec<PathBuf>) -> Self {
        if rescued.is_empty() { self } else { Error::AfterRescue { source: Box::new(self), rescued } }
    }

    /// Where entries were moved before the call failed; and the failure itself.
    pub fn into_parts(self) -> (Vec<PathBuf>, Error) {
        match self {
            Error::AfterRescue { source, rescued } => (rescued, *source),
            error => (Vec::new(), error),
        }
    }

    /// Whether an operation failed for what is around it: a directory is gone, something else is in the place of one, or of an entry,
    /// or an entry is not what it was (which no kernel says, and so is `Other`). What a recovery cannot finish for that
    /// [`RecoverOptions::skip_unknown`](crate::RecoverOptions::skip_unknown) leaves as it is.
    pub fn is_of_surroundings(&self) -> bool {
        use io::ErrorKind::{AlreadyExists, DirectoryNotEmpty, IsADirectory, NotADirectory, NotFound, Other};
        let Error::Io { source, .. } = self else { return false };
        let is_kind = matches!(
            source.kind(),
            AlreadyExists | DirectoryNotEmpty | IsADirectory | NotADirectory | NotFound | Other
        );
        is_kind || source.raw_os_error() == Some(errno::ELOOP)
    }

    /// Whether a system call was not permitted.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Error::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// How this error is to be treated.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Io { .. }
            | Error::Unsupported { .. }
            | Error::OutOfReach { .. }
            | Error::RolledBack { .. }
            | Error::StageLost { .. } => ErrorKind::Failed,
            Error::AfterRescue { source, .. } => source.kind(),
            Error::Usage { .. }
            | Error::NoPath { .. }
            | Error::NoPlace { .. }
            | Error::NotAnOutput { .. }
            | Error::StateElsewhere { .. }
            | Error::NoTransaction { .. }
            | Error::TransactionOver { .. }
            | Error::StageGone { .. }
            | Error::NothingBefore { .. }
            | Error::UnsupportedKind { .. }
            | Error::CannotShare { .. }
            | Error::SharedAlready { .. }
            | Error::InUse { .. }
            | Error::NotPublished { .. }
            | Error::NotInherited { .. } => ErrorKind::Usage,
            Error::Busy { .. } | Error::Waited { .. } => ErrorKind::Busy,
            Error::Interrupted { .. } => ErrorKind::Interrupted,
            Error::BaseMoved { .. } | Error::NotAsPublished { .. } => ErrorKind::Conflict,
            Error::Refused { problems, .. } if problems.iter().any(Problem::is_conflict) => ErrorKind::Conflict,
            Error::Refused { .. } => ErrorKind::Refused,
            Error::Corrupt { .. }
            | Error::RetentionUnknown { .. }
            | Error::Untrusted { .. }
            | Error::OfAnotherUser { .. }
            | Error::Lost { .. }
            | Error::Unrecognized { .. } => ErrorKind::Corrupt,
            Error::Unfinished { .. } | Error::OutcomeUnknown { .. } => ErrorKind::Unknown,
        }
    }

    /// What is known of the output.
    pub fn outcome(&self) -> Outcome {
        match self {
            Error::AfterRescue { source, .. } => source.outcome(),
            Error::Unfinished { .. }
            | Error::OutcomeUnknown { .. }
            | Error::Lost { .. }
            | Error::Unrecognized { .. } => Outcome::Unknown,
            _ => Outcome::Unchanged,
        }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::OutOfReach { .. } => {
                Some("choose a place for the state that shares them with the output, as inside it, by `OpenOptions::state`".into())
            }
            Error::Busy { .. } => Some("try again later, or wait longer, by `OpenOptions::lock_timeout`".into()),
            Error::Waited { .. } => Some("try again later, or wait longer, by `BeginOptions::wait`".into()),
            Error::BaseMoved { .. } => Some("begin a new transaction and build again".into()),
            Error::Refused { problems, .. } => {
                let mut hints: Vec<_> = problems.iter().filter_map(Problem::hint).collect();
                hints.dedup();
                (!hints.is_empty()).then(|| hints.join("; "))
            }
            Error::Corrupt { path, .. } => Some(format!(
                "nothing was touched; the output may be between two generations: look at `Store::journals`; then restore the file, or {}",
                move_state_away(path, "`CommitOptions::adopt_all`")
            )),
            Error::RetentionUnknown { .. } => Some("say it again: `Store::set_retention`".into()),
            Error::Unrecognized { undoing: false, .. } => Some(
                "nothing was touched; put these entries back as they were, or recover with `RecoverOptions::skip_unknown` to leave them as they are and finish the rest, or with `RecoverOptions::undo`, too, to leave them and go back to the generation before"
                    .into(),
            ),
            Error::Unrecognized { undoing: true, .. } => Some(
                "nothing was touched; put these entries back as they were, or recover with `RecoverOptions::skip_unknown`, too, to leave them as they are and undo the rest"
                    .into(),
            ),
            Error::Unfinished { source, .. } if source.is_of_surroundings() => Some(
                "recover once the cause is mended, or with `RecoverOptions::skip_unknown` to leave that as it is and finish the rest, or with `RecoverOptions::undo` to go back to the generation before"
                    .into(),
            ),
            Error::Unfinished { source, .. } => Some(format!(
                "{}recover once the cause is mended, or with `RecoverOptions::undo` to go back to the generation before",
                access(source)
            )),
            Error::OutcomeUnknown { source, .. } => {
                Some(format!("{}recover once the cause is mended, by `Store::recover`", access(source)))
            }
            Error::RolledBack { source } | Error::AfterRescue { source, .. } => source.hint(),
            Error::StageLost { .. } => Some(
                "what the disk has of the stage cannot be trusted any more, so it is not kept: begin a new transaction and build again"
                    .into(),
            ),
            Error::Io { whose: Some(owned), .. } => Some(owned.way_in()),
            Error::Io { action: MAKE_STATE, source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Some(
                "choose a place for the state where this user may write; or have the output made for this user, so that its state can be inside it"
                    .into(),
            ),
            Error::Io { source, .. } => way_out(source).map(Into::into),
            _ => None,
        }
    }
}

/// What is wrong with the place of a state. A signpost is a file beside the output that says where its state is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misplaced {
    /// It is not where the signpost says.
    #[error(
        "its state was put in {}, as {1} says, and is not there: bring it back, or, if it was moved, say where it is, by `OpenOptions::state`; if it is lost, remove {1}, and publish anew with `CommitOptions::adopt_all`",
        Word(state),
        Word(signpost)
    )]
    Gone {
        /// Where it was.
        state: PathBuf,
        /// The signpost.
        signpost: PathBuf,
    },
    /// Another user may have written the signpost.
    #[error(
        "another user may have written {1}, and {0}, to which it leads, is no shared state that leads back: remove {1}, unless somebody knows of it",
        Word(state),
        Word(signpost)
    )]
    OfAnotherUser {
        /// Where the signpost leads.
        state: PathBuf,
        /// The signpost.
        signpost: PathBuf,
    },
    /// The signpost leads to the state of another output, as in a copy.
    #[error(
        "its state would be {0}, as {1} says, which is that of {2}: remove {1} if this is a copy, and choose another place with `OpenOptions::state`",
        Word(state),
        Word(signpost),
        Shown(other)
    )]
    OfAnotherOutput {
        /// Where the signpost leads.
        state: PathBuf,
        /// The signpost.
        signpost: PathBuf,
        /// The output whose state that is.
        other: PathBuf,
    },
    /// The output was moved, and its state was not.
    #[error(
        "it was published with the state {0}, and was moved without it: move that, too, as by `mv {0} {1}`; or begin anew with another, as {1}, by `OpenOptions::state`, to which everything in it is foreign",
        Word(state),
        Word(beside)
    )]
    LeftBehind {
        /// Where it is.
        state: PathBuf,
        /// Where it would be found.
        beside: PathBuf,
    },
    /// It is somewhere already, and another place was chosen.
    #[error(
        "its state is {} already: choose no other; to have it elsewhere, move that directory there first",
        Word(state)
    )]
    There {
        /// Where it is.
        state: PathBuf,
    },
    /// The output is a mount here, and nothing can be moved to it from where its state is.
    #[error(
        "it was published with the state {}, and here it is a mount or subvolume of its own, to which nothing can be moved from there: run where it is none, or mount the directory that holds both; if that state is not needed any more, begin anew with {}, by `OpenOptions::state`, and `CommitOptions::adopt_all`",
        Shown(state),
        Word(inside)
    )]
    OutOfReach {
        /// Where it is, as the output says.
        state: PathBuf,
        /// Where another could be.
        inside: PathBuf,
    },
    /// The place that was chosen is inside the output.
    #[error("it is inside the output, where only `.txfs` can be the state, once the output is there")]
    InsideOutput,
}

/// Why what belongs to another user is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnotherUser {
    /// He shares it with a group that this process belongs to, and it was not said that its members are trusted.
    Shares {
        /// The user.
        owner: u32,
        /// The group.
        group: u32,
    },
    /// It is his alone.
    Owns {
        /// The state, and what it would take to have it.
        owned: Owned,
        /// The output.
        output: PathBuf,
    },
}

impl fmt::Display for AnotherUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shares { owner, group } => write!(
                f,
                "user {owner} shares it with group {group}: open it with `OpenOptions::shared`, if you trust all members of that group with the output"
            ),
            Self::Owns { owned, .. } => {
                write!(f, "{}", owned.ways_to_it("`Store::share`"))
            }
        }
    }
}

/// What became of a transaction that cannot be taken up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// It was committed or aborted, or never was.
    #[error("there is no such transaction: it was committed or aborted")]
    Closed,
    /// The machine restarted since it began.
    #[error("the machine restarted since it began, so its stage may have lost files: begin again")]
    Restarted,
    /// Its process died before it could be left to another, or a barrier failed.
    #[error("its process died before it was finished, or the disk failed meanwhile: begin again")]
    Died,
}

/// Why a generation cannot be gone back to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NothingBefore {
    /// The current one is the first, and displaced nothing.
    #[error("there is no generation to go back to")]
    First,
    /// It is not before the current one.
    #[error("generation {generation} cannot be gone back to: generation {current} is what is published")]
    NotBefore {
        /// The generation.
        generation: u64,
        /// The current one.
        current: u64,
    },
    /// More generations have been committed since than are kept ([`Store::set_retention`](crate::Store::set_retention)).
    #[error("generation {generation} is not kept any more")]
    NotKept {
        /// The generation.
        generation: u64,
    },
    /// What the generation after it displaced was freed ([`Store::prune`](crate::Store::prune)).
    #[error(
        "generation {generation} was pruned: what generation {after} displaced was freed, so that only later commits can be gone back from"
    )]
    Pruned {
        /// The generation.
        generation: u64,
        /// The generation after it.
        after: u64,
    },
    /// Something of it was not in the output any more when one after it was committed.
    #[error("generation {generation} cannot be put together again, for this was missing already: {missing}")]
    Incomplete {
        /// The generation.
        generation: u64,
        /// What was missing.
        missing: Paths,
    },
}

/// What belongs to another user than the one that txfs runs as, or to him, and is closed by its mode.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Owned {
    /// What does.
    pub path: PathBuf,
    /// Its owner.
    pub owner: u32,
    /// The user that txfs runs as, and the group.
    pub user: (u32, u32),
    /// The directories to be given to this user, with what is in them.
    pub trees: Vec<PathBuf>,
}

impl Owned {
    /// The command that gives all that is in the trees to this user, whoever has it now, and leaves it its group.
    pub(crate) fn take_over_all(&self) -> String {
        let trees = self.trees.iter().map(|tree| format!(" {}", Word(tree))).collect::<String>();
        format!("sudo chown -hR {}{trees}", self.user.0)
    }

    /// Says whose it is, and how this user comes to use it; with a group of both by `share`, which its owner has to do.
    pub fn ways_to_it(&self, share: &str) -> String {
        let (owner, user) = (self.owner, self.user.0);
        let mut ways = format!(
            "it belongs to user {owner}, but this is user {user}: run txfs as its owner, by `sudo -u '#{owner}'`"
        );
        // What root takes over its owner cannot publish any more.
        if user != 0 {
            let take_over = self.take_over();
            ways += &format!(
                "; or give it to yourself: `{take_over}`; or have its owner share it with a group of both, by {share}"
            );
        }
        ways
    }

    /// Whether its mode alone is what closes it.
    fn is_own(&self) -> bool {
        self.owner == self.user.0
    }

    /// The command by which this user comes to use it, and what that does.
    fn way_in(&self) -> String {
        match self.is_own() {
            true => format!("`chmod u+rwX {}` opens it", Word(&self.path)),
            false => format!("`{}` gives it to you", self.take_over()),
        }
    }

    /// The command that gives it to this user, for a shell: what belongs to anybody else in the trees stays theirs.
    pub fn take_over(&self) -> String {
        let (Self { owner, trees, .. }, (user, group)) = (self, self.user);
        let trees = trees.iter().map(|tree| format!(" {}", Word(tree))).collect::<String>();
        format!("sudo chown -hR --from={owner} {user}:{group}{trees}")
    }
}

/// Says whose something is that it is not permitted to change.
struct Whose<'a>(&'a Option<Box<Owned>>);

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(owned) if owned.is_own() => write!(f, " ({} is closed to its owner by its mode)", Shown(&owned.path)),
            Some(owned) => write!(
                f,
                " ({} belongs to user {}, and this is user {})",
                Shown(&owned.path),
                owned.owner,
                owned.user.0
            ),
            None => Ok(()),
        }
    }
}

/// The state directory that a path is in, for a shell.
fn state_around(path: &Path) -> Option<&Path> {
    path.ancestors().find(|above| above.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b".txfs")))
}

/// Begins anew where a state directory cannot be used any more.
pub(crate) fn begin_anew(path: &Path) -> String {
    move_state_away(path, "--adopt-all")
}

fn move_state_away(path: &Path, adopt_all: &str) -> String {
    let state = state_around(path).unwrap_or(path);
    let (state, away) = (Word(state), Word(&away(state)).to_string());
    format!("move the whole state directory away, as by `mv {state} {away}`, and publish anew with {adopt_all}")
}

/// The command that moves something away, for a shell.
pub(crate) fn move_away(path: &Path) -> String {
    format!("move it away, as by `mv {} {}`", Word(path), Word(&away(path)))
}

/// What is moved away could be called so.
fn away(path: &Path) -> PathBuf {
    let mut away = path.as_os_str().to_owned();
    away.push(".away");
    away.into()
}

/// How what cannot be looked at, or changed, is made accessible; nothing where that is not the cause.
fn access(source: &Error) -> String {
    match source {
        Error::Io { whose: Some(owned), .. } => format!("{}; ", owned.way_in()),
        Error::Io { source, .. } if source.raw_os_error() == Some(errno::EACCES) => {
            "give its owner access to the directory that holds it (`chmod u+rwx`); ".into()
        }
        _ => String::new(),
    }
}

/// What is being done when a state directory cannot be made.
pub(crate) const MAKE_STATE: &str = "make the state directory";

/// The numbers of errors that have no [`io::ErrorKind`] of their own; every Linux has the same.
mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const EACCES: i32 = 13;
    pub(super) const ELOOP: i32 = 40;
    pub(super) const ENFILE: i32 = 23;
    pub(super) const EMFILE: i32 = 24;
}

/// What can be done about an error of the operating system.
fn way_out(error: &io::Error) -> Option<&'static str> {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => {
            Some("free some space, or inodes, and try again")
        }
        (io::ErrorKind::CrossesDevices, _) => Some(
            "where `findmnt` shows that a file system is mounted there: unmount it, or publish that directory by itself; where it shows none, its project quota (`xfs_io -c lsproj`) or subvolume is another than that of the directories around it: make it anew among them; where an earlier layer of an image holds it, it can go with one commit, and become something else with the next",
        ),
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
    /// Entries of the stage beside the path that alone is to be replaced ([`BeginOptions::at`](crate::BeginOptions::at)).
    OutsideOfPath(Paths),
    /// Directories of the stage that belong to another user, and that this one may not write to: neither the next commit nor an abort
    /// could take anything out of them.
    NotOurs {
        /// Which.
        paths: Paths,
        /// The first of them, and how it is given to this user.
        first: Box<Owned>,
    },
    /// Entries of the stage, or directories of the output, that not every member of the group can use that shares the store: another
    /// could neither carry the commit out, if its process died, nor undo it.
    NotShared {
        /// Which.
        paths: Paths,
        /// The group.
        group: u32,
        /// Whether they are staged.
        staged: bool,
    },
    /// Files of the stage that were created through the library and not finished.
    Unfinished(Paths),
    /// What the stage is a copy of was changed while it was copied, or before the commit.
    SourceChanged {
        /// The directory that was copied.
        source: PathBuf,
        /// What appeared in it, went or changed.
        paths: Paths,
    },
    /// A file system without `RENAME_EXCHANGE` cannot change a directory into something else without a gap.
    NeedsExchange(Paths),
    /// Subvolumes of the output, and what is mounted in it, where something is to be published or removed: nothing can be moved into them,
    /// or out of them, and nothing allows that.
    Apart(Paths),
    /// Directories that are to become something else, and that an earlier layer of an image holds: an overlay does not move those.
    LowerLayer(Paths),
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
        matches!(
            self,
            Problem::Foreign(_)
                | Problem::ForeignDirectory(_)
                | Problem::Drift(_)
                | Problem::Apart(_)
                | Problem::OutputGone
        )
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
            | Problem::OutsideOfPath(paths)
            | Problem::Unfinished(paths)
            | Problem::NotOurs { paths, .. }
            | Problem::NotShared { paths, .. }
            | Problem::SourceChanged { paths, .. }
            | Problem::NeedsExchange(paths)
            | Problem::Apart(paths)
            | Problem::LowerLayer(paths) => Some(paths),
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
            Problem::OutsideOfPath(_) => "outside-of-path",
            Problem::Unfinished(_) => "unfinished",
            Problem::NotOurs { .. } => "not-ours",
            Problem::NotShared { .. } => "not-shared",
            Problem::SourceChanged { .. } => "source-changed",
            Problem::NeedsExchange(_) => "needs-exchange",
            Problem::Apart(_) => "apart",
            Problem::LowerLayer(_) => "lower-layer",
            Problem::Check { .. } => "check",
        }
    }

    /// The way out, where there is one.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Problem::Foreign(_) => {
                "move them away, or take them over by `CommitOptions::adopt` (they are kept as the previous generation)"
                    .into()
            }
            Problem::ForeignDirectory(_) => "move away what cannot be taken over".into(),
            Problem::Drift(_) => {
                "keep the changes by copying them elsewhere, then publish over them by `CommitOptions::allow_drift`"
                    .into()
            }
            Problem::OutputGone => {
                "publish the whole, by a transaction from `Basis::Empty`: what is gone comes back with it".into()
            }
            Problem::EmptyStage => "if nothing is to be published, use `CommitOptions::allow_empty`".into(),
            Problem::Shrunken { .. } => "if so much is to go, use `CommitOptions::max_removed(100)`".into(),
            Problem::CaseCollision(_) => "rename one of each, or use `CommitOptions::allow_case_collisions`".into(),
            Problem::CaseRename(_) => "publish once without them, and then under the new name".into(),
            Problem::UnsupportedKind(_) => {
                "remove them from the stage: only files, directories and symlinks are published".into()
            }
            Problem::ReservedName(_) => {
                "leave them out: `.txfs`, and `.NAME.txfs` beside an output, are txfs' own and not content".into()
            }
            Problem::OutsideOfPath(_) => {
                "have them written to the stage, and not beside it; or begin with a path above them".into()
            }
            Problem::Unfinished(_) => "write them anew, or remove them".into(),
            Problem::NotOurs { first, .. } => {
                format!("`{}` gives them to you; or let the build run as this user", first.take_over())
            }
            Problem::NotShared { group, staged: true, .. } => format!(
                "have their owner run `chgrp -R {group}` and `chmod -R g+rwX` on them; or publish a copy of the stage, by `Transaction::copy_from`"
            ),
            Problem::NotShared { group, staged: false, .. } => {
                format!("have their owner run `chgrp {group}` and `chmod g+rwxs,-t` on them")
            }
            Problem::SourceChanged { .. } => "publish again when nothing writes there any more".into(),
            Problem::NeedsExchange(_) => {
                "give them new names, or move the output to ext4, xfs, btrfs, tmpfs or overlayfs".into()
            }
            Problem::Apart(_) => {
                "nothing takes them over: publish each by itself, as an output of its own; or unmount it; or make a plain directory of a subvolume: move it away, make the directory, and copy back what was in it"
                    .into()
            }
            Problem::LowerLayer(_) => {
                "publish once without them, and then with what takes their place; or give that new names".into()
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
            Problem::OutputGone => write!(f, "it is gone, and this needs what was in it"),
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
            Problem::OutsideOfPath(paths) => write!(f, "outside of the path that alone is replaced: {paths}"),
            Problem::NotOurs { paths, first } => write!(
                f,
                "directories of the stage belong to user {}, and user {} may not write to them: {}",
                first.owner, first.user.0, paths
            ),
            Problem::NotShared { paths, group, staged } => write!(
                f,
                "{} closed to group {group}, which shares the store: {paths}",
                if *staged { "what is staged is" } else { "directories of the output are" }
            ),
            Problem::SourceChanged { source, paths } => {
                write!(f, "{} was changed while it was being published: {paths}", Shown(source))
            }
            Problem::Unfinished(paths) => write!(f, "files of the stage were not finished: {paths}"),
            Problem::NeedsExchange(paths) => {
                write!(
                    f,
                    "this file system has no RENAME_EXCHANGE, so a directory cannot take another kind's place: {paths}"
                )
            }
            Problem::Apart(paths) => write!(
                f,
                "subvolumes, or mounts, are in the way, and nothing can be moved into them, or out of them: {paths}"
            ),
            Problem::LowerLayer(paths) => write!(
                f,
                "an earlier layer of an image holds directories that are to become files or links, and the overlay cannot exchange them: {paths}"
            ),
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
            f.write_str(if i == 0 { "" } else { ", " })?;
            match path.is_root() {
                true => f.write_str("the output itself")?,
                false => write!(f, "{path}")?,
            }
        }
        match self.total - self.first.len() as u64 {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// What was moved aside, and where it is.
struct Moved<'a>(&'a [PathBuf]);

impl fmt::Display for Moved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.0.len() == 1 { "an entry" } else { "entries" };
        write!(f, "{what} that txfs did not recognize went to ")?;
        let mut shown = self.0.iter().take(Paths::SHOWN);
        shown.try_fold("", |before, path| write!(f, "{before}{}", Shown(path)).map(|()| ", "))?;
        match self.0.len().saturating_sub(Paths::SHOWN) {
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
