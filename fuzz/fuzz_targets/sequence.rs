//! Any bytes as the life of a store in the simulator: commits, changes and aborts that end well, are killed, lose the power or
//! meet an error, recoveries that are interrupted, and strangers. After each step the output is what a model says.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| txfs_sim::explore::model::live(input));
