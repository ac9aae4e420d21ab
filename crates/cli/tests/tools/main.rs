//! `txfs run OUT -- BUILD` of real tools in their default configuration: what is published is what the bare tool makes, a build that fails or
//! is killed leaves what was there, and nothing of either stays.
//!
//! `.ci/run` installs the tools, and says by `TXFS_TOOLS` where those of npm are; elsewhere those that are there are used, and the others are
//! skipped, which is said. `TXFS_KILLS` says how often each build is killed.

#![allow(clippy::unwrap_used)]

mod projects;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use projects::Project;
use tempfile::TempDir;
use txfs_testing as common;

/// What a run says it is, so that its processes are found.
const MARK: &str = "TXFS_TEST_OF_TOOLS";

/// Every path of a tree: its mode, and its content.
type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

struct Built<'p> {
    project: &'p Project,
    home: TempDir,
    mark: String,
}

impl<'p> Built<'p> {
    fn new(project: &'p Project) -> Self {
        let home = TempDir::new().unwrap();
        let mark = format!("{}-{}", project.name.replace(' ', "-"), home.path().file_name().unwrap().display());
        let built = Self { project, home, mark };
        built.make();
        built
    }

    fn dir(&self) -> PathBuf {
        self.home.path().canonicalize().unwrap().join("project")
    }

    fn output(&self) -> PathBuf {
        self.dir().join(self.project.output)
    }

    fn make(&self) {
        fs::create_dir_all(self.dir()).unwrap();
        self.project.files.iter().for_each(|file| self.write(*file));
    }

    fn write(&self, (path, content): (&str, &str)) {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// What the mistake replaced.
    fn mend(&self) {
        let (path, _) = self.project.mistake;
        let was = self.project.files.iter().find(|file| file.0 == path).unwrap();
        self.write(if path == self.project.change.0 { self.project.change } else { *was });
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.dir()).stdin(Stdio::null()).process_group(0);
        command.env(MARK, &self.mark).env("SOURCE_DATE_EPOCH", "1700000000");
        command
    }

    fn bare(&self) -> Tree {
        let output = self.command("sh", &["-ec", self.project.build]).output().unwrap();
        assert!(output.status.success(), "{}: {}", self.project.name, told(&output));
        tree(&self.output())
    }

    fn txfs(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_txfs"), arguments).output().unwrap()
    }

    fn captured_command(&self) -> Command {
        let arguments = ["run", self.project.output, "--", "sh", "-ec", self.project.build];
        self.command(env!("CARGO_BIN_EXE_txfs"), &arguments)
    }

    fn captured(&self) -> Tree {
        let output = self.captured_command().output().unwrap();
        assert!(output.status.success(), "{}: {}", self.project.name, told(&output));
        self.is_clean();
        tree(&self.output())
    }

