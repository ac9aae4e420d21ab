//! [`Machine`] on Linux.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::Ordering;
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::rand::{GetRandomFlags, getrandom};

use super::LinuxFs;
use crate::fs::sealed::Sealed;
use crate::fs::{Machine, Timestamp};

#[doc(hidden)]
impl Sealed for LinuxFs {}

impl Machine for LinuxFs {
    fn user(&self) -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn group(&self) -> u32 {
        rustix::process::getegid().as_raw()
    }

    fn belongs_to(&self, group: u32) -> io::Result<bool> {
        Ok(self.group() == group || rustix::process::getgroups()?.iter().any(|other| other.as_raw() == group))
    }

    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() }
    }

    fn elapsed(&self) -> Duration {
        static FIRST_ASKED: LazyLock<Instant> = LazyLock::new(Instant::now);
        FIRST_ASKED.elapsed()
    }

    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn boot(&self) -> io::Result<String> {
        Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
    }

    fn unique(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        random(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn parallelism(&self) -> usize {
        // To find out takes a dozen system calls.
        static PARALLELISM: OnceLock<usize> = OnceLock::new();
        *PARALLELISM.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get().min(8)))
    }

    fn dirty(&self) -> io::Result<u64> {
        // One read: procfs tells no length, and computes the file anew for each read.
        let mut meminfo = String::with_capacity(8 << 10);
        File::open("/proc/meminfo")?.read_to_string(&mut meminfo)?;
        // Pages under writeback are waited for just as dirty ones are.
        let bytes = ["Dirty:", "Writeback:"].map(|name| meminfo_bytes(&meminfo, name));
        bytes.into_iter().sum::<Option<u64>>().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn is_interrupted(&self) -> bool {
        self.interrupt.as_ref().is_some_and(|interrupt| interrupt.load(Ordering::Relaxed))
    }
}

/// Random bytes for names, not for secrets. They come from the kernel itself, for a chroot may have no /dev, and without waiting, for
/// a machine that boots may have gathered little. A kernel before 5.6 does not know that flag; a filter may forbid the call.
fn random(bytes: &mut [u8; 8]) -> io::Result<()> {
    if getrandom(&mut bytes[..], GetRandomFlags::INSECURE) == Ok(bytes.len()) {
        return Ok(());
    }
    File::open("/dev/urandom").and_then(|mut device| device.read_exact(bytes)).or_else(|error| {
        let drawn = getrandom(&mut bytes[..], GetRandomFlags::empty());
        if drawn == Ok(bytes.len()) { Ok(()) } else { Err(error) }
    })
}

/// What a line of /proc/meminfo says, which counts in units of 1024 bytes.
fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}
