//! `txfs run`: begin, run a command, and commit what it wrote, if it succeeded and nobody wanted it to stop.
//!
//! txfs outlives its command: signals are held ([`Signals`]) until txfs ends.
//!
//! When txfs is killed its command may live on and write to a stage that nobody will publish; the next txfs command discards it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use clap::Args;
use txfs::{BeginOptions, Error, ErrorKind, Problem, Shown, Store, Transaction};

use super::begin::FromArgs;
use super::commit::{self, Done, PublishOptions, Removals, ended};
use super::error::{self, DONE, Failure, failed, killed_by};
use super::output::Ui;
use super::signals::Signals;
use super::{Context, handle};

const PLACEHOLDER: &[u8] = b"{stage}";
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Run a command and publish what it writes to the stage, if it succeeds
///
/// The command finds the stage's path in TXFS_STAGE and wherever `{stage}` stands in its arguments, and the output's in TXFS_OUTPUT.
/// When it exits with 0 the stage is committed; otherwise txfs changes nothing in OUT, and passes the command's exit status through.
/// When the commit meets a conflict the stage is kept, and txfs says how to go on.
#[derive(Args)]
#[command(after_help = "\
Examples:
  txfs run site -- mdbook build book -d {stage}
  txfs run dist -- npx vite build --outDir {stage} --emptyOutDir
  txfs run public --check 'test -s index.html' -- hugo --destination {stage}
  txfs run docs -- sh -c 'cp -r src/. \"$TXFS_STAGE\"'")]
pub(super) struct RunArgs {
    /// The directory that is published; it need not exist
    out: PathBuf,
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    publish: PublishOptions,
    #[command(flatten)]
    removals: Removals,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(super) fn run(context: &Context, args: &RunArgs) -> Result<u8, Failure> {
    attempt(context, args).map_err(Failure::of_run)
}

fn attempt(context: &Context, args: &RunArgs) -> Result<u8, Failure> {
    let store = context.make(&args.out)?;
    let mut transaction = store.begin(BeginOptions::default().from(args.from.get()))?;
    context.ui.detail(format_args!("the stage is {}", context.ui.name(&transaction.stage())));
    if let Err(failure) = build(&context.ui, &store, &transaction.stage(), &args.command, &context.signals) {
        discard(context, transaction);
        return Err(failure);
    }
    match commit::conclude(context, &store, &mut transaction, &args.publish, &args.removals) {
        Ok(Done::Committed(committed)) => commit::report(context, &store, &committed, false),
        Ok(Done::DryRun) => {
            discard(context, transaction);
        }
        Err(failure) => return Err(leave(context, &store, transaction, failure, args)),
    }
    Ok(DONE)
}

/// Runs the command; an error says why its stage is not to be published.
fn build(ui: &Ui, store: &Store, stage: &Path, words: &[OsString], signals: &Signals) -> Result<(), Failure> {
    let words: Vec<_> = words.iter().map(|word| replace_stage(word, stage)).collect();
    let Some((program, arguments)) = words.split_first() else {
        return Err(error::usage("there is no command to run"));
    };
    let (name, nothing) = (Shown(Path::new(program)), changed_nothing(ui, store));
    let mut command = Command::new(program);
    command.args(arguments).env("TXFS_STAGE", stage).env("TXFS_OUTPUT", store.output());
    if ui.json {
        // Whoever reads an object does not expect what a build says of itself before it.
        command.stdout(io::stderr());
    }
    signals.expect_none()?;
    let child = command.spawn().map_err(|error| {
        let code = if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE };
        let reason = error::reason(&error);
        Failure::with_code(code, format!("cannot run `{name}`: {reason}: {nothing}"))
    })?;
    let status = signals
        .supervise(child)
        .map_err(|error| failed(format!("cannot wait for `{name}`: {}", error::reason(&error))))?;
    match (exit_code(status), signals.received()) {
        (0, None) => expect_stage(stage).map_err(|what| failed(format!("{what}: {nothing}"))),
        (0, Some(signal)) => {
            Err(Failure::stopped(signal, format!("stopped by signal {signal}, although `{name}` finished: {nothing}")))
        }
        (code, _) => Err(Failure::of_command(code, format!("`{name}` {}: {nothing}", ended(status)))),
    }
}

/// Some tools move what they built to where they are told to write to. A stage that is gone the library tells of.
fn expect_stage(stage: &Path) -> Result<(), &'static str> {
    match stage.symlink_metadata() {
        Ok(found) if !found.is_dir() => Err("the command put something else in the place of its stage"),
        _ => Ok(()),
    }
}