    fn is_clean(&self) {
        let name = self.project.name;
        let verified = self.txfs(&["verify", self.project.output]);
        assert!(verified.status.success(), "{name}: {}", told(&verified));
        let state = self.dir().join(format!(".{}.txfs", self.project.output));
        assert_eq!(fs::read_dir(state.join("tx")).unwrap().count(), 0, "{name}: a transaction is left");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.home.path().to_str().unwrap()), "{name}: a mount is left");
    }

    /// Processes of this project's commands that are still there.
    fn left(&self) -> Vec<String> {
        let mark = format!("{MARK}={}", self.mark);
        let of_all = fs::read_dir("/proc").unwrap().flatten();
        let is_ours = |process: &PathBuf| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let ours = of_all.map(|process| process.path()).filter(is_ours);
        ours.map(|process| fs::read_to_string(process.join("comm")).unwrap_or_default()).collect()
    }

    fn expect_none_left(&self) {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.left().is_empty() {
            assert!(Instant::now() < end, "{}: {:?} live on", self.project.name, self.left());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Built<'_> {
    fn drop(&mut self) {
        // What a build made may be closed to its owner.
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(self.home.path()).stderr(Stdio::null()).status();
    }
}

fn told(output: &Output) -> String {
    format!("{}: {}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn tree(root: &Path) -> Tree {
    fn walk(root: &Path, at: &Path, tree: &mut Tree) {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let content = match stat.file_type() {
                kind if kind.is_file() => fs::read(&path).unwrap(),
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
                _ => Vec::new(),
            };
            tree.insert(path.strip_prefix(root).unwrap().to_owned(), (stat.permissions().mode(), content));
            if stat.is_dir() {
                walk(root, &path, tree);
            }
        }
    }
    let mut found = Tree::new();
    if root.exists() {
        walk(root, root, &mut found);
    }
    found
}

fn names(tree: &Tree) -> BTreeSet<&PathBuf> {
    tree.keys().collect()
}

/// Says where two trees differ, but at paths whose content no two builds agree on.
fn expect_same(what: &str, found: &Tree, expected: &Tree, vary: &BTreeSet<PathBuf>) {
    assert_eq!(names(found), names(expected), "{what}");
    for (path, entry) in found {
        let same = *entry == expected[path] || vary.contains(path) && entry.0 == expected[path].0;
        assert!(same, "{what}: {} differs", path.display());
    }
}

/// What the bare tool makes at first, and after a change; and where two builds of the same differ.
struct Bare {
    first: Tree,
    changed: Tree,
    vary: BTreeSet<PathBuf>,
}

/// What two builds agree on by chance: cargo writes down what it knows of rustc in the order of a hash table.
const VARY: [&str; 1] = [".rustc_info.json"];

fn build_bare(project: &Project) -> Bare {
    let build = || {
        let built = Built::new(project);
        let first = built.bare();
        // Tools that compare times see the change.
        sleep(Duration::from_millis(1100));
        built.write(project.change);
        (first, built.bare())
    };
    let ((first, changed), (again, changed_again)) = (build(), build());
    let differ = |a: &Tree, b: &Tree| -> Vec<PathBuf> {
        let all: BTreeSet<_> = names(a).union(&names(b)).map(|path| (*path).clone()).collect();
        all.into_iter().filter(|path| a.get(path) != b.get(path)).collect()
    };
    let found = differ(&first, &again).into_iter().chain(differ(&changed, &changed_again));
    let vary = found.chain(VARY.map(PathBuf::from)).collect();
    Bare { first, changed, vary }
}

fn try_out_if_there(project: &Project) {
    if is_there(project) {
        try_out(project, &mut common::Random::new(common::seed()));
    } else {
        common::skip(project.name, "the tool is not installed");
    }
}

fn try_out(project: &Project, random: &mut common::Random) {
    let name = project.name;
    let bare = build_bare(project);
    assert!(!bare.first.is_empty() && bare.first != bare.changed, "{name}: the bare build shows no change");
    let built = Built::new(project);
    expect_same(&format!("{name}: the first build"), &built.captured(), &bare.first, &bare.vary);
    sleep(Duration::from_millis(1100));
    built.write(project.change);
    let began = Instant::now();
    let published = built.captured();
    let took = began.elapsed();
    expect_same(&format!("{name}: the changed build"), &published, &bare.changed, &bare.vary);

    built.write(project.mistake);
    let failed = built.captured_command().output().unwrap();
    assert!(!failed.status.success(), "{name}: {}", told(&failed));
    assert_eq!(tree(&built.output()), published, "{name}: a failed build changed the output");
    built.expect_none_left();
    built.is_clean();
    built.mend();

    let kills = std::env::var("TXFS_KILLS").map_or(2, |kills| kills.parse().unwrap());
    let mut last = published;
    let mut kept = 0;
    for round in 0..kills {
        let text = if round % 2 == 0 { project.files } else { &[project.change] };
        text.iter().filter(|file| file.0 == project.change.0).for_each(|file| built.write(*file));
        let mut child = built.captured_command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(took.mul_f64(random.below(1100) as f64 / 1000.0));
        let process = Pid::from_raw(i32::try_from(child.id()).unwrap());
        // Of txfs alone, or of all that a terminal would reach.
        let _ = if random.below(2) == 0 { kill(process, Signal::SIGKILL) } else { killpg(process, Signal::SIGKILL) };
        let status = child.wait().unwrap();
        built.expect_none_left();
        let now = tree(&built.output());
        let recovered = built.txfs(&["recover", project.output]);
        assert!(recovered.status.success(), "{name}: {}", told(&recovered));
        let after = tree(&built.output());
        if status.success() || after != last {
            // The kill came after the commit.
            last = after;
        } else {
            assert_eq!(now, last, "{name}: a killed build changed the output");
            kept += 1;
        }
        built.is_clean();
    }
    built.write(project.change);
    built.captured();
    println!(
        "{name}: {} entries, {} vary; killed {kills} times, {kept} before the commit; {took:.1?} captured",
        bare.changed.len(),
        bare.vary.len()
    );
}

fn is_there(project: &Project) -> bool {
    let mut asked = Command::new("sh");
    asked.args(["-c", project.needs]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    asked.status().is_ok_and(|status| status.success())
}

/// The default build of a real tool is published as the bare tool makes it, or not at all.
macro_rules! tools {
    ($($name:ident $project:ident)*) => {$(
        #[test]
        fn $name() {
            try_out_if_there(&projects::$project);
        }
    )*};
}

tools! {
    hugo_is_published_whole_or_not_at_all HUGO
    mkdocs_is_published_whole_or_not_at_all MKDOCS
    sphinx_is_published_whole_or_not_at_all SPHINX
    vite_is_published_whole_or_not_at_all VITE
    eleventy_is_published_whole_or_not_at_all ELEVENTY
    doxygen_is_published_whole_or_not_at_all DOXYGEN
    cargo_doc_is_published_whole_or_not_at_all CARGO_DOC
    make_is_published_whole_or_not_at_all MAKE
}
