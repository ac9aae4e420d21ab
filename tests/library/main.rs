//! What a caller of the library can do wrong, or meet, and what txfs says then.

#![allow(clippy::unwrap_used)]

mod attributes;
mod places;
mod stopping;
mod transactions;
