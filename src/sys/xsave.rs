//! Where the parts of the area are that the processor's xsave fills.

/// Where a part begins in the area's standard form, by its bit in xcr0. None where the processor doesn't have it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn offset_of(part: u32) -> Option<usize> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    /// The leaf that says it (Intel's manual, volume 1, 13.5).
    const LEAF: u32 = 0xd;
    // Newer compilers know that there is nothing unsafe in it.
    #[allow(unused_unsafe)]
    // SAFETY: every processor of x86-64 has the instruction, and it only reads. The leaf is asked for where there is one.
    let found = unsafe { (__cpuid(0).eax >= LEAF).then(|| __cpuid_count(LEAF, part)) };
    found.filter(|found| found.eax > 0).map(|found| found.ebx as usize)
}

/// Other processors have none.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn offset_of(_part: u32) -> Option<usize> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_upper_halves_of_avx_come_first() {
        if std::arch::is_x86_feature_detected!("avx") {
            assert_eq!(offset_of(2), Some(576));
        }
        assert_eq!(offset_of(62), None);
    }
}
