//! Recovery beside another process that removed something: a command that the error names gets the store going again, nothing is lost,
//! and what is told is the truth.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::errno::Errno;
use txfs::{BeginOptions, CommitOptions, Error, OpenOptions, Outcome, RecoverOptions, Recovered, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::lenient;

mod beside;
mod state;
mod told;

const OLD: [(&str, &str); 5] = [("a", "a 1"), ("d/x", "x 1"), ("d/y", "y 1"), ("stale/z", "z 1"), ("w.html", "w 1")];

const NEW: [(&str, &str); 5] =
    [("a", "a 2!"), ("d/n", "n 2!"), ("d/x", "x 2!"), ("fresh/f", "f 2!"), ("w.html", "w 2!")];

fn taking_over() -> CommitOptions<'static> {
    let mut options = lenient();
    (options.adopt, options.allow_drift) = (true, true);
    options
}

/// A commit of the new tree of which nothing has an effect any more from the `moves`-th move on; with `undoing` that move fails, and it
/// ends after another.
fn cut_short(out: &Path, moves: usize, undoing: bool) -> PathBuf {
    let (seen, dead) = (AtomicUsize::new(0), AtomicBool::new(false));
    let kernel = Faulty::new(move |call| {
        if let Call::Rename { name, .. } = call
            && !name.starts_with(b"journal")
            && !name.starts_with(b"HEAD")
        {
            let number = seen.fetch_add(1, Ordering::SeqCst);
            if undoing && number == moves {
                return Some(Errno::EIO);
            }
            dead.fetch_or(number >= moves + 2 * usize::from(undoing), Ordering::SeqCst);
        }
        dead.load(Ordering::SeqCst).then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), out).unwrap();
    let mut transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
    NEW.iter().for_each(|(path, content)| transaction.write(path, content).unwrap());
    let stage = transaction.stage();
    assert_eq!(transaction.commit(&taking_over()).unwrap_err().outcome(), Outcome::Unknown);
    stage.parent().unwrap().to_path_buf()
}

/// The contents of every file below a directory.
fn contents(dir: &Path) -> BTreeSet<Vec<u8>> {
    let Ok(listed) = fs::read_dir(dir) else { return fs::read(dir).into_iter().collect() };
    let mut found = BTreeSet::new();
    for entry in listed {
        let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
        if kind.is_dir() {
            found.append(&mut contents(&path));
        } else if kind.is_file() {
            found.insert(fs::read(&path).unwrap());
        }
    }
    found
}

#[derive(Debug, Clone, Copy)]
struct Manner {
    undo: bool,
    skip: bool,
}

fn recover(out: &Path, manner: Manner) -> txfs::Result<Recovered> {
    let store = Store::open_with(&OpenOptions::default().recover(false), out)?;
    store.recover(RecoverOptions::default().undo(manner.undo).skip_unknown(manner.skip))
}

/// As the errors say.
fn way_out(out: &Path, mut manner: Manner) -> Recovered {
    let mut told = Vec::new();
    for _ in 0..3 {
        match recover(out, manner) {
            Ok(recovered) => return recovered,
            Err(error) => {
                let hint = error.hint().unwrap_or_default();
                told.push(format!("{manner:?}: {error}; {hint}"));
                match error.into_parts().1 {
                    Error::Unrecognized { .. } => {
                        assert!(hint.contains("RecoverOptions::skip_unknown") && !manner.skip, "{told:#?}");
                        manner.skip = true;
                    }
                    // Something else is where the output was: the user moves it away.
                    Error::NotAnOutput { .. } => fs::remove_file(out).unwrap(),
                    error => panic!("{told:#?}: {error:?}"),
                }
            }
        }
    }
    panic!("{told:#?}");
}
