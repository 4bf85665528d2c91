//! What CRIU has to be told about this program, worked out from the program itself.
//!
//! [`look`] collects the facts from `/proc`, [`derive`] turns them into [`Needs`]: pure, so that it can be
//! tested as a table. What CRIU can't dump at all is said here, before anything is frozen.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use super::obstacles::{self, Obstacle};
use crate::error::{Error, Result};
use crate::frozen::{Bytes, Needs, NetworkLock, Outside, OutsideKind};
use crate::sys;
use crate::sys::procfs::Terminal;
use crate::sys::sock_diag::unix_sockets;

/// What CRIU carries by itself of an open file that has lost its name: 1 MiB (`ghost_limit`).
const GHOST_LIMIT: Bytes = Bytes::mebibytes(1);

/// One process of the tree, as `/proc` shows it.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessFacts {
    pub(super) pid: i32,
    /// The session that it is in; 0 where that is led from outside of our pid namespace.
    pub(super) session: i32,
    /// Who traces it: pid and name.
    pub(super) tracer: Option<(i32, String)>,
    pub(super) descriptors: Vec<DescriptorFacts>,
    /// The size of the largest file that is mapped and has no name.
    pub(super) unlinked_mapping: Option<u64>,
    /// The names of all that is mapped.
    pub(super) mapped: BTreeSet<PathBuf>,
}

/// One descriptor of a process, as `/proc` shows it.
#[derive(Clone, Debug, Default)]
pub(super) struct DescriptorFacts {
    pub(super) fd: i32,
    pub(super) target: PathBuf,
    pub(super) locked: bool,
    pub(super) unlinked_size: Option<u64>,
    pub(super) tcp_connected: bool,
    pub(super) datagram_connected: bool,
    pub(super) terminal: Option<Terminal>,
    /// The protocol of a socket.
    pub(super) protocol: Option<String>,
    /// The clock of a timer.
    pub(super) timer_clock: Option<u32>,
    /// The inodes of a connected unix socket that isn't a datagram one, and of the socket at its other end.
    pub(super) connection: Option<(u64, u64)>,
}

/// Everything that the needs of a program depend on.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    pub(super) root: bool,
    pub(super) iptables: bool,
    pub(super) nft: bool,
    /// The process itself first, then its descendants.
    pub(super) processes: Vec<ProcessFacts>,
}

/// What CRIU has to be told at a dump of this process and its children.
pub fn needs() -> Result<Needs> {
    derive(&look().map_err(|source| Error::os("read /proc about this process", source))?)
}

pub(super) fn derive(facts: &Facts) -> Result<Needs> {
    if let Some(obstacle) =
        facts.processes.iter().flat_map(obstacles::of).find(|obstacle| obstacle.is_certain)
    {
        return Err(obstacle.error);
    }
    let any = |found: fn(&DescriptorFacts) -> bool| {
        facts.processes.iter().flat_map(|process| &process.descriptors).any(found)
    };
    let unlinked = facts.processes.iter().flat_map(|process| &process.descriptors);
    let mapped = facts.processes.iter().filter_map(|process| process.unlinked_mapping);
    let largest = unlinked.filter_map(|open| open.unlinked_size).chain(mapped).max().map(on_disk);
    Ok(Needs {
        shell_job: facts.processes.first().is_some_and(|process| process.session != process.pid),
        file_locks: any(|open| open.locked),
        tcp_established: any(|open| open.tcp_connected),
        ext_unix_sk: any(|open| open.datagram_connected),
        network_lock: match (facts.iptables, facts.nft) {
            (true, _) => NetworkLock::Default,
            (false, true) => NetworkLock::Nftables,
            (false, false) => NetworkLock::Skip,
        },
        unprivileged: !facts.root,
        ghost_limit: largest.filter(|&size| size > GHOST_LIMIT),
        outside: outside(&facts.processes),
    })
}

