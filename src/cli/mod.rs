//! The command `txfs`: one file per command, on the library's public API alone.
//!
//! Invariants:
//! 1. stdout carries data only, stderr carries talk; a closed pipe is no reason to panic on either.
//! 2. Every command that names an output recovers it first and says in one line what that did ([`Context::recover`]); only
//!    `journal`, which shows what is there, does not.
//! 3. Every error becomes an exit code in one place, [`error`].
//! 4. No signal but KILL ends a command while it changes something ([`signals`]).
//!
//! A command that is killed leaves what the library leaves: the next command recovers it.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use txfs::{Barriers, OpenOptions, Recovered, Store};

use error::{Failure, usage};
use output::{ColorChoice, Ui};
use signals::Signals;

mod abort;
mod begin;
mod commit;
mod diff;
mod error;
mod handle;
mod journal;
mod output;
mod publish;
mod recover;
mod rollback;
mod run;
mod signals;
mod status;
mod verify;

/// Crash-safe, all-or-nothing publication of a directory tree.
///
/// A build writes into a private stage; one commit makes it the published generation, all at once or not at all. Whatever
/// interrupts a commit, the next txfs command on that output repairs it.
#[derive(Parser)]
#[command(name = "txfs", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed, the output is unchanged
  2    usage
  3    busy: another process holds the lock
  4    conflict: another commit came first, entries that txfs did not publish are in the way, or
       published ones were changed or are gone; `verify` found differences
  5    refused by a guard or a check
  6    the state directory is damaged or not trusted
  7    the outcome is unknown until `txfs recover` has run
  8    `diff --exit-code` found changes
  128 + N  stopped by signal N before anything was changed; a commit that has begun is finished
  141  nobody read stdout any more
  `run` passes its command's status through (128 + N when signal N killed it); with --json,
  \"error\":\"command\" says that the code is the command's. Its own codes are 3 to 7 and
  125  txfs itself failed    126  the command cannot be executed    127  it was not found

Begin with:
  txfs run dist -- npm run build -- --outDir {stage}";

#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// Print data as JSON, one object per line, each with "v":1
    #[arg(long, global = true)]
    json: bool,
    /// Say nothing but errors and warnings on stderr
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Say more
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Use colour: auto, always or never; NO_COLOR is honoured
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    color: ColorChoice,
    /// How long to wait for a lock that another process holds
    #[arg(long, global = true, value_name = "SECONDS", default_value = "10", value_parser = seconds, allow_negative_numbers = true)]
    lock_timeout: Duration,
    /// How a commit is made durable, for tests: chosen, whole or single
    #[arg(long, global = true, hide = true, value_name = "WAY", default_value = "chosen", value_parser = barriers)]
    barriers: Barriers,
}

#[derive(Subcommand)]
enum Command {
    Begin(begin::BeginArgs),
    Commit(commit::CommitArgs),
    Abort(abort::AbortArgs),
    Run(run::RunArgs),
    Publish(publish::PublishArgs),
    Recover(recover::RecoverArgs),
    Rollback(rollback::RollbackArgs),
    Status(status::StatusArgs),
    Diff(diff::DiffArgs),
    Journal(journal::JournalArgs),
    Verify(verify::VerifyArgs),
}

/// What every command is given.
struct Context {
    ui: Ui,
    signals: Signals,
    lock_timeout: Duration,
    barriers: Barriers,
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(refuse(&error)),
    };
    let Global { json, quiet, verbose, color, lock_timeout, barriers } = cli.global;
    let ui = Ui::new(json, quiet, verbose, color);
    let signals = match cli.command.signals() {
        Ok(signals) => signals,
        Err(failure) => return ExitCode::from(failure.report(&ui)),
    };
    let context = Context { ui, signals, lock_timeout, barriers };
    let result = cli.command.run(&context);
    ExitCode::from(result.unwrap_or_else(|failure| {
        let failure = failure.of_signal(context.signals.received());
        failure.report(&context.ui)
    }))
}

