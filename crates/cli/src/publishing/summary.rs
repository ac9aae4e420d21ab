//! How much a commit changes, or would change.

use std::fmt;

use txfs::{Paths, Plan};

use crate::talk::json::Object;
use crate::talk::text::count;

/// What somebody else removed and a commit puts back, for people: the output itself, or paths in it.
pub(crate) struct Restored<'a>(pub(crate) &'a str, pub(crate) &'a Paths);

impl fmt::Display for Restored<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(output, paths) = self;
        match paths.first.first() {
            Some(path) if path.is_root() => write!(f, "{output}, which somebody else had removed"),
            _ => write!(f, "what somebody else had removed from {output}: {paths}"),
        }
    }
}

/// How many paths a plan changes, for people: the directories among them too, which are no files.
pub(crate) struct Summary<'a>(pub(crate) &'a Plan);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let summary = self.0.summary;
        let counts = [
            (summary.added, "added"),
            (summary.changed, "changed"),
            (summary.removed, "removed"),
            (summary.unchanged, "unchanged"),
        ];
        let mut counts = counts.into_iter().filter(|(n, _)| *n > 0);
        let Some((first, what)) = counts.next() else { return f.write_str("nothing") };
        write!(f, "{} {what}", count(first, "path"))?;
        counts.try_for_each(|(n, what)| write!(f, ", {n} {what}"))
    }
}

/// How many paths a plan changes, and what it puts back, for a JSON object.
pub(crate) fn summary_fields(object: Object, plan: &Plan) -> Object {
    let (summary, restored) = (plan.summary, &plan.restored);
    let object = object.field("added", summary.added).field("modified", summary.changed);
    let object = object.field("removed", summary.removed).field("unchanged", summary.unchanged);
    object.relatives("restored", &restored.first).field("restored_total", restored.total)
}
