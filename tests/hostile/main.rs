//! State planted by somebody else, or damaged: refused or harmless, and nothing outside the store changes.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::forge::{self, begin, info, nothing, object, path};
use common::tree::{Node, snapshot};
use common::{Scratch, bytes, change_a_byte, kernels, lenient, publish, read, state_of};
use txfs::fs::{Kind, LinuxFs, Timestamp};
use txfs::{
    Begin, BeginOptions, CommitOptions, Entry, Error, ErrorKind, Head, Object, OpenOptions, Operation, Problem,
    RecoverOptions, RecoveredCommit, Store, Totals,
};

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
        let dir = common::fast_scratch();
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

#[test]
fn a_journal_with_paths_that_leave_the_output_is_refused() {
    for hostile in [&b"../outside/victim"[..], b"/etc/passwd", b"a/../../outside", b"a\0b", b".", b"a//b", b"a/"] {
        for operation in [forge::raw_set_mode(hostile), forge::raw_add(hostile, &nothing(Kind::File))] {
            let scene = Scene::new();
            scene.transaction(&[]);
            let begin = scene.begin();
            scene.plant("journal", forge::journal_of(&begin, &[operation]));
            // What is nowhere would be refused in any case.
            let error = scene.refused(&format!("{hostile:?}")).to_string();
            assert!(error.contains("cannot be decoded"), "{hostile:?}: {error}");
        }
    }
}

#[test]
fn a_journal_about_the_state_directory_is_refused() {
    for name in [".txfs", ".txfs/HEAD"] {
        let scene = Scene::new();
        let transaction = scene.transaction(&[(".txfs/HEAD", "mine")]);
        // Nothing but where it leads is against it.
        if name.contains('/') {
            fs::create_dir(scene.out.join(".txfs")).unwrap();
        }
        let operation = Operation::Add { path: path(name), new: object(&transaction.join("stage").join(name)) };
        scene.plant("journal", forge::journal(&scene.begin(), &[operation]));
        scene.refused(name);
    }
}

#[test]
fn nonsense_with_valid_checksums_is_refused() {
    let file = nothing(Kind::File);
    let add = |name: &str| Operation::Add { path: path(name), new: file };
    let remove = |name: &str| Operation::Remove { path: path(name), old: file };
    let cases: Vec<(&str, Vec<Operation>)> = vec![
        ("twice", vec![add("n"), add("n")]),
        ("overlapping", vec![remove("d"), remove("d/x")]),
        ("overlapping, other order", vec![remove("d/x"), remove("d")]),
        ("the output itself", vec![Operation::Remove { path: txfs::RelPath::root(), old: nothing(Kind::Directory) }]),
        ("a wild mode", vec![Operation::SetMode { path: path("d"), from: 0o755, to: 0o100_777 }]),
        ("entries that are nowhere", vec![add("n"), remove("a"), remove("nowhere")]),
        ("a mode of nothing", vec![Operation::SetMode { path: path("nowhere"), from: 0o700, to: 0o777 }]),
    ];
    for (what, operations) in cases {
        let scene = Scene::new();
        scene.transaction(&[]);
        scene.plant("journal", forge::journal(&scene.begin(), &operations));
        scene.refused(what);
    }
}

#[test]
fn nonsense_that_has_not_got_the_name_of_a_journal_is_no_commit() {
    let cases: [(&str, Vec<Vec<u8>>); 5] = [
        ("out of the output", vec![forge::raw_add(b"../outside/victim", &nothing(Kind::File))]),
        ("no record", vec![vec![9, 9, 9]]),
        ("another output", vec![vec![1, 1, 0, 1, b'a', 1, 1]]),
        ("an entry that is nowhere", vec![forge::raw_add(b"n", &nothing(Kind::File))]),
        ("nothing at all", vec![]),
    ];
    for (what, operations) in cases {
        let scene = Scene::new();
        let begin = scene.begin();
        // Without a transaction: there is no place for what comes out of the output.
        scene.plant("journal.new", forge::journal_of(&begin, &operations));
        scene.harmless(what).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(read(&scene.out, "a"), "3", "{what}");
    }
}

#[test]
fn payloads_that_are_no_records_are_refused() {
    let huge_path = {
        let mut payload = vec![1, 0, 0];
        payload.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
        payload
    };
    for (what, payload) in [
        ("an unknown variant", vec![9, 9, 9]),
        ("a count without its bytes", huge_path),
        ("a begin record again", vec![0]),
        ("another output", vec![1, 1, 0, 1, b'a', 1, 1]),
        ("left-over bytes", [forge::raw_set_mode(b"d"), vec![0]].concat()),
    ] {
        let scene = Scene::new();
        scene.transaction(&[]);
        scene.plant("journal", forge::journal_of(&scene.begin(), &[payload]));
        scene.refused(what);
    }
}

#[test]
fn frames_that_lie_about_their_length_are_refused() {
    for (what, length, body) in
        [("impossible", u32::MAX, 64), ("zero", 0u32, 64), ("just above the limit", (16 << 20) + 1, 64)]
    {
        let scene = Scene::new();
        let mut file = forge::header(forge::JOURNAL, forge::JOURNAL_VERSION);
        file.extend(length.to_le_bytes());
        file.extend(vec![1u8; body]);
        scene.plant("journal", &file);
        scene.refused(what);
    }
}

