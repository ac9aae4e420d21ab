//! The worlds that are explored: which tree is published, which one is to be, and on what kind of file system.

use std::collections::BTreeMap;
use std::path::Path;

use crate::{Config, Reuse, SimFs, Weakness, Without};
use txfs::fs::Fs;
use txfs::{Basis, BeginOptions, CommitOptions, Committed, OpenOptions, Store, Transaction};

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
/// The path that a transaction replaces which does not replace all.
const AT: &str = "d";
/// What another producer publishes meanwhile, and where.
const OTHERS_AT: &str = "f";
const OTHERS: [(&str, Node); 2] = [(OTHERS_AT, Node::Dir(0o755)), ("f/x", FILES[0])];
/// A foreign entry of the output.
pub const FOREIGN: &str = "CNAME";

/// An entry of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// A file with one of a few contents.
    File(u8, u32),
    /// A directory.
    Dir(u32),
    /// A symbolic link with one of a few targets.
    Link(u8),
}

pub const FILES: [Node; 3] = [Node::File(0, 0o644), Node::File(1, 0o644), Node::File(0, 0o600)];

impl Node {
    fn content(self) -> &'static [u8] {
        match self {
            Node::File(0, _) => b"nought",
            Node::File(1, _) => b"eleven",
            Node::File(_, _) => b"two",
            Node::Link(0) => b"a",
            Node::Link(_) => b"d/x",
            Node::Dir(_) => b"",
        }
    }
}

/// What is to be published, by path; the directories above an entry are in it too.
pub type Spec = BTreeMap<&'static str, Node>;

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
    fn replace_one_path(&mut self, overtaken: bool) {
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

/// What is published of this in a shared store: directories that every member may write to, and files that he may read.
pub fn for_group(spec: &Spec) -> Spec {
    let opened = |node: &Node| match *node {
        Node::Dir(mode) => Node::Dir(0o2775 | mode),
        Node::File(content, mode) => Node::File(content, mode | 0o040),
        link => link,
    };
    spec.iter().map(|(path, node)| (*path, opened(node))).collect()
}

fn own(entry: (&&'static str, &Node)) -> (&'static str, Node) {
    (*entry.0, *entry.1)
}

/// Whether something is a directory in one of both and not in the other: without RENAME_EXCHANGE that cannot be published.
pub fn changes_kind(old: &Spec, new: &Spec) -> bool {
    let is_dir = |node: &Node| matches!(node, Node::Dir(_));
    new.iter().any(|(path, node)| old.get(path).is_some_and(|old| is_dir(old) != is_dir(node)))
}

pub fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(dir, _)| dir)
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

/// Whether the output's entries are the spec's.
pub fn is_published(tree: &crate::Tree, spec: &Spec, foreign: bool) -> bool {
    use txfs::Kind;
    let mut expected = spec.len() + 1;
    let same = spec.iter().all(|(path, node)| {
        let entry = txfs::RelPath::new(path).ok().and_then(|path| tree.get(&path));
        entry.is_some_and(|entry| match node {
            Node::Dir(mode) => entry.kind == Some(Kind::Directory) && entry.mode == *mode,
            Node::File(_, mode) => {
                entry.kind == Some(Kind::File) && entry.mode == *mode && entry.content() == node.content()
            }
            Node::Link(_) => entry.kind == Some(Kind::Symlink) && entry.content() == node.content(),
        })
    });
    expected += usize::from(foreign);
    same && tree.len() == expected
}

// ---- enumeration

/// A small generator of pseudo-random numbers (splitmix64): the same on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end.max(1)
    }

    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// Everything that the small worlds publish: each kind of entry at `a`, beside each kind of directory `d`.
fn small_trees() -> Vec<Spec> {
    let tops = [None, Some(FILES[0]), Some(FILES[1]), Some(FILES[2]), Some(Node::Link(0)), Some(Node::Dir(0o755))];
    let mut directories: Vec<Spec> = vec![Spec::new(), [("d", FILES[0])].into(), [("d", Node::Link(0))].into()];
    for mode in [0o755, 0o555] {
        for x in [None, Some(FILES[0]), Some(FILES[1])] {
            let mut tree = Spec::from([("d", Node::Dir(mode))]);
            tree.extend(x.map(|x| ("d/x", x)));
            directories.push(tree);
        }
    }
    let mut trees = Vec::new();
    for top in tops {
        for directory in &directories {
            let mut tree = directory.clone();
            tree.extend(top.map(|top| ("a", top)));
            trees.push(tree);
        }
    }
    trees.sort_by_key(Spec::len);
    trees
}

const PATHS: [(&str, &[&str]); 5] =
    [("a", &[]), ("b.html", &[]), ("d", &["d/x", "d/y"]), ("e", &["e/index.html", "e/z"]), ("index.html", &[])];

/// A tree of more paths, drawn.
fn drawn_tree(random: &mut Random) -> Spec {
    let mut tree = Spec::new();
    for (path, below) in PATHS {
        let node = drawn_node(random, !below.is_empty());
        if let Some(Node::Dir(_)) = node {
            tree.extend(below.iter().filter_map(|below| drawn_node(random, false).map(|node| (*below, node))));
        }
        tree.extend(node.map(|node| (path, node)));
    }
    tree
}

