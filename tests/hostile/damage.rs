//! Files of the state that are damaged or gone.

use std::fs;

use txfs::fs::Kind;
use txfs::{BeginOptions, Error, ErrorKind, OpenOptions, Store, Totals};
use txfs_testing::forge::{self, nothing};
use txfs_testing::state_of;

use super::{Scene, entry};

#[test]
fn manifests_that_contradict_themselves_are_refused() {
    let file = nothing(Kind::File);
    let wrong = Totals { entries: u64::MAX, files: 1, bytes: 1 };
    for (what, entries, totals) in [
        ("out of order", vec![entry("b", file), entry("a", file)], None),
        ("twice", vec![entry("a", file), entry("a", file)], None),
        ("without its directory", vec![entry("d/x", file)], None),
        ("below a file", vec![entry("a", file), entry("a/b", file)], None),
        ("other totals", vec![entry("a", file)], Some(wrong)),
        ("the state directory", vec![entry(".txfs", nothing(Kind::Directory)), entry(".txfs/lock", file)], None),
    ] {
        let scene = Scene::new();
        let (manifest, head) = forge::manifest(&scene.head.info, &entries, totals);
        scene.plant("manifests/2", manifest);
        scene.plant("HEAD", forge::head(&head));
        scene.refused(what);
    }
}

#[test]
fn a_manifest_that_head_does_not_name_is_refused() {
    let scene = Scene::new();
    let (manifest, _) = forge::manifest(&scene.head.info, &[entry("a", nothing(Kind::File))], None);
    scene.plant("manifests/2", manifest);
    scene.refused("another manifest");
    fs::remove_file(scene.state.join("manifests/2")).unwrap();
    scene.refused("no manifest");
}

/// Every file of the state directory: emptied, cut, of zeros, of noise, and each of its bytes changed.
#[test]
fn damaged_files_are_refused_or_harmless_and_never_a_panic() {
    let mut cases = 0;
    let settled = ["HEAD", "manifests/2", "store", "previous/2/journal", "manifests/1", "lock", ".gitignore"];
    for name in settled.into_iter().chain(["journal", "journal.new"]) {
        let scene = if settled.contains(&name) { Scene::new() } else { Scene::unsettled() };
        if name == "journal.new" {
            fs::rename(scene.state.join("journal"), scene.state.join(name)).unwrap();
        }
        let whole = fs::read(scene.state.join(name)).unwrap();
        let mut versions = vec![vec![], vec![0; whole.len()], vec![0xff; 5000], b"txfs".to_vec()];
        versions.extend((1..whole.len()).step_by(7).map(|cut| whole[..cut].to_vec()));
        versions.extend((0..whole.len()).step_by(5).map(|at| {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            changed
        }));
        for version in versions {
            scene.plant(name, &version);
            // Only what is needed for a decision is read; the rest may be damaged.
            let before = scene.trees();
            if let Err(error) = scene.open().and_then(|store| store.begin(BeginOptions::default()).map(drop)) {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
            }
            assert_eq!(scene.trees(), before);
            cases += 1;
        }
        scene.plant(name, &whole);
        scene.begin_and_commit().unwrap();
    }
    println!("{cases} damaged files");
}

#[test]
fn transactions_with_a_torn_meta_are_discarded_and_with_a_damaged_one_refused() {
    for (what, meta, is_torn) in [
        ("none", None, true),
        ("empty", Some(vec![]), true),
        ("torn", Some(forge::header(forge::META, 1)), true),
        ("noise", Some(b"noise, and rather long noise".to_vec()), false),
        ("another version", Some(forge::header(forge::META, 7)), false),
        ("another file's", Some(forge::header(forge::HEAD, 1)), false),
    ] {
        let scene = Scene::new();
        let directory = scene.transaction(&[("x", "x")]);
        // Without it the transaction is dead whatever its meta says.
        fs::write(directory.join("lock"), "").unwrap();
        if let Some(meta) = meta {
            fs::write(directory.join("meta"), meta).unwrap();
        }
        let before = scene.trees();
        match scene.open() {
            Ok(_) => assert!(is_torn && !directory.exists(), "{what}: discarded"),
            Err(error) => assert_eq!((error.kind(), is_torn), (ErrorKind::Corrupt, false), "{what}: {error}"),
        }
        assert_eq!(scene.trees(), before, "{what}");
    }
}

/// Zeros, too: in a file that holds one record they are no torn tail.
#[test]
fn bytes_after_the_only_record_are_refused() {
    for name in ["store", "HEAD", "meta"] {
        for after in [&b"\0"[..], b"\0\0\0\0\0\0\0\0\0\0\0\0", b"more"] {
            let scene = Scene::new();
            let id = scene.open().unwrap().begin(BeginOptions::default().detached(true)).unwrap().id();
            let name = if name == "meta" { format!("tx/{id}/meta") } else { name.to_owned() };
            let whole = fs::read(scene.state.join(&name)).unwrap();
            scene.plant(&name, [&whole, after].concat());
            scene.refused(&name);
            scene.plant(&name, whole);
            scene.begin_and_commit().unwrap();
        }
    }
}

#[test]
fn names_in_tx_that_are_no_numbers_are_left_alone() {
    let scene = Scene::new();
    for name in ["..x", "7", "000000000000000G", "00000000000000007"] {
        fs::create_dir(scene.state.join("tx").join(name)).unwrap();
    }
    scene.begin_and_commit().unwrap();
    assert_eq!(fs::read_dir(scene.state.join("tx")).unwrap().count(), 4);
}

/// What an interrupted commit left would be left for ever, as if there were no store.
#[test]
fn a_state_directory_without_its_store_file_is_refused_whoever_looks() {
    let undoing_the_first = || {
        let scene = Scene::unsettled();
        fs::rename(scene.state.join("journal"), scene.state.join("journal.undo")).unwrap();
        fs::rename(scene.state.join("HEAD"), scene.dir.path().join("HEAD")).unwrap();
        scene
    };
    for (scene, goes_on) in [(Scene::new(), true), (Scene::unsettled(), true), (undoing_the_first(), false)] {
        fs::rename(scene.state.join("store"), scene.dir.path().join("store")).unwrap();
        let (before, options) = (scene.trees(), OpenOptions::default());
        for result in [Store::find(&options, &scene.out).map(drop), Store::open(&scene.out).map(drop)] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }) && error.to_string().contains("restore it"), "{error}");
        }
        assert_eq!(scene.trees(), before);
        if !goes_on {
            continue;
        }
        // That of any output on the same file system says the same.
        let other = scene.dir.path().join("other");
        Store::open(&other).unwrap();
        fs::copy(state_of(&other).join("store"), scene.state.join("store")).unwrap();
        scene.begin_and_commit().unwrap();
    }
}

/// There are tools that remove empty directories.
#[test]
fn an_empty_directory_of_the_state_that_is_gone_is_made_again() {
    let scene = Scene::new();
    fs::remove_dir(scene.state.join("tx")).unwrap();
    scene.begin_and_commit().unwrap();
    let unsettled = Scene::unsettled();
    fs::rename(unsettled.state.join("previous"), unsettled.state.join("elsewhere")).unwrap();
    assert_eq!(unsettled.open().unwrap_err().kind(), ErrorKind::Corrupt);
}
