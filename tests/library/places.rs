//! Where an output and its state may lie, and whose they are.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fs2::FileExt;
use txfs::{BeginOptions, CommitOptions, Error, ErrorKind, OpenOptions, Problem, RecoverOptions, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::mounts;
use txfs_testing::tree::snapshot;
use txfs_testing::{bytes, publish, read, scratch, skip, state_of};

#[test]
fn the_state_of_an_output_is_no_content_of_another() {
    let (dir, out) = scratch();
    let project = dir.path().join("project");
    let inner = project.join("site");
    fs::create_dir(&project).unwrap();
    publish(&Store::open(&inner).unwrap(), &[("index.html", "inner")]).unwrap();
    // By that name alone it may be anybody's.
    fs::create_dir(project.join(".notes.txfs")).unwrap();
    fs::write(project.join(".notes.txfs/note"), "mine").unwrap();

    let store = Store::open(&out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.copy_from(&project).unwrap();
    assert!(!transaction.stage().join(".site.txfs").exists());
    transaction.commit(&CommitOptions::default()).unwrap();
    assert_eq!((read(&out, "site/index.html"), read(&out, ".notes.txfs/note")), ("inner".into(), "mine".into()));

    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("deep/.site.txfs/store", "taken along by a tool").unwrap();
    let error = transaction.commit(&CommitOptions::default()).unwrap_err();
    let Error::Refused { problems, .. } = &error else { panic!("{error}") };
    assert!(matches!(&problems[..], [Problem::ReservedName(_), ..]), "{error}");
    assert!(error.to_string().contains("deep/.site.txfs"), "{error}");
}

#[test]
fn an_output_cannot_be_inside_the_state_of_another() {
    let (_dir, out) = scratch();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one")]).unwrap();
    let transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
    let stage = transaction.stage();
    let before = snapshot(store.state());
    for inside in [store.state().to_path_buf(), store.state().join("previous"), stage.clone(), stage.join("new")] {
        let error = Store::open(&inside).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert!(error.to_string().ends_with("where txfs keeps the state of another output"), "{error}");
    }
    assert_eq!(snapshot(store.state()), before);
}

#[test]
fn an_output_whose_name_leaves_no_room_for_its_state_beside_it_has_it_inside() {
    let (dir, _) = scratch();
    let out = dir.path().join(bytes(&[b'x'; 250]));
    let error = Store::open(&out).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    assert!(error.to_string().contains("its name is too long"), "{error}");
    fs::create_dir(&out).unwrap();
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "one")]).unwrap();
    assert_eq!((read(&out, "a"), store.state()), ("one".into(), &*out.join(".txfs")));
}

#[test]
fn a_store_at_rest_that_is_damaged_is_not_opened() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 4] = [
        ("HEAD garbled", |state| fs::write(state.join("HEAD"), "garbage").unwrap()),
        ("HEAD gone", |state| fs::remove_file(state.join("HEAD")).unwrap()),
        ("manifest gone", |state| fs::remove_file(state.join("manifests/1")).unwrap()),
        ("manifest cut", |state| fs::write(state.join("manifests/1"), "").unwrap()),
    ];
    for (name, damage) in damages {
        let (_dir, out) = scratch();
        let store = Store::open(&out).unwrap();
        publish(&store, &[("a", "one")]).unwrap();
        assert!(store.sweep().unwrap().done);
        damage(store.state());
        for recovered in [
            store.recover(RecoverOptions::default()),
            store.recover(RecoverOptions::default().undo(true)),
            store.recover(RecoverOptions::default().skip_unknown(true)),
        ] {
            assert_eq!(recovered.unwrap_err().kind(), ErrorKind::Corrupt, "{name}");
        }
        assert_eq!(Store::open(&out).unwrap_err().kind(), ErrorKind::Corrupt, "{name}");
        assert_eq!(read(&out, "a"), "one");
    }
}

#[test]
fn a_dangling_link_with_a_slash_is_the_output_that_it_leads_to() {
    let (dir, _) = scratch();
    fs::create_dir(dir.path().join("t")).unwrap();
    symlink("t/real", dir.path().join("link")).unwrap();
    let store = Store::open(dir.path().join("link/")).unwrap();
    assert_eq!(store.output(), dir.path().canonicalize().unwrap().join("t/real"));
    publish(&store, &[("a", "one")]).unwrap();
    assert_eq!(read(&dir.path().join("link"), "a"), "one");
}

#[test]
fn a_state_directory_is_its_owners_alone() {
    let (_dir, beside) = scratch();
    let mut outputs = vec![beside];
    // In a mount point it is inside.
    let mount = mounts::mount("tmpfs");
    match &mount {
        Ok(mount) => outputs.push(mount.path().to_path_buf()),
        Err(why) => skip("a state directory in a mount point", why),
    }
    for out in outputs {
        let store = Store::open(&out).unwrap();
        assert_eq!(fs::metadata(store.state()).unwrap().mode() & 0o7777, 0o700, "{}", store.state().display());
    }
}

/// Somebody removes the lock's file, and somebody else makes it anew and holds it, in the moment after it was locked here.
#[test]
fn a_lock_is_that_of_the_file_that_has_its_name() {
    let (_dir, out) = scratch();
    // Settled, it is opened without the lock.
    let store = Store::open(&out).unwrap();
    publish(&store, &[("a", "a")]).unwrap();
    store.sweep().unwrap();
    let lock = state_of(&out).join("lock");
    let held: Arc<Mutex<Option<fs::File>>> = Arc::default();
    let (theirs, at) = (held.clone(), lock.clone());
    let kernel = Faulty::new(move |call| {
        let mut theirs = theirs.lock().unwrap();
        if *call == Call::Read("locked") && theirs.is_none() {
            fs::remove_file(&at).unwrap();
            let made = fs::File::create_new(&at).unwrap();
            made.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
            assert!(FileExt::try_lock_exclusive(&made).is_ok());
            *theirs = Some(made);
        }
        None
    });
    let options = OpenOptions::with(kernel).lock_timeout(Duration::ZERO);
    let store = Store::open_with(&options, &out).unwrap();
    assert!(held.lock().unwrap().is_none());
    let error = store.begin(BeginOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(held.lock().unwrap().is_some());
}
