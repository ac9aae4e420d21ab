//! Disks served as files by FUSE, so that loop devices can be put on them.
//!
//! The files are opened for direct I/O: every write of the loop device is a request to [`Disk`], answered when it is done, and
//! every flush of the block layer arrives as FSYNC.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::device::Cleanup;
use crate::disk::Disk;

/// A disk that is shared between its server and its user.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<Disk>>);

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Server(Vec<Shared>);

/// The file of disk `i` is named `i` and has the inode `i + FIRST`.
const FIRST: u64 = 2;

impl Server {
    fn disk(&self, ino: INodeNo) -> Option<&Shared> {
        self.0.get(usize::try_from(ino.0.checked_sub(FIRST)?).ok()?)
    }

    fn attributes(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, size) = match self.disk(ino) {
            Some(disk) => (FileType::RegularFile, disk.lock().image.size()),
            None if ino == INodeNo::ROOT => (FileType::Directory, 0),
            None => return None,
        };
        let time = UNIX_EPOCH;
        let (uid, gid, rdev, flags, blksize) = (0, 0, 0, 0, 4096);
        let (atime, mtime, ctime, crtime) = (time, time, time, time);
        let (perm, nlink, blocks) = (0o700, 1, size / 512);
        Some(FileAttr {
            ino,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            crtime,
            kind,
            perm,
            nlink,
            uid,
            gid,
            rdev,
            blksize,
            flags,
        })
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // As large as the kernel will: what the file system writes at once is to arrive as one.
        let _ = config.set_max_write(1 << 20);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let index = name.to_str().and_then(|name| name.parse::<u64>().ok());
        match index.and_then(|index| self.attributes(INodeNo(index + FIRST))) {
            Some(attributes) => reply.entry(&Duration::ZERO, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(attributes) => reply.attr(&Duration::ZERO, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let Some(disk) = self.disk(ino) else { return reply.error(Errno::ENOENT) };
        let disk = disk.lock();
        let rest = usize::try_from(disk.image.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; rest.min(size as usize)];
        disk.image.read(offset, &mut bytes);
        drop(disk);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(disk) = self.disk(ino) else { return reply.error(Errno::ENOENT) };
        let written = disk.lock().write(offset, data);
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(()) => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let Some(disk) = self.disk(ino) else { return reply.error(Errno::ENOENT) };
        let flushed = disk.lock().flush();
        match flushed {
            Ok(()) => reply.ok(),
            Err(()) => reply.error(Errno::EIO),
        }
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        // No discards and no zeroing behind the log's back: the kernel writes zeros instead.
        reply.error(Errno::EOPNOTSUPP);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// Disks that are being served. Dropped, they are gone.
pub(crate) struct Disks {
    disks: Vec<Shared>,
    at: PathBuf,
    cleanup: Option<Cleanup>,
    session: Option<fuser::BackgroundSession>,
}

impl Disks {
    pub(crate) fn serve(at: &Path, count: usize) -> Result<Self, String> {
        let disks: Vec<_> = (0..count).map(|_| Shared(Arc::new(Mutex::new(Disk::new())))).collect();
        let mut config = fuser::Config::default();
        config.mount_options = vec![fuser::MountOption::FSName("txfs-replay".into())];
        config.n_threads = Some(count);
        let session =
            fuser::spawn_mount(Server(disks.clone()), at, &config).map_err(|error| format!("FUSE: {error}"))?;
        Ok(Self { disks, at: at.to_path_buf(), cleanup: Some(Cleanup::served(at)), session: Some(session) })
    }

    pub(crate) fn disk(&self, index: usize) -> (Shared, PathBuf) {
        (self.disks[index].clone(), self.at.join(index.to_string()))
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        drop(self.cleanup.take());
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}
