//! Any two small trees: publishing the new one over the old gives exactly the new one, and back exactly the old one.
#![no_main]

use fuzz_support::{Scene, lenient, published, snapshot, stage, tree};
use libfuzzer_sys::fuzz_target;
use txfs::fs::LinuxFs;
use txfs::{BeginOptions, OpenOptions, Store};

fuzz_target!(|input: (&[u8], &[u8])| {
    let trees = [tree(input.0), tree(input.1)];
    let scene = Scene::new();
    let store = Store::open_with(&OpenOptions::with(LinuxFs::new()), &scene.out).expect("a store");
    let outside = snapshot(&scene.outside);
    for (round, tree) in [&trees[0], &trees[1], &trees[0], &trees[0]].into_iter().enumerate() {
        let mut transaction = store.begin(BeginOptions::default()).expect("a transaction");
        stage(&mut transaction, tree).expect("a stage");
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
        assert!(store.recover().expect("nothing").is_nothing());
        if round == 3 {
            assert!(!committed.changed, "the same again changes nothing");
        }
    }
    assert_eq!(snapshot(&scene.outside), outside);
});
