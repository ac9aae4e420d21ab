//! Every system call of every command that changes something, on the real binary: it is the last one before SIGKILL, and it
//! fails with every error that it may plausibly meet.
//!
//! ```sh
//! cargo test --release -p txfs-cli --test sweep -- --ignored --nocapture      # the whole
//! cargo test -p txfs-cli --test sweep                                    # a slice of it, as `cargo test` does
//! ```
//!
//! The calls are recorded first ([`strace::recording`]), in each state of a store that makes the command do something else
//! ([`scenarios::SCENARIOS`]). Then each is met alone, on a store that was prepared anew: SIGKILL on entry, which is also "after
//! the call before it", the last one being `exit_group`; each error once; and, for barriers and renames, from there on. Then
//! [`oracle::judge`] looks. A fault that strace did not meet at exactly that call fails the test, too.
//!
//! `TXFS_SWEEP=SCENARIO` plays only the scenarios whose names begin so, `TXFS_SWEEP_STEP=N` every N-th fault. `TXFS_SWEEP_DIR` is
//! where, instead of /dev/shm; the whole plays a few of the faults on the disk of the target directory, too.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test program, in several files")]

use txfs_testing as common;
mod oracle;
mod scenarios;
mod strace;
mod worlds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nix::errno::Errno;
use oracle::Case;
use scenarios::{SCENARIOS, Scenario, Side};
use strace::{Call, Fault};
use worlds::{Expected, World};

/// How many violations are told before the sweep gives up.
const ENOUGH: usize = 40;

/// How often a case is played whose fault is not met: what others lock meanwhile makes [`strace::recording`] count reads that are not made.
const TRIES: usize = 5;

struct Todo {
    scenario: usize,
    call: Call,
    fault: Fault,
}

/// What came of a scenario's cases.
#[derive(Default, Clone)]
struct Tally {
    calls: usize,
    kills: usize,
    errors: usize,
    missed: usize,
    codes: BTreeMap<Option<i32>, usize>,
    old: usize,
    new: usize,
}

fn faults(call: &Call) -> Vec<Fault> {
    let mut faults = vec![Fault::Kill];
    faults.extend(call.errors().iter().map(|errno| Fault::Once(*errno)));
    if call.may_fail_on() {
        faults.extend([Errno::EIO, Errno::ENOSPC, Errno::EROFS].map(Fault::Always));
    }
    faults
}

/// Records every scenario; two recordings have to be of the same calls, by one thread.
fn record(dir: &Path, tallies: &mut [Tally]) -> Vec<Todo> {
    let mut todo = Vec::new();
    let only = std::env::var("TXFS_SWEEP").unwrap_or_default();
    for (index, scenario) in SCENARIOS.iter().enumerate().filter(|(_, scenario)| scenario.name.starts_with(&only)) {
        let fresh = || {
            let mut world = World::new(dir);
            (scenario.prepare)(&mut world);
            world
        };
        let world = fresh();
        let (calls, output) = strace::recording(dir, &scenario.command(&world));
        assert!(output.status.success(), "{}: {}", scenario.name, String::from_utf8_lossy(&output.stderr));
        let world = fresh();
        let (again, _) = strace::recording(dir, &scenario.command(&world));
        let differs = calls.iter().zip(&again).find(|(one, other)| one.name != other.name);
        assert!(differs.is_none() && calls.len() == again.len(), "{}: runs differ: {differs:?}", scenario.name);
        if scenario.name != "run" {
            let world = fresh();
            assert_eq!(strace::threads(dir, &scenario.command(&world)), 1, "{}: one thread", scenario.name);
        }
        tallies[index].calls = calls.len();
        for call in calls {
            todo.extend(faults(&call).into_iter().map(|fault| Todo { scenario: index, call: call.clone(), fault }));
        }
    }
    todo
}

/// One case, until its fault is met.
fn play(dir: &Path, expected: &Expected, todo: &Todo) -> (bool, Option<i32>, Result<Side, String>) {
    let mut played = play_once(dir, expected, todo);
    for _ in 1..TRIES {
        if played.0 || played.2.is_err() {
            break;
        }
        played = play_once(dir, expected, todo);
    }
    played
}

/// One case: whether the fault was met, the exit code, and the verdict.
fn play_once(dir: &Path, expected: &Expected, todo: &Todo) -> (bool, Option<i32>, Result<Side, String>) {
    let scenario: &Scenario = &SCENARIOS[todo.scenario];
    let mut world = World::new(dir);
    (scenario.prepare)(&mut world);
    let (before, foreign) = (world.snapshot(), oracle::foreign(&world));
    let ended = strace::inject(dir, &scenario.command(&world), &todo.call, todo.fault);
    let case = Case {
        scenario,
        world: &world,
        expected,
        call: &todo.call,
        fault: todo.fault,
        ended: &ended,
        before: &before,
        foreign: &foreign,
    };
    let verdict = oracle::judge(&case).map_err(|what| {
        let Todo { call, fault, .. } = todo;
        let strace::Faulted { code, out, err, .. } = &ended;
        format!(
            "{}: {fault:?} at {} {}: {}\n    {what}\n    exit code {code:?}, stdout {out:?}, stderr {err:?}",
            scenario.name, call.name, call.nth, call.line
        )
    });
    (ended.fired, ended.code, verdict)
}

