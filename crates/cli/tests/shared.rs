//! Two deployers of a group who publish to one output by the command, and somebody who does not belong to it.
#![allow(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use txfs_testing as common;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Scratch, set_mode};

const GROUP: u32 = 62_000;
const ANNE: (u32, u32) = (61_001, GROUP);
const BERT: (u32, u32) = (61_002, GROUP);
const OUTSIDER: (u32, u32) = (61_003, 61_003);

/// A directory of the group's, and the binary where everybody may run it.
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
            common::skip(test, "to be several users needs root");
            return None;
        }
        let world = Self(Scratch::new());
        set_mode(world.0.path(), 0o755);
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_txfs")).arg(world.0.path().join("txfs")).status();
        assert!(copied.unwrap().success());
        fs::create_dir(world.at("")).unwrap();
        chown(world.at(""), Some(ANNE.0), Some(GROUP)).unwrap();
        set_mode(&world.at(""), 0o2775);
        Some(world)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join("srv").join(path)
    }

    /// Runs a command line, in which `txfs` is the binary.
    fn sh(&self, (user, group): (u32, u32), line: &str) -> Ended {
        let mut command = Command::new("setpriv");
        let (user, group) = (user.to_string(), group.to_string());
        command.args(["--reuid", &user, "--regid", &user, "--groups", &group, "sh", "-c", line]);
        command.current_dir(self.at("")).stdin(Stdio::null());
        let path = format!("{}:{}", self.0.path().display(), std::env::var("PATH").unwrap_or_default());
        let output = command.env("PATH", path).output().unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
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

const BUILD: &str = "mkdir -p \"$TXFS_STAGE/d\"; id -u > \"$TXFS_STAGE/d/who\"";

#[test]
fn two_deployers_publish_by_saying_so() {
    let Some(world) = World::new("two deployers") else { return };
    let run = |how: &str| format!("umask 077; txfs run site {how} -- sh -c '{BUILD}'");
    world.sh(ANNE, &run("--shared=62000")).expect(0).says("shared site with group 62000");
    world.sh(BERT, &run("")).expect(6).says("user 61001 shares it with group 62000: use it by `--shared`");
    world.sh(BERT, &run("--shared")).expect(0);
    assert_eq!(world.read("site/d/who"), "61002\n");
    world.sh(ANNE, &run("")).expect(0);
    assert_eq!(world.read("site/d/who"), "61001\n");
    world.sh(BERT, "txfs rollback site --shared").expect(0);
    assert_eq!(world.read("site/d/who"), "61002\n");
    world.sh(BERT, "txfs prune site --shared && txfs verify site --shared && txfs journal site --shared").expect(0);
    let stage = world.sh(ANNE, "txfs begin site").expect(0).out.trim_end().to_owned();
    world.sh(BERT, &format!("txfs abort --shared {stage}")).expect(0);
    assert!(!Path::new(&stage).exists());
    for line in ["txfs status site --shared", "txfs status site", "txfs abort --all --shared site"] {
        world.sh(OUTSIDER, line).expect(6).says("to which this process of user 61003 does not belong");
    }
}

#[test]
fn what_a_group_shares_is_shown() {
    let Some(world) = World::new("what is shared is shown") else { return };
    world.sh(ANNE, &format!("txfs run site -- sh -c '{BUILD}'")).expect(0);
    let status = |line: &str| world.sh(ANNE, line).expect(0).out;
    assert!(!status("txfs status site").contains("shared"));
    assert!(status("txfs status --json site").contains("\"shared\":null"));
    let shared = world.sh(ANNE, "txfs share site --json").expect(0).says("shared site with group 62000");
    assert!(shared.out.contains("\"shared\":{\"group\":62000,\"name\":null}"), "{}", shared.out);
    assert!(status("txfs status site").contains("shared:       with group 62000\n"));
    assert!(status("txfs status --json site").contains("\"shared\":{\"group\":62000,"));
    world.sh(ANNE, "txfs share site --group 61900").expect(2);
    world.sh(ANNE, "txfs share site --off").expect(0).says("took site back");
    assert!(status("txfs status --json site").contains("\"shared\":null"));
    world.sh(BERT, "txfs status --shared site").expect(6).says("txfs share ").says("--group GROUP");
}

#[test]
fn a_store_with_what_others_made_is_taken_back_with_the_administrators_help() {
    let Some(world) = World::new("taking back") else { return };
    let run = |how: &str| format!("txfs run site {how} -- sh -c '{BUILD}'");
    world.sh(ANNE, &run("--shared")).expect(0);
    world.sh(BERT, &run("--shared")).expect(0);
    world.sh(BERT, "txfs share site --shared --off").expect(2).says("user 61001, who alone can take it back");
    let refused = world.sh(ANNE, "txfs share site --off").expect(2).says("belongs to user 61002");
    let given = refused.err.split('`').find_map(|part| part.strip_prefix("sudo ")).unwrap();
    world.sh((0, 0), given).expect(0);
    world.sh(ANNE, "txfs share site --off").expect(0);
    world.sh(ANNE, &run("")).expect(0);
    world.sh(BERT, &run("--shared")).expect(6);
}

#[test]
fn a_command_that_is_diverted_writes_to_what_another_member_published() {
    let Some(world) = World::new("diverting in a shared store") else { return };
    world.sh(ANNE, &format!("txfs run site --shared -- sh -c '{BUILD}'")).expect(0);
    let line = "txfs run site --shared -- sh -c 'set -e; echo more >> site/d/who; mkdir site/e; mv site/d/who site/e'";
    world.sh(BERT, line).expect(0);
    assert_eq!(world.read("site/e/who"), "61001\nmore\n");
    world.sh(BERT, "txfs run site --shared --capture overlay -- touch site/x").expect(125).says("--capture copy");
    assert!(!world.at("site/x").exists());
}

#[test]
fn a_shared_state_that_was_put_elsewhere_is_found_by_the_other_member() {
    let Some(world) = World::new("a shared state elsewhere") else { return };
    let run = |how: &str| format!("umask 027; txfs run site {how} -- sh -c '{BUILD}'");
    world.sh(ANNE, "mkdir states").expect(0);
    world.sh(ANNE, &run("--shared --state states")).expect(0);
    world.sh(BERT, &run("")).expect(6).says("`--shared`");
    world.sh(BERT, &run("--shared")).expect(0);
    let stage = world.sh(ANNE, "txfs begin site").expect(0).out.trim_end().to_owned();
    world.sh(BERT, &format!("txfs abort --shared {stage}")).expect(0);
    // One that leads to another state than this output's.
    world.sh(ANNE, "mkdir other && mv states/.site.txfs other && rm .site.txfs/elsewhere").expect(0);
    world.sh(ANNE, "echo other/.site.txfs > .site.txfs/elsewhere; echo /elsewhere > other/.site.txfs/output").expect(0);
    world.sh(BERT, &run("--shared")).expect(125).says("no shared state that leads back");
}

#[test]
fn nothing_of_the_groups_has_to_be_said_to_be_public() {
    let Some(world) = World::new("modes of a shared output") else { return };
    world
        .sh(ANNE, "mkdir src && umask 077 && mkdir src/d && echo 1 > src/d/f && txfs publish --shared site src")
        .expect(0);
    let mode = |path: &str| fs::metadata(world.at(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("site/d"), mode("site/d/f")), (0o2770, 0o640));
    // The same again changes nothing, as `diff` says.
    world.sh(ANNE, "txfs diff --exit-code site src").expect(0);
    assert_eq!(world.sh(ANNE, "txfs publish site src && txfs publish --checksum site src").expect(0).out, "1\n1\n");
}