#[test]
fn a_journal_of_another_version_is_refused() {
    for version in [0, forge::JOURNAL_VERSION + 1] {
        let scene = Scene::new();
        let mut journal = forge::journal(&scene.begin(), &[]);
        journal.splice(..16, forge::header(forge::JOURNAL, version));
        scene.plant("journal", journal);
        scene.refused(&format!("version {version}"));
        let error = scene.open().unwrap_err().to_string();
        assert!(error.contains("version"), "{error}");
    }
}

#[test]
fn a_journal_of_a_transaction_that_is_not_there_is_refused() {
    let scene = Scene::new();
    let operations =
        [Operation::Replace { path: path("a"), old: object(&scene.out.join("a")), new: nothing(Kind::File) }];
    scene.plant("journal", forge::journal(&scene.begin(), &operations));
    scene.refused("no transaction");
}

#[test]
fn an_undo_journal_of_a_transaction_that_is_not_there_is_refused() {
    let scene = Scene::new();
    let operations = [Operation::Remove { path: path("gone"), old: nothing(Kind::File) }];
    scene.plant("journal.undo", forge::journal(&scene.begin(), &operations));
    scene.refused("no transaction");
}

#[test]
fn generations_at_the_end_of_their_range_are_no_panic() {
    let scene = Scene::new();
    let entries = ["a", "d", "d/x", "d/z", "d/z/deep"].map(|name| entry(name, object(&scene.out.join(name))));
    let (manifest, head) = forge::manifest(&info(u64::MAX), &entries, None);
    scene.plant(&format!("manifests/{}", u64::MAX), manifest);
    scene.plant("HEAD", forge::head(&head));
    scene.refused("the last generation there can be");

    let scene = Scene::new();
    fs::create_dir(scene.state.join(format!("previous/{}", u64::MAX))).unwrap();
    scene.plant(&format!("manifests/{}", u64::MAX), "x");
    scene.harmless("a previous generation from the future").unwrap();

    let scene = Scene::new();
    let last = Head { info: info(0), ..scene.next() };
    let begin = Begin { base: u64::MAX, ..begin(7, Some(&scene.head), last) };
    scene.plant("journal", forge::journal(&begin, &[]));
    scene.refused("a generation that wraps around");
}

#[test]
fn totals_that_overflow_are_no_panic() {
    let scene = Scene::new();
    let huge = Object { size: u64::MAX, ..nothing(Kind::File) };
    let (manifest, head) = forge::manifest(&scene.head.info, &[entry("a", huge), entry("b", huge)], None);
    scene.plant("manifests/2", manifest);
    scene.plant("HEAD", forge::head(&head));
    // The sizes are drift, or the manifest is refused: either is well.
    scene.harmless("sizes that add up to more than there is").unwrap_err();
}

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

