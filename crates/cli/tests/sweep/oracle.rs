//! What has to hold after a command that met a fault, whatever the fault was.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use serde_json::Value;

use super::common::tree::snapshot;
use super::scenarios::{self, Keeps, Scenario, Side};
use super::strace::{Call, Fault, Faulted};
use super::worlds::{Expected, Snapshot, World};

/// A command that met a fault, and how it ended.
pub struct Case<'a> {
    pub scenario: &'a Scenario,
    pub world: &'a World,
    pub expected: &'a Expected,
    pub call: &'a Call,
    pub fault: Fault,
    pub ended: &'a Faulted,
    /// The output before the command, and the identities of the entries in it that are not txfs'.
    pub before: &'a Snapshot,
    pub foreign: &'a [(u64, i64)],
}

/// What comes before the stage of a build that failed.
const KEPT_AT: &str = "the stage is kept at ";

/// Something that must not be.
pub type Violation = String;

macro_rules! ensure {
    ($holds:expr, $($what:tt)*) => {
        if !$holds {
            return Err(format!($($what)*));
        }
    };
}

/// How the binary ended without any fault.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

fn txfs(command: &[OsString]) -> Ended {
    let mut txfs = Command::new(env!("CARGO_BIN_EXE_txfs"));
    let output = txfs.args(command).env("LC_ALL", "C").stdin(Stdio::null()).output().unwrap();
    Ended {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Works, without a warning.
fn works(what: &str, command: &[OsString]) -> Result<Ended, Violation> {
    let ended = txfs(command);
    let Ended { code, out, err } = &ended;
    ensure!(*code == 0, "{what} exits with {code}: {out}{err}");
    ensure!(!err.contains("warning:") && !err.contains("error:"), "{what} warns: {err}");
    Ok(ended)
}

pub fn foreign(world: &World) -> Vec<(u64, i64)> {
    let of = |path: &str| fs::symlink_metadata(world.out().join(path)).ok();
    ["CNAME", "sub/mine"].into_iter().filter_map(of).map(|found| (found.ino(), found.mtime_nsec())).collect()
}

/// Holds everything against the case; says on which side the output is once it is recovered.
pub fn judge(case: &Case<'_>) -> Result<Side, Violation> {
    case.at_once()?;
    let side = case.recovered()?;
    case.transactions(side)?;
    case.goes_on()?;
    Ok(side)
}

impl Case<'_> {
    fn is_kill(&self) -> bool {
        self.fault == Fault::Kill
    }

    fn old_tree(&self) -> &Snapshot {
        if self.scenario.first { &self.expected.nothing } else { &self.expected.old }
    }

    fn new_tree(&self) -> &Snapshot {
        if self.scenario.first { &self.expected.new_alone } else { &self.expected.new }
    }

    fn side(&self) -> Option<Side> {
        let now = self.world.snapshot();
        match () {
            () if now == *self.old_tree() => Some(Side::Old),
            () if now == *self.new_tree() => Some(Side::New),
            () => None,
        }
    }

    fn unlike(&self) -> String {
        format!("the output is neither old nor new: {:?}", self.world.snapshot())
    }

    fn argument(&self, words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).chain([self.world.out().into()]).collect()
    }

    /// Before anything recovers: the exit code is one of the documented, and true.
    fn at_once(&self) -> Result<(), Violation> {
        let Faulted { code, out, err, .. } = self.ended;
        ensure!(!err.contains("panicked"), "a panic");
        let Some(code) = *code else {
            ensure!(self.is_kill(), "a signal killed it");
            return Ok(());
        };
        // A kill that was not met, for the sweep plays it again and counts what is never met.
        let failed = if self.scenario.name == "run" { 125 } else { 1 };
        match code {
            0 => {
                let side = self.side().ok_or_else(|| format!("exit code 0, and {}", self.unlike()))?;
                ensure!(self.scenario.success.contains(&side), "exit code 0, and the output is {side:?}");
                let said = self.scenario.prints.is_none_or(|prints| out == prints);
                ensure!(said || self.call.line.starts_with("write(1,"), "exit code 0, and it prints {out:?}");
                return Ok(());
            }
            7 => {
                let names = ["journal.new", "journal", "journal.undo"];
                let journal = names.iter().any(|name| self.world.state().join(name).exists());
                // Where a barrier failed, a name that is gone may come back; also where a directory could only be opened to be
                // searched, and the kernel was not even asked.
                let call = ["fsync", "syncfs"].contains(&&*self.call.name) || matches!(self.fault, Fault::Always(_));
                let barrier = call || err.contains("cannot make durable");
                ensure!(journal || barrier, "the outcome is said to be unknown, and there is no journal");
            }
            code if code == failed => {
                // What recovery did before is told in a line of its own.
                let recovered = self.scenario.interrupted && err.contains("txfs: recovered");
                let whole = recovered && self.side().is_some_and(|side| self.scenario.success.contains(&side));
                ensure!(whole || self.world.snapshot() == *self.before, "said to be unchanged, and {}", self.unlike());
            }
            code => return Err(format!("exit code {code} for an error of the system")),
        }
        if !self.call.is_talk() {
            self.message(err)?;
        }
        Ok(())
    }

    /// It says what failed, and where.
    fn message(&self, err: &str) -> Result<(), Violation> {
        let line = err.lines().find(|line| line.starts_with("error: "));
        let line = line.ok_or("no line of stderr says `error:`")?;
        let (Fault::Once(errno) | Fault::Always(errno)) = self.fault else { return Ok(()) };
        let cause = reason(errno);
        ensure!(line.contains(&cause), "the message does not say `{cause}`");
        let world = self.world.dir.to_str().unwrap();
        // A `txfs.toml` is looked for up to the root.
        let named =
            [world, "/txfs.toml", "/proc", "/dev/urandom", "stdout", "`cp`"].iter().any(|name| line.contains(name));
        ensure!(named, "the message does not say where");
        Ok(())
    }

    /// Recovery finds exactly one of the two sides, and leaves nothing for a second one.
    fn recovered(&self) -> Result<Side, Violation> {
        works("recover", &self.argument(&["recover"]))?;
        let side = self.side().ok_or_else(|| format!("after recovery {}", self.unlike()))?;
        let success = self.scenario.success.contains(&side);
        let allowed = match self.ended.code {
            Some(0) => success,
            Some(7) | None => success || !self.scenario.interrupted && side == Side::Old,
            Some(_) if self.scenario.interrupted => success,
            Some(_) => side == Side::Old,
        };
        let allowed = allowed || self.ended.code != Some(0) && self.scenario.otherwise.contains(&side);
        ensure!(allowed, "after recovery the output is {side:?}");
        let again = works("a second recover", &self.argument(&["recover"]))?;
        let has_nothing = self.scenario.first && again.err.starts_with("there is nothing to recover: ");
        let silent = again.out.is_empty() && (again.err.is_empty() || has_nothing);
        ensure!(silent, "a second recovery says: {}{}", again.out, again.err);
        Ok(side)
    }

    /// Every transaction is over, or it is listed and can be committed as it was meant.
    fn transactions(&self, side: Side) -> Result<(), Violation> {
        let status = works("status", &self.argument(&["status", "--json"]))?;
        let status: Value =
            serde_json::from_str(status.out.trim()).map_err(|error| format!("{error}: {}", status.out))?;
        let base = if self.scenario.first { Value::Null } else { 2.into() };
        let next = if self.scenario.first { 1 } else { 3 };
        let generation = if side == Side::Old { base } else { next.into() };
        ensure!(status["generation"] == generation, "status says generation {}", status["generation"]);
        let none = Vec::new();
        let listed = status["transactions"].as_array().unwrap_or(&none);
        let stages: Vec<PathBuf> = listed.iter().filter_map(|open| open["stage"].as_str()).map(PathBuf::from).collect();
        let open = match &stages[..] {
            [] => None,
            [stage] => Some(stage),
            more => return Err(format!("{} transactions are open", more.len())),
        };
        let promised = ["stays open", KEPT_AT].iter().any(|promise| self.ended.err.contains(promise));
        ensure!(!promised || open.is_some(), "the transaction that is said to stay open is gone");
        match self.scenario.transaction {
            Keeps::Nothing => ensure!(open.is_none(), "a transaction is open that nobody began"),
            Keeps::Failed => {
                if let Some(stage) = open {
                    // It may be named from where the command ran.
                    let said = self.ended.err.split_once(KEPT_AT).and_then(|(_, said)| said.split_once(": "));
                    let told = said.is_some_and(|(said, _)| fs::canonicalize(said).is_ok_and(|said| said == *stage));
                    ensure!(told, "a transaction is open that nobody was told of");
                    self.still_commits(stage)?;
                }
            }
            Keeps::Begins => self.begun(open)?,
            Keeps::Leaves => {
                ensure!(open.is_some(), "the open transaction is gone");
                self.still_commits(&stages[0])?;
            }
            Keeps::Ends => match (self.ended.code, open) {
                (Some(0), Some(_)) => return Err("exit code 0, and the transaction is still open".into()),
                (_, Some(_)) if side == Side::New => return Err("it is published and still open".into()),
                (_, Some(stage)) => self.still_commits(stage)?,
                // A killed commit loses nothing that was staged.
                (None, None) if side == Side::Old && self.scenario.success == [Side::New] => {
                    return Err("the transaction is gone, and nothing was published".into());
                }
                (_, None) => {}
            },
        }
        Ok(())
    }

    /// After `begin`.
    fn begun(&self, open: Option<&PathBuf>) -> Result<(), Violation> {
        let printed = self.ended.out.strip_suffix('\n').map(Path::new);
        let Some(stage) = open else {
            // Who is told of a failure does not use what was printed.
            ensure!(printed.is_none() || self.ended.code.is_some(), "the stage that was printed is gone");
            ensure!(self.ended.code != Some(0), "exit code 0, and no transaction is open");
            return Ok(());
        };
        ensure!(
            self.ended.code.is_none_or(|code| code == 0),
            "it failed, and a transaction is open that nobody was told of"
        );
        ensure!(printed.is_none_or(|printed| printed == stage), "another stage was printed");
        let copied = self.scenario.name.ends_with("copy");
        if copied {
            ensure!(snapshot(stage) == self.expected.old_alone, "the stage is no copy: {:?}", snapshot(stage));
        } else {
            ensure!(snapshot(stage).len() == 1, "the stage is not empty");
        }
        super::common::remove_all(stage);
        copy_tree(&self.world.dir.join("src"), stage);
        self.still_commits(stage)
    }

    /// The transaction's stage is what its owner made it.
    fn still_commits(&self, stage: &Path) -> Result<(), Violation> {
        let command = [OsString::from("commit"), stage.into()];
        works("committing what is open", &command)?;
        let same = self.scenario.name == "commit, nothing new";
        let expected = if same { self.old_tree() } else { self.new_tree() };
        let now = self.world.snapshot();
        ensure!(now == *expected, "committing what is open publishes something else: {now:?}");
        Ok(())
    }

    /// The next build is published, and nothing is left that the specification's layout does not have.
    fn goes_on(&self) -> Result<(), Violation> {
        works("the next run", &scenarios::run_of(self.world, "third"))?;
        let third = if self.scenario.first { &self.expected.third_alone } else { &self.expected.third };
        let now = self.world.snapshot();
        ensure!(now == *third, "the next run publishes something else: {now:?}");
        ensure!(foreign(self.world) == self.foreign, "what is not txfs' was touched");
        self.layout()
    }

    fn layout(&self) -> Result<(), Violation> {
        let list = |path: &str| -> BTreeSet<String> {
            let entries = fs::read_dir(self.world.state().join(path)).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
        };
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        // What is known of the sources of `publish` is nowhere needed.
        let found: BTreeSet<String> = &list("") - &set(&["sources", "sources.new"]);
        let layout = set(&[".gitignore", "HEAD", "lock", "manifests", "previous", "store", "tx"]);
        ensure!(found == layout, "the state directory holds {found:?}");
        ensure!(list("tx").is_empty(), "transactions are left: {:?}", list("tx"));
        let status = works("status", &self.argument(&["status", "--json"]))?;
        let status: Value = serde_json::from_str(status.out.trim()).map_err(|error| error.to_string())?;
        let generation = status["generation"].as_u64().ok_or("no generation")?;
        let last = |count: u64| (1..=generation).rev().take(count as usize).map(|kept| kept.to_string());
        let (manifests, previous) = (list("manifests"), list("previous"));
        // One file for each generation that is kept, or fewer: a small change is appended to the file before it.
        let known = manifests.iter().all(|file| file.parse::<u64>().is_ok_and(|file| (1..=generation).contains(&file)));
        ensure!(
            known && (1..=3).contains(&manifests.len()),
            "at generation {generation} manifests holds {manifests:?}"
        );
        ensure!(previous.is_subset(&last(2).collect()), "at generation {generation} previous holds {previous:?}");
        for (kept, parts) in last(2).zip([&["journal", "kept", "removed", "stage"][..], &["journal"]]) {
            let displaced = list(&format!("previous/{kept}"));
            ensure!(displaced.is_subset(&set(parts)), "previous/{kept} holds {displaced:?}");
        }
        Ok(())
    }
}

fn copy_tree(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "cp");
}

/// The operating system's words.
fn reason(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
