//! What runs after a commit: `--verify-live`, which may take it back, and `--after`.
//!
//! ```text
//! checks --> commit --> verify-live --ok--> result is printed, sweep --> after --ok--> 0
//!                            |                                             +--failed--> 9, the commit stands
//!                            +--failed--> the generation before is published again: 5
//! ```
//!
//! Invariants:
//! 1. Neither runs where nothing was published: for a dry run, or a commit without changes.
//! 2. Each runs in a process group of its own, which gets the signals that txfs gets, and is ended when its time is
//!    over.
//! 3. What did not pass is taken back also where a signal is why; and not where another commit came since.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Args;
use txfs::{BeginOptions, Committed, Error, HandedOut, Problem, Store};

use crate::publishing::changes;
use crate::publishing::checks::{ended, name_of, no_input};
use crate::publishing::options::PublishOptions;
use crate::publishing::report;
use crate::settings::keys::{Given, Settings, take};
use crate::settings::values::seconds;
use crate::signals::{Signals, Supervised};
use crate::store::context::Context;
use crate::talk::error::{self, Failure, Stands};
use crate::talk::text::reason;

/// Shared by all that publish what is new.
#[derive(Args, Clone, Default)]
pub(crate) struct Hooks {
    /// Run CMD by `sh -c` in OUT once that is published, with the variables that `--after` has; where it fails the
    /// generation before is published again, and the exit code is 5. Not run where nothing changed (repeatable)
    #[arg(long, value_name = "CMD")]
    pub(crate) verify_live: Vec<OsString>,
    /// End a `--verify-live` that takes longer: it failed then
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) verify_live_timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) after: AfterHook,
}

/// Shared by all that publish.
#[derive(Args, Clone, Default)]
pub(crate) struct AfterHook {
    /// Run CMD by `sh -c` when the commit is durable, where txfs was started (from txfs.toml: where
    /// that lies), with TXFS_OUTPUT, TXFS_GENERATION, and
    /// TXFS_CHANGES, which names a file that has the changed paths as lines of JSON. Where it fails the commit
    /// stands, and the exit code is 9. Not run where nothing changed (repeatable)
    #[arg(long, value_name = "CMD")]
    pub(crate) after: Vec<OsString>,
    /// End an `--after` that takes longer: it failed then
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) after_timeout: Option<Duration>,
    /// Where it runs, if that is not where txfs was started.
    #[arg(skip)]
    dir: Option<PathBuf>,
}

impl AfterHook {
    /// What the command line does not say is as the file says.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>) {
        if !given.has("after") {
            self.dir = Some(settings.dir.clone());
        }
        take!(settings, given; after => self.after, after_timeout => self.after_timeout);
    }

    pub(crate) fn is_any(&self) -> bool {
        !self.after.is_empty()
    }
}

impl Hooks {
    /// What the command line does not say is as the file says.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>) {
        take!(settings, given;
            verify_live => self.verify_live,
            verify_live_timeout => self.verify_live_timeout,
        );
        self.after.take(settings, given);
    }

    /// Whether there is anything to run.
    pub(crate) fn is_any(&self) -> bool {
        self.after.is_any() || !self.verify_live.is_empty()
    }

    /// Nothing but what follows any commit.
    pub(crate) fn after_alone(after: &AfterHook) -> Self {
        Self { after: after.clone(), ..Self::default() }
    }
}

/// A commit that is done, and what is to follow it.
pub(crate) struct Done<'a> {
    pub(crate) context: &'a Context,
    pub(crate) store: &'a Store,
    pub(crate) committed: &'a Committed,
    pub(crate) hooks: &'a Hooks,
    /// Whether the files were given the time of the commit.
    pub(crate) touch: bool,
    /// The message that the user gave.
    pub(crate) message: Option<&'a str>,
    pub(crate) print_number: bool,
}

