//! What recovery makes of a commit that passed its commit point and began nothing: the process died there, or a crash took what it
//! had begun. Nobody's doing in the meantime takes the commit back.

#![allow(clippy::unwrap_used)]

mod barriers;
mod commits;
