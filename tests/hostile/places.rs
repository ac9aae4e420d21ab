//! Directories that are not the store's, or make no sense as an output.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use txfs::{ErrorKind, Store};
use txfs_testing::forge::{self, object};
use txfs_testing::tree::snapshot;
use txfs_testing::{bytes, publish, read, state_of};

use super::{Scene, entry};

#[test]
fn a_directory_that_is_not_ours_is_not_taken_over() {
    let scene = Scene::new();
    let out = scene.dir.path().join("other");
    let state = state_of(&out);
    fs::create_dir(&state).unwrap();
    fs::write(state.join("diary.txt"), "mine").unwrap();
    let before = snapshot(&state);
    let error = Store::open(&out).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("diary.txt"), "{error}");
    assert_eq!(snapshot(&state), before);
}

#[test]
fn a_state_directory_that_others_may_write_to_is_refused() {
    for mode in [0o720, 0o702, 0o777] {
        let scene = Scene::new();
        fs::set_permissions(&scene.state, fs::Permissions::from_mode(mode)).unwrap();
        scene.refused(&format!("mode {mode:o}"));
    }
}

/// A store inside the output: what is published can never be the state directory.
#[test]
fn the_state_directory_inside_the_output_is_never_published_nor_removed() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join(bytes(&[b'n'; 250]));
    fs::create_dir(&out).unwrap();
    // The sibling's name would be too long, so the state is inside.
    let store = Store::open(&out).unwrap();
    assert_eq!(store.place(), txfs::Place::Inside);
    publish(&store, &[("a", "1")]).unwrap();
    let head = store.head().unwrap().unwrap();
    let state = fs::metadata(out.join(".txfs")).unwrap().ino();
    let entries = [entry(".txfs", object(&out.join(".txfs"))), entry("a", object(&out.join("a")))];
    let (manifest, forged) = forge::manifest(&head.info, &entries, None);
    fs::write(out.join(".txfs/manifests/1"), manifest).unwrap();
    fs::write(out.join(".txfs/HEAD"), forge::head(&forged)).unwrap();
    let error = publish(&store, &[("b", "1")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(fs::metadata(out.join(".txfs")).unwrap().ino(), state);
    assert_eq!(read(&out, "a"), "1");
}

/// A name that is no valid path cannot come from a file system; the root of the store's own parent is not one either.
#[test]
fn outputs_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    symlink("loop", dir.path().join("loop")).unwrap();
    fs::write(dir.path().join("file"), "f").unwrap();
    for out in [Path::new("/"), &dir.path().join("missing/dist"), &dir.path().join("loop"), &dir.path().join("file")] {
        let error = Store::open(out).unwrap_err();
        println!("{}: {error}", out.display());
    }
    assert_eq!(read(dir.path(), "file"), "f");
}
