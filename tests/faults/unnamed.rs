//! A commit whose journal has not got its name: recovery carries it out if the medium has all that it names, and else discards it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use txfs::{BeginOptions, Error, OpenOptions, Outcome, RecoverOptions, RecoveredCommit, Store, Transaction};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::tree::snapshot;
use txfs_testing::{change_a_byte, lenient, read, scratch, state_of};

use super::{
    Medium, OF_A_COMMIT, assert_taken_back, cut_short, expected, fill, first, ino, left, noting, nth, publish_old,
    recovers_to,
};

/// A commit of which everything is durable, and whose process dies before its journal has its name.
fn leave_intent(out: &Path, fill: impl FnOnce(&mut Transaction<Faulty>)) -> PathBuf {
    let dead = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| {
        dead.fetch_or(matches!(call, Call::Rename { name, .. } if name == b"journal.new"), Ordering::SeqCst);
        dead.load(Ordering::SeqCst).then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&mut transaction);
    assert_eq!(transaction.commit(&lenient()).unwrap_err().outcome(), Outcome::Unknown);
    assert_eq!(left(out, &OF_A_COMMIT), ["journal.new", "HEAD.new"]);
    transaction.stage()
}

#[test]
fn a_commit_whose_journal_has_no_name_is_carried_out_when_all_of_it_is_on_the_medium() {
    let [old, new] = expected();
    // The first generation is the stage itself, moved as one.
    for first in [false, true] {
        for medium in [Medium::Whole, Medium::Lacks] {
            let what = format!("first: {first}, {medium:?}");
            let (_dir, out) = scratch();
            if !first {
                publish_old(&Store::open(&out).unwrap());
            }
            let stage = leave_intent(&out, fill);
            if medium == Medium::Lacks {
                change_a_byte(&stage.join("fresh/y"));
            }
            let expected = match medium {
                Medium::Whole => &new,
                Medium::Lacks if first => &BTreeMap::new(),
                Medium::Lacks => &old,
            };
            recovers_to(&out, expected, &what);
        }
    }
}

