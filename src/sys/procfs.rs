//! What `/proc` says of processes.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::frozen::Bytes;

mod descriptors;

pub(crate) use descriptors::*;

/// The fields of `/proc/PID/stat` that are read here (proc(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) name: String,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    pub(crate) session: i32,
    /// Whether its session has a terminal.
    pub(crate) has_terminal: bool,
    /// Whether it has ended, or is just about to, and only its number isn't free yet.
    pub(crate) is_ending: bool,
    /// When the process started, in clock ticks since the boot, as it is seen outside of time namespaces.
    /// To be compared by [`same_start`].
    pub(crate) start_ticks: u64,
}

/// Reads `/proc/PID/stat`.
pub(crate) fn stat(pid: i32) -> io::Result<Stat> {
    shifted_stat(pid, our_time_shift())
}

/// Whether a process is there, and not just about to end.
pub(crate) fn is_there(pid: i32) -> bool {
    stat(pid).is_ok_and(|stat| !stat.is_ending)
}

/// Reads that of every process, with its id. Our own time namespace is asked for once.
pub(crate) fn stats() -> impl Iterator<Item = (i32, Stat)> {
    let shift = our_time_shift();
    all().into_iter().filter_map(move |pid| Some((pid, shifted_stat(pid, shift).ok()?)))
}

fn shifted_stat(pid: i32, shift: i64) -> io::Result<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&String::from_utf8_lossy(&text))
        .map(|stat| Stat { start_ticks: stat.start_ticks.saturating_add_signed(-shift), ..stat })
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat")))
}

/// The time now as `start_ticks` counts it.
pub(crate) fn now() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/uptime")?;
    let uptime = text.split(' ').next().and_then(hundredths);
    let ticks = uptime.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/uptime"))?;
    Ok(ticks.saturating_add_signed(-our_time_shift()))
}

/// Seconds with two places as the number of the kernel's ticks, of which it counts 100 to a second.
fn hundredths(seconds: &str) -> Option<u64> {
    let (whole, rest) = seconds.split_once('.')?;
    Some(whole.parse::<u64>().ok()? * 100 + rest.parse::<u64>().ok()?)
}

/// Whether two start times are that of one process. They are rounded to a tick after the reader's own time
/// namespace has shifted them.
pub(crate) fn same_start(one: u64, other: u64) -> bool {
    one.abs_diff(other) <= 2
}

/// By how many clock ticks `/proc` shows us start times later than they are: CRIU restores a process into a
/// time namespace, in which its clocks go on from where they were, and so do the times that it reads.
fn our_time_shift() -> i64 {
    let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    boot_clock_offset(&offsets).unwrap_or(0)
}

/// The line `boottime SECONDS NANOSECONDS` (time_namespaces(7)) as clock ticks, of which the kernel counts
/// 100 to a second.
fn boot_clock_offset(offsets: &str) -> Option<i64> {
    let fields = offsets.lines().find_map(|line| line.strip_prefix("boottime"))?;
    let mut numbers = fields.split_ascii_whitespace().map(str::parse::<i64>);
    let (seconds, nanoseconds) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some(seconds * 100 + nanoseconds / 10_000_000)
}

/// The name may hold blanks and parentheses, so the fields are counted from the last parenthesis.
fn parse_stat(text: &str) -> Option<Stat> {
    let (head, tail) = (text.find('(')?, text.rfind(')')?);
    /// The flag of a process that is being taken down (PF_EXITING, include/linux/sched.h).
    const EXITING: u64 = 0x4;
    let fields: Vec<&str> = text.get(tail + 1..)?.split_ascii_whitespace().collect();
    let flags: u64 = fields.get(6)?.parse().ok()?;
    Some(Stat {
        name: text.get(head + 1..tail)?.to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        is_ending: matches!(*fields.first()?, "Z" | "X") || flags & EXITING != 0,
        session: fields.get(3)?.parse().ok()?,
        has_terminal: *fields.get(4)? != "0",
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// The number after `key:` in `/proc/PID/status`; memory sizes are in KiB there.
pub(crate) fn status_number(pid: i32, key: &str) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(status_field(&text, key).unwrap_or(0))
}

/// How much of a process's own memory is in transparent huge pages.
pub(crate) fn huge_memory(pid: i32) -> io::Result<Bytes> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(Bytes(status_field(&text, "AnonHugePages").unwrap_or(0) * 1024))
}

fn status_field(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// A process and all its descendants, itself first. One that ends meanwhile is left out.
pub(crate) fn tree(root: i32) -> Vec<i32> {
    let mut pids = vec![root];
    let mut next = 0;
    while let Some(&pid) = pids.get(next) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pids.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
        next += 1;
    }
    pids
}

/// The names of a process's threads.
pub(crate) fn threads(pid: i32) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

/// The ids of all processes that can be seen.
fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The programs and libraries that a process runs, which have names still, each once.
pub(crate) fn executable_mappings(pid: i32) -> BTreeSet<PathBuf> {
    let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
    let named = maps.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(6, |&byte| byte == b' ');
        let is_executable = fields.nth(1)?.get(2) == Some(&b'x');
        let path = fields.nth(3)?.trim_ascii_start();
        (is_executable && path.starts_with(b"/") && !path.ends_with(b" (deleted)"))
            .then(|| PathBuf::from(OsString::from_vec(path.to_vec())))
    });
    named.collect()
}

