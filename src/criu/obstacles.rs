//! What a program has open, mapped or running that CRIU can't dump.
//!
//! What no CRIU can dump keeps a checkpoint from being begun; what depends on the CRIU or the machine is only spoken of,
//! to whoever asks. The table was met with CRIU 4.1.1 and 4.2.1 on Linux 6.18.

use std::path::Path;

use super::needs::ProcessFacts;
use crate::error::{Error, ErrorKind};

/// Something in the way of a dump.
#[derive(Clone, Debug)]
pub(crate) struct Obstacle {
    /// What it is, and what to do about it.
    pub(crate) error: Error,
    /// No CRIU gets past it.
    pub(crate) is_certain: bool,
}

/// A kind of thing by the beginning of its name.
struct Known {
    name: &'static str,
    what: &'static str,
    remedy: &'static str,
    is_certain: bool,
}

const REOPEN: &str = "close it before the checkpoint and open it again afterwards";

const DESCRIPTORS: &[Known] = &[
    Known {
        name: "anon_inode:[io_uring]",
        what: "an io_uring",
        remedy: "close it before the checkpoint and set it up again afterwards, or have the program use epoll or threads instead",
        is_certain: true,
    },
    Known { name: "anon_inode:[perf_event]", what: "a perf event", remedy: REOPEN, is_certain: true },
    Known { name: "anon_inode:[userfaultfd]", what: "a userfaultfd", remedy: REOPEN, is_certain: true },
    Known {
        name: "anon_inode:[landlock-ruleset]",
        what: "a Landlock ruleset",
        remedy: "close it once it is enforced",
        is_certain: true,
    },
    Known {
        name: "anon_inode:[fscontext]",
        what: "a file system that is being set up",
        remedy: "close it once it is mounted",
        is_certain: true,
    },
    Known {
        name: "anon_inode:kvm-",
        what: "a virtual machine (KVM)",
        remedy: "have the virtual machine's own snapshots made instead",
        is_certain: true,
    },
    Known { name: "anon_inode:bpf", what: "a BPF object", remedy: REOPEN, is_certain: false },
];

/// Devices that CRIU carries by their path alone, or that are terminals.
const HARMLESS_DEVICES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/pts/",
    "/dev/ptmx",
    "/dev/console",
    "/dev/shm/",
    "/dev/mqueue/",
    "/dev/hugepages/",
];

const DEVICE: Known = Known {
    name: "/dev/",
    what: "a device",
    remedy: "close it before the checkpoint and open it again afterwards, or give CRIU the plugin for it (GPUs have some)",
    is_certain: false,
};

const MAPPINGS: &[Known] = &[
    Known {
        name: "/SYSV",
        what: "System V shared memory",
        remedy: "use POSIX shared memory (shm_open) or mmap instead, or run the program in an IPC namespace of its own, as its first process",
        is_certain: false,
    },
    Known {
        name: "/secretmem",
        what: "secret memory (memfd_secret)",
        remedy: "unmap it before the checkpoint",
        is_certain: false,
    },
    Known {
        name: "anon_inode:[perf_event]",
        what: "the buffer of a perf event",
        remedy: "unmap it before the checkpoint",
        is_certain: false,
    },
];

/// The protocols of sockets that CRIU knows.
const PROTOCOLS: &[&str] =
    &["TCP", "UDP", "UDPLITE", "RAW", "PING", "UNIX", "UNIX-STREAM", "NETLINK", "PACKET"];

/// The clocks that wake the machine (timerfd_create(2)).
const ALARM_CLOCKS: [u32; 2] = [8, 9];

/// Everything of a process, what is certain first.
pub(super) fn of(process: &ProcessFacts) -> Vec<Obstacle> {
    let mut found: Vec<Obstacle> = whole(process).into_iter().collect();
    found.extend(descriptors(process));
    found.extend(mappings(process));
    found.sort_by_key(|obstacle| !obstacle.is_certain);
    found
}

/// What concerns the process as a whole.
fn whole(process: &ProcessFacts) -> Option<Obstacle> {
    let pid = process.pid;
    let certain = |error: Error| Obstacle { error, is_certain: true };
    if let Some((tracer, name)) = &process.tracer {
        return Some(certain(Error::new(
            ErrorKind::Traced,
            format!("process {pid} is traced by process {tracer} ({name}); only one tracer is possible, and CRIU has to be it"),
        )
        .with_hint("detach the debugger or strace, then checkpoint again")));
    }
    (process.session == 0).then(|| {
        certain(Error::new(
            ErrorKind::Dump,
            format!("the session leader of process {pid} is outside of its pid namespace, and CRIU dumps no such process"),
        )
        .with_hint("start the program in a session of its own: `setsid PROGRAM`"))
    })
}

