//! What a hostile user tells the service for many users, as one message.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| selfdump::fuzzing::request(input));
