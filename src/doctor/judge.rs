//! What follows from the facts about a machine.

use super::facts::{Folder, Machine, Service, Store};
use super::{Finding, Verdict};
use crate::config::Staging;
use crate::frozen::Bytes;
use crate::store::staging::Possible;

/// Capabilities by their numbers (linux/capability.h).
const SETPCAP: u64 = 8;
const SYS_PTRACE: u64 = 19;
const SYS_ADMIN: u64 = 21;
const SYS_RESOURCE: u64 = 24;
const CHECKPOINT_RESTORE: u64 = 40;

/// Room for a small program's checkpoint.
const LITTLE_ROOM: Bytes = Bytes::mebibytes(64);

pub(super) fn machine(facts: &Machine) -> Vec<Finding> {
    let mut found = vec![
        Finding::ok("kernel", format!("Linux {}", facts.kernel)),
        rights(facts),
        ptrace(facts.ptrace_scope),
        seccomp(facts.is_filtered),
    ];
    found.push(confinement(facts.confinement.as_deref()));
    found.push(container(facts));
    found.extend(facts.service.as_ref().map(|socket| service(socket, facts.user)));
    found.push(firewall(facts));
    found.push(tools(&facts.missing_tools));
    found.push(kernel_data(facts.run_is_in_memory));
    found.extend(store(&facts.store));
    found.push(runtime(&facts.runtime));
    found.extend(facts.staging.map(|possible| staging(possible, facts.user)));
    found
}

fn has(capabilities: u64, number: u64) -> bool {
    capabilities & (1 << number) != 0
}

fn rights(facts: &Machine) -> Finding {
    const CHECK: &str = "rights";
    if facts.service.is_some() {
        return Finding::ok(CHECK, "those of the service count");
    }
    if facts.user == 0 {
        return rights_of_root(facts.capabilities);
    }
    let Some((program, capabilities)) = &facts.program_capabilities else {
        return Finding::ok(CHECK, "there is no CRIU that could have them");
    };
    const REMEDY: &str = "as root run `selfdump setup --rootless`, which makes a CRIU for ordinary users";
    match *capabilities {
        _ if facts.no_new_privileges => Finding::failed(
            CHECK,
            "programs that are started here get no capabilities by their files (no_new_privs)",
            "start the program without NoNewPrivileges= (systemd) or --no-new-privs, or name a service with SELFDUMP_SERVICE",
        ),
        Some(has_them) if has(has_them, CHECKPOINT_RESTORE) => {
            let is_limited = facts.ptrace_scope.is_some_and(|scope| scope > 0);
            match (has(has_them, SYS_PTRACE) || !is_limited, has(has_them, SETPCAP)) {
                (false, _) => Finding::failed(
                    CHECK,
                    format!(
                        "{} lacks CAP_SYS_PTRACE, without which this kernel (Yama) lets it trace nobody",
                        program.display()
                    ),
                    "sysctl kernel.yama.ptrace_scope=0; or as root `selfdump setup --rootless --ptrace --group GROUP`, if GROUP is to be trusted as root is (docs/rootless.md)",
                ),
                (_, true) => {
                    Finding::ok(CHECK, format!("{} has its capabilities by its file", program.display()))
                }
                (_, false) => Finding::warning(
                    CHECK,
                    format!("{} lacks CAP_SETPCAP: some restores will fail", program.display()),
                    REMEDY,
                ),
            }
        }
        _ => Finding::failed(
            CHECK,
            format!("{} has no capabilities, and user {} none to give it", program.display(), facts.user),
            REMEDY,
        ),
    }
}

fn rights_of_root(capabilities: u64) -> Finding {
    const CHECK: &str = "rights";
    if has(capabilities, SYS_ADMIN) && has(capabilities, SYS_PTRACE) {
        return match has(capabilities, SYS_RESOURCE) {
            true => Finding::ok(CHECK, "root, with every capability that CRIU needs"),
            false => Finding::warning(
                CHECK,
                "root without CAP_SYS_RESOURCE: programs of other users can't be dumped",
                "run the container with --cap-add SYS_RESOURCE, or checkpoint programs as their own users",
            ),
        };
    }
    Finding::failed(
        CHECK,
        "root without CAP_SYS_ADMIN or CAP_SYS_PTRACE",
        "run the container with --cap-add SYS_ADMIN --cap-add SYS_PTRACE --cap-add CHECKPOINT_RESTORE (or --privileged), or name a service outside of it with SELFDUMP_SERVICE",
    )
}

