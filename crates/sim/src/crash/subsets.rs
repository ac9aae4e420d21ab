//! Subsets of the waiting effects that a crash can leave: what one of them waits for is in it, too.

use std::sync::Arc;

use crate::crash::pieces::Random;
use crate::world::effect::{Effect, close};

/// Every closed subset, or `None` when there are more than `limit`.
pub(crate) fn closed_subsets(pending: &[Arc<Effect>], limit: usize) -> Option<Vec<Arc<[bool]>>> {
    let before: Vec<Vec<usize>> = pending
        .iter()
        .map(|effect| {
            let at = |id| pending.binary_search_by_key(&id, |effect| effect.id).ok();
            effect.waits_for().filter_map(at).collect()
        })
        .collect();
    let mut subsets = Vec::new();
    let mut kept = vec![false; pending.len()];
    // Counts in binary, the first effect being the highest digit, over the closed subsets only.
    loop {
        if subsets.len() == limit {
            return None;
        }
        subsets.push(kept.as_slice().into());
        let allowed = |kept: &[bool], at: usize| !kept[at] && before[at].iter().all(|&before| kept[before]);
        let Some(at) = (0..pending.len()).rev().find(|&at| allowed(&kept, at)) else { return Some(subsets) };
        kept[at] = true;
        kept[at + 1..].fill(false);
    }
}

pub(crate) fn random_subset(pending: &[Arc<Effect>], random: &mut Random) -> Arc<[bool]> {
    // Mostly few missing or few there: the ends are where protocols break.
    let of_sixteen = [1, 4, 8, 12, 15][random.below(5)];
    let mut kept: Vec<bool> = pending.iter().map(|_| random.below(16) < of_sixteen).collect();
    if random.below(2) == 0 {
        close(pending, &mut kept);
    } else {
        drop_waiting(pending, &mut kept);
    }
    kept.into()
}

/// Takes out what waits for something that is not there.
pub(crate) fn drop_waiting(pending: &[Arc<Effect>], kept: &mut [bool]) {
    for at in 0..pending.len() {
        let missing = |id| {
            let before = pending.binary_search_by_key(&id, |effect| effect.id);
            before.is_ok_and(|before| !kept[before])
        };
        if pending[at].waits_for().any(missing) {
            kept[at] = false;
        }
    }
}
