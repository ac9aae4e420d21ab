//! The ways out of what the library refuses, in the words of the command: which option, which command.
//!
//! The library names its own functions and options in its hints; here is said what a user types for them. Every other hint is the
//! library's.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use txfs::{AnotherUser, Error, Misplaced, Problem, Shown, Waiting, Warning, Word};

/// What went wrong, where the library's own message names what only a program can call.
pub(crate) fn message(error: &Error) -> String {
    let (path, why) = match error {
        Error::StateElsewhere { path, why } => (path, why),
        Error::OfAnotherUser { path, why } => {
            return format!("{} is not trusted: {}", Shown(path), of_another_user(why));
        }
        Error::SharedAlready { output, group } => {
            return format!(
                "{}: group {group} shares it already: take it back first, by `txfs share --off {}`",
                Shown(output),
                Word(output)
            );
        }
        error => return error.to_string(),
    };
    let why = match &**why {
        Misplaced::Gone { state, signpost } => format!(
            "its state was put in {}, as {1} says, and is not there: bring it back, or, if it was moved, say where it is with --state; if it is lost, remove {1}, and publish anew with --adopt-all",
            Word(state),
            Word(signpost)
        ),
        Misplaced::OfAnotherOutput { state, signpost, other } => format!(
            "its state would be {}, as {1} says, which is that of {2}: remove {1} if this is a copy, and choose another place with --state",
            Word(state),
            Word(signpost),
            Shown(other)
        ),
        Misplaced::LeftBehind { state, beside } => format!(
            "it was published with the state {0}, and was moved without it: move that, too, as by `mv {0} {1}`; or begin anew with another, as by `--state {1}`, to which everything in it is foreign",
            Word(state),
            Word(beside)
        ),
        Misplaced::There { state } => format!(
            "its state is {} already: leave out --state; to have it elsewhere, move that directory there first",
            Word(state)
        ),
        Misplaced::OutOfReach { state, inside } => format!(
            "it was published with the state {}, and here it is a mount or subvolume of its own, to which nothing can be moved from there: run txfs where it is none, or mount the directory that holds both; if that state is not needed any more, begin anew with `--state {}` and --adopt-all",
            Shown(state),
            Word(inside)
        ),
        why => why.to_string(),
    };
    format!("{}: {why}", Shown(path))
}

fn of_another_user(why: &AnotherUser) -> String {
    match why {
        AnotherUser::Shares { owner, group } => format!(
            "user {owner} shares it with group {group}: use it by `--shared`, if you trust all members of that group with the output"
        ),
        AnotherUser::Owns { owned, output } => {
            owned.ways_to_it(&format!("`txfs share {} --group GROUP`", Word(output)))
        }
        why => why.to_string(),
    }
}

/// What is waited for, and how a user ends what nobody else does.
pub(crate) fn waiting(waiting: &Waiting) -> String {
    match waiting {
        Waiting::Detached { stage, .. } => format!("{waiting}: `txfs abort {}` ends it", Word(stage)),
        waiting => waiting.to_string(),
    }
}

/// The way out of an error, where there is one.
pub(crate) fn of_error(error: &Error) -> Option<String> {
    Some(match error {
        Error::OutOfReach { .. } => {
            "choose a place for the state that shares them with the output, as by `--state OUT`, inside it".into()
        }
        Error::Busy { .. } => "try again later, or wait longer with --lock-timeout".into(),
        Error::Waited { waiting: Waiting::Detached { stage, .. }, .. } => {
            format!("`txfs abort {}` ends it", Word(stage))
        }
        Error::Waited { .. } => "try again later, or wait longer: `--wait` without a number has no end".into(),
        Error::Refused { problems, .. } => {
            let mut hints: Vec<_> = problems.iter().filter_map(of_problem).collect();
            hints.dedup();
            return (!hints.is_empty()).then(|| hints.join("; "));
        }
        Error::Corrupt { path, .. } => format!(
            "nothing was touched; the output may be between two generations: look with `txfs journal{}`; then restore the file, or {}",
            output_of(path).map(|output| format!(" {}", Word(&output))).unwrap_or_default(),
            begin_anew(path)
        ),
        Error::RetentionUnknown { .. } => "say it again, as by `txfs publish --keep 5`".into(),
        Error::Unrecognized { output, undoing: false, .. } => format!(
            "nothing was touched; put these entries back as they were, or run `txfs recover --skip-unknown {0}` to leave them as they are and finish the rest, or `txfs recover --undo --skip-unknown {0}` to leave them and go back to the generation before",
            Word(output)
        ),
        Error::Unrecognized { output, undoing: true, .. } => format!(
            "nothing was touched; put these entries back as they were, or run `txfs recover --undo --skip-unknown {}` to leave them as they are and undo the rest",
            Word(output)
        ),
        Error::Unfinished { output, source, .. } if source.is_of_surroundings() => format!(
            "run `txfs recover {0}` once the cause is mended, or `txfs recover --skip-unknown {0}` to leave that as it is and finish the rest, or `txfs recover --undo {0}` to go back to the generation before",
            Word(output)
        ),
        Error::Unfinished { output, source, .. } => format!(
            "{1}run `txfs recover {0}` once the cause is mended, or `txfs recover --undo {0}` to go back to the generation before",
            Word(output),
            access(source)
        ),
        Error::OutcomeUnknown { output, source } => {
            format!("{1}run `txfs recover {0}` once the cause is mended", Word(output), access(source))
        }
        Error::RolledBack { source } | Error::AfterRescue { source, .. } => return of_error(source),
        error => return error.hint(),
    })
}

