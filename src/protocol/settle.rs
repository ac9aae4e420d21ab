//! Shelving a finished commit (P5): its transaction becomes `previous/N`, with what it displaced. Settling it (P6): its journal
//! is retired. Sweeping: what nobody needs any more goes.
//!
//! Invariants:
//! 1. Shelving is one rename, and needs no barrier: the journal names the transaction, which is found in either place. Retiring
//!    the journal is another, and comes after barrier 2, when what the commit did is durable. A crash or an error in either loses
//!    nothing and is no error of the commit: the next settling does the rest.
//! 2. Sweeping is off the path of a commit: it is done when the next transaction begins, or when the caller has time for it.
//!    Until then the stage's copies of what was published already take space.
//! 3. Of what was displaced only that is deleted which the journal and the manifest before it prove to be ours. The rest is
//!    moved to `rescued/` and reported (G6).
//!
//! A crash inside settling leaves the journal in place with HEAD at its generation, which recovery settles again; one inside
//! sweeping leaves less to sweep.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::error::{Error, Result};
use crate::format::frame::Damage;
use crate::format::identity::{Like, Object};
use crate::format::journal::reader::{self, Journal, Read};
use crate::format::journal::record::{Begin, Operation};
use crate::format::manifest::inventory::Inventory;
use crate::fs::tree::{Tree, Walked};
use crate::fs::{Fs, Kind, Stat};
use crate::mutant::{Mutant, left_out};
use crate::path::RelPath;
use crate::protocol::displaced_dirs::{self, Moving};
use crate::stage::digest;
use crate::store::Store;
use crate::store::displaced::Displaced;
use crate::store::layout::{manifest_path, name, numbered, open_trusted, previous_path, state_path};
use crate::store::retention::Retention;
use crate::store::transaction_dir::{self, REMOVED, STAGE, is_not_empty, part};

/// The journal's name once it is settled, in `previous/N`.
pub(crate) const SETTLED: &str = "journal";

/// In `previous/N` it says that the user wanted no more to be kept of it.
const PRUNED: &str = "pruned";

/// Whether a name in `previous/N` is of what says what was there, rather than of what was displaced.
pub(crate) fn is_note(name: &[u8]) -> bool {
    name == SETTLED.as_bytes() || name == PRUNED.as_bytes()
}

pub(crate) fn pruned_path(generation: u64) -> RelPath {
    previous_path(generation).join(PRUNED.as_bytes()).expect("the names of the layout are valid")
}

/// Whether the user wanted nothing to be kept of what a generation displaced.
pub(crate) fn is_pruned<F: Fs>(store: &Store<F>, generation: u64) -> Result<bool> {
    Ok(store.state.stat(&pruned_path(generation))?.is_some())
}

/// Whether a commit displaced something of which nothing is left.
pub(crate) fn is_freed<F: Fs>(store: &Store<F>, journal: &Journal) -> Result<bool> {
    let generation = journal.begin.head.info.generation;
    let displaces = |operation: &Operation| operation.displaced().is_some();
    let Some(previous) = store.state.find_below(&previous_path(generation))? else { return Ok(false) };
    let listed = store.fs.list(previous.root()).map_err(store.state.io("list", &previous_path(generation)))?;
    Ok(listed.iter().all(|entry| is_note(&entry.name)) && journal.operations.iter().any(displaces))
}

/// The directory in which a journal's transaction lies: `tx/ID` until it is settled.
pub(crate) fn find_transaction<F: Fs>(store: &Store<F>, journal: &Journal) -> Result<Option<Tree<F>>> {
    match store.state.find_directory(&transaction_dir::path(journal.begin.transaction))? {
        Some(tree) => Ok(Some(tree)),
        None => store.state.find_directory(&previous_path(journal.begin.head.info.generation)),
    }
}

/// Retires the journal of a commit that is done and durable.
pub(crate) fn settle<F: Fs>(store: &Store<F>, begin: &Begin) -> Result<()> {
    shelve(store, begin)?;
    retire(store, begin.head.info.generation)
}

