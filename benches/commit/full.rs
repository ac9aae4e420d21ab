//! A whole generation staged anew in which little differs from the current one, or nothing.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::dir::{Dir, Type};
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use txfs::{BeginOptions, CommitOptions, Store, Transaction};

use crate::Place;
use crate::child::TXFS;
use crate::measure::{Outcome, Scratch, interleave, output, sync, timed};
use crate::report::{Row, head};
use crate::tree::{self, Change};
use crate::whole;

pub(crate) fn run(place: &Place<'_>) -> Outcome<()> {
    head("full", "digest and change in place");
    for files in place.options.sizes(&[10_000]) {
        let changed = |changed| Change { files, changed, removed: 0 };
        rested(place, changed(10), &format!("10 of {files} differ"))?;
        rested(place, changed(0), &format!("none of {files} differs"))?;
        by_command(place, changed(10), Row::new(format!("10 of {files} differ, `txfs commit`, which sweeps too")))?;
        dirty(place, changed(10), Row::new(format!("10 of {files} differ, the stage not written back yet")))?;
    }
    Ok(())
}

/// The kernel has written the stage back when the commit begins, so that the commit pays for what it publishes only.
fn rested(place: &Place<'_>, change: Change, name: &str) -> Outcome<()> {
    let mut spared = Row::new(name).bound(1.3);
    let mut plain = Row::new(format!("{name}; floor: digested as `std::fs` reads")).bound(1.3);
    let scene = Scene::set(place, change)?;
    for round in place.options.rounds(change.files) {
        let version = round + 1;
        // Twins of the stage, so that none finds another's access times brought up to date.
        let twins = ["twin", "sibling"].map(|name| scene.scratch.join(name));
        twins.iter().try_for_each(|twin| scene.write(twin, version))?;
        let mut transaction = scene.stage(version)?;
        let [floor, plain_floor, case] = interleave(
            round,
            [
                &mut || scene.floor(&twins[0], version, Reading::Spared),
                &mut || scene.floor(&twins[1], version, Reading::Plain),
                &mut || timed(|| commit(&mut transaction)),
            ],
        )?;
        spared.note(case, floor);
        plain.note(case, plain_floor);
        twins.iter().try_for_each(std::fs::remove_dir_all)?;
        scene.store.sweep()?;
    }
    [spared, plain].iter().for_each(Row::print);
    Ok(())
}

/// As above, by the command: it removes what was staged in vain before it ends.
fn by_command(place: &Place<'_>, change: Change, mut row: Row) -> Outcome<()> {
    let scene = Scene::set(place, change)?;
    for round in place.options.rounds(change.files) {
        let version = round + 1;
        let twin = scene.scratch.join("twin");
        scene.write(&twin, version)?;
        let stage = output(Command::new(TXFS).arg("begin").arg(scene.store.output()))?;
        scene.write(Path::new(&stage), version)?;
        let [floor, case] = interleave(
            round,
            [&mut || scene.floor(&twin, version, Reading::Spared), &mut || {
                timed(|| output(Command::new(TXFS).args(["commit", "-q", &stage])).map(drop))
            }],
        )?;
        row.note(case, floor);
        std::fs::remove_dir_all(&twin)?;
    }
    row.print();
    Ok(())
}

/// The tool has just finished: nothing of the stage has been written back.
fn dirty(place: &Place<'_>, change: Change, mut row: Row) -> Outcome<()> {
    let scene = Scene::set(place, change)?;
    for round in place.options.rounds(change.files) {
        let version = round + 1;
        let twin = scene.scratch.join("twin");
        scene.write(&twin, version)?;
        sync(place.dir)?;
        let floor = scene.floor(&twin, version, Reading::Spared)?;
        std::fs::remove_dir_all(&twin)?;
        scene.store.sweep()?;
        sync(place.dir)?;
        let mut transaction = scene.stage(version)?;
        row.note(timed(|| commit(&mut transaction))?, floor);
    }
    row.print();
    Ok(())
}

/// A published tree, and the same tree for the floor.
struct Scene {
    scratch: Scratch,
    store: Store,
    floor: PathBuf,
    change: Change,
}

