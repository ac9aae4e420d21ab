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

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use txfs::{Barriers, BeginOptions, OpenOptions, RecoverOptions, Recovered, Shown, Store, Transaction, is_hidden};

use commands::{
    abort, begin, cat, commit, diff, export, init, journal, log, prune, publish, recover, rollback, run, share, status,
    verify,
};
use config::Config;
use error::{Failure, usage};
use options::wait;
use output::{ColorChoice, Ui};
use settings::{Given, take};
use signals::Signals;

mod commands;
mod config;
mod error;
mod group;
mod handle;
mod options;
mod output;
mod projects;
mod publishing;
mod running;
mod settings;
mod signals;
mod ways_out;

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
  9    committed, but what `--after` runs failed, or what `--verify-live` refused could not be taken back
  128 + N  stopped by signal N before anything was changed; a commit that has begun is finished
  141  nobody read stdout any more
  `run` passes its command's status through (128 + N when signal N killed it); with --json,
  \"error\":\"command\" says that the code is the command's. Its own codes are 3 to 7, 9 and
  125  txfs itself failed    126  the command cannot be executed    127  it was not found

Begin with:
  txfs run dist -- npm run build";

#[derive(Args)]
#[command(next_help_heading = "Options of every command")]
struct Global {
    /// Print data as JSON, one object per line, each with "v":1: what is listed, and last the result or the error. With -v the
    /// result of a commit comes after each path that changed. docs/reference/json.md has the fields
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
    /// Where the state of OUT is to be, on its file system: that directory if it is named like one (.txfs, .OUT.txfs), else in
    /// it. To be said once: later it is found from OUT. Unless said it is .OUT.txfs beside OUT
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Use a store that a group shares: one of another user's, whose group's members you trust with OUT, which is otherwise refused. begin,
    /// run and publish share the store with that group, or the group of OUT, if it is not yet. To be said each time by who does not own the state
    #[arg(long, global = true, value_name = "GROUP", num_args = 0..=1, require_equals = true, value_parser = group::parse)]
    #[expect(clippy::option_option, reason = "clap's way to say that an option may have a value")]
    shared: Option<Option<u32>>,
    /// Take what the command line does not say from FILE instead of txfs.toml in this directory or the next above it
    /// that has one
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "no_config")]
    config: Option<PathBuf>,
    /// Take nothing from txfs.toml; --no-touch, --no-adopt and so on take back one option that is on there
    #[arg(long, global = true)]
    no_config: bool,
    /// How a commit is made durable, for tests: chosen, whole or single
    #[arg(long, global = true, hide = true, value_name = "WAY", default_value = "chosen", value_parser = barriers)]
    barriers: Barriers,
}

#[derive(Subcommand)]
enum Command {
    Init(init::InitArgs),
    Begin(begin::BeginArgs),
    Commit(commit::CommitArgs),
    Abort(abort::AbortArgs),
    Run(run::RunArgs),
    Publish(publish::PublishArgs),
    Recover(recover::RecoverArgs),
    Rollback(rollback::RollbackArgs),
    Log(log::LogArgs),
    Cat(cat::CatArgs),
    Export(export::ExportArgs),
    Prune(prune::PruneArgs),
    Share(share::ShareArgs),
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
    state: Option<PathBuf>,
    /// Whether stores that a group shares are used, and which group.
    #[expect(clippy::option_option, reason = "as it was said")]
    shared: Option<Option<u32>>,
    barriers: Barriers,
}

/// Runs the command that the arguments name.
fn main() -> ExitCode {
    let parsed = settings::with_negations(Cli::command()).try_get_matches();
    let parsed = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (mut cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return ExitCode::from(refuse(&error)),
    };
    let Global { json, quiet, verbose, color, .. } = cli.global;
    let ui = Ui::new(json, quiet, verbose, color);
    let signals = cli.configure(&ui, &matches).and_then(|()| cli.command.signals());
    let signals = match signals {
        Ok(signals) => signals,
        Err(failure) => return ExitCode::from(failure.report(&ui)),
    };
    let Global { lock_timeout, state, shared, barriers, .. } = cli.global;
    let context = Context { ui, signals, lock_timeout, state, shared, barriers };
    let result = cli.command.run(&context);
    ExitCode::from(result.unwrap_or_else(|failure| {
        let failure = failure.of_signal(context.signals.received());
        failure.report(&context.ui)
    }))
}

