//! What stood still at a checkpoint: processes, descriptors and times as plain data.
//!
//! It is read from the images after the dump, so it says what was frozen, not what was there a moment
//! before. The manifest keeps it; the commands show it.

pub(crate) mod unix_micros;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl Bytes {
    /// `count` times 1024 × 1024 bytes.
    pub const fn mebibytes(count: u64) -> Bytes {
        Bytes(count << 20)
    }

    /// How sizes are written.
    pub(crate) const FORM: &str = "a size, such as 500 MiB, 2GiB or 64k; a bare number is bytes";
}

/// Reads `512 B`, `64k`, `500 MiB`, `2GiB`; a bare number is bytes. A unit is 1024 of the one before it, as everywhere
/// here.
impl std::str::FromStr for Bytes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Bytes, Error> {
        let bad = || Error::new(ErrorKind::Config, format!("{text:?} is no size")).with_hint(Bytes::FORM);
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start().to_ascii_lowercase();
        let name = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(&unit);
        let shift = match name {
            "" if unit.len() < 2 => 0,
            "k" => 10,
            "m" => 20,
            "g" => 30,
            "t" => 40,
            _ => return Err(bad()),
        };
        let number = number.parse::<u64>().ok();
        number.and_then(|number| number.checked_mul(1 << shift)).map(Bytes).ok_or_else(bad)
    }
}

/// Shows the number with a binary unit: `512 B`, `16.0 KiB`, `1.5 GiB`.
impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1023.95 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        f.pad(&format!("{value:.1} {}", UNITS[unit]))
    }
}

impl std::iter::Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(parts: I) -> Bytes {
        // What a file says may be anything: a sum beyond all is as large as can be.
        Bytes(parts.fold(0, |sum, part| u64::saturating_add(sum, part.0)))
    }
}

/// One process of the dumped tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Process {
    /// Its process id.
    pub pid: i32,
    /// The parent's process id; 0 for the root of the tree.
    pub parent: i32,
    /// The process group it is in.
    pub process_group: i32,
    /// The session it is in.
    pub session: i32,
    /// Its name, as in `/proc/PID/comm`.
    pub name: String,
    /// The ids of its threads, its own (the main thread's) first.
    pub threads: Vec<i32>,
    /// The number of its memory mappings.
    pub mappings: u64,
    /// Private pages of its memory that are in the images, and in what was written ahead of them.
    pub memory_bytes: Bytes,
    /// What it had open, by descriptor number.
    pub descriptors: Vec<Descriptor>,
}

/// One open descriptor of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Descriptor {
    /// Its number in the process.
    pub fd: i32,
    /// What it refers to.
    pub kind: DescriptorKind,
    /// The file's path, where it has one. CRIU's `pipe:[INODE]` or `socket:[INODE]` name for a pipe or socket.
    #[serde(with = "path", default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The open flags (`O_APPEND` and the like) as in `open(2)`.
    pub flags: u32,
    /// The position in a regular file, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position_bytes: Option<Bytes>,
    /// The size of a regular file at the checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<Bytes>,
    /// Which file it was that the path led to; absent where it led to none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<FileIdentity>,
}

impl Descriptor {
    /// Whether it can be read from. The access mode is in the two lowest bits of the flags: 0 reads, 1 writes, 2 does
    /// both (open(2)).
    pub fn reads(&self) -> bool {
        self.flags & 0b11 != 1
    }

    /// Whether it can be written to.
    pub fn writes(&self) -> bool {
        self.flags & 0b11 != 0
    }

    /// Whether what is written to it goes to the end of the file.
    pub fn appends(&self) -> bool {
        /// O_APPEND, the same on all of Linux's architectures that CRIU runs on.
        const APPEND: u32 = 0o2000;
        self.flags & APPEND != 0
    }
}

/// A program or library that a process ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct MappedFile {
    /// Its path.
    pub path: PathBuf,
    /// Its build id in hexadecimal, where it has one.
    pub build_id: Option<String>,
}

/// Which file something is, on its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FileIdentity {
    /// The device that it is on.
    pub device: u64,
    /// Its inode there, which a later file may get.
    pub inode: u64,
    /// When it was made, in nanoseconds since 1970, where its file system tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_unix_ns: Option<u64>,
}

/// What a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DescriptorKind {
    /// A regular file, a folder or a device.
    File,
    /// One end of a pipe.
    Pipe,
    /// A named pipe.
    Fifo,
    /// A TCP or UDP socket.
    InetSocket,
    /// A unix socket.
    UnixSocket,
    /// A netlink socket.
    NetlinkSocket,
    /// A packet socket.
    PacketSocket,
    /// A terminal.
    Terminal,
    /// An eventfd.
    EventFd,
    /// An epoll instance.
    Epoll,
    /// A signalfd.
    SignalFd,
    /// A timerfd.
    TimerFd,
    /// An inotify or fanotify instance.
    FileWatch,
    /// A memfd.
    MemFd,
    /// Something else that CRIU knows how to dump.
    Other,
}

