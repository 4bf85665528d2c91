//! CRIU's answers, over a real socket: the first byte of the input says what it is an answer to.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((question, answer)) = input.split_first() else { return };
    selfdump::fuzzing::answer(*question, answer);
});
