//! reproductions
#![allow(clippy::unwrap_used)]
mod common;
use common::tree::snapshot;
use common::{Scratch, fast_scratch, lenient, publish, read};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use txfs::{BeginOptions, CommitOptions, Store};

fn scratch() -> (Scratch, PathBuf) {
    let dir = fast_scratch();
    let out = dir.path().join("dist");
    (dir, out)
}

fn go_back(store: &Store, options: &CommitOptions<'_>) -> txfs::Result<txfs::Committed> {
    let mut t = store.begin(BeginOptions::default())?;
    t.copy_previous()?;
    t.commit(options)
}

#[test]
fn r1_a_file_missing_now_is_lost_silently() {
    let (_d, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("b", "same"), ("d/c", "same")]).unwrap();
    publish(&store, &[("a", "two"), ("b", "same"), ("d/c", "same")]).unwrap();
    fs::remove_file(out.join("b")).unwrap();
    let r = go_back(&store, &lenient());
    println!("{r:?}");
    println!("{:?}", snapshot(&out).keys().map(|k| String::from_utf8_lossy(k).into_owned()).collect::<Vec<_>>());
    println!("verify {:?}", store.verify().unwrap());
    assert!(r.is_err(), "generation 1 had b, and going back said it succeeded without it");
}

#[test]
fn r2_with_drift_allowed_the_drift_is_published_as_the_old_generation() {
    let (_d, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("b", "same")]).unwrap();
    publish(&store, &[("a", "two"), ("b", "same")]).unwrap();
    fs::write(out.join("b"), "defaced!").unwrap();
    let r = go_back(&store, &lenient().allow_drift(true));
    println!("{r:?} b={}", read(&out, "b"));
    println!("verify {:?}", store.verify().unwrap());
    assert!(r.is_err() || read(&out, "b") == "same", "published as generation 1: {:?}", read(&out, "b"));
}

#[test]
fn r3_a_displaced_directory_that_lacked_a_file() {
    let (_d, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("d/x", "x"), ("d/y", "y")]).unwrap();
    fs::remove_file(out.join("d/x")).unwrap();
    publish(&store, &[("a", "two")]).unwrap();
    let r = go_back(&store, &lenient());
    println!("{r:?}");
    println!("{:?}", snapshot(&out).keys().map(|k| String::from_utf8_lossy(k).into_owned()).collect::<Vec<_>>());
    assert!(r.is_err());
}

#[test]
fn r4_a_displaced_directory_changed_since() {
    let (_d, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("d/x", "x"), ("d/y", "y")]).unwrap();
    // somebody has it open for writing
    let mut log = fs::File::options().append(true).open(out.join("d/x")).unwrap();
    publish(&store, &[("a", "two")]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    use std::io::Write;
    log.write_all(b" late").unwrap();
    let r = go_back(&store, &lenient());
    println!("{r:?} {:?}", fs::read_to_string(out.join("d/x")));
    assert!(r.is_err());
}

#[test]
fn r5_taken_over_as_it_was_goes_when_going_back() {
    let (_d, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one")]).unwrap();
    fs::write(out.join("CNAME"), "example.org").unwrap();
    let mut t = store.begin(BeginOptions::default()).unwrap();
    t.write("a", "two").unwrap();
    t.write("CNAME", "example.org").unwrap();
    t.commit(&lenient().adopt(true)).unwrap();
    go_back(&store, &lenient()).unwrap();
    assert_eq!(read(&out, "a"), "one");
    assert!(out.join("CNAME").exists(), "the user's file, there before both, is gone");
}

#[test]
fn r8_what_was_put_into_a_displaced_directory_is_not_published() {
    let (_d, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one"), ("d/x", "x"), ("d/e/y", "y")]).unwrap();
    let first = snapshot(&out);
    publish(&store, &[("a", "two")]).unwrap();
    store.sweep().unwrap();
    let at = common::state_of(&out).join("previous/2/removed");
    let at = fs::read_dir(at).unwrap().next().unwrap().unwrap().path();
    fs::write(at.join("late"), "late").unwrap();
    go_back(&store, &lenient()).unwrap();
    assert_eq!(snapshot(&out), first);
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
#[ignore = "not mended"]
fn r6_owner_is_lost() {
    let (_d, out) = scratch();
    let store = Store::open(&out).unwrap();
    let mut t = store.begin(BeginOptions::default()).unwrap();
    t.write("a", "one").unwrap();
    std::os::unix::fs::chown(t.stage().join("a"), Some(33), Some(33)).unwrap();
    fs::set_permissions(t.stage().join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    t.commit(&lenient()).unwrap();
    let before = fs::metadata(out.join("a")).unwrap();
    publish(&store, &[("a", "two")]).unwrap();
    go_back(&store, &lenient()).unwrap();
    let after = fs::metadata(out.join("a")).unwrap();
    assert_eq!((before.uid(), before.gid()), (after.uid(), after.gid()));
}

#[test]
fn r7_rollback_dry_run_and_directory_foreign() {
    // A foreign empty directory that gen 2 shares; going back removes it.
    let (_d, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one")]).unwrap();
    fs::create_dir(out.join("uploads")).unwrap();
    let mut t = store.begin(BeginOptions::default()).unwrap();
    t.write("a", "two").unwrap();
    t.make_dir("uploads").unwrap();
    t.commit(&lenient()).unwrap();
    go_back(&store, &lenient()).unwrap();
    assert!(out.join("uploads").exists(), "somebody's directory is gone");
}
