//! The life of one store against a simple model: after each step the output is what the model says.
//!
//! A step is a program that ends well, is killed, loses the power or meets an error, and recovery may be interrupted in its
//! turn; or two programs at once; or a stranger at the output. Steps are read from bytes, so that a property test and a fuzzer can
//! make them alike.

use std::collections::BTreeSet;

use crate::{Call, Config, Fault, Reuse, SimFs, Weakness, Without, possible_errors};
use txfs::{Basis, BeginOptions, Committed, Error, ErrorKind, Kind, Outcome, Store};

use super::oracle::Allowed;
use super::spec::{FILES, Spec, changes_kind, is_published};
use super::world::{End, Marks, OUTPUT, OUTSIDE, World, fill};
use super::worlds::drawn;

/// Bytes that one step is read from.
pub const STEP: usize = 8;
/// Steps that are taken at most.
const STEPS: usize = 12;
/// Crash states among which one is chosen.
const STATES: usize = 16;
/// Where strangers put files: some of these names are published, too.
const STRANGE: [&str; 4] = ["CNAME", "a", "d", "index.html"];

/// A step in the life of a store.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A transaction publishes, or changes to, the tree of this number, or is aborted.
    Run { tree: u64, from: Basis, end: End, how: How, again: Option<(u8, u8)> },
    /// Two transactions begin, and both are committed.
    Race([u64; 2]),
    /// A stranger writes to one of the published files.
    Drift(u8),
    /// A stranger puts a file where nothing is, or takes it away again.
    Foreign(u8),
}

/// How a program ends. Places are fractions of 256 of its calls.
#[derive(Debug, Clone, Copy)]
enum How {
    Well,
    /// It ends well, and then the power fails: this is the state that is left.
    WellAndCut(u8),
    Killed(u8),
    Cut(u8, u8),
    Failed(u8, u8),
}

impl Step {
    fn of(bytes: [u8; STEP]) -> Self {
        let [kind, low, high, at, which, again, state, more] = bytes;
        let tree = u64::from(u16::from_le_bytes([low, high]));
        let how = match kind >> 4 {
            0..=3 => How::Well,
            4 => How::WellAndCut(which),
            5..=6 => How::Killed(at),
            7..=11 => How::Cut(at, which),
            _ => How::Failed(at, which),
        };
        match kind & 15 {
            0..=10 => Step::Run {
                tree,
                from: if more & 3 == 0 { Basis::Current } else { Basis::Empty },
                end: if more & 28 == 4 { End::Abort } else { End::Commit },
                how,
                again: (again > 0).then_some((again, state)),
            },
            11 => Step::Race([tree, u64::from(which)]),
            12..=13 => Step::Drift(which),
            _ => Step::Foreign(which),
        }
    }
}

/// A store and what has to be published in it.
struct Model {
    fs: SimFs,
    config: Config,
    published: Option<Spec>,
    /// What was published is no longer as it was: a commit may be refused for it.
    drifted: bool,
    foreign: BTreeSet<&'static str>,
    outside: u64,
}

/// Lives through the steps that the bytes stand for; the first byte is the kind of world.
pub fn live(bytes: &[u8]) {
    let Some((&kind, steps)) = bytes.split_first() else { return };
    let mut model = Model::new(config(kind));
    for step in steps.as_chunks::<STEP>().0.iter().take(STEPS) {
        let step = Step::of(*step);
        if !model.take(step) {
            return;
        }
        assert!(model.drifted || model.is(model.published.as_ref()), "{step:?}: {:?}", model.published);
        assert_eq!(model.fs.tree_hash(OUTSIDE), model.outside, "{step:?}");
    }
}

fn config(kind: u8) -> Config {
    let weakness = [Weakness::Btrfs, Weakness::Posix, Weakness::Ordered][usize::from(kind) % 3];
    let (exchange, no_replace) =
        [(false, false), (true, false), (false, true), (true, true)][usize::from(kind >> 2 & 3)];
    let mut config = Config::new(weakness);
    config.without = Without { exchange, no_replace, ..Without::default() };
    config.reuse = if kind & 16 == 0 { config.reuse } else { Reuse::Never };
    config.lose_metadata = kind & 32 == 0;
    config.mtime_granularity = if kind & 64 == 0 { 1 } else { 10_000_000_000 };
    (config.uid, config.max_calls) = (1000, 100_000);
    config
}

