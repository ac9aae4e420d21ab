//! A file system in memory that forgets, tears and fails: [`Fs`] for proofs.
//!
//! [`SimFs`] answers as Linux does, but keeps apart what a process sees and what the disk holds. At any moment
//! [`SimFs::crash_states`] lists the worlds that a crash could leave, each a [`SimFs`] on which recovery can be run. The real
//! engine runs on it unchanged, so that a proof is about the code that ships.
//!
//! ```
//! use txfs_sim::{Config, SimFs, Weakness};
//! use txfs::fs::{Fs, RenameMode};
//!
//! let fs = SimFs::new(Config::new(Weakness::Btrfs));
//! fs.put_file("/w/page", b"old", 0o644);
//! fs.record_crash_points();
//!
//! // What is to be proved safe: here, a replacement that forgets the barrier on the file.
//! let dir = fs.open_anchor("/w".as_ref())?;
//! let mut file = fs.create_file(&dir, b"page.new", 0o644)?;
//! fs.write(&mut file, b"new")?;
//! fs.rename(&dir, b"page.new", &dir, b"page", RenameMode::Replace)?;
//! fs.sync_dir(&dir)?;
//!
//! let mut broken = 0;
//! for point in fs.crash_points() {
//!     for world in point.states(10_000) {
//!         // Recovery would run on `world` here, perhaps with crash points of its own.
//!         let page = world.entry("/w/page").expect("the page is never missing");
//!         broken += u32::from(page.content() != b"old" && page.content() != b"new");
//!     }
//! }
//! assert!(broken > 0, "the missing barrier is found");
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Invariants:
//! 1. Deterministic: the same calls on the same world give the same answers, inode numbers and times.
//! 2. A clone shares the world, as a second process does; [`SimFs::fork`] and every crash state is a world of its own, in which
//!    no handle of another world is valid (EBADF) and no lock is held.
//! 3. After a crash nothing changes the world any more, the dropping of handles included.
//!
//! `call.rs` names the calls and their errors, `world.rs` and `names.rs` are the live side, `persist.rs` the durable one, `crash.rs` what lies
//! between and `sketch.rs` what that hashes to, `view.rs` looks on.
//!
//! Not modelled: extended attributes, groups but for one that everything belongs to, quotas, atime, what a rename does to ctime, access by more than one thread at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;

mod call;
mod crash;
pub mod explore;
mod sim;
mod world;

pub use call::{Call, Fault, Lost, possible_errors};
pub use crash::choices::{CrashPoint, CrashStates};
pub use sim::handle::{SimDir, SimFile};
pub use sim::stranger::Stranger;
pub use world::view::{Entry, Tree, View};

use crash::choices::Origin;
use sim::stranger::Strangers;
use world::live::{Body, Name, ROOT, Res, Slot, World};

#[cfg(doc)]
use txfs::fs::Fs;

pub use txfs::fs::linux::Without;

/// How little order a crash keeps; the table is in `persist.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Weakness {
    /// One journal for all metadata, as ext4 and xfs: a crash keeps a prefix. File content follows its own ways.
    Ordered,
    /// The order within a directory is kept but for the names of fsynced files, none between directories; a rename between
    /// them may leave both names.
    Btrfs,
    /// What POSIX leaves open: no order between different names, not even in one directory.
    Posix,
}

/// When the number of a freed inode is given to a new one, the lowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reuse {
    /// Never, as btrfs.
    Never,
    /// Once no crash can bring the old one back.
    WhenDurable,
    /// At once. The new inode's name is then durable only after the removal of the old one.
    Immediate,
}

/// What kind of world.
#[derive(Debug, Clone)]
pub struct Config {
    /// How little order a crash keeps.
    pub weakness: Weakness,
    /// Whether inode numbers come back.
    pub reuse: Reuse,
    /// Bytes that reach the disk as one.
    pub block: usize,
    /// Whether a crash can lose modes and mtimes that were changed after an inode was made. Multiplies the states.
    pub lose_metadata: bool,
    /// The user that calls; user 0 may do anything.
    pub uid: u32,
    /// The users who belong to the group of everything; without any the bits of the group mean nothing.
    pub members: Vec<u32>,
    /// Taken off the modes of what is made.
    pub umask: u32,
    /// Features that this file system lacks.
    pub without: Without,
    /// A `write` takes at most so many bytes.
    pub short_write: Option<usize>,
    /// Nanoseconds that pass with each change.
    pub tick: u64,
    /// Nanoseconds to which mtimes are cut; more than `tick`, and two changes can leave the same mtime, as on Linux.
    pub mtime_granularity: u64,
    /// Bytes that other processes have still to be written, for good.
    pub dirty: u64,
    /// Whether files sync sooner one after the other than at the same time, as on btrfs without `ssd`.
    pub in_turn: bool,
    /// For samples of crash states.
    pub seed: u64,
    /// Calls after which the world panics, because its caller goes round in circles.
    pub max_calls: u64,
}

