//! reproductions on the simulator
#![allow(clippy::unwrap_used)]
use std::path::Path;
use txfs::fs::sim::{Call, Config, Fault, SimFs, Weakness};
use txfs::fs::{Fs, RenameMode};
use txfs::{Barriers, BeginOptions, CommitOptions, OpenOptions, Store};

const OUT: &str = "/w/dist";

fn open(fs: &SimFs, barriers: Barriers) -> Store<SimFs> {
    Store::open_with(&OpenOptions::with(fs.clone()).barriers(barriers), OUT).unwrap()
}

fn lenient<'a>() -> CommitOptions<'a> {
    CommitOptions::default().max_removed(100).allow_empty(true)
}

fn write(fs: &SimFs, dir: &str, name: &str, bytes: &[u8]) {
    let d = fs.open_anchor(Path::new(dir)).unwrap();
    let mut f = fs.create_file(&d, name.as_bytes(), 0o644).unwrap();
    fs.write(&mut f, bytes).unwrap();
}

/// What is taken over as it is may not be durable yet, and is not synced one by one.
fn adopted(weakness: Weakness, barriers: Barriers) -> (usize, usize) {
    let fs = SimFs::new(Config::new(weakness));
    fs.put_dir(OUT, 0o755);
    {
        let store = open(&fs, barriers);
        let mut t = store.begin(BeginOptions::default()).unwrap();
        t.write("a", "one").unwrap();
        t.commit(&lenient()).unwrap();
        store.sweep().unwrap();
    }
    fs.settle();
    // Somebody writes a file into the output.
    write(&fs, OUT, "theirs", b"theirs");
    let store = open(&fs, barriers);
    let mut t = store.begin(BeginOptions::default()).unwrap();
    t.write("a", "two").unwrap();
    t.write("theirs", "theirs").unwrap();
    t.commit(&lenient().adopt(true)).unwrap();
    store.sweep().unwrap();
    count(&fs, |s| {
        content(s, "/w/dist/theirs").as_deref() == Some(b"theirs") && content(s, "/w/dist/a").as_deref() == Some(b"two")
    })
}

/// Somebody rewrote a published file with the same content.
fn rewritten(weakness: Weakness, barriers: Barriers) -> (usize, usize) {
    let fs = SimFs::new(Config::new(weakness));
    fs.put_dir(OUT, 0o755);
    {
        let store = open(&fs, barriers);
        let mut t = store.begin(BeginOptions::default()).unwrap();
        t.write("a", "one").unwrap();
        t.write("b", "same").unwrap();
        t.commit(&lenient()).unwrap();
        store.sweep().unwrap();
    }
    fs.settle();
    let d = fs.open_anchor(Path::new(OUT)).unwrap();
    write(&fs, OUT, ".tmp", b"same");
    fs.rename(&d, b".tmp", &d, b"b", RenameMode::Replace).unwrap();
    let store = open(&fs, barriers);
    let mut t = store.begin(BeginOptions::default()).unwrap();
    t.write("a", "two").unwrap();
    t.write("b", "same").unwrap();
    t.commit(&lenient()).unwrap();
    store.sweep().unwrap();
    count(&fs, |s| {
        content(s, "/w/dist/b").as_deref() == Some(b"same") && content(s, "/w/dist/a").as_deref() == Some(b"two")
    })
}

fn content(fs: &SimFs, path: &str) -> Option<Vec<u8>> {
    fs.entry(path).map(|e| e.content().to_vec())
}

fn count(fs: &SimFs, good: impl Fn(&SimFs) -> bool) -> (usize, usize) {
    let (mut all, mut bad) = (0, 0);
    for state in fs.crash_states(20_000) {
        all += 1;
        let s = Store::open_with(&OpenOptions::with(state.clone()), OUT);
        if s.is_err() || !good(&state) {
            if bad == 0 {
                println!(
                    "  bad: {:?} theirs/b={:?}/{:?}\n{}",
                    s.err(),
                    content(&state, "/w/dist/theirs"),
                    content(&state, "/w/dist/b"),
                    state.describe()
                );
            }
            bad += 1;
        }
    }
    (all, bad)
}

#[test]
fn d1_what_is_taken_over_is_durable_too() {
    let mut failed = false;
    for weakness in [Weakness::Ordered, Weakness::Btrfs, Weakness::Posix] {
        for barriers in [Barriers::Whole, Barriers::Single] {
            let r = adopted(weakness, barriers);
            println!("adopted {weakness:?} {barriers:?}: states {} bad {}", r.0, r.1);
            let q = rewritten(weakness, barriers);
            println!("rewritten {weakness:?} {barriers:?}: states {} bad {}", q.0, q.1);
            failed |= r.1 + q.1 > 0;
        }
    }
    assert!(!failed);
}

