//! The planner on an output and a manifest in memory.

use super::*;
use crate::format::identity::Digest;
use crate::fs::Timestamp;

const RULES: Rules = Rules {
    adopt: false,
    adopt_all: false,
    drift: false,
    case_collisions: false,
    empty: false,
    max_removed: 100,
    exchange: true,
    touch: false,
    group: None,
    stale: Stale::Whole,
};

/// An output in memory: what a path holds is its content's text.
#[derive(Default)]
struct Memory(BTreeMap<RelPath, Object>);

impl Live for Memory {
    fn stat(&self, path: &RelPath) -> Result<Option<Stat>> {
        let root = object("/", 1);
        let object = if path.is_root() { Some(&root) } else { self.0.get(path) };
        Ok(object.map(|object| Stat {
            kind: Some(object.kind),
            mode: object.mode,
            uid: 0,
            gid: 0,
            nlink: 1,
            dev: 1,
            ino: object.ino,
            size: object.size,
            mtime: object.mtime,
            ctime: object.mtime,
        }))
    }

    fn is_movable(&self, _: &RelPath) -> Result<bool> {
        Ok(true)
    }

    fn is_apart(&self, _: &Stat) -> bool {
        false
    }

    fn is_as_published(&self, _: &RelPath) -> bool {
        false
    }

    fn object(&self, path: &RelPath, _: Kind, _: &Stat) -> Result<Object> {
        Ok(self.0[path])
    }

    fn below(&self, path: &RelPath) -> Result<Vec<Walked>> {
        let below = self.0.keys().filter(|other| other.is_below(path));
        below.map(|path| Ok(Walked { path: path.clone(), stat: self.stat(path)?.expect("listed") })).collect()
    }

    fn foreign(&self) -> Result<Vec<Walked>> {
        self.below(&RelPath::root())
    }

    fn exists(&self) -> bool {
        true
    }
}

/// A manifest in memory.
struct Published(Vec<Entry>);

impl Base for Published {
    fn totals(&self) -> Totals {
        Totals::of(&self.0)
    }

    fn at(&self) -> RelPath {
        RelPath::root()
    }

    fn get(&self, path: &RelPath) -> Result<Option<Object>> {
        Ok(self.0.iter().find(|entry| entry.path == *path).map(|entry| entry.object))
    }

    fn entries(&self) -> impl Iterator<Item = Result<Entry>> {
        self.0.iter().cloned().map(Ok)
    }

    fn range(&self, path: &RelPath) -> impl Iterator<Item = Result<Entry>> {
        let inside = move |entry: &&Entry| entry.path == *path || entry.path.is_below(path);
        self.0.iter().filter(inside).cloned().map(Ok).collect::<Vec<_>>().into_iter()
    }

    fn children(&self, path: &RelPath) -> Result<Vec<Entry>> {
        Ok(self.0.iter().filter(|entry| entry.path.parent() == *path).cloned().collect())
    }
}

/// `/` is a directory, `>x` a link to x, anything else a file of that content.
fn object(content: &str, ino: u64) -> Object {
    let (kind, mode, size) = match content {
        "/" => (Kind::Directory, 0o755, 0),
        link if link.starts_with('>') => (Kind::Symlink, 0o777, link.len() as u64),
        file => (Kind::File, 0o644, file.len() as u64),
    };
    let digest = if kind == Kind::Directory { Digest::default() } else { Digest::of(content.as_bytes()) };
    Object { kind, mode, size, digest, ino, mtime: Timestamp::default() }
}

fn entries(tree: &[(&str, &str)], ino: u64) -> Vec<Entry> {
    let mut entries: Vec<Entry> = tree
        .iter()
        .zip(ino..)
        .map(|((path, content), ino)| Entry { path: RelPath::new(path).unwrap(), object: object(content, ino) })
        .collect();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    entries
}

fn live(entries: &[Entry]) -> Memory {
    Memory(entries.iter().map(|entry| (entry.path.clone(), entry.object)).collect())
}

fn plan_of(old: &[(&str, &str)], new: &[(&str, &str)], rules: Rules) -> Planned {
    let base = entries(old, 100);
    let live = live(&base);
    plan(&Published(base), object("/", 2), entries(new, 200), Scope::Whole, rules, &live).unwrap()
}

fn all_edits(planned: &Planned) -> impl Iterator<Item = Edit> {
    let all: Vec<Edit> = edits(&planned.intent.edits, &planned.intent.operations).collect();
    assert!(all.windows(2).all(|pair| pair[0].path < pair[1].path));
    all.into_iter()
}

fn words(planned: &Planned) -> Vec<String> {
    planned.intent.operations.iter().map(|operation| format!("{} {}", operation.word(), operation.path())).collect()
}

