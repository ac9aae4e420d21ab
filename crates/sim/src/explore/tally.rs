//! What was explored, and what went wrong.

use std::fmt;
use std::time::Duration;

/// Counts of what was explored.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub worlds: u64,
    /// Those of them whose user may be kept from reading, searching or writing.
    pub limited: u64,
    /// Crash states looked at; the same one can be met after several calls.
    pub states: u64,
    /// Those that no process could tell apart counted once for each world.
    pub distinct: u64,
    /// Of the distinct ones, those left by a crash inside a recovery, and inside the recovery of that.
    pub nested: [u64; 2],
    /// Points at which all states there are were looked at, and a sample of them.
    pub exhaustive: u64,
    pub sampled: u64,
    pub recoveries: u64,
    /// Of them, those that could not go on for want of access.
    pub denied: u64,
    /// Runs into which an error was put.
    pub injections: u64,
    /// How often another process took access from something.
    pub closings: u64,
    /// Calls after which the process was killed without loss of power.
    pub kills: u64,
    /// Commits after a recovery.
    pub commits: u64,
    /// Calls after which the output was looked at.
    pub instants: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.worlds += other.worlds;
        self.limited += other.limited;
        self.states += other.states;
        self.distinct += other.distinct;
        self.nested[0] += other.nested[0];
        self.nested[1] += other.nested[1];
        self.exhaustive += other.exhaustive;
        self.sampled += other.sampled;
        self.recoveries += other.recoveries;
        self.denied += other.denied;
        self.injections += other.injections;
        self.closings += other.closings;
        self.kills += other.kills;
        self.commits += other.commits;
        self.instants += other.instants;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [two, three] = self.nested.map(grouped);
        let count = grouped;
        writeln!(
            f,
            "{} crash states ({} distinct) in {} worlds, {} of them of users who may be denied",
            count(self.states),
            count(self.distinct),
            count(self.worlds),
            count(self.limited)
        )?;
        writeln!(f, "  crash inside recovery: {two} distinct states at depth 2, {three} at depth 3")?;
        writeln!(f, "  all states at {} points, a sample at {}", count(self.exhaustive), count(self.sampled))?;
        writeln!(f, "  {} errors injected, {} kills without power loss", count(self.injections), count(self.kills))?;
        writeln!(
            f,
            "  access taken {} times; {} recoveries could not go on without it, until it was given back",
            count(self.closings),
            count(self.denied)
        )?;
        write!(f, "  {} recoveries, ", count(self.recoveries))?;
        write!(f, "{} commits after one", count(self.commits))?;
        write!(f, ", {} calls after which the output was looked at", count(self.instants))
    }
}

/// A number with its thousands set apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A guarantee that did not hold, with all that is needed to see it again.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which check found it.
    pub check: &'static str,
    /// What it found.
    pub what: String,
    /// Where: the calls and faults that lead there, outermost first.
    pub way: Vec<String>,
    /// The world, and its number.
    pub world: String,
    pub number: u64,
    pub seed: u64,
}

impl Violation {
    pub fn new(check: &'static str, what: impl Into<String>) -> Box<Self> {
        let (way, world) = (Vec::new(), String::new());
        Box::new(Self { check, what: what.into(), way, world, number: 0, seed: 0 })
    }

    /// Says what led there.
    pub fn after(mut self: Box<Self>, step: impl Into<String>) -> Box<Self> {
        self.way.insert(0, step.into());
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "VIOLATION of \"{}\": {}", self.check, self.what)?;
        writeln!(f, "{}", self.world)?;
        self.way.iter().try_for_each(|step| writeln!(f, "{}", step.trim_end()))?;
        write!(f, "again: explore --seed {} --world {}", self.seed, self.number)
    }
}

pub type Checked<T = ()> = Result<T, Box<Violation>>;

/// What was explored, how long it took, and the first violation.
#[derive(Debug)]
pub struct Report {
    pub tally: Tally,
    pub took: Duration,
    pub violation: Option<Box<Violation>>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let violations = u8::from(self.violation.is_some());
        write!(f, "{}\n  {violations} violations, {:.1} s", self.tally, self.took.as_secs_f32())
    }
}
