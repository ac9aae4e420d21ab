//! What cannot be captured is refused before anything runs.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::geteuid;
use txfs_capture::{Capture, Error, Gate, probe, remove};

use super::{World, names};

#[test]
fn a_capture_inside_a_capture_is_refused() {
    if std::env::var_os("CAPTURE_CALLER").is_some() {
        return;
    }
    if let Some(dir) = std::env::var_os("CAPTURE_INNER").map(PathBuf::from) {
        let capture = Capture::directory(&dir.join("other"), &dir.join("place2"), "stage").unwrap();
        let error = capture.spawn(&mut Command::new("true")).unwrap_err();
        assert!(matches!(&error, Error::Refused(refusal) if refusal.gate == Gate::Nested), "{error}");
        let found = probe(&dir.join("other"), &dir.join("place2")).unwrap();
        assert_eq!(found.directory.unwrap_err().gate, Gate::Nested);
        return;
    }
    if !geteuid().is_root() {
        return;
    }
    let world = World::new();
    fs::create_dir_all(world.at("place2/stage")).unwrap();
    fs::create_dir(world.at("other")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "refused::a_capture_inside_a_capture_is_refused"]).env("CAPTURE_INNER", world.dir.path());
    world.run(&world.overlay(), &mut command).ok();
}

#[test]
fn an_output_with_mounts_below_is_refused_and_each_probe_leaves_nothing() {
    let world = World::new();
    let found = probe(&world.at("dist"), &world.at("place")).unwrap();
    assert!(found.overlay.is_ok() && found.directory.is_ok(), "{found:?}");
    assert_eq!(found.rootless, !geteuid().is_root());
    assert!(probe(&world.at("none"), &world.at("place")).unwrap().directory.is_ok());
    assert_eq!(names(&world.at("place")), ["stage"]);
    if !geteuid().is_root() {
        return;
    }
    let at = world.at("dist/sub");
    let mount = |program: &str, arguments: &[&str]| {
        assert!(Command::new(program).args(arguments).arg(&at).status().unwrap().success());
    };
    mount("mount", &["-t", "tmpfs", "none"]);
    let refused = world.overlay().spawn(&mut Command::new("true"));
    let gate = probe(&world.at("dist"), &world.at("place")).unwrap().overlay.unwrap_err().gate;
    mount("umount", &[]);
    let Err(Error::Refused(refusal)) = refused else { panic!() };
    assert_eq!(refusal.gate, Gate::MountsBelow(fs::canonicalize(&at).unwrap()));
    assert_eq!(gate, refusal.gate);
}

#[test]
fn a_place_that_cannot_take_an_overlay_is_told_before_anything_runs() {
    if !geteuid().is_root() {
        return;
    }
    // An overlay itself.
    let world = World::new();
    let outer = World::new();
    fs::create_dir(outer.at("dist2")).unwrap();
    for name in ["lower", "upper", "work", "merged"] {
        fs::create_dir(world.at(name)).unwrap();
    }
    let text = format!("lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work", world.dir.path().display());
    let mounted =
        Command::new("mount").args(["-t", "overlay", "overlay", "-o", &text]).arg(world.at("merged")).status().unwrap();
    assert!(mounted.success());
    let out = world.at("merged/out");
    fs::create_dir_all(world.at("merged/place/stage")).unwrap();
    fs::create_dir(&out).unwrap();
    let found = probe(&out, &world.at("merged/place")).unwrap();
    let spawned = Capture::overlay(&out, &world.at("merged/place"), "stage").unwrap().spawn(&mut Command::new("true"));
    remove(&world.at("merged/place"), None).unwrap();
    assert!(Command::new("umount").arg(world.at("merged")).status().unwrap().success());
    assert_eq!(found.overlay.unwrap_err().gate, Gate::Upper);
    assert!(found.directory.is_ok());
    assert!(matches!(spawned, Err(Error::Refused(refusal)) if refusal.gate == Gate::Upper));
}

#[test]
fn a_link_to_an_output_is_refused() {
    let world = World::new();
    symlink("dist", world.at("current")).unwrap();
    assert!(Capture::overlay(&world.at("current"), &world.at("place"), "stage").is_err());
    let mut file = File::create(world.at("file")).unwrap();
    file.write_all(b"x").unwrap();
    assert!(Capture::directory(&world.at("file"), &world.at("place"), "stage").is_err());
}
