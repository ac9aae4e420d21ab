//! What root never notices: permissions that stand in the way, and state that belongs to somebody else.
//!
//! The tests run this program again as another user; what that user does is in [`user`].

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{chown, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use txfs::{ErrorKind, Store};
use txfs_testing::tree::without_state;
use txfs_testing::{publish, read, set_mode, state_of};

mod user;

const USER: u32 = 65534;

/// A directory of the unprivileged user's.
fn ground() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    let ground = dir.path().join("ground");
    fs::create_dir(&ground).unwrap();
    chown(&ground, Some(USER), Some(USER)).unwrap();
    (dir, ground)
}

/// Runs a scene as the unprivileged user.
#[track_caller]
fn as_user(scene: &str, ground: &Path) {
    // The test program itself may lie where that user cannot read it.
    let program = ground.parent().unwrap().join("program");
    if !program.exists() {
        // Copied by another process: a descriptor of ours that is open for writing could be inherited by a child that another
        // test starts at that moment, and a program that somebody may write to cannot be run.
        let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&program).status();
        assert!(copied.unwrap().success());
        set_mode(&program, 0o755);
    }
    let output = Command::new(&program)
        .args(["--exact", "scenes", "--nocapture", "--test-threads=1"])
        .env("TXFS_SCENE", scene)
        .env("TXFS_GROUND", ground)
        .env("TMPDIR", ground)
        .current_dir("/")
        .uid(USER)
        .gid(USER)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{scene}: {}", String::from_utf8_lossy(&text));
}

fn needs_root(test: &str) -> bool {
    if !txfs_testing::is_root() {
        txfs_testing::skip(test, "becoming another user needs root");
    }
    txfs_testing::is_root()
}

