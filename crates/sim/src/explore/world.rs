//! The worlds that are explored: which tree is published, which one is to be, and on what kind of file system.

use std::path::Path;

use txfs::fs::Fs;
use txfs::{Basis, BeginOptions, CommitOptions, Committed, OpenOptions, Store, Transaction};

use super::spec::{AT, FILES, FOREIGN, Node, Spec, alike_but_at_one_path, for_group, own, parent};
use crate::{Config, SimFs, Without};

/// The output of every world.
pub const OUTPUT: &str = "/w/out";

/// Its state directory.
pub const STATE: &str = "/w/.out.txfs";

/// What no commit may touch.
pub const OUTSIDE: &str = "/w/outside";

/// Where staged files have other names.
const LINKS: &str = "/links";

/// What others have dirty where that is much.
pub const CROWDED: u64 = 1 << 40;

/// The two members of the group of a shared store: who made it and runs the program, and who goes on.
pub(super) const MEMBERS: [u32; 2] = [1000, 1001];

/// What another producer publishes meanwhile, and where.
const OTHERS_AT: &str = "f";

const OTHERS: [(&str, Node); 2] = [(OTHERS_AT, Node::Dir(0o755)), ("f/x", FILES[0])];

/// How the program of a world ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Commit,
    Abort,
}

/// A world: what its program starts from and does.
#[derive(Debug, Clone)]
pub struct World {
    pub number: u64,
    /// The first generation; `None` where there is none.
    pub old: Option<Spec>,
    pub new: Spec,
    /// The output is there before anything is published.
    pub present: bool,
    /// A foreign file lies beside what is published.
    pub foreign: bool,
    /// The old tree is not published but foreign, and is taken over.
    pub adopt: bool,
    pub from: Basis,
    pub end: End,
    /// A directory of the first generation that somebody removed since, with everything in it.
    pub lost: Option<&'static str>,
    /// Staged files have another name elsewhere.
    pub linked: bool,
    /// The transaction replaces only one path of the output.
    pub at: bool,
    /// It began before the program, and another one that replaces another path was committed since.
    pub overtaken: bool,
    /// Another transaction of a live process is open.
    pub bystander: bool,
    /// Everything before the program is durable, and the last journal retired.
    pub settled: bool,
    pub config: Config,
}

type Result<T> = txfs::Result<T>;

/// The calls at which a program reached what it did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Marks {
    /// The store is open, the transaction has begun, its stage is full.
    pub opened: u64,
    pub begun: u64,
    pub staged: u64,
    /// The commit or abort has returned.
    pub returned: u64,
    /// Nothing went wrong with what follows a commit.
    pub swept: bool,
}

impl World {
    /// A commit from one tree to another, and nothing beside it.
    pub fn plain(config: Config, old: Option<Spec>, new: Spec) -> Self {
        Self {
            number: 0,
            old,
            new,
            present: false,
            foreign: false,
            adopt: false,
            from: Basis::Empty,
            end: End::Commit,
            lost: None,
            linked: false,
            at: false,
            overtaken: false,
            bystander: false,
            settled: true,
            config,
        }
    }

    pub fn options(fs: &SimFs) -> OpenOptions<SimFs> {
        let options = OpenOptions::with(fs.clone()).fanout(2).lock_timeout(std::time::Duration::ZERO);
        if fs.members().is_empty() { options } else { options.shared(None) }
    }

    /// The same world with a store that a group shares. What is published by hand is not the group's, nor is a file with another name;
    /// and both calls that rename have to be there. A crash does not lose the mode of what has something in it since.
    pub(super) fn shared(mut self) -> Self {
        (self.adopt, self.linked, self.config.without) = (false, false, Without::default());
        (self.config.uid, self.config.members, self.config.lose_metadata) = (MEMBERS[0], MEMBERS.to_vec(), false);
        for node in self.old.iter_mut().flatten().chain(&mut self.new).map(|(_, node)| node) {
            if let Node::Dir(mode @ 0o750) = node {
                *mode = 0o755;
            }
        }
        self
    }

