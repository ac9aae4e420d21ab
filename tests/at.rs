//! Transactions that replace only what is below one path: several producers, one output.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use common::tree::snapshot;
use common::{Scratch, fast_scratch, lenient, publish, read};
use txfs::{
    Basis, BeginOptions, CommitOptions, Committed, Error, ErrorKind, Exclude, Problem, RecoverOptions, Store,
    Transaction,
};

struct World {
    dir: Scratch,
    out: PathBuf,
    store: Store,
}

impl World {
    /// An output with these files, each with its path as its content.
    fn with(files: &[&str]) -> Self {
        let dir = fast_scratch();
        let out = dir.path().join("site");
        let store = Store::open(&out).unwrap();
        if !files.is_empty() {
            let files: Vec<_> = files.iter().map(|path| (*path, *path)).collect();
            publish(&store, &files).unwrap();
        }
        Self { dir, out, store }
    }

    fn begin(&self, at: &str) -> Transaction {
        self.store.begin(BeginOptions::default().at(at)).unwrap()
    }

    fn publish_at(&self, at: &str, files: &[(&str, &str)]) -> txfs::Result<Committed> {
        let mut transaction = self.begin(at);
        files.iter().try_for_each(|(path, content)| transaction.write(path, content))?;
        transaction.commit(&CommitOptions::default())
    }

