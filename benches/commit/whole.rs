//! A whole generation: everything new, or everything replaced.

use std::path::Path;
use std::time::Duration;

use txfs::{BeginOptions, CommitOptions, Store};

use crate::Place;
use crate::measure::{Outcome, interleave, sync, timed};
use crate::report::{Row, head};
use crate::tree::{self, Content};

/// An output that was not there before.
pub(crate) fn fresh(place: &Place<'_>) -> Outcome<()> {
    head("fresh", "in place");
    for files in place.options.sizes(&[100, 1_000, 10_000, 50_000]) {
        let mut by_tool = Row::new(format!("{files} files")).bound(if files < 1_000 { 1.5 } else { 1.15 });
        let mut by_library = Row::new(format!("{files} files, by `Transaction::write`"));
        for round in place.options.rounds(files) {
            let scratch = place.scratch("fresh")?;
            // Opening makes a store once and for all.
            let tool = Store::open(scratch.join("tool"))?;
            let library = Store::open(scratch.join("library"))?;
            let [floor, tool, library] = interleave(
                round,
                [
                    &mut || timed(|| tree::write_durably(&scratch.join("floor"), files, 1, tree::in_place)),
                    &mut || timed(|| publish(&tool, files, 1)),
                    &mut || timed(|| publish_by_library(&library, files, 1)),
                ],
            )?;
            by_tool.note(tool, floor);
            by_library.note(library, floor);
        }
        by_tool.print();
        by_library.print();
    }
    Ok(())
}

/// An output in which every file changes, over and over.
pub(crate) fn replaced(place: &Place<'_>) -> Outcome<()> {
    head("replaced", "in place");
    for files in place.options.sizes(&[1_000, 10_000]) {
        let mut alone = Row::new(format!("{files} files")).bound(1.6);
        let mut swept = Row::new(format!("{files} files, and removing what the last commit displaced"));
        let mut over = Row::new(format!("{files} files; floor: overwritten, not truncated"));
        let scratch = place.scratch("replaced")?;
        let floors = ["floor", "over"].map(|name| scratch.join(name));
        floors.iter().try_for_each(|dir| tree::write_durably(dir, files, 1, tree::in_place))?;
        let store = Store::open(scratch.join("dist"))?;
        publish(&store, files, 1)?;
        for round in place.options.rounds(files) {
            let version = round + 2;
            let sweep = sweep(&store, place.dir)?;
            let [in_place, overwritten, case] = interleave(
                round,
                [
                    &mut || timed(|| tree::write_durably(&floors[0], files, version, tree::in_place)),
                    &mut || timed(|| tree::write_durably(&floors[1], files, version, tree::over)),
                    &mut || timed(|| publish(&store, files, version)),
                ],
            )?;
            alone.note(case, in_place);
            swept.note(case + sweep, in_place);
            over.note(case, overwritten);
        }
        [alone, swept, over].iter().for_each(Row::print);
    }
    Ok(())
}

/// What the next transaction would do first.
fn sweep(store: &Store, dir: &Path) -> Outcome<Duration> {
    sync(dir)?;
    timed(|| Ok(store.sweep().map(drop)?))
}

/// A tool writes to the stage.
pub(crate) fn publish(store: &Store, files: usize, version: usize) -> Outcome<()> {
    let mut transaction = store.begin(BeginOptions::default())?;
    tree::write_all(&transaction.stage(), files, version)?;
    transaction.commit(&CommitOptions::default())?;
    Ok(())
}

fn publish_by_library(store: &Store, files: usize, version: usize) -> Outcome<()> {
    let mut transaction = store.begin(BeginOptions::default())?;
    let mut content = Content::new();
    for i in 0..files {
        transaction.write(tree::name(i), content.of(files, i, version))?;
    }
    transaction.commit(&CommitOptions::default())?;
    Ok(())
}
