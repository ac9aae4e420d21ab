//! `txfs publish`.

use std::path::{Path, PathBuf};

use clap::Args;
use txfs::{BeginOptions, Error, Paths, Preview, Problem, Shown, Store, Transaction};

use crate::options::at::AtArgs;
use crate::options::wait::WaitArgs;
use crate::publishing::conclude::{self, Done};
use crate::publishing::hooks::Hooks;
use crate::publishing::left;
use crate::publishing::options::{Keeping, PublishOptions, Removals};
use crate::publishing::source;
use crate::settings::keys::{Given, Settings, take};
use crate::store::context::Context;
use crate::talk::error::{DONE, Failure, usage};
use crate::talk::output::Ui;
use crate::talk::text::count;

/// Publish a copy of a directory
///
/// SRC is copied, larger files by reflink where the file system can, and committed. Entries of OUT that txfs did not publish stay. Files that
/// nobody touched since they were published last (by inode and ctime) are neither read nor copied, unless --checksum or --check is given.
/// State directories of txfs in SRC are left out, with a warning, and set-id bits are dropped where the copy has another owner or group. Prints
/// the number of the generation that is published now.
#[derive(Args)]
#[command(after_help = "\
Examples:
  txfs publish /srv/www build
  txfs publish site build --at preview/123
  txfs publish site --at preview/123 --remove")]
pub(crate) struct PublishArgs {
    /// The directory that is published; it need not exist
    out: PathBuf,
    /// The directory whose content is to be published; `source` in txfs.toml says it, too
    src: Option<PathBuf>,
    /// Read and compare every file of SRC, also those that nobody touched since they were published last
    #[arg(long)]
    checksum: bool,
    #[command(flatten)]
    at: AtArgs,
    /// With --at: publish nothing there any more, the path itself included; without SRC
    #[arg(long, requires = "at", conflicts_with_all = ["src", "checksum"])]
    remove: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    publish: PublishOptions,
    #[command(flatten)]
    hooks: Hooks,
    #[command(flatten)]
    keeping: Keeping,
}

impl PublishArgs {
    pub(crate) fn out(&self) -> &Path {
        &self.out
    }

    /// What the command line does not say is as the file says.
    pub(crate) fn take(&mut self, settings: &Settings, given: &Given<'_>) {
        if !self.remove {
            take!(settings, given; src => self.src, checksum => self.checksum);
        }
        self.wait.take(settings, given);
        self.publish.take(settings, given);
        self.hooks.take(settings, given);
        self.keeping.take(settings, given, &self.publish);
    }

    /// Whether no directory is needed, or one is named.
    pub(crate) fn is_complete(&self) -> bool {
        self.remove || self.src.is_some()
    }

    /// The directory to publish.
    pub(crate) fn src(&self) -> Result<&Path, Failure> {
        self.src
            .as_deref()
            .ok_or_else(|| usage("SRC, the directory to publish, is named neither here nor by `source` in txfs.toml"))
    }

    fn has_checks(&self) -> bool {
        self.publish.has_checks()
    }

    /// Whether it runs other commands.
    pub(crate) fn runs_any(&self) -> bool {
        self.has_checks() || self.hooks.is_any()
    }
}

pub(crate) fn run(context: &Context, args: &PublishArgs) -> Result<u8, Failure> {
    if args.remove {
        let store = context.expect(&args.out)?;
        return remove(context, args, &store).map(|()| DONE);
    }
    let source = source::resolve_directory(args.src()?)?;
    // Before anything is made.
    refuse_overlap(&source, &context.locate(&args.out)?, args)?;
    if args.publish.is_dry_run() && !args.has_checks() && !args.at.is_given() {
        return preview(context, args, &source);
    }
    let (store, is_made) = context.make_for(&args.out, args.publish.is_dry_run())?;
    let published = copy_and_commit(context, args, &source, &store);
    if is_made {
        context.unmake(store);
    }
    published.map(|()| DONE)
}

fn copy_and_commit(context: &Context, args: &PublishArgs, source: &Path, store: &Store) -> Result<(), Failure> {
    refuse_overlap(source, store.output(), args)?;
    let mut transaction = begin(context, args, store)?;
    refuse_own_state(source, &transaction.stage(), args)?;
    fill(&context.ui, &mut transaction, source, args)?;
    conclude(context, args, store, transaction)
}

fn remove(context: &Context, args: &PublishArgs, store: &Store) -> Result<(), Failure> {
    let mut transaction = begin(context, args, store)?;
    transaction.remove_at()?;
    conclude(context, args, store, transaction)
}

fn begin(context: &Context, args: &PublishArgs, store: &Store) -> Result<Transaction, Failure> {
    let options = args.wait.on(context, store, BeginOptions::default())?;
    context.begin(store, args.at.on(options))
}

