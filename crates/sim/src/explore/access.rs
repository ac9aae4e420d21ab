//! What a user may not read, search or write: another process takes access away, from an entry of the output or of a stage, and
//! gives it back when a recovery says that it cannot go on.
//!
//! 1. A commit that meets it is refused before anything is changed, or succeeds, or is undone; and what it reports is true.
//! 2. A recovery that meets it succeeds, or fails and loses nothing: it does not say "unchanged" of an output between two generations,
//!    and with access given back the next one comes to what is allowed.
//!
//! Left out, since recovery refuses there until it is told to undo: after a crash, access to a staged file that is a copy of one with other
//! names. The crash may have taken its time, which was set back; whoever changes its mode then makes it look as if it was written to later.

use std::path::{Path, PathBuf};

use crate::{CrashPoint, SimFs, Stranger, View};
use txfs::{Error, Kind, Outcome, RecoverOptions, RelPath, Store};

use super::explorer::{Explorer, Lasting, last_of};
use super::oracle::{Allowed, Generation, Oracle, failed};
use super::tally::{Checked, Violation};
use super::world::{Marks, OUTPUT, Random, STATE, World};

/// What is left to the owner of a directory: one of reading, searching and writing is not among it.
const DIRECTORIES: [u32; 6] = [0o500, 0o300, 0o600, 0o000, 0o555, 0o400];
/// The same of a file that nobody may read.
const FILES: [u32; 2] = [0o000, 0o200];

/// An entry from which access was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Closed {
    ino: u64,
    mode: u32,
    was: u32,
    /// It is the output itself.
    is_output: bool,
}

impl Closed {
    /// An entry of the output, or of what a transaction has staged or taken out, and what becomes of it.
    fn drawn(view: View<'_>, random: &mut Random, staged_files: bool) -> Option<(PathBuf, Self)> {
        let entries = places(view).into_iter().filter_map(|path| {
            let stat = view.stat(&path)?;
            let may = match stat.kind? {
                Kind::Directory => true,
                Kind::File => staged_files || path.starts_with(OUTPUT),
                Kind::Symlink => false,
            };
            may.then_some((path, stat))
        });
        let entries: Vec<_> = entries.collect();
        let (path, stat) = entries.get(random.below(entries.len() as u64) as usize)?.clone();
        let modes = if stat.is_dir() { &DIRECTORIES[..] } else { &FILES[..] };
        let mode = modes[random.below(modes.len() as u64) as usize];
        let is_output = path == Path::new(OUTPUT);
        (mode != stat.mode).then_some((path, Self { ino: stat.ino, mode, was: stat.mode, is_output }))
    }

    fn take(self, fs: &SimFs, path: &Path) {
        fs.stranger_now(path, &Stranger::SetsMode(self.mode));
    }

    /// Where the entry is now, if nobody has given it access again. (Its owner opens a directory to change what is in it.)
    fn place(self, fs: &SimFs) -> Option<PathBuf> {
        let is_it = |view: View<'_>, path: &PathBuf| {
            let stat = view.stat(path).filter(|stat| stat.ino == self.ino);
            let is_opened = |stat: &txfs::fs::Stat| stat.mode == self.mode | if stat.is_dir() { 0o700 } else { 0o600 };
            stat.is_some_and(|stat| stat.mode == self.mode || is_opened(&stat))
        };
        fs.look(|view| places(view).into_iter().find(|path| is_it(view, path)))
    }

    /// Gives its owner all access, as the hints say.
    fn open_to_owner(self, fs: &SimFs) {
        let Some(place) = self.place(fs) else { return };
        let is_dir = fs.look(|view| view.stat(&place)).is_some_and(|stat| stat.is_dir());
        let mode = self.mode | if is_dir { 0o700 } else { 0o600 };
        fs.stranger_now(place, &Stranger::SetsMode(mode));
    }

    /// Gives everything back: the mode that the entry had; or one that it is published with, where recovery or a crash had taken that. Of
    /// the generation that `head` says, where it does.
    fn give_back(self, fs: &SimFs, oracle: &Oracle, head: Option<Generation>) {
        let Some(place) = self.place(fs) else { return };
        // Which one is found out beside: a crash of the recovery that follows would bring back what was only tried.
        let tried = fs.fork();
        let is_it = |mode: &u32| {
            tried.stranger_now(&place, &Stranger::SetsMode(*mode));
            let found = oracle.generation(&tried).ok();
            found.is_some() && (head.is_none() || found == head || found == Some(Generation::Either))
        };
        let modes = if place.starts_with(OUTPUT) { self.modes_at(&place, oracle) } else { Vec::new() };
        let mode = modes.into_iter().find(is_it).unwrap_or(self.was);
        fs.stranger_now(&place, &Stranger::SetsMode(mode));
    }

    /// The modes that an entry of the output may be meant to have: as it is, as it was, and as it is published in either generation.
    fn modes_at(self, place: &Path, oracle: &Oracle) -> Vec<u32> {
        let mut modes = vec![self.mode, self.was];
        modes.extend(oracle.modes_of(place));
        modes
    }
}

