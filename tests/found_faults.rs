//! reproductions
#![allow(clippy::unwrap_used)]
mod common;
use common::faulty::{Call, Faulty};
use common::{Scratch, fast_scratch, lenient, publish, read, state_of};
use nix::errno::Errno;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use txfs::{Basis, BeginOptions, CommitOptions, OpenOptions, Store};

fn scratch() -> (Scratch, PathBuf) {
    let dir = fast_scratch();
    let out = dir.path().join("dist");
    (dir, out)
}

/// A commit that takes files from the current generation fails once while it copies what is missing; tried again, it publishes less.
#[test]
fn c1_copy_missing_fails_once_and_the_second_commit_publishes_less() {
    let (dir, out) = scratch();
    let on = Arc::new(AtomicBool::new(false));
    let armed = on.clone();
    let fs_ = Faulty::new(move |call| match call {
        Call::CreateFile { name } if name == b"c" && armed.swap(false, Ordering::SeqCst) => Some(Errno::ENOSPC),
        _ => None,
    });
    let src = dir.path().join("src");
    fs::create_dir(&src).unwrap();
    for n in ["a", "b", "c", "d", "e", "f"] {
        fs::write(src.join(n), n).unwrap();
    }
    let store = Store::open_with(&OpenOptions::with(fs_), &out).unwrap();
    let mut t = store.begin(BeginOptions::default()).unwrap();
    t.copy_from(&src).unwrap();
    t.commit(&CommitOptions::default()).unwrap();
    // somebody removes two files from the output; publishing puts them back
    fs::remove_file(out.join("b")).unwrap();
    fs::remove_file(out.join("c")).unwrap();
    fs::write(src.join("a"), "changed").unwrap();
    let mut t = store.begin(BeginOptions::default()).unwrap();
    t.copy_differing_from(&src).unwrap();
    on.store(true, Ordering::SeqCst);
    let e = t.commit(&CommitOptions::default()).unwrap_err();
    println!("first: {e} open={}", t.is_open());
    assert!(t.is_open());
    let c = t.commit(&CommitOptions::default()).unwrap();
    println!("second: {:?}", c.plan.changes);
    for n in ["a", "b", "c", "d"] {
        assert!(out.join(n).exists(), "{n} is in src and not in the output: {:?}", c.plan.changes);
    }
}

/// begin --from copy while another commit is applied, that is rolled back afterwards.
#[test]
fn fx_a_copy_of_the_current_generation_is_a_mixture() {
    let (_dir, out) = scratch();
    {
        let store = Store::open(&out).unwrap();
        publish(&store, &[("a", "old"), ("b", "old"), ("c", "old"), ("z", "old")]).unwrap();
        store.sweep().unwrap();
    }
    use std::sync::mpsc::channel;
    let (go, started) = channel::<()>();
    let (applied, halfway) = channel::<()>();
    let (copied, done) = channel::<()>();
    let go = Mutex::new(Some(go));
    let halfway = Mutex::new(halfway);
    // The one that copies: lets the other start once it holds no lock any more, and goes on when that is half way.
    let copier = Faulty::new(move |call| {
        if let Call::CreateFile { name } = call
            && name == b"a"
            && let Some(go) = go.lock().unwrap().take()
        {
            go.send(()).unwrap();
            let _ = halfway.lock().unwrap().recv_timeout(std::time::Duration::from_millis(500));
        }
        None
    });
    let (applied, done) = (Mutex::new(applied), Mutex::new(done));
    let count = AtomicUsize::new(0);
    let committer = Faulty::new(move |call| {
        if let Call::Rename { name, .. } = call
            && name == b"z"
            && count.fetch_add(1, Ordering::SeqCst) == 0
        {
            applied.lock().unwrap().send(()).unwrap();
            let _ = done.lock().unwrap().recv();
            return Some(Errno::EPERM);
        }
        None
    });
    let out2 = out.clone();
    let other = std::thread::spawn(move || {
        started.recv().unwrap();
        let store = Store::make(&OpenOptions::with(committer), &out2).unwrap();
        let r = publish(&store, &[("a", "new"), ("b", "new"), ("c", "new"), ("z", "new")]);
        println!("other: {}", r.unwrap_err());
    });
    let store = Store::open_with(&OpenOptions::with(copier), &out).unwrap();
    let mut t = store.begin(BeginOptions::default().from(Basis::Copy)).unwrap();
    copied.send(()).unwrap();
    other.join().unwrap();
    let staged: Vec<String> = ["a", "b", "c", "z"].iter().map(|n| read(&t.stage(), n)).collect();
    println!("output after the other was rolled back: {:?}", ["a", "b", "c", "z"].map(|n| read(&out, n)));
    println!("stage: {staged:?}");
    t.write("mine", "mine").unwrap();
    let c = t.commit(&lenient());
    println!("{:?}", c.map(|c| c.plan.changes));
    let now = ["a", "b", "c", "z"].map(|n| read(&out, n));
    assert!(now == ["old"; 4].map(String::from), "{now:?}");
}