fn ptrace(scope: Option<u32>) -> Finding {
    const CHECK: &str = "ptrace";
    match scope {
        None => Finding::ok(CHECK, "no restriction (Yama is not in this kernel)"),
        Some(scope @ 0..=2) => {
            Finding::ok(CHECK, format!("kernel.yama.ptrace_scope is {scope}, which CAP_SYS_PTRACE gets past"))
        }
        Some(scope) => Finding::failed(
            CHECK,
            format!("kernel.yama.ptrace_scope is {scope}: nobody may trace anybody until the next boot"),
            "echo kernel.yama.ptrace_scope=1 > /etc/sysctl.d/10-ptrace.conf, and boot again",
        ),
    }
}

fn seccomp(is_filtered: bool) -> Finding {
    match is_filtered {
        false => Finding::ok("seccomp", "no filter"),
        true => Finding::warning(
            "seccomp",
            "a filter judges system calls here, and may keep CRIU from what it needs",
            "run the container with --security-opt seccomp=unconfined (a systemd unit without SystemCallFilter=)",
        ),
    }
}

fn confinement(profile: Option<&str>) -> Finding {
    match profile {
        None => Finding::ok("security modules", "not confined"),
        Some(profile) => Finding::warning(
            "security modules",
            format!("confined by {profile}, which may keep CRIU from what it needs"),
            "run the container with --security-opt apparmor=unconfined (or label=disable for SELinux)",
        ),
    }
}

fn container(facts: &Machine) -> Finding {
    const CHECK: &str = "container";
    let place =
        facts.container.as_deref().map_or_else(|| "none".to_owned(), |kind| format!("in one ({kind})"));
    match facts.is_led_from_outside {
        false => Finding::ok(CHECK, place),
        true => Finding::warning(
            CHECK,
            format!(
                "{place}; the session here is led from outside of the pid namespace, and CRIU dumps no program in such a one"
            ),
            "start programs in a session of their own: `setsid PROGRAM`",
        ),
    }
}

/// Whoever reaches a root service can have any process dumped, and read its memory.
fn service(service: &Service, user: u32) -> Finding {
    const CHECK: &str = "service";
    let Service { socket, is_socket, owner, mode, is_reachable, is_guarded } = service;
    let at = socket.display();
    if !is_socket {
        return Finding::failed(
            CHECK,
            format!("there is no socket at {at}"),
            format!("criu service --address {at}"),
        );
    }
    if *owner != 0 && *owner != user {
        return Finding::failed(
            CHECK,
            format!("the service at {at} is user {owner}'s, who would get all of a program's memory"),
            "unset SELFDUMP_SERVICE, or start a service as root or as the user of the programs",
        );
    }
    match mode & 0o002 != 0 && *is_reachable && !is_guarded {
        true => Finding::warning(
            CHECK,
            format!(
                "everybody can reach the service at {at} (mode {mode:04o}), and have any process dumped, and read its memory: a danger"
            ),
            format!("chmod 600 {at}; CRIU up to 4.1.1 makes it so, 4.2 and later don't"),
        ),
        false => Finding::ok(CHECK, format!("{at}, mode {mode:04o}, owner {owner}")),
    }
}

fn firewall(facts: &Machine) -> Finding {
    const CHECK: &str = "firewall";
    match (facts.has_iptables, facts.has_nft) {
        (true, _) => {
            Finding::ok(CHECK, "iptables locks TCP connections that are to be kept (SELFDUMP_KEEP_TCP)")
        }
        (false, true) => {
            Finding::ok(CHECK, "nft locks TCP connections that are to be kept (SELFDUMP_KEEP_TCP)")
        }
        (false, false) => Finding::warning(
            CHECK,
            "neither iptables nor nft is there to lock TCP connections that are to be kept (SELFDUMP_KEEP_TCP)",
            "apt-get install nftables, if the connections of a program are to be kept; those that come back closed need neither",
        ),
    }
}

