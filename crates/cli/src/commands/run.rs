//! `txfs run`: begin, run a command, and commit what it wrote, if it succeeded and nobody wanted it to stop.
//!
//! txfs outlives its command: signals are held ([`Signals`]) until txfs ends.
//!
//! When txfs is killed its command may live on and write to a stage that nobody will publish; the next txfs command discards it. One whose
//! writes are diverted (`captured`) is killed with txfs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{Basis, BeginOptions, Error, ErrorKind, Problem, Store, Transaction};

use crate::options::at::AtArgs;
use crate::options::from;
use crate::options::wait::WaitArgs;
use crate::publishing::conclude::{self, Done};
use crate::publishing::hooks::Hooks;
use crate::publishing::left;
use crate::publishing::options::{Keeping, PublishOptions, Removals};
use crate::running::captured::{self, Capturing, Outcome, Way};
use crate::running::tool::{Prepared, changed_nothing, is_anything_built};
use crate::settings::keys::{Given, Settings, take};
use crate::settings::placeholder::find_placeholder;
use crate::settings::values::{CaptureChoice, FromChoice};
use crate::store::context::Context;
use crate::talk::error::{DONE, Failure, failed, usage};
use crate::talk::ways_out;

/// Run a command and publish what it makes of OUT, if it succeeds
///
/// The command needs no change: what it and its children write to OUT is diverted, and published when it exits with 0; otherwise txfs changes
/// nothing in OUT, and passes the command's exit status through. It sees OUT at its usual path with its current content, and may write in
/// place, or remove OUT and make it anew. Where its arguments name `{stage}` or TXFS_STAGE it gets a stage to write to instead: an empty
/// directory, whose path stands in their place.
/// When the commit meets a conflict or an error the stage is kept, and txfs says how to go on; the next stage that is kept so replaces
/// it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  txfs run dist -- npm run build
  txfs run public --check 'test -s index.html' -- hugo --cleanDestinationDir
  txfs run site -- mdbook build book -d {stage}
  txfs run site --at v2 -- mdbook build book -d {stage}
  txfs run docs -- sh -c 'cp -r src/. \"$TXFS_STAGE\"'")]
pub(crate) struct RunArgs {
    /// The directory that is published; it need not exist
    out: PathBuf,
    /// What the command begins with: current, as a change of what is published; a copy of it, in which all can be renamed; or empty.
    /// Without it: current, and with a stage empty
    #[arg(long, value_name = "WHAT", hide_possible_values = true)]
    from: Option<FromChoice>,
    /// Give the command a stage, also where its arguments do not name it: its path is in TXFS_STAGE
    #[arg(long, conflicts_with_all = ["capture", "wait_children"])]
    stage: bool,
    /// How to divert what the command writes: by an overlay, which costs what changes, or by a copy, which costs the tree. Without it:
    /// by an overlay, and where there is none by a copy; so for what another user or another group has in OUT, but not for root;
    /// and with --adopt-all: what CMD leaves of it is the whole then
    #[arg(long, value_name = "HOW", hide_possible_values = true)]
    capture: Option<CaptureChoice>,
    /// Wait for processes that outlive the command, instead of ending them
    #[arg(long)]
    wait_children: bool,
    #[command(flatten)]
    at: AtArgs,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    publish: PublishOptions,
    #[command(flatten)]
    hooks: Hooks,
    #[command(flatten)]
    keeping: Keeping,
    #[command(flatten)]
    removals: Removals,
    /// The command and its arguments; `command` in txfs.toml says it, too
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
    /// Where it runs, if that is not where txfs was started.
    #[arg(skip)]
    dir: Option<PathBuf>,
}

pub(crate) fn run(context: &Context, args: &RunArgs) -> Result<u8, Failure> {
    attempt(context, args).map_err(Failure::of_run)
}

/// Why all that lies in the output cannot be taken over.
const A_PART: &str = "--adopt-all is for a whole generation, and a change says nothing of what lies in OUT besides: leave out `--from current` and `--capture overlay`, or say `--from copy` or `--from empty`";

