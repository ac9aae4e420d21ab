//! A directory in which a file takes a while to be synced, for images of disks: a loop device passes a flush of its cache on as an
//! `fsync` of its file. What a commit costs on a disk that flushes in 0.1 ms, and what on one that takes 5, can be measured on one
//! machine.
//!
//! ```sh
//! sudo benches/disk/run 400 --on ext4 --case change     # the benchmark `commit` on a disk that takes 400 µs to flush
//! ```
//!
//! It is a FUSE file system of one flat directory. What its files hold is in unnamed files of the directory for temporary ones. Other
//! requests go on while a file is being synced. Reading and writing go through this process, so the disk is slower in that, too.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};

/// Nobody else changes anything: the kernel may remember all that it was told.
const FOREVER: Duration = Duration::from_secs(1 << 30);

const GENERATION: Generation = Generation(0);
const HANDLE: FileHandle = FileHandle(0);
const BLOCK: u64 = 512;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let done = match &arguments[..] {
        [at, flush] => serve(Path::new(at), flush),
        _ => Err("usage: txfs-disk DIR MICROSECONDS".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves the directory at `at` until it is unmounted.
fn serve(at: &Path, flush: &OsStr) -> Result<(), Box<dyn std::error::Error>> {
    let micros = flush.to_str().and_then(|flush| flush.parse().ok());
    let flush = Duration::from_micros(micros.ok_or("this is no number of microseconds")?);
    let mut config = Config::default();
    config.mount_options.push(MountOption::FSName("txfs-disk".into()));
    Ok(fuser::mount(Disk { flush, entries: Mutex::default() }, at, &config)?)
}

struct Disk {
    flush: Duration,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    names: HashMap<OsString, INodeNo>,
    /// `None`: a directory, to mount something at. A file stays when its name is gone.
    nodes: HashMap<INodeNo, Option<Arc<File>>>,
}

impl Disk {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, name: &OsStr, file: Option<File>) -> io::Result<FileAttr> {
        let mut entries = self.entries();
        let ino = INodeNo(INodeNo::ROOT.0 + 1 + entries.nodes.len() as u64);
        entries.names.insert(name.into(), ino);
        entries.nodes.insert(ino, file.map(Arc::new));
        drop(entries);
        self.attributes(ino)
    }

    fn find(&self, name: &OsStr) -> Result<FileAttr, Errno> {
        let ino = self.entries().names.get(name).copied().ok_or(Errno::ENOENT)?;
        Ok(self.attributes(ino)?)
    }

    fn file(&self, ino: INodeNo) -> Result<Arc<File>, Errno> {
        self.entries().nodes.get(&ino).cloned().flatten().ok_or(Errno::ENOENT)
    }

    fn set_size(&self, ino: INodeNo, size: Option<u64>) -> Result<FileAttr, Errno> {
        if let Some(size) = size {
            self.file(ino)?.set_len(size)?;
        }
        Ok(self.attributes(ino)?)
    }

    fn read(&self, ino: INodeNo, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; size as usize];
        let length = self.file(ino)?.read_at(&mut bytes, offset)?;
        bytes.truncate(length);
        Ok(bytes)
    }

    fn attributes(&self, ino: INodeNo) -> io::Result<FileAttr> {
        let file = self.file(ino).ok();
        let size = file.as_ref().map_or(Ok(0), |file| file.metadata().map(|metadata| metadata.len()))?;
        let time = UNIX_EPOCH;
        Ok(FileAttr {
            ino,
            size,
            blocks: size.div_ceil(BLOCK),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: if file.is_some() { FileType::RegularFile } else { FileType::Directory },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.find(name) {
            Ok(attributes) => reply.entry(&FOREVER, &attributes, GENERATION),
            Err(error) => reply.error(error),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(error) => reply.error(error.into()),
        }
    }

    /// Of all that can be set only the size means something here.
    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        match self.set_size(ino, size) {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, _: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        match self.add(name, None) {
            Ok(attributes) => reply.entry(&FOREVER, &attributes, GENERATION),
            Err(error) => reply.error(error.into()),
        }
    }

    fn create(&self, _: &Request, _: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match tempfile::tempfile().and_then(|file| self.add(name, Some(file))) {
            Ok(attributes) => reply.created(&FOREVER, &attributes, GENERATION, HANDLE, FopenFlags::FOPEN_DIRECT_IO),
            Err(error) => reply.error(error.into()),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(HANDLE, FopenFlags::FOPEN_DIRECT_IO);
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.entries().names.remove(name);
        reply.ok();
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
        match self.read(ino, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.file(ino).and_then(|file| Ok(file.write_all_at(bytes, offset)?)) {
            Ok(()) => reply.written(bytes.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let flush = self.flush;
        thread::spawn(move || {
            thread::sleep(flush);
            reply.ok();
        });
    }

    fn fallocate(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, _: u64, _: i32, reply: ReplyEmpty) {
        reply.error(Errno::EOPNOTSUPP);
    }
}