/// What recovery answers for each line of its table. `journal` leads from generation 2, which is current, to 3.
mod table {
    use super::*;

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
        assert!(
            store.recover(RecoverOptions::default())?.commit.is_none(),
            "recovery is a fixed point after {first:?}"
        );
        Ok(first)
    }

    #[test]
    fn no_journal_is_clean() {
        let scene = Scene::new();
        scene.plant("journal.new", "half");
        scene.plant("HEAD.new", "half");
        assert_eq!(recover(&scene).unwrap(), None);
        // On btrfs both can survive the transaction that they belonged to.
        let left = |name: &str| super::common::state_of(&scene.out).join(name).exists();
        assert!(!left("journal.new") && !left("HEAD.new"), "what means nothing is removed");
        scene.begin_and_commit().unwrap();
    }

    /// What changes places in a replacement.
    fn exchange(scene: &Scene) {
        let staged = scene.state.join("tx/0000000000000007/stage/a");
        let aside = scene.dir.path().join("aside");
        fs::rename(scene.out.join("a"), &aside).unwrap();
        fs::rename(&staged, scene.out.join("a")).unwrap();
        fs::rename(aside, staged).unwrap();
    }

    /// Nothing of the transaction is left, and HEAD is the second generation's; the next commit goes through.
    #[track_caller]
    fn is_over(scene: &Scene, what: &str) {
        let left = |name: &str| scene.state.join(name).exists();
        assert!(
            !left("tx/0000000000000007") && !left("journal.new") && !left("journal") && !left("HEAD.new"),
            "{what}"
        );
        assert_eq!(snapshot(&scene.out), scene.before, "{what}");
        assert_eq!(scene.open().unwrap().head().unwrap().as_ref(), Some(&scene.head), "{what}");
        scene.begin_and_commit().unwrap_or_else(|error| panic!("{what}: {error}"));
    }

    #[test]
    fn a_journal_without_its_name_that_is_not_valid_is_no_commit() {
        let scene = Scene::new();
        let operations = replace(&scene);
        let whole = forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations);
        let cuts = [0, 7, 16, 30, whole.len() - 40, whole.len() - 1].map(|cut| whole[..cut].to_vec());
        let zeros = [16, 30, whole.len() - 40].map(|at| [&whole[..at], &vec![0; whole.len() - at]].concat());
        let flipped = [0, 9, 20, 40, whole.len() / 2, whole.len() - 1].map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            bytes
        });
        let longer = [&whole[..], &[1]].concat();
        for (index, bytes) in cuts.into_iter().chain(zeros).chain(flipped).chain([longer]).enumerate() {
            let scene = Scene::new();
            replace(&scene);
            third(&scene);
            scene.plant("journal.new", bytes);
            scene.plant("HEAD.new", "half");
            assert_eq!(recover(&scene).unwrap(), None, "{index}");
            is_over(&scene, &index.to_string());
        }
    }

    /// A commit with a file, a link and a closed directory in it, whose journal has not got its name.
    fn intend(scene: &Scene) -> PathBuf {
        // Nothing that a test does is later: it stands for what a crash leaves.
        intend_at(scene, Timestamp { seconds: 1 << 40, nanos: 0 })
    }

    /// The same, where what was staged was changed last at `last_change`.
    fn intend_at(scene: &Scene, last_change: Timestamp) -> PathBuf {
        let transaction = scene.transaction(&[("a", "3"), ("n/sub/y", "y"), ("n/x", "x")]);
        let stage = transaction.join("stage");
        symlink("a", stage.join("l")).unwrap();
        fs::set_permissions(stage.join("n"), fs::Permissions::from_mode(0o555)).unwrap();
        let staged = |name: &str| object(&stage.join(name));
        let kept = ["d", "d/x", "d/z", "d/z/deep"].map(|name| entry(name, object(&scene.out.join(name))));
        let new = ["l", "n", "n/sub", "n/sub/y", "n/x"].map(|name| entry(name, staged(name)));
        let entries: Vec<_> = [entry("a", staged("a"))].into_iter().chain(kept).chain(new).collect();
        let (manifest, head) = forge::manifest(&info(3), &entries, None);
        scene.plant("manifests/3", manifest);
        let operations = [
            Operation::Add { path: path("l"), new: staged("l") },
            Operation::Add { path: path("n"), new: staged("n") },
            Operation::Replace { path: path("a"), old: object(&scene.out.join("a")), new: staged("a") },
            Operation::SetMode { path: path("n"), from: 0o755, to: 0o555 },
        ];
        let begin = Begin { last_change, ..begin(7, Some(&scene.head), head) };
        scene.plant("journal.new", forge::journal(&begin, &operations));
        transaction
    }

    #[test]
    fn a_journal_without_its_name_on_its_base_is_rolled_forward_when_all_that_it_names_is_there() {
        for kept in ["nothing", "a directory that was opened to be moved", "the place among what was displaced"] {
            let scene = Scene::new();
            let transaction = intend(&scene);
            // Whoever carries out a commit begins and ends so, and a crash may keep that alone.
            match kept {
                "nothing" => {}
                "a directory that was opened to be moved" => {
                    fs::set_permissions(transaction.join("stage/n"), fs::Permissions::from_mode(0o755)).unwrap();
                }
                _ => fs::rename(&transaction, scene.state.join("previous/3")).unwrap(),
            }
            let operations = 4;
            assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::RolledForward { generation: 3, operations }));
            assert_eq!((read(&scene.out, "a"), read(&scene.out, "l")), ("3".into(), "3".into()));
            assert_eq!((read(&scene.out, "n/x"), read(&scene.out, "n/sub/y")), ("x".into(), "y".into()));
            assert_eq!(fs::metadata(scene.out.join("n")).unwrap().mode() & 0o7777, 0o555);
            assert_eq!(read(&scene.state, "previous/3/stage/a"), "2");
            assert!(scene.state.join("previous/3/journal").exists() && !scene.state.join("journal.new").exists());
            let store = scene.open().unwrap();
            assert_eq!(store.head().unwrap().unwrap().info.generation, 3);
            assert!(store.verify().unwrap().is_empty());
        }
    }

    /// Anything that a crash may leave of it, of which nobody was told.
    #[test]
    fn a_journal_without_its_name_on_its_base_is_discarded_when_anything_that_it_names_is_not_as_it_says() {
        type Change = fn(&Path);
        fn mode(path: &Path, mode: u32) {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        fn in_closed(directory: &Path, change: impl FnOnce(&Path)) {
            mode(directory, 0o755);
            change(directory);
            mode(directory, 0o555);
        }
        fn remade(path: &Path) {
            let (content, modified) = (fs::read(path).unwrap(), fs::metadata(path).unwrap().modified().unwrap());
            fs::rename(path, path.with_extension("old")).unwrap();
            fs::write(path, content).unwrap();
            fs::remove_file(path.with_extension("old")).unwrap();
            fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
        }
        let cases: [(&str, Change); 17] = [
            ("a byte of a file", |tx| change_a_byte(&tx.join("stage/a"))),
            ("a byte of a file in a directory", |tx| change_a_byte(&tx.join("stage/n/sub/y"))),
            ("an entry too few", |tx| in_closed(&tx.join("stage/n"), |n| fs::remove_file(n.join("x")).unwrap())),
            ("nothing in a directory", |tx| fs::remove_file(tx.join("stage/n/sub/y")).unwrap()),
            ("no file", |tx| fs::remove_file(tx.join("stage/a")).unwrap()),
            ("a shorter file", |tx| {
                let file = fs::File::options().write(true).open(tx.join("stage/a")).unwrap();
                let modified = file.metadata().unwrap().modified().unwrap();
                file.set_len(0).unwrap();
                file.set_modified(modified).unwrap();
            }),
            ("a file of another time", |tx| {
                let file = fs::File::options().write(true).open(tx.join("stage/a")).unwrap();
                file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
            }),
            ("another file with the same content", |tx| remade(&tx.join("stage/a"))),
            ("another mode", |tx| mode(&tx.join("stage/a"), 0o600)),
            ("another mode in a directory", |tx| mode(&tx.join("stage/n/x"), 0o600)),
            ("another mode of a directory", |tx| mode(&tx.join("stage/n"), 0o550)),
            ("another link", |tx| {
                fs::remove_file(tx.join("stage/l")).unwrap();
                symlink("b", tx.join("stage/l")).unwrap();
            }),
            ("no stage", |tx| {
                mode(&tx.join("stage/n"), 0o755);
                fs::remove_dir_all(tx.join("stage")).unwrap();
            }),
            ("no place for what goes", |tx| fs::remove_dir(tx.join("removed")).unwrap()),
            ("no manifest", |tx| fs::remove_file(tx.join("../../manifests/3")).unwrap()),
            ("a byte of the manifest", |tx| change_a_byte(&tx.join("../../manifests/3"))),
            ("a shorter manifest", |tx| {
                let manifest = fs::File::options().write(true).open(tx.join("../../manifests/3")).unwrap();
                manifest.set_len(manifest.metadata().unwrap().len() - 1).unwrap();
            }),
        ];
        for (what, change) in cases {
            let scene = Scene::new();
            change(&intend(&scene));
            assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::Discarded), "{what}");
            is_over(&scene, what);
        }
        let scene = Scene::new();
        let transaction = intend(&scene);
        fs::rename(&transaction, scene.dir.path().join("elsewhere")).unwrap();
        assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::Discarded), "no transaction");
        is_over(&scene, "no transaction");
    }

    /// Whatever somebody did after the commit tells nothing of what was durable before.
    #[test]
    fn what_somebody_changed_later_is_no_evidence_against_a_journal_without_its_name() {
        type Change = fn(&Path);
        fn at(file: &Path, seconds: u64) {
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            fs::File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
        }
        let cases: [(&str, Change); 6] = [
            ("nothing", |_| ()),
            ("its content", |tx| fs::write(tx.join("stage/n/sub/y"), "written to").unwrap()),
            ("its mode", |tx| fs::set_permissions(tx.join("stage/n/x"), fs::Permissions::from_mode(0o600)).unwrap()),
            ("the mode of a directory", |tx| {
                fs::set_permissions(tx.join("stage/n/sub"), fs::Permissions::from_mode(0o700)).unwrap();
            }),
            ("its time", |tx| at(&tx.join("stage/n/x"), 1)),
            ("the file that has its name", |tx| {
                let (file, saved) = (tx.join("stage/n/sub/y"), tx.join("stage/n/sub/y.tmp"));
                fs::write(&saved, "saved by an editor").unwrap();
                at(&saved, 1);
                fs::rename(saved, file).unwrap();
            }),
        ];
        for (what, change) in cases {
            let scene = Scene::new();
            let transaction = intend_at(&scene, Timestamp { seconds: 1, nanos: 0 });
            change(&transaction);
            let left = |name: &str| {
                let file = transaction.join("stage/n").join(name);
                (fs::read(&file).unwrap(), fs::metadata(file).unwrap().mode())
            };
            let expected = ["x", "sub/y"].map(left);
            let recovered = recover(&scene).unwrap();
            assert!(matches!(recovered, Some(RecoveredCommit::RolledForward { .. })), "{what}: {recovered:?}");
            let file = |name: &str| scene.out.join("n").join(name);
            let published =
                ["x", "sub/y"].map(file).map(|file| (fs::read(&file).unwrap(), fs::metadata(file).unwrap().mode()));
            assert_eq!(published, expected, "{what}");
        }
        // Content that is other and as old, as far as anybody can tell, is what a crash leaves.
        let scene = Scene::new();
        change_a_byte(&intend_at(&scene, Timestamp { seconds: 1, nanos: 0 }).join("stage/n/sub/y"));
        assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::Discarded));
    }

    #[test]
    fn a_journal_without_its_name_is_rolled_forward_when_an_operation_was_begun() {
        // What has moved is not in the stage any more, and content alone would tell against it.
        let begun: [fn(&Scene); 2] = [exchange, |scene| {
            fs::rename(scene.state.join("tx/0000000000000007/stage/l"), scene.out.join("l")).unwrap();
        }];
        for begin in begun {
            let scene = Scene::new();
            intend(&scene);
            begin(&scene);
            let operations = 3;
            assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::RolledForward { generation: 3, operations }));
            assert_eq!((read(&scene.out, "a"), read(&scene.out, "n/x")), ("3".into(), "x".into()));
            assert!(scene.open().unwrap().verify().unwrap().is_empty());
        }
    }

    #[test]
    fn a_file_that_gave_way_to_a_directory_tells_of_a_commit_whatever_became_of_what_is_in_it() {
        let scene = Scene::new();
        let transaction = scene.transaction(&[("a/x", "3")]);
        let staged = |name: &str| object(&transaction.join("stage").join(name));
        let entries = ["a", "a/x"].map(|name| entry(name, staged(name)));
        let (manifest, head) = forge::manifest(&info(3), &entries, None);
        scene.plant("manifests/3", manifest);
        let operations = [Operation::Replace { path: path("a"), old: object(&scene.out.join("a")), new: staged("a") }];
        let begin =
            Begin { last_change: Timestamp { seconds: 1 << 40, nanos: 0 }, ..begin(7, Some(&scene.head), head) };
        scene.plant("journal.new", forge::journal(&begin, &operations));
        exchange(&scene);
        // Whoever did that had seen what was published.
        fs::remove_file(scene.out.join("a/x")).unwrap();
        let forward = RecoveredCommit::RolledForward { generation: 3, operations: 0 };
        assert_eq!(recover(&scene).unwrap(), Some(forward));
        assert!(scene.out.join("a").is_dir());
    }

    #[test]
    fn a_removal_that_was_begun_tells_of_a_commit_and_the_same_content_elsewhere_does_not() {
        for begun in [false, true] {
            let scene = Scene::new();
            let transaction = scene.transaction(&[("b", "3")]);
            let operations = [
                Operation::Add { path: path("b"), new: object(&transaction.join("stage/b")) },
                Operation::Remove { path: path("a"), old: object(&scene.out.join("a")) },
            ];
            scene
                .plant("journal.new", forge::journal(&begin(7, Some(&scene.head), third_of(&scene, "b")), &operations));
            // Then what is left in the stage proves nothing either way.
            let removed = transaction.join("removed/1");
            if begun {
                fs::rename(scene.out.join("a"), removed).unwrap();
            } else {
                fs::write(removed, "2").unwrap();
                fs::remove_file(scene.out.join("a")).unwrap();
            }
            change_a_byte(&transaction.join("stage/b"));
            let expected = match begun {
                true => RecoveredCommit::RolledForward { generation: 3, operations: 1 },
                false => RecoveredCommit::Discarded,
            };
            assert_eq!(recover(&scene).unwrap(), Some(expected));
            assert_eq!(scene.out.join("b").exists(), begun);
        }
    }

    #[test]
    fn a_journal_without_its_name_of_an_earlier_generation_goes() {
        let scene = Scene::new();
        let stale = fs::read(scene.state.join("previous/2/journal")).unwrap();
        let store = scene.open().unwrap();
        publish(&store, &[("a", "3")]).unwrap();
        store.recover(RecoverOptions::default()).unwrap();
        let before = scene.trees();
        scene.plant("journal.new", stale);
        assert_eq!(recover(&scene).unwrap(), None);
        assert_eq!(scene.trees(), before);
        assert!(!scene.state.join("journal.new").exists() && scene.state.join("previous/3/journal").exists());
        assert!(store.verify().unwrap().is_empty());
    }

    #[test]
    fn a_journal_without_its_name_of_another_version_is_refused() {
        for version in [0, forge::JOURNAL_VERSION + 1] {
            let scene = Scene::new();
            let operations = replace(&scene);
            let mut journal = forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations);
            journal.splice(..16, forge::header(forge::JOURNAL, version));
            scene.plant("journal.new", journal);
            let before = snapshot(&scene.state);
            scene.refused(&format!("version {version}"));
            let store = Store::find(&OpenOptions::default(), &scene.out).unwrap().unwrap();
            for recovered in [
                store.recover(RecoverOptions::default()),
                store.recover(RecoverOptions::default().skip_unknown(true)),
                store.recover(RecoverOptions::default().undo(true)),
            ] {
                let error = recovered.unwrap_err();
                assert!(error.kind() == ErrorKind::Corrupt && error.to_string().contains("version"), "{error}");
            }
            assert_eq!(snapshot(&scene.state), before, "what another version wrote that can still recover");
        }
    }

    #[test]
    fn a_stale_journal_beside_one_without_its_name_is_settled_before_it() {
        let scene = Scene::new();
        let stale = fs::read(scene.state.join("previous/2/journal")).unwrap();
        intend(&scene);
        scene.plant("journal", stale);
        let forward = RecoveredCommit::RolledForward { generation: 3, operations: 4 };
        assert_eq!(recover(&scene).unwrap(), Some(forward));
        assert_eq!(read(&scene.out, "a"), "3");
        assert!(scene.state.join("previous/2/journal").exists() && scene.state.join("previous/3/journal").exists());
    }

    /// It was durable before it got its name: whatever cut it, what it says may be half done.
    #[test]
    fn a_torn_journal_is_refused_whether_or_not_something_was_begun() {
        for begun in [false, true] {
            let scene = Scene::new();
            let operations = replace(&scene);
            let whole = forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations);
            if begun {
                exchange(&scene);
            }
            let mut longer = whole.clone();
            longer[17] ^= 0x10;
            for name in ["journal", "journal.undo"] {
                for cut in [0, 7, 16, 30, whole.len() - 40, whole.len() - 1] {
                    let mut torn = whole[..cut].to_vec();
                    scene.plant(name, &torn);
                    scene.refused(&format!("{name} cut at {cut}"));
                    torn.resize(whole.len() + 100, 0);
                    scene.plant(name, &torn);
                    scene.refused(&format!("{name} with zeros from {cut}"));
                }
                scene.plant(name, &longer);
                scene.refused(&format!("{name} whose first record says that it is longer"));
                fs::remove_file(scene.state.join(name)).unwrap();
            }
        }
    }

    #[test]
    fn a_damaged_journal_is_refused() {
        let scene = Scene::new();
        let operations = replace(&scene);
        let whole = forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations);
        for at in [0, 9, 20, 40, whole.len() / 2] {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            scene.plant("journal", damaged);
            scene.refused(&format!("byte {at}"));
        }
        let mut longer = whole.clone();
        longer.push(1);
        scene.plant("journal", longer);
        scene.refused("bytes after its end");
    }

    #[test]
    fn a_journal_on_its_base_is_rolled_forward() {
        let scene = Scene::new();
        let operations = replace(&scene);
        let head = third(&scene);
        scene.plant("journal", forge::journal(&begin(7, Some(&scene.head), head.clone()), &operations));
        assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::RolledForward { generation: 3, operations: 1 }));
        assert_eq!(read(&scene.out, "a"), "3");
        assert_eq!(scene.open().unwrap().head().unwrap(), Some(head));
        assert_eq!(read(&scene.state, "previous/3/stage/a"), "2");
    }

    #[test]
    fn a_journal_at_its_generation_is_finished_under_either_name() {
        for (name, applied) in [("journal", true), ("journal", false), ("journal.new", true), ("journal.new", false)] {
            let scene = Scene::new();
            let operations = replace(&scene);
            let head = third(&scene);
            scene.plant(name, forge::journal(&begin(7, Some(&scene.head), head.clone()), &operations));
            scene.plant("HEAD", forge::head(&head));
            let expected = if applied {
                exchange(&scene);
                RecoveredCommit::Settled { generation: 3 }
            } else {
                RecoveredCommit::RolledForward { generation: 3, operations: 1 }
            };
            assert_eq!(recover(&scene).unwrap(), Some(expected));
            assert_eq!(read(&scene.out, "a"), "3");
            assert!(scene.state.join("previous/3/journal").exists() && !scene.state.join(name).exists());
        }
    }

    #[test]
    fn a_journal_at_its_generation_leaves_alone_what_was_changed_since() {
        type Change = fn(&Scene);
        let cases: [(&str, Change); 5] = [
            ("edited", |scene| fs::write(scene.out.join("a"), "edited").unwrap()),
            ("removed", |scene| fs::remove_file(scene.out.join("a")).unwrap()),
            ("replaced", |scene| {
                fs::remove_file(scene.out.join("a")).unwrap();
                symlink("../outside/victim", scene.out.join("a")).unwrap();
            }),
            ("a link on the way", |scene| {
                fs::rename(scene.out.join("d"), scene.outside().join("d")).unwrap();
                symlink("../outside/d", scene.out.join("d")).unwrap();
            }),
            ("put where something was removed", |scene| {
                fs::create_dir(scene.out.join("old")).unwrap();
                fs::write(scene.out.join("old/y"), "mine").unwrap();
            }),
        ];
        for (what, change) in cases {
            for undo in [false, true] {
                let scene = Scene::unsettled();
                change(&scene);
                let before = scene.trees();
                let store = Store::find(&OpenOptions::default(), &scene.out).unwrap().unwrap();
                let recovered = if undo {
                    store.recover(RecoverOptions::default().undo(true))
                } else {
                    store.recover(RecoverOptions::default())
                };
                let recovered = recovered.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(recovered.commit, Some(RecoveredCommit::Settled { generation: 2 }), "{what}");
                assert_eq!(scene.trees(), before, "{what}");
                assert!(store.recover(RecoverOptions::default()).unwrap().commit.is_none(), "{what}");
                assert!(scene.state.join("previous/2/journal").exists(), "{what}");
                let foreign = what == "put where something was removed";
                assert_eq!(store.verify().unwrap().is_empty(), foreign, "{what}: it is drift");
            }
        }
    }

    #[test]
    fn a_stale_journal_of_an_earlier_generation_is_settled() {
        let scene = Scene::new();
        let stale = fs::read(scene.state.join("previous/2/journal")).unwrap();
        let store = scene.open().unwrap();
        for content in ["3", "4"] {
            publish(&store, &[("a", content)]).unwrap();
            store.recover(RecoverOptions::default()).unwrap();
            let before = scene.trees();
            scene.plant("journal", &stale);
            assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::Settled { generation: 2 }));
            assert_eq!(scene.trees(), before);
            assert!(store.verify().unwrap().is_empty());
        }
    }

    #[test]
    fn the_settled_journal_of_the_current_generation_changes_nothing_when_it_comes_back() {
        let scene = Scene::new();
        let settled = fs::read(scene.state.join("previous/2/journal")).unwrap();
        scene.plant("journal", settled);
        assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::Settled { generation: 2 }));
        assert_eq!(snapshot(&scene.out), scene.before);
        scene.begin_and_commit().unwrap();
    }

    #[test]
    fn an_undo_journal_on_its_base_is_undone() {
        for applied in [true, false] {
            let scene = Scene::new();
            let operations = replace(&scene);
            scene.plant("journal.undo", forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations));
            if applied {
                exchange(&scene);
            }
            assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::RolledBack { generation: 3 }));
            assert_eq!(snapshot(&scene.out), scene.before);
            scene.begin_and_commit().unwrap();
        }
    }

    #[test]
    fn an_undo_journal_of_an_earlier_generation_is_dropped() {
        let scene = Scene::new();
        let stale = fs::read(scene.state.join("previous/2/journal")).unwrap();
        let store = scene.open().unwrap();
        publish(&store, &[("a", "3")]).unwrap();
        store.recover(RecoverOptions::default()).unwrap();
        let before = scene.trees();
        scene.plant("journal.undo", stale);
        assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::Discarded));
        assert_eq!(scene.trees(), before);
    }

    #[test]
    fn an_undo_journal_at_its_generation_is_refused() {
        let scene = Scene::new();
        let settled = fs::read(scene.state.join("previous/2/journal")).unwrap();
        scene.plant("journal.undo", settled);
        scene.refused("undoing what is committed");
    }

    #[test]
    fn a_journal_of_another_base_is_refused() {
        for name in ["journal", "journal.new", "journal.undo"] {
            let scene = Scene::new();
            let operations = replace(&scene);
            let other = Head { manifest: txfs::Digest::of(b"other"), ..scene.head.clone() };
            scene.plant(name, forge::journal(&begin(7, Some(&other), third(&scene)), &operations));
            scene.refused("another manifest");
            let later = Head { info: info(9), ..scene.head.clone() };
            let next = Head { info: info(10), ..scene.head.clone() };
            scene.plant(name, forge::journal(&begin(7, Some(&later), next), &operations));
            scene.refused("a generation from the future");
            scene.plant(name, forge::journal(&begin(7, None, Head { info: info(1), ..scene.head.clone() }), &[]));
            // An earlier generation: whatever it was, it is over.
            scene.harmless("the first generation again").unwrap();
        }
    }

    #[test]
    fn a_lost_head_is_refused() {
        let scene = Scene::new();
        fs::remove_file(scene.state.join("HEAD")).unwrap();
        let before = scene.trees();
        let error = scene.begin_and_commit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(scene.trees(), before);
    }

    #[test]
    fn of_two_journals_the_one_to_undo_counts_for_good() {
        let scene = Scene::new();
        let operations = replace(&scene);
        let journal = forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations);
        scene.plant("journal", &journal);
        scene.plant("journal.undo", &journal);
        assert_eq!(recover(&scene).unwrap(), Some(RecoveredCommit::RolledBack { generation: 3 }));
        assert_eq!(snapshot(&scene.out), scene.before);
        assert_eq!(scene.open().unwrap().head().unwrap().unwrap().info.generation, 2);
    }

    #[test]
    fn what_fits_neither_side_is_refused_and_can_be_skipped() {
        let scene = Scene::new();
        let operations = replace(&scene);
        scene.plant("journal", forge::journal(&begin(7, Some(&scene.head), third(&scene)), &operations));
        fs::write(scene.out.join("a"), "somebody else's").unwrap();
        scene.refused("a foreign entry in the way");
        let store = Store::find(&OpenOptions::default(), &scene.out).unwrap().unwrap();
        store.recover(RecoverOptions::default().skip_unknown(true)).unwrap();
        assert_eq!(read(&scene.out, "a"), "somebody else's");
        assert_eq!(store.head().unwrap().unwrap().info.generation, 3);
    }
}

