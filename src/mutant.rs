//! Mutants: steps of the protocol that a test can leave out, to see that something notices (feature `mutants`).
//!
//! Without the feature [`left_out`] is the constant `false`, and every use of it compiles to nothing.

/// A barrier, an order, or a check that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "`what` says what each leaves out")]
#[repr(u8)]
pub enum Mutant {
    Barrier1,
    Barrier2,
    RecoveryBarrier,
    SyncedFiles,
    SyncedStage,
    SyncedTransaction,
    SyncedJournal,
    SyncedProof,
    SyncedOutput,
    SyncedSources,
    SyncedRemoved,
    SyncedModes,
    SyncedHead,
    WithdrawBarrier,
    BegunTells,
    DirectoryTells,
    BarrierBeforeReading,
    ContentTells,
    ManifestTells,
    ReadFromMedium,
    ConfirmUndo,
    CleanBarrier,
    BarrierBeforeUndo,
    UndoIntentBarrier,
    UndoneBarrier,
    StoreFileBarrier,
    StoreNameBarrier,
    RetentionBarrier,
    RetentionName,
    LinkBarrier,
    UndoIntent,
    HeadAfterOperations,
    HeadWrittenAnew,
    SettleAfterBarrier2,
    RemovalsLast,
    AdditionsFirst,
    IdentityInode,
    IdentitySizeAndTime,
    HalfDone,
    LeftIsNotDone,
    OnlyForward,
    UndoableCheck,
    OpenParent,
    MovedModes,
    LostModes,
    SameInodeAtRetiring,
    ProofKept,
    ProofOfPruned,
    ManifestAppended,
    ManifestKept,
    BaseCheck,
    BelowCheck,
    BaseDigest,
    CommitDigest,
    StoreLock,
    LifeCheck,
    DeadWaiter,
    BootCheck,
    FailedForAll,
    IsOurs,
    ForeignCheck,
    DriftCheck,
    HardLinkCopy,
    SecondLook,
    ModeBeforeMoving,
    TimeOfChanges,
    WaitForTick,
    MovedAndRewritten,
    SoundStage,
    MendTransaction,
    CertainlyNotBegun,
}

