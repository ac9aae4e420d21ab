//! Traces that the stage leaves in what is published: tools write down where they were told to write to, and where from there
//! something else is.
//!
//! Invariants:
//! 1. Every byte that is digested is looked at once, in the buffer that it was read to.
//! 2. A trace is certain: the transaction's number is random, and a relative path counts only where it leads to something from the stage
//!    and to nothing from the output.
//!
//! Nothing is changed here.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use memchr::memmem::Finder;

use crate::fs::Fs;
use crate::path::RelPath;

/// From the stage to the directory that holds its output, or to the output, where the state is inside: `../../../..`.
const LEVELS: usize = 4;

/// What every run of so many has in it after its first `..`; the second is how JSON may write it. Without those two dots it is found sooner
/// where a text has many shorter runs.
const RUNS: [&[u8]; 2] = [b"/../../../", b"\\/..\\/..\\/..\\/"];

/// What is kept of one piece of a file for the next: a path that is longer is not noticed across their border.
const KEPT: usize = 1024;

/// Answers that are remembered at most.
const REMEMBERED: usize = 4096;

/// What was found of the stage in an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Trace {
    /// It names the stage.
    pub(crate) names_stage: bool,
    /// A relative path in it leads to where it leads to from the stage alone.
    pub(crate) is_relative: bool,
}

impl Trace {
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    fn is_all(self) -> bool {
        self.names_stage && self.is_relative
    }
}

/// What to look for.
#[derive(Debug)]
pub(crate) struct Traces<F: Fs> {
    fs: F,
    /// The transaction's number stands for the stage's path, however that is written: absolute, relative, percent-encoded, escaped.
    ids: Vec<Finder<'static>>,
    runs: [Finder<'static>; 2],
    stage: PathBuf,
    state: PathBuf,
    output: PathBuf,
    /// Whether something is where some levels above the stage a name begins.
    known: Mutex<HashMap<(usize, Vec<u8>), bool>>,
}

impl<F: Fs> Traces<F> {
    /// Of the stage of the transaction with this number.
    pub(crate) fn new(fs: &F, id: &str, stage: &Path, state: &Path, output: &Path) -> Self {
        Self {
            fs: fs.clone(),
            ids: vec![Finder::new(id).into_owned()],
            runs: RUNS.map(|run| Finder::new(run).into_owned()),
            stage: stage.to_path_buf(),
            state: state.to_path_buf(),
            output: output.to_path_buf(),
            known: Mutex::default(),
        }
    }

    /// And of that of another, from which the stage was copied.
    pub(crate) fn and(&self, id: &str) -> Self {
        let mut ids = self.ids.clone();
        ids.push(Finder::new(id).into_owned());
        let Self { fs, runs, stage, state, output, .. } = self;
        let (stage, state, output) = (stage.clone(), state.clone(), output.clone());
        Self { fs: fs.clone(), ids, runs: runs.clone(), stage, state, output, known: Mutex::default() }
    }

    fn is_named_in(&self, bytes: &[u8]) -> bool {
        self.ids.iter().any(|id| id.find(bytes).is_some())
    }

    pub(crate) fn stage(&self) -> &Path {
        &self.stage
    }

    pub(crate) fn output(&self) -> &Path {
        &self.output
    }

    /// Begins to look at a file.
    pub(crate) fn file(&self, path: &RelPath) -> Reading {
        let names_stage = self.is_named_in(path.as_bytes());
        Reading {
            depth: path.components().count() - 1,
            tail: Vec::new(),
            seen: 0,
            trace: Trace { names_stage, is_relative: false },
        }
    }

    /// Looks at a link.
    pub(crate) fn link(&self, path: &RelPath, target: &[u8]) -> Trace {
        let names_stage = [path.as_bytes(), target].iter().any(|bytes| self.is_named_in(bytes));
        let (target, dir) = (Path::new(OsStr::from_bytes(target)), path.parent());
        let leads = |root: &Path| lexical(&dir.under(root).join(target));
        let out = Some(leads(&self.stage)).filter(|place| target.is_relative() && !place.starts_with(&self.stage));
        let is_relative = out.is_some_and(|place| self.is_there(&place) && !self.is_there(&leads(&self.output)));
        Trace { names_stage, is_relative }
    }

