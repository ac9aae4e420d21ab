//! The worlds that a crash can leave.
//!
//! A crash state is chosen in two steps: which of the waiting effects are durable (a subset closed as `persist.rs` says), and
//! then, for every unsynced file that a durable name leads to, which blocks and which size reached the disk: each block old,
//! zero, or as it was after any write since the last barrier; the size old or as after any of those writes.
//!
//! Invariants:
//! 1. Where the combinations are at most the limit, every distinct one is returned; [`CrashStates::exhaustive`] says so.
//! 2. Otherwise the same seed gives the same sample, which begins with: nothing durable, everything durable, each single effect
//!    missing (with what waits for it), each alone (with what it waits for), and each file's content in each of its states.
//! 3. No two states of one iterator have the same hash.
//! 4. A state is built only when it is asked for: [`CrashStates::advance`] costs a hash (`sketch.rs`).

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::crash::sketch::{Reached, Sketch};
use crate::world::live::{Blob, Body, Slot, World};
use crate::world::persist::{Change, Effect, Write, close, replay};
use crate::world::view::{View, mix};
use crate::{Call, SimFs};

/// Contents of one unsynced file that are told apart at most; beyond it they are sampled.
const FILE_STATES: usize = 256;
/// The same for all unsynced files together, where they are many.
const ALL_FILE_STATES: usize = 4096;
/// Bytes that those contents may take in memory together.
const ALL_FILE_BYTES: usize = 64 << 20;

/// A world as it was right after a call, from which the states that a crash there can leave are derived.
#[derive(Clone)]
pub struct CrashPoint {
    pub(crate) call: u64,
    pub(crate) kind: Call,
    pub(crate) world: Arc<World>,
}

impl CrashPoint {
    /// The number of the last call that took effect; 0 before the first.
    pub fn call(&self) -> u64 {
        self.call
    }

    /// What that call was.
    pub fn kind(&self) -> Call {
        self.kind
    }

    /// What a crash right after the call can leave; see [`SimFs::crash_states`].
    pub fn states(&self, limit: usize) -> CrashStates {
        CrashStates::new(self.world.clone(), limit)
    }

    /// What the next process finds when the one that made the call is killed right after it: nothing is lost, nothing made
    /// durable either, and its locks are free.
    pub fn killed(&self) -> SimFs {
        SimFs::of(self.world.abandoned(), self.world.config.uid, None)
    }

    /// The live tree at that moment.
    pub fn view(&self) -> View<'_> {
        View { world: &self.world }
    }
}

impl std::fmt::Debug for CrashPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "after call {} ({:?}), {} effects pending", self.call, self.kind, self.world.pending.len())
    }
}

/// Which choice led to a crash state; renders as what was lost.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    base: Arc<World>,
    kept: Arc<[bool]>,
    /// Unsynced files, with the size they were left with, the whole size, and whether everything reached the disk.
    files: Vec<(Slot, usize, usize, bool)>,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let view = View { world: &self.base };
        let mut text = String::new();
        for (effect, kept) in self.base.pending.iter().zip(self.kept.iter()) {
            let word = if *kept { "durable" } else { "lost" };
            writeln!(text, "  {word}: {}", Named(effect, view))?;
        }
        for (slot, size, of, whole) in &self.files {
            let what = if *whole { "all content" } else { "partial content" };
            writeln!(text, "  {what} of unsynced {}: {size} of {of} bytes", view.path_of(*slot))?;
        }
        f.write_str(&text)
    }
}

struct Named<'a>(&'a Effect, View<'a>);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.change {
            Change::Names(parts) => {
                for (i, part) in parts.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    let dir = self.1.path_of(part.dir);
                    let name = String::from_utf8_lossy(&part.name);
                    write!(f, "{comma}{}/{name} {:?} -> {:?}", dir.trim_end_matches('/'), part.old, part.new)?;
                }
                Ok(())
            }
            Change::Meta { slot, mode, uid, mtime, .. } => {
                let (seconds, nanos) = (mtime.seconds, mtime.nanos);
                write!(f, "{} mode {mode:o} owner {uid} mtime {seconds}.{nanos:09}", self.1.path_of(*slot))
            }
        }
    }
}

