//! Explores one world: runs its program once, and from that every crash, kill and error.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::{Call, CrashPoint, Fault, SimFs, Tree, possible_errors};
use nix::errno::Errno;
use txfs::{Error, Outcome, RecoverOptions, RecoveredCommit, Store};

use super::access::Closed;
use super::oracle::{self, Allowed, Generation, Oracle, Watch, failed};
use super::tally::{Checked, Tally, Violation};
use super::world::{self, End, Marks, OUTPUT, Random, World};

/// How much of a world is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Crash states at one point, at each depth: beyond it they are sampled.
    pub limits: [usize; 3],
    /// The same after a kill or an error.
    pub after_fault: usize,
    /// One in so many of the states at depth 1 and 2 is looked into for crashes of its recovery.
    pub nested_one_in: [u64; 2],
    /// One in so many recoveries meets an error.
    pub recoveries_disturbed_one_in: u64,
    /// At one in so many calls, and crash states, another process takes access from something.
    pub closed_one_in: [u64; 2],
    /// Distinct states of one world after which it is only sampled: limits are an eighth, recoveries are no longer crashed, and
    /// hardly any meets an error, or what access was taken from.
    pub budget: u64,
    /// One in so many errors is put into the calls; 1 is every error of every call.
    pub errors_one_in: u64,
}

impl Effort {
    const NEVER: [u64; 2] = [u64::MAX; 2];
    const NOW_AND_THEN: [u64; 2] = [4, 32];
    pub const FULL: Self = Self {
        limits: [1024, 128, 32],
        after_fault: 32,
        nested_one_in: [4, 16],
        recoveries_disturbed_one_in: 32,
        closed_one_in: Self::NOW_AND_THEN,
        budget: 20_000,
        errors_one_in: 8,
    };
    /// Few worlds, with an error in every recovery.
    pub const TELLING: Self = Self {
        limits: [96, 24, 8],
        after_fault: 8,
        nested_one_in: [8, 16],
        recoveries_disturbed_one_in: 1,
        closed_one_in: Self::NEVER,
        budget: 1_000,
        errors_one_in: 24,
    };
    /// The same in a test that has not been optimized.
    pub const TELLING_SLICE: Self = Self {
        errors_one_in: 128,
        budget: 300,
        nested_one_in: [16, 16],
        recoveries_disturbed_one_in: 8,
        closed_one_in: Self::NEVER,
        ..Self::TELLING
    };
    /// Many worlds, next to nothing of each.
    pub const SKIM: Self = Self {
        limits: [64, 16, 8],
        after_fault: 8,
        nested_one_in: [8, 16],
        recoveries_disturbed_one_in: 4,
        closed_one_in: Self::NEVER,
        budget: 300,
        errors_one_in: 32,
    };
    pub const SLICE: Self = Self {
        limits: [128, 32, 16],
        after_fault: 8,
        nested_one_in: [16, 16],
        recoveries_disturbed_one_in: 8,
        closed_one_in: Self::NOW_AND_THEN,
        budget: 2_000,
        errors_one_in: 64,
    };

    /// The same, and access is taken now and then. Where mutants are looked for it is not: it uses up what is looked at.
    #[must_use]
    pub const fn taking_access(self) -> Self {
        Self { closed_one_in: Self::NOW_AND_THEN, ..self }
    }
}

/// Explores `world` with so much effort.
pub fn explore(world: &World, effort: Effort, tally: &mut Tally) -> Checked {
    let start = world.build();
    let reference = start.fork();
    let mut marks = Marks::default();
    world.run(&reference, &mut marks).map_err(|error| failed("the program", &error))?;
    if !marks.swept {
        return Err(Violation::new("recovery and the next commit succeed", "sweeping failed"));
    }
    let oracle = Oracle::new(world, &start, &reference);
    check_reference(world, &start, &reference, tally)?;
    let mut explorer = Explorer {
        world,
        effort,
        oracle,
        start,
        marks,
        random: Random(world.number ^ 0x5851_f42d_4c95_7f2d),
        recovered: HashMap::new(),
        settled: HashSet::new(),
        disturbing: false,
        closed: None,
        tally,
    };
    explorer.run()?;
    explorer.tally.worlds += 1;
    explorer.tally.limited += u64::from(explorer.is_limited());
    Ok(())
}

