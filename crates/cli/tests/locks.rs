//! Locks between processes, what the command says of them, and `--wait`.
#![allow(clippy::unwrap_used, reason = "the helpers of a test may fail it")]

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fs2::FileExt;
use txfs::{BeginOptions, OpenOptions, RecoverOptions, Store};
use txfs_testing::Scratch;

struct Project(Scratch);

impl Project {
    fn new() -> Self {
        Self(Scratch::new())
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_txfs"));
        command.args(args).current_dir(self.0.path()).stdin(Stdio::null()).env_remove("TXFS_STAGE");
        command
    }

    fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    #[track_caller]
    fn txfs(&self, args: &[&str], code: i32) -> Output {
        expect(self.start(args), code)
    }

    /// Begins a build that says so, and ends when it is let.
    fn build(&self, args: &[&str], content: &str) -> Child {
        let script = format!(
            "echo {content} >> order; touch began-{content}; until test -e go-{content} || ! test -e order; do sleep 0.01; done; \
             echo {content} > \"$TXFS_STAGE/a\""
        );
        self.start(&[&["run", "dist"], args, &["--", "sh", "-c", &script]].concat())
    }

    fn let_go(&self, content: &str) {
        fs::write(self.at(&format!("go-{content}")), "").unwrap();
    }

    fn wait_for(&self, path: &str) {
        wait_until(path, || self.at(path).exists());
    }

    fn waiting(&self) -> usize {
        fs::read_dir(self.at(".dist.txfs/queue")).map_or(0, Iterator::count)
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn expect(child: Child, code: i32) -> Output {
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    output
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The kernel ends a process' record lock with the close of any descriptor of the file.
#[test]
fn a_program_that_reads_the_lock_files_keeps_its_locks() {
    let project = Project::new();
    let store = Store::open(project.at("dist")).unwrap();
    let transaction = store.begin(BeginOptions::default()).unwrap();
    fs::read(transaction.stage().with_file_name("lock")).unwrap();
    fs::read(store.state().join("lock")).unwrap();
    let other = project.txfs(&["recover", "dist"], 0);
    assert!(other.stderr.is_empty(), "{other:?}");
    assert!(transaction.stage().is_dir(), "another process took a live transaction for dead");
}

#[test]
fn who_waits_for_a_lock_says_for_whom_if_anybody_wants_to_know() {
    let project = Project::new();
    project.txfs(&["run", "dist", "--", "sh", "-c", "echo 1 > $TXFS_STAGE/a"], 0);
    let held = fs::File::open(project.at(".dist.txfs/lock")).unwrap();
    held.lock_exclusive().unwrap();
    let waits = |said: &str| said.contains(&format!("waiting for process {} (`", std::process::id()));
    for (flag, says) in [("-v", true), ("-q", false), ("--color=never", false)] {
        let busy = said(&project.txfs(&[flag, "--lock-timeout=1.5", "begin", "dist"], 3));
        assert_eq!(waits(&busy), says, "{flag}: {busy}");
        assert!(busy.contains(&format!("is held by process {} (`", std::process::id())), "{busy}");
    }
}

#[test]
fn recovery_says_that_another_process_is_at_work() {
    let project = Project::new();
    let out = project.at("dist");
    project.txfs(&["run", "dist", "--", "sh", "-c", "echo 1 > $TXFS_STAGE/a"], 0);
    project.txfs(&["recover", "dist"], 0);
    // As while it is inside barrier 1.
    let held = fs::File::open(project.at(".dist.txfs/lock")).unwrap();
    held.lock_exclusive().unwrap();
    fs::write(project.at(".dist.txfs/journal.new"), "").unwrap();
    let store = Store::open_with(&OpenOptions::default().lock_timeout(Duration::ZERO).recover(false), &out).unwrap();
    for recovered in [
        store.recover(RecoverOptions::default()),
        store.recover(RecoverOptions::default().undo(true)),
        store.recover(RecoverOptions::default().skip_unknown(true)),
    ] {
        assert_eq!(recovered.unwrap_err().kind(), txfs::ErrorKind::Busy);
    }
    assert!(store.recover(RecoverOptions::default().unless_busy(true)).unwrap().is_nothing());
    project.txfs(&["--lock-timeout=0", "recover", "dist"], 3);
    project.txfs(&["--lock-timeout=0", "verify", "dist"], 0);
    drop(held);
    project.txfs(&["recover", "dist"], 0);
}

#[test]
fn a_lock_file_that_is_replaced_again_and_again_is_waited_for_no_longer_than_was_said() {
    let project = Project::new();
    let store = Store::open_with(&OpenOptions::default().lock_timeout(Duration::from_millis(50)), project.at("dist"));
    let (store, lock) = (store.unwrap(), project.at(".dist.txfs/lock"));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                fs::write(project.at(".dist.txfs/lock.other"), "").unwrap();
                fs::rename(project.at(".dist.txfs/lock.other"), &lock).unwrap();
            }
        });
        // Whether it gets it is chance.
        let begun = Instant::now();
        for _ in 0..20 {
            drop(store.begin(BeginOptions::default()));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(begun.elapsed() < Duration::from_secs(60));
    });
}

