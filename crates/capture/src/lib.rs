//! Diverts what a command and its children write below a directory, the *output*, without the command's knowing.
//!
//! The command runs in a mount namespace of its own (and, unless its user is root, in a user namespace in which the user has its own
//! number). Where the output is it sees an overlay of it, or another directory; all of what it writes there goes to a directory of the
//! caller. Outside nothing of it is seen, and the output does not change.
//!
//! ```text
//! caller --fork--> keeper --fork--> command --> ...
//!                    |  answers rmdir, mkdir, rename of the output (supervisor), forwards signals, ends what is left
//!                    +- holds the mounts: overlay | directory | nothing at all (roots)
//! ```
//!
//! The output is a mount point then, and the kernel lets nobody remove or rename one. So the command's calls that would do that are
//! asked about by a seccomp filter, and the keeper answers them: the output can be removed, and is not there then, made anew, have a new
//! directory moved onto it, or be moved away.
//!
//! Invariants:
//! 1. The output does not change while the command runs, by whatever path relative to the command's own root it is written to.
//! 2. The command runs captured, or not at all.
//! 3. When [`Running::end`] returns, no process is left that can write to what was captured ([`Captured::survived`] says if one cannot be
//!    killed).
//! 4. No process gets rights that its user has not without a capture.
//!
//! When the caller or the keeper is killed, the other kills all that runs, the mounts go with it, and nothing is left but what is in the
//! caller's directory; [`remove`] removes that. When both are killed at once, children of the command may run on: what they write goes
//! to the caller's directory still.
//!
//! # Limits
//! - A capture is no prison. A command of root can leave it (`nsenter`), and a daemon that was started before writes to the output itself.
//! - A descriptor of the output that the command inherits, and another mount of it elsewhere, lead to the output itself.
//! - As on any overlay: `rename` of a directory that was there before says EXDEV, upon which `mv` copies, but not every program does. A
//!   hard link of what was there before is broken when it is written to. A descriptor that was opened for reading before another wrote
//!   to the file shows the old content. A captured directory has none of that.
//! - The output is on another file system than its neighbours: links and renames from there into it say EXDEV.
//! - The output that was removed and not made again is listed by its parent still, though whoever looks for it does not find it. Who
//!   opens it as a file, executes it, links to it, or changes its mode, time or size is not told so. It can be made again as a directory
//!   only.
//! - `io_uring` says ENOSYS, as many containers have it; programs of an unknown kind of call cannot run.
//! - An ordinary user has no `sudo` inside: nobody else has a number there.
//! - A process tree has one supervisor of calls: no capture inside a capture ([`Gate::Nested`]).
//! - An output that is not there is made, empty, for as long as the command runs; the command does not see that. A kill leaves it.

mod calls;
mod capture;
mod gate;
mod keeper;
mod probe;
mod report;
mod roots;
mod space;
mod supervisor;
mod survivors;
mod sys;
mod upper;
mod walk;

pub use capture::{Capture, Captured, Error, Root, Running, Stage, remove};
pub use gate::{Gate, Refusal};
pub use keeper::Linger;
pub use probe::{Probe, probe};
pub use upper::{Change, Changes, changes, flatten};
