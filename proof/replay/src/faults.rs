//! Disks that fail and disks that are full: what the caller is told is true, and recovery puts right what can be put right.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use txfs::{Error, ErrorKind, Outcome, Store};

use crate::disk::{Fault, Image, Request};
use crate::images::Job;
use crate::record::Bench;
use crate::world::{self, World};

/// What some runs with faults showed.
#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) runs: usize,
    /// Runs in which the fault was met.
    pub(crate) fired: usize,
    /// Images recovered afterwards.
    pub(crate) images: usize,
    pub(crate) outcomes: BTreeMap<&'static str, usize>,
    /// Images that the kernel would not mount after the fault.
    pub(crate) refused: Vec<String>,
    pub(crate) violations: Vec<String>,
}

impl Faults {
    fn outcome(&mut self, word: &'static str) {
        *self.outcomes.entry(word).or_default() += 1;
    }
}

/// What is done while the disk fails.
#[derive(Clone, Copy)]
enum Act<'a> {
    /// Generation 2 is committed.
    Commit { world: &'a World, image: &'a Image },
    /// What a crash left is recovered.
    Recover(&'a Job),
}

impl<'a> Act<'a> {
    fn world(self) -> &'a World {
        match self {
            Act::Commit { world, .. } => world,
            Act::Recover(job) => &job.world,
        }
    }

    fn image(self) -> &'a Image {
        match self {
            Act::Commit { image, .. } => image,
            Act::Recover(job) => &job.image,
        }
    }

    fn name(self) -> String {
        match self {
            Act::Commit { .. } => "commit".into(),
            Act::Recover(job) => format!("recovery of [{}]", job.name),
        }
    }
}

/// Fails each write and each flush of a commit, and of the recovery of `crashed`: once, and from there on.
pub(crate) fn failing_disk(bench: &Bench<'_>, world: &World, image: &Image, crashed: &[Job]) -> Result<Faults, String> {
    let mut faults = Faults::default();
    let acts = std::iter::once(Act::Commit { world, image }).chain(crashed.iter().map(Act::Recover));
    for act in acts {
        for request in [Request::Write, Request::Flush] {
            for lasting in [false, true] {
                // How many requests there are is found out on the way: until the fault is not met twice in a row.
                let mut unmet = 0;
                for nth in 1.. {
                    let fault = Fault { request, nth, lasting };
                    unmet = if run_with(bench, act, fault, &mut faults)? { 0 } else { unmet + 1 };
                    if unmet == 2 {
                        break;
                    }
                }
            }
        }
    }
    Ok(faults)
}

/// One run; whether the fault was met.
fn run_with(bench: &Bench<'_>, act: Act<'_>, fault: Fault, faults: &mut Faults) -> Result<bool, String> {
    let name = format!("{}, {}, {fault:?}", bench.variant.name, act.name());
    let mounted = bench.load(act.image())?;
    let told = match act {
        Act::Commit { world, .. } => {
            let failed = |error: Error| format!("{name}: before the fault: {error}");
            let store = Store::open_with(&world.options(), bench.output()).map_err(failed)?;
            let mut staged = world.stage(&store, 2).map_err(failed)?;
            bench.disk.lock().watch(Some(fault));
            let told = classify_commit(staged.commit());
            // The transaction is discarded, as far as the disk allows, when it is dropped.
            drop(staged);
            told
        }
        Act::Recover(job) => {
            bench.disk.lock().watch(Some(fault));
            classify_recovery(world::check_recovery(act.world(), bench.root(), &job.allowed), job)
        }
    };
    let (all, flushed) = bench.disk.lock().power_off();
    let (_, fired) = bench.disk.lock().mend();
    mounted.unmount()?;
    faults.runs += 1;
    faults.fired += usize::from(fired > 0);
    let (word, allowed) = match told {
        Ok(told) => told,
        Err(what) => {
            faults.violations.push(format!("{name}: {what}"));
            return Ok(fired > 0);
        }
    };
    faults.outcome(word);
    let unmounted = bench.disk.lock().image.clone();
    let endings = [("unmounted", unmounted), ("power lost", all), ("power and what was not flushed lost", flushed)];
    for (ending, image) in endings {
        faults.images += 1;
        match bench.load(&image) {
            Err(error) => faults.refused.push(format!("{name}, {ending}: {error}")),
            Ok(mounted) => {
                let verdict = world::check(act.world(), bench.root(), &allowed);
                mounted.unmount()?;
                if let Err(what) = verdict {
                    faults.violations.push(format!("{name}, told {word}, {ending}: {what}"));
                }
            }
        }
    }
    Ok(fired > 0)
}