/// A file that was copied into a checkpoint while the program stood still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CopiedFile {
    /// The file, without symbolic links in its path.
    #[serde(with = "path::required")]
    pub path: PathBuf,
    /// Its copy's path in the checkpoint's folder.
    pub copy: String,
    /// Its size.
    #[serde(rename = "size_bytes")]
    pub size: Bytes,
    /// Its mode, without the type: 0o644 is 420.
    pub mode: u32,
    /// The user that owns it; for a user other than root always that one.
    pub user: u32,
    /// The group that owns it.
    pub group: u32,
    /// When it was last written to: nanoseconds since 1970.
    #[serde(rename = "modified_unix_ns")]
    pub modified: i64,
    /// Whether nobody has named the file, so that the copy is for where it can't be cut back.
    pub spare: bool,
}

/// CRIU's own account of a dump (`stats-dump`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct DumpStats {
    /// How long it took to stop every thread.
    #[serde(rename = "freezing_us", with = "micros")]
    pub freezing: Duration,
    /// How long the program stood still.
    #[serde(rename = "frozen_us", with = "micros")]
    pub frozen: Duration,
    /// Of that, the time taken to collect the memory.
    #[serde(rename = "memdump_us", with = "micros")]
    pub memdump: Duration,
    /// The time taken to write the memory into the images.
    #[serde(rename = "memwrite_us", with = "micros")]
    pub memwrite: Duration,
    /// Pages looked at.
    pub pages_scanned: u64,
    /// Pages written into the images.
    pub pages_written: u64,
}

impl DumpStats {
    /// The longest that any thread can have stood still: from when the first was stopped until all ran again.
    pub fn pause(&self) -> Duration {
        self.freezing + self.frozen
    }
}

/// What CRIU has to be told about a program: at its dump, and again at its restore.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Needs {
    /// Its session leader is another process: it was started from a shell or a supervisor.
    pub shell_job: bool,
    /// It holds a file lock.
    pub file_locks: bool,
    /// It has a TCP connection.
    pub tcp_established: bool,
    /// It has a unix datagram socket that is connected to somebody.
    pub ext_unix_sk: bool,
    /// How the network is kept still around TCP connections.
    pub network_lock: NetworkLock,
    /// It isn't root, so CRIU works with what capabilities it has.
    pub unprivileged: bool,
    /// The largest open file without a name that has to be carried in the images, if any is larger than
    /// CRIU takes by itself.
    #[serde(rename = "ghost_limit_bytes", default, skip_serializing_if = "Option::is_none")]
    pub ghost_limit: Option<Bytes>,
    /// What it has open whose other end is outside of its tree, and that something has to be put in the place of.
    pub outside: Vec<Outside>,
}

/// Something that a program has open whose other end is outside of its tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Outside {
    /// What it is.
    pub kind: OutsideKind,
    /// CRIU's key for it (`external` at the dump): `tty[RDEV:DEV]` or `unix[INODE]`.
    pub key: String,
    /// Its descriptors in the root of the tree.
    pub descriptors: Vec<i32>,
}

/// What is open to the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OutsideKind {
    /// A terminal.
    Terminal,
    /// The terminal of a session that is led from outside of the tree, by a shell. CRIU connects it to the restorer's
    /// standard input, without being told by a key.
    ShellsTerminal,
    /// A unix socket that is connected to another process.
    UnixSocket,
}

/// How CRIU keeps packets away from TCP connections that it is dumping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NetworkLock {
    /// As CRIU was built.
    #[default]
    Default,
    /// By nft: iptables isn't there.
    Nftables,
    /// Not at all: they come back closed, or neither iptables nor nft is there.
    Skip,
}

/// A duration as a whole number of microseconds.
pub(crate) mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        u64::try_from(value.as_micros()).unwrap_or(u64::MAX).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }

    /// The same for one that may be missing.
    pub(crate) mod optional {
        use super::{Deserialize, Deserializer, Duration, Serializer};

        pub(crate) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
            match value {
                Some(value) => super::serialize(value, to),
                None => to.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
            Ok(Option::<u64>::deserialize(from)?.map(Duration::from_micros))
        }
    }
}

/// A path as a string, or as an array of bytes where it is no UTF-8.
pub(crate) mod path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Spelled {
        Text(String),
        Raw(Vec<u8>),
    }

    impl From<&PathBuf> for Spelled {
        fn from(path: &PathBuf) -> Spelled {
            match path.to_str() {
                Some(text) => Spelled::Text(text.to_owned()),
                None => Spelled::Raw(path.as_os_str().as_bytes().to_vec()),
            }
        }
    }

    impl From<Spelled> for PathBuf {
        fn from(spelled: Spelled) -> PathBuf {
            match spelled {
                Spelled::Text(text) => PathBuf::from(text),
                Spelled::Raw(bytes) => PathBuf::from(OsString::from_vec(bytes)),
            }
        }
    }

    pub(super) fn serialize<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        path.as_ref().map(Spelled::from).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Option::<Spelled>::deserialize(from)?.map(PathBuf::from))
    }

    /// The same for a path that is always there.
    pub(crate) mod required {
        use super::{Deserialize, Deserializer, PathBuf, Serialize, Serializer, Spelled};

        pub(crate) fn serialize<S: Serializer>(path: &PathBuf, to: S) -> Result<S::Ok, S::Error> {
            Spelled::from(path).serialize(to)
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
            Spelled::deserialize(from).map(PathBuf::from)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for text in ["1048576", "1048576 B", "1024k", "1 MiB", "1m", "1MB", "1mib"] {
            assert_eq!(text.parse::<Bytes>().unwrap(), Bytes(1 << 20), "{text}");
        }
        for text in ["", "much", "-1", "1.5g", "1 x", "1ib", "99999999999t"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }
}
