//! A disk in memory: what it holds, what was written to it in which order, and when it fails.
//!
//! Invariants:
//! 1. Two images are equal if and only if their hashes are; the hash is kept up to date by every write.
//! 2. A write is in the log before it is acknowledged, and a flush after every write that was acknowledged before it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

pub(crate) const BLOCK: usize = 4096;

#[derive(Debug)]
struct Block {
    bytes: [u8; BLOCK],
    /// Of the place and the bytes; 0 for zeros.
    hash: u128,
}

/// The content of a disk. Blocks are shared between images; those of zeros are not there.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    size: u64,
    blocks: BTreeMap<u64, Arc<Block>>,
    hash: u128,
}

impl Image {
    pub(crate) fn new(size: u64) -> Self {
        Self { size, blocks: BTreeMap::new(), hash: 0 }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn hash(&self) -> u128 {
        self.hash
    }

    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) {
        for (block, within, range) in pieces(offset, buffer.len()) {
            let length = range.len();
            match self.blocks.get(&block) {
                Some(found) => buffer[range].copy_from_slice(&found.bytes[within..within + length]),
                None => buffer[range].fill(0),
            }
        }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (block, within, range) in pieces(offset, bytes.len()) {
            let mut content = self.blocks.get(&block).map_or([0; BLOCK], |block| block.bytes);
            content[within..within + range.len()].copy_from_slice(&bytes[range]);
            self.put(block, content);
        }
    }

    fn put(&mut self, block: u64, bytes: [u8; BLOCK]) {
        let old = if bytes.iter().all(|&byte| byte == 0) {
            self.blocks.remove(&block)
        } else {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&block.to_le_bytes()).update(&bytes);
            let hash =
                u128::from_le_bytes(hasher.finalize().as_bytes()[..16].try_into().expect("a digest has 32 bytes"));
            self.hash = self.hash.wrapping_add(hash);
            self.blocks.insert(block, Arc::new(Block { bytes, hash }))
        };
        self.hash = self.hash.wrapping_sub(old.map_or(0, |old| old.hash));
    }

    /// Makes `file` hold this image, sparsely.
    pub(crate) fn save(&self, file: &File) -> io::Result<()> {
        file.set_len(0)?;
        file.set_len(self.size)?;
        let mut run: Vec<u8> = Vec::new();
        let mut start = 0;
        for (&block, content) in &self.blocks {
            if start + (run.len() / BLOCK) as u64 != block {
                file.write_all_at(&run, start * BLOCK as u64)?;
                run.clear();
                start = block;
            }
            run.extend_from_slice(&content.bytes);
        }
        file.write_all_at(&run, start * BLOCK as u64)
    }

    pub(crate) fn load(file: &File) -> io::Result<Self> {
        let size = file.metadata()?.len();
        let mut image = Self::new(size);
        let mut bytes = [0; BLOCK];
        for block in 0..size / BLOCK as u64 {
            file.read_exact_at(&mut bytes, block * BLOCK as u64)?;
            image.put(block, bytes);
        }
        Ok(image)
    }
}

/// The blocks that a range of bytes touches: block, offset within it, and which of the bytes are there.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % BLOCK as u64) as usize;
        let range = done..length.min(done + BLOCK - within);
        done = range.end;
        (!range.is_empty()).then_some((at / BLOCK as u64, within, range))
    })
}

/// What happened to a disk.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Write {
        offset: u64,
        bytes: Arc<[u8]>,
    },
    Flush,
    /// Said by whoever uses the disk.
    Mark(Mark),
}

/// What the user of the disk knows of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// This generation may be found from here on.
    Started(usize),
    /// This generation, and no other, has to be found from here on: success was reported, or that nothing had changed.
    Settled(usize),
}

/// What a disk does to the requests that it is told to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Write,
    Flush,
}

/// The requests that fail: the `nth` of its kind, from 1, and all later ones of both kinds where it is `lasting`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) request: Request,
    pub(crate) nth: usize,
    pub(crate) lasting: bool,
}

#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) image: Image,
    /// What it held at the last flush since it is watched.
    flushed: Image,
    log: Option<Vec<Event>>,
    fault: Option<Fault>,
    broken: bool,
    writes: usize,
    flushes: usize,
    fired: usize,
}

impl Disk {
    pub(crate) fn new() -> Self {
        let (image, flushed) = (Image::new(0), Image::new(0));
        Self { image, flushed, log: None, fault: None, broken: false, writes: 0, flushes: 0, fired: 0 }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ()> {
        self.writes += 1;
        self.ask(Request::Write, self.writes)?;
        self.image.write(offset, bytes);
        if let Some(log) = &mut self.log {
            log.push(Event::Write { offset, bytes: bytes.into() });
        }
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> Result<(), ()> {
        self.flushes += 1;
        self.ask(Request::Flush, self.flushes)?;
        if let Some(log) = &mut self.log {
            log.push(Event::Flush);
            self.flushed = self.image.clone();
        }
        Ok(())
    }

    fn ask(&mut self, request: Request, number: usize) -> Result<(), ()> {
        let hit = self.fault.is_some_and(|fault| fault.request == request && fault.nth == number);
        self.broken |= hit && self.fault.is_some_and(|fault| fault.lasting);
        if hit || self.broken {
            self.fired += 1;
            return Err(());
        }
        Ok(())
    }

    pub(crate) fn mark(&mut self, mark: Mark) {
        if let Some(log) = &mut self.log {
            log.push(Event::Mark(mark));
        }
    }

    /// Counts from here, writes down what happens, and fails as told.
    pub(crate) fn watch(&mut self, fault: Option<Fault>) {
        self.flushed = self.image.clone();
        (self.log, self.fault) = (Some(Vec::new()), fault);
        (self.broken, self.writes, self.flushes, self.fired) = (false, 0, 0, 0);
    }

    /// What a loss of power would leave now: if everything written reached the disk, and if nothing did since the last flush.
    pub(crate) fn power_off(&self) -> (Image, Image) {
        (self.image.clone(), self.flushed.clone())
    }

    /// Ends what [`Disk::watch`] began: what happened, and how many requests failed.
    pub(crate) fn mend(&mut self) -> (Vec<Event>, usize) {
        (self.fault, self.broken) = (None, false);
        (self.log.take().unwrap_or_default(), self.fired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_holds_what_was_written_and_knows_its_equals() {
        let mut image = Image::new(1 << 20);
        image.write(4000, &[7; 5000]);
        let mut bytes = [0; 5002];
        image.read(3999, &mut bytes);
        assert!(bytes[0] == 0 && bytes[1..5001].iter().all(|&byte| byte == 7) && bytes[5001] == 0);
        let mut other = Image::new(1 << 20);
        other.write(8000, &[7; 1000]);
        assert_ne!(image.hash(), other.hash());
        other.write(4000, &[7; 4000]);
        assert_eq!(image.hash(), other.hash());
        other.write(0, &[0; 12288]);
        assert_eq!((other.hash(), other.blocks.len()), (0, 0));
    }
}
