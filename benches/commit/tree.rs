//! The trees that are published: a static site's mix of files, in directories of a hundred.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::measure::{Outcome, sync};

/// Most files are small, some larger: 3.4 KB on average.
const SIZES: [usize; 5] = [700, 1500, 2500, 3500, 9000];

/// Files of a tree of a million, where it is their number that counts.
const TINY: usize = 100;

const MILLION: usize = 1_000_000;

/// Files of one directory.
const DIRECTORY: usize = 100;

/// Makes content at hardly any cost, which would be in both sides of each ratio and hide what is measured.
pub(crate) struct Content {
    bytes: Vec<u8>,
}

impl Content {
    pub(crate) fn new() -> Self {
        let line = b"<p>The quick brown fox jumps over the lazy dog.</p>\n";
        Self { bytes: line.iter().copied().cycle().take(SIZES[4]).collect() }
    }

    /// The content of file `i` of a tree of so many, in one of its versions: all of one size.
    pub(crate) fn of(&mut self, files: usize, i: usize, version: usize) -> &[u8] {
        let title = format!("<h1>{i:07} {version:07}</h1>\n");
        self.bytes[..title.len()].copy_from_slice(title.as_bytes());
        let size = if files >= MILLION { TINY } else { SIZES[i % SIZES.len()] };
        &self.bytes[..size]
    }
}

/// The path of file `i`.
pub(crate) fn name(i: usize) -> String {
    format!("d{:04}/page-{i:06}.html", i / DIRECTORY)
}

/// A way to write a file that may be there.
pub(crate) type Writing = fn(&Path, &[u8]) -> io::Result<()>;

/// As nearly every tool does: what is there is truncated first. (ext4 then writes it out when it is closed.)
pub(crate) fn in_place(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)
}

/// Into the blocks of a file that is there and as long: nothing is cheaper, and no build can be made to do it.
pub(crate) fn over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(bytes)
}

/// Writes the whole tree in one version, and makes it durable: the floor of a whole generation. It has no temporary names, no
/// order and no recovery.
pub(crate) fn write_durably(dir: &Path, files: usize, version: usize, write: Writing) -> Outcome<()> {
    write_each(dir, files, |_| version, write)?;
    sync(dir)
}

/// Writes the whole tree in one version.
pub(crate) fn write_all(dir: &Path, files: usize, version: usize) -> Outcome<()> {
    write_mixed(dir, files, |_| version)
}

/// Writes the whole tree, each file in its own version.
pub(crate) fn write_mixed(dir: &Path, files: usize, version: impl Fn(usize) -> usize) -> Outcome<()> {
    write_each(dir, files, version, in_place)
}

fn write_each(dir: &Path, files: usize, version: impl Fn(usize) -> usize, write: Writing) -> Outcome<()> {
    for directory in 0..files.div_ceil(DIRECTORY) {
        fs::create_dir_all(dir.join(format!("d{directory:04}")))?;
    }
    let mut content = Content::new();
    for i in 0..files {
        write(&dir.join(name(i)), content.of(files, i, version(i)))?;
    }
    Ok(())
}

/// Which files of a tree are changed, and which removed, by the changes of one measurement.
#[derive(Clone, Copy)]
pub(crate) struct Change {
    pub(crate) files: usize,
    pub(crate) changed: usize,
    pub(crate) removed: usize,
}

impl Change {
    /// The files that every change changes, all over the tree.
    pub(crate) fn changed(self) -> impl Iterator<Item = usize> {
        (0..self.changed).map(move |k| k * self.files / self.changed + 3)
    }

    /// The files that change number `round` removes: other ones each time, and never one that is changed.
    pub(crate) fn removed(self, round: usize) -> impl Iterator<Item = usize> {
        (0..self.removed).map(move |k| k * self.files / self.removed + 7 + 10 * round)
    }

    /// How many changes the tree has files for.
    pub(crate) fn rounds(self) -> usize {
        (self.files / self.removed.max(1)).saturating_sub(7) / 10
    }

    /// Makes the change where the files are, durably: the floor.
    pub(crate) fn make(self, dir: &Path, round: usize, version: usize, write: Writing) -> Outcome<()> {
        let mut content = Content::new();
        for i in self.changed() {
            write(&dir.join(name(i)), content.of(self.files, i, version))?;
        }
        for i in self.removed(round) {
            fs::remove_file(dir.join(name(i)))?;
        }
        sync(dir)
    }
}
