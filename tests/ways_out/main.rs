//! Recovery beside another process that removed something: a command that the error names gets the store going again, nothing is lost,
//! and what is told is the truth.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::faulty::{Call, Faulty};
use common::tree::snapshot;
use common::{lenient, publish, read, scratch, state_of};
use nix::errno::Errno;
use txfs::{
    BeginOptions, CommitOptions, Error, ErrorKind, OpenOptions, Outcome, RecoverOptions, Recovered, RecoveredCommit,
    Store,
};

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

/// Something of a displaced generation is not what was displaced, and something else of it cannot be removed.
#[test]
fn what_was_moved_aside_is_told_of_by_an_error_too() {
    let (_dir, out) = scratch();
    let kernel = Faulty::new(|call| match call {
        Call::RemoveFile { name } if name == b"immutable" => Some(Errno::EPERM),
        _ => None,
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let generation = |n: u8| publish(&store, &[("a", &format!("a {n}")), ("immutable", &format!("i {n}"))]).unwrap();
    (1..3).for_each(|n| drop(generation(n)));
    store.sweep().unwrap();
    fs::write(state_of(&out).join("previous/2/stage/a"), "written to after it was displaced").unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("a", "a 3").unwrap();
    transaction.write("immutable", "i 3").unwrap();
    assert!(transaction.commit(&lenient()).unwrap().rescued.is_empty(), "the generation before is kept");
    let error = store.sweep().unwrap_err();
    let text = error.to_string();
    let (rescued, cause) = error.into_parts();
    assert!(matches!(cause, Error::Io { .. }), "{cause}");
    assert_eq!(rescued.len(), 1, "{text}");
    assert!(text.contains(&*rescued[0].to_string_lossy()) && text.contains("cannot remove"), "{text}");
    assert_eq!(fs::read_to_string(&rescued[0]).unwrap(), "written to after it was displaced");
    assert!(store.take_rescued().is_empty(), "it is told of once");
}

/// Nobody may ever commit the transaction whose beginning moved something aside.
#[test]
fn what_was_moved_aside_by_a_transaction_that_is_dropped_can_be_asked_for() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    for n in 1..4 {
        publish(&store, &[("a", &format!("a {n}"))]).unwrap();
        if n == 2 {
            store.sweep().unwrap();
            fs::write(state_of(&out).join("previous/2/stage/a"), "written to after it was displaced").unwrap();
        }
    }
    drop(store.begin(BeginOptions::default()).unwrap());
    assert_eq!(store.take_rescued().len(), 1);
}

#[test]
fn a_stage_whose_commit_was_rolled_back_can_be_committed_again_and_one_that_is_not_whole_is_moved_aside() {
    for removes in [false, true] {
        let (dir, out) = scratch();
        let staged = Arc::new(std::sync::Mutex::new(PathBuf::new()));
        let (at, failed) = (staged.clone(), AtomicBool::new(false));
        let kernel = Faulty::new(move |call| {
            let this =
                matches!(call, Call::Rename { name, .. } if name == b"w.html") && !failed.swap(true, Ordering::SeqCst);
            if this && removes {
                fs::remove_dir_all(at.lock().unwrap().join("d")).unwrap();
            }
            this.then_some(Errno::EIO)
        });
        let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
        publish(&store, &[("d/old", "1"), ("a", "1")]).unwrap();
        let old = snapshot(&out);
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        for path in ["d/old", "d/new", "w.html"] {
            transaction.write(path, if path == "d/old" { "1" } else { "built" }).unwrap();
        }
        *staged.lock().unwrap() = transaction.stage();
        let error = transaction.commit(&lenient()).unwrap_err();
        assert_eq!((error.outcome(), snapshot(&out)), (Outcome::Unchanged, old), "{error}");
        let (rescued, cause) = error.into_parts();
        assert!(matches!(cause, Error::RolledBack { .. }), "{cause}");
        assert_eq!((transaction.is_open(), rescued.len()), (!removes, usize::from(removes)));
        if removes {
            drop(transaction);
            assert!(contents(dir.path()).contains(&b"built"[..]), "what was built is kept");
            publish(&store, &[("d/old", "1"), ("w.html", "built")]).unwrap();
        } else {
            transaction.commit(&lenient()).unwrap();
            assert_eq!(read(&out, "d/new"), "built");
        }
    }
}

#[test]
fn an_undone_removal_whose_stage_is_lost_leaves_nothing_to_be_moved_aside() {
    let (_scratch, out) = scratch();
    publish(&Store::open(&out).unwrap(), &[("a", "a 1"), ("x", "x 1")]).unwrap();
    let dead = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| {
        let is_after = dead.load(Ordering::SeqCst);
        // What is removed goes to `removed/I`, and then nothing has an effect any more.
        if matches!(call, Call::Rename { name, .. } if name == b"x") {
            dead.store(true, Ordering::SeqCst);
        }
        is_after.then_some(Errno::EIO)
    });
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
    transaction.write("a", "a 1").unwrap();
    let stage = transaction.stage();
    assert_eq!(transaction.commit(&lenient()).unwrap_err().outcome(), Outcome::Unknown);
    assert!(!out.join("x").exists());
    fs::remove_dir_all(&stage).unwrap();
    let recovered = recover(&out, Manner { undo: true, skip: false }).unwrap();
    assert_eq!(recovered.commit, Some(RecoveredCommit::RolledBack { generation: 2 }));
    assert_eq!((read(&out, "x"), recovered.rescued), ("x 1".to_owned(), vec![]));
    // A full build whose stage is gone would remove everything: it is not to be committed.
    assert!(!stage.parent().unwrap().exists());
}

