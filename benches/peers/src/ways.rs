//! How each peer publishes.

use std::fs;
use std::path::Path;
use std::process::Command;

use fs_transaction::{ChangeSet, StdFs, exec::block_on, recover};
use serde_json::json;
use txfs::{Basis, BeginOptions, CommitOptions, Store};

use crate::measure::{Outcome, output, sync};
use crate::peer::{Ground, Job};
use crate::tree::{self, Content};

fn run(command: &mut Command) -> Outcome<()> {
    output(command).map(drop)
}

/// The path of a directory's content, as rsync and cp want it.
fn within(dir: &Path) -> std::path::PathBuf {
    dir.join(".")
}

fn directory_of(path: &Path) -> Outcome<&Path> {
    Ok(path.parent().ok_or("it is in a directory")?)
}

/// Writes what changed to `dir`.
fn write_change(dir: &Path, job: &Job<'_>) -> Outcome<()> {
    let mut content = Content::new();
    for &i in &job.changed {
        let path = dir.join(tree::name(i));
        fs::create_dir_all(directory_of(&path)?)?;
        fs::write(path, content.of(job.files, i, job.version))?;
    }
    Ok(())
}

pub(crate) fn in_place(ground: &Ground<'_>, job: &Job<'_>) -> Outcome<()> {
    write_change(&ground.out, job)?;
    sync(directory_of(&ground.out)?)
}

pub(crate) fn txfs(ground: &Ground<'_>, arguments: &[&str]) -> Outcome<()> {
    run(Command::new(ground.tools.join("txfs")).args(arguments))
}

/// The build writes all of it to the stage.
pub(crate) fn txfs_begin(ground: &Ground<'_>, job: &Job<'_>) -> Outcome<String> {
    let stage = output(Command::new(ground.tools.join("txfs")).arg("begin").arg(&ground.out))?;
    tree::write_mixed(Path::new(&stage), job.files, |i| job.version_of(i))?;
    Ok(stage)
}

pub(crate) fn txfs_run(ground: &Ground<'_>, job: &Job<'_>) -> Outcome<()> {
    let mut command = Command::new(ground.tools.join("txfs"));
    command.args(["run", "-q"]).arg(&ground.out).args(["--", "cp", "-a"]).arg(within(job.source)).arg("{stage}");
    run(&mut command)
}

pub(crate) fn txfs_publish(ground: &Ground<'_>, job: &Job<'_>) -> Outcome<()> {
    run(Command::new(ground.tools.join("txfs")).args(["publish", "-q"]).arg(&ground.out).arg(job.source))
}

pub(crate) fn txfs_change(ground: &Ground<'_>, job: &Job<'_>) -> Outcome<()> {
    let store = Store::open(&ground.out)?;
    let mut transaction = store.begin(BeginOptions::default().from(Basis::Current))?;
    let mut content = Content::new();
    for &i in &job.changed {
        transaction.write(tree::name(i), content.of(job.files, i, job.version))?;
    }
    transaction.commit(&CommitOptions::default())?;
    Ok(())
}

/// The build writes what changed to files of its own, and a change set that names them.
pub(crate) fn fstx_stage(ground: &Ground<'_>, job: &Job<'_>) -> Outcome<String> {
    let payload = ground.work.join("payload");
    write_change(&payload, job)?;
    let directories: std::collections::BTreeSet<_> =
        job.changed.iter().filter_map(|&i| Some(Path::new(&tree::name(i)).parent()?.to_owned())).collect();
    let missing = directories.iter().filter(|dir| !ground.out.join(dir).exists());
    let make = missing.map(|dir| json!({ "op": "mkdir", "path": dir }));
    let write = job.changed.iter().map(|&i| {
        let name = tree::name(i);
        json!({ "op": "write", "path": name, "from_file": format!("payload/{name}") })
    });
    let set = ground.work.join("set.json");
    fs::create_dir_all(&ground.out)?;
    fs::write(&set, json!({ "ops": make.chain(write).collect::<Vec<_>>() }).to_string())?;
    Ok(set.display().to_string())
}

