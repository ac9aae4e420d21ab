//! What a durable commit costs, as a ratio to the durable floor: writing the same files in place, and one `syncfs`.
//!
//! ```sh
//! cargo bench --bench commit -- [--dir DIR] [--rounds N] [--files N]
//! ```
//!
//! Every round measures each case and its floor one after the other in the same directory; the medians of all rounds are
//! printed, in milliseconds and as ratios. Machines differ and are shared: only the ratios mean anything elsewhere.

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use txfs::{BeginOptions, CommitOptions, From, Store};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What one round measures: the case, and its floor beside it.
struct Case {
    name: &'static str,
    case: Vec<Duration>,
    floor: Vec<Duration>,
}

impl Case {
    fn new(name: &'static str) -> Self {
        Self { name, case: Vec::new(), floor: Vec::new() }
    }

    fn note(&mut self, case: Duration, floor: Duration) {
        self.case.push(case);
        self.floor.push(floor);
    }

    fn print(&mut self) {
        let (case, floor) = (median(&mut self.case), median(&mut self.floor));
        println!("{:<44} {:>9.2} ms {:>9.2} ms {:>7.2}x", self.name, ms(case), ms(floor), ms(case) / ms(floor));
    }
}

fn main() -> Outcome<()> {
    let options = Options::parse();
    fs::create_dir_all(&options.dir)?;
    let (files, rounds) = (options.files, options.rounds);
    println!("{files} files, {rounds} rounds, in {}", options.dir.display());
    println!("{:<44} {:>12} {:>12} {:>8}", "", "txfs", "floor", "ratio");
    let mut fresh = Case::new("fresh");
    let mut replaced = Case::new("everything replaced");
    let mut change = Case::new("10 changed, 5 removed, as a change");
    let mut full = Case::new("10 changed, built anew (floor: digest + 10)");
    let mut nothing = Case::new("nothing changed, built anew (floor: digest)");
    for round in 0..rounds {
        let dir = options.dir.join(format!("round-{round}"));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        measure_round(&dir, files, [&mut fresh, &mut replaced, &mut change, &mut full, &mut nothing])?;
        fs::remove_dir_all(&dir)?;
        sync(&options.dir)?;
    }
    [fresh, replaced, change, full, nothing].iter_mut().for_each(Case::print);
    Ok(())
}

fn measure_round(dir: &Path, files: usize, [fresh, replaced, change, full, nothing]: [&mut Case; 5]) -> Outcome<()> {
    let (floor_dir, out) = (dir.join("floor"), dir.join("dist"));
    let store = Store::open(&out)?;
    sync(dir)?;

    let floor = timed(|| write_in_place(&floor_dir, files, 1))?;
    let case = timed(|| build_and_commit(&store, files, 1))?;
    fresh.note(case, floor);

    let floor = timed(|| write_in_place(&floor_dir, files, 2))?;
    let case = timed(|| build_and_commit(&store, files, 2))?;
    replaced.note(case, floor);

    let floor_change = timed(|| write_some(&floor_dir, files, 3))?;
    let mut transaction = store.begin(BeginOptions::default().from(From::Current))?;
    for i in some(files) {
        transaction.write(name(i), content(i, 3))?;
    }
    for i in stale(files) {
        transaction.remove(name(i))?;
    }
    let case = timed(|| commit(transaction))?;
    change.note(case, floor_change);

    build_and_commit(&store, files, 4)?;
    let mut transaction = store.begin(BeginOptions::default())?;
    let stage = transaction.stage();
    for i in 0..files {
        let version = if some(files).any(|some| some == i) { 5 } else { 4 };
        transaction.write(name(i), content(i, version))?;
    }
    // Forget what was digested while it was written: a tool's stage has to be read.
    let transaction_stage = transaction.keep()?;
    sync(dir)?;
    let digest = timed(|| digest_all(&stage))?;
    let (_, id) = Store::parse_stage(&txfs::fs::LinuxFs::new(), &transaction_stage)?.ok_or("no stage")?;
    let case = timed(|| commit(store.resume(id)?))?;
    full.note(case, digest + floor_change);

    let mut transaction = store.begin(BeginOptions::default().detached(true))?;
    for i in 0..files {
        let version = if some(files).any(|some| some == i) { 5 } else { 4 };
        transaction.write(name(i), content(i, version))?;
    }
    let id = transaction.id();
    drop(transaction);
    sync(dir)?;
    let digest = timed(|| digest_all(&stage_of(&store, id)?))?;
    let case = timed(|| commit(store.resume(id)?))?;
    nothing.note(case, digest);
    Ok(())
}

