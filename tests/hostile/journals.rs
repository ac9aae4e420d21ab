//! Journals that lie or make no sense, with valid checksums: refused, and nothing is touched.

use std::fs;

use txfs::fs::Kind;
use txfs::{Begin, Head, Object, Operation};
use txfs_testing::forge::{self, begin, info, nothing, object, path};
use txfs_testing::read;

use super::{Scene, entry};

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