/// The file that this process has mapped at an address.
pub(crate) fn mapped_at(address: usize) -> io::Result<PathBuf> {
    let maps = fs::read("/proc/self/maps")?;
    let found = maps.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(6, |&byte| byte == b' ');
        let (start, end) = std::str::from_utf8(fields.next()?).ok()?.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        let path = fields.nth(4)?.trim_ascii_start();
        (number(start)? <= address && address < number(end)? && path.starts_with(b"/"))
            .then(|| PathBuf::from(OsString::from_vec(path.to_vec())))
    });
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Whether a process waits where it touches memory that is missing, until somebody fills it (userfaultfd(2)).
pub(crate) fn waits_for_pages(pid: i32) -> bool {
    let mappings = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut flags = mappings.lines().filter_map(|line| line.strip_prefix("VmFlags:"));
    flags.any(|flags| flags.split_ascii_whitespace().any(|flag| flag == "um"))
}

/// The features of this machine's processors, as `/proc/cpuinfo` names them.
pub(crate) fn cpu_features() -> Vec<String> {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let features = line.and_then(|line| line.split_once(':')).map_or("", |(_, features)| features);
    let features: BTreeSet<&str> = features.split_ascii_whitespace().collect();
    features.into_iter().map(str::to_owned).collect()
}

/// What programs can still have of memory, swap included.
pub(crate) fn free_memory() -> Option<Bytes> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes = |key| status_field(&text, key);
    Some(Bytes((kibibytes("MemAvailable")? + kibibytes("SwapFree").unwrap_or(0)) * 1024))
}

/// The same without swap, and no more than the control groups of this process leave it.
pub(crate) fn memory_to_fill() -> Option<Bytes> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let available = Bytes(status_field(&text, "MemAvailable")? * 1024);
    let left = super::cgroup::memory_left();
    Some(left.map_or(available, |left| left.min(available)))
}

/// The size of the largest file that a process has mapped and that has no name any more: an executable or
/// library that was replaced since, say.
pub(crate) fn largest_unlinked_mapping(pid: i32) -> Option<u64> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let gone = maps.lines().filter(|line| line.ends_with(" (deleted)") && line.contains(" /"));
    let ranges = gone.filter_map(|line| line.split(' ').next());
    // The links in map_files are for the privileged; that of the executable is for everyone.
    let links = ranges.map(|range| format!("map_files/{range}")).chain(["exe".to_owned()]);
    let files = links.filter_map(|link| fs::metadata(format!("/proc/{pid}/{link}")).ok());
    files.filter(|file| file.is_file() && file.nlink() == 0).map(|file| file.size()).max()
}

