//! What a commit changes, or would change, path for path.

use std::path::Path;

use txfs::{Change, ChangeKind, Plan};

use crate::publishing::summary::summary_fields;
use crate::talk::error::{self, Failure};
use crate::talk::json::Object;
use crate::talk::output::{Data, Style, Ui};

/// Prints the changes on stdout; with `--json` what stands against them, and how many there are, too.
pub(crate) fn print(
    ui: &Ui,
    output: &Path,
    current: Option<u64>,
    plan: &Plan,
    notes: &[String],
) -> Result<(), Failure> {
    let mut data = ui.data();
    print_each(ui, &mut data, &plan.changes)?;
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

/// As [`print`], of what changed between two generations.
pub(crate) fn print_between(ui: &Ui, output: &Path, (from, to): (u64, u64), changes: &[Change]) -> Result<(), Failure> {
    let mut data = ui.data();
    print_each(ui, &mut data, changes)?;
    if !ui.json {
        return data.finish();
    }
    let count = |is: fn(ChangeKind) -> bool| changes.iter().filter(|change| is(change.kind)).count();
    let object = Object::new().field("summary", true).output(output).field("from", from).field("generation", to);
    let object = object.field("added", count(|kind| kind == ChangeKind::Added));
    let object = object.field("changed", count(|kind| !matches!(kind, ChangeKind::Added | ChangeKind::Removed)));
    ui.result(data, object.field("removed", count(|kind| kind == ChangeKind::Removed)))
}

fn print_each(ui: &Ui, data: &mut Data, changes: &[Change]) -> Result<(), Failure> {
    for change @ Change { kind, path, .. } in changes {
        if ui.json {
            data.object(change_object(change))?;
        } else {
            let letter = data.paint(kind.letter().encode_utf8(&mut [0; 4]), style(*kind)).to_string();
            data.line(format_args!("{letter} {path}"))?;
        }
    }
    Ok(())
}

/// A path that changes, for programs.
pub(crate) fn change_object(change: &Change) -> Object {
    described(Object::new(), change)
}

/// As [`change_object`], within another object.
pub(crate) fn change_part(change: &Change) -> Object {
    described(Object::part(), change)
}

fn described(object: Object, Change { kind, path, entry, .. }: &Change) -> Object {
    let object = object.field("change", word(*kind)).field("letter", kind.letter().to_string());
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
