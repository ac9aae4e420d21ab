//! A commit that passed its commit point: state that was exchanged is refused, and what was changed since takes no reported commit back.

use std::path::Path;

use txfs::fs::{Fs, Machine, RenameMode, Timestamp};
use txfs::{BeginOptions, ErrorKind, Outcome, RecoverOptions, RelPath, Store};

use crate::explore::guards::ground::{ensure, open, ticking};
use crate::explore::oracle::failed;
use crate::explore::spec::{self, FILES, Spec};
use crate::explore::tally::{Checked, Violation};
use crate::explore::world::{self, Marks, OUTPUT, STATE, World};
use crate::explore::worlds::Worlds;
use crate::{Call, Config, Fault, SimFs, Weakness};

/// A store whose machine stopped right after the commit point of its second generation.
fn after_commit_point(old: spec::Node, new: spec::Node) -> Checked<SimFs> {
    let mut world = Worlds::new(0, Some(Weakness::Ordered)).get(0);
    (world.old, world.new) = (Some(Spec::from([("a", old)])), Spec::from([("a", new)]));
    world.config = Config::new(Weakness::Ordered);
    (world.end, world.adopt, world.from) = (world::End::Commit, false, txfs::Basis::Empty);
    (world.bystander, world.foreign, world.settled) = (false, false, true);
    let fs = world.build();
    fs.record_crash_points();
    let _ = world.run(&fs, &mut Marks::default());
    let points = fs.crash_points();
    let named = |point: &&crate::CrashPoint| point.view().exists(format!("{STATE}/journal"));
    let point = points.iter().find(named).ok_or_else(|| Violation::new("guard", "no journal was named"))?;
    let state = point.killed();
    state.settle();
    Ok(state)
}

fn refuses(fs: &SimFs, allowed: Outcome) -> Checked {
    let before = fs.tree_hash(OUTPUT);
    let result = Store::open_with(&World::options(fs), OUTPUT).map(drop);
    let refused = result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt && error.outcome() == allowed);
    ensure(refused && fs.tree_hash(OUTPUT) == before, result)
}

/// The frames of a file of the state directory, its header first.
fn frames(fs: &SimFs, name: &str) -> Vec<Vec<u8>> {
    const HEADER: usize = 16;
    let bytes = fs.entry(format!("{STATE}/{name}")).map(|entry| entry.content().to_vec()).unwrap_or_default();
    let mut frames = vec![bytes[..HEADER].to_vec()];
    let mut rest = &bytes[HEADER..];
    while let Some((length, _)) = rest.split_first_chunk::<4>() {
        let (frame, after) = rest.split_at(8 + u32::from_le_bytes(*length) as usize);
        frames.push(frame.to_vec());
        rest = after;
    }
    frames
}

pub(super) fn a_spliced_journal_is_refused() -> Checked {
    let (fs, other) = (after_commit_point(FILES[0], FILES[1])?, after_commit_point(FILES[0], FILES[2])?);
    let mut journal = frames(&fs, "journal");
    journal[2] = frames(&other, "journal")[2].clone();
    fs.put_file(format!("{STATE}/journal"), &journal.concat(), 0o600);
    refuses(&fs, Outcome::Unchanged)
}

pub(super) fn an_exchanged_head_is_refused() -> Checked {
    let (fs, other) = (after_commit_point(FILES[0], FILES[1])?, after_commit_point(FILES[2], FILES[1])?);
    for name in ["HEAD", "manifests/1"] {
        let entry = other.entry(format!("{STATE}/{name}")).expect("a generation was published");
        fs.put_file(format!("{STATE}/{name}"), entry.content(), 0o600);
    }
    refuses(&fs, Outcome::Unchanged)
}

pub(super) fn what_cannot_be_recognized_is_refused() -> Checked {
    let fs = after_commit_point(FILES[0], FILES[1])?;
    let stages: Vec<RelPath> =
        fs.tree(STATE).into_keys().filter(|path| path.as_bytes().ends_with(b"stage/a")).collect();
    for stage in stages {
        fs.remove(format!("{STATE}/{stage}"));
    }
    refuses(&fs, Outcome::Unknown)
}

