//! The door that keeps strangers from implementing [`Fs`](super::Fs) and [`Machine`](super::Machine).
//!
//! Both traits get methods as the engine needs them, and the engine believes what they answer: a file system that says that a file is
//! durable when it is not loses commits. So no crate but those of this repository is to implement them. Those do, to prove the engine:
//! the simulator (`crates/sim`), the kernel with calls that fail (`crates/testing`), and the kernel with neighbours (`proof/replay`).
//! They implement [`Sealed`], which the documentation does not show. Whoever else names it has left what semver promises.

/// Says that a type may be an [`Fs`](super::Fs) and a [`Machine`](super::Machine).
pub trait Sealed {}