    /// The same world, whose transaction replaces one path alone.
    pub(super) fn replace_one_path(&mut self, overtaken: bool) {
        (self.old, self.new) = alike_but_at_one_path(self.old.take(), std::mem::take(&mut self.new));
        (self.at, self.adopt, self.overtaken) = (true, false, overtaken);
        if overtaken {
            // What a change removes only its own process knows.
            (self.from, self.bystander) = (Basis::Empty, false);
        }
    }

    pub fn is_shared(&self) -> bool {
        !self.config.members.is_empty()
    }

    /// Who goes on after a crash at this depth: the other member and the first in turn. Who may not make the output cannot go on where that
    /// is missing, nor share a store.
    pub fn successor(&self, fs: &SimFs, depth: usize) -> SimFs {
        match self.is_shared() && self.is_published() && depth % 2 == 1 {
            true => fs.as_user(MEMBERS[1]),
            false => fs.as_user(self.config.uid),
        }
    }

    pub fn commit_options() -> CommitOptions<'static> {
        let mut options = CommitOptions::default();
        options.allow_empty = true;
        options.max_removed = 100;
        options
    }

    /// The world before its program.
    pub fn build(&self) -> SimFs {
        let fs = SimFs::new(self.config.clone());
        let open = if self.is_shared() { 0o2775 } else { 0o755 };
        fs.put_dir("/w", open);
        fs.put_file(format!("{OUTSIDE}/file"), b"outside", 0o644);
        if self.linked {
            fs.put_dir(LINKS, 0o777);
        }
        if self.present || self.foreign {
            fs.put_dir(OUTPUT, open);
        }
        if self.foreign {
            fs.put_file(format!("{OUTPUT}/{FOREIGN}"), b"foreign", 0o644);
        }
        match &self.old {
            Some(old) if self.adopt => {
                fs.put_dir(OUTPUT, 0o755);
                put(&fs, old);
            }
            Some(old) => {
                publish(&fs, old).expect("nothing stands against the first generation");
                if self.settled {
                    Store::open_with(&Self::options(&fs), OUTPUT).expect("it is settled by whoever opens it");
                }
            }
            None => {}
        }
        if self.overtaken {
            self.overtake(&fs).expect("nothing stands against another producer");
        }
        for (path, _) in self.old.iter().flatten().rev().filter(|(path, _)| self.is_lost(path)) {
            fs.remove(format!("{OUTPUT}/{path}"));
        }
        if self.settled {
            fs.settle();
        }
        fs.fork()
    }

    /// Begins the transaction of the program, and has another one come first.
    fn overtake(&self, fs: &SimFs) -> Result<()> {
        let store = Store::open_with(&Self::options(fs), OUTPUT)?;
        let mut begun = store.begin(self.begin_options().detached(true))?;
        self.stage(fs, &mut begun)?;
        drop(begun);
        let mut other = store.begin(BeginOptions::default().at(OTHERS_AT))?;
        tool(write_file(fs, &other.stage().join("x"), OTHERS[1].1.content(), 0o644))?;
        other.commit(&Self::commit_options())?;
        if self.settled {
            Store::open_with(&Self::options(fs), OUTPUT)?;
        }
        Ok(())
    }

    fn begin_options(&self) -> BeginOptions {
        let options = BeginOptions::default().from(self.from);
        if self.at { options.at(AT) } else { options }
    }

    /// The transaction that the program commits.
    fn begin(&self, store: &Store<SimFs>) -> Result<Transaction<SimFs>> {
        if !self.overtaken {
            return store.begin(self.begin_options());
        }
        let open = store.transactions()?;
        store.resume(open.first().expect("it began before the program").id)
    }

    /// How many generations there are before the program.
    pub fn generations_before(&self) -> u64 {
        u64::from(self.is_published()) + u64::from(self.overtaken)
    }

    /// The program: opens the store, begins a transaction, fills its stage, and ends it.
    pub fn run(&self, fs: &SimFs, marks: &mut Marks) -> Result<Option<Committed>> {
        let store = Store::open_with(&Self::options(fs), OUTPUT)?;
        marks.opened = fs.calls();
        let bystander = self.bystander.then(|| store.begin(BeginOptions::default())).transpose()?;
        let mut transaction = self.begin(&store)?;
        marks.begun = fs.calls();
        if !self.overtaken {
            self.stage(fs, &mut transaction)?;
        }
        if self.at && !self.new.contains_key(AT) {
            transaction.remove_at()?;
        }
        marks.staged = fs.calls();
        let result = match self.end {
            End::Commit => {
                let mut options = Self::commit_options();
                options.adopt = self.adopt;
                transaction.commit(&options).map(Some)
            }
            End::Abort => transaction.abort().map(|()| None),
        };
        marks.returned = fs.calls();
        marks.swept = result.is_err() || store.sweep().is_ok();
        drop(bystander);
        result
    }

    fn stage(&self, fs: &SimFs, transaction: &mut Transaction<SimFs>) -> Result<()> {
        let is_change = self.from == Basis::Current && self.is_published();
        let empty = Spec::new();
        let old = self.staged(self.old.as_ref().filter(|_| is_change).unwrap_or(&empty));
        let new = self.staged(&self.new);
        // Of what goes with its directory nothing more is said.
        let goes = |path: &str| !new.contains_key(path);
        let gone = |path: &&&str| goes(path) && parent(path).is_none_or(|dir| !goes(dir));
        for path in old.keys().filter(gone) {
            transaction.remove(path)?;
        }
        let changed: Spec = new.iter().filter(|(path, node)| old.get(*path) != Some(node)).map(own).collect();
        fill(fs, transaction, &changed)?;
        if self.linked {
            let stage = transaction.stage();
            let mut files = changed.iter().filter(|(_, node)| matches!(node, Node::File(..)));
            tool(files.try_for_each(|(path, _)| {
                link_file(fs, &stage.join(path), &Path::new(LINKS).join(path.replace('/', "-")))
            }))?;
        }
        match self.new.get(AT) {
            Some(node) if self.at => tool(set_mode(fs, &transaction.stage(), *node)),
            _ => Ok(()),
        }
    }

    /// A tree as the stage has it.
    fn staged(&self, spec: &Spec) -> Spec {
        let below = |(path, node): (&&'static str, &Node)| {
            let path = if self.at { path.strip_prefix(AT)?.strip_prefix('/')? } else { path };
            Some((path, *node))
        };
        spec.iter().filter_map(below).collect()
    }

    fn is_lost(&self, path: &str) -> bool {
        self.lost.is_some_and(|lost| Path::new(path).starts_with(lost))
    }

    pub fn is_published(&self) -> bool {
        self.old.is_some() && !self.adopt
    }

    /// What the commit publishes: a change leaves the modes of directories alone, and what it does not name missing.
    pub fn published(&self) -> Spec {
        let mut published = self.new.clone();
        // The directory that is replaced stays, and another producer's.
        let stays = self.old.as_ref().filter(|_| self.at).and_then(|old| old.get(AT));
        if let (Some(node), Some(stays)) = (published.get_mut(AT), stays) {
            *node = *stays;
        }
        published.extend(OTHERS.iter().copied().filter(|_| self.overtaken));
        if let Some(old) = self.old.as_ref().filter(|_| self.from == Basis::Current && self.is_published()) {
            for (path, node) in &mut published {
                if let (Node::Dir(mode), Some(Node::Dir(before))) = (node, old.get(path))
                    && !self.is_lost(path)
                {
                    *mode = *before;
                }
            }
            published
                .retain(|path, node| !self.is_lost(path) || self.lost == Some(path) || old.get(path) != Some(node));
        }
        if self.is_shared() { for_group(&published) } else { published }
    }
}

