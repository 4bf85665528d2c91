//! `/proc/PID/status` as values: what a process is doing, what it may do, and which signals it has handlers for.

use std::fs;
use std::io;

/// The fields of `/proc/PID/status` that are read here (proc(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Task {
    /// Somebody has stopped it: by SIGSTOP, by Ctrl-Z, in a debugger.
    pub(crate) is_stopped: bool,
    /// Its effective user id.
    pub(crate) user: u32,
    /// Its effective capabilities, a bit for each.
    pub(crate) capabilities: u64,
    /// Whether a seccomp filter judges its system calls.
    pub(crate) is_filtered: bool,
    /// Whether programs that it starts get no more rights than it has.
    pub(crate) no_new_privileges: bool,
    /// The signals that it has handlers for, the first in the lowest bit.
    caught: u64,
}

/// Reads that of a process.
pub(crate) fn look(pid: i32) -> io::Result<Task> {
    Ok(Task::parse(&fs::read_to_string(format!("/proc/{pid}/status"))?))
}

impl Task {
    /// Whether it has a handler for a signal.
    pub(crate) fn catches(&self, signal: i32) -> bool {
        (1..=64).contains(&signal) && self.caught & (1 << (signal - 1)) != 0
    }

    /// What isn't there is as if it were zero.
    pub(crate) fn parse(text: &str) -> Task {
        let field = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap_or_default().trim()
        };
        let bits = |key: &str| u64::from_str_radix(field(key), 16).unwrap_or(0);
        let user = field("Uid").split_ascii_whitespace().nth(1);
        Task {
            is_stopped: field("State").starts_with(['T', 't']),
            user: user.and_then(|user| user.parse().ok()).unwrap_or(0),
            capabilities: bits("CapEff"),
            is_filtered: field("Seccomp") == "2",
            no_new_privileges: field("NoNewPrivs") == "1",
            caught: bits("SigCgt"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_by_their_names() {
        let text = "Name:\tchain\nState:\tT (stopped)\nUid:\t1000\t1001\t1000\t1000\n\
                    SigCgt:\t0000000000000800\nCapEff:\t0000000000080000\nNoNewPrivs:\t1\nSeccomp:\t2\n\
                    Seccomp_filters:\t1\n";
        let task = Task::parse(text);
        assert!(task.is_stopped && task.is_filtered && task.no_new_privileges);
        assert_eq!((task.user, task.capabilities), (1001, 1 << 19));
        assert!(task.catches(libc::SIGUSR2) && !task.catches(libc::SIGUSR1));
        assert!(!task.catches(0) && !task.catches(65));
        assert_eq!(Task::parse(""), Task::default());
    }

    #[test]
    fn our_own_entry_tells_who_we_are() {
        let ours = look(super::super::process::id()).unwrap();
        assert_eq!(ours.user, super::super::process::user().1);
        assert!(!ours.is_stopped);
    }
}
