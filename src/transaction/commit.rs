//! Committing a transaction: checks, scan, plan and guards; the journal of what is intended and the commit point; then what it says.
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
//! 2. First committer wins: a transaction whose base is no longer current is refused (G10), unless it is about a path, and that
//!    base and the current generation agree there: then it is committed as if it had begun on the current one.
//! 3. The caller learns one of: unchanged, committed, unknown (G8).
//! 4. An fsync is never retried: a stage that could not be made durable is discarded, for the kernel forgets the error.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::PoisonError;

use crate::error::{Error, Paths, Problem, Result};
use crate::format::identity::Digest;
use crate::format::journal::reader::Journal;
use crate::format::journal::record::{Begin, Operation};
use crate::format::journal::writer;
use crate::format::manifest::inventory::Inventory;
use crate::format::manifest::writer::Edit;
use crate::format::manifest::{Extent, Head, Info, Totals};
use crate::fs::compiled::{compiled, same_mut, same_ref};
use crate::fs::{Fs, Kind, Timestamp};
use crate::mutant::{Mutant, left_out};
use crate::options::{Check, CommitOptions, Exclude};
use crate::path::RelPath;
use crate::plan::live::{Audit, Published, WORTH_A_THREAD};
use crate::plan::{self, Base, Intent, Live, Plan, Planned, Scope, Stale};
use crate::progress::Phase;
use crate::protocol::apply::Applier;
use crate::protocol::barrier;
use crate::protocol::carry_out::{Attempt, Carrying};
use crate::protocol::recover::{Manner, Recovered};
use crate::protocol::settle;
use crate::stage::exclude;
use crate::stage::given::{self, Given};
use crate::stage::new_output;
use crate::stage::recheck::SecondLook;
use crate::stage::scan::{self, Means, Reach, States};
use crate::stage::shared;
use crate::stage::source_look::{self, SourceLook};
use crate::store::Store;
use crate::store::current::Current;
use crate::store::layout::{name, state_path};
use crate::store::transaction_dir::{Basis, COPY, STAGE, part};
use crate::threads;
use crate::transaction::Transaction;
use crate::transaction::borrowed::{Original, not_staged};
use crate::transaction::planning::{make_plan, rules};
use crate::transaction::touch::touch;

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
    /// What was committed is in the directory that was the output when it was begun.
    fn replaced_meanwhile(&self) -> Error {
        let output = self.output.path.clone();
        let what =
            "it was moved or replaced while it was published, and what was published is in the directory that it was";
        let source = Error::io("find what was published at", &output)(std::io::Error::other(what));
        Error::OutcomeUnknown { source: Box::new(source), output }
    }
}

impl<F: Fs> Transaction<F> {
    /// What committing now would change, and what stands against it. Nothing is written, and the checks of `options` do not run.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let dist = dir.path().join("dist");
    /// # for text in ["one", "two"] {
    /// #     let mut transaction = txfs::Store::open(&dist)?.begin(txfs::BeginOptions::default())?;
    /// #     transaction.write("index.html", text)?;
    /// #     transaction.commit(&txfs::CommitOptions::default())?;
    /// # }
    /// use txfs::{BeginOptions, CommitOptions, Store};
    ///
    /// let mut transaction = Store::open(&dist)?.begin(BeginOptions::default())?;
    /// transaction.write("index.html", "three")?;
    /// let plan = transaction.plan(&CommitOptions::default())?;
    /// assert_eq!((plan.summary.changed, plan.problems.len()), (1, 0));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The stage or the output cannot be read; [`Error::BaseMoved`].
    pub fn plan(&self, options: &CommitOptions<'_>) -> Result<Plan> {
        compiled!(F, (this: &Transaction = same_ref(self), options: &CommitOptions<'_> = options) -> Result<Plan> {
            this.plan_any(options)
        });
        self.plan_any(options)
    }

    fn plan_any(&self, options: &CommitOptions<'_>) -> Result<Plan> {
        let head = self.check_base()?;
        let mut published = Published::open(&self.store, head, self.at())?;
        Ok(self.make_plan(&mut published, options, None, Stale::Whole)?.plan)
    }