/// The output and what is in it; and what the directories of transactions hold.
fn places(view: View<'_>) -> Vec<PathBuf> {
    let below = |root: &str| view.tree(root).into_keys().map(|path| path.under(Path::new(root))).collect::<Vec<_>>();
    let mut places = below(OUTPUT);
    let is_of_transaction = |path: &PathBuf| {
        let part = path.strip_prefix(STATE).ok().and_then(|path| path.components().nth(2));
        part.is_some_and(|part| ["stage", "removed"].iter().any(|name| part.as_os_str() == *name))
    };
    for directory in ["tx", "previous"] {
        places.extend(below(&format!("{STATE}/{directory}")).into_iter().filter(is_of_transaction));
    }
    places
}

impl Explorer<'_> {
    /// Root may do everything, and what the members of a group may do is explored elsewhere. Where file times are so coarse that no commit
    /// waits for a later one, nothing tells what another process changed (journal-spec.md, "Evidence").
    pub(super) fn is_limited(&self) -> bool {
        const COARSE: u64 = 20_000_000;
        let is_told = self.world.config.mtime_granularity < COARSE;
        is_told && self.world.config.uid != 0 && !self.world.is_shared() && self.closed.is_none()
    }

    /// Access is taken between two calls of the program, or when it was killed there.
    pub(super) fn closings(&mut self, point: &CrashPoint, allowed: Allowed) -> Checked {
        let [one_in, _] = self.effort.closed_one_in;
        if !self.is_limited() || !self.random.one_in(one_in) {
            return Ok(());
        }
        let Some((path, closed)) = Closed::drawn(point.view(), &mut self.random, true) else { return Ok(()) };
        let number = point.call() + 1;
        // What the tools that fill a stage meet is theirs.
        let is_of_tool = number > self.marks.begun && number <= self.marks.staged;
        self.closed = Some(closed);
        self.tally.closings += 1;
        let checked = match is_of_tool {
            true => Ok(()),
            false => self.closed_between(number, &path, closed),
        };
        let checked = checked.and_then(|()| {
            let killed = point.killed();
            closed.take(&killed, &path);
            self.reopened(&killed, allowed).map_err(|v| v.after("the process is killed"))
        });
        self.closed = None;
        checked.map_err(|v| v.after(format!("{} is given mode {:04o}", path.display(), closed.mode)))
    }

    fn closed_between(&mut self, number: u64, path: &Path, closed: Closed) -> Checked {
        self.tally.injections += 1;
        let close = |start: &SimFs| {
            let fs = start.fork();
            fs.stranger_at(number, path, Stranger::SetsMode(closed.mode));
            fs
        };
        let fs = close(&self.start);
        self.with_error(&fs, number, Lasting::Once).map_err(|violation| {
            let again = close(&self.start);
            again.record_trace();
            let _ = self.world.run(&again, &mut Marks::default());
            violation.after(format!("before call {number}\n{}", last_of(&again, number + 60)))
        })
    }

    /// Access is taken when the machine is up again.
    pub(super) fn closed_after_crash(&mut self, state: &SimFs, allowed: Allowed) -> Checked {
        let staged_files = !self.world.linked;
        let drawn = state.look(|view| Closed::drawn(view, &mut self.random, staged_files));
        let Some((path, closed)) = drawn else { return Ok(()) };
        closed.take(state, &path);
        self.closed = Some(closed);
        self.tally.closings += 1;
        let checked = self.reopened(state, allowed);
        self.closed = None;
        checked.map_err(|v| v.after(format!("{} is given mode {:04o} then", path.display(), closed.mode)))
    }

    /// Whether access is taken from something of this crash state.
    pub(super) fn is_to_be_closed(&mut self) -> bool {
        let [_, one_in] = self.effort.closed_one_in;
        self.is_limited() && self.now_and_then(one_in)
    }

    /// Whether what another process took access from was published so, as a commit found it in the stage: a generation that is none of
    /// both, and that the output agrees with. (The output itself is no entry of a generation.)
    pub(super) fn is_published_closed(&self, fs: &SimFs) -> bool {
        if self.closed.is_none_or(|closed| closed.is_output) {
            return false;
        }
        let verified =
            || Store::open_with(&World::options(&fs.fork()).recover(false), OUTPUT).and_then(|store| store.verify());
        self.oracle.generation(fs).is_err() && verified().is_ok_and(|findings| findings.is_empty())
    }

    /// Which generation the output is, were access given back. Where that is all that both differ in it may be either.
    pub(super) fn generation(&self, fs: &SimFs) -> Checked<Generation> {
        let found = self.oracle.generation(fs);
        let Some((closed, place)) = self.closed.and_then(|closed| Some((closed, closed.place(fs)?))) else {
            return found;
        };
        let fs = fs.fork();
        let mut generations = found.into_iter().collect::<Vec<_>>();
        for mode in closed.modes_at(&place, &self.oracle) {
            fs.stranger_now(&place, &Stranger::SetsMode(mode));
            generations.extend(self.oracle.generation(&fs));
        }
        match generations[..] {
            [] => self.oracle.generation(&fs),
            [first, ref others @ ..] if others.iter().all(|&other| other == first) => Ok(first),
            _ => Ok(Generation::Either),
        }
    }

    /// Opens the store; where that fails for want of access it is given back: to the owner, as the hints say, and else as it was.
    pub(super) fn open(&mut self, fs: &SimFs) -> Checked<Store<SimFs>> {
        let open = || Store::open_with(&World::options(fs), OUTPUT);
        let mut opened = open();
        if let Some(closed) = self.closed {
            self.tally.denied += u64::from(opened.is_err());
            let ways: [&dyn Fn(); 2] = [&|| closed.open_to_owner(fs), &|| closed.give_back(fs, &self.oracle, None)];
            for give in ways {
                if let Err(error) = &opened {
                    self.is_true(fs, error)?;
                    give();
                    opened = open();
                }
            }
        }
        opened.map_err(|error| failed("recovery", &error))
    }

    /// A recovery that failed does not say "unchanged" of an output between two generations.
    fn is_true(&self, fs: &SimFs, error: &Error) -> Checked {
        match error.outcome() {
            Outcome::Unchanged => {
                let said = |v: Box<Violation>| v.after(format!("a recovery without access said {error:?}"));
                self.generation(fs).map(drop).map_err(said)
            }
            _ => Ok(()),
        }
    }

    /// Before the aftermath access is given back; then what could not be removed is.
    pub(super) fn settle_closed(&mut self, fs: &SimFs, store: &Store<SimFs>) -> Checked {
        let Some(closed) = self.closed else { return Ok(()) };
        // A first generation of nothing was none.
        let before =
            Store::open_with(&World::options(&self.start.fork()).recover(false), OUTPUT).and_then(|store| store.head());
        let [before, head] = [before, store.head()].map(|head| head.map_err(|error| failed("reading HEAD", &error)));
        let is_new = head?.map(|head| head.info.generation) > before?.map(|head| head.info.generation);
        closed.give_back(fs, &self.oracle, Some(if is_new { Generation::New } else { Generation::Old }));
        store.recover(RecoverOptions::default()).map_err(|error| failed("a recovery with access", &error))?;
        store.sweep().map_err(|error| failed("sweeping with access", &error))?;
        // What could not be read could not be recognised.
        fs.remove(format!("{STATE}/rescued"));
        Ok(())
    }
}

impl Oracle {
    /// The modes with which an entry of the output is published.
    fn modes_of(&self, place: &Path) -> Vec<u32> {
        let path = place.strip_prefix(OUTPUT).map(|path| RelPath::from_path(path).unwrap_or_else(|_| RelPath::root()));
        let Ok(path) = path else { return Vec::new() };
        self.trees().iter().filter_map(|tree| tree.get(&path)).map(|entry| entry.mode).collect()
    }
}