impl Mutant {
    /// Every one.
    pub const ALL: [(Mutant, &'static str); 71] = [
        (Mutant::Barrier1, "barrier 1: stage and intents before anything is carried out"),
        (Mutant::Barrier2, "barrier 2: operations and HEAD before the journal is retired"),
        (Mutant::RecoveryBarrier, "the same, when recovery carries them out"),
        (Mutant::SyncedFiles, "barrier 1, one by one: fsync of the files"),
        (Mutant::SyncedStage, "barrier 1, one by one: fsync of the stage's directories"),
        (
            Mutant::SyncedTransaction,
            "barrier 1, one by one: fsync of the directories above the stage, and of the manifests'",
        ),
        (Mutant::SyncedJournal, "barrier 1, one by one: fsync of the journal's name"),
        (Mutant::SyncedProof, "barrier 1, one by one: fsync of what was displaced and is gone"),
        (Mutant::SyncedOutput, "barrier 2, one by one: fsync of the output's directories"),
        (Mutant::SyncedSources, "barrier 2, one by one: fsync of the stage's directories that were emptied"),
        (Mutant::SyncedRemoved, "barrier 2, one by one: fsync of the directory of what was removed"),
        (Mutant::SyncedModes, "barrier 2, one by one: fsync of the directories that get another mode"),
        (Mutant::SyncedHead, "barrier 2, one by one: fsync of HEAD's name"),
        (Mutant::WithdrawBarrier, "fsync of the journal's absence before its commit is said to have failed"),
        (Mutant::BegunTells, "an operation that was begun tells that barrier 1 was passed"),
        (Mutant::DirectoryTells, "what is in a directory tells whether it was moved"),
        (Mutant::BarrierBeforeReading, "syncfs before what the journal names is read"),
        (Mutant::ContentTells, "what the journal names tells whether barrier 1 was passed"),
        (Mutant::ManifestTells, "the manifest tells so, too"),
        (Mutant::ReadFromMedium, "what tells so is read from the medium"),
        (Mutant::ConfirmUndo, "fsync of the undo intent before recovery acts on it"),
        (Mutant::CleanBarrier, "fsync of the journal's absence before the stage goes"),
        (Mutant::BarrierBeforeUndo, "syncfs before the undo intent"),
        (Mutant::UndoIntentBarrier, "fsync of the undo intent"),
        (Mutant::UndoneBarrier, "syncfs of what was undone, before its intent goes"),
        (Mutant::StoreFileBarrier, "fsync of the store file before its name"),
        (Mutant::StoreNameBarrier, "syncfs of the store's name"),
        (Mutant::RetentionBarrier, "fsync of what is to be kept before its name"),
        (Mutant::RetentionName, "fsync of the name of what is to be kept"),
        (Mutant::LinkBarrier, "fsync of a link before the other name goes"),
        (Mutant::UndoIntent, "the undo intent"),
        (Mutant::HeadAfterOperations, "HEAD after the operations"),
        (Mutant::HeadWrittenAnew, "HEAD.new written anew by recovery"),
        (Mutant::SettleAfterBarrier2, "settling after barrier 2"),
        (Mutant::RemovalsLast, "removals after additions and replacements"),
        (Mutant::AdditionsFirst, "additions before replacements"),
        (Mutant::IdentityInode, "the inode number in an identity"),
        (Mutant::IdentitySizeAndTime, "size and time in an identity"),
        (Mutant::HalfDone, "half done: both names of a rename"),
        (Mutant::LeftIsNotDone, "left: an entry that is nowhere is not done"),
        (Mutant::UndoableCheck, "going forward where what was displaced is lost"),
        (Mutant::OnlyForward, "recovery goes forward alone"),
        (Mutant::OpenParent, "opening a directory that was closed too early"),
        (Mutant::MovedModes, "modes of directories that are moved too"),
        (Mutant::LostModes, "modes that a crash brings back to directories of the output"),
        (Mutant::SameInodeAtRetiring, "both names of the journal at its retirement"),
        (Mutant::ProofKept, "the proof of what was displaced, one generation longer"),
        (Mutant::ProofOfPruned, "the proof of what was pruned"),
        (Mutant::ManifestAppended, "what a manifest names is not written again"),
        (Mutant::ManifestKept, "the manifest before what was displaced, while its journal is kept"),
        (Mutant::BaseCheck, "first committer wins"),
        (Mutant::BelowCheck, "what a transaction of one path replaces is as it was when it began"),
        (Mutant::BaseDigest, "the digest of the base's manifest"),
        (Mutant::CommitDigest, "the digest in the commit record"),
        (Mutant::StoreLock, "the store's lock"),
        (Mutant::LifeCheck, "the lock of a live transaction"),
        (Mutant::DeadWaiter, "the lock of a place in the queue"),
        (Mutant::BootCheck, "the boot of a detached transaction"),
        (Mutant::FailedForAll, "the end of every transaction when a barrier fails"),
        (Mutant::IsOurs, "the proof that what was displaced is ours"),
        (Mutant::ForeignCheck, "foreign entries in the way"),
        (Mutant::DriftCheck, "drift"),
        (Mutant::HardLinkCopy, "an inode of its own for a hard-linked file"),
        (Mutant::SecondLook, "a second look at what moves along with a directory"),
        (Mutant::ModeBeforeMoving, "a look at the mode of what is moved by itself"),
        (Mutant::TimeOfChanges, "when an entry was changed, whatever time it was given"),
        (Mutant::WaitForTick, "a later time for whatever is written to from the report on"),
        (Mutant::MovedAndRewritten, "what was published and then changed counts as there"),
        (Mutant::SoundStage, "moving a stage aside in which not everything is again as it was staged"),
        (Mutant::MendTransaction, "making directories of a transaction anew that somebody removed"),
        (Mutant::CertainlyNotBegun, "certainty that nothing was begun before what cannot be read is given up"),
    ];
}

#[cfg(feature = "mutants")]
static LEFT_OUT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(u8::MAX);

/// From now on this is left out, in the whole process; `None` for nothing.
#[cfg(feature = "mutants")]
pub fn leave_out(mutant: Option<Mutant>) {
    LEFT_OUT.store(mutant.map_or(u8::MAX, |mutant| mutant as u8), std::sync::atomic::Ordering::SeqCst);
}

/// Whether it is left out.
#[cfg(feature = "mutants")]
pub(crate) fn left_out(mutant: Mutant) -> bool {
    LEFT_OUT.load(std::sync::atomic::Ordering::Relaxed) == mutant as u8
}

/// Whether it is left out: never, without the feature.
#[cfg(not(feature = "mutants"))]
pub(crate) const fn left_out(_: Mutant) -> bool {
    false
}
