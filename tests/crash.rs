//! Processes that are killed with SIGKILL while they commit, and many of them at once on one output.
//!
//! The tests run this program again; what the other process does is in [`child`]. `TXFS_SECONDS` makes them longer, and
//! `TXFS_SEED` repeats the choices of an earlier run.

#![allow(clippy::unwrap_used)]

use txfs_testing as common;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::generations::{self, ALWAYS};
use common::tree::snapshot;
use common::{Random, lenient, publish, state_of};
use txfs::{BeginOptions, Error, ErrorKind, OpenOptions, RecoverOptions, RecoveredCommit, Store};

/// What the processes tell their parent, in a file that survives them: one line an event, appended by one write.
struct Log(PathBuf);

impl Log {
    fn say(&self, line: &str) {
        let mut file = fs::File::options().append(true).create(true).open(&self.0).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    fn lines(&self) -> Vec<String> {
        fs::read_to_string(&self.0).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Every acknowledged generation, in order. One that was acknowledged twice was lost once.
    fn acknowledged(&self) -> Vec<u64> {
        let mut generations: Vec<u64> =
            self.lines().iter().filter_map(|line| line.strip_prefix("committed ")?.parse().ok()).collect();
        generations.sort_unstable();
        assert!(
            generations.windows(2).all(|pair| pair[0] != pair[1]),
            "two commits of one generation: {generations:?}"
        );
        generations
    }

    fn count(&self, word: &str) -> usize {
        self.lines().iter().filter(|line| line.starts_with(word)).count()
    }
}

fn spawn(role: &str, dir: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env("TXFS_CHILD", role)
        .env("TXFS_CHILD_DIR", dir)
        .env("TXFS_CHILD_SEED", seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// What the other process does; nothing where nobody asked.
#[test]
fn child() {
    let Ok(role) = std::env::var("TXFS_CHILD") else { return };
    let dir = PathBuf::from(std::env::var_os("TXFS_CHILD_DIR").unwrap());
    let seed = std::env::var("TXFS_CHILD_SEED").unwrap().parse().unwrap();
    let (out, log) = (dir.join("dist"), Log(dir.join("log")));
    let result = std::panic::catch_unwind(|| match &*role {
        "commit" => commit_for_ever(&out, &log),
        "race" => race_for_ever(&out, &log, seed),
        other => panic!("no such role: {other}"),
    });
    if result.is_err() {
        log.say("bad: a panic");
    }
}

fn commit_for_ever(out: &Path, log: &Log) {
    let store = Store::open(out).unwrap();
    loop {
        let mut transaction = store.begin(BeginOptions::default()).unwrap();
        let generation = transaction.base() + 1;
        generations::stage(&mut transaction, generation, true).unwrap();
        let committed = transaction.commit(&lenient()).unwrap();
        assert_eq!(committed.generation, generation);
        log.say(&format!("committed {generation}"));
        committed.warnings.iter().for_each(|warning| log.say(&format!("bad: {warning}")));
        committed.rescued.iter().for_each(|path| log.say(&format!("bad: rescued {}", path.display())));
    }
}

fn race_for_ever(out: &Path, log: &Log, seed: u64) {
    let mut random = Random::new(seed);
    let options = OpenOptions::default().lock_timeout(Duration::from_secs(30));
    loop {
        match race_once(out, log, &options, &mut random) {
            Ok(()) => {}
            Err(Error::BaseMoved { .. }) => log.say("base-moved"),
            Err(error) if error.kind() == ErrorKind::Busy => log.say("busy"),
            Err(error) => log.say(&format!("bad: {error}")),
        }
    }
}

fn race_once(out: &Path, log: &Log, options: &OpenOptions, random: &mut Random) -> txfs::Result<()> {
    let store = Store::open_with(&options.clone().recover(false), out)?;
    match random.below(12) {
        0 | 1 => {
            let recovered = store.recover(RecoverOptions::default())?;
            if let Some(RecoveredCommit::RolledBack { generation }) = recovered.commit {
                log.say(&format!("bad: rolled back {generation}"));
            }
            if recovered.commit.is_some() {
                log.say("recovered");
            }
        }
        2 => drop(store.transactions()?),
        3 => drop(store.begin(BeginOptions::default())?),
        4 => {
            let mut transaction = store.begin(BeginOptions::default().detached(true))?;
            transaction.write("x", "x")?;
            let id = transaction.id();
            drop(transaction);
            // Nobody may take it away, whoever recovers meanwhile.
            let transaction = store.resume(id)?;
            assert_eq!(fs::read(transaction.stage().join("x")).unwrap(), b"x");
            transaction.abort()?;
            log.say("resumed");
        }
        _ => {
            let mut transaction = store.begin(BeginOptions::default())?;
            let generation = transaction.base() + 1;
            generations::stage(&mut transaction, generation, true)?;
            let committed = transaction.commit(&lenient())?;
            assert_eq!(committed.generation, generation);
            log.say(&format!("committed {generation}"));
            committed.warnings.iter().for_each(|warning| log.say(&format!("bad: {warning}")));
        }
    }
    Ok(())
}

/// Readers that poll for as long as `work` goes on.
fn while_reading(out: &Path, work: impl FnOnce()) -> u64 {
    /// Stops the readers also when `work` panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let (stop, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut last = Default::default();
            while !stop.load(Ordering::Relaxed) {
                generations::look_around(out, &mut last);
                looks.fetch_add(ALWAYS.len() as u64, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        let _stop = Stop(&stop);
        work();
    });
    looks.into_inner()
}

fn commit_next(store: &Store, log: &Log) {
    let mut transaction = store.begin(BeginOptions::default()).unwrap();
    let generation = transaction.base() + 1;
    generations::stage(&mut transaction, generation, true).unwrap();
    transaction.commit(&lenient()).unwrap();
    log.say(&format!("committed {generation}"));
}

#[test]
fn a_killed_commit_leaves_a_whole_generation() {
    let dir = common::Scratch::new();
    let (out, log) = (dir.path().join("dist"), Log(dir.path().join("log")));
    let mut random = Random::new(common::seed());
    let until = Instant::now() + Duration::from_secs(common::seconds(5));
    commit_next(&Store::open(&out).unwrap(), &log);
    let mut kills = 0;
    let mut actions = BTreeMap::<String, usize>::new();
    let mut hit = false;
    let looks = while_reading(&out, || {
        while Instant::now() < until || !hit && Instant::now() < until + Duration::from_secs(60) {
            let mut process = spawn("commit", dir.path(), 0);
            std::thread::sleep(Duration::from_micros(5_000 + random.below(60_000)));
            process.kill().unwrap();
            process.wait().unwrap();
            kills += 1;
            let acknowledged = log.acknowledged().last().copied().unwrap();
            let store = Store::open_with(&OpenOptions::default().recover(false), &out).unwrap();
            let recovered = store.recover(RecoverOptions::default()).unwrap();
            assert!(recovered.rescued.is_empty() && recovered.warnings.is_empty(), "{recovered:?}");
            let what = recovered.commit.map_or("nothing".into(), |commit| format!("{commit:?}"));
            let what = what.split_whitespace().next().unwrap();
            // What is only settled was done before the kill.
            hit |= !["nothing", "Settled"].contains(&what);
            *actions.entry(what.to_owned()).or_default() += 1;
            let current = store.head().unwrap().unwrap().info.generation;
            // The kill may have come between the commit and its line in the log.
            assert!([acknowledged, acknowledged + 1].contains(&current), "{acknowledged} was lost: {current}");
            assert_eq!(snapshot(&out), generations::expected(current, true));
            assert!(store.recover(RecoverOptions::default()).unwrap().is_nothing());
            if current > acknowledged {
                log.say(&format!("committed {current}"));
            }
            if kills % 8 == 0 {
                commit_next(&store, &log);
            }
        }
    });
    let commits = log.acknowledged().len();
    println!("{kills} kills, {commits} commits, {looks} looks; recovery did {actions:?}");
    assert!(looks > 0, "nobody read");
    assert!(hit, "no kill hit a commit: {actions:?}");
    let bad: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("bad")).collect();
    assert!(bad.is_empty(), "{bad:?}");
    let left = fs::read_dir(state_of(&out).join("tx")).unwrap().count();
    assert_eq!(left, 0, "transactions of dead processes are left");
}

#[test]
fn many_processes_on_one_output_lose_nothing() {
    const PROCESSES: u64 = 4;
    let dir = common::Scratch::new();
    let (out, log) = (dir.path().join("dist"), Log(dir.path().join("log")));
    let mut random = Random::new(common::seed());
    let until = Instant::now() + Duration::from_secs(common::seconds(6));
    commit_next(&Store::open(&out).unwrap(), &log);
    let mut kills = 0;
    let looks = while_reading(&out, || {
        let mut processes: Vec<Child> = (0..PROCESSES).map(|seed| spawn("race", dir.path(), seed)).collect();
        while Instant::now() < until && log.count("bad") == 0 {
            std::thread::sleep(Duration::from_millis(20 + random.below(150)));
            let victim = &mut processes[random.below(PROCESSES) as usize];
            victim.kill().unwrap();
            victim.wait().unwrap();
            kills += 1;
            *victim = spawn("race", dir.path(), 1000 + kills);
        }
        for mut process in processes {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    });
    let bad: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("bad")).collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert!(looks > 0, "nobody read");
    let acknowledged = log.acknowledged();
    let store = Store::open(&out).unwrap();
    let current = store.head().unwrap().unwrap().info.generation;
    assert!(current >= *acknowledged.last().unwrap());
    assert!(current - acknowledged.len() as u64 <= kills + PROCESSES, "only a kill keeps a commit from being told");
    assert_eq!(snapshot(&out), generations::expected(current, true));
    println!(
        "{} commits told of {current}, {kills} kills, {} recoveries, {} times the base had moved, {} resumed, {} busy, {looks} looks",
        acknowledged.len(),
        log.count("recovered"),
        log.count("base-moved"),
        log.count("resumed"),
        log.count("busy"),
    );
    // Detached transactions of killed processes are kept until the machine restarts; everything else is gone.
    for transaction in store.transactions().unwrap() {
        assert!(!transaction.live);
        store.resume(transaction.id).unwrap().abort().unwrap();
    }
    assert_eq!(fs::read_dir(state_of(&out).join("tx")).unwrap().count(), 0);
    publish(&store, &[("done", "d")]).unwrap();
}

/// Processes that find no store race to make it.
#[test]
fn many_processes_make_one_store() {
    for seed in 0..5 {
        let dir = common::fast_scratch();
        let log = Log(dir.path().join("log"));
        let mut processes: Vec<Child> = (0..4).map(|i| spawn("race", dir.path(), seed * 10 + i)).collect();
        let started = Instant::now();
        while log.count("committed") < 4 && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(5));
        }
        for process in &mut processes {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        let bad: Vec<_> = log.lines().into_iter().filter(|line| line.starts_with("bad")).collect();
        assert!(bad.is_empty(), "{bad:?}");
        assert!(log.acknowledged().len() >= 4);
    }
}
