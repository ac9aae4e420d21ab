//! Scanning a stage: what a transaction wants to publish, digested.
//!
//! Invariants (P2):
//! 1. A file with several hard links is copied to an inode of its own first, so that nobody can change a published file through
//!    another name of it.
//! 2. A scan looks at the stage alone, and changes nothing outside the transaction's directory.
//!
//! A crash inside leaves the stage with fewer hard links, and perhaps a directory open to its owner.

use std::collections::HashMap;

use crate::error::{Owned, Paths, Problem, Result};
use crate::format::identity::Object;
use crate::format::manifest::Entry;
use crate::format::manifest::inventory::Inventory;
use crate::fs::background_sync::EarlySync;
use crate::fs::tree::{Named, ROOT, Tree};
use crate::fs::{Fs, Kind, RenameMode, Stat, Timestamp};
use crate::mutant::{Mutant, left_out};
use crate::options::Exclude;
use crate::path::RelPath;
use crate::progress::{Listener, Meter, Phase};
use crate::stage::copy::{Looks, Source, looks_same};
use crate::stage::digest::{self, Found, Pool};
use crate::stage::exclude;
use crate::stage::sources::Sources;
use crate::stage::traces::{Trace, Traces};
use crate::store::layout::{is_state, is_state_dir};
use crate::warning::Warning;

/// What is in a stage.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    /// Every entry, ascending.
    pub(crate) entries: Vec<Entry>,
    /// What cannot be published.
    pub(crate) problems: Vec<Problem>,
    /// The state directories that were left out.
    pub(crate) left_out: Vec<RelPath>,
    /// When an entry was changed last.
    pub(crate) last_change: Timestamp,
    /// What deserves a look.
    pub(crate) warnings: Vec<Warning>,
}

/// What becomes of state directories of txfs where content is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum States {
    /// They are a problem.
    Refuse,
    /// They are left out, as by a copy.
    LeaveOut,
}

/// What of a stage is looked at, and what is no part of it although it lies there.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) states: States,
    pub(crate) excluded: Option<&'a Exclude>,
    /// Where it begins: only directories lead there.
    pub(crate) at: &'a RelPath,
    /// Nothing is there, and that path is to go.
    pub(crate) vacated: bool,
}

/// Digests that are known because txfs wrote the files itself; used only while the file is the very same.
pub(crate) type Known = HashMap<RelPath, (Object, Trace)>;

/// What a scan for a commit may do besides reading; one for a preview has none of it.
pub(crate) struct Means<'a, F: Fs> {
    /// Where a file may be made on the stage's file system.
    pub(crate) tree: &'a Tree<F>,
    pub(crate) copy: &'a RelPath,
    /// What may be begun once enough is known to be new.
    pub(crate) early: Option<&'a EarlySync<F>>,
    pub(crate) progress: &'a Listener,
}

/// Lists and digests everything in `stage`. What is `published` tells how much of it is new. Where something is known of the
/// `sources`, what they know to be as published is not read.
///
/// # Errors
/// Of reading the stage, or copying a linked file; [`Error::Interrupted`](crate::error::Error::Interrupted). What was begun early has to be waited for all the same.
pub(crate) fn scan<F: Fs>(
    stage: &Tree<F>,
    known: &Known,
    published: &Inventory<F>,
    means: Option<Means<'_, F>>,
    reach: Reach<'_>,
    traces: Option<&Traces<F>>,
    sources: Option<Sources>,
) -> Result<Staged> {
    let Reach { states, excluded, at, vacated } = reach;
    let is_excluded = |named: &Named| excluded.is_some_and(|excluded| exclude::is_excluded(excluded, named));
    let is_left_out = |Named { path, kind }: &Named| states == States::LeaveOut && is_state_dir(stage, path, *kind);
    let early = means.as_ref().and_then(|means| means.early);
    let meter = means.as_ref().map(|means| means.progress.begin(Phase::Scan, None));
    std::thread::scope(|scope| {
        let mut scan = Scan {
            stage,
            known,
            published,
            sources,
            pool: Pool::new(scope, stage, early, traces),
            traces,
            traced: Vec::new(),
            found: Vec::new(),
            staged: Staged::default(),
            unsupported: Paths::default(),
            reserved: Paths::default(),
            outside: Paths::default(),
            not_ours: Paths::default(),
            first_not_ours: None,
        };
        scan.directory(&RelPath::root())?;
        scan.lead_to(at, vacated)?;
        if !vacated {
            stage.walk_names(
                at,
                |entry| !is_excluded(entry) && !is_left_out(entry),
                |entry| {
                    if is_excluded(&entry) {
                        return Ok(());
                    }
                    if is_left_out(&entry) {
                        scan.staged.left_out.push(entry.path);
                        return Ok(());
                    }
                    meter.iter().for_each(Meter::step);
                    scan.note(entry)
                },
            )?;
        }
        let staged = scan.finish(means.as_ref())?;
        meter.into_iter().for_each(Meter::end);
        Ok(staged)
    })
}

