//! `txfs begin`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{Basis, BeginOptions, Transaction};

use super::Context;
use super::error::{DONE, Failure};
use super::output::{Object, Ui};

/// Begin a transaction and print its stage's path
///
/// The path is printed alone on stdout, and is the transaction's handle: fill that directory, then `txfs commit` or `txfs abort`
/// it. Nothing in OUT changes before the commit. The transaction stays open until then, or until the machine restarts.
#[derive(Args)]
#[command(after_help = "\
Example:
  stage=$(txfs begin dist) && {
    hugo --destination \"$stage\" && txfs commit \"$stage\" || { txfs abort \"$stage\"; false; }
  }")]
pub(super) struct BeginArgs {
    /// The directory that is published; it need not exist
    out: PathBuf,
    #[command(flatten)]
    from: FromArgs,
}

/// Shared with `run`.
#[derive(Args)]
pub(super) struct FromArgs {
    /// What the stage stands for
    #[arg(long, value_name = "WHAT", default_value = "empty")]
    from: FromChoice,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum FromChoice {
    /// The whole new generation: what is not staged is removed
    Empty,
    /// A change: what is not staged stays; see `commit --remove`
    Current,
    /// As `empty`, and the stage begins as a copy of the current generation; other commands wait while it is copied
    Copy,
}

impl FromArgs {
    pub(super) fn get(&self) -> Basis {
        match self.from {
            FromChoice::Empty => Basis::Empty,
            FromChoice::Current => Basis::Current,
            FromChoice::Copy => Basis::Copy,
        }
    }
}

/// The word for it on the command line.
pub(super) fn from_word(from: Basis) -> &'static str {
    match from {
        Basis::Empty => "empty",
        Basis::Current => "current",
        Basis::Copy => "copy",
    }
}

pub(super) fn run(context: &Context, args: &BeginArgs) -> Result<u8, Failure> {
    let store = context.make(&args.out)?;
    let transaction = store.begin(BeginOptions::default().from(args.from.get()).detached(true))?;
    let stage = transaction.stage();
    if let Err(failure) = context.signals.expect_none().and_then(|()| print(&context.ui, &transaction, &stage)) {
        // Nobody learned of the transaction, so nobody would end it.
        transaction.abort()?;
        return Err(failure);
    }
    let (output, base) = (context.ui.name(store.output()), transaction.base());
    context.ui.detail(format_args!("began a transaction on generation {base} of {output}"));
    Ok(DONE)
}

fn print(ui: &Ui, transaction: &Transaction<'_>, stage: &Path) -> Result<(), Failure> {
    let mut data = ui.data();
    if ui.json {
        let object = Object::new().path("stage", stage.as_os_str().as_bytes());
        let object = object.field("transaction", transaction.id().to_string()).field("base", transaction.base());
        data.object(object.field("from", from_word(transaction.from())))?;
    } else {
        data.raw(stage)?;
    }
    data.finish()
}
