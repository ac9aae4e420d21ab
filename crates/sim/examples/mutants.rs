//! Leaves out one step of the protocol after the other, and shows which check notices.
//!
//! Each is first looked for where it was found before ([`told_by`]), and if it is not noticed there, everywhere.
//!
//! ```sh
//! cargo run --release -p txfs-sim --features mutants --example mutants [-- NAME]
//! ```

use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use txfs::mutant::{Mutant, leave_out};
use txfs_sim::explore::{self, Effort, Options, Report, tally::grouped};

/// A fifth of the time of worlds in memory is theirs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What notices a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// A guard by its name.
    Guard(&'static str),
    /// One of the telling worlds by its number, with an error in every recovery.
    Telling(u64),
    /// A world by its number.
    World(u64),
    /// Nothing can: left out, it changes nothing that is promised. A crash while a commit is undone is then rolled forward, and as
    /// long as the undoing has not been reported the new generation is as right as the old one.
    AsRightWithout,
}

/// Where each mutant was noticed, and is to be noticed again.
fn told_by(mutant: Mutant) -> Told {
    use Told::*;
    match mutant {
        Mutant::Barrier1 => World(1),
        Mutant::Barrier2 => World(1),
        Mutant::RecoveryBarrier => World(1),
        Mutant::WithdrawBarrier => World(1),
        Mutant::BegunTells => World(1),
        Mutant::SecondLook => Guard("a file that is rewritten while it is committed takes no reported commit back"),
        Mutant::ModeBeforeMoving => Guard("a mode that is changed while it is committed takes no reported commit back"),
        Mutant::TimeOfChanges | Mutant::WaitForTick | Mutant::MovedAndRewritten => {
            Guard("a file that is changed once it is published takes no reported commit back")
        }
        Mutant::DirectoryTells => Guard("a directory of somebody's is not taken for a staged one"),
        Mutant::BarrierBeforeReading => World(1),
        Mutant::ContentTells => World(1),
        Mutant::ManifestTells => Telling(13),
        Mutant::ReadFromMedium => World(16),
        Mutant::SyncedJournal => World(4),
        Mutant::ConfirmUndo => AsRightWithout,
        Mutant::CleanBarrier => World(17),
        Mutant::BarrierBeforeUndo => Telling(2),
        Mutant::UndoIntentBarrier => AsRightWithout,
        Mutant::UndoneBarrier => World(4),
        Mutant::StoreFileBarrier => World(0),
        Mutant::StoreNameBarrier => Telling(0),
        Mutant::RetentionBarrier | Mutant::RetentionName => Guard("what is said to be kept is said through crashes"),
        Mutant::LinkBarrier => World(7),
        Mutant::SyncedFiles => World(3),
        Mutant::SyncedStage => World(4),
        Mutant::SyncedTransaction => World(4),
        Mutant::SyncedOutput => World(4),
        Mutant::SyncedHead => World(11),
        Mutant::SyncedSources => World(11),
        Mutant::SyncedModes => Telling(9),
        Mutant::SyncedRemoved => Guard("what was displaced is kept"),
        Mutant::SyncedProof => Guard("the proof of what was displaced outlives it"),
        Mutant::UndoIntent => AsRightWithout,
        Mutant::HeadAfterOperations => World(3),
        Mutant::HeadWrittenAnew => Guard("a HEAD that may not be durable is written anew"),
        Mutant::SettleAfterBarrier2 => Guard("what was displaced is kept"),
        Mutant::RemovalsLast => World(6),
        Mutant::AdditionsFirst => World(12),
        Mutant::IdentityInode => World(4),
        Mutant::IdentitySizeAndTime => Guard("what is not ours is rescued"),
        Mutant::HalfDone => World(4),
        Mutant::LeftIsNotDone => Guard("what cannot be recognized is refused"),
        Mutant::OnlyForward => Telling(8),
        Mutant::UndoableCheck => Guard("a commit whose displaced entry is gone goes forward"),
        Mutant::OpenParent => World(11),
        Mutant::MovedModes => World(1),
        Mutant::LostModes => Guard("a mode that a crash takes stops no recovery"),
        Mutant::SameInodeAtRetiring => World(1),
        Mutant::ManifestAppended => Telling(11),
        Mutant::ManifestKept => World(1),
        Mutant::ProofKept => World(11),
        Mutant::ProofOfPruned => Guard("what is pruned goes, and nothing else"),
        Mutant::BaseCheck => Guard("first committer wins"),
        Mutant::BaseDigest => Guard("an exchanged HEAD is refused"),
        Mutant::CommitDigest => Guard("a spliced journal is refused"),
        Mutant::StoreLock => Guard("a held lock is respected"),
        Mutant::DeadWaiter => Guard("nobody waits for the dead"),
        Mutant::LifeCheck => Guard("a live transaction is left alone"),
        Mutant::FailedForAll => Guard("a stage that was open when a barrier failed is committed by nobody"),
        Mutant::BootCheck => Guard("a detached transaction ends with its boot"),
        Mutant::IsOurs => Guard("what is not ours is rescued"),
        Mutant::BelowCheck => Guard("of two producers at one path the first wins, and no other"),
        Mutant::ForeignCheck => Guard("foreign entries are not overwritten"),
        Mutant::DriftCheck => Guard("drift is refused"),
        Mutant::SoundStage | Mutant::MendTransaction => {
            Guard("what somebody removes in the middle leaves a way out that loses nothing")
        }
        Mutant::CertainlyNotBegun => Guard("what cannot be read is not given up unless nothing was begun"),
        Mutant::HardLinkCopy => Guard("a hard link does not lead into the output"),
    }
}

