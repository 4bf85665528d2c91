//! What only a thread itself can ask the kernel about itself: its alternate stack for signals, the address that is cleared
//! when it ends, and the signal that it gets when its parent ends.
//!
//! A thread that is halted by a tracer is sent to [`asking`], a few system calls that touch nothing of the thread's but
//! registers: not its stack, no lock, no errno. What it learns goes to a [`Place`] in memory that nobody else uses. There it
//! waits until its tracer halts it once more, and puts its registers back. If the tracer dies before that, the thread gets
//! back by itself: the place has all its registers, and an `iretq` takes the last of them (Intel SDM, IRET/IRETD/IRETQ).

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;

use super::super::ptrace::REGISTERS;
use super::moment::SignalStack;

/// What a thread asks for, and what it has to get back by. The offsets of its fields stand in [`asking`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// All signals: they wait meanwhile.
    all: u64,
    /// Those that it blocked before.
    blocked: u64,
    /// `stack_t`.
    stack: [u64; 3],
    tid_address: u64,
    death_signal: u32,
    /// 1 when all has been asked.
    pub(super) answered: u32,
    /// 1 for a thread that is to get back by itself.
    released: u32,
    padding: u32,
    /// The results of the system calls, or-ed: negative if one failed.
    result: i64,
    /// ax, cx, dx, bx, bp, si, di, r8 to r15; then what `iretq` takes: ip, cs, flags, sp, ss.
    frame: [u64; 20],
}

/// How much each thread has of the area: a signal's frame finds room below, for the case that one comes while the thread
/// gets back by itself.
const STRIDE: usize = 16 << 10;

/// Where `frame` stands.
const FRAME: usize = std::mem::offset_of!(Place, frame);
const _: () = assert!(FRAME == 72 && std::mem::offset_of!(Place, result) == 64);

/// Of `struct user_regs_struct`, which word is which.
pub(super) mod word {
    pub(in crate::sys::snapshot) const R15: usize = 0;
    pub(in crate::sys::snapshot) const BX: usize = 5;
    pub(in crate::sys::snapshot) const R8: usize = 9;
    pub(in crate::sys::snapshot) const AX: usize = 10;
    pub(in crate::sys::snapshot) const BP: usize = 4;
    pub(in crate::sys::snapshot) const CX: usize = 11;
    pub(in crate::sys::snapshot) const DX: usize = 12;
    pub(in crate::sys::snapshot) const SI: usize = 13;
    pub(in crate::sys::snapshot) const DI: usize = 14;
    pub(in crate::sys::snapshot) const ORIG_AX: usize = 15;
    pub(in crate::sys::snapshot) const IP: usize = 16;
    pub(in crate::sys::snapshot) const CS: usize = 17;
    pub(in crate::sys::snapshot) const FLAGS: usize = 18;
    pub(in crate::sys::snapshot) const SP: usize = 19;
    pub(in crate::sys::snapshot) const SS: usize = 20;
}

impl Place {
    /// Of a thread with these registers, which are to be those with which it goes on by itself.
    pub(super) fn of(registers: &[u64; REGISTERS], blocked: u64) -> Place {
        use word::{AX, BP, BX, CS, CX, DI, DX, FLAGS, IP, R8, R15, SI, SP, SS};
        let general =
            [AX, CX, DX, BX, BP, SI, DI, R8, R8 - 1, R8 - 2, R8 - 3, R15 + 3, R15 + 2, R15 + 1, R15];
        let mut frame = [0; 20];
        for (slot, word) in frame.iter_mut().zip(general.into_iter().chain([IP, CS, FLAGS, SP, SS])) {
            *slot = registers[word];
        }
        Place { all: !0, blocked, frame, ..Place::default() }
    }

    /// What was learned: None if the kernel has refused to tell it.
    pub(super) fn answers(&self) -> Option<(SignalStack, u64, i32)> {
        let [address, flags, size] = self.stack;
        let stack = SignalStack { address, flags: flags as u32, size };
        (self.answered == 1 && self.result >= 0).then_some((
            stack,
            self.tid_address,
            self.death_signal as i32,
        ))
    }

