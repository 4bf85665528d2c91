//! What a process was at the moment at which a copy of it was made, as far as the copy itself doesn't show it.
//!
//! Plain data: one process notes it, another reads it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A process at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) pid: i32,
    pub(crate) process_group: i32,
    pub(crate) session: i32,
    /// All that stood still for it, the main thread first; the last is the one that made the copy.
    pub(crate) threads: Vec<Thread>,
    /// Signals that wait for the process, each a `siginfo_t`.
    pub(crate) waiting: Vec<Vec<u8>>,
    /// What the killer for want of memory adds to its badness.
    pub(crate) oom_score_adj: i32,
    pub(crate) interval_timers: [IntervalTimer; 3],
    pub(crate) descriptors: Vec<Descriptor>,
    /// Which memory it had mapped: the lines of `/proc/PID/maps`.
    pub(crate) mappings: String,
    pub(crate) children: Vec<i32>,
    /// How many timers it has (timer_create(2)).
    pub(crate) posix_timers: usize,
    /// How much memory it keeps from being swapped, in KiB (mlock(2)).
    pub(crate) locked_kib: u64,
    /// Whether it leads a session that has a terminal.
    pub(crate) leads_a_terminal: bool,
}

/// A thread at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Thread {
    pub(crate) tid: i32,
    /// Its registers. None for the one that made the copy: the copy has them.
    pub(crate) registers: Option<Registers>,
    /// Its name, as in `/proc/PID/task/TID/comm`.
    pub(crate) name: Vec<u8>,
    /// The signals that it blocks: bit 0 is signal 1.
    pub(crate) blocked: u64,
    /// Signals that wait for it alone, each a `siginfo_t`.
    pub(crate) waiting: Vec<Vec<u8>>,
    pub(crate) signal_stack: SignalStack,
    /// What the kernel sets to 0 when it ends (set_tid_address(2)).
    pub(crate) tid_address: u64,
    /// The signal that it gets when its parent ends.
    pub(crate) death_signal: i32,
    /// The head of its list of robust mutexes, and the size of that (get_robust_list(2)).
    pub(crate) robust_list: (u64, u64),
    pub(crate) rseq: Option<Rseq>,
    pub(crate) policy: u32,
    pub(crate) priority: u32,
    pub(crate) nice: i32,
    /// Who it is and what it may do: those lines of `/proc/PID/task/TID/status`.
    pub(crate) rights: String,
}

/// The registers of a thread as ptrace(2) gives them, but for an interrupted system call: that is wound back, as CRIU
/// does it, so that it is made again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registers {
    /// `struct user_regs_struct` of x86-64, word by word.
    pub(crate) general: Vec<u64>,
    /// The area that xsave fills, in its standard form (NT_X86_XSTATE).
    pub(crate) extended: Vec<u8>,
}

/// An alternate stack for signals (sigaltstack(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SignalStack {
    pub(crate) address: u64,
    pub(crate) flags: u32,
    pub(crate) size: u64,
}

/// A registered area for restartable sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rseq {
    pub(crate) address: u64,
    pub(crate) size: u32,
    pub(crate) signature: u32,
}

/// What remains of an interval timer, and its interval, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IntervalTimer {
    pub(crate) value_us: u64,
    pub(crate) interval_us: u64,
}

/// A descriptor at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Descriptor {
    pub(crate) fd: i32,
    /// What `/proc/PID/fd/N` leads to.
    pub(crate) target: PathBuf,
    /// `/proc/PID/fdinfo/N`.
    pub(crate) info: String,
    /// The size of a regular file.
    pub(crate) size: Option<u64>,
    /// Its inode.
    pub(crate) inode: u64,
    /// Its type and permissions, as in stat(2).
    pub(crate) mode: u32,
    /// How many names a file has.
    pub(crate) links: u64,
    /// What is in a pipe that isn't empty, at the first of its descriptors.
    pub(crate) contents: Option<Contents>,
    /// Whether it is a socket that listens.
    pub(crate) listens: bool,
}

/// What is in a pipe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contents {
    pub(crate) bytes: Vec<u8>,
    /// How much it can hold, in bytes.
    pub(crate) capacity: u32,
}
