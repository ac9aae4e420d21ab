//! reproductions, to be run as another user than root and on a disk
#![allow(clippy::unwrap_used)]
mod common;
use common::faulty::{Call, Faulty};
use common::{lenient, publish, read, state_of};
use nix::errno::Errno;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use txfs::{BeginOptions, OpenOptions, Store};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn h_recovery_is_stuck_where_something_unlisted_lies_in_a_closed_directory() {
    if common::is_root() {
        println!("SKIP root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("dist");
    publish(&Store::open(&out).unwrap(), &[("top", "old")]).unwrap();
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
        t.write("top", "new").unwrap();
        t.write("new/closed/x", "new").unwrap();
        set_mode(&stage.join("new/closed"), 0o555);
        println!("{}", t.commit(&lenient()).unwrap_err());
    }
    // whoever puts it there opens the directory and closes it again; or its removal was lost by the crash
    set_mode(&stage.join("new/closed"), 0o755);
    fs::write(stage.join("new/closed/late"), "late").unwrap();
    set_mode(&stage.join("new/closed"), 0o555);
    let store = Store::make(&OpenOptions::default(), &out).unwrap();
    for _ in 0..2 {
        println!("{:?}", store.recover().map_err(|e| e.to_string()));
    }
    let r = store.recover();
    println!("out: {}", read(&out, "top"));
    let u = store.recover_skipping_unknown().map_err(|e| e.to_string());
    println!("skip unknown {u:?}");
    let ok = r.is_ok();
    for at in [&stage, &out] {
        let _ = fs::set_permissions(at.join("new/closed"), fs::Permissions::from_mode(0o755));
    }
    assert!(ok, "recovery cannot go on");
}

#[test]
fn g_one_immutable_file_keeps_everything_displaced_for_ever() {
    if !common::is_root() {
        println!("SKIP not root");
        return;
    }
    let dir = tempfile::tempdir_in(".").unwrap();
    let out = dir.path().join("dist");
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "0"), ("d/f", "x")]).unwrap();
    let st = std::process::Command::new("chattr").arg("+i").arg(out.join("d/f")).status().unwrap();
    assert!(st.success());
    let mut last = None;
    for n in 1..8 {
        let c = publish(&store, &[("a", &n.to_string()), ("big", &format!("{n}").repeat(1000))]).unwrap();
        last = Some(c.warnings.iter().map(|e| e.to_string()).collect::<Vec<_>>());
    }
    store.sweep().map_err(|e| println!("sweep {e}")).ok();
    println!("{last:?}");
    let mut kept: Vec<_> = fs::read_dir(state_of(&out).join("previous"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    println!("previous: {kept:?}");
    let found = std::process::Command::new("sh")
        .arg("-c")
        .arg(format!(
            "find {}/previous -type f | sort; chattr -R -i {}; ls {}/manifests",
            state_of(&out).display(),
            state_of(&out).display(),
            state_of(&out).display()
        ))
        .output()
        .unwrap();
    println!("{}", String::from_utf8_lossy(&found.stdout));
    assert!(kept.len() <= 3, "what one file does not let go keeps all that came after it");
}