/// What recovery does when it is told to undo.
mod undoing {
    use super::*;

    fn undo(scene: &Scene) -> txfs::Result<Option<RecoveredCommit>> {
        let store = Store::find(&OpenOptions::default(), &scene.out)?.unwrap();
        Ok(store.recover(RecoverOptions::default().undo(true))?.commit)
    }

    /// A journal that takes `old` apart and replaces `a`.
    fn take_apart(scene: &mut Scene) -> Vec<Operation> {
        let store = scene.open().unwrap();
        publish(&store, &[("a", "3"), ("old/y", "3")]).unwrap();
        store.recover(RecoverOptions::default()).unwrap();
        scene.head = store.head().unwrap().unwrap();
        let transaction = scene.transaction(&[("a", "4")]);
        let at = |name: &str| object(&scene.out.join(name));
        let (y, mode) = (at("old/y"), at("old").mode);
        vec![
            Operation::Replace { path: path("a"), old: at("a"), new: object(&transaction.join("stage/a")) },
            Operation::Remove { path: path("old/y"), old: y },
            Operation::RemoveDirectory { path: path("old"), mode },
        ]
    }

    #[test]
    fn what_is_in_the_way_of_a_commit_leaves_it_unfinished_until_it_is_gone_or_the_commit_is_undone() {
        for undone in [false, true] {
            let mut scene = Scene::new();
            let operations = take_apart(&mut scene);
            let before = snapshot(&scene.out);
            let entries = [entry("a", object(&scene.state.join("tx/0000000000000007/stage/a")))];
            let (manifest, head) = forge::manifest(&info(4), &entries, None);
            scene.plant("manifests/4", manifest);
            scene.plant("journal", forge::journal(&begin(7, Some(&scene.head), head), &operations));
            fs::write(scene.out.join("old/mine"), "mine").unwrap();
            for _ in 0..2 {
                let error = scene.begin_and_commit().unwrap_err();
                assert!(matches!(error, Error::Unfinished { generation: 4, .. }), "{error}");
                assert!(error.hint().unwrap().contains("RecoverOptions::undo"), "{error}");
                assert_eq!((read(&scene.out, "a"), read(&scene.out, "old/mine")), ("4".into(), "mine".into()));
                assert!(scene.state.join("journal").exists() && !scene.state.join("journal.undo").exists());
            }
            if undone {
                assert_eq!(undo(&scene).unwrap(), Some(RecoveredCommit::RolledBack { generation: 4 }));
                assert_eq!(read(&scene.out, "old/mine"), "mine");
                fs::remove_file(scene.out.join("old/mine")).unwrap();
                assert_eq!(snapshot(&scene.out), before);
                assert_eq!(scene.open().unwrap().head().unwrap().unwrap(), scene.head);
                publish(&scene.open().unwrap(), &[("a", "5")]).unwrap();
            } else {
                fs::remove_file(scene.out.join("old/mine")).unwrap();
                scene.open().unwrap();
                assert_eq!((read(&scene.out, "a"), scene.out.join("old").exists()), ("4".into(), false));
            }
        }
    }

