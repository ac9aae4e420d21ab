//! What kind of world.

pub use txfs::fs::linux::Without;

/// How little order a crash keeps; the table is in `world/persist.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Weakness {
    /// One journal for all metadata, as ext4 and xfs: a crash keeps a prefix. File content follows its own ways.
    Ordered,
    /// The order within a directory is kept but for the names of fsynced files, none between directories; a rename between
    /// them may leave both names.
    Btrfs,
    /// What POSIX leaves open: no order between different names, not even in one directory.
    Posix,
}

/// When the number of a freed inode is given to a new one, the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reuse {
    /// Never, as btrfs.
    Never,
    /// Once no crash can bring the old one back.
    WhenDurable,
    /// At once. The new inode's name is then durable only after the removal of the old one.
    Immediate,
}

/// What kind of world.
#[derive(Debug, Clone)]
pub struct Config {
    /// How little order a crash keeps.
    pub weakness: Weakness,
    /// Whether inode numbers come back.
    pub reuse: Reuse,
    /// Bytes that reach the disk as one.
    pub block: usize,
    /// Whether a crash can lose modes and mtimes that were changed after an inode was made. Multiplies the states.
    pub lose_metadata: bool,
    /// The user that calls; user 0 may do anything.
    pub uid: u32,
    /// The users who belong to the group of everything; without any the bits of the group mean nothing.
    pub members: Vec<u32>,
    /// Taken off the modes of what is made.
    pub umask: u32,
    /// Features that this file system lacks.
    pub without: Without,
    /// A `write` takes at most so many bytes.
    pub short_write: Option<usize>,
    /// Nanoseconds that pass with each change.
    pub tick: u64,
    /// Nanoseconds to which mtimes are cut; more than `tick`, and two changes can leave the same mtime, as on Linux.
    pub mtime_granularity: u64,
    /// Bytes that other processes have still to be written, for good.
    pub dirty: u64,
    /// Whether files sync sooner one after the other than at the same time, as on btrfs without `ssd`.
    pub in_turn: bool,
    /// For samples of crash states.
    pub seed: u64,
    /// Calls after which the world panics, because its caller goes round in circles.
    pub max_calls: u64,
}

impl Config {
    /// A world of root's with every feature.
    pub fn new(weakness: Weakness) -> Self {
        Self {
            weakness,
            reuse: if weakness == Weakness::Ordered { Reuse::Immediate } else { Reuse::WhenDurable },
            block: 512,
            lose_metadata: true,
            uid: 0,
            members: Vec::new(),
            umask: 0o022,
            without: Without::default(),
            short_write: None,
            tick: 1_000_000,
            mtime_granularity: 1,
            dirty: 0,
            in_turn: false,
            seed: 0,
            max_calls: 10_000_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new(Weakness::Btrfs)
    }
}
