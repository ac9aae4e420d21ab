//! Copying what a file holds: holes stay holes, a small file goes by way of memory, and of a large one blocks are shared where the file
//! system can; it is copied a piece at a time, so that whoever wants that to stop is heard.

use std::fs::File;
use std::io::{self, Read, Write};

use rustix::io::Errno;

use super::LinuxFs;
use crate::fs::Machine;

/// Bytes of a file that are copied before it is asked whether to stop.
const COPIED_AT_ONCE: u64 = 128 << 20;

/// Of smaller files no blocks are shared: to keep account of those takes a file system longer than to write others
/// (docs/design/copying.md).
const SMALL: u64 = 64 << 10;

impl LinuxFs {
    /// [`Fs::copy_content`].
    pub(super) fn copy(&self, from: &mut File, to: &mut File) -> io::Result<()> {
        let stat = rustix::fs::fstat(&*from)?;
        let (size, allocated) = (stat.st_size as u64, stat.st_blocks as u64 * 512);
        match size {
            _ if allocated < size => self.copy_extents(from, to, size),
            ..SMALL => self.copy_small(from, to),
            _ => self.copy_up_to(u64::MAX, from, to),
        }
    }

    /// Copies what is no hole: a disk image of a terabyte may have little in it.
    fn copy_extents(&self, from: &File, to: &File, size: u64) -> io::Result<()> {
        use rustix::fs::{SeekFrom, seek};
        let mut end = 0;
        loop {
            let start = match seek(from, SeekFrom::Data(end)) {
                Ok(start) => start,
                // Nothing but a hole follows.
                Err(Errno::NXIO) => break,
                Err(error) => return Err(error.into()),
            };
            end = seek(from, SeekFrom::Hole(start))?;
            seek(from, SeekFrom::Start(start))?;
            seek(to, SeekFrom::Start(start))?;
            self.copy_up_to(end - start, from, to)?;
        }
        to.set_len(size.max(end))
    }

    /// By way of memory.
    fn copy_small(&self, from: &mut File, to: &mut File) -> io::Result<()> {
        let mut content = Vec::with_capacity(SMALL as usize);
        from.take(SMALL).read_to_end(&mut content)?;
        to.write_all(&content)?;
        // It may have grown.
        if (content.len() as u64) < SMALL { Ok(()) } else { self.copy_up_to(u64::MAX, from, to) }
    }

    /// From and to where both files are. A piece at a time: in each of them nobody can stop it.
    fn copy_up_to(&self, mut size: u64, from: &File, mut to: &File) -> io::Result<()> {
        loop {
            if self.is_interrupted() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            // This uses copy_file_range, which shares blocks on file systems that can.
            let piece = size.min(COPIED_AT_ONCE);
            let copied = io::copy(&mut from.take(piece), &mut to)?;
            size -= copied;
            if copied < COPIED_AT_ONCE {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;
    use std::os::unix::fs::FileExt as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::fs::Fs;

    #[test]
    fn the_copy_of_a_large_file_is_stopped_within_it() {
        let interrupt = Arc::new(AtomicBool::new(false));
        let fs = LinuxFs::new().interrupted_by(interrupt.clone());
        let (mut from, mut to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        for size in [5, COPIED_AT_ONCE, COPIED_AT_ONCE + 5] {
            // The last blocks alone are no hole.
            from.set_len(size).unwrap();
            from.write_all_at(b"the end", size).unwrap();
            fs.copy_up_to(u64::MAX, &from, &to).unwrap();
            assert_eq!(to.metadata().unwrap().len(), size + 7);
            from.rewind().unwrap();
            to.rewind().unwrap();
        }
        interrupt.store(true, Ordering::Relaxed);
        let stopped = fs.copy_content(&mut from, &mut to).unwrap_err();
        assert_eq!(stopped.kind(), io::ErrorKind::Interrupted);
    }
}
