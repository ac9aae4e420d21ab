//! What the engine asks of the machine rather than of a file system: the clock, the user, the boot, the processors, how to wait
//! and whether to stop.

use std::io;
use std::time::Duration;

use super::Timestamp;
use super::sealed::Sealed;

/// The machine that the engine runs on, and the process that it runs in. Sealed, as [`Fs`](super::Fs) is.
pub trait Machine: Sealed {
    /// The effective user.
    fn user(&self) -> u32;
    /// The effective group, which new files have, but in a directory with the set-group-id bit.
    fn group(&self) -> u32;
    /// Whether this process belongs to a group, by its effective one or another.
    fn belongs_to(&self, group: u32) -> io::Result<bool>;

    /// The time of day, by a clock that may be set.
    fn now(&self) -> Timestamp;
    /// The time since a fixed moment, by a clock that nobody sets.
    fn elapsed(&self) -> Duration;
    /// Waits before something is tried again.
    fn pause(&self, duration: Duration);

    /// Names the current boot of the machine: what was not made durable in another boot may be lost.
    fn boot(&self) -> io::Result<String>;
    /// A number that no other transaction has.
    fn unique(&self) -> io::Result<u64>;
    /// How many threads may digest at a time.
    fn parallelism(&self) -> usize;
    /// Bytes that the machine has still to write, for whichever file system and process: a bound for each of them.
    fn dirty(&self) -> io::Result<u64>;

    /// Whether whoever called the engine wants it to stop ([`OpenOptions::interrupted_by`](crate::OpenOptions::interrupted_by)). It is asked where
    /// stopping changes nothing, and nowhere after the commit point.
    fn is_interrupted(&self) -> bool;
}
