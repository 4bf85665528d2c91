//! Working when nobody else wants the disk, or a processor.

use std::io;

use nix::errno::Errno;

/// Of linux/ioprio.h: the kind of whom a priority is, and how its class and level stand in one number.
const OF_A_PROCESS: libc::c_int = 1;
const CLASS_SHIFT: libc::c_int = 13;
const IDLE: libc::c_int = 3;

/// Does something with the calling thread in the idle class of ioprio_set(2), where the disk's scheduler knows classes.
/// Afterwards the thread has the priority that it had.
pub(crate) fn at_leisure<T>(work: impl FnOnce() -> T) -> T {
    /// Puts it back, also after a panic.
    struct Before(Option<libc::c_int>);
    impl Drop for Before {
        fn drop(&mut self) {
            if let Some(priority) = self.0 {
                let _ = set_priority(priority);
            }
        }
    }
    let before = Before(priority().ok());
    if before.0.is_some() {
        let _ = set_priority(IDLE << CLASS_SHIFT);
    }
    work()
}

/// What a process that works later than others does has for its nice value: a third of what each of them gets of a
/// processor that all want (sched(7)). With less, one beside a program that computes on all of them would never be done.
const LATER: libc::c_int = 5;

/// Has another process work later than others, until it ends, and be the last of its class to get at the disk.
pub(crate) fn have_later(pid: i32) -> io::Result<()> {
    const BEST_EFFORT: libc::c_int = 2;
    const LAST: libc::c_int = 7;
    // SAFETY: plain numbers, to both calls.
    unsafe {
        Errno::result(libc::setpriority(libc::PRIO_PROCESS, pid as u32, LATER))?;
        let priority = BEST_EFFORT << CLASS_SHIFT | LAST;
        Errno::result(libc::syscall(libc::SYS_ioprio_set, OF_A_PROCESS, pid, priority))?;
    }
    Ok(())
}

fn priority() -> io::Result<libc::c_int> {
    // SAFETY: a system call on numbers; 0 is the calling thread.
    let priority = unsafe { libc::syscall(libc::SYS_ioprio_get, OF_A_PROCESS, 0) };
    Ok(Errno::result(priority)? as libc::c_int)
}

fn set_priority(priority: libc::c_int) -> io::Result<()> {
    // SAFETY: the same.
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, OF_A_PROCESS, 0, priority) };
    Errno::result(done).map(drop).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_in_the_idle_class_for_as_long_as_it_works_and_no_longer() {
        let before = priority().unwrap();
        let meanwhile = at_leisure(|| priority().unwrap());
        assert_eq!(meanwhile >> CLASS_SHIFT, IDLE);
        assert_eq!(priority().unwrap(), before);
        assert!(std::panic::catch_unwind(|| at_leisure(|| panic!("meant"))).is_err());
        assert_eq!(priority().unwrap(), before);
    }
}
