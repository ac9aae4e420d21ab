//! A small change to a large tree, staged alone; and the CPU time that the command takes for it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use txfs::{Basis, BeginOptions, CommitOptions, Store};

use crate::Place;
use crate::child::TXFS;
use crate::measure::{Outcome, children_cpu, interleave, ms, output, timed};
use crate::report::{Row, head, plain, plain_head};
use crate::tree::{self, Change, Content};
use crate::whole;

const REMOVED: usize = 5;
const MILLION: usize = 1_000_000;

/// By the library.
pub(crate) fn library(place: &Place<'_>) -> Outcome<()> {
    head("change", "in place");
    for files in place.options.sizes(&[10_000]) {
        for changed in [10, 100] {
            few(place, Change { files, changed, removed: REMOVED })?;
        }
    }
    if place.options.million { million(place) } else { Ok(()) }
}

fn few(place: &Place<'_>, change: Change) -> Outcome<()> {
    let Change { files, changed, removed } = change;
    let name = format!("{changed} of {files} changed, {removed} removed");
    let mut alone = Row::new(format!("{name}: the commit")).bound(1.5);
    let mut whole = Row::new(format!("{name}: begin, write and commit"));
    let mut over = Row::new(format!("{name}: the commit; floor: overwritten, not truncated"));
    let scratch = place.scratch("change")?;
    let floors = ["floor", "over"].map(|name| scratch.join(name));
    floors.iter().try_for_each(|dir| tree::write_all(dir, files, 0))?;
    let store = Store::open(scratch.join("dist"))?;
    whole::publish(&store, files, 0)?;
    for round in place.options.short_rounds().take(change.rounds()) {
        store.sweep()?;
        let mut staging = Duration::ZERO;
        let [in_place, overwritten, commit] = interleave(
            round,
            [
                &mut || timed(|| change.make(&floors[0], round, round + 1, tree::in_place)),
                &mut || timed(|| change.make(&floors[1], round, round + 1, tree::over)),
                &mut || {
                    let took = publish(&store, change, round)?;
                    staging = took.staging;
                    Ok(took.commit)
                },
            ],
        )?;
        alone.note(commit, in_place);
        whole.note(staging + commit, in_place);
        over.note(commit, overwritten);
    }
    [alone, whole, over].iter().for_each(Row::print);
    Ok(())
}

/// What a change costs in a tree of a million files, beside what it costs in one of ten thousand.
fn million(place: &Place<'_>) -> Outcome<()> {
    let scratch = place.scratch("million")?;
    let changes = [10_000, MILLION].map(|files| Change { files, changed: 10, removed: REMOVED });
    let small = Store::open(scratch.join("small"))?;
    let large = Store::open(scratch.join("large"))?;
    whole::publish(&small, changes[0].files, 0)?;
    whole::publish(&large, changes[1].files, 0)?;
    println!();
    head("change", "of 10000");
    let mut row = Row::new("10 of 1000000 changed, 5 removed: the commit").bound(1.5);
    for round in place.options.short_rounds() {
        small.sweep()?;
        large.sweep()?;
        let [of_few, of_many] = interleave(
            round,
            [&mut || Ok(publish(&small, changes[0], round)?.commit), &mut || {
                Ok(publish(&large, changes[1], round)?.commit)
            }],
        )?;
        row.note(of_many, of_few);
    }
    row.print();
    Ok(())
}

struct Took {
    staging: Duration,
    commit: Duration,
}

fn publish(store: &Store, change: Change, round: usize) -> Outcome<Took> {
    let start = Instant::now();
    let mut transaction = store.begin(BeginOptions::default().from(Basis::Current))?;
    let mut content = Content::new();
    for i in change.changed() {
        transaction.write(tree::name(i), content.of(change.files, i, round + 1))?;
    }
    for i in change.removed(round) {
        transaction.remove(tree::name(i))?;
    }
    let staging = start.elapsed();
    let commit = timed(|| Ok(transaction.commit(&CommitOptions::default()).map(drop)?))?;
    Ok(Took { staging, commit })
}

/// The CPU time of the command: of a small change, from the start of the first process to the end of the last, and of a look at
/// a store at rest.
pub(crate) fn command(place: &Place<'_>) -> Outcome<()> {
    plain_head("CPU time, ms");
    for files in place.options.sizes(&[10_000]) {
        let change = Change { files, changed: 10, removed: 0 };
        let scratch = place.scratch("command")?;
        let out = scratch.join("dist");
        whole::publish(&Store::open(&out)?, files, 0)?;
        let (mut commits, mut looks) = (Vec::new(), Vec::new());
        for round in place.options.short_rounds() {
            commits.push(ms(cpu(|| publish_by_command(&out, change, round + 1))?));
            looks.push(ms(cpu(|| output(Command::new(TXFS).arg("status").arg(&out)).map(drop))?));
        }
        plain(&format!("`begin --from current` and `commit`, 10 of {files} changed"), &commits, Some(10.0));
        plain(&format!("`status`, {files} files"), &looks, Some(2.0));
    }
    Ok(())
}

fn cpu(run: impl FnOnce() -> Outcome<()>) -> Outcome<Duration> {
    let before = children_cpu()?;
    run()?;
    Ok(children_cpu()?.saturating_sub(before))
}

fn publish_by_command(out: &Path, change: Change, version: usize) -> Outcome<()> {
    let stage = output(Command::new(TXFS).arg("begin").arg(out).args(["--from", "current"]))?;
    let mut content = Content::new();
    for i in change.changed() {
        let file = Path::new(&stage).join(tree::name(i));
        fs::create_dir_all(file.parent().ok_or("a file of the stage is in a directory")?)?;
        fs::write(file, content.of(change.files, i, version))?;
    }
    output(Command::new(TXFS).args(["commit", &stage])).map(drop)
}
