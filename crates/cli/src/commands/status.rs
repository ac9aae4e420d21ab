//! `txfs status`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use txfs::{Basis, Capabilities, ErrorKind, Head, OpenTransaction, Place, RecoverOptions, Shown, Store, Totals};

use crate::running::diverting::Diverting;
use crate::settings::values::from_word;
use crate::store::context::{Context, nothing_published};
use crate::store::group;
use crate::store::opened;
use crate::store::past::Past;
use crate::talk::error::{DONE, Failure};
use crate::talk::json::Object;
use crate::talk::output::Ui;
use crate::talk::text::{count, time};

/// Show what is published, which transactions are open, and what the file system can do; with -v also what can be diverted here
///
/// Never waits for another process: while one commits, it says so.
#[derive(Args)]
pub(crate) struct StatusArgs {
    /// The directory that is published
    out: PathBuf,
}

pub(crate) fn run(context: &Context, args: &StatusArgs) -> Result<u8, Failure> {
    let Some(store) = context.open(&context.options().lock_timeout(Duration::ZERO), &args.out)? else {
        none(context, &args.out)?;
        return Ok(DONE);
    };
    // What cannot be recovered is shown all the same, as far as it can be read, and then said to be so.
    let (committing, refused) =
        match context.signals.hold_during(|| store.recover(RecoverOptions::default().unless_busy(true))) {
            Ok(recovered) => {
                opened::tell_recovered(&context.ui, &store, &recovered);
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

fn none(context: &Context, out: &Path) -> Result<(), Failure> {
    let ui = &context.ui;
    let mut data = ui.data();
    if ui.json {
        return ui.result(data, object(&context.locate(out)?, None, None, &[], false));
    }
    data.line(nothing_published(ui, out))?;
    data.finish()
}

fn show(ui: &Ui, store: &Store, committing: bool, refused: bool) -> Result<(), Failure> {
    let (head, open) = (store.head()?, store.transactions()?);
    // Trying it out writes to the state directory, and takes longer than all else.
    let diverting = ui.verbose.then(|| Diverting::of(store));
    let mut data = ui.data();
    if ui.json {
        // Lines say it themselves.
        opened::warn_of_weaknesses(ui, store);
        let object = object(store.output(), Some(store), head.as_ref(), &open, committing);
        let object = match Past::of(ui, store) {
            Some(past) => object.part_of("past", past.object()),
            None => object.field("past", Value::Null),
        };
        let object = match diverting {
            Some(diverting) => object.part_of("diverting", diverting.object()),
            None => object.field("diverting", Value::Null),
        };
        return ui.result(data, object);
    }
    let mut lines = lines(ui, store, head.as_ref(), &open, committing, refused);
    lines.extend(diverting.map(|diverting| ("diverting:", diverting.line())));
    for (label, value) in lines {
        data.line(format_args!("{label:<13} {value}"))?;
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
    lines.extend(Past::of(ui, store).map(|past| ("past:", past.line())));
    if is_gone(store, head) {
        lines.push(("now:", "the output is gone: the next commit of the whole puts it back".to_owned()));
    }
    if committing {
        lines.push(("now:", "a commit is in progress".to_owned()));
    }
    lines.extend(open.iter().map(|open| ("transaction:", describe(ui, open))));
    lines.extend(describe_rescued(store).map(|rescued| ("rescued:", rescued)));
    let place = match place(store) {
        "elsewhere" => "where --state put it".to_owned(),
        place => format!("{place} the output"),
    };
    lines.push(("state:", format!("{} ({place})", Shown(store.state()))));
    lines.extend(store.shared_with().map(|group| ("shared:", format!("with group {}", group::describe(group)))));
    lines.push(("publish mode:", "in-place".to_owned()));
    let Capabilities { exchange, no_replace, links, .. } = store.capabilities();
    let able = |yes: bool| if yes { "yes" } else { "no" };
    lines.push((
        "file system:",
        format!("exchange {}, no-replace {}, hard links {}", able(exchange), able(no_replace), able(links)),
    ));
    lines.extend(store.weaknesses().into_iter().map(|weakness| ("beware:", weakness.to_string())));
    lines
}

fn place(store: &Store) -> &'static str {
    match store.place() {
        Place::Beside => "beside",
        Place::Inside => "inside",
        _ => "elsewhere",
    }
}

/// Whether what is published is not there any more.
fn is_gone(store: &Store, head: Option<&Head>) -> bool {
    head.is_some() && store.output().try_exists().is_ok_and(|exists| !exists)
}

/// What lies in `rescued/`, which nobody but the user empties.
fn describe_rescued(store: &Store) -> Option<String> {
    let rescued = Shown(&store.state().join("rescued")).to_string();
    match store.rescued() {
        Ok(Totals { entries: 0, .. }) => None,
        Ok(Totals { files, bytes, .. }) => Some(format!(
            "{}, {} in {rescued}, not being what txfs recorded: delete there what is not wanted",
            count(files, "file"),
            count(bytes, "byte")
        )),
        Err(error) => Some(format!("unknown: {error}")),
    }
}

fn describe(ui: &Ui, open: &OpenTransaction) -> String {
    let mut text = format!("{} ({}", ui.name(&open.stage), if open.live { "live" } else { "kept" });
    if open.left {
        text.push_str(", built and not published");
    }
    if open.from == Some(Basis::Current) {
        text.push_str(", a change");
    }
    if let Some(at) = &open.at {
        text.push_str(&format!(", at {at}"));
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

/// Has every field also where there is no store, or nothing is published.
fn object(
    output: &Path,
    store: Option<&Store>,
    head: Option<&Head>,
    open: &[OpenTransaction],
    committing: bool,
) -> Object {
    let (info, totals) = (head.map(|head| &head.info), head.map(|head| head.totals).unwrap_or_default());
    let object = Object::new().output(output).field("generation", info.map(|info| info.generation));
    let object = object.field("committed", info.map(|info| time(info.committed.seconds)));
    let object = object.field("message", info.and_then(|info| info.message.clone()));
    let object = object.field("manifest", head.map(|head| head.manifest.to_string()));
    let object = object.field("entries", totals.entries).field("files", totals.files).field("bytes", totals.bytes);
    let object = object.field("gone", store.is_some_and(|store| is_gone(store, head))).field("committing", committing);
    let object = object.parts("transactions", open.iter().map(part)).field("publish_mode", "in-place");
    let rescued = store.map_or(Ok(Totals::default()), Store::rescued).ok();
    let object = object.field("rescued_files", rescued.map(|rescued| rescued.files));
    let object = object.field("rescued_bytes", rescued.map(|rescued| rescued.bytes));
    let object = group::shared(object, store);
    let Some(store) = store else {
        return ["state", "place", "capabilities", "past", "diverting"]
            .iter()
            .fold(object, |object, name| object.field(name, Value::Null));
    };
    let object = object.path("state", store.state().as_os_str().as_bytes());
    let object = object.field("place", place(store));
    let Capabilities { exchange, no_replace, links, .. } = store.capabilities();
    let able = Object::part().field("exchange", exchange).field("no_replace", no_replace).field("links", links);
    object.part_of("capabilities", able)
}

fn part(open: &OpenTransaction) -> Object {
    let object = Object::part().field("transaction", open.id.to_string());
    let object =
        object.path("stage", open.stage.as_os_str().as_bytes()).field("live", open.live).field("left", open.left);
    object
        .relative("at", &open.at.clone().unwrap_or_default())
        .field("base", open.base)
        .field("from", open.from.map(from_word))
        .field("began", open.began.map(|began| time(began.seconds)))
}
