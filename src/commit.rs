//! Committing a transaction: checks, scan, plan and guards; the intents and the commit point; then what the intents say.
//!
//! ```text
//! open --commit--> checks, scan, plan, guards      P2   refused: open, nothing changed
//!                  barrier 1: stage, manifest, journal   P3   failed: discarded, nothing changed
//!                                        <-- the commit point
//!                  journal gets its name, apply, HEAD   P4 P5   failed: rolled back, or unknown
//!                                        <-- success is reported
//!         later    barrier 2, settle                P6   failed: the next recovery does it
//! ```
//!
//! Invariants (journal-spec.md, "Commit"):
//! 1. Nothing in the output changes before the commit point (G2).
//! 2. First committer wins: a transaction whose base is no longer current is refused (G10).
//! 3. The caller learns one of: unchanged, committed, unknown (G8).
//! 4. An fsync is never retried: a stage that could not be made durable is discarded, for the kernel forgets the error.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use crate::apply::Applier;
use crate::barrier;
use crate::carry_out::{Attempt, Intents};
use crate::copy::{self, Source};
use crate::error::{Error, Paths, Problem, Result};
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, Stat, Timestamp};
use crate::journal::reader::Journal;
use crate::journal::record::{Begin, Operation};
use crate::journal::writer;
use crate::layout::{name, state_path};
use crate::manifest::inventory::Inventory;
use crate::manifest::writer::Edit;
use crate::manifest::{Digest, Head, Info, Object, Totals};
use crate::mutant::{Mutant, left_out};
use crate::options::{Check, CommitOptions};
use crate::path::RelPath;
use crate::plan::{self, Live, Plan, Rules, Scope, Stale};
use crate::published::{Audit, Published, WORTH_A_THREAD};
use crate::recover::{Manner, Recovered};
use crate::referenced::{Referenced, are_there, not_staged};
use crate::second_look::SecondLook;
use crate::settle;
use crate::stage::{self, Known, Means, States};
use crate::store::Store;
use crate::threads;
use crate::transaction::Transaction;
use crate::txdir::{Basis, COPY, STAGE, part};

/// What a commit did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Committed {
    /// The generation that is published now.
    pub generation: u64,
    /// Whether it is a new one; `false` when nothing differed and nothing was written to the output.
    pub changed: bool,
    /// What was published.
    pub plan: Plan,
    /// How much the generation publishes.
    pub totals: Totals,
    /// What failed after the commit was durable. The commit stands; the next txfs command tries again.
    pub warnings: Vec<Error>,
    /// Where entries were moved that txfs found among its own and could not prove to be so.
    pub rescued: Vec<PathBuf>,
}

impl<F: Fs> Store<F> {
    /// What a commit of the directory `source` would change, whether it is a stage of txfs or any other. Nothing is written, and
    /// the checks of `options` do not run.
    ///
    /// # Errors
    /// The directory, or the output, cannot be read.
    pub fn preview(&self, source: &Path, options: &CommitOptions<'_>) -> Result<Plan> {
        self.preview_of(source, options, States::Refuse).map(|(plan, _)| plan)
    }

    /// As [`Store::preview`], of the copy that [`Transaction::copy_from`] makes of `source`: without state directories of txfs, which
    /// are returned, too, and with the set-id bits that a copy of this user's keeps.
    ///
    /// # Errors
    /// As [`Store::preview`].
    pub fn preview_copy(&self, source: &Path, options: &CommitOptions<'_>) -> Result<(Plan, Vec<PathBuf>)> {
        let (plan, left_out) = self.preview_of(source, options, States::LeaveOut)?;
        Ok((plan, left_out.iter().map(|path| path.under(source)).collect()))
    }

    fn preview_of(&self, source: &Path, options: &CommitOptions<'_>, states: States) -> Result<(Plan, Vec<RelPath>)> {
        let head = self.head()?;
        let stage = Tree::open(&self.fs, source)?;
        let published = Published::open(self, head.as_ref())?;
        let mut staged = stage::scan(&stage, &Known::new(), &published.inventory, None, states)?;
        if states == States::LeaveOut {
            copy::expect_modes(&stage, &mut staged.entries, &self.made_here()?)?;
        }
        let left_out = std::mem::take(&mut staged.left_out);
        Ok((self.make_plan(&stage, staged, &published, Scope::Whole, options, Stale::Whole)?, left_out))
    }

