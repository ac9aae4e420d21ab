//! What programs read: every command prints the JSON that the reference has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::Scratch;

/// The fields of the last object that commands print.
const COMMITTED: &str =
    "v output generation changed added modified removed unchanged restored restored_total files bytes rescued warnings";
const STATUS: &str = "v output generation committed message manifest entries files bytes gone committing transactions publish_mode shared state place rescued_files rescued_bytes capabilities past diverting warnings";
const RECOVERED: &str =
    "v output generation commit commit_generation operations discarded rescued skipped skipped_total warnings";
const SUMMARY: &str =
    "v summary output generation added modified removed unchanged restored restored_total operations warnings";
const VERIFIED: &str = "v output generation findings warnings";
const JOURNALS: &str = "v output journals corrupt warnings";
const ABORTED: &str = "v output discarded warnings";
const ERROR: &str = "v error code message hints outcome generation rescued stage warnings";
const REFUSED: &str = "v error code message hints outcome generation rescued stage problems warnings";
const SHARED: &str = "v output shared warnings";
const LOGGED: &str = "v output generations held_bytes warnings";
const PRUNED: &str = "v output generation freed_files freed_bytes rescued warnings";
const BEGUN: &str = "v output stage transaction at base from warnings";

/// Fields of the records of a journal, of which the format's reference tells.
const OF_RECORDS: &[&str] = &[
    "journal",
    "v",
    "offset",
    "index",
    "participant",
    "operation",
    "operations",
    "old",
    "new",
    "base_manifest",
    "digest",
    "size",
    "mode",
    "mtime_seconds",
    "mtime_nanos",
    "ino",
    "old_mode",
    "new_mode",
    "exchange",
    "no_replace",
    "links",
];

/// Commands on one output, and the fields that were seen.
struct Commands {
    dir: Scratch,
    seen: RefCell<Fields>,
}

impl Commands {
    /// What a command prints that ends with `code`; the last object has these fields.
    #[track_caller]
    fn run(&self, args: &[&str], code: i32, fields: &str) -> Vec<Value> {
        let objects = self.dir.txfs([&["--json"], args].concat()).expect(code).json();
        objects.iter().for_each(|object| self.seen.borrow_mut().note(object));
        let last = objects.last().unwrap_or_else(|| panic!("{args:?}: no object"));
        let has: Vec<_> = last.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected: Vec<_> = fields.split(' ').collect();
        expected.sort_unstable();
        assert_eq!(has, expected, "{args:?}: {last}");
        assert!(
            last.get("output")
                .is_none_or(|output| output.is_null() || *output == *self.dir.at("dist").to_str().unwrap())
        );
        objects
    }

    fn where_nothing_is_published(&self) {
        self.run(&["status", "dist"], 0, STATUS);
        self.run(&["recover", "dist"], 0, RECOVERED);
        self.run(&["journal", "dist"], 0, JOURNALS);
        self.run(&["abort", "--all", "dist"], 0, ABORTED);
        self.run(&["prune", "dist"], 0, PRUNED);
        self.run(&["log", "dist"], 0, LOGGED);
        self.run(&["verify", "dist"], 2, ERROR);
        self.run(&["commit"], 2, ERROR);
        self.run(&["run", "dist", "--", "false"], 1, ERROR);
        self.run(&["log", "dist"], 0, LOGGED);
        self.run(&["verify", "dist"], 0, VERIFIED);
    }

    fn that_publish(&self) {
        self.dir.write("src/a", "1");
        self.dir.write("src/d/b", "1");
        self.run(&["publish", "dist", "src", "--dry-run"], 0, SUMMARY);
        self.run(&["publish", "dist", "src", "-m", "one"], 0, COMMITTED);
        let unchanged = self.run(&["publish", "dist", "src", "-m", "two", "-v"], 0, COMMITTED);
        assert_eq!((unchanged.len(), &unchanged[0]["warnings"].as_array().unwrap().len()), (1, &1));
        // Every path that changed, if that is asked for.
        let changed = self.run(
            &[
                "-v",
                "run",
                "dist",
                "--",
                "sh",
                "-c",
                "echo 2 > {stage}/a; mkfifo {stage}/f && rm {stage}/f; echo > {stage}/c",
            ],
            0,
            COMMITTED,
        );
        let paths = |objects: &[Value]| -> Vec<String> {
            let path = |object: &Value| Some(format!("{} {}", object["change"].as_str()?, object["path"].as_str()?));
            objects.iter().filter_map(path).collect()
        };
        assert_eq!(paths(&changed), ["modified a", "added c", "removed d", "removed d/b"]);
        assert!(
            self.dir
                .txfs(["-v", "publish", "dist", "src", "--json"])
                .expect(0)
                .says("published")
                .err
                .lines()
                .all(|line| !line.starts_with("M "))
        );
        assert_eq!(paths(&self.run(&["-v", "rollback", "dist"], 0, COMMITTED)), paths(&changed));
        self.run(&["rollback", "dist", "--dry-run"], 0, SUMMARY);
    }

