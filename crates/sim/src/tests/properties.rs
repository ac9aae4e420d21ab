//! The model against itself, on random worlds.

use super::kernel::{Choices, cases, perform};
use super::*;
use crate::world::hashes::hash_names;
use crate::world::inode::ROOT;
use crate::world::live::World;
use txfs::fs::Stat;

/// A world with some durable content, changed at random without any barrier that fails.
fn changed(weakness: Weakness, choices: &[Choices], only_moves: bool) -> SimFs {
    let fs = SimFs::new(Config { reuse: Reuse::Never, lose_metadata: !only_moves, ..Config::new(weakness) });
    for path in ["/a/a/a", "/a/b", "/b/c/d", "/c", "/d/a"] {
        fs.put_file(path, path.as_bytes(), 0o644);
    }
    let mut dirs: Vec<SimDir> = ["/", "/a", "/a/a", "/b", "/b/c", "/d"].iter().map(|path| open(&fs, path)).collect();
    for &(kind, d1, n1, d2, n2, x) in choices {
        let moves = [1, 6, 6, 6, 6, 6, 14, 15, 23, 24];
        let kind = if only_moves { moves[usize::from(kind) % moves.len()] } else { kind };
        // No entry is replaced where entries are only moved.
        let x = if only_moves && kind == 6 { 1 + x % 2 } else { x };
        perform(&fs, &mut dirs, (kind, d1, n1, d2, n2, x));
    }
    fs
}

/// All that a process can see.
fn everything(view: View<'_>) -> String {
    let see = |(path, entry): (RelPath, Entry)| {
        let stat = view.stat(path.under(Path::new("/"))).map(|stat| Stat { nlink: 0, ..stat });
        format!("{path} {stat:?} {:?}\n", entry.content())
    };
    view.tree("/").into_iter().map(see).collect()
}

/// What each subset of the waiting effects hashes to that has all that its members wait for; `None` where there are too many, or
/// where files are unsynced.
fn subsets(world: &World) -> Option<BTreeSet<u64>> {
    let pending = &world.pending;
    if pending.len() > 10 || !world.dirty.is_empty() {
        return None;
    }
    let place = |id| pending.iter().position(|effect| effect.id == id);
    let closed = |kept: &u32| {
        let waits = |at: usize| pending[at].waits_for().filter_map(place).all(|before| kept >> before & 1 == 1);
        (0..pending.len()).all(|at| kept >> at & 1 == 0 || waits(at))
    };
    let hash = |kept: u32| {
        let mut table = (*world.disk).clone();
        (0..pending.len()).filter(|at| kept >> at & 1 == 1).for_each(|at| pending[at].apply(&mut table));
        hash_names(&table, ROOT)
    };
    Some((0..1u32 << pending.len()).filter(closed).map(hash).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(400)) })]

    #[test]
    fn what_is_only_moved_is_never_lost(choices in proptest::collection::vec(any::<Choices>(), 1..30)) {
        for weakness in WEAKNESSES {
            let fs = changed(weakness, &choices, true);
            for world in fs.crash_states(300) {
                let contents: BTreeSet<Vec<u8>> = world.tree("/").values().map(|entry| entry.content().to_vec()).collect();
                for path in ["/a/a/a", "/a/b", "/b/c/d", "/c", "/d/a"] {
                    prop_assert!(contents.contains(path.as_bytes()), "{path} is lost:\n{}", world.describe());
                }
            }
        }
    }

    #[test]
    fn a_weaker_world_leaves_all_that_a_stronger_one_leaves(choices in proptest::collection::vec(any::<Choices>(), 1..16)) {
        let states = |weakness| {
            let states = changed(weakness, &choices, false).crash_states(3000);
            states.exhaustive().then(|| states.map(|world| world.hash()).collect::<BTreeSet<_>>())
        };
        let [ordered, btrfs, posix] = WEAKNESSES.map(states);
        if let (Some(ordered), Some(btrfs)) = (&ordered, &btrfs) {
            prop_assert!(ordered.is_subset(btrfs));
        }
        if let (Some(btrfs), Some(posix)) = (&btrfs, &posix) {
            prop_assert!(btrfs.is_subset(posix));
        }
    }

    #[test]
    fn a_hash_tells_apart_what_a_process_can(choices in proptest::collection::vec(any::<Choices>(), 1..20)) {
        for weakness in WEAKNESSES {
            let mut states = changed(weakness, &choices, false).crash_states(300);
            let mut seen = HashSet::new();
            while let Some(hash) = states.advance() {
                let world = states.build();
                prop_assert_eq!(world.hash(), hash);
                prop_assert!(seen.insert(world.look(everything)), "one world has two hashes");
            }
            prop_assert_eq!(seen.len(), states.returned());
        }
    }

    #[test]
    fn the_states_are_the_subsets_that_respect_order(choices in proptest::collection::vec(any::<Choices>(), 1..10)) {
        for weakness in WEAKNESSES {
            let fs = changed(weakness, &choices, true);
            let expected = subsets(&fs.shared.lock().world);
            let states = fs.crash_states(100_000);
            if let Some(expected) = expected.filter(|_| states.exhaustive()) {
                prop_assert_eq!(states.map(|world| world.hash()).collect::<BTreeSet<_>>(), expected);
            }
        }
    }

    #[test]
    fn a_barrier_on_everything_leaves_one_state_that_is_the_live_one(choices in proptest::collection::vec(any::<Choices>(), 1..60)) {
        for weakness in WEAKNESSES {
            let fs = changed(weakness, &choices, false);
            let everything = fs.crash_states(2).any(|world| world.tree_hash("/") == fs.tree_hash("/"));
            prop_assert!(everything || fs.crash_states(2).exhaustive());
            fs.sync_fs(&open(&fs, "/")).unwrap();
            let states: Vec<u64> = fs.crash_states(10).map(|world| world.hash()).collect();
            prop_assert_eq!(states, vec![fs.hash()]);
        }
    }

    #[test]
    fn every_recorded_state_survives_a_second_crash_as_it_is(choices in proptest::collection::vec(any::<Choices>(), 1..20)) {
        let fs = changed(Weakness::Posix, &choices, false);
        for world in fs.crash_states(20) {
            let again: Vec<u64> = world.crash_states(10).map(|world| world.hash()).collect();
            prop_assert_eq!(again, vec![world.hash()]);
        }
    }
}
