//! Whatever another process removes, or puts something in the place of, while a commit is made: a command that the error names gets the
//! store going again, and loses nothing.

use std::path::{Path, PathBuf};

use txfs::{BeginOptions, CommitOptions, Error, Outcome, RecoverOptions, Recovered, Store, Transaction};

use crate::explore::oracle::failed;
use crate::explore::tally::{Checked, Violation};
use crate::explore::world::{OUTPUT, World};
use crate::{Config, Fault, SimFs, Stranger, Weakness, Without};

/// What is published, what is to be, and what is foreign: no content twice.
const OLD: [(&str, &str); 6] =
    [("a", "a 1"), ("d/x", "x 1"), ("d/y", "y 1"), ("e/z", "z 1"), ("f/w", "w 1"), ("z.html", "h 1")];

const NEW: [(&str, &str); 6] =
    [("a", "a 2"), ("d/n", "n 2"), ("d/x", "x 2"), ("g/new", "g 2"), ("f/w", "w 2"), ("z.html", "h 2")];

const FOREIGN: (&str, &str) = ("d/foreign", "foreign");

/// What may be touched.
const VICTIMS: [Victim; 7] = [
    Victim::Output(""),
    Victim::Output("d"),
    Victim::Output("f"),
    Victim::Transaction(""),
    Victim::Transaction("stage"),
    Victim::Transaction("stage/d"),
    Victim::Transaction("removed"),
];

