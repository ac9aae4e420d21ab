//! A store that a group shares: whatever one member leaves, by whatever umask, and wherever it is killed, another goes on with.
//!
//! To be two users of a group, and one outside it, needs root: the tests run this program again as each of them; what a user does is
//! in [`scenes`].

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::stat::{Mode, umask};
use txfs::fs::Fs;
use txfs::{BeginOptions, Error, ErrorKind, OpenOptions, Problem, RecoverOptions, Retention, Store};
use txfs_testing::faulty::{Call, Faulty};
use txfs_testing::{Scratch, fast_scratch, lenient, publish, set_mode, state_of};

mod killed;
mod members;
mod trust;

const GROUP: u32 = 62_000;

const ANNE: User = User { id: 61_001, groups: &[GROUP] };

const BERT: User = User { id: 61_002, groups: &[61_900, GROUP] };

#[derive(Clone, Copy)]
struct User {
    id: u32,
    groups: &'static [u32],
}

/// A directory of the group's.
struct World {
    scratch: Scratch,
    /// The call at which the next scene is killed; 0 for none.
    kill: usize,
}

impl World {
    /// `None` where it cannot be made.
    fn new(test: &str) -> Option<Self> {
        if !txfs_testing::is_root() {
            txfs_testing::skip(test, "to be several users needs root");
            return None;
        }
        let world = Self { scratch: fast_scratch(), kill: 0 };
        set_mode(world.scratch.path(), 0o755);
        // By another process: a child that another test starts at that moment could inherit a descriptor that is open for writing, and
        // a program that somebody may write to cannot be run.
        let copied = Command::new("cp").arg(std::env::current_exe().unwrap()).arg(world.program()).status();
        assert!(copied.unwrap().success());
        world.clear();
        Some(world)
    }

    fn program(&self) -> PathBuf {
        self.scratch.path().join("program")
    }

    fn ground(&self) -> PathBuf {
        self.scratch.path().join("ground")
    }

    fn out(&self) -> PathBuf {
        self.ground().join("dist")
    }

    /// Makes the ground anew.
    fn clear(&self) {
        if self.ground().exists() {
            fs::remove_dir_all(self.ground()).unwrap();
        }
        fs::create_dir(self.ground()).unwrap();
        chown(self.ground(), Some(ANNE.id), Some(GROUP)).unwrap();
        set_mode(&self.ground(), 0o2775);
    }

    /// Has a user play a scene, with a umask.
    fn play(&self, user: User, mask: u32, scene: &str) -> Output {
        let groups: Vec<_> = user.groups.iter().map(u32::to_string).collect();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user.id.to_string(), "--regid", &user.id.to_string(), "--groups", &groups.join(",")]);
        command.arg(self.program()).args(["--exact", "scenes", "--nocapture", "--test-threads=1"]);
        command.env("TXFS_SCENE", scene).env("TXFS_GROUND", self.ground()).env("TMPDIR", self.ground());
        command.env("TXFS_MASK", mask.to_string()).env("TXFS_KILL", self.kill.to_string());
        command.current_dir("/").output().unwrap()
    }

    #[track_caller]
    fn expect(&self, user: User, mask: u32, scene: &str) {
        let output = self.play(user, mask, scene);
        let text = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{scene} of {}: {}", user.id, String::from_utf8_lossy(&text));
    }

    /// Plays a scene that is killed at every so many calls that change something, in turn, with what comes before and after it.
    fn killed_at_calls(&mut self, every: usize, before: &[&str], killed: &str, after: impl Fn(&Self, usize)) -> usize {
        for call in (1..).step_by(every) {
            self.clear();
            before.iter().for_each(|scene| self.expect(ANNE, 0o022, scene));
            self.kill = call;
            let played = self.play(ANNE, 0o077, killed);
            self.kill = 0;
            if played.status.success() {
                return call - 1;
            }
            assert_eq!(played.status.signal(), Some(6), "{}", String::from_utf8_lossy(&played.stderr));
            after(self, call);
        }
        unreachable!("a scene ends")
    }

    fn files(&self) -> Vec<(String, String)> {
        fn collect(root: &Path, dir: &Path, files: &mut Vec<(String, String)>) {
            for entry in fs::read_dir(dir).into_iter().flatten() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => collect(root, &path, files),
                    false => {
                        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                        files.push((name, fs::read_to_string(&path).unwrap()));
                    }
                }
            }
        }
        let mut files = Vec::new();
        collect(&self.out(), &self.out(), &mut files);
        files.sort();
        files
    }

    #[track_caller]
    fn assert_published(&self, generation: &[(&str, &str)]) {
        let mut expected: Vec<_> = generation.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect();
        expected.sort();
        assert_eq!(self.files(), expected);
    }
}

const ONE: &[(&str, &str)] = &[("a", "1"), ("b", "1"), ("d/e/f", "1"), ("d/g", "1"), ("gone/deep/h", "1"), ("z", "1")];

const TWO: &[(&str, &str)] = &[("a", "2"), ("b", "1"), ("d/e/f", "2"), ("d/new", "2"), ("new/deep/i", "2"), ("z", "2")];