/// The name of a journal is lost, an operation is done, and what it displaced cannot be looked at: to undo the commit is no leave to
/// discard what may be the only copy.
pub(super) fn what_cannot_be_read_is_not_given_up() -> Checked {
    let old = [("a/x", FILES[0]), ("b", FILES[0])];
    let mut world = World::plain(Config { uid: 1000, ..Config::new(Weakness::Ordered) }, None, Spec::new());
    let open = spec::Node::Dir(0o755);
    world.old = Some(old.into_iter().chain([("a", open)]).collect());
    world.new = Spec::from([("a", open), ("a/n", FILES[1]), ("a/x", FILES[0]), ("b", FILES[1])]);
    let fs = world.build();
    fs.record_crash_points();
    world.run(&fs, &mut Marks::default()).map_err(|error| failed("the program", &error))?;
    let mut refused = 0;
    for point in fs.crash_points() {
        let state = point.killed();
        let names = ["journal", "HEAD.new"].map(|name| format!("{STATE}/{name}"));
        if names.iter().any(|name| state.entry(name).is_none()) {
            continue;
        }
        let journal = state.entry(&names[0]).map(|entry| entry.content().to_vec()).unwrap_or_default();
        state.remove(&names[0]);
        state.put_file(format!("{STATE}/journal.new"), &journal, 0o600);
        let begun = state.entry(format!("{OUTPUT}/a/n")).is_some();
        state.put_mode(format!("{OUTPUT}/a"), 0o000);
        let undone = Store::open_with(&World::options(&state).recover(false), OUTPUT)
            .and_then(|store| store.recover(RecoverOptions::default().undo(true)));
        state.put_mode(format!("{OUTPUT}/a"), 0o755);
        open_store_is_whole(&state, &world, begun.then_some(&undone))?;
        refused += usize::from(undone.is_err());
    }
    ensure(refused > 1, refused)
}

/// Whether the store is the old or the new generation; the old one is nowhere lost where a commit was begun that could not be looked at.
fn open_store_is_whole(fs: &SimFs, world: &World, begun: Option<&txfs::Result<txfs::Recovered>>) -> Checked {
    open(fs)?;
    let tree = fs.tree(OUTPUT);
    let is = |spec: &Spec| spec::is_published(&tree, spec, false);
    let (old, new) = (world.old.as_ref().is_some_and(is), is(&world.new));
    ensure((old || new) && (begun.is_none() || begun.is_some_and(Result::is_err)), (begun, fs.describe()))
}

pub(super) fn a_head_that_may_not_be_durable_is_written_anew() -> Checked {
    let fs = after_commit_point(FILES[0], FILES[1])?;
    fs.remove(format!("{STATE}/HEAD.new"));
    let trial = fs.fork();
    open(&trial)?;
    let written = trial.log().iter().position(|&call| call == Call::SyncFile);
    let written = written.ok_or_else(|| Violation::new("guard", "no HEAD was written"))? as u64 + 1;
    fs.fail_from(written, Fault::keeping(nix::errno::Errno::ENOSPC as i32));
    let failed = Store::open_with(&World::options(&fs), OUTPUT).map(drop);
    ensure(failed.is_err(), failed)?;
    fs.mend();
    fs.record_crash_points();
    open(&fs)?;
    fs.crash_points().iter().try_for_each(|point| point.states(256).try_for_each(|state| open(&state).map(drop)))
}

/// At whichever call of the commit somebody rewrites a staged file that moves along with its directory, and syncs it later: the
/// commit is refused, or reported and then there after every crash. The file is as old as a tick, or was written within this one.
pub(super) fn a_file_that_is_rewritten_while_it_is_committed_takes_no_reported_commit_back() -> Checked {
    let (mut refused, mut reported) = (0, 0);
    for (weakness, age) in [Weakness::Ordered, Weakness::Btrfs].into_iter().flat_map(|w| [(w, 0), (w, 10)]) {
        for n in 1.. {
            let fs = ticking(weakness, 100_000)?;
            let store = open(&fs)?;
            let mut transaction = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?;
            transaction.write("d/x", "as staged").map_err(|error| failed("writing", &error))?;
            fs.pause(std::time::Duration::from_millis(age));
            fs.settle();
            let before = fs.calls();
            fs.overwrite_at(before + n, transaction.stage().join("d/x"), b"rewritten");
            let result = transaction.commit(&World::commit_options());
            if before + n > fs.calls() {
                break;
            }
            if let Err(error) = result {
                ensure(error.outcome() == Outcome::Unchanged && error.to_string().contains("d/x"), error)?;
                refused += 1;
                continue;
            }
            reported += 1;
            let rewritten = fs.open_anchor(OUTPUT.as_ref()).and_then(|out| {
                let dir = fs.open_dir(&out, &RelPath::new("d").expect("a name is a path"))?;
                fs.open_write(&dir, b"x").and_then(|file| fs.sync_file(&file))
            });
            ensure(rewritten.is_ok(), rewritten)?;
            for state in fs.crash_states(512) {
                let head = open(&state)?.head().map_err(|error| failed("reading HEAD", &error))?;
                ensure(head.is_some_and(|head| head.info.generation == 2), (n, state.describe()))?;
            }
        }
    }
    ensure(refused > 0 && reported > 0, (refused, reported))
}

