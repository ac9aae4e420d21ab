//! Mutants: steps of the protocol that a test can leave out, to see that something notices (feature `mutants`).
//!
//! Without the feature [`left_out`] is a constant, and nothing of this is compiled.

/// A barrier, an order, or a check that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "`what` says what each leaves out")]
#[repr(u8)]
pub enum Mutant {
    Barrier1,
    Barrier2,
    Barrier3,
    ConfirmJournal,
    CleanBarrier,
    BarrierBeforeUndo,
    UndoIntentBarrier,
    UndoneBarrier,
    StoreFileBarrier,
    StoreDirectoryBarrier,
    StoreNameBarrier,
    LinkBarrier,
    UndoIntent,
    HeadAfterOperations,
    HeadWrittenAnew,
    JournalBeforeApply,
    SettleAfterBarrier3,
    RemovalsLast,
    AdditionsFirst,
    IdentityInode,
    IdentitySizeAndTime,
    HalfDone,
    LeftIsNotDone,
    UndoAll,
    UndoableCheck,
    OpenParent,
    MovedModes,
    SameInodeAtRetiring,
    ProofKept,
    BaseCheck,
    BaseDigest,
    CommitDigest,
    StoreLock,
    LifeCheck,
    BootCheck,
    IsOurs,
    ForeignCheck,
    DriftCheck,
    HardLinkCopy,
}

impl Mutant {
    /// Every one.
    pub const ALL: [(Mutant, &'static str); 39] = [
        (Mutant::Barrier1, "barrier 1: syncfs before the journal gets its name"),
        (Mutant::Barrier2, "barrier 2: fsync of the journal's name"),
        (Mutant::Barrier3, "barrier 3: syncfs before success and settling"),
        (Mutant::ConfirmJournal, "fsync of the journal's name before recovery acts on it"),
        (Mutant::CleanBarrier, "fsync of the journal's absence before the stage goes"),
        (Mutant::BarrierBeforeUndo, "syncfs before the undo intent"),
        (Mutant::UndoIntentBarrier, "fsync of the undo intent"),
        (Mutant::UndoneBarrier, "syncfs of what was undone, before its intent goes"),
        (Mutant::StoreFileBarrier, "fsync of the store file before its name"),
        (Mutant::StoreDirectoryBarrier, "fsync of the store's directories before its name"),
        (Mutant::StoreNameBarrier, "fsync of the store's name"),
        (Mutant::LinkBarrier, "fsync of a link before the other name goes"),
        (Mutant::UndoIntent, "the undo intent"),
        (Mutant::HeadAfterOperations, "HEAD after the operations"),
        (Mutant::HeadWrittenAnew, "HEAD.new written anew by recovery"),
        (Mutant::JournalBeforeApply, "the journal's name before the operations"),
        (Mutant::SettleAfterBarrier3, "settling after barrier 3"),
        (Mutant::RemovalsLast, "removals after additions and replacements"),
        (Mutant::AdditionsFirst, "additions before replacements"),
        (Mutant::IdentityInode, "the inode number in an identity"),
        (Mutant::IdentitySizeAndTime, "size and time in an identity"),
        (Mutant::HalfDone, "half done: both names of a rename"),
        (Mutant::LeftIsNotDone, "left: an entry that is nowhere is not done"),
        (Mutant::UndoableCheck, "going forward where what was displaced is lost"),
        (Mutant::UndoAll, "undoing operations after the one that failed, in recovery"),
        (Mutant::OpenParent, "opening a directory that was closed too early"),
        (Mutant::MovedModes, "modes of directories that are moved too"),
        (Mutant::SameInodeAtRetiring, "both names of the journal at its retirement"),
        (Mutant::ProofKept, "the proof of what was displaced, one generation longer"),
        (Mutant::BaseCheck, "first committer wins"),
        (Mutant::BaseDigest, "the digest of the base's manifest"),
        (Mutant::CommitDigest, "the digest in the commit record"),
        (Mutant::StoreLock, "the store's lock"),
        (Mutant::LifeCheck, "the lock of a live transaction"),
        (Mutant::BootCheck, "the boot of a detached transaction"),
        (Mutant::IsOurs, "the proof that what was displaced is ours"),
        (Mutant::ForeignCheck, "foreign entries in the way"),
        (Mutant::DriftCheck, "drift"),
        (Mutant::HardLinkCopy, "an inode of its own for a hard-linked file"),
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
