//! Counts the calls of the command that change something or wait for the disk, with strace.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::child::TXFS;
use crate::measure::Outcome;

/// How often the command made each of them, by name.
pub(crate) struct Calls(BTreeMap<String, usize>);

const WAITING: [&str; 4] = ["fsync", "fdatasync", "syncfs", "sync_file_range"];
const CHANGING: &str = "rename.*|link.*|symlink.*|unlink.*|mkdir.*|rmdir";

impl Calls {
    /// Runs `txfs` with these arguments; `None` where there is no strace.
    pub(crate) fn of(arguments: &[&Path]) -> Outcome<Option<Self>> {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", &format!("trace=/^({}|{CHANGING})$", WAITING.join("|"))]);
        strace.args(["-e", "signal=none", "-z", "--", TXFS]).args(arguments);
        let Ok(traced) = strace.stdin(Stdio::null()).output() else { return Ok(None) };
        let text = String::from_utf8(traced.stderr)?;
        if !traced.status.success() {
            return Err(format!("{strace:?}: {}", text.trim()).into());
        }
        let mut calls = BTreeMap::new();
        for (head, _) in text.lines().filter_map(|line| line.split_once('(')) {
            let name = head.rsplit(' ').next().unwrap_or(head);
            *calls.entry(name.to_owned()).or_default() += 1;
        }
        Ok(Some(Self(calls)))
    }

    /// Those that wait for the disk.
    pub(crate) fn barriers(&self) -> Vec<String> {
        let waiting = self.0.iter().filter(|(name, _)| WAITING.contains(&name.as_str()));
        waiting.map(|(name, count)| format!("{count} {name}")).collect()
    }

    pub(crate) fn all(&self) -> String {
        self.0.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    }
}
