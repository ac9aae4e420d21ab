//! Modes, owners and times of what is written and copied.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use txfs::{BeginOptions, OpenOptions, Store, Transaction};
use txfs_testing::faulty::Faulty;
use txfs_testing::{Scratch, lenient, mode, publish, read, scratch, set_mode};

#[test]
fn a_file_that_was_written_here_is_read_again_where_its_time_cannot_tell() {
    let (_dir, out) = scratch();
    let store = Store::open_with(&OpenOptions::with(Faulty::coarse()), &out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.write("a", "old").unwrap();
    let path = transaction.stage().join("a");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "new").unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!(read(&out, "a"), "new");
    assert_eq!(store.verify().unwrap(), []);
}

#[test]
fn an_output_that_is_made_by_copying_has_the_mode_of_its_source() {
    for bits in [0o750, 0o755, 0o701, 0o777] {
        let (dir, out) = scratch();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("a"), "one").unwrap();
        set_mode(&source, bits);
        let store = Store::open(&out).unwrap();
        for copy in [Transaction::copy_from, Transaction::copy_differing_from] {
            let mut transaction = store.begin(BeginOptions::default()).unwrap();
            copy(&mut transaction, &source).unwrap();
            transaction.commit(&lenient()).unwrap();
            assert_eq!(mode(&out), bits);
        }
    }
}

/// What a directory is given that is made here.
fn as_umask_says(dir: &Path) -> u32 {
    let probe = dir.join("as-umask-says");
    fs::create_dir(&probe).unwrap();
    let bits = mode(&probe);
    fs::remove_dir(probe).unwrap();
    bits
}

/// `mktemp -d` and its like make a directory for its maker alone, which says nothing of who is to read what is published.
#[test]
fn a_new_output_does_not_get_the_mode_of_a_temporary_directory() {
    for bits in [0o700, 0o500] {
        let (dir, out) = scratch();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        fs::write(source.join("a"), "one").unwrap();
        set_mode(&source, bits);
        let store = Store::open(&out).unwrap();
        for copy in [Transaction::copy_from, Transaction::copy_differing_from] {
            let mut transaction = store.begin(BeginOptions::default()).unwrap();
            copy(&mut transaction, &source).unwrap();
            transaction.commit(&lenient()).unwrap();
            assert_eq!(mode(&out), as_umask_says(dir.path()));
            fs::remove_dir_all(&out).unwrap();
        }
        // A tool puts a directory of its own in the place of its stage.
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        fs::remove_dir(transaction.stage()).unwrap();
        // An ordinary user may not move a directory that they may not write to.
        set_mode(&source, 0o700);
        fs::rename(&source, transaction.stage()).unwrap();
        set_mode(&transaction.stage(), bits);
        transaction.commit(&lenient()).unwrap();
        assert_eq!(mode(&out), as_umask_says(dir.path()));
        // Whoever wants it otherwise says so to the output.
        set_mode(&out, 0o700);
        publish(&store, &[("a", "two")]).unwrap();
        assert_eq!(mode(&out), 0o700);
    }
}

#[test]
fn a_copy_lends_nobody_the_rights_of_its_new_owner() {
    if !txfs_testing::is_root() {
        return txfs_testing::skip("set-id bits", "giving a file to another user needs root");
    }
    for (owner, group, expected) in [(65534, 65534, 0o755), (0, 65534, 0o4755), (65534, 0, 0o2755), (0, 0, 0o6755)] {
        let (dir, out) = scratch();
        let source = dir.path().join("source");
        fs::create_dir(&source).unwrap();
        let file = source.join("program");
        fs::write(&file, "x").unwrap();
        chown(&file, Some(owner), Some(group)).unwrap();
        set_mode(&file, 0o6755);
        let store = Store::open(&out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        // A staged file with another name is copied, too.
        let staged = transaction.stage().join("linked");
        fs::hard_link(&file, &staged).unwrap();
        transaction.copy_from(&source).unwrap();
        transaction.commit(&lenient()).unwrap();
        for name in ["program", "linked"] {
            assert_eq!(mode(&out.join(name)), expected, "{name} of {owner}:{group}");
        }
    }
}

#[test]
fn a_copy_has_the_attributes_of_directories_and_belongs_to_whoever_copies() {
    let dir = Scratch::new();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("d/sub")).unwrap();
    fs::write(source.join("d/file"), "one").unwrap();
    if let Err(error) = xattr::set(source.join("d"), "user.origin", b"d") {
        return txfs_testing::skip("attributes of directories", &error.to_string());
    }
    let acl = txfs_testing::acl(65534);
    for dir in ["", "d"] {
        xattr::set(source.join(dir), "system.posix_acl_default", &acl).unwrap();
    }
    xattr::set(source.join("d/sub"), "system.posix_acl_access", &acl).unwrap();
    set_mode(&source.join("d/sub"), 0o550);
    if txfs_testing::is_root() {
        for path in ["d", "d/sub", "d/file"] {
            chown(source.join(path), Some(65534), Some(65534)).unwrap();
        }
    }
    for name in ["whole", "differing"] {
        let out = dir.path().join(name);
        let store = Store::open(&out).unwrap();
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        match name {
            "whole" => transaction.copy_from(&source).unwrap(),
            _ => transaction.copy_differing_from(&source).unwrap(),
        }
        transaction.commit(&lenient()).unwrap();
        for (path, attribute) in [
            ("", "system.posix_acl_default"),
            ("d", "system.posix_acl_default"),
            ("d", "user.origin"),
            ("d/sub", "system.posix_acl_access"),
            ("d/file", "system.posix_acl_access"),
        ] {
            let of = |root: &Path| xattr::get(root.join(path), attribute).unwrap();
            assert_eq!(of(&out), of(&source), "{name} {path} {attribute}");
        }
        for path in ["d", "d/sub", "d/file"] {
            assert_eq!(fs::metadata(out.join(path)).unwrap().uid(), nix::unistd::geteuid().as_raw(), "{path}");
            assert_eq!(mode(&out.join(path)), mode(&source.join(path)), "{path}");
        }
    }
}

#[test]
fn a_directory_that_is_only_written_into_keeps_its_mode() {
    let (dir, out) = scratch();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("d/sub")).unwrap();
    for (path, bits) in [("d/sub", 0o2711), ("d", 0o700)] {
        fs::write(source.join(path).join("file"), "one").unwrap();
        set_mode(&source.join(path), bits);
    }
    let store = Store::open(&out).unwrap();
    for content in ["one", "two"] {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        transaction.copy_differing_from(&source).unwrap();
        transaction.write("d/sub/new", content).unwrap();
        transaction.commit(&lenient()).unwrap();
        assert_eq!([mode(&out.join("d")), mode(&out.join("d/sub"))], [0o700, 0o2711], "{content}");
    }
    // The same where everything but what differs is taken from the current generation.
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    transaction.copy_previous().unwrap();
    transaction.make_dir("d/sub/empty").unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!([mode(&out.join("d")), mode(&out.join("d/sub"))], [0o700, 0o2711]);
    assert_eq!((read(&out, "d/sub/new"), read(&out, "d/file")), ("one".into(), "one".into()));
    assert_eq!(store.verify().unwrap(), []);
}