/// Renames the transaction of a commit that is done, durable or not, to `previous/N`.
pub(crate) fn shelve<F: Fs>(store: &Store<F>, begin: &Begin) -> Result<()> {
    let generation = begin.head.info.generation;
    let previous = previous_path(generation);
    let transaction = transaction_dir::path(begin.transaction);
    if store.state.stat(&transaction)?.is_some() {
        if store.state.stat(&previous)?.is_some() {
            store.rescue(&previous, &generation.to_string())?;
        }
        // Where it stays nobody is to take it up again: in its stage lies what was displaced.
        store.rename(&transaction, &previous).inspect_err(|_| drop(store.end_transaction(begin.transaction)))?;
    }
    Ok(())
}

/// Takes back [`shelve`]: without its commit it is a transaction again.
pub(crate) fn unshelve<F: Fs>(store: &Store<F>, begin: &Begin) -> Result<()> {
    let (previous, transaction) = (previous_path(begin.head.info.generation), transaction_dir::path(begin.transaction));
    if store.state.stat(&transaction)?.is_none() && store.state.stat(&previous)?.is_some() {
        store.rename(&previous, &transaction)?;
    }
    Ok(())
}

/// Moves the journal to what it displaced, or drops it where that is gone already.
fn retire<F: Fs>(store: &Store<F>, generation: u64) -> Result<()> {
    let (journal, settled) = (state_path(name::JOURNAL), settled_path(generation));
    let previous = store.state.stat(&previous_path(generation))?;
    let is_kept = previous.is_some_and(|stat| stat.is_dir());
    if previous.is_some() && !is_kept {
        store.rescue(&previous_path(generation), &generation.to_string())?;
    }
    let is_other = || match (store.state.stat(&journal)?, store.state.stat(&settled)?) {
        (Some(journal), Some(settled)) => Ok(!journal.is_same_entry(&settled)),
        (journal, settled) => Ok(journal.is_some() || settled.is_some()),
    };
    // A crash can leave both names of a rename, and renaming one to the other would do nothing.
    if is_kept && (left_out(Mutant::SameInodeAtRetiring) || is_other()?) {
        return store.rename(&journal, &settled);
    }
    store.state.remove_entry(&journal, Kind::File)
}

/// Retires a journal of an earlier generation that came back after a crash: only its name had not been durably gone.
pub(crate) fn settle_stale<F: Fs>(store: &Store<F>, journal: &Journal) -> Result<()> {
    let generation = journal.begin.head.info.generation;
    let transaction = transaction_dir::path(journal.begin.transaction);
    let previous = previous_path(generation);
    if store.state.stat(&transaction)?.is_some() && store.state.stat(&previous)?.is_none() {
        store.rename(&transaction, &previous)?;
    }
    retire(store, generation)?;
    store.sync_state()
}

/// Removes what nobody needs any more. Call with the store's lock held.
pub(crate) fn sweep<F: Fs>(store: &Store<F>) -> Result<()> {
    let current = store.head()?.map_or(0, |head| head.info.generation);
    // What cannot be removed does not keep the rest from going.
    let mut left = vec![state_path(name::PROBE), state_path(name::STORE_NEW), state_path(name::RETENTION_NEW)];
    left.extend(trash(store)?);
    let emptied = left.iter().map(|left| match store.state.remove(left) {
        // What is still open stays where the file system keeps it until then: the next sweep has it.
        Err(error) if is_not_empty(&error) => Ok(()),
        // What another member did not give to the group he sweeps himself, unless nothing is in it.
        Err(error) if store.state.group().is_some() && error.is_denied() => {
            let _ = store.state.remove_entry(left, Kind::Directory);
            Ok(())
        }
        removed => removed,
    });
    let emptied = emptied.fold(Ok(()), Result::and);
    let handed_out = store.sweep_handed_out();
    let retained = match store.retention() {
        Ok(retention) => retain(store, current, retention),
        // All is kept.
        Err(error) => Err(error),
    };
    emptied.and(handed_out).and(retained)
}