/// Two trees that differ only at one path, where both have a directory or nothing.
fn alike_but_at_one_path(old: Option<Spec>, new: Spec) -> (Option<Spec>, Spec) {
    let is_at = |path: &str| Path::new(path).starts_with(AT);
    let is_fit = |spec: &Spec| matches!(spec.get(AT), None | Some(Node::Dir(_)));
    let old = old.map(|mut old| {
        let is_fit = is_fit(&old);
        old.retain(|path, _| is_fit || !is_at(path));
        old
    });
    let is_fit = is_fit(&new);
    let mut at: Spec = new.into_iter().filter(|(path, _)| is_fit && is_at(path)).collect();
    if at.is_empty() && !old.iter().flatten().any(|(path, _)| is_at(path)) {
        at.extend([(AT, Node::Dir(0o755)), ("d/x", FILES[0])]);
    }
    at.extend(old.iter().flatten().filter(|(path, _)| !is_at(path)).map(own));
    (old, at)
}

/// The tree that a seed stands for.
pub fn drawn(seed: u64) -> Spec {
    drawn_tree(&mut Random(seed))
}

fn drawn_node(random: &mut Random, directory: bool) -> Option<Node> {
    let node = match random.below(if directory { 10 } else { 7 }) {
        0 | 1 => return None,
        2 => FILES[0],
        3 => FILES[1],
        4 => FILES[2],
        5 => Node::Link(random.below(2) as u8),
        6 | 7 => Node::Dir(0o755),
        8 => Node::Dir(0o555),
        _ => Node::Dir(0o750),
    };
    Some(node)
}

/// The worlds in their order: every pair of small trees, then drawn ones without end.
pub struct Worlds {
    trees: Vec<Spec>,
    seed: u64,
    weakness: Option<Weakness>,
}

impl Worlds {
    pub fn new(seed: u64, weakness: Option<Weakness>) -> Self {
        Self { trees: small_trees(), seed, weakness }
    }

    /// How many worlds are enumerated before they are drawn.
    pub fn enumerated(&self) -> u64 {
        let trees = self.trees.len() as u64;
        trees * (trees + 1)
    }

