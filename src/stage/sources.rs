//! Which files of directories that were published have which content, for as long as nobody touches them: so that the next time they
//! are published nothing is read of what has not changed. Size and time say little of a file: build tools set times back, so that
//! every build has the same. What nobody can set is the `ctime`.
//!
//! ```text
//! sources = header(txfssrcs) frame*        frame = fact:u64le*
//! fact    = a file with this inode and this ctime has content with this digest
//! ```
//!
//! Invariants (journal-spec.md, "Sources"):
//! 1. A fact is noted of what was read, or copied and then digested, after the inode and the ctime were looked at. Whoever changed
//!    the file meanwhile left another ctime; and where that could be the same it is not noted: within a tick of the clock, and
//!    where times have no fraction of a second, as in images whose times are all set to one.
//! 2. A fact stays true whatever is published since; one that is not there costs reading a file.
//!
//! The file is not durable. A crash leaves an older one, or a part: what cannot be made out is as if it were not there.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::io::Write;

use crate::error::Result;
use crate::format::frame::{Format, FrameReader, FrameWriter};
use crate::format::identity::Digest;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Stat, Timestamp};
use crate::path::RelPath;
use crate::store::Store;
use crate::store::layout::{name, open_trusted, state_path};

const FORMAT: Format = Format { magic: *b"txfssrcs", version: 1 };

/// Facts of a frame, and their bytes.
const FACTS: usize = 1 << 17;
const FACT: usize = 8;

/// Facts that are looked at before all of them are searched: they come in the order in which files are found.
const AHEAD: usize = 64;

/// The kernel's clock for files goes in ticks of 10 ms at most: who writes to a file within one leaves the ctime that it has.
const TICK: u32 = 20_000_000;

/// A file as it was found: its inode and its ctime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version(u64);

/// A file that was met on a walk, and as how manyth; facts are kept in that order, in which the next walk asks for them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Met(usize, Option<Version>);

/// What is known, and what was learned since.
#[derive(Debug)]
pub(crate) struct Sources {
    known: Vec<u64>,
    /// Where in `known` the next fact is expected.
    next: usize,
    all: OnceCell<HashSet<u64>>,
    /// What was found to be so, with when it was met.
    facts: Vec<(usize, u64)>,
    /// Files that were copied, and are digested by the commit.
    copied: Vec<(usize, RelPath, Version)>,
    met: usize,
    /// What was changed after this time is not known.
    begun: Timestamp,
}

impl Sources {
    /// What is known to a store.
    pub(crate) fn read<F: Fs>(store: &Store<F>) -> Self {
        let known = read(&store.state).unwrap_or_default();
        let begun = store.fs.now();
        Self { known, next: 0, all: OnceCell::new(), facts: Vec::new(), copied: Vec::new(), met: 0, begun }
    }

    /// Whether the file that is like this is known to have this content.
    pub(crate) fn knows(&mut self, stat: &Stat, digest: &Digest) -> bool {
        let Some(version) = self.version(stat) else { return false };
        let fact = fact(version, digest);
        let ahead = self.known.get(self.next..).unwrap_or_default().iter().take(AHEAD);
        match ahead.enumerate().find(|(_, known)| **known == fact) {
            Some((skipped, _)) => self.next += skipped + 1,
            None if self.all.get_or_init(|| self.known.iter().copied().collect()).contains(&fact) => {}
            None => return false,
        }
        self.met += 1;
        self.facts.push((self.met, fact));
        true
    }

    /// Notes that a file was met that is like this, and of which nothing is known.
    pub(crate) fn meet(&mut self, stat: &Stat) -> Met {
        self.met += 1;
        Met(self.met, self.version(stat))
    }

    /// Notes the content of a file that was met and then read.
    pub(crate) fn learn(&mut self, Met(met, version): Met, digest: &Digest) {
        self.facts.extend(version.map(|version| (met, fact(version, digest))));
    }

    /// Notes that a file that was met is copied to `path`.
    pub(crate) fn copied(&mut self, Met(met, version): Met, path: &RelPath) {
        self.copied.extend(version.map(|version| (met, path.clone(), version)));
    }

    /// What was copied to `path` is not what will be published there.
    pub(crate) fn forget(&mut self, forget: impl Fn(&RelPath) -> bool) {
        self.copied.retain(|(_, path, _)| !forget(path));
    }

    /// Where the files that were copied are published, ascending as far as one directory was copied.
    pub(crate) fn to_digest(&self) -> impl ExactSizeIterator<Item = &RelPath> {
        self.copied.iter().map(|(_, path, _)| path)
    }

    /// Notes the digests of the files that were copied, in the order of [`Sources::to_digest`], and writes what is known now.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub(crate) fn write<F: Fs>(
        mut self,
        store: &Store<F>,
        digests: impl Iterator<Item = Option<Digest>>,
    ) -> Result<()> {
        for ((met, _, version), digest) in self.copied.into_iter().zip(digests) {
            self.facts.extend(digest.map(|digest| (met, fact(version, &digest))));
        }
        self.facts.sort_unstable();
        let facts: Vec<u64> = self.facts.into_iter().map(|(_, fact)| fact).collect();
        if facts == self.known {
            return Ok(());
        }
        let (new, path) = (state_path(name::SOURCES_NEW), state_path(name::SOURCES));
        store.write_new(&new, |stream| {
            let mut frames = FrameWriter::new(stream, FORMAT)?;
            for facts in facts.chunks(FACTS) {
                frames.frame(&facts.iter().flat_map(|fact| fact.to_le_bytes()).collect::<Vec<u8>>())?;
            }
            frames.finish()?.flush()
        })?;
        store.rename(&new, &path)
    }

    /// `None` where the ctime does not tell that a file is as it was.
    fn version(&self, stat: &Stat) -> Option<Version> {
        let Timestamp { seconds, nanos } = stat.ctime;
        let later = if nanos + TICK < 1_000_000_000 {
            Timestamp { seconds, nanos: nanos + TICK }
        } else {
            Timestamp { seconds: seconds.saturating_add(1), nanos: nanos + TICK - 1_000_000_000 }
        };
        let tells = nanos != 0 && later < self.begun;
        tells.then(|| Version(mix(mix(mix(stat.ino) ^ seconds as u64) ^ u64::from(nanos))))
    }
}

fn fact(version: Version, digest: &Digest) -> u64 {
    let mut start = [0; 8];
    start.copy_from_slice(&digest.0[..8]);
    mix(version.0 ^ u64::from_le_bytes(start))
}

/// The finalizer of SplitMix64: each bit of the result depends on every bit.
fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Every fact, if all can be made out.
fn read<F: Fs>(state: &Tree<F>) -> Option<Vec<u64>> {
    let stream = open_trusted(state, &state_path(name::SOURCES)).ok()??;
    let mut frames = FrameReader::new(stream, FORMAT).ok()?;
    let mut facts = Vec::new();
    while let Some(frame) = frames.next_frame().ok()? {
        let words =
            frame.chunks_exact(FACT).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("each has as many")));
        facts.extend(words);
    }
    Some(facts)
}
