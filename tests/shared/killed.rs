//! A member that is killed before any call that changes something: another goes on.

use std::os::unix::process::ExitStatusExt;

use super::{ANNE, BERT, ONE, TWO, World};

#[test]
fn what_a_killed_commit_left_another_member_recovers() {
    let Some(mut world) = World::new("another member recovers") else { return };
    let calls = world.killed_at_calls(1, &["one"], "two", |world, call| {
        world.expect(BERT, 0o077, "recover");
        let is_old = world.files().contains(&("a".into(), "1".into()));
        println!("{call}: {}", if is_old { "old" } else { "new" });
        world.assert_published(if is_old { ONE } else { TWO });
        world.expect(BERT, 0o022, if is_old { "two" } else { "one" });
        world.expect(ANNE, 0o022, "two");
        world.assert_published(TWO);
    });
    println!("killed at each of {calls} calls");
    assert!(calls > 60, "{calls}");
}

#[test]
fn a_recovery_that_is_killed_too_the_first_member_finishes() {
    let Some(mut world) = World::new("a recovery that is killed") else { return };
    // In the middle of the operations, and before the commit point.
    for middle in [46, 30] {
        for call in 1.. {
            world.clear();
            world.expect(ANNE, 0o022, "one");
            world.kill = middle;
            assert_eq!(world.play(ANNE, 0o077, "two").status.signal(), Some(6));
            world.kill = call;
            let recovered = world.play(BERT, 0o077, "recover");
            world.kill = 0;
            world.expect(ANNE, 0o022, "recover");
            world.expect(BERT, 0o022, "one");
            world.assert_published(ONE);
            if recovered.status.success() {
                println!("killed at call {middle}, and recovery at each of {} calls", call - 1);
                assert!(call > 3);
                break;
            }
        }
    }
}

#[test]
fn whatever_else_is_killed_another_member_goes_on() {
    let Some(mut world) = World::new("another member goes on") else { return };
    let went_on = |world: &World, _: usize| {
        world.expect(BERT, 0o077, "recover");
        world.expect(BERT, 0o022, "two");
        world.expect(ANNE, 0o077, "one");
        world.assert_published(ONE);
    };
    for (before, killed) in [
        (&["one", "two"][..], "rollback"),
        (&["one", "two"], "prune"),
        (&["one"], "copy"),
        (&["one"], "keep"),
        (&["one", "two"], "two"),
    ] {
        let calls = world.killed_at_calls(2, before, killed, |world, call| {
            world.expect(BERT, 0o077, "abort");
            went_on(world, call);
        });
        println!("{killed}: killed at every other of {calls} calls");
        assert!(calls > 5, "{calls}");
    }
}

#[test]
fn a_store_is_shared_by_its_owner_whenever_that_is_killed() {
    let Some(mut world) = World::new("sharing is killed") else { return };
    for (before, killed) in [(&[][..], "one"), (&["private"], "share")] {
        let calls = world.killed_at_calls(2, before, killed, |world, _| {
            world.expect(ANNE, 0o022, "share");
            world.expect(BERT, 0o077, "two");
            world.expect(ANNE, 0o077, "one");
            world.assert_published(ONE);
        });
        println!("{killed}: killed at every other of {calls} calls");
        assert!(calls > 20, "{calls}");
    }
}
