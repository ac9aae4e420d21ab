//! The decision table of recovery, as data: what was found, and what HEAD says, to what is done.

use crate::protocol::carry_out::Relation;
use crate::store::layout::name;

/// The journal that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    None,
    Damaged,
    /// Under the name that it is written under, and valid.
    Intent,
    Forward,
    Undo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Clean,
    Weigh,
    RollForward,
    Finish,
    Settle,
    FinishUndo,
    Drop,
    Refuse,
}

/// The decision table.
pub(super) fn decide(found: Found, head: Relation) -> Action {
    match (found, head) {
        (Found::None, _) => Action::Clean,
        (Found::Damaged, _) => Action::Refuse,
        (Found::Intent, Relation::Base) => Action::Weigh,
        (Found::Intent, Relation::This) => Action::Finish,
        (Found::Intent, Relation::Later) => Action::Clean,
        (Found::Forward, Relation::Base) => Action::RollForward,
        (Found::Forward, Relation::This) => Action::Finish,
        (Found::Forward, Relation::Later) => Action::Settle,
        (Found::Undo, Relation::Base) => Action::FinishUndo,
        (Found::Undo, Relation::Later) => Action::Drop,
        (Found::Undo, Relation::This) => Action::Refuse,
        (Found::Intent | Found::Forward | Found::Undo, Relation::Other) => Action::Refuse,
    }
}

/// What a valid journal of this name says.
pub(super) fn found_as(name: &str) -> Found {
    match name {
        name::JOURNAL_UNDO => Found::Undo,
        name::JOURNAL => Found::Forward,
        _ => Found::Intent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decision_table_is_the_one_of_the_specification() {
        use Action as A;
        use Relation::{Base, Later, Other, This};
        let expected = [
            (Found::None, [A::Clean, A::Clean, A::Clean, A::Clean]),
            (Found::Damaged, [A::Refuse, A::Refuse, A::Refuse, A::Refuse]),
            (Found::Intent, [A::Weigh, A::Finish, A::Clean, A::Refuse]),
            (Found::Forward, [A::RollForward, A::Finish, A::Settle, A::Refuse]),
            (Found::Undo, [A::FinishUndo, A::Refuse, A::Drop, A::Refuse]),
        ];
        for (found, actions) in expected {
            for (head, action) in [Base, This, Later, Other].into_iter().zip(actions) {
                assert_eq!(decide(found, head), action, "{found:?} with HEAD at {head:?}");
            }
        }
    }
}
