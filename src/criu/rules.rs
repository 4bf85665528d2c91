//! The dictionary: lines of CRIU's log, what they mean, and what to do.

use crate::error::ErrorKind;

/// A line of CRIU's log that tells the cause.
pub(super) struct Rule {
    /// Parts of the line, in this order.
    line: &'static [&'static str],
    pub(super) kind: ErrorKind,
    pub(super) cause: &'static str,
    pub(super) remedy: &'static str,
}

/// The one cause that CRIU tells by a warning.
const UNSTOPPABLE: Rule = Rule {
    line: &["Unable to interrupt task", "Operation not permitted"],
    kind: ErrorKind::Traced,
    cause: "a thread can't be stopped, because another process traces it or security settings forbid it",
    remedy: "detach the debugger or strace; else look at /proc/sys/kernel/yama/ptrace_scope and the container's seccomp profile",
};

/// The first rule that a line matches tells the cause; so a cause stands before what follows from it.
const RULES: &[Rule] = &[
    Rule {
        line: &["No space left on device"],
        kind: ErrorKind::NoSpace,
        cause: "the disk is full",
        remedy: "free space on the store's file system, keep fewer checkpoints (SELFDUMP_KEEP), or name another folder with SELFDUMP_DIR",
    },
    Rule {
        line: &["Disk quota exceeded"],
        kind: ErrorKind::NoSpace,
        cause: "the disk quota is used up",
        remedy: "free space, keep fewer checkpoints (SELFDUMP_KEEP), or name another folder with SELFDUMP_DIR",
    },
    Rule {
        line: &["The criu itself is within dumped tree"],
        kind: ErrorKind::InsideTree,
        cause: "CRIU is a descendant of the process that it has to freeze",
        remedy: "start a service outside of it (`criu service --address SOCKET`) and name it with SELFDUMP_SERVICE",
    },
    Rule {
        line: &["Unexpected rt vDSO area bounds"],
        kind: ErrorKind::CriuTooOld,
        cause: "this CRIU is too old for this kernel's vDSO",
        remedy: "run `selfdump setup`, or install criu 4.2 or later",
    },
    Rule {
        line: &["Can't get 1:16 opt: Operation not supported"],
        kind: ErrorKind::CriuTooOld,
        cause: "this CRIU is too old for internet sockets on kernels from 6.16 on",
        remedy: "run `selfdump setup`, or install criu 4.2 or later",
    },
    UNSTOPPABLE,
    Rule {
        line: &["Unseizable non-zombie"],
        kind: ErrorKind::Traced,
        cause: "a process can't be stopped, because another process traces it or security settings forbid it",
        remedy: "detach the debugger or strace; else look at /proc/sys/kernel/yama/ptrace_scope and the container's seccomp profile",
    },
    Rule {
        line: &["suspending seccomp failed"],
        kind: ErrorKind::CapabilityMissing,
        cause: "the container's seccomp profile keeps CRIU out",
        remedy: "run the container with seccomp unconfined (a systemd unit without PrivateDevices= and SystemCallFilter=), or start `criu service` outside and name its socket with SELFDUMP_SERVICE",
    },
    Rule {
        line: &["Can't get rlimit", "Operation not permitted"],
        kind: ErrorKind::CapabilityMissing,
        cause: "CRIU may not look at a process of another user: CAP_SYS_RESOURCE is missing",
        remedy: "give CRIU that capability, or run it as the user whose program it dumps",
    },
    Rule {
        line: &["CAP_CHECKPOINT_RESTORE"],
        kind: ErrorKind::CapabilityMissing,
        cause: "CRIU lacks a capability",
        remedy: "run `setcap cap_checkpoint_restore,cap_sys_ptrace,cap_setpcap+eip` on the criu program, run as root, or name a service with SELFDUMP_SERVICE",
    },
    Rule {
        line: &["You need to be root"],
        kind: ErrorKind::CapabilityMissing,
        cause: "CRIU lacks the rights that it needs",
        remedy: "run `setcap cap_checkpoint_restore,cap_sys_ptrace,cap_setpcap+eip` on the criu program, run as root, or name a service with SELFDUMP_SERVICE",
    },
    Rule {
        line: &["Unable to drop capability"],
        kind: ErrorKind::CapabilityMissing,
        cause: "CRIU can't give the program the capabilities that it had: CAP_SETPCAP is missing",
        remedy: "run `setcap cap_checkpoint_restore,cap_sys_ptrace,cap_setpcap+eip` on the criu program, or restore as root",
    },
    Rule {
        line: &["Unable to set a monotonic clock offset", "Operation not permitted"],
        kind: ErrorKind::CapabilityMissing,
        cause: "CRIU can't give the program the clocks that it had: CAP_SYS_TIME is missing",
        remedy: "give CRIU that capability (in a container, `--cap-add SYS_TIME`)",
    },
    Rule {
        line: &["SO_SNDBUFFORCE", "Operation not permitted"],
        kind: ErrorKind::CapabilityMissing,
        cause: "CRIU can't make its sockets: CAP_NET_ADMIN is missing",
        remedy: "give CRIU that capability (in a container, `--cap-add NET_ADMIN`)",
    },
    Rule {
        line: &["Unable create a network namespace", "Operation not permitted"],
        kind: ErrorKind::CapabilityMissing,
        cause: "CRIU can't look at what this kernel can do: CAP_SYS_ADMIN is missing",
        remedy: "give CRIU that capability (in a container, `--cap-add SYS_ADMIN`)",
    },
    Rule {
        line: &["Can't open vma"],
        kind: ErrorKind::FileChanged,
        cause: "a program, library or other mapped file is not the one that was in use at the checkpoint",
        remedy: "put back the build that was running (the lines below name the file), then restore again",
    },
    Rule {
        line: &["has bad size"],
        kind: ErrorKind::FileChanged,
        cause: "a file that the program was writing has another size now than at the checkpoint",
        remedy: "cut the file back to the size that the line expects (`truncate -s SIZE FILE`; save the tail first), then restore again",
    },
    Rule {
        line: &["has bad mode"],
        kind: ErrorKind::FileChanged,
        cause: "a file that the program had open has other permissions now than at the checkpoint",
        remedy: "give the file the permissions that the line expects, then restore again",
    },
    Rule {
        line: &["has bad build-ID"],
        kind: ErrorKind::FileChanged,
        cause: "a program or library that was running is another build now",
        remedy: "put the build back that was running at the checkpoint, then restore again",
    },
    Rule {
        line: &["capabilities do not match run time"],
        kind: ErrorKind::Unfit,
        cause: "this processor lacks instructions that the program's had, and that it may use",
        remedy: "restore it on a machine with such a processor (`lscpu` lists the flags); --force goes on all the same, at the risk of a crash",
    },
    Rule {
        line: &["Can't open file", "on restore"],
        kind: ErrorKind::FileGone,
        cause: "a file that the program had open is gone",
        remedy: "put the file back where the line names it, then restore again",
    },
    Rule {
        line: &["Can't fork for", "File exists"],
        kind: ErrorKind::PidTaken,
        cause: "another process has the program's process id",
        remedy: "wait for that process to end, or end it, then restore again",
    },
    Rule {
        line: &["Unable to create a thread: -17"],
        kind: ErrorKind::PidTaken,
        cause: "another process has the id of one of the program's threads",
        remedy: "restore again; where processes come and go quickly, it may take some tries",
    },
    Rule {
        line: &["Can't set tty params"],
        kind: ErrorKind::Restore,
        cause: "the program had a terminal, and there is none here",
        remedy: "restore from a terminal (`script -qc 'selfdump restore NAME' /dev/null` makes one)",
    },
    Rule {
        line: &["Can't dump half of stream unix connection"],
        kind: ErrorKind::Descriptor,
        cause: "a unix socket is connected to a process outside of the program",
        remedy: "close that connection before the checkpoint",
    },
    Rule {
        line: &["External socket is used"],
        kind: ErrorKind::Descriptor,
        cause: "a unix socket is connected to a process outside of the program",
        remedy: "close that connection before the checkpoint; standard output may go to a file or pipe instead of a socket",
    },
    Rule {
        line: &["Can't dump file", "of that type"],
        kind: ErrorKind::Descriptor,
        cause: "a descriptor is of a type that CRIU can't dump",
        remedy: "close the descriptor that the line names before the checkpoint and open it again afterwards",
    },
    Rule {
        line: &["Can't dump ghost file"],
        kind: ErrorKind::Descriptor,
        cause: "an open file that has lost its name is too large to be carried in the images",
        remedy: "keep the file's name until the program is done with it",
    },
    Rule {
        line: &["Can't lookup mount="],
        kind: ErrorKind::Descriptor,
        cause: "a file is open on a mount that CRIU can't see",
        remedy: "open the file through a mount of the program's own namespace",
    },
    Rule {
        line: &["A session leader of", "is outside of its pid namespace"],
        kind: ErrorKind::Dump,
        cause: "the program's session leader is outside of its pid namespace",
        remedy: "start the program in a session of its own there (`setsid PROGRAM`)",
    },
    Rule {
        line: &["unreachable sharing"],
        kind: ErrorKind::Dump,
        cause: "a mount of the program is shared with the outside in a way that CRIU can't restore",
        remedy: "run the program without a private /tmp or other mounts of its own (PrivateTmp=no)",
    },
    Rule {
        line: &["Connected TCP socket"],
        kind: ErrorKind::Descriptor,
        cause: "a TCP connection came up just as the dump began",
        remedy: "checkpoint again",
    },
    Rule {
        line: &["Some file locks are hold by dumping tasks"],
        kind: ErrorKind::Descriptor,
        cause: "a file lock was taken just as the dump began",
        remedy: "checkpoint again",
    },
    Rule {
        line: &["Locking network failed"],
        kind: ErrorKind::Dump,
        cause: "the network could not be locked around a TCP connection",
        remedy: "install nftables, or iptables with the kernel modules that it needs",
    },
    Rule {
        line: &["Tracking memory is not available"],
        kind: ErrorKind::Refused,
        cause: "this kernel doesn't track which pages change (CONFIG_MEM_SOFT_DIRTY)",
        remedy: "dump without track_memory; Debian's, Ubuntu's and Fedora's kernels can do it",
    },
    Rule {
        line: &["Permission denied"],
        kind: ErrorKind::Permission,
        cause: "CRIU was denied access to a file",
        remedy: "let the store, or the file that the line names, be open to the user that CRIU runs as",
    },
    Rule {
        line: &["Read-only file system"],
        kind: ErrorKind::Permission,
        cause: "the store is on a file system that is read-only",
        remedy: "name another folder with SELFDUMP_DIR",
    },
];

