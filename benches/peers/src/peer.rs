//! Who is compared, and what each promises.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::measure::Outcome;
use crate::ways;

/// Where a peer publishes.
pub(crate) struct Ground<'a> {
    pub(crate) out: PathBuf,
    /// For what it keeps from one publication to the next, or needs for one.
    pub(crate) work: PathBuf,
    pub(crate) tools: &'a Path,
}

/// What is to be published.
pub(crate) struct Job<'a> {
    /// The whole of it, as a build wrote it.
    pub(crate) source: &'a Path,
    /// How many files that is.
    pub(crate) files: usize,
    /// Those that are not as they were published last, and their version.
    pub(crate) changed: Vec<usize>,
    pub(crate) version: usize,
}

impl Job<'_> {
    pub(crate) fn version_of(&self, i: usize) -> usize {
        if self.changed.binary_search(&i).is_ok() { self.version } else { 0 }
    }
}

/// A way to publish.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Whether what it published survives a loss of power once it returned.
    pub(crate) durable: &'static str,
    /// Whether a crash leaves the old or the new, once it ran again.
    pub(crate) whole: &'static str,
    /// Whether a path that is there before and after is there all the time.
    pub(crate) gapless: &'static str,
    /// The program that it takes.
    program: &'static str,
    /// Once, before the first publication.
    pub(crate) prepare: fn(&Ground<'_>) -> Outcome<()>,
    /// What belongs to the build: not measured.
    pub(crate) stage: fn(&Ground<'_>, &Job<'_>) -> Outcome<String>,
    pub(crate) publish: fn(&Ground<'_>, &Job<'_>, &str) -> Outcome<()>,
}

const PLAIN: Peer = Peer {
    name: "",
    durable: "no",
    whole: "no",
    gapless: "no",
    program: "true",
    prepare: |_| Ok(()),
    stage: |_, _| Ok(String::new()),
    publish: |_, _, _| Ok(()),
};

const TXFS: Peer = Peer { durable: "yes", whole: "yes", gapless: "yes", program: "txfs", ..PLAIN };

/// rsync renames each file into place.
const RSYNC: Peer = Peer { gapless: "yes", program: "rsync", ..PLAIN };

pub(crate) const PEERS: [Peer; 15] = [
    Peer {
        name: "the floor: written in place, one `syncfs`",
        durable: "yes",
        gapless: "torn, not missing",
        publish: |ground, job, _| ways::in_place(ground, job),
        ..PLAIN
    },
    Peer {
        name: "`txfs begin`, `commit`: the build writes to the stage",
        stage: ways::txfs_begin,
        publish: |ground, _, stage| ways::txfs(ground, &["commit", "-q", stage]),
        ..TXFS
    },
    Peer { name: "`txfs run`, of `cp -a`", publish: |ground, job, _| ways::txfs_run(ground, job), ..TXFS },
    Peer { name: "`txfs publish`", publish: |ground, job, _| ways::txfs_publish(ground, job), ..TXFS },
    Peer {
        name: "txfs, the library: the change alone",
        publish: |ground, job, _| ways::txfs_change(ground, job),
        ..TXFS
    },
    Peer {
        name: "`fstx apply`: the change alone",
        durable: "yes",
        whole: "yes",
        program: "fstx",
        stage: ways::fstx_stage,
        publish: |ground, _, set| ways::fstx_apply(ground, set),
        ..PLAIN
    },
    Peer {
        name: "fs-transaction: the change alone",
        durable: "yes",
        whole: "yes",
        gapless: "yes",
        publish: |ground, job, _| ways::fs_transaction(ground, job),
        ..PLAIN
    },
    Peer { name: "`rsync -a --delete`", publish: |ground, job, _| ways::rsync(ground, job, &[]), ..RSYNC },
    Peer {
        name: "`rsync -a --delete --delay-updates`",
        publish: |ground, job, _| ways::rsync(ground, job, &["--delay-updates"]),
        ..RSYNC
    },
    Peer {
        name: "`rsync -a --delete --fsync`",
        durable: "contents, not names",
        publish: |ground, job, _| ways::rsync(ground, job, &["--fsync"]),
        ..RSYNC
    },
    Peer { name: "`cp -a`, two `mv`", publish: |ground, job, _| ways::copy_and_swap(ground, job, false), ..PLAIN },
    Peer {
        name: "`cp -a`, `syncfs`, two `mv`, `syncfs`",
        durable: "yes",
        whole: "old, new or nothing",
        publish: |ground, job, _| ways::copy_and_swap(ground, job, true),
        ..PLAIN
    },
    Peer {
        name: "`ostree commit`, `checkout`, two `mv`",
        durable: "its repository",
        whole: "its repository",
        program: "ostree",
        prepare: ways::ostree_init,
        publish: |ground, job, _| ways::ostree(ground, job, &[]),
        ..PLAIN
    },
    Peer {
        name: "`ostree` as above with `--fsync=false`",
        program: "ostree",
        prepare: ways::ostree_init,
        publish: |ground, job, _| ways::ostree(ground, job, &["--fsync=false"]),
        ..PLAIN
    },
    Peer {
        name: "`git add`, `commit`, `read-tree -u`",
        program: "git",
        prepare: ways::git_init,
        publish: |ground, job, _| ways::git(ground, job),
        ..PLAIN
    },
];

impl Peer {
    /// Whether this machine has what it takes.
    pub(crate) fn is_here(&self, tools: &Path) -> bool {
        let installed = tools.join(self.program);
        let program = if installed.exists() { installed } else { self.program.into() };
        let run = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        run.is_ok_and(|output| output.status.success())
    }
}