/// What is open whose other end is none of the tree's: a terminal without its master, half of a connection.
fn outside(processes: &[ProcessFacts]) -> Vec<Outside> {
    let all = || processes.iter().flat_map(|process| &process.descriptors);
    let masters: Vec<Terminal> = all().filter_map(|open| open.terminal).collect();
    let inside: HashSet<u64> = all().filter_map(|open| Some(open.connection?.0)).collect();
    let leads = |session: i32| processes.iter().any(|process| process.pid == session);
    let mut found: Vec<Outside> = Vec::new();
    for (index, process) in processes.iter().enumerate() {
        for open in &process.descriptors {
            let Some((kind, key)) = key_outside(open, &masters, &inside) else { continue };
            let kind = match kind {
                OutsideKind::Terminal if !leads(process.session) => OutsideKind::ShellsTerminal,
                kind => kind,
            };
            let known = found.iter().position(|outside| outside.key == key);
            let at = known.unwrap_or_else(|| {
                found.push(Outside { kind, key, descriptors: Vec::new() });
                found.len() - 1
            });
            if index == 0 {
                found[at].descriptors.push(open.fd);
            }
        }
    }
    found
}

fn key_outside(
    open: &DescriptorFacts,
    masters: &[Terminal],
    inside: &HashSet<u64>,
) -> Option<(OutsideKind, String)> {
    match (open.terminal, open.connection) {
        (Some(Terminal::Device { number, file_system }), _) => {
            let slave = Terminal::Device { number, file_system };
            let is_outside = !masters.iter().any(|&master| slave.is_slave_of(master));
            is_outside.then(|| (OutsideKind::Terminal, format!("tty[{number:x}:{file_system:x}]")))
        }
        (_, Some((inode, peer))) => {
            (!inside.contains(&peer)).then(|| (OutsideKind::UnixSocket, format!("unix[{inode}]")))
        }
        _ => None,
    }
}

/// CRIU compares its limit with the blocks that a file takes, which may be more than its size says.
fn on_disk(size: u64) -> Bytes {
    Bytes(size.saturating_add(size / 8).saturating_add(64 * 1024))
}

/// What a process and its children have that CRIU can't dump, or may not.
///
/// # Errors
///
/// Where nothing can be read of the process: it is another user's, or has ended.
pub(crate) fn obstacles_of(pid: i32) -> std::io::Result<Vec<Obstacle>> {
    // Of the process itself it is told why.
    sys::procfs::descriptors(pid)?;
    Ok(sys::procfs::tree(pid)
        .into_iter()
        .filter_map(look_at)
        .flat_map(|process| obstacles::of(&process))
        .collect())
}

fn look() -> std::io::Result<Facts> {
    let pid = sys::process::id();
    Ok(Facts {
        root: sys::process::is_root(),
        iptables: super::locate::on_path("iptables").is_some(),
        nft: super::locate::on_path("nft").is_some(),
        processes: sys::procfs::tree(pid).into_iter().filter_map(look_at).collect(),
    })
}