fn conclude(context: &Context, args: &PublishArgs, store: &Store, mut transaction: Transaction) -> Result<(), Failure> {
    match conclude::conclude(context, store, &mut transaction, &args.publish, &Removals::default()) {
        Ok(Done::Committed(committed)) => {
            let (hooks, publish) = (&args.hooks, &args.publish);
            conclude::after(context, store, &committed, hooks, publish, true)?;
        }
        Ok(Done::DryRun) => transaction.abort()?,
        Err(failure) => return Err(leave(context, store, transaction, failure, args)),
    }
    Ok(())
}

/// What becomes of a copy that could not be committed: it can be made again.
fn leave(context: &Context, store: &Store, transaction: Transaction, failure: Failure, args: &PublishArgs) -> Failure {
    let overtaken = matches!(failure.source(), Some(Error::BaseMoved { .. }));
    let failure = if overtaken { failure.hint("try again") } else { failure };
    if !args.keeping.keeps_failed() || args.remove || !transaction.is_open() {
        return failure;
    }
    let left = match transaction.leave() {
        Ok(left) => left,
        Err(error) => return failure.hint(format!("the stage could not be kept: {error}")),
    };
    let besides = left::kept_besides(&context.ui, store, &left);
    let way_on = left::kept(&context.ui, &failure, &left.stage, "");
    let failure = failure.hint(way_on).kept_at(left.stage);
    besides.into_iter().fold(failure, Failure::hint)
}

/// What publishing would change. Nothing is written, and no store is made.
fn preview(context: &Context, args: &PublishArgs, source: &Path) -> Result<u8, Failure> {
    let options = args.publish.for_library();
    let (output, base, preview) = match context.find(&args.out)? {
        Some(store) => {
            refuse_own_state(source, store.state(), args)?;
            let base = store.head()?.map_or(0, |head| head.info.generation);
            (store.output().to_path_buf(), base, store.preview_copy(source, args.checksum, &options)?)
        }
        None => {
            let preview = Store::preview_first(&context.options(), &args.out, source, &options)?;
            (context.locate(&args.out)?, 0, preview)
        }
    };
    let Preview { plan, left_out, without_set_id, .. } = preview;
    let unsupported = plan.problems.iter().filter(|problem| matches!(problem, Problem::UnsupportedKind(_)));
    let problems: Vec<_> = unsupported.cloned().collect();
    if !problems.is_empty() {
        // Nothing would be copied.
        return Err(Failure::from(Error::Refused { output, problems }).with_ways_out(way_out));
    }
    warn_of_copy(&context.ui, &left_out, &without_set_id);
    context.signals.release()?;
    let told = conclude::tell_rehearsed(context, &output, base, &plan, Vec::new());
    told.map(|()| DONE).map_err(|failure| if base == 0 { conclude::ask_for_lost_state(failure) } else { failure })
}

/// `within` is a directory of the state.
fn refuse_own_state(source: &Path, within: &Path, args: &PublishArgs) -> Result<(), Failure> {
    if !within.starts_with(source) {
        return Ok(());
    }
    Err(usage(format!("{} holds txfs' own state directory", Shown(args.src.as_deref().unwrap_or(Path::new("SRC"))))))
}

fn fill(ui: &Ui, transaction: &mut Transaction, source: &Path, args: &PublishArgs) -> Result<(), Failure> {
    if let Some(exclude) = args.publish.exclude() {
        transaction.exclude(exclude);
    }
    // A check is to see all that would be published.
    let copied = match args.checksum || args.has_checks() {
        true => transaction.copy_from(source),
        false => transaction.copy_differing_from(source),
    };
    copied.map_err(|error| Failure::from(error).with_ways_out(way_out))?;
    warn_of_copy(ui, transaction.left_out(), transaction.without_set_id());
    Ok(())
}

fn warn_of_copy(ui: &Ui, left_out: &[PathBuf], without_set_id: &Paths) {
    source::warn_of_states(ui, left_out);
    if !without_set_id.is_empty() {
        let files = count(without_set_id.total, "file");
        ui.warn(format_args!("set-id bits of {files} with another owner or group are not published: {without_set_id}"));
    }
}

/// What is to be done about the directory that is copied. `None` where the library says it well.
fn way_out(problem: &Problem) -> Option<String> {
    match problem {
        Problem::UnsupportedKind(_) => {
            Some("remove them from SRC: only files, directories and symlinks are published".to_owned())
        }
        _ => None,
    }
}

fn refuse_overlap(source: &Path, output: &Path, args: &PublishArgs) -> Result<(), Failure> {
    let (src, out) = (Shown(args.src.as_deref().unwrap_or(Path::new("SRC"))), Shown(&args.out));
    if source == output {
        return Err(usage(format!("{src} and {out} are one directory"))
            .hint("`txfs run OUT -- CMD` publishes what a build writes into its output"));
    }
    if source.starts_with(output) {
        return Err(usage(format!("{src} is inside {out}, which it is to replace")));
    }
    if output.starts_with(source) {
        return Err(usage(format!("{out} is inside {src}, of which it is to be a copy")));
    }
    Ok(())
}