/// Transactions that are over.
fn trash<F: Fs>(store: &Store<F>) -> Result<Vec<RelPath>> {
    let path = state_path(name::TRASH);
    if store.state.group().is_none() {
        return Ok(vec![path]);
    }
    // Each by itself, and then the directory: what another member did not give to the group stays.
    let Some(trash) = store.state.find_directory(&path)? else { return Ok(vec![path]) };
    let listed = store.unless_closed(store.fs.list(trash.root()).map_err(store.state.io("list", &path)))?;
    let paths = listed.iter().map(|entry| path.join(&entry.name)).chain([Ok(path.clone())]);
    paths.collect::<std::result::Result<_, _>>().map_err(|error| store.state.corrupt(&path, error))
}

/// Of what a generation displaced that is kept, the stage's copies of what was published already.
fn prune_kept<F: Fs>(store: &Store<F>, generation: u64) -> Result<()> {
    // A crash can keep that `meta` went and bring `copy` back: another name of a published file.
    let is_left = |tree: &Tree<F>, file| Ok::<_, Error>(tree.stat(&part(file))?.is_some());
    if let Some(tree) = store.state.find_below(&previous_path(generation))?
        && (is_left(&tree, transaction_dir::META)? || is_left(&tree, transaction_dir::COPY)?)
        && let Some(journal) = read_settled(store, generation)?
    {
        make_dirs_anew(store, &tree, &journal)?;
        prune(&tree, &journal.operations)?;
    }
    Ok(())
}

/// Gives the directories that a commit displaced other inodes, which nobody watches under the names that they had.
fn make_dirs_anew<F: Fs>(store: &Store<F>, previous: &Tree<F>, journal: &Journal) -> Result<()> {
    let mut displaced = displaced(&journal.operations);
    displaced.retain(|(place, index, _, old)| old.kind == Kind::Directory && *place != transaction_dir::kept(*index));
    if displaced.is_empty() {
        return Ok(());
    }
    let before = published_before(store, journal)?;
    displaced.iter().try_for_each(|(from, index, original, old)| {
        let (to, before) = (&transaction_dir::kept(*index), &before);
        displaced_dirs::make_anew(previous, &Moving { from, to, original, old, before })
    })
}

/// The settled journal of a generation.
pub(crate) fn settled_path(generation: u64) -> RelPath {
    previous_path(generation).join(SETTLED.as_bytes()).expect("the names of the layout are valid")
}

/// Removes from the stage what was published already and so was not moved: everything that the journal did not put there.
fn prune<F: Fs>(previous: &Tree<F>, operations: &[Operation]) -> Result<()> {
    let displaced: BTreeSet<&RelPath> = operations
        .iter()
        .filter(|operation| matches!(operation, Operation::Replace { .. }))
        .map(Operation::path)
        .collect();
    match previous.find_below(&part(STAGE))? {
        Some(_) if displaced.is_empty() => previous.remove(&part(STAGE))?,
        Some(stage) => prune_stage(&stage, &displaced)?,
        None => {}
    }
    // `meta` comes last: it says that there is something to prune.
    let (lock, turn, left) = (transaction_dir::LOCK, transaction_dir::TURN, transaction_dir::LEFT);
    [lock, turn, transaction_dir::COPY, left, transaction_dir::GONE, transaction_dir::META]
        .iter()
        .try_for_each(|file| previous.remove_entry(&part(file), Kind::File))
}

fn prune_stage<F: Fs>(stage: &Tree<F>, displaced: &BTreeSet<&RelPath>) -> Result<()> {
    let is_displaced = |path: &RelPath| displaced.contains(path);
    // In order of the tree everything below a path follows it directly.
    let holds_displaced = |path: &RelPath| {
        displaced
            .range::<RelPath, _>((Bound::Excluded(path), Bound::Unbounded))
            .next()
            .is_some_and(|d| d.is_below(path))
    };
    let mut entries = Vec::new();
    stage.walk_names(
        &RelPath::root(),
        |entry| !is_displaced(&entry.path) && stage.make_writable(&entry.path).is_ok(),
        |entry| {
            if !is_displaced(&entry.path) && !holds_displaced(&entry.path) {
                entries.push(entry);
            }
            Ok(())
        },
    )?;
    stage.remove_entries(entries)
}

