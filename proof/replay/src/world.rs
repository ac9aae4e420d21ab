//! The generations that are published, and what has to be true of an output after a crash.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use txfs::fs::Fs;
use txfs::{
    Barriers, BeginOptions, CommitOptions, Committed, Error, OpenOptions, RecoverOptions, Recovered, RecoveredCommit,
    Store, Transaction,
};

use crate::random::Random;

/// The name of the output on every file system.
pub(crate) const OUTPUT: &str = "dist";
/// A file beside the output that others write and sync.
pub(crate) const NOISE: &str = "noise";

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Symlink { target: Vec<u8> },
    Other,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Node::Directory { mode } => write!(f, "directory {mode:o}"),
            Node::File { mode, content } => {
                write!(
                    f,
                    "file {mode:o}, {} bytes, {:?}",
                    content.len(),
                    String::from_utf8_lossy(&content[..content.len().min(24)])
                )
            }
            Node::Symlink { target } => write!(f, "link to {:?}", String::from_utf8_lossy(target)),
            Node::Other => f.write_str("something else"),
        }
    }
}

/// Every entry by its path relative to the root, which is the empty path.
pub(crate) type Tree = BTreeMap<PathBuf, Node>;

/// Reads a tree as it is; empty where there is none.
pub(crate) fn snapshot(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    if fs::symlink_metadata(root).is_ok() {
        visit(root, PathBuf::new(), &mut tree)?;
    }
    Ok(tree)
}

fn visit(root: &Path, relative: PathBuf, tree: &mut Tree) -> io::Result<()> {
    let path = root.join(&relative);
    let metadata = fs::symlink_metadata(&path)?;
    let (kind, mode) = (metadata.file_type(), metadata.mode() & 0o7777);
    let node = if kind.is_dir() {
        for entry in fs::read_dir(&path)? {
            visit(root, relative.join(entry?.file_name()), tree)?;
        }
        Node::Directory { mode }
    } else if kind.is_file() {
        Node::File { mode, content: fs::read(&path)? }
    } else if kind.is_symlink() {
        Node::Symlink { target: fs::read_link(&path)?.as_os_str().as_bytes().to_vec() }
    } else {
        Node::Other
    };
    tree.insert(relative, node);
    Ok(())
}

/// The first differences between two trees.
pub(crate) fn differences(expected: &Tree, found: &Tree) -> String {
    let missing = expected.iter().filter(|(path, _)| !found.contains_key(*path));
    let missing = missing.map(|(path, node)| format!("missing `{}` ({node:?})", path.display()));
    let wrong = found.iter().filter_map(|(path, node)| match expected.get(path) {
        Some(right) if right == node => None,
        Some(right) => Some(format!("`{}` is {node:?}, not {right:?}", path.display())),
        None => Some(format!("surplus `{}` ({node:?})", path.display())),
    });
    missing.chain(wrong).take(6).collect::<Vec<_>>().join("; ")
}

/// The generations of one run, by number; generation 0 is nothing. What txfs does not own is a part of each but the first.
#[derive(Debug, Clone)]
pub(crate) struct World {
    seed: u64,
    owned: Vec<Tree>,
    foreign: Tree,
    pub(crate) barriers: Barriers,
}

impl World {
    /// Generations in which every operation occurs: additions, replacements, removals, whole directories that come and go,
    /// changes of kind and of mode.
    pub(crate) fn new(seed: u64, slots: usize) -> Self {
        let owned = (0..8).map(|generation| if generation == 0 { Tree::new() } else { tree(seed, slots, generation) });
        Self { seed, owned: owned.collect(), foreign: foreign(), barriers: Barriers::Chosen }
    }

    /// How its commits are made durable.
    pub(crate) fn barriers(mut self, barriers: Barriers) -> Self {
        self.barriers = barriers;
        self
    }

    /// Options of a store whose commits are made durable so.
    pub(crate) fn options(&self) -> OpenOptions {
        OpenOptions::default().barriers(self.barriers)
    }

    /// What the output has to be: what txfs publishes, and what it has to leave alone.
    pub(crate) fn whole(&self, generation: usize) -> Tree {
        let mut tree = self.owned[generation].clone();
        tree.extend(self.foreign.clone());
        tree
    }