    fn files(&self) -> Vec<String> {
        let head = self.store.head().unwrap();
        let mut all: Vec<_> = walk(&self.out)
            .into_iter()
            .map(|path| path.strip_prefix(&self.out).unwrap().display().to_string())
            .collect();
        all.sort();
        assert_eq!(head.map_or(0, |head| head.totals.files), all.len() as u64);
        all
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn problems(result: txfs::Result<Committed>) -> Vec<Problem> {
    match result {
        Err(Error::Refused { problems, .. }) => problems,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_is_below_the_path_is_replaced() {
    let world = World::with(&["index.html", "preview/1/old", "preview/1/page", "preview/2/page"]);
    let mut transaction = world.begin("preview/1");
    assert!(transaction.stage().ends_with("stage/preview/1"));
    // A tool sees its own place alone.
    fs::write(transaction.stage().join("page"), "built").unwrap();
    transaction.write("deep/new", "written").unwrap();
    let committed = transaction.commit(&CommitOptions::default()).unwrap();
    let changed: Vec<_> =
        committed.plan.changes.iter().map(|change| format!("{} {}", change.kind.letter(), change.path)).collect();
    assert_eq!(changed, ["A preview/1/deep", "A preview/1/deep/new", "D preview/1/old", "M preview/1/page"]);
    assert_eq!(world.files(), ["index.html", "preview/1/deep/new", "preview/1/page", "preview/2/page"]);
    assert_eq!(read(&world.out, "preview/1/page"), "built");
    assert!(world.store.verify().unwrap().is_empty());
}

#[test]
fn directories_that_lead_to_the_path_are_made_and_those_that_are_there_stay_as_they_are() {
    let world = World::with(&["a/page"]);
    let made = fs::metadata(world.out.join("a")).unwrap();
    world.publish_at("a/b/c", &[("page", "1")]).unwrap();
    world.publish_at("x/y", &[("page", "1")]).unwrap();
    assert_eq!(world.files(), ["a/b/c/page", "a/page", "x/y/page"]);
    let now = fs::metadata(world.out.join("a")).unwrap();
    assert_eq!((now.ino(), now.mode()), (made.ino(), made.mode()));
    for dir in ["x", "x/y", "a/b", "a/b/c"] {
        assert_eq!(fs::metadata(world.out.join(dir)).unwrap().mode(), made.mode(), "{dir}");
    }
}

#[test]
fn where_nothing_is_published_yet_the_path_alone_is() {
    let world = World::with(&[]);
    world.publish_at("preview/1", &[("page", "1")]).unwrap();
    assert_eq!(world.files(), ["preview/1/page"]);
    // What somebody else put above it is in nobody's way.
    fs::create_dir(world.out.join("by-hand")).unwrap();
    world.publish_at("by-hand/2", &[("page", "2")]).unwrap();
    assert_eq!(world.files(), ["by-hand/2/page", "preview/1/page"]);
}

#[test]
fn transactions_whose_paths_do_not_overlap_do_not_conflict() {
    let world = World::with(&["index.html"]);
    let (mut one, mut two) = (world.begin("preview/1"), world.begin("preview/2"));
    let mut deep = world.begin("docs/v1");
    for (transaction, content) in [(&mut one, "one"), (&mut two, "two"), (&mut deep, "deep")] {
        transaction.write("page", content).unwrap();
    }
    // One that is overtaken plans on what is published then, too.
    assert_eq!(one.commit(&CommitOptions::default()).unwrap().generation, 2);
    assert!(!world.store.is_overtaken(two.id()).unwrap());
    let plan = two.plan(&CommitOptions::default()).unwrap();
    assert_eq!((plan.problems.len(), plan.summary.added), (0, 2), "{:?}", plan.changes);
    assert_eq!(two.commit(&CommitOptions::default()).unwrap().generation, 3);
    assert_eq!(deep.commit(&CommitOptions::default()).unwrap().generation, 4);
    assert_eq!(world.files(), ["docs/v1/page", "index.html", "preview/1/page", "preview/2/page"]);
    assert!(world.store.verify().unwrap().is_empty());
    assert_eq!(world.store.recover(RecoverOptions::default()).unwrap().warnings.len(), 0);
}

#[test]
fn of_transactions_whose_paths_overlap_the_first_to_commit_wins() {
    for (first, second) in [("preview", "preview"), ("preview", "preview/1"), ("preview/1", "preview")] {
        let world = World::with(&["index.html", "preview/1/page"]);
        let (mut one, mut two) = (world.begin(first), world.begin(second));
        one.write("page", "one").unwrap();
        two.write("page", "two").unwrap();
        one.commit(&CommitOptions::default()).unwrap();
        let before = snapshot(&world.out);
        assert!(world.store.is_overtaken(two.id()).unwrap());
        let refused = two.commit(&lenient()).unwrap_err();
        assert!(matches!(refused, Error::BaseMoved { base: 1, current: 2, .. }), "{first} {second}: {refused}");
        assert_eq!(snapshot(&world.out), before);
    }
}

#[test]
fn one_of_the_whole_output_conflicts_with_each_and_each_with_what_it_changed_there() {
    let world = World::with(&["index.html", "a/page", "b/page"]);
    let mut whole = world.store.begin(BeginOptions::default()).unwrap();
    let (mut a, mut b, mut c) = (world.begin("a"), world.begin("b"), world.begin("a"));
    for (path, content) in [("index.html", "new"), ("a/page", "a/page"), ("b/page", "new")] {
        whole.write(path, content).unwrap();
    }
    whole.commit(&CommitOptions::default()).unwrap();
    for transaction in [&mut a, &mut b, &mut c] {
        transaction.write("page", "mine").unwrap();
    }
    assert!(matches!(b.commit(&lenient()), Err(Error::BaseMoved { .. })));
    let mut late = world.store.begin(BeginOptions::default()).unwrap();
    late.write("index.html", "late").unwrap();
    a.commit(&CommitOptions::default()).unwrap();
    assert!(matches!(late.commit(&lenient()), Err(Error::BaseMoved { .. })));
    // What it replaces was put back as it was, and is another file.
    world.publish_at("a", &[("page", "a/page")]).unwrap();
    assert!(matches!(c.commit(&lenient()), Err(Error::BaseMoved { .. })));
    assert_eq!(read(&world.out, "a/page"), "a/page");
}

#[test]
fn what_leads_to_the_path_may_have_become_something_else() {
    let world = World::with(&["index.html"]);
    let mut transaction = world.begin("preview/1");
    transaction.write("page", "1").unwrap();
    publish(&world.store, &[("index.html", "index.html"), ("preview", "a file")]).unwrap();
    assert!(matches!(transaction.commit(&lenient()), Err(Error::BaseMoved { .. })));
    drop(transaction);
    for at in ["preview/1", "preview", "index.html/x/y"] {
        let refused = world.store.begin(BeginOptions::default().at(at)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Usage, "{at}: {refused}");
        assert!(refused.to_string().contains("is no directory"), "{at}: {refused}");
    }
    assert!(world.store.transactions().unwrap().is_empty());
}

#[test]
fn a_link_on_the_way_is_followed_by_nobody() {
    let world = World::with(&["index.html"]);
    let outside = world.dir.path().join("outside");
    fs::create_dir_all(outside.join("1")).unwrap();
    fs::write(outside.join("1/theirs"), "theirs").unwrap();
    symlink(&outside, world.out.join("preview")).unwrap();
    for options in [CommitOptions::default(), CommitOptions::default().adopt_all(true)] {
        let mut transaction = world.begin("preview/1");
        transaction.write("page", "1").unwrap();
        if options.adopt_all {
            // It is taken over, and a directory takes its place.
            transaction.commit(&options).unwrap();
        } else {
            assert!(matches!(problems(transaction.commit(&options))[..], [Problem::Foreign(_)]));
        }
    }
    assert_eq!(world.files(), ["index.html", "preview/1/page"]);
    assert_eq!(fs::read_dir(outside.join("1")).unwrap().count(), 1);
    // One that is published is refused when it begins.
    let mut whole = world.store.begin(BeginOptions::default()).unwrap();
    whole.symlink("link", &outside).unwrap();
    whole.write("index.html", "x").unwrap();
    whole.commit(&CommitOptions::default()).unwrap();
    for at in ["link", "link/1"] {
        assert_eq!(world.store.begin(BeginOptions::default().at(at)).unwrap_err().kind(), ErrorKind::Usage);
    }
}

#[test]
fn a_path_that_is_no_place_in_the_output_is_refused_by_one_message() {
    let world = World::with(&["index.html"]);
    for at in ["", ".", "./", "/", "/srv", "..", "a/../b", "a/..", ".txfs", ".txfs/x"] {
        let refused = world.store.begin(BeginOptions::default().at(at)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Usage, "{at}");
        assert!(refused.to_string().contains("no place in the output"), "{at}: {refused}");
    }
    for at in ["./preview//1/", "preview/./1"] {
        assert_eq!(world.begin(at).at().to_string(), "preview/1");
    }
    assert!(world.store.transactions().unwrap().is_empty());
}

#[test]
fn what_is_written_beside_the_path_is_refused() {
    let world = World::with(&["index.html"]);
    let mut transaction = world.begin("preview/1");
    transaction.write("page", "1").unwrap();
    let above = transaction.stage();
    fs::write(above.parent().unwrap().join("beside"), "").unwrap();
    fs::write(above.ancestors().nth(2).unwrap().join("index.html"), "").unwrap();
    let found = problems(transaction.commit(&lenient()));
    let [Problem::OutsideOfPath(paths)] = &found[..] else { panic!("{found:?}") };
    assert_eq!(paths.to_string(), "index.html, preview/beside");
    assert!(transaction.write("../beside", "").is_err());
}

#[test]
fn guards_count_below_the_path() {
    let few = ["a/1", "a/2", "a/3", "a/4", "b/1", "b/2", "b/3", "b/4", "b/5", "b/6", "b/7", "b/8"];
    let world = World::with(&few);
    let lost = problems(world.publish_at("a", &[("1", "a/1")]));
    assert!(matches!(lost[..], [Problem::Shrunken { removed: 3, added: 0, files: 4, .. }]), "{lost:?}");
    assert!(matches!(problems(world.publish_at("a", &[]))[..], [Problem::EmptyStage]));
    assert!(matches!(problems(world.publish_at("new/1", &[]))[..], [Problem::EmptyStage]));
    let mut emptied = world.begin("a");
    emptied.commit(&CommitOptions::default().allow_empty(true)).unwrap();
    assert_eq!(world.files().len(), 8);
    assert!(world.out.join("a").is_dir());
    let case = problems(world.publish_at("B", &[("1", "")]));
    assert!(matches!(case[..], [Problem::CaseCollision(_)]), "{case:?}");
}

#[test]
fn foreign_entries_and_drift_count_below_the_path_alone() {
    let world = World::with(&["a/page", "b/page"]);
    for path in ["b/page", "b/foreign", "a/foreign"] {
        fs::write(world.out.join(path), "theirs").unwrap();
    }
    world.publish_at("a", &[("page", "new")]).unwrap();
    assert!(matches!(problems(world.publish_at("a", &[("foreign", "x")]))[..], [Problem::Foreign(_), ..]));
    assert!(matches!(problems(world.publish_at("b", &[("page", "new")]))[..], [Problem::Drift(_)]));
    let mut transaction = world.begin("a");
    transaction.write("page", "newer").unwrap();
    transaction.commit(&CommitOptions::default().adopt_all(true)).unwrap();
    assert!(!world.out.join("a/foreign").exists());
    assert_eq!(read(&world.out, "b/foreign"), "theirs");
    assert_eq!(read(&world.out, "b/page"), "theirs");
}

#[test]
fn an_output_that_is_gone_does_not_come_back_in_part() {
    let world = World::with(&["a/page", "b/page"]);
    fs::remove_dir_all(&world.out).unwrap();
    assert!(matches!(problems(world.publish_at("a", &[("page", "new")]))[..], [Problem::OutputGone]));
    assert!(!world.out.exists());
}

#[test]
fn the_path_itself_goes_when_it_is_said_to() {
    let world = World::with(&["index.html", "preview/1/page", "preview/2/page"]);
    let mut transaction = world.begin("preview/1");
    transaction.remove_at().unwrap();
    transaction.commit(&CommitOptions::default()).unwrap();
    assert_eq!(world.files(), ["index.html", "preview/2/page"]);
    assert!(!world.out.join("preview/1").exists());
    let refused = world.begin("preview/1").remove_at().unwrap_err();
    assert!(refused.to_string().contains("nothing is published there"), "{refused}");
    assert_eq!(world.store.begin(BeginOptions::default()).unwrap().remove_at().unwrap_err().kind(), ErrorKind::Usage);
    // Of a change, too; and staging takes it back.
    let mut change = world.store.begin(BeginOptions::default().from(Basis::Current).at("preview/2")).unwrap();
    change.remove_at().unwrap();
    change.write("other", "1").unwrap();
    change.commit(&CommitOptions::default()).unwrap();
    assert_eq!(world.files(), ["index.html", "preview/2/other", "preview/2/page"]);
    let mut change = world.store.begin(BeginOptions::default().from(Basis::Current).at("preview/2")).unwrap();
    change.remove_at().unwrap();
    change.commit(&CommitOptions::default()).unwrap();
    assert_eq!(world.files(), ["index.html"]);
    // The directory above it was made, and stays.
    assert!(world.out.join("preview").is_dir());
}

#[test]
fn a_tool_that_removes_its_stage_removes_nothing_else() {
    let world = World::with(&["preview/1/page"]);
    for replaced in [false, true] {
        let mut transaction = world.begin("preview/1");
        fs::remove_dir(transaction.stage()).unwrap();
        if replaced {
            fs::write(transaction.stage(), "a file").unwrap();
        }
        let refused = transaction.commit(&lenient()).unwrap_err();
        assert!(refused.to_string().contains("the stage is gone"), "{refused}");
    }
    assert_eq!(world.files(), ["preview/1/page"]);
}

#[test]
fn a_change_and_a_copy_are_of_what_is_below_the_path() {
    let world = World::with(&["index.html", "a/x", "a/d/y", "b/z"]);
    let from = |from| world.store.begin(BeginOptions::default().from(from).at("a")).unwrap();
    let mut change = from(Basis::Current);
    change.write("new", "1").unwrap();
    change.remove("d").unwrap();
    change.commit(&CommitOptions::default()).unwrap();
    assert_eq!(world.files(), ["a/new", "a/x", "b/z", "index.html"]);
    let mut copy = from(Basis::Copy);
    assert_eq!(fs::read_dir(copy.stage()).unwrap().count(), 2);
    assert_eq!(read(&copy.stage(), "x"), "a/x");
    fs::remove_file(copy.stage().join("x")).unwrap();
    copy.commit(&CommitOptions::default()).unwrap();
    assert_eq!(world.files(), ["a/new", "b/z", "index.html"]);
    // Drift elsewhere is not copied.
    fs::write(world.out.join("b/z"), "by hand").unwrap();
    drop(from(Basis::Copy));
    assert!(world.store.begin(BeginOptions::default().from(Basis::Copy).at("b")).is_err());
}

#[test]
fn a_copy_of_a_directory_goes_below_the_path_and_what_is_the_same_is_taken_from_there() {
    let world = World::with(&["index.html"]);
    let source = world.dir.path().join("build");
    fs::create_dir_all(source.join("d")).unwrap();
    for name in ["page", "d/x", "app.map"] {
        fs::write(source.join(name), name).unwrap();
    }
    let copy = |differing: bool| {
        let mut transaction = world.begin("preview/1");
        transaction.exclude(Exclude::new(|path, _| path == Path::new("app.map")));
        match differing {
            true => transaction.copy_differing_from(&source).unwrap(),
            false => transaction.copy_from(&source).unwrap(),
        }
        transaction
    };
    copy(false).commit(&CommitOptions::default()).unwrap();
    let published = ["index.html", "preview/1/d/x", "preview/1/page"];
    assert_eq!(world.files(), published);
    assert!(!copy(true).commit(&CommitOptions::default()).unwrap().changed);
    fs::write(source.join("page"), "changed").unwrap();
    let mut transaction = copy(true);
    // The rest is not staged, and somebody else commits meanwhile.
    assert_eq!(walk(&transaction.stage()).len(), 1);
    world.publish_at("preview/2", &[("page", "2")]).unwrap();
    let committed = transaction.commit(&CommitOptions::default()).unwrap();
    assert_eq!((committed.generation, committed.plan.summary.changed), (4, 1));
    assert_eq!(read(&world.out, "preview/1/page"), "changed");
    // What is not where it was published is copied after all.
    let mut transaction = copy(true);
    fs::remove_dir_all(world.out.join("preview/1")).unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!(world.files(), ["index.html", "preview/1/d/x", "preview/1/page", "preview/2/page"]);
    // What was excluded only now goes.
    let mut transaction = world.begin("preview/1");
    transaction.copy_from(&source).unwrap();
    let options = lenient().exclude(Exclude::new(|path, _| path.starts_with("d") || path.ends_with("app.map")));
    transaction.commit(&options).unwrap();
    assert_eq!(world.files(), ["index.html", "preview/1/page", "preview/2/page"]);
    // A stage of this kind that is kept has all of it.
    let mut transaction = copy(true);
    transaction.write("more", "1").unwrap();
    let stage = transaction.keep().unwrap();
    assert_eq!(walk(&stage).len(), 3);
}

#[test]
fn a_detached_one_is_known_by_its_stage_and_follows_others() {
    let world = World::with(&["index.html"]);
    let begun = world.store.begin(BeginOptions::default().detached(true).at("preview/1")).unwrap();
    let stage = begun.stage();
    drop(begun);
    fs::write(stage.join("page"), "1").unwrap();
    world.publish_at("preview/2", &[("page", "2")]).unwrap();
    let options = txfs::OpenOptions::default();
    let parse = |path: &Path| Store::parse_stage(&options, path).unwrap();
    let (output, id) = parse(&stage).unwrap();
    assert_eq!(output, world.out);
    // The stage that holds it is a name, too; what is in it, or beside it, is none.
    let whole = stage.ancestors().nth(2).unwrap();
    assert_eq!(parse(whole), Some((output, id)));
    assert_eq!((parse(&stage.join("page")), parse(stage.parent().unwrap())), (None, None));
    let [open] = &world.store.transactions().unwrap()[..] else { panic!() };
    assert_eq!((&open.stage, open.at.as_ref().unwrap().to_string()), (&stage, "preview/1".to_owned()));
    assert_eq!(world.store.preview(&stage, &CommitOptions::default()).unwrap().summary.added, 2);
    let mut resumed = world.store.resume(id).unwrap();
    assert_eq!(resumed.commit(&CommitOptions::default()).unwrap().generation, 3);
    assert_eq!(world.files(), ["index.html", "preview/1/page", "preview/2/page"]);
    assert_eq!(parse(&stage), None);
}

#[test]
fn older_programs_refuse_one_that_is_about_a_path_and_know_the_others() {
    let world = World::with(&["index.html"]);
    let begin = |options: BeginOptions| {
        let id = world.store.begin(options.detached(true)).unwrap().id();
        (id, world.store.state().join(format!("tx/{id}/meta")))
    };
    let (_, whole) = begin(BeginOptions::default());
    assert_eq!(fs::read(whole).unwrap()[8], 1);
    let (id, part) = begin(BeginOptions::default().at("preview/1"));
    let mut bytes = fs::read(&part).unwrap();
    assert_eq!(bytes[8], 2);
    // This program refuses a later one, too, and says which.
    bytes[8] = 4;
    let checksum = crc32fast::hash(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&checksum);
    fs::write(part, &bytes).unwrap();
    let refused = world.store.resume(id).map(drop).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(refused.to_string().contains("version is 4"), "{refused}");
}

#[test]
fn going_back_is_of_the_whole_output() {
    let world = World::with(&["index.html"]);
    world.publish_at("preview/1", &[("page", "1")]).unwrap();
    assert_eq!(world.begin("preview/1").copy_previous().unwrap_err().kind(), ErrorKind::Usage);
    let mut transaction = world.store.begin(BeginOptions::default()).unwrap();
    transaction.copy_previous().unwrap();
    transaction.commit(&lenient()).unwrap();
    assert_eq!(world.files(), ["index.html"]);
}