#[test]
fn a_build_that_waits_is_the_later_one_and_wins() {
    let project = Project::new();
    // Whether the first waits does not matter.
    let old = project.build(&[], "old");
    project.wait_for("began-old");
    let new = project.build(&["--wait"], "new");
    wait_until("the queue", || project.waiting() == 1);
    let newest = project.build(&["--wait=600"], "newest");
    wait_until("the queue", || project.waiting() == 2);
    assert_eq!(fs::read_to_string(project.at("order")).unwrap(), "old\n");
    ["new", "newest", "old"].iter().for_each(|content| project.let_go(content));
    let id = old.id();
    expect(old, 0);
    let new = said(&expect(new, 0));
    assert!(
        new.contains(&format!("waiting for another build of {}: process {id} (`", project.at("dist").display())),
        "{new}"
    );
    expect(newest, 0);
    assert_eq!(fs::read_to_string(project.at("order")).unwrap(), "old\nnew\nnewest\n", "in the order of coming");
    assert_eq!(fs::read_to_string(project.at("dist/a")).unwrap(), "newest\n");
    assert_eq!(project.waiting(), 0);
}

#[test]
fn a_build_waits_no_longer_than_was_said_and_not_after_a_signal() {
    let project = Project::new();
    let first = project.build(&[], "first");
    project.wait_for("began-first");
    fs::create_dir(project.at("src")).unwrap();
    for args in [
        &["run", "dist", "--wait=0.2", "--", "true"][..],
        &["begin", "dist", "--wait=0"],
        &["publish", "dist", "src", "--wait=0.2"],
    ] {
        let busy = said(&project.txfs(args, 3));
        assert!(busy.contains("error: still waiting for another build of"), "{busy}");
    }
    assert!(said(&project.txfs(&["-q", "begin", "dist", "--wait=0.1"], 3)).starts_with("error: "));
    let waits = project.start(&["begin", "dist", "--wait"]);
    wait_until("the queue", || project.waiting() == 1);
    Command::new("kill").arg(waits.id().to_string()).status().unwrap();
    assert!(said(&expect(waits, 143)).contains("stopped by signal 15: nothing was changed"));
    assert_eq!(project.waiting(), 0);
    project.let_go("first");
    expect(first, 0);
}

#[test]
fn nobody_waits_for_the_dead() {
    let project = Project::new();
    let mut first = project.build(&[], "first");
    project.wait_for("began-first");
    let mut waits = project.build(&["--wait"], "waits");
    wait_until("the queue", || project.waiting() == 1);
    let last = project.build(&["--wait"], "last");
    wait_until("the queue", || project.waiting() == 2);
    // What it leaves in the queue is nobody's.
    waits.kill().unwrap();
    waits.wait().unwrap();
    project.let_go("last");
    assert!(!project.at("began-last").exists());
    first.kill().unwrap();
    first.wait().unwrap();
    let last = expect(last, 0);
    assert_eq!(fs::read_to_string(project.at("dist/a")).unwrap(), "last\n", "{last:?}");
    project.let_go("first");
}

