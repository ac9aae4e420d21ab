//! Where an output is, and where its state directory is or is to be.
//!
//! Invariant (journal-spec.md, "Layout"): the state directory is on the output's file system and mount, so that every entry can be
//! renamed from one to the other.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::fs::tree::Tree;
use crate::fs::{Fs, found, is_not_directory};
use crate::layout::{another_user, is_state_name, name};
use crate::path::{NAME_MAX, RESERVED, RelPath, Shown};

/// Where the state directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// `.NAME.txfs`, the output's sibling.
    Beside,
    /// `.txfs` in the output: it is a mount point, or nothing can be made beside it.
    Inside,
}

/// Where an output is; it need not exist.
pub(crate) struct Output<F: Fs> {
    pub(crate) path: PathBuf,
    pub(crate) place: Place,
    /// The directory that holds it.
    pub(crate) holder: Tree<F>,
    pub(crate) name: RelPath,
}

impl<F: Fs> Output<F> {
    /// Resolves what the user called the output. A symbolic link is followed, and stays one.
    pub(crate) fn locate(fs: &F, out: &Path) -> Result<Self> {
        let (path, exists) = resolve(fs, out)?;
        let usage = |what: &str| Error::Usage { path: out.to_path_buf(), what: what.to_owned() };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(usage("the root of the file system cannot be an output"));
        };
        let name = RelPath::new(name.as_bytes()).map_err(|error| usage(&error.to_string()))?;
        let holder = Tree::open(fs, parent)?;
        let mut output = Self { place: Place::Beside, holder, name, path };
        output.refuse_inside_state()?;
        if exists && output.must_hold_state()? {
            output.place = Place::Inside;
        } else if output.sibling().len() > NAME_MAX {
            return Err(usage(
                "its name is too long for a state directory beside it, `.NAME.txfs`: make the directory first, so that its \
                 state can be inside it, or give it a shorter name",
            ));
        }
        Ok(output)
    }

    /// What is published inside a state directory would take it apart.
    fn refuse_inside_state(&self) -> Result<()> {
        let fs = &self.holder.fs;
        let is_state = |dir: &&Path| {
            dir.file_name().is_some_and(|name| is_state_name(name.as_bytes()))
                && fs.open_anchor(dir).is_ok_and(|dir| fs.stat(&dir, name::STORE.as_bytes()).is_ok())
        };
        let Some(state) = self.path.ancestors().find(is_state) else { return Ok(()) };
        let what = format!("it is in {}, where txfs keeps the state of another output", Shown(state));
        Err(Error::Usage { path: self.path.clone(), what })
    }

    /// Whether the state has to be inside: entries cannot be renamed between the output and a sibling of it.
    fn must_hold_state(&self) -> Result<bool> {
        let fs = &self.holder.fs;
        let output = match fs.open_dir(self.holder.root(), &self.name) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => return Ok(true),
            result => result.map_err(self.not_opened())?,
        };
        let beside = fs.stat_dir(self.holder.root()).map_err(Error::io("read the attributes of", self.holder.at()))?;
        let within = fs.stat_dir(&output).map_err(Error::io("read the attributes of", &self.path))?;
        let has_state = |dir: &F::Dir, name: &[u8]| fs.stat(dir, name).is_ok_and(|stat| stat.is_dir());
        let inside_only = has_state(&output, RESERVED) && !has_state(self.holder.root(), &self.sibling());
        Ok(beside.dev != within.dev || inside_only || self.sibling().len() > NAME_MAX)
    }

    fn sibling(&self) -> Vec<u8> {
        [b".", self.name.as_bytes(), b".txfs"].concat()
    }

    /// The state directory's path.
    pub(crate) fn state_path(&self) -> PathBuf {
        match self.place {
            Place::Beside => self.holder.at().join(OsStr::from_bytes(&self.sibling())),
            Place::Inside => self.path.join(OsStr::from_bytes(RESERVED)),
        }
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
            true => Error::Usage { path, what: "it is not a directory, so it cannot be an output".into() },
            false => Error::io("open the output", path)(error),
        }
    }

    /// The state directory, if it is there.
    pub(crate) fn open_state(&self) -> Result<Option<Tree<F>>> {
        let (tree, name) = self.state_location()?;
        let Some(tree) = tree else { return Ok(None) };
        let root = found(tree.fs.open_dir(tree.root(), &name));
        let at = self.state_path();
        match root {
            Err(error) if is_not_directory(&error) => {
                Err(Error::Untrusted { path: at, what: "it is not a directory: move it away".into() })
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(self.not_ours(&tree, &name, error)),
            Err(error) => Err(Error::io("open the state directory", at)(error)),
            Ok(root) => Ok(root.map(|root| Tree::new(&tree.fs, root, at))),
        }
    }

    /// A state directory that cannot be opened: most likely another user's.
    fn not_ours(&self, tree: &Tree<F>, name: &RelPath, error: io::Error) -> Error {
        match tree.fs.stat(tree.root(), name.as_bytes()) {
            Ok(stat) if stat.uid != tree.fs.user() => another_user(self.state_path(), stat.uid, tree.fs.user()),
            _ => Error::io("open the state directory", self.state_path())(error),
        }
    }

    /// The directory that holds the state directory, and the name in it.
    fn state_location(&self) -> Result<(Option<Tree<F>>, RelPath)> {
        let (tree, name) = match self.place {
            Place::Beside => (Some(self.holder.clone()), self.sibling()),
            Place::Inside => (self.open()?, RESERVED.to_vec()),
        };
        let name = RelPath::new(name).map_err(|error| Error::corrupt(self.state_path(), error))?;
        Ok((tree, name))
    }

    /// Makes the state directory; inside the output where nothing can be made beside it.
    pub(crate) fn make_state(&mut self) -> Result<Tree<F>> {
        let (tree, name) = self.state_location()?;
        let made = match &tree {
            Some(tree) => tree.fs.make_dir(tree.root(), name.as_bytes(), 0o700),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        match made {
            Err(error) if self.place == Place::Beside && is_refusal(&error) && self.open()?.is_some() => {
                self.place = Place::Inside;
                return self.make_state();
            }
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io("make the state directory", self.state_path())(error));
            }
            _ => {}
        }
        self.open_state()?.ok_or_else(|| Error::corrupt(self.state_path(), "it went away while it was being made"))
    }
}

fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// The canonical path of an output, and whether it is there.
fn resolve<F: Fs>(fs: &F, out: &Path) -> Result<(PathBuf, bool)> {
    const LINKS_MAX: usize = 40;
    // Without a slash at the end, which would lead through a link before it can be read.
    let mut out: PathBuf = out.components().collect();
    for _ in 0..LINKS_MAX {
        match fs.resolve(&out) {
            Ok(path) => return Ok((path, true)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("find the output", &out)(error)),
        }
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        if let Ok(target) = fs.read_anchor_link(&out) {
            out = parent.join(target);
            continue;
        }
        let Some(name) = out.file_name() else {
            return Err(Error::Usage { path: out, what: "this names no directory".into() });
        };
        return match fs.resolve(&parent) {
            Ok(parent) => Ok((parent.join(name), false)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Usage {
                path: parent,
                what: "the directory that is to hold the output is not there: make it first".into(),
            }),
            Err(error) => Err(Error::io("find the directory of the output", parent)(error)),
        };
    }
    Err(Error::Usage { path: out, what: "too many symbolic links".into() })
}
