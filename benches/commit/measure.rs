//! Clocks, and what has to be still before one is started.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// A directory that goes when it is dropped, with the file system at rest afterwards.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn make(path: PathBuf) -> Outcome<Self> {
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&path)?,
        }
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        let _ = self.0.parent().map(sync);
    }
}

/// Makes everything on the file system of `dir` durable: the floor's only barrier, and the rest before each measurement.
pub(crate) fn sync(dir: &Path) -> Outcome<()> {
    Ok(nix::unistd::syncfs(File::open(dir)?)?)
}

pub(crate) fn timed(run: impl FnOnce() -> Outcome<()>) -> Outcome<Duration> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed())
}

/// Something that a round measures; it starts and stops the clock itself.
pub(crate) type Measured<'a> = &'a mut dyn FnMut() -> Outcome<Duration>;

/// Measures each of these, beginning with another one every round, each with nothing dirty on the machine before it: what others
/// have dirty is for the case `tail`, and txfs looks at it. The times are in the order given.
pub(crate) fn interleave<const N: usize>(round: usize, measured: [Measured<'_>; N]) -> Outcome<[Duration; N]> {
    let mut times = [Duration::ZERO; N];
    for step in 0..N {
        let which = (round + step) % N;
        nix::unistd::sync();
        times[which] = (measured[which])()?;
    }
    Ok(times)
}

/// The CPU time of every child that has ended so far.
pub(crate) fn children_cpu() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

fn duration(time: TimeVal) -> Duration {
    let micros = u64::try_from(time.tv_usec()).unwrap_or_default();
    Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or_default()) + Duration::from_micros(micros)
}

/// Runs a command that has to succeed, and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        return Err(
            format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into()
        );
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The value below which `share` of the values lie.
pub(crate) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    sorted.get((share * last as f64).round() as usize).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}
