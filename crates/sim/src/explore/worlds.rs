//! The worlds one by one: all small ones, then those that are drawn, and those that tell the most.

use txfs::Basis;

use super::random::Random;
use super::spec::{FILES, Node, Spec, changes_kind};
use super::world::{CROWDED, End, World};
use crate::{Config, Reuse, Weakness, Without};

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
        let mut telling = vec![
            // The store's own names.
            world(Weakness::Posix, None, &[("a", X)]),
            world(Weakness::Btrfs, None, &[("a", X)]),
            // A link that was lost, and a directory that was closed too early.
            lacking(closing(), true, false),
            lacking(closing(), true, true),
            closing(),
            // Directories that come, go and change places, and their modes.
            world(Weakness::Btrfs, Some(&[("a", X), ("d", CLOSED), ("d/x", X)]), &[("a", OPEN), ("d", Node::Link(0))]),
            world(Weakness::Btrfs, Some(&[("a", X)]), &[("a", Y), ("d", CLOSED), ("d/x", X)]),
            // A removal that is a link and an unlinking.
            lacking(world(Weakness::Btrfs, Some(&[("a", X), ("b", X)]), &[("b", Y)]), false, true),
            // A journal that comes back.
            came_back(),
            // What has to be durable is synced one by one: a mode, and a link that is to be kept.
            crowded(world(Weakness::Posix, Some(&[("d", OPEN), ("d/x", X)]), &[("d", CLOSED), ("d/x", X)])),
            crowded(lacking(world(Weakness::Btrfs, Some(&[("a", X)]), &[("a", Y)]), true, false)),
            // A manifest that is appended to.
            few_of_many(Weakness::Posix),
            crowded(few_of_many(Weakness::Btrfs)),
            in_turn(crowded(few_of_many(Weakness::Btrfs))),
            // A change into a directory that somebody removed with what the change does not name.
            removed(Weakness::Ordered),
            removed(Weakness::Btrfs),
            // Files with other names in a directory that moves along, and that their owner may not write to.
            linked(world(Weakness::Ordered, Some(&[("a", X)]), &[("d", OPEN), ("d/d", CLOSED), ("d/d/x", X)])),
            linked(world(Weakness::Posix, Some(&[("a", X)]), &[("d", OPEN), ("d/d", CLOSED), ("d/d/x", X)])),
            // A directory below the one that moves, whose mode was lost.
            world(Weakness::Btrfs, None, &[("d", CLOSED), ("d/x", X)]),
        ];
        telling.extend(of_a_group());
        telling.push(overtaken());
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

const X: Node = FILES[0];
const Y: Node = FILES[1];
const OPEN: Node = Node::Dir(0o755);
const CLOSED: Node = Node::Dir(0o555);

fn world(weakness: Weakness, old: Option<&[(&'static str, Node)]>, new: &[(&'static str, Node)]) -> World {
    let mut config = Config::new(weakness);
    (config.uid, config.max_calls) = (1000, 100_000);
    let old = old.map(|old| old.iter().copied().collect());
    World::plain(config, old, new.iter().copied().collect())
}

fn lacking(mut world: World, exchange: bool, no_replace: bool) -> World {
    world.config.without = Without { exchange, no_replace, ..Without::default() };
    world
}

fn crowded(mut world: World) -> World {
    world.config.dirty = CROWDED;
    world
}

fn in_turn(mut world: World) -> World {
    world.config.in_turn = true;
    world
}

fn linked(mut world: World) -> World {
    world.linked = true;
    world
}

fn closing() -> World {
    let old = [("a", X), ("d", OPEN), ("d/x", X)];
    world(Weakness::Posix, Some(&old), &[("a", Y), ("d", CLOSED), ("d/x", Y)])
}

fn came_back() -> World {
    World { settled: false, ..world(Weakness::Btrfs, Some(&[("a", X)]), &[("a", Y)]) }
}

fn few_of_many(weakness: Weakness) -> World {
    let old = ["a", "b", "c", "d", "e", "f", "g"].map(|name| (name, X));
    let mut new = old;
    new[2].1 = Y;
    world(weakness, Some(&old), &new)
}

fn removed(weakness: Weakness) -> World {
    let old = [("a", X), ("d", OPEN), ("d/x", X), ("d/y", X)];
    let new = [("a", Y), ("d", OPEN), ("d/x", Y), ("d/y", X)];
    World { from: Basis::Current, lost: Some("d"), ..world(weakness, Some(&old), &new) }
}

/// What one member of a group left another goes on with.
fn of_a_group() -> [World; 2] {
    [
        world(Weakness::Btrfs, Some(&[("a", X), ("d", OPEN), ("d/x", X)]), &[("a", Y), ("d", CLOSED), ("d/y", X)])
            .shared(),
        crowded(world(Weakness::Posix, Some(&[("a", X), ("d", OPEN), ("d/x", X)]), &[("d", X), ("e", OPEN)]).shared()),
    ]
}

/// Two commits without a begin between them, and what the one before displaced.
fn overtaken() -> World {
    let mut overtaken =
        world(Weakness::Posix, Some(&[("a", X), ("d", CLOSED), ("d/x", X)]), &[("a", X), ("d", CLOSED)]);
    overtaken.replace_one_path(true);
    overtaken
}
