//! The images that a crash can leave: everything that was flushed, and any part of what was not.

use std::collections::HashSet;
use std::sync::Arc;

use crate::disk::{BLOCK, Image};
use crate::random::Random;
use crate::record::{Epoch, Recording};
use crate::variant::Variant;
use crate::world::World;

/// What a disk writes whole.
const SECTOR: usize = 512;

/// One image to be recovered.
pub(crate) struct Job {
    pub(crate) image: Image,
    pub(crate) world: Arc<World>,
    pub(crate) allowed: Vec<usize>,
    pub(crate) name: String,
}

/// How many images of each sort there are, no two of them the same.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    /// The disk stopped after the n-th write.
    pub(crate) prefixes: usize,
    /// Some of the unflushed writes, or blocks of them, were lost.
    pub(crate) subsets: usize,
    /// A write reached the disk in part.
    pub(crate) torn: usize,
}

impl Counts {
    pub(crate) fn total(self) -> usize {
        self.prefixes + self.subsets + self.torn
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.prefixes += other.prefixes;
        self.subsets += other.subsets;
        self.torn += other.torn;
    }
}

/// Which of the unflushed writes reached the disk.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Prefix(usize),
    Without(usize),
    Alone(usize),
    /// All before the write, and of itself some sectors.
    Torn(usize, u64),
    /// All others, and of the write some sectors.
    TornAmongAll(usize, u64),
    /// Whole writes, blocks, or sectors, at random.
    Random(u64),
}

impl std::fmt::Display for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Choice::Prefix(writes) => write!(f, "the first {writes} writes"),
            Choice::Without(write) => write!(f, "all writes but {write}"),
            Choice::Alone(write) => write!(f, "write {write} alone"),
            Choice::Torn(write, seed) => write!(f, "write {write} torn (seed {seed}), none after it"),
            Choice::TornAmongAll(write, seed) => write!(f, "write {write} torn (seed {seed}) among all"),
            Choice::Random(seed) => write!(f, "a subset (seed {seed})"),
        }
    }
}

impl Choice {
    fn image(self, epoch: &Epoch, variant: &Variant) -> Image {
        let mut image = epoch.base.clone();
        let mut put = |writes: std::ops::Range<usize>| {
            epoch.writes[writes].iter().for_each(|(offset, bytes)| image.write(*offset, bytes));
        };
        let end = epoch.writes.len();
        match self {
            Choice::Prefix(writes) => put(0..writes),
            Choice::Without(write) => {
                put(0..write);
                put(write + 1..end);
            }
            Choice::Alone(write) => put(write..write + 1),
            Choice::Torn(write, seed) => {
                put(0..write);
                tear(&mut image, &epoch.writes[write], SECTOR, variant, 50, &mut Random::new(seed, "torn"));
            }
            Choice::TornAmongAll(write, seed) => {
                put(0..write);
                tear(&mut image, &epoch.writes[write], SECTOR, variant, 50, &mut Random::new(seed, "torn"));
                epoch.writes[write + 1..].iter().for_each(|(offset, bytes)| image.write(*offset, bytes));
            }
            Choice::Random(seed) => {
                let mut random = Random::new(seed, "subset");
                let chance = [10, 50, 90, 97][random.below(4)];
                let unit = [usize::MAX, BLOCK, SECTOR][random.below(3)];
                epoch.writes.iter().for_each(|write| tear(&mut image, write, unit, variant, chance, &mut random));
            }
        }
        image
    }

    fn count(self, counts: &mut Counts) {
        match self {
            Choice::Prefix(_) => counts.prefixes += 1,
            Choice::Without(_) | Choice::Alone(_) | Choice::Random(_) => counts.subsets += 1,
            Choice::Torn(..) | Choice::TornAmongAll(..) => counts.torn += 1,
        }
    }
}

/// Writes some of the units that a write consists of.
fn tear(
    image: &mut Image,
    write: &(u64, Arc<[u8]>),
    unit: usize,
    variant: &Variant,
    chance: usize,
    random: &mut Random,
) {
    let (offset, bytes) = write;
    let mut superblock = None;
    for (index, part) in bytes.chunks(unit.min(bytes.len().max(1))).enumerate() {
        let at = offset + (index * unit) as u64;
        let mut kept = random.percent(chance);
        if variant.superblock.contains(&at) {
            kept = *superblock.get_or_insert(kept);
        }
        if kept {
            image.write(at, part);
        }
    }
}

/// Makes up to `budget` distinct images of `recordings`: every prefix, in at most half of them; each unflushed write lost, alone,
/// and torn, in most of the rest; then random subsets.
pub(crate) fn generate(
    recordings: &[Recording],
    variant: &Variant,
    budget: usize,
    random: &mut Random,
    seen: &mut HashSet<u128>,
    mut emit: impl FnMut(Job),
) -> Counts {
    let epochs: Vec<Vec<Epoch>> = recordings.iter().map(Recording::epochs).collect();
    let mut counts = Counts::default();
    let mut consider = |counts: &mut Counts, share: usize, recording: usize, number: usize, choice: Choice| {
        if counts.total() >= share {
            return false;
        }
        let epoch = &epochs[recording][number];
        let image = choice.image(epoch, variant);
        if seen.insert(image.hash()) {
            choice.count(counts);
            let name = format!("{}, after flush {number} {choice}", recordings[recording].name);
            let world = recordings[recording].world.clone();
            emit(Job { image, world, allowed: epoch.allowed.clone(), name });
        }
        true
    };
    let (mut prefixes, mut single, mut wide) = (Vec::new(), Vec::new(), Vec::new());
    for (recording, epochs) in epochs.iter().enumerate() {
        for (number, epoch) in epochs.iter().enumerate() {
            let writes = epoch.writes.len();
            prefixes.extend((0..=writes).map(|prefix| (recording, number, Choice::Prefix(prefix))));
            for write in 0..writes {
                single.extend([Choice::Without(write), Choice::Alone(write)].map(|choice| (recording, number, choice)));
                if epoch.writes[write].1.len() > SECTOR {
                    let torn = [Choice::Torn(write, random.next()), Choice::TornAmongAll(write, random.next())];
                    single.extend(torn.map(|choice| (recording, number, choice)));
                }
            }
            if epoch.writes.iter().map(|(_, bytes)| bytes.len() / SECTOR).sum::<usize>() > 2 {
                wide.push((recording, number));
            }
        }
    }
    for (mut choices, share) in [(prefixes, budget / 2), (single, budget * 4 / 5)] {
        random.shuffle(&mut choices);
        for (recording, number, choice) in choices {
            consider(&mut counts, share, recording, number, choice);
        }
    }
    let mut tries = 4 * budget;
    while !wide.is_empty() && tries > 0 {
        let (recording, number) = wide[random.below(wide.len())];
        if !consider(&mut counts, budget, recording, number, Choice::Random(random.next())) {
            break;
        }
        tries -= 1;
    }
    counts
}
