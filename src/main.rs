//! The `txfs` command.
fn main() {}
