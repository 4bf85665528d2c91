//! A secret for the program that has it in its memory, and for the test that looks for it elsewhere. It is worked out,
//! so that it stands in no executable.

use std::hint::black_box;

pub fn secret() -> Vec<u8> {
    // Knuth's multiplicative generator (MMIX).
    let next = |last: &u64| {
        Some(last.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407))
    };
    std::iter::successors(Some(black_box(4711)), next).skip(1).take(4).flat_map(u64::to_le_bytes).collect()
}
