//! Waiting for the builds before ([`BeginOptions::wait`](crate::BeginOptions::wait)).
//!
//! The first to commit wins, so that of two builds at once the newer is refused in the end. Who waits before it begins is the
//! later one, and wins.
//!
//! ```text
//! queue/N       held by a process that waits; N counts up, in the order of coming
//! tx/ID/turn    a transaction without a process that keeps its turn
//! ```
//!
//! Waited for are: whoever waits with a smaller number; every transaction that a process is at work on, whether it waited or not; and those that
//! were begun so and detached (`txfs begin --wait`), until they are committed, or aborted, or cannot be committed any more, or the
//! machine restarts.
//!
//! Invariants:
//! 1. Whose turn it is is decided under the store's lock, under which it begins: two do not take the same turn.
//! 2. What a dead process had is waited for by nobody: its locks are free, and so nobody waits for ever for a crash.
//!
//! Nothing here is made durable. A crash leaves empty files without a holder, which the next in the queue removes.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::journal::record::TransactionId;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, found};
use crate::holder::{Holder, Waiting};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::store::Store;
use crate::store::layout::{make_dir, name, numbered, state_path, write_new};
use crate::store::lock::{self, Lock, Patience, Wait};
use crate::store::transaction_dir::{self, Life, TURN, part};

/// How often it is looked whether the others are done.
const INTERVAL: Duration = Duration::from_millis(100);

/// A place in the queue.
pub(crate) struct Ticket<'s, F: Fs> {
    state: &'s Tree<F>,
    number: u64,
    _lock: Lock<F>,
}

impl<F: Fs> Drop for Ticket<'_, F> {
    fn drop(&mut self) {
        // Without its holder it is nothing.
        let _ = self.state.remove_entry(&ticket_path(self.number), Kind::File);
    }
}

fn ticket_path(number: u64) -> RelPath {
    numbered(name::QUEUE, number)
}

impl<F: Fs> Store<F> {
    /// Waits until nobody is before this process, and returns the store's lock, under which that is so.
    pub(crate) fn wait_for_turn(&self, limit: Duration) -> Result<(Lock<F>, Option<Ticket<'_, F>>)> {
        let (wait, mut ticket, mut told) = (Wait::begin(&self.fs, limit), None, None);
        loop {
            let waited = wait.waited();
            let waiting = match self.try_turn(&mut ticket)? {
                Ok(lock) => return Ok((lock, ticket)),
                Err(waiting) => waiting,
            };
            if self.fs.is_interrupted() {
                return Err(Error::Interrupted { path: self.output.path.clone() });
            }
            if wait.is_over(waited) {
                return Err(Error::Waited { waiting, waited });
            }
            // Whoever holds the store's lock does so for a moment.
            if told.as_ref() != Some(&waiting) && !matches!(waiting, Waiting::Lock { .. }) {
                self.patience.tell(|| waiting.clone());
                told = Some(waiting);
            }
            wait.pause(INTERVAL);
        }
    }

