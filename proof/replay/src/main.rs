//! Block-level replay: real commits on real file systems, on a disk that remembers every write.
//!
//! ```text
//! cd proof/replay && sudo cargo run --release -- [--fs NAME]… [--images N] [--seed N] [--workers N] [--skip PART]… [--keep DIR]
//!                                                [--barriers whole|single]
//!                                                [--check IMAGE --fs NAME --world N]
//! ```
//!
//! A disk in memory is served as a file by FUSE, with a loop device on it and on that a file system. While txfs commits (and
//! while a commit fails and is undone, and while a crash is recovered) every write and every flush is written down. The parts:
//!
//! - **replay**: prefixes of the writes, each write lost, alone, or torn at 512 bytes, and random subsets of the writes since
//!   the last flush, on top of everything flushed before, become images. Each distinct one is mounted by the kernel, recovered by
//!   txfs, and judged: the output is exactly the old or the new generation (kind, mode, content), the new one if success had been
//!   reported; foreign entries are intact; nothing is left over; recovering again does nothing; the next commit works.
//!   A part of the images comes from recoveries of such images: crashes inside recovery.
//! - **model**: what such images show before recovery is compared with what the crash simulator allows for the same commit.
//! - **faults**: each write and each flush of a commit and of recoveries fails, once and lastingly; what the caller was told has
//!   to be true after the disk was mended, and after a loss of power. And commits and recoveries on full disks.
//!
//! So that the renames of a commit do not reach the disk all at once, most recordings have noisy neighbours: at any call of txfs
//! somebody else may make a directory, another file, or the whole file system durable, which takes a part of the commit with it.
//!
//! `--images N` makes N images of each file system instead of a bounded run's; `--skip` leaves out `replay`, `model` or `faults`.
//! `--barriers` makes all commits durable by `syncfs`, begun early, or by `fsync` of each file and directory; else every other world is committed so.
//! Images that violate something are kept in `--keep` (target/replay unless said); `--check` judges one of them again.
//!
//! Built with `--features mutants`, `--leave-out NAME` (of `src/mutant.rs`) leaves out a step of the protocol: then there have to be
//! violations.
//!
//! It needs root, FUSE, loop devices, and mkfs of the file systems. What it cannot run here it says, and fails if
//! TXFS_REQUIRE_MOUNTS=1. Exit status: 0 no violation, 1 violations, 2 it could not be run.
//!
//! The superblock is never torn: ext4 and btrfs overwrite it in place under one checksum, and the kernel refuses a torn one
//! whatever else is on the disk.