/// What a command made, ready to be committed.
struct Built {
    transaction: Transaction,
    publish: PublishOptions,
}

fn attempt(context: &Context, args: &RunArgs) -> Result<u8, Failure> {
    if args.has_no_command() {
        return Err(usage("there is no command to run: say it after `--`, or by `command` in txfs.toml"));
    }
    let ways = match args.is_captured() {
        true => Some(args.ways()?),
        false => args.check_stage().map(|()| None)?,
    };
    let (store, is_made) = context.make_for(&args.out, args.publish.is_dry_run())?;
    let done = build_and_commit(context, args, &store, ways);
    if is_made {
        context.unmake(store);
    }
    done
}

fn build_and_commit(context: &Context, args: &RunArgs, store: &Store, ways: Option<Vec<Way>>) -> Result<u8, Failure> {
    let Built { mut transaction, publish } = match ways {
        None => build(context, store, args)?,
        Some(ways) => build_captured(context, store, args, ways)?,
    };
    match conclude::conclude(context, store, &mut transaction, &publish, &args.removals) {
        Ok(Done::Committed(committed)) => {
            conclude::after(context, store, &committed, &args.hooks, &publish, false)?;
        }
        Ok(Done::DryRun) => {
            discard(context, transaction);
        }
        Err(failure) => return Err(leave(context, store, transaction, failure, args)),
    }
    Ok(DONE)
}

impl RunArgs {
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// What the command line does not say is as the file says.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>) {
        if self.command.is_empty() {
            self.dir = Some(settings.dir.clone());
            self.command = settings.command.clone().unwrap_or_default();
        }
        take!(settings, given; from => self.from);
        if !given.has("capture") && !given.has("wait_children") {
            take!(settings, given; stage => self.stage);
        }
        if !given.has("stage") {
            take!(settings, given; capture => self.capture, wait_children => self.wait_children);
        }
        self.wait.take(settings, given);
        self.publish.take(settings, given);
        self.hooks.take(settings, given);
        self.keeping.take(settings, given, &self.publish);
    }

    pub(crate) fn has_no_command(&self) -> bool {
        self.command.is_empty()
    }

    /// The command, told where to write to.
    fn prepare(&self, context: &Context, store: &Store, stage: &Path) -> Result<Prepared, Failure> {
        let mut prepared = Prepared::new(context, store, &self.command, stage)?;
        if let Some(dir) = &self.dir {
            prepared.command.current_dir(dir);
        }
        Ok(prepared)
    }

    fn is_captured(&self) -> bool {
        !self.stage && (self.capture.is_some() || self.wait_children || !names_stage(&self.command))
    }

    /// What its stage stands for, where it gets one.
    fn basis(&self) -> Basis {
        self.from.unwrap_or(FromChoice::Empty).basis()
    }

    /// What makes no sense for a stage: it is told before the command runs, which may take hours.
    fn check_stage(&self) -> Result<(), Failure> {
        if self.publish.adopts_all() && self.basis() == Basis::Current {
            return Err(usage(A_PART));
        }
        self.removals.parse(self.basis(), self.at.is_given()).map(drop)
    }

    /// The ways to capture the command that are tried, in this order.
    fn ways(&self) -> Result<Vec<Way>, Failure> {
        if self.at.is_given() {
            let what = "--at is for a stage: put {stage} where the command is told where to write, or have it write to $TXFS_STAGE, by --stage";
            return Err(usage(what));
        }
        if !self.removals.is_empty() {
            return Err(usage("--remove is for a stage: have the command remove it, or give it a stage by --stage"));
        }
        let capture = self.capture.unwrap_or(CaptureChoice::Auto);
        let is_change = self.from == Some(FromChoice::Current) || capture == CaptureChoice::Overlay;
        if self.publish.adopts_all() && is_change {
            return Err(usage(A_PART));
        }
        Ok(match (self.from, capture) {
            // What an overlay tells of is a change, and says nothing of the rest.
            (None, CaptureChoice::Auto) if self.publish.adopts_all() => vec![Way::Copy],
            (Some(FromChoice::Empty), CaptureChoice::Auto) => vec![Way::Empty],
            (Some(FromChoice::Copy), CaptureChoice::Auto | CaptureChoice::Copy) => vec![Way::Copy],
            (None | Some(FromChoice::Current), CaptureChoice::Auto) => vec![Way::Overlay, Way::Copy],
            (None | Some(FromChoice::Current), CaptureChoice::Overlay) => vec![Way::Overlay],
            (None | Some(FromChoice::Current), CaptureChoice::Copy) => vec![Way::Copy],
            (Some(_), _) => return Err(usage("--capture is for `--from current`: leave one of the two out")),
        })
    }
}