    /// The store's lock, when nobody is before this process; otherwise who is. It has a place in the queue then.
    fn try_turn<'s>(&'s self, ticket: &mut Option<Ticket<'s, F>>) -> Result<std::result::Result<Lock<F>, Waiting>> {
        // Who has a place looks first, and disturbs nobody.
        if let Some(ticket) = ticket
            && let Some(waiting) = self.first_before(Some(ticket.number))?
        {
            return Ok(Err(waiting));
        }
        let Some(lock) = self.try_lock()? else {
            let path = state_path(name::LOCK);
            let holder = lock::holder(&self.state, &path)?;
            return Ok(Err(Waiting::Lock { path: path.under(self.state.at()), holder }));
        };
        let number = ticket.as_ref().map(|ticket| ticket.number);
        match self.first_before(number)? {
            None => Ok(Ok(lock)),
            Some(waiting) => {
                if ticket.is_none() {
                    *ticket = Some(self.take_ticket(&lock)?);
                }
                Ok(Err(waiting))
            }
        }
    }

    fn take_ticket(&self, _lock: &Lock<F>) -> Result<Ticket<'_, F>> {
        make_dir(&self.state, &state_path(name::QUEUE))?;
        let mut last = 0;
        for number in self.tickets()? {
            let path = ticket_path(number);
            // Its process died.
            if self.unless_closed(lock::holder(&self.state, &path))?.is_none() {
                self.state.remove_entry(&path, Kind::File)?;
            }
            last = number;
        }
        let number = last
            .checked_add(1)
            .ok_or_else(|| self.state.corrupt(&ticket_path(last), "it is the last that there can be: remove it"))?;
        let lock = lock::acquire(&self.state, &ticket_path(number), &Patience::of(Duration::ZERO))?;
        Ok(Ticket { state: &self.state, number, _lock: lock })
    }

    /// The places of the queue, from the first.
    fn tickets(&self) -> Result<Vec<u64>> {
        let path = state_path(name::QUEUE);
        let listed = self.state.dir(&path).and_then(|dir| self.fs.list(&dir));
        let listed = found(listed).map_err(self.state.io("list", &path))?.unwrap_or_default();
        let number = |name: &[u8]| std::str::from_utf8(name).ok()?.parse::<u64>().ok();
        let mut numbers: Vec<_> = listed.iter().filter_map(|entry| number(&entry.name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Who is to be waited for first: by whoever has the place `number`, or none yet.
    fn first_before(&self, number: Option<u64>) -> Result<Option<Waiting>> {
        for id in self.transaction_ids()? {
            if let Some(waiting) = self.build_of(id)? {
                return Ok(Some(waiting));
            }
        }
        // The nearest: it is done when all before it are.
        for before in self.tickets()?.into_iter().filter(|before| number.is_none_or(|own| *before < own)).rev() {
            let mut holder = self.unless_closed(lock::holder(&self.state, &ticket_path(before)))?;
            if left_out(Mutant::DeadWaiter) {
                holder = holder.or_else(|| Some(Holder::default()));
            }
            if let Some(holder) = holder {
                return Ok(Some(self.build_by(holder)));
            }
        }
        Ok(None)
    }

    fn build_by(&self, holder: Holder) -> Waiting {
        Waiting::Build { output: self.output.path.clone(), holder }
    }

    /// What a transaction is waited for, if it is.
    fn build_of(&self, id: TransactionId) -> Result<Option<Waiting>> {
        let Some(tree) = self.state.find_below(&transaction_dir::path(id))? else { return Ok(None) };
        match self.look_at(id)? {
            Life::Live => {
                let holder = self.unless_closed(lock::holder(&tree, &part(transaction_dir::LOCK)))?;
                Ok(holder.map(|holder| self.build_by(holder)))
            }
            Life::Detached if tree.stat(&part(TURN))?.is_some() && self.is_current(id)? => {
                let at = self.read_meta(id)?.map(|meta| meta.at()).unwrap_or_default();
                let stage = transaction_dir::stage_path(id, &at).under(self.state.at());
                Ok(Some(Waiting::Detached { output: self.output.path.clone(), stage }))
            }
            Life::Detached | Life::Dead(_) => Ok(None),
        }
    }

    /// Whether it began on the generation that is published: otherwise it cannot be committed, unless it is about a path.
    fn is_current(&self, id: TransactionId) -> Result<bool> {
        let current = self.head()?.map_or(0, |head| head.info.generation);
        Ok(self.read_meta(id)?.is_some_and(|meta| meta.base == current || meta.below.is_some()))
    }

    /// Has others wait for a transaction though no process is at work on it.
    pub(crate) fn keep_turn(&self, id: TransactionId) -> Result<()> {
        let path =
            transaction_dir::path(id).join(TURN.as_bytes()).map_err(|error| Error::corrupt(self.state.at(), error))?;
        write_new(&self.state, &path, |_| Ok(()))
    }
}
