//! Where guards stand: a world, its store, and what is to hold.

use txfs::Store;

use crate::explore::oracle::failed;
use crate::explore::spec::{self, FILES, Spec};
use crate::explore::tally::{Checked, Violation};
use crate::explore::world::{self, OUTPUT, World};
use crate::{Config, SimFs, Weakness};

pub(super) fn fs() -> SimFs {
    let fs = SimFs::new(Config::new(Weakness::Btrfs));
    fs.put_file("/w/outside/file", b"outside", 0o644);
    fs
}

pub(super) fn open(fs: &SimFs) -> Checked<Store<SimFs>> {
    Store::open_with(&World::options(fs), OUTPUT).map_err(|error| failed("opening", &error))
}

pub(super) fn publish(fs: &SimFs, spec: &[(&'static str, spec::Node)]) -> Checked {
    let spec: Spec = spec.iter().copied().collect();
    world::publish(fs, &spec).map(drop).map_err(|error| failed("publishing", &error))
}

pub(super) fn ensure(holds: bool, what: impl std::fmt::Debug) -> Checked {
    if holds { Ok(()) } else { Err(Violation::new("guard", format!("{what:?}"))) }
}

/// A world with one published file, in which a change takes so many nanoseconds and gets the time of a tick that began before, as on Linux.
pub(super) fn ticking(weakness: Weakness, tick: u64) -> Checked<SimFs> {
    let fs = SimFs::new(Config { mtime_granularity: 4_000_000, tick, ..Config::new(weakness) });
    fs.put_dir("/w", 0o755);
    publish(&fs, &[("a", FILES[0])])?;
    Ok(fs)
}