/// Publishes `spec` as a whole generation.
pub fn publish(fs: &SimFs, spec: &Spec) -> Result<Committed> {
    let store = Store::open_with(&World::options(fs), OUTPUT)?;
    publish_in(fs, &store, spec)
}

pub fn publish_in(fs: &SimFs, store: &Store<SimFs>, spec: &Spec) -> Result<Committed> {
    let mut transaction = store.begin(BeginOptions::default())?;
    fill(fs, &mut transaction, spec)?;
    transaction.commit(&World::commit_options())
}

/// Writes into a stage: some of it through the transaction, which then knows digests and gives files times of their own, and some
/// as any tool would, so that what is replaced may have the time of what replaces it.
pub fn fill(fs: &SimFs, transaction: &mut Transaction<SimFs>, spec: &Spec) -> Result<()> {
    for (path, node) in spec {
        match node {
            Node::Dir(_) => transaction.make_dir(path)?,
            Node::Link(_) => transaction.symlink(path, String::from_utf8_lossy(node.content()).as_ref())?,
            Node::File(_, 0o644) if path.as_bytes()[0] % 2 == 0 => transaction.write(path, node.content())?,
            Node::File(_, mode) => {
                if let Some(dir) = parent(path) {
                    transaction.make_dir(dir)?;
                }
                tool(write_file(fs, &transaction.stage().join(path), node.content(), *mode))?;
            }
        }
    }
    // From the bottom: a directory that its owner may not write to could not be filled.
    for (path, node) in spec.iter().rev() {
        tool(set_mode(fs, &transaction.stage().join(path), *node))?;
    }
    Ok(())
}