/// What a user does; nothing where nobody asked.
#[test]
fn scenes() {
    let Ok(scene) = std::env::var("TXFS_SCENE") else { return };
    let number = |name: &str| std::env::var(name).unwrap().parse::<u32>().unwrap();
    umask(Mode::from_bits_truncate(number("TXFS_MASK")));
    let out = PathBuf::from(std::env::var_os("TXFS_GROUND").unwrap()).join("dist");
    let (calls, kill) = (Arc::new(AtomicUsize::new(0)), number("TXFS_KILL") as usize);
    let fs = Faulty::new(move |call| {
        let changes = !matches!(call, Call::Read(_) | Call::DropCached { .. });
        if changes && calls.fetch_add(1, Ordering::SeqCst) + 1 == kill {
            std::process::abort();
        }
        None
    });
    let options = OpenOptions::with(fs).shared(None);
    play(&scene, &options, &out);
}

/// What a member does.
fn play(scene: &str, options: &OpenOptions<Faulty>, out: &Path) {
    match scene {
        "one" => put(&open(options, out), ONE),
        "two" => put(&open(options, out), TWO),
        "private" => put(&Store::open_with(&OpenOptions::default(), out).unwrap(), ONE),
        "keep" => {
            let store = open(options, out);
            let transaction = store.begin(BeginOptions::default()).unwrap();
            fill(&transaction.stage(), TWO);
            transaction.keep().unwrap();
        }
        "rollback" => {
            let store = open(options, out);
            let mut transaction = store.begin(BeginOptions::default()).unwrap();
            transaction.copy_previous().unwrap();
            transaction.commit(&lenient()).unwrap();
        }
        "copy" => {
            let store = open(options, out);
            let mut transaction = store.begin(BeginOptions::default().from(txfs::Basis::Copy)).unwrap();
            transaction.write("copied", "3").unwrap();
            transaction.commit(&lenient()).unwrap();
            assert!(store.sweep().unwrap().warnings.is_empty());
        }
        "prune" => drop(open(options, out).prune(Retention::generations(0)).unwrap()),
        "recover" => {
            let store = open(options, out);
            let recovered = store.recover(RecoverOptions::default()).unwrap();
            assert!(recovered.warnings.is_empty(), "{recovered:?}");
            assert!(store.transactions().unwrap().is_empty());
            assert!(store.verify().unwrap().is_empty());
        }
        "share" => {
            let store = open(options, out).share(Some(GROUP)).unwrap();
            assert_eq!(store.shared_with(), Some(GROUP));
        }
        "unshare" => {
            let store = open(options, out).unshare().unwrap();
            assert_eq!(store.shared_with(), None);
            put(&store, TWO);
        }
        "abort" => {
            let store = open(options, out);
            for open in store.transactions().unwrap() {
                store.resume(open.id).unwrap().abort().unwrap();
            }
            assert!(store.transactions().unwrap().is_empty());
            assert!(store.sweep().unwrap().warnings.is_empty());
        }
        "commit" => {
            let store = open(options, out);
            let open = store.transactions().unwrap().pop().unwrap();
            let mut transaction = store.resume(open.id).unwrap();
            transaction.commit(&lenient()).unwrap();
        }
        scene => play_refused(scene, options, out),
    }
}

/// What is refused, and how.
fn play_refused(scene: &str, options: &OpenOptions<Faulty>, out: &Path) {
    match scene {
        "commit closed" => {
            let store = open(options, out);
            let open = store.transactions().unwrap().pop().unwrap();
            let mut transaction = store.resume(open.id).unwrap();
            let error = transaction.commit(&lenient()).unwrap_err();
            let Error::Refused { problems, .. } = &error else { panic!("{error}") };
            let [Problem::NotShared { staged: true, group: GROUP, paths }] = &problems[..] else { panic!("{error}") };
            assert!(["d", "d/secret"].contains(&&*paths.first[0].to_string()), "{error}");
        }
        "into a closed directory" => {
            let store = open(options, out);
            let error = publish(&store, &[("foreign/x", "1")]).unwrap_err();
            let Error::Refused { problems, .. } = &error else { panic!("{error}") };
            let [Problem::NotShared { staged: false, group: GROUP, paths }] = &problems[..] else { panic!("{error}") };
            assert_eq!(paths.first[0].to_string(), "foreign");
        }
        "refused" => {
            let error = Store::open_with(options, out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            println!("{error}");
        }
        "refused unless shared" => {
            let error = Store::open(out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains("`OpenOptions::shared`"), "{error}");
        }
        "refused of another group" => {
            let error = Store::open_with(&OpenOptions::default().shared(Some(61_900)), out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
        "group of others" => {
            let error = Store::open_with(&OpenOptions::default().shared(Some(GROUP)), out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
            assert!(!out.exists() && !state_of(out).exists());
        }
        other => panic!("no such scene: {other}"),
    }
}

fn open<F: Fs>(options: &OpenOptions<F>, out: &Path) -> Store<F> {
    Store::open_with(options, out).unwrap()
}

/// As a tool that knows of no group.
fn fill(stage: &Path, files: &[(&str, &str)]) {
    for (path, content) in files {
        let path = stage.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn put<F: Fs>(store: &Store<F>, files: &[(&str, &str)]) {
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    fill(&transaction.stage(), files);
    let committed = transaction.commit(&lenient()).unwrap();
    assert!(committed.warnings.is_empty() && committed.rescued.is_empty(), "{committed:?}");
    drop(transaction);
    let swept = store.sweep().unwrap();
    assert!(swept.warnings.is_empty(), "{swept:?}");
}