/// Two transactions of one store: the kernel tells the first of the error that lost what the second staged.
#[test]
fn e1_an_error_of_a_sibling_s_barrier_concerns_every_open_stage() {
    for barriers in [Barriers::Whole, Barriers::Single] {
        let fs = SimFs::new(Config::new(Weakness::Ordered));
        fs.put_dir(OUT, 0o755);
        {
            let store = open(&fs, barriers);
            let mut t = store.begin(BeginOptions::default()).unwrap();
            t.write("a", "one").unwrap();
            t.commit(&lenient()).unwrap();
            store.sweep().unwrap();
        }
        fs.settle();
        let store = open(&fs, barriers);
        let mut one = store.begin(BeginOptions::default()).unwrap();
        let mut two = store.begin(BeginOptions::default()).unwrap();
        one.write("a", "from one").unwrap();
        two.write("a", "from two").unwrap();
        // which call is the barrier
        let fork_calls = {
            let log0 = fs.calls();
            // find by trying: the first sync call after here
            let probe = fs.clone();
            let _ = probe;
            log0
        };
        // fail the first SyncFs/SyncFile after now
        fs.record_trace();
        for n in fork_calls + 1..fork_calls + 400 {
            let _ = n;
        }
        let at = {
            // dry: same world, forked, same calls
            let f2 = fs.fork();
            let s2 = open(&f2, barriers);
            let before = f2.calls();
            let mut t = s2.begin(BeginOptions::default()).unwrap();
            t.write("a", "from one").unwrap();
            let begun = f2.calls();
            let _ = t.commit(&lenient());
            let log = f2.log();
            let i =
                log[begun as usize..].iter().position(|c| matches!(c, Call::SyncFs | Call::SyncFile)).unwrap() as u64;
            let _ = before;
            i
        };
        fs.fail_at(fs.calls() + at + 1, Fault::new(5));
        let e = one.commit(&lenient());
        println!(
            "{barriers:?} one: {:?} fired {}",
            e.as_ref().map(|c| c.generation).map_err(|e| e.to_string()),
            fs.fired()
        );
        fs.mend();
        let r = two.commit(&lenient());
        println!("{barriers:?} two: {:?}", r.as_ref().map(|c| c.generation).map_err(|e| e.to_string()));
        if r.is_ok() {
            let c = count(&fs, |s| content(s, "/w/dist/a").as_deref() == Some(b"from two"));
            println!("{barriers:?}: states {} bad {}", c.0, c.1);
            drop(one);
            assert_eq!(c.1, 0);
        }
    }
}

/// Files written through the library and changed afterwards within one tick of the clock.
#[test]
fn f_a_file_that_is_written_again_within_the_same_tick() {
    let fs = SimFs::new(Config { mtime_granularity: 4_000_000, tick: 20_000, ..Config::new(Weakness::Ordered) });
    fs.put_dir(OUT, 0o755);
    let store = open(&fs, Barriers::Chosen);
    let mut lost = 0;
    for round in 0..100 {
        let (old, new) = (format!("{:04}", 2 * round), format!("{:04}", 2 * round + 1));
        let mut t = store.begin(BeginOptions::default()).unwrap();
        t.write("a", &old).unwrap();
        t.commit(&lenient()).unwrap();
        let mut t = store.begin(BeginOptions::default()).unwrap();
        t.write("a", &old).unwrap();
        let d = fs.open_anchor(&t.stage()).unwrap();
        let mut f = fs.open_write(&d, b"a").unwrap();
        fs.write(&mut f, new.as_bytes()).unwrap();
        let c = t.commit(&lenient()).unwrap();
        lost += u32::from(!c.changed);
    }
    assert_eq!(lost, 0, "of 100 commits, so many published nothing of what was staged");
}

/// After a crash that brought tx/ID back and kept the rest: what the last commit displaced.
#[test]
fn u_what_was_displaced_survives_a_crash_after_settling() {
    for weakness in [Weakness::Ordered, Weakness::Btrfs, Weakness::Posix] {
        for barriers in [Barriers::Whole, Barriers::Single] {
            let fs = SimFs::new(Config::new(weakness));
            fs.put_dir(OUT, 0o755);
            fs.put_file("/w/dist/theirs", b"precious", 0o644);
            let store = open(&fs, barriers);
            let mut t = store.begin(BeginOptions::default()).unwrap();
            t.write("a", "one").unwrap();
            t.commit(&lenient()).unwrap();
            store.sweep().unwrap();
            fs.settle();
            let mut t = store.begin(BeginOptions::default()).unwrap();
            t.write("a", "two").unwrap();
            t.write("theirs", "taken over").unwrap();
            fs.record_crash_points();
            t.commit(&lenient().adopt(true)).unwrap();
            store.sweep().unwrap();
            let (mut all, mut bad) = (0, 0);
            for point in fs.crash_points() {
                for state in point.states(300) {
                    all += 1;
                    let s = Store::open_with(&OpenOptions::with(state.clone()), OUT).unwrap();
                    s.sweep().unwrap();
                    let g = s.head().unwrap().unwrap().info.generation;
                    if g == 2 {
                        let mut t = s.begin(BeginOptions::default()).unwrap();
                        let r = t.copy_previous();
                        if r.is_err() {
                            if bad == 0 {
                                println!("{point:?} {r:?}\n{}", state.describe());
                            }
                            bad += 1;
                        }
                    }
                }
            }
            println!("{weakness:?} {barriers:?} states {all} without a way back {bad}");
        }
    }
}

/// Somebody rewrote a published file with the same content, and nothing else changes.
#[test]
fn d2_nothing_differs_and_it_is_not_durable() {
    let fs = SimFs::new(Config::new(Weakness::Ordered));
    fs.put_dir(OUT, 0o755);
    let store = open(&fs, Barriers::Whole);
    let mut t = store.begin(BeginOptions::default()).unwrap();
    t.write("b", "same").unwrap();
    t.commit(&lenient()).unwrap();
    store.sweep().unwrap();
    fs.settle();
    let d = fs.open_anchor(Path::new(OUT)).unwrap();
    write(&fs, OUT, ".tmp", b"same");
    fs.rename(&d, b".tmp", &d, b"b", RenameMode::Replace).unwrap();
    let mut t = store.begin(BeginOptions::default()).unwrap();
    t.write("b", "same").unwrap();
    let c = t.commit(&lenient()).unwrap();
    println!("{c:?}");
    store.sweep().unwrap();
    let r = count(&fs, |s| content(s, "/w/dist/b").as_deref() == Some(b"same"));
    println!("{r:?}");
    assert_eq!(r.1, 0);
}
