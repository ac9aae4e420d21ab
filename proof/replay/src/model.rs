//! The simulator has to allow every state that a real file system was seen in.
//!
//! The same commit is made in the simulator. What a real image shows when it is mounted, before recovery, has to be among the
//! crash states of the simulated commit: the whole output, the whole stage and what was displaced, and the names of txfs' own
//! files. Numbers of inodes and transactions, times, and what txfs' own files contain differ and are not compared.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use txfs::fs::Kind;
use txfs::{BeginOptions, CommitOptions, OpenOptions, Store};
use txfs_sim::{Config, SimFs};

use crate::images;
use crate::random::Random;
use crate::record::Recording;
use crate::replay::{Place, Setting};
use crate::variant::Variant;
use crate::world::{self, Node, OUTPUT, Tree, World};

/// How far the model was compared.
pub(crate) struct Compared {
    pub(crate) images: usize,
    /// Distinct states of the real file system.
    pub(crate) real: usize,
    /// Distinct states of the simulator.
    pub(crate) simulated: usize,
    /// Whether these are all that it allows.
    pub(crate) exhaustive: bool,
    pub(crate) violations: Vec<String>,
    /// Real states that the simulator does not know.
    pub(crate) unknown: Vec<String>,
}

/// What is compared of a state.
type Shape = BTreeMap<PathBuf, String>;

const STATE: &str = ".dist.txfs";

fn shape(whole: &Tree) -> Shape {
    whole.iter().filter_map(|(path, node)| Some((normal(path)?, describe(path, node)))).collect()
}

/// The path without a transaction's number; `None` for what is no part of the store.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut parts: Vec<_> = path.iter().collect();
    let first = parts.first()?.to_str()?;
    if first != OUTPUT && first != STATE {
        return None;
    }
    if first == STATE
        && parts.get(1).is_some_and(|part| ["tx", "trash"].iter().any(|name| part == name))
        && parts.len() > 2
    {
        parts[2] = "ID".as_ref();
    }
    Some(parts.into_iter().collect())
}

fn describe(path: &Path, node: &Node) -> String {
    let own = path.starts_with(STATE) && !path.iter().any(|part| part == "stage" || part == "removed");
    match node {
        Node::File { .. } if own => "file".into(),
        Node::Directory { .. } if own => "directory".into(),
        Node::File { mode, content } => format!("{mode:o} {}", blake3::hash(content)),
        node => format!("{node:?}"),
    }
}

fn hash(shape: &Shape) -> u128 {
    let mut hasher = blake3::Hasher::new();
    for (path, what) in shape {
        hasher.update(path.as_os_str().as_encoded_bytes()).update(b"\0").update(what.as_bytes()).update(b"\0");
    }
    u128::from_le_bytes(hasher.finalize().as_bytes()[..16].try_into().expect("a digest has 32 bytes"))
}

/// Everything below `/w` in a simulated world.
fn simulated_tree(fs: &SimFs) -> Tree {
    let node = |entry: &txfs_sim::Entry| match entry.kind {
        Some(Kind::File) => Node::File { mode: entry.mode, content: entry.content().to_vec() },
        Some(Kind::Directory) => Node::Directory { mode: entry.mode },
        Some(Kind::Symlink) => Node::Symlink { target: entry.content().to_vec() },
        None => Node::Other,
    };
    let tree = fs.tree("/w");
    tree.iter().map(|(path, entry)| (path.as_path().to_path_buf(), node(entry))).collect()
}

fn put(fs: &SimFs, root: &Path, tree: &Tree) {
    for (path, node) in tree {
        let path = root.join(path);
        match node {
            Node::Directory { mode } => fs.put_dir(path, *mode),
            Node::File { mode, content } => fs.put_file(path, content, *mode),
            Node::Symlink { target } => fs.put_symlink(path, target),
            Node::Other => unreachable!("nothing else is ever built"),
        }
    }
}

