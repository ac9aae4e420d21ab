//! What a disk is told during a commit, written down.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use txfs::fs::{Fs, LinuxFs};
use txfs::{OpenOptions, Store};

use crate::device::{Device, Mounted};
use crate::disk::{Event, Image, Mark};
use crate::fuse::{Disks, Shared};
use crate::noisy::Noisy;
use crate::variant::Variant;
use crate::world::{self, NOISE, OUTPUT, World};

/// A disk that is watched, under a loop device, with a file system to be mounted from it.
pub(crate) struct Bench<'v> {
    pub(crate) variant: &'v Variant,
    pub(crate) disk: Shared,
    device: Device,
    at: PathBuf,
}

impl<'v> Bench<'v> {
    pub(crate) fn new(variant: &'v Variant, disks: &Disks, index: usize, scratch: &Path) -> Result<Self, String> {
        let (disk, file) = disks.disk(index);
        disk.lock().image = Image::new(variant.size);
        let at = scratch.join(format!("bench{index}"));
        std::fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        Ok(Self { variant, device: Device::attach(&file)?, disk, at })
    }

    /// A file system with generation 1 of `world` on it, unmounted.
    pub(crate) fn prepare(&self, world: &World) -> Result<Image, String> {
        self.disk.lock().image = Image::new(self.variant.size);
        self.device.forget()?;
        self.variant.make(&self.device)?;
        let mounted = self.mount()?;
        self.check_order()?;
        world.prepare(&self.at).map_err(|error| format!("preparing: {error}"))?;
        let failed = |error| format!("generation 1: {error}");
        let store = Store::open(self.output()).map_err(failed)?;
        world.stage(&store, 1).and_then(|mut staged| staged.commit()).map_err(failed)?;
        drop(store);
        mounted.unmount()?;
        Ok(self.disk.lock().image.clone())
    }

    /// The simulator syncs in the order that is named here: it has to be the one in which the kernel is asked.
    fn check_order(&self) -> Result<(), String> {
        let kernel = LinuxFs::new();
        let root = kernel.open_anchor(&self.at).map_err(|error| error.to_string())?;
        if kernel.syncs_in_turn(&root) == self.variant.in_turn {
            return Ok(());
        }
        Err(format!("{}: files are not synced in the order that variant.rs names", self.variant.name))
    }

    /// Puts `image` on the disk and mounts it.
    pub(crate) fn load(&self, image: &Image) -> Result<Mounted, String> {
        self.disk.lock().image = image.clone();
        self.mount()
    }

    /// Mounts what is on the disk.
    pub(crate) fn mount(&self) -> Result<Mounted, String> {
        self.device.forget()?;
        self.variant.mount(&self.device, &self.at).map_err(|error| format!("mounting {}: {error}", self.variant.name))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.at
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.at.join(OUTPUT)
    }

    pub(crate) fn sync(&self) -> Result<(), String> {
        File::open(&self.at)
            .and_then(|root| Ok(nix::unistd::syncfs(&root)?))
            .map_err(|error| format!("syncing {}: {error}", self.variant.name))
    }
}

/// What is done while a disk is watched.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Script {
    /// Generations 2 and 3 are staged and committed.
    Commits,
    /// A rename of the commit of generation 2 fails, so that it is undone.
    Undo { rename: usize },
    /// Generation 2 is committed: what was staged is durable before the disk is watched.
    CommitOnly,
    /// What a crash left is recovered.
    Recovery,
}

/// How a recording is made.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) script: Script,
    pub(crate) seed: u64,
    /// Percent of the calls at which neighbours sync something.
    pub(crate) noise: usize,
}

impl Session {
    pub(crate) fn name(&self) -> String {
        let Self { script, seed, noise } = self;
        format!("{script:?} (seed {seed}, noise {noise} %)")
    }
}

/// What a disk was told.
#[derive(Debug, Clone)]
pub(crate) struct Recording {
    pub(crate) name: String,
    pub(crate) world: Arc<World>,
    base: Image,
    /// What recovery may find at the start.
    allowed: Vec<usize>,
    events: Vec<Event>,
}