/// What the other user does; nothing where nobody asked.
#[test]
fn scenes() {
    let Ok(scene) = std::env::var("TXFS_SCENE") else { return };
    let ground = PathBuf::from(std::env::var_os("TXFS_GROUND").unwrap());
    let out = ground.join("dist");
    assert!(!txfs_testing::is_root());
    match &*scene {
        "read-only" => user::read_only(&out),
        "first" => drop(publish(&Store::open(&out).unwrap(), &[("a/x", "1"), ("b/y", "1"), ("c", "1")]).unwrap()),
        "denied" => user::denied(&out),
        "interrupted" => user::interrupted(&out),
        "unfinished" => user::unfinished(&out),
        "inside" => user::inside(&out),
        "refused" => {
            let error = Store::open(&out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            println!("{error}");
        }
        "unlisted" => user::unlisted(&out),
        "piecewise" => user::piecewise_rollback(&out),
        "unreadable" => user::unreadable(&out),
        "unsyncable" => user::unsyncable(&out),
        "put back" => user::put_back(&ground),
        "linked" => user::linked(&out),
        "few threads" => user::few_threads(&out),
        "program" => user::program(&out),
        "program back" => user::program_back(&out),
        "written into" => user::written_into(&out),
        "written anew" => user::written_anew(&out),
        "closed meanwhile" => user::closed_meanwhile(&out),
        other => panic!("no such scene: {other}"),
    }
}

#[test]
fn what_is_missing_is_put_back_where_the_source_is_read_only() {
    if needs_root("what is missing is put back") {
        let (_dir, ground) = ground();
        as_user("put back", &ground);
    }
}

#[test]
fn an_output_that_is_closed_while_a_commit_is_undone_is_what_is_to_be_opened() {
    if needs_root("an output that is closed meanwhile") {
        let (_dir, ground) = ground();
        as_user("closed meanwhile", &ground);
    }
}

#[test]
fn what_cannot_be_read_is_synced_after_it_was_opened() {
    if needs_root("a directory that cannot be read") {
        let (_dir, ground) = ground();
        as_user("linked", &ground);
    }
}

#[test]
fn a_commit_needs_no_second_thread() {
    if needs_root("no second thread") {
        let (_dir, ground) = ground();
        as_user("few threads", &ground);
    }
}

#[test]
fn a_copy_has_the_group_of_its_original_where_it_cannot_have_the_owner() {
    if needs_root("the group of a copy") {
        let (_dir, ground) = ground();
        // Whatever is made here gets a group that the user is not in.
        chown(&ground, Some(USER), Some(7)).unwrap();
        set_mode(&ground, 0o2775);
        as_user("program", &ground);
        for path in ["program", "link"] {
            lchown(ground.join("dist").join(path), Some(0), Some(USER)).unwrap();
        }
        set_mode(&ground.join("dist/program"), 0o4750);
        as_user("program back", &ground);
    }
}

#[test]
fn what_is_written_into_a_read_only_directory_leaves_it_read_only() {
    if needs_root("read-only directories that are written into") {
        let (_dir, ground) = ground();
        as_user("written into", &ground);
    }
}

#[test]
fn read_only_directories_are_published_changed_and_removed_by_their_owner() {
    if needs_root("read-only directories") {
        let (_dir, ground) = ground();
        as_user("read-only", &ground);
    }
}

#[test]
fn what_cannot_be_opened_to_be_synced_by_itself_is_synced_with_everything() {
    if needs_root("what cannot be opened") {
        let (_dir, ground) = ground();
        as_user("unsyncable", &ground);
    }
}

#[test]
fn a_denied_operation_rolls_back() {
    if needs_root("denied operation") {
        let (_dir, ground) = ground();
        as_user("first", &ground);
        chown(ground.join("dist/b"), Some(0), Some(0)).unwrap();
        as_user("denied", &ground);
        assert_eq!(read(&ground, "dist/b/y"), "1");
        chown(ground.join("dist/b"), Some(USER), Some(USER)).unwrap();
        // An immutable entry is denied even where the directory is one's own.
        let chattr = |flag: &str| Command::new("chattr").arg(flag).arg(ground.join("dist/b")).status();
        if chattr("+i").is_ok_and(|status| status.success()) {
            as_user("denied", &ground);
            chattr("-i").unwrap();
        }
        as_user("first", &ground);
    }
}

#[test]
fn a_commit_that_is_denied_when_it_is_recovered_is_unfinished_and_can_be_undone() {
    if needs_root("denied recovery") {
        let (_dir, ground) = ground();
        as_user("first", &ground);
        as_user("interrupted", &ground);
        chown(ground.join("dist/b"), Some(0), Some(0)).unwrap();
        as_user("unfinished", &ground);
        chown(ground.join("dist/b"), Some(USER), Some(USER)).unwrap();
        as_user("first", &ground);
    }
}

#[test]
fn where_nothing_can_be_made_beside_the_output_the_state_is_inside() {
    if needs_root("unwritable parent") {
        let (_dir, ground) = ground();
        fs::create_dir(ground.join("dist")).unwrap();
        chown(ground.join("dist"), Some(USER), Some(USER)).unwrap();
        chown(&ground, Some(0), Some(0)).unwrap();
        as_user("inside", &ground);
    }
}

#[test]
fn state_of_somebody_else_is_refused() {
    if needs_root("foreign state") {
        // Of root's, to the user; and of the user's, to root.
        let (_dir, ground) = ground();
        publish(&Store::open(ground.join("dist")).unwrap(), &[("a", "1")]).unwrap();
        as_user("refused", &ground);
        chown(state_of(&ground.join("dist")), Some(USER), Some(USER)).unwrap();
        let before = without_state(&ground);
        let error = Store::open(ground.join("dist")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        // The directory is theirs now, the files in it are not.
        as_user("refused", &ground);
        assert_eq!(without_state(&ground), before);
    }
}

#[test]
fn state_that_others_may_write_to_is_refused() {
    if needs_root("writable state") {
        for bits in [0o770, 0o722, 0o777, 0o1777] {
            let (_dir, ground) = ground();
            as_user("first", &ground);
            set_mode(&state_of(&ground.join("dist")), bits);
            as_user("refused", &ground);
        }
    }
}

#[test]
fn a_directory_planted_where_the_state_goes_is_refused() {
    if needs_root("planted state") {
        let (_dir, ground) = ground();
        let state = state_of(&ground.join("dist"));
        fs::create_dir(&state).unwrap();
        chown(&state, Some(USER + 1), None).unwrap();
        as_user("refused", &ground);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 0);
    }
}

#[test]
fn a_read_only_directory_that_was_taken_apart_comes_back() {
    if needs_root("piecewise") {
        let (_dir, ground) = ground();
        as_user("piecewise", &ground);
    }
}

#[test]
fn a_file_in_a_closed_directory_of_the_stage_can_be_written_anew() {
    if needs_root("written anew") {
        let (_dir, ground) = ground();
        as_user("written anew", &ground);
    }
}

#[test]
fn what_cannot_be_read_cannot_be_published() {
    if needs_root("unreadable") {
        let (_dir, ground) = ground();
        as_user("unreadable", &ground);
    }
}

#[test]
fn recovery_gets_by_what_it_cannot_move_aside() {
    if needs_root("recovery_gets_by_what_it_cannot_move_aside") {
        let (_dir, ground) = ground();
        as_user("unlisted", &ground);
    }
}