pub(crate) fn fstx_apply(ground: &Ground<'_>, set: &str) -> Outcome<()> {
    run(Command::new(ground.tools.join("fstx")).arg("apply").arg("-C").arg(&ground.out).arg(set))
}

pub(crate) fn fs_transaction(ground: &Ground<'_>, job: &Job<'_>) -> Outcome<()> {
    fs::create_dir_all(&ground.out)?;
    block_on(recover(&StdFs, &ground.out))?;
    let mut change = ChangeSet::new();
    let mut content = Content::new();
    for &i in &job.changed {
        change.write(tree::name(i), content.of(job.files, i, job.version));
    }
    Ok(block_on(change.apply(&StdFs, &ground.out))?)
}

pub(crate) fn rsync(ground: &Ground<'_>, job: &Job<'_>, options: &[&str]) -> Outcome<()> {
    let mut command = Command::new("rsync");
    run(command.args(["-a", "--delete"]).args(options).arg(within(job.source)).arg(&ground.out))
}

pub(crate) fn copy_and_swap(ground: &Ground<'_>, job: &Job<'_>, durably: bool) -> Outcome<()> {
    let new = ground.work.join("new");
    run(Command::new("cp").arg("-a").arg(job.source).arg(&new))?;
    if durably {
        sync(&new)?;
    }
    swap(ground, &new)?;
    if durably { sync(&ground.work) } else { Ok(()) }
}

/// Puts a new directory in the place of the output.
fn swap(ground: &Ground<'_>, new: &Path) -> Outcome<()> {
    let old = ground.work.join("old");
    let had = ground.out.exists();
    if had {
        run(Command::new("mv").arg("-T").arg(&ground.out).arg(&old))?;
    }
    run(Command::new("mv").arg("-T").arg(new).arg(&ground.out))?;
    if had { run(Command::new("rm").arg("-rf").arg(&old)) } else { Ok(()) }
}

fn ostree_command(ground: &Ground<'_>, what: &str) -> Command {
    let mut command = Command::new("ostree");
    command.arg(format!("--repo={}", ground.work.join("repo").display())).arg(what);
    command
}

pub(crate) fn ostree_init(ground: &Ground<'_>) -> Outcome<()> {
    run(ostree_command(ground, "init").arg("--mode=bare"))
}

pub(crate) fn ostree(ground: &Ground<'_>, job: &Job<'_>, options: &[&str]) -> Outcome<()> {
    let new = ground.work.join("new");
    let tree = format!("--tree=dir={}", job.source.display());
    run(ostree_command(ground, "commit").args(["--branch=main", "--subject=-"]).args(options).arg(tree))?;
    run(ostree_command(ground, "checkout").args(options).arg("main").arg(&new))?;
    swap(ground, &new)
}

fn git_command(ground: &Ground<'_>, index: &str, tree: &Path) -> Command {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=-", "-c", "user.email=-", "-c", "gc.auto=0"]);
    command.arg("--git-dir").arg(ground.work.join("git")).arg("--work-tree").arg(tree);
    command.env("GIT_INDEX_FILE", ground.work.join(index));
    command
}

pub(crate) fn git_init(ground: &Ground<'_>) -> Outcome<()> {
    run(Command::new("git").args(["init", "-q", "--bare"]).arg(ground.work.join("git")))
}

/// Source and output are work trees of one repository, each with an index of its own.
pub(crate) fn git(ground: &Ground<'_>, job: &Job<'_>) -> Outcome<()> {
    fs::create_dir_all(&ground.out)?;
    run(git_command(ground, "source", job.source).args(["add", "-A", "."]).current_dir(job.source))?;
    run(git_command(ground, "source", job.source).args(["commit", "-q", "--allow-empty", "-m", "-"]))?;
    run(git_command(ground, "out", &ground.out).args(["read-tree", "--reset", "-u", "HEAD"]).current_dir(&ground.out))
}