    #[test]
    fn a_commit_is_undone_however_far_it_has_come() {
        for (name, moved) in [("journal", false), ("journal", true), ("journal.new", false), ("journal.new", true)] {
            let scene = Scene::new();
            let transaction = scene.transaction(&[("a", "3"), ("n/x", "3")]);
            let staged = |name: &str| object(&transaction.join("stage").join(name));
            let operations = [
                Operation::Add { path: path("n"), new: staged("n") },
                Operation::Replace { path: path("a"), old: object(&scene.out.join("a")), new: staged("a") },
                Operation::Remove { path: path("d"), old: object(&scene.out.join("d")) },
            ];
            let entries = ["a", "n", "n/x"].map(|name| entry(name, staged(name)));
            let (manifest, head) = forge::manifest(&info(3), &entries, None);
            scene.plant("manifests/3", manifest);
            scene.plant(name, forge::journal(&begin(7, Some(&scene.head), head), &operations));
            if moved {
                fs::rename(transaction.join("stage/n"), scene.out.join("n")).unwrap();
            }
            assert_eq!(undo(&scene).unwrap(), Some(RecoveredCommit::RolledBack { generation: 3 }), "{name} {moved}");
            assert_eq!(snapshot(&scene.out), scene.before, "{name} {moved}");
            assert_eq!(scene.open().unwrap().head().unwrap().as_ref(), Some(&scene.head), "{name} {moved}");
            for left in ["journal", "journal.new", "journal.undo", "HEAD.new"] {
                assert!(!scene.state.join(left).exists(), "{name} {moved}: {left}");
            }
            scene.begin_and_commit().unwrap();
        }
    }

