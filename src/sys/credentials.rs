//! Who a process acts as, and what it may do besides: users, groups and capabilities(7).
//!
//! The C library changes those of all threads; here it is always the calling one alone, or a child that has just been
//! cloned, so the kernel is asked directly.

use std::ffi::c_int;
use std::io;
use std::ptr;

use nix::errno::Errno;

/// A capability, by its number in linux/capability.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    Chown = 0,
    DacReadSearch = 2,
    Fowner = 3,
    Kill = 5,
    Setgid = 6,
    Setuid = 7,
    Setpcap = 8,
    SysPtrace = 19,
    CheckpointRestore = 40,
}

/// The highest number of a capability that any kernel has.
const LAST: c_int = 63;

/// `PR_SET_KEEPCAPS`, `PR_CAPBSET_DROP`, … of linux/prctl.h come from libc; the header of capset(2) doesn't.
const VERSION_3: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// Capabilities 0 to 31, and then 32 to 63.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Whom a program is run as, with what it may do although it isn't root.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) user: u32,
    pub(crate) group: u32,
    /// Further groups.
    pub(crate) groups: Vec<u32>,
    pub(crate) capabilities: &'static [Capability],
}

fn bits(capabilities: &[Capability]) -> u64 {
    capabilities.iter().fold(0, |bits, &capability| bits | 1 << capability as u32)
}

/// Takes every capability but these from the calling thread for good, and from whatever it starts; nothing that is
/// started can get more than it was started with.
pub(crate) fn keep_only(capabilities: &[Capability]) -> io::Result<()> {
    let kept = bits(capabilities);
    // SAFETY: numbers, and pointers to values that live until the calls return.
    unsafe {
        drop_from_bounding(kept);
        Errno::result(set(kept, 0))?;
        Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
    }
    Ok(())
}

/// Turns the calling process into another user's, with these capabilities, which its program then has as well. Makes
/// only system calls, so that it can be called between a clone and an exec. Where it fails, some of it may have been
/// done: the process then has to end.
pub(super) fn become_identity(identity: &Identity) -> Result<(), Errno> {
    let kept = bits(identity.capabilities);
    let (user, group) = (identity.user, identity.group);
    // SAFETY: numbers, and pointers to values that live until the calls return.
    unsafe {
        Errno::result(libc::syscall(libc::SYS_setgroups, identity.groups.len(), identity.groups.as_ptr()))?;
        Errno::result(libc::syscall(libc::SYS_setresgid, group, group, group))?;
        drop_from_bounding(kept);
        Errno::result(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        Errno::result(libc::syscall(libc::SYS_setresuid, user, user, user))?;
        Errno::result(set(kept, kept))?;
        for &capability in identity.capabilities {
            let raise = libc::PR_CAP_AMBIENT_RAISE;
            Errno::result(libc::prctl(libc::PR_CAP_AMBIENT, raise, capability as c_int, 0, 0))?;
        }
        Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
    }
    Ok(())
}

/// # Safety
/// None but that it is a system call.
unsafe fn drop_from_bounding(kept: u64) {
    for capability in (0..=LAST).filter(|number| kept >> number & 1 == 0) {
        // Those that this kernel doesn't know are refused, which is right.
        // SAFETY: plain numbers.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

/// # Safety
/// None but that it is a system call.
unsafe fn set(kept: u64, inheritable: u64) -> c_int {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| {
        let kept = (kept >> shift) as u32;
        Half { effective: kept, permitted: kept, inheritable: (inheritable >> shift) as u32 }
    };
    let halves = [half(0), half(32)];
    // SAFETY: version 3 has a header and two halves, which live until the call returns.
    unsafe { libc::syscall(libc::SYS_capset, &raw const header, ptr::from_ref(&halves)) as c_int }
}
