//! What strangers do: drift, foreign entries, other processes, and state that was exchanged. Each is met by a refusal.

use crate::explore::tally::Checked;

mod displaced;
mod evidence;
mod foreign;
mod ground;
mod modes;
mod others;
mod past;
mod ways_out;

/// A check by its name.
pub type Guard = (&'static str, fn() -> Checked);

pub const ALL: [Guard; 31] = [
    ("first committer wins", others::first_committer_wins),
    ("of two producers at one path the first wins, and no other", others::of_two_producers_at_one_path_the_first_wins),
    ("drift is refused", foreign::drift_is_refused),
    ("foreign entries are not overwritten", foreign::foreign_entries_are_not_overwritten),
    ("a held lock is respected", others::a_held_lock_is_respected),
    ("a live transaction is left alone", others::a_live_transaction_is_left_alone),
    ("nobody waits for the dead", others::nobody_waits_for_the_dead),
    ("a detached transaction ends with its boot", others::a_detached_transaction_ends_with_its_boot),
    (
        "a stage that was open when a barrier failed is committed by nobody",
        others::a_stage_that_was_open_is_committed_by_nobody,
    ),
    ("a hard link does not lead into the output", foreign::a_hard_link_does_not_lead_into_the_output),
    ("what is not ours is rescued", foreign::what_is_not_ours_is_rescued),
    ("what was displaced is kept", displaced::what_was_displaced_is_kept),
    ("the proof of what was displaced outlives it", displaced::the_proof_of_what_was_displaced_outlives_it),
    ("what is pruned goes, and nothing else", displaced::what_is_pruned_goes_and_nothing_else),
    ("what is said to be kept is said through crashes", past::what_is_said_to_be_kept_is_said_through_crashes),
    ("what is kept can be gone back to after a crash", past::what_is_kept_can_be_gone_back_to_after_a_crash),
    ("a spliced journal is refused", evidence::a_spliced_journal_is_refused),
    ("an exchanged HEAD is refused", evidence::an_exchanged_head_is_refused),
    ("what cannot be recognized is refused", evidence::what_cannot_be_recognized_is_refused),
    (
        "a directory of somebody's is not taken for a staged one",
        foreign::a_directory_of_somebodys_is_not_taken_for_a_staged_one,
    ),
    (
        "a file that is rewritten while it is committed takes no reported commit back",
        evidence::a_file_that_is_rewritten_while_it_is_committed_takes_no_reported_commit_back,
    ),
    (
        "a file that is changed once it is published takes no reported commit back",
        evidence::a_file_that_is_changed_once_it_is_published_takes_no_reported_commit_back,
    ),
    (
        "a mode that is changed while it is committed takes no reported commit back",
        modes::a_mode_that_is_changed_while_it_is_committed_takes_no_reported_commit_back,
    ),
    (
        "a directory that was opened is closed with what is given up",
        modes::a_directory_that_was_opened_is_closed_with_what_is_given_up,
    ),
    ("a mode that a crash takes stops no recovery", modes::a_mode_that_a_crash_takes_stops_no_recovery),
    (
        "a stage that was not given to the group is made anew",
        modes::a_stage_that_was_not_given_to_the_group_is_made_anew,
    ),
    ("a HEAD that may not be durable is written anew", evidence::a_head_that_may_not_be_durable_is_written_anew),
    (
        "what somebody removes in the middle leaves a way out that loses nothing",
        ways_out::what_somebody_removes_in_the_middle_leaves_a_way_out_that_loses_nothing,
    ),
    (
        "a commit whose displaced entry is gone goes forward",
        ways_out::a_commit_whose_displaced_entry_is_gone_goes_forward,
    ),
    ("a way out that is interrupted is taken again", ways_out::a_way_out_that_is_interrupted_is_taken_again),
    ("what cannot be read is not given up unless nothing was begun", evidence::what_cannot_be_read_is_not_given_up),
];
