//! Attributes, owners and set-id bits come back.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use txfs::{Basis, BeginOptions, Store};
use txfs_testing::tree::snapshot;
use txfs_testing::{Scratch, lenient, publish, set_mode};

use super::roll_back;

/// Mode, owner, group and extended attributes.
type Described = (u32, u32, u32, BTreeMap<OsString, Vec<u8>>);

/// Of everything in a directory what two entries with the same content can differ in.
fn described(root: &Path) -> BTreeMap<PathBuf, Described> {
    let describe = |path: &Path| {
        let stat = fs::symlink_metadata(path).unwrap();
        let attributes = xattr::list(path).unwrap().map(|name| {
            let value = xattr::get(path, &name).unwrap().unwrap();
            (name, value)
        });
        (stat.mode(), stat.uid(), stat.gid(), attributes.collect())
    };
    let paths = snapshot(root).into_keys().map(|path| PathBuf::from(String::from_utf8(path).unwrap()));
    paths.map(|path| (path.clone(), describe(&root.join(path)))).collect()
}

/// Files and directories with attributes, some of them in a directory that gives its own to whatever is made in it.
fn fill_with_attributes(stage: &Path) {
    fs::create_dir_all(stage.join("shared/sub")).unwrap();
    fs::create_dir_all(stage.join("closed/sub")).unwrap();
    fs::create_dir(stage.join("stays")).unwrap();
    for file in ["page", "shared/sub/page", "shared/page", "closed/sub/page", "stays/page"] {
        fs::write(stage.join(file), "one").unwrap();
        set_mode(&stage.join(file), 0o640);
    }
    symlink("page", stage.join("link")).unwrap();
    let acl = txfs_testing::acl(65534);
    // Their owner is to get into directories.
    let mut acl_of_dirs = acl.clone();
    acl_of_dirs[4..].chunks_mut(8).for_each(|entry| entry[2] |= 1);
    for dir in ["shared", "closed", "closed/sub", "stays"] {
        xattr::set(stage.join(dir), "user.origin", dir.as_bytes()).unwrap();
        xattr::set(stage.join(dir), "system.posix_acl_default", &acl_of_dirs).unwrap();
    }
    xattr::set(stage.join("shared/page"), "system.posix_acl_access", &acl).unwrap();
    xattr::set(stage.join("shared/sub"), "system.posix_acl_access", &acl_of_dirs).unwrap();
    set_mode(&stage.join("shared"), 0o2775);
    for closed in ["closed/sub", "closed"] {
        set_mode(&stage.join(closed), 0o555);
    }
}

/// Publishes what `fill` makes: it is the same again in a stage that is a copy of it, and after it was replaced and gone back to.
fn assert_comes_back(out: &Path, fill: impl Fn(&Path)) {
    let store = Store::open(out).unwrap();
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&transaction.stage());
    transaction.commit(&lenient()).unwrap();
    drop(transaction);
    let first = described(out);
    let copy = store.begin(BeginOptions::default().from(Basis::Copy)).unwrap();
    assert_eq!(described(&copy.stage()), first, "a copy of what is published");
    copy.abort().unwrap();
    publish(&store, &[("page", "two"), ("shared", "two"), ("stays/page", "two")]).unwrap();
    roll_back(&store).unwrap();
    assert_eq!(described(out), first, "gone back to");
    assert_eq!(store.verify().unwrap(), []);
}

fn disk_scratch(test: &str) -> Option<(Scratch, PathBuf)> {
    let dir = Scratch::new();
    if let Err(error) = xattr::set(dir.path(), "user.probe", b"1") {
        txfs_testing::skip(test, &format!("{} has no extended attributes: {error}", dir.path().display()));
        return None;
    }
    let out = dir.path().join("dist");
    Some((dir, out))
}

#[test]
fn attributes_of_files_and_directories_come_back() {
    let Some((_dir, out)) = disk_scratch("attributes") else { return };
    assert_comes_back(&out, fill_with_attributes);
}

#[test]
fn owners_groups_and_set_id_bits_come_back() {
    if !txfs_testing::is_root() {
        return txfs_testing::skip("owners that come back", "giving a file to another user needs root");
    }
    let Some((_dir, out)) = disk_scratch("owners that come back") else { return };
    assert_comes_back(&out, |stage| {
        fill_with_attributes(stage);
        fs::write(stage.join("shared/program"), "one").unwrap();
        for (path, owner, group, mode) in [
            ("page", 0, 33, 0o640),
            ("shared/page", 33, 33, 0o600),
            ("shared/program", 65534, 33, 0o6755),
            ("shared/sub", 33, 0, 0o750),
            ("shared", 65534, 33, 0o3775),
            ("closed/sub", 0, 33, 0o550),
            ("stays", 33, 33, 0o2750),
        ] {
            chown(stage.join(path), Some(owner), Some(group)).unwrap();
            set_mode(&stage.join(path), mode);
        }
        lchown(stage.join("link"), Some(33), Some(65534)).unwrap();
    });
}