/// Plays every `step`-th case in `dir`.
fn sweep(dir: &Path, workers: usize, step: usize) {
    let begun = Instant::now();
    let scratch = tempfile::Builder::new().prefix("txfs-sweep-").tempdir_in(dir).unwrap();
    let at = |worker: usize| scratch.path().canonicalize().unwrap().join(format!("world-{worker}"));
    let expected = Expected::found_out(scratch.path());
    let mut tallies = vec![Tally::default(); SCENARIOS.len()];
    let todo: Vec<_> = record(&at(0), &mut tallies).into_iter().step_by(step).collect();
    println!("{} faults on {}, {workers} at a time", todo.len(), dir.display());
    let (next, tallies) = (AtomicUsize::new(0), Mutex::new(tallies));
    let violations = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (todo, next, tallies, violations, expected) = (&todo, &next, &tallies, &violations, &expected);
            let dir = at(worker);
            scope.spawn(move || {
                while let Some(todo) = todo.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let (fired, code, verdict) = play(&dir, expected, todo);
                    let tally = &mut tallies.lock().unwrap()[todo.scenario];
                    match todo.fault {
                        Fault::Kill => tally.kills += 1,
                        Fault::Once(_) | Fault::Always(_) => tally.errors += 1,
                    }
                    tally.missed += usize::from(!fired);
                    *tally.codes.entry(code).or_default() += 1;
                    match verdict {
                        Ok(Side::Old) => tally.old += 1,
                        Ok(Side::New) => tally.new += 1,
                        Err(violation) => {
                            let mut violations = violations.lock().unwrap();
                            println!("VIOLATION {violation}");
                            violations.push(violation);
                            if violations.len() >= ENOUGH {
                                next.store(usize::MAX / 2, Ordering::SeqCst);
                            }
                        }
                    }
                }
            });
        }
    });
    let missed = report(&tallies.into_inner().unwrap());
    println!("{:.0} s", begun.elapsed().as_secs_f32());
    assert_eq!(violations.into_inner().unwrap().len(), 0, "violations, listed above");
    assert_eq!(missed, 0, "faults that were not met");
}

/// Prints the table; how many faults were not met.
fn report(tallies: &[Tally]) -> usize {
    let line = |name: &str, tally: &Tally| {
        let Tally { calls, kills, errors, missed, codes, old, new } = tally;
        let total = kills + errors;
        let code = |code: Option<i32>| codes.get(&code).copied().unwrap_or_default();
        let failed = code(Some(1)) + code(Some(125));
        println!(
            "{name:<24} {calls:>5} {kills:>6} {errors:>6} {:>6}/{total:<6} {:>6} {failed:>6} {:>4} {old:>6} {new:>6}",
            total - missed,
            code(Some(0)),
            code(Some(7)),
        );
    };
    println!(
        "{:<24} {:>5} {:>6} {:>6} {:>6}/{:<6} {:>6} {:>6} {:>4} {:>6} {:>6}",
        "", "calls", "kills", "errors", "fired", "total", "exit 0", "1, 125", "7", "old", "new"
    );
    let mut sum = Tally::default();
    for (scenario, tally) in SCENARIOS.iter().zip(tallies).filter(|(_, tally)| tally.calls > 0) {
        line(scenario.name, tally);
        sum.calls += tally.calls;
        sum.kills += tally.kills;
        sum.errors += tally.errors;
        sum.missed += tally.missed;
        tally.codes.iter().for_each(|(code, count)| *sum.codes.entry(*code).or_default() += count);
        sum.old += tally.old;
        sum.new += tally.new;
    }
    line("together", &sum);
    sum.missed
}

/// Where disks are not in the way, if there is such a place.
fn memory() -> PathBuf {
    let shm = Path::new("/dev/shm");
    let usable = tempfile::tempdir_in(shm).is_ok();
    std::env::var_os("TXFS_SWEEP_DIR")
        .map_or_else(|| if usable { shm.into() } else { std::env::temp_dir() }, PathBuf::from)
}

fn step(default: usize) -> usize {
    std::env::var("TXFS_SWEEP_STEP").ok().and_then(|step| step.parse().ok()).unwrap_or(default)
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(8))
}

#[test]
fn a_slice_of_the_sweep() {
    match strace::available() {
        Ok(()) => sweep(&memory(), workers(), step(97)),
        Err(why) => common::skip("a_slice_of_the_sweep", &why),
    }
}

#[test]
#[ignore = "takes minutes: run it in release mode"]
fn every_call_of_every_command() {
    match strace::available() {
        Ok(()) => {
            sweep(&memory(), workers(), step(1));
            sweep(Path::new(env!("CARGO_TARGET_TMPDIR")), workers(), 401 * step(1));
        }
        Err(why) => common::skip("every_call_of_every_command", &why),
    }
}
