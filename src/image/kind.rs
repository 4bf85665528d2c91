//! Which images there are: their names and the numbers that they start with.

use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind};

/// The number that an image starts with, in every version of the format that is read here.
const COMMON: u32 = 0x5456_4319;
/// The number that a service file starts with.
const SERVICE: u32 = 0x5510_5940;

/// What is read here. Pages of memory are files without structure, and no image in this sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Inventory,
    Tree,
    Core,
    Ids,
    Place,
    Memory,
    Pagemap,
    SharedPagemap,
    FdInfo,
    Files,
    MemFds,
    BpfMapsData,
    PipesData,
    FifosData,
    SocketQueues,
    TcpStream,
    TerminalInfo,
    TerminalData,
    Remaps,
    GhostFile,
    FileLocks,
    Seccomp,
    TimeNamespace,
    NodeNames,
    UserNamespace,
    PidNamespace,
    IpcLimits,
    IpcMemory,
    IpcSemaphores,
    IpcQueues,
    NetworkNamespace,
    NetworkDevices,
    Mounts,
    ControlGroups,
    Processors,
    Stats,
}

/// What stands behind the stem in the name of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suffix {
    None,
    Decimal,
    Hexadecimal,
}

/// The stem of a name, what stands behind it, and the number of the kind.
type Form = (Kind, &'static str, Suffix, u32);

/// A longer stem stands before one that it begins with.
const FORMS: [Form; 36] = [
    (Kind::Inventory, "inventory", Suffix::None, 0x5831_3116),
    (Kind::Tree, "pstree", Suffix::None, 0x5027_3030),
    (Kind::Core, "core", Suffix::Decimal, 0x5505_3847),
    (Kind::Ids, "ids", Suffix::Decimal, 0x5443_2030),
    (Kind::Place, "fs", Suffix::Decimal, 0x5140_3912),
    (Kind::Memory, "mm", Suffix::Decimal, 0x5749_2820),
    (Kind::SharedPagemap, "pagemap-shmem", Suffix::Decimal, 0x5608_4025),
    (Kind::Pagemap, "pagemap", Suffix::Decimal, 0x5608_4025),
    (Kind::FdInfo, "fdinfo", Suffix::Decimal, 0x5621_3732),
    (Kind::Files, "files", Suffix::None, 0x5630_3138),
    (Kind::MemFds, "memfd", Suffix::None, 0x4845_3499),
    (Kind::BpfMapsData, "bpfmap-data", Suffix::None, 0x6432_4033),
    (Kind::PipesData, "pipes-data", Suffix::None, 0x5645_3709),
    (Kind::FifosData, "fifo-data", Suffix::None, 0x5933_3054),
    (Kind::SocketQueues, "sk-queues", Suffix::None, 0x5626_4026),
    (Kind::TcpStream, "tcp-stream", Suffix::Hexadecimal, 0x5146_5506),
    (Kind::TerminalInfo, "tty-info", Suffix::None, 0x5945_3036),
    (Kind::TerminalData, "tty-data", Suffix::None, 0x5941_3026),
    (Kind::Remaps, "remap-fpath", Suffix::None, 0x5913_3954),
    (Kind::GhostFile, "ghost-file", Suffix::Hexadecimal, 0x5258_3605),
    (Kind::FileLocks, "filelocks", Suffix::None, 0x5432_3616),
    (Kind::Seccomp, "seccomp", Suffix::None, 0x6441_3049),
    (Kind::TimeNamespace, "timens", Suffix::Decimal, 0x4311_4433),
    (Kind::NodeNames, "utsns", Suffix::Decimal, 0x5447_3203),
    (Kind::UserNamespace, "userns", Suffix::Decimal, 0x5547_4906),
    (Kind::PidNamespace, "pidns", Suffix::Decimal, 0x6115_7326),
    (Kind::IpcLimits, "ipcns-var", Suffix::Decimal, 0x5311_5007),
    (Kind::IpcMemory, "ipcns-shm", Suffix::Decimal, 0x4628_3044),
    (Kind::IpcSemaphores, "ipcns-sem", Suffix::Decimal, 0x5957_3019),
    (Kind::IpcQueues, "ipcns-msg", Suffix::Decimal, 0x5545_3737),
    (Kind::NetworkNamespace, "netns", Suffix::Decimal, 0x5593_3752),
    (Kind::NetworkDevices, "netdev", Suffix::Decimal, 0x5737_3951),
    (Kind::Mounts, "mountpoints", Suffix::Decimal, 0x5556_3928),
    (Kind::ControlGroups, "cgroup", Suffix::None, 0x5938_3330),
    (Kind::Processors, "cpuinfo", Suffix::None, 0x6140_4013),
    (Kind::Stats, "stats-dump", Suffix::None, 0x5709_3306),
];

impl Kind {
    fn form(self) -> Form {
        let found = FORMS.into_iter().find(|form| form.0 == self);
        found.expect("every kind has a form, which a test holds")
    }

    /// The numbers that a file of this kind starts with.
    pub(super) fn magic(self) -> Vec<u32> {
        let (.., magic) = self.form();
        match self {
            Kind::Inventory => vec![magic],
            Kind::Stats => vec![SERVICE, magic],
            _ => vec![COMMON, magic],
        }
    }

    /// Its name, which is the stem of its files' names.
    #[cfg(feature = "inspect")]
    pub(super) fn name(self) -> &'static str {
        self.form().1
    }
}

/// An image file of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Image {
    pub(super) kind: Kind,
    /// The number in its name; 0 where there is none.
    pub(super) number: u64,
}