/// The contents that a crash can leave in one unsynced file: first nothing of it, then all of it, then the others.
struct FileStates {
    slot: Slot,
    contents: Vec<Arc<Blob>>,
    complete: bool,
}

const NOTHING: usize = 0;
const EVERYTHING: usize = 1;

/// A choice of effects, and of contents for the unsynced files to which names then lead.
struct Choice {
    kept: Arc<[bool]>,
    /// What it hashes to but for those contents.
    sum: u64,
    reached: Vec<Reached>,
    /// For each of `reached`, which of its contents.
    states: Vec<usize>,
}

/// How a sampled state chooses the content of each unsynced file.
#[derive(Clone, Copy)]
enum Contents {
    All(usize),
    /// One file in a state of its own, the others in another.
    One {
        file: usize,
        state: usize,
        others: usize,
    },
    Random,
}

impl Contents {
    fn of(self, file: usize, random: &mut Random, count: usize) -> usize {
        match self {
            Contents::All(state) => state,
            Contents::One { file: one, state, .. } if file == one => state,
            Contents::One { others, .. } => others,
            Contents::Random => match random.below(4) {
                0 => NOTHING,
                1 | 2 => EVERYTHING,
                _ => random.below(count),
            },
        }
    }
}

enum Plan {
    All { subsets: std::vec::IntoIter<Arc<[bool]>> },
    Sample { first: VecDeque<(Arc<[bool]>, Contents)>, random: Random, tries: usize },
}

/// The distinct worlds that a crash can leave, each a [`SimFs`] of its own as a reboot finds it.
pub struct CrashStates {
    base: Arc<World>,
    sketch: Sketch,
    files: Vec<FileStates>,
    plan: Plan,
    exhaustive: bool,
    limit: usize,
    choice: Option<Choice>,
    seen: HashSet<u64, BuildHasherDefault<Identity>>,
}

impl CrashStates {
    pub(crate) fn new(base: Arc<World>, limit: usize) -> Self {
        let limit = limit.max(1);
        let mut random = Random(mix(base.config.seed, View { world: &base }.hash()));
        let files: Vec<FileStates> =
            base.dirty.iter().filter_map(|&slot| file_states(&base, slot, &mut random)).collect();
        let mut sketch = Sketch::new(base.clone(), files.iter().map(|file| file.slot));
        let complete = files.iter().all(|file| file.complete);
        let subsets = if complete { closed_subsets(&base.pending, limit) } else { None };
        let subsets = subsets.filter(|subsets| fits(&mut sketch, &files, subsets, limit));
        let exhaustive = subsets.is_some();
        let plan = match subsets {
            Some(subsets) => Plan::All { subsets: subsets.into_iter() },
            None => Plan::Sample { first: chosen(&base, &files), random, tries: 4 * limit },
        };
        Self { base, sketch, files, plan, exhaustive, limit, choice: None, seen: HashSet::default() }
    }

    /// Whether these are all the states there are, and not a sample.
    pub fn exhaustive(&self) -> bool {
        self.exhaustive
    }

    /// How many distinct states were returned so far.
    pub fn returned(&self) -> usize {
        self.seen.len()
    }

    /// Goes on to the next distinct state without building it, and returns its [`SimFs::hash`].
    pub fn advance(&mut self) -> Option<u64> {
        loop {
            if !self.next_contents() {
                self.choice = Some(self.next_choice()?);
            }
            let hash = self.hash()?;
            if self.seen.insert(hash) {
                return Some(hash);
            }
        }
    }

    /// Builds the state that [`CrashStates::advance`] went on to.
    ///
    /// # Panics
    /// When it was never called, or has returned `None`.
    pub fn build(&self) -> SimFs {
        let choice = self.choice.as_ref().expect("there is a state");
        let chosen = || choice.reached.iter().zip(&choice.states).map(|(reached, &state)| (reached.file, state));
        let content = |(file, state): (usize, usize)| (self.files[file].slot, self.files[file].contents[state].clone());
        let contents: Vec<(Slot, Arc<Blob>)> = chosen().map(content).collect();
        let (table, aux) = self.sketch.build(&contents);
        let left = |(file, state): (usize, usize)| {
            let FileStates { slot, contents, .. } = &self.files[file];
            (*slot, contents[state].bytes().len(), contents[EVERYTHING].bytes().len(), state == EVERYTHING)
        };
        let files = chosen().map(left).collect();
        let origin = Origin { base: self.base.clone(), kept: choice.kept.clone(), files };
        SimFs::rebooted(self.base.rebooted(table, aux), origin)
    }

