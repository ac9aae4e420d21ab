//! The tail of small commits while something else keeps the disk busy, beside files that are made durable one by one.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use txfs::{Basis, BeginOptions, CommitOptions, Store};

use crate::Place;
use crate::calls::Calls;
use crate::child::TXFS;
use crate::measure::{Outcome, interleave, ms, output, quantile, sync};
use crate::report::mark;
use crate::tree::{self, Change, Content};
use crate::whole;

/// Commits of which the tail is taken.
const COMMITS: usize = 200;
const CHANGE: Change = Change { files: 1_000, changed: 10, removed: 0 };

/// Bytes a second that the neighbour writes.
const RATE: f64 = 200e6;
const PIECE: usize = 1 << 20;
/// It writes the same file over and over.
const PIECES: usize = 256;

pub(crate) fn run(place: &Place<'_>) -> Outcome<()> {
    let scratch = place.scratch("tail")?;
    let single = scratch.join("single");
    tree::write_all(&single, CHANGE.files, 0)?;
    let store = Store::open(scratch.join("dist"))?;
    whole::publish(&store, CHANGE.files, 0)?;
    sync(place.dir)?;
    let quiet = series(&store, &single, 0, true)?;
    let (noisy, rate) = beside_a_writer(&scratch.join("noise"), || series(&store, &single, COMMITS, false))?;
    print(&quiet, &noisy, rate);
    println!();
    [CHANGE.changed, CHANGE.files].into_iter().try_for_each(|changed| barriers(scratch.path(), changed))
}

/// What a commit waits for, whatever its size.
fn barriers(scratch: &Path, changed: usize) -> Outcome<()> {
    let out = scratch.join(format!("barriers-{changed}"));
    whole::publish(&Store::open(&out)?, CHANGE.files, 0)?;
    let stage = output(Command::new(TXFS).arg("begin").arg(&out))?;
    tree::write_mixed(Path::new(&stage), CHANGE.files, |i| usize::from(i < changed))?;
    let calls = Calls::of(&[Path::new("commit"), Path::new("-q"), Path::new(&stage)])?;
    let barriers = calls.map_or("not counted, there is no strace".into(), |calls| calls.barriers().join(", "));
    println!("Barriers of a commit that changes {changed} files of {}: {barriers}.\n", CHANGE.files);
    Ok(())
}

/// Times in milliseconds, of either way.
struct Series {
    commits: Vec<f64>,
    single: Vec<f64>,
}

/// Measurements at `rest` begin with nothing dirty on the machine.
fn series(store: &Store, single: &Path, first: usize, rest: bool) -> Outcome<Series> {
    let mut series = Series { commits: Vec::new(), single: Vec::new() };
    for round in first..first + COMMITS {
        let mut commit = || publish(store, round + 1);
        let mut one_by_one = || publish_one_by_one(single, round + 1);
        let [commit, single] = match rest {
            true => interleave(round, [&mut commit, &mut one_by_one])?,
            false if round % 2 == 0 => [commit()?, one_by_one()?],
            false => {
                let single = one_by_one()?;
                [commit()?, single]
            }
        };
        series.commits.push(ms(commit));
        series.single.push(ms(single));
    }
    Ok(series)
}

fn publish(store: &Store, version: usize) -> Outcome<Duration> {
    let start = Instant::now();
    let mut transaction = store.begin(BeginOptions::default().from(Basis::Current))?;
    let mut content = Content::new();
    for i in CHANGE.changed() {
        transaction.write(tree::name(i), content.of(CHANGE.files, i, version))?;
    }
    transaction.commit(&CommitOptions::default())?;
    Ok(start.elapsed())
}

/// What careful programs do for each file by itself: write, `fsync`, rename, `fsync` of the directory.
fn publish_one_by_one(dir: &Path, version: usize) -> Outcome<Duration> {
    let start = Instant::now();
    let mut content = Content::new();
    for i in CHANGE.changed() {
        let path = dir.join(tree::name(i));
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(content.of(CHANGE.files, i, version))?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(path.parent().ok_or("a file is in a directory")?)?.sync_all()?;
    }
    Ok(start.elapsed())
}

/// Runs something while a thread writes beside it, and says how much that wrote a second.
fn beside_a_writer<T>(file: &Path, run: impl FnOnce() -> Outcome<T>) -> Outcome<(T, f64)> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(file, &done));
        let result = run();
        done.store(true, Ordering::Relaxed);
        let rate = writer.join().map_err(|_| "the writer panicked")??;
        Ok((result?, rate))
    })
}

fn write_until(file: &Path, done: &AtomicBool) -> Result<f64, std::io::Error> {
    let file = File::create(file)?;
    let piece = vec![0x5a; PIECE];
    let start = Instant::now();
    let mut written = 0;
    while !done.load(Ordering::Relaxed) {
        file.write_all_at(&piece, (written % PIECES * PIECE) as u64)?;
        written += 1;
        let due = Duration::from_secs_f64((written * PIECE) as f64 / RATE);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    Ok((written * PIECE) as f64 / start.elapsed().as_secs_f64())
}

fn print(quiet: &Series, noisy: &Series, rate: f64) {
    println!("| 10 files, {COMMITS} times | p50, ms | p90, ms | p99, ms | bound of p99 |");
    println!("|---|---:|---:|---:|---:|");
    let p99 = |times: &[f64]| quantile(times, 0.99);
    let bound = 3.0 * p99(&quiet.commits).min(p99(&noisy.single));
    line("txfs, quiet", &quiet.commits, None);
    line("one by one, quiet", &quiet.single, None);
    line(&format!("txfs, {:.0} MB/s beside it", rate / 1e6), &noisy.commits, Some(bound));
    line(&format!("one by one, {:.0} MB/s beside it", rate / 1e6), &noisy.single, None);
}

fn line(name: &str, times: &[f64], bound: Option<f64>) {
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|share| quantile(times, share));
    let bound = bound.map(|bound| format!("{bound:.2}{}", mark(p99, bound))).unwrap_or_default();
    println!("| {name} | {p50:.2} | {p90:.2} | {p99:.2} | {bound} |");
}
