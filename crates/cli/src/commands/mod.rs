//! One file per command.

pub(crate) mod abort;
pub(crate) mod begin;
pub(crate) mod cat;
pub(crate) mod commit;
pub(crate) mod diff;
pub(crate) mod export;
pub(crate) mod init;
pub(crate) mod journal;
pub(crate) mod log;
pub(crate) mod prune;
pub(crate) mod publish;
pub(crate) mod recover;
pub(crate) mod rollback;
pub(crate) mod run;
pub(crate) mod share;
pub(crate) mod status;
pub(crate) mod verify;
