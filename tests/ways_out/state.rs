//! Something of the state is gone or in the way: the command that is named gets the store going again.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::errno::Errno;
use txfs::{BeginOptions, ErrorKind, OpenOptions, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::{publish, read, scratch, state_of};

use super::{Manner, NEW, OLD, contents, cut_short, recover, taking_over, way_out};

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
