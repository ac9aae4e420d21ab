//! What a commit does to an output, seen from outside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use tempfile::TempDir;
use txfs::{BeginOptions, CommitOptions, Committed, Store};

mod changes;
mod conflicts;
mod inodes;

/// Publishes exactly these files.
fn publish(store: &Store, files: &[(&str, &str)]) -> txfs::Result<Committed> {
    publish_with(store, files, &CommitOptions::default())
}

fn publish_with(store: &Store, files: &[(&str, &str)], options: &CommitOptions<'_>) -> txfs::Result<Committed> {
    let mut transaction = store.begin(BeginOptions::default())?;
    for (path, content) in files {
        transaction.write(path, content)?;
    }
    transaction.commit(options)
}

fn scratch() -> (TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("dist");
    (dir, out)
}
