//! Reading a generation back: what its manifest lists, and the bytes of that, or an error; never those of another generation.
//!
//! Invariants:
//! 1. What is handed out is what the manifest of the generation says: a file by the identity of the descriptor that is handed out, what
//!    is read whole by its digest. It is looked at after it was opened, so that nothing can come between.
//! 2. No lock is taken, and nothing is written: no commit waits for a reader, and none of its own.
//!
//! A crash inside leaves nothing.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::format::identity::{Digest, Object};
use crate::format::manifest::inventory::Inventory;
use crate::format::manifest::{Entry, Info, Totals};
use crate::fs::compiled::{compiled, same_ref};
use crate::fs::stream::Stream;
use crate::fs::tree::Tree;
use crate::fs::{Fs, Kind, LinuxFs, Stat};
use crate::path::RelPath;
use crate::store::Store;
use crate::store::current::Current;
use crate::store::displaced::Displaced;

/// Memory that is taken for a file before it is read, at most: a manifest may be wrong about its size.
const AHEAD: u64 = 1 << 20;

/// What one generation publishes, to be read ([`Store::snapshot`]).
///
/// It stays the snapshot of its generation, whatever is committed meanwhile. But it keeps nothing alive: what a later commit replaced or
/// removed can be listed and not be opened any more ([`Error::NotAsPublished`]). What that left alone can be opened still, and a file
/// that is open stays as it is.
pub struct Snapshot<F: Fs = LinuxFs> {
    store: Store<F>,
    current: Current<F>,
    output: Option<Tree<F>>,
    /// What was displaced since, the oldest first.
    since: Vec<Displaced<F>>,
}

impl<F: Fs> Store<F> {
    /// The current generation, to be read: the one that was committed last, also while another one is being committed. Where nothing has
    /// been published it is generation 0, in which there is nothing. It costs reading HEAD and the root of the manifest, and takes no lock.
    ///
    /// ```
    /// use std::io::Read;
    /// use txfs::{BeginOptions, CommitOptions, Error, Store};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let dist = dir.path().join("dist");
    /// let store = Store::open(&dist)?;
    /// let publish = |text: &str| {
    ///     let mut transaction = store.begin(BeginOptions::default())?;
    ///     transaction.write("index.html", text)?;
    ///     transaction.write("about.html", "About")?;
    ///     transaction.commit(&CommitOptions::default())
    /// };
    /// publish("one")?;
    /// let snapshot = store.snapshot()?;
    /// assert_eq!(snapshot.generation(), 1);
    /// for entry in snapshot.entries() {
    ///     let entry = entry?;
    ///     println!("{} {} {}", entry.path, entry.object.size, entry.object.digest);
    /// }
    /// let mut text = String::new();
    /// snapshot.open("index.html")?.read_to_string(&mut text)?;
    /// assert_eq!(text, "one");
    ///
    /// publish("two")?;
    /// assert!(matches!(snapshot.read("index.html"), Err(Error::NotAsPublished { .. })));
    /// assert_eq!(snapshot.read("about.html")?, b"About");
    /// assert_eq!(store.snapshot()?.read("index.html")?, b"two");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The state directory or the output cannot be read; [`Error::Corrupt`].
    pub fn snapshot(&self) -> Result<Snapshot<F>> {
        compiled!(F, (store: &Store = same_ref(self)) -> Result<Snapshot> { store.snapshot_any() });
        self.snapshot_any()
    }

    fn snapshot_any(&self) -> Result<Snapshot<F>> {
        loop {
            let head = self.head()?;
            match self.current_of(head.clone()) {
                Ok(current) => {
                    let (output, since) = (self.output.open()?, Vec::new());
                    return Ok(Snapshot { store: self.clone(), current, output, since });
                }
                // Commits that came meanwhile may have removed it. That they go on doing so between two calls is nothing to wait for:
                // each of them takes longer.
                Err(error) if self.head()? == head => return Err(error),
                Err(_) => {}
            }
        }
    }
}

