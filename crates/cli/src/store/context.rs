//! What every command is given, and how it comes to the store of its output.
//!
//! Invariant: a store is recovered before it is used, and one line says what that did. Only [`Context::open`] leaves that to the command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use txfs::{Barriers, BeginOptions, OpenOptions, RecoverOptions, Recovered, Store, Transaction};

use crate::signals::Signals;
use crate::store::group;
use crate::store::opened;
use crate::store::stage;
use crate::talk::error::{Failure, usage};
use crate::talk::output::Ui;

/// What every command is given.
pub(crate) struct Context {
    pub(crate) ui: Ui,
    pub(crate) signals: Signals,
    pub(crate) lock_timeout: Duration,
    pub(crate) state: Option<PathBuf>,
    /// Whether stores that a group shares are used, and which group.
    #[expect(clippy::option_option, reason = "as it was said")]
    pub(crate) shared: Option<Option<u32>>,
    pub(crate) barriers: Barriers,
}

impl Context {
    pub(crate) fn options(&self) -> OpenOptions {
        self.unstoppable_options().interrupted_by(self.signals.flag())
    }

    pub(crate) fn unstoppable_options(&self) -> OpenOptions {
        let options = OpenOptions::default().lock_timeout(self.lock_timeout).barriers(self.barriers);
        let options = options.when_waiting(self.ui.teller());
        let options = match self.shared {
            Some(group) => options.shared(group),
            None => options,
        };
        match &self.state {
            Some(dir) => options.state(dir),
            None => options,
        }
    }

    /// The recovered store of `out`; made where there is none, and shared if that was said.
    pub(crate) fn make(&self, out: &Path) -> Result<Store, Failure> {
        let store = self.make_as_it_is(out)?;
        match self.shared {
            Some(group) => group::share(&self.ui, store, group),
            None => Ok(store),
        }
    }

    fn make_as_it_is(&self, out: &Path) -> Result<Store, Failure> {
        stage::refuse_as_output(&self.ui, out)?;
        let store = Store::open_with(&self.options().recover(false), out)?;
        self.recover(&store)?;
        opened::warn_of_weaknesses(&self.ui, &store);
        Ok(store)
    }

    /// As [`Context::make`], and whether the store was made just now for a dry run, which is to leave nothing behind.
    pub(crate) fn make_for(&self, out: &Path, dry_run: bool) -> Result<(Store, bool), Failure> {
        let is_made = dry_run && self.open(&self.options(), out)?.is_none();
        Ok((if dry_run { self.make_as_it_is(out)? } else { self.make(out)? }, is_made))
    }

    /// Takes away again what was made for a dry run.
    pub(crate) fn unmake(&self, store: Store) {
        let state = self.ui.name(store.state());
        if let Err(error) = store.remove_unused() {
            self.ui.warn(format_args!("{state} was made for the dry run and is left: {error}"));
        }
    }

    /// The canonical path of an output that need not be there.
    pub(crate) fn locate(&self, out: &Path) -> Result<PathBuf, Failure> {
        stage::refuse_as_output(&self.ui, out)?;
        Ok(Store::locate(&self.options(), out)?)
    }

    /// The store of `out`, as it is; `None` when txfs has nothing there.
    pub(crate) fn open(&self, options: &OpenOptions, out: &Path) -> Result<Option<Store>, Failure> {
        stage::refuse_as_output(&self.ui, out)?;
        Ok(Store::find(options, out)?)
    }

    /// The recovered store of `out`, for commands that make no sense without one.
    pub(crate) fn expect(&self, out: &Path) -> Result<Store, Failure> {
        let Some(store) = self.find(out)? else {
            let name = self.ui.word(out);
            return Err(usage(nothing_published(&self.ui, out)).hint(format!(
                "`txfs publish {name} DIR` publishes a directory, `txfs begin {name}` begins a transaction"
            )));
        };
        Ok(store)
    }

    /// The recovered store of `out`; `None` when txfs has nothing there.
    pub(crate) fn find(&self, out: &Path) -> Result<Option<Store>, Failure> {
        let Some(store) = self.open(&self.options(), out)? else { return Ok(None) };
        self.recover(&store)?;
        Ok(Some(store))
    }

    /// Begins a transaction, and tells of what was moved aside by that: nobody may ever commit it.
    pub(crate) fn begin(&self, store: &Store, options: BeginOptions) -> Result<Transaction, Failure> {
        let transaction = store.begin(options)?;
        self.ui.rescued(&store.take_rescued());
        Ok(transaction)
    }

    pub(crate) fn recover(&self, store: &Store) -> Result<Recovered, Failure> {
        let recovered = self.signals.hold_during(|| store.recover(RecoverOptions::default().unless_busy(true)))?;
        opened::tell_recovered(&self.ui, store, &recovered);
        self.signals.expect_none_held_back()?;
        Ok(recovered)
    }
}

pub(crate) fn nothing_published(ui: &Ui, out: &Path) -> String {
    format!("nothing has been published to {} by txfs", ui.name(out))
}
