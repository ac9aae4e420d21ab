//! Going back to the generation before.

#![allow(clippy::unwrap_used)]

use txfs::{BeginOptions, Committed, Error, RecoverOptions, Store};
use txfs_testing::lenient;
use txfs_testing::tree::snapshot;

mod attributes;
mod back;
mod drift;
mod refused;

/// Goes back, and holds what was said of that before to what came of it.
fn roll_back(store: &Store) -> txfs::Result<Committed> {
    store.recover(RecoverOptions::default()).unwrap();
    // What it moves aside is not of interest here.
    let _ = store.sweep();
    drop(store.take_rescued());
    let before = snapshot(store.state());
    let preview = store.preview_previous(&lenient());
    assert_eq!(snapshot(store.state()), before);
    let mut transaction = store.begin(BeginOptions::default())?;
    let done = transaction.copy_previous().and_then(|_| transaction.commit(&lenient()));
    match (preview, &done) {
        (Ok(plan), Ok(Committed { plan: done, .. })) => {
            assert_eq!((&plan.changes, plan.summary, &plan.restored), (&done.changes, done.summary, &done.restored));
            assert_eq!((plan.operations(), &plan.warnings), (done.operations(), &done.warnings));
            assert!(plan.problems.is_empty());
        }
        (Ok(plan), Err(Error::Refused { problems, .. })) => assert_eq!(&plan.problems, problems),
        (Err(said), Err(done)) => assert_eq!(said.to_string(), done.to_string()),
        (preview, done) => panic!("{preview:?}, and then {done:?}"),
    }
    done
}