#[test]
fn additions_come_first_then_replacements_with_entry_documents_last_then_removals_from_the_bottom() {
    let old = [
        ("a.html", "1"),
        ("app.js", "1"),
        ("index.html", "1"),
        ("d", "/"),
        ("d/index.html", "1"),
        ("x", "1"),
        ("y", "1"),
    ];
    let new = [("a.html", "2"), ("app.js", "2"), ("index.html", "2"), ("d", "/"), ("d/index.html", "2"), ("new", "1")];
    let planned = plan_of(&old, &new, RULES);
    let expected = [
        "add new",
        "replace app.js",
        "replace a.html",
        "replace d/index.html",
        "replace index.html",
        "remove y",
        "remove x",
    ];
    assert_eq!(words(&planned), expected);
}

#[test]
fn new_and_stale_directories_move_as_one() {
    let old = [("old", "/"), ("old/a", "1"), ("old/b", "/"), ("old/b/c", "1")];
    let new = [("new", "/"), ("new/a", "1"), ("new/b", "/"), ("new/b/c", "1")];
    let planned = plan_of(&old, &new, RULES);
    assert_eq!(words(&planned), ["add new", "remove old"]);
    assert_eq!((planned.plan.summary.added, planned.plan.summary.removed), (4, 4));
    let apart = plan_of(&old, &new, Rules { stale: Stale::Apart, ..RULES });
    let expected = ["add new", "remove old/b/c", "remove-directory old/b", "remove old/a", "remove-directory old"];
    assert_eq!(words(&apart), expected);
}

/// Where the output does not distinguish case, either name leads to what is published under the other.
#[test]
fn a_new_name_of_what_is_stale_is_refused() {
    let old = [("Docs", "/"), ("Docs/old", "1"), ("Readme", "1"), ("kept", "1")];
    let new = [("README", "1"), ("docs", "/"), ("docs/new", "1"), ("kept", "1")];
    let base = entries(&old, 100);
    let mut folding = live(&base);
    for (name, other) in [("docs", "Docs"), ("README", "Readme")] {
        folding.0.insert(RelPath::new(name).unwrap(), folding.0[&RelPath::new(other).unwrap()]);
    }
    let rules = Rules { adopt: true, case_collisions: true, ..RULES };
    let plan_on = |live| {
        plan(&Published(base.clone()), object("/", 2), entries(&new, 200), Scope::Whole, rules, live)
            .unwrap()
            .plan
            .problems
    };
    let paths = ["Readme", "README", "Docs", "docs"].map(|path| RelPath::new(path).unwrap());
    assert_eq!(plan_on(&folding), [Problem::CaseRename(paths.into_iter().collect())]);
    assert_eq!(plan_on(&live(&base)), []);
}

#[test]
fn what_is_published_already_is_no_operation() {
    let tree = [("a", "1"), ("d", "/"), ("d/l", ">a")];
    let planned = plan_of(&tree, &tree, RULES);
    assert!(planned.plan.is_empty() && planned.plan.problems.is_empty());
    assert_eq!(planned.plan.summary, Summary { unchanged: 3, ..Summary::default() });
}

#[test]
fn a_mode_that_keeps_its_owner_out_is_opened_first_and_set_last() {
    let mut base = entries(&[("d", "/"), ("d/a", "1"), ("d/b", "1")], 100);
    base[0].object.mode = 0o555;
    let mut staged = entries(&[("d", "/"), ("d/a", "2"), ("d/b", "1")], 200);
    staged[0].object.mode = 0o555;
    let live = live(&base);
    let planned = plan(&Published(base), object("/", 2), staged, Scope::Whole, RULES, &live).unwrap();
    assert_eq!(words(&planned), ["set-mode d", "replace d/a", "set-mode d"]);
    assert!(matches!(planned.intent.operations[2], Operation::SetMode { from: 0o755, to: 0o555, .. }));
    assert_eq!(planned.intent.stage_modes.len(), 1);
}

#[test]
fn every_problem_is_collected_at_once() {
    let base = entries(&[("drifted", "1"), ("kept", "1")], 100);
    let mut output = live(&base);
    output.0.insert(RelPath::new("drifted").unwrap(), object("2", 7));
    output.0.insert(RelPath::new("foreign").unwrap(), object("f", 8));
    output.0.insert(RelPath::new("directory").unwrap(), object("/", 9));
    let new = entries(&[("drifted", "3"), ("foreign", "n"), ("directory", "n"), ("Case", "1"), ("case", "1")], 200);
    let planned = plan(&Published(base), object("/", 2), new, Scope::Whole, RULES, &output).unwrap();
    let codes: Vec<_> = planned.plan.problems.iter().map(Problem::code).collect();
    assert_eq!(codes, ["case-collision", "foreign", "foreign-directory", "drift"]);
    // What stands in the way of a change does not make it none.
    let changes: Vec<_> =
        planned.plan.changes.iter().map(|change| format!("{} {}", change.kind.letter(), change.path)).collect();
    assert_eq!(changes, ["A Case", "A case", "A directory", "M drifted", "A foreign", "D kept"]);
}

