//! Block-level replay: real commits on real file systems, on a disk that remembers every write.

mod device;
mod disk;
mod fuse;
mod images;
mod noisy;
mod random;
mod record;
mod replay;
mod variant;
mod world;

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use random::Random;
use record::{Bench, Recording, Script, Session};
use replay::Setting;
use variant::{VARIANTS, Variant};
use world::World;

fn main() -> ExitCode {
    match run() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(violations) => {
            println!("{violations} violations");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<usize, String> {
    let mut violations = 0;
    let names: Vec<String> = std::env::args().skip(1).collect();
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let scratch = tempfile::Builder::new().prefix("txfs-replay").tempdir().map_err(|error| error.to_string())?;
    let memory = scratch.path().join("memory");
    let served = scratch.path().join("disks");
    for dir in [&memory, &served] {
        std::fs::create_dir(dir).map_err(|error| error.to_string())?;
    }
    let tmpfs = device::Mounted::new("txfs-replay".as_ref(), &memory, "tmpfs", "size=8g").map_err(|error| error.to_string())?;
    let disks = fuse::Disks::serve(&served, 2)?;
    for variant in VARIANTS.iter().filter(|variant| names.is_empty() || names.iter().any(|name| name == variant.name)) {
        violations += replay_variant(variant, &disks, scratch.path(), &memory)?;
    }
    drop(disks);
    drop(tmpfs);
    Ok(violations)
}

fn replay_variant(variant: &Variant, disks: &fuse::Disks, scratch: &std::path::Path, memory: &std::path::Path) -> Result<usize, String> {
    let started = Instant::now();
    let bench = Bench::new(variant, disks, 0, scratch)?;
    let mut recordings = Vec::new();
    for seed in 0..6 {
        let world = Arc::new(World::new(seed, 12));
        let base = bench.prepare(&world)?;
        let sessions = [
            Session { script: Script::Commits, seed, noise: [0, 10, 30, 60][seed as usize % 4] },
            Session { script: Script::Undo { rename: 5 + 2 * seed as usize }, seed, noise: 30 },
        ];
        for session in sessions {
            let name = format!("world {seed}, {session:?}");
            recordings.push(Recording::make(&bench, name, &world, &base, &[1], &session)?);
        }
    }
    for recording in &recordings {
        println!("{}: {} writes, {} epochs", recording.name, recording.writes(), recording.epochs().len());
    }
    println!("recorded in {:.1} s", started.elapsed().as_secs_f32());
    let keep = PathBuf::from("target/replay");
    let setting = Setting { variant, memory, scratch, workers: 4, keep: &keep, seed: 0 };
    let mut seen = HashSet::new();
    let (counts, results) = replay::replay(&setting, &recordings, variant.budget, &mut Random::new(0, "images"), &mut seen)?;
    println!("{}: {} images {counts:?} {:?} {:?}, {:.1} s", variant.name, counts.total(), results.recoveries, results.generations, started.elapsed().as_secs_f32());
    println!("refused {}", results.refused.len());
    results.refused.iter().chain(&results.violations).take(10).for_each(|what| println!("  {what}"));
    Ok(results.violations.len())
}
