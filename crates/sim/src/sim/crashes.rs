//! Crashes: the points at which one can come, and the worlds that it can leave, each a file system as a reboot finds it.

use std::fmt;
use std::sync::Arc;

use crate::call::Call;
use crate::crash::choices::Choices;
use crate::sim::simfs::{Point, SimFs};
use crate::world::live::World;
use crate::world::view::View;

/// A world as it was right after a call, from which the states that a crash there can leave are derived.
#[derive(Clone)]
pub struct CrashPoint(Point);

impl CrashPoint {
    /// The number of the last call that took effect; 0 before the first.
    pub fn call(&self) -> u64 {
        self.0.call
    }

    /// What that call was.
    pub fn kind(&self) -> Call {
        self.0.kind
    }

    /// What a crash right after the call can leave; see [`SimFs::crash_states`].
    pub fn states(&self, limit: usize) -> CrashStates {
        CrashStates::new(self.0.world.clone(), limit)
    }

    /// What the next process finds when the one that made the call is killed right after it: nothing is lost, nothing made
    /// durable either, and its locks are free.
    pub fn killed(&self) -> SimFs {
        SimFs::of(self.0.world.abandoned(), self.0.world.config.uid, None)
    }

    /// The live tree at that moment.
    pub fn view(&self) -> View<'_> {
        View { world: &self.0.world }
    }
}

impl fmt::Debug for CrashPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Point { call, kind, world } = &self.0;
        write!(f, "after call {call} ({kind:?}), {} effects pending", world.pending.len())
    }
}

/// The distinct worlds that a crash can leave, each a [`SimFs`] of its own as a reboot finds it.
pub struct CrashStates(Choices);

impl CrashStates {
    fn new(base: Arc<World>, limit: usize) -> Self {
        Self(Choices::new(base, limit))
    }

    /// Whether these are all the states there are, and not a sample.
    pub fn exhaustive(&self) -> bool {
        self.0.exhaustive()
    }

    /// How many distinct states were returned so far.
    pub fn returned(&self) -> usize {
        self.0.returned()
    }

    /// Goes on to the next distinct state without building it, and returns its [`SimFs::hash`].
    pub fn advance(&mut self) -> Option<u64> {
        self.0.advance()
    }

    /// Builds the state that [`CrashStates::advance`] went on to.
    ///
    /// # Panics
    /// When it was never called, or has returned `None`.
    pub fn build(&self) -> SimFs {
        let (world, origin) = self.0.build();
        SimFs::rebooted(world, origin)
    }
}

impl Iterator for CrashStates {
    type Item = SimFs;

    fn next(&mut self) -> Option<SimFs> {
        self.advance().map(|_| self.build())
    }
}

impl SimFs {
    /// Takes the points kept so far; recording goes on.
    pub fn crash_points(&self) -> Vec<CrashPoint> {
        let points = self.shared.lock().control.points.as_mut().map(std::mem::take).unwrap_or_default();
        points.into_iter().map(CrashPoint).collect()
    }

    /// The distinct worlds that a crash at this moment can leave: all of them where the choices combine to at most `limit`,
    /// else a sample of about that many that contains the extremes and each single loss.
    pub fn crash_states(&self, limit: usize) -> CrashStates {
        CrashStates::new(Arc::new(self.shared.lock().world.clone()), limit)
    }
}
