//! Members publish in turn: what each makes is the group's, whatever its umask is.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use txfs::fs::{LinuxFs, Machine};
use txfs::{OpenOptions, Store};
use txfs_testing::{Scratch, publish, set_mode, state_of};

use super::{ANNE, BERT, GROUP, ONE, TWO, World};

#[test]
fn members_publish_in_turn_whatever_their_umask_is() {
    let Some(world) = World::new("members publish in turn") else { return };
    for (first, second) in [(ANNE, BERT), (BERT, ANNE)] {
        world.clear();
        for mask in [0o022, 0o077, 0o002, 0o027] {
            world.expect(first, mask, "one");
            world.assert_published(ONE);
            world.expect(second, mask ^ 0o055, "two");
            world.assert_published(TWO);
        }
        world.expect(second, 0o077, "rollback");
        world.assert_published(ONE);
        world.expect(first, 0o077, "rollback");
        world.assert_published(TWO);
        world.expect(second, 0o077, "prune");
        world.expect(first, 0o077, "copy");
        world.expect(second, 0o022, "one");
        world.expect(first, 0o022, "recover");
        world.assert_published(ONE);
    }
}

#[test]
fn what_is_made_is_the_groups_and_closed_to_others() {
    fn check(path: &Path) {
        let found = fs::symlink_metadata(path).unwrap();
        // Of a stage the umask says what others may do, and of `removed`.
        let is_open = ["stage", "removed"].iter().any(|name| path.ends_with(name));
        let wanted = if found.is_dir() { 0o2770 | found.mode() & if is_open { 0o005 } else { 0 } } else { 0o660 };
        assert_eq!((found.gid(), found.mode() & 0o7777), (GROUP, wanted), "{}", path.display());
        if found.is_dir() && !path.ends_with("stage") {
            fs::read_dir(path).unwrap().for_each(|entry| check(&entry.unwrap().path()));
        }
    }
    let Some(world) = World::new("what is made is the group's") else { return };
    world.expect(ANNE, 0o022, "one");
    world.expect(BERT, 0o077, "one");
    check(&state_of(&world.out()));
    for (path, mode) in [("", 0o2775), ("d/e", 0o2775), ("a", 0o640)] {
        let found = fs::symlink_metadata(world.out().join(path)).unwrap();
        assert_eq!((found.gid(), found.mode() & 0o7777), (GROUP, mode), "{path}");
    }
}

#[test]
fn a_store_that_is_there_is_shared_and_taken_back() {
    let Some(world) = World::new("sharing and taking back") else { return };
    // Neither the directory nor what is in it was the group's.
    chown(world.ground(), Some(ANNE.id), Some(ANNE.id)).unwrap();
    set_mode(&world.ground(), 0o755);
    world.expect(ANNE, 0o077, "private");
    world.expect(BERT, 0o022, "refused");
    world.expect(ANNE, 0o022, "share");
    world.expect(ANNE, 0o022, "recover");
    world.expect(ANNE, 0o022, "unshare");
    assert_eq!(fs::metadata(state_of(&world.out())).unwrap().mode() & 0o7777, 0o700);
    world.expect(BERT, 0o022, "refused");
    world.expect(ANNE, 0o022, "share");
    world.expect(BERT, 0o077, "one");
    world.assert_published(ONE);
    world.expect(ANNE, 0o077, "two");
    world.assert_published(TWO);
}

#[test]
fn what_another_member_staged_is_committed_or_discarded() {
    let Some(world) = World::new("what another member staged") else { return };
    world.expect(ANNE, 0o022, "one");
    // Its tool made it so that the group may write.
    world.expect(ANNE, 0o002, "keep");
    world.expect(BERT, 0o022, "commit");
    world.assert_published(TWO);
    // And so that it may not.
    world.expect(ANNE, 0o022, "keep");
    world.expect(BERT, 0o022, "commit closed");
    world.expect(BERT, 0o022, "abort");
    world.expect(BERT, 0o022, "one");
    let trash = state_of(&world.out()).join("trash");
    assert_eq!(fs::read_dir(&trash).unwrap().count(), 1, "it is its maker's");
    world.expect(ANNE, 0o022, "two");
    assert!(fs::read_dir(&trash).map_or(true, |left| left.count() == 0));
    world.assert_published(TWO);
}

#[test]
fn nothing_is_published_where_another_member_could_not_go_on() {
    let Some(world) = World::new("a closed directory of the output") else { return };
    world.expect(ANNE, 0o022, "one");
    let foreign = world.out().join("foreign");
    fs::create_dir(&foreign).unwrap();
    chown(&foreign, Some(ANNE.id), Some(ANNE.id)).unwrap();
    set_mode(&foreign, 0o755);
    world.expect(ANNE, 0o022, "into a closed directory");
    chown(&foreign, Some(ANNE.id), Some(GROUP)).unwrap();
    world.expect(ANNE, 0o022, "into a closed directory");
    world.expect(BERT, 0o022, "one");
}

/// Where there is one user, and no root.
#[test]
fn a_user_shares_with_a_group_of_his_own() {
    let scratch = Scratch::new();
    let (out, kernel) = (scratch.path().join("dist"), LinuxFs::new());
    let group = kernel.group();
    let options = OpenOptions::default().shared(Some(group));
    let store = Store::open_with(&options, &out).unwrap();
    assert_eq!(store.shared_with(), Some(group));
    publish(&store, ONE).unwrap();
    publish(&store, TWO).unwrap();
    // Whoever owns it need not say it again, and older programs are told.
    let store = Store::open(&out).unwrap();
    assert_eq!(store.shared_with(), Some(group));
    assert_eq!(fs::read(state_of(&out).join("store")).unwrap()[8], 2);
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(fs::metadata(out.join("d")).unwrap().mode() & 0o2070, 0o2070);
    let store = store.unshare().unwrap();
    assert_eq!(fs::read(state_of(&out).join("store")).unwrap()[8], 1);
    publish(&store, ONE).unwrap();
    assert_eq!(Store::open(&out).unwrap().shared_with(), None);
}
