//! Noticing that something gets a name in a directory, or that the directory goes.
//!
//! Nothing rests on it: where the kernel tells of nothing (another machine's changes, no watches left), whoever waits looks again after a
//! while. Nothing is written.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

/// Names that a directory gets, as the kernel tells of them.
pub(crate) struct Notice(OwnedFd);

impl Notice {
    /// `None` where the kernel has no more watches to give.
    pub(crate) fn of(dir: &OwnedFd) -> Option<Self> {
        let notice = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        let path = format!("/proc/self/fd/{}", dir.as_raw_fd());
        let what = WatchFlags::MOVED_TO | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
        inotify::add_watch(&notice, path, what).ok()?;
        Some(Self(notice))
    }

    /// Waits for the next, not longer than `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit));
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut told = Reader::new(&self.0, &mut buffer);
        while told.next().is_ok() {}
    }
}
