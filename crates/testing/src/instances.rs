//! The engine, compiled once for the file systems that tests use: a test program that finds an instance here makes none of its own.

use std::path::Path;

use txfs::fs::{Fs, LinuxFs};
use txfs::{BeginOptions, CommitOptions, OpenOptions, RecoverOptions, Result, Store};

use crate::faulty::Faulty;

/// Calls every entry point of the engine, so that the compiler makes an instance of it. Nobody runs it.
fn everything<F: Fs>(options: &OpenOptions<F>, out: &Path) -> Result<()> {
    Store::open_with(&options.clone().recover(false), out)?;
    let store = Store::open_with(options, out)?;
    Store::find(options, out)?;
    store.recover(RecoverOptions::default())?;
    store.sweep()?;
    store.head()?;
    store.verify()?;
    store.journals()?;
    let commit = CommitOptions::default();
    let _ = store.preview(out, &commit)?;
    for open in store.transactions()? {
        store.resume(open.id)?.abort()?;
    }
    let mut transaction = store.begin(BeginOptions::default())?;
    transaction.create(out)?.finish()?;
    transaction.copy_from(out)?;
    transaction.copy_differing_from(out)?;
    transaction.copy_previous()?;
    let _ = transaction.plan(&commit)?;
    transaction.commit(&commit)?;
    transaction.keep()?;
    Ok(())
}

pub fn on_linux(options: &OpenOptions<LinuxFs>, out: &Path) -> Result<()> {
    everything(options, out)
}

pub fn on_faulty(options: &OpenOptions<Faulty>, out: &Path) -> Result<()> {
    everything(options, out)
}