    pub(crate) fn owned(&self, generation: usize) -> &Tree {
        &self.owned[generation]
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The output before the first generation: foreign entries only.
    pub(crate) fn prepare(&self, root: &Path) -> io::Result<()> {
        fs::write(root.join(NOISE), "noise")?;
        build(&root.join(OUTPUT), &self.foreign)
    }

    /// Stages a generation.
    pub(crate) fn stage<F: Fs>(&self, store: &Store<F>, generation: usize) -> txfs::Result<Staged<F>> {
        let transaction = store.begin(BeginOptions::default())?;
        let stage = transaction.stage();
        build(&stage, &self.owned[generation]).map_err(|source| Error::Io {
            action: "stage",
            path: stage,
            source,
            whose: None,
        })?;
        Ok(Staged(transaction))
    }
}

/// A transaction that is ready to be committed.
pub(crate) struct Staged<F: Fs>(Transaction<F>);

impl<F: Fs> Staged<F> {
    pub(crate) fn commit(&mut self) -> txfs::Result<Committed> {
        let mut options = CommitOptions::default();
        options.max_removed = 100;
        self.0.commit(&options)
    }
}

fn build(root: &Path, tree: &Tree) -> io::Result<()> {
    for (path, node) in tree {
        let path = root.join(path);
        match node {
            Node::Directory { .. } => match fs::DirBuilder::new().mode(0o755).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            },
            Node::File { mode, content } => {
                fs::write(&path, content)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
            }
            Node::Symlink { target } => symlink(std::ffi::OsStr::from_bytes(target), &path)?,
            Node::Other => unreachable!("nothing else is ever built"),
        }
    }
    for (path, node) in tree {
        if let Node::Directory { mode } = node {
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(*mode))?;
        }
    }
    Ok(())
}

fn foreign() -> Tree {
    let file = |content: &str| Node::File { mode: 0o640, content: content.into() };
    let directory = Node::Directory { mode: 0o755 };
    let entries = [
        ("", directory.clone()),
        ("CNAME", file("example.org")),
        (".git", Node::Directory { mode: 0o700 }),
        (".git/config", file("not txfs'")),
        ("keep", directory),
        ("keep/foreign", Node::Symlink { target: b"../CNAME".to_vec() }),
    ];
    entries.into_iter().map(|(path, node)| (PathBuf::from(path), node)).collect()
}

fn tree(seed: u64, slots: usize, generation: usize) -> Tree {
    let mut tree = Tree::new();
    let mut put = |path: String, node: Node| drop(tree.insert(PathBuf::from(path), node));
    let file = |path: &str, size: usize, mode| {
        let head = format!("{path} of generation {generation}\n");
        let content = head.bytes().cycle().take(size.max(head.len())).collect();
        Node::File { mode, content }
    };
    let directory = Node::Directory { mode: 0o755 };
    put(String::new(), directory.clone());
    put("keep".into(), directory.clone());
    put("same".into(), Node::File { mode: 0o644, content: b"the same in every generation".to_vec() });
    put("index.html".into(), file("index.html", 0, 0o644));
    for slot in 0..slots {
        // What is at a slot in a generation: as in the one before for one slot in five.
        let mut random = Random::new(seed, &format!("slot {slot} of {generation}"));
        let stays = Random::new(seed, &format!("does {slot} stay")).percent(20);
        let kind = if stays { Random::new(seed, &format!("slot {slot}")).below(4) } else { random.below(6) };
        let mode = if random.percent(50) { 0o644 } else { 0o600 };
        let name = if slot % 3 == 2 { format!("keep/{slot}") } else { format!("{slot}") };
        match kind {
            0 | 1 => put(name.clone(), file(&name, 0, mode)),
            2 => put(name.clone(), file(&name, 9000, mode)),
            3 => {
                put(name.clone(), Node::Directory { mode: if random.percent(50) { 0o755 } else { 0o711 } });
                put(format!("{name}/inner"), file(&name, 0, 0o644));
                if random.percent(50) {
                    put(format!("{name}/deep"), directory.clone());
                    put(format!("{name}/deep/{}", random.below(2)), file(&name, 3000, 0o444));
                }
            }
            4 => put(name, Node::Symlink { target: format!("index.html?{generation}").into_bytes() }),
            _ => {}
        }
    }
    tree
}

/// What is wrong after a crash; names the step that found it.
pub(crate) type Verdict = Result<Found, String>;

/// What a check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) generation: usize,
    pub(crate) recovery: Recovery,
}

/// What recovery had to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    Nothing,
    Discarded,
    RolledForward,
    RolledBack,
    Settled,
}