/// The inode in a name like `socket:[4711]`.
pub(crate) fn inode_of(target: &Path, kind: &str) -> Option<u64> {
    target.to_str()?.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

/// The inodes of TCP sockets in a process's network namespace that are in a connection: neither listening
/// nor closed. This takes milliseconds.
pub(crate) fn tcp_connections(pid: i32) -> HashSet<u64> {
    [net_table(pid, "tcp"), net_table(pid, "tcp6")]
        .iter()
        .flat_map(|text| text.lines().skip(1).filter_map(tcp_connection))
        .collect()
}

/// A list of sockets. The kernel walks the whole hash table of TCP, for a millisecond or two, at every read
/// that comes to the end of the list, and `read_to_string` begins with small ones.
fn net_table(pid: i32, name: &str) -> String {
    let mut table = Vec::with_capacity(64 << 10);
    let read =
        fs::File::open(format!("/proc/{pid}/net/{name}")).and_then(|mut file| file.read_to_end(&mut table));
    // The table of what can't be read is empty; a socket's name may be no UTF-8.
    read.map(|_| String::from_utf8_lossy(&table).into_owned()).unwrap_or_default()
}

/// Columns: slot, local, remote, state, queues, timer, retransmits, uid, timeout, inode.
fn tcp_connection(line: &str) -> Option<u64> {
    const CLOSE: &str = "07";
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let state = *fields.get(3)?;
    if state == CLOSE || state == LISTEN {
        return None;
    }
    fields.get(9)?.parse().ok()
}

/// A process's pid namespace, as the inode number of `/proc/PID/ns/pid`.
pub(crate) fn pid_namespace(pid: i32) -> io::Result<u64> {
    Ok(fs::metadata(format!("/proc/{pid}/ns/pid"))?.ino())
}

/// A number that no other boot of any machine has.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// A number that nobody else gets.
pub(crate) fn fresh_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned())
}

/// The name of this machine; empty where it can't be read.
pub(crate) fn machine() -> String {
    let named = fs::read_to_string("/etc/machine-id").ok().filter(|id| !id.trim().is_empty());
    named
        .or_else(|| fs::read_to_string("/proc/sys/kernel/hostname").ok())
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The program that a process runs; a file that was replaced since loses the mark for it.
pub(crate) fn executable(pid: i32) -> io::Result<PathBuf> {
    let target = fs::read_link(format!("/proc/{pid}/exe"))?;
    Ok(match target.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(path) => PathBuf::from(path),
        None => target,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_started_now_has_begun_at_this_time_or_later() {
        let before = now().unwrap();
        assert!(stat(std::process::id() as i32).unwrap().start_ticks <= before);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let began = stat(child.id() as i32).unwrap().start_ticks;
        assert!((before..=now().unwrap()).contains(&began), "{before} {began}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c) S 1 40 39 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 8839201 1 1";
        let stat = parse_stat(text).unwrap();
        assert_eq!(
            stat,
            Stat {
                name: "a) b (c".into(),
                parent: 1,
                group: 40,
                session: 39,
                has_terminal: false,
                is_ending: false,
                start_ticks: 8_839_201
            }
        );
        assert!(parse_stat(&text.replace(" S ", " Z ")).unwrap().is_ending);
        assert!(parse_stat(&text.replace(" 4194560 ", " 4194564 ")).unwrap().is_ending);
    }

    #[test]
    fn start_times_are_counted_outside_of_time_namespaces() {
        let offsets = "monotonic          -5         0\nboottime           -5 980000000\n";
        assert_eq!(boot_clock_offset(offsets), Some(-402));
        assert_eq!(boot_clock_offset("monotonic 0 0\n"), None);
        assert!(same_start(500, 501) && !same_start(500, 600));
    }

    #[test]
    fn our_own_entry_can_be_read() {
        let pid = super::super::process::id();
        assert!(stat(pid).unwrap().start_ticks > 0);
        assert!(status_number(pid, "RssAnon").unwrap() > 0);
        assert_eq!(tree(pid)[0], pid);
        assert!(descriptors(pid).unwrap().iter().any(|open| open.fd == 1));
    }

    #[test]
    fn a_tcp_socket_counts_while_it_is_in_a_connection() {
        let line = |state: &str| {
            format!(
                "  0: 0100007F:1F90 0100007F:C350 {state} 00000000:00000000 00:00000000 00000000     0        0 4711 1"
            )
        };
        assert_eq!(tcp_connection(&line("01")), Some(4711));
        assert_eq!(tcp_connection(&line("08")), Some(4711));
        assert_eq!(tcp_connection(&line("0A")), None);
        assert_eq!(tcp_connection(&line("07")), None);
    }

    #[test]
    fn inodes_are_read_from_the_names_of_pipes_and_sockets() {
        assert_eq!(inode_of(Path::new("socket:[99]"), "socket"), Some(99));
        assert_eq!(inode_of(Path::new("pipe:[99]"), "socket"), None);
    }
}
