//! Registers: from the forms in which ptrace(2) gives them into CRIU's.

use super::senseless;
use crate::error::Result;
use crate::image::images::{X86Floats, X86Registers, X86Thread, X86Xsave};
use crate::sys::snapshot::moment::Registers;
use crate::sys::xsave::offset_of;

/// Where the header of the xsave area says which parts are not in their initial state.
const XSTATE_BV: usize = 512;

/// What CRIU would have written of a thread. What it writes at all, and in which lengths, is seen in what it has
/// written of the copy's.
pub(super) fn of(noted: &Registers, of_copy: X86Thread) -> Result<X86Thread> {
    // CRIU has another word for a thread with a shadow stack, which nobody has asked the kernel for.
    let xsave = of_copy.fpregs.xsave.as_ref();
    if xsave.and_then(|xsave| xsave.cet.as_ref()).is_some_and(|shadow| shadow.cet != 0) {
        return Err(senseless("the shadow stacks of its threads are not in it"));
    }
    let gpregs = general(&noted.general, &of_copy.gpregs)
        .ok_or_else(|| senseless(format!("a thread has {} registers", noted.general.len())))?;
    let fpregs = floats(&Area(&noted.extended), &of_copy.fpregs)
        .ok_or_else(|| senseless(format!("{} bytes are no xsave area", noted.extended.len())))?;
    Ok(X86Thread { gpregs, fpregs, ..of_copy })
}

/// The kernel's `user_regs_struct`.
fn general(words: &[u64], of_copy: &X86Registers) -> Option<X86Registers> {
    /// The words by their names, in order.
    macro_rules! named {
        ($($name:ident)*) => {{
            let &[$($name),*] = words else { return None };
            X86Registers { $($name,)* mode: of_copy.mode }
        }};
    }
    Some(named! {
        r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss fs_base gs_base ds es fs gs
    })
}

/// The fxsave area, with which the xsave area begins.
fn floats(area: &Area, of_copy: &X86Floats) -> Option<X86Floats> {
    let xsave = match &of_copy.xsave {
        Some(of_copy) => Some(parts(area, of_copy)?),
        None => None,
    };
    Some(X86Floats {
        cwd: area.short(0)?,
        swd: area.short(2)?,
        twd: area.short(4)?,
        fop: area.short(6)?,
        rip: area.long(8)?,
        rdp: area.long(16)?,
        mxcsr: area.word(24)?,
        mxcsr_mask: area.word(28)?,
        st_space: area.words(32, of_copy.st_space.len())?,
        xmm_space: area.words(160, of_copy.xmm_space.len())?,
        padding: of_copy.padding.clone(),
        xsave,
    })
}

/// What xsave adds. The kernel fills a part that is in its initial state in, so it is taken as it stands, as CRIU
/// does.
fn parts(area: &Area, of_copy: &X86Xsave) -> Option<X86Xsave> {
    Some(X86Xsave {
        xstate_bv: area.long(XSTATE_BV)?,
        ymmh_space: area.part_of_words(2, &of_copy.ymmh_space)?,
        bndreg_state: area.part_of_longs(3, &of_copy.bndreg_state)?,
        bndcsr_state: area.part_of_longs(4, &of_copy.bndcsr_state)?,
        opmask_reg: area.part_of_longs(5, &of_copy.opmask_reg)?,
        zmm_upper: area.part_of_longs(6, &of_copy.zmm_upper)?,
        hi16_zmm: area.part_of_longs(7, &of_copy.hi16_zmm)?,
        pkru: area.part_of_words(9, &of_copy.pkru)?,
        cet: of_copy.cet,
    })
}

/// The xsave area in its standard form. What lies outside of it is none.
struct Area<'a>(&'a [u8]);

impl Area<'_> {
    fn at<const SIZE: usize>(&self, offset: usize) -> Option<[u8; SIZE]> {
        self.0.get(offset..)?.first_chunk().copied()
    }

    fn short(&self, offset: usize) -> Option<u32> {
        Some(u16::from_le_bytes(self.at(offset)?).into())
    }

    fn word(&self, offset: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.at(offset)?))
    }

    fn long(&self, offset: usize) -> Option<u64> {
        Some(u64::from_le_bytes(self.at(offset)?))
    }

    fn words(&self, offset: usize, count: usize) -> Option<Vec<u32>> {
        (0..count).map(|place| self.word(offset + 4 * place)).collect()
    }

    /// A part that is as long as the copy's.
    fn part_of_words(&self, part: u32, of_copy: &[u32]) -> Option<Vec<u32>> {
        match of_copy.len() {
            0 => Some(Vec::new()),
            count => self.words(offset_of(part)?, count),
        }
    }

    fn part_of_longs(&self, part: u32, of_copy: &[u64]) -> Option<Vec<u64>> {
        let Some(count) = Some(of_copy.len()).filter(|count| *count > 0) else { return Some(Vec::new()) };
        let offset = offset_of(part)?;
        (0..count).map(|place| self.long(offset + 8 * place)).collect()
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    fn template() -> X86Thread {
        let xsave = X86Xsave { ymmh_space: vec![0; 64], ..X86Xsave::default() };
        let fpregs = X86Floats {
            st_space: vec![0; 32],
            xmm_space: vec![0; 64],
            xsave: Some(xsave),
            ..X86Floats::default()
        };
        let gpregs = X86Registers { mode: Some(1), ..X86Registers::default() };
        X86Thread { gpregs, fpregs, ..X86Thread::default() }
    }

    fn noted() -> Registers {
        let mut extended = vec![0; 832];
        extended[..2].copy_from_slice(&0x37f_u16.to_le_bytes());
        extended[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        extended[160..164].copy_from_slice(&11_u32.to_le_bytes());
        extended[512] = 7;
        extended[828..].copy_from_slice(&22_u32.to_le_bytes());
        Registers { general: (100..127).collect(), extended }
    }

    #[test]
    fn each_register_is_where_criu_has_it() {
        let made = of(&noted(), template()).unwrap();
        let general = &made.gpregs;
        assert_eq!((general.r15, general.orig_ax, general.ip, general.gs), (100, 115, 116, 126));
        assert_eq!(general.mode, Some(1));
        let floats = &made.fpregs;
        assert_eq!((floats.cwd, floats.mxcsr, floats.xmm_space[0]), (0x37f, 0x1f80, 11));
        assert_eq!((floats.st_space.len(), floats.xmm_space.len()), (32, 64));
        if std::arch::is_x86_feature_detected!("avx") {
            let xsave = floats.xsave.as_ref().unwrap();
            assert_eq!((xsave.xstate_bv, xsave.ymmh_space.len(), xsave.ymmh_space[63]), (7, 64, 22));
            assert!(xsave.hi16_zmm.is_empty());
        }
    }

    #[test]
    fn areas_that_are_too_short_are_errors() {
        for length in [0, 511, 519, 831] {
            let mut noted = noted();
            noted.extended.truncate(length);
            assert!(of(&noted, template()).is_err(), "{length}");
        }
        let few = Registers { general: vec![0; 26], ..noted() };
        assert!(of(&few, template()).unwrap_err().to_string().ends_with("a thread has 26 registers"));
    }

    #[test]
    fn shadow_stacks_are_refused() {
        let mut template = template();
        let shadow = crate::image::images::X86ShadowStack { cet: 1, ssp: 7 };
        template.fpregs.xsave.as_mut().unwrap().cet = Some(shadow);
        assert!(of(&noted(), template).is_err());
    }
}
