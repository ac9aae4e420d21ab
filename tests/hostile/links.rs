//! Links and special files where there should be none: not followed, and nothing outside the store changes.

use std::fs;
use std::os::unix::fs::symlink;

use txfs::{BeginOptions, Error, ErrorKind, Operation, Problem};
use txfs_testing::forge::{self, object, path};
use txfs_testing::tree::snapshot;
use txfs_testing::{kernels, lenient, publish, read};

use super::Scene;

#[test]
fn symbolic_links_in_the_place_of_directories_are_refused() {
    for kernel in kernels() {
        for name in ["tx", "manifests", "previous", "tx/0000000000000007", "rescued"] {
            let scene = Scene::on(kernel.clone());
            let place = scene.state.join(name);
            if place.is_dir() {
                fs::rename(&place, scene.dir.path().join("moved")).unwrap();
            }
            symlink(scene.outside(), &place).unwrap();
            if name == "rescued" {
                scene.harmless(name).unwrap();
            } else {
                scene.refused(name);
            }
        }
    }
}

#[test]
fn a_symbolic_link_as_the_state_directory_is_refused() {
    let scene = Scene::new();
    fs::rename(&scene.state, scene.outside().join("state")).unwrap();
    symlink(scene.outside().join("state"), &scene.state).unwrap();
    scene.refused("a link to a real state directory");
    fs::remove_file(&scene.state).unwrap();
    fs::write(&scene.state, "a file").unwrap();
    scene.refused("a file");
    fs::remove_file(&scene.state).unwrap();
    symlink("/nonexistent", &scene.state).unwrap();
    scene.refused("a dangling link");
}

#[test]
fn symbolic_links_and_special_files_in_the_place_of_files_are_refused() {
    for name in ["journal", "journal.new", "journal.undo", "HEAD", "store", "manifests/2", "lock"] {
        for special in ["link", "dangling", "fifo", "directory"] {
            let scene = Scene::new();
            let place = scene.state.join(name);
            let _ = fs::rename(&place, scene.outside().join("original"));
            match special {
                "link" => symlink(scene.outside().join("victim"), &place).unwrap(),
                "dangling" => symlink(scene.outside().join("not-there"), &place).unwrap(),
                "fifo" => nix::unistd::mkfifo(&place, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap(),
                _ => fs::create_dir(&place).unwrap(),
            }
            let what = format!("{special} as {name}");
            if name == "lock" {
                scene.harmless(&what).unwrap_err();
            } else {
                scene.refused(&what);
            }
        }
    }
}

#[test]
fn a_stage_that_is_a_symbolic_link_is_not_followed() {
    for kernel in kernels() {
        let scene = Scene::on(kernel);
        let store = scene.open().unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        let stage = transaction.stage();
        fs::remove_dir(&stage).unwrap();
        symlink(scene.outside(), &stage).unwrap();
        assert!(transaction.write("victim", "mine").is_err());
        assert!(transaction.commit(&lenient()).is_err());
        drop(transaction);
        assert_eq!(read(&scene.outside(), "victim"), "precious");
        assert_eq!(snapshot(&scene.out), scene.before);
    }
}

#[test]
fn links_on_the_way_to_a_staged_file_are_not_followed() {
    for kernel in kernels() {
        let scene = Scene::on(kernel);
        let store = scene.open().unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        symlink(scene.outside(), transaction.stage().join("way")).unwrap();
        transaction.write("way/victim", "mine").unwrap_err();
        transaction.symlink("way/new", "x").unwrap_err();
        transaction.make_dir("way/sub/new").unwrap_err();
        for path in ["../x", "/x", "a/../../x", "a/./b"] {
            assert_eq!(transaction.write(path, "x").unwrap_err().kind(), ErrorKind::Usage, "{path}");
        }
        transaction.remove("way/victim").unwrap();
        assert_eq!(read(&scene.outside(), "victim"), "precious");
        transaction.write("a", "a").unwrap();
        transaction.commit(&lenient()).unwrap();
        assert!(fs::symlink_metadata(scene.out.join("way")).unwrap().is_symlink());
        let committed = publish(&store, &[("way/victim", "ours"), ("a", "a")]).unwrap();
        assert!(committed.changed);
        assert_eq!(read(&scene.outside(), "victim"), "precious");
    }
}

#[test]
fn special_files_in_a_stage_are_refused_and_named() {
    let scene = Scene::new();
    let store = scene.open().unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("a", "3").unwrap();
    let stage = transaction.stage();
    nix::unistd::mkfifo(&stage.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(stage.join("socket")).unwrap();
    let error = transaction.commit(&lenient()).unwrap_err();
    let Error::Refused { problems, .. } = &error else { panic!("{error}") };
    assert!(matches!(&problems[..], [Problem::UnsupportedKind(paths)] if paths.total == 2), "{error}");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(snapshot(&scene.out), scene.before);
}

#[test]
fn a_published_directory_that_became_a_link_is_drift_and_not_followed() {
    for kernel in kernels() {
        for staged in [&[("a", "3"), ("d/x", "3"), ("d/z/deep", "2")][..], &[("a", "3")]] {
            let scene = Scene::on(kernel.clone());
            fs::rename(scene.out.join("d"), scene.outside().join("d")).unwrap();
            symlink("../outside/d", scene.out.join("d")).unwrap();
            let before = scene.trees();
            let store = scene.open().unwrap();
            let error = publish(&store, staged).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            assert_eq!(scene.trees(), before);
            let mut options = lenient();
            options.allow_drift = true;
            let mut transaction = store.begin(BeginOptions::default()).unwrap();
            staged.iter().for_each(|(path, content)| transaction.write(path, content).unwrap());
            transaction.commit(&options).unwrap();
            assert_eq!(snapshot(&scene.outside()), before[1]);
            assert_eq!(scene.out.join("d").is_dir(), staged.len() > 1);
            publish(&store, &[("a", "4")]).unwrap();
            assert_eq!(snapshot(&scene.outside()), before[1], "nor when it is cleaned up");
        }
    }
}

#[test]
fn a_link_that_appears_while_a_commit_is_recovered_is_not_followed() {
    for kernel in kernels() {
        let scene = Scene::on(kernel);
        let transaction = scene.transaction(&[("d/new", "n")]);
        let new = object(&transaction.join("stage/d/new"));
        let old = object(&scene.out.join("d/x"));
        let operations = [Operation::Add { path: path("d/new"), new }, Operation::Remove { path: path("d/x"), old }];
        let journal = forge::journal(&scene.begin(), &operations);
        fs::rename(scene.out.join("d"), scene.outside().join("d")).unwrap();
        symlink("../outside/d", scene.out.join("d")).unwrap();
        for name in ["journal.new", "journal"] {
            scene.plant(name, &journal);
            scene.refused(&format!("a link on the way of {name}"));
            fs::remove_file(scene.state.join(name)).unwrap();
        }
    }
}