impl<F: Fs> Snapshot<F> {
    /// Of an earlier generation, which was current until what these displaced was taken from it.
    pub(crate) fn before(self, current: Current<F>, since: Vec<Displaced<F>>) -> Self {
        Self { current, since, ..self }
    }

    /// The number of the generation; 0 where nothing has been published.
    pub fn generation(&self) -> u64 {
        self.current.generation()
    }

    /// Number, time and message of the generation; `None` where nothing has been published.
    pub fn info(&self) -> Option<&Info> {
        self.current.head().map(|head| &head.info)
    }

    /// How much it publishes.
    pub fn totals(&self) -> Totals {
        self.current.inventory.totals()
    }

    /// Everything that it publishes, directories before what is in them, in order of their names' bytes: path, kind, mode, size and digest. It
    /// reads the manifest on the way, and nothing of the output. After an error it ends.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry>> + '_ {
        self.current.inventory.entries()
    }

    /// What it publishes at a path. It reads as much of the manifest as lies on the way there.
    ///
    /// # Errors
    /// [`Error::NoPath`]; the manifest cannot be read, or is damaged.
    pub fn get(&self, path: impl AsRef<Path>) -> Result<Option<Object>> {
        self.get_any(path.as_ref())
    }

    fn get_any(&self, path: &Path) -> Result<Option<Object>> {
        compiled!(F, (snapshot: &Snapshot = same_ref(self), path: &Path = path) -> Result<Option<Object>> {
            snapshot.current.inventory.get(&parse(path)?)
        });
        self.current.inventory.get(&parse(path)?)
    }

    /// Opens a file, with the content that this generation has of it: by its inode, size and time, of which the manifest tells. So it costs what
    /// opening a file costs. A change of the content in place that put size and time back is not noticed; [`Snapshot::read`] notices it.
    ///
    /// # Errors
    /// [`Error::NotAsPublished`] when it is not there any more as it was published: a later commit, or somebody else, replaced, removed or
    /// changed it. [`Error::NotPublished`] when the generation has no file there; [`Error::NoPath`]; it cannot be opened.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<F::File> {
        self.open_any(path.as_ref())
    }

    fn open_any(&self, path: &Path) -> Result<F::File> {
        compiled!(F, (snapshot: &Snapshot = same_ref(self), path: &Path = path) -> Result<<LinuxFs as Fs>::File> {
            snapshot.open_file(path)
        });
        self.open_file(path)
    }

    fn open_file(&self, path: &Path) -> Result<F::File> {
        let path = parse(path)?;
        let object = self.expect(&path, Kind::File)?;
        let (file, stat) = self.open_place(&path)?;
        if object.is(&stat) { Ok(file) } else { Err(self.not_as_published(&path)) }
    }

    /// Reads a whole file, and compares it with the digest that the manifest has of it: what is returned is, byte for byte, what was
    /// published. It is returned also where its inode or time is another, as after the output was copied to another place.
    ///
    /// # Errors
    /// As [`Snapshot::open`].
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        self.read_any(path.as_ref())
    }

    fn read_any(&self, path: &Path) -> Result<Vec<u8>> {
        compiled!(F, (snapshot: &Snapshot = same_ref(self), path: &Path = path) -> Result<Vec<u8>> {
            snapshot.read_file(path)
        });
        self.read_file(path)
    }

    fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        let path = parse(path)?;
        let object = self.expect(&path, Kind::File)?;
        let (file, stat) = self.open_place(&path)?;
        if stat.size != object.size {
            return Err(self.not_as_published(&path));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(object.size.min(AHEAD)).unwrap_or_default());
        let stream = Stream { fs: self.store.fs.clone(), file };
        let read = stream.take(object.size.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(Error::io("read", path.under(&self.store.output.path)))?;
        self.checked(&path, &object, bytes)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// As [`Snapshot::open`]; [`Error::NotPublished`] when the generation has no link there.
    pub fn read_link(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        self.read_link_any(path.as_ref())
    }

    fn read_link_any(&self, path: &Path) -> Result<PathBuf> {
        compiled!(F, (snapshot: &Snapshot = same_ref(self), path: &Path = path) -> Result<PathBuf> {
            snapshot.read_symlink(path)
        });
        self.read_symlink(path)
    }

    fn read_symlink(&self, path: &Path) -> Result<PathBuf> {
        let path = parse(path)?;
        let object = self.expect(&path, Kind::Symlink)?;
        let target = self.look(&path, |tree, at| tree.parent(at).and_then(|dir| tree.fs.read_link(&dir, at.name())))?;
        Ok(OsString::from_vec(self.checked(&path, &object, target)?).into())
    }

    fn expect(&self, path: &RelPath, kind: Kind) -> Result<Object> {
        let object = self.current.inventory.get(path)?.filter(|object| object.kind == kind);
        let path = || path.under(&self.store.output.path);
        object.ok_or_else(|| Error::NotPublished { path: path(), generation: self.generation(), what: kind.word() })
    }

    fn open_place(&self, path: &RelPath) -> Result<(F::File, Stat)> {
        self.look(path, |tree, at| tree.parent(at).and_then(|dir| tree.fs.open_file(&dir, at.name())))
    }

    /// What is there is not what was published where it is none, or of another kind.
    fn look<T>(&self, path: &RelPath, look: impl Fn(&Tree<F>, &RelPath) -> io::Result<T>) -> Result<T> {
        let Some((tree, at)) = self.place(path) else { return Err(self.not_as_published(path)) };
        // A directory that it remembers may have changed places since.
        tree.forget();
        look(tree, &at).map_err(|source| match Error::io("read", at.under(tree.at()))(source) {
            Error::Io { source, .. } if source.kind() == io::ErrorKind::InvalidInput => self.not_as_published(path),
            error if error.is_of_surroundings() => self.not_as_published(path),
            error => error,
        })
    }

    /// Where a path is: where the first commit put it that displaced it, or else in the output.
    fn place(&self, path: &RelPath) -> Option<(&Tree<F>, RelPath)> {
        let displaced = self.since.iter().find_map(|since| Some((&since.tree, since.place(path)?)));
        displaced.or_else(|| self.output.as_ref().map(|output| (output, path.clone())))
    }

    /// Every entry, and where it is.
    pub(crate) fn places(&self) -> Result<Vec<(Entry, &Tree<F>, RelPath)>> {
        let mut places = Vec::new();
        for entry in self.entries() {
            let entry = entry?;
            let Some((tree, place)) = self.place(&entry.path) else { return Err(self.not_as_published(&entry.path)) };
            places.push((entry, tree, place));
        }
        Ok(places)
    }

    pub(crate) fn inventory(&self) -> &Inventory<F> {
        &self.current.inventory
    }

    pub(crate) fn fs(&self) -> &F {
        &self.store.fs
    }

    fn checked(&self, path: &RelPath, object: &Object, bytes: Vec<u8>) -> Result<Vec<u8>> {
        if Digest::of(&bytes) == object.digest { Ok(bytes) } else { Err(self.not_as_published(path)) }
    }

    pub(crate) fn not_as_published(&self, path: &RelPath) -> Error {
        Error::NotAsPublished { path: path.under(&self.store.output.path), generation: self.generation() }
    }
}

impl<F: Fs> fmt::Debug for Snapshot<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let output = &self.store.output.path;
        f.debug_struct("Snapshot").field("output", output).field("generation", &self.generation()).finish()
    }
}

fn parse(path: &Path) -> Result<RelPath> {
    RelPath::from_path(path).map_err(|source| Error::NoPath { path: path.to_path_buf(), source })
}