/// The command itself may have written to the output, whatever txfs did.
fn changed_nothing(ui: &Ui, store: &Store) -> String {
    format!("txfs changed nothing in {}", ui.name(store.output()))
}

/// Where the next `{stage}` stands.
fn find_placeholder(word: &[u8]) -> Option<usize> {
    word.windows(PLACEHOLDER.len()).position(|window| window == PLACEHOLDER)
}

/// Every `{stage}` in an argument becomes the stage's path, byte for byte.
fn replace_stage(word: &OsStr, stage: &Path) -> OsString {
    let mut rest = word.as_bytes();
    let mut replaced = Vec::with_capacity(rest.len());
    while let Some(at) = find_placeholder(rest) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(stage.as_os_str().as_bytes());
        rest = &rest[at + PLACEHOLDER.len()..];
    }
    replaced.extend_from_slice(rest);
    OsString::from_vec(replaced)
}

fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(error::RUN_FAILED),
        (None, signal) => killed_by(signal.unwrap_or_default()),
    }
}

/// What becomes of the stage that was built and could not be committed.
fn leave(context: &Context, store: &Store, transaction: Transaction<'_>, failure: Failure, args: &RunArgs) -> Failure {
    let failure = failure.with_ways_out(|problem| way_out(problem, &args.command));
    let Some(source) = failure.source() else {
        discard(context, transaction);
        return failure;
    };
    let overtaken = matches!(source, Error::BaseMoved { .. });
    match source.kind() {
        // What stands in the way may go, and the build may have taken hours.
        ErrorKind::Conflict | ErrorKind::Busy if !args.publish.is_dry_run() => {
            let (from, stage) = (transaction.from(), transaction.stage());
            match transaction.keep() {
                Ok(_) if overtaken => {
                    failure.hint(handle::overtaken(&context.ui, store, from, &stage, "run the same command again"))
                }
                Ok(_) => failure.hint(handle::kept(&context.ui, &stage, &args.removals.again(&context.ui))),
                Err(error) => failure.hint(format!("the stage could not be kept: {error}")),
            }
        }
        // Recovery needs the stage.
        ErrorKind::Unknown => failure,
        _ => {
            let nothing = changed_nothing(&context.ui, store);
            let discarded = discard(context, transaction);
            failure.hint(if discarded { format!("the stage was discarded: {nothing}") } else { nothing })
        }
    }
}

/// What is to be done about the command: its stage may be gone when somebody reads this. `None` where the library says it well.
fn way_out(problem: &Problem, command: &[OsString]) -> Option<String> {
    Some(match problem {
        Problem::EmptyStage => wrote_no_file(command),
        Problem::CaseCollision(_) => "have the command rename one of each, or use --allow-case-collisions".to_owned(),
        Problem::UnsupportedKind(_) => {
            "have the command not make them: only files, directories and symlinks are published".to_owned()
        }
        Problem::NeedsExchange(_) => {
            "have the command give them new names, or move the output to ext4, xfs, btrfs, tmpfs or overlayfs"
                .to_owned()
        }
        _ => return None,
    })
}

fn wrote_no_file(command: &[OsString]) -> String {
    let told = command.iter().any(|word| find_placeholder(word.as_bytes()).is_some());
    let how = match told {
        true => "the command wrote no file to its stage, whose path it gets in place of {stage} and as $TXFS_STAGE",
        false => {
            "no argument contains {stage}, and the command wrote no file to its stage: put {stage} where it is told where to write, or have it write to $TXFS_STAGE"
        }
    };
    format!("{how}; if nothing is to be published, use --allow-empty")
}

/// Whether the stage is gone; says so where it is not.
fn discard(context: &Context, transaction: Transaction<'_>) -> bool {
    let discarded = transaction.abort();
    if let Err(error) = &discarded {
        context.ui.warn(format_args!("the stage could not be discarded, the next txfs command tries again: {error}"));
    }
    discarded.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_replaced_whatever_the_bytes_around_it() {
        let replace = |word: &[u8]| replace_stage(OsStr::from_bytes(word), Path::new("/s{stage}")).into_vec();
        assert_eq!(replace(b"-o={stage}/a:{stage}"), b"-o=/s{stage}/a:/s{stage}");
        assert_eq!(replace(b"\xff{stage}\xfe"), b"\xff/s{stage}\xfe");
        assert_eq!(replace(b"{stage"), b"{stage");
    }
}
