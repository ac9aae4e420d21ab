//! Rolling forward a commit that was killed right after its commit point, or half way, beside applying it undisturbed.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use txfs::{BeginOptions, CommitOptions, OpenOptions, Store};

use crate::Place;
use crate::child;
use crate::measure::{Outcome, sync, timed};
use crate::report::{Row, head};
use crate::{tree, whole};
use txfs_testing::faulty::{Call, Faulty};

/// How the child that is to die says that it did.
const KILLED: i32 = 77;

pub(crate) fn run(place: &Place<'_>) -> Outcome<()> {
    head("recovery", "applying");
    for files in place.options.sizes(&[10_000, 100_000]) {
        let mut whole = Row::new(format!("{files} operations, none done")).bound(2.0);
        let mut half = Row::new(format!("{files} operations, half of them done")).bound(2.0);
        let scratch = place.scratch("recovery")?;
        let out = scratch.join("dist");
        whole::publish(&Store::open(&out)?, files, 1)?;
        for round in place.options.rounds(files) {
            let version = 3 * round + 2;
            rest(&out, place.dir)?;
            let applying = apply(&out, files, version)?;
            rest(&out, place.dir)?;
            whole.note(roll_forward(&out, files, version + 1, 0)?, applying);
            rest(&out, place.dir)?;
            half.note(roll_forward(&out, files, version + 2, files / 2)?, applying);
        }
        whole.print();
        half.print();
    }
    Ok(())
}

fn rest(out: &Path, dir: &Path) -> Outcome<()> {
    Store::open(out)?.sweep()?;
    sync(dir)
}

/// How long an undisturbed commit takes from its first operation on.
fn apply(out: &Path, files: usize, version: usize) -> Outcome<Duration> {
    let first = Arc::new(Mutex::new(None));
    let noted = first.clone();
    let fs = Faulty::new(move |call| {
        if is_operation(call) {
            noted.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        }
        None
    })
    .threads(2);
    replace_all(&fs, out, files, version)?;
    let first = first.lock().unwrap_or_else(PoisonError::into_inner).ok_or("nothing was applied")?;
    Ok(first.elapsed())
}

fn roll_forward(out: &Path, files: usize, version: usize, done: usize) -> Outcome<Duration> {
    let arguments = [files, version, done].map(|number| number.to_string());
    let status = child::command(child::KILLED_COMMIT)?.arg(out).args(arguments).stdin(Stdio::null()).status()?;
    if status.code() != Some(KILLED) {
        return Err(format!("a commit that was to be killed ended otherwise: {status}").into());
    }
    // Through the same layer as the undisturbed commit, for which that costs a little.
    let options = OpenOptions::with(Faulty::new(|_| None).threads(2));
    let before = Store::find(&options, out)?.ok_or("there is no store")?.head()?;
    let took = timed(|| Ok(Store::open_with(&options, out).map(drop)?))?;
    let after = Store::find(&options, out)?.ok_or("there is no store")?.head()?;
    let generations = [before, after].map(|head| head.map_or(0, |head| head.info.generation));
    if generations[0] + 1 != generations[1] {
        return Err(format!("rolling forward went from generation {} to {}", generations[0], generations[1]).into());
    }
    Ok(took)
}

/// In a process of its own: a commit that ends this process before its operation number `done`.
pub(crate) fn killed_commit(out: &Path, files: usize, version: usize, done: usize) -> Outcome<()> {
    let operations = AtomicUsize::new(0);
    let fs = Faulty::new(move |call| {
        if is_operation(call) && operations.fetch_add(1, Ordering::Relaxed) == done {
            std::process::exit(KILLED);
        }
        None
    })
    .threads(2);
    replace_all(&fs, out, files, version)
}

/// Whether a call puts a file of the tree in its place: nothing else renames one.
fn is_operation(call: &Call) -> bool {
    matches!(call, Call::Rename { name, .. } if name.starts_with(b"page-"))
}

fn replace_all(fs: &Faulty, out: &Path, files: usize, version: usize) -> Outcome<()> {
    let store = Store::open_with(&OpenOptions::with(fs.clone()), out)?;
    let mut transaction = store.begin(BeginOptions::default())?;
    tree::write_all(&transaction.stage(), files, version)?;
    transaction.commit(&CommitOptions::default())?;
    Ok(())
}
