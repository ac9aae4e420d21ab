//! Looking at a world, and watching the calls that are made: nothing of it is a call.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use crate::call::{Call, Event};
use crate::sim::simfs::{Point, SimFs};
use crate::world::view::{Entry, Tree, View};

impl SimFs {
    /// What is at an absolute path; links are not followed.
    pub fn entry(&self, path: impl AsRef<Path>) -> Option<Entry> {
        self.look(|view| view.entry(path))
    }

    /// Everything at and below an absolute path.
    pub fn tree(&self, path: impl AsRef<Path>) -> Tree {
        self.look(|view| view.tree(path))
    }

    /// A hash of [`SimFs::tree`].
    pub fn tree_hash(&self, path: impl AsRef<Path>) -> u64 {
        self.look(|view| view.tree_hash(path))
    }

    /// A hash of everything that a process could see: equal for crash states that are the same.
    pub fn hash(&self) -> u64 {
        self.look(|view| view.hash())
    }

    /// Looks at the live tree.
    pub fn look<T>(&self, look: impl FnOnce(View<'_>) -> T) -> T {
        look(View { world: &self.shared.lock().world })
    }

    /// In a crash state: what of the crashed world became durable and what was lost, for messages.
    pub fn describe(&self) -> String {
        self.shared.origin.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        self.shared.lock().control.log.len() as u64
    }

    /// The calls made, in order: the first is number 1.
    pub fn log(&self) -> Vec<Call> {
        self.shared.lock().control.log.clone()
    }

    /// The numbers of the calls that changed the tree or what a crash can leave.
    pub fn changes(&self) -> Vec<u64> {
        self.shared.lock().control.changes.clone()
    }

    /// From now on, notes each call with its arguments and result.
    pub fn record_trace(&self) {
        self.shared.lock().control.trace = Some(Vec::new());
    }

    /// The calls noted.
    pub fn trace(&self) -> Vec<String> {
        self.shared.lock().control.trace.clone().unwrap_or_default()
    }

    /// From now on, keeps the world as it is now and after each call that changes something, so that ONE run serves to explore a
    /// crash at every call.
    pub fn record_crash_points(&self) {
        let mut inner = self.shared.lock();
        let call = inner.control.log.len() as u64;
        let kind = inner.control.log.last().copied().unwrap_or(Call::StatDir);
        let world = Arc::new(inner.world.clone());
        (inner.control.points, inner.control.points_from) = (Some(vec![Point { call, kind, world }]), 0);
    }

    /// As [`SimFs::record_crash_points`], but keeps nothing before the `n`-th call.
    pub fn record_crash_points_from(&self, n: u64) {
        let control = &mut self.shared.lock().control;
        (control.points, control.points_from) = (Some(Vec::new()), n);
    }

    /// Has `hook` look at the world after each call that is made. It must not call this file system: it is given a [`View`].
    pub fn after_each_call(&self, hook: impl FnMut(View<'_>, Event) + Send + 'static) {
        *self.shared.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
        self.shared.lock().control.hooked = true;
    }
}