impl Cli {
    /// What the command line does not say is as txfs.toml says.
    fn configure(&mut self, ui: &Ui, matches: &ArgMatches) -> Result<(), Failure> {
        let of_run = |failure: Failure| if is_run() { failure.of_run() } else { failure };
        let Some(output) = self.command.configured().map_err(of_run)? else { return Ok(()) };
        let config = match &self.global.config {
            _ if self.global.no_config => return Ok(()),
            Some(file) => Config::named(file).map(Some),
            None => Config::find(),
        };
        let Some(config) = config.map_err(of_run)? else { return Ok(()) };
        let (Some(settings), Some((_, given))) = (config.of(&output), matches.subcommand()) else {
            return self.command.expect_complete(ui, &config).map_err(of_run);
        };
        let given = &Given(given);
        take!(settings, given; state => self.global.state);
        match &mut self.command {
            Command::Begin(args) => args.take(settings, given),
            Command::Commit(args) => args.take(settings, given),
            Command::Run(args) => args.take(settings, given),
            Command::Publish(args) => args.take(settings, given),
            Command::Rollback(args) => args.take(settings, given),
            Command::Diff(args) => args.take(settings, given),
            _ => {}
        }
        Ok(())
    }
}

impl Command {
    /// The output for which txfs.toml may say something.
    fn configured(&self) -> Result<Option<PathBuf>, Failure> {
        Ok(match self {
            Self::Begin(args) => Some(args.out().to_path_buf()),
            Self::Run(args) => Some(args.out().to_path_buf()),
            Self::Publish(args) => Some(args.out().to_path_buf()),
            Self::Rollback(args) => Some(args.out().to_path_buf()),
            Self::Diff(args) => Some(args.out().to_path_buf()),
            Self::Commit(args) => {
                let given = args.transaction();
                Some(handle::parse(given)?.map_or_else(|| given.to_path_buf(), |(output, _)| output))
            }
            _ => None,
        })
    }

    /// Where the file says nothing of the output the command line has to.
    fn expect_complete(&self, ui: &Ui, config: &Config) -> Result<(), Failure> {
        let missing = match self {
            Self::Run(args) if args.has_no_command() => args.out(),
            Self::Publish(args) if !args.is_complete() => args.out(),
            _ => return Ok(()),
        };
        let (missing, file) = (ui.name(missing), ui.name(&config.file));
        let outputs: Vec<_> = config.outputs().map(|output| ui.name(output)).collect();
        let known = if outputs.is_empty() { "no output".to_owned() } else { outputs.join(", ") };
        Err(usage(format!("{file} says nothing of {missing}: it is for {known}")))
    }

    fn run(&self, context: &Context) -> Result<u8, Failure> {
        match self {
            Self::Init(args) => init::run(context, args),
            Self::Begin(args) => begin::run(context, args),
            Self::Commit(args) => commit::run(context, args),
            Self::Abort(args) => abort::run(context, args),
            Self::Run(args) => run::run(context, args),
            Self::Publish(args) => publish::run(context, args),
            Self::Recover(args) => recover::run(context, args),
            Self::Rollback(args) => rollback::run(context, args),
            Self::Log(args) => log::run(context, args),
            Self::Cat(args) => cat::run(context, args),
            Self::Export(args) => export::run(context, args),
            Self::Prune(args) => prune::run(context, args),
            Self::Share(args) => share::run(context, args),
            Self::Status(args) => status::run(context, args),
            Self::Diff(args) => diff::run(context, args),
            Self::Journal(args) => journal::run(context, args),
            Self::Verify(args) => verify::run(context, args),
        }
    }

    /// What only looks, once it has recovered, may be killed at any time, and so may what discards a stage, or frees what was displaced.
    fn signals(&self) -> Result<Signals, Failure> {
        match self {
            Self::Run(_) => Signals::forward().map_err(Failure::of_run),
            Self::Commit(args) if args.runs_any() => Signals::forward(),
            Self::Publish(args) if args.runs_any() => Signals::forward(),
            Self::Rollback(args) if args.runs_any() => Signals::forward(),
            Self::Begin(_)
            | Self::Commit(_)
            | Self::Publish(_)
            | Self::Rollback(_)
            | Self::Recover(_)
            | Self::Share(_) => Signals::handle(false),
            Self::Init(_)
            | Self::Abort(_)
            | Self::Prune(_)
            | Self::Status(_)
            | Self::Diff(_)
            | Self::Journal(_)
            | Self::Log(_)
            | Self::Cat(_)
            | Self::Export(_)
            | Self::Verify(_) => Signals::handle(true),
        }
    }
}