mod device;
mod disk;
mod faults;
mod fuse;
mod images;
mod model;
mod noisy;
mod options;
mod random;
mod record;
mod replay;
mod variant;
mod world;

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use disk::Image;
use images::{Counts, Job};
use options::{Options, Part};
use random::Random;
use record::{Bench, Recording, Script, Session};
use replay::{Results, Setting};
use variant::{VARIANTS, Variant};
use world::World;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(what) => {
            eprintln!("error: {what}; see the head of proof/replay/src/main.rs");
            return ExitCode::from(2);
        }
    };
    if !nix::unistd::geteuid().is_root() {
        return skipped("everything", "mounting needs root");
    }
    if !Path::new("/dev/fuse").exists() || !Path::new("/dev/loop-control").exists() {
        return skipped("everything", "there is no /dev/fuse, or no /dev/loop-control");
    }
    if let Err(error) = release_on_signals() {
        eprintln!("error: signals: {error}");
        return ExitCode::from(2);
    }
    match run(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(violations) => {
            println!("{violations} violations");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Says loudly that something was not run; a failure where nothing may be skipped.
fn skipped(what: &str, why: &str) -> ExitCode {
    eprintln!("SKIPPED: block-level replay, {what}: {why}");
    let required = std::env::var_os("TXFS_REQUIRE_MOUNTS").is_some_and(|value| value == "1");
    if required { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

fn release_on_signals() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            eprintln!("interrupted: unmounting");
            device::release_all();
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Where everything happens.
struct Ground {
    // Fields are dropped in order: what lies in the scratch directory goes first.
    disks: fuse::Disks,
    _memory: device::Mounted,
    scratch: tempfile::TempDir,
    _cleanup: device::Cleanup,
}

impl Ground {
    fn new() -> Result<Self, String> {
        let scratch = tempfile::Builder::new().prefix("txfs-replay").tempdir().map_err(|error| error.to_string())?;
        let cleanup = device::Cleanup::scratch(scratch.path());
        let (memory, served) = (scratch.path().join("memory"), scratch.path().join("disks"));
        for directory in [&memory, &served] {
            std::fs::create_dir(directory).map_err(|error| error.to_string())?;
        }
        let mounted = device::Mounted::new("txfs-replay".as_ref(), &memory, "tmpfs", "size=50%");
        let mounted = mounted.map_err(|error| format!("tmpfs: {error}"))?;
        Ok(Self { disks: fuse::Disks::serve(&served, VARIANTS.len())?, _memory: mounted, scratch, _cleanup: cleanup })
    }

    fn bench<'v>(&self, variant: &'v Variant) -> Result<Bench<'v>, String> {
        let index = VARIANTS.iter().position(|other| other.name == variant.name).unwrap_or_default();
        Bench::new(variant, &self.disks, index, self.scratch.path())
    }
}

fn run(options: &Options) -> Result<usize, String> {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let ground = Ground::new()?;
    if let Some(image) = &options.check {
        return check_image(options, &ground, image);
    }
    let (mut violations, mut images) = (0, 0);
    let mut runs = Vec::new();
    for variant in VARIANTS.iter().filter(|variant| options.wants(variant.name)) {
        if let Err(why) = variant.is_available() {
            if skipped(variant.name, &why) != ExitCode::SUCCESS {
                return Err("nothing may be skipped: TXFS_REQUIRE_MOUNTS=1".into());
            }
            continue;
        }
        let memory = ground.scratch.path().join("memory");
        let setting = options.setting(variant, &memory, ground.scratch.path());
        let run = replay_variant(options, &ground, &setting)?;
        violations += run.violations;
        images += run.images;
        runs.push((variant, run));
    }
    violations += in_parallel(&runs, |(variant, run)| examine(options, &ground, variant, run))?;
    println!("{images} images replayed in all, {violations} violations");
    Ok(violations)
}

/// Runs `each` on all items at once: most of the time goes into waiting for the kernel. The sum of what they return.
fn in_parallel<T: Sync>(items: &[T], each: impl Fn(&T) -> Result<usize, String> + Sync) -> Result<usize, String> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| each(item))).collect();
        let results =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results.sum()
    })
}

/// What replaying one file system leaves for the other parts.
struct Run {
    world: Arc<World>,
    base: Image,
    /// Images on which recovery has work to do.
    crashed: Vec<Job>,
    images: usize,
    violations: usize,
}

const WORLDS: u64 = 6;
const SLOTS: usize = 12;
/// Crashed images whose recovery is recorded, to be crashed in turn.
const NESTED: usize = 24;
/// Crashed images whose recovery meets failing and full disks.
const WITH_FAULTS: usize = 2;