impl Image {
    pub(super) const INVENTORY: Image = Image { kind: Kind::Inventory, number: 0 };
    pub(super) const TREE: Image = Image { kind: Kind::Tree, number: 0 };
    pub(super) const FILES: Image = Image { kind: Kind::Files, number: 0 };
    pub(super) const MEM_FDS: Image = Image { kind: Kind::MemFds, number: 0 };
    pub(super) const DUMP_STATS: Image = Image { kind: Kind::Stats, number: 0 };
    #[cfg(feature = "inspect")]
    pub(super) const REMAPS: Image = Image { kind: Kind::Remaps, number: 0 };
    pub(super) const PROCESSORS: Image = Image { kind: Kind::Processors, number: 0 };

    /// The image of this kind with a number in its name.
    pub(super) fn of(kind: Kind, number: impl Into<u64>) -> Image {
        Image { kind, number: number.into() }
    }

    /// The image that a file of this name is; none if that is of no kind that is known here.
    pub(super) fn named(name: &str) -> Option<Image> {
        FORMS.into_iter().find_map(|(kind, stem, suffix, _)| {
            let rest = name.strip_prefix(stem)?;
            let rest = if kind == Kind::Stats { rest } else { rest.strip_suffix(".img")? };
            let number = match suffix {
                Suffix::None => rest.is_empty().then_some(0),
                Suffix::Decimal => rest.strip_prefix('-')?.parse().ok(),
                Suffix::Hexadecimal => u64::from_str_radix(rest.strip_prefix('-')?, 16).ok(),
            };
            let image = Image { kind, number: number? };
            // A number has one spelling.
            (image.file_name() == name).then_some(image)
        })
    }

    /// The name of the file.
    pub(super) fn file_name(self) -> String {
        let (kind, stem, suffix, _) = self.kind.form();
        let extension = if kind == Kind::Stats { "" } else { ".img" };
        match suffix {
            Suffix::None => format!("{stem}{extension}"),
            Suffix::Decimal => format!("{stem}-{}{extension}", self.number),
            Suffix::Hexadecimal => format!("{stem}-{:x}{extension}", self.number),
        }
    }

    /// Where the file is.
    pub(super) fn path(self, images: &Path) -> PathBuf {
        images.join(self.file_name())
    }

    /// The error of a file whose contents can't be.
    pub(super) fn damaged(self, images: &Path, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Damaged, format!("{} is damaged: {what}", self.path(images).display()))
    }
}

/// The names of the pages of the first process, which are written first, and of the last image of all.
pub(crate) fn first_pages_and_last() -> [String; 2] {
    [pages_name(1), Image::INVENTORY.file_name()]
}

/// What CRIU has other programs write, by what their names begin with: the addresses and routes (ip), the rules of the
/// firewall (iptables, nft), and what is in file systems in memory (tar).
#[cfg(feature = "inspect")]
const FOREIGN: [&str; 11] = [
    "ifaddr-",
    "route-",
    "route6-",
    "rule-",
    "iptables-",
    "ip6tables-",
    "nftables-",
    "netns-ct-",
    "netns-exp-",
    "tmpfs-",
    "tmpfs-dev-",
];

/// Whether a file has no numbers at its start and no messages, since another program wrote it.
#[cfg(feature = "inspect")]
pub(super) fn is_foreign(name: &str) -> bool {
    let Some(name) = name.strip_suffix(".img") else { return false };
    FOREIGN.into_iter().any(|stem| {
        let number = name.strip_prefix(stem);
        let number = number
            .map(|rest| rest.strip_suffix(".tar.gz").filter(|_| stem.starts_with("tmpfs")).unwrap_or(rest));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

/// The number in the name of a file of pages.
pub(super) fn pages_id(name: &str) -> Option<u32> {
    let id = name.strip_prefix("pages-")?.strip_suffix(".img")?.parse().ok()?;
    (pages_name(id) == name).then_some(id)
}

/// The name of a file of pages.
pub(super) fn pages_name(id: u32) -> String {
    format!("pages-{id}.img")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for (at, (kind, stem, suffix, _)) in FORMS.into_iter().enumerate() {
            assert_eq!(kind.form().1, stem, "a kind has one form");
            let number = if suffix == Suffix::None { 0 } else { 4700 + at as u64 };
            let image = Image { kind, number };
            assert_eq!(Image::named(&image.file_name()), Some(image));
        }
        assert_eq!(Image::of(Kind::GhostFile, 255_u32).file_name(), "ghost-file-ff.img");
        assert_eq!(pages_id(&pages_name(7)), Some(7));
    }

    #[test]
    fn other_names_are_of_no_kind() {
        for name in [
            "core.img",
            "core-1",
            "core-01.img",
            "core-x.img",
            "pages-1.img",
            "netdevs-9.img",
            "stats-dump.img",
            "",
        ] {
            assert_eq!(Image::named(name), None, "{name}");
        }
        assert_eq!(pages_id("pages-01.img"), None);
    }

    #[cfg(feature = "inspect")]
    #[test]
    fn what_other_programs_wrote_is_told_by_its_name() {
        for name in ["route6-10.img", "netns-ct-3.img", "tmpfs-7.tar.gz.img", "tmpfs-dev-25.tar.gz.img"] {
            assert!(is_foreign(name) && Image::named(name).is_none(), "{name}");
        }
        for name in
            ["route-10", "route-.img", "route-x.img", "rule-1.tar.gz.img", "netns-10.img", "tmpfs.img"]
        {
            assert!(!is_foreign(name), "{name}");
        }
    }
}