    /// As bytes, for another process's memory.
    pub(super) fn as_bytes(&self) -> &[u8] {
        // SAFETY: a struct of plain numbers without gaps, which is borrowed for as long as the slice.
        unsafe { std::slice::from_raw_parts((&raw const *self).cast(), size_of::<Place>()) }
    }

    pub(super) fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the same, and every pattern of bits is a number.
        unsafe { std::slice::from_raw_parts_mut((&raw mut *self).cast(), size_of::<Place>()) }
    }
}

/// Memory for as many threads, which a halting process fills.
#[derive(Debug)]
pub(crate) struct Places {
    start: *mut u8,
    pub(crate) count: usize,
}

// SAFETY: it is an address, and what is there is only touched by atomic operations of this process.
unsafe impl Send for Places {}

impl Places {
    pub(crate) fn new(count: usize) -> io::Result<Places> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: the kernel chooses the place of the mapping, which nobody else knows.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), count * STRIDE, access, kind, -1, 0) };
        match start == libc::MAP_FAILED {
            true => Err(io::Error::last_os_error()),
            false => Ok(Places { start: start.cast(), count }),
        }
    }

    /// Where the places begin.
    pub(crate) fn address(&self) -> usize {
        self.start.addr()
    }

    /// Has all that still wait in one get back by themselves: their tracer is gone. Makes nothing but system calls.
    pub(crate) fn release(&self) {
        for index in 0..self.count {
            let word = std::mem::offset_of!(Place, released);
            // SAFETY: the word is in the area, aligned, and accessed by atomic operations alone.
            let released = unsafe { AtomicU32::from_ptr(self.start.add(offset(index) + word).cast()) };
            released.store(1, Ordering::Release);
            // SAFETY: a wake-up of whoever waits for that word, and numbers.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    released.as_ptr(),
                    libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                    i32::MAX,
                )
            };
        }
    }

    /// Gives the memory back. Only where no thread is in one of the places any more.
    pub(crate) fn give_back(self) {
        // SAFETY: it was mapped by `new`, and the caller says that nobody is there.
        unsafe { libc::munmap(self.start.cast(), self.count * STRIDE) };
    }
}

/// Where a place is in the area: at the end of its part, above the room for a stack.
fn offset(index: usize) -> usize {
    (index + 1) * STRIDE - size_of::<Place>().next_multiple_of(64)
}

/// The address of a place in an area that begins at `start`.
pub(super) fn place_at(start: usize, index: usize) -> usize {
    start + offset(index)
}

/// The addresses between which a thread is that asks.
#[cfg(target_arch = "x86_64")]
#[inline(never)]
pub(crate) fn asking() -> (usize, usize) {
    let (begin, end): (usize, usize);
    // SAFETY: it only loads two addresses, and jumps over what stands between them, which a thread comes to by its tracer
    // alone: with a Place's address in bx, and as its stack's.
    unsafe {
        std::arch::asm!(
            "lea {begin}, [rip + 20f]",
            "lea {end}, [rip + 24f]",
            "jmp 24f",
            "20:",
            // rt_sigprocmask(SIG_SETMASK, &all, NULL, 8)
            "mov eax, 14", "mov edi, 2", "mov rsi, rbx", "xor edx, edx", "mov r10d, 8", "syscall",
            // sigaltstack(NULL, &stack)
            "mov eax, 131", "xor edi, edi", "lea rsi, [rbx + 16]", "syscall", "mov [rbx + 64], rax",
            // prctl(PR_GET_TID_ADDRESS, &tid_address)
            "mov eax, 157", "mov edi, 40", "lea rsi, [rbx + 40]", "xor edx, edx", "xor r10d, r10d",
            "xor r8d, r8d", "syscall", "or [rbx + 64], rax",
            // prctl(PR_GET_PDEATHSIG, &death_signal)
            "mov eax, 157", "mov edi, 2", "lea rsi, [rbx + 48]", "syscall", "or [rbx + 64], rax",
            "mov dword ptr [rbx + 52], 1",
            // while (!released) futex(&released, FUTEX_WAIT_PRIVATE, 0, NULL)
            "21:", "cmp dword ptr [rbx + 56], 0", "jne 22f",
            "mov eax, 202", "lea rdi, [rbx + 56]", "mov esi, 128", "xor edx, edx", "xor r10d, r10d",
            "syscall", "jmp 21b",
            // rt_sigprocmask(SIG_SETMASK, &blocked, NULL, 8)
            "22:", "mov eax, 14", "mov edi, 2", "lea rsi, [rbx + 8]", "xor edx, edx", "mov r10d, 8", "syscall",
            "lea rsp, [rbx + 72]",
            "pop rax", "pop rcx", "pop rdx", "pop rbx", "pop rbp", "pop rsi", "pop rdi", "pop r8", "pop r9",
            "pop r10", "pop r11", "pop r12", "pop r13", "pop r14", "pop r15",
            "iretq",
            "24:",
            begin = out(reg) begin,
            end = out(reg) end,
            options(nomem, nostack, preserves_flags),
        );
    }
    (begin, end)
}