/// What a search found, and what it took.
struct Found {
    /// By what, and the check that did not hold.
    by: Option<(Told, String)>,
    states: u64,
    took: Duration,
}

fn main() -> ExitCode {
    let only = std::env::args().nth(1);
    let named = |mutant: Mutant| only.as_ref().is_none_or(|only| format!("{mutant:?}") == *only);
    let mutants: Vec<_> = Mutant::ALL.iter().filter(|(mutant, _)| named(*mutant)).collect();
    if mutants.is_empty() {
        println!("there is no mutant {}", only.unwrap_or_default());
        return ExitCode::FAILURE;
    }
    let began = Instant::now();
    if let Some(wrong) = wrong_without() {
        println!("{wrong:?} does not hold with nothing left out");
        return ExitCode::FAILURE;
    }
    // A mutant that panics is killed; its words are in the table.
    std::panic::set_hook(Box::new(|_| {}));
    println!("| left out | noticed by | where | distinct crash states | s |\n|---|---|---|---|---|");
    let alive = mutants.iter().filter(|(mutant, what)| !is_noticed(*mutant, what)).count();
    println!("{alive} of {} not noticed, {:.0} s", mutants.len(), began.elapsed().as_secs_f32());
    if alive == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A check that fails although nothing is left out says nothing of what is.
fn wrong_without() -> Option<Told> {
    let mut told: Vec<Told> = Vec::new();
    for (mutant, _) in Mutant::ALL {
        if !told.contains(&told_by(mutant)) {
            told.push(told_by(mutant));
        }
    }
    let next = AtomicUsize::new(0);
    let work =
        || std::iter::from_fn(|| told.get(next.fetch_add(1, Ordering::Relaxed))).find(|&&told| look(told).by.is_some());
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        work().or(other.join().expect("a panic of the engine is caught")).copied()
    })
}

/// Leaves it out, and prints what notices.
fn is_noticed(mutant: Mutant, what: &str) -> bool {
    leave_out(Some(mutant));
    let known = told_by(mutant);
    let mut found = look(known);
    let as_right = known == Told::AsRightWithout;
    if found.by.is_none() {
        found = search(as_right);
    }
    leave_out(None);
    let (by, place) = match &found.by {
        Some((told, check)) if *told == known => (check.as_str(), format!("{told:?}")),
        Some((told, check)) => (check.as_str(), format!("{told:?}, no longer {known:?}")),
        None if as_right => ("nothing: as right without", String::new()),
        None => ("NOTHING", String::new()),
    };
    println!("| {what} | {by} | {place} | {} | {:.1} |", grouped(found.states), found.took.as_secs_f32());
    found.by.is_some() != as_right
}

/// Looks in one place.
fn look(told: Told) -> Found {
    let began = Instant::now();
    let (by, states) = match told {
        Told::Guard(name) => {
            let (_, guard) =
                explore::guards::ALL.iter().find(|(other, _)| *other == name).expect("a guard of that name");
            let held = std::panic::catch_unwind(guard);
            ((!matches!(held, Ok(Ok(())))).then(|| (told, name.into())), 0)
        }
        Told::Telling(number) => of(explore::explore_telling(Effort::TELLING, Some(number)), Told::Telling),
        Told::World(number) => of(skim((number, Some(number + 1))), Told::World),
        Told::AsRightWithout => (None, 0),
    };
    Found { by, states, took: began.elapsed() }
}

/// Looks everywhere; for what nothing notices, only among the worlds, and at less of each.
fn search(only_worlds: bool) -> Found {
    let began = Instant::now();
    if !only_worlds {
        let guards = explore::guards::ALL.iter().map(|(name, _)| look(Told::Guard(name)));
        if let Some(found) = guards.into_iter().find(|found| found.by.is_some()) {
            return found;
        }
    }
    let mut states = 0;
    let telling = if only_worlds { Effort::TELLING_SLICE } else { Effort::TELLING };
    let suites: [&dyn Fn() -> _; 3] = [
        &|| of(skim((0, Some(20))), Told::World),
        &|| of(explore::explore_telling(telling, None), Told::Telling),
        &|| of(skim((20, Some(120))), Told::World),
    ];
    for suite in suites {
        let (by, some) = suite();
        states += some;
        if by.is_some() {
            return Found { by, states, took: began.elapsed() };
        }
    }
    Found { by: None, states, took: began.elapsed() }
}

fn of(report: Report, told: fn(u64) -> Told) -> (Option<(Told, String)>, u64) {
    let by = report.violation.map(|violation| (told(violation.number), violation.check.to_owned()));
    (by, report.tally.distinct)
}

fn skim(worlds: (u64, Option<u64>)) -> Report {
    explore::explore(&Options { effort: Effort::SKIM, worlds, ..Options::endless() })
}
