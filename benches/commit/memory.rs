//! The memory that a process takes for a commit, by the paths of the tree.

use std::path::Path;

use txfs::{Basis, BeginOptions, CommitOptions, Store};

use crate::Place;
use crate::child;
use crate::measure::{Outcome, output};
use crate::report::mark;
use crate::tree::{self, Change, Content};
use crate::whole;

/// What any process may take, whatever the tree.
const FIXED: f64 = (32 << 20) as f64;
/// What it may take for each path beyond that.
const BOUND: f64 = 300.0;

/// The commits that are made one after the other, each in a process of its own.
const COMMITS: [&str; 4] = ["fresh", "replaced", "unchanged", "change"];

pub(crate) fn run(place: &Place<'_>) -> Outcome<()> {
    println!("| memory, bytes | peak | each path | each path beyond 32 MiB | bound |");
    println!("|---|---:|---:|---:|---:|");
    let mut sizes = place.options.sizes(&[10_000, 100_000]);
    sizes.extend(place.options.million.then_some(1_000_000));
    for files in sizes {
        let scratch = place.scratch("memory")?;
        let out = scratch.join("dist");
        for kind in COMMITS {
            let peak = output(child::command(child::MEMORY)?.arg(&out).args([kind, &files.to_string()]))?;
            print(kind, files, peak.parse()?);
        }
    }
    Ok(())
}

fn print(kind: &str, files: usize, peak: f64) {
    let each = |bytes: f64| bytes / files as f64;
    let beyond = each((peak - FIXED).max(0.0));
    println!(
        "| {kind}, {files} files | {peak:.0} | {:.0} | {beyond:.0} | {BOUND:.0}{} |",
        each(peak),
        mark(beyond, BOUND)
    );
}

/// In a process of its own: commits, and prints the most memory that this process ever had.
pub(crate) fn commit(out: &Path, kind: &str, files: usize) -> Outcome<()> {
    let store = Store::open(out)?;
    match kind {
        "fresh" => whole::publish(&store, files, 1)?,
        "change" => change(&store, files)?,
        // Unchanged is the same once more.
        _ => whole::publish(&store, files, 2)?,
    }
    println!("{}", peak()?);
    Ok(())
}

fn change(store: &Store, files: usize) -> Outcome<()> {
    let mut transaction = store.begin(BeginOptions::default().from(Basis::Current))?;
    let mut content = Content::new();
    for i in (Change { files, changed: 10, removed: 0 }).changed() {
        transaction.write(tree::name(i), content.of(files, i, 3))?;
    }
    transaction.commit(&CommitOptions::default())?;
    Ok(())
}

/// The most memory that this process ever had, in bytes.
fn peak() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("the kernel does not say the peak")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes << 10)
}