#[test]
fn without_exchange_only_directories_that_change_kind_are_a_problem() {
    let old = [("f", "1"), ("d", "/"), ("d/x", "1"), ("l", ">f")];
    let new = [("f", "2"), ("d", "now a file"), ("l", "now a file")];
    let planned = plan_of(&old, &new, Rules { exchange: false, ..RULES });
    assert_eq!(planned.plan.problems.len(), 1);
    assert!(matches!(&planned.plan.problems[0], Problem::NeedsExchange(paths) if paths.total == 1));
}

#[test]
fn a_shrinking_build_is_refused_and_a_renaming_one_is_not() {
    let old = [("index.html", "1"), ("app-1.js", "1"), ("app-1.css", "1")];
    let rules = Rules { max_removed: 50, ..RULES };
    assert!(
        plan_of(&old, &[("index.html", "2"), ("app-2.js", "1"), ("app-2.css", "1")], rules).plan.problems.is_empty()
    );
    let problems = plan_of(&old, &[("index.html", "2")], rules).plan.problems;
    assert!(matches!(problems[..], [Problem::Shrunken { removed: 2, added: 0, files: 3, limit: 50 }]));
}

#[test]
fn each_guard_is_lifted_by_its_own_option_alone() {
    let old = [("index.html", "1"), ("a", "1"), ("b", "1"), ("Gone", "1")];
    let strict = Rules { empty: false, max_removed: 50, case_collisions: false, drift: false, adopt: false, ..RULES };
    let codes = |staged: &[(&str, &str)], rules| -> Vec<_> {
        plan_of(&old, staged, rules).plan.problems.iter().map(Problem::code).collect()
    };
    let (one, none, cased) =
        ([("index.html", "1")], [("dir", "/")], [("a", "1"), ("A", "2"), ("b", "1"), ("Gone", "1")]);
    assert_eq!(codes(&one, Rules { empty: true, ..strict }), ["shrunken"]);
    assert_eq!(codes(&one, Rules { max_removed: 100, ..strict }), [""; 0]);
    assert_eq!(codes(&none, Rules { max_removed: 100, ..strict }), ["empty-stage"]);
    assert_eq!(codes(&none, Rules { empty: true, ..strict }), [""; 0]);
    let others = Rules { empty: true, max_removed: 100, drift: true, adopt: true, ..strict };
    assert_eq!(codes(&cased, others), ["case-collision"]);
    assert_eq!(codes(&cased, Rules { case_collisions: true, ..strict }), [""; 0]);
    let drifted = live(&entries(&[("index.html", "mine"), ("a", "1"), ("b", "1"), ("Gone", "1")], 300));
    let codes = |staged: &[(&str, &str)], rules| -> Vec<_> {
        let (base, staged) = (Published(entries(&old, 100)), entries(staged, 200));
        let planned = plan(&base, object("/", 2), staged, Scope::Whole, rules, &drifted).unwrap();
        planned.plan.problems.iter().map(Problem::code).collect()
    };
    let other = [("index.html", "2"), ("a", "1"), ("b", "1"), ("Gone", "1")];
    let others = Rules { empty: true, max_removed: 100, adopt: true, case_collisions: true, ..strict };
    assert_eq!(codes(&other, others), ["drift"]);
    assert_eq!(codes(&other, Rules { drift: true, ..strict }), [""; 0]);
}

#[test]
fn edits_make_of_the_manifest_what_the_output_holds_afterwards() {
    let old = [("a", "1"), ("b", "1"), ("d", "/"), ("d/x", "1"), ("gone", "1")];
    let new = [("a", "1"), ("b", "2"), ("d", "/"), ("d/x", "1"), ("d/y", "1")];
    let planned = plan_of(&old, &new, RULES);
    let edits: Vec<_> =
        all_edits(&planned).map(|edit| (edit.path.to_string(), edit.object.map(|object| object.ino))).collect();
    let expected = [("b", Some(201)), ("d/y", Some(204)), ("gone", None)];
    assert_eq!(edits, expected.map(|(path, ino)| (path.to_string(), ino)));
}