/// Errors that CRIU logs in runs that succeed: on machines without CAP_SYS_RESOURCE, or where /run is no
/// tmpfs, and in containers, which have no tun devices.
const HARMLESS: &[&str] = &[
    "Can't setup RLIMIT_NOFILE for self",
    "kdat cache",
    "Can't keep kdat",
    "Will fail to restore",
    "Unable to create tun: No such file",
];

/// The rule for what happened, and which line it is about.
pub(super) fn find(lines: &[String]) -> Option<(&'static Rule, usize)> {
    RULES.iter().find_map(|rule| Some((rule, lines.iter().position(|line| rule.matches(line))?)))
}

/// Whether a line tells of something that happens in runs that succeed as well.
pub(super) fn is_harmless(line: &str) -> bool {
    HARMLESS.iter().any(|known| line.contains(known))
}

/// Whether a line may tell the cause. CRIU only warns of a thread that it can't stop, and then fails without
/// another word about it.
pub(super) fn is_telling(line: &str) -> bool {
    UNSTOPPABLE.matches(line) || line.contains("Error (") && !is_harmless(line)
}

impl Rule {
    fn matches(&self, line: &str) -> bool {
        let mut rest = line;
        self.line.iter().all(|part| match rest.split_once(part) {
            Some((_, after)) => {
                rest = after;
                true
            }
            None => false,
        })
    }
}
