//! `txfs verify`.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use txfs::{Finding, FindingKind, Store};

use crate::store::context::{Context, nothing_published};
use crate::talk::error::{CONFLICT, DONE, Failure};
use crate::talk::json::Object;
use crate::talk::output::Style;
use crate::talk::text::count;

/// Read everything that is published and compare it with the manifest
///
/// Prints what differs, as `missing PATH`, `kind PATH`, `mode PATH` or `content PATH`, and exits with 4 if anything does. It is the one command
/// that finds a file whose content was changed while its size and time were not: the others take that for what was published. Remove it
/// and publish the whole again.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The directory that is published
    out: PathBuf,
}

pub(crate) fn run(context: &Context, args: &VerifyArgs) -> Result<u8, Failure> {
    let store = context.expect(&args.out)?;
    let (generation, findings) = audit(context, &store)?;
    let Some(generation) = generation else { return none(context, &store) };
    print(context, &store, generation, &findings)?;
    let output = context.ui.name(store.output());
    if findings.is_empty() {
        context.ui.say(format_args!("{output} is as published: generation {generation}"));
        return Ok(DONE);
    }
    let found = count(findings.len() as u64, "difference");
    context.ui.say(format_args!("{output} is not as published: {found} from generation {generation}"));
    // A commit does not read what has the size and time that it recorded: it would take that for what was published.
    context.ui.advise("what is missing comes back when the whole is published again; remove what else is listed first");
    Ok(CONFLICT)
}

/// Where nothing has been published, nothing can differ.
fn none(context: &Context, store: &Store) -> Result<u8, Failure> {
    let output = store.output();
    if context.ui.json {
        let object = Object::new().output(output).field("generation", Value::Null);
        context.ui.result(context.ui.data(), object.field("findings", 0))?;
    }
    // stdout is for what differs.
    context.ui.say(nothing_published(&context.ui, output));
    Ok(DONE)
}

fn print(context: &Context, store: &Store, generation: u64, findings: &[Finding]) -> Result<(), Failure> {
    let mut data = context.ui.data();
    for Finding { path, kind, .. } in findings {
        if context.ui.json {
            data.object(Object::new().field("finding", word(*kind)).relative("path", path))?;
        } else {
            let word = data.paint(word(*kind), Style::Red).to_string();
            data.line(format_args!("{word} {path}"))?;
        }
    }
    if context.ui.json {
        let object = Object::new().output(store.output()).field("generation", generation);
        return context.ui.result(data, object.field("findings", findings.len()));
    }
    data.finish()
}

/// Findings while another process commits mean nothing: then it looks again.
fn audit(context: &Context, store: &Store) -> Result<(Option<u64>, Vec<Finding>), Failure> {
    loop {
        let before = store.head()?;
        let findings = store.verify()?;
        // Waits for a commit that is being applied.
        context.recover(store)?;
        if findings.is_empty() || store.head()? == before {
            return Ok((before.map(|head| head.info.generation), findings));
        }
    }
}

fn word(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Missing => "missing",
        FindingKind::Kind => "kind",
        FindingKind::Mode => "mode",
        FindingKind::Content => "content",
        _ => "other",
    }
}