/// The registers with which a thread asks, from those that it has.
pub(super) fn sent_to(asking: usize, place: usize, registers: &[u64; REGISTERS]) -> [u64; REGISTERS] {
    /// Interrupts on, and the bit that is always set: no direction, no trap.
    const FLAGS: u64 = 0x202;
    let mut sent = *registers;
    sent[word::BX] = place as u64;
    sent[word::SP] = place as u64;
    sent[word::IP] = asking as u64;
    sent[word::FLAGS] = FLAGS;
    // In no system call: there is nothing to be made again.
    sent[word::ORIG_AX] = !0;
    sent
}

/// Winds a system call back that was interrupted, so that it is made again; what stands in `restarted` goes on with one
/// that the kernel would go on with by itself, by restart_syscall(2).
///
/// These are the kernel's own ways (`arch_do_signal_or_restart` in arch/x86/kernel/signal.c); CRIU has a call that would be
/// restarted end with EINTR (`get_task_regs` in compel/arch/x86/src/lib/infect.c).
pub(super) fn wound_back(registers: &[u64; REGISTERS], restarted: Restarted) -> [u64; REGISTERS] {
    const ERESTARTSYS: i64 = -512;
    const ERESTARTNOINTR: i64 = -513;
    const ERESTARTNOHAND: i64 = -514;
    const ERESTART_RESTARTBLOCK: i64 = -516;
    let mut wound = *registers;
    if (registers[word::ORIG_AX] as i64) < 0 {
        return wound;
    }
    match (registers[word::AX] as i64, restarted) {
        (ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND, _) => {
            wound[word::AX] = registers[word::ORIG_AX];
            wound[word::IP] -= 2;
        }
        (ERESTART_RESTARTBLOCK, Restarted::ByTheKernel) => {
            wound[word::AX] = libc::SYS_restart_syscall as u64;
            wound[word::IP] -= 2;
        }
        (ERESTART_RESTARTBLOCK, Restarted::Interrupted) => {
            wound[word::AX] = i64::from(-(Errno::EINTR as i32)) as u64;
        }
        _ => {}
    }
    wound
}

/// What becomes of a call whose rest only the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restarted {
    /// It goes on: in this very thread.
    ByTheKernel,
    /// It ends with EINTR: in a thread that comes back.
    Interrupted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_call_is_made_again_and_one_that_waited_for_a_time_ends() {
        let with = |ax: i64, orig_ax: i64| {
            let mut registers = [7; REGISTERS];
            (registers[word::AX], registers[word::ORIG_AX], registers[word::IP]) =
                (ax as u64, orig_ax as u64, 1000);
            registers
        };
        let wound = |ax, orig_ax, restarted| {
            let wound = wound_back(&with(ax, orig_ax), restarted);
            (wound[word::AX] as i64, wound[word::IP])
        };
        for code in [-512, -513, -514] {
            assert_eq!(wound(code, 0, Restarted::Interrupted), (0, 998));
            assert_eq!(wound(code, 0, Restarted::ByTheKernel), (0, 998));
        }
        assert_eq!(wound(-516, 35, Restarted::Interrupted), (-4, 1000));
        assert_eq!(wound(-516, 35, Restarted::ByTheKernel), (219, 998));
        assert_eq!(wound(5, 0, Restarted::Interrupted), (5, 1000), "it had ended");
        assert_eq!(wound(-512, -1, Restarted::Interrupted), (-512, 1000), "it was in none");
    }
}
