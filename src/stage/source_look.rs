//! A second look at a directory that a stage is a copy of, before the copy is committed.
//!
//! Invariant: what is committed is what lay there at one time: nothing appeared, went or changed from the first look at any of it until
//! the second (journal-spec.md, "Commit").
//!
//! Nothing is changed here.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use crate::error::{Error, Paths, Problem, Result};
use crate::fs::tree::{Tree, Walked};
use crate::fs::{Fs, Kind, Stat};
use crate::options::Exclude;
use crate::path::RelPath;
use crate::store::layout::is_state_dir;

/// A directory that was copied, and what was found in it.
pub(crate) struct SourceLook<F: Fs> {
    tree: Tree<F>,
    /// What was not copied.
    excluded: Option<Exclude>,
    /// In order of the tree, each with what its attributes were.
    seen: Vec<(RelPath, Looks)>,
}

impl<F: Fs> SourceLook<F> {
    pub(crate) fn new(tree: &Tree<F>, excluded: Option<&Exclude>) -> Self {
        Self { tree: tree.clone(), excluded: excluded.cloned(), seen: Vec::new() }
    }

    /// Walks the directory, state directories of txfs left out, and notes what it finds.
    pub(crate) fn walk(
        &mut self,
        mut left_out: impl FnMut(Walked),
        mut visit: impl FnMut(Walked) -> Result<()>,
    ) -> Result<()> {
        let (tree, excluded, seen) = (&self.tree, self.excluded.as_ref(), &mut self.seen);
        tree.walk(
            &RelPath::root(),
            |entry| !is_excluded(excluded, entry) && !is_left_out(tree, entry),
            |entry| {
                if is_excluded(excluded, &entry) {
                    return Ok(());
                }
                tree.check_interrupt(&entry.path)?;
                if is_left_out(tree, &entry) {
                    left_out(entry);
                    return Ok(());
                }
                seen.push((entry.path.clone(), Looks::of(&entry.stat)));
                visit(entry)
            },
        )
    }

    /// How many entries a second look is at.
    pub(crate) fn entries(&self) -> usize {
        self.seen.len()
    }

    /// What appeared, went or changed since.
    pub(crate) fn changed(&self) -> Result<Option<Problem>> {
        let mut changed = Paths::default();
        let mut seen = self.seen.iter().peekable();
        // What is opened may be another directory by now.
        self.tree.forget();
        self.tree.walk(
            &RelPath::root(),
            |entry| !is_excluded(self.excluded.as_ref(), entry) && !is_left_out(&self.tree, entry),
            |entry| {
                if is_excluded(self.excluded.as_ref(), &entry) || is_left_out(&self.tree, &entry) {
                    return Ok(());
                }
                while let Some((gone, _)) = seen.next_if(|(path, _)| *path < entry.path) {
                    changed.push(gone.clone());
                }
                let before = seen.next_if(|(path, _)| *path == entry.path);
                if before.is_none_or(|(_, before)| before.differs(Looks::of(&entry.stat))) {
                    changed.push(entry.path);
                }
                Ok(())
            },
        )?;
        seen.for_each(|(gone, _)| changed.push(gone.clone()));
        let source = self.tree.at().to_path_buf();
        Ok((!changed.is_empty()).then_some(Problem::SourceChanged { source, paths: changed }))
    }
}

/// Everything that was copied to be published in `output` has to have been there all at one time.
pub(crate) fn check_all<F: Fs>(sources: &[SourceLook<F>], output: &Path) -> Result<()> {
    let mut problems = Vec::new();
    for source in sources {
        problems.extend(source.changed()?);
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Refused { output: output.to_path_buf(), problems }) }
}

fn is_excluded(excluded: Option<&Exclude>, entry: &Walked) -> bool {
    excluded.is_some_and(|excluded| excluded.has(entry.path.as_path(), entry.stat.is_dir()))
}

fn is_left_out<F: Fs>(tree: &Tree<F>, entry: &Walked) -> bool {
    is_state_dir(tree, &entry.path, entry.stat.kind)
}

/// What tells that an entry was changed. No inode number: there are file systems that give an entry another one at each look.
#[derive(Debug, Clone, Copy)]
struct Looks {
    content: u64,
    /// What no tool can set back, in as much room as it takes to notice.
    ctime: u32,
    links: u32,
}

impl Looks {
    /// Of a directory its mode alone: what is in it is looked at by itself, and a tool may make a file there and remove it again.
    fn of(stat: &Stat) -> Self {
        let hash = |what: &dyn Fn(&mut DefaultHasher)| {
            let mut hasher = DefaultHasher::new();
            what(&mut hasher);
            hasher.finish()
        };
        if stat.kind == Some(Kind::Directory) {
            return Self { content: hash(&|hasher| (stat.kind, stat.mode).hash(hasher)), ctime: 0, links: 0 };
        }
        let content = hash(&|hasher| (stat.kind, stat.mode, stat.size, stat.mtime).hash(hasher));
        Self { content, ctime: hash(&|hasher| stat.ctime.hash(hasher)) as u32, links: stat.nlink as u32 }
    }

    /// A hard link that is made or removed elsewhere gives a file another `ctime`, too, and changes nothing of it.
    fn differs(self, now: Self) -> bool {
        self.content != now.content || self.ctime != now.ctime && self.links == now.links
    }
}
