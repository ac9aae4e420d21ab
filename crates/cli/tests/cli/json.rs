//! What programs read: every command prints the JSON that the reference has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::Scratch;

/// What JSON each command prints: the fields of its last object, in order; and that a field has one type wherever it stands.
#[test]
fn every_command_prints_the_json_that_the_reference_has() {
    const COMMITTED: &str = "v output generation changed added modified removed unchanged restored restored_total files bytes rescued warnings";
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
    let dir = Scratch::new();
    let seen = RefCell::new(Fields::default());
    let run = |args: &[&str], code: i32, fields: &str| -> Vec<Value> {
        let objects = dir.txfs([&["--json"], args].concat()).expect(code).json();
        objects.iter().for_each(|object| seen.borrow_mut().note(object));
        let last = objects.last().unwrap_or_else(|| panic!("{args:?}: no object"));
        let has: Vec<_> = last.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected: Vec<_> = fields.split(' ').collect();
        expected.sort_unstable();
        assert_eq!(has, expected, "{args:?}: {last}");
        assert!(
            last.get("output").is_none_or(|output| output.is_null() || *output == *dir.at("dist").to_str().unwrap())
        );
        objects
    };
    // Nothing has been published.
    run(&["status", "dist"], 0, STATUS);
    run(&["recover", "dist"], 0, RECOVERED);
    run(&["journal", "dist"], 0, JOURNALS);
    run(&["abort", "--all", "dist"], 0, ABORTED);
    run(&["prune", "dist"], 0, PRUNED);
    run(&["log", "dist"], 0, LOGGED);
    run(&["verify", "dist"], 2, ERROR);
    run(&["commit"], 2, ERROR);
    run(&["run", "dist", "--", "false"], 1, ERROR);
    run(&["log", "dist"], 0, LOGGED);
    run(&["verify", "dist"], 0, VERIFIED);
    dir.write("src/a", "1");
    dir.write("src/d/b", "1");
    run(&["publish", "dist", "src", "--dry-run"], 0, SUMMARY);
    run(&["publish", "dist", "src", "-m", "one"], 0, COMMITTED);
    let unchanged = run(&["publish", "dist", "src", "-m", "two", "-v"], 0, COMMITTED);
    assert_eq!((unchanged.len(), &unchanged[0]["warnings"].as_array().unwrap().len()), (1, &1));
    // Every path that changed, if that is asked for.
    let changed = run(
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
        dir.txfs(["-v", "publish", "dist", "src", "--json"])
            .expect(0)
            .says("published")
            .err
            .lines()
            .all(|line| !line.starts_with("M "))
    );
    assert_eq!(paths(&run(&["-v", "rollback", "dist"], 0, COMMITTED)), paths(&changed));
    run(&["rollback", "dist", "--dry-run"], 0, SUMMARY);
    // A transaction, by hand.
    let stage = run(&["begin", "dist"], 0, "v output stage transaction at base from warnings")[0]["stage"]
        .as_str()
        .unwrap()
        .to_owned();
    fs::write(Path::new(&stage).join("a"), "3").unwrap();
    run(&["status", "dist"], 0, STATUS);
    run(&["diff", "dist"], 0, SUMMARY);
    run(&["diff", "dist", "src", "--exit-code"], 8, SUMMARY);
    run(&["commit", "dist", "--dry-run", "--max-removed", "0"], 5, REFUSED);
    run(&["commit", "dist", "-v", "--max-removed", "100"], 0, COMMITTED);
    run(&["begin", "dist", "--from", "current"], 0, "v output stage transaction at base from warnings");
    run(&["abort", "dist"], 0, "v output transaction stage aborted discarded warnings");
    run(&["begin", "dist"], 0, "v output stage transaction at base from warnings");
    assert_eq!(run(&["abort", "--all", "dist"], 0, ABORTED).len(), 2);
    run(&["run", "dist", "--check", "false", "--", "sh", "-c", "echo > {stage}/a"], 5, REFUSED);
    run(&["journal", "dist"], 0, JOURNALS);
    let journal =
        fs::read_dir(dir.at(".dist.txfs/previous")).unwrap().map(|entry| entry.unwrap().path().join("journal"));
    let journal = journal.max().unwrap();
    run(&["journal", "--file", journal.to_str().unwrap()], 0, JOURNALS);
    fs::remove_file(dir.at("dist/a")).unwrap();
    run(&["verify", "dist"], 4, VERIFIED);
    run(&["publish", "dist", "src", "--max-removed", "100"], 0, COMMITTED);
    run(&["recover", "dist"], 0, RECOVERED);
    run(&["run", "dist", "--keep-failed", "--", "sh", "-c", "echo > {stage}/a; exit 3"], 3, ERROR);
    run(&["status", "dist"], 0, STATUS);
    run(&["prune", "dist"], 0, PRUNED);
    run(&["share", "dist"], 0, SHARED);
    run(&["status", "dist"], 0, STATUS);
    run(&["share", "dist", "--off"], 0, SHARED);
    run(&["init", "dist"], 0, "v file outputs ignored_by warnings");
    let seen = seen.into_inner();
    let reference = include_str!("../../../../docs/reference/json.md");
    let of_records = [
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
    for name in seen.0.keys().filter(|name| !of_records.contains(&name.as_str())) {
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
