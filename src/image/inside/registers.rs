//! The registers of a thread.

use serde::Serialize;

use crate::image::images;

/// Declares plain data that has fields of a message, by their names, and how it comes from that.
macro_rules! plain {
    ($(#[$about:meta])* $name:ident: $message:ident { $($(#[$what:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct $name { $($(#[$what])* pub $field: $kind,)* }

        impl From<images::$message> for $name {
            fn from(message: images::$message) -> $name {
                $name { $($field: message.$field.into(),)* }
            }
        }
    };
}

/// The registers of a thread, by architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "architecture")]
#[non_exhaustive]
pub enum Registers {
    /// Of x86-64.
    #[serde(rename = "x86-64")]
    X86(Box<X86>),
    /// Of aarch64.
    Aarch64(Box<Aarch64>),
}

impl Registers {
    /// Where the thread stands in the program.
    pub fn instruction_pointer(&self) -> u64 {
        match self {
            Registers::X86(registers) => registers.general.ip,
            Registers::Aarch64(registers) => registers.general.pc,
        }
    }

    /// Where its stack ends.
    pub fn stack_pointer(&self) -> u64 {
        match self {
            Registers::X86(registers) => registers.general.sp,
            Registers::Aarch64(registers) => registers.general.sp,
        }
    }
}

/// All of a thread's on x86-64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct X86 {
    /// The general ones.
    pub general: X86General,
    /// Those for floating point and vectors.
    pub floating: X86Floating,
    /// What xsave adds to that, where CRIU saved it.
    pub extended: Option<X86Extended>,
}

impl From<images::X86Thread> for X86 {
    fn from(mut thread: images::X86Thread) -> X86 {
        let extended = thread.fpregs.xsave.take().map(Into::into);
        X86 { general: thread.gpregs.into(), floating: thread.fpregs.into(), extended }
    }
}

plain! {
    /// The general registers of x86-64, by the names that ptrace(2) gives them.
    X86General: X86Registers {
        /// One of the sixteen.
        ax: u64,
        /// One of the sixteen.
        bx: u64,
        /// One of the sixteen.
        cx: u64,
        /// One of the sixteen.
        dx: u64,
        /// One of the sixteen.
        si: u64,
        /// One of the sixteen.
        di: u64,
        /// One of the sixteen.
        bp: u64,
        /// The stack pointer.
        sp: u64,
        /// One of the sixteen.
        r8: u64,
        /// One of the sixteen.
        r9: u64,
        /// One of the sixteen.
        r10: u64,
        /// One of the sixteen.
        r11: u64,
        /// One of the sixteen.
        r12: u64,
        /// One of the sixteen.
        r13: u64,
        /// One of the sixteen.
        r14: u64,
        /// One of the sixteen.
        r15: u64,
        /// The instruction pointer.
        ip: u64,
        /// The flags.
        flags: u64,
        /// The number of the system call that the thread was in; `u64::MAX` where it was in none. CRIU winds a call
        /// back, so that it is made again.
        orig_ax: u64,
        /// A segment.
        cs: u64,
        /// A segment.
        ss: u64,
        /// A segment.
        ds: u64,
        /// A segment.
        es: u64,
        /// A segment.
        fs: u64,
        /// A segment.
        gs: u64,
        /// The base of the segment fs: the thread's own data.
        fs_base: u64,
        /// The base of the segment gs.
        gs_base: u64,
    }
}

plain! {
    /// The fxsave area of x86-64, field by field.
    X86Floating: X86Floats {
        /// The control word.
        cwd: u32,
        /// The status word.
        swd: u32,
        /// The tag word.
        twd: u32,
        /// The last opcode.
        fop: u32,
        /// The last instruction.
        rip: u64,
        /// Its operand.
        rdp: u64,
        /// Control and status of SSE.
        mxcsr: u32,
        /// The bits of that which may be set.
        mxcsr_mask: u32,
        /// 8 registers of 16 bytes, in words of 4.
        st_space: Vec<u32>,
        /// 16 registers of 16 bytes, in words of 4.
        xmm_space: Vec<u32>,
    }
}

plain! {
    /// What xsave adds to the fxsave area, part by part; those that the processor doesn't have are empty.
    X86Extended: X86Xsave {
        /// Which parts are not in their initial state.
        xstate_bv: u64,
        /// The upper halves of the 16 AVX registers, in words of 4 bytes.
        ymmh_space: Vec<u32>,
        /// Bounds of MPX.
        bndreg_state: Vec<u64>,
        /// Their configuration.
        bndcsr_state: Vec<u64>,
        /// The masks of AVX-512.
        opmask_reg: Vec<u64>,
        /// The upper halves of its first 16 registers.
        zmm_upper: Vec<u64>,
        /// Its other 16 registers.
        hi16_zmm: Vec<u64>,
        /// Protection keys.
        pkru: Vec<u32>,
    }
}

/// All of a thread's on aarch64.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Aarch64 {
    /// The general ones.
    pub general: Aarch64General,
    /// Those for floating point and vectors.
    pub floating: Aarch64Floating,
    /// The thread's own data.
    pub tls: u64,
}

impl From<images::Aarch64Thread> for Aarch64 {
    fn from(thread: images::Aarch64Thread) -> Aarch64 {
        Aarch64 { general: thread.gpregs.into(), floating: thread.fpsimd.into(), tls: thread.tls }
    }
}

plain! {
    /// The general registers of aarch64.
    Aarch64General: Aarch64Registers {
        /// x0 to x30.
        regs: Vec<u64>,
        /// The stack pointer.
        sp: u64,
        /// The instruction pointer.
        pc: u64,
        /// The flags.
        pstate: u64,
    }
}

plain! {
    /// The vector registers of aarch64.
    Aarch64Floating: Aarch64Floats {
        /// 32 of 16 bytes, each as its low and its high half.
        vregs: Vec<u64>,
        /// Status.
        fpsr: u32,
        /// Control.
        fpcr: u32,
    }
}

pub(in crate::image) use plain;
