//! A store that a group shares: whatever one member leaves, by whatever umask, and wherever it is killed, another goes on with.
//!
//! To be two users of a group, and one outside it, needs root: the tests run this program again as each of them; what a user does is
//! in [`scenes`].

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::faulty::{Call, Faulty};
use common::{Scratch, fast_scratch, lenient, publish, set_mode, state_of};
use nix::sys::stat::{Mode, umask};
use txfs::fs::{Fs, LinuxFs, Machine};
use txfs::{BeginOptions, Error, ErrorKind, OpenOptions, Problem, RecoverOptions, Retention, Store};

const GROUP: u32 = 62_000;
const ANNE: User = User { id: 61_001, groups: &[GROUP] };
const BERT: User = User { id: 61_002, groups: &[61_900, GROUP] };
const ROOT: User = User { id: 0, groups: &[0] };
const ROOT_OF_THE_GROUP: User = User { id: 0, groups: &[GROUP] };
const OUTSIDER: User = User { id: 61_003, groups: &[61_900] };

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
        if !common::is_root() {
            common::skip(test, "to be several users needs root");
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
    match &*scene {
        "one" => put(&open(&options, &out), ONE),
        "two" => put(&open(&options, &out), TWO),
        "private" => put(&Store::open_with(&OpenOptions::default(), &out).unwrap(), ONE),
        "keep" => {
            let store = open(&options, &out);
            let transaction = store.begin(BeginOptions::default()).unwrap();
            fill(&transaction.stage(), TWO);
            transaction.keep().unwrap();
        }
        "rollback" => {
            let store = open(&options, &out);
            let mut transaction = store.begin(BeginOptions::default()).unwrap();
            transaction.copy_previous().unwrap();
            transaction.commit(&lenient()).unwrap();
        }
        "copy" => {
            let store = open(&options, &out);
            let mut transaction = store.begin(BeginOptions::default().from(txfs::Basis::Copy)).unwrap();
            transaction.write("copied", "3").unwrap();
            transaction.commit(&lenient()).unwrap();
            assert!(store.sweep().unwrap().warnings.is_empty());
        }
        "prune" => drop(open(&options, &out).prune(Retention::generations(0)).unwrap()),
        "recover" => {
            let store = open(&options, &out);
            let recovered = store.recover(RecoverOptions::default()).unwrap();
            assert!(recovered.warnings.is_empty(), "{recovered:?}");
            assert!(store.transactions().unwrap().is_empty());
            assert!(store.verify().unwrap().is_empty());
        }
        "share" => {
            let store = open(&options, &out).share(Some(GROUP)).unwrap();
            assert_eq!(store.shared_with(), Some(GROUP));
        }
        "unshare" => {
            let store = open(&options, &out).unshare().unwrap();
            assert_eq!(store.shared_with(), None);
            put(&store, TWO);
        }
        "abort" => {
            let store = open(&options, &out);
            for open in store.transactions().unwrap() {
                store.resume(open.id).unwrap().abort().unwrap();
            }
            assert!(store.transactions().unwrap().is_empty());
            assert!(store.sweep().unwrap().warnings.is_empty());
        }
        "commit" => {
            let store = open(&options, &out);
            let open = store.transactions().unwrap().pop().unwrap();
            let mut transaction = store.resume(open.id).unwrap();
            transaction.commit(&lenient()).unwrap();
        }
        "commit closed" => {
            let store = open(&options, &out);
            let open = store.transactions().unwrap().pop().unwrap();
            let mut transaction = store.resume(open.id).unwrap();
            let error = transaction.commit(&lenient()).unwrap_err();
            let Error::Refused { problems, .. } = &error else { panic!("{error}") };
            let [Problem::NotShared { staged: true, group: GROUP, paths }] = &problems[..] else { panic!("{error}") };
            assert!(["d", "d/secret"].contains(&&*paths.first[0].to_string()), "{error}");
        }
        "into a closed directory" => {
            let store = open(&options, &out);
            let error = publish(&store, &[("foreign/x", "1")]).unwrap_err();
            let Error::Refused { problems, .. } = &error else { panic!("{error}") };
            let [Problem::NotShared { staged: false, group: GROUP, paths }] = &problems[..] else { panic!("{error}") };
            assert_eq!(paths.first[0].to_string(), "foreign");
        }
        "refused" => {
            let error = Store::open_with(&options, &out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            println!("{error}");
        }
        "refused unless shared" => {
            let error = Store::open(&out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains("`OpenOptions::shared`"), "{error}");
        }
        "refused of another group" => {
            let error = Store::open_with(&OpenOptions::default().shared(Some(61_900)), &out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
        "group of others" => {
            let error = Store::open_with(&OpenOptions::default().shared(Some(GROUP)), &out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
            assert!(!out.exists() && !state_of(&out).exists());
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

#[test]
fn members_publish_in_turn_whatever_their_umask_is() {
    let Some(world) = World::new("members publish in turn") else { return };
    for (first, second) in [(ANNE, BERT), (BERT, ANNE)] {
        world.clear();
        for mask in [0o022, 0o077, 0o002, 0o027] {
            world.expect(first, mask, "one");
            world.assert_published(ONE);
            world.expect(second, mask ^ 0o055, "two");
            world.assert_published(TWO);
        }
        world.expect(second, 0o077, "rollback");
        world.assert_published(ONE);
        world.expect(first, 0o077, "rollback");
        world.assert_published(TWO);
        world.expect(second, 0o077, "prune");
        world.expect(first, 0o077, "copy");
        world.expect(second, 0o022, "one");
        world.expect(first, 0o022, "recover");
        world.assert_published(ONE);
    }
}

#[test]
fn what_is_made_is_the_groups_and_closed_to_others() {
    fn check(path: &Path) {
        let found = fs::symlink_metadata(path).unwrap();
        // Of a stage the umask says what others may do, and of `removed`.
        let is_open = ["stage", "removed"].iter().any(|name| path.ends_with(name));
        let wanted = if found.is_dir() { 0o2770 | found.mode() & if is_open { 0o005 } else { 0 } } else { 0o660 };
        assert_eq!((found.gid(), found.mode() & 0o7777), (GROUP, wanted), "{}", path.display());
        if found.is_dir() && !path.ends_with("stage") {
            fs::read_dir(path).unwrap().for_each(|entry| check(&entry.unwrap().path()));
        }
    }
    let Some(world) = World::new("what is made is the group's") else { return };
    world.expect(ANNE, 0o022, "one");
    world.expect(BERT, 0o077, "one");
    check(&state_of(&world.out()));
    for (path, mode) in [("", 0o2775), ("d/e", 0o2775), ("a", 0o640)] {
        let found = fs::symlink_metadata(world.out().join(path)).unwrap();
        assert_eq!((found.gid(), found.mode() & 0o7777), (GROUP, mode), "{path}");
    }
}

#[test]
fn who_does_not_belong_to_the_group_or_did_not_say_so_is_refused() {
    let Some(world) = World::new("the outsider is refused") else { return };
    world.expect(OUTSIDER, 0o022, "group of others");
    world.expect(ANNE, 0o022, "one");
    world.expect(OUTSIDER, 0o022, "refused");
    world.expect(BERT, 0o022, "refused unless shared");
    world.expect(BERT, 0o022, "refused of another group");
    // Its owner chose it.
    world.expect(ANNE, 0o022, "recover");
    world.assert_published(ONE);
}

#[test]
fn a_state_that_another_user_made_look_shared_is_refused() {
    let Some(world) = World::new("hostile shared state is refused") else { return };
    let state = state_of(&world.out());
    let lay = |owner: User, group: u32, mode: u32| {
        chown(&state, Some(owner.id), Some(group)).unwrap();
        set_mode(&state, mode);
    };
    world.expect(ANNE, 0o022, "one");
    for (group, mode) in [(GROUP, 0o2777), (GROUP, 0o2775), (GROUP, 0o770), (GROUP, 0o3770), (61_900, 0o2770)] {
        lay(ANNE, group, mode);
        world.expect(BERT, 0o022, "refused");
    }
    // The group of the directory is not the one that `store` names.
    lay(OUTSIDER, GROUP, 0o2770);
    fs::write(state.join("store"), "").unwrap();
    world.expect(BERT, 0o022, "refused");
    fs::remove_file(state.join("store")).unwrap();
    world.expect(BERT, 0o022, "refused");
    // A file in it that no member can have made, and one that anybody may write to.
    world.clear();
    world.expect(ANNE, 0o022, "one");
    for (owner, group, mode) in [(OUTSIDER, OUTSIDER.id, 0o664), (OUTSIDER, GROUP, 0o666)] {
        let head = state.join("HEAD");
        chown(&head, Some(owner.id), Some(group)).unwrap();
        set_mode(&head, mode);
        world.expect(BERT, 0o022, "refused");
    }
}

#[test]
fn what_a_killed_commit_left_another_member_recovers() {
    let Some(mut world) = World::new("another member recovers") else { return };
    let calls = world.killed_at_calls(1, &["one"], "two", |world, call| {
        world.expect(BERT, 0o077, "recover");
        let is_old = world.files().contains(&("a".into(), "1".into()));
        println!("{call}: {}", if is_old { "old" } else { "new" });
        world.assert_published(if is_old { ONE } else { TWO });
        world.expect(BERT, 0o022, if is_old { "two" } else { "one" });
        world.expect(ANNE, 0o022, "two");
        world.assert_published(TWO);
    });
    println!("killed at each of {calls} calls");
    assert!(calls > 60, "{calls}");
}

#[test]
fn a_recovery_that_is_killed_too_the_first_member_finishes() {
    let Some(mut world) = World::new("a recovery that is killed") else { return };
    // In the middle of the operations, and before the commit point.
    for middle in [46, 30] {
        for call in 1.. {
            world.clear();
            world.expect(ANNE, 0o022, "one");
            world.kill = middle;
            assert_eq!(world.play(ANNE, 0o077, "two").status.signal(), Some(6));
            world.kill = call;
            let recovered = world.play(BERT, 0o077, "recover");
            world.kill = 0;
            world.expect(ANNE, 0o022, "recover");
            world.expect(BERT, 0o022, "one");
            world.assert_published(ONE);
            if recovered.status.success() {
                println!("killed at call {middle}, and recovery at each of {} calls", call - 1);
                assert!(call > 3);
                break;
            }
        }
    }
}

#[test]
fn root_uses_what_a_group_shares_only_as_its_member_or_owner() {
    let Some(world) = World::new("root in a shared store") else { return };
    world.expect(ANNE, 0o022, "one");
    world.expect(ROOT, 0o022, "refused");
    world.expect(ROOT_OF_THE_GROUP, 0o022, "refused unless shared");
    world.expect(ROOT_OF_THE_GROUP, 0o022, "two");
    world.expect(BERT, 0o022, "one");
    world.clear();
    world.expect(ROOT, 0o022, "one");
    world.expect(BERT, 0o077, "two");
    world.expect(ROOT, 0o077, "one");
    world.assert_published(ONE);
}

#[test]
fn root_gives_away_nothing_that_a_member_put_into_a_stage() {
    let Some(world) = World::new("a hard link to a secret") else { return };
    let secret = world.scratch.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    set_mode(&secret, 0o600);
    world.expect(ANNE, 0o022, "one");
    world.expect(ANNE, 0o002, "keep");
    let tx = fs::read_dir(state_of(&world.out()).join("tx")).unwrap().next().unwrap().unwrap().path();
    fs::hard_link(&secret, tx.join("stage/d/secret")).unwrap();
    world.expect(ROOT_OF_THE_GROUP, 0o022, "commit closed");
    let found = fs::metadata(&secret).unwrap();
    assert_eq!((found.gid(), found.mode() & 0o7777), (0, 0o600));
    world.assert_published(ONE);
}

#[test]
fn what_an_acl_gives_to_others_is_not_believed_nor_inherited() {
    let Some(world) = World::new("ACLs of a shared store") else { return };
    let setfacl = |args: &[&str], path: &Path| Command::new("setfacl").args(args).arg(path).status();
    if !setfacl(&["-d", "-m", "u:61003:rwx,g::r-x"], &world.ground()).is_ok_and(|set| set.success()) {
        return common::skip("ACLs of a shared store", "there is no setfacl, or no ACL");
    }
    world.expect(ANNE, 0o022, "one");
    world.expect(BERT, 0o077, "two");
    world.expect(ANNE, 0o022, "recover");
    let state = state_of(&world.out());
    assert!(setfacl(&["-m", "u:61003:rwx"], &state).unwrap().success());
    for user in [ANNE, BERT] {
        world.expect(user, 0o022, "refused");
    }
}

#[test]
fn whatever_else_is_killed_another_member_goes_on() {
    let Some(mut world) = World::new("another member goes on") else { return };
    let went_on = |world: &World, _: usize| {
        world.expect(BERT, 0o077, "recover");
        world.expect(BERT, 0o022, "two");
        world.expect(ANNE, 0o077, "one");
        world.assert_published(ONE);
    };
    for (before, killed) in [
        (&["one", "two"][..], "rollback"),
        (&["one", "two"], "prune"),
        (&["one"], "copy"),
        (&["one"], "keep"),
        (&["one", "two"], "two"),
    ] {
        let calls = world.killed_at_calls(2, before, killed, |world, call| {
            world.expect(BERT, 0o077, "abort");
            went_on(world, call);
        });
        println!("{killed}: killed at every other of {calls} calls");
        assert!(calls > 5, "{calls}");
    }
}

#[test]
fn a_store_is_shared_by_its_owner_whenever_that_is_killed() {
    let Some(mut world) = World::new("sharing is killed") else { return };
    for (before, killed) in [(&[][..], "one"), (&["private"], "share")] {
        let calls = world.killed_at_calls(2, before, killed, |world, _| {
            world.expect(ANNE, 0o022, "share");
            world.expect(BERT, 0o077, "two");
            world.expect(ANNE, 0o077, "one");
            world.assert_published(ONE);
        });
        println!("{killed}: killed at every other of {calls} calls");
        assert!(calls > 20, "{calls}");
    }
}

#[test]
fn a_store_that_is_there_is_shared_and_taken_back() {
    let Some(world) = World::new("sharing and taking back") else { return };
    // Neither the directory nor what is in it was the group's.
    chown(world.ground(), Some(ANNE.id), Some(ANNE.id)).unwrap();
    set_mode(&world.ground(), 0o755);
    world.expect(ANNE, 0o077, "private");
    world.expect(BERT, 0o022, "refused");
    world.expect(ANNE, 0o022, "share");
    world.expect(ANNE, 0o022, "recover");
    world.expect(ANNE, 0o022, "unshare");
    assert_eq!(fs::metadata(state_of(&world.out())).unwrap().mode() & 0o7777, 0o700);
    world.expect(BERT, 0o022, "refused");
    world.expect(ANNE, 0o022, "share");
    world.expect(BERT, 0o077, "one");
    world.assert_published(ONE);
    world.expect(ANNE, 0o077, "two");
    world.assert_published(TWO);
}

#[test]
fn what_another_member_staged_is_committed_or_discarded() {
    let Some(world) = World::new("what another member staged") else { return };
    world.expect(ANNE, 0o022, "one");
    // Its tool made it so that the group may write.
    world.expect(ANNE, 0o002, "keep");
    world.expect(BERT, 0o022, "commit");
    world.assert_published(TWO);
    // And so that it may not.
    world.expect(ANNE, 0o022, "keep");
    world.expect(BERT, 0o022, "commit closed");
    world.expect(BERT, 0o022, "abort");
    world.expect(BERT, 0o022, "one");
    let trash = state_of(&world.out()).join("trash");
    assert_eq!(fs::read_dir(&trash).unwrap().count(), 1, "it is its maker's");
    world.expect(ANNE, 0o022, "two");
    assert!(fs::read_dir(&trash).map_or(true, |left| left.count() == 0));
    world.assert_published(TWO);
}

#[test]
fn nothing_is_published_where_another_member_could_not_go_on() {
    let Some(world) = World::new("a closed directory of the output") else { return };
    world.expect(ANNE, 0o022, "one");
    let foreign = world.out().join("foreign");
    fs::create_dir(&foreign).unwrap();
    chown(&foreign, Some(ANNE.id), Some(ANNE.id)).unwrap();
    set_mode(&foreign, 0o755);
    world.expect(ANNE, 0o022, "into a closed directory");
    chown(&foreign, Some(ANNE.id), Some(GROUP)).unwrap();
    world.expect(ANNE, 0o022, "into a closed directory");
    world.expect(BERT, 0o022, "one");
}

/// Where there is one user, and no root.
#[test]
fn a_user_shares_with_a_group_of_his_own() {
    let scratch = Scratch::new();
    let (out, kernel) = (scratch.path().join("dist"), LinuxFs::new());
    let group = kernel.group();
    let options = OpenOptions::default().shared(Some(group));
    let store = Store::open_with(&options, &out).unwrap();
    assert_eq!(store.shared_with(), Some(group));
    publish(&store, ONE).unwrap();
    publish(&store, TWO).unwrap();
    // Whoever owns it need not say it again, and older programs are told.
    let store = Store::open(&out).unwrap();
    assert_eq!(store.shared_with(), Some(group));
    assert_eq!(fs::read(state_of(&out).join("store")).unwrap()[8], 2);
    assert!(store.verify().unwrap().is_empty());
    assert_eq!(fs::metadata(out.join("d")).unwrap().mode() & 0o2070, 0o2070);
    let store = store.unshare().unwrap();
    assert_eq!(fs::read(state_of(&out).join("store")).unwrap()[8], 1);
    publish(&store, ONE).unwrap();
    assert_eq!(Store::open(&out).unwrap().shared_with(), None);
}

#[test]
fn what_lacks_a_rename_flag_is_not_shared() {
    use txfs::fs::linux::Without;
    let scratch = Scratch::new();
    let out = scratch.path().join("dist");
    for without in
        [Without { exchange: true, ..Without::default() }, Without { no_replace: true, ..Without::default() }]
    {
        let kernel = LinuxFs::without(without);
        let group = kernel.group();
        let error = Store::open_with(&OpenOptions::with(kernel).shared(Some(group)), &out).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        assert!(!state_of(&out).exists());
    }
}
