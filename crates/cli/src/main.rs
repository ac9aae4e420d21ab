//! The command `txfs`, on the library's public API alone.
//!
//! From the top down, and no circle among them:
//!
//! - here the arguments are parsed, `txfs.toml` fills in what they do not say, and the command runs;
//! - [`commands`]: one file per command;
//! - [`running`]: what `txfs run` runs; [`publishing`]: what all have in common that publish; [`options`]: those of several commands;
//! - [`store`]: how a command comes to the recovered store of its output, and what is said of it then;
//! - [`settings`]: `txfs.toml`, and what the values of options and keys mean;
//! - [`signals`];
//! - [`talk`]: data on stdout, talk on stderr, errors and the ways out of them.
//!
//! Invariants:
//! 1. stdout carries data only, stderr carries talk; a closed pipe is no reason to panic on either.
//! 2. Every command that names an output recovers it first and says in one line what that did ([`Context::recover`]); only
//!    `journal`, which shows what is there, does not.
//! 3. Every error becomes an exit code in one place, [`talk::error`].
//! 4. No signal but KILL ends a command while it changes something ([`signals`]).
//!
//! A command that is killed leaves what the library leaves: the next command recovers it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser};
use txfs::{Barriers, Shown, is_hidden};

use commands::Command;
use settings::config::Config;
use settings::keys::{Given, take};
use settings::values::seconds;
use store::context::Context;
use store::group;
use talk::error::{self, Failure};
use talk::output::{ColorChoice, Ui};

mod commands;
mod options;
mod publishing;
mod running;
mod settings;
mod signals;
mod store;
mod talk;

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

/// Runs the command that the arguments name.
fn main() -> ExitCode {
    let parsed = settings::keys::with_negations(Cli::command()).try_get_matches();
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
        Err(failure) => return ExitCode::from(ui.fail(&failure)),
    };
    let Global { lock_timeout, state, shared, barriers, .. } = cli.global;
    let context = Context { ui, signals, lock_timeout, state, shared, barriers };
    let result = cli.command.run(&context);
    ExitCode::from(result.unwrap_or_else(|failure| {
        let failure = failure.of_signal(context.signals.received());
        context.ui.fail(&failure)
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
        self.command.take(settings, given);
        Ok(())
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
    Ui::new(json, false, false, ColorChoice::Auto).fail_for_programs(&failure)
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

fn barriers(text: &str) -> Result<Barriers, String> {
    match text {
        "chosen" => Ok(Barriers::Chosen),
        "whole" => Ok(Barriers::Whole),
        "single" => Ok(Barriers::Single),
        _ => Err("this is not one of chosen, whole, single".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
