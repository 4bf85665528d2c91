//! The descriptors of a process: what each number refers to.
//!
//! A table of descriptors (`fdinfo-ID.img`) says for each number which open file it refers to; what that is
//! stands once in `files.img`, however many descriptors refer to it, as in the kernel.

#[cfg(feature = "inspect")]
mod closer;

use std::collections::HashMap;
#[cfg(feature = "inspect")]
use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::images::{FdInfo, FileKind, MemFd, MemFdInode, OpenFile, RegularFile};
use super::kind::{Image, Kind};
use crate::error::Result;
use crate::frozen::{Bytes, Descriptor, DescriptorKind};

/// The bits of a mode that say what kind of file it is, and what they are for a regular one.
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

/// What the descriptors of a dump refer to.
pub(super) struct OpenFiles {
    /// By kind and id: an older CRIU gave one id to files of different kinds.
    files: HashMap<(i32, u32), OpenFile>,
    mem_fds: HashMap<u64, MemFdInode>,
    /// The ids of regular files whose path leads to them no more.
    #[cfg(feature = "inspect")]
    remapped: HashSet<u32>,
}

impl OpenFiles {
    /// Reads them all.
    pub(super) fn read(images: &Path) -> Result<OpenFiles> {
        let files = Image::FILES
            .read_all(images)?
            .map(|file| file.map(|file: OpenFile| ((file.r#type, file.id), file)))
            .collect::<Result<HashMap<_, _>>>()?;
        // CRIU writes that image only if it has something to put there.
        let mem_fds = match files.values().any(|file| file.memfd.is_some()) {
            true => mem_fds(images)?,
            false => HashMap::new(),
        };
        Ok(OpenFiles {
            files,
            mem_fds,
            #[cfg(feature = "inspect")]
            remapped: closer::remapped(images)?,
        })
    }

    /// The descriptors of one table, by number.
    pub(super) fn of_table(&self, images: &Path, files_id: u32) -> Result<Vec<Descriptor>> {
        self.entries(images, files_id, |_, descriptor, _| descriptor)
    }

    /// The descriptors of one table, by number, each made of its entry, what is known of it, and what it refers to.
    pub(super) fn entries<D>(
        &self,
        images: &Path,
        files_id: u32,
        make: impl Fn(&FdInfo, Descriptor, &OpenFile) -> D,
    ) -> Result<Vec<D>> {
        let image = Image::of(Kind::FdInfo, files_id);
        let mut entries = image.read_all(images)?.collect::<Result<Vec<FdInfo>>>()?;
        entries.sort_by_key(|entry| entry.fd);
        let made = entries.iter().map(|entry| {
            let found = self.descriptor(entry);
            let (descriptor, file) = found
                .ok_or_else(|| image.damaged(images, format!("descriptor {} refers to nothing", entry.fd)))?;
            Ok(make(entry, descriptor, file))
        });
        made.collect()
    }

    /// What a descriptor refers to, or none if the images don't have it.
    fn descriptor(&self, entry: &FdInfo) -> Option<(Descriptor, &OpenFile)> {
        let file = self.files.get(&(entry.r#type, entry.id))?;
        let about = self.about(file)?;
        let descriptor = Descriptor {
            fd: i32::try_from(entry.fd).ok()?,
            kind: kind(entry.r#type),
            path: about.path,
            flags: about.flags,
            position_bytes: about.position,
            size_bytes: about.size,
            identity: None,
        };
        Some((descriptor, file))
    }

    /// What is known of an open file. None if something that it refers to isn't there.
    fn about(&self, file: &OpenFile) -> Option<About> {
        Some(if let Some(regular) = &file.reg {
            regular_file(regular)
        } else if let Some(pipe) = &file.pipe {
            About::named(pipe.flags, format!("pipe:[{}]", pipe.pipe_id))
        } else if let Some(socket) = &file.isk {
            About::named(socket.flags, format!("socket:[{}]", socket.ino))
        } else if let Some(socket) = &file.usk {
            About::named(socket.flags, format!("socket:[{}]", socket.ino))
        } else if let Some(socket) = &file.nlsk {
            About::named(socket.flags, format!("socket:[{}]", socket.ino))
        } else if let Some(fifo) = &file.fifo {
            self.opened_at(fifo.regf_id.unwrap_or(fifo.id))?
        } else if let Some(terminal) = &file.tty {
            // A terminal that the restore provides has no regular file.
            self.opened_at(terminal.regf_id.unwrap_or(terminal.id)).unwrap_or(About::nameless(terminal.flags))
        } else if let Some(mem_fd) = &file.memfd {
            self.mem_fd(mem_fd)?
        } else {
            About::nameless(nameless_flags(file))
        })
    }

    /// Where and how a named pipe or a terminal was opened, for which CRIU keeps a regular file besides.
    fn opened_at(&self, id: u32) -> Option<About> {
        let key = (FileKind::Regular.into(), id);
        self.files.get(&key)?.reg.as_ref().map(regular_file)
    }

    fn mem_fd(&self, file: &MemFd) -> Option<About> {
        let inode = self.mem_fds.get(&file.inode_id.into())?;
        let name = [b"/memfd:", &*inode.name].concat();
        Some(About {
            flags: file.flags,
            path: Some(path(name)),
            position: Some(Bytes(file.pos)),
            size: Some(Bytes(inode.size)),
        })
    }
}

fn mem_fds(images: &Path) -> Result<HashMap<u64, MemFdInode>> {
    let inodes = Image::MEM_FDS.read_all(images)?;
    inodes.map(|inode| inode.map(|inode: MemFdInode| (inode.inode_id, inode))).collect()
}

/// What is known of an open file.
struct About {
    flags: u32,
    path: Option<PathBuf>,
    position: Option<Bytes>,
    size: Option<Bytes>,
}

impl About {
    fn nameless(flags: u32) -> About {
        About { flags, path: None, position: None, size: None }
    }

    fn named(flags: u32, name: String) -> About {
        About { path: Some(name.into()), ..About::nameless(flags) }
    }
}

fn regular_file(file: &RegularFile) -> About {
    let external = file.ext == Some(true);
    // Folders and devices have a position too, but it isn't one in a file's contents.
    let has_contents = file.mode.is_none_or(|mode| mode & FILE_TYPE == REGULAR);
    About {
        flags: file.flags,
        path: Some(if external { path(file.name.clone()) } else { absolute(&file.name) }),
        position: has_contents.then_some(Bytes(file.pos)),
        size: file.size.map(Bytes),
    }
}

/// The path that a name stands for: an older CRIU left out the slash at its start.
pub(super) fn absolute(name: &[u8]) -> PathBuf {
    Path::new("/").join(path(name.to_vec()))
}

fn path(name: Vec<u8>) -> PathBuf {
    OsString::from_vec(name).into()
}

/// The open flags of what has neither a path nor a number; 0 where the image doesn't have them.
fn nameless_flags(file: &OpenFile) -> u32 {
    let efd = file.efd.as_ref().map(|file| file.flags);
    efd.or(file.epfd.as_ref().map(|file| file.flags))
        .or(file.sgfd.as_ref().map(|file| file.flags))
        .or(file.tfd.as_ref().map(|file| file.flags))
        .or(file.ify.as_ref().map(|file| file.flags))
        .or(file.ffy.as_ref().map(|file| file.flags))
        .or(file.bpf.as_ref().map(|file| file.flags))
        .or(file.psk.as_ref().map(|file| file.flags))
        .or(file.nsf.as_ref().map(|file| file.flags))
        .or(file.pidfd.as_ref().map(|file| file.flags))
        .unwrap_or(0)
}

fn kind(number: i32) -> DescriptorKind {
    match FileKind::try_from(number).unwrap_or(FileKind::Undefined) {
        FileKind::Regular => DescriptorKind::File,
        FileKind::Pipe => DescriptorKind::Pipe,
        FileKind::Fifo => DescriptorKind::Fifo,
        FileKind::InetSocket => DescriptorKind::InetSocket,
        FileKind::UnixSocket => DescriptorKind::UnixSocket,
        FileKind::NetlinkSocket => DescriptorKind::NetlinkSocket,
        FileKind::PacketSocket => DescriptorKind::PacketSocket,
        FileKind::Terminal => DescriptorKind::Terminal,
        FileKind::EventFd => DescriptorKind::EventFd,
        FileKind::EventPoll => DescriptorKind::Epoll,
        FileKind::SignalFd => DescriptorKind::SignalFd,
        FileKind::TimerFd => DescriptorKind::TimerFd,
        FileKind::Inotify | FileKind::Fanotify => DescriptorKind::FileWatch,
        FileKind::MemFd => DescriptorKind::MemFd,
        FileKind::Namespace
        | FileKind::Tun
        | FileKind::External
        | FileKind::BpfMap
        | FileKind::PidFd
        | FileKind::Undefined => DescriptorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::images::{Pipe, Terminal, UnixSocket};
    use super::super::testing::Folder;
    use super::*;
    use crate::error::ErrorKind;

    /// The descriptors of one table that has one for each of these files.
    fn descriptors(files: &[OpenFile]) -> Result<Vec<Descriptor>> {
        let folder = Folder::new();
        folder.write(Image::FILES, files);
        let entries: Vec<_> = files
            .iter()
            .zip(3..)
            .map(|(file, fd)| FdInfo { id: file.id, r#type: file.r#type, fd, ..Default::default() })
            .collect();
        folder.write(Image::of(Kind::FdInfo, 1_u32), &entries);
        OpenFiles::read(folder.path())?.of_table(folder.path(), 1)
    }

    fn descriptor(file: OpenFile) -> Descriptor {
        descriptors(&[file]).unwrap().remove(0)
    }

    fn regular(file: RegularFile) -> OpenFile {
        let kind = FileKind::Regular.into();
        OpenFile { r#type: kind, id: file.id, reg: Some(file), ..Default::default() }
    }

    #[test]
    fn a_kind_that_only_a_newer_criu_knows_is_other() {
        let unknown = descriptor(OpenFile { r#type: 99, id: 1, ..Default::default() });
        assert_eq!((unknown.kind, unknown.path, unknown.flags), (DescriptorKind::Other, None, 0));
    }

    #[test]
    fn a_path_keeps_its_bytes_and_gets_its_slash() {
        for name in [b"/tmp/caf\xe9".to_vec(), b"tmp/caf\xe9".to_vec()] {
            let file = descriptor(regular(RegularFile { name, ..Default::default() }));
            assert_eq!(file.path.unwrap().into_os_string().into_vec(), b"/tmp/caf\xe9");
        }
    }

    #[test]
    fn an_external_file_keeps_the_name_that_criu_gave_it() {
        let file = RegularFile { name: b"file[1:2]".into(), ext: Some(true), ..Default::default() };
        assert_eq!(descriptor(regular(file)).path.unwrap(), Path::new("file[1:2]"));
    }

    #[test]
    fn only_a_regular_file_has_a_position() {
        let of_mode =
            |mode| descriptor(regular(RegularFile { pos: 5, mode: Some(mode), ..Default::default() }));
        assert_eq!(of_mode(0o100_644).position_bytes, Some(Bytes(5)));
        assert_eq!(of_mode(0o040_755).position_bytes, None);
    }

    #[test]
    fn pipes_and_sockets_are_named_as_for_inherit_fd() {
        let pipe = Pipe { id: 1, pipe_id: 42, flags: 1, ..Default::default() };
        let pipe = OpenFile { r#type: FileKind::Pipe.into(), id: 1, pipe: Some(pipe), ..Default::default() };
        let socket = UnixSocket { id: 2, ino: 43, flags: 2, ..Default::default() };
        let kind = FileKind::UnixSocket.into();
        let socket = OpenFile { r#type: kind, id: 2, usk: Some(socket), ..Default::default() };
        let found = descriptors(&[pipe, socket]).unwrap();
        let found: Vec<_> = found.iter().map(|d| (d.fd, d.path.as_deref().unwrap(), d.flags)).collect();
        assert_eq!(found, [(3, Path::new("pipe:[42]"), 1), (4, Path::new("socket:[43]"), 2)]);
    }

    #[test]
    fn a_terminal_is_named_by_where_it_was_opened() {
        let opened =
            regular(RegularFile { id: 8, name: b"/dev/pts/0".into(), flags: 2, ..Default::default() });
        let kind = FileKind::Terminal.into();
        let terminal = |regf_id| OpenFile {
            r#type: kind,
            id: 1,
            tty: Some(Terminal { id: 1, flags: 2, regf_id, ..Default::default() }),
            ..Default::default()
        };
        let named = descriptors(&[terminal(Some(8)), opened]).unwrap().remove(0);
        assert_eq!((named.kind, named.path), (DescriptorKind::Terminal, Some("/dev/pts/0".into())));
        assert_eq!(descriptor(terminal(None)).path, None);
    }

    #[test]
    fn a_descriptor_of_a_file_that_is_not_there_is_damage() {
        let folder = Folder::new();
        folder.write::<OpenFile>(Image::FILES, &[]);
        folder.write(Image::of(Kind::FdInfo, 1_u32), &[FdInfo { fd: 5, ..Default::default() }]);
        let files = OpenFiles::read(folder.path()).unwrap();
        let error = files.of_table(folder.path(), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().ends_with("fdinfo-1.img is damaged: descriptor 5 refers to nothing"));
    }
}