/// What somebody does to a published file.
#[derive(Debug, Clone, Copy)]
enum Doing {
    Rewrites,
    ChangesItsMode,
    SetsItsTimeBack,
    /// As an editor saves: another file, synced, takes its name.
    Replaces,
}

impl Doing {
    /// Does it, and syncs the file that has the name then.
    fn to(self, fs: &SimFs, published: &RelPath) -> std::io::Result<()> {
        let dir = fs.open_dir(&fs.open_anchor(OUTPUT.as_ref())?, &published.parent())?;
        let open = || fs.open_write(&dir, published.name());
        match self {
            Self::Rewrites => fs.overwrite_at(fs.calls() + 1, published.under(Path::new(OUTPUT)), b"rewritten"),
            Self::ChangesItsMode => fs.set_mode(&open()?, 0o600)?,
            Self::SetsItsTimeBack => fs.set_mtime(&open()?, Timestamp { seconds: 1, nanos: 0 })?,
            Self::Replaces => {
                let mut other = fs.create_file(&dir, b"saved", 0o644)?;
                fs.write(&mut other, b"saved")?;
                fs.sync_file(&other)?;
                fs.rename(&dir, b"saved", &dir, published.name(), RenameMode::Replace)?;
            }
        }
        fs.sync_file(&open()?)
    }
}

/// As soon as a commit is reported somebody changes and syncs a file that it published, alone or with its directory: the commit is there
/// after every crash, or recovery refuses to go on and loses nothing.
pub(super) fn a_file_that_is_changed_once_it_is_published_takes_no_reported_commit_back() -> Checked {
    use Doing::*;
    let (mut kept, mut refused) = (0, 0);
    for weakness in [Weakness::Ordered, Weakness::Btrfs, Weakness::Posix] {
        for (age, path) in [0, 10].into_iter().flat_map(|age| ["x", "a", "d/x"].map(|path| (age, path))) {
            for doing in [Rewrites, ChangesItsMode, SetsItsTimeBack, Replaces] {
                let fs = ticking(weakness, 100)?;
                let store = open(&fs)?;
                let mut transaction = store.begin(BeginOptions::default()).map_err(|error| failed("begin", &error))?;
                transaction.write(path, "as staged").map_err(|error| failed("writing", &error))?;
                fs.pause(std::time::Duration::from_millis(age));
                fs.settle();
                transaction.commit(&World::commit_options()).map_err(|error| failed("its commit", &error))?;
                let done = doing.to(&fs, &RelPath::new(path).expect("a name is a path"));
                ensure(done.is_ok(), done)?;
                for state in fs.crash_states(4096) {
                    match open(&state).map(|store| store.head()) {
                        Ok(head) => {
                            let head = head.map_err(|error| failed("reading HEAD", &error))?;
                            let is_new = head.is_some_and(|head| head.info.generation == 2);
                            ensure(is_new, (weakness, age, path, doing, state.describe()))?;
                            kept += 1;
                        }
                        Err(_) => {
                            let is_kept = |name| state.entry(format!("{STATE}/{name}")).is_some();
                            ensure(["journal", "journal.new"].iter().any(is_kept), state.describe())?;
                            refused += 1;
                        }
                    }
                }
            }
        }
    }
    ensure(kept > 0 && refused > 0, (kept, refused))
}
