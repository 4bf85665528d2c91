//! Manifests, as whole files and as what stands in their envelopes.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| selfdump::fuzzing::manifest(text));
