//! Every call of a program: a crash after it, a kill, access that is taken before it, and every error that it can return.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use nix::errno::Errno;
use txfs::{Error, Outcome};

use super::access::Closed;
use super::effort::Effort;
use super::explorer::Explorer;
use super::faults::{Lasting, faults, is_inside, last_of, until};
use super::oracle::{self, Allowed, Oracle, Watch, failed};
use super::random::Random;
use super::spec;
use super::tally::{Checked, Tally, Violation};
use super::world::{End, Marks, OUTPUT, World};
use crate::{Call, CrashPoint, Fault, SimFs, Stranger, Tree, possible_errors};

/// Explores `world` with so much effort.
pub(super) fn explore(world: &World, effort: Effort, tally: &mut Tally) -> Checked {
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
    spec::is_published(new, &world.published(), world.foreign)
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

    /// The process is killed, and the machine goes on; later the power fails.
    fn kill(&mut self, point: &CrashPoint, allowed: Allowed) -> Checked {
        self.tally.kills += 1;
        let fs = point.killed();
        fs.record_crash_points();
        self.reopened(&fs, allowed).map_err(|v| v.after("the process is killed"))
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
    fn with_error(&mut self, fs: &SimFs, number: u64, lasting: Lasting) -> Checked {
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

    /// Access is taken between two calls of the program, or when it was killed there.
    fn closings(&mut self, point: &CrashPoint, allowed: Allowed) -> Checked {
        let [one_in, _] = self.effort.closed_one_in;
        if !self.is_limited() || !self.random.one_in(one_in) {
            return Ok(());
        }
        let Some((path, closed)) = Closed::drawn(point.view(), &mut self.random, true) else { return Ok(()) };
        let number = point.call() + 1;
        // What the tools that fill a stage meet is theirs.
        let is_of_tool = number > self.marks.begun && number <= self.marks.staged;
        self.closed = Some(closed);
        self.tally.closings += 1;
        let checked = match is_of_tool {
            true => Ok(()),
            false => self.closed_between(number, &path, closed),
        };
        let checked = checked.and_then(|()| {
            let killed = point.killed();
            closed.take(&killed, &path);
            self.reopened(&killed, allowed).map_err(|v| v.after("the process is killed"))
        });
        self.closed = None;
        checked.map_err(|v| v.after(format!("{} is given mode {:04o}", path.display(), closed.mode)))
    }

    fn closed_between(&mut self, number: u64, path: &Path, closed: Closed) -> Checked {
        self.tally.injections += 1;
        let close = |start: &SimFs| {
            let fs = start.fork();
            fs.stranger_at(number, path, Stranger::SetsMode(closed.mode));
            fs
        };
        let fs = close(&self.start);
        self.with_error(&fs, number, Lasting::Once).map_err(|violation| {
            let again = close(&self.start);
            again.record_trace();
            let _ = self.world.run(&again, &mut Marks::default());
            violation.after(format!("before call {number}\n{}", last_of(&again, number + 60)))
        })
    }
}