#[test]
fn a_commit_whose_journal_has_no_name_is_discarded_when_what_it_appended_to_the_manifest_is_not_on_the_medium() {
    for damaged in ["nothing", "a leaf", "the root"] {
        let (_dir, out) = scratch();
        let fill = |content: &str, transaction: &mut Transaction<Faulty>| {
            (0..2000).for_each(|n| transaction.write(format!("{n:04}"), "same").unwrap());
            transaction.write("1000", content).unwrap();
        };
        let store = Store::open_with(&OpenOptions::with(Faulty::new(|_| None)), &out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fill("old", &mut transaction);
        transaction.commit(&lenient()).unwrap();
        store.recover(RecoverOptions::default()).unwrap();
        let manifest = state_of(&out).join("manifests/1");
        let before = fs::metadata(&manifest).unwrap().len();
        leave_intent(&out, |transaction| fill("new!", transaction));
        assert_eq!(fs::read_dir(manifest.parent().unwrap()).unwrap().count(), 1, "it was appended to");
        let mut bytes = fs::read(&manifest).unwrap();
        match damaged {
            // What is appended begins at a block of its own, and the root comes last.
            "a leaf" => bytes[before.next_multiple_of(4096) as usize] ^= 1,
            "the root" => *bytes.last_mut().unwrap() ^= 1,
            _ => {}
        }
        fs::write(&manifest, bytes).unwrap();
        let store = Store::open(&out).unwrap();
        let (generation, content) = if damaged == "nothing" { (2, "new!") } else { (1, "old") };
        assert_eq!(store.head().unwrap().unwrap().info.generation, generation, "{damaged}");
        assert_eq!(read(&out, "1000"), content, "{damaged}");
        assert!(store.verify().unwrap().is_empty(), "{damaged}");
    }
}

/// The calls of a recovery that meets no error.
fn recovering(out: &Path) -> Vec<Call> {
    let (kernel, arm, calls) = noting(usize::MAX, |_| true);
    let store = Store::open_with(&OpenOptions::with(kernel).recover(false), out).unwrap();
    arm.store(true, Ordering::SeqCst);
    store.recover(RecoverOptions::default()).unwrap();
    arm.store(false, Ordering::SeqCst);
    std::mem::take(&mut *calls.lock().unwrap())
}

#[test]
fn recovery_reads_all_that_a_journal_without_its_name_names_from_the_medium_before_it_acts() {
    let (_dir, out) = scratch();
    publish_old(&Store::open(&out).unwrap());
    let stage = leave_intent(&out, fill);
    let state = state_of(&out);
    let own = ["journal.new", "manifests/2"].map(|name| ino(&state.join(name)));
    let staged = ["a", "b", "fresh/y", "z.html"].map(|path| ino(&stage.join(path)));
    let calls = recovering(&out);
    let acts = first(&calls, |call| matches!(call, Call::Rename { .. } | Call::RemoveFile { .. }));
    let synced = first(&calls, |call| *call == Call::SyncFs);
    for ino in own.into_iter().chain(staged) {
        let read = first(&calls, |call| *call == Call::DropCached { ino });
        assert!(synced < read && read < acts, "what is dirty goes to the medium, and is read from there: {calls:?}");
    }
}

#[test]
fn what_is_no_commit_is_durably_gone_before_its_stage_goes() {
    let (_dir, out) = scratch();
    publish_old(&Store::open(&out).unwrap());
    leave_intent(&out, fill);
    let journal = state_of(&out).join("journal.new");
    let whole = fs::read(&journal).unwrap();
    fs::write(&journal, &whole[..whole.len() - 1]).unwrap();
    let calls = recovering(&out);
    ["HEAD.new", "meta"].iter().for_each(|then| assert_taken_back(&calls, &out, then));
}

#[test]
fn an_undoing_is_durably_intended_before_recovery_goes_on_with_it() {
    let (_dir, out) = scratch();
    publish_old(&Store::open(&out).unwrap());
    cut_short(&out, BeginOptions::default(), 2, true);
    let calls = recovering(&out);
    let confirmed = first(&calls, |call| *call == Call::SyncDir { ino: ino(&state_of(&out)) });
    assert!(confirmed < first(&calls, |call| matches!(call, Call::Rename { .. })), "{calls:?}");
}

#[test]
fn what_cannot_be_read_is_no_reason_to_discard_a_commit() {
    let [_, new] = expected();
    let mut failed = 0;
    for call in ["stat", "open_dir", "list", "read", "past the cache"] {
        for n in 0.. {
            let (_dir, out) = scratch();
            publish_old(&Store::open(&out).unwrap());
            leave_intent(&out, fill);
            let is_this = move |asked: &Call| match asked {
                Call::DropCached { .. } => call == "past the cache",
                asked => *asked == Call::Read(call),
            };
            let (kernel, arm) = nth(n, is_this, Errno::EIO);
            let store = Store::open_with(&OpenOptions::with(kernel).recover(false), &out).unwrap();
            arm.store(true, Ordering::SeqCst);
            let recovered = store.recover(RecoverOptions::default());
            arm.store(false, Ordering::SeqCst);
            failed += usize::from(recovered.is_err());
            recovers_to(&out, &new, &format!("{call} {n}: {recovered:?}"));
            if recovered.is_ok_and(|recovered| recovered.warnings.is_empty()) {
                break;
            }
        }
    }
    assert!(failed > 20, "{failed}");
}

#[test]
fn a_commit_that_cannot_be_read_and_has_not_begun_is_given_up_by_undoing_alone() {
    let [old, new] = expected();
    for undo in [false, true] {
        let (_dir, out) = scratch();
        publish_old(&Store::open(&out).unwrap());
        leave_intent(&out, fill);
        let kernel = Faulty::new(|call| matches!(call, Call::DropCached { .. }).then_some(Errno::EIO));
        let store = Store::open_with(&OpenOptions::with(kernel).recover(false), &out).unwrap();
        for options in [RecoverOptions::default(), RecoverOptions::default().skip_unknown(true)] {
            let refused = store.recover(options);
            // Nothing was moved, but a directory may have been opened.
            assert!(matches!(refused, Err(Error::OutcomeUnknown { .. })), "{refused:?}");
            assert_eq!((left(&out, &["journal.new"]), snapshot(&out)), (vec!["journal.new"], old.clone()));
        }
        if undo {
            assert_eq!(
                store.recover(RecoverOptions::default().undo(true)).unwrap().commit,
                Some(RecoveredCommit::Discarded)
            );
        }
        recovers_to(&out, if undo { &old } else { &new }, "given up by undoing alone");
    }
}
