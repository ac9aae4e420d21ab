//! Explores one world: runs its program once, and from that every crash, kill and error.

use std::collections::{HashMap, HashSet};

use txfs::{Error, Outcome, RecoverOptions, Store};

use super::access::Closed;
use super::effort::Effort;
use super::oracle::{Allowed, Generation, Oracle, failed};
use super::random::Random;
use super::tally::{Checked, Tally, Violation};
use super::world::{End, Marks, OUTPUT, STATE, World};
use crate::{SimFs, Stranger};

pub(super) struct Explorer<'a> {
    pub(super) world: &'a World,
    pub(super) effort: Effort,
    pub(super) oracle: Oracle,
    pub(super) start: SimFs,
    pub(super) marks: Marks,
    pub(super) random: Random,
    /// What recovery made of a crash state, by the state's hash.
    pub(super) recovered: HashMap<u64, Generation>,
    /// Stores after recovery whose aftermath was looked at, by the world's hash.
    pub(super) settled: HashSet<u64>,
    /// An error is being put into a recovery: not into those that follow, too.
    pub(super) disturbing: bool,
    /// What another process has taken access from.
    pub(super) closed: Option<Closed>,
    pub(super) tally: &'a mut Tally,
}

impl Explorer<'_> {
    /// Nothing that has been acknowledged is lost; nothing happens before the commit begins. The world is the same from one call
    /// until the other.
    pub(super) fn allowed(&self, from: u64, until: u64) -> Allowed {
        match self.world.end {
            End::Abort => Allowed::Old,
            End::Commit if until >= self.marks.returned => Allowed::New,
            End::Commit if from <= self.marks.staged => Allowed::Old,
            End::Commit => Allowed::Either,
        }
    }

    /// One in so many; but when enough was looked at hardly ever.
    pub(super) fn now_and_then(&mut self, one_in: u64) -> bool {
        const ONCE_SPENT: u64 = 8;
        let one_in = if self.spent() { one_in.max(ONCE_SPENT) } else { one_in };
        self.random.one_in(one_in)
    }

    pub(super) fn spent(&self) -> bool {
        self.recovered.len() as u64 > self.effort.budget
    }

    // ---- errors

    /// Root may do everything, and what the members of a group may do is explored elsewhere. Where file times are so coarse that no commit
    /// waits for a later one, nothing tells what another process changed (journal-spec.md, "Evidence").
    pub(super) fn is_limited(&self) -> bool {
        const COARSE: u64 = 20_000_000;
        let is_told = self.world.config.mtime_granularity < COARSE;
        is_told && self.world.config.uid != 0 && !self.world.is_shared() && self.closed.is_none()
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
    pub(super) fn is_true(&self, fs: &SimFs, error: &Error) -> Checked {
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
