//! What the commands are swept on: a small output, and a small change to it that has an operation of every kind.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use txfs::fs::Fs;
use txfs::{Basis, BeginOptions, OpenOptions, Store};

use super::common::faulty::{Call, Faulty};
use super::common::lenient;
use super::common::tree::{Node, snapshot};

pub type Snapshot = BTreeMap<Vec<u8>, Node>;

/// A file's content and mode, a link's target, or a directory's mode.
#[derive(Clone, Copy)]
pub enum Item {
    File(&'static str, u32),
    Link(&'static str),
    Dir(u32),
}

use Item::{Dir, File, Link};

pub type Items = &'static [(&'static str, Item)];

const FIRST: Items = &[("", Dir(0o755)), ("index.html", File("first", 0o644)), ("gone-before", File("gone", 0o644))];

pub const OLD: Items = &[
    ("", Dir(0o755)),
    ("index.html", File("old index", 0o644)),
    ("style.css", File("old style", 0o644)),
    ("same", File("the same", 0o640)),
    ("stale", File("stale", 0o644)),
    ("link", Link("same")),
    ("kind", File("a file", 0o644)),
    ("sub", Dir(0o755)),
    ("sub/same", File("the same", 0o644)),
    ("sub/page", File("old page", 0o644)),
    ("closed", Dir(0o555)),
    ("closed/page", File("old page", 0o444)),
    ("stale-dir", Dir(0o755)),
    ("stale-dir/a", File("a", 0o644)),
];

pub const NEW: Items = &[
    ("", Dir(0o755)),
    ("index.html", File("new index", 0o644)),
    ("style.css", File("new style", 0o644)),
    ("same", File("the same", 0o640)),
    ("added", File("added", 0o755)),
    ("link", Link("added")),
    ("kind", Dir(0o755)),
    ("kind/inside", File("inside", 0o644)),
    ("sub", Dir(0o700)),
    ("sub/same", File("the same", 0o644)),
    ("sub/page", File("new page", 0o644)),
    ("closed", Dir(0o555)),
    ("closed/page", File("new page", 0o444)),
    ("closed/added", File("added", 0o444)),
    ("new-dir", Dir(0o755)),
    ("new-dir/deep", Dir(0o755)),
    ("new-dir/deep/a", File("a", 0o644)),
];

const THIRD: Items = &[
    ("", Dir(0o755)),
    ("index.html", File("third index", 0o644)),
    ("same", File("the same", 0o640)),
    ("added", File("third", 0o644)),
    ("kind", Link("same")),
    ("sub", Dir(0o755)),
    ("sub/page", File("third page", 0o644)),
    ("closed", Dir(0o755)),
];

/// Entries of somebody else's in the output.
const FOREIGN: Items = &[("CNAME", File("example.org", 0o600)), ("sub/mine", File("mine", 0o604))];

