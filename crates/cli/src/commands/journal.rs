//! `txfs journal`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;
use txfs::{Begin, JournalDump, Kind, Object as Entry, Operation, Record, Shown};

use crate::store::context::Context;
use crate::talk::error::{CORRUPT, DONE, Failure, cannot};
use crate::talk::json::Object;
use crate::talk::output::{Data, Style};
use crate::talk::text::{count, time};

/// Print journals readably, damaged ones too
///
/// Every record with the offset of its frame in bytes, and a verdict at the end: whether it is a valid commit, or why not. This
/// command shows what is there: it does not recover. Exits with 6 if a journal is corrupt, but not if it is torn, as a crash
/// leaves `journal.new`. The journals of an output are the one of a commit that is not settled, and the settled ones of
/// generations whose displaced entries are kept.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct JournalArgs {
    /// The directory that is published
    out: Option<PathBuf>,
    /// Read one journal, wherever it is
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
}

pub(crate) fn run(context: &Context, args: &JournalArgs) -> Result<u8, Failure> {
    let (journals, output) = match (&args.file, &args.out) {
        (Some(file), _) => {
            let input = open(file).map_err(|error| cannot("read", file, error))?;
            let path = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            (vec![(path, JournalDump::read(input))], None)
        }
        (None, Some(out)) => match context.open(&context.options(), out)? {
            Some(store) => (store.journals()?, Some(store.output().to_path_buf())),
            None => (Vec::new(), Some(context.locate(out)?)),
        },
        (None, None) => (Vec::new(), None),
    };
    if let (true, Some(out)) = (journals.is_empty(), &args.out) {
        context.ui.say(format_args!("{} has no journal", context.ui.name(out)));
    }
    let mut data = context.ui.data();
    for (i, (path, dump)) in journals.iter().enumerate() {
        if context.ui.json {
            print_json(&mut data, path, dump)?;
        } else {
            if i > 0 {
                data.line("")?;
            }
            print(&mut data, path, dump)?;
        }
    }
    let corrupt = journals.iter().filter(|(_, dump)| is_corrupt(dump)).count();
    if context.ui.json {
        let object = match &output {
            Some(output) => Object::new().output(output),
            None => Object::new().field("output", Value::Null),
        };
        context.ui.result(data, object.field("journals", journals.len()).field("corrupt", corrupt))?;
    } else {
        data.finish()?;
    }
    Ok(if corrupt > 0 { CORRUPT } else { DONE })
}

/// What cannot be read at all, as a directory, is no damaged journal.
fn open(file: &Path) -> io::Result<impl Read> {
    let mut input = BufReader::new(File::open(file)?);
    input.fill_buf()?;
    Ok(input)
}

/// Torn is what a crash leaves of a journal that is being written.
fn is_corrupt(dump: &JournalDump) -> bool {
    dump.damage.is_some() && !dump.torn
}

/// What a journal is worth, in a word and in words.
fn verdict(dump: &JournalDump) -> (&'static str, String) {
    let generation = dump.records.iter().find_map(|(_, record)| match record {
        Record::Begin(begin) => Some(begin.head.info.generation),
        _ => None,
    });
    match (&dump.damage, dump.torn, generation) {
        (None, _, Some(generation)) => ("valid", format!("valid commit of generation {generation}")),
        (None, _, None) => ("valid", "valid".to_owned()),
        (Some(damage), true, _) => ("torn", format!("torn: {damage}")),
        (Some(damage), false, _) => ("corrupt", format!("corrupt: {damage}")),
    }
}

fn print(data: &mut Data, path: &Path, dump: &JournalDump) -> Result<(), Failure> {
    data.line(format_args!("journal {}", Shown(path)))?;
    let mut index = 0u64;
    for (offset, record) in &dump.records {
        match record {
            Record::Begin(begin) => print_begin(data, *offset, begin)?,
            Record::Operation { operation, .. } => {
                let line = describe(operation);
                data.line(format_args!("{offset:>10}  #{index:<5} {:<16}  {line}", operation.word()))?;
                index += 1;
            }
            Record::Commit { operations, digest } => {
                let operations = count(*operations, "operation");
                data.line(format_args!("{offset:>10}  commit  {operations}, blake3 {digest}"))?;
            }
        }
    }
    let (word, text) = verdict(dump);
    let text = data.paint(&text, if word == "valid" { Style::Green } else { Style::Red }).to_string();
    data.line(text)
}