    /// P2: scan, plan and guards. Reach means the stage is left as it is.
    fn make_plan(
        &self,
        published: &mut Published<F>,
        options: &CommitOptions<'_>,
        means: Option<Means<'_, F>>,
        stale: Stale,
    ) -> Result<Planned> {
        let (stage, at) = (self.stage_tree()?, self.at());
        let vacated = self.is_vacated(&stage)?;
        let excluded = self.excluded(options);
        let excluded = excluded.as_ref();
        let mut removals = Cow::Borrowed(&self.removals);
        if let Some(excluded) = excluded.filter(|_| self.captured) {
            // What the tool left of it is excluded, too.
            removals.to_mut().extend(excluded_of(published.inventory(), excluded)?);
        }
        let scope = match self.meta.from {
            Basis::Empty | Basis::Copy => Scope::Whole,
            Basis::Current if published.totals().entries == 0 || vacated => Scope::Whole,
            Basis::Current if self.captured => Scope::Captured { removals: &removals },
            Basis::Current => Scope::Change { removals: &self.removals },
        };
        let audit = match (scope, &self.referenced) {
            (Scope::Whole, None) => published.audit(&self.store)?,
            // A change looks at what it names alone, and for what is referenced the output has been looked at.
            _ => None,
        };
        let reach = Reach { states: States::Refuse, excluded, at: &at, vacated };
        // Until it is known which are not finished, none is: a part of one would be taken for the whole.
        let filled = self.ledger.open();
        let (mut staged, drifted) = Audit::beside(audit, || {
            scan::scan(&stage, &filled.known, published.inventory(), means, reach, Some(&self.traces), None)
        })?;
        shared::expect_modes(&mut staged.entries, stage.group());
        staged.note_unfinished(filled.unfinished());
        drop(filled);
        if let Some(referenced) = &self.referenced {
            let totals = published.totals();
            // What is to be taken over besides is still to be looked for.
            if !options.adopt
                && !options.adopt_all
                && staged.is_nothing_but_the_way_to(&at)
                && published.exists()
                && excluded.is_none()
                && referenced.is_all_of(totals)
            {
                return Ok(Planned::of_unchanged(totals));
            }
            staged.add_referenced(&referenced.but_for(excluded));
        }
        if let Some(drifted) = drifted.or(self.referenced.as_ref().and_then(|referenced| referenced.drifted.clone())) {
            published.spare(drifted);
        }
        let mut rules = rules(options, self.store.capabilities().exchange, stale, stage.group());
        // It was said that nothing is to be there.
        rules.empty |= vacated;
        let planned = make_plan(&self.store.output.path, &stage, staged, published, scope, rules)?;
        self.check_complete(&planned.intent)?;
        Ok(planned)
    }

    /// Publishes the stage: all of it, durably, or nothing.
    ///
    /// On success the transaction is over and the new generation survives power loss: what the loss takes of it the next txfs
    /// command on this output puts back. From [`Store::sweep`](crate::Store::sweep), or the next transaction, on nothing is left to put back, and the
    /// output is durable as readers see it. When the commit is refused the transaction stays open, so that it can be committed
    /// with other options.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::BaseMoved`], [`Error::Busy`]: nothing changed, the transaction is open. [`Error::RolledBack`],
    /// [`Error::Io`], [`Error::Interrupted`]: the output is unchanged; whether the transaction is open tells [`Transaction::is_open`].
    /// [`Error::StageLost`]: the output is unchanged, the transaction is over. [`Error::OutcomeUnknown`]: the transaction is over,
    /// and the next txfs command on this output finds out. [`Error::TransactionOver`] when it was before. What recovery of an earlier
    /// commit meets, as [`Store::recover`](crate::Store::recover) says: nothing was begun.
    pub fn commit(&mut self, options: &CommitOptions<'_>) -> Result<Committed> {
        compiled!(F, (this: &mut Transaction = same_mut(self), options: &CommitOptions<'_> = options) -> Result<Committed> {
            this.commit_any(options)
        });
        self.commit_any(options)
    }

    fn commit_any(&mut self, options: &CommitOptions<'_>) -> Result<Committed> {
        let committed = self.check_and_publish(options);
        self.store.telling(committed)
    }