    fn hash(&self) -> Option<u64> {
        let choice = self.choice.as_ref()?;
        let contents = choice.reached.iter().zip(&choice.states);
        let hashes = contents.map(|(reached, &state)| reached.hash(&self.files[reached.file].contents[state]));
        Some(hashes.fold(choice.sum, u64::wrapping_add))
    }

    /// Where all contents of a choice of effects are wanted: goes on to the next of them, if there is one.
    fn next_contents(&mut self) -> bool {
        let (Plan::All { .. }, Some(Choice { reached, states, .. })) = (&self.plan, &mut self.choice) else {
            return false;
        };
        (0..states.len()).any(|at| {
            states[at] = (states[at] + 1) % self.files[reached[at].file].contents.len();
            states[at] != 0
        })
    }

    /// The next choice of effects, whether or not it leads to a new state.
    fn next_choice(&mut self) -> Option<Choice> {
        let (kept, contents) = match &mut self.plan {
            Plan::All { subsets } => (subsets.next()?, Contents::All(NOTHING)),
            Plan::Sample { first, random, tries } => match first.pop_front() {
                Some(choice) => choice,
                None if *tries == 0 || self.seen.len() >= self.limit => return None,
                None => {
                    *tries -= 1;
                    (random_subset(&self.base.pending, random), Contents::Random)
                }
            },
        };
        let (sum, reached) = self.sketch.choose(&kept);
        let states = match &mut self.plan {
            Plan::All { .. } => vec![NOTHING; reached.len()],
            Plan::Sample { random, .. } => {
                let state =
                    |reached: &Reached| contents.of(reached.file, random, self.files[reached.file].contents.len());
                reached.iter().map(state).collect()
            }
        };
        Some(Choice { kept, sum, reached, states })
    }
}

impl Iterator for CrashStates {
    type Item = SimFs;

    fn next(&mut self) -> Option<SimFs> {
        self.advance().map(|_| self.build())
    }
}

/// Whether the combinations of subsets and contents are at most `limit`.
fn fits(sketch: &mut Sketch, files: &[FileStates], subsets: &[Arc<[bool]>], limit: usize) -> bool {
    let product = |files: &mut dyn Iterator<Item = &FileStates>| {
        files.fold(1usize, |product, file| product.saturating_mul(file.contents.len()))
    };
    if product(&mut files.iter()).saturating_mul(subsets.len()) <= limit {
        return true;
    }
    let mut total = 0usize;
    subsets.iter().all(|kept| {
        let (_, reached) = sketch.choose(kept);
        total = total.saturating_add(product(&mut reached.iter().map(|reached| &files[reached.file])));
        total <= limit
    })
}

/// Every closed subset, or `None` when there are more than `limit`.
fn closed_subsets(pending: &[Arc<Effect>], limit: usize) -> Option<Vec<Arc<[bool]>>> {
    let before: Vec<Vec<usize>> = pending
        .iter()
        .map(|effect| {
            let at = |id| pending.binary_search_by_key(&id, |effect| effect.id).ok();
            effect.waits_for().filter_map(at).collect()
        })
        .collect();
    let mut subsets = Vec::new();
    let mut kept = vec![false; pending.len()];
    // Counts in binary, the first effect being the highest digit, over the closed subsets only.
    loop {
        if subsets.len() == limit {
            return None;
        }
        subsets.push(kept.as_slice().into());
        let allowed = |kept: &[bool], at: usize| !kept[at] && before[at].iter().all(|&before| kept[before]);
        let Some(at) = (0..pending.len()).rev().find(|&at| allowed(&kept, at)) else { return Some(subsets) };
        kept[at] = true;
        kept[at + 1..].fill(false);
    }
}