    pub fn get(&self, number: u64) -> World {
        let mut random = Random(self.seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let trees = self.trees.len() as u64;
        let (old, new) = if number < self.enumerated() {
            // The place of the pair is a step that has no factor in common with their number: all kinds come early.
            let pair = number.wrapping_mul(1_000_003) % self.enumerated();
            let old = (pair / trees).checked_sub(1).map(|old| self.trees[old as usize].clone());
            (old, self.trees[(pair % trees) as usize].clone())
        } else {
            let old = (!random.one_in(8)).then(|| drawn_tree(&mut random));
            (old, drawn_tree(&mut random))
        };
        self.dress(number, old, new, &mut random)
    }

    /// The smallest worlds in which bugs were found, or in which a step that is left out shows.
    pub fn telling(&self) -> Vec<World> {
        let (x, y) = (FILES[0], FILES[1]);
        let world = |weakness: Weakness, old: Option<&[(&'static str, Node)]>, new: &[(&'static str, Node)]| {
            let mut config = Config::new(weakness);
            (config.uid, config.max_calls) = (1000, 100_000);
            let old = old.map(|old| old.iter().copied().collect());
            World::plain(config, old, new.iter().copied().collect())
        };
        let lacking = |mut world: World, exchange: bool, no_replace: bool| {
            world.config.without = Without { exchange, no_replace, ..Without::default() };
            world
        };
        let crowded = |mut world: World| {
            world.config.dirty = CROWDED;
            world
        };
        let in_turn = |mut world: World| {
            world.config.in_turn = true;
            world
        };
        let (open, closed) = (Node::Dir(0o755), Node::Dir(0o555));
        let closing = || {
            let old = [("a", x), ("d", open), ("d/x", x)];
            world(Weakness::Posix, Some(&old), &[("a", y), ("d", closed), ("d/x", y)])
        };
        let mut came_back = world(Weakness::Btrfs, Some(&[("a", x)]), &[("a", y)]);
        came_back.settled = false;
        let few_of_many = |weakness| {
            let old = ["a", "b", "c", "d", "e", "f", "g"].map(|name| (name, x));
            let mut new = old;
            new[2].1 = y;
            world(weakness, Some(&old), &new)
        };
        let removed = |weakness| {
            let mut world = world(
                weakness,
                Some(&[("a", x), ("d", open), ("d/x", x), ("d/y", x)]),
                &[("a", y), ("d", open), ("d/x", y), ("d/y", x)],
            );
            (world.from, world.lost) = (Basis::Current, Some("d"));
            world
        };
        let linked = |mut world: World| {
            world.linked = true;
            world
        };
        let mut telling = vec![
            // The store's own names.
            world(Weakness::Posix, None, &[("a", x)]),
            world(Weakness::Btrfs, None, &[("a", x)]),
            // A link that was lost, and a directory that was closed too early.
            lacking(closing(), true, false),
            lacking(closing(), true, true),
            closing(),
            // Directories that come, go and change places, and their modes.
            world(Weakness::Btrfs, Some(&[("a", x), ("d", closed), ("d/x", x)]), &[("a", open), ("d", Node::Link(0))]),
            world(Weakness::Btrfs, Some(&[("a", x)]), &[("a", y), ("d", closed), ("d/x", x)]),
            // A removal that is a link and an unlinking.
            lacking(world(Weakness::Btrfs, Some(&[("a", x), ("b", x)]), &[("b", y)]), false, true),
            // A journal that comes back.
            came_back,
            // What has to be durable is synced one by one: a mode, and a link that is to be kept.
            crowded(world(Weakness::Posix, Some(&[("d", open), ("d/x", x)]), &[("d", closed), ("d/x", x)])),
            crowded(lacking(world(Weakness::Btrfs, Some(&[("a", x)]), &[("a", y)]), true, false)),
            // A manifest that is appended to.
            few_of_many(Weakness::Posix),
            crowded(few_of_many(Weakness::Btrfs)),
            in_turn(crowded(few_of_many(Weakness::Btrfs))),
            // A change into a directory that somebody removed with what the change does not name.
            removed(Weakness::Ordered),
            removed(Weakness::Btrfs),
            // Files with other names in a directory that moves along, and that their owner may not write to.
            linked(world(Weakness::Ordered, Some(&[("a", x)]), &[("d", open), ("d/d", closed), ("d/d/x", x)])),
            linked(world(Weakness::Posix, Some(&[("a", x)]), &[("d", open), ("d/d", closed), ("d/d/x", x)])),
            // A directory below the one that moves, whose mode was lost.
            world(Weakness::Btrfs, None, &[("d", closed), ("d/x", x)]),
        ];
        telling.extend([
            // What one member of a group left another goes on with.
            world(Weakness::Btrfs, Some(&[("a", x), ("d", open), ("d/x", x)]), &[("a", y), ("d", closed), ("d/y", x)])
                .shared(),
            crowded(
                world(Weakness::Posix, Some(&[("a", x), ("d", open), ("d/x", x)]), &[("d", x), ("e", open)]).shared(),
            ),
        ]);
        // Two commits without a begin between them, and what the one before displaced.
        let mut overtaken =
            world(Weakness::Posix, Some(&[("a", x), ("d", closed), ("d/x", x)]), &[("a", x), ("d", closed)]);
        overtaken.replace_one_path(true);
        telling.push(overtaken);
        for (number, world) in telling.iter_mut().enumerate() {
            world.number = number as u64;
            world.config.seed = self.seed ^ world.number;
        }
        telling
    }

    fn dress(&self, number: u64, old: Option<Spec>, new: Spec, random: &mut Random) -> World {
        let weakness = [Weakness::Ordered, Weakness::Btrfs, Weakness::Posix];
        let mut config = Config::new(self.weakness.unwrap_or(weakness[(number % 3) as usize]));
        config.uid = if random.one_in(4) { 0 } else { 1000 };
        config.reuse = random.pick(&[config.reuse, config.reuse, Reuse::Never, Reuse::WhenDurable]);
        config.mtime_granularity = random.pick(&[1, 1, 4_000_000, 10_000_000_000]);
        config.lose_metadata = random.one_in(2);
        config.seed = number;
        config.max_calls = 100_000;
        let mut without = [(false, false), (false, false), (true, false), (false, true), (true, true)];
        if old.as_ref().is_some_and(|old| changes_kind(old, &new)) {
            // Refused before the commit point.
            without[2] = (false, true);
            without[4] = (false, false);
        }
        let (exchange, no_replace) = random.pick(&without);
        config.without = Without { exchange, no_replace, ..Without::default() };
        let published = old.is_some();
        config.dirty = [0, CROWDED][(number / 3 % 2) as usize];
        config.in_turn = number / 6 % 2 == 1;
        // Only files and links are taken over, and what nothing takes the place of stays.
        let can_adopt = |old: &Spec| {
            let blocks = old.values().chain(new.values()).all(|node| !matches!(node, Node::Dir(_)));
            blocks && old.keys().all(|path| new.contains_key(path))
        };
        let mut world = World {
            number,
            present: random.one_in(2),
            foreign: random.one_in(3),
            adopt: old.as_ref().is_some_and(can_adopt) && random.one_in(4),
            from: if published && random.one_in(3) { Basis::Current } else { Basis::Empty },
            end: if random.one_in(16) { End::Abort } else { End::Commit },
            lost: None,
            linked: random.one_in(8),
            at: false,
            overtaken: false,
            bystander: random.one_in(8),
            settled: !random.one_in(4),
            old,
            new,
            config,
        };
        if number % 16 == 9 {
            world.replace_one_path((number / 16).is_multiple_of(2));
        }
        if number % 8 == 5 { world.shared() } else { world }
    }
}