fn replay_variant(options: &Options, ground: &Ground, setting: &Setting<'_>) -> Result<Run, String> {
    let started = Instant::now();
    let variant = setting.variant;
    let bench = ground.bench(variant)?;
    let mut recordings = Vec::new();
    let mut first = None;
    let worlds = if options.skips(Part::Replay) { 1 } else { WORLDS };
    for index in 0..worlds {
        let seed = options.seed * WORLDS + index;
        let world = Arc::new(World::new(seed, SLOTS).barriers(options.barriers(index)));
        let base = bench.prepare(&world)?;
        let noise = [0, 10, 30, 60][index as usize % 4];
        let sessions = [
            Session { script: Script::Commits, seed, noise },
            Session { script: Script::Undo { rename: 3 + 2 * index as usize }, seed, noise: 30 },
        ];
        for session in &sessions {
            recordings.push(Recording::make(&bench, session.name(), &world, &base, &[1], session)?);
        }
        first.get_or_insert((world, base));
    }
    let budget = if options.skips(Part::Replay) { 200 } else { options.images.unwrap_or(variant.budget) };
    let mut random = Random::new(options.seed, "images");
    let mut seen = HashSet::new();
    let (mut counts, mut results) = replay::replay(setting, &recordings, budget * 4 / 5, &mut random, &mut seen)?;
    let writes: usize = recordings.iter().map(Recording::writes).sum();
    let mut crashed = std::mem::take(&mut results.work);
    let mut nested = Vec::new();
    for (index, job) in crashed.iter().take(NESTED).enumerate() {
        let session =
            Session { script: Script::Recovery, seed: options.seed + index as u64, noise: [0, 40][index % 2] };
        let name = format!("{} of [{}]", session.name(), job.name);
        match Recording::make(&bench, name.clone(), &job.world, &job.image, &job.allowed, &session) {
            Ok(recording) => nested.push(recording),
            Err(what) => results.violations.push(format!("{name}: {what}")),
        }
    }
    let (inner, more) = replay::replay(setting, &nested, budget - counts.total(), &mut random, &mut seen)?;
    counts.add(inner);
    results.add(more);
    report(
        setting,
        &Replayed { recordings: recordings.len() + nested.len(), writes, counts, inner },
        &results,
        started,
    );
    crashed.truncate(WITH_FAULTS);
    let (world, base) = first.ok_or("no world was recorded")?;
    let violations = results.violations.len() + results.refused.len();
    Ok(Run { world, base, crashed, images: counts.total(), violations })
}

struct Replayed {
    recordings: usize,
    writes: usize,
    counts: Counts,
    /// Of these, images of crashed recoveries.
    inner: Counts,
}

fn report(setting: &Setting<'_>, replayed: &Replayed, results: &Results, started: Instant) {
    let Replayed { recordings, writes, counts, inner } = replayed;
    println!(
        "{}: {} images ({} prefixes, {} subsets, {} torn; {} of them crashes inside recovery), {} not mounted, {} violations, {:.0} s",
        setting.variant.name,
        counts.total(),
        counts.prefixes,
        counts.subsets,
        counts.torn,
        inner.total(),
        results.refused.len(),
        results.violations.len(),
        started.elapsed().as_secs_f32(),
    );
    println!("    {recordings} recordings, {writes} writes; recovery: {}", list(&results.recoveries));
    let refused = results.refused.iter().map(|what| format!("NOT MOUNTED: {what}"));
    let violations = results.violations.iter().map(|what| format!("VIOLATION: {what}"));
    show(refused.chain(violations));
}

fn list(counts: &BTreeMap<&'static str, usize>) -> String {
    counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
}

/// The first few, and how many more there are.
fn show(lines: impl Iterator<Item = String>) {
    const SHOWN: usize = 10;
    let lines: Vec<_> = lines.collect();
    lines.iter().take(SHOWN).for_each(|line| println!("    {line}"));
    if lines.len() > SHOWN {
        println!("    and {} more", lines.len() - SHOWN);
    }
}

/// The parts that need one disk each: the model check, failing disks, full disks.
fn examine(options: &Options, ground: &Ground, variant: &Variant, run: &Run) -> Result<usize, String> {
    let mut violations = 0;
    if !options.skips(Part::Model) {
        violations += compare_with_model(options, ground, variant)?;
    }
    if !options.skips(Part::Faults) {
        let bench = ground.bench(variant)?;
        let started = Instant::now();
        let failing = faults::failing_disk(&bench, &run.world, &run.base, &run.crashed)?;
        violations += report_faults(variant, "failing disk", &failing, started);
        let started = Instant::now();
        let full = faults::full_disk(&bench, &run.world, &run.base, &run.crashed)?;
        violations += report_faults(variant, "full disk", &full, started);
    }
    Ok(violations)
}