    fn by_hand(&self) {
        let stage = self.run(&["begin", "dist"], 0, BEGUN)[0]["stage"].as_str().unwrap().to_owned();
        fs::write(Path::new(&stage).join("a"), "3").unwrap();
        self.run(&["status", "dist"], 0, STATUS);
        self.run(&["diff", "dist"], 0, SUMMARY);
        self.run(&["diff", "dist", "src", "--exit-code"], 8, SUMMARY);
        self.run(&["commit", "dist", "--dry-run", "--max-removed", "0"], 5, REFUSED);
        self.run(&["commit", "dist", "-v", "--max-removed", "100"], 0, COMMITTED);
        self.run(&["begin", "dist", "--from", "current"], 0, BEGUN);
        self.run(&["abort", "dist"], 0, "v output transaction stage aborted discarded warnings");
        self.run(&["begin", "dist"], 0, BEGUN);
        assert_eq!(self.run(&["abort", "--all", "dist"], 0, ABORTED).len(), 2);
        self.run(&["run", "dist", "--check", "false", "--", "sh", "-c", "echo > {stage}/a"], 5, REFUSED);
        self.run(&["journal", "dist"], 0, JOURNALS);
        let journal = fs::read_dir(self.dir.at(".dist.txfs/previous"))
            .unwrap()
            .map(|entry| entry.unwrap().path().join("journal"));
        let journal = journal.max().unwrap();
        self.run(&["journal", "--file", journal.to_str().unwrap()], 0, JOURNALS);
    }

    fn that_look_and_keep(&self) {
        fs::remove_file(self.dir.at("dist/a")).unwrap();
        self.run(&["verify", "dist"], 4, VERIFIED);
        self.run(&["publish", "dist", "src", "--max-removed", "100"], 0, COMMITTED);
        self.run(&["recover", "dist"], 0, RECOVERED);
        self.run(&["run", "dist", "--keep-failed", "--", "sh", "-c", "echo > {stage}/a; exit 3"], 3, ERROR);
        self.run(&["status", "dist"], 0, STATUS);
        self.run(&["prune", "dist"], 0, PRUNED);
        self.run(&["share", "dist"], 0, SHARED);
        self.run(&["status", "dist"], 0, STATUS);
        self.run(&["share", "dist", "--off"], 0, SHARED);
        self.run(&["init", "dist"], 0, "v file outputs ignored_by warnings");
    }
}

/// What JSON each command prints: the fields of its last object, in order; and that a field has one type wherever it stands.
#[test]
fn every_command_prints_the_json_that_the_reference_has() {
    let commands = Commands { dir: Scratch::new(), seen: RefCell::default() };
    commands.where_nothing_is_published();
    commands.that_publish();
    commands.by_hand();
    commands.that_look_and_keep();
    let seen = commands.seen.into_inner();
    let reference = include_str!("../../../../docs/reference/json.md");
    for name in seen.0.keys().filter(|name| !OF_RECORDS.contains(&name.as_str())) {
        assert!(reference.contains(&format!("`{name}`")), "the reference does not tell of `{name}`");
    }
}

/// The type that each field has.
#[derive(Default)]
struct Fields(BTreeMap<String, (&'static str, String)>);

impl Fields {
    fn note(&mut self, value: &Value) {
        let Value::Object(fields) = value else { return };
        for (name, value) in fields {
            let kind = match value {
                Value::Null => continue,
                Value::Bool(_) => "a bool",
                Value::Number(_) => "a number",
                Value::String(_) => "a text",
                Value::Array(items) => {
                    items.iter().for_each(|item| self.note(item));
                    "a list"
                }
                Value::Object(_) => {
                    self.note(value);
                    "an object"
                }
            };
            let (known, first) = self.0.entry(name.clone()).or_insert_with(|| (kind, value.to_string()));
            assert_eq!(*known, kind, "`{name}` is {first} and {value}");
        }
    }
}