/// The program without crash or error does what it says, and every instant of it is as promised.
fn check_reference(world: &World, start: &SimFs, after: &SimFs, tally: &mut Tally) -> Checked {
    let (old, new) = (start.tree(OUTPUT), after.tree(OUTPUT));
    match world.end {
        End::Abort if old != new => return Err(Violation::new("an abort changes nothing", oracle::shown(&new))),
        End::Abort => return Ok(()),
        End::Commit if !is_new(world, &old, &new) => {
            return Err(Violation::new("a commit publishes its stage", oracle::shown(&new)));
        }
        End::Commit => {}
    }
    oracle::untouched(start, after, &old, &new)?;
    let watched = start.fork();
    let watch = Watch::over(&watched, old, new);
    world.run(&watched, &mut Marks::default()).map_err(|error| failed("the program", &error))?;
    watch.finish(tally)
}

fn is_new(world: &World, old: &Tree, new: &Tree) -> bool {
    // A commit that finds nothing to publish where nothing is makes no output.
    if old.is_empty() && new.is_empty() && world.new.is_empty() {
        return true;
    }
    world::is_published(new, &world.published(), world.foreign)
}

pub(super) struct Explorer<'a> {
    pub(super) world: &'a World,
    pub(super) effort: Effort,
    pub(super) oracle: Oracle,
    pub(super) start: SimFs,
    pub(super) marks: Marks,
    pub(super) random: Random,
    /// What recovery made of a crash state, by the state's hash.
    recovered: HashMap<u64, Generation>,
    /// Stores after recovery whose aftermath was looked at, by the world's hash.
    settled: HashSet<u64>,
    /// An error is being put into a recovery: not into those that follow, too.
    disturbing: bool,
    /// What another process has taken access from.
    pub(super) closed: Option<Closed>,
    pub(super) tally: &'a mut Tally,
}

