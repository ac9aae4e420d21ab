//! The plan of a commit, for whoever asks: with a transaction or without.
//!
//! Invariant: nothing is changed here.

use std::path::Path;

use crate::error::{Error, Problem, Result};
use crate::format::identity::Object;
use crate::fs::Fs;
use crate::fs::tree::Tree;
use crate::options::CommitOptions;
use crate::path::RelPath;
use crate::plan::live::Published;
use crate::plan::{self, Base, Live, Planned, Rules, Scope, Stale};
use crate::stage::scan;

/// What the user allows, and what the file system can do.
pub(crate) fn rules(options: &CommitOptions<'_>, exchange: bool, stale: Stale, group: Option<u32>) -> Rules {
    Rules {
        adopt: options.adopt || options.adopt_all,
        adopt_all: options.adopt_all,
        drift: options.allow_drift,
        case_collisions: options.allow_case_collisions,
        empty: options.allow_empty,
        max_removed: options.max_removed,
        exchange,
        touch: options.touch,
        group,
        stale,
    }
}

/// Plans what is staged at `stage` for the output at `output`.
pub(crate) fn make_plan<F: Fs>(
    output: &Path,
    stage: &Tree<F>,
    staged: scan::Staged,
    published: &Published<F>,
    scope: Scope<'_>,
    rules: Rules,
) -> Result<Planned> {
    let root = RelPath::root();
    let stat = stage.fs.stat_dir(stage.root()).map_err(stage.io("read the attributes of", &root))?;
    let stage_root = Object::directory(&stat);
    let is_part = !matches!(scope, Scope::Whole) || !published.at().is_root();
    if is_part && !published.exists() && published.inventory().totals().entries > 0 {
        return Err(Error::Refused { output: output.to_path_buf(), problems: vec![Problem::OutputGone] });
    }
    if !matches!(scope, Scope::Whole) && rules.adopt_all {
        let what =
            "a change says nothing of what lies in the output besides: take it over with a whole generation".into();
        return Err(Error::Usage { path: output.to_path_buf(), what });
    }
    let mut planned = plan::plan(published, stage_root, staged.entries, scope, rules, published)?;
    planned.plan.problems.splice(0..0, staged.problems);
    planned.plan.warnings.extend(staged.warnings);
    planned.intent.last_change = planned.intent.last_change.max(staged.last_change);
    Ok(planned)
}