/// The way out of one reason why a commit is refused, where there is one.
pub(crate) fn of_problem(problem: &Problem) -> Option<String> {
    Some(match problem {
        Problem::Foreign(_) => {
            "move them away, or take them over with --adopt (they are kept as the previous generation)".into()
        }
        Problem::Drift(_) => {
            "keep the changes by copying them elsewhere, then publish over them with --allow-drift".into()
        }
        Problem::OutputGone => {
            "publish the whole, as by `txfs publish` or `txfs run`: what is gone comes back with it".into()
        }
        Problem::EmptyStage => "if nothing is to be published, use --allow-empty".into(),
        Problem::Shrunken { .. } => "if so much is to go, use --max-removed 100".into(),
        Problem::CaseCollision(_) => "rename one of each, or use --allow-case-collisions".into(),
        Problem::NotShared { group, staged: true, .. } => format!(
            "have their owner run `chgrp -R {group}` and `chmod -R g+rwX` on them; or publish a copy of the stage, by `txfs publish OUT STAGE`"
        ),
        problem => return problem.hint(),
    })
}

/// The way out of what a commit warns of.
pub(crate) fn of_warning(warning: &Warning) -> String {
    match warning {
        Warning::Stays { all: false, .. } => {
            "--adopt-all takes over all that lies in the output, and removes what the build does not make".into()
        }
        Warning::NamesStage { .. } => {
            "have the build write relative paths; or put the output's in their place: --check 'grep -rlIF \"$TXFS_STAGE\" . | xargs -r sed -i \"s|$TXFS_STAGE|$TXFS_OUTPUT|g\"'".into()
        }
        Warning::RelativeToStage { output, .. } => {
            let mut beside = output.clone().into_os_string();
            beside.push(".new");
            format!(
                "have the build write to a directory beside the output, from where they lead to the same, and publish that: `txfs publish {} {}`",
                Word(output),
                Word(&PathBuf::from(beside))
            )
        }
        Warning::LooksUnchanged { .. } => "--touch gives what is published the time of the commit".into(),
        warning => warning.hint(),
    }
}

/// How what cannot be looked at, or changed, is made accessible; nothing where that is not the cause.
fn access(source: &Error) -> String {
    match source {
        Error::Io { whose: Some(_), .. } => source.hint().map(|hint| format!("{hint}; ")).unwrap_or_default(),
        Error::Io { source, .. } if source.raw_os_error() == Some(Errno::EACCES as i32) => {
            "give its owner access to the directory that holds it (`chmod u+rwx`); ".into()
        }
        _ => String::new(),
    }
}

/// The state directory that a path is in.
fn state_around(path: &Path) -> Option<&Path> {
    path.ancestors().find(|above| above.file_name().is_some_and(|name| name.as_bytes().ends_with(b".txfs")))
}

/// The output of the state directory that a path is in.
fn output_of(path: &Path) -> Option<PathBuf> {
    let state = state_around(path)?;
    match state.file_name()?.as_bytes().strip_suffix(b".txfs")?.strip_prefix(b".") {
        None | Some([]) => state.parent().map(Path::to_path_buf),
        Some(name) => Some(state.with_file_name(OsStr::from_bytes(name))),
    }
}