impl Model {
    fn new(config: Config) -> Self {
        let fs = SimFs::new(config.clone());
        fs.put_file(format!("{OUTSIDE}/file"), b"outside", 0o644);
        Store::open_with(&World::options(&fs), OUTPUT).expect("a store is made");
        let outside = fs.tree_hash(OUTSIDE);
        Self { fs, config, published: None, drifted: false, foreign: BTreeSet::new(), outside }
    }

    /// Whether it can go on.
    fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Run { tree, from, end, how, again } => {
                let mut world = World::plain(self.config.clone(), self.published.clone(), drawn(tree));
                world.end = end;
                // What strangers did to the current generation is nothing that a change can be measured by.
                world.from = if self.drifted || self.published.is_none() { Basis::Empty } else { from };
                return self.is_refused(&world.new) || self.run(&world, how, again);
            }
            Step::Race(trees) => self.race(trees.map(drawn)),
            Step::Drift(which) => self.drift(which.into()),
            Step::Foreign(which) => self.stranger(STRANGE[usize::from(which) % STRANGE.len()]),
        }
        true
    }

    /// Whether the output is this generation, and what strangers put beside it.
    fn is(&self, spec: Option<&Spec>) -> bool {
        let mut expected = spec.cloned().unwrap_or_default();
        expected.extend(self.foreign.iter().map(|name| (*name, FILES[2])));
        let tree = self.fs.tree(OUTPUT);
        tree.is_empty() && expected.is_empty() || is_published(&tree, &expected, false)
    }

    /// Whether this file system cannot change what is published to `new`: refused before the commit point.
    fn is_refused(&self, new: &Spec) -> bool {
        self.config.without.exchange && self.published.as_ref().is_some_and(|old| changes_kind(old, new))
    }

    fn may_conflict(&self, new: &Spec) -> bool {
        self.drifted || self.foreign.iter().any(|name| new.contains_key(name))
    }

    /// One program, how it ends, and what is then found.
    fn run(&mut self, world: &World, how: How, again: Option<(u8, u8)>) -> bool {
        let (mut allowed, before) = (self.allowed(world), self.fs.tree_hash(OUTPUT));
        match how {
            How::Well | How::WellAndCut(_) => {
                let result = world.run(&self.fs, &mut Marks::default());
                self.check(world, &result, before);
                allowed = reported(world, &result);
                if let How::WellAndCut(state) = how {
                    self.fs = cut(&self.fs, state);
                }
            }
            How::Killed(at) => self.fs = stopped(&self.fs, at, |fs| drop(world.run(fs, &mut Marks::default()))).fork(),
            How::Cut(at, state) => {
                self.fs = cut(&stopped(&self.fs, at, |fs| drop(world.run(fs, &mut Marks::default()))), state);
            }
            How::Failed(at, which) => match self.failed(world, at, which) {
                Some((fs, result)) => (self.fs, allowed) = (fs, reported(world, &result)),
                None => return true,
            },
        }
        if self.fs.entry(format!("{OUTPUT}/.txfs")).is_some() {
            // Nothing could be made beside the output: another layout than the one that is looked at here.
            return false;
        }
        if let Some((at, state)) = again {
            self.fs = cut(&stopped(&self.fs, at, |fs| drop(open(fs))), state);
        }
        self.reopen(world, allowed);
        true
    }

    fn allowed(&self, world: &World) -> Allowed {
        if world.end == End::Abort || self.may_conflict(&world.new) && !self.drifted {
            Allowed::Old
        } else {
            Allowed::Either
        }
    }

    /// A commit that nothing disturbs succeeds, unless a stranger is in its way.
    fn check(&self, world: &World, result: &txfs::Result<Option<Committed>>, before: u64) {
        if let Err(error) = result {
            assert!(self.may_conflict(&world.new) && error.kind() == ErrorKind::Conflict, "{error}");
            assert_eq!(self.fs.tree_hash(OUTPUT), before, "{error}");
        }
    }

    /// The program meets an error at one of its calls; none where that call cannot fail, or is the tool's.
    fn failed(&self, world: &World, at: u8, which: u8) -> Option<(SimFs, txfs::Result<Option<Committed>>)> {
        let (trial, mut marks) = (self.fs.fork(), Marks::default());
        let _ = world.run(&trial, &mut marks);
        let log = trial.log();
        let index = log.len() * usize::from(at) / 256;
        let number = index as u64 + 1;
        let faults = faults(*log.get(index)?);
        if number > marks.begun && number <= marks.staged || faults.is_empty() {
            return None;
        }
        let fs = self.fs.fork();
        fs.fail_at(number, faults[usize::from(which) % faults.len()]);
        let result = world.run(&fs, &mut Marks::default());
        fs.mend();
        Some((fs, result))
    }

    /// Opens the store again, and learns which generation it is.
    fn reopen(&mut self, world: &World, allowed: Allowed) {
        open(&self.fs).expect("recovery succeeds");
        let published = world.published();
        let (old, new) = (self.is(self.published.as_ref()), self.is(Some(&published)));
        let right = match allowed {
            Allowed::Old => old || self.drifted,
            Allowed::New => new,
            Allowed::Either => old || new || self.drifted,
        };
        assert!(right, "{allowed:?} {world:?}");
        if new && !old {
            (self.published, self.drifted) = (Some(published), false);
        }
    }

    /// The first to commit wins.
    fn race(&mut self, trees: [Spec; 2]) {
        if trees.iter().any(|tree| self.is_refused(tree)) {
            return;
        }
        let fs = self.fs.clone();
        let store = open(&fs).expect("recovery succeeds");
        let [one, two] = [(); 2].map(|()| store.begin(BeginOptions::default()).expect("a transaction begins"));
        let mut moved = false;
        for (spec, mut transaction) in trees.into_iter().zip([one, two]) {
            fill(&fs, &mut transaction, &spec).expect("a stage is filled");
            let before = fs.tree_hash(OUTPUT);
            let result = transaction.commit(&World::commit_options()).map(Some);
            if moved {
                assert!(matches!(result, Err(Error::BaseMoved { .. })), "{result:?}");
                assert_eq!(fs.tree_hash(OUTPUT), before);
                continue;
            }
            let world = World::plain(self.config.clone(), self.published.clone(), spec);
            self.check(&world, &result, before);
            if let Ok(Some(committed)) = result {
                moved = committed.changed;
                self.reopen(&world, Allowed::New);
            }
        }
    }

    fn drift(&mut self, which: usize) {
        let tree = self.fs.tree(OUTPUT);
        let is_ours = |path: &str| !self.foreign.contains(path);
        let files: Vec<_> =
            tree.iter().filter(|(path, entry)| entry.kind == Some(Kind::File) && is_ours(&path.to_string())).collect();
        if let Some((path, entry)) = files.get(which % files.len().max(1)) {
            self.fs.put_file(format!("{OUTPUT}/{path}"), b"by hand", entry.mode);
            self.drifted = true;
        }
    }

    fn stranger(&mut self, name: &'static str) {
        let path = format!("{OUTPUT}/{name}");
        if self.foreign.remove(name) {
            self.fs.remove(path);
        } else if self.fs.entry(&path).is_none() {
            self.fs.put_file(path, b"nought", 0o600);
            self.foreign.insert(name);
        }
    }
}