fn descriptors(process: &ProcessFacts) -> impl Iterator<Item = Obstacle> {
    process.descriptors.iter().filter_map(|open| {
        let (what, remedy, is_certain) = if let Some(known) = known_descriptor(&open.target) {
            (known.what.to_owned(), known.remedy, known.is_certain)
        } else if let Some(protocol) = open.protocol.as_deref().filter(|name| !is_known_protocol(name)) {
            let remedy = match protocol {
                "MPTCP" | "MPTCPv6" => {
                    "have the program use plain TCP (GODEBUG=multipathtcp=0 for one in Go)"
                }
                _ => REOPEN,
            };
            (format!("a socket of the protocol {protocol}"), remedy, false)
        } else if open.timer_clock.is_some_and(|clock| ALARM_CLOCKS.contains(&clock)) {
            (
                "a timer that wakes the machine (timerfd)".to_owned(),
                "use CLOCK_BOOTTIME or CLOCK_REALTIME instead",
                false,
            )
        } else {
            return None;
        };
        let can = if is_certain { "can't dump" } else { "may not dump" };
        let text = format!(
            "process {} has {what} open as descriptor {} ({}), which CRIU {can}",
            process.pid,
            open.fd,
            open.target.display()
        );
        Some(Obstacle { error: Error::new(ErrorKind::Descriptor, text).with_hint(remedy), is_certain })
    })
}

fn known_descriptor(target: &Path) -> Option<&'static Known> {
    let name = target.to_str()?;
    let by_name = DESCRIPTORS.iter().find(|known| name.starts_with(known.name));
    by_name.or_else(|| is_odd_device(name).then_some(&DEVICE))
}

fn is_odd_device(name: &str) -> bool {
    name.starts_with(DEVICE.name) && !HARMLESS_DEVICES.iter().any(|device| name.starts_with(device))
}

fn is_known_protocol(name: &str) -> bool {
    PROTOCOLS.contains(&name.strip_suffix("v6").unwrap_or(name))
}

fn mappings(process: &ProcessFacts) -> impl Iterator<Item = Obstacle> {
    process.mapped.iter().filter_map(|name| {
        let text = name.to_str()?;
        let by_name = MAPPINGS.iter().find(|known| text.starts_with(known.name));
        let known = by_name.or_else(|| is_odd_device(text).then_some(&DEVICE))?;
        let text = format!(
            "process {} has {} mapped ({}), which CRIU may not dump",
            process.pid,
            known.what,
            name.display()
        );
        let error = Error::new(ErrorKind::Dump, text).with_hint(known.remedy);
        Some(Obstacle { error, is_certain: known.is_certain })
    })
}

#[cfg(test)]
mod tests {
    use super::super::needs::DescriptorFacts;
    use super::*;

    fn with(open: DescriptorFacts) -> Vec<(String, bool)> {
        let process =
            ProcessFacts { pid: 40, session: 40, descriptors: vec![open], ..ProcessFacts::default() };
        of(&process).into_iter().map(|found| (found.error.to_string(), found.is_certain)).collect()
    }

    fn to(target: &str) -> DescriptorFacts {
        DescriptorFacts { fd: 7, target: target.into(), ..DescriptorFacts::default() }
    }

    #[test]
    fn what_is_open_is_told_by_its_name_and_how_sure_that_is() {
        let certain = ["anon_inode:[io_uring]", "anon_inode:kvm-vcpu:0", "anon_inode:[fscontext]"];
        let doubtful = ["/dev/kvm", "/dev/fuse", "/dev/dri/card0", "anon_inode:bpf-map"];
        for (target, is_certain) in
            certain.map(|name| (name, true)).into_iter().chain(doubtful.map(|name| (name, false)))
        {
            let found = with(to(target));
            assert!(found.len() == 1 && found[0].1 == is_certain, "{target}: {found:?}");
            assert!(found[0].0.contains(&format!("descriptor 7 ({target})")), "{found:?}");
        }
        for harmless in
            ["/dev/null", "/dev/pts/3", "/dev/shm/x", "socket:[5]", "anon_inode:[eventpoll]", "/data/dev/kvm"]
        {
            assert!(with(to(harmless)).is_empty(), "{harmless}");
        }
    }

    #[test]
    fn sockets_and_timers_are_told_by_protocol_and_clock() {
        let protocol = |name: &str| DescriptorFacts { protocol: Some(name.to_owned()), ..to("socket:[5]") };
        assert!(with(protocol("MPTCP"))[0].0.contains("the protocol MPTCP"));
        assert!(with(protocol("TCPv6")).is_empty() && with(protocol("UNIX-STREAM")).is_empty());
        let clock = |clock| DescriptorFacts { timer_clock: Some(clock), ..to("anon_inode:[timerfd]") };
        assert!(with(clock(8))[0].0.contains("wakes the machine") && with(clock(1)).is_empty());
    }

    #[test]
    fn what_is_certain_comes_first_and_mappings_are_looked_at() {
        let process = ProcessFacts {
            pid: 40,
            session: 0,
            mapped: ["/SYSV00000000 (deleted)".into(), "/lib/x.so".into()].into(),
            descriptors: vec![to("/dev/kvm")],
            ..ProcessFacts::default()
        };
        let found: Vec<bool> = of(&process).iter().map(|found| found.is_certain).collect();
        assert_eq!(found, [true, false, false]);
    }
}