#[test]
fn a_queue_in_which_some_are_killed_while_they_wait_or_build_goes_on_in_order() {
    let project = Project::new();
    let mut first = project.build(&[], "0");
    project.wait_for("began-0");
    let mut queue: Vec<Option<Child>> = Vec::new();
    for number in 1..=7 {
        queue.push(Some(project.build(&["--wait"], &number.to_string())));
        wait_until("its place", || project.waiting() == number);
    }
    let mut kill = |number: usize| {
        let mut child = queue[number - 1].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    };
    // In the middle of the queue, and at its end.
    [2, 5, 7].into_iter().for_each(&mut kill);
    let last = project.build(&["--wait"], "8");
    // What comes takes away what the dead left.
    wait_until("its place", || project.waiting() == 5);
    first.kill().unwrap();
    first.wait().unwrap();
    for number in [1, 3, 4, 6] {
        project.wait_for(&format!("began-{number}"));
        match number {
            1 | 4 => kill(number),
            _ => {
                project.let_go(&number.to_string());
                wait_until("its commit", || {
                    fs::read_to_string(project.at("dist/a")).is_ok_and(|built| built == format!("{number}\n"))
                });
            }
        }
    }
    project.let_go("8");
    expect(last, 0);
    for child in queue.into_iter().flatten() {
        expect(child, 0);
    }
    assert_eq!(fs::read_to_string(project.at("order")).unwrap(), "0\n1\n3\n4\n6\n8\n");
    assert_eq!(fs::read_to_string(project.at("dist/a")).unwrap(), "8\n");
    assert_eq!((project.waiting(), fs::read_dir(project.at(".dist.txfs/tx")).unwrap().count()), (0, 0));
    // What the killed ones had started.
    (0..=8).for_each(|number| project.let_go(&number.to_string()));
}

#[test]
fn what_was_begun_with_wait_is_waited_for_until_it_is_committed_or_aborted() {
    let project = Project::new();
    let begin = |args: &[&str]| {
        let output = project.txfs(&[&["begin", "dist"], args].concat(), 0);
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let held_up = |by: &str| {
        let busy = said(&project.txfs(&["begin", "dist", "--wait=0.1"], 3));
        assert!(busy.contains(&format!("`txfs abort {by}` ends it")), "{busy}");
    };
    // Nobody knows of what was begun otherwise whether it will ever be committed.
    let forgotten = begin(&[]);
    let first = begin(&["--wait"]);
    held_up(&first);
    project.txfs(&["abort", &first], 0);
    let second = begin(&["--wait=1"]);
    held_up(&second);
    fs::File::create(project.at("x")).unwrap().write_all(b"x").unwrap();
    fs::copy(project.at("x"), format!("{second}/a")).unwrap();
    project.txfs(&["commit", &second], 0);
    // It cannot be committed once another was.
    let overtaken = begin(&["--wait"]);
    project.txfs(&["run", "dist", "--", "sh", "-c", "echo 3 > $TXFS_STAGE/a"], 0);
    project.txfs(&["abort", &begin(&["--wait=1"])], 0);
    for stage in [forgotten, overtaken] {
        project.txfs(&["abort", &stage], 0);
    }
}

#[test]
fn a_build_does_not_wait_for_itself() {
    let project = Project::new();
    let script = format!("exec {} run --wait dist -- true", env!("CARGO_BIN_EXE_txfs"));
    let refused = said(&project.txfs(&["run", "dist", "--stage", "--", "sh", "-c", &script], 125));
    assert!(refused.contains("--wait would wait for the build that runs this command"), "{refused}");
}
