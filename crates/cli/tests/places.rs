//! Where an output's state is: one state, from whichever side the output is looked at; where the user puts it; and where it can be.
#![allow(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use txfs_testing::mounts::{self, Mount};
use txfs_testing::{Scratch, is_root, read, skip};

const WRITE: &str = "echo \"$WHAT\" > \"$TXFS_STAGE/index.html\"";

fn txfs(dir: &Path, arguments: &[&str]) -> Output {
    let binary = std::env::var_os("TXFS_BINARY").unwrap_or(env!("CARGO_BIN_EXE_txfs").into());
    let mut command = Command::new(binary);
    command.args(arguments).current_dir(dir).stdin(Stdio::null()).output().unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", err(output));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Publishes one page by `run`, with these options before the command.
fn publish(dir: &Path, out: &str, what: &str, options: &[&str]) -> Output {
    let script = format!("WHAT={what}; {WRITE}");
    txfs(dir, &[&["run", out], options, &["--", "sh", "-c", &script]].concat())
}

fn generation(dir: &Path, out: &str) -> u64 {
    let status: serde_json::Value = serde_json::from_str(&done(&txfs(dir, &["--json", "status", out]))).unwrap();
    status["generation"].as_u64().unwrap_or(0)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[track_caller]
fn bind(source: &Path, at: &Path) -> Option<Mount> {
    match mounts::bind(source, at) {
        Ok(mount) => Some(mount),
        Err(why) => {
            skip("bind mount", &why);
            None
        }
    }
}

/// A container or a unit sees the output as a mount of its own; the state beside it may be in sight, or not.
#[test]
fn an_output_with_a_state_gets_no_second_one_where_it_is_a_mount() {
    let dir = Scratch::new();
    let root = dir.path().canonicalize().unwrap();
    for place in ["srv", "elsewhere"] {
        fs::create_dir(root.join(place)).unwrap();
    }
    fs::create_dir(root.join("elsewhere/data")).unwrap();
    done(&publish(&root, "srv/www", "one", &[]));
    for at in ["srv/www", "elsewhere/data"] {
        let Some(_mount) = bind(&root.join("srv/www"), &root.join(at)) else { return };
        let refused = publish(&root, at, "two", &[]);
        assert_eq!(refused.status.code(), Some(125), "{at}: {}", err(&refused));
        assert!(err(&refused).contains(root.join("srv/.www.txfs").to_str().unwrap()), "{at}: {}", err(&refused));
        assert_eq!(txfs(&root, &["status", at]).status.code(), Some(2), "{at}");
        assert_eq!(names(&root.join("srv/www")), ["index.html"], "{at}");
        assert!(!root.join("elsewhere/.data.txfs").exists());
    }
    done(&publish(&root, "srv/www", "three", &[]));
    assert_eq!((generation(&root, "srv/www"), read(&root, "srv/www/index.html")), (2, "three\n".into()));
}

#[test]
fn a_state_that_was_made_inside_a_mount_is_found_where_the_output_is_no_mount() {
    let dir = Scratch::new();
    let root = dir.path().canonicalize().unwrap();
    fs::create_dir(root.join("www")).unwrap();
    {
        let Some(_mount) = bind(&root.join("www"), &root.join("www")) else { return };
        done(&publish(&root, "www", "one", &[]));
    }
    done(&publish(&root, "www", "two", &[]));
    assert_eq!((generation(&root, "www"), names(&root)), (2, vec!["www".to_owned()]));
}

#[test]
fn a_chosen_place_is_found_again_from_the_output() {
    let dir = Scratch::new();
    let root = dir.path().canonicalize().unwrap();
    for at in ["p", "p/deep", "p/named"] {
        fs::create_dir(root.join(at)).unwrap();
    }
    let project = root.join("p");
    for (out, chosen, state) in
        [("a", "cache/txfs", "cache/txfs/.a.txfs"), ("b", "named/.b.txfs", "named/.b.txfs"), ("deep/c", ".", ".c.txfs")]
    {
        // Said before there is an output.
        let stage = done(&txfs(&project, &["begin", out, "--state", chosen]));
        assert!(Path::new(&stage).starts_with(project.join(state)), "{stage}");
        fs::write(Path::new(&stage).join("index.html"), "one").unwrap();
        done(&txfs(&project, &["commit", &stage]));
        done(&publish(&project, out, "two", &[]));
        // Also once the output is gone.
        fs::remove_dir_all(project.join(out)).unwrap();
        done(&publish(&project, out, "three", &["--state", chosen]));
        done(&publish(&project, out, "four", &[]));
        assert_eq!((generation(&project, out), read(&project, &format!("{out}/index.html"))), (4, "four\n".into()));
        assert!(project.join(state).join("HEAD").exists());
        let second = publish(&project, out, "five", &["--state", "second"]);
        assert!(err(&second).contains(state), "{}", err(&second));
        assert!(!project.join("second").exists());
    }
    // Where it is does not matter, if what was beside it comes along.
    fs::rename(root.join("p"), root.join("q")).unwrap();
    let copied = Command::new("cp").args(["-a", "q", "r"]).current_dir(&root).status().unwrap();
    assert!(copied.success());
    for project in ["q", "r"] {
        for out in ["a", "b", "deep/c"] {
            done(&publish(&root.join(project), out, project, &[]));
            assert_eq!(generation(&root.join(project), out), 5);
            assert_eq!(read(&root, &format!("{project}/{out}/index.html")), format!("{project}\n"));
        }
    }
}

/// What a state outside the project holds is of one output: a copy of the project has to choose its own.
#[test]
fn a_state_elsewhere_serves_one_output() {
    let dir = Scratch::new();
    let root = dir.path().canonicalize().unwrap();
    fs::create_dir(root.join("p")).unwrap();
    done(&publish(&root.join("p"), "dist", "one", &["--state", "../states"]));
    assert!(Command::new("cp").args(["-a", "p", "copy"]).current_dir(&root).status().unwrap().success());
    let refused = publish(&root.join("copy"), "dist", "two", &[]);
    assert!(err(&refused).contains("states/.dist.txfs") && err(&refused).contains("--state"), "{}", err(&refused));
    assert_eq!(read(&root, "copy/dist/index.html"), "one\n");
    // Moved, it is followed, with and without what stands beside it.
    for (from, to) in [("p", "q"), ("q", "p")] {
        fs::rename(root.join(from), root.join(to)).unwrap();
        fs::remove_dir_all(root.join(to).join(".dist.txfs")).unwrap();
        done(&publish(&root.join(to), "dist", to, &[]));
        done(&publish(&root.join(to), "dist", "again", &[]));
    }
    assert_eq!(generation(&root.join("p"), "dist"), 5);
    fs::rename(root.join("states"), root.join("lost")).unwrap();
    let refused = publish(&root.join("p"), "dist", "six", &[]);
    assert!(err(&refused).contains("is not there"), "{}", err(&refused));
    assert_eq!(read(&root, "p/dist/index.html"), "again\n");
}

#[test]
fn an_output_that_was_moved_without_its_state_names_it() {
    let dir = Scratch::new();
    let root = dir.path().canonicalize().unwrap();
    done(&publish(&root, "one", "1", &[]));
    fs::rename(root.join("one"), root.join("two")).unwrap();
    let refused = publish(&root, "two", "2", &[]);
    let hint = err(&refused);
    let command = hint.split('`').find(|part| part.starts_with("mv ")).unwrap_or_else(|| panic!("{hint}"));
    assert!(Command::new("sh").args(["-c", command]).current_dir(&root).status().unwrap().success());
    done(&publish(&root, "two", "2", &[]));
    assert_eq!((generation(&root, "two"), names(&root)), (2, vec![".two.txfs".to_owned(), "two".to_owned()]));
    // A copy is an output of its own, whatever attributes were copied with it.
    assert!(Command::new("cp").args(["-a", "two", "three"]).current_dir(&root).status().unwrap().success());
    done(&publish(&root, "three", "3", &["--adopt"]));
    assert_eq!((generation(&root, "three"), generation(&root, "two")), (1, 2));
}

/// Test runners and the like look into every directory of a project, except where they are told not to.
#[test]
fn tools_find_no_old_generation_where_the_state_is_chosen() {
    let dir = Scratch::new();
    for what in ["one", "two"] {
        done(&publish(dir.path(), "dist", what, &["--state", "node_modules/.cache"]));
    }
    fs::remove_dir_all(dir.path().join("dist")).unwrap();
    let mut find = Command::new("find");
    find.args([".", "-name", "node_modules", "-prune", "-o", "-name", "index.html", "-print"]);
    let found = find.current_dir(dir.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

fn mounted(kind: &str, prepare: impl FnOnce(&Path) -> Option<PathBuf>) -> Option<(Mount, PathBuf)> {
    match mounts::mount(kind) {
        Ok(mount) => {
            let at = prepare(mount.path())?;
            Some((mount, at))
        }
        Err(why) => {
            skip(kind, &why);
            None
        }
    }
}

/// Nothing can be moved between directories of different projects: the state has to be inside.
#[test]
fn an_output_with_a_project_quota_of_its_own_has_its_state_inside() {
    let prepare = |root: &Path| {
        let www = root.join("www");
        fs::create_dir(&www).unwrap();
        let made = Command::new("xfs_io").args(["-c", "chproj 42", "-c", "chattr +P"]).arg(&www).status();
        made.is_ok_and(|made| made.success()).then(|| root.to_path_buf())
    };
    let Some((_mount, root)) = mounted("xfs", prepare) else { return };
    for what in ["one", "two"] {
        done(&publish(&root, "www", what, &[]));
    }
    assert_eq!((generation(&root, "www"), names(&root)), (2, vec!["www".to_owned()]));
    // Before anything is built, with the true cause, and nothing is left of it.
    fs::remove_dir_all(root.join("www/.txfs")).unwrap();
    let refused = publish(&root, "www", "three", &["--state", "chosen", "--adopt"]);
    assert!(!refused.status.success() && err(&refused).contains("project quota"), "{}", err(&refused));
    assert!(!root.join("chosen/.www.txfs").exists() && !root.join("www/.txfs").exists());
    assert_eq!(read(&root, "www/index.html"), "two\n");
}

#[test]
fn an_ext4_without_a_journal_is_said_to_lose_commits() {
    let Some((mount, root)) = mounted("ext4 without a journal", |root| Some(root.to_path_buf())) else { return };
    let begun = publish(&root, "www", "one", &[]);
    done(&begun);
    assert!(err(&begun).contains("no journal"), "{}", err(&begun));
    let status = done(&txfs(&root, &["status", "www"]));
    assert!(status.contains("no journal"), "{status}");
    drop(mount);
    let Some((_mount, root)) = mounted("ext4", |root| Some(root.to_path_buf())) else { return };
    let begun = publish(&root, "www", "one", &[]);
    assert!(!err(&begun).contains("journal"), "{}", err(&begun));
    assert!(!done(&txfs(&root, &["status", "www"])).contains("beware"));
}

/// A user-space file system that is mounted by a command, where that is installed.
fn fused(program: &str, arguments: &[&str], at: &Path) -> Option<Mount> {
    fs::create_dir_all(at).unwrap();
    let mounted = Command::new(program).args(arguments).arg(at).stderr(Stdio::null()).status();
    if !is_root() || !mounted.as_ref().is_ok_and(|status| status.success()) {
        skip(program, &format!("{mounted:?}"));
        return None;
    }
    Some(Mount::of(at))
}

/// `chmod` is no way out of a file system that keeps no modes.
#[test]
fn a_file_system_without_modes_is_refused_for_what_it_is() {
    let dir = Scratch::new();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let made = Command::new("mkntfs").args(["-q", "-F"]).arg(&image).stderr(Stdio::null()).status();
    if !made.is_ok_and(|made| made.success()) {
        return skip("ntfs-3g", "mkntfs is not there");
    }
    let at = dir.path().join("mnt");
    let Some(_mount) = fused("ntfs-3g", &[image.to_str().unwrap()], &at) else { return };
    let refused = publish(&at, "site", "one", &[]);
    assert!(!refused.status.success());
    assert!(err(&refused).contains("keeps no modes") && !err(&refused).contains("chmod"), "{}", err(&refused));
    assert!(!at.join(".site.txfs").exists() && !at.join("site").exists());
}

#[test]
fn a_union_that_cannot_tell_files_apart_is_refused_before_a_build_is_run() {
    let dir = Scratch::new();
    for branch in ["a", "b"] {
        fs::create_dir(dir.path().join(branch)).unwrap();
    }
    let branches = format!("{0}/a=RW:{0}/b=RO", dir.path().display());
    let at = dir.path().join("mnt");
    let Some(_mount) = fused("unionfs", &["-o", "cow", &branches], &at) else { return };
    let refused = txfs(&at, &["run", "site", "--", "touch", "../built"]);
    assert!(!refused.status.success() && !dir.path().join("built").exists(), "{}", err(&refused));
    assert_eq!(names(&at), [] as [&str; 0], "{}", err(&refused));
}

#[test]
fn a_place_that_is_chosen_belongs_to_its_user_alone() {
    let dir = Scratch::new();
    done(&publish(dir.path(), "dist", "one", &["--state", "a/b"]));
    assert_eq!(fs::metadata(dir.path().join("a/b/.dist.txfs")).unwrap().mode() & 0o777, 0o700);
    fs::set_permissions(dir.path().join("a/b/.dist.txfs"), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(txfs(dir.path(), &["status", "dist"]).status.code(), Some(6));
}

/// User-space file systems, as NFS, keep what is removed while it is open, which the lock of a transaction is.
#[test]
fn nothing_is_left_where_removed_files_stay_until_they_are_closed() {
    let dir = Scratch::new();
    let below = dir.path().join("below");
    fs::create_dir(&below).unwrap();
    let at = dir.path().join("mnt");
    let Some(_mount) = fused("bindfs", &[below.to_str().unwrap()], &at) else { return };
    let quiet = |arguments: &[&str]| {
        let output = txfs(&at, arguments);
        done(&output);
        for word in ["warning", "error", "recovered"] {
            assert!(!err(&output).contains(word), "{arguments:?}: {}", err(&output));
        }
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    };
    for what in ["one", "two", "two"] {
        quiet(&["run", "site", "--", "sh", "-c", &format!("WHAT={what}; {WRITE}")]);
    }
    let stage = quiet(&["begin", "site"]);
    quiet(&["abort", &stage]);
    let failed = txfs(&at, &["run", "site", "--", "false"]);
    assert!(!err(&failed).contains("warning"), "{}", err(&failed));
    quiet(&["rollback", "site"]);
    quiet(&["status", "site"]);
    quiet(&["run", "site", "--", "sh", "-c", "touch \"$TXFS_STAGE/end\""]);
    // The file system learns of a file that was closed a little later.
    let left = || {
        let found = Command::new("find").arg(&below).args(["-name", ".fuse*"]).output().unwrap();
        String::from_utf8_lossy(&found.stdout).into_owned()
    };
    let gone = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        left().is_empty()
    });
    assert!(gone, "{}", left());
}

/// As the message says that refuses another place.
#[test]
fn a_state_that_was_moved_is_taken_where_the_user_says_that_it_is() {
    let dir = Scratch::new();
    let root = dir.path().canonicalize().unwrap();
    let absolute = |at: &str| root.join(at).into_os_string().into_string().unwrap();
    for (out, from, to) in [
        ("near", "st".to_owned(), "st2".to_owned()),
        ("deep", "st".into(), "far/away/st".into()),
        ("back", "far/st".into(), "st".into()),
        ("absolute", absolute("st"), absolute("far/st3")),
    ] {
        let name = format!(".{out}.txfs");
        done(&publish(&root, out, "one", &["--state", &from]));
        let refused = publish(&root, out, "two", &["--state", &to]);
        assert!(err(&refused).contains("move that directory there first"), "{}", err(&refused));
        fs::create_dir_all(root.join(&to)).unwrap();
        fs::rename(root.join(&from).join(&name), root.join(&to).join(&name)).unwrap();
        // It is not guessed where it went, and nobody else's is taken for it.
        let refused = publish(&root, out, "two", &[]);
        assert!(err(&refused).contains("--state") && err(&refused).contains("--adopt-all"), "{}", err(&refused));
        done(&publish(&root, "other", "one", &["--state", &format!("of-other/.{out}.txfs")]));
        assert!(!publish(&root, out, "two", &["--state", &format!("of-other/.{out}.txfs")]).status.success());
        fs::remove_dir_all(root.join(".other.txfs")).unwrap();
        fs::remove_dir_all(root.join("other")).unwrap();
        fs::remove_dir_all(root.join("of-other")).unwrap();
        done(&publish(&root, out, "two", &["--state", &to]));
        done(&publish(&root, out, "three", &[]));
        let stage = done(&txfs(&root, &["begin", out, "--from", "current"]));
        done(&txfs(&root, &["abort", &stage]));
        assert_eq!(generation(&root, out), 3, "{out}");
    }
    // And into the output, from where a stage leads back to it.
    done(&publish(&root, "in", "one", &["--state", "st"]));
    fs::rename(root.join("st/.in.txfs"), root.join("in/.txfs")).unwrap();
    done(&publish(&root, "in", "two", &["--state", "in/.txfs"]));
    let stage = done(&txfs(&root, &["begin", "in", "--from", "current"]));
    done(&txfs(&root, &["abort", &stage]));
    assert_eq!((generation(&root, "in"), root.join(".in.txfs").exists()), (2, false));
}

#[test]
fn a_name_that_is_too_long_for_a_state_is_told_so_whichever_place_is_chosen() {
    let dir = Scratch::new();
    let out = "x".repeat(255);
    for options in [&[][..], &["--state", "."], &["--state", "elsewhere"], &["--state", "elsewhere/.x.txfs"]] {
        let refused = publish(dir.path(), &out, "one", options);
        assert_eq!(refused.status.code(), Some(125), "{options:?}: {}", err(&refused));
        assert!(err(&refused).contains("too long for a state directory"), "{options:?}: {}", err(&refused));
        assert!(!err(&refused).contains("generations"), "{options:?}: {}", err(&refused));
    }
    assert_eq!(names(dir.path()), [] as [&str; 0]);
    fs::create_dir(dir.path().join(&out)).unwrap();
    done(&publish(dir.path(), &out, "one", &[]));
    done(&publish(dir.path(), &out, "two", &["--state", &format!("{out}/.txfs")]));
    assert_eq!(generation(dir.path(), &out), 2);
}
