//! The requests of ptrace(2) that are made here, each with its own types.
//!
//! Tracing is a thread's matter: only the one that has seized a thread may ask anything of it, and when that one ends, the
//! kernel lets go of all that it has seized.

use std::io;
use std::ptr;

use nix::errno::Errno;

/// How many words `struct user_regs_struct` has on x86-64.
pub(super) const REGISTERS: usize = 27;

/// The size of a `siginfo_t`.
const SIGNAL_INFO: usize = 128;

/// More than any processor's xsave area takes today (11 KiB with AMX).
const LARGEST_EXTENDED: usize = 64 << 10;

/// Of linux/elf.h: the area that xsave fills.
const NT_X86_XSTATE: usize = 0x202;

/// Of linux/ptrace.h, what the libc crate lacks on some targets.
const GETREGSET: libc::c_uint = 0x4204;
const PEEKSIGINFO: libc::c_uint = 0x4209;
const GETSIGMASK: libc::c_uint = 0x420a;
const SETSIGMASK: libc::c_uint = 0x420b;
const GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
const PEEKSIGINFO_SHARED: u32 = 1;

/// `struct ptrace_rseq_configuration`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Rseq {
    pub(super) address: u64,
    pub(super) size: u32,
    pub(super) signature: u32,
    flags: u32,
    padding: u32,
}

/// `struct ptrace_peeksiginfo_args`.
#[repr(C)]
struct Peek {
    offset: u64,
    flags: u32,
    count: i32,
}

/// Whose signals are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// Those that wait for the thread.
    Thread,
    /// Those that wait for any thread of its process.
    Process,
}

/// Begins to trace a thread, which goes on meanwhile.
pub(super) fn seize(tid: i32, options: libc::c_int) -> io::Result<()> {
    plain(libc::PTRACE_SEIZE, tid, options as usize)
}

/// Has a thread stop, which is to be waited for.
pub(super) fn interrupt(tid: i32) -> io::Result<()> {
    plain(libc::PTRACE_INTERRUPT, tid, 0)
}

/// Has a thread that is stopped go on, with a signal if that isn't 0.
pub(super) fn go_on(tid: i32, signal: i32) -> io::Result<()> {
    plain(libc::PTRACE_CONT, tid, signal as usize)
}

/// Lets go of a thread that is stopped: it goes on.
pub(super) fn detach(tid: i32) -> io::Result<()> {
    plain(libc::PTRACE_DETACH, tid, 0)
}

/// What the last event of a thread has to say.
pub(super) fn event_message(tid: i32) -> io::Result<u64> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the kernel writes a long to where one is.
    unsafe { with_memory(libc::PTRACE_GETEVENTMSG, tid, 0, (&raw mut message).cast()) }?;
    Ok(message)
}

/// The general registers of a thread that is stopped.
#[cfg(target_arch = "x86_64")]
pub(super) fn registers(tid: i32) -> io::Result<[u64; REGISTERS]> {
    let mut registers = [0; REGISTERS];
    // SAFETY: the kernel writes as many words as there are (`struct user_regs_struct`).
    unsafe { with_memory(libc::PTRACE_GETREGS, tid, 0, registers.as_mut_ptr().cast()) }?;
    Ok(registers)
}

/// Sets them.
#[cfg(target_arch = "x86_64")]
pub(super) fn set_registers(tid: i32, registers: &[u64; REGISTERS]) -> io::Result<()> {
    // SAFETY: the kernel reads as many words as there are.
    unsafe { with_memory(libc::PTRACE_SETREGS, tid, 0, registers.as_ptr().cast_mut().cast()) }?;
    Ok(())
}

/// All its other registers, as xsave stores them.
pub(super) fn extended_registers(tid: i32) -> io::Result<Vec<u8>> {
    let mut area = vec![0; LARGEST_EXTENDED];
    let mut part = libc::iovec { iov_base: area.as_mut_ptr().cast(), iov_len: area.len() };
    // SAFETY: the kernel writes to the area that the vector describes, and says in it how much that was.
    unsafe { with_memory(GETREGSET, tid, NT_X86_XSTATE, (&raw mut part).cast()) }?;
    area.truncate(part.iov_len);
    Ok(area)
}

/// The signals that a thread blocks; where a system call has put a mask of its own in that one's place, the one that comes
/// back with the call's end.
pub(super) fn blocked(tid: i32) -> io::Result<u64> {
    let mut mask: u64 = 0;
    // SAFETY: the kernel writes as many bytes as are said, 8.
    unsafe { with_memory(GETSIGMASK, tid, size_of::<u64>(), (&raw mut mask).cast()) }?;
    Ok(mask)
}

/// Sets them.
pub(super) fn set_blocked(tid: i32, mut mask: u64) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as are said, 8.
    unsafe { with_memory(SETSIGMASK, tid, size_of::<u64>(), (&raw mut mask).cast()) }?;
    Ok(())
}

/// The signals that wait, oldest first, each a `siginfo_t`.
pub(super) fn waiting(tid: i32, whose: Waiting) -> io::Result<Vec<Vec<u8>>> {
    const AT_ONCE: usize = 32;
    let flags = if whose == Waiting::Process { PEEKSIGINFO_SHARED } else { 0 };
    let (mut all, mut buffer) = (Vec::new(), [[0_u8; SIGNAL_INFO]; AT_ONCE]);
    loop {
        let mut peek = Peek { offset: all.len() as u64, flags, count: AT_ONCE as i32 };
        let (about, infos) = ((&raw mut peek).addr(), buffer.as_mut_ptr().cast());
        // SAFETY: the kernel reads what is asked for from `peek`, and writes up to so many infos to where they have room.
        let count = unsafe { with_memory(PEEKSIGINFO, tid, about, infos) }?;
        all.extend(buffer.iter().take(count).map(|info| info.to_vec()));
        if count < AT_ONCE {
            return Ok(all);
        }
    }
}

/// A thread's area for restartable sequences, if it has one.
pub(super) fn rseq(tid: i32) -> io::Result<Option<Rseq>> {
    let mut rseq = Rseq::default();
    // SAFETY: the kernel writes as many bytes as are said.
    unsafe { with_memory(GET_RSEQ_CONFIGURATION, tid, size_of::<Rseq>(), (&raw mut rseq).cast()) }?;
    Ok((rseq.address != 0).then_some(rseq))
}

/// A request of nothing but numbers.
fn plain(what: libc::c_uint, tid: i32, data: usize) -> io::Result<()> {
    // SAFETY: the callers' requests take `data` for a number, and nothing for an address.
    Errno::result(unsafe { libc::ptrace(what, tid, ptr::null_mut::<libc::c_void>(), data) })?;
    Ok(())
}

/// # Safety
///
/// `memory` has to be what the request wants, for as long as the call takes.
unsafe fn with_memory(
    what: libc::c_uint,
    tid: i32,
    address: usize,
    memory: *mut libc::c_void,
) -> io::Result<usize> {
    // SAFETY: the caller's.
    let done = unsafe { libc::ptrace(what, tid, address, memory) };
    Ok(Errno::result(done)? as usize)
}
