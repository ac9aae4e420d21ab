//! State planted by somebody else, or damaged: refused or harmless, and nothing outside the store changes.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use txfs::fs::LinuxFs;
use txfs::{
    Begin, BeginOptions, CommitOptions, Entry, Error, ErrorKind, Head, Object, OpenOptions, Operation, RecoverOptions,
    RecoveredCommit, Store, Totals,
};
use txfs_testing::forge::{self, begin, info, object, path};
use txfs_testing::tree::{Node, snapshot};
use txfs_testing::{Scratch, publish, state_of};

mod damage;
mod journals;
mod links;
mod places;
mod table;
mod undoing;
mod unnamed;

/// A store with two generations, and a tree beside it that nobody may touch.
struct Scene {
    dir: Scratch,
    out: PathBuf,
    state: PathBuf,
    head: Head,
    before: BTreeMap<Vec<u8>, Node>,
    kernel: LinuxFs,
}

type Trees = [BTreeMap<Vec<u8>, Node>; 2];

impl Scene {
    fn new() -> Self {
        let scene = Self::unsettled();
        Store::open_with(&OpenOptions::default().recover(false), &scene.out)
            .unwrap()
            .recover(RecoverOptions::default())
            .unwrap();
        scene
    }

    /// The journal of the second generation has still to be retired.
    fn unsettled() -> Self {
        let dir = txfs_testing::fast_scratch();
        let out = dir.path().join("dist");
        let outside = dir.path().join("outside");
        fs::create_dir_all(outside.join("sub")).unwrap();
        fs::write(outside.join("victim"), "precious").unwrap();
        fs::write(outside.join("sub/victim"), "precious").unwrap();
        let store = Store::open(&out).unwrap();
        publish(&store, &[("a", "1"), ("d/x", "1"), ("old/y", "1")]).unwrap();
        publish(&store, &[("a", "2"), ("d/x", "2"), ("d/z/deep", "2")]).unwrap();
        let head = store.head().unwrap().unwrap();
        let before = snapshot(&out);
        Self { state: state_of(&out), dir, out, head, before, kernel: LinuxFs::new() }
    }

    /// Where it is opened by this kernel.
    fn on(kernel: LinuxFs) -> Self {
        Self { kernel, ..Self::new() }
    }

    fn outside(&self) -> PathBuf {
        self.dir.path().join("outside")
    }

    fn trees(&self) -> Trees {
        [snapshot(&self.out), snapshot(&self.outside())]
    }

    fn plant(&self, name: &str, content: impl AsRef<[u8]>) {
        let _ = fs::remove_file(self.state.join(name));
        fs::write(self.state.join(name), content).unwrap();
    }

    /// The HEAD that a journal on top of the current generation leads to.
    fn next(&self) -> Head {
        Head {
            info: info(self.head.info.generation + 1),
            manifest: txfs::Digest::of(b"next"),
            totals: Totals::default(),
            extent: txfs::Extent::default(),
        }
    }

    /// The first record of a journal of transaction 7 on top of the current generation.
    fn begin(&self) -> Begin {
        let (manifest, head) = forge::manifest(&info(self.head.info.generation + 1), &[], None);
        self.plant(&format!("manifests/{}", head.info.generation), manifest);
        begin(7, Some(&self.head), head)
    }

    /// Makes the directory of transaction 7 as a commit of it would have left it, with these files staged.
    fn transaction(&self, staged: &[(&str, &str)]) -> PathBuf {
        let directory = self.state.join("tx/0000000000000007");
        fs::create_dir_all(directory.join("stage")).unwrap();
        fs::create_dir_all(directory.join("removed")).unwrap();
        for (name, content) in staged {
            let file = directory.join("stage").join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        directory
    }

    fn open(&self) -> txfs::Result<Store> {
        let options = OpenOptions::with(self.kernel.clone()).lock_timeout(Duration::from_millis(200));
        Store::open_with(&options, &self.out)
    }

    /// Opens the store and begins a transaction, which reads everything that recovery goes by.
    fn begin_and_commit(&self) -> txfs::Result<()> {
        let store = self.open()?;
        let mut transaction = store.begin(BeginOptions::default())?;
        transaction.write("a", "3")?;
        transaction.write("d/x", "2")?;
        transaction.commit(&CommitOptions::default())?;
        Ok(())
    }

    /// Everything is refused as corrupt, and nothing in the output or outside changes.
    #[track_caller]
    fn refused(&self, what: &str) -> Error {
        let before = self.trees();
        let error = self.begin_and_commit().expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
        assert_eq!(self.trees(), before, "{what}: {error}");
        assert!(
            error.hint().is_some() || matches!(error, Error::Untrusted { .. } | Error::OfAnotherUser { .. }),
            "{what}: no way out: {error}"
        );
        error
    }

    /// It may be refused or be harmless; nothing outside changes, and the output is as before or as committed.
    #[track_caller]
    fn harmless(&self, what: &str) -> txfs::Result<()> {
        let [output, outside] = self.trees();
        let result = self.begin_and_commit();
        if let Err(error) = &result {
            assert_ne!(error.kind(), ErrorKind::Unknown, "{what}: {error}");
            assert_eq!(snapshot(&self.out), output, "{what}: {error}");
        }
        assert_eq!(snapshot(&self.outside()), outside, "{what}");
        result
    }
}

fn entry(name: &str, object: Object) -> Entry {
    Entry { path: path(name), object }
}

fn replace(scene: &Scene) -> Vec<Operation> {
    let transaction = scene.transaction(&[("a", "3")]);
    let (old, new) = (object(&scene.out.join("a")), object(&transaction.join("stage/a")));
    vec![Operation::Replace { path: path("a"), old, new }]
}

/// The manifest of generation 3, and HEAD for it.
fn third(scene: &Scene) -> Head {
    third_of(scene, "a")
}

fn third_of(scene: &Scene, name: &str) -> Head {
    let entries = [entry(name, object(&scene.state.join("tx/0000000000000007/stage").join(name)))];
    let (manifest, head) = forge::manifest(&info(3), &entries, None);
    scene.plant("manifests/3", manifest);
    head
}

fn recover(scene: &Scene) -> txfs::Result<Option<RecoveredCommit>> {
    let store = Store::find(&OpenOptions::default(), &scene.out)?.unwrap();
    let first = store.recover(RecoverOptions::default())?.commit;
    assert!(store.recover(RecoverOptions::default())?.commit.is_none(), "recovery is a fixed point after {first:?}");
    Ok(first)
}

/// What changes places in a replacement.
fn exchange(scene: &Scene) {
    let staged = scene.state.join("tx/0000000000000007/stage/a");
    let aside = scene.dir.path().join("aside");
    fs::rename(scene.out.join("a"), &aside).unwrap();
    fs::rename(&staged, scene.out.join("a")).unwrap();
    fs::rename(aside, staged).unwrap();
}