fn random_subset(pending: &[Arc<Effect>], random: &mut Random) -> Arc<[bool]> {
    // Mostly few missing or few there: the ends are where protocols break.
    let of_sixteen = [1, 4, 8, 12, 15][random.below(5)];
    let mut kept: Vec<bool> = pending.iter().map(|_| random.below(16) < of_sixteen).collect();
    if random.below(2) == 0 {
        close(pending, &mut kept);
    } else {
        drop_waiting(pending, &mut kept);
    }
    kept.into()
}

/// Takes out what waits for something that is not there.
fn drop_waiting(pending: &[Arc<Effect>], kept: &mut [bool]) {
    for at in 0..pending.len() {
        let missing = |id| {
            let before = pending.binary_search_by_key(&id, |effect| effect.id);
            before.is_ok_and(|before| !kept[before])
        };
        if pending[at].waits_for().any(missing) {
            kept[at] = false;
        }
    }
}

/// The states that every sample begins with.
fn chosen(base: &World, files: &[FileStates]) -> VecDeque<(Arc<[bool]>, Contents)> {
    let pending = &base.pending;
    let none: Arc<[bool]> = vec![false; pending.len()].into();
    let all: Arc<[bool]> = vec![true; pending.len()].into();
    let mut chosen = VecDeque::from([
        (none.clone(), Contents::All(NOTHING)),
        (all.clone(), Contents::All(EVERYTHING)),
        (all.clone(), Contents::All(NOTHING)),
        (none, Contents::All(EVERYTHING)),
    ]);
    for at in 0..pending.len() {
        let mut missing = all.to_vec();
        missing[at] = false;
        drop_waiting(pending, &mut missing);
        chosen.push_back((missing.into(), Contents::All(EVERYTHING)));
        let mut alone = vec![false; pending.len()];
        alone[at] = true;
        close(pending, &mut alone);
        let alone: Arc<[bool]> = alone.into();
        chosen.push_back((alone.clone(), Contents::All(EVERYTHING)));
        chosen.push_back((alone, Contents::All(NOTHING)));
    }
    for (file, states) in files.iter().enumerate() {
        for state in 0..states.contents.len() {
            chosen.push_back((all.clone(), Contents::One { file, state, others: EVERYTHING }));
        }
        chosen.push_back((all.clone(), Contents::One { file, state: EVERYTHING, others: NOTHING }));
    }
    chosen
}

/// What can be in the file of `slot` after a crash; `None` when it has no unsynced write.
fn file_states(base: &World, slot: Slot, random: &mut Random) -> Option<FileStates> {
    let Body::File(live) = &base.find(slot)?.body else { return None };
    let Body::File(disk) = &base.disk[slot as usize].as_ref()?.body else { return None };
    if live.writes.is_empty() {
        return None;
    }
    let pieces = Pieces::new(disk.content.bytes(), &live.writes, base.config.block);
    let everything = replay(disk.content.bytes(), &live.writes, base.config.block);
    let files = base.dirty.len().max(1);
    let most = (ALL_FILE_BYTES / files / (everything.len() + 1)).min(ALL_FILE_STATES / files).clamp(6, FILE_STATES);
    let mut contents = vec![disk.content.clone(), Arc::new(Blob::new(everything))];
    let mut seen: HashSet<u64> = contents.iter().map(|blob| blob.hash()).collect();
    let mut add = |bytes: Vec<u8>| {
        let blob = Blob::new(bytes);
        if seen.insert(blob.hash()) {
            contents.push(Arc::new(blob));
        }
        contents.len()
    };
    let complete = pieces.count().is_some_and(|count| count <= 4 * most);
    if complete {
        pieces.each(|bytes| {
            add(bytes);
        });
    } else {
        for bytes in pieces.typical(random, most / 2) {
            add(bytes);
        }
        for _ in 0..2 * most {
            if add(pieces.random(random)) >= most {
                break;
            }
        }
    }
    Some(FileStates { slot, contents, complete })
}

/// The sizes and blocks that can be combined into a file's content.
struct Pieces<'a> {
    block: usize,
    disk: &'a [u8],
    sizes: Vec<usize>,
    /// For each block written: what it may hold, the oldest first; zeros are always among it.
    blocks: Vec<(usize, Vec<&'a [u8]>)>,
}

