//! Publishes the toolchain's own Rust documentation (some 50,000 files) twice, and then once more with ten pages changed.
//!
//! ```sh
//! cargo run --release --example rust_docs [OUTPUT]
//! ```
//!
//! Where the toolchain came without its documentation, the sources of this crate are published instead.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use txfs::{BeginOptions, CommitOptions, Committed, Store};

fn main() -> Result<(), Box<dyn Error>> {
    let output = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/rust-docs/html"), PathBuf::from);
    if let Some(parent) = output.parent() {
        fs::create_dir_all(parent)?;
    }
    let source = documentation()?;
    println!("publishing {} to {}", source.display(), output.display());
    let store = Store::open(&output)?;

    publish(&store, "first", |stage| stage.copy_from(&source))?;
    let inode_and_times = fingerprint(store.output())?;
    let again = publish(&store, "again", |stage| stage.copy_from(&source))?;
    assert!(!again.changed, "the same content is no new generation");
    assert_eq!(inode_and_times, fingerprint(store.output())?, "and nothing in the output was touched");
    println!("  no operation, no write: every inode and change time below {} is as it was", output.display());

    let changed = publish(&store, "ten changed", |stage| {
        stage.copy_from(&source)?;
        for page in some_pages(&source, 10) {
            stage.write(&page, "changed\n")?;
        }
        Ok(())
    })?;
    changed.plan.changes.iter().take(3).for_each(|change| println!("  {} {}", change.kind.letter(), change.path));
    println!("  …");
    Ok(())
}

fn publish(
    store: &Store,
    name: &str,
    fill: impl FnOnce(&mut txfs::Transaction) -> txfs::Result<()>,
) -> txfs::Result<Committed> {
    let start = Instant::now();
    let mut transaction = store.begin(BeginOptions::default())?;
    fill(&mut transaction)?;
    let staged = start.elapsed();
    let mut options = CommitOptions::default();
    // Some names of the standard library differ only by case.
    options.allow_case_collisions = true;
    let committed = transaction.commit(&options)?;
    let summary = committed.plan.summary;
    println!(
        "{name}: generation {}, {} entries; {} added, {} changed, {} removed, {} unchanged, {} operations; staged in {:.2} s, committed in {:.2} s",
        committed.generation,
        committed.totals.entries,
        summary.added,
        summary.changed,
        summary.removed,
        summary.unchanged,
        committed.plan.operations(),
        staged.as_secs_f32(),
        (start.elapsed() - staged).as_secs_f32(),
    );
    Ok(committed)
}

fn documentation() -> Result<PathBuf, Box<dyn Error>> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output()?.stdout;
    let docs = Path::new(String::from_utf8(sysroot)?.trim()).join("share/doc/rust/html");
    Ok(if docs.is_dir() { docs } else { PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src") })
}

/// The first few pages directly in `source`.
fn some_pages(source: &Path, count: usize) -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = fs::read_dir(source.join("std"))
        .or_else(|_| fs::read_dir(source))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .filter_map(|path| path.strip_prefix(source).ok().map(Path::to_path_buf))
        .collect();
    pages.sort();
    pages.truncate(count);
    pages
}

/// Path, inode, and change time in seconds and nanoseconds.
type Fingerprint = (PathBuf, u64, i64, i64);

/// Inode and change time of every entry: a rename, a write or a change of mode would show.
fn fingerprint(dir: &Path) -> Result<Vec<Fingerprint>, Box<dyn Error>> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
        found.push((path, metadata.ino(), metadata.ctime(), metadata.ctime_nsec()));
    }
    found.sort();
    Ok(found)
}
