//! Crashes of a world, and of its recovery: each state that one can leave is recovered to what is allowed.
//!
//! Recovering looks at the crashes of recovery, so these call one another.

use nix::errno::Errno;
use txfs::{RecoverOptions, RecoveredCommit, Store};

use super::access::Closed;
use super::explorer::Explorer;
use super::faults::{Lasting, faults, is_inside, last_of};
use super::oracle::{Allowed, Generation, failed};
use super::tally::Checked;
use super::world::{OUTPUT, World};
use crate::{Call, CrashPoint, Fault, SimFs, possible_errors};

impl Explorer<'_> {
    /// Every crash state of a point is recovered to what is allowed.
    pub(super) fn crashes(&mut self, point: &CrashPoint, allowed: Allowed, limit: usize, depth: usize) -> Checked {
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
    pub(super) fn recover(&mut self, state: &SimFs, hash: u64, depth: usize, allowed: Allowed) -> Checked<Generation> {
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

    pub(super) fn reopen(&mut self, fs: &SimFs) -> Checked<(Generation, Store<SimFs>)> {
        self.tally.recoveries += 1;
        let store = self.open(fs)?;
        Ok((self.generation(fs)?, store))
    }

    /// The aftermath of a recovery, once for all that no process could tell apart.
    pub(super) fn aftermath(&mut self, fs: &SimFs, store: &Store<SimFs>) -> Checked {
        self.settle_closed(fs, store)?;
        if self.settled.insert(fs.hash()) {
            self.oracle.aftermath(fs, store, self.tally)?;
        }
        Ok(())
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

    /// A recovery meets an error: then, or when it is tried again, it comes to what is allowed.
    pub(super) fn disturb(&mut self, before: &SimFs, log: &[Call], allowed: Allowed) -> Checked {
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
    pub(super) fn undo(&mut self, before: &SimFs, recovered: Generation) -> Checked {
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
    pub(super) fn stands(&mut self, fs: &SimFs, allowed: Allowed) -> Checked {
        let generation = self.generation(fs)?;
        allowed.check(generation)?;
        fs.record_crash_points();
        fs.crash_points().iter().try_for_each(|point| {
            let crashed = self.crashes(point, Allowed::only(generation), self.effort.after_fault, 1);
            crashed.map_err(|v| v.after("the power fails when it has returned"))
        })
    }

    /// Access is taken when the machine is up again.
    pub(super) fn closed_after_crash(&mut self, state: &SimFs, allowed: Allowed) -> Checked {
        let staged_files = !self.world.linked;
        let drawn = state.look(|view| Closed::drawn(view, &mut self.random, staged_files));
        let Some((path, closed)) = drawn else { return Ok(()) };
        closed.take(state, &path);
        self.closed = Some(closed);
        self.tally.closings += 1;
        let checked = self.reopened(state, allowed);
        self.closed = None;
        checked.map_err(|v| v.after(format!("{} is given mode {:04o} then", path.display(), closed.mode)))
    }
}