/// None for a process that has ended meanwhile.
fn look_at(pid: i32) -> Option<ProcessFacts> {
    let tracer =
        i32::try_from(sys::procfs::status_number(pid, "TracerPid").ok()?).ok().filter(|&pid| pid != 0);
    let open = sys::procfs::descriptors(pid).ok()?;
    let socket = |open: &sys::procfs::Open| sys::procfs::inode_of(&open.target, "socket");
    let sockets: Vec<u64> = open.iter().filter_map(socket).collect();
    // Where the kernel can't tell (its module unix_diag is missing), CRIU can't either, and says so.
    let unix = if sockets.is_empty() { HashMap::new() } else { unix_sockets().unwrap_or_default() };
    // The list of TCP sockets takes the kernel so long that it is only asked for where it may tell something.
    let tcp = match sockets.iter().all(|inode| unix.contains_key(inode)) {
        true => HashSet::new(),
        false => sys::procfs::tcp_connections(pid),
    };
    let link = |fd: i32| PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
    let facts = |open: sys::procfs::Open| DescriptorFacts {
        fd: open.fd,
        tcp_connected: socket(&open).is_some_and(|inode| tcp.contains(&inode)),
        datagram_connected: socket(&open)
            .and_then(|inode| unix.get(&inode))
            .is_some_and(|unix| unix.is_datagram && unix.peer.is_some()),
        connection: socket(&open).and_then(|inode| {
            let unix = unix.get(&inode).filter(|unix| !unix.is_datagram)?;
            Some((inode, unix.peer?))
        }),
        terminal: open.terminal,
        locked: open.locked,
        protocol: socket(&open).and_then(|_| sys::xattr::socket_protocol(&link(open.fd))),
        timer_clock: open.timer_clock,
        unlinked_size: open.unlinked_size,
        target: open.target,
    };
    Some(ProcessFacts {
        pid,
        session: sys::procfs::stat(pid).ok()?.session,
        unlinked_mapping: sys::procfs::largest_unlinked_mapping(pid),
        mapped: sys::mappings::names(pid),
        tracer: tracer.map(|pid| (pid, sys::procfs::stat(pid).map(|stat| stat.name).unwrap_or_default())),
        descriptors: open.into_iter().map(facts).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_connection_is_seen_by_its_descriptor_and_other_sockets_are_none() {
        use std::os::fd::AsRawFd;
        use std::os::unix::net::{UnixDatagram, UnixStream};
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (datagram, _other_datagram) = UnixDatagram::pair().unwrap();
        let (stream, _other_stream) = UnixStream::pair().unwrap();
        let ours = look_at(sys::process::id()).unwrap();
        let seen = |fd: i32| {
            let open = ours.descriptors.iter().find(|open| open.fd == fd).unwrap();
            (open.tcp_connected, open.datagram_connected)
        };
        assert_eq!(seen(client.as_raw_fd()), (true, false));
        assert_eq!(seen(listener.as_raw_fd()), (false, false));
        assert_eq!(seen(datagram.as_raw_fd()), (false, true));
        assert_eq!(seen(stream.as_raw_fd()), (false, false));
    }

    /// A daemon of its own session, run by root, with one descriptor.
    fn facts(open: DescriptorFacts) -> Facts {
        let process =
            ProcessFacts { pid: 40, session: 40, descriptors: vec![open], ..ProcessFacts::default() };
        Facts { root: true, iptables: true, nft: true, processes: vec![process] }
    }

    fn in_session(session: i32) -> Facts {
        let mut facts = facts(DescriptorFacts::default());
        facts.processes[0].session = session;
        facts
    }

    #[test]
    fn each_need_follows_from_its_fact_and_from_nothing_else() {
        let none = Needs::default;
        let plain = DescriptorFacts::default;
        let table: [(&str, Facts, Needs); 10] = [
            ("nothing special", facts(plain()), none()),
            ("another session leader", in_session(7), Needs { shell_job: true, ..none() }),
            (
                "a lock",
                facts(DescriptorFacts { locked: true, ..plain() }),
                Needs { file_locks: true, ..none() },
            ),
            (
                "a TCP connection",
                facts(DescriptorFacts { tcp_connected: true, ..plain() }),
                Needs { tcp_established: true, ..none() },
            ),
            (
                "a connected datagram socket",
                facts(DescriptorFacts { datagram_connected: true, ..plain() }),
                Needs { ext_unix_sk: true, ..none() },
            ),
            (
                "no iptables",
                Facts { iptables: false, ..facts(plain()) },
                Needs { network_lock: NetworkLock::Nftables, ..none() },
            ),
            (
                "no firewall at all",
                Facts { iptables: false, nft: false, ..facts(plain()) },
                Needs { network_lock: NetworkLock::Skip, ..none() },
            ),
            (
                "an ordinary user",
                Facts { root: false, ..facts(plain()) },
                Needs { unprivileged: true, ..none() },
            ),
            (
                "a small file without a name",
                facts(DescriptorFacts { unlinked_size: Some(4096), ..plain() }),
                none(),
            ),
            (
                "a large file without a name",
                facts(DescriptorFacts { unlinked_size: Some(8 << 20), ..plain() }),
                Needs { ghost_limit: Some(on_disk(8 << 20)), ..none() },
            ),
        ];
        for (what, facts, expected) in table {
            assert_eq!(derive(&facts).unwrap(), expected, "{what}");
        }
    }

    #[test]
    fn what_is_open_to_the_outside_is_found_with_its_descriptors() {
        const SLAVE: Terminal = Terminal::Device { number: 0x8803, file_system: 0x18 };
        let open = |fd, terminal, connection| DescriptorFacts {
            fd,
            terminal,
            connection,
            ..DescriptorFacts::default()
        };
        let keys = |descriptors: Vec<DescriptorFacts>, of_a_child: Vec<DescriptorFacts>| {
            let child = ProcessFacts { pid: 41, session: 40, descriptors: of_a_child, ..Default::default() };
            let mut facts = facts(DescriptorFacts::default());
            facts.processes[0].descriptors = descriptors;
            facts.processes.push(child);
            let outside = derive(&facts).unwrap().outside;
            outside.into_iter().map(|outside| (outside.key, outside.descriptors)).collect::<Vec<_>>()
        };
        let terminal = |fd| open(fd, Some(SLAVE), None);
        assert_eq!(
            keys(vec![terminal(0), terminal(1)], vec![terminal(0)]),
            [("tty[8803:18]".into(), vec![0, 1])]
        );
        let master = |index| open(9, Some(Terminal::Master(index)), None);
        assert!(keys(vec![master(3)], vec![terminal(0)]).is_empty(), "the program is the terminal");
        assert_eq!(keys(vec![master(4)], vec![terminal(0)]), [("tty[8803:18]".into(), vec![])]);
        let half = |fd, inode, peer| open(fd, None, Some((inode, peer)));
        assert!(keys(vec![half(3, 70, 71)], vec![half(4, 71, 70)]).is_empty(), "both ends are inside");
        assert_eq!(keys(vec![half(1, 70, 99), half(2, 70, 99)], vec![]), [("unix[70]".into(), vec![1, 2])]);
    }

    #[test]
    fn a_childs_descriptors_count_as_well() {
        let mut facts = facts(DescriptorFacts::default());
        let locked = DescriptorFacts { locked: true, ..DescriptorFacts::default() };
        facts.processes.push(ProcessFacts {
            pid: 41,
            session: 40,
            descriptors: vec![locked],
            ..ProcessFacts::default()
        });
        assert!(derive(&facts).unwrap().file_locks);
    }

    #[test]
    fn what_no_criu_dumps_is_named_with_descriptor_and_remedy() {
        let open =
            DescriptorFacts { fd: 5, target: "anon_inode:[io_uring]".into(), ..DescriptorFacts::default() };
        let error = derive(&facts(open)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Descriptor);
        assert!(error.to_string().contains("descriptor 5"), "{error}");
        assert!(error.hint().unwrap().contains("close it before the checkpoint"));
    }

    #[test]
    fn a_session_that_is_led_from_outside_of_the_pid_namespace_is_said_beforehand() {
        let error = derive(&in_session(0)).unwrap_err();
        assert!(error.to_string().contains("session leader of process 40"), "{error}");
        assert!(error.hint().unwrap().contains("setsid PROGRAM"));
    }

    #[test]
    fn a_tracer_is_named() {
        let mut facts = facts(DescriptorFacts::default());
        facts.processes[0].tracer = Some((17, "gdb".into()));
        let error = derive(&facts).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Traced);
        assert!(error.to_string().contains("traced by process 17 (gdb)"), "{error}");
    }
}