    fn check_and_publish(&mut self, options: &CommitOptions<'_>) -> Result<Committed> {
        self.check_open()?;
        self.leave_earlier_layer()?;
        if !options.checks.is_empty() {
            // They may take long, and would be run in vain.
            self.check_base()?;
            self.remove_excluded(options)?;
            self.run_checks(options)?;
        }
        self.remove_excluded(options)?;
        let lock = self.store.lock()?;
        let Recovered { mut warnings, .. } = self.store.recover_commits(&lock, Manner::PLAIN)?;
        if self.store.has_any(&[name::JOURNAL, name::JOURNAL_UNDO])? {
            // The commit before could not be settled: its journal would have to make room for this one's.
            let unsettled = || self.store.state.corrupt(&state_path(name::JOURNAL), "it could not be settled");
            return Err(warnings.pop().unwrap_or_else(unsettled));
        }
        let mut committed = match self.publish(options, Stale::Whole) {
            Err(Error::RolledBack { source }) if self.open && is_cross_device(&source) => {
                self.publish(options, Stale::Apart)?
            }
            Err(Error::RolledBack { source }) if self.open && is_missing_call(&source) => {
                match self.store.has_moved(&lock) {
                    Ok(true) => self.publish(options, Stale::Whole)?,
                    // It can do less now than any commit needs, and that is the cause.
                    Err(error @ Error::Unsupported { .. }) => return Err(error),
                    // Where that cannot be told, it is as it was.
                    _ => return Err(Error::RolledBack { source }),
                }
            }
            result => result?,
        };
        // What a check saw it may have changed.
        if options.checks.is_empty() {
            // What could not be noted is read again the next time.
            let _ = self.note_sources();
        }
        committed.rescued = self.store.take_rescued();
        committed.warnings.extend(warnings.into_iter().chain(self.warnings.drain(..)));
        Ok(committed)
    }

    /// What is not to be published, by paths of the output.
    fn excluded(&self, options: &CommitOptions<'_>) -> Option<Exclude> {
        let excluded = options.exclude.as_ref().or(self.excluded.as_ref());
        excluded.map(|excluded| excluded.clone().below(self.at().as_path()))
    }

    fn remove_excluded(&mut self, options: &CommitOptions<'_>) -> Result<()> {
        let Some(excluded) = self.excluded(options) else { return Ok(()) };
        exclude::remove(&self.stage_tree()?, &excluded)?;
        if let Some(referenced) = &mut self.referenced {
            referenced.entries.retain(|entry| !exclude::covers(&excluded, entry));
        }
        Ok(())
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
            early.arm(barrier::is_due_at(&self.store));
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
        let mut published = Published::open(&self.store, head, self.at())?;
        if self.meta.below.is_some() {
            self.meta.base = published.current().generation();
        }
        if !published.exists() {
            new_output::dress(&self.tree, &self.stage_tree()?, &self.store.output)?;
        }
        let at = self.at();
        if !at.is_root()
            && let Some(place) = self.stage_tree()?.find_directory(&at)?
        {
            new_output::dress_place(&self.tree, &place, published.inventory().get(&at)?.as_ref())?;
        }
        let mut planned = self.make_own_plan(&mut published, options, stale)?;
        if self.copy_missing(&planned.intent)? {
            planned = self.make_own_plan(&mut published, options, stale)?;
        }
        if self.give(&planned)? {
            planned = self.make_own_plan(&mut published, options, stale)?;
        }
        let Planned { plan, mut intent } = planned;
        if !plan.problems.is_empty() {
            return Err(Error::Refused { output: self.store.output.path.clone(), problems: plan.problems });
        }
        if plan.is_empty() {
            return self.nothing_to_do(published.inventory().totals(), plan, intent.found);
        }
        let (stage, committed) = (self.stage_tree()?, self.store.fs.now());
        if options.touch {
            touch(&stage, &mut intent, committed)?;
        }
        let info = Info { generation: self.meta.base + 1, committed, message: options.message.clone() };
        let modes = std::mem::take(&mut intent.stage_modes);
        let result = self.carry_through(published, Planned { plan, intent }, info);
        if self.open && result.is_err() {
            // What is committed again means what it meant; a stage that cannot be put back does not.
            stage.forget();
            self.open = modes.iter().rev().all(|(path, mode)| stage.set_dir_mode(path, *mode).is_ok());
        }
        result
    }

