//! Something is removed or replaced in the middle of a commit: a way out is named, and loses nothing.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::errno::Errno;
use txfs::{BeginOptions, ErrorKind, OpenOptions, Outcome, RecoverOptions, RecoveredCommit, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::snapshot;
use txfs_testing::{publish, read, scratch, state_of};

use super::{Manner, NEW, OLD, contents, cut_short, taking_over, way_out};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Becomes {
    Gone,
    File,
    Link,
}

impl Becomes {
    fn at(self, path: &Path, elsewhere: &Path) {
        if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            fs::remove_dir_all(path).unwrap();
        }
        match self {
            Self::Gone => {}
            Self::File => fs::write(path, "a stranger's").unwrap(),
            Self::Link => symlink(elsewhere, path).unwrap(),
        }
    }
}

#[test]
fn whatever_was_removed_or_replaced_in_the_middle_of_a_commit_a_way_out_is_named_and_loses_nothing() {
    let victims = ["dist", "dist/d", "", "stage", "stage/d", "removed"];
    let all = |undoing| victims.into_iter().map(move |victim| (undoing, victim));
    for (undoing, victim) in all(false).chain(all(true)) {
        for becomes in [Becomes::Gone, Becomes::File, Becomes::Link] {
            for (undo, skip) in [(false, false), (false, true), (true, false), (true, true)] {
                // What is undone in part takes three moves.
                for moves in if undoing { &[3, 4][..] } else { &[1, 3, 4] }.iter().copied() {
                    let what =
                        format!("{victim:?} {becomes:?} undo {undo} skip {skip} undoing {undoing} after {moves}");
                    println!("{what}");
                    let (dir, out) = scratch();
                    let elsewhere = dir.path().join("elsewhere");
                    fs::create_dir(&elsewhere).unwrap();
                    fs::write(elsewhere.join("precious"), "elsewhere").unwrap();
                    let store = Store::open(&out).unwrap();
                    publish(&store, &OLD).unwrap();
                    store.sweep().unwrap();
                    drop(store);
                    fs::write(out.join("d/foreign"), "foreign").unwrap();
                    let transaction = cut_short(&out, moves, undoing);
                    let at = match victim {
                        "dist" | "dist/d" => dir.path().join(victim),
                        "" => transaction,
                        part => transaction.join(part),
                    };
                    let (all, gone) = (contents(dir.path()), contents(&at));
                    let kept: BTreeSet<_> = all.iter().filter(|content| !gone.contains(*content)).cloned().collect();
                    becomes.at(&at, &elsewhere);
                    if victim == "dist" && becomes == Becomes::Link {
                        // It leads to another output, with a store of its own.
                        fs::remove_file(&out).unwrap();
                    }
                    let recovered = way_out(&out, Manner { undo, skip });
                    let now = contents(dir.path());
                    let published = |content: &Vec<u8>| content.ends_with(b" 1") || content.ends_with(b" 2!");
                    let lost: Vec<_> =
                        kept.iter().filter(|content| published(content) && !now.contains(*content)).collect();
                    assert!(lost.is_empty(), "{what}: lost {lost:?}: {recovered:?}");
                    assert!(
                        now.contains(&b"elsewhere"[..])
                            && (victim.starts_with("dist") || now.contains(&b"foreign"[..]))
                    );
                    if victim == "dist/d" && becomes != Becomes::Gone {
                        fs::remove_file(&at).unwrap();
                    }
                    let store = Store::open(&out).unwrap();
                    let mut transaction = store.begin(BeginOptions::default()).unwrap();
                    NEW.iter().for_each(|(path, content)| transaction.write(path, content).unwrap());
                    transaction.commit(&taking_over()).unwrap_or_else(|error| panic!("{what}: {error}"));
                    for (path, content) in NEW {
                        assert_eq!(read(&out, path), content, "{what}: {path}");
                    }
                    assert_eq!(store.verify().unwrap(), [], "{what}");
                    store.sweep().unwrap();
                }
            }
        }
    }
}

/// A directory cannot be renamed, so that the commit is planned again; its directory is not empty then, because somebody put something
/// into it; and at whichever look after that the process has no descriptor left.
#[test]
fn an_error_while_a_commit_is_taken_back_never_says_unchanged_of_what_is_not() {
    let mut told = [0; 2];
    for call in ["stat", "open_dir", "open_file", "list", "read"] {
        for n in 0.. {
            let (_dir, out) = scratch();
            publish(&Store::open(&out).unwrap(), &OLD).unwrap();
            let old = snapshot(&out);
            let (failed, count) = (AtomicBool::new(false), AtomicUsize::new(0));
            let hit = Arc::new(AtomicBool::new(false));
            let met = hit.clone();
            let kernel = Faulty::new(move |asked| match asked {
                Call::Rename { directory: true, name, .. } if name == b"stale" => Some(Errno::EXDEV),
                Call::RemoveDir { name } if name == b"stale" => {
                    failed.store(true, Ordering::SeqCst);
                    Some(Errno::ENOTEMPTY)
                }
                asked => {
                    let this = failed.load(Ordering::SeqCst)
                        && *asked == Call::Read(call)
                        && count.fetch_add(1, Ordering::SeqCst) == n;
                    met.fetch_or(this, Ordering::SeqCst);
                    this.then_some(Errno::EMFILE)
                }
            });
            let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
            let error = publish(&store, &NEW).unwrap_err();
            match error.outcome() {
                Outcome::Unchanged => {
                    told[0] += 1;
                    assert_eq!(snapshot(&out), old, "{call} {n}: {error}");
                }
                _ => {
                    told[1] += 1;
                    assert_eq!(error.kind(), ErrorKind::Unknown, "{error}");
                }
            }
            drop(store);
            Store::open(&out).unwrap();
            if !hit.load(Ordering::SeqCst) {
                break;
            }
        }
    }
    assert!(told.iter().all(|told| *told > 3), "{told:?}");
}

#[test]
fn what_cannot_be_looked_at_is_not_given_up_where_it_may_have_been_begun() {
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &OLD).unwrap();
    cut_short(&out, 3, false);
    let state = state_of(&out);
    fs::rename(state.join("journal"), state.join("journal.new")).unwrap();
    let begun = Arc::new(AtomicBool::new(false));
    let arm = begun.clone();
    let kernel =
        Faulty::new(move |call| (arm.load(Ordering::SeqCst) && *call == Call::Read("stat")).then_some(Errno::EACCES));
    let store = Store::open_with(&OpenOptions::with(kernel).recover(false), &out).unwrap();
    let all = contents(out.parent().unwrap());
    begun.store(true, Ordering::SeqCst);
    for recovered in [
        store.recover(RecoverOptions::default().undo(true)),
        store.recover(RecoverOptions::default().undo(true).skip_unknown(true)),
    ] {
        let error = recovered.unwrap_err();
        assert!(!matches!(error.kind(), ErrorKind::Usage), "{error}");
    }
    begun.store(false, Ordering::SeqCst);
    assert_eq!(contents(out.parent().unwrap()), all);
    assert!(matches!(
        store.recover(RecoverOptions::default()).unwrap().commit,
        Some(RecoveredCommit::RolledForward { generation: 2, .. })
    ));
    let now = contents(out.parent().unwrap());
    for (_, content) in OLD.iter().chain(&NEW) {
        assert!(now.contains(content.as_bytes()), "{content}");
    }
}