impl Command {
    fn run(&self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Begin(args) => begin::run(context, args),
            Self::Commit(args) => commit::run(context, args),
            Self::Abort(args) => abort::run(context, args),
            Self::Run(args) => run::run(context, args),
            Self::Publish(args) => publish::run(context, args),
            Self::Recover(args) => recover::run(context, args),
            Self::Rollback(args) => rollback::run(context, args),
            Self::Status(args) => status::run(context, args),
            Self::Diff(args) => diff::run(context, args),
            Self::Journal(args) => journal::run(context, args),
            Self::Verify(args) => verify::run(context, args),
        }
    }

    /// What only looks, once it has recovered, may be killed at any time, and so may what discards a stage.
    fn signals(&self) -> Result<Signals, Failure> {
        match self {
            Self::Run(_) => Signals::forward().map_err(Failure::of_run),
            Self::Commit(args) if args.has_checks() => Signals::forward(),
            Self::Publish(args) if args.has_checks() => Signals::forward(),
            Self::Begin(_) | Self::Commit(_) | Self::Publish(_) | Self::Rollback(_) | Self::Recover(_) => {
                Signals::handle(false)
            }
            Self::Abort(_) | Self::Status(_) | Self::Diff(_) | Self::Journal(_) | Self::Verify(_) => {
                Signals::handle(true)
            }
        }
    }
}

/// Tells of arguments that make no sense, as of any other failure, or of the help that was asked for.
fn refuse(error: &clap::Error) -> u8 {
    // Help that nobody reads any more is no failure.
    let _ = error.print();
    if !error.use_stderr() {
        return error::DONE;
    }
    let failure = Failure::of_arguments(error);
    let failure = if is_run() { failure.of_run() } else { failure };
    let json = std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json");
    failure.report_to_programs(&Ui::new(json, false, false, ColorChoice::Auto))
}

/// Whether the command is `run`, as far as the arguments can be read.
fn is_run() -> bool {
    let matches = Cli::command().ignore_errors(true).try_get_matches();
    matches.is_ok_and(|matches| matches.subcommand_name() == Some("run"))
}

impl Context {
    fn options(&self) -> OpenOptions {
        OpenOptions::with(self.signals.fs()).lock_timeout(self.lock_timeout).barriers(self.barriers)
    }

    /// The recovered store of `out`; made where there is none.
    fn make(&self, out: &Path) -> Result<Store, Failure> {
        handle::refuse_as_output(&self.ui, out)?;
        let store = Store::make(&self.options(), out)?;
        self.recover(&store)?;
        Ok(store)
    }

    /// The store of `out`, as it is; `None` when txfs has nothing there.
    fn open(&self, options: &OpenOptions, out: &Path) -> Result<Option<Store>, Failure> {
        handle::refuse_as_output(&self.ui, out)?;
        Ok(Store::find(options, out)?)
    }

    /// The recovered store of `out`, for commands that make no sense without one.
    fn expect(&self, out: &Path) -> Result<Store, Failure> {
        let Some(store) = self.open(&self.options(), out)? else {
            let name = self.ui.word(out);
            return Err(usage(nothing_published(&self.ui, out)).hint(format!(
                "`txfs publish {name} DIR` publishes a directory, `txfs begin {name}` begins a transaction"
            )));
        };
        self.recover(&store)?;
        Ok(store)
    }

    fn recover(&self, store: &Store) -> Result<Recovered, Failure> {
        let recovered = self.signals.hold_during(|| store.recover())?;
        recover::tell(&self.ui, store, &recovered);
        self.signals.expect_none_held_back()?;
        Ok(recovered)
    }
}

fn nothing_published(ui: &Ui, out: &Path) -> String {
    format!("nothing has been published to {} by txfs", ui.name(out))
}

/// Seconds, with or without a fraction.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if seconds >= 0.0 => {
            Duration::try_from_secs_f64(seconds).map_err(|_| "this is longer than txfs can wait".to_owned())
        }
        _ => Err("this is not a number of seconds".to_owned()),
    }
}

fn barriers(text: &str) -> Result<Barriers, String> {
    match text {
        "chosen" => Ok(Barriers::Chosen),
        "whole" => Ok(Barriers::Whole),
        "single" => Ok(Barriers::Single),
        _ => Err("this is not one of chosen, whole, single".to_owned()),
    }
}

/// `1 file`, `2 files`.
fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seconds_may_have_a_fraction_but_no_sign() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(seconds("-1").is_err() && seconds("soon").is_err() && seconds("inf").is_err());
    }
}