    /// Whether anything is there, without following it; what cannot be looked at counts as nothing.
    fn is_there(&self, place: &Path) -> bool {
        match self.fs.read_anchor_link(place) {
            Ok(_) => true,
            Err(error) => error.kind() == io::ErrorKind::InvalidInput,
        }
    }

    /// Whether the path that is `up` levels above the stage and then `rest` was computed from the stage.
    fn is_of_stage(&self, up: usize, rest: &[u8]) -> bool {
        let Some(above) = self.stage.ancestors().nth(up) else { return false };
        let first = rest.split(|&byte| byte == b'/').next().unwrap_or_default();
        // Where a file has thousands of them, all but a few begin with the same names.
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&(up, first.to_vec())).copied();
        let begins = known.unwrap_or_else(|| {
            let begins = self.is_there(&above.join(OsStr::from_bytes(first)));
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() < REMEMBERED {
                known.insert((up, first.to_vec()), begins);
            }
            begins
        });
        let rest = Path::new(OsStr::from_bytes(rest));
        let place = above.join(rest);
        let elsewhere = || self.output.ancestors().nth(up).unwrap_or(Path::new("/")).join(rest);
        begins && !place.starts_with(&self.state) && self.is_there(&place) && !self.is_there(&elsewhere())
    }
}

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct Reading {
    /// How many directories of the stage it is in.
    depth: usize,
    /// The end of what was seen.
    tail: Vec<u8>,
    /// How much was seen.
    seen: usize,
    trace: Trace,
}

impl Reading {
    /// Looks at the next piece.
    pub(crate) fn see<F: Fs>(&mut self, traces: &Traces<F>, piece: &[u8]) {
        if self.trace.is_all() {
            return;
        }
        if !self.tail.is_empty() {
            let mut border = self.tail.clone();
            border.extend_from_slice(&piece[..piece.len().min(KEPT)]);
            self.search(traces, &border, self.is_all_in_tail(), false);
            self.tail = border;
        }
        self.search(traces, piece, self.seen == 0, false);
        self.seen = self.seen.saturating_add(piece.len());
        if piece.len() >= KEPT {
            self.tail.clear();
            self.tail.extend_from_slice(&piece[piece.len() - KEPT..]);
        } else if self.tail.is_empty() {
            self.tail.extend_from_slice(piece);
        } else {
            // The border has the piece at its end.
            self.tail.drain(..self.tail.len().saturating_sub(KEPT));
        }
    }

    /// What was found in all of it.
    pub(crate) fn end<F: Fs>(mut self, traces: &Traces<F>) -> Trace {
        let is_all = self.is_all_in_tail();
        let tail = std::mem::take(&mut self.tail);
        self.search(traces, &tail, is_all, true);
        self.trace
    }

    fn is_all_in_tail(&self) -> bool {
        self.seen == self.tail.len()
    }

    /// A path that begins a piece may go on with one before, unless it `is_first`; one that ends it with the next, unless it `is_last`.
    fn search<F: Fs>(&mut self, traces: &Traces<F>, piece: &[u8], is_first: bool, is_last: bool) {
        self.trace.names_stage = self.trace.names_stage || traces.is_named_in(piece);
        for run in &traces.runs {
            let mut from = 0;
            while let Some(at) = run.find(&piece[from..]).map(|at| from + at).filter(|_| !self.trace.is_relative) {
                let Some(start) = piece[..at].ends_with(b"..").then(|| at - 2) else {
                    from = at + 1;
                    continue;
                };
                let (up, rest, length) = relative_path(&piece[start..]);
                let end = start + length;
                let is_whole = end < piece.len() || is_last;
                let leaves =
                    begins(&piece[..start], is_first) && is_whole && up >= self.depth + LEVELS && !rest.is_empty();
                self.trace.is_relative = leaves && traces.is_of_stage(up - self.depth, &rest);
                from = end;
            }
        }
    }
}

/// How often a relative path goes up, what it names then, and how long it is.
fn relative_path(bytes: &[u8]) -> (usize, Vec<u8>, usize) {
    let (mut up, mut at) = (0, 0);
    while let Some(step) = [&b"../"[..], b"..\\/"].into_iter().find(|step| bytes[at..].starts_with(step)) {
        up += 1;
        at += step.len();
    }
    let mut rest = Vec::new();
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' if bytes.get(at + 1) == Some(&b'/') => {}
            _ if ends(byte) => break,
            _ => rest.push(byte),
        }
        at += 1;
    }
    (up, rest, at)
}

