//! Recovering images: each is put under a loop device, mounted, recovered and checked.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::device::Device;
use crate::disk::Image;
use crate::images::{self, Counts, Job};
use crate::random::Random;
use crate::record::Recording;
use crate::variant::Variant;
use crate::world::{self, Recovery};

/// What was found on some images.
#[derive(Default)]
pub(crate) struct Results {
    /// How often each thing was found.
    pub(crate) recoveries: BTreeMap<&'static str, usize>,
    /// Images that the kernel would not mount.
    pub(crate) refused: Vec<String>,
    pub(crate) violations: Vec<String>,
    /// Images on which recovery had work to do: to crash it in turn.
    pub(crate) work: Vec<Job>,
    seen_work: usize,
}

impl Results {
    pub(crate) fn add(&mut self, other: Self) {
        for (what, count) in other.recoveries {
            *self.recoveries.entry(what).or_default() += count;
        }
        self.refused.extend(other.refused);
        self.violations.extend(other.violations);
    }
}

const WORK_KEPT: usize = 64;

/// Where images are recovered.
pub(crate) struct Place {
    file: File,
    device: Device,
    at: PathBuf,
}

impl Place {
    pub(crate) fn new(variant: &Variant, memory: &Path, scratch: &Path, index: usize) -> Result<Self, String> {
        let path = memory.join(format!("{}{index}", variant.name));
        let make = || -> std::io::Result<File> {
            let file = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
            file.set_len(variant.size)?;
            Ok(file)
        };
        let file = make().map_err(|error| format!("{}: {error}", path.display()))?;
        let at = scratch.join(format!("{}{index}", variant.name));
        std::fs::create_dir_all(&at).map_err(|error| error.to_string())?;
        Ok(Self { file, device: Device::attach(&path)?, at })
    }

    /// Mounts `image`, looks at it, and unmounts it. `Ok(Err(…))` when the kernel will not mount it.
    pub(crate) fn with<T>(
        &self,
        variant: &Variant,
        image: &Image,
        look: impl FnOnce(&Path) -> T,
    ) -> Result<Result<T, nix::Error>, String> {
        image.save(&self.file).map_err(|error| format!("writing an image: {error}"))?;
        self.device.forget()?;
        match variant.mount(&self.device, &self.at) {
            Err(error) => Ok(Err(error)),
            Ok(mounted) => {
                let found = look(&self.at);
                mounted.unmount()?;
                Ok(Ok(found))
            }
        }
    }
}

/// Makes images of `recordings`, and recovers each.
pub(crate) fn replay(
    setting: &Setting<'_>,
    recordings: &[Recording],
    budget: usize,
    random: &mut Random,
    seen: &mut HashSet<u128>,
) -> Result<(Counts, Results), String> {
    let results = Mutex::new(Results::default());
    let (sender, receiver) = sync_channel::<Job>(2 * setting.workers);
    let receiver = Mutex::new(receiver);
    let counts = thread::scope(|scope| {
        let workers: Vec<_> = (0..setting.workers)
            .map(|index| {
                let (results, receiver) = (&results, &receiver);
                scope.spawn(move || work(setting, index, receiver, results))
            })
            .collect();
        let counts = images::generate(recordings, setting.variant, budget, random, seen, |job| {
            // Fails when every worker has gone, each with its reason.
            let _ = sender.send(job);
        });
        drop(sender);
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))?;
        Ok::<_, String>(counts)
    })?;
    Ok((counts, results.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// What replays have in common.
pub(crate) struct Setting<'a> {
    pub(crate) variant: &'a Variant,
    pub(crate) memory: &'a Path,
    pub(crate) scratch: &'a Path,
    pub(crate) workers: usize,
    /// Where images are kept that violate something.
    pub(crate) keep: &'a Path,
    pub(crate) seed: u64,
}

fn work(
    setting: &Setting<'_>,
    index: usize,
    jobs: &Mutex<Receiver<Job>>,
    results: &Mutex<Results>,
) -> Result<(), String> {
    let place = Place::new(setting.variant, setting.memory, setting.scratch, index)?;
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return Ok(()) };
        let look = |place: &Place| {
            let looked = place.with(setting.variant, &job.image, |root| world::check(&job.world, root, &job.allowed));
            looked.map_err(|error| format!("{}: {error}", job.name))
        };
        let mut looked = look(&place)?;
        if !matches!(looked, Ok(Ok(_))) {
            // The kernel may have kept something of the image before in memory: of a device that is new it has nothing, and what
            // an image shows it shows there too.
            let place = Place::new(setting.variant, setting.memory, setting.scratch, index + setting.workers)?;
            looked = look(&place)?;
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            *results.recoveries.entry("looked at again on a new device").or_default() += 1;
        }
        note(setting, job, looked, &mut results.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn note(setting: &Setting<'_>, job: Job, looked: Result<world::Verdict, nix::Error>, results: &mut Results) {
    match looked {
        Err(error) => {
            let kept = keep(setting, &job, results.refused.len());
            results.refused.push(format!("{}: {error}{kept}", job.name));
        }
        Ok(Err(what)) => {
            let kept = keep(setting, &job, results.violations.len());
            results.violations.push(format!("{}: {what}{kept}", job.name));
        }
        Ok(Ok(found)) => {
            *results.recoveries.entry(found.recovery.word()).or_default() += 1;
            if matches!(found.recovery, Recovery::RolledForward | Recovery::RolledBack) {
                results.seen_work += 1;
                // A sample of all, each as likely as any other.
                let mut random = Random::new(setting.seed ^ results.seen_work as u64, "work");
                match random.below(results.seen_work) {
                    _ if results.work.len() < WORK_KEPT => results.work.push(job),
                    at if at < WORK_KEPT => results.work[at] = job,
                    _ => {}
                }
            }
        }
    }
}

/// Keeps the first few images that show something, so that they can be mounted and looked at.
fn keep(setting: &Setting<'_>, job: &Job, number: usize) -> String {
    if number >= 5 {
        return String::new();
    }
    let path = setting.keep.join(format!("{}-{:032x}.img", setting.variant.name, job.image.hash()));
    let saved = std::fs::create_dir_all(setting.keep).and_then(|()| job.image.save(&File::create(&path)?));
    match saved {
        Ok(()) => format!(
            "\n        again: --fs {} --world {} --check {} (allowed: {:?})",
            setting.variant.name,
            job.world.seed(),
            path.display(),
            job.allowed
        ),
        Err(error) => format!("\n    the image cannot be kept: {error}"),
    }
}