impl Explorer<'_> {
    fn run(&mut self) -> Checked {
        let fs = self.start.fork();
        fs.record_crash_points();
        let mut marks = Marks::default();
        let result = self.world.run(&fs, &mut marks);
        result.map_err(|error| failed("the program", &error))?;
        let points = fs.crash_points();
        for (index, point) in points.iter().enumerate() {
            let allowed = self.allowed(point.call(), until(&points, index));
            let limit = self.effort.limits[0];
            self.crashes(point, allowed, limit, 1)
                .and_then(|()| self.kill(point, allowed))
                .and_then(|()| self.closings(point, allowed))
                .map_err(|v| self.at(v, point))?;
        }
        self.errors(&fs.log())
    }

    /// Names the point and what led there.
    fn at(&self, violation: Box<Violation>, point: &CrashPoint) -> Box<Violation> {
        let fs = self.start.fork();
        fs.record_trace();
        let _ = self.world.run(&fs, &mut Marks::default());
        violation.after(format!("{point:?}\n{}", last_of(&fs, point.call())))
    }

    /// Nothing that has been acknowledged is lost; nothing happens before the commit begins. The world is the same from one call
    /// until the other.
    fn allowed(&self, from: u64, until: u64) -> Allowed {
        match self.world.end {
            End::Abort => Allowed::Old,
            End::Commit if until >= self.marks.returned => Allowed::New,
            End::Commit if from <= self.marks.staged => Allowed::Old,
            End::Commit => Allowed::Either,
        }
    }

    /// One in so many; but when enough was looked at hardly ever.
    pub(super) fn now_and_then(&mut self, one_in: u64) -> bool {
        const ONCE_SPENT: u64 = 8;
        let one_in = if self.spent() { one_in.max(ONCE_SPENT) } else { one_in };
        self.random.one_in(one_in)
    }

    fn spent(&self) -> bool {
        self.recovered.len() as u64 > self.effort.budget
    }

    /// Every crash state of a point is recovered to what is allowed.
    fn crashes(&mut self, point: &CrashPoint, allowed: Allowed, limit: usize, depth: usize) -> Checked {
        let mut states = point.states(if self.spent() { (limit / 8).max(4) } else { limit });
        while let Some(hash) = states.advance() {
            self.tally.states += 1;
            let known = self.recovered.get(&hash).copied();
            let generation = match known {
                Some(generation) => Ok(generation),
                None => self.recover(&states.build(), hash, depth, allowed),
            };
            let checked = generation.and_then(|generation| allowed.check(generation));
            checked.map_err(|violation| {
                violation.after(format!("a crash (depth {depth}) left:\n{}", states.build().describe()))
            })?;
        }
        let count = if states.exhaustive() { &mut self.tally.exhaustive } else { &mut self.tally.sampled };
        *count += 1;
        Ok(())
    }

    /// Recovers a crash state that is new, and looks at every crash of that recovery.
    fn recover(&mut self, state: &SimFs, hash: u64, depth: usize, allowed: Allowed) -> Checked<Generation> {
        self.tally.distinct += 1;
        if depth > 1 {
            self.tally.nested[depth - 2] += 1;
        }
        let state = &self.world.successor(state, depth);
        let nested = depth < 3 && !self.spent() && self.random.one_in(self.effort.nested_one_in[depth - 1]);
        if nested {
            state.record_crash_points();
        }
        let may = depth == 1 && !self.disturbing && self.closed.is_none();
        let disturbed = may && self.now_and_then(self.effort.recoveries_disturbed_one_in);
        let disturbed = disturbed.then(|| state.fork());
        let closed = (may && self.is_to_be_closed()).then(|| state.fork());
        let (generation, store) = self.reopen(state)?;
        self.recovered.insert(hash, generation);
        let points = state.crash_points();
        let log = state.log();
        self.aftermath(state, &store)?;
        drop(store);
        if let Some(before) = disturbed {
            self.disturbing = true;
            let checked = self.disturb(&before, &log, allowed).and_then(|()| self.undo(&before, generation));
            self.disturbing = false;
            checked?;
        }
        if let Some(state) = closed {
            self.closed_after_crash(&state, allowed)?;
        }
        for point in points {
            // Recovery is deterministic: interrupted or not, it comes to the same generation.
            self.crashes(&point, Allowed::only(generation), self.effort.limits[depth], depth + 1)
                .map_err(|violation| violation.after(format!("while recovering, {point:?}")))?;
        }
        Ok(generation)
    }

    fn reopen(&mut self, fs: &SimFs) -> Checked<(Generation, Store<SimFs>)> {
        self.tally.recoveries += 1;
        let store = self.open(fs)?;
        Ok((self.generation(fs)?, store))
    }

    /// The aftermath of a recovery, once for all that no process could tell apart.
    fn aftermath(&mut self, fs: &SimFs, store: &Store<SimFs>) -> Checked {
        self.settle_closed(fs, store)?;
        if self.settled.insert(fs.hash()) {
            self.oracle.aftermath(fs, store, self.tally)?;
        }
        Ok(())
    }

    /// The process is killed, and the machine goes on; later the power fails.
    fn kill(&mut self, point: &CrashPoint, allowed: Allowed) -> Checked {
        self.tally.kills += 1;
        let fs = point.killed();
        fs.record_crash_points();
        self.reopened(&fs, allowed).map_err(|v| v.after("the process is killed"))
    }

    /// The store is opened again in the same boot: before that, during it and after it a crash leaves what is allowed, and
    /// afterwards what it came to.
    pub(super) fn reopened(&mut self, fs: &SimFs, allowed: Allowed) -> Checked {
        let fs = &self.world.successor(fs, 1);
        fs.record_crash_points();
        let (generation, store) = self.reopen(fs)?;
        allowed.check(generation)?;
        let returned = fs.calls();
        let mut points = fs.crash_points();
        // Points are kept for calls that change something: the last of them is the world as it is.
        let last = points.len() - 1;
        for (index, point) in points.drain(..).enumerate() {
            let allowed = if index == last { Allowed::only(generation) } else { allowed };
            self.crashes(&point, allowed, self.effort.after_fault, 1)
                .map_err(|v| v.after(format!("opened again (until call {returned}), {point:?}")))?;
        }
        self.aftermath(fs, &store)
    }

    // ---- errors

    /// A recovery meets an error: then, or when it is tried again, it comes to what is allowed.
    fn disturb(&mut self, before: &SimFs, log: &[Call], allowed: Allowed) -> Checked {
        let number = self.random.below(log.len() as u64) + 1;
        let call = log[number as usize - 1];
        let ways: Vec<(Fault, Lasting)> = possible_errors(call).iter().flat_map(|&errno| faults(call, errno)).collect();
        let Some(&(fault, lasting)) = ways.get(self.random.below(ways.len() as u64) as usize) else { return Ok(()) };
        self.tally.injections += 1;
        let disturbed = || {
            let fs = before.fork();
            match lasting {
                Lasting::Once => fs.fail_at(number, fault),
                _ => fs.fail_from(number, fault),
            }
            fs
        };
        let fs = disturbed();
        let result = Store::open_with(&World::options(&fs), OUTPUT).map(drop);
        if is_inside(&fs) {
            return Ok(());
        }
        let checked = match (&result, lasting) {
            (Ok(()), _) => self.stands(&fs, allowed),
            (Err(_), Lasting::UntilReboot) => Ok(()),
            (Err(_), _) => {
                fs.mend();
                self.reopened(&fs, allowed)
            }
        };
        checked.map_err(|violation| {
            let (errno, again) = (Errno::from_raw(fault.errno), disturbed());
            again.record_trace();
            let _ = Store::open_with(&World::options(&again), OUTPUT);
            let trace = last_of(&again, number + 40);
            violation.after(format!(
                "recovery met {errno:?} ({:?}, {lasting:?}) at call {number}: {result:?}\n{trace}",
                fault.lost
            ))
        })
    }

    /// Undone on request, a commit that is not carried out leaves the old generation, durably; where it cannot be undone the next
    /// recovery comes to one of both.
    fn undo(&mut self, before: &SimFs, recovered: Generation) -> Checked {
        self.tally.injections += 1;
        let fs = before.fork();
        let store =
            Store::open_with(&World::options(&fs).recover(false), OUTPUT).map_err(|error| failed("opening", &error))?;
        let checked = match store.recover(RecoverOptions::default().undo(true)) {
            Ok(done) => {
                let allowed = match done.commit {
                    // The generation before the old one is none that is known here.
                    Some(RecoveredCommit::RolledBack { generation })
                        if generation <= self.world.generations_before() =>
                    {
                        return Ok(());
                    }
                    Some(RecoveredCommit::RolledBack { .. }) => Allowed::Old,
                    _ => Allowed::only(recovered),
                };
                self.stands(&fs, allowed)
            }
            // It may have been begun.
            Err(_) => self.reopened(&fs, Allowed::Either),
        };
        checked.map_err(|violation| violation.after("it was to be undone"))
    }

    /// What a recovery came to that met an error and returned all the same is allowed, and durable.
    fn stands(&mut self, fs: &SimFs, allowed: Allowed) -> Checked {
        let generation = self.generation(fs)?;
        allowed.check(generation)?;
        fs.record_crash_points();
        fs.crash_points().iter().try_for_each(|point| {
            let crashed = self.crashes(point, Allowed::only(generation), self.effort.after_fault, 1);
            crashed.map_err(|v| v.after("the power fails when it has returned"))
        })
    }

    /// Every error of every call, once and for good.
    fn errors(&mut self, log: &[Call]) -> Checked {
        for (index, &call) in log.iter().enumerate() {
            let number = index as u64 + 1;
            // Faults in the tools that fill a stage are theirs.
            if number > self.marks.begun && number <= self.marks.staged {
                continue;
            }
            for &errno in possible_errors(call) {
                for (fault, lasting) in faults(call, errno) {
                    if self.random.one_in(self.effort.errors_one_in) {
                        self.error(number, fault, lasting)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn error(&mut self, number: u64, fault: Fault, lasting: Lasting) -> Checked {
        self.tally.injections += 1;
        let fs = self.start.fork();
        let put = |fs: &SimFs| {
            if lasting == Lasting::Once { fs.fail_at(number, fault) } else { fs.fail_from(number, fault) }
        };
        put(&fs);
        self.with_error(&fs, number, lasting).map_err(|violation| {
            let again = self.start.fork();
            put(&again);
            again.record_trace();
            let _ = self.world.run(&again, &mut Marks::default());
            let errno = Errno::from_raw(fault.errno);
            violation.after(format!(
                "{errno:?} ({:?}, {lasting:?}) at call {number}\n{}",
                fault.lost,
                last_of(&again, number + 40)
            ))
        })
    }

    /// The program meets an error: what it reports is true at once, after a crash, and for the next commit.
    ///
    /// Until the error everything is as without it: those crashes are looked at already.
    pub(super) fn with_error(&mut self, fs: &SimFs, number: u64, lasting: Lasting) -> Checked {
        fs.record_crash_points_from(number);
        let mut marks = Marks::default();
        let result = self.world.run(fs, &mut marks);
        let points = fs.crash_points();
        if is_inside(fs) || result.is_ok() && self.is_published_closed(fs) {
            return Ok(());
        }
        if lasting != Lasting::UntilReboot {
            fs.mend();
        }
        let reported = self.reported(&result);
        if reported == Allowed::Old || reported == Allowed::New {
            let generation = self.generation(fs)?;
            reported.check(generation).map_err(|v| v.after(format!("the program reported {result:?}")))?;
        }
        for (index, point) in points.iter().enumerate() {
            let has_returned = marks.returned > 0 && until(&points, index) >= marks.returned;
            let allowed = if has_returned { reported } else { Allowed::Either };
            self.crashes(point, allowed, self.effort.after_fault, 1)
                .map_err(|v| v.after(format!("the program reported {result:?}; {point:?}")))?;
        }
        if lasting == Lasting::UntilReboot {
            return Ok(());
        }
        self.reopened(fs, reported).map_err(|v| v.after(format!("the program reported {result:?}")))
    }

    /// What may be published after the program has said this.
    fn reported(&self, result: &Result<Option<txfs::Committed>, Error>) -> Allowed {
        match (result, self.world.end) {
            (_, End::Abort) => Allowed::Old,
            (Ok(_), End::Commit) => Allowed::New,
            (Err(error), End::Commit) => match error.outcome() {
                Outcome::Unchanged => Allowed::Old,
                _ => Allowed::Either,
            },
        }
    }
}

/// The last call after which the world is still as at this point.
fn until(points: &[CrashPoint], index: usize) -> u64 {
    points.get(index + 1).map_or(u64::MAX, |next| next.call() - 1)
}

/// Where nothing may be made beside the output, its state is inside: another layout than the one that is looked at here.
fn is_inside(fs: &SimFs) -> bool {
    fs.entry(format!("{OUTPUT}/.txfs")).is_some()
}

/// How long an error lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    Once,
    /// Until the program is over.
    Always,
    /// A file system that could not write its names stops: nothing works on it until the machine boots anew.
    UntilReboot,
}

/// The ways in which `call` can fail with `errno`.
fn faults(call: Call, errno: i32) -> Vec<(Fault, Lasting)> {
    use Lasting::{Always, Once, UntilReboot};
    let fault = Fault::new(errno);
    if call.is_barrier() {
        let (keeping, pages) = (Fault::keeping(errno), Fault::dropping_pages(errno));
        let mut faults = vec![(keeping, Once), (pages, Once), (keeping, Always), (pages, Always), (fault, UntilReboot)];
        faults.retain(|(_, lasting)| *lasting == Once || errno != Errno::EINTR as i32);
        return faults;
    }
    // A call that is interrupted for ever is made again for ever.
    let pages = Fault::dropping_pages(errno);
    match errno == Errno::EINTR as i32 {
        true => vec![(fault, Once)],
        false => vec![(fault, Once), (pages, Always), (fault, UntilReboot)],
    }
}

/// The last calls up to `call`, and what each did.
pub(super) fn last_of(fs: &SimFs, call: u64) -> String {
    const SHOWN: usize = 60;
    let trace = fs.trace();
    let end = trace.len().min(call as usize);
    trace[end.saturating_sub(SHOWN)..end].iter().map(|line| format!("    {line}\n")).collect()
}
