//! Registers, in the notes' forms: those in which ptrace(2) gives them.

use super::elf::{Note, Record};
use super::notes::{CORE, LINUX};
use crate::image::inside::{Aarch64, Registers, X86, X86Extended};

const NT_FPREGSET: u32 = 2;
const NT_X86_XSTATE: u32 = 0x202;
const NT_ARM_TLS: u32 = 0x401;

/// Those of NT_PRSTATUS, the kernel's `elf_gregset_t`.
pub(super) fn general(registers: &Registers) -> Vec<u64> {
    match registers {
        Registers::X86(all) => {
            let r = &all.general;
            vec![
                r.r15, r.r14, r.r13, r.r12, r.bp, r.bx, r.r11, r.r10, r.r9, r.r8, r.ax, r.cx, r.dx, r.si,
                r.di, r.orig_ax, r.ip, r.cs, r.flags, r.sp, r.ss, r.fs_base, r.gs_base, r.ds, r.es, r.fs,
                r.gs,
            ]
        }
        Registers::Aarch64(all) => {
            let r = &all.general;
            let numbered = (0..31).map(|number| r.regs.get(number).copied().unwrap_or(0));
            numbered.chain([r.sp, r.pc, r.pstate]).collect()
        }
    }
}

/// The notes of all others.
pub(super) fn others(registers: &Registers) -> Vec<Note> {
    match registers {
        Registers::X86(all) => {
            let fxsave = fxsave(all);
            let extended = all.extended.as_ref().map(|extended| Note {
                owner: LINUX,
                kind: NT_X86_XSTATE,
                contents: xsave(&fxsave, extended),
            });
            std::iter::once(Note { owner: CORE, kind: NT_FPREGSET, contents: fxsave })
                .chain(extended)
                .collect()
        }
        Registers::Aarch64(all) => vec![
            Note { owner: CORE, kind: NT_FPREGSET, contents: vectors(all) },
            Note { owner: LINUX, kind: NT_ARM_TLS, contents: Record::default().long(all.tls).0 },
        ],
    }
}

/// The processor's fxsave area.
fn fxsave(all: &X86) -> Vec<u8> {
    let f = &all.floating;
    Record::default()
        .short(f.cwd as u16)
        .short(f.swd as u16)
        .short(f.twd as u16)
        .short(f.fop as u16)
        .longs([f.rip, f.rdp])
        .words([f.mxcsr, f.mxcsr_mask])
        .words(f.st_space.iter().copied())
        .up_to(160)
        .words(f.xmm_space.iter().copied())
        .up_to(512)
        .0
}

/// Where the bits of xcr0 are kept among what the processor leaves free (the kernel's `_fpx_sw_bytes`).
const FEATURES_AT: usize = 464;

/// Where the parts of the xsave area begin, each behind the end of the one before, and what bits of xcr0 they have. It is
/// the form that CRIU reads and writes as well, whatever form the processor has.
fn xsave(fxsave: &[u8], extended: &X86Extended) -> Vec<u8> {
    let longs = |numbers: &[u64]| Record::default().longs(numbers.iter().copied()).0;
    let words = |numbers: &[u32]| Record::default().words(numbers.iter().copied()).0;
    let parts = [
        (576, 1 << 2, words(&extended.ymmh_space), 256),
        (960, 1 << 3, longs(&extended.bndreg_state), 64),
        (1024, 1 << 4, longs(&extended.bndcsr_state), 64),
        (1088, 1 << 5, longs(&extended.opmask_reg), 64),
        (1152, 1 << 6, longs(&extended.zmm_upper), 512),
        (1664, 1 << 7, longs(&extended.hi16_zmm), 1024),
        (2688, 1 << 9, words(&extended.pkru), 8),
    ];
    let parts = || parts.iter().filter(|(.., contents, _)| !contents.is_empty());
    // x87 and SSE are always there.
    let features = parts().fold(3, |features, (_, bit, ..)| features | bit);
    let head = Record::default()
        .bytes(&fxsave[..FEATURES_AT])
        .long(features)
        .bytes(&fxsave[FEATURES_AT + 8..])
        .long(extended.xstate_bv & features)
        .up_to(576);
    parts().fold(head, |area, (at, _, contents, size)| area.up_to(*at).bytes(contents).up_to(at + size)).0
}

/// The kernel's `user_fpsimd_state` of aarch64.
fn vectors(all: &Aarch64) -> Vec<u8> {
    let f = &all.floating;
    Record::default().longs(f.vregs.iter().copied()).up_to(512).words([f.fpsr, f.fpcr]).up_to(528).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(registers: &Registers) -> Vec<(u32, usize)> {
        others(registers).iter().map(|note| (note.kind, note.contents.len())).collect()
    }

    fn with(extended: X86Extended) -> Registers {
        Registers::X86(Box::new(X86 { extended: Some(extended), ..X86::default() }))
    }

    #[test]
    fn an_xsave_area_is_as_long_as_its_last_part_and_says_which_there_are() {
        let avx = with(X86Extended { ymmh_space: vec![9; 64], xstate_bv: 0x207, ..X86Extended::default() });
        assert_eq!(sizes(&avx), [(NT_FPREGSET, 512), (NT_X86_XSTATE, 832)]);
        let area = &others(&avx)[1].contents;
        assert_eq!((area[FEATURES_AT], area[FEATURES_AT + 1], area[512], area[513]), (7, 0, 7, 0));
        assert_eq!(area[576..580], 9_u32.to_ne_bytes());
        let keys = with(X86Extended {
            ymmh_space: vec![9; 64],
            pkru: vec![0x5555_5554, 0],
            ..X86Extended::default()
        });
        let area = &others(&keys)[1].contents;
        assert_eq!((area.len(), area[FEATURES_AT + 1]), (2696, 2));
        assert_eq!(area[2688..2692], 0x5555_5554_u32.to_ne_bytes());
        assert!(area[832..2688].iter().all(|byte| *byte == 0));
        assert_eq!(sizes(&Registers::X86(Box::default())), [(NT_FPREGSET, 512)]);
    }

    #[test]
    fn aarch64_has_its_own() {
        let mut all = Aarch64 { tls: 42, ..Aarch64::default() };
        all.general.regs = (0..31).collect();
        (all.general.sp, all.general.pc, all.general.pstate) = (100, 101, 102);
        let registers = Registers::Aarch64(Box::new(all));
        assert_eq!(general(&registers), (0..31).chain(100..103).collect::<Vec<u64>>());
        assert_eq!(sizes(&registers), [(NT_FPREGSET, 528), (NT_ARM_TLS, 8)]);
    }
}