impl<'a> Pieces<'a> {
    fn new(disk: &'a [u8], writes: &'a [Write], block: usize) -> Self {
        let mut sizes = vec![disk.len()];
        let mut blocks: BTreeMap<usize, Vec<&[u8]>> = BTreeMap::new();
        for write in writes {
            if !sizes.contains(&write.size) {
                sizes.push(write.size);
            }
            for (i, bytes) in write.bytes.chunks(block).enumerate() {
                let at = write.at / block + i;
                let old = disk.chunks(block).nth(at).unwrap_or_default();
                let versions = blocks.entry(at).or_insert_with(|| vec![old]);
                if versions.last() != Some(&bytes) {
                    versions.push(bytes);
                }
            }
        }
        let zeroed = |(at, mut versions): (usize, Vec<&'a [u8]>)| {
            if !versions.iter().any(|bytes| is_zero(bytes)) {
                versions.push(&[]);
            }
            (at, versions)
        };
        Self { block, disk, sizes, blocks: blocks.into_iter().map(zeroed).collect() }
    }

    fn count(&self) -> Option<usize> {
        let blocks = self.blocks.iter().map(|(_, versions)| versions.len());
        blocks.chain([self.sizes.len()]).try_fold(1usize, usize::checked_mul)
    }

    /// The content with `size` and, for each block written, the version that `version` chooses.
    fn build(&self, size: usize, mut version: impl FnMut(usize) -> usize) -> Vec<u8> {
        let mut content = self.disk.to_vec();
        content.resize(size, 0);
        for (i, (at, versions)) in self.blocks.iter().enumerate() {
            let Some(rest) = content.get_mut(at * self.block..) else { continue };
            let place = rest.len().min(self.block);
            let bytes = versions[version(i)];
            let n = bytes.len().min(place);
            rest[..n].copy_from_slice(&bytes[..n]);
            rest[n..place].fill(0);
        }
        content
    }

    fn each(&self, mut visit: impl FnMut(Vec<u8>)) {
        for &size in &self.sizes {
            let mut versions = vec![0; self.blocks.len()];
            loop {
                visit(self.build(size, |i| versions[i]));
                let more = (0..versions.len()).any(|i| {
                    versions[i] = (versions[i] + 1) % self.blocks[i].1.len();
                    versions[i] != 0
                });
                if !more {
                    break;
                }
            }
        }
    }

    /// The version of a block after the last write.
    fn newest(&self, i: usize) -> usize {
        let versions = &self.blocks[i].1;
        // The zeros that were put last, unless the last write left nothing but zeros.
        versions.len() - if versions.last().is_some_and(|bytes| bytes.is_empty()) { 2 } else { 1 }
    }

    /// The failures most often seen, and single blocks lost or alone there.
    fn typical(&self, random: &mut Random, most: usize) -> Vec<Vec<u8>> {
        let whole = *self.sizes.iter().max().unwrap_or(&0);
        let zero = |i: usize| self.blocks[i].1.iter().position(|bytes| is_zero(bytes)).unwrap_or(0);
        let mut typical =
            vec![self.build(whole, |_| 0), self.build(whole, zero), self.build(self.disk.len(), |i| self.newest(i))];
        typical.extend(self.sizes.iter().take(most / 4).map(|&size| self.build(size, |i| self.newest(i))));
        let count = self.blocks.len();
        let mut ones: Vec<usize> = vec![0, count - 1];
        if count <= most / 3 {
            ones = (0..count).collect();
        } else {
            ones.extend((2..most / 3).map(|_| random.below(count)));
        }
        for one in ones {
            typical.push(self.build(whole, |i| if i == one { 0 } else { self.newest(i) }));
            typical.push(self.build(whole, |i| if i == one { zero(i) } else { self.newest(i) }));
            typical.push(self.build(whole, |i| if i == one { self.newest(i) } else { 0 }));
        }
        typical.truncate(most.max(6));
        typical
    }

    fn random(&self, random: &mut Random) -> Vec<u8> {
        let size = self.sizes[random.below(self.sizes.len())];
        self.build(size, |i| random.below(self.blocks[i].1.len()))
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// A small generator of pseudo-random numbers (splitmix64): the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }
}

/// For sets of what is a hash already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = mix(self.0, byte.into()));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
