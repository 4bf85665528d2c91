//! What counts where nothing better does.

use super::Rule;
use crate::error::ErrorKind;

/// Words of the operating system, which may stand in any line.
pub(super) const RULES: &[Rule] = &[
    Rule {
        id: "denied",
        line: &["Permission denied"],
        kind: ErrorKind::Permission,
        cause: "CRIU was denied access to a file",
        remedy: "let the store, or the file that the line names, be open to the user that CRIU runs as",
    },
    Rule {
        id: "read-only-store",
        line: &["Read-only file system"],
        kind: ErrorKind::Permission,
        cause: "the store is on a file system that is read-only",
        remedy: "name another folder with SELFDUMP_DIR",
    },
    Rule {
        id: "no-memory",
        line: &["Cannot allocate memory"],
        kind: ErrorKind::Restore,
        cause: "there is not enough memory",
        remedy: "free memory, or lift the limit of the cgroup or of whoever starts CRIU, then try again",
    },
];

/// What CRIU tells only in passing: it counts where no other line tells more than that something failed.
/// Warnings like these come in runs that succeed as well, and a process is killed whenever its restore has failed.
pub(super) const BARE: &[Rule] = &[
    Rule {
        id: "process-gone",
        line: &["Unable to interrupt task", "No such process"],
        kind: ErrorKind::Dump,
        cause: "the process has ended, or has never been there",
        remedy: "look for the program's process id (`pgrep -a NAME`)",
    },
    Rule {
        id: "unstoppable",
        line: &["Unable to interrupt task", "Operation not permitted"],
        kind: ErrorKind::Traced,
        cause: "a thread can't be stopped: another process traces it, its main thread has ended before the others, or CRIU has no right to it",
        remedy: "detach the debugger or strace; else look at /proc/sys/kernel/yama/ptrace_scope, at the container's seccomp profile, and whether CRIU has CAP_SYS_PTRACE",
    },
    Rule {
        id: "traced-at-restore",
        line: &["Can't attach to", "Operation not permitted"],
        kind: ErrorKind::Traced,
        cause: "CRIU may not trace what it brings back: security settings forbid it, or another tracer has it",
        remedy: "look at /proc/sys/kernel/yama/ptrace_scope, at SELinux and the container's seccomp profile, and whether CRIU has CAP_SYS_PTRACE",
    },
    Rule {
        id: "crashed-at-restore",
        line: &["killed by signal 11"],
        kind: ErrorKind::Damaged,
        cause: "CRIU crashed while it brought the program back, as it does where an image is missing",
        remedy: "go back to an older checkpoint (`selfdump list`); `selfdump verify` tells which are whole",
    },
    Rule {
        id: "killed-at-restore",
        line: &["killed by signal 9"],
        kind: ErrorKind::Restore,
        cause: "what was being brought back was killed from outside: most often there is not enough memory",
        remedy: "look for the out-of-memory killer in the kernel's log (`dmesg`), give the cgroup more memory, then restore again",
    },
    Rule {
        id: "dump-without-a-word",
        line: &["Dumping FAILED"],
        kind: ErrorKind::Dump,
        cause: "CRIU doesn't say why",
        remedy: "have CRIU log more (`criu -v4`); where it does already, look at the lines before this one (`selfdump explain` shows them), and whether an image is missing or the page server can't be reached",
    },
    Rule {
        id: "restore-without-a-word",
        line: &["Restoring FAILED"],
        kind: ErrorKind::Restore,
        cause: "CRIU doesn't say why",
        remedy: "have CRIU log more (`criu -v4`); where it does already, look at the lines before this one (`selfdump explain` shows them), and whether an image is missing or the page server can't be reached",
    },
];
