//! What a commit changes, or would change, path for path.

use std::path::Path;

use txfs::{Change, ChangeKind, Plan};

use crate::publishing::summary::summary_fields;
use crate::talk::error::{self, Failure};
use crate::talk::json::Object;
use crate::talk::output::{Style, Ui};

/// Prints the changes on stdout; with `--json` what stands against them, and how many there are, too.
pub(crate) fn print(
    ui: &Ui,
    output: &Path,
    current: Option<u64>,
    plan: &Plan,
    notes: &[String],
) -> Result<(), Failure> {
    let mut data = ui.data();
    for change @ Change { kind, path, .. } in &plan.changes {
        if ui.json {
            data.object(change_object(change))?;
        } else {
            let letter = data.paint(kind.letter().encode_utf8(&mut [0; 4]), style(*kind)).to_string();
            data.line(format_args!("{letter} {path}"))?;
        }
    }
    if ui.json {
        for note in notes {
            data.object(Object::new().field("problem", "overtaken").field("message", note.as_str()))?;
        }
        for problem in &plan.problems {
            data.object(error::describe(Object::new(), problem))?;
        }
        let object = Object::new().field("summary", true).output(output).field("generation", current);
        return ui.result(data, summary_fields(object, plan).field("operations", plan.operations()));
    }
    data.finish()
}

/// A path that changes, for programs.
pub(crate) fn change_object(Change { kind, path, entry, .. }: &Change) -> Object {
    let object = Object::new().field("change", word(*kind)).field("letter", kind.letter().to_string());
    object.relative("path", path).field("kind", entry.word())
}

fn word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Added => "added",
        ChangeKind::Modified => "modified",
        ChangeKind::Mode => "mode",
        ChangeKind::Kind => "kind",
        ChangeKind::Removed => "removed",
        _ => "other",
    }
}

fn style(kind: ChangeKind) -> Style {
    match kind {
        ChangeKind::Added => Style::Green,
        ChangeKind::Removed => Style::Red,
        _ => Style::Yellow,
    }
}
