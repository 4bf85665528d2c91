//! A thread.

use std::path::Path;

use serde::Serialize;

use super::registers::{Registers, plain};
use crate::error::Result;
use crate::image::images::{self, Core, ThreadCore};
use crate::image::kind::{Image, Kind};

/// A thread as it stood still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Thread {
    /// Its id.
    pub tid: i32,
    /// Its name, as in `/proc/PID/task/TID/comm`.
    pub name: String,
    /// Its registers.
    pub registers: Registers,
    /// Where the kernel writes a zero and wakes waiters when it ends (set_tid_address(2)).
    pub clear_tid_address: u64,
    /// The signals that it blocks: bit 0 is signal 1.
    pub blocked_signals: u64,
    /// The signals that waited for it, oldest first, each as a `siginfo_t` of 128 bytes.
    pub pending_signals: Vec<Vec<u8>>,
    /// Its alternate signal stack.
    pub signal_stack: Option<SignalStack>,
    /// The address of its list of robust futexes, and that list's head's size in bytes.
    pub robust_list: (u64, u32),
    /// Its area for restartable sequences.
    pub rseq: Option<Rseq>,
    /// Who it is.
    pub credentials: Option<Credentials>,
    /// Its nice value.
    pub nice: i32,
    /// Its scheduling policy, as for sched_setscheduler(2).
    pub policy: u32,
    /// Its real-time priority.
    pub priority: u32,
    /// The signal that it is sent when its parent ends; 0 for none.
    pub parent_death_signal: u32,
    /// Whether seccomp is 0 off, 1 strict or 2 a filter.
    pub seccomp_mode: u32,
}

plain! {
    /// An alternate signal stack, as sigaltstack(2) gives it.
    SignalStack: SignalStack {
        /// Its address.
        ss_sp: u64,
        /// Its size in bytes.
        ss_size: u64,
        /// Its flags.
        ss_flags: u32,
    }
}

plain! {
    /// A thread's area for restartable sequences.
    Rseq: Rseq {
        /// Its address.
        rseq_abi_pointer: u64,
        /// Its size in bytes.
        rseq_abi_size: u32,
        /// What stands before an abort handler.
        signature: u32,
    }
}

plain! {
    /// Who a thread is. Sets of capabilities are of 32 bits each, the low ones first.
    Credentials: Credentials {
        /// The real user.
        uid: u32,
        /// The real group.
        gid: u32,
        /// The effective user.
        euid: u32,
        /// The effective group.
        egid: u32,
        /// The saved user.
        suid: u32,
        /// The saved group.
        sgid: u32,
        /// The user for files.
        fsuid: u32,
        /// The group for files.
        fsgid: u32,
        /// Further groups.
        groups: Vec<u32>,
        /// Inheritable capabilities.
        cap_inh: Vec<u32>,
        /// Permitted capabilities.
        cap_prm: Vec<u32>,
        /// Effective capabilities.
        cap_eff: Vec<u32>,
        /// The bounding set.
        cap_bnd: Vec<u32>,
        /// Ambient capabilities.
        cap_amb: Vec<u32>,
        /// Secure bits.
        secbits: u32,
    }
}

/// Reads the image of a thread: what is the thread's, and, in that of the main one, what is the process's.
pub(super) fn read(images: &Path, tid: u32) -> Result<(Thread, Option<images::Task>)> {
    let image = Image::of(Kind::Core, tid);
    let core: Core = image.read_one(images)?;
    let (registers, clear_tid_address) = registers(&core)
        .ok_or_else(|| image.damaged(images, format!("its registers are of architecture {}", core.mtype)))?;
    let own = core.thread_core.unwrap_or_default();
    let tid = i32::try_from(tid).map_err(|_| image.damaged(images, "its number is no thread's"))?;
    let name = own.comm.as_ref().or(core.tc.as_ref().map(|task| &task.comm)).cloned().unwrap_or_default();
    let blocked = own.blk_sigset.or(core.tc.as_ref().map(|task| task.blk_sigset));
    Ok((thread(tid, &name, registers, clear_tid_address, blocked.unwrap_or(0), own), core.tc))
}

fn registers(core: &Core) -> Option<(Registers, u64)> {
    if let Some(thread) = &core.thread_info {
        return Some((Registers::X86(Box::new(thread.clone().into())), thread.clear_tid_addr));
    }
    let thread = core.ti_aarch64.as_ref()?;
    Some((Registers::Aarch64(Box::new(thread.clone().into())), thread.clear_tid_addr))
}

fn thread(
    tid: i32,
    name: &[u8],
    registers: Registers,
    clear_tid_address: u64,
    blocked_signals: u64,
    own: ThreadCore,
) -> Thread {
    Thread {
        tid,
        name: String::from_utf8_lossy(name).into_owned(),
        registers,
        clear_tid_address,
        blocked_signals,
        pending_signals: queue(own.signals_p),
        signal_stack: own.sas.map(Into::into),
        robust_list: (own.futex_rla, own.futex_rla_len),
        rseq: own.rseq_entry.map(Into::into),
        credentials: own.creds.map(Into::into),
        nice: own.sched_nice.unwrap_or(0),
        policy: own.sched_policy.unwrap_or(0),
        priority: own.sched_prio.unwrap_or(0),
        parent_death_signal: own.pdeath_sig.unwrap_or(0),
        seccomp_mode: own.seccomp_mode.unwrap_or(0),
    }
}

/// Signals that wait.
pub(super) fn queue(queue: Option<images::SignalQueue>) -> Vec<Vec<u8>> {
    queue.into_iter().flat_map(|queue| queue.signals).map(|signal| signal.siginfo).collect()
}