/// The commands between backquotes in a message.
fn commands(said: &str) -> Vec<&str> {
    said.split('`').skip(1).step_by(2).collect()
}

fn sh(command: &str) {
    assert!(std::process::Command::new("sh").args(["-c", command]).status().unwrap().success(), "{command}");
}

/// As a stranger's cleaning may do it, in the middle of a commit.
#[test]
fn a_directory_of_the_state_that_is_gone_while_a_commit_is_under_way_is_named_with_a_way_out_that_loses_nothing() {
    for (undoing, part) in
        [false, true].into_iter().flat_map(|undoing| ["tx", "previous", "manifests"].map(|part| (undoing, part)))
    {
        println!("{part}, undoing {undoing}");
        let (dir, out) = scratch();
        let store = Store::open(&out).unwrap();
        publish(&store, &OLD).unwrap();
        store.sweep().unwrap();
        drop(store);
        fs::write(out.join("d/foreign"), "foreign").unwrap();
        cut_short(&out, 3, undoing);
        let (gone, published) = (state_of(&out).join(part), contents(&out));
        fs::remove_dir_all(&gone).unwrap();
        let missing = || match recover(&out, Manner { undo: false, skip: false }) {
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                format!("{error}; {}", error.hint().unwrap_or_default())
            }
            Ok(recovered) => panic!("{recovered:?}"),
        };
        match part {
            "tx" => {
                let said = missing();
                assert!(said.contains(&format!("{} cannot be used: it is missing", gone.display())), "{said}");
                sh(commands(&said).into_iter().find(|command| command.starts_with("mkdir ")).unwrap());
                way_out(&out, Manner { undo: false, skip: false });
            }
            // Recovery needs nothing of it.
            "previous" => drop(way_out(&out, Manner { undo: false, skip: false })),
            _ => {
                if undoing {
                    // Going back needs none; what is published does.
                    recover(&out, Manner { undo: false, skip: false }).unwrap();
                }
                let said = missing();
                assert!(
                    said.contains("manifests/") && said.contains("publish anew with `CommitOptions::adopt_all`"),
                    "{said}"
                );
                sh(commands(&said).into_iter().find(|command| command.starts_with("mv ")).unwrap());
            }
        }
        let lost: Vec<_> = published.difference(&contents(dir.path())).cloned().collect();
        assert!(lost.is_empty(), "{lost:?}");
        let store = Store::open(&out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        NEW.iter().for_each(|(path, content)| transaction.write(path, content).unwrap());
        let mut options = taking_over();
        options.adopt_all = part == "manifests";
        transaction.commit(&options).unwrap();
        assert_eq!(store.verify().unwrap(), []);
        NEW.iter().for_each(|(path, content)| assert_eq!(&read(&out, path), content));
    }
}

#[test]
fn what_is_where_a_transaction_was_is_moved_away_by_the_command_that_is_named() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &OLD).unwrap();
    let stage = store.begin(BeginOptions::default().detached(true)).unwrap().stage();
    let transaction = stage.parent().unwrap();
    fs::remove_dir_all(transaction).unwrap();
    fs::write(transaction, "a stranger's").unwrap();
    let error = Store::open(&out).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    sh(commands(&error.to_string())[0]);
    publish(&Store::open(&out).unwrap(), &NEW).unwrap();
    assert!(contents(&state_of(&out)).contains(&b"a stranger's"[..]));
}

/// Wherever a process is killed that makes the first store of an output, the next one takes what it left for a store that is being made.
#[test]
fn a_store_that_was_being_made_is_made_by_the_next_command_or_taken_away() {
    for inside in [false, true] {
        let mut calls = 0;
        loop {
            let (dir, out) = scratch();
            if inside {
                fs::create_dir(&out).unwrap();
            }
            let made = AtomicUsize::new(0);
            let dead = AtomicBool::new(false);
            // Nothing has an effect from some call on, as when the process is killed there.
            let kernel = Faulty::new(move |call| {
                let changes = !matches!(call, Call::Read(_));
                let number = if changes { made.fetch_add(1, Ordering::SeqCst) } else { 0 };
                dead.fetch_or(changes && number >= calls, Ordering::SeqCst);
                (changes && dead.load(Ordering::SeqCst)).then_some(Errno::EIO)
            });
            let state = if inside { out.join(".txfs") } else { state_of(&out) };
            let options = OpenOptions::with(kernel);
            let options = if inside { options.state(&out) } else { options };
            let is_made = Store::open_with(&options.clone().recover(false), &out).is_ok();
            // Who only looks finds nothing to tell of, or a store in which nothing is.
            if let Some(store) = Store::find(&OpenOptions::default(), &out).unwrap() {
                assert!(store.head().unwrap().is_none());
            }
            let options = if inside { OpenOptions::default().state(&out) } else { OpenOptions::default() };
            if calls % 2 == 0 {
                let store = Store::open_with(&options.clone().recover(false), &out).unwrap();
                assert!(store.remove_unused().unwrap(), "after {calls} calls");
                assert!(!state.exists(), "after {calls} calls");
            }
            publish(&Store::open_with(&options, &out).unwrap(), &OLD).unwrap();
            assert!(state.join("store").exists() && dir.path().exists());
            if is_made {
                break;
            }
            calls += 1;
        }
        println!("{calls} calls, inside {inside}");
        assert!(calls > 20);
    }
}