/// Whether the command is told where its stage is.
fn names_stage(words: &[OsString]) -> bool {
    const VARIABLE: &[u8] = b"TXFS_STAGE";
    words
        .iter()
        .map(|word| word.as_bytes())
        .any(|word| find_placeholder(word).is_some() || word.windows(VARIABLE.len()).any(|window| window == VARIABLE))
}

/// Has the command fill a stage.
fn build(context: &Context, store: &Store, args: &RunArgs) -> Result<Built, Failure> {
    let transaction = begin_from(context, store, args, args.basis())?;
    let stage = transaction.stage();
    context.ui.detail(format_args!("the stage is {}", context.ui.name(&stage)));
    let build = || {
        let mut command = args.prepare(context, store, &stage)?;
        context.signals.expect_none()?;
        let child = command.command.spawn().map_err(|error| command.not_run(&error))?;
        command.wait(&context.signals, child)?;
        expect_stage(&stage).map_err(|what| failed(format!("{what}: {}", command.nothing)))
    };
    match build() {
        Ok(()) => Ok(Built { transaction, publish: args.publish.clone() }),
        Err(failure) if args.keeping.keeps_failed() && is_anything_built(&stage) => {
            Err(keep(context, store, transaction, failure, args))
        }
        Err(failure) => {
            discard(context, transaction);
            Err(failure)
        }
    }
}

fn begin_from(context: &Context, store: &Store, args: &RunArgs, from: Basis) -> Result<Transaction, Failure> {
    let options = BeginOptions::default().from(from).allow_drift(args.publish.allows_drift());
    let options = args.at.on(args.wait.on(context, store, options)?);
    let transaction = store.begin(options).map_err(from::of_begin)?;
    context.ui.rescued(&store.take_rescued());
    from::warn_of_drift(&context.ui, &transaction);
    Ok(transaction)
}

/// Has the command write to the output, and that diverted to a stage.
fn build_captured(context: &Context, store: &Store, args: &RunArgs, ways: Vec<Way>) -> Result<Built, Failure> {
    // The last way is the one that needs least: what is in its way is in the way of all.
    let mut refused = None;
    for way in captured::possible(store, ways) {
        let mut transaction = begin_from(context, store, args, way.basis())?;
        let mut command = args.prepare(context, store, store.output())?;
        let (publish, waits, keeps_failed) = (&args.publish, args.wait_children, args.keeping.keeps_failed());
        let capturing = Capturing { context, store, publish, waits, keeps_failed, way };
        match capturing.run(&mut transaction, &mut command) {
            Ok(Outcome::Captured { publish }) => return Ok(Built { transaction, publish }),
            Ok(Outcome::Failed(failure)) => return Err(keep(context, store, transaction, failure, args)),
            Ok(Outcome::Refused(failure)) => {
                discard(context, transaction);
                refused = Some(failure);
            }
            Err(failure) => {
                discard(context, transaction);
                return Err(failure);
            }
        }
    }
    Err(refused.expect("there is a way to try"))
}

/// Some tools move what they built to where they are told to write to. A stage that is gone the library tells of.
fn expect_stage(stage: &Path) -> Result<(), &'static str> {
    match stage.symlink_metadata() {
        Ok(found) if !found.is_dir() => Err("the command put something else in the place of its stage"),
        _ => Ok(()),
    }
}

