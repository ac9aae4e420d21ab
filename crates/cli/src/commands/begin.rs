//! `txfs begin`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{Basis, BeginOptions, Transaction};

use crate::options::at::AtArgs;
use crate::options::from;
use crate::options::wait::WaitArgs;
use crate::publishing::left;
use crate::settings::keys::{Given, Settings, take};
use crate::settings::values::{FromChoice, from_word};
use crate::store::context::Context;
use crate::talk::error::{DONE, Failure, usage};
use crate::talk::json::Object;
use crate::talk::output::Ui;

/// From so many on transactions that are open, and that no process is at work on, were forgotten rather than kept.
const MANY: u64 = 3;

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

impl FromArgs {
    fn get(&self) -> Basis {
        self.from.basis()
    }
}

pub(crate) fn run(context: &Context, args: &BeginArgs) -> Result<u8, Failure> {
    if args.allow_drift && args.from.get() != Basis::Copy {
        return Err(usage("--allow-drift is for `--from copy` here: otherwise give it to `txfs commit`"));
    }
    let store = context.make(&args.out)?;
    let options = BeginOptions::default().from(args.from.get()).allow_drift(args.allow_drift).detached(true);
    let options = args.at.on(args.wait.on(context, &store, options)?);
    let transaction = store.begin(options).map_err(from::of_begin)?;
    context.ui.rescued(&store.take_rescued());
    from::warn_of_drift(&context.ui, &transaction);
    let stage = transaction.stage();
    if let Some(others) = left::others_open(&context.ui, &store, &stage, MANY) {
        context.ui.warn(others);
    }
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
