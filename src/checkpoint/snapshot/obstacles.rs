//! What keeps a copy of the program from standing in for it: what a fork doesn't copy, and what both would share, so that
//! CRIU would find it as it is later and not as it was.

use crate::error::{Error, ErrorKind};
use crate::sys::snapshot::moment::{Descriptor, Moment};

const INSTEAD: &str =
    "with SELFDUMP_SNAPSHOT=auto it is dumped itself then, for which it stands still longer";

/// The kind of a file, as in stat(2), and which is which.
const KIND: u32 = 0o170_000;
const SOCKET: u32 = 0o140_000;
const REGULAR: u32 = 0o100_000;
const BLOCKS: u32 = 0o060_000;
const FOLDER: u32 = 0o040_000;
const CHARACTERS: u32 = 0o020_000;
const PIPE: u32 = 0o010_000;

/// Devices without a state of their own, and terminals, of which the state isn't the program's.
const DEVICES: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/pts/",
    "/dev/console",
];

/// What is noted of such a descriptor, and put right in the images.
const ANONYMOUS: &[&str] = &["[eventpoll]", "[eventfd]", "[signalfd]", "[timerfd]"];

/// The first that is found.
pub(super) fn first(moment: &Moment) -> Option<Error> {
    process(moment)
        .or_else(|| moment.descriptors.iter().find_map(descriptor))
        .or_else(|| moment.mappings.lines().find_map(mapping))
}

/// What a fork has left out.
pub(super) fn not_inherited() -> Error {
    Error::new(ErrorKind::Dump, "some of the program's memory isn't inherited by a fork (MADV_DONTFORK)")
        .with_hint(INSTEAD)
}

fn process(moment: &Moment) -> Option<Error> {
    let found = |what: String| Some(Error::new(ErrorKind::Dump, what).with_hint(INSTEAD));
    if let Some(child) = moment.children.first() {
        return found(format!("the program has a child (process {child}), of which there is no copy"));
    }
    if moment.posix_timers > 0 {
        let count = moment.posix_timers;
        return found(format!(
            "the program has {count} of its own timers (timer_create), which a fork doesn't copy"
        ));
    }
    if moment.locked_kib > 0 {
        return found(format!(
            "the program has {} of its memory locked (mlock), which a fork doesn't keep",
            crate::frozen::Bytes(moment.locked_kib * 1024)
        ));
    }
    if moment.leads_a_terminal {
        return found("the program leads the session of its terminal, which a copy can't".to_owned());
    }
    let main = moment.threads.first()?;
    if let Some(thread) = moment.threads.iter().find(|thread| thread.rights != main.rights) {
        return found(format!("thread {} has other rights than the main thread", thread.tid));
    }
    if !main.rights.ends_with("Seccomp:\t0") {
        return found("a seccomp filter judges the program's system calls".to_owned());
    }
    None
}

fn descriptor(open: &Descriptor) -> Option<Error> {
    let target = open.target.to_str().unwrap_or_default();
    let what = match open.mode & KIND {
        REGULAR if target.starts_with("/memfd:") => "memory that is a file (memfd)",
        REGULAR if open.links == 0 => "a file without a name",
        REGULAR | FOLDER => return None,
        CHARACTERS if DEVICES.iter().any(|device| target.starts_with(device)) => return None,
        CHARACTERS | BLOCKS => "a device",
        PIPE if target.starts_with("pipe:") => return None,
        PIPE => "a named pipe",
        SOCKET if open.listens => return None,
        SOCKET => "a socket that doesn't listen",
        _ if is_known_anonymous(target) => return None,
        _ => "what can't be copied",
    };
    let text = format!(
        "the program has {what} open as descriptor {} ({target}), which its copy would share",
        open.fd
    );
    Some(Error::new(ErrorKind::Descriptor, text).with_hint(INSTEAD))
}

fn is_known_anonymous(target: &str) -> bool {
    target.strip_prefix("anon_inode:").is_some_and(|name| ANONYMOUS.contains(&name))
}

