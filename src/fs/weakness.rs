//! What a file system does not give that txfs rests on, and that no probe can find out: it shows with the next power cut, or from
//! another machine.

use std::fmt;

/// What a file system lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Weakness {
    /// It is a FAT: a rename is not one step, and a file has another inode number after each mount.
    Fat,
    /// It keeps no journal of its names.
    NoJournal,
    /// The same, and it is the root of the machine: such a machine is made anew after a loss of power, not recovered.
    RootWithoutJournal,
    /// It was mounted so that it does not wait for the disk.
    NoBarriers,
    /// It is another machine's.
    Remote,
    /// It is another machine's, and was mounted so that its locks hold on this machine alone.
    LocalLocks,
}

impl Weakness {
    /// A short name for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Fat => "fat",
            Self::NoJournal => "no-journal",
            Self::RootWithoutJournal => "root-without-journal",
            Self::NoBarriers => "no-barriers",
            Self::Remote => "remote",
            Self::LocalLocks => "local-locks",
        }
    }

    /// Whether a loss of power can take back a commit that was reported, or the whole store, and nobody takes that into account.
    pub fn loses_commits(self) -> bool {
        matches!(self, Self::Fat | Self::NoJournal | Self::NoBarriers)
    }
}

impl fmt::Display for Weakness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fat => "a FAT renames in several steps and numbers its files anew with each mount: a loss of power can take a published commit",
            Self::NoJournal => {
                "the file system has no journal: a loss of power can take a published commit, and the state with it (`tune2fs -j` adds one)"
            }
            Self::RootWithoutJournal => {
                "the root of the machine has no journal: a loss of power can take a published commit, as it can the machine"
            }
            Self::NoBarriers => {
                "the file system is mounted so that it does not wait for the disk (nobarrier, barrier=0, volatile): a loss of power can take a published commit"
            }
            Self::Remote => {
                "the file system is another machine's: txfs on that machine itself is not kept out by a lock that is taken here, so publish from clients alone, or there alone"
            }
            Self::LocalLocks => {
                "the file system is another machine's, and is mounted with locks of this machine's own (nolock, local_lock): publish from this machine alone"
            }
        })
    }
}
