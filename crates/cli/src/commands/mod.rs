//! The commands: one file each, which has its arguments, their help, and what it does.
//!
//! Invariant: no command calls another. What several do is in the rooms below them.

use std::path::PathBuf;

use clap::Subcommand;

use crate::settings::config::Config;
use crate::settings::keys::{Given, Settings};
use crate::signals::Signals;
use crate::store::context::Context;
use crate::store::stage;
use crate::talk::error::{Failure, usage};
use crate::talk::output::Ui;

mod abort;
mod begin;
mod cat;
mod commit;
mod diff;
mod export;
mod init;
mod journal;
mod log;
mod prune;
mod publish;
mod recover;
mod rollback;
mod run;
mod share;
mod status;
mod verify;
mod wait;
mod watch;

#[derive(Subcommand)]
pub(crate) enum Command {
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
    Watch(watch::WatchArgs),
    Wait(wait::WaitArgs),
}

impl Command {
    /// The output for which txfs.toml may say something.
    pub(crate) fn configured(&self) -> Result<Option<PathBuf>, Failure> {
        Ok(match self {
            Self::Begin(args) => Some(args.out().to_path_buf()),
            Self::Run(args) => Some(args.out().to_path_buf()),
            Self::Publish(args) => Some(args.out().to_path_buf()),
            Self::Rollback(args) => Some(args.out().to_path_buf()),
            Self::Diff(args) => Some(args.out().to_path_buf()),
            Self::Commit(args) => {
                let given = args.transaction();
                Some(stage::parse(given)?.map_or_else(|| given.to_path_buf(), |(output, _)| output))
            }
            _ => None,
        })
    }

    /// What the command line does not say is as the file says.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>) {
        match self {
            Self::Begin(args) => args.take(settings, given),
            Self::Commit(args) => args.take(settings, given),
            Self::Run(args) => args.take(settings, given),
            Self::Publish(args) => args.take(settings, given),
            Self::Rollback(args) => args.take(settings, given),
            Self::Diff(args) => args.take(settings, given),
            _ => {}
        }
    }

    /// Where the file says nothing of the output the command line has to.
    pub(crate) fn expect_complete(&self, ui: &Ui, config: &Config) -> Result<(), Failure> {
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

    pub(crate) fn run(&self, context: &Context) -> Result<u8, Failure> {
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
            Self::Watch(args) => watch::run(context, args),
            Self::Wait(args) => wait::run(context, args),
        }
    }

    /// What only looks, once it has recovered, may be killed at any time, and so may what discards a stage, or frees what was displaced.
    pub(crate) fn signals(&self) -> Result<Signals, Failure> {
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
            | Self::Verify(_)
            | Self::Watch(_)
            | Self::Wait(_) => Signals::handle(true),
        }
    }
}