struct Scan<'a, 'scope, 'env, F: Fs> {
    stage: &'a Tree<F>,
    known: &'a Known,
    published: &'a Inventory<F>,
    /// What is known of the files, where what is published is taken for that.
    sources: Option<Sources>,
    pool: Pool<'scope, 'env, F>,
    /// What is in the stage; without an object what is still being digested.
    found: Vec<(RelPath, Option<Object>)>,
    staged: Staged,
    unsupported: Paths,
    reserved: Paths,
    /// What lies beside the directories that lead to what is looked at.
    outside: Paths,
    traces: Option<&'a Traces<F>>,
    /// The places of entries that tell of the stage.
    traced: Vec<(usize, Trace)>,
    not_ours: Paths,
    first_not_ours: Option<Owned>,
}

impl<'scope, F: Fs + 'scope> Scan<'_, 'scope, '_, F> {
    /// Of files and links the attributes are read where they are digested.
    fn note(&mut self, Named { path, kind }: Named) -> Result<()> {
        self.stage.check_interrupt(&path)?;
        if is_state(self.stage, &path, kind) {
            self.reserved.push(path.clone());
        }
        let Some(kind) = kind else {
            self.unsupported.push(path);
            return Ok(());
        };
        let object = match kind {
            Kind::Directory => Some(self.directory(&path)?),
            Kind::File if self.sources.is_some() => self.known_as_published(&path)?,
            Kind::File | Kind::Symlink => self.known(&path)?,
        };
        let index = self.found.len();
        let trace = self.known.get(&path).map(|(_, trace)| *trace).filter(|_| object.is_some());
        if kind != Kind::Directory {
            let published = self.published.get(&path)?.map(|object| object.digest);
            match &object {
                None => self.pool.push(index, kind, &path, published),
                Some(object) if published != Some(object.digest) => {
                    self.pool.note_changed();
                    self.traced.extend(trace.filter(|trace| !trace.is_none()).map(|trace| (index, trace)));
                }
                Some(_) => {}
            }
        }
        self.found.push((path, object));
        Ok(())
    }

    /// Notes the directories that lead to what is looked at, and what lies beside them.
    fn lead_to(&mut self, at: &RelPath, vacated: bool) -> Result<()> {
        for path in at.way() {
            let above = path.parent();
            let listed = self.stage.dir(&above).and_then(|dir| self.stage.fs.list(&dir));
            for entry in listed.map_err(self.stage.io("list", &above))? {
                if *entry.name != *path.name() {
                    let beside = above.join(&entry.name);
                    self.outside.push(beside.map_err(|error| self.stage.corrupt(&above, error))?);
                }
            }
            if !vacated {
                self.note(Named { path, kind: Some(Kind::Directory) })?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &RelPath) -> Result<Object> {
        let dir = self.stage.dir(path).map_err(self.stage.io("open the directory", path))?;
        let stat = self.stage.fs.stat_dir(&dir).map_err(self.stage.io("read the attributes of", path))?;
        self.note_owner(path, &dir, &stat)?;
        if !path.is_root() {
            self.staged.note_change(stat.ctime);
        }
        Ok(Object::directory(&stat))
    }

    /// A directory that is published and that nothing can be taken out of would be in the way of every commit from the next one on.
    fn note_owner(&mut self, path: &RelPath, dir: &F::Dir, stat: &Stat) -> Result<()> {
        let (fs, user) = (&self.stage.fs, self.stage.fs.user());
        // What a shared store wants of it is looked at elsewhere.
        let is_shared = self.stage.group().is_some();
        if is_shared
            || user == ROOT
            || stat.uid == user
            || fs.may_change(dir).map_err(self.stage.io("ask for access to", path))?
        {
            return Ok(());
        }
        self.not_ours.push(path.clone());
        self.first_not_ours.get_or_insert_with(|| self.stage.owned_by(path, stat.uid));
        Ok(())
    }

    /// What is published at `path`, if the file there is known to have that content.
    fn known_as_published(&mut self, path: &RelPath) -> Result<Option<Object>> {
        let (Some(published), Some(sources)) = (self.published.get(path)?, &mut self.sources) else { return Ok(None) };
        let stat = self.stage.stat(path)?;
        let group = self.stage.group();
        let mut is_known = |stat: &Stat| looks_same(&published, stat, group) && sources.knows(stat, &published.digest);
        Ok(stat.filter(|stat| is_known(stat)).map(|_| published))
    }

    /// The object at `path`, if txfs wrote it itself, and it is the very same.
    fn known(&mut self, path: &RelPath) -> Result<Option<Object>> {
        let Some((known, _)) = self.known.get(path) else { return Ok(None) };
        let stat = self.stage.stat(path)?;
        // What nobody may read could not be read by recovery either.
        // Where times have no fraction, what was written within the same second looks the same.
        let is_fine = known.mtime.nanos != 0;
        let is_same = |stat: &Stat| {
            is_fine && known.is(stat) && stat.mode & 0o400 != 0 && (stat.nlink == 1 || left_out(Mutant::HardLinkCopy))
        };
        let Some(stat) = stat.filter(is_same) else { return Ok(None) };
        self.staged.note_change(stat.ctime);
        Ok(Some(Object::new(Kind::File, &stat, known.digest)))
    }

    fn finish(self, means: Option<&Means<'_, F>>) -> Result<Staged> {
        let Self {
            stage,
            pool,
            found: mut entries,
            mut staged,
            unsupported,
            reserved,
            outside,
            not_ours,
            first_not_ours,
            traces,
            mut traced,
            published,
            ..
        } = self;
        let published = |path: &RelPath| Ok(published.get(path)?.map(|object| object.digest));
        for (index, found) in pool.finish()? {
            let path = &entries[index].0;
            let (object, last_change, trace) = match (found, means) {
                (Found::Digested(object, last_change, trace), _) => (object, last_change, trace),
                (Found::Linked(stat), Some(means)) => {
                    let around = separate(stage, means, path, &stat)?;
                    let (object, last_change, trace) = digest::staged_file(stage, path, published(path)?, traces)?;
                    (object, last_change.max(around), trace)
                }
                (Found::Linked(_), None) => digest::staged_file(stage, path, published(path)?, traces)?,
            };
            traced.extend((!trace.is_none()).then_some((index, trace)));
            entries[index].1 = Some(object);
            staged.note_change(last_change);
        }
        let digested = |(path, object): (RelPath, Option<Object>)| Entry {
            path,
            object: object.expect("the pool digests whatever it was given"),
        };
        staged.entries = entries.into_iter().map(digested).collect();
        if let Some(traces) = traces {
            staged.note_traces(traces, traced);
        }
        let problems = [
            (unsupported, Problem::UnsupportedKind as fn(Paths) -> Problem),
            (reserved, Problem::ReservedName),
            (outside, Problem::OutsideOfPath),
        ];
        staged.problems =
            problems.into_iter().filter(|(paths, _)| !paths.is_empty()).map(|(paths, of)| of(paths)).collect();
        let first = first_not_ours.map(Box::new);
        staged.problems.extend(first.map(|first| Problem::NotOurs { paths: not_ours, first }));
        Ok(staged)
    }
}

impl Staged {
    /// Notes the files that are here and that whoever created them did not finish.
    pub(crate) fn note_unfinished<'p>(&mut self, unfinished: impl Iterator<Item = &'p RelPath>) {
        let is_staged = |path: &&RelPath| self.entries.binary_search_by(|entry| entry.path.cmp(path)).is_ok();
        let paths: Paths = unfinished.filter(is_staged).cloned().collect();
        if !paths.is_empty() {
            self.problems.push(Problem::Unfinished(paths));
        }
    }

    fn note_traces<F: Fs>(&mut self, traces: &Traces<F>, mut traced: Vec<(usize, Trace)>) {
        traced.sort_unstable_by_key(|(index, _)| *index);
        let of = |is: fn(&Trace) -> bool| -> Paths {
            let found = traced.iter().filter(|(_, trace)| is(trace));
            found.map(|(index, _)| self.entries[*index].path.clone()).collect()
        };
        let (named, relative) = (of(|trace| trace.names_stage), of(|trace| trace.is_relative));
        if !named.is_empty() {
            self.warnings.push(Warning::NamesStage { stage: traces.stage().to_path_buf(), paths: named });
        }
        if !relative.is_empty() {
            self.warnings.push(Warning::RelativeToStage { output: traces.output().to_path_buf(), paths: relative });
        }
    }

    fn note_change(&mut self, at: Timestamp) {
        self.last_change = self.last_change.max(at);
    }

    /// Whether nothing was found at a path, not even what stands against a commit.
    pub(crate) fn is_nothing_but_the_way_to(&self, at: &RelPath) -> bool {
        let leads_there = |entry: &Entry| entry.path == *at || at.is_below(&entry.path);
        self.entries.iter().all(leads_there) && self.problems.is_empty()
    }

    /// Adds entries that are taken from the current generation; what is staged itself comes before them.
    pub(crate) fn add_referenced(&mut self, referenced: &[Entry]) {
        let staged = std::mem::take(&mut self.entries);
        let mut referenced = referenced.iter().peekable();
        for entry in staged {
            while let Some(before) = referenced.next_if(|referenced| referenced.path < entry.path) {
                self.entries.push(before.clone());
            }
            while referenced.next_if(|referenced| referenced.path == entry.path).is_some() {}
            self.entries.push(entry);
        }
        self.entries.extend(referenced.cloned());
    }
}

/// Gives the file at `path` an inode of its own, by way of a copy. Returns when that changed its directory.
fn separate<F: Fs>(stage: &Tree<F>, means: &Means<'_, F>, path: &RelPath, stat: &Stat) -> Result<Timestamp> {
    let Means { tree, copy, .. } = *means;
    tree.remove_entry(copy, Kind::File)?;
    Source::foreign(stage).copy_file(path, Looks::of(stat), tree, copy)?;
    let dir = path.parent();
    // The scan has noted it with its mode, which is the one to be published.
    let closed = stage.make_writable(&dir)?;
    let result = tree.parent(copy).and_then(|from| {
        let to = stage.parent(path)?;
        stage.fs.rename(&from, copy.name(), &to, path.name(), RenameMode::Replace)
    });
    let closing = closed.map_or(Ok(()), |mode| stage.set_dir_mode(&dir, mode));
    result.map_err(stage.io("replace the hard link", path)).and(closing)?;
    Ok(stage.stat(&dir)?.map_or(Timestamp::default(), |stat| stat.ctime))
}