/// What becomes of the stage that was built and could not be committed.
fn leave(context: &Context, store: &Store, transaction: Transaction, failure: Failure, args: &RunArgs) -> Failure {
    let failure = failure.with_ways_out(|problem| way_out(problem, args));
    // What stands in the way may go, and the build may have taken hours.
    let is_kept = match failure.source() {
        // Recovery needs the stage.
        Some(error) if error.kind() == ErrorKind::Unknown => return failure,
        // It is gone, or was moved aside: the failure says so.
        Some(_) if !transaction.is_open() => return failure.hint(changed_nothing(&context.ui, store)),
        Some(error) => {
            let may_go = matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Busy | ErrorKind::Failed);
            may_go || is_another_users(error)
        }
        None => false,
    };
    if (is_kept || args.keeping.keeps_failed()) && !args.publish.is_dry_run() && transaction.is_open() {
        return keep(context, store, transaction, failure, args);
    }
    let is_said = failure.source().is_none();
    let discarded = discard(context, transaction);
    if is_said {
        return failure;
    }
    let nothing = changed_nothing(&context.ui, store);
    failure.hint(if discarded { format!("the stage was discarded: {nothing}") } else { nothing })
}

/// Keeps the stage of a build that was not published.
fn keep(context: &Context, store: &Store, transaction: Transaction, failure: Failure, args: &RunArgs) -> Failure {
    let (ui, from, at) = (&context.ui, transaction.from(), transaction.at());
    let overtaken = matches!(failure.source(), Some(Error::BaseMoved { .. }));
    let left = match transaction.leave() {
        Ok(left) => left,
        Err(error) => return failure.hint(format!("the stage could not be kept: {error}")),
    };
    let options = args.removals.again(ui);
    let way_on = match overtaken {
        true => left::overtaken(ui, store, from, &at, &left.stage, "run the same command again"),
        false => left::kept(ui, &failure, &left.stage, &options),
    };
    let besides = left::kept_besides(ui, store, &left);
    let failure = failure.hint(way_on).kept_at(left.stage);
    besides.into_iter().fold(failure, Failure::hint)
}

/// What is refused only because it is another user's can be published once it is given to this one, and not be discarded before.
fn is_another_users(error: &Error) -> bool {
    matches!(error, Error::Refused { problems, .. } if problems.iter().all(|problem| matches!(problem, Problem::NotOurs { .. })))
}

/// What is to be done about the command: its stage may be gone when somebody reads this. `None` where the library says it well.
fn way_out(problem: &Problem, args: &RunArgs) -> Option<String> {
    Some(match problem {
        Problem::EmptyStage if args.is_captured() => {
            "the command left no file in the output; if nothing is to be published, use --allow-empty".to_owned()
        }
        Problem::EmptyStage => wrote_no_file(&args.command),
        Problem::CaseCollision(_) => "have the command rename one of each, or use --allow-case-collisions".to_owned(),
        Problem::UnsupportedKind(_) => {
            "have the command not make them: only files, directories and symlinks are published".to_owned()
        }
        Problem::NeedsExchange(_) => {
            "have the command give them new names, or move the output to ext4, xfs, btrfs, tmpfs or overlayfs"
                .to_owned()
        }
        _ => return None,
    })
}

fn wrote_no_file(command: &[OsString]) -> String {
    let told = command.iter().any(|word| find_placeholder(word.as_bytes()).is_some());
    let how = match told {
        true => "the command wrote no file to its stage, whose path it gets in place of {stage} and as $TXFS_STAGE",
        false => {
            "no argument contains {stage}, and the command wrote no file to its stage: put {stage} where it is told where to write, have it write to $TXFS_STAGE, or leave --stage out, and have it write to the output"
        }
    };
    format!("{how}; if nothing is to be published, use --allow-empty")
}

/// Whether the stage is gone; says so where it is not.
fn discard(context: &Context, transaction: Transaction) -> bool {
    let discarded = transaction.abort();
    if let Err(error) = &discarded {
        context.ui.warn(format_args!("the stage could not be discarded, the next txfs command tries again: {error}"));
        ways_out::of_error(error).iter().for_each(|hint| context.ui.advise(hint));
    }
    discarded.is_ok()
}
