//! The system calls that have no safe wrapper. Nothing here decides anything.

#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::{ForkResult, Pid};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Forks. `None` is the child, which has one thread and ends by [`exit`] or an `exec`.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: the child uses what this crate calls only: system calls, and the allocator, which the C library makes usable in the child of a
    // process with threads. It takes no lock that another thread may have held.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// Ends a forked process without what the process it is a copy of wants to do at its end.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: always allowed; it does not return.
    unsafe { libc::_exit(code) }
}

/// Has the child of `command` do something before it becomes the program.
pub(crate) fn before_exec(command: &mut Command, act: impl FnMut() -> io::Result<()> + Send + Sync + 'static) {
    // SAFETY: as for `fork`: the closure makes system calls and allocates.
    unsafe { command.pre_exec(act) };
}

/// Closes every descriptor but some.
pub(crate) fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    let mut from = 0;
    for fd in keep {
        if fd > from {
            close_range(from, fd - 1)?;
        }
        from = fd + 1;
    }
    close_range(from, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the caller is a forked process that ends by `exit`: no object that owns one of them is used or dropped any more.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts this process, and what it will start, under a filter. Returns the descriptor on which the calls arrive that it asks about.
pub(crate) fn install(program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    // Without the second flag a signal would have a call made twice that has been answered already; Linux has it since 5.19.
    let flags = [
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
    ];
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for flags in flags {
        // SAFETY: the kernel reads `len` instructions of `program`, which outlives the call, and writes none.
        let fd = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
        if fd >= 0 {
            let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
            // SAFETY: the kernel has just made it, and nobody else knows it.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        last = io::Error::last_os_error();
        if last.raw_os_error() != Some(libc::EINVAL) {
            break;
        }
    }
    Err(last)
}

/// A call that waits for an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notice {
    pub(crate) id: u64,
    pub(crate) pid: i32,
    pub(crate) arch: u32,
    pub(crate) nr: i32,
    pub(crate) args: [u64; 6],
}

/// What a waiting call gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The kernel does it, as if nobody had asked.
    Continue,
    /// It returns 0.
    Done,
    /// It fails.
    Fail(i32),
}

/// Where calls arrive.
pub(crate) struct Listener {
    fd: OwnedFd,
    /// Room for what the kernel writes, which may be more than this program knows of.
    notice: Vec<u64>,
    response: Vec<u64>,
}

impl Listener {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
        // SAFETY: the kernel writes one struct of this type.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let room = |theirs: u16, ours: usize| vec![0; usize::from(theirs).max(ours).div_ceil(8)];
        let notice = room(sizes.seccomp_notif, size_of::<libc::seccomp_notif>());
        let response = room(sizes.seccomp_notif_resp, size_of::<libc::seccomp_notif_resp>());
        // Who asks and who answers take turns, so one processor serves both best. Linux has it since 6.6.
        const SYNC_WAKE_UP: u64 = 1;
        // SAFETY: the third argument is a number.
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
        Ok(Self { fd, notice, response })
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The next call; `None` when who made it has died meanwhile.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Notice>> {
        self.notice.fill(0);
        // SAFETY: `notice` is as large as the kernel said, zeroed, as it demands, and aligned for 64 bits.
        let result =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, self.notice.as_mut_ptr()) };
        if result < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOENT | libc::EINTR) => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: `notice` is at least as large as this struct, aligned for it, and all of it is initialized; any bits are a value of it.
        let notice = unsafe { &*self.notice.as_ptr().cast::<libc::seccomp_notif>() };
        let pid = i32::try_from(notice.pid).unwrap_or_default();
        Ok(Some(Notice { id: notice.id, pid, arch: notice.data.arch, nr: notice.data.nr, args: notice.data.args }))
    }

    /// Answers a call. Who made it may be dead; that is no error.
    pub(crate) fn answer(&mut self, notice: &Notice, answer: Answer) {
        let flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or(1);
        let (error, flags) = match answer {
            Answer::Continue => (0, flags),
            Answer::Done => (0, 0),
            Answer::Fail(errno) => (-errno, 0),
        };
        self.response.fill(0);
        // SAFETY: as for `notice`; nothing else refers to it.
        let response = unsafe { &mut *self.response.as_mut_ptr().cast::<libc::seccomp_notif_resp>() };
        *response = libc::seccomp_notif_resp { id: notice.id, val: 0, error, flags };
        // SAFETY: `response` is as large as the kernel said.
        unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, self.response.as_mut_ptr()) };
    }

    /// Whether who made the call still waits: its number is its own then, and what was read by that number was its.
    pub(crate) fn is_waiting(&self, notice: &Notice) -> bool {
        // SAFETY: the kernel reads one number.
        unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const notice.id) == 0 }
    }
}

/// Leaves namespaces for new ones.
pub(crate) fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    // SAFETY: it is unsafe for the flag that unshares descriptors, which is never among them.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Has a signal do again what it does by default.
pub(crate) fn reset(signal: nix::sys::signal::Signal) -> io::Result<()> {
    use nix::sys::signal::{SigHandler, signal as set};
    // SAFETY: the default is no function that could be called at the wrong time.
    unsafe { set(signal, SigHandler::SigDfl) }.map(drop).map_err(io::Error::from)
}

/// Sends a descriptor to another process.
pub(crate) fn send_fd(stream: &UnixStream, fd: &OwnedFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(stream, &[io::IoSlice::new(b"f")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Receives one; `None` at the end of the stream.
pub(crate) fn receive_fd(stream: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(stream, &mut [io::IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    }))
}
