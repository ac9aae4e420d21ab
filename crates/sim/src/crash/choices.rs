//! The worlds that a crash can leave.
//!
//! A crash state is chosen in two steps: which of the waiting effects are durable (a subset closed as `world/persist.rs` says), and
//! then, for every unsynced file that a durable name leads to, which blocks and which size reached the disk (`pieces.rs`).
//!
//! Invariants:
//! 1. Where the combinations are at most the limit, every distinct one is returned; [`Choices::exhaustive`] says so.
//! 2. Otherwise the same seed gives the same sample, which begins with: nothing durable, everything durable, each single effect
//!    missing (with what waits for it), each alone (with what it waits for), and each file's content in each of its states.
//! 3. No two states of one iterator have the same hash.
//! 4. A state is built only when it is asked for: [`Choices::advance`] costs a hash (`sketch.rs`).

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use crate::crash::pieces::{EVERYTHING, FileStates, NOTHING, Random, file_states};
use crate::crash::sketch::{Reached, Sketch};
use crate::crash::subsets::{closed_subsets, drop_waiting, random_subset};
use crate::hash::{Identity, mix};
use crate::world::effect::{Change, Effect, close};
use crate::world::inode::{Blob, Slot};
use crate::world::live::World;
use crate::world::view::View;

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

/// The distinct worlds that a crash can leave, as a reboot finds them.
pub(crate) struct Choices {
    base: Arc<World>,
    sketch: Sketch,
    files: Vec<FileStates>,
    plan: Plan,
    exhaustive: bool,
    limit: usize,
    choice: Option<Choice>,
    seen: HashSet<u64, BuildHasherDefault<Identity>>,
}

impl Choices {
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
    pub(crate) fn exhaustive(&self) -> bool {
        self.exhaustive
    }

    /// How many distinct states were returned so far.
    pub(crate) fn returned(&self) -> usize {
        self.seen.len()
    }

    /// Goes on to the next distinct state without building it, and returns its hash.
    pub(crate) fn advance(&mut self) -> Option<u64> {
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

    /// Builds the state that [`Choices::advance`] went on to.
    ///
    /// # Panics
    /// When it was never called, or has returned `None`.
    pub(crate) fn build(&self) -> (World, Origin) {
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
        (self.base.rebooted(table, aux), origin)
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
