//! Taking over a whole output: after its state was lost everything in it is foreign.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::tree::snapshot;
use common::{Scratch, fast_scratch, lenient, publish, read, state_of};
use txfs::{Basis, BeginOptions, CommitOptions, Committed, Error, ErrorKind, Problem, Store, Warning};

/// An output that was published, and whose state is gone.
struct World {
    _dir: Scratch,
    out: PathBuf,
    store: Store,
}

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = fast_scratch();
        let out = dir.path().join("dist");
        publish(&Store::open(&out).unwrap(), files).unwrap();
        fs::remove_dir_all(state_of(&out)).unwrap();
        let store = Store::open(&out).unwrap();
        Self { _dir: dir, out, store }
    }

    fn commit(&self, files: &[(&str, &str)], options: &CommitOptions<'_>) -> txfs::Result<Committed> {
        let mut transaction = self.store.begin(BeginOptions::default())?;
        files.iter().try_for_each(|(path, content)| transaction.write(path, content))?;
        transaction.commit(options)
    }
}

fn names(dir: &Path) -> Vec<String> {
    snapshot(dir)
        .keys()
        .map(|path| String::from_utf8_lossy(path).into_owned())
        .filter(|path| !path.is_empty())
        .collect()
}

fn stays(committed: &Committed) -> Vec<String> {
    let [Warning::Stays { paths, .. }] = &committed.plan.warnings[..] else { panic!("{:?}", committed.plan.warnings) };
    paths.first.iter().map(ToString::to_string).collect()
}

const OLD: [(&str, &str); 6] =
    [("a", "1"), ("b", "1"), ("old", "1"), ("olddir/x", "1"), ("olddir/deep/y", "1"), ("d/z", "1")];

#[test]
fn a_whole_output_is_taken_over_and_what_is_stale_goes_and_comes_back() {
    let world = World::new(&OLD);
    symlink("a", world.out.join("olddir/link")).unwrap();
    fs::create_dir(world.out.join("empty")).unwrap();
    fs::set_permissions(world.out.join("olddir/deep"), fs::Permissions::from_mode(0o500)).unwrap();
    let before = names(&world.out);
    let committed = world.commit(&[("a", "1"), ("b", "2"), ("d/z", "1")], &lenient().adopt_all(true)).unwrap();
    assert_eq!(names(&world.out), ["a", "b", "d", "d/z"]);
    assert_eq!(committed.plan.warnings, []);
    assert_eq!(committed.plan.summary.removed, 7);
    assert_eq!(world.store.verify().unwrap(), []);
    let mut back = world.store.begin(BeginOptions::default()).unwrap();
    back.copy_previous().unwrap();
    back.commit(&lenient()).unwrap();
    let came_back: Vec<_> = before.into_iter().filter(|name| name != "empty").collect();
    assert_eq!((names(&world.out), read(&world.out, "b")), (came_back, "1".into()));
    // And what was displaced is txfs' own, and goes in the end.
    for content in ["3", "4", "5"] {
        publish(&world.store, &[("a", content)]).unwrap();
        assert_eq!(world.store.sweep().unwrap().rescued, [] as [PathBuf; 0]);
    }
    assert!(!state_of(&world.out).join("rescued").exists());
}

#[test]
fn an_output_may_be_taken_over_later() {
    let world = World::new(&OLD);
    let files = [("a", "1"), ("b", "1"), ("olddir/x", "1")];
    let committed = world.commit(&files, &lenient().adopt(true)).unwrap();
    assert_eq!(stays(&committed), ["d/z", "old", "olddir/deep/y"]);
    // What is foreign lies in a directory that is stale by then.
    let committed = world.commit(&files[..2], &lenient().adopt_all(true)).unwrap();
    assert_eq!((names(&world.out), committed.generation), (vec!["a".to_owned(), "b".into()], 2));
    fs::write(world.out.join("late"), "foreign").unwrap();
    // Nothing else changes.
    let committed = world.commit(&files[..2], &lenient().adopt_all(true)).unwrap();
    assert_eq!((names(&world.out), committed.generation), (vec!["a".to_owned(), "b".into()], 3));
    assert_eq!(world.store.verify().unwrap(), []);
    let unchanged = world.commit(&files[..2], &lenient().adopt_all(true)).unwrap();
    assert!(!unchanged.changed);
}

#[test]
fn repositories_states_and_special_files_stay() {
    let world = World::new(&OLD);
    fs::create_dir_all(world.out.join("olddir/.git/objects")).unwrap();
    fs::write(world.out.join("olddir/.git/HEAD"), "").unwrap();
    publish(&Store::open(world.out.join("other")).unwrap(), &[("page", "of another output")]).unwrap();
    nix::unistd::mkfifo(&world.out.join("d/pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let committed = world.commit(&[("a", "1")], &lenient().adopt_all(true)).unwrap();
    assert_eq!(stays(&committed), ["d/pipe"]);
    assert!(world.out.join("olddir/.git/HEAD").exists() && world.out.join(".other.txfs/HEAD").exists());
    for gone in ["b", "olddir/x", "olddir/deep", "d/z", "other"] {
        assert!(!world.out.join(gone).exists(), "{gone}");
    }
}

#[test]
fn what_is_taken_over_counts_as_published_for_the_guards() {
    let world = World::new(&OLD);
    let options = CommitOptions::default().adopt_all(true);
    let Err(Error::Refused { problems, .. }) = world.commit(&[("a", "1"), ("b", "2")], &options) else { panic!() };
    assert_eq!(problems, [Problem::Shrunken { removed: 4, added: 0, files: 6, limit: 50 }]);
    let empty = world.commit(&[], &options).unwrap_err();
    assert!(empty.to_string().contains("no file"), "{empty}");
    assert_eq!(names(&world.out).len(), 9);
    world.commit(&[("a", "1"), ("b", "2"), ("d/z", "1")], &options).unwrap();
}

#[test]
fn a_directory_where_a_file_is_to_go_and_a_change_are_refused() {
    let world = World::new(&OLD);
    let refused = world.commit(&[("a", "1"), ("olddir", "a file")], &lenient().adopt_all(true)).unwrap_err();
    assert!(refused.to_string().contains("cannot be taken over: olddir"), "{refused}");
    world.commit(&[("a", "1")], &lenient().adopt(true)).unwrap();
    let mut change = world.store.begin(BeginOptions::default().from(Basis::Current)).unwrap();
    change.write("b", "2").unwrap();
    assert_eq!(change.commit(&lenient().adopt_all(true)).unwrap_err().kind(), ErrorKind::Usage);
}
