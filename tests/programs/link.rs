//! The hash chain of `chain`, for the program and for the test that follows it.

/// Where a thread's chain begins.
pub fn first(thread: u64) -> u64 {
    mix(thread ^ 0x9e37_79b9_7f4a_7c15)
}

/// The link that follows `last` at `step`.
pub fn next(last: u64, step: u64) -> u64 {
    mix(last ^ step.wrapping_mul(0xff51_afd7_ed55_8ccd))
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): each bit depends on all.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
