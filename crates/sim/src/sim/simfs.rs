//! The simulated file system as one process sees it: a world that it shares with other processes, and what watches and disturbs
//! its calls.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

use crate::call::{Call, Event, Fault, possible_errors};
use crate::config::Config;
use crate::crash::choices::Origin;
use crate::sim::stranger::Strangers;
use crate::world::effect::Barrier;
use crate::world::inode::Res;
use crate::world::live::World;
use crate::world::view::View;

/// A world as it was right after a call.
#[derive(Clone)]
pub(crate) struct Point {
    /// The number of the last call that took effect; 0 before the first.
    pub(crate) call: u64,
    /// What that call was.
    pub(crate) kind: Call,
    pub(crate) world: Arc<World>,
}

/// Looks at the world after each call; see [`SimFs::after_each_call`].
pub(crate) type Hook = Box<dyn FnMut(View<'_>, Event) + Send>;

/// The simulated file system, as one process sees it.
#[derive(Clone)]
pub struct SimFs {
    pub(crate) shared: Arc<Shared>,
    pub(crate) uid: u32,
}

pub(crate) struct Shared {
    pub(crate) inner: Mutex<Inner>,
    pub(crate) hook: Mutex<Option<Hook>>,
    pub(crate) origin: Option<Origin>,
}

pub(crate) struct Inner {
    pub(crate) world: World,
    pub(crate) control: Control,
}

/// What watches and disturbs the calls; no part of the world.
#[derive(Default)]
pub(crate) struct Control {
    pub(crate) log: Vec<Call>,
    pub(crate) changes: Vec<u64>,
    pub(crate) at: Vec<(u64, Fault)>,
    pub(crate) from: Vec<(u64, Fault)>,
    pub(crate) fired: u64,
    pub(crate) strangers: Strangers,
    pub(crate) crash_at: Option<u64>,
    pub(crate) crashed: bool,
    pub(crate) trace: Option<Vec<String>>,
    pub(crate) points: Option<Vec<Point>>,
    pub(crate) points_from: u64,
    pub(crate) hooked: bool,
}

impl Control {
    pub(crate) fn fault(&mut self, number: u64, call: Call) -> Option<Fault> {
        let at = self.at.iter().find(|&&(n, _)| n == number);
        let from = || self.from.iter().find(|(n, fault)| *n <= number && possible_errors(call).contains(&fault.errno));
        let fault = at.or_else(from).map(|&(_, fault)| fault);
        self.fired += u64::from(fault.is_some());
        fault
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        // A hook that panics is a failed test: what it left is as good as it was.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call on its way: its name, and what it is called with, for the trace.
pub(crate) struct Calling<D> {
    pub(crate) call: Call,
    pub(crate) detail: D,
    pub(crate) barrier: Option<Barrier>,
}

impl SimFs {
    /// An empty world: a root directory of mode 0755.
    pub fn new(config: Config) -> Self {
        let uid = config.uid;
        Self::of(World::new(config), uid, None)
    }

    pub(crate) fn of(world: World, uid: u32, origin: Option<Origin>) -> Self {
        let inner = Mutex::new(Inner { world, control: Control::default() });
        Self { shared: Arc::new(Shared { inner, hook: Mutex::new(None), origin }), uid }
    }

    pub(crate) fn rebooted(world: World, origin: Origin) -> Self {
        let uid = world.config.uid;
        Self::of(world, uid, Some(origin))
    }

    /// An independent copy of the world as it is, pending effects included: without handles, locks, faults, trace or hook.
    pub fn fork(&self) -> Self {
        Self::of(self.shared.lock().world.abandoned(), self.uid, None)
    }

    /// The same world for a process of another user.
    pub fn as_user(&self, uid: u32) -> Self {
        Self { shared: self.shared.clone(), uid }
    }

    /// The users of the group that everything belongs to.
    pub fn members(&self) -> Vec<u32> {
        self.shared.lock().world.config.members.clone()
    }
}

impl SimFs {
    /// Counts a call, puts faults into it, and lets it be watched.
    pub(crate) fn call<T>(
        &self,
        calling: Calling<impl FnOnce(View<'_>) -> String>,
        act: impl FnOnce(&mut World) -> Res<T>,
    ) -> io::Result<T> {
        let Calling { call, detail, barrier } = calling;
        let mut inner = self.shared.lock();
        let Inner { world, control } = &mut *inner;
        control.log.push(call);
        let number = control.log.len() as u64;
        assert!(number <= world.config.max_calls, "{number} calls: the caller goes round in circles");
        control.crashed |= control.crash_at.is_some_and(|n| n <= number);
        if control.crashed {
            return Err(Errno::EIO.into());
        }
        control.strangers.act(world, number);
        let version = world.version;
        let detail = control.trace.is_some().then(|| detail(View { world }));
        let result = match control.fault(number, call) {
            None => act(world),
            Some(fault) => {
                if fault.after {
                    // Whatever it returns, the caller hears of the error only.
                    drop(act(world));
                } else if let Some(barrier) = barrier {
                    world.lose(barrier, fault.lost);
                }
                Err(Errno::from_raw(fault.errno))
            }
        };
        let changed = world.version != version;
        if changed {
            control.changes.push(number);
            if let Some(points) = control.points.as_mut().filter(|_| number >= control.points_from) {
                points.push(Point { call: number, kind: call, world: Arc::new(world.clone()) });
            }
        }
        let errno = result.as_ref().err().map(|&errno| errno as i32);
        if let (Some(trace), Some(detail)) = (&mut control.trace, detail) {
            let answer = result.as_ref().err().map_or("ok".into(), |errno| format!("{errno:?}"));
            trace.push(format!("{number} {call:?} {detail} = {answer}"));
        }
        if control.hooked {
            let mut hook = self.shared.hook.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(hook) = &mut *hook {
                hook(View { world }, Event { number, call, changed, errno });
            }
        }
        result.map_err(io::Error::from)
    }
}
