//! The SELFDUMP_* variables, a line for each.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| selfdump::fuzzing::settings(text));
