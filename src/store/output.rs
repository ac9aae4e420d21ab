//! Where an output is, and where its state directory is or is to be.
//!
//! Invariant (journal-spec.md, "Layout"): the state directory is on the output's file system and mount, so that every entry can be
//! renamed from one to the other.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, MAKE_STATE, Misplaced, Result};
use crate::fs::tree::Tree;
use crate::fs::{Attribute, Fs, Kind, Stat, found, is_not_directory};
use crate::path::{NAME_MAX, RESERVED, RelPath, Shown};
use crate::store::layout::{is_state_name, name, state_path};
use crate::store::resolve::resolve;
use crate::store::trust::{Sharing, another_user, trusted};
use crate::store::whereabouts::{self, Signpost, Way};

/// Where the state directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// `.NAME.txfs`, the output's sibling.
    Beside,
    /// `.txfs` in the output: it is a mount point, or nothing can be made beside it, or moved between there and the output.
    Inside,
    /// Where the user chose ([`OpenOptions::state`](crate::OpenOptions::state)).
    Elsewhere,
}

/// Where an output is; it need not exist.
pub(crate) struct Output<F: Fs> {
    pub(crate) path: PathBuf,
    pub(crate) place: Place,
    /// The directory that holds it.
    pub(crate) holder: Tree<F>,
    pub(crate) name: RelPath,
    /// Whether it is there.
    pub(crate) exists: bool,
    /// Where its state is.
    state_path: PathBuf,
    /// Whether the user said so by a relative path.
    way: Option<Way>,
    /// Whether the caller wants a store that a group shares.
    sharing: Option<Sharing>,
}

/// What is found of an output's state.
enum Found {
    Nothing,
    At(Place, PathBuf),
    /// It is somebody else's to reach: nothing can be moved between there and here.
    OutOfReach(PathBuf),
    /// The signpost leads there, and nothing is there.
    Gone(PathBuf),
}

