//! The descriptors of a process, and what there is to say of what they refer to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::registers::plain;
use crate::error::Result;
use crate::frozen;
use crate::image::descriptor::OpenFiles;
use crate::image::images::{self, OpenFile as Opened};

/// An open descriptor.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Descriptor {
    /// What the manifest keeps of it: number, kind, path, flags, position, size.
    #[serde(flatten)]
    pub about: frozen::Descriptor,
    /// The id of the open file that it refers to: those with the same kind and id share it, and its position.
    pub file_id: u32,
    /// Whether a program that is executed doesn't get it.
    pub close_on_exec: bool,
    /// What only its kind has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
}

/// What only one kind of open file has.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "of")]
#[non_exhaustive]
pub enum Detail {
    /// A regular file, a folder or a device.
    File(RegularFile),
    /// One end of a pipe.
    Pipe(Pipe),
    /// A TCP, UDP or raw socket.
    InetSocket(InetSocket),
    /// A unix socket.
    UnixSocket(UnixSocket),
    /// A netlink socket.
    NetlinkSocket(NetlinkSocket),
    /// An eventfd.
    EventFd(EventFd),
    /// An epoll instance.
    Epoll(Epoll),
    /// A signalfd.
    SignalFd(SignalFd),
    /// A timerfd.
    TimerFd(TimerFd),
    /// An inotify instance.
    Inotify(Inotify),
    /// A terminal.
    Terminal(Terminal),
    /// A pidfd.
    PidFd(PidFd),
}

/// What only a file has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RegularFile {
    /// Its type and permissions, as in stat(2).
    pub mode: Option<u32>,
    /// Whether the restore has to provide it.
    pub external: bool,
    /// Whether it had no name any more, so that its contents are in the images.
    pub deleted: bool,
    /// Its build id in hexadecimal, where CRIU noted one.
    pub build_id: Option<String>,
}

plain! {
    /// What only a pipe has.
    Pipe: Pipe {
        /// The inode that both ends share.
        pipe_id: u32,
    }
}

/// What only an internet socket has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InetSocket {
    /// Its inode.
    pub inode: u32,
    /// SOCK_STREAM is 1, SOCK_DGRAM 2, SOCK_RAW 3.
    pub socket_type: u32,
    /// The protocol: TCP is 6, UDP 17.
    pub protocol: u32,
    /// The kernel's state of a TCP socket: 1 established, 7 closed, 10 listening.
    pub state: u32,
    /// Its own address.
    pub local: Option<SocketAddr>,
    /// The other end's.
    pub remote: Option<SocketAddr>,
    /// How many connections may wait to be accepted.
    pub backlog: u32,
}

/// What only a unix socket has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnixSocket {
    /// Its inode.
    pub inode: u32,
    /// SOCK_STREAM is 1, SOCK_DGRAM 2, SOCK_SEQPACKET 5.
    pub socket_type: u32,
    /// As of a TCP socket.
    pub state: u32,
    /// The inode of the other end; none where there is no other end.
    pub peer: Option<u32>,
    /// Its path, or `@` and its abstract name; none where it has neither.
    pub name: Option<String>,
}

plain! {
    /// What only a netlink socket has.
    NetlinkSocket: NetlinkSocket {
        /// Its inode.
        ino: u32,
        /// The protocol: NETLINK_ROUTE is 0.
        protocol: u32,
        /// Its own port.
        portid: u32,
        /// The groups that it listens to.
        groups: Vec<u32>,
    }
}

plain! {
    /// What only an eventfd has.
    EventFd: EventFd {
        /// What it has counted.
        counter: u64,
    }
}

/// What only an epoll instance has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Epoll {
    /// What it watches: each descriptor's number, and the events.
    pub targets: Vec<(u32, u32)>,
}

plain! {
    /// What only a signalfd has.
    SignalFd: SignalFd {
        /// The signals that it takes: bit 0 is signal 1.
        sigmask: u64,
    }
}

plain! {
    /// What only a timerfd has: what remained, and the interval, in seconds and nanoseconds.
    TimerFd: TimerFd {
        /// Its clock, as for clock_gettime(2).
        clockid: u32,
        /// How often it had expired since it was last read.
        ticks: u64,
        /// Seconds that remained; 0 for a timer that isn't armed.
        vsec: u64,
        /// Nanoseconds that remained.
        vnsec: u64,
        /// Seconds of the interval; 0 for a timer that expires once.
        isec: u64,
        /// Nanoseconds of the interval.
        insec: u64,
    }
}