impl Recovery {
    fn of(recovered: &Recovered) -> Self {
        match recovered.commit {
            None if recovered.is_nothing() => Self::Nothing,
            None | Some(RecoveredCommit::Discarded) => Self::Discarded,
            Some(RecoveredCommit::RolledForward { .. }) => Self::RolledForward,
            Some(RecoveredCommit::RolledBack { .. }) => Self::RolledBack,
            Some(_) => Self::Settled,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing to do",
            Self::Discarded => "discarded",
            Self::RolledForward => "rolled forward",
            Self::RolledBack => "rolled back",
            Self::Settled => "settled",
        }
    }
}

/// The oracle: recovers the store of a mounted file system, and says whether the output is exactly one of the generations
/// `allowed`, nothing is left of the commit, recovering again does nothing, and the next commit works.
pub(crate) fn check(world: &World, root: &Path, allowed: &[usize]) -> Verdict {
    let found = check_recovery(world, root, allowed)?;
    check_next(world, root, found.generation)?;
    Ok(found)
}

/// The part of the oracle that looks at recovery.
pub(crate) fn check_recovery(world: &World, root: &Path, allowed: &[usize]) -> Verdict {
    check_recovery_on(world, &OpenOptions::default(), root, allowed)
}

/// As [`check_recovery`], by another way to the kernel.
pub(crate) fn check_recovery_on<F: Fs>(
    world: &World,
    options: &OpenOptions<F>,
    root: &Path,
    allowed: &[usize],
) -> Verdict {
    let output = root.join(OUTPUT);
    // As `Store::open`, and what it did is heard of.
    let store = Store::open_with(&options.clone().recover(false), &output)
        .map_err(|error| format!("opening the store: {error}"))?;
    let recovered = store.recover(RecoverOptions::default()).map_err(|error| format!("recovery: {error}"))?;
    if !recovered.warnings.is_empty() || !recovered.rescued.is_empty() {
        return Err(format!("recovery had doubts: {recovered:?}"));
    }
    let generation = match_generation(world, &output, allowed)?;
    let found = Found { generation, recovery: Recovery::of(&recovered) };
    let head = store.head().map_err(|error| format!("HEAD: {error}"))?.map_or(0, |head| head.info.generation);
    if head != generation as u64 {
        return Err(format!("the output is generation {generation}, and HEAD says {head}"));
    }
    check_residue(&store)?;
    let again = store.recover(RecoverOptions::default()).map_err(|error| format!("recovering again: {error}"))?;
    if !again.is_nothing() || !again.warnings.is_empty() {
        return Err(format!("recovering again was not nothing: {again:?}"));
    }
    Ok(found)
}

fn match_generation(world: &World, output: &Path, allowed: &[usize]) -> Result<usize, String> {
    let tree = snapshot(output).map_err(|error| format!("reading the output: {error}"))?;
    if let Some(&generation) = allowed.iter().find(|&&generation| world.whole(generation) == tree) {
        return Ok(generation);
    }
    let other = (0..world.owned.len()).find(|&generation| world.whole(generation) == tree);
    match other {
        Some(other) => Err(format!("the output is generation {other}; allowed are {allowed:?}")),
        None => {
            let each = allowed.iter().map(|&generation| {
                format!("compared with generation {generation}: {}", differences(&world.whole(generation), &tree))
            });
            Err(format!("the output is no generation. {}", each.collect::<Vec<_>>().join(" | ")))
        }
    }
}

/// Nothing is left of what was interrupted.
fn check_residue<F: Fs>(store: &Store<F>) -> Result<(), String> {
    let list = |path: &Path| -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let state = store.state();
    let transient = ["journal", "journal.new", "journal.undo", "HEAD.new", "store.new", "probe", "rescued"];
    let left: Vec<_> = list(state).into_iter().filter(|name| transient.contains(&name.as_str())).collect();
    let open = list(&state.join("tx"));
    if left.is_empty() && open.is_empty() {
        Ok(())
    } else {
        Err(format!("left behind: {left:?}, transactions {open:?}"))
    }
}

/// The next commit works, on whatever generation was found.
pub(crate) fn check_next(world: &World, root: &Path, generation: usize) -> Result<(), String> {
    let output = root.join(OUTPUT);
    let next = |error: Error| format!("the next commit: {error}");
    let store = Store::open(&output).map_err(next)?;
    let committed = world.stage(&store, generation + 1).and_then(|mut staged| staged.commit()).map_err(next)?;
    if committed.generation != generation as u64 + 1 || !committed.warnings.is_empty() || !committed.rescued.is_empty()
    {
        return Err(format!(
            "the next commit: generation {}, {:?}, {:?}",
            committed.generation, committed.warnings, committed.rescued
        ));
    }
    match_generation(world, &output, &[generation + 1])
        .map(drop)
        .map_err(|what| format!("after the next commit: {what}"))
}