/// All states that a crash of the commit of generation 2 can leave, by their hashes, and whether they are all there are.
fn simulate(world: &World, variant: &Variant, limit: usize) -> txfs::Result<(HashMap<u128, Shape>, bool)> {
    let fs = SimFs::new(Config { in_turn: variant.in_turn, ..Config::new(variant.weakness) });
    let output = Path::new("/w").join(OUTPUT);
    put(&fs, &output, &world.whole(0));
    let store = Store::open_with(&OpenOptions::with(fs.clone()).barriers(world.barriers), &output)?;
    let mut options = CommitOptions::default();
    options.max_removed = 100;
    for generation in [1, 2] {
        let mut transaction = store.begin(BeginOptions::default())?;
        put(&fs, &transaction.stage(), world.owned(generation));
        fs.settle();
        if generation == 2 {
            fs.record_crash_points();
        }
        transaction.commit(&options)?;
    }
    let (mut states, mut exhaustive) = (HashMap::new(), true);
    for point in fs.crash_points() {
        let mut worlds = point.states(limit);
        for world in worlds.by_ref() {
            let shape = shape(&simulated_tree(&world));
            states.entry(hash(&shape)).or_insert(shape);
        }
        exhaustive &= worlds.exhaustive();
    }
    Ok((states, exhaustive))
}

/// Compares the images of `recordings`, all of the commit of generation 2 in one world, with the simulator.
pub(crate) fn compare(
    setting: &Setting<'_>,
    recordings: &[Recording],
    budget: usize,
    limit: usize,
) -> Result<Compared, String> {
    let world = &recordings[0].world;
    let (simulated, exhaustive) =
        simulate(world, setting.variant, limit).map_err(|error| format!("the simulator: {error}"))?;
    let place = Place::new(setting.variant, setting.memory, setting.scratch, 0)?;
    let mut real: HashMap<u128, (String, Shape)> = HashMap::new();
    let (mut violations, mut broken) = (Vec::new(), None);
    let mut random = Random::new(setting.seed, "model");
    let mut seen = HashSet::new();
    let counts = images::generate(recordings, setting.variant, budget, &mut random, &mut seen, |job| {
        let looked = place.with(setting.variant, &job.image, |root| {
            let shape = world::snapshot(root).map(|tree| shape(&tree)).map_err(|error| format!("reading: {error}"))?;
            world::check(&job.world, root, &job.allowed).map(|_| shape)
        });
        match looked {
            Err(error) => broken = Some(format!("{}: {error}", job.name)),
            Ok(Err(error)) => violations.push(format!("{}: not mounted: {error}", job.name)),
            Ok(Ok(Err(what))) => violations.push(format!("{}: {what}", job.name)),
            Ok(Ok(Ok(shape))) => drop(real.entry(hash(&shape)).or_insert((job.name, shape))),
        }
    });
    if let Some(error) = broken {
        return Err(error);
    }
    let unknown = real.iter().filter(|(hash, _)| !simulated.contains_key(hash));
    let unknown = unknown.map(|(_, (name, shape))| format!("{name}: {}", beside_nearest(&simulated, shape))).collect();
    let (images, real, simulated) = (counts.total(), real.len(), simulated.len());
    Ok(Compared { images, real, simulated, exhaustive, violations, unknown })
}

/// How a state differs from the one of `known` that is most like it, for messages.
fn beside_nearest(known: &HashMap<u128, Shape>, shape: &Shape) -> String {
    let differences = known.values().map(|known| differences(known, shape));
    let nearest = differences.min_by_key(Vec::len).unwrap_or_default();
    format!("beside the nearest state: {}", nearest.join(" "))
}

fn differences(from: &Shape, to: &Shape) -> Vec<String> {
    let gone = from.keys().filter(|path| !to.contains_key(*path)).map(|path| format!("-{}", path.display()));
    let other = to.iter().filter(|(path, what)| from.get(*path) != Some(what));
    let other = other.map(|(path, what)| format!("{}={}", path.display(), &what[..what.len().min(14)]));
    gone.chain(other).collect()
}