/// Somebody's change to a staged file that recovery was told to leave is removed by the next sweep.
#[test]
fn ai_skip_unknown_then_sweep_removes_what_somebody_wrote() {
    let (_dir, out) = scratch();
    publish(&Store::open(&out).unwrap(), &[("top", "old"), ("q", "old")]).unwrap();
    let dead = AtomicBool::new(false);
    let k = Faulty::new(move |call| {
        if matches!(call, Call::Rename { name, .. } if name == b"journal.new") {
            dead.store(true, Ordering::SeqCst);
        }
        dead.load(Ordering::SeqCst).then_some(Errno::EIO)
    });
    let stage;
    {
        let store = Store::open_with(&OpenOptions::with(k), &out).unwrap();
        let mut t = store.begin(BeginOptions::default()).unwrap();
        stage = t.stage();
        t.write("top", "old").unwrap();
        t.write("q", "new").unwrap();
        t.write("added", "new").unwrap();
        t.commit(&lenient()).unwrap_err();
    }
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(stage.join("added"), "edited by somebody").unwrap();
    let store = Store::make(&OpenOptions::default(), &out).unwrap();
    println!("{}", store.recover().unwrap_err());
    let r = store.recover_skipping_unknown().unwrap();
    println!("{r:?}");
    let s = store.sweep().unwrap();
    println!("{s:?}");
    let found =
        walk(&state_of(&out)).into_iter().filter(|p| fs::read(p).is_ok_and(|b| b == b"edited by somebody")).count();
    println!("out added: {:?}", fs::read_to_string(out.join("added")));
    assert!(found > 0 || out.join("added").exists(), "what somebody wrote is gone");
}

fn walk(p: &std::path::Path) -> Vec<PathBuf> {
    let mut all = vec![];
    for e in fs::read_dir(p).unwrap() {
        let e = e.unwrap().path();
        if e.is_dir() {
            all.extend(walk(&e));
        } else {
            all.push(e);
        }
    }
    all
}

/// The journal cannot be settled for a while; sweeping removes the manifest that it begins on.
#[test]
fn n_sweep_drops_the_manifest_that_an_unsettled_journal_names() {
    let (_dir, out) = scratch();
    let on = Arc::new(AtomicBool::new(false));
    let armed = on.clone();
    let k = Faulty::new(move |call| match call {
        Call::Rename { name, new_name, .. }
            if name == b"journal" && new_name == b"journal" && armed.load(Ordering::SeqCst) =>
        {
            Some(Errno::ENOSPC)
        }
        _ => None,
    });
    let store = Store::open_with(&OpenOptions::with(k), &out).unwrap();
    publish(&store, &[("a", "1"), ("d/x", "1"), ("d/y", "1")]).unwrap();
    publish(&store, &[("a", "2"), ("e", "2"), ("f", "2"), ("g", "2")]).unwrap();
    on.store(true, Ordering::SeqCst);
    let s = store.sweep().unwrap();
    println!("{s:?}");
    println!(
        "manifests: {:?}",
        fs::read_dir(state_of(&out).join("manifests")).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>()
    );
    on.store(false, Ordering::SeqCst);
    let s = store.sweep().unwrap();
    println!("{s:?}");
    let mut t = store.begin(BeginOptions::default()).unwrap();
    let r = t.copy_previous();
    drop(t);
    println!("{r:?}");
    let c = publish(&store, &[("a", "3"), ("e", "2"), ("f", "2"), ("g", "2")]).unwrap();
    println!("{:?} {:?}", c.rescued, c.warnings);
    let s = store.sweep().unwrap();
    println!("{s:?}");
    assert!(r.is_ok());
}
