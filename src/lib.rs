//! Crash-safe, all-or-nothing publication of a directory tree.
//!
//! A build writes into a private *stage*; one journaled *commit* makes it the published *generation* of an *output* directory;
//! a crash at any instant is repaired by whatever uses txfs on that output next. Between two commits nothing in the output
//! changes, during one no path that exists before and after it is missing at any instant, and a build that fails changes nothing.
//!
//! ```
//! use txfs::{BeginOptions, CommitOptions, Store};
//!
//! # fn main() -> txfs::Result<()> {
//! # let dir = tempfile::tempdir().expect("a temporary directory");
//! # let dist = dir.path().join("dist");
//! let store = Store::open(&dist)?;                          // recovers what a crash left
//! let mut transaction = store.begin(BeginOptions::default())?;
//! transaction.write("index.html", "<h1>Hello</h1>")?;       // from memory …
//! let stage = transaction.stage();                          // … or let any tool write to this directory
//! # let _ = stage;
//! let committed = transaction.commit(&CommitOptions::default())?;
//! assert_eq!(committed.generation, 1);
//! assert!(dist.join("index.html").exists());
//! # Ok(())
//! # }
//! ```
//!
//! Looking before leaping, and streaming:
//!
//! ```
//! use std::io::Write;
//! use txfs::{BeginOptions, CommitOptions, ErrorKind, Store};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dist = dir.path().join("dist");
//! let store = Store::open(&dist)?;
//! let mut transaction = store.begin(BeginOptions::default())?;
//! let mut feed = transaction.create("feed/atom.xml")?;
//! write!(feed, "<feed/>")?;
//! feed.finish()?;
//!
//! let options = CommitOptions::default().check("has an index", |stage| match stage.join("index.html").exists() {
//!     true => Ok(()),
//!     false => Err("found no index.html".into()),
//! });
//! let plan = transaction.plan(&options)?;
//! assert_eq!(plan.summary.added, 2);
//! let error = transaction.commit(&options).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Refused);
//! assert!(!dist.exists());
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! After a crash, kill or error at any instant, once the next txfs command or [`Store::recover`] has run, the output is exactly
//! the old or exactly the new generation. A commit that returned success survives power loss: what the loss took of it, the next
//! command puts back; once [`Store::sweep`] or the next transaction has settled it, nothing is left to put back. What did not change
//! keeps its inode and time. Only what txfs published is removed. `journal-spec.md` in the repository says how, barrier by barrier.
//!
//! # Compared, kept, and not
//!
//! Two entries are the same when their kind, permission bits and content (BLAKE3, or the link's target) are. Times, owner, group
//! and extended attributes are not compared. A difference in them alone publishes nothing; they travel with a staged inode that is
//! published for another reason. What [`Transaction::copy_previous`] and [`Basis::Copy`] copy has them all, owner and group as far
//! as this user may give them; what [`Transaction::copy_from`] copies belongs to this user.
//!
//! # Reading back
//!
//! [`Store::snapshot`] is the current generation: its entries with their digests, and its files, which are checked to be of that generation
//! when they are opened or read. A commit that comes in between changes nothing of what a snapshot says, and can take away what it
//! could open: that is an error then, and never another generation's content.
//!
//! # Threads
//!
//! A [`Store`] is a handle that can be cloned and shared. A [`Transaction`] belongs to one thread at a time, and holds what it needs; of the
//! [`StagedFile`]s that it creates each can go to a thread of its own. [`OpenOptions::on_progress`] tells how far it has come.
//!
//! # Stopping
//!
//! A flag that a signal handler sets, given to [`OpenOptions::interrupted_by`], stops what takes long before
//! anything is changed: copying, reading a stage, waiting for a lock. The call ends with [`Error::Interrupted`] and the transaction stays
//! open. After the commit point nobody asks for the flag: the commit ends as if it had not been set.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//! use txfs::{BeginOptions, CommitOptions, ErrorKind, OpenOptions, Store};
//!
//! # fn main() -> txfs::Result<()> {
//! # let dir = tempfile::tempdir().expect("a temporary directory");
//! # let dist = dir.path().join("dist");
//! let stop = Arc::new(AtomicBool::new(false));
//! let store = Store::open_with(&OpenOptions::default().interrupted_by(stop.clone()), &dist)?;
//! let mut transaction = store.begin(BeginOptions::default())?;
//! transaction.write("index.html", "<h1>Hello</h1>")?;
//! stop.store(true, Ordering::Relaxed);
//! let error = transaction.commit(&CommitOptions::default()).unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Interrupted);
//! assert!(transaction.is_open() && !dist.exists());
//! # Ok(())
//! # }
//! ```
//!
//! # Limitations
//!
//! - Linux only. Readers that open several files while a commit is applied may see files of both generations; no single
//!   path is ever missing or half written.
//! - A process that still holds a staged file open for writing can change it after it was published.
//! - txfs guards against crashes, mistakes and hostile content of the output and the stage, not against another process of the
//!   same user that means harm, nor against a member of a group that a store is shared with ([`OpenOptions::shared`]).
//!
//! # Exempt from semver
//!
//! - The feature `mutants`: steps of the protocol that tests can leave out.
//! - What the traits [`fs::Fs`] and [`fs::Machine`] ask of a system: the engine gets more of it as it needs that, and no other crate
//!   implements them.
//! - The journal's records ([`Begin`], [`Operation`], [`Record`]), which are as the version of the disk format has them.

mod error;
mod format;
pub mod fs;
#[doc(hidden)]
pub mod fuzzing;
mod holder;
#[cfg(feature = "mutants")]
pub mod mutant;
#[cfg(not(feature = "mutants"))]
#[allow(dead_code, unreachable_pub, reason = "its tables are for tests with the feature")]
mod mutant;
mod options;
mod path;
mod plan;
mod progress;
mod protocol;
mod stage;
mod store;
mod threads;
mod transaction;
mod verify;
mod warning;
mod watch;

pub use error::{
    AnotherUser, Ended, Error, ErrorKind, Misplaced, NothingBefore, Outcome, Owned, Paths, Problem, Result,
};
pub use format::identity::{Digest, Object};
pub use format::journal::record::{Begin, Operation, Record, TransactionId};
pub use format::manifest::{Entry, Extent, Head, Info, Totals};
pub use fs::{Kind, Timestamp};
pub use holder::{Holder, Waiting};
pub use options::{CommitOptions, Exclude};
pub use path::{PathError, RelPath, Shown, Word, is_hidden};
pub use plan::{Change, ChangeKind, Plan, Summary};
pub use progress::{Phase, Progress};
pub use protocol::history::{Changes, Generation};
pub use protocol::prune::Pruned;
pub use protocol::recover::{RecoverOptions, Recovered, RecoveredCommit, Swept};
#[doc(hidden)]
pub use store::Barriers;
pub use store::handed_out::HandedOut;
pub use store::output::Place;
pub use store::retention::Retention;
pub use store::snapshot::Snapshot;
pub use store::store_file::Capabilities;
pub use store::transaction_dir::Basis;
pub use store::{OpenOptions, Store};
pub use transaction::commit::Committed;
pub use transaction::preview::Preview;
pub use transaction::staged_file::StagedFile;
pub use transaction::{BeginOptions, Left, OpenTransaction, Transaction};
pub use verify::{Finding, FindingKind, JournalDump};
pub use warning::Warning;
pub use watch::Watch;