fn change_of(old: &[(&str, &str)], staged: &[(&str, &str)], removals: &[&str], output: &Memory) -> Planned {
    let removals: Vec<_> = removals.iter().map(|path| RelPath::new(path).unwrap()).collect();
    let scope = Scope::Change { removals: &removals };
    let rules = Rules { drift: true, ..RULES };
    plan(&Published(entries(old, 100)), object("/", 2), entries(staged, 200), scope, rules, output).unwrap()
}

#[test]
fn a_change_leaves_alone_what_it_does_not_name() {
    let old = [("a", "1"), ("d", "/"), ("d/x", "1"), ("d/y", "1"), ("e", "/"), ("e/z", "1")];
    let planned =
        change_of(&old, &[("a", "2"), ("d", "/"), ("d/n", "1")], &["d/x", "e", "e/z"], &live(&entries(&old, 100)));
    assert_eq!(words(&planned), ["add d/n", "replace a", "remove e", "remove d/x"]);
    assert_eq!(planned.plan.summary, Summary { added: 1, changed: 1, removed: 3, unchanged: 2 });
    assert_eq!((all_edits(&planned).count(), count_edits(&planned.intent.edits, &planned.intent.operations)), (5, 5));
}

#[test]
fn what_was_captured_is_a_change_with_modes_of_directories_and_the_guards_of_a_build() {
    let old = [("a", "1"), ("d", "/"), ("d/x", "1"), ("d/y", "1"), ("e", "/"), ("e/z", "1")];
    let output = live(&entries(&old, 100));
    let captured = |staged: Vec<Entry>, removals: &[&str], rules| {
        let removals: Vec<_> = removals.iter().map(|path| RelPath::new(path).unwrap()).collect();
        let scope = Scope::Captured { removals: &removals };
        plan(&Published(entries(&old, 100)), object("/", 2), staged, scope, rules, &output).unwrap()
    };
    let mut closed = entries(&[("d", "/")], 200);
    closed[0].object.mode = 0o700;
    assert_eq!(captured(closed, &[], RULES).plan.summary, Summary { changed: 1, unchanged: 5, ..Summary::default() });
    // In the place of a directory: what was in it goes.
    let replaced = captured(entries(&[("d", "/"), ("d/n", "1")], 200), &["d"], RULES);
    assert_eq!(words(&replaced), ["add d/n", "remove d/y", "remove d/x"]);
    assert!(replaced.plan.problems.is_empty());
    let shrunken = captured(Vec::new(), &["d", "e"], Rules { max_removed: 50, ..RULES });
    assert!(
        matches!(&shrunken.plan.problems[..], [Problem::Shrunken { removed: 3, files: 4, .. }]),
        "{:?}",
        shrunken.plan.problems
    );
    let empty = captured(Vec::new(), &["a", "d", "e"], RULES);
    assert!(matches!(&empty.plan.problems[..], [Problem::EmptyStage]), "{:?}", empty.plan.problems);
    let wanted = captured(Vec::new(), &["a", "d", "e"], Rules { empty: true, ..RULES });
    assert!(wanted.plan.problems.is_empty());
    assert!(captured(entries(&[("a", "2")], 200), &["d/x"], RULES).plan.problems.is_empty());
}

#[test]
fn nothing_stays_published_below_what_a_change_makes_a_file() {
    let old = [("d", "/"), ("d/x", "1"), ("e", "1")];
    for output in [live(&entries(&old, 100)), live(&entries(&[("d", "drift"), ("e", "1")], 300))] {
        let planned = change_of(&old, &[("d", "now a file")], &["d/x"], &output);
        let gone = all_edits(&planned).filter(|edit| edit.object.is_none()).count();
        assert_eq!((gone, planned.plan.summary.removed, planned.plan.summary.unchanged), (1, 1, 1));
    }
}

#[test]
fn names_that_differ_by_case_collide_with_what_stays_in_their_directory_alone() {
    let old = [("d", "/"), ("d/Readme", "1"), ("d/gone", "1"), ("readme", "1")];
    let output = live(&entries(&old, 100));
    let case = |staged: &[(&str, &str)], removals: &[&str]| {
        let planned = change_of(&old, staged, removals, &output);
        planned.plan.problems.iter().map(|problem| problem.to_string()).collect::<Vec<_>>().join("; ")
    };
    let collision = case(&[("d", "/"), ("d/README", "1")], &[]);
    assert!(collision.contains("d/README") && collision.contains("d/Readme"), "{collision}");
    assert_eq!(case(&[("d", "/"), ("d/GONE", "1")], &["d/gone"]), "");
    assert_eq!(case(&[("other", "/"), ("other/readme", "1")], &[]), "");
    assert!(case(&[("D", "/"), ("D/x", "1")], &[]).contains("D"));
}
