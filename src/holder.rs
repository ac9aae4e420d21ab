//! Who holds a lock, and what is waited for; for messages.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::path::Shown;

/// Characters of a command that a message shows.
const SHOWN: usize = 60;

/// Who holds a lock, as far as the kernel tells: nothing of a process on another machine, or in a container of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Holder {
    /// The number of the process.
    pub pid: Option<u32>,
    /// Its command with its arguments, if this user may see them.
    pub command: Option<String>,
}

impl Holder {
    /// The process of this number.
    pub fn of(pid: u32, command: Option<String>) -> Self {
        Self { pid: Some(pid), command }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            None => return f.write_str("another process"),
            Some(pid) if pid == std::process::id() => return f.write_str("this very process"),
            Some(pid) => write!(f, "process {pid}")?,
        }
        let Some(command) = &self.command else { return Ok(()) };
        match command.char_indices().nth(SHOWN) {
            None => write!(f, " (`{}`)", Shown(Path::new(command))),
            Some((end, _)) => write!(f, " (`{}…`)", Shown(Path::new(&command[..end]))),
        }
    }
}

/// What is waited for, as [`OpenOptions::when_waiting`](crate::OpenOptions::when_waiting) is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Waiting {
    /// A lock that another process holds while it changes something.
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, if that is known.
        holder: Option<Holder>,
    },
    /// A process that builds for the same output, or waits to do so ([`BeginOptions::wait`](crate::BeginOptions::wait)).
    Build {
        /// The output.
        output: PathBuf,
        /// The process.
        holder: Holder,
    },
    /// A detached transaction of the same output that waited for its turn, and keeps it.
    Detached {
        /// The output.
        output: PathBuf,
        /// The transaction's stage.
        stage: PathBuf,
    },
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock { path, holder } => {
                write!(f, "waiting for {}, which holds {}", holder.clone().unwrap_or_default(), Shown(path))
            }
            Self::Build { output, holder } => {
                write!(f, "waiting for another build of {}: {holder}", Shown(output))
            }
            Self::Detached { output, stage } => {
                let (output, stage) = (Shown(output), Shown(stage));
                write!(f, "waiting for another build of {output}, which was begun by hand, and whose stage is {stage}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_named_as_far_as_it_is_known() {
        let said = |pid, command: &str| Holder { pid, command: Some(command.to_owned()) }.to_string();
        assert_eq!(Holder::default().to_string(), "another process");
        assert_eq!(Holder::of(1, None).to_string(), "process 1");
        assert_eq!(said(Some(7), "txfs run site -- make"), "process 7 (`txfs run site -- make`)");
        assert!(!said(Some(7), "a\x1b[2J").contains('\x1b'));
        assert_eq!(said(Some(7), &"ä".repeat(80)), format!("process 7 (`{}…`)", "ä".repeat(60)));
        assert_eq!(said(Some(std::process::id()), "test"), "this very process");
    }
}