/// Removes what generations displaced that are no longer kept, and their manifests.
fn retain<F: Fs>(store: &Store<F>, current: u64, retention: Retention) -> Result<()> {
    let mut failed = None;
    let generations = numbers(store, name::PREVIOUS)?;
    let (mut freed, mut is_kept) = (Vec::new(), false);
    for &generation in &generations {
        // What came after one that is kept is needed to go back to that.
        is_kept = is_kept || is_kept_by(store, retention, generation, current)?;
        if !is_kept || is_pruned(store, generation)? {
            freed.push(generation);
        } else if let Err(error) = prune_kept(store, generation) {
            // One that cannot be removed does not keep the others from going.
            failed.get_or_insert(error);
        }
    }
    for generation in &freed {
        // The journal of the one before those that are kept tells of the generation that can be gone back to.
        let is_before_kept =
            freed.last() == Some(generation) && generations.binary_search(&generation.saturating_add(1)).is_ok();
        let is_over = !is_before_kept && current.saturating_sub(*generation) > retention.generations;
        if let Err(error) = drop_displaced(store, *generation, current, is_over, retention) {
            failed.get_or_insert(error);
        }
    }
    drop_manifests(store)?;
    failed.map_or(Ok(()), Err)
}

/// Whether what a generation displaced is kept by itself.
pub(crate) fn is_kept_by<F: Fs>(store: &Store<F>, retention: Retention, generation: u64, current: u64) -> Result<bool> {
    let begin = match retention.seconds {
        Some(_) => read_begin(store, &settled_path(generation))?,
        None => None,
    };
    let committed = begin.map(|begin| begin.head.info.committed);
    // What was freed cannot be gone back to, whatever is kept from then on.
    Ok(retention.keeps(generation, committed, current, store.fs.now()) && !is_pruned(store, generation)?)
}

/// Removes what a generation displaced; the journal, which is the proof of that, only when it `is_over`: a commit has been made since.
fn drop_displaced<F: Fs>(
    store: &Store<F>,
    generation: u64,
    current: u64,
    is_over: bool,
    retention: Retention,
) -> Result<()> {
    // A crash may have kept a part of what was to go.
    let is_purged = purge(store, generation)?;
    if is_over && (is_purged || retention.seconds.is_some()) {
        // No barrier has passed since, as nobody swept between two commits, or as time has passed and no commit: a crash would keep what the
        // proof is of, without it.
        let path = previous_path(generation);
        let synced = store.state.dir(&path).and_then(|dir| store.fs.sync_dir(&dir));
        synced.map_err(store.state.io("make durable", &path))?;
    }
    if is_over || generation < current && left_out(Mutant::ProofKept) {
        store.state.remove(&previous_path(generation))?;
    }
    Ok(())
}

/// Removes the files of manifests that neither HEAD nor a kept journal names.
fn drop_manifests<F: Fs>(store: &Store<F>) -> Result<()> {
    let files = numbers(store, name::MANIFESTS)?;
    let mut named: BTreeSet<u64> = store.head()?.iter().map(|head| head.extent.file).collect();
    if files.iter().all(|file| named.contains(file)) {
        return Ok(());
    }
    for generation in numbers(store, name::PREVIOUS)? {
        // All of it can be long.
        if let Some(begin) = read_begin(store, &settled_path(generation))?
            && !left_out(Mutant::ManifestKept)
        {
            named.extend([begin.base_extent.file, begin.head.extent.file]);
        }
    }
    files
        .iter()
        .filter(|file| !named.contains(file))
        .try_for_each(|file| store.state.remove_entry(&manifest_path(*file), Kind::File))
}