impl Config {
    /// A world of root's with every feature.
    pub fn new(weakness: Weakness) -> Self {
        Self {
            weakness,
            reuse: if weakness == Weakness::Ordered { Reuse::Immediate } else { Reuse::WhenDurable },
            block: 512,
            lose_metadata: true,
            uid: 0,
            members: Vec::new(),
            umask: 0o022,
            without: Without::default(),
            short_write: None,
            tick: 1_000_000,
            mtime_granularity: 1,
            dirty: 0,
            in_turn: false,
            seed: 0,
            max_calls: 10_000_000,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new(Weakness::Btrfs)
    }
}

/// What a hook learns of the call that was just made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// The number of the call, from 1.
    pub number: u64,
    /// Which it was.
    pub call: Call,
    /// Whether it changed the tree, or what a crash can leave.
    pub changed: bool,
    /// The error it returned.
    pub errno: Option<i32>,
}

/// Looks at the world after each call; see [`SimFs::after_each_call`].
type Hook = Box<dyn FnMut(View<'_>, Event) + Send>;

/// The simulated file system, as one process sees it.
#[derive(Clone)]
pub struct SimFs {
    shared: Arc<Shared>,
    uid: u32,
}

struct Shared {
    inner: Mutex<Inner>,
    hook: Mutex<Option<Hook>>,
    origin: Option<Origin>,
}

struct Inner {
    world: World,
    control: Control,
}

/// What watches and disturbs the calls; no part of the world.
#[derive(Default)]
struct Control {
    log: Vec<Call>,
    changes: Vec<u64>,
    at: Vec<(u64, Fault)>,
    from: Vec<(u64, Fault)>,
    fired: u64,
    strangers: Strangers,
    crash_at: Option<u64>,
    crashed: bool,
    trace: Option<Vec<String>>,
    points: Option<Vec<CrashPoint>>,
    points_from: u64,
    hooked: bool,
}

impl Control {
    fn fault(&mut self, number: u64, call: Call) -> Option<Fault> {
        let at = self.at.iter().find(|&&(n, _)| n == number);
        let from = || self.from.iter().find(|(n, fault)| *n <= number && possible_errors(call).contains(&fault.errno));
        let fault = at.or_else(from).map(|&(_, fault)| fault);
        self.fired += u64::from(fault.is_some());
        fault
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A hook that panics is a failed test: what it left is as good as it was.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SimFs {
    /// An empty world: a root directory of mode 0755.
    pub fn new(config: Config) -> Self {
        let uid = config.uid;
        Self::of(World::new(config), uid, None)
    }

    fn of(world: World, uid: u32, origin: Option<Origin>) -> Self {
        let inner = Mutex::new(Inner { world, control: Control::default() });
        Self { shared: Arc::new(Shared { inner, hook: Mutex::new(None), origin }), uid }
    }

    fn rebooted(world: World, origin: Origin) -> Self {
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

    // ---- building a world: no call is counted, and the result is durable at once, as is everything before it

    /// The users of the group that everything belongs to.
    pub fn members(&self) -> Vec<u32> {
        self.shared.lock().world.config.members.clone()
    }

    /// Makes the file at `path` anew, and the directories above it where they are missing (mode 0755).
    pub fn put_file(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) {
        self.put(path.as_ref(), |world, uid, dir, name| {
            world.remove_all(dir, name);
            let slot = world.create(0, dir, name, mode, Body::File(world::live::FileBody::default()))?;
            world.live_mut(slot).uid = uid;
            world.disk_mut(slot).uid = uid;
            world.write(slot, 0, bytes)
        });
    }

    /// Makes a directory, or gives the one at `path` the mode.
    pub fn put_dir(&self, path: impl AsRef<Path>, mode: u32) {
        self.put(path.as_ref(), |world, uid, dir, name| {
            let slot = make_dir(world, uid, dir, name)?;
            world.set_mode(0, slot, mode)
        });
    }

    /// Makes a symbolic link anew.
    pub fn put_symlink(&self, path: impl AsRef<Path>, target: impl AsRef<[u8]>) {
        self.put(path.as_ref(), |world, _, dir, name| {
            world.remove_all(dir, name);
            world.create(0, dir, name, 0o777, Body::Symlink(target.as_ref().into())).map(drop)
        });
    }

    /// Makes something that is neither file, directory nor symbolic link.
    pub fn put_other(&self, path: impl AsRef<Path>) {
        self.put(path.as_ref(), |world, _, dir, name| {
            world.remove_all(dir, name);
            world.create(0, dir, name, 0o644, Body::Other).map(drop)
        });
    }

    /// Makes an empty directory that is the root of another file system.
    pub fn put_mount(&self, path: impl AsRef<Path>) {
        self.put(path.as_ref(), |world, uid, dir, name| {
            world.remove_all(dir, name);
            let slot = make_dir(world, uid, dir, name)?;
            world.mount(slot);
            Ok(())
        });
    }

    /// Makes `new` a second name of the file at `path`.
    pub fn put_link(&self, path: impl AsRef<Path>, new: impl AsRef<Path>) {
        let (old_dir, old_name) = self.place(path.as_ref());
        self.put(new.as_ref(), |world, _, dir, name| {
            world.remove_all(dir, name);
            world.link(0, old_dir, &old_name, dir, name)
        });
    }

    /// Overwrites a file from its start, the inode staying the same.
    pub fn overwrite(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.put(path.as_ref(), |world, _, dir, name| {
            let slot = world.lookup(dir, name).ok_or(Errno::ENOENT)?;
            world.write(slot, 0, bytes)
        });
    }

    /// Gives an entry to another user.
    pub fn put_owner(&self, path: impl AsRef<Path>, uid: u32) {
        self.put(path.as_ref(), |world, _, dir, name| {
            let slot = world.lookup(dir, name).ok_or(Errno::ENOENT)?;
            world.set_owner(0, slot, Some(uid))
        });
    }

    /// Sets the permission bits of an entry.
    pub fn put_mode(&self, path: impl AsRef<Path>, mode: u32) {
        self.put(path.as_ref(), |world, _, dir, name| {
            let slot = world.lookup(dir, name).ok_or(Errno::ENOENT)?;
            world.set_mode(0, slot, mode)
        });
    }

    /// Removes an entry with everything below it; nothing there is no error.
    pub fn remove(&self, path: impl AsRef<Path>) {
        self.put(path.as_ref(), |world, _, dir, name| {
            world.remove_all(dir, name);
            Ok(())
        });
    }

    /// Everything so far is durable, as after an orderly shutdown; not counted as a call.
    pub fn settle(&self) {
        self.shared.lock().world.settle_all();
    }

    fn put(&self, path: &Path, act: impl FnOnce(&mut World, u32, Slot, &[u8]) -> Res<()>) {
        let (dir, name) = self.place(path);
        let mut inner = self.shared.lock();
        let uid = self.uid;
        let result = act(&mut inner.world, uid, dir, &name);
        assert!(result.is_ok(), "cannot build {}: {result:?}", path.display());
        inner.world.settle_all();
    }

    /// The directory that holds `path`, made where it is missing, and the name.
    fn place(&self, path: &Path) -> (Slot, Name) {
        use std::os::unix::ffi::OsStrExt;
        let mut inner = self.shared.lock();
        let names: Vec<Name> = path.iter().map(|name| name.as_bytes().into()).collect();
        let (name, dirs) = names.split_last().expect("a path to build at is not empty");
        let dir = dirs
            .iter()
            .filter(|name| name.as_ref() != b"/")
            .try_fold(ROOT, |dir, name| make_dir(&mut inner.world, self.uid, dir, name));
        (dir.expect("a path to build at leads through directories"), name.clone())
    }

    // ---- looking; no call is counted

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

    // ---- watching

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
        (inner.control.points, inner.control.points_from) = (Some(vec![CrashPoint { call, kind, world }]), 0);
    }

    /// As [`SimFs::record_crash_points`], but keeps nothing before the `n`-th call.
    pub fn record_crash_points_from(&self, n: u64) {
        let control = &mut self.shared.lock().control;
        (control.points, control.points_from) = (Some(Vec::new()), n);
    }

    /// Takes the points kept so far; recording goes on.
    pub fn crash_points(&self) -> Vec<CrashPoint> {
        self.shared.lock().control.points.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Has `hook` look at the world after each call that is made. It must not call this file system: it is given a [`View`].
    pub fn after_each_call(&self, hook: impl FnMut(View<'_>, Event) + Send + 'static) {
        *self.shared.hook.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(hook));
        self.shared.lock().control.hooked = true;
    }

    // ---- disturbing

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

    /// The distinct worlds that a crash at this moment can leave: all of them where the choices combine to at most `limit`,
    /// else a sample of about that many that contains the extremes and each single loss.
    pub fn crash_states(&self, limit: usize) -> CrashStates {
        CrashStates::new(Arc::new(self.shared.lock().world.clone()), limit)
    }
}

fn make_dir(world: &mut World, uid: u32, dir: Slot, name: &[u8]) -> Res<Slot> {
    match world.lookup(dir, name) {
        Some(slot) if world.is_dir(slot) => Ok(slot),
        Some(_) => Err(Errno::ENOTDIR),
        None => {
            let slot = world.create(0, dir, name, 0o755, Body::Directory(Vec::new()))?;
            world.live_mut(slot).uid = uid;
            world.disk_mut(slot).uid = uid;
            Ok(slot)
        }
    }
}

/// A call on its way: its name, and what it is called with, for the trace.
struct Calling<D> {
    call: Call,
    detail: D,
    barrier: Option<world::persist::Barrier>,
}

impl SimFs {
    /// Counts a call, puts faults into it, and lets it be watched.
    fn call<T>(
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
                points.push(CrashPoint { call: number, kind: call, world: Arc::new(world.clone()) });
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

fn absolute(way: &[(Name, Slot)]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let mut path = PathBuf::from("/");
    path.extend(way.iter().map(|(name, _)| std::ffi::OsStr::from_bytes(name)));
    path
}

#[cfg(test)]
mod tests;
