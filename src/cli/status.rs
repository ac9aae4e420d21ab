//! `txfs status`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use txfs::{Basis, Capabilities, ErrorKind, Head, OpenTransaction, Place, Shown, Store};

use super::begin::from_word;
use super::error::{DONE, Failure};
use super::output::{Object, Ui, time};
use super::{Context, count, nothing_published, recover};

/// Show what is published, which transactions are open, and what the file system can do
///
/// Never waits for another process: while one commits, it says so.
#[derive(Args)]
pub(super) struct StatusArgs {
    /// The directory that is published
    out: PathBuf,
}

pub(super) fn run(context: &Context, args: &StatusArgs) -> Result<u8, Failure> {
    let Some(store) = context.open(&context.options().lock_timeout(Duration::ZERO), &args.out)? else {
        none(&context.ui, &args.out)?;
        return Ok(DONE);
    };
    // What cannot be recovered is shown all the same, as far as it can be read, and then said to be so.
    let (committing, refused) = match context.signals.hold_during(|| store.recover()) {
        Ok(recovered) => {
            recover::tell(&context.ui, &store, &recovered);
            (false, None)
        }
        Err(error) if error.kind() == ErrorKind::Busy => (true, None),
        Err(error) => (false, Some(error)),
    };
    context.signals.expect_none_held_back()?;
    let shown = show(&context.ui, &store, committing, refused.is_some());
    match refused {
        Some(error) => Err(error.into()),
        None => shown.map(|()| DONE),
    }
}

fn none(ui: &Ui, out: &Path) -> Result<(), Failure> {
    let mut data = ui.data();
    if ui.json {
        data.object(Object::new().path("output", out.as_os_str().as_bytes()).field("generation", Value::Null))?;
    } else {
        data.line(nothing_published(ui, out))?;
    }
    data.finish()
}

fn show(ui: &Ui, store: &Store, committing: bool, refused: bool) -> Result<(), Failure> {
    let (head, open) = (store.head()?, store.transactions()?);
    let mut data = ui.data();
    if ui.json {
        data.object(object(store, head.as_ref(), &open, committing))?;
    } else {
        for (label, value) in lines(ui, store, head.as_ref(), &open, committing, refused) {
            data.line(format_args!("{label:<13} {value}"))?;
        }
    }
    data.finish()
}

fn lines(
    ui: &Ui,
    store: &Store,
    head: Option<&Head>,
    open: &[OpenTransaction],
    committing: bool,
    refused: bool,
) -> Vec<(&'static str, String)> {
    let mut lines = vec![("output:", Shown(store.output()).to_string())];
    match head {
        // It may be what is missing.
        None if refused => lines.push(("generation:", "unknown".to_owned())),
        None => lines.push(("generation:", "none: nothing has been published yet".to_owned())),
        Some(Head { info, totals, .. }) => {
            lines.push(("generation:", info.generation.to_string()));
            lines.push(("committed:", time(info.committed.seconds)));
            lines.extend(info.message.iter().map(|message| ("message:", Shown(Path::new(message)).to_string())));
            lines.push(("published:", format!("{}, {}", count(totals.files, "file"), count(totals.bytes, "byte"))));
        }
    }
    if is_gone(store, head) {
        lines.push(("now:", "the output is gone: the next commit of the whole puts it back".to_owned()));
    }
    if committing {
        lines.push(("now:", "a commit is in progress".to_owned()));
    }
    lines.extend(open.iter().map(|open| ("transaction:", describe(ui, open))));
    let place = if store.place() == Place::Beside { "beside the output" } else { "inside the output" };
    lines.push(("state:", format!("{} ({place})", Shown(store.state()))));
    lines.push(("publish mode:", "in-place".to_owned()));
    let Capabilities { exchange, no_replace, links, .. } = store.capabilities();
    let able = |yes: bool| if yes { "yes" } else { "no" };
    lines.push((
        "file system:",
        format!("exchange {}, no-replace {}, hard links {}", able(exchange), able(no_replace), able(links)),
    ));
    lines
}

/// Whether what is published is not there any more.
fn is_gone(store: &Store, head: Option<&Head>) -> bool {
    head.is_some() && store.output().try_exists().is_ok_and(|exists| !exists)
}

fn describe(ui: &Ui, open: &OpenTransaction) -> String {
    let mut text = format!("{} ({}", ui.name(&open.stage), if open.live { "live" } else { "kept" });
    if open.from == Some(Basis::Current) {
        text.push_str(", a change");
    }
    if let Some(base) = open.base {
        text.push_str(&match base {
            0 => ", before the first generation".to_owned(),
            base => format!(", on generation {base}"),
        });
    }
    if let Some(began) = open.began {
        text.push_str(&format!(", began {}", time(began.seconds)));
    }
    text + ")"
}

fn object(store: &Store, head: Option<&Head>, open: &[OpenTransaction], committing: bool) -> Object {
    let object = Object::new().path("output", store.output().as_os_str().as_bytes());
    let object = match head {
        None => object.field("generation", Value::Null),
        Some(Head { info, totals, manifest, .. }) => {
            let object = object.field("generation", info.generation).field("committed", time(info.committed.seconds));
            let object = object.field("message", info.message.clone()).field("manifest", manifest.to_string());
            object.field("entries", totals.entries).field("files", totals.files).field("bytes", totals.bytes)
        }
    };
    let object = object
        .field("gone", is_gone(store, head))
        .field("committing", committing)
        .parts("transactions", open.iter().map(part));
    let object = object.path("state", store.state().as_os_str().as_bytes());
    let object = object.field("place", if store.place() == Place::Beside { "beside" } else { "inside" });
    let Capabilities { exchange, no_replace, links, .. } = store.capabilities();
    let able = Object::part().field("exchange", exchange).field("no_replace", no_replace).field("links", links);
    object.field("mode", "in-place").part_of("capabilities", able)
}

fn part(open: &OpenTransaction) -> Object {
    let object = Object::part().field("transaction", open.id.to_string());
    let object = object.path("stage", open.stage.as_os_str().as_bytes()).field("live", open.live);
    object
        .field("base", open.base)
        .field("from", open.from.map(from_word))
        .field("began", open.began.map(|began| time(began.seconds)))
}