/// Tells of arguments that make no sense, as of any other failure, or of the help that was asked for.
fn refuse(error: &clap::Error) -> u8 {
    let text = error.render().to_string();
    // Help that nobody reads any more is no failure.
    let _ = match text.chars().any(|c| is_hidden(c) && c != '\n') {
        // What the user typed, or a script for them, is in it.
        true => io::stderr().write_all(on_lines(&text).as_bytes()),
        false => error.print(),
    };
    if !error.use_stderr() {
        return error::DONE;
    }
    let failure = Failure::of_arguments(error);
    let failure = if is_run() { failure.of_run() } else { failure };
    let json = std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json");
    failure.report_to_programs(&Ui::new(json, false, false, ColorChoice::Auto))
}

/// Text whose lines show all that they have.
fn on_lines(text: &str) -> String {
    text.lines().map(|line| Shown(Path::new(line)).to_string() + "\n").collect()
}

/// Whether the command is `run`, as far as the arguments can be read.
fn is_run() -> bool {
    let matches = Cli::command().ignore_errors(true).try_get_matches();
    matches.is_ok_and(|matches| matches.subcommand_name() == Some("run"))
}

impl Context {
    fn options(&self) -> OpenOptions {
        self.unstoppable_options().interrupted_by(self.signals.flag())
    }

    fn unstoppable_options(&self) -> OpenOptions {
        let options = OpenOptions::default().lock_timeout(self.lock_timeout).barriers(self.barriers);
        let options = options.when_waiting(self.ui.teller());
        let options = match self.shared {
            Some(group) => options.shared(group),
            None => options,
        };
        match &self.state {
            Some(dir) => options.state(dir),
            None => options,
        }
    }

    /// The recovered store of `out`; made where there is none, and shared if that was said.
    fn make(&self, out: &Path) -> Result<Store, Failure> {
        let store = self.make_as_it_is(out)?;
        match self.shared {
            Some(group) => share::share(self, store, group),
            None => Ok(store),
        }
    }

    fn make_as_it_is(&self, out: &Path) -> Result<Store, Failure> {
        handle::refuse_as_output(&self.ui, out)?;
        let store = Store::open_with(&self.options().recover(false), out)?;
        self.recover(&store)?;
        status::warn_of_weaknesses(&self.ui, &store);
        Ok(store)
    }

    /// As [`Context::make`], and whether the store was made just now for a dry run, which is to leave nothing behind.
    fn make_for(&self, out: &Path, dry_run: bool) -> Result<(Store, bool), Failure> {
        let is_made = dry_run && self.open(&self.options(), out)?.is_none();
        Ok((if dry_run { self.make_as_it_is(out)? } else { self.make(out)? }, is_made))
    }

    /// Takes away again what was made for a dry run.
    fn unmake(&self, store: Store) {
        let state = self.ui.name(store.state());
        if let Err(error) = store.remove_unused() {
            self.ui.warn(format_args!("{state} was made for the dry run and is left: {error}"));
        }
    }

    /// The canonical path of an output that need not be there.
    fn locate(&self, out: &Path) -> Result<PathBuf, Failure> {
        Ok(Store::locate(&self.options(), out)?)
    }

    /// The store of `out`, as it is; `None` when txfs has nothing there.
    fn open(&self, options: &OpenOptions, out: &Path) -> Result<Option<Store>, Failure> {
        handle::refuse_as_output(&self.ui, out)?;
        Ok(Store::find(options, out)?)
    }

    /// The recovered store of `out`, for commands that make no sense without one.
    fn expect(&self, out: &Path) -> Result<Store, Failure> {
        let Some(store) = self.find(out)? else {
            let name = self.ui.word(out);
            return Err(usage(nothing_published(&self.ui, out)).hint(format!(
                "`txfs publish {name} DIR` publishes a directory, `txfs begin {name}` begins a transaction"
            )));
        };
        Ok(store)
    }

    /// The recovered store of `out`; `None` when txfs has nothing there.
    fn find(&self, out: &Path) -> Result<Option<Store>, Failure> {
        let Some(store) = self.open(&self.options(), out)? else { return Ok(None) };
        self.recover(&store)?;
        Ok(Some(store))
    }

    /// Begins a transaction, and tells of what was moved aside by that: nobody may ever commit it.
    fn begin(&self, store: &Store, options: BeginOptions) -> Result<Transaction, Failure> {
        let transaction = store.begin(options)?;
        self.ui.rescued(&store.take_rescued());
        Ok(transaction)
    }

    fn recover(&self, store: &Store) -> Result<Recovered, Failure> {
        let recovered = self.signals.hold_during(|| store.recover(RecoverOptions::default().unless_busy(true)))?;
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

/// How long to wait for other builds: seconds, or without an end.
fn limit(text: &str) -> Result<Duration, String> {
    if text == wait::FOREVER { Ok(Duration::MAX) } else { seconds(text) }
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
