//! Who is believed: members that say so, and nobody else; root neither, unless it belongs to them or owns the state.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;

use txfs::fs::{LinuxFs, Machine};
use txfs::{Error, OpenOptions, Store};
use txfs_testing::{Scratch, set_mode, state_of};

use super::{ANNE, BERT, GROUP, ONE, User, World};

const ROOT: User = User { id: 0, groups: &[0] };

const ROOT_OF_THE_GROUP: User = User { id: 0, groups: &[GROUP] };

const OUTSIDER: User = User { id: 61_003, groups: &[61_900] };

#[test]
fn who_does_not_belong_to_the_group_or_did_not_say_so_is_refused() {
    let Some(world) = World::new("the outsider is refused") else { return };
    world.expect(OUTSIDER, 0o022, "group of others");
    world.expect(ANNE, 0o022, "one");
    world.expect(OUTSIDER, 0o022, "refused");
    world.expect(BERT, 0o022, "refused unless shared");
    world.expect(BERT, 0o022, "refused of another group");
    // Its owner chose it.
    world.expect(ANNE, 0o022, "recover");
    world.assert_published(ONE);
}

#[test]
fn a_state_that_another_user_made_look_shared_is_refused() {
    let Some(world) = World::new("hostile shared state is refused") else { return };
    let state = state_of(&world.out());
    let lay = |owner: User, group: u32, mode: u32| {
        chown(&state, Some(owner.id), Some(group)).unwrap();
        set_mode(&state, mode);
    };
    world.expect(ANNE, 0o022, "one");
    for (group, mode) in [(GROUP, 0o2777), (GROUP, 0o2775), (GROUP, 0o770), (GROUP, 0o3770), (61_900, 0o2770)] {
        lay(ANNE, group, mode);
        world.expect(BERT, 0o022, "refused");
    }
    // The group of the directory is not the one that `store` names.
    lay(OUTSIDER, GROUP, 0o2770);
    fs::write(state.join("store"), "").unwrap();
    world.expect(BERT, 0o022, "refused");
    fs::remove_file(state.join("store")).unwrap();
    world.expect(BERT, 0o022, "refused");
    // A file in it that no member can have made, and one that anybody may write to.
    world.clear();
    world.expect(ANNE, 0o022, "one");
    for (owner, group, mode) in [(OUTSIDER, OUTSIDER.id, 0o664), (OUTSIDER, GROUP, 0o666)] {
        let head = state.join("HEAD");
        chown(&head, Some(owner.id), Some(group)).unwrap();
        set_mode(&head, mode);
        world.expect(BERT, 0o022, "refused");
    }
}

#[test]
fn root_uses_what_a_group_shares_only_as_its_member_or_owner() {
    let Some(world) = World::new("root in a shared store") else { return };
    world.expect(ANNE, 0o022, "one");
    world.expect(ROOT, 0o022, "refused");
    world.expect(ROOT_OF_THE_GROUP, 0o022, "refused unless shared");
    world.expect(ROOT_OF_THE_GROUP, 0o022, "two");
    world.expect(BERT, 0o022, "one");
    world.clear();
    world.expect(ROOT, 0o022, "one");
    world.expect(BERT, 0o077, "two");
    world.expect(ROOT, 0o077, "one");
    world.assert_published(ONE);
}

#[test]
fn root_gives_away_nothing_that_a_member_put_into_a_stage() {
    let Some(world) = World::new("a hard link to a secret") else { return };
    let secret = world.scratch.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    set_mode(&secret, 0o600);
    world.expect(ANNE, 0o022, "one");
    world.expect(ANNE, 0o002, "keep");
    let tx = fs::read_dir(state_of(&world.out()).join("tx")).unwrap().next().unwrap().unwrap().path();
    fs::hard_link(&secret, tx.join("stage/d/secret")).unwrap();
    world.expect(ROOT_OF_THE_GROUP, 0o022, "commit closed");
    let found = fs::metadata(&secret).unwrap();
    assert_eq!((found.gid(), found.mode() & 0o7777), (0, 0o600));
    world.assert_published(ONE);
}

#[test]
fn what_an_acl_gives_to_others_is_not_believed_nor_inherited() {
    let Some(world) = World::new("ACLs of a shared store") else { return };
    let setfacl = |args: &[&str], path: &Path| Command::new("setfacl").args(args).arg(path).status();
    if !setfacl(&["-d", "-m", "u:61003:rwx,g::r-x"], &world.ground()).is_ok_and(|set| set.success()) {
        return txfs_testing::skip("ACLs of a shared store", "there is no setfacl, or no ACL");
    }
    world.expect(ANNE, 0o022, "one");
    world.expect(BERT, 0o077, "two");
    world.expect(ANNE, 0o022, "recover");
    let state = state_of(&world.out());
    assert!(setfacl(&["-m", "u:61003:rwx"], &state).unwrap().success());
    for user in [ANNE, BERT] {
        world.expect(user, 0o022, "refused");
    }
}

#[test]
fn what_lacks_a_rename_flag_is_not_shared() {
    use txfs::fs::linux::Without;
    let scratch = Scratch::new();
    let out = scratch.path().join("dist");
    for without in
        [Without { exchange: true, ..Without::default() }, Without { no_replace: true, ..Without::default() }]
    {
        let kernel = LinuxFs::without(without);
        let group = kernel.group();
        let error = Store::open_with(&OpenOptions::with(kernel).shared(Some(group)), &out).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(!state_of(&out).exists());
    }
}