fn print_begin(data: &mut Data, offset: u64, begin: &Begin) -> Result<(), Failure> {
    let Begin { transaction, base, head, .. } = begin;
    let (generation, committed) = (head.info.generation, time(head.info.committed.seconds));
    let totals = head.totals;
    data.line(format_args!(
        "{offset:>10}  begin   generation {generation} from {base}, transaction {transaction}, {committed}"
    ))?;
    if let Some(message) = &head.info.message {
        data.line(format_args!("{:>10}          message {}", "", Shown(Path::new(message))))?;
    }
    let (files, bytes) = (count(totals.files, "file"), count(totals.bytes, "byte"));
    data.line(format_args!("{:>10}          manifest {}, {files}, {bytes}", "", head.manifest))
}

fn describe(operation: &Operation) -> String {
    match operation {
        Operation::SetMode { path, from, to } => format!("{path}  {from:04o} -> {to:04o}"),
        Operation::Add { path, new } => format!("{path}  {}", Described(new)),
        Operation::Replace { path, old, new } => format!("{path}  {} -> {}", Described(old), Described(new)),
        Operation::Remove { path, old } => format!("{path}  {}", Described(old)),
        Operation::RemoveDirectory { path, mode } => format!("{path}  {mode:04o}"),
    }
}

struct Described<'a>(&'a Entry);

impl std::fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Entry { kind, mode, size, digest, ino, .. } = self.0;
        write!(f, "{} {mode:04o} ", kind.word())?;
        if *kind != Kind::Directory {
            let digest = digest.to_string();
            write!(f, "{size} B blake3 {}… ", &digest[..12])?;
        }
        write!(f, "ino {ino}")
    }
}

fn print_json(data: &mut Data, path: &Path, dump: &JournalDump) -> Result<(), Failure> {
    let path = path.as_os_str().as_bytes();
    let mut index = 0u64;
    for (offset, record) in &dump.records {
        let object = Object::new().path("journal", path).field("offset", *offset);
        let object = match record {
            Record::Begin(begin) => begin_fields(object.field("record", "begin"), begin),
            Record::Operation { output, operation } => {
                let object = object.field("record", "operation").field("index", index).field("participant", *output);
                index += 1;
                operation_fields(object, operation)
            }
            Record::Commit { operations, digest } => {
                let object = object.field("record", "commit").field("operations", *operations);
                object.field("digest", digest.to_string())
            }
        };
        data.object(object)?;
    }
    let (word, text) = verdict(dump);
    data.object(Object::new().path("journal", path).field("verdict", word).field("message", text))
}

fn begin_fields(object: Object, begin: &Begin) -> Object {
    let Begin { transaction, base, base_manifest, head, .. } = begin;
    let object = object.field("transaction", transaction.to_string()).field("base", *base);
    let object = object.field("base_manifest", base_manifest.to_string());
    let object = object.field("generation", head.info.generation).field("committed", time(head.info.committed.seconds));
    let object = object.field("message", head.info.message.clone()).field("manifest", head.manifest.to_string());
    object.field("files", head.totals.files).field("bytes", head.totals.bytes)
}

fn operation_fields(object: Object, operation: &Operation) -> Object {
    let object = object.field("operation", operation.word()).relative("path", operation.path());
    match operation {
        Operation::SetMode { from, to, .. } => object.field("old_mode", *from).field("new_mode", *to),
        Operation::Add { new, .. } => object.part_of("new", entry_fields(new)),
        Operation::Replace { old, new, .. } => {
            object.part_of("old", entry_fields(old)).part_of("new", entry_fields(new))
        }
        Operation::Remove { old, .. } => object.part_of("old", entry_fields(old)),
        Operation::RemoveDirectory { mode, .. } => object.field("mode", *mode),
    }
}

fn entry_fields(entry: &Entry) -> Object {
    let object = Object::part().field("kind", entry.kind.word()).field("mode", entry.mode).field("size", entry.size);
    let object = object.field("digest", entry.digest.to_string()).field("ino", entry.ino);
    object.field("mtime_seconds", entry.mtime.seconds).field("mtime_nanos", entry.mtime.nanos)
}