/// What only an inotify instance has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Inotify {
    /// What it watches: watch descriptor, inode and mask of each.
    pub watches: Vec<(u32, u64, u32)>,
}

plain! {
    /// What only a terminal has.
    Terminal: Terminal {
        /// Its settings, which several may share.
        tty_info_id: u32,
    }
}

plain! {
    /// What only a pidfd has.
    PidFd: PidFd {
        /// The process that it is about.
        nspid: i32,
    }
}

/// Reads the descriptors of one table, by number.
pub(super) fn read(images: &Path, files_id: u32, files: &OpenFiles) -> Result<Vec<Descriptor>> {
    files.entries(images, files_id, |entry, about, file| Descriptor {
        about,
        file_id: entry.id,
        close_on_exec: entry.flags & 1 != 0,
        detail: detail(file, files),
    })
}

fn detail(file: &Opened, files: &OpenFiles) -> Option<Detail> {
    Some(if let Some(regular) = &file.reg {
        Detail::File(RegularFile {
            mode: regular.mode,
            external: regular.ext == Some(true),
            deleted: files.is_deleted(regular.id),
            build_id: build_id(&regular.build_id),
        })
    } else if let Some(pipe) = &file.pipe {
        Detail::Pipe((*pipe).into())
    } else if let Some(socket) = &file.isk {
        Detail::InetSocket(inet_socket(socket))
    } else if let Some(socket) = &file.usk {
        Detail::UnixSocket(unix_socket(socket))
    } else if let Some(socket) = &file.nlsk {
        Detail::NetlinkSocket(socket.clone().into())
    } else if let Some(file) = &file.efd {
        Detail::EventFd((*file).into())
    } else if let Some(file) = &file.epfd {
        Detail::Epoll(Epoll { targets: file.tfd.iter().map(|target| (target.tfd, target.events)).collect() })
    } else if let Some(file) = &file.sgfd {
        Detail::SignalFd((*file).into())
    } else if let Some(file) = &file.tfd {
        Detail::TimerFd((*file).into())
    } else if let Some(file) = &file.ify {
        let watches = file.wd.iter().map(|watch| (watch.wd, watch.i_ino, watch.mask)).collect();
        Detail::Inotify(Inotify { watches })
    } else if let Some(file) = &file.tty {
        Detail::Terminal((*file).into())
    } else {
        Detail::PidFd(file.pidfd?.into())
    })
}

/// CRIU keeps it in words of 4 bytes.
fn build_id(words: &[u32]) -> Option<String> {
    let hex = words.iter().flat_map(|word| word.to_le_bytes()).map(|byte| format!("{byte:02x}"));
    Some(hex.collect()).filter(|text: &String| !text.is_empty())
}

fn inet_socket(socket: &images::InetSocket) -> InetSocket {
    let address = |words: &[u32], port: u32| {
        Some(SocketAddr::new(address(words)?, u16::try_from(port).ok()?)).filter(|address| {
            // What was never bound or connected has neither.
            !(address.ip().is_unspecified() && address.port() == 0)
        })
    };
    InetSocket {
        inode: socket.ino,
        socket_type: socket.r#type,
        protocol: socket.proto,
        state: socket.state,
        local: address(&socket.src_addr, socket.src_port),
        remote: address(&socket.dst_addr, socket.dst_port),
        backlog: socket.backlog,
    }
}

/// An address in network order, in words of 4 bytes.
fn address(words: &[u32]) -> Option<IpAddr> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let v4 = <[u8; 4]>::try_from(&*bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    v4.or_else(|_| <[u8; 16]>::try_from(&*bytes).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)))).ok()
}

fn unix_socket(socket: &images::UnixSocket) -> UnixSocket {
    let name = match &*socket.name {
        [] => None,
        [0, name @ ..] => Some(format!("@{}", String::from_utf8_lossy(name).trim_end_matches('\0'))),
        path => Some(String::from_utf8_lossy(path).trim_end_matches('\0').to_owned()),
    };
    UnixSocket {
        inode: socket.ino,
        socket_type: socket.r#type,
        state: socket.state,
        peer: Some(socket.peer).filter(|&peer| peer != 0),
        name,
    }
}

/// Where a process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Place {
    /// Its working folder.
    pub folder: Option<PathBuf>,
    /// Its root.
    pub root: Option<PathBuf>,
    /// Its mask for permissions (umask(2)).
    pub umask: Option<u32>,
}
