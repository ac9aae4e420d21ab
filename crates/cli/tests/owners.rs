//! What becomes of what belongs to another user: as after a build in a container, or one `sudo`.
#![allow(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use txfs_testing as common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use common::Scratch;
use common::faulty::{Call, Faulty};
use nix::errno::Errno;
use txfs::{OpenOptions, Store};

const USER: u32 = 65534;

/// A directory of an ordinary user's, and the binary where that user may run it.
struct World(Scratch);

struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl World {
    /// `None` where it cannot be made.
    fn new(test: &str) -> Option<Self> {
        if !common::is_root() {
            common::skip(test, "to be two users needs root");
            return None;
        }
        let world = Self(Scratch::new());
        fs::set_permissions(world.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let binary = std::env::var_os("TXFS_BINARY").unwrap_or(env!("CARGO_BIN_EXE_txfs").into());
        fs::copy(binary, world.binary()).unwrap();
        fs::create_dir(world.at("")).unwrap();
        chown(world.at(""), Some(USER), Some(USER)).unwrap();
        Some(world)
    }

    fn binary(&self) -> PathBuf {
        self.0.path().join("txfs")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join("home").join(path)
    }

    fn run(&self, mut command: Command, user: u32) -> Ended {
        command.current_dir(self.at("")).stdin(Stdio::null());
        let output = command.uid(user).gid(user).output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn txfs(&self, user: u32, args: &[&str]) -> Ended {
        let mut command = Command::new(self.binary());
        command.args(args);
        self.run(command, user)
    }

    /// Pastes the command that a message gives, as root.
    fn paste(&self, message: &str) {
        let given = message.split('`').find_map(|part| part.strip_prefix("sudo chown ")).expect(message);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("chown {given}")]);
        let ended = self.run(command, 0);
        assert_eq!(ended.code, 0, "{given}: {}", ended.err);
    }

    fn begin(&self) -> PathBuf {
        PathBuf::from(self.txfs(USER, &["begin", "site"]).expect(0).out.trim_end())
    }
}

impl Ended {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    #[track_caller]
    fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "`{text}` is not in: {}", self.err);
        self
    }
}

fn fill(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("a"), "of root").unwrap();
}

#[test]
fn directories_of_another_user_are_refused_with_the_way_out_before_they_are_published() {
    let Some(world) = World::new("directories of another user") else { return };
    for below in ["assets", "assets/deep", ""] {
        let stage = world.begin();
        if below.is_empty() {
            // As a container that removes and makes anew what it is to write to.
            fs::remove_dir(&stage).unwrap();
        }
        fill(&stage.join(below));
        let name = stage.to_str().unwrap();
        let refused = world.txfs(USER, &["commit", name]).expect(5).says("belong to user 0");
        assert!(!world.at("site").exists());
        world.paste(&refused.err);
        world.txfs(USER, &["commit", name]).expect(0);
        world.txfs(USER, &["run", "site", "--allow-empty", "--max-removed", "100", "--", "true"]).expect(0);
        fs::remove_dir_all(world.at("site")).unwrap();
        fs::remove_dir_all(world.at(".site.txfs")).unwrap();
    }
}

