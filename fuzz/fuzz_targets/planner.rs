//! Any two small trees: publishing the new one over the old gives exactly the new one, and back exactly the old one; and where an
//! operation of it fails, in the simulator, undoing gives exactly the old one, and a stage that means what it meant.
#![no_main]

use std::collections::BTreeMap;
use std::path::PathBuf;

use fuzz_support::{Item, Scene, lenient, published, snapshot, stage, tree};
use libfuzzer_sys::fuzz_target;
use txfs::fs::LinuxFs;
use txfs::{BeginOptions, Committed, OpenOptions, Outcome, RecoverOptions, Store, Transaction};
use txfs_sim::{Call, Config, Fault, SimFs, Weakness};

type Tree = BTreeMap<PathBuf, Item>;

const OUT: &str = "/w/out";
const EIO: i32 = 5;
/// Failures that are tried for one pair of trees.
const FAILURES: usize = 2;

fuzz_target!(|input: (&[u8], &[u8])| {
    let trees = [tree(input.0), tree(input.1)];
    apply(&trees);
    undo(&trees);
});

fn apply(trees: &[Tree; 2]) {
    let scene = Scene::new();
    let store = Store::open_with(&OpenOptions::with(LinuxFs::new()), &scene.out).expect("a store");
    let outside = snapshot(&scene.outside);
    for (round, tree) in [&trees[0], &trees[1], &trees[0], &trees[0]].into_iter().enumerate() {
        let mut transaction = store.begin(BeginOptions::default()).expect("a transaction");
        stage(&LinuxFs::new(), &mut transaction, tree).expect("a stage");
        let before = snapshot(&scene.out);
        let plan = transaction.plan(&lenient()).expect("a plan");
        assert_eq!(snapshot(&scene.out), before, "planning changes nothing");
        assert!(plan.problems.is_empty(), "{:?}", plan.problems);
        let committed = transaction.commit(&lenient()).unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(committed.warnings.is_empty() && committed.rescued.is_empty(), "{committed:?}");
        assert_eq!(committed.plan.changes, plan.changes);
        let after = snapshot(&scene.out);
        let root = after.get(std::path::Path::new("")).cloned();
        // An empty first generation makes no difference, and so no output.
        if let Some(root) = root {
            assert_eq!(after, published(tree, root), "round {round}");
        } else {
            assert!(tree.is_empty());
        }
        assert!(store.verify().expect("an audit").is_empty());
        assert!(store.recover(RecoverOptions::default()).expect("nothing").is_nothing());
        if round == 3 {
            assert!(!committed.changed, "the same again changes nothing");
        }
    }
    assert_eq!(snapshot(&scene.outside), outside);
}

/// Renames fail from the last to the first: that of HEAD is the last that can be undone, with everything before it.
fn undo(trees: &[Tree; 2]) {
    let fs = SimFs::new(Config { uid: 1000, ..Config::new(Weakness::Btrfs) });
    fs.put_dir("/w", 0o755);
    with_stage(&fs, &trees[0], |transaction| commit(transaction).expect("a commit"));
    let trial = fs.fork();
    let changed = with_stage(&trial, &trees[1], |transaction| commit(transaction).expect("a commit").changed);
    let [old, new] = [&fs, &trial].map(|fs| fs.tree(OUT));
    let log = trial.log();
    // A commit is carried out after its barrier. Its last rename puts the transaction away: where that fails the commit stands.
    let barrier = log.iter().rposition(|call| call.is_barrier()).filter(|_| changed).unwrap_or(log.len());
    let renames = (barrier..log.len()).rev().filter(|&call| log[call] == Call::Rename);
    for call in renames.skip(1).take(FAILURES) {
        let fs = fs.fork();
        fs.fail_at(call as u64 + 1, Fault::new(EIO));
        with_stage(&fs, &trees[1], |transaction| {
            let error = commit(transaction).expect_err("a rename failed");
            assert_eq!(error.outcome(), Outcome::Unchanged, "{error}");
            assert_eq!(fs.tree(OUT), old, "{error}");
            commit(transaction).expect("the stage means what it meant");
            assert_eq!(fs.tree(OUT), new);
        });
    }
}

fn with_stage<T>(fs: &SimFs, tree: &Tree, act: impl FnOnce(&mut Transaction<SimFs>) -> T) -> T {
    let store = Store::open_with(&OpenOptions::with(fs.clone()), OUT).expect("a store");
    let mut transaction = store.begin(BeginOptions::default()).expect("a transaction");
    stage(fs, &mut transaction, tree).expect("a stage");
    act(&mut transaction)
}

fn commit(transaction: &mut Transaction<SimFs>) -> txfs::Result<Committed> {
    transaction.commit(&lenient())
}