    #[test]
    fn what_fits_neither_side_is_refused_all_the_same_and_nothing_is_touched() {
        for name in ["journal", "journal.new"] {
            let scene = Scene::new();
            let transaction = scene.transaction(&[("a", "3")]);
            let (old, new) = (object(&scene.out.join("a")), object(&transaction.join("stage/a")));
            let (manifest, head) = forge::manifest(&info(3), &[entry("a", new)], None);
            scene.plant("manifests/3", manifest);
            let operations = [Operation::Replace { path: path("a"), old, new }];
            scene.plant(name, forge::journal(&begin(7, Some(&scene.head), head), &operations));
            fs::write(scene.out.join("a"), "somebody else's").unwrap();
            let before = [snapshot(&scene.out), snapshot(&scene.state)];
            let error = undo(&scene).unwrap_err();
            assert!(matches!(&error, Error::Unrecognized { paths, .. } if paths.total == 1), "{name}: {error}");
            assert_eq!([snapshot(&scene.out), snapshot(&scene.state)], before, "{name}");
        }
    }

    #[test]
    fn a_commit_that_is_done_is_only_finished() {
        let scene = Scene::unsettled();
        assert_eq!(undo(&scene).unwrap(), Some(RecoveredCommit::Settled { generation: 2 }));
        assert_eq!(snapshot(&scene.out), scene.before);
        assert_eq!(scene.open().unwrap().head().unwrap().as_ref(), Some(&scene.head));
        assert!(scene.state.join("previous/2/journal").exists() && !scene.state.join("journal").exists());
        assert_eq!(undo(&scene).unwrap(), None, "nothing is undone that has been settled");
        assert_eq!(snapshot(&scene.out), scene.before);
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