/// The numbers that entries of one of the state directory's directories have for names.
pub(crate) fn numbers<F: Fs>(store: &Store<F>, directory: &str) -> Result<Vec<u64>> {
    let path = state_path(directory);
    let listed = store.state.dir(&path).and_then(|dir| store.fs.list(&dir)).map_err(store.state.io("list", &path))?;
    let number =
        |name: &[u8]| std::str::from_utf8(name).ok()?.parse::<u64>().ok().filter(|n| n.to_string().as_bytes() == name);
    let mut numbers: Vec<u64> = listed.iter().filter_map(|entry| number(&entry.name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Empties `previous/N`, after moving out of it what cannot be proved to be ours. The journal is the proof, so it stays
/// until the next generation, whose barriers make the removals durable. The manifest before it stays as long. Returns whether there was
/// anything to remove.
pub(super) fn purge<F: Fs>(store: &Store<F>, generation: u64) -> Result<bool> {
    let path = previous_path(generation);
    let previous = store.state.below(&path)?;
    let listed = store.fs.list(previous.root()).map_err(store.state.io("list", &path))?;
    if listed.iter().all(|entry| is_note(&entry.name)) {
        return Ok(false);
    }
    let Some(journal) = read_settled(store, generation)? else {
        // Without its journal nothing says what it holds.
        return store.rescue(&path, &generation.to_string()).map(|()| false);
    };
    let before = published_before(store, &journal)?;
    for (place, index, original, old) in displaced(&journal.operations) {
        if !is_ours(&previous, &place, original, old, &before)? {
            store.rescue(&place.within(&path), &format!("{generation}.{index}"))?;
        }
    }
    for entry in listed.iter().filter(|entry| !is_note(&entry.name)) {
        let entry = path.join(&entry.name).map_err(|error| Error::corrupt(previous.at(), error))?;
        store.state.remove(&entry)?;
    }
    Ok(true)
}

/// What generations displaced and was removed: only their journals are left. The oldest go first.
pub(crate) fn emptied<F: Fs>(store: &Store<F>) -> Result<Vec<RelPath>> {
    let mut emptied = Vec::new();
    for generation in numbers(store, name::PREVIOUS)? {
        let path = previous_path(generation);
        let listed =
            store.state.dir(&path).and_then(|dir| store.fs.list(&dir)).map_err(store.state.io("list", &path))?;
        if !listed.iter().all(|entry| is_note(&entry.name)) {
            break;
        }
        emptied.push(path);
    }
    Ok(emptied)
}

/// What was published before a commit; nothing where that cannot be made out.
fn published_before<F: Fs>(store: &Store<F>, journal: &Journal) -> Result<Inventory<F>> {
    match store.base_inventory(&journal.begin) {
        Err(Error::Corrupt { .. }) => Ok(Inventory::nothing()),
        // What could not be read now is proved another time.
        before => before,
    }
}

pub(crate) fn read_settled<F: Fs>(store: &Store<F>, generation: u64) -> Result<Option<Journal>> {
    Ok(read_journal(store, &settled_path(generation))?.and_then(Result::ok))
}

/// What the journal at a path of the state directory begins with; `None` where there is none, or that cannot be made out.
pub(crate) fn read_begin<F: Fs>(store: &Store<F>, path: &RelPath) -> Result<Option<Begin>> {
    let Some(stream) = open_trusted(&store.state, path)? else { return Ok(None) };
    match reader::begin(stream) {
        Err(damage @ Damage::Io(_)) => Err(store.damaged(path, damage)),
        begin => Ok(begin.unwrap_or_default()),
    }
}

/// Reads the journal at a path of the state directory; `None` where there is none.
pub(crate) fn read_journal<F: Fs>(store: &Store<F>, path: &RelPath) -> Result<Option<Read>> {
    let Some(stream) = open_trusted(&store.state, path)? else { return Ok(None) };
    match reader::read(stream) {
        Err(damage @ Damage::Io(_)) => Err(store.damaged(path, damage)),
        read => Ok(Some(read)),
    }
}

/// Where in `previous/N` the operations may have left what they displaced, in order of the tree; with the operation's number, where
/// it was in the output, and what.
fn displaced(operations: &[Operation]) -> Vec<(RelPath, usize, &RelPath, &Object)> {
    let mut all = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        if let Some((path, old)) = operation.displaced() {
            all.extend(displaced_places(index, operation).into_iter().map(|place| (place, index, path, old)));
        }
    }
    all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The settled journal of a generation, and what it displaced; `None` where nothing is kept of it.
pub(crate) fn displaced_by<F: Fs>(store: &Store<F>, generation: u64) -> Result<Option<(Journal, Displaced<F>)>> {
    let Some(tree) = store.state.find_below(&previous_path(generation))? else { return Ok(None) };
    let path = settled_path(generation);
    let journal = match read_journal(store, &path)? {
        Some(Ok(journal)) => journal,
        Some(Err(damage)) => return Err(store.damaged(&path, damage)),
        None => return Ok(None),
    };
    let mut places = BTreeMap::new();
    for (index, operation) in journal.operations.iter().enumerate() {
        let Some((path, old)) = operation.displaced() else { continue };
        for place in displaced_places(index, operation) {
            if tree.stat(&place)?.is_some() {
                places.insert(path.clone(), (place, *old));
            }
        }
    }
    Ok(Some((journal, Displaced { tree, places })))
}

/// Where in `previous/N` an operation may have left what it displaced.
pub(crate) fn displaced_places(index: usize, operation: &Operation) -> Vec<RelPath> {
    let Some((path, old)) = operation.displaced() else { return Vec::new() };
    let exchanged = operation.moved_in().map(|_| path.within(&part(STAGE)));
    let mut places: Vec<_> = exchanged.into_iter().chain([numbered(REMOVED, index)]).collect();
    if old.kind == Kind::Directory {
        places.push(transaction_dir::kept(index));
    }
    places
}

/// Whether everything at `place`, which was at `original` in the output, is what was published there.
fn is_ours<F: Fs>(
    previous: &Tree<F>,
    place: &RelPath,
    original: &RelPath,
    old: &Object,
    before: &Inventory<F>,
) -> Result<bool> {
    let Some(stat) = previous.stat(place)? else { return Ok(true) };
    if left_out(Mutant::IsOurs) {
        return Ok(true);
    }
    if old.kind != Kind::Directory {
        return Ok(is_recorded(previous, place, old, &stat));
    }
    if !stat.is_dir() {
        return Ok(false);
    }
    let tree = previous.below(place)?;
    let mut ours = true;
    tree.walk(
        &RelPath::root(),
        |_| true,
        |Walked { path, stat }| {
            ours = ours
                && match before.get(&path.within(original)) {
                    Err(Error::Corrupt { .. }) => false,
                    published => published?.is_some_and(|object| match object.kind {
                        Kind::Directory => stat.is_dir(),
                        Kind::File | Kind::Symlink => is_recorded(&tree, &path, &object, &stat),
                    }),
                };
            Ok(())
        },
    )?;
    Ok(ours)
}

/// Whether an entry that was displaced is the one that was recorded, or has all that would be lost with it: its content. Somebody may
/// have touched it, a store may have been copied, and there are file systems whose inode numbers change, or follow the path.
fn is_recorded<F: Fs>(tree: &Tree<F>, path: &RelPath, object: &Object, stat: &Stat) -> bool {
    // What cannot be read proves nothing, and is kept.
    digest::find(tree, path, object, stat, Like::Content).is_ok_and(|found| found.is_some())
}

/// Moves entries of a stage aside that are not to be published with the directories that hold them, or were not published.
pub(crate) fn rescue_staged<F: Fs>(store: &Store<F>, begin: &Begin, unlisted: &[RelPath]) -> Result<()> {
    if unlisted.is_empty() {
        return Ok(());
    }
    let (transaction, generation) = (transaction_dir::path(begin.transaction), begin.head.info.generation);
    let is_shelved = store.state.stat(&transaction)?.is_none();
    let stage = part(STAGE).within(&if is_shelved { previous_path(generation) } else { transaction });
    for path in unlisted {
        match store.rescue(&path.within(&stage), &generation.to_string()) {
            // To open the directory that holds it would change what is evidence. It moves along, and is foreign then.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {}
            moved => moved?,
        }
    }
    // Before a directory moves: a crash must not keep that and lose this.
    store.sync_all()
}
