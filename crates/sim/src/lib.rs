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
//! From the top down:
//!
//! - [`explore`]: the crash proof of txfs;
//! - `sim`: a world as the file system of a process, which can be built, watched and disturbed, and crashes;
//! - `crash`: what a crash can leave of a world;
//! - `world`: the live side and the durable one, and what lies between;
//! - `call` names the calls and their errors, `config` the kinds of worlds, `hash` what tells worlds apart.
//!
//! Not modelled: extended attributes, groups but for one that everything belongs to, quotas, atime, what a rename does to ctime, access by more than one thread at a time.

mod call;
mod config;
mod crash;
pub mod explore;
mod hash;
mod sim;
mod world;

pub use call::{Call, Event, Fault, Lost, possible_errors};
pub use config::{Config, Reuse, Weakness, Without};
pub use sim::crashes::{CrashPoint, CrashStates};
pub use sim::handle::{SimDir, SimFile};
pub use sim::simfs::SimFs;
pub use sim::stranger::Stranger;
pub use world::view::{Entry, Tree, View};

#[cfg(doc)]
use txfs::fs::Fs;

#[cfg(test)]
mod tests;