#[test]
fn files_of_another_user_and_directories_that_anybody_may_write_to_are_no_trouble() {
    let Some(world) = World::new("files of another user") else { return };
    let stage = world.begin();
    fs::write(stage.join("a"), "of root").unwrap();
    fill(&stage.join("open"));
    fs::set_permissions(stage.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    world.txfs(USER, &["commit", stage.to_str().unwrap()]).expect(0);
    let script = "mkdir -m 777 \"$TXFS_STAGE/open\"; echo 2 > \"$TXFS_STAGE/open/b\"";
    world.txfs(USER, &["run", "site", "--", "sh", "-c", script]).expect(0);
    assert!(!world.at("site/a").exists() && !world.at("site/open/a").exists());
}

#[test]
fn a_stage_that_cannot_be_removed_says_whose_it_is_and_is_in_nobodys_way() {
    let Some(world) = World::new("a stage of another user") else { return };
    let stage = world.begin();
    fill(&stage.join("assets"));
    let name = stage.to_str().unwrap();
    let aborted =
        world.txfs(USER, &["abort", name]).expect(1).says("belongs to user 0").says("the transaction is over");
    world.txfs(USER, &["run", "site", "--", "sh", "-c", "echo 1 > \"$TXFS_STAGE/a\""]).expect(0).says("sudo chown");
    world.paste(&aborted.err);
    world.txfs(USER, &["recover", "site"]).expect(0).says("discarded 1 unfinished transaction");
    assert!(!stage.exists());
}

#[test]
fn a_directory_of_another_user_in_the_output_is_named_when_a_commit_fails_at_it() {
    let Some(world) = World::new("a directory of another user in the output") else { return };
    let build = |what: &str| {
        let script = format!("mkdir \"$TXFS_STAGE/d\"; echo {what} > \"$TXFS_STAGE/d/a\"");
        world.txfs(USER, &["run", "site", "--", "sh", "-c", &script])
    };
    build("1").expect(0);
    chown(world.at("site/d"), Some(0), Some(0)).unwrap();
    let failed = build("2").says("d belongs to user 0, and this is user 65534").says("the output is unchanged");
    assert_eq!(failed.code, 125);
    world.paste(&failed.err);
    build("2").expect(0);
}

/// What `run` says of a build that makes directories of root's, as a container does, and ends as `exit` says; and its stage.
fn build_by_root(world: &World, exit: i32) -> (Ended, PathBuf) {
    let mut build = Command::new(world.binary());
    build.args(["run", "site", "--", "sh", "-c", &format!("echo \"$TXFS_STAGE\"; read line; exit {exit}")]);
    build.current_dir(world.at("")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut build = build.uid(USER).gid(USER).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(build.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let stage = PathBuf::from(line.trim_end());
    fill(&stage.join("assets"));
    drop(build.stdin.take());
    let output = build.wait_with_output().unwrap();
    let code = output.status.code().unwrap();
    (Ended { code, out: String::new(), err: String::from_utf8(output.stderr).unwrap() }, stage)
}

/// It may have taken hours.
#[test]
fn a_build_that_made_directories_of_another_user_is_kept() {
    let Some(world) = World::new("a build by another user") else { return };
    let (refused, stage) = build_by_root(&world, 0);
    let refused = refused.expect(5).says("the stage is kept at");
    world.paste(&refused.err);
    world.txfs(USER, &["commit", stage.to_str().unwrap()]).expect(0);
}

#[test]
fn a_failed_build_that_made_directories_of_another_user_says_how_they_go() {
    let Some(world) = World::new("a failed build by another user") else { return };
    let (failed, stage) = build_by_root(&world, 7);
    let failed = failed.expect(7).says("could not be discarded").says("belongs to user 0");
    world.paste(&failed.err);
    world.txfs(USER, &["recover", "site"]).expect(0);
    assert!(!stage.exists());
}

/// And nobody else's: what of the output is a third user's stays theirs.
#[test]
fn after_one_sudo_one_command_gives_everything_back() {
    let Some(world) = World::new("after one sudo") else { return };
    let build = |user, out: &str, what: &str| {
        let script = format!("mkdir \"$TXFS_STAGE/d\"; echo {what} > \"$TXFS_STAGE/d/a\"");
        world.txfs(user, &["run", out, "--", "sh", "-c", &script])
    };
    for (out, inside) in [("site", false), ("an output", false), ("mounted", true)] {
        if inside {
            fs::create_dir_all(world.at(&format!("{out}/.txfs"))).unwrap();
        }
        build(0, out, "1").expect(0);
        assert_eq!(world.at(&format!("{out}/.txfs")).exists(), inside);
        let foreign = world.at(&format!("{out}/upload"));
        fs::write(&foreign, "of a third").unwrap();
        chown(&foreign, Some(33), Some(33)).unwrap();
        let refused = build(USER, out, "2").expect(6).says("belongs to user 0");
        world.paste(&refused.err);
        build(USER, out, "2").expect(0);
        assert_eq!(fs::metadata(&foreign).unwrap().uid(), 33);
    }
    // Where there is no output yet.
    world.txfs(0, &["begin", "none"]).expect(0);
    let refused = build(USER, "none", "1").expect(6);
    world.paste(&refused.err);
    build(USER, "none", "1").expect(0);
}

#[test]
fn root_is_told_whose_the_store_is() {
    let Some(world) = World::new("root and the store of a user") else { return };
    world.txfs(USER, &["begin", "site"]).expect(0);
    let refused = world.txfs(0, &["begin", "site"]).expect(6).says("`sudo -u '#65534'`");
    assert!(!refused.err.contains("chown"), "{}", refused.err);
}

/// A build may take hours: that its output is closed to it a user learns before.
#[test]
fn an_output_of_another_user_that_is_closed_is_refused_before_the_build() {
    let Some(world) = World::new("an output that is closed") else { return };
    let build = |out: &str, script: &str, options: &[&str]| {
        world.txfs(USER, &[&["run", out], options, &["--", "sh", "-c", &format!("touch BUILT; {script}")]].concat())
    };
    let page = "mkdir -p \"$TXFS_STAGE/d\"; echo 1 > \"$TXFS_STAGE/d/a\"";
    fs::create_dir_all(world.at("site/open")).unwrap();
    fs::create_dir(world.at("src")).unwrap();
    fs::write(world.at("src/a"), "a").unwrap();
    chown(world.at("site/open"), Some(USER), Some(USER)).unwrap();
    for options in [&["--stage"][..], &[]] {
        let refused = build("site", page, options).expect(125).says("site belongs to user 0, and this is user 65534");
        assert!(refused.err.contains("sudo chown"), "{}", refused.err);
    }
    for args in [&["begin", "site"][..], &["publish", "site", "src"]] {
        world.txfs(USER, args).expect(1).says("cannot write to").says("site belongs to user 0");
    }
    assert!(!world.at("BUILT").exists() && fs::read_dir(world.at(".site.txfs/tx")).unwrap().next().is_none());
    // What this user may write to is published, and his own output however it is closed; the rest after what the message says.
    build("site", "echo 1 > \"$TXFS_STAGE/a\"", &["--stage", "--at", "open"]).expect(0);
    fs::create_dir(world.at("own")).unwrap();
    chown(world.at("own"), Some(USER), Some(USER)).unwrap();
    fs::set_permissions(world.at("own"), fs::Permissions::from_mode(0o555)).unwrap();
    build("own", page, &["--stage"]).expect(0);
    fs::create_dir(world.at("other")).unwrap();
    world.paste(&build("other", page, &["--stage"]).expect(125).err);
    build("other", page, &["--stage"]).expect(0);
}

/// Only a copy of it is published, which is one's own.
#[test]
fn what_copying_a_source_of_another_user_would_change_is_said_as_it_would() {
    let Some(world) = World::new("a source of another user") else { return };
    fill(&world.at("src/d"));
    let is_added = |ended: Ended| assert!(ended.out.contains("A d/a"), "{} {}", ended.out, ended.err);
    is_added(world.txfs(USER, &["publish", "--dry-run", "site", "src"]).expect(0));
    world.txfs(USER, &["publish", "site", "src"]).expect(0);
    fs::remove_file(world.at("src/d/a")).unwrap();
    fs::write(world.at("src/d/b"), "b").unwrap();
    let differs = world.txfs(USER, &["diff", "site", "src"]).expect(0);
    assert_eq!((differs.out.as_str(), differs.err.as_str()), ("D d/a\nA d/b\n", ""));
}

/// Where the state cannot be looked into, and where an interrupted commit cannot go on.
#[test]
fn a_part_of_the_state_that_is_another_users_is_named_with_the_way_out() {
    let Some(world) = World::new("a part of the state of another user") else { return };
    let stage = world.begin();
    let name = stage.to_str().unwrap();
    fs::write(stage.join("a"), "1").unwrap();
    let transactions = world.at(".site.txfs/tx");
    fs::set_permissions(&transactions, fs::Permissions::from_mode(0o700)).unwrap();
    chown(&transactions, Some(0), Some(0)).unwrap();
    for args in [&["commit", name][..], &["begin", "site"], &["status", "site"], &["abort", "--all", "site"]] {
        world.txfs(USER, args).says("tx belongs to user 0").says("sudo chown");
    }
    let refused = world.txfs(USER, &["commit", name]);
    world.paste(&refused.err);
    world.txfs(USER, &["commit", name]).expect(0);
}

/// What lies in a directory of another user's is closed by its own mode, which no `chown` of that directory opens.
#[test]
fn what_is_closed_by_its_mode_is_named_and_not_the_directory_that_holds_it() {
    let Some(world) = World::new("what is closed by its mode") else { return };
    fs::create_dir(world.at("src")).unwrap();
    fs::write(world.at("src/a"), "a").unwrap();
    for (name, mode) in [("file", 0o000), ("dir", 0o311)] {
        let at = world.at("src").join(name);
        if name == "dir" { fs::create_dir(&at) } else { fs::write(&at, "1") }.unwrap();
        chown(&at, Some(USER), Some(USER)).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
        let refused = world.txfs(USER, &["publish", "site", "src"]).expect(1).says("closed to its owner by its mode");
        assert!(!refused.err.contains("chown"), "{}", refused.err);
        let given = refused.err.split('`').find(|part| part.starts_with("chmod ")).expect(&refused.err);
        let mut open = Command::new("sh");
        open.args(["-c", given]);
        world.run(open, USER).expect(0);
        world.txfs(USER, &["publish", "site", "src", "--max-removed", "100"]).expect(0);
    }
}

#[test]
fn a_state_that_cannot_be_made_comes_with_the_way_out() {
    let Some(world) = World::new("a state that cannot be made") else { return };
    fs::create_dir(world.at("closed")).unwrap();
    world.txfs(USER, &["begin", "closed/site"]).expect(1).says("hint: ").says("have the output made for this user");
    // As it says.
    fs::create_dir(world.at("closed/site")).unwrap();
    chown(world.at("closed/site"), Some(USER), Some(USER)).unwrap();
    world.txfs(USER, &["begin", "closed/site"]).expect(0);
}

#[test]
fn what_of_another_users_an_unfinished_commit_meets_comes_with_the_same_way_out_as_elsewhere() {
    let Some(world) = World::new("an unfinished commit and another user") else { return };
    let give = |path: &str, user: u32| {
        let path = world.at(path);
        assert!(Command::new("chown").arg("-R").arg(format!("{user}:{user}")).arg(path).status().unwrap().success());
    };
    let dead = AtomicBool::new(false);
    let kernel = Faulty::new(move |call| {
        dead.fetch_or(matches!(call, Call::Rename { name, .. } if name == b"x"), Ordering::SeqCst);
        dead.load(Ordering::SeqCst).then_some(Errno::EIO)
    });
    let out = world.at("site");
    let store = Store::open_with(&OpenOptions::with(kernel), &out).unwrap();
    common::publish(&store, &[("d/a", "1")]).unwrap();
    assert!(common::publish(&store, &[("d/a", "1"), ("d/x", "1")]).is_err());
    drop(store);
    give(".site.txfs", USER);
    give("site", USER);
    give("site/d", 0);
    let refused = world.txfs(USER, &["recover", "site"]).expect(7).says("d belongs to user 0");
    assert!(!refused.err.contains("chmod"), "{}", refused.err);
    world.paste(&refused.err);
    world.txfs(USER, &["recover", "site"]).expect(0);
    assert!(world.at("site/d/x").exists());
}