    /// Gives what the plan moves into directories of the output what these would have given, and says whether anything was changed.
    fn give(&mut self, Planned { plan, intent }: &Planned) -> Result<bool> {
        let Some(output) = self.store.output.open()?.filter(|_| plan.problems.is_empty()) else { return Ok(false) };
        let Given { changed, withheld } = given::give(&self.stage_tree()?, &output, &intent.operations)?;
        for dir in &withheld.first {
            self.warnings.push(Error::NotInherited { path: dir.under(&self.store.output.path) });
        }
        Ok(changed)
    }

    /// The plan of a commit: what stands in the way of one may be changed in the stage, and told.
    fn make_own_plan(
        &self,
        published: &mut Published<F>,
        options: &CommitOptions<'_>,
        stale: Stale,
    ) -> Result<Planned> {
        let copy = part(COPY);
        let means = Means { tree: &self.tree, copy: &copy, early: self.early.as_ref(), progress: &self.store.progress };
        let closed = shared::share(&self.stage_tree()?)?;
        let mut planned = self.make_plan(published, options, Some(means), stale)?;
        planned.plan.problems.extend(closed);
        Ok(planned)
    }

    /// P3 to P5: from the first thing that is written to the commit that is carried out.
    fn carry_through(
        &mut self,
        published: Published<F>,
        Planned { plan, intent }: Planned,
        info: Info,
    ) -> Result<Committed> {
        let Intent { operations, edits, found, last_change, .. } = intent;
        let look = SecondLook::at(&self.tree, &edits, &operations, last_change);
        let (sources, output) = (std::mem::take(&mut self.sources), self.store.output.path.clone());
        // Beside the barrier, which waits for the disk, unless that is sooner done than a thread is begun.
        let looked_at = edits.len() + sources.iter().map(SourceLook::entries).sum::<usize>();
        let threads = if looked_at < WORTH_A_THREAD { 1 } else { self.store.fs.parallelism() };
        let make_durable = || self.make_durable(published, &edits, operations, info, (found, last_change));
        let unchanged = || look.take().and_then(|()| source_look::check_all(&sources, &output));
        let (journal, unchanged) = threads::both(threads, make_durable, unchanged);
        self.sources = sources;
        let journal = journal?;
        unchanged.map_err(|error| self.withdraw(error))?;
        // The name says that barrier 1 was passed. That it is durable itself nobody needs, for the journal is found under either.
        let named = self.store.rename(&state_path(name::JOURNAL_NEW), &state_path(name::JOURNAL));
        named.map_err(|error| self.withdraw(error))?;
        let store = self.store.clone();
        let (output, capabilities) = (&store.output, store.capabilities());
        let applier = Applier::new(output, Some(self.tree.clone()), capabilities, &journal.operations);
        // Nothing was begun.
        let applier = applier.map_err(|error| self.withdraw(error))?.of_commit();
        // While the outcome is unknown the stage belongs to recovery.
        let carrying = Carrying { journal: &journal, applier: &applier, skip: &HashSet::new(), left: None };
        let carried_out = self.store.carry_out(carrying, Attempt::First);
        // A stage in which not everything is again as it was staged was moved aside.
        let is_ended = || self.store.is_ended(self.id).unwrap_or(true);
        self.open = matches!(carried_out, Err(Error::RolledBack { .. })) && !is_ended();
        carried_out?;
        let in_place = applier.is_the_output();
        *self.store.carried_out.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.id);
        let shelved = settle::shelve(&self.store, &journal.begin);
        let (warnings, rescued) = (shelved.err().into_iter().collect(), Vec::new());
        // Where it cannot be told, nothing says that it is another.
        if matches!(in_place, Ok(false)) {
            return Err(self.store.replaced_meanwhile());
        }
        let head = journal.begin.head;
        Ok(Committed { generation: head.info.generation, changed: true, plan, totals: head.totals, warnings, rescued })
    }

    /// Nothing differs: the output and HEAD are not touched, and the transaction is over.
    fn nothing_to_do(&mut self, totals: Totals, plan: Plan, found: bool) -> Result<Committed> {
        if found {
            // The same as what was published, and not the very thing that was made durable.
            self.store.sync_all().and(self.wait_for_early()).map_err(|error| self.lose_stage(error))?;
        }
        self.open = false;
        let ended = self.store.retire_transaction(self.id).or_else(|_| self.store.remove_transaction(self.id));
        let warnings = ended.err().into_iter().collect();
        Ok(Committed { generation: self.meta.base, changed: false, plan, totals, warnings, rescued: Vec::new() })
    }

    /// P3, and barrier 1.
    fn make_durable(
        &mut self,
        published: Published<F>,
        edits: &[Edit],
        operations: Vec<Operation>,
        info: Info,
        (found, last_change): (bool, Timestamp),
    ) -> Result<Journal> {
        let new = self.write_head(published.current(), edits, &operations, info);
        // The last time that anybody asks: once the journal is written, what becomes of the commit is no longer the caller's affair.
        let new = new.and_then(|new| self.tree.check_interrupt(&part(STAGE)).map(|()| new));
        let new = new.inspect_err(|_| self.store.drop_new_head(self.meta.base + 1))?;
        let base = published.current().head().map(|head| (head.manifest, head.extent)).unwrap_or_default();
        drop(published);
        let journal = self.write_journal(base, new, operations, last_change)?;
        let store = self.store.clone();
        let meter = store.progress.begin(Phase::Barrier, Some(1));
        self.pass_barrier_1(&journal, found)?;
        meter.end();
        Ok(journal)
    }

    /// P3: the manifest and the HEAD that names it, under a name that means nothing yet.
    fn write_head(&self, base: &Current<F>, edits: &[Edit], operations: &[Operation], info: Info) -> Result<Head> {
        let count = plan::count_edits(edits, operations);
        let head = self.store.write_manifest(base, count, plan::edits(edits, operations), info)?;
        self.store.write_head(&head, |_| Ok(()))?;
        Ok(head)
    }

    /// P3: the journal with every intent. Once it is written whole, recovery may find it and make a commit of it.
    fn write_journal(
        &mut self,
        (base_manifest, base_extent): (Digest, Extent),
        head: Head,
        operations: Vec<Operation>,
        last_change: Timestamp,
    ) -> Result<Journal> {
        let begin = Begin { transaction: self.id, base: self.meta.base, base_manifest, base_extent, head, last_change };
        let path = state_path(name::JOURNAL_NEW);
        let readable = writer::check(&begin, &operations).map_err(self.store.state.io("write", &path));
        readable.inspect_err(|_| self.store.drop_new_head(self.meta.base + 1))?;
        let written = self.store.write_new(&path, |stream| writer::put(stream, begin.clone(), &operations).map(drop));
        written.map_err(|error| self.withdraw(error))?;
        Ok(Journal { begin, operations })
    }

    /// Barrier 1 is the commit point: the journal, and all that it names, is on the medium.
    fn pass_barrier_1(&mut self, journal: &Journal, found: bool) -> Result<()> {
        if !left_out(Mutant::Barrier1)
            && let Err(error) = barrier::before_commit_point(&self.store, journal, found, self.early.as_ref())
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

    /// What was published by the generation before, and was not displaced, has to be in the output still.
    fn check_complete(&self, intent: &Intent) -> Result<()> {
        let Some(referenced) = &self.referenced else { return Ok(()) };
        let Original::Generation(generation) = referenced.of else { return Ok(()) };
        let lost: Paths = not_staged(&self.stage_tree()?, &referenced.missing(intent))?.into_iter().collect();
        if lost.is_empty() { Ok(()) } else { Err(self.store.not_put_together(generation, &lost)) }
    }
}

/// What is published of what is excluded.
fn excluded_of<F: Fs>(published: &Inventory<F>, excluded: &Exclude) -> Result<Vec<RelPath>> {
    let is_excluded = |entry: &Result<_>| entry.as_ref().map_or(true, |entry| exclude::covers(excluded, entry));
    published.entries().filter(is_excluded).map(|entry| entry.map(|entry| entry.path)).collect()
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