fn open(fs: &SimFs) -> txfs::Result<Store<SimFs>> {
    Store::open_with(&World::options(fs), OUTPUT)
}

/// A fork in which the machine stood still this far into what was done.
fn stopped(fs: &SimFs, at: u8, act: impl Fn(&SimFs)) -> SimFs {
    let trial = fs.fork();
    act(&trial);
    let stopped = fs.fork();
    stopped.crash_at(1 + trial.calls() * u64::from(at) / 256);
    act(&stopped);
    stopped
}

/// One of the states that a loss of power leaves.
fn cut(fs: &SimFs, state: u8) -> SimFs {
    let mut states = fs.crash_states(STATES);
    for _ in 0..usize::from(state) % STATES {
        if states.advance().is_none() {
            break;
        }
    }
    states.next().unwrap_or_else(|| fs.crash_states(1).next().expect("there is always a state"))
}

/// What may be published after the program has said this.
fn reported(world: &World, result: &txfs::Result<Option<Committed>>) -> Allowed {
    match result {
        _ if world.end == End::Abort => Allowed::Old,
        Ok(_) => Allowed::New,
        Err(error) if error.outcome() == Outcome::Unchanged => Allowed::Old,
        Err(_) => Allowed::Either,
    }
}

fn faults(call: Call) -> Vec<Fault> {
    let ways: &[fn(i32) -> Fault] =
        if call.is_barrier() { &[Fault::keeping, Fault::dropping_pages] } else { &[Fault::new] };
    possible_errors(call).iter().flat_map(|&errno| ways.iter().map(move |way| way(errno))).collect()
}
