//! The tables of `selfdump show`.

use std::collections::BTreeMap;

use selfdump::Bytes;
use selfdump::inspect::{Descriptor, Detail, Fate, InetSocket, Mapping, Process, Registers, UnixSocket};
use selfdump::restore::{FileAction, FilePlan};

use super::Shown;
use crate::output;

/// The tree, each child below its parent.
pub fn processes(all: &[Shown]) {
    println!();
    let header = ["PROCESS", "PARENT", "GROUP", "SESSION", "STATE", "THREADS", "FDS", "DUMPED"];
    let mut table = output::Table::new(header, &[1, 2, 3, 5, 6, 7]);
    for Shown { process, .. } in all {
        table.add_row([
            format!("{}{} {}", "  ".repeat(depth(all, process)), process.pid, process.name),
            process.parent.to_string(),
            process.process_group.to_string(),
            process.session.to_string(),
            output::name(&process.state),
            process.threads.len().to_string(),
            process.descriptors.len().to_string(),
            dumped(process).to_string(),
        ]);
    }
    table.print();
}

fn depth(all: &[Shown], process: &Process) -> usize {
    let parent = |pid: i32| all.iter().map(|shown| &shown.process).find(|process| process.pid == pid);
    // A tree is no deeper than it has processes, even one that is damaged.
    std::iter::successors(parent(process.parent), |above| parent(above.parent)).take(all.len()).count()
}

fn dumped(process: &Process) -> Bytes {
    process.memory.iter().flat_map(|memory| &memory.mappings).map(Mapping::held).sum()
}

fn title(what: &str, process: &Process) {
    println!("\n{what} of {} {}", process.pid, process.name);
}

/// Where each thread stands.
pub fn threads(Shown { process, standing, .. }: &Shown) {
    if process.threads.is_empty() {
        return;
    }
    title("threads", process);
    let mut table = output::Table::new(["  TID", "NAME", "AT", "IN"], &[]);
    for (thread, location) in process.threads.iter().zip(standing) {
        let place = location.as_ref().map_or_else(String::new, ToString::to_string);
        let address = format!("{:#x}", thread.registers.instruction_pointer());
        table.add_row([format!("  {}", thread.tid), thread.name.clone(), address, place]);
    }
    table.print();
}

/// The general registers of each thread, three in a line.
pub fn registers(Shown { process, .. }: &Shown) {
    for thread in &process.threads {
        println!("\nregisters of {} {}", thread.tid, thread.name);
        for line in general(&thread.registers).chunks(3) {
            let cells = line.iter().map(|(name, value)| format!("{name:>7} {value:016x}"));
            println!("{}", cells.collect::<Vec<_>>().join(" "));
        }
    }
}

/// The order that people know those of x86-64 in.
const X86: [&str; 27] = [
    "ax", "bx", "cx", "dx", "si", "di", "bp", "sp", "ip", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15", "flags", "orig_ax", "fs_base", "gs_base", "cs", "ss", "ds", "es", "fs", "gs",
];

/// The general registers by the names that ptrace(2) has for them.
fn general(registers: &Registers) -> Vec<(String, u64)> {
    match registers {
        Registers::X86(registers) => {
            let by_name = serde_json::to_value(&registers.general).unwrap_or_default();
            X86.iter().filter_map(|name| Some(((*name).to_owned(), by_name.get(name)?.as_u64()?))).collect()
        }
        Registers::Aarch64(registers) => {
            let registers = &registers.general;
            let numbered = (0..).zip(&registers.regs).map(|(number, value)| (format!("x{number}"), *value));
            let others = [("sp", registers.sp), ("pc", registers.pc), ("pstate", registers.pstate)];
            numbered.chain(others.map(|(name, value)| (name.to_owned(), value))).collect()
        }
        _ => Vec::new(),
    }
}

/// How much memory there is of each kind, and what was dumped of it.
pub fn memory_by_kind(process: &Process) {
    let Some(memory) = &process.memory else { return };
    let mut kinds: BTreeMap<String, (usize, u64, u64)> = BTreeMap::new();
    for mapping in &memory.mappings {
        let (count, size, dumped) = kinds.entry(output::name(&mapping.kind)).or_default();
        *count += 1;
        *size += mapping.size().0;
        *dumped += mapping.held().0;
    }
    title("memory", process);
    let mut table = output::Table::new(["  KIND", "MAPPINGS", "SIZE", "DUMPED"], &[1, 2, 3]);
    for (kind, (count, size, dumped)) in kinds {
        let [size, dumped] = [size, dumped].map(|bytes| Bytes(bytes).to_string());
        table.add_row([format!("  {kind}"), count.to_string(), size, dumped]);
    }
    table.print();
}

/// Every mapping, and what was dumped of it.
pub fn memory(process: &Process) {
    let Some(memory) = &process.memory else { return };
    title("memory", process);
    let mut table = output::Table::new(["  ADDRESS", "MODE", "SIZE", "DUMPED", "WHAT"], &[2, 3]);
    for mapping in &memory.mappings {
        table.add_row([
            format!("  {:012x}", mapping.start),
            mode(mapping),
            mapping.size().to_string(),
            mapping.held().to_string(),
            output::mapping(mapping),
        ]);
    }
    table.print();
}

/// As in `/proc/PID/maps`.
fn mode(mapping: &Mapping) -> String {
    let allowed = (0_u32..).zip(['r', 'w', 'x']);
    let letter = |(bit, letter)| if mapping.protection & (1_u32 << bit) != 0 { letter } else { '-' };
    allowed.map(letter).chain([if mapping.is_shared() { 's' } else { 'p' }]).collect()
}