    /// What a file of this user's is like in the state directory, in which stages are.
    fn made_here(&self) -> Result<Stat> {
        let lock = state_path(name::LOCK);
        let missing = || self.state.io("read the attributes of", &lock)(std::io::ErrorKind::NotFound.into());
        Ok(Stat { uid: self.fs.user(), ..self.state.stat(&lock)?.ok_or_else(missing)? })
    }

    fn make_plan(
        &self,
        stage: &Tree<F>,
        staged: stage::Staged,
        published: &Published<F>,
        scope: Scope<'_>,
        options: &CommitOptions<'_>,
        stale: Stale,
    ) -> Result<Plan> {
        let root = RelPath::root();
        let stat = self.fs.stat_dir(stage.root()).map_err(stage.io("read the attributes of", &root))?;
        let stage_root = Object::new(Kind::Directory, &stat, Digest::default());
        if matches!(scope, Scope::Change { .. }) && !published.exists() && published.inventory.totals().entries > 0 {
            return Err(Error::Refused { output: self.output.path.clone(), problems: vec![Problem::OutputGone] });
        }
        let rules = Rules {
            adopt: options.adopt,
            drift: options.allow_drift,
            case_collisions: options.allow_case_collisions,
            empty: options.allow_empty,
            max_removed: options.max_removed,
            exchange: self.capabilities().exchange,
            stale,
        };
        let mut plan = plan::plan(&published.inventory, stage_root, staged.entries, scope, rules, published)?;
        plan.problems.splice(0..0, staged.problems);
        plan.last_change = staged.last_change;
        Ok(plan)
    }
}

