//! From the caller's side: what is to be captured, and what was.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{set_child_subreaper, set_parent_process_death_signal};

use crate::gate::{self, Gate, Refusal, Step};
use crate::keeper::{self, Linger};
use crate::report::{self, Report, Told};
use crate::roots::{Left, Roots};
use crate::space::{self, COVER, ROOT, Setup, Space, WORK};
use crate::upper::flatten;
use crate::{calls, survivors, sys, walk};

/// A command that could not be captured, and did not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A capture cannot be had here.
    #[error("{0}: {hint}", hint = .0.way_out())]
    Refused(#[source] Refusal),
    /// The command could not be run, captured or not.
    #[error("cannot run the command: {0}")]
    Command(#[source] io::Error),
    /// Something of the caller's.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// What failed.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The keeper was killed, and with it the command.
    #[error("the process that captures the command was killed, and the command with it")]
    Killed,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io { action, path: path.to_path_buf(), source }
}

/// What is to be captured, and where to.
#[derive(Debug, Clone)]
#[must_use = "nothing is captured before a command is spawned"]
pub struct Capture {
    setup: Setup,
    linger: Linger,
}

impl Capture {
    /// The command sees the output's content, and what it writes goes to the directory `upper` of `place`, as the upper layer of an
    /// overlay. `place` is the caller's, on the output's file system and not below the output; names in it that begin with `work`,
    /// `cover` and `root` are used.
    ///
    /// # Errors
    /// The output is no directory, or a symbolic link, or its parent cannot be resolved.
    pub fn overlay(output: &Path, place: &Path, upper: impl AsRef<OsStr>) -> Result<Self, Error> {
        Self::new(output, place, upper.as_ref(), true)
    }

    /// The command sees the directory `content` of `place` instead of the output, and writes to it. The output need not exist: then the
    /// command does not see one, until it makes it. `place` as for [`Capture::overlay`]; it may be below the output.
    ///
    /// # Errors
    /// As [`Capture::overlay`].
    pub fn directory(output: &Path, place: &Path, content: impl AsRef<OsStr>) -> Result<Self, Error> {
        Self::new(output, place, content.as_ref(), false)
    }

    fn new(output: &Path, place: &Path, first: &OsStr, overlay: bool) -> Result<Self, Error> {
        let absent = match fs::symlink_metadata(output) {
            Ok(found) if found.is_dir() => false,
            Ok(_) => return Err(failed("capture", output)(io::ErrorKind::NotADirectory.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(failed("look at", output)(error)),
        };
        let named = match absent {
            false => fs::canonicalize(output),
            true => resolve_absent(output),
        };
        let named = named.map_err(failed("resolve", output))?;
        let (Some(parent), Some(name)) = (named.parent(), named.file_name()) else {
            return Err(failed("capture", output)(io::ErrorKind::InvalidInput.into()));
        };
        let setup = Setup {
            parent: parent.to_path_buf(),
            name: name.to_os_string(),
            place: fs::canonicalize(place).map_err(failed("resolve", place))?,
            first: first.to_os_string(),
            overlay: overlay && !absent,
            absent,
            stats: false,
        };
        Ok(Self { setup, linger: Linger::End })
    }

    /// What becomes of processes that outlive the command.
    pub fn linger(mut self, linger: Linger) -> Self {
        self.linger = linger;
        self
    }

    /// As if the kernel had nothing that hides a directory; for tests.
    #[doc(hidden)]
    pub fn without_ghost(mut self) -> Self {
        self.setup.stats = true;
        self
    }

    pub(crate) fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Otherwise the command would be told of it, in the middle of its work.
    pub(crate) fn check_owners(&self) -> Result<(), Error> {
        let output = self.output();
        if !self.setup.overlay || !space::is_rootless().map_err(failed("ask for the rights over", &output))? {
            return Ok(());
        }
        match gate::of_others(&output).map_err(failed("look at", &output))? {
            Some(at) => Err(Error::Refused(Refusal::of(Gate::OfOthers(at)))),
            None => Ok(()),
        }
    }

    fn output(&self) -> PathBuf {
        self.setup.parent.join(&self.setup.name)
    }

    /// Starts the command. The child is the keeper, which has a signal sent to it forwarded, and ends as the command does, after all
    /// that it started. Wait for it, then call [`Running::end`].
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Command`], [`Error::Io`]: nothing runs.
    pub fn spawn(&self, command: &mut Command) -> Result<(Child, Running), Error> {
        if !calls::is_known_machine() {
            return Err(Error::Refused(Refusal::of(Gate::Machine)));
        }
        let output = self.output();
        let below = gate::mount_below(&output);
        if let Some(at) = below.map_err(|error| Error::Refused(Refusal { gate: Gate::Proc, error: Some(error) }))? {
            return Err(Error::Refused(Refusal::of(Gate::MountsBelow(at))));
        }
        self.check_owners()?;
        // An overlay does not take up again what another left, for that may lack what was not made durable.
        let place = &self.setup.place;
        remove(place, Some(&self.setup.first)).map_err(failed("remove what a capture left in", place))?;
        let placeholder = self.setup.absent.then(|| Placeholder::make(&output)).transpose()?;
        let (ours, theirs) = UnixStream::pair().map_err(failed("make a pair of sockets for", &output))?;
        let theirs = Arc::new(Mutex::new(Some(theirs)));
        let (setup, linger, stream) = (self.setup.clone(), self.linger, Arc::clone(&theirs));
        sys::before_exec(command, move || {
            // Nobody else has it: this process has one thread.
            let stream = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
            stream.map_or(Ok(()), |stream| launch(&setup, linger, stream))
        });
        let spawned = command.spawn();
        drop(theirs.lock().unwrap_or_else(PoisonError::into_inner).take());
        let Setup { place, first, .. } = self.setup.clone();
        let mut running = Running { stream: ours, place, first, placeholder, namespace: None };
        match spawned {
            Ok(child) => {
                running.namespace = survivors::Held::of(child.id());
                Ok((child, running))
            }
            Err(error) => Err(match running.read() {
                Told::Failed(step, error) if step != Step::Program => Error::Refused(Refusal::at(step, error)),
                _ => Error::Command(error),
            }),
        }
    }
}

/// The parent has to be there.
fn resolve_absent(output: &Path) -> io::Result<PathBuf> {
    let name = output.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(fs::canonicalize(parent)?.join(name))
}

/// In the new process: goes inside, and becomes two, the keeper and the command. Returns in the command.
fn launch(setup: &Setup, linger: Linger, mut caller: UnixStream) -> io::Result<()> {
    let began = begin(setup, linger, &caller);
    began.map_err(|(step, error)| {
        let _ = caller.write_all(&report::encode_failure(step, &error));
        error
    })
}

fn begin(setup: &Setup, linger: Linger, caller: &UnixStream) -> Result<(), space::Failed> {
    let at = |step: Step| move |error: io::Error| (step, error);
    let space = space::enter(setup)?;
    if setup.overlay {
        space.try_overlay().map_err(|error| (Step::Overlay, error))?;
    }
    set_child_subreaper(Some(rustix::process::getpid())).map_err(|errno| (Step::Helper, errno.into()))?;
    let (keeper, tool) = UnixStream::pair().map_err(at(Step::Helper))?;
    let caller = caller.try_clone().map_err(at(Step::Helper))?;
    let keeper_pid = rustix::process::getpid();
    let before = keeper::block_signals().map_err(|errno| (Step::Helper, errno.into()))?;
    let stats = !space.ghosts;
    if let Some(child) = sys::fork().map_err(at(Step::Helper))? {
        drop(tool);
        keeper::keep(Roots::new(space, setup.absent), child, &keeper, caller, linger)
    }
    drop(keeper);
    let kill = Some(rustix::process::Signal::KILL);
    set_parent_process_death_signal(kill).map_err(|errno| (Step::Helper, errno.into()))?;
    if rustix::process::getppid() != Some(keeper_pid) {
        sys::exit(0);
    }
    filter(&space, stats, &tool)?;
    before.thread_set_mask().map_err(|errno| (Step::Helper, errno.into()))
}

/// Puts this process under the filter, and gives the keeper what it answers by.
fn filter(space: &Space, stats: bool, keeper: &UnixStream) -> Result<(), space::Failed> {
    let at = |error: io::Error| (Step::Filter, error);
    let program = calls::program(stats);
    let listener = match sys::install(&program) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            // Who has no rights has to promise that nothing it runs gets any.
            rustix::thread::set_no_new_privs(true).map_err(|errno| at(errno.into()))?;
            sys::install(&program)
        }
        installed => installed,
    };
    sys::send_fd(keeper, &listener.map_err(at)?).map_err(at)?;
    space.give_up_rights().map_err(at)
}

/// Does what a capture would do, without a command, in a process of its own that is gone afterwards.
pub(crate) fn rehearse(setup: &Setup) -> Result<(), Refusal> {
    let helper = |error: io::Error| Refusal::at(Step::Helper, error);
    let (mut ours, theirs) = UnixStream::pair().map_err(helper)?;
    let Some(child) = sys::fork().map_err(helper)? else {
        let mut theirs = theirs;
        if let Err((step, error)) = rehearse_inside(setup) {
            let _ = theirs.write_all(&report::encode_failure(step, &error));
        }
        sys::exit(0);
    };
    drop(theirs);
    let mut told = Vec::new();
    let read = ours.read_to_end(&mut told);
    while nix::sys::wait::waitpid(child, None) == Err(nix::errno::Errno::EINTR) {}
    read.map_err(helper)?;
    match report::decode(&told) {
        Told::Failed(step, error) => Err(Refusal::at(step, error)),
        _ => Ok(()),
    }
}

fn rehearse_inside(setup: &Setup) -> Result<(), space::Failed> {
    let space = space::enter(setup)?;
    if setup.overlay {
        space.try_overlay().map_err(|error| (Step::Overlay, error))?;
    }
    let (_keeper, tool) = UnixStream::pair().map_err(|error| (Step::Helper, error))?;
    filter(&space, !space.ghosts, &tool)
}

/// An empty directory where the output is not.
#[derive(Debug)]
struct Placeholder {
    path: PathBuf,
    identity: (u64, u64),
}

impl Placeholder {
    fn make(path: &Path) -> Result<Self, Error> {
        fs::create_dir(path).map_err(failed("make", path))?;
        let stat = fs::symlink_metadata(path).map_err(failed("look at", path))?;
        Ok(Self { path: path.to_path_buf(), identity: (stat.dev(), stat.ino()) })
    }
}

impl Drop for Placeholder {
    /// Nothing is removed but the very directory, and only while it is empty.
    fn drop(&mut self) {
        let is_same = |stat: fs::Metadata| (stat.dev(), stat.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(is_same) {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// A command that is being captured.
#[derive(Debug)]
#[must_use = "what was captured is told at the end"]
pub struct Running {
    stream: UnixStream,
    place: PathBuf,
    first: OsString,
    placeholder: Option<Placeholder>,
    /// The mount namespace of all that runs; `None` where nothing does.
    namespace: Option<survivors::Held>,
}

/// What the command left where the output is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Root {
    /// The output's content, changed as this upper layer says.
    Upper(PathBuf),
    /// All of this directory, and nothing else.
    Whole(PathBuf),
    /// Nothing: the command removed the output, moved it away, or never made it.
    Nothing,
}

/// What was captured.
#[derive(Debug)]
#[non_exhaustive]
pub struct Captured {
    /// What the command left.
    pub root: Root,
    /// The processes that outlived the command and were ended, by name.
    pub outlived: Vec<String>,
    /// Whether one of them could not be killed, and may write still.
    pub survived: bool,
    /// How many calls were answered that concerned the output itself.
    pub answered: u64,
    place: PathBuf,
    first: OsString,
}

/// What the directory that the capture began with is in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// What differs from the output. Of each of these paths everything is gone, but for what the directory has.
    Change {
        /// What the command removed or replaced.
        removed: Vec<PathBuf>,
    },
    /// All that there is.
    Whole,
}

impl Captured {
    /// Makes of the directory that the capture began with an ordinary one, which has what the command left; everything else that the
    /// capture made in the caller's directory is removed.
    ///
    /// # Errors
    /// [`Error::Io`]; then it has to be discarded.
    pub fn settle(self) -> Result<Stage, Error> {
        let Self { root, place, first, .. } = self;
        let stage = place.join(&first);
        let settled = match root {
            Root::Upper(upper) => flatten(&upper).map(|removed| Stage::Change { removed }),
            Root::Whole(root) if root == stage => Ok(Stage::Whole),
            Root::Whole(root) => replace(&place, &first, |stage| fs::rename(&root, stage)),
            Root::Nothing => replace(&place, &first, |stage| fs::create_dir(stage)),
        };
        let settled = settled.map_err(failed("read what was captured in", &stage))?;
        remove(&place, None).map_err(failed("remove what the capture left in", &place))?;
        Ok(settled)
    }
}

fn replace(place: &Path, first: &OsStr, by: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Stage> {
    walk::remove(&walk::open(place)?, first)?;
    by(&place.join(first)).map(|()| Stage::Whole)
}

impl Running {
    /// To be called when the child has been waited for: what was captured.
    ///
    /// # Errors
    /// [`Error::Killed`].
    pub fn end(mut self) -> Result<Captured, Error> {
        let (place, first, namespace) = (self.place.clone(), self.first.clone(), self.namespace.take());
        let Told::Ended(Report { left, names, survived, answered }) = self.read() else {
            // It was to end them.
            namespace.iter().for_each(survivors::kill_all_in);
            return Err(Error::Killed);
        };
        let root = match left {
            Left::Upper(name) => Root::Upper(place.join(name)),
            Left::Whole(name) => Root::Whole(place.join(name)),
            Left::Nothing => Root::Nothing,
        };
        Ok(Captured { root, outlived: names, survived, answered, place, first })
    }

    fn read(self) -> Told {
        let Self { mut stream, placeholder, .. } = self;
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        drop(placeholder);
        match read {
            Ok(_) => report::decode(&bytes),
            Err(_) => Told::Nothing,
        }
    }
}

/// Removes what captures left in the caller's directory, but for `keep`: also what the kernel made so that nobody may enter it.
///
/// # Errors
/// Something cannot be removed.
pub fn remove(place: &Path, keep: Option<&OsStr>) -> io::Result<()> {
    let dir = walk::open(place)?;
    for (name, _) in walk::list(&dir)? {
        let is_ours = [WORK, COVER].iter().any(|own| name == *own) || is_root(&name);
        if is_ours && Some(name.as_os_str()) != keep {
            walk::remove(&dir, &name)?;
        }
    }
    Ok(())
}

fn is_root(name: &OsStr) -> bool {
    let number = name.as_bytes().strip_prefix(ROOT.as_bytes()).and_then(|rest| rest.strip_prefix(b"-"));
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}