/// What is open, and what a restore does with each.
pub fn descriptors(Shown { process, fates, .. }: &Shown) {
    if process.descriptors.is_empty() {
        return;
    }
    title("descriptors", process);
    let mut table =
        output::Table::new(["  FD", "FLAGS", "POSITION", "SIZE", "WHAT", "WHEN RESTORED"], &[2, 3]);
    for (descriptor, fate) in process.descriptors.iter().zip(fates) {
        let bytes = |bytes: Option<Bytes>| bytes.map_or_else(String::new, |bytes| bytes.0.to_string());
        table.add_row([
            format!("  {}", descriptor.about.fd),
            flags(descriptor),
            bytes(descriptor.about.position_bytes),
            bytes(descriptor.about.size_bytes),
            what(descriptor),
            told(fate),
        ]);
    }
    table.print();
}

/// What open(2) was told, in short: `rw+` also appends.
fn flags(descriptor: &Descriptor) -> String {
    const NONBLOCK: u32 = 0o4000;
    let about = &descriptor.about;
    let access = match (about.reads(), about.writes()) {
        (true, true) => "rw",
        (true, false) => "r",
        _ => "w",
    };
    let others = [
        (about.appends(), "append"),
        (about.flags & NONBLOCK != 0, "nonblock"),
        (descriptor.close_on_exec, "cloexec"),
    ];
    let others = others.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name);
    std::iter::once(access).chain(others).collect::<Vec<_>>().join(" ")
}

fn what(descriptor: &Descriptor) -> String {
    let detail = match &descriptor.detail {
        Some(Detail::File(file)) if file.deleted => Some("deleted".to_owned()),
        Some(Detail::EventFd(event)) => Some(format!("count {}", event.counter)),
        Some(Detail::Epoll(epoll)) => Some(format!("watches {}", epoll.targets.len())),
        Some(Detail::Inotify(watches)) => Some(format!("watches {}", watches.watches.len())),
        Some(Detail::PidFd(process)) => Some(format!("of {}", process.nspid)),
        _ => None,
    };
    let kind = output::name(&descriptor.about.kind);
    let path = descriptor.about.path.as_ref().map(|path| path.display().to_string());
    let words = [path.or(Some(kind)), detail.map(|detail| format!("({detail})"))];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

fn told(fate: &Fate) -> String {
    match fate {
        Fate::AsItWas => "as it was".to_owned(),
        Fate::Reopened => "opened again".to_owned(),
        Fate::File(FilePlan { action, why, .. }) => format!("{}: {why}", done(action)),
        Fate::Stream { stream } => format!("the restorer's descriptor {stream}"),
        Fate::Terminal => "a terminal".to_owned(),
        Fate::HungUp => "hung up".to_owned(),
        Fate::DeadEnd => "a dead end".to_owned(),
        Fate::Given { path } => path.display().to_string(),
        _ => String::new(),
    }
}

fn done(action: &FileAction) -> String {
    match action {
        FileAction::Nothing => "left".to_owned(),
        FileAction::Rewind { to, cut } => format!("cut back to {to}, {cut} off"),
        FileAction::Keep { .. } => "kept".to_owned(),
        FileAction::Recreate { .. } => "put back from its copy".to_owned(),
        FileAction::SetAside => "moved aside".to_owned(),
        FileAction::Refuse { .. } => "REFUSED".to_owned(),
        _ => String::new(),
    }
}

/// The sockets with their states and addresses.
pub fn sockets(process: &Process) {
    let rows: Vec<[String; 5]> = process.descriptors.iter().filter_map(socket).collect();
    if rows.is_empty() {
        return;
    }
    title("sockets", process);
    let mut table = output::Table::new(["  FD", "KIND", "STATE", "OWN", "OTHER"], &[]);
    table.add_rows(rows);
    table.print();
}

fn socket(descriptor: &Descriptor) -> Option<[String; 5]> {
    let (kind, state, own, other) = match descriptor.detail.as_ref()? {
        Detail::InetSocket(socket) => inet(socket),
        Detail::UnixSocket(socket) => unix(socket),
        Detail::NetlinkSocket(socket) => {
            ("netlink".to_owned(), String::new(), format!("port {}", socket.portid), String::new())
        }
        _ => return None,
    };
    Some([format!("  {}", descriptor.about.fd), kind, state, own, other])
}

fn inet(socket: &InetSocket) -> (String, String, String, String) {
    let kind = match socket.protocol {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        number => format!("protocol {number}"),
    };
    let [own, other] =
        [socket.local, socket.remote].map(|end| end.map_or_else(String::new, |end| end.to_string()));
    (kind, state(socket.state), own, other)
}

fn unix(socket: &UnixSocket) -> (String, String, String, String) {
    let kind = match socket.socket_type {
        1 => "unix stream",
        2 => "unix datagram",
        5 => "unix seqpacket",
        _ => "unix",
    };
    let own = socket.name.clone().unwrap_or_else(|| format!("socket:[{}]", socket.inode));
    let other = socket.peer.map_or_else(String::new, |peer| format!("socket:[{peer}]"));
    (kind.to_owned(), state(socket.state), own, other)
}

/// The kernel's states of TCP, which unix sockets use as well.
fn state(number: u32) -> String {
    const STATES: [&str; 12] = [
        "established",
        "syn-sent",
        "syn-received",
        "fin-wait-1",
        "fin-wait-2",
        "time-wait",
        "closed",
        "close-wait",
        "last-ack",
        "listening",
        "closing",
        "new",
    ];
    let place = (number as usize).checked_sub(1);
    place.and_then(|place| STATES.get(place)).map_or_else(|| number.to_string(), |name| (*name).to_owned())
}