/// What the caller was told, and which generations may be found then.
type Told = Result<(&'static str, Vec<usize>), String>;

fn classify_commit(result: txfs::Result<txfs::Committed>) -> Told {
    Ok(match result {
        Ok(committed) if committed.warnings.is_empty() => ("committed", vec![2]),
        Ok(_) => ("committed with a warning", vec![2]),
        Err(error) if error.outcome() == Outcome::Unchanged && error.kind() == ErrorKind::Failed => {
            ("unchanged", vec![1])
        }
        Err(error) if error.outcome() == Outcome::Unknown && error.kind() == ErrorKind::Unknown => {
            ("unknown", vec![1, 2])
        }
        Err(error) => return Err(format!("told {:?} and {:?}: {error}", error.outcome(), error.kind())),
    })
}

fn classify_recovery(verdict: world::Verdict, job: &Job) -> Told {
    match verdict {
        Ok(found) => Ok(("recovered", vec![found.generation])),
        // An error is an answer; that nothing false was done shows on the mended disk.
        Err(_) => Ok(("not recovered", job.allowed.clone())),
    }
}

/// How many units are left on a full disk.
const LEFT: [usize; 17] = [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64, 96, 128];

/// Commits and recovers with less and less room, down to none.
pub(crate) fn full_disk(bench: &Bench<'_>, world: &World, image: &Image, crashed: &[Job]) -> Result<Faults, String> {
    let mut faults = Faults::default();
    for unit in [Unit::Blocks, Unit::Names] {
        let full = fill(bench, image, unit)?;
        let mut fits = 0;
        for left in LEFT {
            let name = format!("{}, {left} {unit:?} left", bench.variant.name);
            let fit = commit_when_full(bench, world, &full, (left, unit), &name, &mut faults)?;
            fits = if fit { fits + 1 } else { 0 };
            if fits == 3 {
                break;
            }
        }
        for job in crashed {
            let name = format!("{}, recovery of [{}], no {unit:?} left", bench.variant.name, job.name);
            recover_when_full(bench, job, unit, &name, &mut faults)?;
        }
    }
    Ok(faults)
}

/// Stages generation 2 while there is room, takes the room away but for some units, and commits.
fn commit_when_full(
    bench: &Bench<'_>,
    world: &World,
    full: &Image,
    (left, unit): (usize, Unit),
    name: &str,
    faults: &mut Faults,
) -> Result<bool, String> {
    let mounted = bench.load(full)?;
    remove_spares(bench, unit)?;
    let mut is_staged = false;
    let result = Store::open_with(&world.options(), bench.output()).and_then(|store| {
        let mut staged = world.stage(&store, 2)?;
        is_staged = true;
        let taken = make_spares(bench, SPARES - left, unit);
        taken.map_err(|what| Error::Usage { path: bench.output(), what })?;
        staged.commit()
    });
    let hinted = result.as_ref().err().is_none_or(|error| error.hint().is_some());
    let said = result.as_ref().err().map(ToString::to_string);
    let told = classify_commit(result);
    faults.runs += 1;
    faults.fired += usize::from(!matches!(told, Ok(("committed", _))));
    let verdict = told.and_then(|(word, allowed)| {
        faults.outcome(if is_staged { word } else { "no room to stage" });
        if word == "unknown" || !hinted {
            return Err(format!("told {word}, hint: {hinted}: {said:?}"));
        }
        let found = world::check_recovery(world, bench.root(), &allowed);
        let found = found.map_err(|what| format!("told {word} ({said:?}), on the full disk: {what}"))?;
        make_room(bench)?;
        world::check_next(world, bench.root(), found.generation)?;
        Ok(word == "committed")
    });
    mounted.unmount()?;
    faults.images += 1;
    Ok(verdict.unwrap_or_else(|what| {
        faults.violations.push(format!("{name}: {what}"));
        false
    }))
}

fn recover_when_full(bench: &Bench<'_>, job: &Job, unit: Unit, name: &str, faults: &mut Faults) -> Result<(), String> {
    let full = fill(bench, &job.image, unit)?;
    let mounted = bench.load(&full)?;
    let verdict = world::check_recovery(&job.world, bench.root(), &job.allowed).and_then(|found| {
        make_room(bench)?;
        world::check_next(&job.world, bench.root(), found.generation)
    });
    mounted.unmount()?;
    faults.runs += 1;
    faults.fired += 1;
    faults.images += 1;
    match verdict {
        Ok(()) => faults.outcome("recovered"),
        Err(what) => faults.violations.push(format!("{name}: {what}")),
    }
    Ok(())
}

/// What a disk is full of.
#[derive(Debug, Clone, Copy)]
enum Unit {
    /// Blocks of 4096 bytes.
    Blocks,
    /// Blocks, and names with a few bytes each, by the dozen: as many as share a block of metadata.
    Names,
}

impl Unit {
    fn files(self) -> usize {
        if matches!(self, Unit::Names) { 12 } else { 1 }
    }

    fn content(self) -> Vec<u8> {
        vec![7; if matches!(self, Unit::Names) { 100 } else { 4096 }]
    }
}

const FILLER: &str = "filler";
const SPARES: usize = 256;

/// The image with every unit taken, `SPARES` of them by files that can be removed one by one.
fn fill(bench: &Bench<'_>, image: &Image, unit: Unit) -> Result<Image, String> {
    let mounted = bench.load(image)?;
    let directory = bench.root().join(FILLER);
    fs::create_dir(&directory).map_err(|error| format!("filling: {error}"))?;
    make_spares(bench, SPARES, unit)?;
    let fill = || -> io::Result<()> {
        for size in [1 << 20, 64 << 10, 4096, 512] {
            until_full(&directory.join(format!("blocks{size}")), |file| file.write_all(&vec![7; size]))?;
        }
        for index in 0..if matches!(unit, Unit::Names) { NAMES } else { 0 } {
            match fs::write(directory.join(format!("a name of some length, to take up room {index}")), [7; 100]) {
                Err(error) if is_full(&error) => break,
                result => result?,
            }
        }
        Ok(())
    };
    fill().map_err(|error| format!("filling {}: {error}", bench.variant.name))?;
    // What does not fit after all is no error here.
    let _ = bench.sync();
    mounted.unmount()?;
    Ok(bench.disk.lock().image.clone())
}

/// More than fit on these disks.
const NAMES: usize = 200_000;

fn spare(bench: &Bench<'_>, index: usize) -> std::path::PathBuf {
    bench.root().join(FILLER).join(format!("spare{index}"))
}

/// Takes up units, as many as there is room for.
fn make_spares(bench: &Bench<'_>, count: usize, unit: Unit) -> Result<(), String> {
    let content = unit.content();
    for index in 0..count * unit.files() {
        match fs::write(spare(bench, index), &content) {
            Err(error) if is_full(&error) => break,
            result => result.map_err(|error| format!("taking up room: {error}"))?,
        }
    }
    bench.sync().or_else(|error| if error.contains("ENOSPC") { Ok(()) } else { Err(error) })
}

fn remove_spares(bench: &Bench<'_>, unit: Unit) -> Result<(), String> {
    for index in 0..SPARES * unit.files() {
        match fs::remove_file(spare(bench, index)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(|error| format!("making room: {error}"))?,
        }
    }
    bench.sync()
}

/// Nothing is full any more.
fn make_room(bench: &Bench<'_>) -> Result<(), String> {
    let removed = fs::remove_dir_all(bench.root().join(FILLER));
    removed.map_err(|error| format!("making room: {error}")).and_then(|()| bench.sync())
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn until_full(path: &Path, mut write: impl FnMut(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut file = match File::create(path) {
        Err(error) if is_full(&error) => return Ok(()),
        file => file?,
    };
    loop {
        match write(&mut file) {
            Ok(()) => {}
            Err(error) if is_full(&error) => break,
            Err(error) => return Err(error),
        }
    }
    match file.sync_all() {
        Err(error) if !is_full(&error) => Err(error),
        _ => Ok(()),
    }
}