fn stage_of(store: &Store, id: txfs::TransactionId) -> Outcome<PathBuf> {
    let open = store.transactions()?;
    Ok(open.into_iter().find(|open| open.id == id).ok_or("no such transaction")?.stage)
}

fn commit(mut transaction: txfs::Transaction<'_>) -> Outcome<()> {
    transaction.commit(&CommitOptions::default())?;
    Ok(())
}

fn build_and_commit(store: &Store, files: usize, version: u32) -> Outcome<()> {
    let mut transaction = store.begin(BeginOptions::default())?;
    let stage = transaction.stage();
    write_all(&stage, files, version)?;
    transaction.commit(&CommitOptions::default())?;
    Ok(())
}

/// The floor: no temporary names, no order, no recovery; durable when it returns.
fn write_in_place(dir: &Path, files: usize, version: u32) -> Outcome<()> {
    write_all(dir, files, version)?;
    sync(dir)
}

fn write_some(dir: &Path, files: usize, version: u32) -> Outcome<()> {
    for i in some(files) {
        fs::write(dir.join(name(i)), content(i, version))?;
    }
    for i in stale(files) {
        fs::remove_file(dir.join(name(i)))?;
    }
    sync(dir)
}

fn write_all(dir: &Path, files: usize, version: u32) -> Outcome<()> {
    for directory in 0..files.div_ceil(100) {
        fs::create_dir_all(dir.join(format!("d{directory:04}")))?;
    }
    for i in 0..files {
        fs::write(dir.join(name(i)), content(i, version))?;
    }
    Ok(())
}

/// BLAKE3 of every file, on two threads.
fn digest_all(dir: &Path) -> Outcome<()> {
    let mut directories: Vec<PathBuf> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Outcome<_>>()?;
    directories.sort();
    let (left, right) = directories.split_at(directories.len() / 2);
    std::thread::scope(|scope| {
        let halves = [left, right].map(|half| {
            scope.spawn(move || {
                for directory in half {
                    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                        std::hint::black_box(blake3::hash(&fs::read(entry.path()).unwrap_or_default()));
                    }
                }
            })
        });
        halves.into_iter().for_each(|half| drop(half.join()));
    });
    Ok(())
}

fn name(i: usize) -> String {
    format!("d{:04}/page-{i:06}.html", i / 100)
}

/// A static site's mix: most files small, some larger; 3 KB on average or so.
fn content(i: usize, version: u32) -> Vec<u8> {
    let size = [700, 1500, 2500, 3500, 9000][i % 5];
    let line = format!("page {i} version {version}\n");
    line.bytes().cycle().take(size).collect()
}

fn some(files: usize) -> impl Iterator<Item = usize> {
    (0..10).map(move |k| k * files / 10 + 3)
}

fn stale(files: usize) -> impl Iterator<Item = usize> {
    (0..5).map(move |k| k * files / 5 + 7)
}

fn sync(dir: &Path) -> Outcome<()> {
    Ok(nix::unistd::syncfs(File::open(dir)?)?)
}

fn timed(run: impl FnOnce() -> Outcome<()>) -> Outcome<Duration> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed())
}

fn median(durations: &mut [Duration]) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

struct Options {
    dir: PathBuf,
    rounds: usize,
    files: usize,
}

impl Options {
    fn parse() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let value = |name: &str| arguments.iter().position(|a| a == name).and_then(|i| arguments.get(i + 1)).cloned();
        Self {
            dir: value("--dir").map_or_else(|| PathBuf::from("target/bench-commit"), PathBuf::from),
            rounds: value("--rounds").and_then(|n| n.parse().ok()).unwrap_or(7),
            files: value("--files").and_then(|n| n.parse().ok()).unwrap_or(1000),
        }
    }
}
