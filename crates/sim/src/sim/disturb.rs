//! Disturbing the calls that are made: they fail, the world crashes, or another process does something between two of them.

use std::path::Path;

use crate::call::Fault;
use crate::sim::simfs::SimFs;
use crate::sim::stranger::{Stranger, place};

impl SimFs {
    /// The `n`-th call, from 1, fails.
    pub fn fail_at(&self, n: u64, fault: Fault) {
        self.shared.lock().control.at.push((n, fault));
    }

    /// From the `n`-th call on, every call that can return this error does.
    pub fn fail_from(&self, n: u64, fault: Fault) {
        self.shared.lock().control.from.push((n, fault));
    }

    /// How many calls were made to fail.
    pub fn fired(&self) -> u64 {
        self.shared.lock().control.fired
    }

    /// Faults come to an end.
    pub fn mend(&self) {
        let mut inner = self.shared.lock();
        inner.control.at.clear();
        inner.control.from.clear();
    }

    /// From the `n`-th call on nothing happens any more: each call returns EIO, and the world stays as it is.
    pub fn crash_at(&self, n: u64) {
        self.shared.lock().control.crash_at = Some(n);
    }

    /// Whether the world has crashed.
    pub fn crashed(&self) -> bool {
        self.shared.lock().control.crashed
    }

    /// Another process does something to an entry right before the `n`-th call, from 1, if it is there then.
    pub fn stranger_at(&self, n: u64, path: impl AsRef<Path>, stranger: Stranger) {
        self.shared.lock().control.strangers.plans.push((n, path.as_ref().to_path_buf(), stranger));
    }

    /// Another process does something to an entry now, if it is there.
    pub fn stranger_now(&self, path: impl AsRef<Path>, stranger: &Stranger) {
        let world = &mut self.shared.lock().world;
        if let Some((dir, slot)) = place(world, path.as_ref()) {
            stranger.act(world, dir, slot, path.as_ref());
        }
    }

    /// Somebody overwrites a file right before the `n`-th call, from 1, if it is there then; a crash can lose that.
    pub fn overwrite_at(&self, n: u64, path: impl AsRef<Path>, bytes: &[u8]) {
        self.stranger_at(n, path, Stranger::Overwrites(bytes.to_vec()));
    }

    /// The contents of files and links that other processes removed, or put something in the place of.
    pub fn taken(&self) -> Vec<Vec<u8>> {
        self.shared.lock().control.strangers.taken.clone()
    }
}
