//! `txfs begin`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{Basis, BeginOptions, Error, Problem, Transaction};

use crate::Context;
use crate::error::{DONE, Failure, usage};
use crate::options::at::AtArgs;
use crate::options::wait::WaitArgs;
use crate::output::{Object, Ui};
use crate::settings::{Given, Settings, take};

/// Begin a transaction and print its stage's path
///
/// The path is printed alone on stdout, and is the transaction's handle: fill that directory, then `txfs commit` or `txfs abort`
/// it. Nothing in OUT changes before the commit. The transaction stays open until then, or until the machine restarts. With --wait other
/// commands with --wait wait until then, too.
#[derive(Args)]
#[command(after_help = "\
Example, for a script (`txfs run` does the same in one line):
  stage=
  trap 'txfs abort \"$stage\" 2>/dev/null || :' EXIT; trap 'exit 1' HUP INT TERM
  stage=$(txfs begin dist) && hugo --destination \"$stage\" && txfs commit \"$stage\"")]
pub(crate) struct BeginArgs {
    /// The directory that is published; it need not exist
    out: PathBuf,
    #[command(flatten)]
    from: FromArgs,
    #[command(flatten)]
    at: AtArgs,
    #[command(flatten)]
    wait: WaitArgs,
    /// With `--from copy`: begin with what lies in OUT also where somebody else changed or removed what was published
    #[arg(long)]
    allow_drift: bool,
}

impl BeginArgs {
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// What the command line does not say is as the file says.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>) {
        take!(settings, given; from => self.from.from);
        self.wait.take(settings, given);
        if self.from.from == FromChoice::Copy {
            take!(settings, given; allow_drift => self.allow_drift);
        }
    }
}

#[derive(Args)]
struct FromArgs {
    /// What the stage stands for
    #[arg(long, value_name = "WHAT", default_value = "empty")]
    from: FromChoice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FromChoice {
    /// The whole new generation: what is not staged is removed
    Empty,
    /// A change: what is not staged stays; see `commit --remove`
    Current,
    /// As `empty`, and the stage begins as a copy of the current generation; other commands wait while it is copied
    Copy,
}

impl FromArgs {
    fn get(&self) -> Basis {
        self.from.basis()
    }
}

impl FromChoice {
    pub(crate) fn basis(self) -> Basis {
        match self {
            FromChoice::Empty => Basis::Empty,
            FromChoice::Current => Basis::Current,
            FromChoice::Copy => Basis::Copy,
        }
    }
}

/// What is to be done where there is nothing to begin from as it was published.
pub(crate) fn of_begin(error: Error) -> Failure {
    Failure::from(error).with_ways_out(|problem| match problem {
        Problem::Drift(_) => Some(
            "copy what you want to keep elsewhere and publish over it with --allow-drift and without `--from copy`; or begin with what lies there by --allow-drift"
                .to_owned(),
        ),
        Problem::OutputGone => Some("publish the whole, without `--from copy`".to_owned()),
        _ => None,
    })
}

/// Says what a stage is a copy of that was never published so.
pub(crate) fn warn_of_drift(ui: &Ui, transaction: &Transaction) {
    let drift = transaction.copied_drift();
    if !drift.is_empty() {
        ui.warn(format_args!("the stage begins with what somebody else changed, and without what is gone: {drift}"));
    }
}

/// The word for it on the command line.
pub(crate) fn from_word(from: Basis) -> &'static str {
    match from {
        Basis::Empty => "empty",
        Basis::Current => "current",
        Basis::Copy => "copy",
    }
}

pub(crate) fn run(context: &Context, args: &BeginArgs) -> Result<u8, Failure> {
    if args.allow_drift && args.from.get() != Basis::Copy {
        return Err(usage("--allow-drift is for `--from copy` here: otherwise give it to `txfs commit`"));
    }
    let store = context.make(&args.out)?;
    let options = BeginOptions::default().from(args.from.get()).allow_drift(args.allow_drift).detached(true);
    let options = args.at.on(args.wait.on(context, &store, options)?);
    let transaction = store.begin(options).map_err(of_begin)?;
    context.ui.rescued(&store.take_rescued());
    warn_of_drift(&context.ui, &transaction);
    let stage = transaction.stage();
    let print = || print(&context.ui, store.output(), &transaction, &stage);
    if let Err(failure) = context.signals.expect_none().and_then(|()| print()) {
        // Nobody learned of the transaction, so nobody would end it.
        transaction.abort()?;
        return Err(failure);
    }
    let (output, base) = (context.ui.name(store.output()), transaction.base());
    context.ui.detail(format_args!("began a transaction on generation {base} of {output}"));
    Ok(DONE)
}

fn print(ui: &Ui, output: &Path, transaction: &Transaction, stage: &Path) -> Result<(), Failure> {
    let mut data = ui.data();
    if ui.json {
        let object = Object::new().output(output).path("stage", stage.as_os_str().as_bytes());
        let object = object.field("transaction", transaction.id().to_string()).field("base", transaction.base());
        let object = object.relative("at", &transaction.at());
        return ui.result(data, object.field("from", from_word(transaction.from())));
    }
    data.raw(stage)?;
    data.finish()
}
