//! The calls that the simulator counts, the errors that each can return, and the faults that are put into them.

use nix::errno::Errno;

/// A counted call: one a method of [`txfs::fs::Fs`] that enters the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the method of its name")]
pub enum Call {
    OpenAnchor,
    Resolve,
    ReadAnchorLink,
    OpenDir,
    OpenFile,
    OpenWrite,
    CreateFile,
    Stat,
    StatDir,
    StatFile,
    List,
    ReadLink,
    Read,
    Write,
    CopyContent,
    CopyAttributes,
    SetOwner,
    SetMode,
    SetDirMode,
    SetMtime,
    MakeDir,
    MakeSymlink,
    Link,
    Rename,
    RemoveFile,
    RemoveDir,
    SyncFile,
    SyncDir,
    SyncFs,
    DropCached,
    TryLock,
    LockHolder,
    Unique,
}

impl Call {
    /// Whether it orders writes.
    pub fn is_barrier(self) -> bool {
        matches!(self, Call::SyncFile | Call::SyncDir | Call::SyncFs)
    }

    /// Whether it changes what is on the file system, or makes it durable.
    pub fn changes(self) -> bool {
        use Call::*;
        matches!(
            self,
            CreateFile
                | Write
                | CopyContent
                | CopyAttributes
                | SetOwner
                | SetMode
                | SetDirMode
                | SetMtime
                | MakeDir
                | MakeSymlink
                | Link
                | Rename
                | RemoveFile
                | RemoveDir
                | SyncFile
                | SyncDir
                | SyncFs
        )
    }
}

macro_rules! errnos {
    ($($name:ident)*) => { &[$(Errno::$name as i32),*] };
}

/// The error numbers that a sound kernel can return from `call` whatever its arguments are: what a fault sweep injects.
///
/// Errors that only say what the arguments are (ENOENT, EEXIST, ENOTDIR, …) are left out: the simulator returns those itself.
pub fn possible_errors(call: Call) -> &'static [i32] {
    use Call::*;
    match call {
        OpenAnchor | OpenDir | OpenFile | List => errnos!(EIO EACCES EMFILE ENFILE ENOMEM EINTR),
        Resolve | ReadAnchorLink | Stat | ReadLink => errnos!(EIO EACCES ENOMEM),
        StatDir | StatFile => errnos!(EIO ENOMEM),
        OpenWrite => errnos!(EIO EACCES EMFILE ENFILE ENOMEM EINTR EROFS ETXTBSY),
        CreateFile => errnos!(EIO EACCES EMFILE ENFILE ENOMEM EINTR EROFS ENOSPC EDQUOT),
        Read => errnos!(EIO EINTR),
        Write => errnos!(EIO EINTR ENOSPC EDQUOT EFBIG),
        CopyContent => errnos!(EIO EINTR ENOSPC EDQUOT EFBIG ENOMEM),
        CopyAttributes => errnos!(EIO EACCES ENOSPC EDQUOT EROFS ENOMEM),
        SetOwner => errnos!(EIO EPERM EROFS ENOSPC EDQUOT),
        SetMode | SetDirMode | SetMtime => errnos!(EIO EPERM EROFS ENOSPC),
        MakeDir | MakeSymlink => errnos!(EIO EACCES EROFS ENOSPC EDQUOT ENOMEM),
        Link => errnos!(EIO EACCES EPERM EMLINK EROFS ENOSPC EDQUOT ENOMEM),
        Rename => errnos!(EIO EACCES EPERM EROFS ENOSPC EDQUOT ENOMEM),
        RemoveFile | RemoveDir => errnos!(EIO EACCES EPERM EROFS ENOSPC ENOMEM),
        SyncFile => errnos!(EIO ENOSPC EDQUOT EINTR),
        SyncDir | SyncFs => errnos!(EIO ENOSPC EDQUOT),
        DropCached => errnos!(EIO),
        TryLock | LockHolder => errnos!(EINTR ENOLCK),
        Unique => errnos!(EIO EMFILE ENFILE EINTR),
    }
}

/// What a failing barrier does with what it should have written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lost {
    /// The content of files as with [`Lost::Drop`]; names and attributes stay dirty, and a later barrier writes them.
    Pages,
    /// As Linux: pages are marked clean, the disk keeps the old data, and a later barrier succeeds without writing them.
    /// Names and attributes may still reach the disk, but no later barrier waits for them.
    #[default]
    Drop,
    /// Everything stays dirty, and a later barrier writes it.
    Keep,
}

/// An error put into a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The error number returned.
    pub errno: i32,
    /// What a barrier does with the pages.
    pub lost: Lost,
    /// The call takes effect, and returns the error all the same.
    pub after: bool,
}

impl Fault {
    /// The call does nothing but return `errno`; a barrier drops its pages.
    pub fn new(errno: i32) -> Self {
        Self { errno, lost: Lost::Drop, after: false }
    }

    /// The same, a barrier keeping its pages dirty.
    pub fn keeping(errno: i32) -> Self {
        Self { lost: Lost::Keep, ..Self::new(errno) }
    }

    /// The same, a barrier dropping the content of files alone.
    pub fn dropping_pages(errno: i32) -> Self {
        Self { lost: Lost::Pages, ..Self::new(errno) }
    }

    /// The call takes effect and returns `errno`.
    pub fn after(errno: i32) -> Self {
        Self { after: true, ..Self::new(errno) }
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