impl<F: Fs> Transaction<'_, F> {
    /// What committing now would change, and what stands against it. Nothing is written, and the checks of `options` do not run.
    ///
    /// # Errors
    /// The stage or the output cannot be read; [`Error::BaseMoved`].
    pub fn plan(&self, options: &CommitOptions<'_>) -> Result<Plan> {
        let head = self.check_base()?;
        let mut published = Published::open(self.store, head.as_ref())?;
        self.prepare(&mut published, head.as_ref(), options, None, Stale::Whole)
    }

    /// P2: scan, plan and guards. Without means the stage is left as it is.
    fn prepare(
        &self,
        published: &mut Published<F>,
        head: Option<&Head>,
        options: &CommitOptions<'_>,
        means: Option<Means<'_, F>>,
        stale: Stale,
    ) -> Result<Plan> {
        let stage = self.stage_tree()?;
        let scope = match self.meta.from {
            Basis::Empty | Basis::Copy => Scope::Whole,
            Basis::Current if published.inventory.totals().entries == 0 => Scope::Whole,
            Basis::Current => Scope::Change { removals: &self.removals },
        };
        let audit = match (scope, &self.referenced) {
            (Scope::Whole, None) => Audit::of(self.store, head)?,
            // A change looks at what it names alone, and for what is referenced the output has been looked at.
            _ => None,
        };
        let (mut staged, drifted) =
            Audit::beside(audit, || stage::scan(&stage, &self.known, &published.inventory, means, States::Refuse))?;
        staged.note_unfinished(&self.unfinished);
        if let Some(referenced) = &self.referenced {
            let totals = published.inventory.totals();
            if staged.is_nothing() && published.exists() && referenced.is_all_of(totals) {
                return Ok(Plan::of_unchanged(totals));
            }
            staged.add_referenced(&referenced.entries);
        }
        if let Some(drifted) = drifted.or(self.referenced.as_ref().and_then(|referenced| referenced.drifted.clone())) {
            published.spare(drifted);
        }
        let plan = self.store.make_plan(&stage, staged, published, scope, options, stale)?;
        self.check_complete(&plan)?;
        Ok(plan)
    }

    /// Publishes the stage: all of it, durably, or nothing.
    ///
    /// On success the transaction is over and the new generation survives power loss: what the loss takes of it the next txfs
    /// command on this output puts back. From [`Store::sweep`], or the next transaction, on nothing is left to put back, and the
    /// output is durable as readers see it. When the commit is refused the transaction stays open, so that it can be committed
    /// with other options.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::BaseMoved`], [`Error::Busy`]: nothing changed, the transaction is open. [`Error::RolledBack`],
    /// [`Error::Io`], [`Error::Interrupted`]: the output is unchanged; whether the transaction is open tells [`Transaction::is_open`].
    /// [`Error::StageLost`]: the output is unchanged, the transaction is over. [`Error::OutcomeUnknown`]: the transaction is over,
    /// and the next txfs command on this output finds out. [`Error::Usage`] when it was over before. What recovery of an earlier
    /// commit meets, as [`Store::recover`] says: nothing was begun.
    pub fn commit(&mut self, options: &CommitOptions<'_>) -> Result<Committed> {
        self.check_open()?;
        if !options.checks.is_empty() {
            // They may take long, and would be run in vain.
            self.check_base()?;
            self.run_checks(options)?;
        }
        let lock = self.store.lock()?;
        let Recovered { rescued, mut warnings, .. } = self.store.recover_commits(&lock, Manner::Plain)?;
        if self.store.has_any(&[name::JOURNAL, name::JOURNAL_UNDO])? {
            // The commit before could not be settled: its journal would have to make room for this one's.
            let unsettled = || self.store.state.corrupt(&state_path(name::JOURNAL), "it could not be settled");
            return Err(warnings.pop().unwrap_or_else(unsettled));
        }
        let mut committed = match self.publish(options, Stale::Whole) {
            Err(Error::RolledBack { source }) if is_cross_device(&source) => self.publish(options, Stale::Apart)?,
            Err(Error::RolledBack { source }) if is_missing_call(&source) && self.store.has_moved(&lock)? => {
                self.publish(options, Stale::Whole)?
            }
            result => result?,
        };
        committed.rescued.extend(rescued.into_iter().chain(self.rescued.drain(..)));
        committed.warnings.extend(warnings.into_iter().chain(self.warnings.drain(..)));
        Ok(committed)
    }

    fn run_checks(&self, options: &CommitOptions<'_>) -> Result<()> {
        let stage = self.stage();
        let failed =
            |(check, run): &Check<'_>| run(&stage).err().map(|result| Problem::Check { check: check.clone(), result });
        let problems: Vec<_> = options.checks.iter().filter_map(failed).collect();
        if problems.is_empty() {
            return Ok(());
        }
        Err(Error::Refused { output: self.store.output.path.clone(), problems })
    }

    /// P2 to P5, under the store's lock.
    fn publish(&mut self, options: &CommitOptions<'_>, stale: Stale) -> Result<Committed> {
        if let Some(early) = &mut self.early {
            early.arm(barrier::is_due_at(self.store));
        }
        let published = self.try_publish(options, stale);
        match self.wait_for_early() {
            Err(error) if self.open => Err(self.lose_stage(error)),
            // Where something was published it has been waited for already; and whatever recovery finds of what was not, nobody takes
            // up again what was open.
            _ => published,
        }
    }

    fn try_publish(&mut self, options: &CommitOptions<'_>, stale: Stale) -> Result<Committed> {
        let head = self.check_base()?;
        self.check_barriers()?;
        let mut published = Published::open(self.store, head.as_ref())?;
        let mut plan = self.prepare_own(&mut published, head.as_ref(), options, stale)?;
        if self.copy_missing(&plan)? {
            plan = self.prepare_own(&mut published, head.as_ref(), options, stale)?;
        }
        if !plan.problems.is_empty() {
            return Err(Error::Refused { output: self.store.output.path.clone(), problems: plan.problems });
        }
        if plan.is_empty() {
            return self.nothing_to_do(head, plan);
        }
        let stage = self.stage_tree()?;
        let modes = std::mem::take(&mut plan.stage_modes);
        let result = self.carry_through(head.as_ref(), published, plan, options);
        if self.open && result.is_err() {
            // What is committed again means what it meant; a stage that cannot be put back does not.
            stage.forget();
            self.open = modes.iter().rev().all(|(path, mode)| stage.set_dir_mode(path, *mode).is_ok());
        }
        result
    }

    fn prepare_own(
        &self,
        published: &mut Published<F>,
        head: Option<&Head>,
        options: &CommitOptions<'_>,
        stale: Stale,
    ) -> Result<Plan> {
        let copy = part(COPY);
        let means = Means { tree: &self.tree, copy: &copy, early: self.early.as_ref() };
        self.prepare(published, head, options, Some(means), stale)
    }

    /// P3 to P5: from the first thing that is written to the commit that is carried out.
    fn carry_through(
        &mut self,
        head: Option<&Head>,
        published: Published<F>,
        mut plan: Plan,
        options: &CommitOptions<'_>,
    ) -> Result<Committed> {
        let (edits, operations) = (std::mem::take(&mut plan.edits), std::mem::take(&mut plan.operations));
        let committed = self.store.fs.now();
        let info = Info { generation: self.meta.base + 1, committed, message: options.message.clone() };
        let look = SecondLook::at(&self.tree, &edits, &operations, plan.last_change);
        let threads = if edits.len() < WORTH_A_THREAD { 1 } else { self.store.fs.parallelism() };
        let make_durable = || self.make_durable(head, published, &edits, operations, info, &plan);
        let (journal, unchanged) = threads::both(threads, make_durable, || look.take());
        let journal = journal?;
        unchanged.map_err(|error| self.withdraw(error))?;
        // The name says that barrier 1 was passed. That it is durable itself nobody needs, for the journal is found under either.
        let named = self.store.rename(&state_path(name::JOURNAL_NEW), &state_path(name::JOURNAL));
        named.map_err(|error| self.withdraw(error))?;
        let (output, capabilities) = (&self.store.output, self.store.capabilities());
        let applier = Applier::new(output, Some(self.tree.clone()), capabilities, &journal.operations);
        let applier = applier.map_err(|error| {
            self.open = false;
            self.store.unknown_outcome(error)
        })?;
        // While the outcome is unknown the stage belongs to recovery.
        let intents = Intents { journal: &journal, applier: &applier, skip: &HashSet::new() };
        let carried_out = self.store.carry_out(intents, Attempt::First);
        self.open = matches!(carried_out, Err(Error::RolledBack { .. }));
        carried_out?;
        *self.store.carried_out.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.id);
        let (mut warnings, mut rescued) = (Vec::new(), Vec::new());
        match settle::shelve(self.store, &journal.begin) {
            Ok(found) => rescued = found,
            Err(error) => warnings.push(error),
        }
        plan.operations = journal.operations;
        let head = journal.begin.head;
        Ok(Committed { generation: head.info.generation, changed: true, plan, totals: head.totals, warnings, rescued })
    }

    /// Nothing differs: the output and HEAD are not touched, and the transaction is over.
    fn nothing_to_do(&mut self, head: Option<Head>, plan: Plan) -> Result<Committed> {
        if plan.found {
            // The same as what was published, and not the very thing that was made durable.
            self.store.sync_all().and(self.wait_for_early()).map_err(|error| self.lose_stage(error))?;
        }
        self.open = false;
        let ended = self.store.retire_transaction(self.id).or_else(|_| self.store.remove_transaction(self.id));
        let warnings = ended.err().into_iter().collect();
        let totals = head.map(|head| head.totals).unwrap_or_default();
        Ok(Committed { generation: self.meta.base, changed: false, plan, totals, warnings, rescued: Vec::new() })
    }

    /// P3, and barrier 1.
    fn make_durable(
        &mut self,
        base: Option<&Head>,
        published: Published<F>,
        edits: &[Edit],
        operations: Vec<Operation>,
        info: Info,
        plan: &Plan,
    ) -> Result<Journal> {
        let new = self.write_head(base, &published.inventory, edits, &operations, info);
        // The last time that anybody asks: once the journal is written, what becomes of the commit is no longer the caller's affair.
        let new = new.and_then(|new| self.tree.check_interrupt(&part(STAGE)).map(|()| new));
        let new = new.inspect_err(|_| self.store.drop_new_head(self.meta.base + 1))?;
        drop(published);
        let journal = self.write_journal(base, new, operations, plan.last_change)?;
        self.pass_barrier_1(&journal, plan.found)?;
        Ok(journal)
    }

    /// P3: the manifest and the HEAD that names it, under a name that means nothing yet.
    fn write_head(
        &self,
        base: Option<&Head>,
        manifest: &Inventory<F>,
        edits: &[Edit],
        operations: &[Operation],
        info: Info,
    ) -> Result<Head> {
        let count = plan::count_edits(edits, operations);
        let head = self.store.write_manifest(base, manifest, count, plan::edits(edits, operations), info)?;
        self.store.write_head(&head, |_| Ok(()))?;
        Ok(head)
    }

    /// P3: the journal with every intent. Once it is written whole, recovery may find it and make a commit of it.
    fn write_journal(
        &mut self,
        base: Option<&Head>,
        head: Head,
        operations: Vec<Operation>,
        last_change: Timestamp,
    ) -> Result<Journal> {
        let base_manifest = base.map(|head| head.manifest).unwrap_or_default();
        let base_extent = base.map(|head| head.extent).unwrap_or_default();
        let begin = Begin { transaction: self.id, base: self.meta.base, base_manifest, base_extent, head, last_change };
        let written = self.store.write_new(&state_path(name::JOURNAL_NEW), |stream| {
            writer::write(stream, begin.clone(), &operations).map(drop)
        });
        written.map_err(|error| self.withdraw(error))?;
        Ok(Journal { begin, operations })
    }

    /// Barrier 1 is the commit point: the journal, and all that it names, is on the medium.
    fn pass_barrier_1(&mut self, journal: &Journal, found: bool) -> Result<()> {
        if !left_out(Mutant::Barrier1)
            && let Err(error) = barrier::before_commit_point(self.store, journal, found, self.early.as_ref())
        {
            // Whatever becomes of its journal, this stage is not to be committed again.
            self.open = false;
            return Err(match self.withdraw(error) {
                unknown @ Error::OutcomeUnknown { .. } => unknown,
                error => self.lose_stage(error),
            });
        }
        Ok(())
    }

    /// What was written of the journal may be whole, and durable: it has to be gone durably before "unchanged" is the truth.
    fn withdraw(&mut self, error: Error) -> Error {
        let names = [name::JOURNAL, name::JOURNAL_NEW].map(state_path);
        let gone = names.iter().try_for_each(|name| self.store.state.remove_entry(name, Kind::File));
        let durable =
            gone.and_then(|()| if left_out(Mutant::WithdrawBarrier) { Ok(()) } else { self.store.sync_state() });
        match durable {
            Ok(()) => {
                self.store.drop_new_head(self.meta.base + 1);
                error
            }
            Err(_) => {
                self.open = false;
                self.store.unknown_outcome(error)
            }
        }
    }

    /// Copies what was to be taken from the current generation and turns out not to be there, or not as it was published.
    fn copy_missing(&mut self, plan: &Plan) -> Result<bool> {
        let stage = self.stage_tree()?;
        let Some(referenced) = &self.referenced else { return Ok(false) };
        let missing = referenced.missing(plan);
        let wanted = not_staged(&stage, &missing)?;
        if let Some(from) = &referenced.from {
            let copied = copy::copy_paths(Source::foreign(from), &stage, wanted.iter().cloned().map(Ok));
            if let Err(error) = copied.and_then(|()| are_there(&stage, from, &wanted)) {
                // A part of the copy is not to be taken for all of it by another attempt.
                let removed = wanted.iter().rev().try_for_each(|path| stage.remove(path));
                self.open = removed.is_ok();
                return Err(error);
            }
        }
        let missing: HashSet<RelPath> = missing.into_iter().collect();
        if let Some(referenced) = &mut self.referenced {
            referenced.entries.retain(|entry| !missing.contains(&entry.path));
        }
        Ok(!missing.is_empty())
    }

    /// What was published by the generation before, and was not displaced, has to be in the output still.
    fn check_complete(&self, plan: &Plan) -> Result<()> {
        let Some(referenced @ Referenced { from: None, .. }) = &self.referenced else { return Ok(()) };
        let lost: Paths = not_staged(&self.stage_tree()?, &referenced.missing(plan))?.into_iter().collect();
        if lost.is_empty() { Ok(()) } else { Err(self.not_put_together(self.meta.base - 1, &lost)) }
    }
}

/// Whether a directory could not be renamed because it is on another layer of an overlayfs.
fn is_cross_device(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::CrossesDevices)
}

/// Whether the file system may not have the call that an operation needs. (EPERM says so of links alone; of any other entry it says
/// that it may not be moved.)
fn is_missing_call(error: &Error) -> bool {
    use std::io::ErrorKind::{InvalidInput, Unsupported};
    matches!(error, Error::Io { source, .. } if matches!(source.kind(), InvalidInput | Unsupported))
}
