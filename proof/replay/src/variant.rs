//! The file systems, as they are made and mounted.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use txfs_sim::Weakness;

use crate::device::{Device, Mounted, run};

/// A file system with its options.
#[derive(Debug)]
pub(crate) struct Variant {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) size: u64,
    make: &'static [&'static str],
    options: &'static str,
    /// Where its superblock is: never torn in these images, for the kernel refuses a torn one whatever else is on the disk.
    pub(crate) superblock: Range<u64>,
    /// How the simulator is told to behave to cover it.
    pub(crate) weakness: Weakness,
    /// Whether files are synced one after the other on it.
    pub(crate) in_turn: bool,
    /// Distinct images of a bounded run.
    pub(crate) budget: usize,
}

const EXT4: &[&str] =
    &["mkfs.ext4", "-q", "-F", "-b", "4096", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"];

const fn ext4(name: &'static str, options: &'static str, budget: usize) -> Variant {
    let (make, weakness) = (EXT4, Weakness::Ordered);
    let (size, superblock, in_turn) = (16 << 20, 1024..2048, false);
    Variant { name, kind: "ext4", size, make, options, superblock, weakness, in_turn, budget }
}

/// A loop device on FUSE counts as a disk without seeks unless said.
const fn btrfs(name: &'static str, options: &'static str, in_turn: bool, budget: usize) -> Variant {
    let make = &["mkfs.btrfs", "-q", "-f", "-K"];
    let (size, superblock, weakness) = (128 << 20, 65536..69632, Weakness::Btrfs);
    Variant { name, kind: "btrfs", size, make, options, superblock, weakness, in_turn, budget }
}

pub(crate) const VARIANTS: [Variant; 6] = [
    ext4("ext4", "", 5_500),
    ext4("ext4-writeback", "data=writeback", 1_500),
    ext4("ext4-noauto", "noauto_da_alloc", 1_500),
    Variant {
        name: "xfs",
        kind: "xfs",
        size: 64 << 20,
        make: &["mkfs.xfs", "-q", "-f", "-K"],
        options: "nouuid",
        superblock: 0..512,
        weakness: Weakness::Ordered,
        in_turn: false,
        budget: 2_000,
    },
    btrfs("btrfs", "nodiscard,ssd", false, 4_000),
    btrfs("btrfs-nossd", "nodiscard,nossd", true, 1_500),
];

impl Variant {
    pub(crate) fn make(&self, device: &Device) -> Result<(), String> {
        let mut command = Command::new(self.make[0]);
        // mkfs.xfs makes file systems below 300 MB only for its own test suite.
        command.args(&self.make[1..]).envs([("TEST_DIR", "1"), ("TEST_DEV", "1"), ("QA_CHECK_FS", "1")]);
        run(command.arg(device.path())).map(drop)
    }

    /// Whether it can be made here.
    pub(crate) fn is_available(&self) -> Result<(), String> {
        let found = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(self.make[0]).is_file()));
        if found { Ok(()) } else { Err(format!("there is no {}", self.make[0])) }
    }

    pub(crate) fn mount(&self, device: &Device, at: &Path) -> nix::Result<Mounted> {
        Mounted::new(device.path(), at, self.kind, self.options)
    }
}