/// No fault is put into a tool; after a crash it goes nowhere. But an error that lasts may have begun in a call whose failure txfs can
/// do without: then the tool fails, and who called it commits nothing.
fn tool(result: std::io::Result<()>) -> Result<()> {
    match result {
        Err(source) if source.raw_os_error() != Some(nix::errno::Errno::EIO as i32) => {
            Err(txfs::Error::Io { action: "build in", path: STATE.into(), source, whose: None })
        }
        _ => Ok(()),
    }
}

fn split(path: &Path) -> (&Path, &[u8]) {
    use std::os::unix::ffi::OsStrExt;
    let name = path.file_name().expect("an entry has a name").as_bytes();
    (path.parent().expect("an entry is in a directory"), name)
}

fn write_file(fs: &SimFs, path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let (dir, name) = split(path);
    let dir = fs.open_anchor(dir)?;
    let mut file = fs.create_file(&dir, name, mode)?;
    fs.write(&mut file, content).map(drop)
}

/// Gives a staged file another name, also where its directory may not be written to.
fn link_file(fs: &SimFs, path: &Path, other: &Path) -> std::io::Result<()> {
    let ((dir, name), (holder, other)) = (split(path), split(other));
    fs.link(&fs.open_anchor(dir)?, name, &fs.open_anchor(holder)?, other)
}

fn set_mode(fs: &SimFs, path: &Path, node: Node) -> std::io::Result<()> {
    let (dir, name) = split(path);
    match node {
        Node::Dir(0o755) | Node::File(_, 0o644) | Node::Link(_) => Ok(()),
        Node::Dir(mode) => fs.set_dir_mode(&fs.open_anchor(path)?, mode),
        Node::File(0, mode) => fs.set_mode(&fs.open_file(&fs.open_anchor(dir)?, name)?.0, mode),
        Node::File(..) => Ok(()),
    }
}

/// Puts a tree into the output as if somebody else had.
fn put(fs: &SimFs, spec: &Spec) {
    for (path, node) in spec {
        let path = format!("{OUTPUT}/{path}");
        match node {
            Node::Dir(_) => fs.put_dir(path, 0o755),
            Node::File(_, mode) => fs.put_file(path, node.content(), *mode),
            Node::Link(_) => fs.put_symlink(path, node.content()),
        }
    }
    for (path, node) in spec.iter().rev() {
        if let Node::Dir(mode) = node {
            fs.put_mode(format!("{OUTPUT}/{path}"), *mode);
        }
    }
}