/// Of a line of `/proc/PID/maps`.
fn mapping(line: &str) -> Option<Error> {
    let mut fields = line.split_ascii_whitespace();
    let (range, access) = (fields.next()?, fields.next()?.as_bytes());
    let name = fields.nth(3).unwrap_or("no name");
    let is_shared = access.get(3) == Some(&b's') && access.get(1) == Some(&b'w');
    let is_huge = name.starts_with("/anon_hugepage");
    if !is_shared && !is_huge {
        return None;
    }
    let what = if is_shared { "writable memory that it may share" } else { "memory in reserved huge pages" };
    let text = format!("the program has {what} ({name}, at {range}), of which a fork makes no copy");
    Some(Error::new(ErrorKind::Dump, text).with_hint(INSTEAD))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::snapshot::moment::Thread;

    fn thread(tid: i32, seccomp: u32) -> Thread {
        Thread { tid, rights: format!("Uid:\t0\nSeccomp:\t{seccomp}"), ..Thread::default() }
    }

    fn plain() -> Moment {
        Moment { pid: 40, threads: vec![thread(40, 0), thread(41, 0)], ..Moment::default() }
    }

    fn with(fd: i32, target: &str, mode: u32, links: u64) -> Moment {
        let descriptor = Descriptor { fd, target: target.into(), mode, links, ..Descriptor::default() };
        Moment { descriptors: vec![descriptor], ..plain() }
    }

    fn said(moment: &Moment) -> String {
        first(moment).map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn an_ordinary_program_has_none() {
        for (target, mode) in [
            ("/data/out.txt", REGULAR),
            ("/data", FOLDER),
            ("/dev/null", CHARACTERS),
            ("/dev/pts/3", CHARACTERS),
            ("pipe:[77]", PIPE),
            ("anon_inode:[eventpoll]", 0),
            ("anon_inode:[eventfd]", 0),
        ] {
            assert_eq!(said(&with(3, target, mode, 1)), "", "{target}");
        }
        let mappings = "7f00-7f01 rw-p 00000000 00:00 0 \n7f01-7f02 r--s 00000000 08:02 5 /usr/lib/cache\n";
        assert_eq!(said(&Moment { mappings: mappings.to_owned(), ..plain() }), "");
    }

    #[test]
    fn descriptors_that_both_would_share_are_named() {
        for (target, mode, links, what) in [
            ("/tmp/x (deleted)", REGULAR, 0, "a file without a name"),
            ("/memfd:x (deleted)", REGULAR, 0, "memfd"),
            ("/dev/kvm", CHARACTERS, 1, "a device"),
            ("/dev/ptmx", CHARACTERS, 1, "a device"),
            ("/run/queue", PIPE, 1, "a named pipe"),
            ("socket:[5]", SOCKET, 1, "a socket that doesn't listen"),
            ("anon_inode:inotify", 0, 1, "what can't be copied"),
        ] {
            let said = said(&with(7, target, mode, links));
            assert!(said.contains(what) && said.contains(&format!("descriptor 7 ({target})")), "{said}");
        }
    }

    #[test]
    fn what_a_fork_leaves_out_is_named() {
        let children = Moment { children: vec![99], ..plain() };
        let timers = Moment { posix_timers: 2, ..plain() };
        let locked = Moment { locked_kib: 4, ..plain() };
        let shared = Moment { mappings: "7f00-7f01 rw-s 0 00:01 9 /dev/zero\n".to_owned(), ..plain() };
        let filtered = Moment { threads: vec![thread(40, 2), thread(41, 2)], ..plain() };
        let other = Moment { threads: vec![thread(40, 0), thread(41, 2)], ..plain() };
        for (moment, what) in [
            (children, "process 99"),
            (timers, "2 of its own timers"),
            (locked, "4.0 KiB"),
            (shared, "/dev/zero, at 7f00-7f01"),
            (filtered, "seccomp"),
            (other, "thread 41 has other rights"),
        ] {
            assert!(said(&moment).contains(what), "{what}: {}", said(&moment));
        }
    }
}