fn fill(dir: &Path, items: Items) {
    for (path, item) in items {
        let at = dir.join(path);
        match *item {
            File(content, mode) => {
                let mut options = fs::File::options();
                let mut file = options.write(true).create_new(true).mode(0o600).open(&at).unwrap();
                std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
                file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
            }
            Link(target) => symlink(target, &at).unwrap(),
            Dir(_) if at.is_dir() => {}
            Dir(_) => fs::DirBuilder::new().mode(0o700).create(&at).unwrap(),
        }
    }
    for (path, item) in items.iter().rev() {
        if let Dir(mode) = *item {
            fs::set_permissions(dir.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

/// What the output has to be, found out without txfs.
pub struct Expected {
    pub nothing: Snapshot,
    pub old: Snapshot,
    pub new: Snapshot,
    /// The new one where nothing was before it, and nothing foreign.
    pub new_alone: Snapshot,
    pub third: Snapshot,
    pub third_alone: Snapshot,
    pub old_alone: Snapshot,
}

impl Expected {
    pub fn found_out(scratch: &Path) -> Self {
        let of = |parts: &[Items]| {
            let dir = scratch.join("expected");
            fs::create_dir(&dir).unwrap();
            parts.iter().rev().for_each(|items| {
                for (path, _) in items.iter() {
                    if let Some(parent) = dir.join(path).parent().filter(|parent| parent.starts_with(&dir)) {
                        fs::create_dir_all(parent).unwrap();
                    }
                }
                fill(&dir, items);
            });
            let nodes = snapshot(&dir);
            super::common::remove_all(&dir);
            nodes
        };
        Self {
            nothing: Snapshot::new(),
            old: of(&[OLD, FOREIGN]),
            new: of(&[NEW, FOREIGN]),
            new_alone: of(&[NEW]),
            third: of(&[THIRD, FOREIGN]),
            third_alone: of(&[THIRD]),
            old_alone: of(&[OLD]),
        }
    }
}

/// A directory in which one case after another is played.
pub struct World {
    pub dir: PathBuf,
    /// The stage of the transaction that is open.
    pub stage: Option<PathBuf>,
}

impl World {
    /// An empty one, in the place of what was there.
    pub fn new(dir: &Path) -> Self {
        if dir.exists() {
            super::common::remove_all(dir);
        }
        fs::create_dir_all(dir).unwrap();
        for (name, items) in [("old-src", OLD), ("src", NEW), ("third", THIRD)] {
            fs::create_dir(dir.join(name)).unwrap();
            fill(&dir.join(name), items);
        }
        Self { dir: dir.to_path_buf(), stage: None }
    }

    pub fn out(&self) -> PathBuf {
        self.dir.join("dist")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join(".dist.txfs")
    }

    /// Generation 2 is the old one, with something foreign beside it; it has not been settled, and what it displaced not swept.
    pub fn published(&self) {
        let store = Store::open(self.out()).unwrap();
        publish(&store, |stage| fill(stage, FIRST)).unwrap();
        publish(&store, |stage| fill(stage, OLD)).unwrap();
        for (path, item) in FOREIGN {
            let File(content, mode) = *item else { continue };
            fs::write(self.out().join(path), content).unwrap();
            fs::set_permissions(self.out().join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
    }

    /// A transaction that `txfs begin` could have begun, with the new tree in its stage; two names of it are one file.
    pub fn staged(&mut self, items: Items) {
        let store = Store::open(self.out()).unwrap();
        let transaction = store.begin(BeginOptions::default().detached(true)).unwrap();
        fill(&transaction.stage(), items);
        if transaction.stage().join("added").exists() {
            fs::hard_link(transaction.stage().join("added"), self.dir.join("another-name")).unwrap();
        }
        self.stage = Some(transaction.stage());
    }

    /// A commit of the new tree whose process died as `death` says; its stage.
    pub fn died(&self, attached: bool, death: Death) -> PathBuf {
        let options = OpenOptions::with(death.kernel());
        let store = Store::open_with(&options, self.out()).unwrap();
        let mut transaction = store.begin(BeginOptions::default().detached(!attached)).unwrap();
        fill(&transaction.stage(), NEW);
        let committed = transaction.commit(&lenient()).is_ok();
        assert_eq!(committed, matches!(death, Death::AfterHead), "nothing fails a commit any more that is carried out");
        transaction.stage()
    }

    pub fn snapshot(&self) -> Snapshot {
        snapshot(&self.out())
    }
}

fn publish<F: Fs>(store: &Store<F>, fill: impl FnOnce(&Path)) -> txfs::Result<()> {
    let mut transaction = store.begin(BeginOptions::default().from(Basis::Empty))?;
    fill(&transaction.stage());
    transaction.commit(&lenient()).map(drop)
}

/// Where a commit's process dies: from then on nothing that it does has any effect.
#[derive(Clone, Copy)]
pub enum Death {
    /// Before the journal is written.
    BeforeJournal,
    /// When the journal is durable and has not got its name.
    BeforeName,
    /// After so many of the entries have been moved.
    AfterMoves(usize),
    /// After HEAD has been replaced.
    AfterHead,
    /// So many moves are done, the next one fails, and so many are undone.
    Undoing(usize, usize),
}

impl Death {
    fn kernel(self) -> Faulty {
        let (moves, failed, dead) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Faulty::new(move |call| {
            let count = |counter: &AtomicUsize| counter.fetch_add(1, Ordering::SeqCst);
            let set = |counter: &AtomicUsize| counter.load(Ordering::SeqCst) > 0;
            let of_state = |name: &[u8]| {
                [&b"journal"[..], b"journal.new", b"HEAD.new", b"meta.new", b"store.new"].contains(&name)
                    || name.len() == 16
            };
            let probing = |name: &[u8]| [&b"one"[..], b"two"].contains(&name);
            let dies = match (self, call) {
                _ if set(&dead) => true,
                (Self::BeforeJournal, Call::CreateFile { name }) => name == b"journal.new",
                (Self::BeforeName, Call::Rename { name, .. }) => name == b"journal.new",
                // The transaction takes its place among what was displaced.
                (Self::AfterHead, Call::Rename { name, .. }) => name.len() == 16,
                (Self::AfterMoves(limit), Call::Rename { name, .. }) if !of_state(name) && !probing(name) => {
                    count(&moves) == limit
                }
                (Self::Undoing(done, undone), Call::Rename { name, .. }) if !of_state(name) && !probing(name) => {
                    let moved = count(&moves);
                    if moved == done && !set(&failed) {
                        count(&failed);
                        return Some(Errno::EIO);
                    }
                    moved == done + 1 + undone
                }
                _ => false,
            };
            if dies {
                count(&dead);
            }
            dies.then_some(Errno::EIO)
        })
    }
}