impl<F: Fs> Output<F> {
    /// Resolves what the user called the output, and finds its state, or where that is to be: where the user chose, if one is
    /// `chosen`. A symbolic link is followed, and stays one.
    pub(crate) fn locate(fs: &F, out: &Path, chosen: Option<&Path>, sharing: Option<Sharing>) -> Result<Self> {
        let (path, exists) = resolve(fs, out)?;
        let refused = |what: &str| Error::NotAnOutput { path: out.to_path_buf(), what: what.to_owned() };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(refused("the root of the file system cannot be an output"));
        };
        let name = RelPath::new(name.as_bytes()).map_err(|error| refused(&error.to_string()))?;
        let holder = Tree::open(fs, parent)?;
        let mut output =
            Self { place: Place::Beside, holder, name, path, exists, state_path: PathBuf::new(), way: None, sharing };
        output.way = chosen.filter(|chosen| chosen.is_relative()).map(|_| Way::Relative);
        output.refuse_inside_state()?;
        let is_long = output.sibling_name().len() > NAME_MAX;
        (output.place, output.state_path) = match (output.find_state()?, chosen) {
            (Found::At(place, state), None) => (place, state),
            (Found::At(place, state), Some(chosen)) => match output.choose(chosen)?.1 == state {
                true => (place, state),
                false => return Err(output.has_state(&state)),
            },
            (Found::Nothing, None) if exists && (is_long || output.is_mounted()?) => output.inside(),
            (Found::Nothing, None) => (Place::Beside, output.sibling()),
            (Found::OutOfReach(state), None) => return Err(output.out_of_reach(&state)),
            (Found::Gone(state), Some(chosen)) => output.follow_move(state, chosen)?,
            (Found::Gone(state), None) => return Err(output.gone(state)),
            (Found::Nothing | Found::OutOfReach(_), Some(chosen)) => output.choose(chosen)?,
        };
        // Nor could one that is elsewhere be found again from here.
        if is_long && output.place != Place::Inside {
            return Err(refused(
                "its name is too long for a state directory beside it, `.NAME.txfs`: make the directory first, so that its \
                 state can be inside it, or give it a shorter name",
            ));
        }
        Ok(output)
    }

    /// What is published inside a state directory would take it apart.
    fn refuse_inside_state(&self) -> Result<()> {
        let is_state =
            |dir: &&Path| dir.file_name().is_some_and(|name| is_state_name(name.as_bytes())) && self.holds_store(dir);
        let Some(state) = self.path.ancestors().find(is_state) else { return Ok(()) };
        let what = format!("it is in {}, where txfs keeps the state of another output", Shown(state));
        Err(Error::NotAnOutput { path: self.path.clone(), what })
    }

    fn holds_store(&self, dir: &Path) -> bool {
        self.holds(dir, name::STORE)
    }

    fn holds(&self, dir: &Path, name: &str) -> bool {
        let fs = &self.holder.fs;
        fs.open_anchor(dir).is_ok_and(|dir| fs.stat(&dir, name.as_bytes()).is_ok())
    }

    fn find_state(&self) -> Result<Found> {
        let sibling = RelPath::new(self.sibling_name()).ok().filter(|name| name.as_bytes().len() <= NAME_MAX);
        let beside = match &sibling {
            Some(sibling) => self.holder.stat(sibling)?.filter(Stat::is_dir),
            None => None,
        };
        let signpost = match (&beside, &sibling) {
            (Some(stat), Some(sibling)) if stat.uid == self.holder.fs.user() || self.sharing.is_some() => {
                whereabouts::read_signpost(&self.holder, sibling, &self.path)?
            }
            _ => None,
        };
        let output = self.open_itself()?;
        // Where it cannot be told, a state must not be taken for missing: another would be made. Only what may not be searched has none
        // that could be used.
        let has_inside = match output.as_ref().map(|dir| found(self.holder.fs.stat(dir, RESERVED))) {
            Some(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => false,
            Some(stat) => {
                stat.map_err(Error::io("look for the state in", &self.path))?.is_some_and(|stat| stat.is_dir())
            }
            None => false,
        };
        let mark = output.as_ref().and_then(|output| whereabouts::read_mark(&self.holder.fs, output));
        let inside = || Found::At(Place::Inside, self.inside().1);
        if self.exists && self.is_mounted()? {
            return Ok(match has_inside {
                true => inside(),
                false => self.find_from_mount(signpost.map(|post| post.state), mark, beside, output.as_ref()),
            });
        }
        if let Some(post) = signpost {
            return self.follow_signpost(post);
        }
        let has_store = |dir: &Path| self.holds_store(dir);
        if beside.is_some() && !(has_inside && !has_store(&self.sibling()) && has_store(&self.inside().1)) {
            return Ok(Found::At(Place::Beside, self.sibling()));
        }
        if has_inside {
            return Ok(inside());
        }
        match mark {
            Some(state) if state != self.sibling() && has_store(&state) => self.follow_mark(state),
            // It was lost: nothing of it is left to be found.
            _ => Ok(Found::Nothing),
        }
    }

    /// From a mount, through which nothing moves, and in which no state is. That there is one elsewhere tells the mark. Where it has none,
    /// a state beside it tells: on the same device, which only another view of the output can have; or with a generation, for the mount
    /// took the place of what was published with it.
    fn find_from_mount(
        &self,
        signpost: Option<PathBuf>,
        mark: Option<PathBuf>,
        beside: Option<Stat>,
        output: Option<&F::Dir>,
    ) -> Found {
        let device = output.and_then(|output| self.holder.fs.stat_dir(output).ok()).map(|stat| stat.dev);
        let is_here = beside.is_some_and(|stat| Some(stat.dev) == device);
        let seen = signpost.or_else(|| self.holds_store(&self.sibling()).then(|| self.sibling()));
        let seen = seen.filter(|state| is_here || self.holds(state, name::HEAD));
        mark.or(seen).map_or(Found::Nothing, Found::OutOfReach)
    }

    fn follow_signpost(&self, Signpost { state, is_own }: Signpost) -> Result<Found> {
        let signpost = self.sibling();
        if !self.holds_store(&state) {
            return Ok(Found::Gone(state));
        }
        if !is_own && !self.is_shared_and_ours(&state)? {
            return Err(self.misplaced(Misplaced::OfAnotherUser { state, signpost }));
        }
        match self.other_output(&state)? {
            None => Ok(Found::At(Place::Elsewhere, state)),
            Some(other) => Err(self.misplaced(Misplaced::OfAnotherOutput { state, signpost, other })),
        }
    }

    fn gone(&self, state: PathBuf) -> Error {
        self.misplaced(Misplaced::Gone { state, signpost: self.sibling() })
    }

    /// The state was moved from where the signpost leads to the place that the user names, if what is there led to this output from one
    /// of the two.
    fn follow_move(&self, gone: PathBuf, chosen: &Path) -> Result<(Place, PathBuf)> {
        let (place, state) = self.choose(chosen)?;
        if !self.holds_store(&state) {
            return Err(self.gone(gone));
        }
        let tree = self.open_trusted_state(&state)?;
        let is_ours = [tree.at(), &gone].map(|at| whereabouts::record_from(&tree, at));
        for recorded in is_ours {
            if recorded?.as_deref() == Some(&self.path) {
                return Ok((place, state));
            }
        }
        Err(self.gone(gone))
    }

    fn misplaced(&self, why: Misplaced) -> Error {
        Error::StateElsewhere { path: self.path.clone(), why: Box::new(why) }
    }

    /// The output was moved away from its state, or its signpost was removed.
    fn follow_mark(&self, state: PathBuf) -> Result<Found> {
        // Somebody else may have written the mark.
        let Ok(tree) = self.open_trusted_state(&state) else { return Ok(Found::Nothing) };
        if whereabouts::read_record(&tree)?.is_some() {
            let other = self.other_output(&state)?;
            return Ok(if other.is_none() { Found::At(Place::Elsewhere, state) } else { Found::Nothing });
        }
        if named_by(&state).is_none_or(|output| self.holder.fs.open_anchor(&output).is_ok()) {
            return Ok(Found::Nothing);
        }
        Err(self.misplaced(Misplaced::LeftBehind { state, beside: self.sibling() }))
    }

    /// The output that a state belongs to, if that is another one, and there.
    fn other_output(&self, state: &Path) -> Result<Option<PathBuf>> {
        let recorded = whereabouts::read_record(&self.open_trusted_state(state)?)?;
        Ok(recorded.filter(|output| *output != self.path && self.is_there_and_other(output)))
    }

    fn open_trusted_state(&self, state: &Path) -> Result<Tree<F>> {
        trusted(Tree::open(&self.holder.fs, state)?, &self.path, self.sharing)
    }

    /// Whether a group shares a state that was made for this very output.
    fn is_shared_and_ours(&self, state: &Path) -> Result<bool> {
        let state = self.open_trusted_state(state)?;
        Ok(state.group().is_some() && whereabouts::read_record(&state)?.as_deref() == Some(&self.path))
    }

    fn is_there_and_other(&self, output: &Path) -> bool {
        let fs = &self.holder.fs;
        let Some(other) = fs.open_anchor(output).and_then(|dir| fs.stat_dir(&dir)).ok() else { return false };
        let this = fs.open_anchor(&self.path).and_then(|dir| fs.stat_dir(&dir)).ok();
        !this.is_some_and(|this| this.is_same_entry(&other))
    }

    fn has_state(&self, state: &Path) -> Error {
        self.misplaced(Misplaced::There { state: state.to_path_buf() })
    }

    fn out_of_reach(&self, state: &Path) -> Error {
        self.misplaced(Misplaced::OutOfReach { state: state.to_path_buf(), inside: self.inside().1 })
    }

    /// The place that the user names: the state directory itself, if it has the name of one, or the directory that is to hold it.
    fn choose(&self, chosen: &Path) -> Result<(Place, PathBuf)> {
        let given = chosen;
        let chosen = whereabouts::resolve_new(&self.holder.fs, chosen)?;
        let is_state = chosen.file_name().is_some_and(|name| is_state_name(name.as_bytes()));
        let sibling = self.sibling();
        let state = match sibling.file_name() {
            _ if is_state => chosen,
            _ if chosen == self.path => self.inside().1,
            Some(name) => chosen.join(name),
            None => chosen,
        };
        match () {
            () if state == sibling => Ok((Place::Beside, state)),
            () if state == self.inside().1 && self.exists => Ok(self.inside()),
            () if state.starts_with(&self.path) => {
                Err(Error::StateElsewhere { path: given.to_path_buf(), why: Box::new(Misplaced::InsideOutput) })
            }
            () => Ok((Place::Elsewhere, state)),
        }
    }

    /// The output, through a mount, too.
    fn open_itself(&self) -> Result<Option<F::Dir>> {
        if !self.exists {
            return Ok(None);
        }
        let fs = &self.holder.fs;
        let opened = match fs.open_dir(self.holder.root(), &self.name) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => fs.open_anchor(&self.path),
            opened => opened,
        };
        found(opened).map_err(self.not_opened())
    }

    /// Whether it is a mount of its own, or a file system's own part (a subvolume): nothing can be moved between it and a sibling.
    fn is_mounted(&self) -> Result<bool> {
        let fs = &self.holder.fs;
        let output = match found(fs.open_dir(self.holder.root(), &self.name)) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return Ok(true),
            result => result.map_err(self.not_opened())?,
        };
        let Some(output) = output else { return Ok(false) };
        let beside = fs.stat_dir(self.holder.root()).map_err(Error::io("read the attributes of", self.holder.at()))?;
        let within = fs.stat_dir(&output).map_err(Error::io("read the attributes of", &self.path))?;
        Ok(beside.dev != within.dev)
    }

    fn sibling_name(&self) -> Vec<u8> {
        [b".", self.name.as_bytes(), b".txfs"].concat()
    }

    fn sibling(&self) -> PathBuf {
        self.holder.at().join(OsStr::from_bytes(&self.sibling_name()))
    }

    fn inside(&self) -> (Place, PathBuf) {
        (Place::Inside, self.path.join(OsStr::from_bytes(RESERVED)))
    }

    /// The output itself, if it is there.
    pub(crate) fn open(&self) -> Result<Option<Tree<F>>> {
        if self.place == Place::Inside {
            return Tree::open(&self.holder.fs, &self.path).map(Some);
        }
        let root = found(self.holder.fs.open_dir(self.holder.root(), &self.name));
        let root = root.map_err(self.not_opened())?;
        Ok(root.map(|root| Tree::new(&self.holder.fs, root, &self.path)))
    }

    fn not_opened(&self) -> impl FnOnce(io::Error) -> Error {
        let path = self.path.clone();
        |error| match is_not_directory(&error) {
            true => Error::NotAnOutput { path, what: "it is not a directory, so it cannot be an output".into() },
            false => Error::io("open the output", path)(error),
        }
    }

    /// The state directory, if it is there, and is to be believed.
    pub(crate) fn find_trusted_state(&self) -> Result<Option<Tree<F>>> {
        self.open_state()?.map(|state| trusted(state, &self.path, self.sharing)).transpose()
    }

    /// The state directory, if it is there.
    fn open_state(&self) -> Result<Option<Tree<F>>> {
        let (tree, name) = self.state_location()?;
        let Some(tree) = tree else { return Ok(None) };
        let root = found(tree.fs.open_dir(tree.root(), &name));
        let at = self.state_path.clone();
        match root {
            Err(error) if is_not_directory(&error) => Err(Error::not_a_directory(at)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(self.not_ours(&tree, &name, error)),
            Err(error) => Err(Error::io("open the state directory", at)(error)),
            Ok(root) => Ok(root.map(|root| Tree::new(&tree.fs, root, at))),
        }
    }

    /// A state directory that cannot be opened: most likely another user's.
    fn not_ours(&self, tree: &Tree<F>, name: &RelPath, error: io::Error) -> Error {
        match tree.fs.stat(tree.root(), name.as_bytes()) {
            Ok(stat) if stat.uid != tree.fs.user() => another_user(&tree.fs, &self.state_path, &stat, &self.path),
            _ => Error::io("open the state directory", &self.state_path)(error),
        }
    }

    /// The directory that holds the state directory, if it is there, and the name in it.
    pub(crate) fn state_location(&self) -> Result<(Option<Tree<F>>, RelPath)> {
        let (tree, name) = match (self.place, self.state_path.file_name()) {
            (Place::Inside, _) => (self.open()?, RESERVED.to_vec()),
            (Place::Elsewhere, Some(name)) => {
                let holder = self.state_path.parent().unwrap_or(&self.state_path);
                let opened = found(self.holder.fs.open_anchor(holder));
                let root = opened.map_err(Error::io("open the directory", holder))?;
                (root.map(|root| Tree::new(&self.holder.fs, root, holder)), name.as_bytes().to_vec())
            }
            _ => (Some(self.holder.clone()), self.sibling_name()),
        };
        let name = RelPath::new(name).map_err(|error| Error::corrupt(&self.state_path, error))?;
        Ok((tree, name))
    }

    /// Makes the state directory; inside the output where nothing can be made beside it. Says whether it was not there.
    pub(crate) fn make_state(&mut self) -> Result<(Tree<F>, bool)> {
        if let (Place::Elsewhere, Some(holder)) = (self.place, self.state_path.parent()) {
            whereabouts::make_dirs(&self.holder.fs, holder)?;
        }
        let (tree, name) = self.state_location()?;
        let made = match &tree {
            Some(tree) => tree.fs.make_dir(tree.root(), name.as_bytes(), 0o700),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match made {
            Err(error) if self.place == Place::Beside && is_refusal(&error) && self.open()?.is_some() => {
                self.move_inside();
                return self.make_state();
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io(MAKE_STATE, &self.state_path)(error));
            }
            _ => {}
        }
        let state = self.open_state()?;
        let gone = || Error::corrupt(&self.state_path, "it went away while it was being made");
        Ok((state.ok_or_else(gone)?, made.is_ok()))
    }

    /// Takes away a state directory that was made just now, with all that is in it.
    pub(crate) fn remove_state(&self, state: &Tree<F>) -> Result<()> {
        let (Some(holder), name) = self.state_location()? else { return Ok(()) };
        // One that turns out to be another user's could not be looked into; an empty one goes all the same.
        if holder.remove_entry(&name, Kind::Directory).is_ok() {
            return Ok(());
        }
        state.forget();
        state.remove_below(&RelPath::root())?;
        holder.remove_entry(&name, Kind::Directory)
    }

    /// Has the state inside the output: what is beside it is of no use.
    pub(crate) fn move_inside(&mut self) {
        (self.place, self.state_path) = self.inside();
    }

    /// Writes down where output and state are, for those who come by another way. That the output cannot be marked hinders nothing.
    pub(crate) fn remember(&self, state: &Tree<F>) -> Result<()> {
        match self.place {
            Place::Elsewhere => self.put_up_signpost(state)?,
            Place::Beside | Place::Inside => self.take_down_signpost(state)?,
        }
        self.mark();
        Ok(())
    }

    /// A state that was moved to where it is found without one would be taken for that of another output by what it says.
    fn take_down_signpost(&self, state: &Tree<F>) -> Result<()> {
        state.remove_entry(&state_path(name::OUTPUT), Kind::File)?;
        match RelPath::new(self.sibling_name()) {
            Ok(sibling) if self.place == Place::Inside && whereabouts::is_signpost(&self.holder, &sibling)? => {
                whereabouts::remove_signpost(&self.holder, &sibling);
            }
            _ => {}
        }
        Ok(())
    }

    fn put_up_signpost(&self, state: &Tree<F>) -> Result<()> {
        let below = state.at().starts_with(self.holder.at()).then_some(Way::Relative);
        let by = self.way.or(below).or(whereabouts::way_of_record(state)?).unwrap_or(Way::Absolute);
        if whereabouts::read_record(state)?.as_deref() != Some(&self.path) {
            whereabouts::write_record(state, &self.path, by)?;
        }
        let sibling = RelPath::new(self.sibling_name()).map_err(|error| Error::corrupt(self.sibling(), error))?;
        let signpost = whereabouts::read_signpost(&self.holder, &sibling, &self.path)?;
        if signpost.is_some_and(|post| post.state == state.at()) {
            return Ok(());
        }
        match whereabouts::write_signpost(&self.holder, &sibling, state, by) {
            // Then nobody who cannot do so either can remove the output, and its mark leads to the state.
            Err(Error::Io { source, .. }) if is_refusal(&source) && self.exists => Ok(()),
            written => written,
        }
    }

    /// Takes away what was written down beside the output and on it of a state that is gone. What stays does no harm.
    pub(crate) fn forget(&self) {
        let fs = &self.holder.fs;
        if let Ok(Some(output)) = self.open()
            && whereabouts::read_mark(fs, output.root()).as_deref() == Some(&self.state_path)
        {
            let _ = fs.set_attribute(output.root(), Attribute::Mark, None);
        }
        if self.place == Place::Elsewhere
            && let Ok(sibling) = RelPath::new(self.sibling_name())
        {
            whereabouts::remove_signpost(&self.holder, &sibling);
        }
    }

    /// Marks the output, if it is there, with the place of its state.
    pub(crate) fn mark(&self) {
        if self.place != Place::Inside
            && let Ok(Some(output)) = self.open()
        {
            self.mark_as_output(output.root());
        }
    }

    /// Marks a directory that is the output, or will be.
    pub(crate) fn mark_as_output(&self, output: &F::Dir) {
        if self.place != Place::Inside {
            // No commit depends on it, and not every file system can keep it.
            let _ = whereabouts::set_mark(&self.holder.fs, output, &self.state_path);
        }
    }
}

/// The output that a state directory of this name lies beside.
fn named_by(state: &Path) -> Option<PathBuf> {
    let output = state.file_name()?.as_bytes().strip_prefix(b".")?.strip_suffix(RESERVED)?;
    (!output.is_empty()).then(|| state.with_file_name(OsStr::from_bytes(output)))
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}