fn tools(missing: &[&str]) -> Finding {
    match missing {
        [] => Finding::ok("tools", "sh and cp are there to copy files into checkpoints"),
        missing => Finding::warning(
            "tools",
            format!("{} not there: files can't be copied into checkpoints", missing.join(" and ")),
            "install coreutils and a shell, or leave SELFDUMP_COPY_FILES and SELFDUMP_COPY_OPEN unset",
        ),
    }
}

fn kernel_data(run_is_in_memory: bool) -> Finding {
    match run_is_in_memory {
        true => Finding::ok("kernel data", "/run is a tmpfs: CRIU keeps there what it knows of the kernel"),
        false => Finding::warning(
            "kernel data",
            "/run is no tmpfs: CRIU asks the kernel anew at each dump, for some 30 ms",
            "have /run be a tmpfs, as systemd does (containers: --tmpfs /run)",
        ),
    }
}

fn store(store: &Store) -> Vec<Finding> {
    const CHECK: &str = "store";
    let Store { folder, .. } = store;
    let at = folder.path.display();
    let mut found = vec![access(CHECK, folder)];
    let kind = store.file_system.as_deref().unwrap_or("a file system without a name");
    let blocks = if store.shares_blocks { ", which shares blocks (reflink)" } else { "" };
    found.push(match (store.is_in_memory, store.is_an_overlay) {
        (true, _) => Finding::warning(
            "store's disk",
            format!("{kind} is kept in memory: checkpoints go with the next boot, and take memory"),
            "name a folder on a disk with SELFDUMP_DIR",
        ),
        (_, true) => Finding::warning(
            "store's disk",
            format!("{kind} goes with its container, and the checkpoints with it"),
            format!("mount a volume at {at}, or name another folder with SELFDUMP_DIR"),
        ),
        _ => Finding::ok("store's disk", format!("{kind}{blocks}")),
    });
    if !store.runs_programs {
        found.push(Finding::warning(
            "store's disk",
            "it is mounted noexec: files can't be copied into checkpoints",
            format!("mount -o remount,exec the file system of {at}, or leave SELFDUMP_COPY_FILES and SELFDUMP_COPY_OPEN unset"),
        ));
    }
    found.extend(store.free.map(|free| match free < LITTLE_ROOM {
        true => Finding::warning(
            "store's space",
            format!("only {free} are free"),
            "selfdump prune --keep 1, or name another folder with SELFDUMP_DIR",
        ),
        false => Finding::ok("store's space", format!("{free} are free")),
    }));
    found
}

fn runtime(folder: &Folder) -> Finding {
    access("runtime folder", folder)
}

/// It is no fault that it isn't used.
fn staging(possible: Possible, user: u32) -> Finding {
    const GAIN: &str = "with SELFDUMP_STAGING=auto large programs stand still for a shorter time";
    let message = match possible {
        Possible::Shared => format!("{} is in large pages: {GAIN}", Staging::SHARED),
        Possible::Own => format!("a file system in large pages can be made for each checkpoint: {GAIN}"),
        Possible::NotYet if user == 0 => {
            "not possible: a container without CAP_SYS_ADMIN, or a kernel without large pages in file systems"
                .to_owned()
        }
        Possible::NotYet => {
            format!("not possible yet: after `sudo selfdump setup --staging`, {GAIN}")
        }
    };
    Finding::ok("staging", message)
}

/// Whether a folder is ours alone, or can be made so.
fn access(check: &'static str, folder: &Folder) -> Finding {
    let at = folder.path.display();
    if let Some(error) = &folder.distrusted {
        return Finding::of(check, Verdict::Failed, error);
    }
    match (folder.found, &folder.unwritable) {
        (_, Some(why)) => Finding::failed(
            check,
            format!("nothing can be written to {}: {why}", folder.nearest.display()),
            "name another folder with SELFDUMP_DIR",
        ),
        (Some((_, mode)), None) if mode & 0o055 != 0 => Finding::warning(
            check,
            format!("others can look into {at} (mode {mode:04o})"),
            format!("chmod 700 {at}"),
        ),
        (Some((_, mode)), None) => Finding::ok(check, format!("{at}, mode {mode:04o}")),
        (None, None) => Finding::ok(check, format!("{at} is not there yet, and will be made")),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