impl Scene {
    fn set(place: &Place<'_>, change: Change) -> Outcome<Self> {
        let scratch = place.scratch("full")?;
        let store = Store::open(scratch.join("dist"))?;
        whole::publish(&store, change.files, 0)?;
        let floor = scratch.join("floor");
        tree::write_all(&floor, change.files, 0)?;
        Ok(Self { scratch, store, floor, change })
    }

    /// What a tool would write: all of it, with the change.
    fn write(&self, dir: &Path, version: usize) -> Outcome<()> {
        let changed: Vec<usize> = self.change.changed().collect();
        tree::write_mixed(dir, self.change.files, |i| if changed.contains(&i) { version } else { 0 })
    }

    fn stage(&self, version: usize) -> Outcome<Transaction> {
        let transaction = self.store.begin(BeginOptions::default())?;
        self.write(&transaction.stage(), version)?;
        Ok(transaction)
    }

    fn floor(&self, twin: &Path, version: usize, reading: Reading) -> Outcome<Duration> {
        let digesting = timed(|| digest(twin, reading))?;
        // Access times are no part of the change.
        sync(twin)?;
        match self.change.changed {
            0 => Ok(digesting),
            _ => Ok(digesting + timed(|| self.change.make(&self.floor, 0, version, tree::in_place))?),
        }
    }
}

fn commit(transaction: &mut Transaction) -> Outcome<()> {
    transaction.commit(&CommitOptions::default())?;
    Ok(())
}

/// How the floor reads.
#[derive(Clone, Copy)]
enum Reading {
    /// With no call that could be spared: no `stat`, no second `read`, no access times.
    Spared,
    /// As a program does that nobody has tuned.
    Plain,
}

/// BLAKE3 of every file, on two threads.
fn digest(dir: &Path, reading: Reading) -> Outcome<()> {
    let root = open_dir(dir)?;
    let directories: Vec<PathBuf> =
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().into())).collect::<Outcome<_>>()?;
    let next = AtomicUsize::new(0);
    let digest = |name: &Path, buffer: &mut [u8]| match reading {
        Reading::Spared => digest_directory(&root, name, buffer),
        Reading::Plain => digest_plainly(&dir.join(name)),
    };
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(|| digest_some(&directories, &next, digest)));
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a digesting thread panicked")?)
    })?;
    Ok(())
}

/// Digests one directory after the other, as long as there is one that no other thread has taken.
fn digest_some(
    directories: &[PathBuf],
    next: &AtomicUsize,
    digest: impl Fn(&Path, &mut [u8]) -> Result<(), std::io::Error>,
) -> Result<(), String> {
    let mut buffer = vec![0; 128 << 10];
    while let Some(directory) = directories.get(next.fetch_add(1, Ordering::Relaxed)) {
        digest(directory, &mut buffer).map_err(|error| format!("{}: {error}", directory.display()))?;
    }
    Ok(())
}

fn digest_plainly(directory: &Path) -> Result<(), std::io::Error> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::hint::black_box(blake3::hash(&std::fs::read(entry.path())?));
        }
    }
    Ok(())
}

fn digest_directory(root: &OwnedFd, directory: &Path, buffer: &mut [u8]) -> Result<(), std::io::Error> {
    let mut dir = Dir::from_fd(openat(root, directory, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?)?;
    let names: Vec<_> = dir
        .iter()
        .filter_map(|entry| match entry {
            Ok(entry) if entry.file_type() == Some(Type::File) => Some(Ok(entry.file_name().to_owned())),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
        .collect::<Result<_, _>>()?;
    for name in names {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOATIME;
        let mut file = File::from(openat(dir.as_fd(), name.as_c_str(), flags, Mode::empty())?);
        std::hint::black_box(digest_file(&mut file, buffer)?);
    }
    Ok(())
}

fn digest_file(file: &mut File, buffer: &mut [u8]) -> Result<blake3::Hash, std::io::Error> {
    let mut hasher = blake3::Hasher::new();
    loop {
        let read = file.read(buffer)?;
        hasher.update(&buffer[..read]);
        if read < buffer.len() {
            return Ok(hasher.finalize());
        }
    }
}

fn open_dir(dir: &Path) -> Outcome<OwnedFd> {
    Ok(open(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}