/// What no path in a text goes on with.
fn ends(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f || b"\"'`<>()[]{}|,;*?#&\\".contains(&byte)
}

/// Whether a path begins after these bytes, which begin the file if that `is_first`. `./` before it changes nothing.
fn begins(before: &[u8], is_first: bool) -> bool {
    let before = match before.strip_suffix(b"./") {
        Some(before) => before,
        None if before.ends_with(b"/") => return false,
        None => before,
    };
    let continues = |byte: u8| byte.is_ascii_alphanumeric() || b"./_-%~@+$\\".contains(&byte);
    before.last().map_or(is_first, |&byte| !continues(byte))
}

/// Where a path leads by its names alone.
fn lexical(path: &Path) -> PathBuf {
    let mut place = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(place.pop()),
            part => place.push(part),
        }
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::LinuxFs;

    /// `base/src/a.ts` is there, and the stage of `base/dist`.
    fn scene() -> (tempfile::TempDir, Traces<LinuxFs>) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (state, output) = (base.join(".dist.txfs"), base.join("dist"));
        let stage = state.join("tx/0123456789abcdef/stage");
        std::fs::create_dir_all(&stage).unwrap();
        std::fs::create_dir_all(base.join("src")).unwrap();
        std::fs::write(base.join("src/a.ts"), "").unwrap();
        (dir, Traces::new(&LinuxFs::new(), "0123456789abcdef", &stage, &state, &output))
    }

    fn look(traces: &Traces<LinuxFs>, path: &str, content: &[u8], piece: usize) -> Trace {
        let mut reading = traces.file(&RelPath::new(path).unwrap());
        content.chunks(piece.max(1)).for_each(|piece| reading.see(traces, piece));
        reading.end(traces)
    }

    #[test]
    fn traces_are_found_however_the_file_is_read() {
        const NONE: Trace = Trace { names_stage: false, is_relative: false };
        const NAMES: Trace = Trace { names_stage: true, is_relative: false };
        const RELATIVE: Trace = Trace { names_stage: false, is_relative: true };
        let (_dir, traces) = scene();
        for (path, content, expected) in [
            ("a.map", &b"../../../../src/a.ts"[..], RELATIVE),
            ("a.map", b"{\"sources\":[\"../../../../src/a.ts\"],\"x\":1}", RELATIVE),
            ("a.map", b"{\"sources\":[\"..\\/..\\/..\\/..\\/src\\/a.ts\"]}", RELATIVE),
            ("a.map", b"../../../../none ../../../../src/b.ts ./../../../../src/a.ts\n", RELATIVE),
            ("d/a.map", b"'../../../../../src/a.ts'", RELATIVE),
            ("d/a.map", b"../../../../src/a.ts", NONE),
            ("a.map", b"../src/a.ts x/../../../../src/a.ts ../../../../ ../../../../../src/a.ts", NONE),
            ("a.map", b"../../../../src/a.tsx", NONE),
            ("a.map", b"../../../../.dist.txfs/tx", NONE),
            ("a.map", b"file:%2F%2Ftx%2F0123456789abcdef%2Fstage", NAMES),
            ("0123456789abcdef", b"", NAMES),
            ("a", b"0123456789abcde", NONE),
        ] {
            for before in [0, 1, 700, 3000] {
                for piece in [1, 7, 16, 1024, 5000] {
                    let content = [&vec![b' '; before][..], content, b"\n", &vec![b'-'; before]].concat();
                    assert_eq!(look(&traces, path, &content, piece), expected, "{} by {piece}", content.escape_ascii());
                }
            }
            assert_eq!(look(&traces, path, content, usize::MAX), expected);
        }
    }

    #[test]
    fn links_are_held_against_both_places() {
        let (_dir, traces) = scene();
        for (path, target, names_stage, is_relative) in [
            ("a", "../../../../src/a.ts", false, true),
            ("d/a", "../../../../../src", false, true),
            ("a", "../src/a.ts", false, false),
            ("d/a", "../b", false, false),
            ("a", "../stage", false, false),
            ("a", "/.dist.txfs/tx/0123456789abcdef/stage/b", true, false),
        ] {
            let trace = traces.link(&RelPath::new(path).unwrap(), target.as_bytes());
            assert_eq!(trace, Trace { names_stage, is_relative }, "{path} -> {target}");
        }
    }
}
