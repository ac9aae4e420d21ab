//! Any bytes as journal, HEAD, manifest or meta of a real store: nothing outside it changes, and the output is what it was, what
//! the journal leads to, or refused.
#![no_main]

use std::fs;

use fuzz_support::{Scene, snapshot};
use libfuzzer_sys::fuzz_target;
use txfs::{BeginOptions, Outcome, RecoverOptions, Store};

const PLACES: [&str; 8] = [
    "journal",
    "HEAD",
    "journal.undo",
    "manifests/2",
    "journal",
    "manifests/3",
    "journal.new",
    "tx/0000000000000007/meta",
];

fuzz_target!(|input: &[u8]| {
    let [which, rest @ ..] = input else { return };
    let scene = Scene::published();
    plant(&scene, *which, rest);
    let [before, outside] = [&scene.out, &scene.outside].map(|root| snapshot(root));
    let recovered = Store::open(&scene.out).and_then(|store| store.recover(RecoverOptions::default()).map(|_| store));
    assert_eq!(snapshot(&scene.outside), outside);
    match recovered.and_then(|store| store.begin(BeginOptions::default()).map(drop)) {
        Ok(()) => {
            let after = snapshot(&scene.out);
            let store = Store::open(&scene.out).expect("recovery is a fixed point");
            assert!(store.recover(RecoverOptions::default()).expect("twice is as once").is_nothing());
            assert_eq!(snapshot(&scene.out), after);
            // Only a journal is a reason to change the output.
            assert!(after == before || PLACES[(*which & 7) as usize].starts_with("journal"));
        }
        Err(error) if error.outcome() == Outcome::Unchanged => assert_eq!(snapshot(&scene.out), before, "{error}"),
        Err(error) => assert!(error.hint().is_some(), "{error}"),
    }
    assert_eq!(snapshot(&scene.outside), outside);
});

/// Puts the bytes where the first of them says.
fn plant(scene: &Scene, which: u8, bytes: &[u8]) {
    let name = PLACES[(which & 7) as usize];
    let transaction = scene.state.join("tx/0000000000000007");
    for directory in ["stage", "removed"] {
        fs::create_dir_all(transaction.join(directory)).expect("a directory");
    }
    for file in ["a", "new"] {
        fs::write(transaction.join("stage").join(file), "3").expect("a file");
    }
    let bytes = if which & 8 != 0 {
        // A real journal with a few bytes changed: the seeds are made of one, and this keeps its inodes.
        let mut real = fs::read(scene.state.join("previous/2/journal")).expect("the settled journal");
        for change in bytes.chunks_exact(3) {
            let at = u16::from_le_bytes([change[0], change[1]]) as usize % real.len();
            real[at] ^= change[2];
        }
        real
    } else {
        bytes.to_vec()
    };
    fs::write(scene.state.join(name), bytes).expect("a file");
}