/// Begins anew where a state directory cannot be used any more.
fn begin_anew(path: &Path) -> String {
    let state = state_around(path).unwrap_or(path);
    let mut away = state.as_os_str().to_owned();
    away.push(".away");
    let (state, away) = (Word(state), Word(Path::new(&away)).to_string());
    format!("move the whole state directory away, as by `mv {state} {away}`, and publish anew with --adopt-all")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use txfs::{Holder, Paths};

    /// Nobody who types a command can do anything with the name of a function.
    #[test]
    fn no_way_out_names_what_only_a_program_can_call() {
        let (output, path) = (PathBuf::from("dist"), PathBuf::from(".dist.txfs/HEAD"));
        let denied = || Error::Io {
            action: "rename",
            path: "a".into(),
            source: std::io::Error::from_raw_os_error(Errno::EACCES as i32),
            whose: None,
        };
        let unrecognized =
            |undoing| Error::Unrecognized { output: output.clone(), generation: 2, undoing, paths: Paths::default() };
        let problems = vec![
            Problem::Foreign(Paths::default()),
            Problem::ForeignDirectory(Paths::default()),
            Problem::Drift(Paths::default()),
            Problem::OutputGone,
            Problem::EmptyStage,
            Problem::Shrunken { removed: 9, added: 0, files: 9, limit: 50 },
            Problem::CaseCollision(Paths::default()),
            Problem::CaseRename(Paths::default()),
            Problem::UnsupportedKind(Paths::default()),
            Problem::ReservedName(Paths::default()),
            Problem::OutsideOfPath(Paths::default()),
            Problem::NotShared { paths: Paths::default(), group: 1, staged: true },
            Problem::NotShared { paths: Paths::default(), group: 1, staged: false },
            Problem::Unfinished(Paths::default()),
            Problem::NeedsExchange(Paths::default()),
            Problem::Apart(Paths::default()),
        ];
        let errors = [
            Error::OutOfReach { path: path.clone(), output: output.clone() },
            Error::Busy { path: path.clone(), waited: Duration::ZERO, holder: None },
            Error::Waited {
                waiting: Waiting::Build { output: output.clone(), holder: Holder::default() },
                waited: Duration::ZERO,
            },
            Error::Refused { output: output.clone(), problems },
            Error::RetentionUnknown { path: path.clone(), what: String::new() },
            Error::Corrupt { path, what: String::new() },
            unrecognized(false),
            unrecognized(true),
            Error::Unfinished { source: Box::new(denied()), output: output.clone(), generation: 2 },
            Error::Unfinished { source: Box::new(unrecognized(true)), output: output.clone(), generation: 2 },
            Error::OutcomeUnknown { source: Box::new(denied()), output: output.clone() },
        ];
        let warnings = [
            Warning::Stays { paths: Paths::default(), all: false },
            Warning::Stays { paths: Paths::default(), all: true },
            Warning::NamesStage { stage: "stage".into(), paths: Paths::default() },
            Warning::RelativeToStage { output, paths: Paths::default() },
            Warning::LooksUnchanged { paths: Paths::default() },
        ];
        let of_library: Vec<_> =
            errors.iter().filter_map(Error::hint).chain(warnings.iter().map(Warning::hint)).collect();
        let own: Vec<_> = errors.iter().filter_map(of_error).chain(warnings.iter().map(of_warning)).collect();
        assert_eq!(of_library.len(), own.len());
        let (state, signpost) = (PathBuf::from("other/.dist.txfs"), PathBuf::from(".dist.txfs"));
        let places = [
            Misplaced::Gone { state: state.clone(), signpost: signpost.clone() },
            Misplaced::OfAnotherUser { state: state.clone(), signpost: signpost.clone() },
            Misplaced::OfAnotherOutput { state: state.clone(), signpost: signpost.clone(), other: "site".into() },
            Misplaced::LeftBehind { state: state.clone(), beside: signpost.clone() },
            Misplaced::There { state: state.clone() },
            Misplaced::OutOfReach { state, inside: signpost },
            Misplaced::InsideOutput,
        ];
        let mut messages =
            Vec::from(places.map(|why| Error::StateElsewhere { path: "dist".into(), why: Box::new(why) }));
        let shares = Box::new(AnotherUser::Shares { owner: 1, group: 2 });
        messages.push(Error::OfAnotherUser { path: "dist".into(), why: shares });
        messages.push(Error::SharedAlready { output: "dist".into(), group: 1 });
        let by_hand = Waiting::Detached { output: "dist".into(), stage: "stage".into() };
        assert!(waiting(&by_hand).contains("`txfs abort stage`"));
        let own = own.into_iter().chain(messages.iter().map(message)).chain([waiting(&by_hand)]);
        let of_library =
            of_library.into_iter().chain(messages.iter().map(Error::to_string)).chain([by_hand.to_string()]);
        for hint in own {
            assert!(!hint.contains("::"), "{hint}");
        }
        for hint in of_library {
            assert!(!hint.contains("`txfs ") && !hint.contains(" --") && !hint.starts_with("--"), "{hint}");
        }
    }
}
