//! Looking at a store without changing it: journals, readable also where they are damaged, and an audit of the output.

use std::io::Read;
use std::path::PathBuf;

use crate::error::Result;
use crate::format::frame::Damage;
use crate::format::journal::reader;
use crate::format::journal::record::Record;
use crate::format::manifest::{Entry, Totals};
use crate::fs::compiled::{compiled, same_ref};
use crate::fs::tree::Walked;
use crate::fs::{Fs, Kind};
use crate::path::RelPath;
use crate::progress::Phase;
use crate::protocol::settle;
use crate::stage::digest;
use crate::store::Store;
use crate::store::current::Current;
use crate::store::layout::{JOURNALS, name, open_trusted, state_path};

/// What could be read of a journal.
#[derive(Debug)]
#[non_exhaustive]
pub struct JournalDump {
    /// Every record up to the damage, with the offset of its frame in bytes.
    pub records: Vec<(u64, Record)>,
    /// Why it is no commit, and where; `None` for a valid journal.
    pub damage: Option<String>,
    /// Whether the damage is a torn tail: the journal ends early, as after a crash while it was written.
    pub torn: bool,
}

impl JournalDump {
    /// Reads a journal from any bytes.
    pub fn read(input: impl Read) -> Self {
        let reader::Dump { records, damage } = reader::dump(input);
        let torn = matches!(damage, Some(Damage::Torn { .. }));
        Self { records, damage: damage.map(|damage| damage.to_string()), torn }
    }
}

/// How an owned entry differs from what was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FindingKind {
    /// Nothing is there.
    Missing,
    /// It is another kind of entry.
    Kind,
    /// Its mode is another.
    Mode,
    /// Its content is another.
    Content,
}

/// An owned entry that is not as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// Which.
    pub path: RelPath,
    /// How it differs.
    pub kind: FindingKind,
}

impl<F: Fs> Store<F> {
    /// Every journal of the store: the one of an unfinished commit, in whatever state it is, and the settled ones of the
    /// generations whose displaced entries are still kept.
    ///
    /// # Errors
    /// The state directory cannot be read, or is not trusted.
    pub fn journals(&self) -> Result<Vec<(PathBuf, JournalDump)>> {
        compiled!(F, (this: &Store = same_ref(self)) -> Result<Vec<(PathBuf, JournalDump)>> { this.journals_any() });
        self.journals_any()
    }

    fn journals_any(&self) -> Result<Vec<(PathBuf, JournalDump)>> {
        let mut paths: Vec<RelPath> = JOURNALS.into_iter().map(state_path).collect();
        paths.extend(settle::numbers(self, name::PREVIOUS)?.into_iter().map(settle::settled_path));
        let mut dumps = Vec::new();
        for path in paths {
            if let Some(stream) = open_trusted(&self.state, &path)? {
                let input = std::io::BufReader::with_capacity(64 << 10, stream);
                dumps.push((path.under(self.state.at()), JournalDump::read(input)));
            }
        }
        Ok(dumps)
    }

    /// How much lies in `rescued/`: what was found where txfs keeps its own, and could not be proved to be that. It is the user's, and
    /// stays until he deletes it.
    ///
    /// # Errors
    /// The state directory cannot be read.
    pub fn rescued(&self) -> Result<Totals> {
        compiled!(F, (this: &Store = same_ref(self)) -> Result<Totals> { this.rescued_any() });
        self.rescued_any()
    }

    fn rescued_any(&self) -> Result<Totals> {
        let mut totals = Totals::default();
        let Some(rescued) = self.state.find_below(&state_path(name::RESCUED))? else { return Ok(totals) };
        rescued.walk(
            &RelPath::root(),
            // A directory that is closed is counted as one entry.
            |entry| entry.stat.mode & 0o500 == 0o500,
            |Walked { stat, .. }| {
                totals = totals.plus(&Totals {
                    entries: 1,
                    files: u64::from(!stat.is_dir()),
                    bytes: if stat.kind == Some(Kind::File) { stat.size } else { 0 },
                });
                Ok(())
            },
        )?;
        Ok(totals)
    }

    /// Reads everything that is published and compares it with the manifest. Takes no lock: what is found while another process
    /// commits or recovers may be gone at the next look.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let dist = dir.path().join("dist");
    /// # for text in ["one", "two"] {
    /// #     let mut transaction = txfs::Store::open(&dist)?.begin(txfs::BeginOptions::default())?;
    /// #     transaction.write("index.html", text)?;
    /// #     transaction.commit(&txfs::CommitOptions::default())?;
    /// # }
    /// use txfs::{FindingKind, Store};
    ///
    /// let store = Store::open(&dist)?;
    /// assert!(store.verify()?.is_empty());
    /// std::fs::write(dist.join("index.html"), "Hell")?;
    /// assert_eq!(store.verify()?[0].kind, FindingKind::Content);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The manifest or the output cannot be read.
    pub fn verify(&self) -> Result<Vec<Finding>> {
        compiled!(F, (store: &Store = same_ref(self)) -> Result<Vec<Finding>> { store.verify_any() });
        self.verify_any()
    }

    fn verify_any(&self) -> Result<Vec<Finding>> {
        let Current { inventory, .. } = self.current()?;
        let Some(tree) = self.output.open()? else {
            let missing = |entry: Entry| Finding { path: entry.path, kind: FindingKind::Missing };
            return inventory.entries().map(|entry| entry.map(missing)).collect();
        };
        let mut findings = Vec::new();
        let meter = self.progress.begin(Phase::Verify, Some(inventory.totals().entries));
        for entry in inventory.entries() {
            meter.step();
            let entry = entry?;
            let object = &entry.object;
            let kind = match tree.stat(&entry.path)? {
                None => Some(FindingKind::Missing),
                Some(stat) if stat.kind != Some(object.kind) => Some(FindingKind::Kind),
                Some(stat) if stat.mode != object.mode => Some(FindingKind::Mode),
                Some(stat) if object.kind == Kind::File && stat.size != object.size => Some(FindingKind::Content),
                Some(stat) => {
                    let live = digest::object(&tree, &entry.path, object.kind, &stat)?;
                    (live.digest != object.digest).then_some(FindingKind::Content)
                }
            };
            findings.extend(kind.map(|kind| Finding { path: entry.path, kind }));
        }
        meter.end();
        Ok(findings)
    }
}