impl Done<'_> {
    /// Tells of the commit, and runs what is to follow it. An error tells what became of the commit, which is no
    /// error itself.
    pub(crate) fn conclude(&self) -> Result<(), Failure> {
        report::tell(&self.context.ui, self.store, self.committed, self.message);
        let hooks = Some(self.hooks).filter(|hooks| self.committed.changed && hooks.is_any());
        let Some(hooks) = hooks else {
            report::end(self.context, self.store, self.committed, self.print_number);
            return Ok(());
        };
        let changes = self.changes();
        for check in &hooks.verify_live {
            let (output, limit) = (self.store.output(), hooks.verify_live_timeout);
            if let Err(result) = self.run(check, Some(output), limit, &changes) {
                return Err(self.take_back(name_of(check), result));
            }
        }
        report::end(self.context, self.store, self.committed, self.print_number);
        let run = |after: &OsString| {
            let result = self.run(after, hooks.after.dir.as_deref(), hooks.after.after_timeout, &changes).err()?;
            Some(format!("`{}` {result}", name_of(after)))
        };
        let failed: Vec<_> = hooks.after.after.iter().filter_map(run).collect();
        if failed.is_empty() { Ok(()) } else { Err(self.not_followed(&failed.join(", "))) }
    }

    fn run(
        &self,
        hook: &OsStr,
        dir: Option<&Path>,
        limit: Option<Duration>,
        changes: &Result<HandedOut, String>,
    ) -> Result<(), String> {
        let changes = changes.as_ref().map_err(Clone::clone)?.path();
        let mut command = Command::new("sh");
        command.arg("-c").arg(hook).env("TXFS_OUTPUT", self.store.output());
        command.env("TXFS_GENERATION", self.committed.generation.to_string()).env("TXFS_CHANGES", changes);
        if let Some(dir) = dir {
            command.current_dir(dir);
        }
        run(command, limit, &self.context.signals)
    }

    /// The file that has what the commit changed. It lies in the state directory: where txfs is killed, the next commit removes it.
    fn changes(&self) -> Result<HandedOut, String> {
        let written = self.store.hand_out(|file| {
            let mut lines = self.committed.plan.changes.iter().map(|change| changes::change_object(change).line());
            lines.try_for_each(|line| writeln!(file, "{line}"))
        });
        written.map_err(|error| format!("was not run: the file of changes cannot be written: {error}"))
    }

    fn not_followed(&self, failed: &str) -> Failure {
        let (generation, output) = (self.committed.generation, self.context.ui.name(self.store.output()));
        Failure::of_after(format!("generation {generation} of {output} is published, but {failed}"), generation).hint(
            "the commit stands: the same command publishes nothing new, and so does not run it again; run it by hand",
        )
    }

    /// What was published is not to stay.
    fn take_back(&self, check: String, result: String) -> Failure {
        let (ui, generation) = (&self.context.ui, self.committed.generation);
        let output = ui.name(self.store.output());
        let failed = format!("generation {generation} of {output} did not pass `{check}`, which {result}");
        let problem = Problem::Check { check, result };
        let refused =
            Failure::from(Error::Refused { output: self.store.output().to_path_buf(), problems: vec![problem] });
        match self.publish_what_was_before() {
            Ok(Some(again)) => {
                let (before, now) = (generation - 1, again.generation);
                let what = match before {
                    0 => format!("what it published is gone again, as generation {now}"),
                    _ => format!("generation {before} is published again, as generation {now}"),
                };
                refused.saying(format!("{failed}: {what}"), Stands::TakenBack, now)
            }
            Ok(None) => {
                let what = "another commit came since, so nothing was taken back";
                refused.saying(format!("{failed}: {what}"), Stands::Committed, generation)
            }
            Err(failure) => {
                let word = ui.word(self.store.output());
                failure
                    .because_of(&format!("{failed}, and could not be taken back: it is published"), generation)
                    .hint(format!("`txfs rollback {word}` goes back to the generation before"))
            }
        }
    }

    /// `None` where another commit came first.
    fn publish_what_was_before(&self) -> Result<Option<Committed>, Failure> {
        // The signal that ended the check is not to end this, too.
        let options = self.context.unstoppable_options();
        let store = Store::find(&options, self.store.output())?;
        let store = store.ok_or_else(|| error::failed("the state of the output is gone"))?;
        let mut transaction = store.begin(BeginOptions::default())?;
        if transaction.base() != self.committed.generation {
            transaction.abort()?;
            return Ok(None);
        }
        let before = transaction.copy_what_was_before()?;
        let message = format!("generation {} did not pass: back to generation {before}", self.committed.generation);
        let options = PublishOptions::of_an_old_generation(message, false, self.touch, false);
        let again = match transaction.commit(&options.for_library()) {
            Err(Error::BaseMoved { .. }) => return Ok(None),
            again => again?,
        };
        report::warn(&self.context.ui, &again.plan);
        report::sweep(&self.context.ui, &store);
        Ok(Some(again))
    }
}

/// Runs a hook; an error is how it failed.
fn run(mut command: Command, limit: Option<Duration>, signals: &Signals) -> Result<(), String> {
    if let Some(signal) = signals.received() {
        return Err(format!("was not run: txfs was stopped by signal {signal}"));
    }
    // Its stdout goes to stderr: ours carries data.
    command.stdout(io::stderr()).stdin(no_input()).process_group(0);
    let not_run = |error: &io::Error| format!("could not be run: {}", reason(error));
    let mut child = command.spawn().map_err(|error| not_run(&error))?;
    drop(child.stdin.take());
    match signals.supervise_group(child, limit).map_err(|error| not_run(&error))? {
        Supervised::TimedOut(limit) => Err(format!("took longer than {} s, and was ended", limit.as_secs_f64())),
        Supervised::Ended(status) if status.success() => Ok(()),
        Supervised::Ended(status) => Err(ended(status)),
    }
}