impl Recording {
    pub(crate) fn make(
        bench: &Bench<'_>,
        name: String,
        world: &Arc<World>,
        base: &Image,
        allowed: &[usize],
        session: &Session,
    ) -> Result<Self, String> {
        let mounted = bench.load(base)?;
        let noise = File::options().append(true).open(bench.root().join(NOISE)).map_err(|error| error.to_string())?;
        let fs = Noisy::new(session.seed, session.noise, Some(noise));
        let staged_before = matches!(session.script, Script::CommitOnly);
        if !staged_before {
            bench.sync()?;
        }
        let before = bench.disk.lock().image.clone();
        bench.disk.lock().watch(None);
        let played = play(bench, world, &fs, session.script);
        drop(fs);
        let unmounted = mounted.unmount();
        let (mut events, _) = bench.disk.lock().mend();
        played.and(unmounted)?;
        let mut base = before;
        if staged_before {
            let started = events.iter().position(|event| matches!(event, Event::Mark(_))).unwrap_or_default();
            for event in events.drain(..started) {
                if let Event::Write { offset, bytes } = event {
                    base.write(offset, &bytes);
                }
            }
        }
        Ok(Self { name, world: world.clone(), base, allowed: allowed.to_vec(), events })
    }

    /// The writes between two flushes, with what recovery may find when some of them reached the disk.
    pub(crate) fn epochs(&self) -> Vec<Epoch> {
        let mut epochs = Vec::new();
        let mut epoch = Epoch { base: self.base.clone(), writes: Vec::new(), allowed: self.allowed.clone() };
        for event in &self.events {
            match event {
                Event::Write { offset, bytes } => epoch.writes.push((*offset, bytes.clone())),
                Event::Flush => {
                    let next = Epoch { base: epoch.whole(), writes: Vec::new(), allowed: epoch.allowed.clone() };
                    epochs.push(std::mem::replace(&mut epoch, next));
                }
                Event::Mark(Mark::Started(generation)) if !epoch.allowed.contains(generation) => {
                    epoch.allowed.push(*generation);
                }
                Event::Mark(Mark::Started(_)) => {}
                Event::Mark(Mark::Settled(generation)) => epoch.allowed = vec![*generation],
            }
        }
        epochs.push(epoch);
        epochs
    }

    pub(crate) fn writes(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Write { .. })).count()
    }
}

/// What was written between two flushes: any part of it may be lost.
#[derive(Debug, Clone)]
pub(crate) struct Epoch {
    /// Everything that was flushed.
    pub(crate) base: Image,
    pub(crate) writes: Vec<(u64, Arc<[u8]>)>,
    pub(crate) allowed: Vec<usize>,
}

impl Epoch {
    pub(crate) fn whole(&self) -> Image {
        let mut image = self.base.clone();
        self.writes.iter().for_each(|(offset, bytes)| image.write(*offset, bytes));
        image
    }
}

fn play(bench: &Bench<'_>, world: &World, fs: &Noisy, script: Script) -> Result<(), String> {
    let mark = |mark| bench.disk.lock().mark(mark);
    let failed = |error: txfs::Error| format!("recording {script:?}: {error}");
    let options = OpenOptions::with(fs.clone()).barriers(world.barriers);
    if let Script::Recovery = script {
        let found = world::check_recovery_on(world, &options, bench.root(), &[1, 2, 3])?;
        mark(Mark::Settled(found.generation));
        return Ok(());
    }
    let store = Store::open_with(&options, bench.output()).map_err(failed)?;
    match script {
        Script::Commits => {
            for generation in [2, 3] {
                let mut staged = world.stage(&store, generation).map_err(failed)?;
                mark(Mark::Started(generation));
                staged.commit().map_err(failed)?;
                mark(Mark::Settled(generation));
            }
        }
        Script::CommitOnly => {
            let mut staged = world.stage(&store, 2).map_err(failed)?;
            bench.sync()?;
            mark(Mark::Started(2));
            staged.commit().map_err(failed)?;
            mark(Mark::Settled(2));
        }
        Script::Undo { rename } => {
            let mut staged = world.stage(&store, 2).map_err(failed)?;
            mark(Mark::Started(2));
            fs.arm(rename);
            match staged.commit() {
                Ok(_) => mark(Mark::Settled(2)),
                Err(error) if error.outcome() == txfs::Outcome::Unchanged => mark(Mark::Settled(1)),
                Err(error) => return Err(failed(error)),
            }
        }
        Script::Recovery => unreachable!("handled above"),
    }
    Ok(())
}