fn report_faults(variant: &Variant, what: &str, faults: &faults::Faults, started: Instant) -> usize {
    println!(
        "{}, {what}: {} runs, the fault was met in {}; {} images recovered, {} not mounted, {} violations, {:.0} s",
        variant.name,
        faults.runs,
        faults.fired,
        faults.images,
        faults.refused.len(),
        faults.violations.len(),
        started.elapsed().as_secs_f32(),
    );
    println!("    told: {}", list(&faults.outcomes));
    let refused = faults.refused.iter().map(|what| format!("NOT MOUNTED: {what}"));
    show(refused.chain(faults.violations.iter().map(|what| format!("VIOLATION: {what}"))));
    faults.violations.len()
}

fn compare_with_model(options: &Options, ground: &Ground, variant: &Variant) -> Result<usize, String> {
    const SMALL: usize = 3;
    const IMAGES: usize = 300;
    const STATES: usize = 4000;
    const NOISES: [usize; 4] = [0, 20, 50, 80];
    let started = Instant::now();
    let bench = ground.bench(variant)?;
    let memory = ground.scratch.path().join("memory");
    let setting = options.setting(variant, &memory, ground.scratch.path());
    let mut violations = 0;
    let (mut images, mut real, mut simulated, mut exhaustive) = (0, 0, 0, true);
    let mut unknown = Vec::new();
    for index in 0..3 {
        let world = World::new(options.seed + 100 + index, SMALL).barriers(options.barriers(index));
        let world = Arc::new(world);
        let base = bench.prepare(&world)?;
        let recordings: Result<Vec<_>, _> = NOISES
            .into_iter()
            .map(|noise| {
                let session = Session { script: Script::CommitOnly, seed: options.seed + noise as u64, noise };
                Recording::make(&bench, session.name(), &world, &base, &[1], &session)
            })
            .collect();
        let compared = model::compare(&setting, &recordings?, IMAGES, STATES)?;
        violations += compared.violations.len() + compared.unknown.len();
        images += compared.images;
        real += compared.real;
        simulated += compared.simulated;
        exhaustive &= compared.exhaustive;
        unknown.extend(compared.violations);
        unknown.extend(compared.unknown.into_iter().map(|what| format!("not in the model: {what}")));
    }
    let how = if exhaustive { "all of them" } else { "a sample" };
    println!(
        "{}, model: {images} images show {real} states; the simulator has {simulated} ({how}); {} unknown, {:.0} s",
        variant.name,
        unknown.len(),
        started.elapsed().as_secs_f32(),
    );
    show(unknown.iter().map(|what| format!("VIOLATION: {what}")));
    Ok(violations)
}

fn check_image(options: &Options, ground: &Ground, path: &Path) -> Result<usize, String> {
    let image =
        File::open(path).and_then(|file| Image::load(&file)).map_err(|error| format!("{}: {error}", path.display()))?;
    let variant = VARIANTS.iter().find(|variant| options.fs.iter().any(|name| name == variant.name));
    let variant = variant.ok_or("--check needs --fs")?;
    let world = World::new(options.world, if options.world >= 100 { 3 } else { SLOTS });
    let bench = ground.bench(variant)?;
    let mounted = bench.load(&image)?;
    let verdict = world::check(&world, bench.root(), &[1, 2, 3]);
    mounted.unmount()?;
    match verdict {
        Ok(found) => println!("generation {}, {}", found.generation, found.recovery.word()),
        Err(what) => {
            println!("VIOLATION: {what}");
            return Ok(1);
        }
    }
    Ok(0)
}