#[derive(Debug, Clone, Copy)]
enum Victim {
    Output(&'static str),
    Transaction(&'static str),
}

/// How a store is recovered: what is tried first.
const FIRST: [Manner; 4] = [
    Manner { undo: false, skip: false },
    Manner { undo: false, skip: true },
    Manner { undo: true, skip: false },
    Manner { undo: true, skip: true },
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Manner {
    undo: bool,
    skip: bool,
}

impl Manner {
    fn recover(self, store: &Store<SimFs>) -> txfs::Result<Recovered> {
        store.recover(RecoverOptions::default().undo(self.undo).skip_unknown(self.skip))
    }
}

/// A world in which the first generation is published, and a transaction is open whose stage is full.
struct Ground {
    fs: SimFs,
}

impl Ground {
    fn new(weakness: Weakness, without: Without) -> Checked<Self> {
        let fs = SimFs::new(Config { without, uid: 1000, max_calls: 100_000, ..Config::new(weakness) });
        fs.put_dir("/w", 0o777);
        let ground = Self { fs };
        let store = ground.open()?;
        let begun = store.begin(BeginOptions::default());
        let mut transaction = begun.map_err(|error| failed("begin", &error))?;
        write(&mut transaction, &OLD)?;
        transaction.commit(&options()).map_err(|error| failed("the first commit", &error))?;
        store.sweep().map_err(|error| failed("sweeping", &error))?;
        ground.fs.put_file(format!("{OUTPUT}/{}", FOREIGN.0), FOREIGN.1.as_bytes(), 0o644);
        Ok(ground)
    }

    fn open(&self) -> Checked<Store<SimFs>> {
        Store::open_with(&World::options(&self.fs), OUTPUT).map_err(|error| failed("opening", &error))
    }
}

fn options() -> CommitOptions<'static> {
    let mut options = World::commit_options();
    (options.adopt, options.allow_drift) = (true, true);
    options
}

fn write(transaction: &mut Transaction<SimFs>, files: &[(&str, &str)]) -> Checked {
    let mut files = files.iter();
    files.try_for_each(|(path, content)| transaction.write(path, content)).map_err(|error| failed("writing", &error))
}

/// Whether nothing of what was published, or foreign, is gone: what another process has taken is not looked for.
fn nothing_is_lost(fs: &SimFs, taken: &[Vec<u8>], also_new: bool) -> Result<(), String> {
    let tree = fs.tree("/w");
    let is_there = |content: &[u8]| tree.values().any(|entry| entry.content() == content);
    let old = OLD.iter().chain([&FOREIGN]);
    let mut wanted = old.chain(NEW.iter().filter(|_| also_new)).map(|(_, content)| content.as_bytes());
    match wanted.find(|content| !is_there(content) && !taken.iter().any(|taken| taken == content)) {
        Some(lost) => Err(format!("{:?} is nowhere", String::from_utf8_lossy(lost))),
        None => Ok(()),
    }
}

/// What the user does whom the error tells what to do.
fn ways_out(fs: &SimFs, first: Manner) -> Checked<Vec<String>> {
    let mut told = Vec::new();
    let mut manner = first;
    for _ in 0..4 {
        let store = match Store::open_with(&World::options(fs).recover(false), OUTPUT) {
            Ok(store) => store,
            Err(error) if in_the_way(&error) => {
                told.push(error.to_string());
                fs.remove(OUTPUT);
                continue;
            }
            Err(error @ Error::Io { .. }) => {
                told.push(error.to_string());
                make_accessible(fs);
                continue;
            }
            Err(error) => return Err(failed("opening", &error)),
        };
        match manner.recover(&store) {
            Ok(recovered) => {
                told.push(format!("{manner:?}: {recovered:?}"));
                return Ok(told);
            }
            Err(error) => {
                told.push(format!("{manner:?}: {error}"));
                if in_the_way(&error) {
                    // "It is not a directory": the user moves it away.
                    fs.remove(OUTPUT);
                    continue;
                }
                let hint = error.hint().unwrap_or_default();
                let (_, cause) = error.into_parts();
                match cause {
                    // "Move it away", the message says, and where it is.
                    Error::Untrusted { path, .. } => fs.remove(path),
                    Error::Unrecognized { .. } if !manner.skip && hint.contains("RecoverOptions::skip_unknown") => {
                        manner.skip = true
                    }
                    // What may not be read or written to the user makes accessible.
                    Error::Unfinished { .. } | Error::OutcomeUnknown { .. } => make_accessible(fs),
                    cause => return Err(Violation::new("there is a way out", format!("{told:?}: {cause:?}"))),
                }
            }
        }
    }
    Err(Violation::new("there is a way out", format!("{told:?}")))
}

/// The user gives back what access another process took, wherever that is now.
fn make_accessible(fs: &SimFs) {
    for (path, entry) in fs.tree("/w") {
        if entry.kind == Some(txfs::Kind::Directory) && entry.mode == 0 {
            fs.put_mode(path.under(Path::new("/w")), 0o755);
        }
    }
}

fn in_the_way(error: &Error) -> bool {
    matches!(error, Error::NotAnOutput { .. })
}

/// At whichever call of a commit another process takes a directory away.
pub(super) fn what_somebody_removes_in_the_middle_leaves_a_way_out_that_loses_nothing() -> Checked {
    let mut seen = Seen::default();
    let stranger = |n: u64| match n % 4 {
        0 => Stranger::Removes,
        1 => Stranger::PutsFile(b"a stranger's".to_vec()),
        2 => Stranger::PutsLink(b"/w/outside".to_vec()),
        _ => Stranger::SetsMode(0),
    };
    let lacking = Without { exchange: true, ..Without::default() };
    let grounds = [(Weakness::Btrfs, Without::default()), (Weakness::Posix, lacking)];
    for (weakness, without) in grounds {
        for (index, victim) in VICTIMS.into_iter().enumerate() {
            for which in 0..4 {
                let ground = Ground::new(weakness, without)?;
                let step = 1 + u64::from(cfg!(debug_assertions)) * 2;
                for n in (1..).step_by(step as usize) {
                    let first = FIRST[(n as usize + index) % 4];
                    let went_on = once(&ground.fs.fork(), victim, stranger(which), n, first, &mut seen);
                    let went_on = went_on.map_err(|violation| {
                        violation.after(format!(
                            "{weakness:?} {without:?}: right before call {n} of a commit {victim:?} met {:?}; then {first:?}",
                            stranger(which)
                        ))
                    })?;
                    if !went_on {
                        break;
                    }
                }
            }
        }
    }
    seen.check()
}

#[derive(Debug, Default)]
struct Seen {
    committed: u64,
    unchanged: u64,
    unknown: u64,
    skipped: u64,
    rescued: u64,
}

impl Seen {
    fn check(&self) -> Checked {
        let all = [self.committed, self.unchanged, self.unknown, self.skipped, self.rescued];
        match all.iter().all(|seen| *seen > 5) {
            true => Ok(()),
            false => Err(Violation::new("guard", format!("little was seen: {self:?}"))),
        }
    }
}

/// One commit that is disturbed, and what comes after it; `false` when it had ended before.
fn once(fs: &SimFs, victim: Victim, stranger: Stranger, n: u64, first: Manner, seen: &mut Seen) -> Checked<bool> {
    let store = Store::open_with(&World::options(fs), OUTPUT).map_err(|error| failed("opening", &error))?;
    let begun = store.begin(BeginOptions::default().detached(true));
    let mut transaction = begun.map_err(|error| failed("begin", &error))?;
    write(&mut transaction, &NEW)?;
    fs.settle();
    let directory = transaction.stage().parent().map(Path::to_path_buf).unwrap_or_default();
    let at: PathBuf = match victim {
        Victim::Output(path) => Path::new(OUTPUT).join(path),
        Victim::Transaction(path) => directory.join(path),
    };
    let before = fs.calls();
    fs.stranger_at(before + n, &at, stranger.clone());
    let result = transaction.commit(&options());
    let (open, ended) = (transaction.is_open(), fs.calls());
    drop(transaction);
    drop(store);
    if before + n > ended {
        return Ok(false);
    }
    let taken = fs.taken();
    let lost = |what: String| Violation::new("nothing is lost", what);
    match &result {
        Ok(_) => seen.committed += 1,
        Err(error) if error.outcome() == Outcome::Unchanged => {
            seen.unchanged += 1;
            is_old(fs, &taken, &at)
                .map_err(|what| Violation::new("unchanged means unchanged", format!("{error}: {what}")))?;
        }
        Err(_) => seen.unknown += 1,
    }
    if fs.entry(OUTPUT).is_some_and(|entry| entry.kind == Some(txfs::Kind::Symlink)) {
        // It leads to another output: the user removes the link.
        fs.remove(OUTPUT);
    }
    let told = ways_out(fs, first).map_err(|v| v.after(format!("the commit said {result:?}")))?;
    seen.skipped += u64::from(told.iter().any(|told| told.contains("skipped: Paths { first: [\"")));
    seen.rescued += u64::from(told.iter().any(|told| told.contains("rescued: [\"")));
    // What the failed commit staged is there still, in the open transaction or where it was moved to.
    let kept = open || result.as_ref().is_err_and(|error| error.outcome() == Outcome::Unknown);
    nothing_is_lost(fs, &taken, kept).map_err(|what| lost(format!("{what}, after {result:?}; {told:?}")))?;
    if at.starts_with(OUTPUT) && fs.entry(&at).is_some_and(|entry| entry.kind != Some(txfs::Kind::Directory)) {
        fs.remove(&at);
    }
    make_accessible(fs);
    next_commit(fs).map_err(|v| v.after(format!("the commit said {result:?}; {told:?}")))?;
    Ok(true)
}

/// Everything published is as it was, but for what another process took.
fn is_old(fs: &SimFs, taken: &[Vec<u8>], victim: &Path) -> Result<(), String> {
    for (path, content) in OLD {
        let at = Path::new(OUTPUT).join(path);
        let found = fs.entry(&at);
        let is_taken = at.starts_with(victim) && taken.iter().any(|taken| taken == content.as_bytes());
        if !is_taken && found.as_ref().is_none_or(|found| found.content() != content.as_bytes()) {
            return Err(format!("{path} is {found:?}"));
        }
    }
    for (path, _) in NEW.iter().filter(|(path, _)| !OLD.iter().any(|(old, _)| old == path)) {
        if fs.entry(Path::new(OUTPUT).join(path)).is_some() {
            return Err(format!("{path} is there"));
        }
    }
    Ok(())
}

fn next_commit(fs: &SimFs) -> Checked {
    let store = Store::open_with(&World::options(fs), OUTPUT).map_err(|error| failed("opening again", &error))?;
    let begun = store.begin(BeginOptions::default());
    let mut transaction = begun.map_err(|error| failed("the next begin", &error))?;
    write(&mut transaction, &NEW)?;
    let committed = transaction.commit(&options()).map_err(|error| failed("the next commit", &error))?;
    if !committed.warnings.is_empty() {
        return Err(Violation::new("the next commit works", format!("{committed:?}")));
    }
    for (path, content) in NEW {
        let found = fs.entry(Path::new(OUTPUT).join(path));
        if found.as_ref().is_none_or(|found| found.content() != content.as_bytes()) {
            return Err(Violation::new("the next commit works", format!("{path} is {found:?}")));
        }
    }
    Ok(())
}

/// At whichever call of a commit another process takes away what was displaced, and the call fails: what cannot be undone any more is
/// never said to be, and the next recovery goes forward by itself.
pub(super) fn a_commit_whose_displaced_entry_is_gone_goes_forward() -> Checked {
    let mut forward = 0;
    for n in 1.. {
        let ground = Ground::new(Weakness::Btrfs, Without::default())?;
        let (fs, store) = (&ground.fs, ground.open()?);
        let begun = store.begin(BeginOptions::default().detached(true));
        let mut transaction = begun.map_err(|error| failed("begin", &error))?;
        write(&mut transaction, &NEW)?;
        fs.settle();
        let call = fs.calls() + n;
        fs.stranger_at(call, transaction.stage().join("a"), Stranger::Removes);
        fs.fail_at(call, Fault::new(nix::errno::Errno::EIO as i32));
        let result = transaction.commit(&options());
        if call > fs.calls() {
            break;
        }
        drop(transaction);
        drop(store);
        let was_displaced = fs.taken().iter().any(|taken| taken == b"a 1");
        if let (true, Err(error)) = (was_displaced, result) {
            let told = || format!("call {n}: {error}");
            if error.outcome() != Outcome::Unknown {
                return Err(Violation::new("unchanged means unchanged", told()));
            }
            ground.open().map_err(|v| v.after(told()))?;
            let found = NEW.iter().all(|(path, content)| {
                fs.entry(Path::new(OUTPUT).join(path)).is_some_and(|entry| entry.content() == content.as_bytes())
            });
            if !found {
                return Err(Violation::new("what cannot go back goes forward", told()));
            }
            forward += 1;
        }
    }
    match forward > 5 {
        true => Ok(()),
        false => Err(Violation::new("guard", format!("{forward} went forward"))),
    }
}

/// After a power cut at any call of the way out, the same command, or the one that the error names, goes on.
pub(super) fn a_way_out_that_is_interrupted_is_taken_again() -> Checked {
    let ways = [Victim::Transaction("stage/d"), Victim::Output("d"), Victim::Output("")];
    let mut states = 0;
    for (victim, first) in ways.into_iter().flat_map(|victim| [FIRST[1], FIRST[3]].map(|first| (victim, first))) {
        for weakness in [Weakness::Ordered, Weakness::Btrfs, Weakness::Posix] {
            let (fs, gone) = in_the_middle(weakness, victim)?;
            fs.record_crash_points();
            ways_out(&fs, first)?;
            for point in fs.crash_points() {
                for state in point.states(24) {
                    states += 1;
                    let told = ways_out(&state, first).map_err(|v| v.after(state.describe()))?;
                    nothing_is_lost(&state, &gone, false).map_err(|what| {
                        Violation::new("nothing is lost", format!("{what}: {told:?}")).after(state.describe())
                    })?;
                    next_commit(&state).map_err(|v| v.after(format!("{victim:?} {told:?}\n{}", state.describe())))?;
                }
            }
        }
    }
    match states > 500 {
        true => Ok(()),
        false => Err(Violation::new("guard", format!("{states} states"))),
    }
}

/// A store whose process was killed between two operations, and from which a directory was removed then, durably.
fn in_the_middle(weakness: Weakness, victim: Victim) -> Checked<(SimFs, Vec<Vec<u8>>)> {
    let ground = Ground::new(weakness, Without::default())?;
    let (fs, store) = (&ground.fs, ground.open()?);
    let begun = store.begin(BeginOptions::default().detached(true));
    let mut transaction = begun.map_err(|error| failed("begin", &error))?;
    write(&mut transaction, &NEW)?;
    let directory = transaction.stage().parent().map(Path::to_path_buf).unwrap_or_default();
    fs.record_crash_points();
    transaction.commit(&options()).map_err(|error| failed("the commit", &error))?;
    let points = fs.crash_points();
    let is_half_done = |point: &&crate::CrashPoint| {
        let content = |path: &str| point.view().entry(format!("{OUTPUT}/{path}")).map(|entry| entry.content().to_vec());
        content("d/x").as_deref() == Some(b"x 2") && content("f/w").as_deref() == Some(b"w 1")
    };
    let point = points.iter().find(is_half_done);
    let state = point.ok_or_else(|| Violation::new("guard", "no commit is half done"))?.killed();
    let at = match victim {
        Victim::Output(path) => Path::new(OUTPUT).join(path),
        Victim::Transaction(path) => directory.join(path),
    };
    let gone = state.tree(&at).values().map(|entry| entry.content().to_vec()).collect();
    state.remove(&at);
    Ok((state, gone))
}
